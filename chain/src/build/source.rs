//! Where a proposer's transactions come from.

use std::sync::Arc;

use crate::pipeline::VerifiedTransaction;
use crate::types::hash::{AccountId, Hash};
use crate::types::transaction::SignedTransaction;

/// Candidates for a block, each sender's in ascending order of nonces.
///
/// The builder draws until the block is full, and reports the senders of whom no more can be included, so
/// that a source need not offer a thousand follow-ups one by one.
pub trait TransactionSource {
    /// The next candidate in order of preference, `None` when there are no more.
    fn draw(&mut self) -> Option<Arc<VerifiedTransaction>>;

    /// The sender's remaining candidates cannot be included in this block: one before them was
    /// refused or did not fit.
    fn skip_sender(&mut self, sender: &AccountId);

    /// There is room after all for the candidate for which the sender was skipped: offers the remaining ones
    /// again.
    fn resume_sender(&mut self, sender: &AccountId);
}

/// A list, of which every candidate is tried.
pub(super) struct Listed {
    transactions: std::vec::IntoIter<SignedTransaction>,
    genesis: Hash,
}

impl Listed {
    pub(super) fn new(transactions: Vec<SignedTransaction>, genesis: &Hash) -> Self {
        Self {
            transactions: transactions.into_iter(),
            genesis: *genesis,
        }
    }
}

impl TransactionSource for Listed {
    fn draw(&mut self) -> Option<Arc<VerifiedTransaction>> {
        let signed = self.transactions.next()?;
        Some(Arc::new(VerifiedTransaction::vouched(
            signed,
            &self.genesis,
        )))
    }

    fn skip_sender(&mut self, _: &AccountId) {}

    fn resume_sender(&mut self, _: &AccountId) {}
}
