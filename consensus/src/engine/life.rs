//! The engines that a node runs one after the other.
//!
//! An engine either signs or follows from its start to its end. A validator follows until its guard
//! and its log agree and it has caught up; then another engine, which signs, takes over. The network
//! stays up in between. The log of the signing engine is opened by no other.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_malachitebft_app_channel::app::events::RxEvent;
use arc_malachitebft_app_channel::{
    Channels, ConsensusContext, EngineBuilder, EngineHandle as Actors, NetworkIdentity,
    NetworkRequest, RequestContext, SyncContext, WalContext,
};
use arc_malachitebft_codec::Codec;
use arc_malachitebft_engine::consensus::{ConsensusMsg, ConsensusRef};
use arc_malachitebft_engine::util::events::Event;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{Plan, Signer as _, plan};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::config::Node;
use super::stop::Ending;
use super::{EngineConfig, EngineError, keypair};
use crate::adapter::{Adapter, AdapterParts};
use crate::application::Application;
use crate::caught_up::Standing;
use crate::codec::WireCodec;
use crate::context::{Address, Chain};
use crate::network::{Network, Own};
use crate::own_log::{self, Logged};
use crate::revocable::Revocable;
use crate::signing::{EngineSigner, FOLLOWER, Verifier, prove_peer};

/// How long a log may be held by an engine that is stopping.
const LOG_WAIT_MAX: Duration = Duration::from_secs(5);
/// Requests of ours that may wait in the engine.
const REQUESTS_MAX: usize = 16;
/// How often the number of peers is read.
const PEERS_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node tells its height while no engine does, and looks whether it may sign when nothing
/// else makes it look: claims of peers lapse.
const STANDING_INTERVAL: Duration = Duration::from_millis(250);
/// Peers that come at the same time are told together, and no peer makes this node talk faster.
const REPORT_GAP: Duration = Duration::from_millis(20);
/// How long the engine's parts may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// What a running node shows.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) position: watch::Sender<(Height, Round)>,
    pub(super) clocks_ahead_ms: watch::Sender<Option<i64>>,
    pub(super) peers: watch::Sender<usize>,
    pub(super) signs: watch::Sender<bool>,
}

/// The engines of one node.
pub(super) struct Life {
    config: EngineConfig,
    app: Arc<dyn Application>,
    /// The configured signer, as long as nobody else is heard to sign with its key.
    signer: Option<Arc<Revocable>>,
    chain: Hash,
    network: Network,
    shown: Shown,
    stopping: watch::Receiver<bool>,
    ending: Ending,
    broken: watch::Sender<Option<String>>,
}

/// How the next engine runs.
enum Mode {
    /// With the signer, over the log as it is or an empty one.
    Sign(Arc<Revocable>, Plan),
    /// Without, until this height is committed and the node has caught up; `None` for ever.
    Follow(Option<Height>),
}

/// Why an engine ended.
enum End {
    Stopped,
    MaySign,
    /// The log contradicts the guard and can never be replayed.
    LogDiverges(String),
}

impl Life {
    /// Starts the network, and finds out whether the guard can be used at all.
    pub(super) async fn begin(
        config: EngineConfig,
        app: Arc<dyn Application>,
        signer: Option<Arc<Revocable>>,
        shown: Shown,
        stopping: watch::Receiver<bool>,
        ending: Ending,
    ) -> Result<Self, EngineError> {
        let node = Node::new(&config)?;
        let chain = {
            let app = Arc::clone(&app);
            blocking(move || app.chain()).await?
        };
        for log in [
            own_log::signing(&config.home),
            own_log::following(&config.home),
        ] {
            wait_until_free(log).await?;
        }
        if let Some(signer) = &signer {
            plan_of(&config.home, &app, signer).await?;
        }
        let identity = identity(&config, signer.as_deref())?;
        let own = signer.clone().map(|signer| Own::new(chain, signer));
        let network = Network::start(&node, identity, own, config.alone_wait).await?;
        Ok(Self {
            config,
            app,
            signer,
            chain,
            network,
            shown,
            stopping,
            ending,
            broken: watch::Sender::new(None),
        })
    }

