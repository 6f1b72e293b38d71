//! The queues and the indexes over them, which change only together and only here.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry as Place;

use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Nonce;

use super::Mempool;
use super::queue::Queue;
use crate::mempool::entry::{Entry, Rank};

impl Mempool {
    pub(super) fn slot(&self, sender: &AccountId, nonce: Nonce) -> Option<&Entry> {
        self.queues.get(sender)?.at(nonce)
    }

    /// Appends to the sender's queue.
    pub(super) fn push(&mut self, entry: Entry) {
        self.note(&entry);
        self.change(entry.terms.sender, |queue| queue.push_back(entry));
    }

    /// Takes the place of the sender's transaction with the same nonce.
    pub(super) fn replace(&mut self, entry: Entry) {
        self.note(&entry);
        let old = self.change(entry.terms.sender, |queue| queue.replace(entry));
        if let Some(old) = old {
            self.forget(&old);
        }
    }

    pub(super) fn pop_back(&mut self, sender: &AccountId) -> Option<Entry> {
        let entry = self.change(*sender, Queue::pop_back)?;
        self.forget(&entry);
        Some(entry)
    }

    pub(super) fn pop_front(&mut self, sender: &AccountId) -> Option<Entry> {
        let entry = self.change(*sender, Queue::pop_front)?;
        self.forget(&entry);
        Some(entry)
    }

    /// Changes a sender's queue and what the indexes have of its ends.
    fn change<T>(&mut self, sender: AccountId, change: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = self.queues.entry(sender).or_default();
        let before = (queue.rank(), first_module(queue));
        let changed = change(queue);
        let after = (queue.rank(), first_module(queue));
        if after.0.is_none() {
            self.queues.remove(&sender);
        }
        exchange(&mut self.tails, before.0, after.0);
        exchange(&mut self.modules, before.1, after.1);
        changed
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

/// The rank of a queue's first, where that publishes a module.
fn first_module(queue: &Queue) -> Option<Rank> {
    let first = queue.front()?;
    first.terms.publishes.then(|| first.rank())
}

fn exchange(ranks: &mut BTreeSet<Rank>, before: Option<Rank>, after: Option<Rank>) {
    if before == after {
        return;
    }
    if let Some(rank) = before {
        ranks.remove(&rank);
    }
    ranks.extend(after);
}
