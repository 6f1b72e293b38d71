//! Starting and stopping the engine.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_app_channel::app::config::NodeConfig;
use arc_malachitebft_app_channel::app::events::RxEvent;
use arc_malachitebft_app_channel::app::types::Keypair;
use arc_malachitebft_app_channel::{
    Channels, ConsensusContext, EngineBuilder, EngineHandle as Actors, NetworkContext,
    NetworkIdentity, NetworkRequest, RequestContext, SyncContext, WalContext,
};
use arc_malachitebft_codec::Codec;
use arc_malachitebft_config::{ConsensusConfig, ValuePayload, ValueSyncConfig};
use arc_malachitebft_core_types::LinearTimeouts;
use arc_malachitebft_engine::consensus::{ConsensusMsg, ConsensusRef};
use arc_malachitebft_engine::util::events::Event;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::block::BLOCK_BYTES_MAX;
use proofmill_chain::types::units::{Height, Round};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::adapter::{Adapter, AdapterParts};
use crate::application::Application;
use crate::codec::{RESPONSE_BYTES_MAX, WireCodec};
use crate::context::{Address, Chain};
use crate::signing::{Signer, Verifier};

/// What the engine's own log lines begin with, as a target of `tracing`.
pub const LOG_TARGET: &str = "arc_malachitebft";
/// How long the write-ahead log may be held by an engine that is stopping.
const WAL_WAIT_MAX: Duration = Duration::from_secs(5);
/// Requests of ours that may wait in the engine.
const REQUESTS_MAX: usize = 16;
/// Room for connections from one address: a devnet has all its nodes on one.
const CONNECTIONS_PER_IP_MAX: usize = 64;
/// A gossip message with a part of a block and its frame.
const GOSSIP_BYTES_MAX: u64 = 1 << 20;
/// What surrounds the blocks of an answer.
const FRAME_BYTES: u64 = 64 << 10;
/// How often peers tell each other their heights.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// How often the number of peers is read.
const PEERS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the engine's parts may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Time-outs of a round; each grows by its delta with every round of a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Waiting for the proposal.
    pub propose: Duration,
    /// Its growth.
    pub propose_delta: Duration,
    /// Waiting for more prevotes.
    pub prevote: Duration,
    /// Its growth.
    pub prevote_delta: Duration,
    /// Waiting for more precommits.
    pub precommit: Duration,
    /// Its growth.
    pub precommit_delta: Duration,
    /// When votes are sent again.
    pub rebroadcast: Duration,
    /// No time-out grows beyond this.
    pub max: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            propose: Duration::from_millis(500),
            propose_delta: Duration::from_millis(100),
            prevote: Duration::from_millis(200),
            prevote_delta: Duration::from_millis(50),
            precommit: Duration::from_millis(200),
            precommit_delta: Duration::from_millis(50),
            rebroadcast: Duration::from_millis(900),
            max: Duration::from_secs(5),
        }
    }
}

impl From<Timeouts> for LinearTimeouts {
    fn from(timeouts: Timeouts) -> Self {
        Self {
            propose: timeouts.propose,
            propose_delta: timeouts.propose_delta,
            prevote: timeouts.prevote,
            prevote_delta: timeouts.prevote_delta,
            precommit: timeouts.precommit,
            precommit_delta: timeouts.precommit_delta,
            rebroadcast: timeouts.rebroadcast,
            max_timeout: timeouts.max,
        }
    }
}

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Directory under which the write-ahead log lives.
    pub home: PathBuf,
    /// Multiaddress to listen on, such as `/ip4/0.0.0.0/tcp/26656`.
    pub listen: String,
    /// Multiaddresses of the peers to stay connected to.
    pub persistent_peers: Vec<String>,
    /// The validator key. A node whose key is not in the set follows without voting.
    pub key: SecretKey,
    /// Seed of the key that names this node in the network.
    pub network_seed: [u8; 32],
    /// A name for people.
    pub moniker: String,
    /// Time-outs of a round.
    pub timeouts: Timeouts,
    /// No block is larger than this; at most [`BLOCK_BYTES_MAX`].
    pub max_block_bytes: usize,
}

/// Why the engine does not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The configuration cannot be used.
    #[error("engine configuration: {0}")]
    Config(String),
    /// It did not start.
    #[error("engine did not start: {0}")]
    Start(String),
    /// It stopped by itself and must not simply be started again.
    #[error("engine stopped: {0}")]
    Fatal(String),
}

/// Where consensus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// The height being decided.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// Connected peers, as of the last second.
    pub peers: usize,
    /// How far the clocks of the validators are ahead of this node's, milliseconds, by the times of
    /// the blocks that they have just built: the median by power, this node counted with its own.
    /// `None` until the blocks of more than two thirds of the power are known.
    pub clocks_ahead_ms: Option<i64>,
}

