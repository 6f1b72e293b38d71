//! Transactions and attestations between nodes, over libp2p's gossipsub.
//!
//! A message that comes in is handed to the node and travels on only after the node has accepted
//! it. Queues are bounded in both directions: what does not fit is dropped and counted, never
//! waited for. A peer whose messages are useless loses its credit and is not listened to until it has
//! some again. Peers that were configured are dialled again whenever they are lost.

mod dial;
mod inbox;
mod limits;
mod silence;
mod swarm;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::task::ATTESTATION_BYTES_MAX;
use proofmill_chain::types::transaction::TRANSACTION_BYTES_MAX;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use self::inbox::Inbox;
use self::swarm::{Command, Loop};

/// Most messages that wait for the node's verdict.
pub const INCOMING_QUEUE: usize = 8_192;
/// Most bytes of messages that wait for the node's verdict.
pub const INCOMING_BYTES_MAX: usize = 64 << 20;
/// Most messages of ours that wait to be sent.
pub const OUTGOING_QUEUE: usize = 8_192;
/// Most messages of ours that are kept while no peer is there to receive them.
pub const UNSENT_MAX: usize = 1_024;
/// Most connections that others open to us.
pub const PEERS_INCOMING_MAX: u32 = 64;
/// Most connections that one address opens to us; the loopback address may open them all.
pub const PER_IP_MAX: usize = 8;
/// Most connections with one peer.
pub const PER_PEER_MAX: u32 = 4;
/// How many messages of a peer are rejected before it is cut off.
pub const REJECTED_MAX: u32 = 16;
/// How many useless messages a peer may send at once before it is not listened to.
pub const USELESS_MAX: u32 = 1_024;
/// How many useless messages a second a peer is forgiven.
pub const USELESS_PER_SECOND: u32 = 64;
/// Most peers that are remembered as cut off.
pub const CUT_OFF_MAX: usize = 1_024;
/// Wait before the first attempt to dial a lost peer again.
pub const REDIAL_DELAY_MIN: Duration = Duration::from_millis(200);
/// Longest wait between two attempts.
pub const REDIAL_DELAY_MAX: Duration = Duration::from_secs(30);
/// How a silent peer is found out; see [`KeepAlive`].
pub const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(3),
    silent_max: Duration::from_secs(10),
};
/// What an envelope adds to a message at most.
pub const ENVELOPE_BYTES_MAX: usize = 4_096;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// An encoded signed transaction.
    Transactions,
    /// An encoded attestation message.
    Attestations,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 2] = [Self::Transactions, Self::Attestations];

    /// Largest message.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Transactions => TRANSACTION_BYTES_MAX,
            Self::Attestations => ATTESTATION_BYTES_MAX,
        }
    }

    /// The topic's name on the wire.
    #[must_use]
    pub fn path(self, genesis: &Hash) -> String {
        let chain = hex_prefix(genesis);
        match self {
            Self::Transactions => format!("/proofmill/{chain}/transactions/1"),
            Self::Attestations => format!("/proofmill/{chain}/attestations/1"),
        }
    }
}

fn hex_prefix(genesis: &Hash) -> String {
    hex::encode(genesis.prefix())
}

/// What the node thinks of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Valid: it travels on.
    Accept,
    /// Useless now, and nobody's fault: it stops here.
    Ignore,
    /// Refused by the state, as it was at the peer: it stops here and costs the peer credit.
    Useless,
    /// Invalid whatever the state: it stops here and counts against the peer that sent it.
    Reject,
}

/// A message that waits for the node's verdict. Dropping it ignores the message.
#[derive(Debug)]
pub struct Incoming {
    /// What it is.
    pub topic: Topic,
    /// The message.
    pub bytes: Vec<u8>,
    /// The peer that passed it on.
    pub peer: PeerId,
    verdict: oneshot::Sender<Acceptance>,
}

impl Incoming {
    /// Says whether the message travels on.
    pub fn answer(self, acceptance: Acceptance) {
        // Nobody listens once gossip has stopped, and then nothing travels on.
        let _ = self.verdict.send(acceptance);
    }
}

/// Each connection is pinged, and closed when no answer comes: TCP alone does not notice for hours that
/// the other side is gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// From an answer to the next ping, and between two looks at how long ago the last answers were.
    pub interval: Duration,
    /// How long a connection may go without an answer.
    pub silent_max: Duration,
}

impl KeepAlive {
    /// When a peer that has fallen silent is no longer connected.
    #[must_use]
    pub const fn noticed_within(self) -> Duration {
        self.silent_max.saturating_add(self.interval)
    }
}

/// Where to listen, whom to dial, and as whom.
#[derive(Clone)]
pub struct GossipConfig {
    /// The address to listen at, such as `/ip4/127.0.0.1/tcp/0`.
    pub listen: Multiaddr,
    /// Peers to be connected with at all times.
    pub peers: Vec<Multiaddr>,
    /// Seed of this node's ed25519 identity in the network.
    pub seed: Zeroizing<[u8; 32]>,
    /// Genesis hash of the chain.
    pub genesis: Hash,
    /// Names the chain's list of upgrades, as this node has it; peers hear of it.
    pub upgrades: Hash,
    /// How silent peers are found out.
    pub keep_alive: KeepAlive,
}

