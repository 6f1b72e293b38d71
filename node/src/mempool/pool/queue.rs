//! One sender's pending transactions.

use std::collections::vec_deque::{IntoIter, Iter};
use std::collections::{BTreeSet, VecDeque};

use proofmill_chain::types::units::Nonce;

use crate::mempool::entry::{Entry, Rank, Rate};

/// A sender's transactions, their nonces consecutive.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// What each pays for its room, the least first.
    rates: BTreeSet<(Rate, Nonce)>,
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Encoded bytes of all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn back(&self) -> Option<&Entry> {
        self.entries.back()
    }

    pub(super) fn entries(&self) -> Iter<'_, Entry> {
        self.entries.iter()
    }

    pub(super) fn into_entries(self) -> IntoIter<Entry> {
        self.entries.into_iter()
    }

    pub(super) fn at(&self, nonce: Nonce) -> Option<&Entry> {
        self.entries.get(self.offset(nonce)?)
    }

    /// Where the last one stands among the last of all queues: it waits for all before it, so its room pays no
    /// more than the least of them does.
    pub(super) fn rank(&self) -> Option<Rank> {
        let (lowest, _) = self.rates.first()?;
        let (_, arrival, sender) = self.entries.back()?.rank();
        Some((*lowest, arrival, sender))
    }

    /// The least that one before this nonce pays for its room.
    pub(super) fn lowest_before(&self, nonce: Nonce) -> Option<Rate> {
        let (lowest, _) = self.rates.iter().find(|(_, at)| *at < nonce)?;
        Some(*lowest)
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        self.note(&entry);
        self.entries.push_back(entry);
    }

    /// Puts a transaction in the place of the one with the same nonce, which it gives.
    pub(super) fn replace(&mut self, entry: Entry) -> Option<Entry> {
        let offset = self.offset(entry.nonce())?;
        let old = self.entries.get(offset)?.clone();
        self.forget(&old);
        self.note(&entry);
        self.entries[offset] = entry;
        Some(old)
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.forget(&entry);
        Some(entry)
    }

    pub(super) fn pop_back(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_back()?;
        self.forget(&entry);
        Some(entry)
    }

    fn offset(&self, nonce: Nonce) -> Option<usize> {
        let first = self.front()?.nonce();
        usize::try_from(nonce.get().checked_sub(first.get())?).ok()
    }

    fn note(&mut self, entry: &Entry) {
        self.rates.insert((entry.terms.rate, entry.nonce()));
        self.bytes += entry.terms.bytes;
    }

    fn forget(&mut self, entry: &Entry) {
        self.rates.remove(&(entry.terms.rate, entry.nonce()));
        self.bytes -= entry.terms.bytes;
    }
}
