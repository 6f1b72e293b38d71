//! Between the engine and its network: what comes in is watched, what goes out is filtered.
//!
//! ```text
//! network ──events──▶ consensus, sync           (unchanged)
//!         ──events──▶ Watch ──▶ heights of peers, messages under our own key
//!                     Watch ──▶ network             (an empty answer while no engine serves)
//! engine ──messages, parts──▶ Outgoing ──▶ network     (unsigned messages are dropped; all, once the signer is revoked)
//! ```
//!
//! The network outlives the engines that use it: a node becomes a validator by starting another
//! engine, without losing its peers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_malachitebft_app_channel::app::config::NodeConfig;
use arc_malachitebft_app_channel::app::metrics::SharedRegistry;
use arc_malachitebft_app_channel::spawn::spawn_network_actor;
use arc_malachitebft_app_channel::{NetworkIdentity, NetworkMsg as AppNetworkMsg};
use arc_malachitebft_core_consensus::{LivenessMsg, SignedConsensusMsg};
use arc_malachitebft_engine::network::{Msg, NetworkEvent, NetworkRef, Status};
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_sync::{Request, Response, ValueResponse};
use async_trait::async_trait;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_signer::Signer as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{mpsc, watch};

use crate::caught_up::{Peers, Standing};
use crate::codec::WireCodec;
use crate::context::{self, Chain};
use crate::engine::EngineError;
use crate::observer::bytes_of;
use crate::revocable::Revocable;
use crate::sightings::sightings_of;
use crate::signing::{UNSIGNED, is_valid};

/// How long the network may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Parts of blocks that wait for the network: it takes each at once.
const PARTS_MAX: usize = 1;

/// Whose messages are recognised.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) chain: Hash,
    pub(crate) signer: Arc<Revocable>,
}

/// A running network.
pub(crate) struct Network {
    actor: NetworkRef<Chain>,
    watch: ActorRef<Event>,
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
        let arguments = (own, Arc::clone(&shared), actor.clone());
        let (watch, _) = Actor::spawn(None, Watch, arguments)
            .await
            .map_err(|error| start(&error))?;
        actor
            .cast(Msg::Subscribe(Box::new(watch.clone())))
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

/// An event of the network, as the watching actor gets it.
#[derive(Debug)]
pub(crate) struct Event(pub(crate) NetworkEvent<Chain>);

impl From<NetworkEvent<Chain>> for Event {
    fn from(event: NetworkEvent<Chain>) -> Self {
        Self(event)
    }
}

/// Watches what the peers send.
struct Watch;

#[async_trait]
impl Actor for Watch {
    type Msg = Event;
    type State = (Option<Own>, Arc<Shared>, NetworkRef<Chain>);
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Event>,
        state: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Event>,
        Event(event): Event,
        (own, shared, network): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        match &event {
            NetworkEvent::PeerConnected(peer) => shared.peers(|peers| peers.connected(*peer, now)),
            NetworkEvent::PeerDisconnected(peer) => shared.peers(|peers| peers.disconnected(peer)),
            NetworkEvent::Status(peer, status) => {
                shared.peers(|peers| peers.reported(*peer, status.tip_height.0, now));
            }
            NetworkEvent::SyncResponse(_, peer, Some(Response::ValueResponse(response))) => {
                if let Some(last) = response.values.last() {
                    let last = last.certificate.height.0;
                    shared.peers(|peers| peers.sent(peer, last, now));
                }
            }
            // Only from here on does a message of ours reach it.
            NetworkEvent::PeerSubscribed(..) => {
                shared.joined.send_replace(());
            }
            NetworkEvent::SyncRequest(id, _, Request::ValueRequest(request))
                if !shared.is_serving.load(Ordering::Relaxed) =>
            {
                let nothing = ValueResponse::new(*request.range.start(), Vec::new());
                let nothing = Response::ValueResponse(nothing);
                // An error means that the network is stopping.
                network
                    .cast(Msg::OutgoingResponse(id.clone(), nothing))
                    .ok();
            }
            _ => {}
        }
        if let Some(own) = own
            && let Some(error) = own.watch(&event)
        {
            tracing::error!("{error}");
            shared.foreign.send_replace(Some(error));
        }
        Ok(())
    }
}

impl Own {
    /// Revokes the signer when an event has a message of another process that uses its key; gives what
    /// is to be said then, once.
    fn watch(&self, event: &NetworkEvent<Chain>) -> Option<EngineError> {
        if self.signer.is_revoked() {
            return None;
        }
        let (peer, what) = self.foreign(event)?;
        // Before anybody is told: the engines that sign take a while to end.
        self.signer.revoke(format_args!(
            "another process signs with this validator's key: {what}"
        ));
        Some(EngineError::Foreign {
            peer: peer.to_string(),
            what,
        })
    }

    /// The first message of an event that names our key and is not ours, when its signature is.
    ///
    /// One signature is verified, however many the event has: with one that is none, a certificate is
    /// worthless as a whole, and so are the blocks that an answer has above such a certificate.
    fn foreign(&self, event: &NetworkEvent<Chain>) -> Option<(PeerId, String)> {
        let me = self.signer.key();
        let (peer, mut mine) = sightings_of(event, me)?;
        let (seen, foreign) = mine.find_map(|seen| {
            let foreign = self.signer.foreign(&seen.sighting)?;
            Some((seen, foreign))
        })?;
        // Only what verifies: nobody else can stop this node with a message.
        let bytes = bytes_of(&self.chain, &me, &seen.sighting);
        is_valid(&me, &bytes, &seen.signature).then(|| (peer, foreign.to_string()))
    }
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
