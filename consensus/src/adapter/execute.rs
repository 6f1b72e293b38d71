//! Commands of the core, carried out in tasks whose results are events.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_app_channel::{NetworkMsg, Reply};
use arc_malachitebft_core_types::ValueOrigin;
use arc_malachitebft_engine::consensus::ConsensusMsg;
use arc_malachitebft_sync::RawDecidedValue;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{self as signer, Signer};
use tokio::sync::mpsc;

use super::translate::{stream_message, value_of};
use super::{Adapter, Certified, Pending, Serving, fail};
use crate::application::Application;
use crate::context::{self, Chain};
use crate::core::{
    Announcement, Answer, Command, Event, Job, Loaded, PartMessage, Stored, SyncOutcome, Ticket,
    Timer, Verdict, split,
};
use crate::network::report;
use crate::undecided::UndecidedProposal;
use crate::wire::{self, DECIDED_MAX};

type App = Arc<dyn Application>;

impl Adapter {
    pub(super) fn execute(&self, serving: &mut Serving, command: Command) {
        let app = Arc::clone(&self.parts.app);
        let tasks = &mut serving.tasks;
        match command {
            Command::Answer { ticket, answer } => self.give(serving, ticket, answer),
            Command::HandOver(proposed) => {
                let value = value_of(&proposed);
                let message = ConsensusMsg::ReceivedProposedValue(value, ValueOrigin::Consensus);
                // It fails when the engine is stopping, and has no use then.
                self.parts.consensus.cast(message).ok();
            }
            Command::Load => {
                tasks.spawn_blocking(move || Some(Event::Loaded(load(app.as_ref()))));
            }
            Command::Inspect { job, bytes } => {
                tasks.spawn_blocking(move || {
                    let facts = app.inspect(&bytes);
                    Some(Event::Inspected { job, facts })
                });
            }
            Command::Judge {
                job,
                height,
                round,
                block,
                bytes,
            } => {
                tasks.spawn(async move {
                    let verdict = app.validate(height, round, block, bytes).await;
                    report_verdict(height, &verdict);
                    Some(Event::Judged { job, verdict })
                });
            }
            Command::Build { height, round } => {
                tasks.spawn(async move { Some(build(app, height, round).await) });
            }
            Command::Sign { announcement } => self.announce(serving, announcement),
            Command::Store { job, proposal } => {
                tasks.spawn_blocking(move || Some(store(app.as_ref(), job, &proposal)));
            }
            Command::ReadBlock { job, height, block } => {
                tasks.spawn_blocking(move || Some(read_block(app.as_ref(), job, height, &block)));
            }
            Command::Publish {
                announcement,
                signature,
                bytes,
            } => self.publish(serving, &announcement, signature, &bytes),
            Command::Commit { certificate, bytes } => {
                let own = self.parts.own.clone();
                tasks.spawn(async move {
                    // Before the head rises: at the next height the key may be used.
                    if let Some((own, reports)) = own
                        && let Some(error) = own.compare(&certificate)
                    {
                        tracing::error!("{error}");
                        report(&reports, error);
                    }
                    Some(commit(app, certificate, bytes).await)
                });
            }
            Command::AwaitNextHeight { height } => {
                let wait = tasks.spawn(async move {
                    app.next_height_due().await;
                    Some(Event::NextHeightDue { height })
                });
                serving.pacing = Some(wait);
            }
            Command::StopWaiting => {
                if let Some(wait) = serving.pacing.take() {
                    wait.abort();
                }
            }
            Command::SetTimer { timer, after } => serving.set_timer(timer, after),
            Command::Penalise {
                peer,
                height,
                reason,
            } => {
                let peer = arc_malachitebft_peer::PeerId::from_bytes(&peer.0).ok();
                tracing::warn!(?peer, %height, reason, "a peer's blocks are refused");
            }
            Command::Accuse {
                validator,
                height,
                reason,
            } => {
                tracing::warn!(%validator, %height, reason, "a validator announced what is no proposal");
            }
            Command::Disagree {
                height,
                block,
                bytes,
                reason,
            } => self.disagree(serving, height, block, bytes, reason),
            Command::Fail { reason } => self.fail(reason),
        }
    }

