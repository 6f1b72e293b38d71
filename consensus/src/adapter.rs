//! The message loop between the engine and the application.
//!
//! The loop only sorts: whatever may take time runs in a task of its own and answers later.
//! The engine's connector hands out one message at a time for the kinds that it awaits
//! (a new round, a value to propose, a part, a synced value), so those answers have bounds.
//!
//! Order is kept by two heights: `decided` moves when the engine decides, `committed` when the
//! application has made the block final. A block is judged only on top of a committed parent.

mod decide;
mod propose;
mod receive;
mod sync;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_malachitebft_app_channel::{AppMsg, NetworkMsg};
use arc_malachitebft_core_types::{HeightParams, LinearTimeouts};
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::application::Application;
use crate::context::{self, Chain, round_of};
use crate::proposals::Proposals;
use crate::stream::{Streams, Whole};

/// Everything the tasks share.
pub(crate) struct Adapter {
    app: Arc<dyn Application>,
    chain: Hash,
    key: SecretKey,
    me: AccountId,
    timeouts: LinearTimeouts,
    block_bytes_max: usize,
    network: mpsc::Sender<NetworkMsg<Chain>>,
    proposals: Mutex<Proposals>,
    /// Validator sets of the committed height's successor and a little before.
    sets: Mutex<BTreeMap<Height, validator::ValidatorSet>>,
    /// Whole blocks of heights whose parent is not decided here yet.
    early: Mutex<Vec<Whole>>,
    /// How many early blocks are being judged.
    judging: watch::Sender<usize>,
    decided: watch::Sender<Height>,
    committed: watch::Sender<Height>,
    /// Highest height at which a validator announced a block.
    announced: watch::Sender<Height>,
    /// Highest height whose block came by sync.
    synced: watch::Sender<Height>,
    position: watch::Sender<(Height, Round)>,
    closing: watch::Sender<bool>,
    fatal: watch::Sender<Option<String>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A lock that a panicking task may have left: the data behind it are plain collections.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers; when nobody listens any more the engine is stopping and the answer has no use.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    reply.send(value).ok();
}

/// Raises a watched height.
fn raise(watched: &watch::Sender<Height>, height: Height) {
    watched.send_if_modified(|current| {
        let higher = height > *current;
        if higher {
            *current = height;
        }
        higher
    });
}

