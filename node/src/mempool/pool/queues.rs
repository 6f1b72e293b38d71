//! The queues and the indexes over them, which change only together and only here.

use std::collections::btree_map::Entry as Place;

use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Nonce;

use super::Mempool;
use crate::mempool::entry::Entry;

impl Mempool {
    pub(super) fn slot(&self, sender: &AccountId, nonce: Nonce) -> Option<&Entry> {
        let queue = self.queues.get(sender)?;
        let first = queue.front()?.nonce();
        let offset = nonce.get().checked_sub(first.get())?;
        queue.get(usize::try_from(offset).ok()?)
    }

    /// Appends to the sender's queue.
    pub(super) fn push(&mut self, entry: Entry) {
        self.note(&entry);
        let rank = entry.rank();
        let queue = self.queues.entry(entry.terms.sender).or_default();
        match queue.back() {
            Some(before) => {
                self.tails.remove(&before.rank());
            }
            None if entry.terms.publishes => {
                self.modules.insert(rank);
            }
            None => {}
        }
        queue.push_back(entry);
        self.tails.insert(rank);
    }

    /// Takes the place of the sender's transaction with the same nonce.
    pub(super) fn replace(&mut self, entry: Entry) {
        let sender = entry.terms.sender;
        self.note(&entry);
        let Some(queue) = self.queues.get_mut(&sender) else {
            return;
        };
        let first = queue.front().map_or(Nonce::ZERO, Entry::nonce).get();
        let offset = usize::try_from(entry.nonce().get().saturating_sub(first));
        let last = queue.len().saturating_sub(1);
        let Some(place) = offset.ok().and_then(|at| queue.get_mut(at)) else {
            return;
        };
        let is_tail = place.nonce().get() - first == last as u64;
        let is_first = place.nonce().get() == first;
        let (rank, publishes) = (entry.rank(), entry.terms.publishes);
        let old = std::mem::replace(place, entry);
        if is_tail {
            self.tails.remove(&old.rank());
            self.tails.insert(rank);
        }
        if is_first {
            self.modules.remove(&old.rank());
        }
        if is_first && publishes {
            self.modules.insert(rank);
        }
        self.forget(&old);
    }

    pub(super) fn pop_back(&mut self, sender: &AccountId) -> Option<Entry> {
        let Place::Occupied(mut place) = self.queues.entry(*sender) else {
            return None;
        };
        let entry = place.get_mut().pop_back()?;
        self.tails.remove(&entry.rank());
        match place.get().back() {
            Some(back) => {
                self.tails.insert(back.rank());
            }
            None => {
                self.modules.remove(&entry.rank());
                place.remove();
            }
        }
        self.forget(&entry);
        Some(entry)
    }

    pub(super) fn pop_front(&mut self, sender: &AccountId) -> Option<Entry> {
        let Place::Occupied(mut place) = self.queues.entry(*sender) else {
            return None;
        };
        let entry = place.get_mut().pop_front()?;
        self.modules.remove(&entry.rank());
        match place.get().front() {
            Some(front) if front.terms.publishes => {
                self.modules.insert(front.rank());
            }
            Some(_) => {}
            None => {
                self.tails.remove(&entry.rank());
                place.remove();
            }
        }
        self.forget(&entry);
        Some(entry)
    }

    /// Enters a transaction into the indexes that do not depend on its queue.
    fn note(&mut self, entry: &Entry) {
        let slot = (entry.terms.sender, entry.nonce());
        self.by_id.insert(entry.id(), slot);
        self.by_expiry.insert((entry.terms.expires_at, entry.id()));
        for (account, amount) in entry.terms.charges() {
            let charged = self.charged.entry(account).or_default();
            charged.slots.insert(entry.sequence, slot);
            charged.reserved = charged.reserved.saturating_add(u128::from(amount.get()));
        }
        self.bytes += entry.terms.bytes;
    }

    fn forget(&mut self, entry: &Entry) {
        self.by_id.remove(&entry.id());
        self.by_expiry.remove(&(entry.terms.expires_at, entry.id()));
        for (account, amount) in entry.terms.charges() {
            let Place::Occupied(mut place) = self.charged.entry(account) else {
                continue;
            };
            let charged = place.get_mut();
            charged.slots.remove(&entry.sequence);
            charged.reserved -= u128::from(amount.get());
            if charged.slots.is_empty() {
                place.remove();
            }
        }
        self.bytes -= entry.terms.bytes;
    }
}