    /// Answers the engine; the application hears of what a peer sent in the place of a certified block.
    fn give(&self, serving: &mut Serving, ticket: Ticket, answer: Answer) {
        let Some(pending) = serving.pending.remove(&ticket) else {
            return;
        };
        if let Pending::Synced(_, certified) = &pending
            && answer == Answer::Synced(SyncOutcome::PeerFault)
        {
            let app = Arc::clone(&self.parts.app);
            let Certified {
                height,
                block,
                bytes,
            } = certified.clone();
            serving.tasks.spawn_blocking(move || {
                app.certified_invalid(height, &block, &bytes);
                None
            });
        }
        self.answer(pending, answer);
    }

    fn announce(&self, serving: &mut Serving, announcement: Announcement) {
        let signer = self.parts.signer.clone();
        serving.tasks.spawn_blocking(move || {
            let signature = signer.and_then(|signer| sign(signer.as_ref(), &announcement));
            Some(Event::Signed {
                announcement,
                signature,
            })
        });
    }

    /// Sends a block, part by part; none leaves once the signer is revoked.
    fn publish(
        &self,
        serving: &mut Serving,
        announcement: &Announcement,
        signature: Signature,
        bytes: &[u8],
    ) {
        let network = self.parts.network.clone();
        let parts = split(announcement, signature, bytes);
        serving.tasks.spawn(async move {
            publish(&network, parts).await;
            None
        });
    }

    /// The application first: when the block is of a version that it does not know, it says more.
    fn disagree(
        &self,
        serving: &mut Serving,
        height: Height,
        block: Hash,
        bytes: Arc<[u8]>,
        reason: String,
    ) {
        let app = Arc::clone(&self.parts.app);
        let fatal = self.fatal.clone();
        serving.tasks.spawn_blocking(move || {
            app.certified_invalid(height, &block, &bytes);
            let reason = format!(
                "this node disagrees with the certified chain: block {block} of height {height} has a \
                 certificate and is invalid here: {reason}"
            );
            fail(&fatal, reason);
            None
        });
    }

    pub(super) fn history_min(&self, serving: &mut Serving, reply: Reply<context::Height>) {
        let app = Arc::clone(&self.parts.app);
        serving.tasks.spawn_blocking(move || {
            reply.send(context::Height(app.history_min())).ok();
            None
        });
    }

    /// Answers with committed blocks, in order, up to the first that is missing.
    pub(super) fn decided_values(
        &self,
        serving: &mut Serving,
        range: RangeInclusive<context::Height>,
        reply: Reply<Vec<RawDecidedValue<Chain>>>,
    ) {
        let app = Arc::clone(&self.parts.app);
        let bytes_max = 2 * self.parts.block_bytes_max;
        serving.tasks.spawn_blocking(move || {
            reply
                .send(read_decided(app.as_ref(), &range, bytes_max))
                .ok();
            None
        });
    }
}

impl Serving {
    fn set_timer(&mut self, timer: Timer, after: Duration) {
        let wait = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            Some(Event::TimerElapsed(timer))
        });
        if let Some(older) = self.timers.insert(timer, wait) {
            older.abort();
        }
    }
}

/// The signature over an announcement; `None` when the signer refuses.
fn sign(signer: &dyn Signer, announcement: &Announcement) -> Option<Signature> {
    let Announcement {
        height,
        round,
        pol_round,
        proposer,
        block,
        size,
        parts,
    } = *announcement;
    let signed = signer.sign_announcement(&signer::Announcement {
        height,
        round,
        pol_round,
        proposer,
        block,
        size,
        parts,
    });
    signed
        .inspect_err(|error| tracing::warn!(?announcement, %error, "not announced"))
        .ok()
}

