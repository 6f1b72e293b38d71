//! The loop that owns libp2p's swarm.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::pending;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity,
    MessageId, TopicHash, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use proofmill_chain::types::hash::Hash;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::dial::Targets;
use super::inbox::Postman;
use super::limits::{Conduct, Consequence, Origins};
use super::silence::Silence;
use super::{
    Acceptance, Counters, ENVELOPE_BYTES_MAX, GossipConfig, GossipError, Incoming,
    PEERS_INCOMING_MAX, PER_PEER_MAX, Peer, Topic, UNSENT_MAX, hex_prefix,
};

/// Connections are never closed for being idle: between transactions nothing is said.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// First heartbeat, at which meshes form that subscriptions have not formed.
const HEARTBEAT_DELAY: Duration = Duration::from_secs(1);
/// Heartbeats for which a message waits for its verdict before it can no longer travel on.
const HISTORY_HEARTBEATS: usize = 10;
/// Messages that wait for one slow peer.
const SENDING_QUEUE: usize = 2_048;
/// How long a message waits for a slow peer.
const SENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node's description begins with; the hash of its list of upgrades follows.
const AGENT: &str = "proofmill/upgrades/";

/// What the node asks of the loop.
#[derive(Debug)]
pub(super) enum Command {
    Publish(Topic, Vec<u8>),
    Stop,
}

type Gossipsub = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gossipsub: Gossipsub,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

struct Verdict {
    message: MessageId,
    peer: PeerId,
    acceptance: Acceptance,
}

type Verdicts = FuturesUnordered<futures::future::BoxFuture<'static, Verdict>>;

/// The swarm and everything known about its peers.
pub(super) struct Loop {
    swarm: Swarm<Behaviour>,
    topics: BTreeMap<TopicHash, Topic>,
    targets: Targets,
    silence: Silence,
    origins: Origins,
    conduct: Conduct,
    connected: BTreeMap<PeerId, Peer>,
    /// Names our list of upgrades.
    upgrades: Hash,
    verdicts: Verdicts,
    unsent: VecDeque<(Topic, Vec<u8>)>,
    postman: Postman,
    peers_out: watch::Sender<Vec<Peer>>,
    listening_out: watch::Sender<Option<Multiaddr>>,
    counters: Arc<Counters>,
}

impl Loop {
    pub(super) fn new(
        keypair: Keypair,
        config: &GossipConfig,
        postman: Postman,
        peers_out: watch::Sender<Vec<Peer>>,
        listening_out: watch::Sender<Option<Multiaddr>>,
        counters: Arc<Counters>,
    ) -> Result<Self, GossipError> {
        let topics = Topic::ALL.map(|topic| (hash_of(topic, &config.genesis), topic));
        let mut swarm = swarm(keypair, config)?;
        let unheard = |reason| GossipError::Listen {
            address: config.listen.clone(),
            reason,
        };
        probe(&config.listen).map_err(|error| unheard(error.to_string()))?;
        swarm
            .listen_on(config.listen.clone())
            .map_err(|error| unheard(error.to_string()))?;
        Ok(Self {
            swarm,
            topics: topics.into(),
            targets: Targets::new(&config.peers, Instant::now()),
            silence: Silence::new(config.keep_alive, Instant::now()),
            origins: Origins::default(),
            conduct: Conduct::default(),
            connected: BTreeMap::new(),
            upgrades: config.upgrades,
            verdicts: FuturesUnordered::new(),
            unsent: VecDeque::new(),
            postman,
            peers_out,
            listening_out,
            counters,
        })
    }

