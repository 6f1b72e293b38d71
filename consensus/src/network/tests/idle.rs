//! A network whose node runs no engine holds up no peer that is behind.

use std::time::Duration;

use arc_malachitebft_app_channel::NetworkIdentity;
use arc_malachitebft_engine::network::{Msg, NetworkEvent};
use arc_malachitebft_sync::{Request, Response, ValueRequest};
use async_trait::async_trait;
use proofmill_chain::types::units::Height;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use super::super::Network;
use crate::context::{self, Chain};
use crate::engine::{NetworkConfig, keypair, node_of};
use crate::observer::Event;

/// Far more than anything here takes, the engine's time-out of a request included.
const PATIENCE: Duration = Duration::from_secs(60);

struct Listening;

#[async_trait]
impl Actor for Listening {
    type Msg = Event;
    type State = mpsc::UnboundedSender<NetworkEvent<Chain>>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Event>,
        events: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(events)
    }

    async fn handle(
        &self,
        _: ActorRef<Event>,
        Event(event): Event,
        events: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        events.send(event).ok();
        Ok(())
    }
}

/// A network and what it delivers.
struct Peer {
    network: Network,
    events: mpsc::UnboundedReceiver<NetworkEvent<Chain>>,
}

impl Peer {
    async fn start(seed: u8, persistent_peers: Vec<String>) -> Self {
        let config = NetworkConfig {
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            persistent_peers,
            network_seed: [seed; 32],
            moniker: format!("peer{seed}"),
        };
        let node = node_of(&config).expect("a configuration");
        let keys = keypair(&config.network_seed);
        let identity = NetworkIdentity::new(config.moniker, keys, None);
        let started = Network::start(&node, identity, None, Duration::ZERO).await;
        let network = started.expect("it listens");
        let (sender, events) = mpsc::unbounded_channel();
        let (listening, _) = Actor::spawn(None, Listening, sender)
            .await
            .expect("an actor");
        let subscribed = network.actor.cast(Msg::Subscribe(Box::new(listening)));
        subscribed.expect("it runs");
        Self { network, events }
    }

    /// The first event of a kind from now on.
    async fn next<T>(&mut self, pick: impl Fn(NetworkEvent<Chain>) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.expect("such an event comes")
    }
}

/// A peer that runs no engine, and one that is connected to it.
async fn connected() -> (Peer, Peer) {
    let mut idle = Peer::start(1, Vec::new()).await;
    let address = idle.next(|event| match event {
        NetworkEvent::Listening(address) => Some(address),
        _ => None,
    });
    let address = format!("{}/p2p/{}", address.await, crate::peer_id(&[1; 32]));
    let mut other = Peer::start(2, vec![address]).await;
    let connected = |event| matches!(event, NetworkEvent::PeerConnected(_)).then_some(());
    other.next(connected).await;
    (idle, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_blocks_is_answered_with_none() {
    let (idle, mut behind) = connected().await;
    let peer = keypair(&[1; 32]).public().to_peer_id().to_bytes();
    let peer = arc_malachitebft_peer::PeerId::from_bytes(&peer).expect("a peer id");
    let first = context::Height(Height::new(5));
    let request = || Request::ValueRequest(ValueRequest::new(first..=first));
    let sent = ractor::call!(behind.network.actor, |reply| Msg::OutgoingRequest(
        peer,
        request(),
        reply
    ));
    let sent = sent.expect("sent");
    let answer = behind.next(|event| match event {
        NetworkEvent::SyncResponse(id, _, answer) if id == sent => Some(answer),
        NetworkEvent::SyncRequestFailed(id, _, reason) if id == sent => panic!("{reason:?}"),
        _ => None,
    });
    let Some(Response::ValueResponse(answer)) = answer.await else {
        panic!("the answer can be read");
    };
    assert_eq!(answer.start_height, first);
    assert!(answer.values.is_empty());
    behind.network.stop().await;
    idle.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_height_is_told_without_an_offer_of_its_blocks() {
    let (idle, mut other) = connected().await;
    let mut arrivals = idle.network.arrivals();
    // The other one may have subscribed by now, or does so later.
    idle.network.report(Height::new(7));
    let status = {
        let told = other.next(|event| match event {
            NetworkEvent::Status(_, status) => Some(status),
            _ => None,
        });
        tokio::pin!(told);
        loop {
            tokio::select! {
                status = &mut told => break status,
                // The sender lives as long as the network.
                _ = arrivals.changed() => idle.network.report(Height::new(7)),
            }
        }
    };
    assert_eq!(status.tip_height, context::Height(Height::new(7)));
    assert!(status.history_min_height > status.tip_height);
    other.network.stop().await;
    idle.network.stop().await;
}
