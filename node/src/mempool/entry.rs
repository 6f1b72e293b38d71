//! A pending transaction and what is derived from it once.

use std::cmp::Reverse;
use std::sync::Arc;

use proofmill_chain::execute::spends;
use proofmill_chain::pipeline::VerifiedTransaction;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::FeeRates;
use proofmill_chain::types::transaction::Transaction;
use proofmill_chain::types::units::{Amount, Height, Nonce};

/// Tip per unit of weight, in 2^-32 grain: what a proposer gains from room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rate(u128);

/// Where a transaction stands among others: by what it pays for its room, among equals by arrival.
pub(super) type Rank = (Rate, Reverse<u64>, AccountId);

/// What the pool needs to know of a transaction; no signature, hash or encoding is needed for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) sender: AccountId,
    pub(super) nonce: Nonce,
    pub(super) payer: AccountId,
    /// Encoded.
    pub(super) bytes: usize,
    /// Fee and tip together.
    pub(super) cost: Amount,
    /// What the action takes from the sender beside that.
    pub(super) spend: Amount,
    pub(super) tip: Amount,
    pub(super) max_fee: Amount,
    pub(super) expires_at: Height,
    pub(super) rate: Rate,
    /// Whether it publishes a module.
    pub(super) publishes: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) transaction: Arc<VerifiedTransaction>,
    pub(super) terms: Terms,
    /// In order of arrival.
    pub(super) sequence: u64,
}

impl Terms {
    /// The terms of a transaction of `bytes` encoded bytes; `None` when fee and tip do not fit into 64
    /// bits.
    pub(super) fn of(transaction: &Transaction, bytes: usize, rates: FeeRates) -> Option<Self> {
        let weight = transaction.weight(bytes).get();
        let cost = rates
            .fee(transaction, bytes)?
            .checked_add(transaction.tip)?;
        let rate = (u128::from(transaction.tip.get()) << 32) / u128::from(weight.max(1));
        Some(Self {
            sender: transaction.sender,
            nonce: transaction.nonce,
            payer: transaction.payer(),
            bytes,
            cost,
            spend: spends(&transaction.action),
            tip: transaction.tip,
            max_fee: transaction.max_fee,
            expires_at: transaction.expires_at,
            rate: Rate(rate),
            publishes: transaction.action.module().is_some(),
        })
    }

    /// What the transaction takes from which accounts, each account once.
    pub(super) fn charges(&self) -> impl Iterator<Item = (AccountId, Amount)> {
        let (first, second) = if self.payer == self.sender {
            let both = self.cost.saturating_plus(self.spend.get());
            ((self.payer, both), None)
        } else {
            let spent = (self.spend > Amount::ZERO).then_some((self.sender, self.spend));
            ((self.payer, self.cost), spent)
        };
        std::iter::once(first).chain(second)
    }

    /// What the transaction takes from one account.
    pub(super) fn charge_of(&self, account: &AccountId) -> Amount {
        self.charges()
            .find_map(|(charged, amount)| (charged == *account).then_some(amount))
            .unwrap_or_default()
    }
}

impl Entry {
    pub(super) fn id(&self) -> Hash {
        self.transaction.id()
    }

    pub(super) const fn nonce(&self) -> Nonce {
        self.terms.nonce
    }

    pub(super) const fn rank(&self) -> Rank {
        (self.terms.rate, Reverse(self.sequence), self.terms.sender)
    }
}
