//! Starting and stopping the engine.

mod config;
mod life;
mod stop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_app_channel::app::types::Keypair;
use arc_malachitebft_core_types::LinearTimeouts;
use proofmill_chain::types::units::{Height, Round};
use tokio::sync::watch;

pub(crate) use self::config::node_of;
use self::life::{Life, Shown};
pub use self::stop::STOP_WITHIN;
use self::stop::{Ending, outcome_in_time};
use crate::application::Application;
use crate::revocable::Revocable;

/// What the engine's own log lines begin with, as a target of `tracing`.
pub const LOG_TARGET: &str = "arc_malachitebft";

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

/// A peer in the network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Multiaddress to listen on, such as `/ip4/0.0.0.0/tcp/26656`.
    pub listen: String,
    /// Multiaddresses of the peers to stay connected to.
    pub persistent_peers: Vec<String>,
    /// Seed of the key that names this node in the network.
    pub network_seed: [u8; 32],
    /// A name for people.
    pub moniker: String,
}

/// How a node takes part.
#[derive(Clone)]
pub struct EngineConfig {
    /// Directory under which the consensus logs live.
    pub home: PathBuf,
    /// Where it listens and whom it dials.
    pub network: NetworkConfig,
    /// Signs for a validator; a node without one follows.
    ///
    /// Whatever else signs with the same key must do so through the same one, so that nothing is signed
    /// once another process is heard to use the key.
    pub signer: Option<Arc<Revocable>>,
    /// How long a validator that has no peers waits before it takes itself for caught up.
    pub alone_wait: Duration,
    /// Time-outs of a round.
    pub timeouts: Timeouts,
    /// No block is larger than this; at most [`BLOCK_BYTES_MAX`](proofmill_chain::types::block::BLOCK_BYTES_MAX).
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
    /// The guard could not be written: nothing more is signed.
    #[error("{0}: make room on its disk or repair it, then start the node again")]
    Guard(String),
    /// The guard is older than what its key has signed.
    #[error("the signing guard is an old copy: {0}")]
    OldGuard(String),
    /// Another process signs with this node's key.
    #[error(
        "another process signs with this validator's key, or this home is an old copy: peer {peer} sent \
         a {what} that is not in the signing guard; stop the other process, make the guard anew with \
         `proofmill validator guard init`, then start this one again"
    )]
    Foreign {
        /// The peer that sent the message: not necessarily the one that signed it.
        peer: String,
        /// The message.
        what: String,
    },
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
    /// Whether this node signs: a validator that has caught up and is sure of what it has signed.
    pub signs: bool,
}

/// The name by which peers address the node with this seed: the last part of its multiaddress,
/// `/p2p/<peer id>`.
#[must_use]
pub fn peer_id(network_seed: &[u8; 32]) -> String {
    keypair(network_seed).public().to_peer_id().to_string()
}

pub(crate) fn keypair(network_seed: &[u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(*network_seed).expect("any 32 bytes are an ed25519 seed")
}

type Outcome = Option<Result<(), EngineError>>;

/// A running engine. Dropping it stops the engine too, without waiting.
pub struct EngineHandle {
    stop: watch::Sender<bool>,
    outcome: watch::Receiver<Outcome>,
    position: watch::Receiver<(Height, Round)>,
    clocks_ahead_ms: watch::Receiver<Option<i64>>,
    peers: watch::Receiver<usize>,
    signs: watch::Receiver<bool>,
    ending: Ending,
    signer: Option<Arc<Revocable>>,
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineHandle of {:?}", self.status())
    }
}

impl EngineHandle {
    /// Starts the engine over an application, at the height after its head.
    ///
    /// # Errors
    /// When the configuration cannot be used, the guard is an old copy, or the network or the log
    /// cannot be opened.
    pub async fn start(
        config: EngineConfig,
        app: Arc<dyn Application>,
    ) -> Result<Self, EngineError> {
        let (stop, stopping) = watch::channel(false);
        let (done, outcome) = watch::channel(None);
        let shown = Shown {
            position: watch::Sender::new((Height::ZERO, Round::default())),
            clocks_ahead_ms: watch::Sender::new(None),
            peers: watch::Sender::new(0),
            signs: watch::Sender::new(false),
        };
        let handle = Self {
            stop,
            outcome,
            position: shown.position.subscribe(),
            clocks_ahead_ms: shown.clocks_ahead_ms.subscribe(),
            peers: shown.peers.subscribe(),
            signs: shown.signs.subscribe(),
            ending: Ending::default(),
            signer: config.signer.clone(),
        };
        let (ending, signer) = (handle.ending.clone(), handle.signer.clone());
        let life = Life::begin(config, app, signer, shown, stopping.clone(), ending.clone());
        let life = life.await?;
        let running = tokio::spawn(life.run());
        tokio::spawn(async move {
            let result = outcome_in_time(running, &ending, stopping, STOP_WITHIN).await;
            done.send_replace(Some(result));
        });
        Ok(handle)
    }

    /// Stops the engine; when it returns no call of the application is under way and the log is
    /// closed, so that the same home can be started again. After [`STOP_WITHIN`] it returns in any case,
    /// and an error line says so: only the end of the process ends the engine then.
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
            signs: *self.signs.borrow() && !self.is_revoked(),
        }
    }

    /// Whether another process was heard to sign with this node's key: nothing is signed any more.
    fn is_revoked(&self) -> bool {
        let signer = self.signer.as_ref();
        signer.is_some_and(|signer| signer.is_revoked())
    }

    /// Resolves when the engine begins to end: at most [`STOP_WITHIN`] before [`Self::stopped`] does.
    ///
    /// # Errors
    /// With the reason, when it stops by itself.
    pub async fn ending(&self) -> Result<(), EngineError> {
        tokio::select! {
            ending = self.ending.begun() => ending,
            stopped = self.stopped() => stopped,
        }
    }

    /// Resolves when the engine is no longer running, at most [`STOP_WITHIN`] after it began to end.
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
