//! What the core orders, carried out when its time has passed: a crash before then undoes it.

use std::sync::Arc;

use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use crate::block::{self, CHAIN, Plan};
use crate::node::{Later, Node, Outside, To, Wire};
use proofmill_consensus::core::{
    Announcement, Command, Event, Loaded, Stored, Verdict, announcement_bytes, split,
};

impl Node {
    pub(crate) fn carry(&mut self, command: Command, out: &mut Outside<'_>) {
        if let Some(wait) = self.held_back(&command, out) {
            out.later.push((wait, Later::Carry(Box::new(command))));
            return;
        }
        let event = match command {
            Command::Load => Event::Loaded(Ok(self.load())),
            Command::Inspect { job, bytes } => {
                let facts = block::inspect(&bytes);
                let facts = self.undo.facts(facts, &bytes, &self.validators);
                self.hand_over_early(&bytes);
                Event::Inspected { job, facts }
            }
            Command::Judge {
                job, height, bytes, ..
            } => Event::Judged {
                job,
                verdict: self.judge(height, &bytes),
            },
            Command::Build { height, round } => Event::Built {
                height,
                round,
                block: self.build(height, round, out),
            },
            Command::Sign { announcement } => Event::Signed {
                announcement,
                signature: self.sign(&announcement),
            },
            Command::Store { job, proposal } => {
                self.disk.store(proposal);
                Event::Stored {
                    job,
                    result: Ok(()),
                }
            }
            Command::ReadBlock { job, height, block } => Event::BlockRead {
                job,
                bytes: Ok(self.disk.block(height, &block)),
            },
            Command::Commit { certificate, bytes } => {
                let height = certificate.height;
                Event::Committed {
                    height,
                    validators: self.commit(certificate, bytes, out),
                }
            }
            _ => return,
        };
        self.tell(event, out);
    }

    fn load(&self) -> Loaded {
        let head = self.disk.head();
        let stored = self.disk.undecided(head.next()).iter();
        Loaded {
            head,
            validators: self.validators.clone(),
            stored: stored
                .map(|proposal| Stored {
                    proposal: proposal.clone(),
                    facts: block::inspect(&proposal.bytes),
                })
                .collect(),
        }
    }

    /// The rules of the application: parent, time, execution.
    pub(crate) fn judge(&self, height: Height, bytes: &[u8]) -> Verdict {
        if self.disk.head().next() != height {
            return Verdict::Failed {
                reason: format!("the head is {}", self.disk.head()),
            };
        }
        let invalid = |reason: &str| Verdict::Invalid {
            reason: reason.to_owned(),
        };
        let header = match block::open(bytes) {
            Ok(header) => header,
            Err(reason) => return invalid(&reason),
        };
        let (parent, parent_time_ms) = self.disk.parent();
        if header.height != height || header.parent != parent {
            return invalid("another parent");
        }
        if header.time_ms <= parent_time_ms {
            return invalid("not later than its parent");
        }
        if !block::executes(&header) {
            return invalid("does not execute");
        }
        Verdict::Valid
    }

    fn build(
        &mut self,
        height: Height,
        round: Round,
        out: &mut Outside<'_>,
    ) -> Result<(Hash, Arc<[u8]>), String> {
        let (parent, parent_time_ms) = self.disk.parent();
        let clock_ms = self.clock_ms(out.now);
        let mut plan = Plan {
            height,
            round,
            proposer: self.me,
            parent,
            time_ms: clock_ms.max(parent_time_ms + 1),
            executes: true,
            salt: out.random.next(),
            padding: self.padding,
        };
        if let Some(byzantine) = &mut self.byzantine {
            byzantine.build(&mut plan, &self.validators, out.random);
        }
        let Some(process) = &mut self.process else {
            return Err("not running".to_owned());
        };
        if let Some(record) = process.engine.guard.header(&plan.header())? {
            self.disk.guard = record;
        }
        Ok(plan.seal())
    }

    fn sign(&self, announcement: &Announcement) -> Option<Signature> {
        let process = self.process.as_ref()?;
        let may = process.engine.guard.may_announce(announcement);
        may.then(|| self.key.sign(&announcement_bytes(&CHAIN, announcement)))
    }

    fn commit(
        &mut self,
        certificate: Certificate,
        bytes: Arc<[u8]>,
        out: &mut Outside<'_>,
    ) -> Result<proofmill_chain::types::validator::ValidatorSet, String> {
        out.observed
            .decided(self.index, &certificate, &bytes, &self.validators);
        self.disk.commit((certificate, bytes));
        out.sends.push((To::All, Wire::Status(self.disk.head())));
        Ok(self.validators.clone())
    }

    /// Sends a block's announcement and parts.
    pub(crate) fn publish_block(
        &mut self,
        announcement: &Announcement,
        signature: Signature,
        bytes: &Arc<[u8]>,
        out: &mut Outside<'_>,
    ) {
        if announcement.proposer == self.me
            && let Ok(header) = block::open(bytes)
            && header.proposer == self.me
        {
            out.observed.header(self.index, &header);
        }
        match &mut self.byzantine {
            Some(byzantine) => {
                let key = &self.key;
                byzantine.publish_block(key, announcement, signature, bytes, out);
            }
            None => {
                let parts = split(announcement, signature, bytes);
                let parts = parts.into_iter().map(|part| (To::All, Wire::Part(part)));
                out.sends.extend(parts);
            }
        }
    }
}
