//! What the pool would take, before anything costly is done for it.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::state::StateError;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::Transaction;
use proofmill_chain::types::units::{Height, Nonce};

use super::{Mempool, growth};
use crate::mempool::InsertError;
use crate::mempool::entry::Terms;

/// Checks transactions against the pool by lookups alone. Those that pass count for the later ones of the
/// same look: a sender may follow itself up, and an account pays for all of them together.
#[derive(Debug)]
pub struct Preview<'a> {
    pub(super) pool: &'a Mempool,
    pub(super) ahead: Ahead,
}

/// Transactions that passed a look and are not in the pool yet.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    senders: BTreeMap<AccountId, Following>,
    reserved: BTreeMap<AccountId, u128>,
    /// Senders of whom one was refused and may be good.
    doubted: BTreeSet<AccountId>,
    /// Whether they may be forged, and so take nothing from anybody.
    pub(super) tentative: bool,
}

/// What a sender has among them.
#[derive(Debug, Default)]
struct Following {
    /// The nonce after the last.
    next: Nonce,
    count: usize,
    bytes: usize,
}

impl Preview<'_> {
    /// Whether [`Mempool::insert`] would take a transaction of `bytes` encoded bytes that the pool does
    /// not know. When room must be made for it, only `insert` finds out whether there is enough.
    ///
    /// # Errors
    /// As [`Mempool::insert`], except [`InsertError::Known`].
    pub fn check(
        &mut self,
        transaction: &Transaction,
        bytes: usize,
        height: Height,
        account: impl Fn(&AccountId) -> Result<Account, StateError>,
    ) -> Result<(), InsertError> {
        let pool = self.pool;
        let terms = pool.terms(transaction, bytes)?;
        let replaced = pool.check_terms(&terms, transaction, height, account, &self.ahead)?;
        let (count, grows) = growth(&terms, replaced);
        if pool.overflows(count, grows) {
            pool.worst_below(&terms.sender, pool.rate_of(&terms))
                .ok_or(InsertError::Full)?;
        }
        if replaced.is_none() {
            self.ahead.note(&terms);
        }
        Ok(())
    }

    /// Whether a refusal may be due to an earlier transaction of the same look, which may be forged: one counts
    /// for the sender or for who pays. What follows of the sender is then in doubt too.
    pub fn doubts(&mut self, transaction: &Transaction) -> bool {
        let (sender, payer) = (transaction.sender, transaction.payer());
        let doubts = self.ahead.counts_for(&sender) || self.ahead.counts_for(&payer);
        if doubts {
            self.ahead.doubted.insert(sender);
        }
        doubts
    }
}

impl Ahead {
    pub(super) fn tentative() -> Self {
        Self {
            tentative: true,
            ..Self::default()
        }
    }

    fn counts_for(&self, account: &AccountId) -> bool {
        self.senders.contains_key(account)
            || self.reserved.contains_key(account)
            || self.doubted.contains(account)
    }

    fn note(&mut self, terms: &Terms) {
        if let Some(next) = terms.nonce.next() {
            let sender = self.senders.entry(terms.sender).or_default();
            sender.next = sender.next.max(next);
            if !self.tentative {
                sender.count += 1;
                sender.bytes += terms.bytes;
            }
        }
        if self.tentative {
            return;
        }
        for (account, amount) in terms.charges() {
            let reserved = self.reserved.entry(account).or_default();
            *reserved = reserved.saturating_add(u128::from(amount.get()));
        }
    }

    pub(super) fn next_nonce(&self, sender: &AccountId) -> Option<Nonce> {
        self.senders.get(sender).map(|sender| sender.next)
    }

    pub(super) fn count_of(&self, sender: &AccountId) -> usize {
        self.senders.get(sender).map_or(0, |sender| sender.count)
    }

    pub(super) fn bytes_of(&self, sender: &AccountId) -> usize {
        self.senders.get(sender).map_or(0, |sender| sender.bytes)
    }

    pub(super) fn reserved_of(&self, account: &AccountId) -> u128 {
        self.reserved.get(account).copied().unwrap_or(0)
    }
}