    /// Runs one engine after the other until the node is stopped.
    pub(super) async fn run(self) -> Result<(), EngineError> {
        let result = self.engines().await;
        self.ending.begin(result.clone());
        self.network.stop().await;
        result
    }

    async fn engines(&self) -> Result<(), EngineError> {
        loop {
            let Some(mode) = self.mode().await? else {
                return Ok(());
            };
            match self.engine(mode).await? {
                End::Stopped => return Ok(()),
                End::MaySign => {}
                End::LogDiverges(reason) => {
                    // The guard may have answered with an older vote than the engine asked for, and the
                    // log has that answer. What was signed is in the guard; the log is not needed.
                    let log = own_log::signing(&self.config.home);
                    set_aside(&log, &reason)?;
                }
            }
        }
    }

    /// How the next engine runs; `None` when the node is stopped first.
    async fn mode(&self) -> Result<Option<Mode>, EngineError> {
        let Some(signer) = &self.signer else {
            return Ok(Some(Mode::Follow(None)));
        };
        let plan = plan_of(&self.config.home, &self.app, signer).await?;
        if let Plan::Follow { until, reason } = plan {
            tracing::warn!(
                "this validator follows without signing until height {until} is committed: {reason}"
            );
            return Ok(Some(Mode::Follow(Some(until))));
        }
        let (mut changes, mut arrivals) = (self.network.changes(), self.network.arrivals());
        let mut stopping = self.stopping.clone();
        let mut reported = None::<Instant>;
        let mut report_at = Instant::now();
        loop {
            changes.borrow_and_update();
            let head = self.head().await?;
            let until = match self.network.standing(head) {
                Standing::CaughtUp => {
                    tracing::info!(next = %head.next(), "this validator signs");
                    return Ok(Some(Mode::Sign(Arc::clone(signer), plan)));
                }
                Standing::Behind(height) => {
                    tracing::info!(%head, %height, "this validator catches up before it signs");
                    return Ok(Some(Mode::Follow(Some(Height::ZERO))));
                }
                Standing::Unknown(until) => until,
            };
            let now = Instant::now();
            if report_at <= now {
                arrivals.borrow_and_update();
                self.network.report(head);
                reported = Some(now);
                report_at = now + STANDING_INTERVAL;
            }
            let earliest = reported.map_or(now, |at| at + REPORT_GAP);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(None),
                error = self.network.foreign() => return Err(error),
                // The senders live as long as `self`.
                _ = changes.changed() => {}
                _ = arrivals.changed() => report_at = report_at.min(earliest),
                () = tokio::time::sleep_until(until.min(report_at).into()) => {}
            }
        }
    }

    /// Compares the certificates of committed blocks with the guard.
    fn own(&self) -> Option<(Own, watch::Sender<Option<EngineError>>)> {
        let (chain, signer) = (self.chain, self.signer.clone()?);
        Some((Own::new(chain, signer), self.network.reports()))
    }

    async fn head(&self) -> Result<Height, EngineError> {
        let app = Arc::clone(&self.app);
        blocking(move || app.head()).await
    }

    /// Resolves when a following engine should make way for one that signs.
    async fn may_sign(
        &self,
        until: Option<Height>,
        mut position: watch::Receiver<(Height, Round)>,
    ) -> Result<End, EngineError> {
        let Some(until) = until else {
            return std::future::pending().await;
        };
        let mut changes = self.network.changes();
        loop {
            changes.borrow_and_update();
            position.borrow_and_update();
            let head = self.head().await?;
            if head >= until && self.network.standing(head) == Standing::CaughtUp {
                return Ok(End::MaySign);
            }
            // The senders live as long as `self` and the adapter.
            tokio::select! {
                _ = changes.changed() => {}
                _ = position.changed() => {}
                () = tokio::time::sleep(STANDING_INTERVAL) => {}
            }
        }
    }

    /// Runs one engine to its end.
    async fn engine(&self, mode: Mode) -> Result<End, EngineError> {
        let (signer, log, until) = match mode {
            Mode::Sign(signer, plan) => {
                let log = own_log::signing(&self.config.home);
                if let Plan::Continue { lock } = plan {
                    let signer = Arc::clone(&signer);
                    blocking(move || signer.bind(lock)).await?;
                }
                if plan == Plan::Begin {
                    own_log::remove(&log).map_err(|error| log_error(&log, &error))?;
                }
                (Some(signer), log, None)
            }
            Mode::Follow(until) => {
                let log = own_log::following(&self.config.home);
                own_log::remove(&log).map_err(|error| log_error(&log, &error))?;
                (None, log, until)
            }
        };
        wait_until_free(log.clone()).await?;
        let (channels, actors) = self.build(signer.clone(), log.clone()).await?;
        self.network.serves(true);
        let Channels {
            consensus,
            network,
            events,
            net_requests,
            requests,
        } = channels;
        let consensus_actor = consensus_actor(&actors)?;
        let adapter = Adapter::new(AdapterParts {
            app: Arc::clone(&self.app),
            chain: self.chain,
            signer: signer.clone(),
            own: self.own(),
            timeouts: self.config.timeouts.into(),
            block_bytes_max: self.config.max_block_bytes,
            network,
            consensus: consensus_actor,
        });
        self.shown.signs.send_replace(signer.is_some());
        let position = tokio::spawn(forward(adapter.position(), self.shown.position.clone()));
        let clocks = adapter.clocks_ahead_ms();
        let clocks = tokio::spawn(forward(clocks, self.shown.clocks_ahead_ms.clone()));
        let peers = tokio::spawn(count_peers(net_requests, self.shown.peers.clone()));
        // Before the engine is answered: it may replay its log at once.
        let events = events.subscribe();
        let mut serving = tokio::spawn(Arc::clone(&adapter).run(consensus));
        let ended = tokio::select! {
            ended = self.supervise(&adapter, &mut serving, events, &log) => ended,
            ended = self.may_sign(until, adapter.position()) => ended,
        };
        match &ended {
            Ok(End::Stopped) => self.ending.begin(Ok(())),
            Err(error) => self.ending.begin(Err(error.clone())),
            // Another engine follows.
            Ok(End::MaySign | End::LogDiverges(_)) => {}
        }
        // From here on no message is taken; what was taken is finished.
        self.shown.signs.send_replace(false);
        self.network.serves(false);
        peers.abort();
        clocks.abort();
        drop(requests);
        adapter.close();
        if !serving.is_finished() {
            serving.await.ok();
        }
        position.abort();
        stop_actors(actors).await;
        ended
    }

    /// Waits for whatever ends an engine first.
    async fn supervise(
        &self,
        adapter: &Adapter,
        serving: &mut JoinHandle<()>,
        events: RxEvent<Chain>,
        log: &Path,
    ) -> Result<End, EngineError> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            reason = adapter.failed() => Err(EngineError::Fatal(reason)),
            failure = log_failure(events) => match failure {
                LogFailure::Replay(reason) if log == own_log::signing(&self.config.home) => {
                    Ok(End::LogDiverges(reason))
                }
                LogFailure::Replay(reason) | LogFailure::Broken(reason) => {
                    Err(log_error(log, &reason))
                }
            },
            error = self.network.foreign() => Err(error),
            reason = self.broken() => Err(EngineError::Guard(reason)),
            _ = serving => Err(channel_closed(log)),
            // An error means that the handle was dropped, which stops the engine as well.
            _ = stopping.wait_for(|stop| *stop) => Ok(End::Stopped),
        }
    }

    /// Resolves with the reason once nothing can be signed any more.
    async fn broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        let reason = broken.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    async fn build(
        &self,
        signer: Option<Arc<Revocable>>,
        log: PathBuf,
    ) -> Result<(Channels<Chain>, Actors), EngineError> {
        let chain = self.chain;
        let verifier = Box::new(Verifier { chain });
        let consensus = match signer {
            Some(signer) => ConsensusContext::new_validator(
                Address(signer.key()),
                verifier,
                Box::new(EngineSigner {
                    signer,
                    broken: self.broken.clone(),
                }),
            ),
            None => ConsensusContext::new_full_node(FOLLOWER, verifier),
        };
        let (network, publish) = self.network.for_engine(self.signer.clone()).await?;
        EngineBuilder::new(Chain, Node::new(&self.config)?)
            .with_default_wal(WalContext::new(log.clone(), WireCodec))
            .with_custom_network(network, publish)
            .with_default_sync(SyncContext::new(WireCodec))
            .with_default_consensus(consensus)
            .with_default_request(RequestContext::new(REQUESTS_MAX))
            .build()
            .await
            .map_err(|error| log_error(&log, &error))
    }
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| EngineError::Start(error.to_string()))
}

