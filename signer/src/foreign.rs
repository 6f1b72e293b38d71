//! Messages under our own key that we did not sign: another process uses the key.

use core::fmt;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};

use crate::message::Block;
use crate::record::{Position, ROUNDS_KEPT_MAX, Record};

/// A message under our key whose signature was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A proposal.
    Proposal {
        /// Its height.
        height: Height,
        /// Its round.
        round: Round,
        /// The round of the proof of lock.
        pol_round: Option<Round>,
        /// The block.
        block: Hash,
    },
    /// A vote, alone or in a certificate.
    Vote {
        /// Its kind.
        kind: VoteKind,
        /// Its height.
        height: Height,
        /// Its round.
        round: Round,
        /// The block or nil.
        block: Block,
    },
}

impl Sighting {
    /// Its height and round.
    #[must_use]
    pub const fn place(&self) -> (Height, Round) {
        match self {
            Self::Proposal { height, round, .. } | Self::Vote { height, round, .. } => {
                (*height, *round)
            }
        }
    }
}

/// A message of another process that uses our key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is.
    pub sighting: Sighting,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sighting.fmt(f)
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (position, height, round, block) = match self {
            Self::Proposal {
                height,
                round,
                block,
                ..
            } => (Position::Proposal, height, round, Some(block)),
            Self::Vote {
                kind,
                height,
                round,
                block,
            } => {
                let position = match kind {
                    VoteKind::Prevote => Position::Prevote,
                    VoteKind::Precommit => Position::Precommit,
                };
                (position, height, round, block.as_ref())
            }
        };
        write!(f, "{position} of height {height}, round {round} for ")?;
        match block {
            Some(block) => write!(f, "block {block}"),
            None => f.write_str("nil"),
        }
    }
}

impl Record {
    /// Whether a verified message under our key is none of ours: above everything that we signed,
    /// or, at our height, different from what we signed or in a place where we signed nothing. At the
    /// [amnesic height](Record::amnesic_height) nothing is: it may be what the lost guard signed.
    #[must_use]
    pub fn foreign(&self, sighting: &Sighting) -> Option<Foreign> {
        let (height, round) = sighting.place();
        // What lies below is not recorded any more, and at the floor nothing was.
        let recorded = height >= self.height() && height > self.floor();
        let amnesic = self.amnesic_height() == Some(height);
        if !recorded || amnesic || (height == self.height() && self.forgot(round)) {
            return None;
        }
        let turn = self.turns().get(&round);
        let ours = height == self.height()
            && match sighting {
                Sighting::Proposal {
                    pol_round, block, ..
                } => turn
                    .and_then(|turn| turn.proposal)
                    .is_some_and(|(pol, hash, _)| (pol, hash) == (*pol_round, *block)),
                Sighting::Vote { kind, block, .. } => turn
                    .and_then(|turn| turn.vote(*kind))
                    .is_some_and(|(stored, _)| stored == block),
            };
        (!ours).then_some(Foreign {
            sighting: *sighting,
        })
    }

    /// Whether a round of the height may have been dropped from the record.
    fn forgot(&self, round: Round) -> bool {
        let oldest = self.turns().first_key_value();
        self.turns().len() >= ROUNDS_KEPT_MAX && oldest.is_some_and(|(oldest, _)| round < *oldest)
    }
}
