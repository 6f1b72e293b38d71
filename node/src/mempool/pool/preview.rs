//! What the pool would take, before anything costly is done for it.

use std::collections::BTreeMap;

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
    senders: BTreeMap<AccountId, (Nonce, usize)>,
    reserved: BTreeMap<AccountId, u128>,
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
            pool.worst_below(&terms).ok_or(InsertError::Full)?;
        }
        if replaced.is_none() {
            self.ahead.note(&terms);
        }
        Ok(())
    }
}

impl Ahead {
    fn note(&mut self, terms: &Terms) {
        if let Some(next) = terms.nonce.next() {
            let sender = self.senders.entry(terms.sender).or_insert((next, 0));
            *sender = (next, sender.1 + 1);
        }
        for (account, amount) in terms.charges() {
            let reserved = self.reserved.entry(account).or_default();
            *reserved = reserved.saturating_add(u128::from(amount.get()));
        }
    }

    pub(super) fn next_nonce(&self, sender: &AccountId) -> Option<Nonce> {
        self.senders.get(sender).map(|(next, _)| *next)
    }

    pub(super) fn count_of(&self, sender: &AccountId) -> usize {
        self.senders.get(sender).map_or(0, |(_, count)| *count)
    }

    pub(super) fn reserved_of(&self, account: &AccountId) -> u128 {
        self.reserved.get(account).copied().unwrap_or(0)
    }
}
