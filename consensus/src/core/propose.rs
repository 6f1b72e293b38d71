//! Our own proposals, and parts to send once more.

use std::sync::Arc;

use proofmill_chain::finality;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use super::api::{Answer, BlockFacts, Command, Job, Ticket};
use super::part::{Announcement, parts_root};
use super::proposals::Turn;
use super::{Core, ToSign, Work};
use crate::undecided::UndecidedProposal;

impl Core {
    pub(super) fn value_wanted(&mut self, ticket: Ticket, height: Height, round: Round) {
        if let Some(older) = self.wanted.insert((height, round), ticket) {
            self.answer(older, Answer::Nothing);
        }
        if height == self.committed.next() {
            self.propose(height, round);
        } else if height <= self.committed {
            self.give_up(height, round);
        }
    }

    /// Proposes what waited for its parent, and gives up what came too late.
    pub(super) fn propose_wanted(&mut self) {
        let turns: Vec<_> = self.wanted.keys().copied().collect();
        for (height, round) in turns {
            if height <= self.committed {
                self.give_up(height, round);
            } else if height == self.committed.next() {
                self.propose(height, round);
            }
        }
    }

    fn give_up(&mut self, height: Height, round: Round) {
        if let Some(ticket) = self.wanted.remove(&(height, round)) {
            self.answer(ticket, Answer::Nothing);
        }
    }

    /// After a crash the same round gets the same block, if one was shown to anybody.
    fn propose(&mut self, height: Height, round: Round) {
        let me = self.config.me;
        match self.proposals.turn(height, round, &me, None) {
            Some(turn) => {
                self.give_value(height, round, turn.block);
                self.publish(height, &turn);
            }
            None => self.order(Command::Build { height, round }),
        }
    }

    fn give_value(&mut self, height: Height, round: Round, block: Hash) {
        if let Some(ticket) = self.wanted.remove(&(height, round)) {
            let value = Answer::Value {
                height,
                round,
                block,
            };
            self.answer(ticket, value);
        }
    }

    pub(super) fn built(
        &mut self,
        height: Height,
        round: Round,
        block: Result<(Hash, Arc<[u8]>), String>,
    ) {
        let announced = block.ok().and_then(|(hash, bytes)| {
            let announcement = self.announce(height, round, None, hash, &bytes)?;
            Some((announcement, bytes))
        });
        match announced {
            Some((announcement, bytes)) if self.wanted.contains_key(&(height, round)) => {
                self.signing.insert(announcement, ToSign::Propose(bytes));
                self.order(Command::Sign { announcement });
            }
            _ => self.give_up(height, round),
        }
    }

    fn announce(
        &self,
        height: Height,
        round: Round,
        pol_round: Option<Round>,
        block: Hash,
        bytes: &[u8],
    ) -> Option<Announcement> {
        if bytes.is_empty() || bytes.len() > self.config.block_bytes_max {
            return None;
        }
        Some(Announcement {
            height,
            round,
            pol_round,
            proposer: self.config.me,
            block,
            size: u32::try_from(bytes.len()).ok()?,
            parts: parts_root(bytes),
        })
    }

    pub(super) fn signed(&mut self, announcement: &Announcement, signature: Option<Signature>) {
        let Some(purpose) = self.signing.remove(announcement) else {
            return;
        };
        let announcement = *announcement;
        let Announcement { height, round, .. } = announcement;
        match (purpose, signature) {
            (ToSign::Propose(bytes), Some(signature)) => {
                // Stored before it is shown to anybody.
                let proposal = UndecidedProposal {
                    height,
                    round,
                    pol_round: None,
                    proposer: self.config.me,
                    hash: announcement.block,
                    bytes: Arc::clone(&bytes),
                    valid: true,
                    signature: Some(signature),
                };
                let job = self.begin(Work::StoreOwn {
                    announcement,
                    signature,
                    bytes,
                });
                self.order(Command::Store { job, proposal });
            }
            (ToSign::Propose(_), None) => self.give_up(height, round),
            (ToSign::Repeat(bytes), Some(signature)) => {
                let turn = Turn::new(&announcement, Some(signature)).delivered();
                self.proposals.proposed(height, turn);
                self.order(Command::Publish {
                    announcement,
                    signature,
                    bytes,
                });
            }
            (ToSign::Repeat(_), None) => {}
        }
    }

