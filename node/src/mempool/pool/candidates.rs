//! The pool's transactions in the order in which a proposer wants them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use proofmill_chain::build::TransactionSource;
use proofmill_chain::pipeline::VerifiedTransaction;
use proofmill_chain::types::hash::AccountId;

use crate::mempool::entry::Rate;

/// A sender's pending transactions by nonce, each with its rate and arrival.
type Queue = VecDeque<(Rate, u64, Arc<VerifiedTransaction>)>;

/// The pending transactions of a moment, without a hold on the pool: the best tip per weight first,
/// among equals the first to arrive, each sender's by nonce.
#[derive(Debug)]
pub struct PoolCandidates {
    queues: BTreeMap<AccountId, Queue>,
    /// What is left of senders who are skipped.
    skipped: BTreeMap<AccountId, Queue>,
    /// The first of each queue; may also have what was first once.
    fronts: BinaryHeap<(Rate, Reverse<u64>, AccountId)>,
}

impl PoolCandidates {
    pub(super) fn new(queues: impl Iterator<Item = (AccountId, Queue)>) -> Self {
        let queues: BTreeMap<_, _> = queues.collect();
        let fronts = queues
            .iter()
            .filter_map(|(sender, queue)| front(*sender, queue))
            .collect();
        Self {
            queues,
            skipped: BTreeMap::new(),
            fronts,
        }
    }
}

fn front(sender: AccountId, queue: &Queue) -> Option<(Rate, Reverse<u64>, AccountId)> {
    let (rate, sequence, _) = queue.front()?;
    Some((*rate, Reverse(*sequence), sender))
}

impl TransactionSource for PoolCandidates {
    fn draw(&mut self) -> Option<Arc<VerifiedTransaction>> {
        while let Some(best) = self.fronts.pop() {
            let (_, _, sender) = best;
            // A skipped sender has no queue; one that was resumed may be there twice.
            let Some(queue) = self.queues.get_mut(&sender) else {
                continue;
            };
            if front(sender, queue) != Some(best) {
                continue;
            }
            let drawn = queue.pop_front();
            self.fronts.extend(front(sender, queue));
            if let Some((_, _, transaction)) = drawn {
                return Some(transaction);
            }
        }
        None
    }

    fn skip_sender(&mut self, sender: &AccountId) {
        if let Some(queue) = self.queues.remove(sender) {
            self.skipped.insert(*sender, queue);
        }
    }

    fn resume_sender(&mut self, sender: &AccountId) {
        if let Some(queue) = self.skipped.remove(sender) {
            self.fronts.extend(front(*sender, &queue));
            self.queues.insert(*sender, queue);
        }
    }
}
