//! Between the engine and its network: what comes in is watched, what goes out is filtered.
//!
//! ```text
//! network ──events──▶ consensus, sync           (unchanged)
//!         ──events──▶ Tap ──▶ heights of peers
//!                     Tap ──▶ network               (an empty answer while no engine serves)
//!                     Tap ──bounded──▶ Watch        (messages under our own key)
//! engine ──messages, parts──▶ Outgoing ──▶ network     (unsigned messages are dropped; all, once the signer is revoked)
//! ```
//!
//! The network outlives the engines that use it: a node becomes a validator by starting another
//! engine, without losing its peers.

mod candidates;
mod tap;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_malachitebft_app_channel::app::config::NodeConfig;
use arc_malachitebft_app_channel::app::metrics::SharedRegistry;
use arc_malachitebft_app_channel::spawn::spawn_network_actor;
use arc_malachitebft_app_channel::{NetworkIdentity, NetworkMsg as AppNetworkMsg};
use arc_malachitebft_core_consensus::{LivenessMsg, SignedConsensusMsg};
use arc_malachitebft_engine::network::{Msg, NetworkRef, Status};
use arc_malachitebft_peer::PeerId;
use async_trait::async_trait;
use proofmill_chain::types::units::Height;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{mpsc, watch};

pub(crate) use self::tap::{Own, report};
use self::tap::{Tap, Wake};
use crate::caught_up::{Peers, Standing};
use crate::codec::WireCodec;
use crate::context::{self, Chain};
use crate::engine::EngineError;
use crate::revocable::Revocable;
use crate::signing::UNSIGNED;

/// How long the network may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Parts of blocks that wait for the network: it takes each at once.
const PARTS_MAX: usize = 1;

/// A running network.
pub(crate) struct Network {
    actor: NetworkRef<Chain>,
    watch: ActorRef<Wake>,
    shared: Arc<Shared>,
}

struct Shared {
    peers: Mutex<Peers>,
    /// What peers show has changed.
    changed: watch::Sender<()>,
    /// A peer has come that may not know our height.
    joined: watch::Sender<()>,
    /// An engine answers requests for blocks.
    is_serving: AtomicBool,
    foreign: watch::Sender<Option<EngineError>>,
}

impl Shared {
    fn peers(&self, change: impl FnOnce(&mut Peers)) {
        let peers = self.peers.lock();
        change(&mut peers.unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }
}

impl Network {
    /// Starts to listen and to dial.
    pub(crate) async fn start(
        node: &impl NodeConfig,
        identity: NetworkIdentity,
        own: Option<Own>,
        alone_wait: Duration,
    ) -> Result<Self, EngineError> {
        let start = |error: &dyn std::fmt::Display| EngineError::Start(error.to_string());
        let registry = SharedRegistry::global().with_moniker(node.moniker());
        // Without its own way in for parts of blocks, which would lead past `Outgoing`.
        let (actor, _) = spawn_network_actor(
            identity,
            node.consensus(),
            node.value_sync(),
            &registry,
            WireCodec,
        )
        .await
        .map_err(|error| start(&error))?;
        let shared = Arc::new(Shared {
            peers: Mutex::new(Peers::new(Instant::now(), alone_wait, configured(node))),
            changed: watch::Sender::new(()),
            joined: watch::Sender::new(()),
            is_serving: AtomicBool::new(false),
            foreign: watch::Sender::new(None),
        });
        let tap = Tap::start(own, Arc::clone(&shared), actor.clone())
            .await
            .map_err(|error| start(&error))?;
        let watch = tap.watch();
        actor
            .cast(Msg::Subscribe(Box::new(tap)))
            .map_err(|error| start(&error))?;
        Ok(Self {
            actor,
            watch,
            shared,
        })
    }

    /// The network as one engine uses it, to be given to the engine's builder.
    pub(crate) async fn for_engine(
        &self,
        signer: Option<Arc<Revocable>>,
    ) -> Result<(NetworkRef<Chain>, mpsc::Sender<AppNetworkMsg<Chain>>), EngineError> {
        outgoing(self.actor.clone(), signer).await
    }

    /// Says whether an engine answers requests for blocks. A request that nobody answers would hold its
    /// sender up for the whole of its time-out.
    pub(crate) fn serves(&self, is_serving: bool) {
        self.shared.is_serving.store(is_serving, Ordering::Relaxed);
    }

    /// Tells the peers the last committed height while no engine does, which they answer with theirs in
    /// time. It offers none of the blocks: there is no engine to send them.
    pub(crate) fn report(&self, head: Height) {
        let status = Status::new(context::Height(head), context::Height(head.next()));
        // An error means that the network is stopping.
        self.actor.cast(Msg::BroadcastStatus(status)).ok();
    }

    /// Where this node stands among its peers with `head` committed.
    pub(crate) fn standing(&self, head: Height) -> Standing {
        let peers = self.shared.peers.lock();
        let mut peers = peers.unwrap_or_else(PoisonError::into_inner);
        peers.standing(head, Instant::now())
    }