impl fmt::Debug for GossipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipConfig")
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .field("genesis", &self.genesis)
            .finish_non_exhaustive()
    }
}

/// Why gossip does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why not.
        reason: String,
    },
    /// The network stack refuses its settings; a bug of ours.
    #[error("the gossip network cannot be set up: {0}")]
    Setup(String),
}

/// Why a message of ours is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Larger than its topic allows.
    #[error("message of {given} bytes, at most {most}")]
    TooLarge {
        /// Its size.
        given: usize,
        /// The most.
        most: usize,
    },
    /// Too many messages wait to be sent.
    #[error("{OUTGOING_QUEUE} messages wait to be sent")]
    QueueFull,
    /// Gossip has stopped.
    #[error("gossip has stopped")]
    Stopped,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity in the network.
    pub id: PeerId,
    /// Where it is.
    pub address: Multiaddr,
    /// Whether it receives what we publish.
    pub subscribed: bool,
    /// Names its list of upgrades, once it has said so.
    pub upgrades: Option<Hash>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GossipCounts {
    /// Messages handed to the node.
    pub received: u64,
    /// Messages that the node rejected.
    pub rejected: u64,
    /// Messages of others dropped because too many waited for a verdict.
    pub dropped: u64,
    /// Messages of others dropped because the peer had no credit left.
    pub muted: u64,
    /// Messages of ours sent.
    pub published: u64,
    /// Messages of ours dropped because no peer took them.
    pub unsent: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    muted: AtomicU64,
    published: AtomicU64,
    unsent: AtomicU64,
}

/// A running gossip network. Clones speak to the same one; it stops when [`GossipHandle::stop`] is
/// called or the last clone goes.
#[derive(Clone, Debug)]
pub struct GossipHandle {
    id: PeerId,
    commands: mpsc::Sender<Command>,
    peers: watch::Receiver<Vec<Peer>>,
    listening: watch::Receiver<Option<Multiaddr>>,
    counters: Arc<Counters>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Entry point of the module.
#[derive(Clone, Copy, Debug)]
pub struct Gossip;

impl Gossip {
    /// Starts listening, dialling and gossiping on the current tokio runtime; gives a handle and
    /// the messages of others.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: &GossipConfig) -> Result<(GossipHandle, Inbox), GossipError> {
        let mut seed = config.seed.clone();
        let keypair = Keypair::ed25519_from_bytes(seed.as_mut_slice())
            .map_err(|error| GossipError::Setup(error.to_string()))?;
        let id = keypair.public().to_peer_id();
        let (commands, command_queue) = mpsc::channel(OUTGOING_QUEUE);
        let (postman, inbox) = inbox::inbox();
        let (peers_out, peers) = watch::channel(Vec::new());
        let (listening_out, listening) = watch::channel(None);
        let counters = Arc::new(Counters::default());
        let network = Loop::new(
            keypair,
            config,
            postman,
            peers_out,
            listening_out,
            Arc::clone(&counters),
        )?;
        let task = tokio::spawn(network.run(command_queue));
        let handle = GossipHandle {
            id,
            commands,
            peers,
            listening,
            counters,
            task: Arc::new(Mutex::new(Some(task))),
        };
        Ok((handle, inbox))
    }
}

impl GossipHandle {
    /// This node's identity in the network.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// Sends a message to everybody, soon; while no peer is there the last [`UNSENT_MAX`] are
    /// kept for the first one. A message that went around within the last minute is not sent
    /// again.
    ///
    /// # Errors
    /// When the message is too large, too many wait, or gossip has stopped.
    pub fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        if bytes.len() > topic.bytes_max() {
            return Err(PublishError::TooLarge {
                given: bytes.len(),
                most: topic.bytes_max(),
            });
        }
        self.commands
            .try_send(Command::Publish(topic, bytes))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PublishError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => PublishError::Stopped,
            })
    }

    /// The connected peers.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.peers.borrow().clone()
    }

    /// The connected peers, to be told of each change.
    #[must_use]
    pub fn watch_peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.peers.clone()
    }

    /// The address that is listened at, with the port that was chosen; `None` when gossip has
    /// stopped before it listened.
    pub async fn listen_addr(&self) -> Option<Multiaddr> {
        let mut listening = self.listening.clone();
        let address = listening.wait_for(Option::is_some).await.ok()?;
        address.clone()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counts(&self) -> GossipCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GossipCounts {
            received: read(&self.counters.received),
            rejected: read(&self.counters.rejected),
            dropped: read(&self.counters.dropped),
            muted: read(&self.counters.muted),
            published: read(&self.counters.published),
            unsent: read(&self.counters.unsent),
        }
    }

    /// Closes all connections and the listener; returns when they are closed.
    pub async fn stop(&self) {
        // The queue is closed when it has stopped already.
        let _ = self.commands.send(Command::Stop).await;
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "gossip did not stop cleanly");
        }
    }
}
