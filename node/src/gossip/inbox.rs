//! Messages of peers that wait for the node's verdict: bounded, and shared fairly between the peers.
//!
//! Each peer has a queue of its own. Messages are taken from the peers in turn, and when there are too
//! many, the newest of the peer with the largest queue is dropped; so a peer that floods drops its own
//! messages and delays nobody else's by more than one message per turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use tokio::sync::Notify;

use super::{INCOMING_BYTES_MAX, INCOMING_QUEUE, Incoming};

/// What a message counts beside its bytes, so that many small ones weigh as much as the bytes that the
/// queue may hold.
const MESSAGE_WEIGHT: usize = INCOMING_BYTES_MAX / INCOMING_QUEUE;

/// A batch ends with the message that reaches so many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// The node's end: messages that wait for its verdict.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

/// The network's end. The inbox ends when it goes.
#[derive(Debug)]
pub(super) struct Postman(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Never an empty queue.
    peers: BTreeMap<PeerId, Queue>,
    /// The peers with a queue, the next one first.
    turns: VecDeque<PeerId>,
    count: usize,
    bytes: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Incoming>,
    bytes: usize,
}

pub(super) fn inbox() -> (Postman, Inbox) {
    let shared = Arc::new(Shared::default());
    (Postman(Arc::clone(&shared)), Inbox(shared))
}

impl Postman {
    /// Puts a message in; returns how many messages were dropped for it, itself perhaps.
    pub(super) fn put(&self, message: Incoming) -> u64 {
        let mut dropped = Vec::new();
        {
            let mut waiting = self.0.waiting();
            waiting.push(message);
            while waiting.count > INCOMING_QUEUE || waiting.bytes > INCOMING_BYTES_MAX {
                dropped.extend(waiting.drop_one());
            }
        }
        self.0.arrived.notify_one();
        dropped.len() as u64
    }
}

impl Drop for Postman {
    fn drop(&mut self) {
        self.0.waiting().closed = true;
        self.0.arrived.notify_one();
    }
}

impl Inbox {
    /// The next message; `None` when gossip has stopped and none is left.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.next_batch(1).await.pop()
    }

    /// Whether gossip has stopped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.waiting().closed
    }

    /// The next messages, at least one and at most `most`, or fewer when they are large; none when gossip has stopped and none is left.
    pub async fn next_batch(&mut self, most: usize) -> Vec<Incoming> {
        loop {
            {
                let mut waiting = self.0.waiting();
                if waiting.count > 0 || waiting.closed {
                    return waiting.take(most);
                }
            }
            // One permit is kept for who comes late, so nothing that arrives here is missed.
            self.0.arrived.notified().await;
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic while the lock was held left consistent data: it is held for one call at a time.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, message: Incoming) {
        let bytes = message.bytes.len();
        let queue = self.peers.entry(message.peer).or_default();
        if queue.messages.is_empty() {
            self.turns.push_back(message.peer);
        }
        queue.bytes += bytes;
        queue.messages.push_back(message);
        self.count += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, most: usize) -> Vec<Incoming> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < most
            && bytes < BATCH_BYTES
            && let Some(peer) = self.turns.pop_front()
        {
            let message = self.remove(&peer, VecDeque::pop_front);
            bytes += message.as_ref().map_or(0, |message| message.bytes.len());
            taken.extend(message);
            if self.peers.contains_key(&peer) {
                self.turns.push_back(peer);
            }
        }
        taken
    }

    /// Drops the newest message of the peer with the largest queue.
    fn drop_one(&mut self) -> Option<Incoming> {
        let weight = |queue: &Queue| queue.bytes + queue.messages.len() * MESSAGE_WEIGHT;
        let (peer, _) = self.peers.iter().max_by_key(|(_, queue)| weight(queue))?;
        let peer = *peer;
        let dropped = self.remove(&peer, VecDeque::pop_back);
        if !self.peers.contains_key(&peer) {
            self.turns.retain(|turn| *turn != peer);
        }
        dropped
    }

    fn remove(
        &mut self,
        peer: &PeerId,
        pop: impl Fn(&mut VecDeque<Incoming>) -> Option<Incoming>,
    ) -> Option<Incoming> {
        let queue = self.peers.get_mut(peer)?;
        let message = pop(&mut queue.messages)?;
        let bytes = message.bytes.len();
        queue.bytes -= bytes;
        if queue.messages.is_empty() {
            self.peers.remove(peer);
        }
        self.count -= 1;
        self.bytes -= bytes;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;
    use tokio::sync::oneshot;

    use super::super::{INCOMING_BYTES_MAX, INCOMING_QUEUE, Incoming, Topic};
    use super::inbox;

    fn message(peer: PeerId, bytes: usize) -> Incoming {
        Incoming {
            topic: Topic::Transactions,
            bytes: vec![0; bytes],
            peer,
            verdict: oneshot::channel().0,
        }
    }

    #[tokio::test]
    async fn a_flood_drops_its_own_messages_and_waits_its_turn() {
        let (flooding, quiet) = (PeerId::random(), PeerId::random());
        let (postman, mut inbox) = inbox();
        for _ in 0..INCOMING_QUEUE {
            assert_eq!(postman.put(message(flooding, 10)), 0);
        }
        for _ in 0..3 {
            assert_eq!(postman.put(message(quiet, 10)), 1);
        }
        assert_eq!(postman.put(message(flooding, 10)), 1);
        let first: Vec<_> = inbox
            .next_batch(6)
            .await
            .iter()
            .map(|one| one.peer)
            .collect();
        assert_eq!(first, [flooding, quiet, flooding, quiet, flooding, quiet]);
        drop(postman);
        let mut left = 0;
        while inbox.next().await.is_some_and(|one| one.peer == flooding) {
            left += 1;
        }
        assert_eq!(left, INCOMING_QUEUE - 6);
        assert!(inbox.next_batch(9).await.is_empty());
    }

    #[tokio::test]
    async fn large_messages_are_bounded_by_their_bytes() {
        let (large, small) = (PeerId::random(), PeerId::random());
        let (postman, mut inbox) = inbox();
        let bytes = Topic::Transactions.bytes_max();
        for _ in 0..100 {
            assert_eq!(postman.put(message(small, 10)), 0);
        }
        let fit = (INCOMING_BYTES_MAX - 1_000) / bytes;
        for number in 0..2 * fit {
            assert_eq!(postman.put(message(large, bytes)), u64::from(number >= fit));
        }
        drop(postman);
        let mut all = Vec::new();
        while let Some(one) = inbox.next().await {
            all.push(one);
        }
        let of = |peer| all.iter().filter(|one| one.peer == peer).count();
        assert_eq!((of(small), of(large)), (100, fit));
    }
}