    /// Runs until it is told to stop or nobody can tell it any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let due = self.targets.next_due();
            let redial = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let look = sleep_until(self.silence.next_look());
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(verdict) = self.verdicts.next() => self.on_verdict(&verdict),
                () = redial => self.dial_due(),
                () = look => self.close_silent(),
                command = commands.recv() => match command {
                    Some(Command::Publish(topic, bytes)) => self.publish(topic, bytes),
                    Some(Command::Stop) | None => return,
                },
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.on_identified(peer_id, &info.agent_version),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(&event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.targets.connected(connection_id);
                self.silence.heard(connection_id, Instant::now());
                let admitted = match &endpoint {
                    ConnectedPoint::Dialer { .. } => true,
                    ConnectedPoint::Listener { send_back_addr, .. } => {
                        self.origins.admit(connection_id, send_back_addr)
                    }
                };
                if !admitted || self.conduct.is_cut_off(&peer_id) {
                    self.swarm.close_connection(connection_id);
                    return;
                }
                let address = endpoint.get_remote_address().clone();
                self.connected.entry(peer_id).or_insert(Peer {
                    id: peer_id,
                    address,
                    subscribed: false,
                    upgrades: None,
                });
                self.announce_peers();
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.origins.closed(connection_id);
                self.silence.closed(connection_id);
                self.targets.lost(connection_id, Instant::now());
                if num_established == 0 {
                    self.conduct.disconnected(&peer_id);
                    self.connected.remove(&peer_id);
                    self.announce_peers();
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if matches!(error, DialError::LocalPeerId { .. }) {
                    self.targets.is_ourselves(connection_id);
                } else {
                    tracing::debug!(%error, "a peer cannot be reached");
                    self.targets.lost(connection_id, Instant::now());
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening_out.send_if_modified(|listening| {
                    let first = listening.is_none();
                    listening.get_or_insert(address);
                    first
                });
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "gossip listens no more");
            }
            _ => {}
        }
    }

    /// Compares the peer's list of upgrades with ours. A peer with another one stays: until the first
    /// height at which the lists differ both follow the same chain.
    fn on_identified(&mut self, id: PeerId, agent: &str) {
        let upgrades = upgrades_of(agent);
        let Some(peer) = self.connected.get_mut(&id) else {
            return;
        };
        if peer.upgrades == upgrades {
            return;
        }
        peer.upgrades = upgrades;
        if let Some(theirs) = upgrades
            && theirs != self.upgrades
        {
            let address = peer.address.clone();
            tracing::warn!(
                peer = %id,
                %address,
                %theirs,
                ours = %self.upgrades,
                "a peer has another list of upgrades: compare the lists before the next upgrade"
            );
        }
        self.announce_peers();
    }

    /// An answer is a sign of life. Failures are none of our business: a connection without answers is
    /// closed when it has been silent for too long.
    fn on_ping(&mut self, event: &ping::Event) {
        if event.result.is_ok() {
            self.silence.heard(event.connection, Instant::now());
        }
    }

    /// Closes connections whose other side does not answer; peers that were configured are dialled again.
    fn close_silent(&mut self) {
        for connection in self.silence.look(Instant::now()) {
            tracing::debug!(%connection, "a peer has fallen silent");
            self.swarm.close_connection(connection);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => self.on_message(propagation_source, message_id, message),
            gossipsub::Event::Subscribed { peer_id, .. } => {
                if let Some(peer) = self.connected.get_mut(&peer_id)
                    && !peer.subscribed
                {
                    peer.subscribed = true;
                    self.announce_peers();
                }
                for (topic, bytes) in std::mem::take(&mut self.unsent) {
                    self.publish(topic, bytes);
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                // Not of this chain, or not a node at all.
                tracing::debug!(%peer_id, "a peer does not speak this chain's gossip");
                self.cut(&peer_id);
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(%peer_id, "a peer is too slow for its messages");
            }
            gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    fn on_message(&mut self, peer: PeerId, id: MessageId, message: gossipsub::Message) {
        let bytes = message.data.len();
        let topic = self.topics.get(&message.topic).copied();
        let Some(topic) = topic.filter(|topic| bytes <= topic.bytes_max()) else {
            self.conclude(&id, peer, Acceptance::Reject);
            return;
        };
        if self.conduct.is_muted(&peer, Instant::now()) {
            count(&self.counters.muted);
            self.conclude(&id, peer, Acceptance::Ignore);
            return;
        }
        let (verdict, answer) = oneshot::channel();
        let incoming = Incoming {
            topic,
            bytes: message.data,
            peer,
            verdict,
        };
        count(&self.counters.received);
        // The verdict on a message that is dropped comes at once: to ignore it.
        let dropped = self.postman.put(incoming);
        self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
        let judged = answer.map(move |acceptance| Verdict {
            message: id,
            peer,
            acceptance: acceptance.unwrap_or(Acceptance::Ignore),
        });
        self.verdicts.push(judged.boxed());
    }

    fn on_verdict(&mut self, verdict: &Verdict) {
        self.conclude(&verdict.message, verdict.peer, verdict.acceptance);
    }

    fn conclude(&mut self, message: &MessageId, peer: PeerId, acceptance: Acceptance) {
        let reported = match acceptance {
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore | Acceptance::Useless => MessageAcceptance::Ignore,
            Acceptance::Reject => MessageAcceptance::Reject,
        };
        self.swarm
            .behaviour_mut()
            .gossipsub
            .report_message_validation_result(message, &peer, reported);
        if acceptance == Acceptance::Useless {
            self.conduct.useless(peer, Instant::now());
        }
        if acceptance != Acceptance::Reject {
            return;
        }
        count(&self.counters.rejected);
        if let Consequence::CutOff { forgiven } = self.conduct.rejected(peer) {
            tracing::warn!(%peer, "a peer is cut off for invalid messages");
            let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
            gossipsub.blacklist_peer(&peer);
            if let Some(forgiven) = forgiven {
                gossipsub.remove_blacklisted_peer(&forgiven);
            }
            self.cut(&peer);
        }
    }

    fn cut(&mut self, peer: &PeerId) {
        // It may be gone already.
        let _ = self.swarm.disconnect_peer_id(*peer);
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let Some(hash) = self
            .topics
            .iter()
            .find_map(|(hash, known)| (*known == topic).then(|| hash.clone()))
        else {
            return;
        };
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        match gossipsub.publish(hash, bytes.clone()) {
            // What went around is with the peers.
            Ok(_) | Err(gossipsub::PublishError::Duplicate) => count(&self.counters.published),
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => {
                if self.unsent.len() >= UNSENT_MAX {
                    self.unsent.pop_front();
                    count(&self.counters.unsent);
                }
                self.unsent.push_back((topic, bytes));
            }
            Err(error) => {
                tracing::warn!(%error, "a message was not sent");
                count(&self.counters.unsent);
            }
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        for (place, address) in self.targets.due(now) {
            let options = DialOpts::unknown_peer_id()
                .address(address)
                .allocate_new_port()
                .build();
            let connection = options.connection_id();
            self.targets.dialling(place, connection);
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%error, "a peer cannot be dialled");
                self.targets.lost(connection, now);
            }
        }
    }

    fn announce_peers(&self) {
        let peers = self.connected.values().cloned().collect();
        self.peers_out.send_replace(peers);
    }
}

/// Whether the address is free. libp2p listens with `SO_REUSEPORT`, under which two nodes would
/// share a port and each get half of the connections.
fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn hash_of(topic: Topic, genesis: &Hash) -> TopicHash {
    IdentTopic::new(topic.path(genesis)).hash()
}

/// What a node tells its peers of itself.
fn agent(upgrades: &Hash) -> String {
    format!("{AGENT}{upgrades}")
}

/// The list of upgrades that a peer names, if it does.
fn upgrades_of(agent: &str) -> Option<Hash> {
    agent.strip_prefix(AGENT)?.parse().ok()
}

fn swarm(keypair: Keypair, config: &GossipConfig) -> Result<Swarm<Behaviour>, GossipError> {
    let genesis = &config.genesis;
    let setup = |reason: String| GossipError::Setup(reason);
    let gossipsub = gossipsub(&keypair, &config.genesis).map_err(setup)?;
    let ping = ping::Behaviour::new(
        ping::Config::new()
            .with_interval(config.keep_alive.interval)
            .with_timeout(config.keep_alive.silent_max),
    );
    let limits = connection_limits::Behaviour::new(
        ConnectionLimits::default()
            .with_max_pending_incoming(Some(PEERS_INCOMING_MAX))
            .with_max_established_incoming(Some(PEERS_INCOMING_MAX))
            .with_max_established_per_peer(Some(PER_PEER_MAX)),
    );
    let identify = identify::Behaviour::new(
        identify::Config::new(
            format!("/proofmill/{}/1", hex_prefix(genesis)),
            keypair.public(),
        )
        .with_agent_version(agent(&config.upgrades)),
    );
    let builder = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(|error| setup(error.to_string()))?
        .with_behaviour(|_| Behaviour {
            limits,
            gossipsub,
            identify,
            ping,
        })
        .map_err(|error| setup(error.to_string()))?;
    Ok(builder
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build())
}

fn gossipsub(keypair: &Keypair, genesis: &Hash) -> Result<Gossipsub, String> {
    let mut config = ConfigBuilder::default();
    config
        .protocol_id_prefix(format!("/proofmill/{}", hex_prefix(genesis)))
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // Equal messages are one message, whoever sent them first.
        .message_id_fn(|message| {
            let id = Hash::of(
                "proofmill/gossip/v1",
                &[message.topic.as_str().as_bytes(), &message.data],
            );
            MessageId::from(id.as_bytes().to_vec())
        })
        .heartbeat_initial_delay(HEARTBEAT_DELAY)
        .history_length(HISTORY_HEARTBEATS)
        .connection_handler_queue_len(SENDING_QUEUE)
        .publish_queue_duration(SENDING_TIMEOUT)
        .forward_queue_duration(SENDING_TIMEOUT);
    let mut largest = 0;
    for topic in Topic::ALL {
        let most = topic.bytes_max() + ENVELOPE_BYTES_MAX;
        config.max_transmit_size_for_topic(most, hash_of(topic, genesis));
        largest = largest.max(most);
    }
    config.max_transmit_size(largest);
    let config = config.build().map_err(|error| error.to_string())?;
    let topics: HashSet<_> = Topic::ALL.map(|topic| hash_of(topic, genesis)).into();
    let mut behaviour = Gossipsub::new_with_subscription_filter(
        MessageAuthenticity::Signed(keypair.clone()),
        config,
        WhitelistSubscriptionFilter(topics),
    )
    .map_err(str::to_owned)?;
    for topic in Topic::ALL {
        behaviour
            .subscribe(&IdentTopic::new(topic.path(genesis)))
            .map_err(|error| error.to_string())?;
    }
    Ok(behaviour)
}