fn load(app: &dyn Application) -> Result<Loaded, String> {
    let head = app.head();
    let height = head.next();
    let validators = app
        .validators(height)
        .ok_or_else(|| format!("the validators of height {height} are unknown"))?;
    let stored = app
        .undecided(height)
        .map_err(|error| format!("proposals of height {height} cannot be read: {error}"))?;
    let stored = stored.into_iter().map(|proposal| Stored {
        facts: app.inspect(&proposal.bytes),
        proposal,
    });
    Ok(Loaded {
        head,
        validators,
        stored: stored.collect(),
    })
}

fn store(app: &dyn Application, job: Job, proposal: &UndecidedProposal) -> Event {
    let result = app.store_undecided(proposal).map_err(|error| {
        let height = proposal.height;
        tracing::error!(%height, %error, "a proposal could not be stored");
        error.to_string()
    });
    Event::Stored { job, result }
}

async fn build(app: App, height: Height, round: Round) -> Event {
    let block = app.propose(height, round).await;
    let block = block
        .map(|block| (block.hash, block.bytes))
        .map_err(|error| {
            tracing::error!(%height, %round, %error, "no block could be built");
            error.to_string()
        });
    Event::Built {
        height,
        round,
        block,
    }
}

fn read_block(app: &dyn Application, job: Job, height: Height, block: &Hash) -> Event {
    let stored = app.undecided(height).map_err(|error| {
        tracing::error!(%height, %error, "stored proposals cannot be read");
        error.to_string()
    });
    let bytes = stored.map(|stored| {
        let found = stored.into_iter().find(|proposal| proposal.hash == *block);
        found.map(|proposal| proposal.bytes)
    });
    Event::BlockRead { job, bytes }
}

async fn commit(app: App, certificate: Certificate, bytes: Arc<[u8]>) -> Event {
    let height = certificate.height;
    let validators = match app.commit(certificate, bytes).await {
        Ok(()) => next_validators(app, height).await,
        Err(error) => Err(error.to_string()),
    };
    Event::Committed { height, validators }
}

fn report_verdict(height: Height, verdict: &Verdict) {
    match verdict {
        Verdict::Valid => {}
        Verdict::Invalid { reason } => tracing::warn!(%height, reason, "invalid block"),
        Verdict::Failed { reason } => {
            tracing::error!(%height, reason, "a block could not be judged");
        }
    }
}

async fn next_validators(
    app: App,
    height: Height,
) -> Result<proofmill_chain::types::validator::ValidatorSet, String> {
    let next = height.next();
    let validators = tokio::task::spawn_blocking(move || app.validators(next)).await;
    validators
        .map_err(|error| format!("the application failed: {error}"))?
        .ok_or_else(|| format!("the validators of height {next} are unknown"))
}

async fn publish(network: &mpsc::Sender<NetworkMsg<Chain>>, parts: Vec<PartMessage>) {
    for message in parts {
        let part = NetworkMsg::PublishProposalPart(stream_message(message));
        if network.send(part).await.is_err() {
            return;
        }
    }
}

fn read_decided(
    app: &dyn Application,
    range: &RangeInclusive<context::Height>,
    bytes_max: usize,
) -> Vec<RawDecidedValue<Chain>> {
    let mut values = Vec::new();
    let mut size = 0_usize;
    let mut height = range.start().0;
    while height <= range.end().0 && values.len() < DECIDED_MAX {
        match app.decided(height) {
            Ok(Some((certificate, bytes))) => {
                size = size.saturating_add(bytes.len());
                if size > bytes_max && !values.is_empty() {
                    break;
                }
                values.push(wire::decided(&certificate, &bytes));
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%height, %error, "a committed block cannot be read");
                break;
            }
        }
        height = height.next();
    }
    values
}