/// The name by which peers address the node with this seed: the last part of its multiaddress,
/// `/p2p/<peer id>`.
#[must_use]
pub fn peer_id(network_seed: &[u8; 32]) -> String {
    keypair(network_seed).public().to_peer_id().to_string()
}

fn keypair(network_seed: &[u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(*network_seed).expect("any 32 bytes are an ed25519 seed")
}

type Outcome = Option<Result<(), EngineError>>;

/// A running engine. Dropping it stops the engine too, without waiting.
#[derive(Debug)]
pub struct EngineHandle {
    stop: watch::Sender<bool>,
    outcome: watch::Receiver<Outcome>,
    position: watch::Receiver<(Height, Round)>,
    clocks_ahead_ms: watch::Receiver<Option<i64>>,
    peers: watch::Receiver<usize>,
}

impl EngineHandle {
    /// Starts the engine over an application, at the height after its head.
    ///
    /// # Errors
    /// When the configuration cannot be used, or the engine cannot listen or open its log.
    pub async fn start(
        config: EngineConfig,
        app: Arc<dyn Application>,
    ) -> Result<Self, EngineError> {
        let node = Node::new(&config)?;
        let chain = {
            let app = Arc::clone(&app);
            let chain = tokio::task::spawn_blocking(move || app.chain()).await;
            chain.map_err(|error| EngineError::Start(error.to_string()))?
        };
        let (channels, actors) = build(&config, node, chain).await?;
        let Channels {
            consensus,
            network,
            events,
            net_requests,
            requests,
        } = channels;
        let consensus_actor = consensus_actor(&actors)?;
        let adapter = Adapter::new(AdapterParts {
            app,
            chain,
            key: config.key,
            timeouts: config.timeouts.into(),
            block_bytes_max: config.max_block_bytes,
            network,
            consensus: consensus_actor,
        });
        let (stop, stopping) = watch::channel(false);
        let (done, outcome) = watch::channel(None);
        let (count, peers) = watch::channel(0);
        let position = adapter.position();
        let clocks_ahead_ms = adapter.clocks_ahead_ms();
        let events = events.subscribe();
        let peers_task = tokio::spawn(count_peers(net_requests, count));
        tokio::spawn(async move {
            let mut serving = tokio::spawn(Arc::clone(&adapter).run(consensus));
            let result = supervise(&adapter, &mut serving, events, stopping).await;
            // From here on no message is taken; what was taken is finished.
            peers_task.abort();
            drop(requests);
            adapter.close();
            if !serving.is_finished() {
                serving.await.ok();
            }
            stop_actors(actors).await;
            done.send_replace(Some(result));
        });
        Ok(Self {
            stop,
            outcome,
            position,
            clocks_ahead_ms,
            peers,
        })
    }

    /// Stops the engine; when it returns no call of the application is under way and the log is
    /// closed, so that the same home can be started again.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        drop(self.stopped().await);
    }

    /// Where consensus is.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let (height, round) = *self.position.borrow();
        EngineStatus {
            height,
            round,
            peers: *self.peers.borrow(),
            clocks_ahead_ms: *self.clocks_ahead_ms.borrow(),
        }
    }

    /// Resolves when the engine is no longer running.
    ///
    /// # Errors
    /// With the reason, when it stopped by itself.
    pub async fn stopped(&self) -> Result<(), EngineError> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        let gone = || Err(EngineError::Fatal("its task is gone".to_owned()));
        ended.map_or_else(|_| gone(), |outcome| outcome.clone().unwrap_or_else(gone))
    }
}

/// Waits for whatever ends the engine first.
async fn supervise(
    adapter: &Adapter,
    serving: &mut JoinHandle<()>,
    events: RxEvent<Chain>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), EngineError> {
    tokio::select! {
        reason = adapter.failed() => Err(EngineError::Fatal(reason)),
        reason = log_failure(events) => Err(EngineError::Fatal(reason)),
        _ = serving => Err(EngineError::Fatal("the engine closed its channel".to_owned())),
        // An error means that the handle was dropped, which stops the engine as well.
        _ = stopping.wait_for(|stop| *stop) => Ok(()),
    }
}

