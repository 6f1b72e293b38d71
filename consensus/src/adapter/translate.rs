//! Engine messages as events, and answers as the engine's types.

use std::sync::Arc;

use arc_malachitebft_app_channel::AppMsg;
use arc_malachitebft_app_channel::app::types::LocallyProposedValue;
use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_core_types::{CommitCertificate, HeightParams, Validity};
use arc_malachitebft_engine::host::{Next, SyncedValueOutcome};
use arc_malachitebft_engine::util::streaming::{StreamContent, StreamId, StreamMessage};
use bytes::Bytes;
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator;
use tokio::sync::oneshot;

use super::{Adapter, Certified, Pending, Serving};
use crate::context::{self, Address, Chain, Value, round_of, round_or_nil};
use crate::core::{Answer, Event, Part, PartMessage, Peer, Proposed, SyncOutcome};
use crate::wire;

/// Answers; when nobody listens any more the engine is stopping and the answer has no use.
fn send<T>(reply: oneshot::Sender<T>, value: T) {
    reply.send(value).ok();
}

impl Adapter {
    pub(super) fn take_message(&self, serving: &mut Serving, message: AppMsg<Chain>) {
        if let Some(event) = self.event_of(serving, message) {
            self.take_event(serving, event);
        }
    }

    /// The event that a message is; none for what is answered here.
    fn event_of(&self, serving: &mut Serving, message: AppMsg<Chain>) -> Option<Event> {
        let event = match message {
            AppMsg::ConsensusReady { reply } => Event::EngineReady {
                ticket: serving.ticket(Pending::Ready(reply)),
            },
            AppMsg::StartedRound {
                height,
                round,
                reply_value,
                ..
            } => Event::RoundStarted {
                ticket: serving.ticket(Pending::Round(reply_value)),
                height: height.0,
                round: round_of(round),
            },
            AppMsg::GetValue {
                height,
                round,
                reply,
                ..
            } => Event::ValueWanted {
                ticket: serving.ticket(Pending::Value(reply)),
                height: height.0,
                round: round_of(round),
            },
            AppMsg::ReceivedProposalPart {
                from,
                published_by,
                part,
                reply,
            } => {
                send(reply, None);
                let publisher = published_by.unwrap_or(from).to_bytes();
                Event::PartReceived {
                    from: Peer(from.to_bytes().into()),
                    publisher: Peer(publisher.into()),
                    message: part_message(part)?,
                }
            }
            AppMsg::RestreamProposal {
                height,
                round,
                valid_round,
                address,
                value_id,
            } => Event::RestreamWanted {
                height: height.0,
                round: round_of(round),
                pol_round: valid_round.as_u32().map(Round::new),
                proposer: address.0,
                block: value_id,
            },
            AppMsg::Decided {
                certificate, reply, ..
            } => Event::Decided {
                ticket: serving.ticket(Pending::Committed(reply)),
                certificate: certificate_of(&certificate),
            },
            AppMsg::Finalized {
                certificate,
                evidence,
                reply,
                ..
            } => {
                if !evidence.is_empty() {
                    tracing::warn!(height = %certificate.height, ?evidence, "validators misbehaved");
                }
                Event::Finalized {
                    ticket: serving.ticket(Pending::Next(reply)),
                    height: certificate.height.0,
                }
            }
            AppMsg::ProcessSyncedValue {
                height,
                round,
                proposer,
                value_bytes,
                reply,
            } => {
                let Some((block, bytes)) = wire::certified(&value_bytes) else {
                    send(reply, SyncedValueOutcome::PeerFault);
                    return None;
                };
                let certified = Certified {
                    height: height.0,
                    block,
                    bytes: bytes.into(),
                };
                let bytes = Arc::clone(&certified.bytes);
                Event::SyncedValue {
                    ticket: serving.ticket(Pending::Synced(reply, certified)),
                    height: height.0,
                    round: round_of(round),
                    proposer: proposer.0,
                    block,
                    bytes,
                }
            }
            AppMsg::GetHistoryMinHeight { reply } => {
                self.history_min(serving, reply);
                return None;
            }
            AppMsg::GetDecidedValues { range, reply } => {
                self.decided_values(serving, range, reply);
                return None;
            }
            AppMsg::ExtendVote { reply, .. } => {
                send(reply, None);
                return None;
            }
            AppMsg::VerifyVoteExtensions { reply, .. } => {
                send(reply, Vec::new());
                return None;
            }
        };
        Some(event)
    }

