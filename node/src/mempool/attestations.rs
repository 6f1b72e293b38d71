//! The pool of attestations: they cost no fee, so each seat has one place per phase.

use std::collections::BTreeMap;

use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::task::{Attestation, AttestationMessage, Statement};

use super::{ATTESTATION_POOL_BYTES_MAX, ATTESTATIONS_MAX};

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttestationLimits {
    /// Most bytes, outputs included.
    pub bytes_max: usize,
    /// Most attestations.
    pub count_max: usize,
}

impl Default for AttestationLimits {
    fn default() -> Self {
        Self {
            bytes_max: ATTESTATION_POOL_BYTES_MAX,
            count_max: ATTESTATIONS_MAX,
        }
    }
}

/// Why an attestation does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It waits already.
    #[error("attestation {id} is known")]
    Known {
        /// Its id.
        id: Hash,
    },
    /// Another statement on the same seat and phase waits; the first one counts.
    #[error("attestation {waiting} waits for the same seat and phase")]
    SeatTaken {
        /// The one that waits.
        waiting: Hash,
    },
    /// There is no room.
    #[error("the pool of attestations is full")]
    Full,
}

/// A worker's seat in a task, and whether it commits or reveals.
type Seat = (Hash, u8, AccountId, Phase);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Commit,
    Reveal,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: Hash,
    message: AttestationMessage,
    bytes: usize,
}

/// Attestations that wait for a block, in order of arrival.
#[derive(Clone, Debug)]
pub struct AttestationPool {
    genesis: Hash,
    limits: AttestationLimits,
    by_arrival: BTreeMap<u64, Waiting>,
    by_id: BTreeMap<Hash, u64>,
    by_seat: BTreeMap<Seat, Hash>,
    bytes: usize,
    sequence: u64,
}

impl AttestationPool {
    /// An empty pool for the chain with this genesis hash.
    #[must_use]
    pub const fn new(genesis: Hash, limits: AttestationLimits) -> Self {
        Self {
            genesis,
            limits,
            by_arrival: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_seat: BTreeMap::new(),
            bytes: 0,
            sequence: 0,
        }
    }

    /// How many attestations wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Encoded bytes of all that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an attestation waits.
    #[must_use]
    pub fn contains(&self, id: &Hash) -> bool {
        self.by_id.contains_key(id)
    }

    /// A waiting attestation.
    #[must_use]
    pub fn get(&self, id: &Hash) -> Option<&AttestationMessage> {
        let arrival = self.by_id.get(id)?;
        self.by_arrival.get(arrival).map(|waiting| &waiting.message)
    }

    /// Takes an attestation that is valid in the state; gives its id.
    ///
    /// # Errors
    /// When it, or another one for the same seat and phase, waits already, or there is no room.
    pub fn insert(&mut self, message: AttestationMessage) -> Result<Hash, AttestationError> {
        let attestation = &message.signed.attestation;
        let id = attestation.id(&self.genesis);
        if self.by_id.contains_key(&id) {
            return Err(AttestationError::Known { id });
        }
        let seat = seat(attestation);
        if let Some(waiting) = self.by_seat.get(&seat) {
            return Err(AttestationError::SeatTaken { waiting: *waiting });
        }
        let bytes = codec::encode(&message).len();
        if self.len() >= self.limits.count_max || self.bytes + bytes > self.limits.bytes_max {
            return Err(AttestationError::Full);
        }
        self.by_id.insert(id, self.sequence);
        self.by_seat.insert(seat, id);
        let waiting = Waiting { id, message, bytes };
        self.by_arrival.insert(self.sequence, waiting);
        self.bytes += bytes;
        self.sequence = self.sequence.saturating_add(1);
        Ok(id)
    }

    /// The waiting attestations, the first to arrive first.
    pub fn iter(&self) -> impl Iterator<Item = &AttestationMessage> {
        self.by_arrival.values().map(|waiting| &waiting.message)
    }

    /// What a block with this much room takes, the first to arrive first.
    #[must_use]
    pub fn select(&self, bytes_max: usize, count_max: usize) -> Vec<AttestationMessage> {
        let mut left = bytes_max;
        let mut selected = Vec::new();
        for waiting in self.by_arrival.values() {
            if selected.len() >= count_max {
                break;
            }
            if let Some(rest) = left.checked_sub(waiting.bytes) {
                left = rest;
                selected.push(waiting.message.clone());
            }
        }
        selected
    }

    /// Drops every attestation that `keep` does not want, as after each block.
    pub fn prune(&mut self, mut keep: impl FnMut(&AttestationMessage) -> bool) {
        let Self {
            by_arrival,
            by_id,
            by_seat,
            bytes,
            ..
        } = self;
        by_arrival.retain(|_, waiting| {
            let stays = keep(&waiting.message);
            if !stays {
                by_id.remove(&waiting.id);
                by_seat.remove(&seat(&waiting.message.signed.attestation));
                *bytes -= waiting.bytes;
            }
            stays
        });
    }
}

fn seat(attestation: &Attestation) -> Seat {
    let phase = match attestation.statement {
        Statement::Commit { .. } => Phase::Commit,
        Statement::Reveal { .. } => Phase::Reveal,
    };
    (
        attestation.task,
        attestation.draw,
        attestation.worker,
        phase,
    )
}