/// Resolves when the write-ahead log cannot be trusted: the engine then hangs on purpose.
async fn log_failure(mut events: RxEvent<Chain>) -> String {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(Event::WalCorrupted(error)) => return format!("write-ahead log: {error}"),
            Ok(Event::WalReplayError(error)) => return format!("write-ahead log replay: {error}"),
            Ok(Event::WalResetError(error)) => return format!("write-ahead log reset: {error}"),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
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

async fn build(
    config: &EngineConfig,
    node: Node,
    chain: proofmill_chain::types::hash::Hash,
) -> Result<(Channels<Chain>, Actors), EngineError> {
    let signer = Signer {
        chain,
        key: config.key.clone(),
    };
    let me = config.key.public();
    let keypair = keypair(&config.network_seed);
    let peer = keypair.public().to_peer_id().to_bytes();
    let proof = signer.prove_peer(me.as_bytes().to_vec(), peer);
    let proof = WireCodec
        .encode(&proof)
        .map_err(|error| EngineError::Start(error.to_string()))?;
    let address = Address(me);
    let identity =
        NetworkIdentity::new_validator(node.moniker.clone(), keypair, address.to_string(), proof);
    let wal = config.home.join("consensus").join("wal");
    wait_until_free(wal.clone()).await?;
    let verifier = Box::new(Verifier { chain });
    EngineBuilder::new(Chain, node)
        .with_default_wal(WalContext::new(wal, WireCodec))
        .with_default_network(NetworkContext::new(identity, WireCodec))
        .with_default_sync(SyncContext::new(WireCodec))
        .with_default_consensus(ConsensusContext::new_validator(
            address,
            verifier,
            Box::new(signer),
        ))
        .with_default_request(RequestContext::new(REQUESTS_MAX))
        .build()
        .await
        .map_err(|error| EngineError::Start(error.to_string()))
}

/// Waits until nobody holds the log's lock: an engine that has stopped in this process gives it
/// back a moment later.
async fn wait_until_free(wal: PathBuf) -> Result<(), EngineError> {
    let start = |reason: String| EngineError::Start(format!("write-ahead log: {reason}"));
    let wait = tokio::task::spawn_blocking(move || match File::open(&wal) {
        Ok(file) => file.lock(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    });
    match tokio::time::timeout(WAL_WAIT_MAX, wait).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(start(error.to_string())),
        Ok(Err(error)) => Err(start(error.to_string())),
        Err(_) => Err(start("another process uses it".to_owned())),
    }
}

/// A size in the configuration's own type, which the engine does not name for us.
fn size<T: Default + std::ops::Add<u64, Output = T>>(bytes: u64) -> T {
    T::default() + bytes
}

/// The engine's own configuration.
struct Node {
    moniker: String,
    consensus: ConsensusConfig,
    sync: ValueSyncConfig,
}

impl Node {
    fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        if config.max_block_bytes == 0 || config.max_block_bytes > BLOCK_BYTES_MAX {
            let given = config.max_block_bytes;
            let reason =
                format!("blocks of {given} bytes, from 1 to {BLOCK_BYTES_MAX} are possible");
            return Err(EngineError::Config(reason));
        }
        // The engine panics on an address without a transport that it knows.
        if !config.listen.contains("/tcp/") && !config.listen.contains("/quic-v1") {
            let reason = format!("`{}` names neither /tcp/ nor /quic-v1", config.listen);
            return Err(EngineError::Config(reason));
        }
        let bad = |text: &str, error: &dyn std::fmt::Display| {
            EngineError::Config(format!("`{text}` is not a multiaddress: {error}"))
        };
        let mut consensus = ConsensusConfig {
            value_payload: ValuePayload::ProposalAndParts,
            ..ConsensusConfig::default()
        };
        let p2p = &mut consensus.p2p;
        p2p.listen_addr = config
            .listen
            .parse()
            .map_err(|error| bad(&config.listen, &error))?;
        for peer in &config.persistent_peers {
            let address = peer.parse().map_err(|error| bad(peer, &error))?;
            p2p.persistent_peers.push(address);
        }
        p2p.discovery.enabled = false;
        p2p.discovery.max_connections_per_ip = CONNECTIONS_PER_IP_MAX;
        p2p.pubsub_max_size = size(GOSSIP_BYTES_MAX);
        p2p.rpc_max_size = size(RESPONSE_BYTES_MAX as u64);
        let sync = ValueSyncConfig {
            status_update_interval: STATUS_INTERVAL,
            max_response_size: size(RESPONSE_BYTES_MAX as u64 - FRAME_BYTES),
            ..ValueSyncConfig::default()
        };
        Ok(Self {
            moniker: config.moniker.clone(),
            consensus,
            sync,
        })
    }
}

impl NodeConfig for Node {
    fn moniker(&self) -> &str {
        &self.moniker
    }

    fn consensus(&self) -> &ConsensusConfig {
        &self.consensus
    }

    fn consensus_mut(&mut self) -> &mut ConsensusConfig {
        &mut self.consensus
    }

    fn value_sync(&self) -> &ValueSyncConfig {
        &self.sync
    }

    fn value_sync_mut(&mut self) -> &mut ValueSyncConfig {
        &mut self.sync
    }
}