impl Adapter {
    pub(crate) fn new(
        app: Arc<dyn Application>,
        chain: Hash,
        key: SecretKey,
        timeouts: LinearTimeouts,
        block_bytes_max: usize,
        network: mpsc::Sender<NetworkMsg<Chain>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            app,
            chain,
            me: key.public(),
            key,
            timeouts,
            block_bytes_max,
            network,
            proposals: Mutex::default(),
            sets: Mutex::default(),
            early: Mutex::default(),
            judging: watch::Sender::new(0),
            decided: watch::Sender::new(Height::ZERO),
            committed: watch::Sender::new(Height::ZERO),
            announced: watch::Sender::new(Height::ZERO),
            synced: watch::Sender::new(Height::ZERO),
            position: watch::Sender::new((Height::ZERO, Round::default())),
            closing: watch::Sender::new(false),
            fatal: watch::Sender::new(None),
            tasks: Mutex::default(),
        })
    }

    /// The height and round in which consensus is.
    pub(crate) fn position(&self) -> watch::Receiver<(Height, Round)> {
        self.position.subscribe()
    }

    /// Says that the engine must never go on, and why.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(%reason, "consensus cannot go on");
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert(reason);
            first
        });
    }

    /// Resolves with the reason of the first failure.
    pub(crate) async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        let reason = fatal.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_default()
    }

    /// Serves the engine until its channel closes.
    pub(crate) async fn run(self: Arc<Self>, mut messages: mpsc::Receiver<AppMsg<Chain>>) {
        let mut streams = Streams::new(self.block_bytes_max);
        while let Some(message) = messages.recv().await {
            self.dispatch(&mut streams, message);
        }
    }

    /// Ends the waiting tasks, and waits for the working ones.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        loop {
            let mut tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    fn dispatch(self: &Arc<Self>, streams: &mut Streams, message: AppMsg<Chain>) {
        let this = Arc::clone(self);
        match message {
            AppMsg::ConsensusReady { reply } => self.spawn(this.ready(reply)),
            AppMsg::StartedRound {
                height,
                round,
                reply_value,
                ..
            } => {
                self.position.send_replace((height.0, round_of(round)));
                self.spawn(this.started_round(height.0, reply_value));
            }
            AppMsg::GetValue {
                height,
                round,
                reply,
                ..
            } => self.spawn(this.propose(height.0, round_of(round), reply)),
            AppMsg::ReceivedProposalPart {
                from,
                published_by,
                part,
                reply,
            } => this.receive(streams, published_by.unwrap_or(from), part, reply),
            AppMsg::RestreamProposal {
                height,
                round,
                valid_round,
                address,
                value_id,
            } => self.spawn(this.restream(height.0, round, valid_round, address.0, value_id)),
            AppMsg::Decided {
                certificate, reply, ..
            } => {
                raise(&self.decided, certificate.height.0);
                streams.prune(certificate.height.0);
                self.spawn(this.commit(certificate, reply));
            }
            AppMsg::Finalized {
                certificate,
                evidence,
                reply,
                ..
            } => {
                if !evidence.is_empty() {
                    tracing::warn!(height = %certificate.height, ?evidence, "validators misbehaved");
                }
                self.spawn(this.next(certificate.height.0, reply));
            }
            AppMsg::GetHistoryMinHeight { reply } => self.spawn(this.history_min(reply)),
            AppMsg::GetDecidedValues { range, reply } => {
                self.spawn(this.decided_values(range, reply));
            }
            AppMsg::ProcessSyncedValue {
                height,
                round,
                proposer,
                value_bytes,
                reply,
            } => self.spawn(this.synced_value(height.0, round, proposer.0, value_bytes, reply)),
            AppMsg::ExtendVote { reply, .. } => answer(reply, None),
            AppMsg::VerifyVoteExtensions { reply, .. } => answer(reply, Vec::new()),
        }
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        tasks.spawn(task);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                self.fail(format!("a task of the application panicked: {error}"));
            }
        }
    }

    /// Runs a call of the application that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Application) -> T + Send + 'static,
    ) -> Option<T> {
        let app = Arc::clone(&self.app);
        let done = tokio::task::spawn_blocking(move || call(app.as_ref())).await;
        done.inspect_err(|error| self.fail(format!("the application failed: {error}")))
            .ok()
    }

    /// Waits until a height is committed; false when the engine closes instead.
    async fn until_committed(&self, height: Height) -> bool {
        let mut committed = self.committed.subscribe();
        tokio::select! {
            reached = committed.wait_for(|head| *head >= height) => reached.is_ok(),
            () = self.closed() => false,
        }
    }

    async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as `self`, so the wait ends only when it closes.
        drop(closing.wait_for(|closing| *closing).await);
    }

    /// Remembers the validators of the height after `head`, and gives that height's parameters.
    async fn prepare(&self, head: Height) -> Option<()> {
        let height = head.next();
        let set = self.blocking(move |app| app.validators(height)).await?;
        let Some(set) = set else {
            self.fail(format!("the validators of height {height} are unknown"));
            return None;
        };
        let mut sets = lock(&self.sets);
        sets.retain(|known, _| *known >= head);
        sets.insert(height, set);
        Some(())
    }

    /// What the engine needs to know to start a height.
    fn params(&self, height: Height) -> Option<HeightParams<Chain>> {
        let set = lock(&self.sets).get(&height).cloned();
        if set.is_none() {
            self.fail(format!("height {height} starts without its validators"));
        }
        let set = context::ValidatorSet::new(set?);
        Some(HeightParams::new(set, self.timeouts, None))
    }
}
