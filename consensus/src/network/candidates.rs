//! Messages under our own key that wait for the verification of their signature, bounded.
//!
//! A stranger can send any number of messages that name our key, each of which costs a signature check.
//! Every peer has a queue of its own and the queues are served in turn, so a flood delays and displaces
//! only what the flooding peer itself delivers. A message that is displaced is counted, and the first one
//! is logged; it revokes nothing, because then any stranger could stop a validator. A process that really
//! uses our key signs at every height, and peers repeat its votes alone and in certificates.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use arc_malachitebft_engine::network::NetworkEvent;
use arc_malachitebft_peer::PeerId;
use proofmill_chain::types::hash::AccountId;

use crate::context::Chain;
use crate::sightings::{Seen, sightings_of};

/// Messages that may wait, over all peers: less than 2 MiB.
pub(super) const WAITING_MAX: usize = 4_096;
/// Messages of one peer that may wait: several answers with as many blocks as fit into one.
pub(super) const WAITING_PER_PEER_MAX: usize = 512;

/// The messages of one event that name our key as their signer, one of each height.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    pub(super) seen: Vec<Seen>,
}

impl Candidate {
    /// What an event has under `key`; `None` when it has nothing. Only addresses are compared.
    pub(super) fn of(event: &NetworkEvent<Chain>, key: AccountId) -> Option<Self> {
        let (peer, seen) = sightings_of(event, key)?;
        let seen: Vec<_> = seen.collect();
        (!seen.is_empty()).then_some(Self { peer, seen })
    }
}

/// The candidates of one peer.
#[derive(Debug, Default)]
struct Queue {
    candidates: VecDeque<Candidate>,
    /// Messages in them.
    messages: usize,
}

/// The queues of all peers.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// No queue is empty.
    queues: BTreeMap<PeerId, Queue>,
    /// The peer served last.
    last: Option<PeerId>,
    /// Messages that wait.
    waiting: usize,
    /// Messages that were displaced.
    displaced: u64,
}

impl Candidates {
    /// Has a candidate wait. When its peer's queue is full, the oldest of that peer goes; when all
    /// together are too many, the oldest of the peer with the longest queue.
    pub(super) fn push(&mut self, candidate: Candidate) {
        let peer = candidate.peer;
        self.waiting += candidate.seen.len();
        let queue = self.queues.entry(peer).or_default();
        queue.messages += candidate.seen.len();
        queue.candidates.push_back(candidate);
        while self.length(&peer) > WAITING_PER_PEER_MAX {
            self.displace(peer);
        }
        while self.waiting > WAITING_MAX {
            let longest = self.queues.keys().max_by_key(|peer| self.length(peer));
            let Some(longest) = longest.copied() else {
                return;
            };
            self.displace(longest);
        }
    }

    /// The oldest candidate of the peer whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        let above = self.last.map_or(Unbounded, Excluded);
        let next = self.queues.range((above, Unbounded)).next();
        let (peer, _) = next.or_else(|| self.queues.first_key_value())?;
        let peer = *peer;
        self.last = Some(peer);
        self.take(peer)
    }

    /// How many messages wait.
    #[cfg(test)]
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    fn length(&self, peer: &PeerId) -> usize {
        self.queues.get(peer).map_or(0, |queue| queue.messages)
    }

    fn displace(&mut self, peer: PeerId) {
        let Some(gone) = self.take(peer) else {
            return;
        };
        if self.displaced == 0 {
            tracing::warn!(
                %peer,
                "a peer delivers more messages under this validator's key than can be verified: its \
                 oldest ones are ignored"
            );
        }
        self.displaced = self.displaced.saturating_add(gone.seen.len() as u64);
    }

    fn take(&mut self, peer: PeerId) -> Option<Candidate> {
        let queue = self.queues.get_mut(&peer)?;
        let taken = queue.candidates.pop_front()?;
        queue.messages -= taken.seen.len();
        self.waiting -= taken.seen.len();
        if queue.candidates.is_empty() {
            self.queues.remove(&peer);
        }
        Some(taken)
    }
}