/// What the guard and the log allow. A log that cannot be replayed is set aside first.
async fn plan_of(
    home: &Path,
    app: &Arc<dyn Application>,
    signer: &Arc<Revocable>,
) -> Result<Plan, EngineError> {
    let log = own_log::signing(home);
    let (app, signer) = (Arc::clone(app), Arc::clone(signer));
    blocking(move || plan_with(&log, app.as_ref(), signer.as_ref())).await?
}

fn plan_with(log: &Path, app: &dyn Application, signer: &Revocable) -> Result<Plan, EngineError> {
    let next = app.head().next();
    let record = signer.record();
    let decide = |messages| {
        plan(&record, next, messages).map_err(|error| EngineError::OldGuard(error.to_string()))
    };
    let read = own_log::read(log, next, &record.key());
    let (messages, valid) = match read {
        Ok(Some(Logged { messages, valid })) => (Ok(Some(messages)), valid),
        Ok(None) => (Ok(None), Vec::new()),
        Err(error) => (Err(error), Vec::new()),
    };
    let planned = decide(messages)?;
    // With every other plan the log is not replayed.
    if !matches!(planned, Plan::Continue { .. }) {
        return Ok(planned);
    }
    let Some(lost) = lost_block(app, next, &valid)? else {
        return Ok(planned);
    };
    // Its replay may decide what cannot be committed.
    let reason = format!(
        "it names block {lost} of height {next} as valid, which the database does not have"
    );
    set_aside(log, &reason)?;
    decide(Ok(None))
}