    pub(super) fn own_stored(
        &mut self,
        announcement: &Announcement,
        signature: Signature,
        bytes: Arc<[u8]>,
        stored: bool,
    ) {
        let Announcement {
            height,
            round,
            block,
            ..
        } = *announcement;
        if !stored || height <= self.committed {
            return self.give_up(height, round);
        }
        let facts = BlockFacts {
            hash: block,
            turn: finality::Turn {
                height,
                round,
                proposer: self.config.me,
            },
            time_ms: self.now.clock_ms,
        };
        self.proposals.judged(&facts, Ok(()));
        self.proposals.keep(height, block, Arc::clone(&bytes));
        let turn = Turn::new(announcement, Some(signature)).delivered();
        self.proposals.proposed(height, turn);
        self.give_value(height, round, block);
        self.order(Command::Publish {
            announcement: *announcement,
            signature,
            bytes,
        });
    }

    /// Sends a proposal's parts again: our own anew, another's under its own signature.
    pub(super) fn restream(
        &mut self,
        height: Height,
        round: Round,
        pol_round: Option<Round>,
        proposer: AccountId,
        block: Hash,
    ) {
        if height <= self.committed {
            return;
        }
        let known = self.proposals.turn(height, round, &proposer, Some(&block));
        if let Some(turn) = known {
            return self.publish(height, &turn);
        }
        if proposer == self.config.me {
            let announcement = Announcement {
                height,
                round,
                pol_round,
                proposer,
                block,
                size: 0,
                parts: Hash::ZERO,
            };
            self.publish_when_read(announcement, None);
        }
    }

    fn publish(&mut self, height: Height, turn: &Turn) {
        let announcement = Announcement {
            height,
            round: turn.round,
            pol_round: turn.pol_round,
            proposer: turn.proposer,
            block: turn.block,
            size: 0,
            parts: Hash::ZERO,
        };
        if turn.signature.is_some() {
            self.publish_when_read(announcement, turn.signature);
        }
    }

    /// Publishes a block, signing its announcement first if it has no signature, reading the block
    /// first if it is not in memory. The announcement's size and parts are filled in.
    fn publish_when_read(&mut self, announcement: Announcement, signature: Option<Signature>) {
        let Announcement { height, block, .. } = announcement;
        match self.proposals.block(height, &block) {
            Some(bytes) => self.publish_bytes(announcement, signature, bytes),
            None => {
                let job = self.begin(Work::ReadToPublish(announcement, signature));
                self.order(Command::ReadBlock { job, height, block });
            }
        }
    }

    fn publish_bytes(
        &mut self,
        mut announcement: Announcement,
        signature: Option<Signature>,
        bytes: Arc<[u8]>,
    ) {
        let Ok(size) = u32::try_from(bytes.len()) else {
            return;
        };
        announcement.size = size;
        announcement.parts = parts_root(&bytes);
        let others = announcement.proposer != self.config.me;
        match signature {
            // Its proposer announced the block with another size or other parts: nobody could verify
            // that, and whoever sent it on would be blamed for it.
            Some(signature) if others && !self.is_signed(&announcement, &signature) => {}
            Some(signature) => self.order(Command::Publish {
                announcement,
                signature,
                bytes,
            }),
            None => {
                self.signing.insert(announcement, ToSign::Repeat(bytes));
                self.order(Command::Sign { announcement });
            }
        }
    }

    pub(super) fn block_read(&mut self, job: Job, bytes: Result<Option<Arc<[u8]>>, String>) {
        match self.jobs.remove(&job) {
            Some(Work::ReadDecided(certificate)) => self.decided_read(certificate, bytes),
            Some(Work::ReadToPublish(announcement, signature)) => {
                if let Ok(Some(bytes)) = bytes {
                    self.publish_bytes(announcement, signature, bytes);
                }
            }
            _ => {}
        }
    }
}
