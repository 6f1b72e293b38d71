//! Between engine and core: questions one at a time, answers, and what the core orders.

use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input, LocallyProposedValue, ProposedValue};
use arc_malachitebft_core_types::{Validity, ValueOrigin, ValueResponse};
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_consensus::core::{
    Answer, Command, Event, PartMessage, Peer, Proposed, SyncOutcome, Ticket,
};

use crate::context::{self, Address, Chain, Value, round_of, round_or_nil};
use crate::engine::Letter;
use crate::node::{Later, Node, Outside};

/// A request of the engine that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Ready,
    Round,
    Value,
    Decided,
    Finalized,
    Synced {
        height: Height,
        round: Round,
        block: Hash,
    },
}

/// What waits for the connector, which hands out one question at a time.
#[derive(Debug)]
pub(crate) enum Question {
    Ready,
    Round(Height, Round),
    Value(Height, Round),
    Part(usize, PartMessage),
    Restream(Event),
    Decided(Certificate),
    Finalized(Height),
    Synced(Box<ValueResponse<Chain>>, AccountId),
}

/// The id of a peer.
pub(crate) fn peer(index: usize) -> Peer {
    let byte = u8::try_from(index).expect("there are few nodes");
    Peer(Arc::from([byte]))
}

fn value_of(proposed: &Proposed) -> ProposedValue<Chain> {
    ProposedValue {
        height: context::Height(proposed.height),
        round: round_or_nil(Some(proposed.round)),
        valid_round: round_or_nil(proposed.pol_round),
        proposer: Address(proposed.proposer),
        value: Value(proposed.block),
        validity: Validity::from_bool(proposed.valid),
    }
}

impl Node {
    pub(crate) fn hand_out(&mut self, since: u64, question: Question, out: &mut Outside<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        process.tickets_given += 1;
        let ticket = Ticket(process.tickets_given);
        let (asked, awaits, event) = match question {
            Question::Ready => (Asked::Ready, true, Event::EngineReady { ticket }),
            Question::Round(height, round) => {
                let event = Event::RoundStarted {
                    ticket,
                    height,
                    round,
                };
                (Asked::Round, true, event)
            }
            Question::Value(height, round) => {
                let event = Event::ValueWanted {
                    ticket,
                    height,
                    round,
                };
                (Asked::Value, true, event)
            }
            Question::Decided(certificate) => {
                let event = Event::Decided {
                    ticket,
                    certificate,
                };
                (Asked::Decided, false, event)
            }
            Question::Finalized(height) => {
                (Asked::Finalized, false, Event::Finalized { ticket, height })
            }
            Question::Synced(response, proposer) => {
                let height = response.certificate.height.0;
                let round = round_of(response.certificate.round);
                let block = response.certificate.value_id;
                let event = Event::SyncedValue {
                    ticket,
                    height,
                    round,
                    proposer,
                    block,
                    bytes: Arc::from(response.value_bytes.as_ref()),
                };
                let asked = Asked::Synced {
                    height,
                    round,
                    block,
                };
                (asked, true, event)
            }
            Question::Part(from, message) => {
                self.undo.part(from, &message);
                let event = Event::PartReceived {
                    from: peer(from),
                    publisher: peer(from),
                    message,
                };
                return self.tell(event, out);
            }
            Question::Restream(event) => return self.tell(event, out),
        };
        process.tickets.insert(ticket, (asked, since));
        if awaits {
            process.awaited = Some(ticket);
        }
        self.tell(event, out);
        if asked == Asked::Round
            && let Some(process) = &self.process
            && process.tickets.contains_key(&ticket)
        {
            let index = self.index;
            out.observed.violation(format!(
                "node {index}: the start of a round waits for an answer"
            ));
        }
    }

    /// Gives the core an event and carries out what it orders.
    pub(crate) fn tell(&mut self, event: Event, out: &mut Outside<'_>) {
        let Some(process) = &self.process else {
            return;
        };
        out.observed.note(|| format!("core <- {}", brief(&event)));
        let now = self.now(process, out.now);
        let Some(process) = &mut self.process else {
            return;
        };
        for command in process.core.handle(now, event) {
            self.order(command, out);
        }
    }