/// The first of some blocks of the open height that is not stored under its own name.
fn lost_block(
    app: &dyn Application,
    height: Height,
    blocks: &[Hash],
) -> Result<Option<Hash>, EngineError> {
    if blocks.is_empty() {
        return Ok(None);
    }
    let stored = app.undecided(height).map_err(|error| {
        EngineError::Fatal(format!(
            "proposals of height {height} cannot be read: {error}"
        ))
    })?;
    let is_stored = |block: &Hash| {
        let mut named = stored.iter().filter(|stored| stored.hash == *block);
        named.any(|stored| {
            let facts = app.inspect(&stored.bytes);
            facts.is_ok_and(|facts| facts.hash == *block)
        })
    };
    Ok(blocks.iter().find(|block| !is_stored(block)).copied())
}

/// Keeps a log that must not be replayed beside its place, and says so.
fn set_aside(log: &Path, reason: &str) -> Result<(), EngineError> {
    own_log::set_aside(log).map_err(|error| log_error(log, &error))?;
    tracing::warn!(log = %log.display(), "the consensus log was set aside: {reason}");
    Ok(())
}

fn identity(
    config: &EngineConfig,
    signer: Option<&Revocable>,
) -> Result<NetworkIdentity, EngineError> {
    let start = |error: &dyn std::fmt::Display| EngineError::Start(error.to_string());
    let keypair = keypair(&config.network.network_seed);
    let Some(signer) = signer else {
        return Ok(NetworkIdentity::new(
            config.network.moniker.clone(),
            keypair,
            None,
        ));
    };
    let peer = keypair.public().to_peer_id().to_bytes();
    let proof = prove_peer(signer, peer).map_err(|error| start(&error))?;
    let proof = WireCodec.encode(&proof).map_err(|error| start(&error))?;
    let address = Address(signer.key()).to_string();
    Ok(NetworkIdentity::new_validator(
        config.network.moniker.clone(),
        keypair,
        address,
        proof,
    ))
}

