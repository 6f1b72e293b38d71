//! What the engine does to the world: its timers, its log, its messages, and sync for it.

use arc_malachitebft_core_consensus::{Input, LivenessMsg, SignedConsensusMsg};
use arc_malachitebft_core_types::{
    CommitCertificate, ExtendedCommitCertificate, ExtendedCommitSignature, ValueResponse,
};
use arc_malachitebft_peer::PeerId;
use bytes::Bytes;
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_consensus::core::Event;

use crate::connector::Question;
use crate::context::{self, Address, Chain, round_of, round_or_nil};
use crate::engine::{Action, Phase};
use crate::keyed;
use crate::node::{Later, Node, Outside, To, Wire};
use crate::sync::Request;

fn peer_id(index: usize) -> PeerId {
    let byte = u8::try_from(index).expect("there are few nodes");
    let mut bytes = vec![0x12, 32];
    bytes.extend([byte; 32]);
    PeerId::from_bytes(&bytes).expect("a SHA-256 multihash")
}

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
    Certificate {
        height: certificate.height.0,
        round: round_of(certificate.round),
        block: certificate.value_id,
        signatures,
    }
}

/// The engine's form of a certificate.
fn extended(certificate: &Certificate) -> ExtendedCommitCertificate<Chain> {
    let signatures = certificate.signatures.iter();
    ExtendedCommitCertificate {
        height: context::Height(certificate.height),
        round: round_or_nil(Some(certificate.round)),
        value_id: certificate.block,
        commit_signatures: signatures
            .map(|signed| {
                ExtendedCommitSignature::new(Address(signed.validator), signed.signature, None)
            })
            .collect(),
    }
}

impl Node {
    pub(crate) fn perform(&mut self, action: Action, out: &mut Outside<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let engine = &mut process.engine;
        let logs = engine.validator && engine.phase != Phase::Recovering;
        match action {
            Action::CancelAll => engine.cancel_all(),
            Action::Cancel(timeout) => engine.cancel(&timeout),
            Action::Schedule(timeout) => {
                let (after, number) = engine.schedule(timeout);
                let after = u64::try_from(after.as_micros()).expect("a short time");
                out.later.push((after, Later::Elapsed(timeout, number)));
            }
            Action::StartRound(height, round) => {
                self.disk.log.flush();
                engine.blocked = true;
                process.ask(out.now, Question::Round(height, round));
                out.observed.round(round);
                out.observed.note(|| format!("begins {height}/{round}"));
            }
            Action::Guard(record) => self.disk.guard = *record,
            Action::Log(height, input) => {
                if logs && self.disk.log.height == height {
                    self.disk.log.entries.push(*input);
                }
            }
            Action::Publish(message) => {
                self.disk.log.flush();
                self.publish(message, out);
            }
            Action::Liveness(message) => self.publish_liveness(message, out),
            Action::GetValue(height, round) => {
                process.ask(out.now, Question::Value(height, round));
            }
            Action::Restream {
                height,
                round,
                pol_round,
                proposer,
                block,
            } => {
                let event = Event::RestreamWanted {
                    height,
                    round,
                    pol_round,
                    proposer,
                    block,
                };
                process.ask(out.now, Question::Restream(event));
            }
            Action::Decide(certificate) => {
                self.disk.log.flush();
                let certificate = certificate_of(&certificate);
                process.ask(out.now, Question::Decided(certificate));
            }
            Action::Finalize(height) => process.ask(out.now, Question::Finalized(height)),
            Action::SyncedValue(response, proposer) => {
                process.ask(out.now, Question::Synced(response, proposer));
            }
            Action::SyncRejected(height) => {
                process.sync.failed(height, true);
                self.request(out);
            }
            Action::Running => {
                self.feed(out);
                self.request(out);
            }
            Action::Part(from, message) => {
                process.ask(out.now, Question::Part(from, message));
            }
        }
    }

    pub(crate) fn publish(&mut self, message: SignedConsensusMsg<Chain>, out: &mut Outside<'_>) {
        if *message.signature() == keyed::REFUSED {
            out.observed.count("refused signatures");
            return;
        }
        out.observed.signed(self.index, &message);
        match &mut self.byzantine {
            Some(byzantine) => byzantine.publish(&self.me, message, out),
            None => out.sends.push((To::All, Wire::Consensus(message))),
        }
    }

    pub(crate) fn publish_liveness(&self, message: LivenessMsg<Chain>, out: &mut Outside<'_>) {
        if let LivenessMsg::Vote(vote) = &message {
            if vote.signature == keyed::REFUSED {
                return;
            }
            let message = SignedConsensusMsg::Vote(vote.clone());
            out.observed.signed(self.index, &message);
        }
        out.sends.push((To::All, Wire::Liveness(message)));
    }

    pub(crate) fn serve(&mut self, to: usize, request: Request, out: &mut Outside<'_>) {
        let mut values = Vec::new();
        let mut height = request.first;
        while height <= request.last {
            let Some(decided) = self.disk.decided(height) else {
                break;
            };
            values.push(decided.clone());
            height = height.next();
        }
        if let Some(byzantine) = &mut self.byzantine {
            byzantine.serve(&mut values, out.random);
        }
        let answer = Wire::Served(request.number, values);
        out.sends.push((To::Only(vec![to]), answer));
    }

    pub(crate) fn announce_tip(&mut self, out: &mut Outside<'_>) {
        let mut head = self.disk.head();
        let clock_ms = self.clock_ms(out.now);
        if let Some(byzantine) = &self.byzantine {
            byzantine.flood(&self.key, &self.validators, head, clock_ms, out);
            if out.random.one_in(4) {
                head = head.saturating_plus(out.random.below(9));
            }
        }
        out.sends.push((To::All, Wire::Status(head)));
    }

    /// Feeds the engine the synced value of its height.
    pub(crate) fn feed(&mut self, out: &mut Outside<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.engine.phase != Phase::Running {
            return;
        }
        let (height, _) = process.engine.position();
        let Some((peer, (certificate, bytes))) = process.sync.feed(height) else {
            return;
        };
        out.observed
            .note(|| format!("sync feeds {height} from {peer}"));
        process
            .engine
            .input(Input::SyncValueResponse(ValueResponse::new(
                peer_id(peer),
                Bytes::copy_from_slice(&bytes),
                extended(&certificate),
            )));
    }

    pub(crate) fn request(&mut self, out: &mut Outside<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.engine.phase != Phase::Running {
            return;
        }
        let (height, _) = process.engine.position();
        let random = &mut *out.random;
        let wanted = process
            .sync
            .request(height, out.now, |count| random.index(count));
        if let Some((peer, request)) = wanted {
            out.sends
                .push((To::Only(vec![peer]), Wire::Request(request)));
        }
    }
}
