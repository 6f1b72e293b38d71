//! The pool of attestations: they cost no fee, so each seat has one place per phase, each worker few
//! places for seats that it may get, and none stays for long before a block can carry it.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::codec;
use proofmill_chain::task::Readiness;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::task::{Attestation, AttestationMessage, Statement};
use proofmill_chain::types::units::Height;

use super::{
    ATTESTATION_POOL_BYTES_MAX, ATTESTATIONS_EARLY_BLOCKS, ATTESTATIONS_EARLY_PER_WORKER,
    ATTESTATIONS_MAX,
};

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
    /// No block can carry it.
    #[error("the worker holds no seat that the attestation fits, and will not be drawn for it")]
    NoSeat,
    /// The next block cannot carry it; a later one may, as far as this state tells.
    #[error(
        "the next block cannot carry the attestation: its task is unknown, or its draw is not due, or its \
         worker may not be drawn"
    )]
    Unseen,
    /// The worker has as many early attestations as it may.
    #[error("{most} attestations of this worker are early, the most there may be")]
    WorkerFull {
        /// The most.
        most: usize,
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
    /// The head when it came.
    since: Height,
    /// Whether the next block may carry it.
    ready: bool,
}

/// Pending attestations, in order of arrival.
#[derive(Clone, Debug)]
pub struct AttestationPool {
    genesis: Hash,
    limits: AttestationLimits,
    by_arrival: BTreeMap<u64, Waiting>,
    by_id: BTreeMap<Hash, u64>,
    by_seat: BTreeMap<Seat, Hash>,
    /// How many of each worker are early.
    early: BTreeMap<AccountId, usize>,
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
            early: BTreeMap::new(),
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

    /// Whether [`Self::insert`] would take an attestation of `bytes` encoded bytes; costs a few lookups.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn check(
        &self,
        attestation: &Attestation,
        bytes: usize,
        readiness: Readiness,
    ) -> Result<(), AttestationError> {
        let id = attestation.id(&self.genesis);
        if self.by_id.contains_key(&id) {
            return Err(AttestationError::Known { id });
        }
        match readiness {
            Readiness::Never => return Err(AttestationError::NoSeat),
            Readiness::Unseen => return Err(AttestationError::Unseen),
            Readiness::Now | Readiness::Later => {}
        }
        if let Some(waiting) = self.by_seat.get(&seat(attestation)) {
            return Err(AttestationError::SeatTaken { waiting: *waiting });
        }
        let early = self.early.get(&attestation.worker).copied();
        if readiness == Readiness::Later && early.unwrap_or(0) >= ATTESTATIONS_EARLY_PER_WORKER {
            return Err(AttestationError::WorkerFull {
                most: ATTESTATIONS_EARLY_PER_WORKER,
            });
        }
        if self.len() >= self.limits.count_max || self.bytes + bytes > self.limits.bytes_max {
            return Err(AttestationError::Full);
        }
        Ok(())
    }

    /// Takes an attestation that is as ready as `readiness` says after block `head`; gives its id.
    ///
    /// # Errors
    /// When it, or another one for the same seat and phase, is pending already, no block can carry it, or
    /// there is no room.
    pub fn insert(
        &mut self,
        message: AttestationMessage,
        readiness: Readiness,
        head: Height,
    ) -> Result<Hash, AttestationError> {
        let bytes = codec::encode(&message).len();
        let attestation = &message.signed.attestation;
        self.check(attestation, bytes, readiness)?;
        let id = attestation.id(&self.genesis);
        let ready = readiness == Readiness::Now;
        self.by_id.insert(id, self.sequence);
        self.by_seat.insert(seat(attestation), id);
        if !ready {
            *self.early.entry(attestation.worker).or_default() += 1;
        }
        let waiting = Waiting {
            id,
            message,
            bytes,
            since: head,
            ready,
        };
        self.by_arrival.insert(self.sequence, waiting);
        self.bytes += bytes;
        self.sequence = self.sequence.saturating_add(1);
        Ok(id)
    }

    /// Whether the next block may carry one of them.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.by_arrival.values().any(|waiting| waiting.ready)
    }

    /// The waiting attestations, the first to arrive first.
    pub fn iter(&self) -> impl Iterator<Item = &AttestationMessage> {
        self.by_arrival.values().map(|waiting| &waiting.message)
    }

    /// What a block with this much room takes, the first to arrive first: those that it may carry, then the
    /// commitments of workers that it may draw, then the reveals that may follow a commitment among these.
    #[must_use]
    pub fn select(&self, bytes_max: usize, count_max: usize) -> Vec<AttestationMessage> {
        let mut left = bytes_max;
        let mut selected = Vec::new();
        let mut committing = BTreeSet::new();
        let of = |ready: bool, commits: bool| {
            self.by_arrival.values().filter(move |waiting| {
                let statement = &waiting.message.signed.attestation.statement;
                waiting.ready == ready && matches!(statement, Statement::Commit { .. }) == commits
            })
        };
        let ready = self.by_arrival.values().filter(|waiting| waiting.ready);
        for waiting in ready.chain(of(false, true)).chain(of(false, false)) {
            if selected.len() >= count_max {
                break;
            }
            let attestation = &waiting.message.signed.attestation;
            let commits = matches!(attestation.statement, Statement::Commit { .. });
            if !waiting.ready && !commits && !committing.contains(&attestation.task) {
                continue;
            }
            if let Some(rest) = left.checked_sub(waiting.bytes) {
                left = rest;
                if commits {
                    committing.insert(attestation.task);
                }
                selected.push(waiting.message.clone());
            }
        }
        selected
    }

    /// Asks anew how ready each is after block `head`, and drops what no block can carry and what has
    /// been early for [`ATTESTATIONS_EARLY_BLOCKS`].
    pub fn update(
        &mut self,
        head: Height,
        mut readiness: impl FnMut(&AttestationMessage) -> Readiness,
    ) {
        let Self {
            by_arrival,
            by_id,
            by_seat,
            early,
            bytes,
            ..
        } = self;
        early.clear();
        by_arrival.retain(|_, waiting| {
            let attestation = &waiting.message.signed.attestation;
            let stays = match readiness(&waiting.message) {
                Readiness::Now => {
                    waiting.ready = true;
                    true
                }
                Readiness::Later => {
                    waiting.ready = false;
                    head.since(waiting.since) < ATTESTATIONS_EARLY_BLOCKS
                }
                Readiness::Unseen | Readiness::Never => false,
            };
            if !stays {
                by_id.remove(&waiting.id);
                by_seat.remove(&seat(attestation));
                *bytes -= waiting.bytes;
            } else if !waiting.ready {
                *early.entry(attestation.worker).or_default() += 1;
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