fn log_error(log: &Path, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Fatal(format!("consensus log {}: {error}", log.display()))
}

/// Why the engine closed its channel: most likely it can no longer write its log.
fn channel_closed(log: &Path) -> EngineError {
    let probe = log.with_file_name("probe");
    let write = || {
        let mut file = File::create(&probe)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    };
    let written = write();
    // What cannot be removed was not written, or is overwritten by the next probe.
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) => EngineError::Fatal("the engine closed its channel".to_owned()),
        Err(error) => EngineError::Fatal(format!(
            "the consensus log {} cannot be written ({error}): make room on its disk or repair it, \
             then start the node again",
            log.display()
        )),
    }
}

/// Why a log cannot be used.
enum LogFailure {
    /// Its entries do not follow from each other.
    Replay(String),
    /// It cannot be read or written.
    Broken(String),
}

/// Resolves when the log cannot be trusted: the engine then hangs on purpose.
async fn log_failure(mut events: RxEvent<Chain>) -> LogFailure {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(Event::WalCorrupted(error)) => return LogFailure::Broken(error.to_string()),
            Ok(Event::WalReplayError(error)) => {
                return LogFailure::Replay(format!("replay: {error}"));
            }
            Ok(Event::WalResetError(error)) => {
                return LogFailure::Broken(format!("reset: {error}"));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn forward<T: Clone + PartialEq>(mut from: watch::Receiver<T>, to: watch::Sender<T>) {
    loop {
        let value = from.borrow_and_update().clone();
        to.send_replace(value);
        if from.changed().await.is_err() {
            return;
        }
    }
}

async fn count_peers(requests: mpsc::Sender<NetworkRequest>, count: watch::Sender<usize>) {
    let mut ticks = tokio::time::interval(PEERS_INTERVAL);
    loop {
        ticks.tick().await;
        if let Ok(Some(network)) = NetworkRequest::dump_state(&requests).await {
            count.send_replace(network.peers.len());
        }
    }
}

/// The engine's consensus actor, which takes judged values directly: a value that is due later than
/// the reply to its last part would otherwise wait for the next round.
fn consensus_actor(actors: &Actors) -> Result<ConsensusRef<Chain>, EngineError> {
    let children = actors.actor.get_cell().get_children().into_iter();
    let mut consensus =
        children.filter(|child| child.is_message_type_of::<ConsensusMsg<Chain>>() == Some(true));
    let consensus = consensus.next().map(ConsensusRef::from);
    consensus.ok_or_else(|| EngineError::Start("the engine has no consensus actor".to_owned()))
}

async fn stop_actors(actors: Actors) {
    let cell = actors.actor.get_cell();
    cell.stop_children_and_wait(Some("stopping".to_owned()), Some(STOP_WAIT))
        .await;
    actors.actor.stop(Some("stopping".to_owned()));
    if tokio::time::timeout(STOP_WAIT, actors.handle)
        .await
        .is_err()
    {
        tracing::warn!("the engine's supervisor did not stop in time");
    }
}

/// Waits until nobody holds a log's lock: an engine that has stopped in this process gives it back a
/// moment later.
async fn wait_until_free(log: PathBuf) -> Result<(), EngineError> {
    let error = |error: &dyn std::fmt::Display| log_error(&log, error);
    let opened = log.clone();
    let wait = blocking(move || match File::open(&opened) {
        Ok(file) => file.lock(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    });
    match tokio::time::timeout(LOG_WAIT_MAX, wait).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failed))) => Err(error(&failed)),
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(error(&"another process uses it")),
    }
}