    pub(crate) fn order(&mut self, command: Command, out: &mut Outside<'_>) {
        out.observed.note(|| format!("core -> {}", brief(&command)));
        let Some(process) = &mut self.process else {
            return;
        };
        let delay = match &command {
            Command::Answer { .. } | Command::HandOver(_) | Command::Publish { .. } => 0,
            Command::Inspect { .. } | Command::Sign { .. } => out.random.between(100, 2_000),
            Command::Judge { .. } if out.random.one_in(50) => out.random.between(100_000, 600_000),
            Command::Judge { .. } | Command::Commit { .. } => out.random.between(1_000, 20_000),
            _ => out.random.between(500, 8_000),
        };
        match command {
            Command::Answer { ticket, answer } => self.answered(ticket, answer, out),
            Command::HandOver(proposed) => {
                let value = Input::ProposedValue(value_of(&proposed), ValueOrigin::Consensus);
                process.engine.input(value);
            }
            Command::Publish {
                announcement,
                signature,
                bytes,
            } => self.publish_block(&announcement, signature, &bytes, out),
            Command::AwaitNextHeight { height } => {
                process.paces += 1;
                let wait = out.random.below(self.idle + 1);
                out.later.push((wait, Later::Paced(height, process.paces)));
            }
            Command::StopWaiting => process.paces += 1,
            Command::SetTimer { after, .. } => {
                out.observed.count("waits for early blocks");
                process.timers += 1;
                let after = u64::try_from(after.as_micros()).expect("a short time");
                out.later.push((after, Later::CoreTimer(process.timers)));
            }
            Command::Penalise { peer, reason, .. } => {
                let index = self.index;
                let peer = usize::from(peer.0[0]);
                out.observed.penalised(index, peer, &reason);
            }
            Command::Accuse {
                validator, reason, ..
            } => out.observed.accused(self.index, &validator, &reason),
            Command::Disagree { height, reason, .. } => {
                if self.byzantine.is_none() {
                    let index = self.index;
                    out.observed.violation(format!(
                        "node {index} disagrees with what is certified at {height}: {reason}"
                    ));
                }
            }
            Command::Fail { reason } => {
                if self.byzantine.is_none() {
                    let index = self.index;
                    out.observed
                        .violation(format!("node {index} cannot go on: {reason}"));
                }
            }
            command => out.later.push((delay, Later::Carry(Box::new(command)))),
        }
    }

    pub(crate) fn answered(&mut self, ticket: Ticket, answer: Answer, out: &mut Outside<'_>) {
        let index = self.index;
        let Some(process) = &mut self.process else {
            return;
        };
        let Some((asked, _)) = process.tickets.remove(&ticket) else {
            out.observed
                .violation(format!("node {index}: {ticket:?} is answered twice"));
            return;
        };
        if process.awaited == Some(ticket) {
            process.awaited = None;
        }
        match (asked, answer) {
            (Asked::Ready | Asked::Finalized, Answer::Start { height, validators }) => {
                let set = context::ValidatorSet::new(validators);
                process.engine.post(Letter::Start(height, set));
            }
            (Asked::Round, Answer::Proposals(proposals)) => {
                process.engine.blocked = false;
                for proposed in &proposals {
                    let value = Input::ProposedValue(value_of(proposed), ValueOrigin::Consensus);
                    process.engine.input(value);
                }
            }
            (
                Asked::Value,
                Answer::Value {
                    height,
                    round,
                    block,
                },
            ) => {
                let value = LocallyProposedValue::new(
                    context::Height(height),
                    round_or_nil(Some(round)),
                    Value(block),
                );
                process.engine.input(Input::Propose(value));
            }
            (Asked::Value, Answer::Nothing) | (Asked::Decided, Answer::Committed) => {}
            (
                Asked::Synced {
                    height,
                    round,
                    block,
                },
                Answer::Synced(outcome),
            ) => {
                match outcome {
                    SyncOutcome::Valid(proposed) if proposed.block == block => {
                        out.observed.count("synced blocks");
                        let value = ProposedValue {
                            round: round_or_nil(Some(round)),
                            ..value_of(&proposed)
                        };
                        process
                            .engine
                            .input(Input::ProposedValue(value, ValueOrigin::Sync));
                    }
                    SyncOutcome::OurFault => process.sync.failed(height, false),
                    _ => {
                        out.observed.count("synced junk");
                        process.sync.failed(height, true);
                    }
                }
                self.request(out);
            }
            (asked, answer) => out
                .observed
                .violation(format!("node {index}: {asked:?} is answered {answer:?}")),
        }
    }
}

/// An event or a command in a line.
fn brief(what: &impl std::fmt::Debug) -> String {
    let mut text = format!("{what:?}");
    if let Some((at, _)) = text.char_indices().nth(240) {
        text.truncate(at);
    }
    text
}
