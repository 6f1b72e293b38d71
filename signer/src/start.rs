//! What a node with a validator's key may do when it starts.
//!
//! The guard is compared with the consensus log: the engine restores its state from the log, so a
//! message that the log lacks is one that the engine does not know it has sent.

use core::fmt;
use std::collections::BTreeSet;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};

use crate::message::Block;
use crate::record::{Position, Record};

/// The votes and proposals under our key in the consensus log of one height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedMessages {
    /// Round of the proof of lock and block, by round.
    pub proposals: Vec<(Round, Option<Round>, Hash)>,
    /// Kind, round and block.
    pub votes: Vec<(VoteKind, Round, Block)>,
}

/// Why a node does not sign yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The blocks in the database end before the guard's height.
    Behind,
    /// The log is of another height, empty or not there.
    LogMissing,
    /// The log cannot be read.
    LogDamaged(String),
    /// The log ends more than one round before the last signature.
    LogShort {
        /// How many messages it lacks.
        missing: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind => f.write_str("the database is behind the guard"),
            Self::LogMissing => f.write_str("the consensus log of that height is missing"),
            Self::LogDamaged(error) => write!(f, "the consensus log is damaged: {error}"),
            Self::LogShort { missing } => {
                write!(f, "the consensus log lacks {missing} signed messages")
            }
        }
    }
}

/// How to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Sign, with an empty log: no vote or proposal was signed at the next height, so nothing of it is
    /// needed.
    Begin,
    /// Sign, with the log as it is. A block precommit that the log lacks binds from now on until the
    /// height is decided: it must be in the record ([`Record::bound_by`]) before the engine starts.
    Continue {
        /// The round and block of that precommit.
        lock: Option<(Round, Hash)>,
    },
    /// Follow without signing until a block above this height is to be decided.
    Follow {
        /// The last height that must be committed first.
        until: Height,
        /// Why.
        reason: Reason,
    },
}

/// The guard is older than what its key has signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the consensus log holds a {position} of height {height}, round {round} that the guard lacks"
)]
pub struct StartError {
    /// What the log holds.
    pub position: Position,
    /// Its height.
    pub height: Height,
    /// Its round.
    pub round: Round,
}

/// Decides how a validator starts. `next` is the height after the last committed block; `log` the
/// messages under our key in the log of that height, `None` when the log is not of that height, an
/// error when it cannot be read.
///
/// # Errors
/// When the log holds a message that the guard lacks: the guard is an old copy.
pub fn plan(
    record: &Record,
    next: Height,
    log: Result<Option<LoggedMessages>, String>,
) -> Result<Plan, StartError> {
    if let Ok(Some(log)) = &log
        && let Some(extra) = extra(record, next, log)
    {
        return Err(extra);
    }
    if next > record.height() {
        return Ok(Plan::Begin);
    }
    let follow = |reason| {
        Ok(Plan::Follow {
            until: record.height(),
            reason,
        })
    };
    if next < record.height() || next <= record.floor() {
        return follow(Reason::Behind);
    }
    let signed = signed(record);
    if signed.is_empty() {
        // The engine would not open a damaged log, at this start as at every later one.
        return Ok(if log.is_err() {
            Plan::Begin
        } else {
            Plan::Continue { lock: None }
        });
    }
    let log = match log {
        Ok(log) => log,
        Err(error) => return follow(Reason::LogDamaged(error)),
    };
    let of_height = log.is_some();
    let log = log.unwrap_or_default();
    // The log is written in order. A gap before a message that it holds is no damage: the
    // engine logs nothing while it replays, so a message that a kill had kept out of the log stays
    // out of it. What lies behind it may be a burst that the engine signed before its next flush,
    // which is of one round; a power cut takes all of it.
    let missing: Vec<_> = signed.iter().filter(|one| !one.is_in(&log)).collect();
    let logged = signed.iter().rposition(|one| one.is_in(&log));
    let tail = &signed[logged.map_or(0, |last| last + 1)..];
    let rounds: BTreeSet<Round> = tail.iter().map(One::round).collect();
    if !of_height && missing.len() > 1 {
        return follow(Reason::LogMissing);
    }
    if rounds.len() > 1 {
        let missing = missing.len();
        return follow(Reason::LogShort { missing });
    }
    let locked = signed.iter().rev().find(|one| one.binding().is_some());
    let lock = locked.filter(|one| missing.contains(one));
    // A precommit that once was missing stays binding: when the network brings it back, the engine
    // logs it like any vote and takes no lock.
    Ok(Plan::Continue {
        lock: record.bound().or_else(|| lock.and_then(One::binding)),
    })
}

/// A vote or proposal of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum One {
    Proposal(Round, Option<Round>, Hash),
    Vote(VoteKind, Round, Block),
}

impl One {
    fn is_in(&self, log: &LoggedMessages) -> bool {
        match self {
            Self::Proposal(round, pol_round, block) => {
                log.proposals.contains(&(*round, *pol_round, *block))
            }
            Self::Vote(kind, round, block) => log.votes.contains(&(*kind, *round, *block)),
        }
    }

    const fn round(&self) -> Round {
        match self {
            Self::Proposal(round, ..) | Self::Vote(_, round, _) => *round,
        }
    }

    const fn binding(&self) -> Option<(Round, Hash)> {
        match self {
            Self::Vote(VoteKind::Precommit, round, Some(block)) => Some((*round, *block)),
            _ => None,
        }
    }
}

/// The record's votes and proposals in the order in which they were signed.
fn signed(record: &Record) -> Vec<One> {
    let mut all = Vec::new();
    for (round, turn) in record.turns() {
        let proposal = turn.proposal;
        all.extend(proposal.map(|(pol_round, block, _)| One::Proposal(*round, pol_round, block)));
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            let vote = turn.vote(kind);
            all.extend(vote.map(|(block, _)| One::Vote(kind, *round, *block)));
        }
    }
    all
}

/// A message of the log that should be in the record and is not.
fn extra(record: &Record, height: Height, log: &LoggedMessages) -> Option<StartError> {
    let amnesic = record.amnesic_height() == Some(height);
    if height < record.height() || height <= record.floor() || amnesic {
        return None;
    }
    let oldest = record.turns().first_key_value().map(|(round, _)| *round);
    let known = |round: Round| height == record.height() && oldest.is_some_and(|old| round < old);
    let signed = if height == record.height() {
        signed(record)
    } else {
        Vec::new()
    };
    let proposals = log.proposals.iter();
    let proposals = proposals.map(|(round, pol, block)| One::Proposal(*round, *pol, *block));
    let votes = log.votes.iter();
    let votes = votes.map(|(kind, round, block)| One::Vote(*kind, *round, *block));
    proposals.chain(votes).find_map(|one| {
        let (position, round) = match one {
            One::Proposal(round, ..) => (Position::Proposal, round),
            One::Vote(VoteKind::Prevote, round, _) => (Position::Prevote, round),
            One::Vote(VoteKind::Precommit, round, _) => (Position::Precommit, round),
        };
        (!known(round) && !signed.contains(&one)).then_some(StartError {
            position,
            height,
            round,
        })
    })
}
