//! The queues and the indexes over them, which change only together and only here.

use std::cmp::Reverse;
use std::collections::btree_map::Entry as Place;

use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::{Amount, Nonce};

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
        let tail = (entry.rate, Reverse(entry.sequence), entry.sender());
        let queue = self.queues.entry(entry.sender()).or_default();
        if let Some(before) = queue.back() {
            let old = (before.rate, Reverse(before.sequence), before.sender());
            self.tails.remove(&old);
        }
        queue.push_back(entry);
        self.tails.insert(tail);
    }

    /// Takes the place of the sender's transaction with the same nonce.
    pub(super) fn replace(&mut self, entry: Entry) {
        let sender = entry.sender();
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
        let tail = (entry.rate, Reverse(entry.sequence), sender);
        let old = std::mem::replace(place, entry);
        if is_tail {
            self.tails
                .remove(&(old.rate, Reverse(old.sequence), sender));
            self.tails.insert(tail);
        }
        self.forget(&old);
    }

    pub(super) fn pop_back(&mut self, sender: &AccountId) -> Option<Entry> {
        let Place::Occupied(mut place) = self.queues.entry(*sender) else {
            return None;
        };
        let entry = place.get_mut().pop_back()?;
        self.tails
            .remove(&(entry.rate, Reverse(entry.sequence), *sender));
        match place.get().back() {
            Some(back) => {
                self.tails
                    .insert((back.rate, Reverse(back.sequence), *sender));
            }
            None => {
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
        if place.get().is_empty() {
            self.tails
                .remove(&(entry.rate, Reverse(entry.sequence), *sender));
            place.remove();
        }
        self.forget(&entry);
        Some(entry)
    }

    /// Enters a transaction into the indexes that do not depend on its queue.
    fn note(&mut self, entry: &Entry) {
        let slot = (entry.sender(), entry.nonce());
        self.by_id.insert(entry.id, slot);
        self.by_expiry.insert((entry.expires_at(), entry.id));
        self.by_payer
            .entry(entry.payer())
            .or_default()
            .insert(entry.sequence, slot);
        let reserved = self.reserved.entry(entry.payer()).or_default();
        *reserved = reserved.saturating_plus(entry.cost.get());
        self.bytes += entry.bytes;
    }

    fn forget(&mut self, entry: &Entry) {
        self.by_id.remove(&entry.id);
        self.by_expiry.remove(&(entry.expires_at(), entry.id));
        if let Place::Occupied(mut paid) = self.by_payer.entry(entry.payer()) {
            paid.get_mut().remove(&entry.sequence);
            if paid.get().is_empty() {
                paid.remove();
            }
        }
        if let Place::Occupied(mut reserved) = self.reserved.entry(entry.payer()) {
            let left = reserved.get().get().saturating_sub(entry.cost.get());
            if left == 0 {
                reserved.remove();
            } else {
                reserved.insert(Amount::new(left));
            }
        }
        self.bytes -= entry.bytes;
    }
}