    /// Changes whenever what peers show does.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Changes whenever a peer comes that may not know our height.
    pub(crate) fn arrivals(&self) -> watch::Receiver<()> {
        self.shared.joined.subscribe()
    }

    /// Resolves with what is to be said once another process is seen to sign with our key.
    pub(crate) async fn foreign(&self) -> EngineError {
        let mut foreign = self.shared.foreign.subscribe();
        let seen = foreign.wait_for(Option::is_some).await;
        // The sender lives as long as `self`.
        let seen = seen.ok().and_then(|seen| seen.clone());
        match seen {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Where whoever else finds that another process signs with our key says so.
    pub(crate) fn reports(&self) -> watch::Sender<Option<EngineError>> {
        self.shared.foreign.clone()
    }

    pub(crate) async fn stop(self) {
        // It holds the signer, and with it the guard.
        let watching = self.watch.stop_and_wait(None, Some(STOP_WAIT));
        drop(watching.await);
        let stopped = self.actor.stop_and_wait(None, Some(STOP_WAIT));
        if stopped.await.is_err() {
            tracing::warn!("the network did not stop in time");
        }
    }
}

/// Puts [`Outgoing`] in front of a network: an actor for messages, and a channel for parts of blocks,
/// which lead to it as well.
async fn outgoing(
    network: NetworkRef<Chain>,
    signer: Option<Arc<Revocable>>,
) -> Result<(NetworkRef<Chain>, mpsc::Sender<AppNetworkMsg<Chain>>), EngineError> {
    let (outgoing, _) = Actor::spawn(None, Outgoing, (network, signer))
        .await
        .map_err(|error| EngineError::Start(error.to_string()))?;
    let (publish, mut parts) = mpsc::channel::<AppNetworkMsg<Chain>>(PARTS_MAX);
    let to = outgoing.clone();
    tokio::spawn(async move {
        while let Some(part) = parts.recv().await {
            // An error means that the engine has stopped; nobody can send a part then.
            if to.cast(part.into()).is_err() {
                break;
            }
        }
    });
    Ok((outgoing, publish))
}

/// The peers that the operator chose, as far as their addresses name them.
fn configured(node: &impl NodeConfig) -> BTreeSet<PeerId> {
    let addresses = node.consensus().p2p.persistent_peers.iter();
    let names = addresses.filter_map(|address| {
        let address = address.to_string();
        let (_, name) = address.rsplit_once("/p2p/")?;
        name.parse().ok()
    });
    names.collect()
}

/// Passes an engine's messages on, but for those that the signer refused: the engine publishes them
/// without looking at their signature. Once the signer is revoked nothing signed is passed on, also not
/// what was signed before and waits here.
struct Outgoing;

#[async_trait]
impl Actor for Outgoing {
    type Msg = Msg<Chain>;
    type State = (NetworkRef<Chain>, Option<Arc<Revocable>>);
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Msg<Chain>>,
        state: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg<Chain>>,
        message: Msg<Chain>,
        (network, signer): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if is_unsigned(&message) {
            return Ok(());
        }
        let signed = is_signed(&message);
        let pass_on = || {
            tell(&message);
            network.cast(message).map_err(ActorProcessingErr::from)
        };
        match signer {
            Some(signer) if signed => signer.let_leave(pass_on).unwrap_or(Ok(())),
            _ => pass_on(),
        }
    }
}

const fn is_signed(message: &Msg<Chain>) -> bool {
    matches!(
        message,
        Msg::PublishConsensusMsg(_) | Msg::PublishLivenessMsg(_) | Msg::PublishProposalPart(_)
    )
}

/// Says in the log which signature leaves.
fn tell(message: &Msg<Chain>) {
    match message {
        Msg::PublishConsensusMsg(SignedConsensusMsg::Vote(vote))
        | Msg::PublishLivenessMsg(LivenessMsg::Vote(vote)) => tracing::debug!(
            kind = ?vote.kind, height = %vote.height.0, round = %vote.round, block = ?vote.value,
            "a signature leaves"
        ),
        Msg::PublishConsensusMsg(SignedConsensusMsg::Proposal(proposal)) => tracing::debug!(
            kind = "Proposal", height = %proposal.height.0, round = %proposal.round,
            block = ?proposal.value, "a signature leaves"
        ),
        _ => {}
    }
}

fn is_unsigned(message: &Msg<Chain>) -> bool {
    let signature = match message {
        Msg::PublishConsensusMsg(SignedConsensusMsg::Vote(vote))
        | Msg::PublishLivenessMsg(LivenessMsg::Vote(vote)) => &vote.signature,
        Msg::PublishConsensusMsg(SignedConsensusMsg::Proposal(proposal)) => &proposal.signature,
        _ => return false,
    };
    *signature == UNSIGNED
}

#[cfg(test)]
mod tests;