    pub(super) fn answer(&self, pending: Pending, answer: Answer) {
        match (pending, answer) {
            (Pending::Ready(reply), Answer::Start { height, validators }) => {
                tracing::info!(%height, "consensus starts");
                send(reply, (context::Height(height), self.params(validators)));
            }
            (Pending::Next(reply), Answer::Start { height, validators }) => {
                let params = self.params(validators);
                send(reply, Next::Start(context::Height(height), params));
            }
            (Pending::Round(reply), Answer::Proposals(proposed)) => {
                send(reply, proposed.iter().map(value_of).collect());
            }
            (
                Pending::Value(reply),
                Answer::Value {
                    height,
                    round,
                    block,
                },
            ) => {
                send(reply, local_value(height, round, block));
            }
            (Pending::Committed(reply), Answer::Committed) => send(reply, ()),
            (Pending::Synced(reply, _), Answer::Synced(outcome)) => {
                send(reply, synced_outcome(&outcome));
            }
            // Dropping the reply is the answer: the engine goes on by its time-outs.
            (_, Answer::Nothing) => {}
            (_, answer) => self.fail(format!("the core gave a foreign answer: {answer:?}")),
        }
    }

    /// What the engine needs to know to start a height.
    fn params(&self, validators: validator::ValidatorSet) -> HeightParams<Chain> {
        let set = context::ValidatorSet::new(validators);
        HeightParams::new(set, self.parts.timeouts, None)
    }
}

fn local_value(height: Height, round: Round, block: Hash) -> LocallyProposedValue<Chain> {
    LocallyProposedValue::new(
        context::Height(height),
        round_or_nil(Some(round)),
        Value(block),
    )
}

fn synced_outcome(outcome: &SyncOutcome) -> SyncedValueOutcome<Chain> {
    match outcome {
        SyncOutcome::Valid(proposed) => SyncedValueOutcome::Verdict(value_of(proposed)),
        SyncOutcome::PeerFault => SyncedValueOutcome::PeerFault,
        SyncOutcome::OurFault => SyncedValueOutcome::LocalTransientError,
    }
}

pub(super) fn value_of(proposed: &Proposed) -> ProposedValue<Chain> {
    ProposedValue {
        height: context::Height(proposed.height),
        round: round_or_nil(Some(proposed.round)),
        valid_round: round_or_nil(proposed.pol_round),
        proposer: Address(proposed.proposer),
        value: Value(proposed.block),
        validity: Validity::from_bool(proposed.valid),
    }
}

/// The core's form of a part; none for what names no stream or ends one.
fn part_message(message: StreamMessage<Part>) -> Option<PartMessage> {
    let id = message.stream_id.to_bytes();
    let stream = <[u8; 32]>::try_from(id.as_ref()).ok()?;
    Some(PartMessage {
        stream: Hash::new(stream),
        sequence: message.sequence,
        part: message.content.into_data()?,
    })
}

pub(super) fn stream_message(message: PartMessage) -> StreamMessage<Part> {
    let id = StreamId::new(Bytes::copy_from_slice(message.stream.as_bytes()));
    StreamMessage::new(id, message.sequence, StreamContent::Data(message.part))
}

/// The chain's form of a certificate: by ascending key, each validator once.
fn certificate_of(certificate: &CommitCertificate<Chain>) -> Certificate {
    let mut signatures: Vec<_> = certificate
        .commit_signatures
        .iter()
        .map(|signed| CommitSignature {
            validator: signed.address.0,
            signature: signed.signature,
        })
        .collect();
    signatures.sort_unstable_by_key(|signed| signed.validator);
    signatures.dedup_by_key(|signed| signed.validator);
    Certificate {
        height: certificate.height.0,
        round: round_of(certificate.round),
        block: certificate.value_id,
        signatures,
    }
}
