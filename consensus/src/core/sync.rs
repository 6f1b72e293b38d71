//! Decided blocks from other nodes.
//!
//! The engine verifies a synced block's certificate before the block comes here. The hash that the
//! certificate names comes first: other bytes are their sender's fault and are neither executed nor
//! stored. Bytes that have it are the block that more than two thirds of the power decided, so the
//! local clock has no say in it, and when a rule of ours refuses it no peer is to blame: this node
//! disagrees with the certified chain and stops.

use std::sync::Arc;

use proofmill_chain::finality::check_turn;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};

use super::api::{Answer, BlockFacts, Command, Proposed, SyncOutcome, Ticket, Verdict};
use super::proposals::Judgement;
use super::{Core, Work};
use crate::undecided::UndecidedProposal;

/// Synced blocks that wait for their parent. The engine hands out one at a time.
pub const SYNCED_MAX: usize = 4;

/// A block of which a peer says that it was decided.
#[derive(Debug)]
pub(super) struct Synced {
    pub(super) ticket: Ticket,
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) proposer: AccountId,
    /// The hash that the certificate names.
    pub(super) block: Hash,
    pub(super) bytes: Arc<[u8]>,
}

impl Core {
    pub(super) fn synced_value(&mut self, synced: Synced) {
        if synced.bytes.is_empty() || synced.bytes.len() > self.config.block_bytes_max {
            return self.answer_synced(&synced, SyncOutcome::PeerFault);
        }
        if synced.height <= self.committed {
            return self.answer_synced(&synced, SyncOutcome::OurFault);
        }
        if synced.height == self.committed.next() {
            return self.inspect_synced(synced);
        }
        if self.synced_waiting.len() >= SYNCED_MAX {
            return self.answer_synced(&synced, SyncOutcome::OurFault);
        }
        self.synced_waiting.push(synced);
    }

    /// Takes up what waited for its parent.
    pub(super) fn judge_synced_waiting(&mut self) {
        for synced in std::mem::take(&mut self.synced_waiting) {
            self.synced_value(synced);
        }
    }

    fn answer_synced(&mut self, synced: &Synced, outcome: SyncOutcome) {
        self.answer(synced.ticket, Answer::Synced(outcome));
    }

    fn inspect_synced(&mut self, synced: Synced) {
        let bytes = Arc::clone(&synced.bytes);
        let job = self.begin(Work::InspectSynced(synced));
        self.order(Command::Inspect { job, bytes });
    }

    pub(super) fn synced_inspected(&mut self, synced: Synced, facts: Result<BlockFacts, String>) {
        let facts = facts.ok().filter(|facts| facts.hash == synced.block);
        let Some(facts) = facts else {
            return self.answer_synced(&synced, SyncOutcome::PeerFault);
        };
        let Some(validators) = self.validators.get(&synced.height) else {
            return self.answer_synced(&synced, SyncOutcome::OurFault);
        };
        if facts.turn.height != synced.height {
            let reason = format!("its header is of height {}", facts.turn.height);
            return self.disagree(&synced, reason);
        }
        if let Err(error) = check_turn(&facts.turn, validators, synced.round) {
            return self.disagree(&synced, error.to_string());
        }
        match self.proposals.judgement(synced.height, &facts.hash) {
            // A valid block is on the disk already.
            Some(Judgement { invalid: None, .. }) => self.synced_stored(&synced, &facts, true),
            Some(Judgement {
                invalid: Some(reason),
                ..
            }) => {
                let reason = reason.to_string();
                self.disagree(&synced, reason);
            }
            None => {
                let Synced { height, round, .. } = synced;
                let bytes = Arc::clone(&synced.bytes);
                let job = self.begin(Work::JudgeSynced(synced, facts));
                self.order(Command::Judge {
                    job,
                    height,
                    round,
                    block: facts.hash,
                    bytes,
                });
            }
        }
    }

    pub(super) fn synced_judged(&mut self, synced: Synced, facts: BlockFacts, verdict: &Verdict) {
        match verdict {
            Verdict::Valid => self.store_synced(synced, facts),
            Verdict::Invalid { reason } => self.disagree(&synced, reason.clone()),
            Verdict::Failed { .. } => self.answer_synced(&synced, SyncOutcome::OurFault),
        }
    }

    /// The certified block breaks a rule of ours. Another peer could only send the same block.
    fn disagree(&mut self, synced: &Synced, reason: String) {
        self.answer_synced(synced, SyncOutcome::OurFault);
        self.order(Command::Disagree {
            height: synced.height,
            block: synced.block,
            bytes: Arc::clone(&synced.bytes),
            reason,
        });
    }

    /// Stored like any proposal: the engine logs the value and may decide on it after a crash.
    fn store_synced(&mut self, synced: Synced, facts: BlockFacts) {
        let proposal = synced.proposal(&facts);
        let job = self.begin(Work::StoreSynced(synced, facts));
        self.order(Command::Store { job, proposal });
    }

    pub(super) fn synced_stored(&mut self, synced: &Synced, facts: &BlockFacts, stored: bool) {
        if !stored || synced.height <= self.committed {
            return self.answer_synced(synced, SyncOutcome::OurFault);
        }
        self.record(&synced.proposal(facts), facts, true);
        self.synced = self.synced.max(synced.height);
        let proposed = Proposed {
            height: synced.height,
            round: synced.round,
            pol_round: None,
            proposer: synced.proposer,
            block: facts.hash,
            valid: true,
        };
        self.answer_synced(synced, SyncOutcome::Valid(proposed));
    }
}

impl Synced {
    fn proposal(&self, facts: &BlockFacts) -> UndecidedProposal {
        UndecidedProposal {
            height: self.height,
            round: self.round,
            pol_round: None,
            proposer: self.proposer,
            hash: facts.hash,
            bytes: Arc::clone(&self.bytes),
            valid: true,
            signature: None,
        }
    }
}
