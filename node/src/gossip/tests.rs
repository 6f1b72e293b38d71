//! Real nodes over loopback sockets.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use proofmill_chain::types::hash::Hash;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    Acceptance, Gossip, GossipConfig, GossipError, GossipHandle, Inbox, Incoming, KEEP_ALIVE,
    KeepAlive, PublishError, REJECTED_MAX, Topic,
};

/// Beyond this a test has failed; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

struct Node {
    handle: GossipHandle,
    incoming: Inbox,
    address: Multiaddr,
}

fn config(seed: u8, listen: &str, peers: &[Multiaddr]) -> GossipConfig {
    GossipConfig {
        listen: listen.parse().expect("an address"),
        peers: peers.to_vec(),
        seed: Zeroizing::new([seed; 32]),
        genesis: Hash::of("test/genesis", &[]),
        upgrades: Hash::of("test/upgrades", &[]),
        keep_alive: KEEP_ALIVE,
    }
}

async fn start(config: &GossipConfig) -> Node {
    let (handle, incoming) = Gossip::start(config).expect("it starts");
    let address = handle.listen_addr().await.expect("it listens");
    Node {
        handle,
        incoming,
        address,
    }
}

async fn node(seed: u8, peers: &[Multiaddr]) -> Node {
    start(&config(seed, "/ip4/127.0.0.1/tcp/0", peers)).await
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

impl Node {
    async fn meets(&self, count: usize) {
        let mut peers = self.handle.watch_peers();
        peers
            .wait_for(|peers| peers.iter().filter(|peer| peer.subscribed).count() == count)
            .await
            .expect("it runs");
    }

    async fn next(&mut self) -> Incoming {
        self.incoming.next().await.expect("it runs")
    }

    /// Takes messages, accepting them all, until one of these bytes comes; gives them all.
    async fn accept_until(&mut self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|bytes: &Vec<u8>| bytes != last) {
            let incoming = self.next().await;
            seen.push(incoming.bytes.clone());
            incoming.answer(Acceptance::Accept);
        }
        seen
    }
}

/// Four nodes in a ring with one chord: a message has several ways to each node.
async fn ring() -> [Node; 4] {
    let a = node(1, &[]).await;
    let b = node(2, from_ref(&a.address)).await;
    let c = node(3, &[a.address.clone(), b.address.clone()]).await;
    let d = node(4, &[a.address.clone(), c.address.clone()]).await;
    a.meets(3).await;
    b.meets(2).await;
    c.meets(3).await;
    d.meets(2).await;
    [a, b, c, d]
}

#[tokio::test]
async fn a_message_reaches_every_node_exactly_once() {
    in_time(async {
        let [a, mut b, mut c, mut d] = ring().await;
        let mut sent = Vec::new();
        for number in 0..50_u8 {
            let topic = Topic::ALL[usize::from(number) % 2];
            sent.push(vec![number; 300]);
            a.handle.publish(topic, vec![number; 300]).expect("is sent");
        }
        // As large as a transaction gets.
        sent.push(vec![77; Topic::Transactions.bytes_max()]);
        let large = sent.last().expect("just pushed").clone();
        a.handle
            .publish(Topic::Transactions, large)
            .expect("is sent");
        for node in [&mut b, &mut c, &mut d] {
            let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            while counts.len() < sent.len() {
                let incoming = node.next().await;
                *counts.entry(incoming.bytes.clone()).or_default() += 1;
                incoming.answer(Acceptance::Accept);
            }
            assert!(counts.keys().all(|bytes| sent.contains(bytes)));
            assert!(counts.values().all(|count| *count == 1));
        }
        // Every copy that was still on its way has come before this one.
        let last = b"the last one".to_vec();
        a.handle
            .publish(Topic::Transactions, last.clone())
            .expect("is sent");
        for node in [&mut b, &mut c, &mut d] {
            assert_eq!(node.accept_until(&last).await, *from_ref(&last));
            assert_eq!(node.handle.counts().received, sent.len() as u64 + 1);
            node.handle.stop().await;
        }
        a.handle.stop().await;
    })
    .await;
}

/// Three nodes in a row: what the last one gets the middle one has passed on.
async fn row() -> [Node; 3] {
    let a = node(1, &[]).await;
    let b = node(2, from_ref(&a.address)).await;
    let c = node(3, from_ref(&b.address)).await;
    a.meets(1).await;
    b.meets(2).await;
    c.meets(1).await;
    [a, b, c]
}

#[tokio::test]
async fn what_a_node_does_not_accept_goes_no_further() {
    in_time(async {
        let [a, mut b, mut c] = row().await;
        for bytes in [&b"rejected"[..], b"ignored", b"unanswered", b"good"] {
            a.handle
                .publish(Topic::Attestations, bytes.to_vec())
                .expect("is sent");
        }
        for _ in 0..4 {
            let incoming = b.next().await;
            assert_eq!(incoming.topic, Topic::Attestations);
            assert_eq!(incoming.peer, a.handle.id());
            match incoming.bytes.as_slice() {
                b"rejected" => incoming.answer(Acceptance::Reject),
                b"ignored" => incoming.answer(Acceptance::Ignore),
                b"unanswered" => drop(incoming),
                _ => incoming.answer(Acceptance::Accept),
            }
        }
        assert_eq!(c.accept_until(b"good").await, [b"good".to_vec()]);
        // Verdicts may overtake each other, so a second message closes the account.
        a.handle
            .publish(Topic::Attestations, b"end".to_vec())
            .expect("is sent");
        assert_eq!(b.accept_until(b"end").await, [b"end".to_vec()]);
        assert_eq!(c.accept_until(b"end").await, [b"end".to_vec()]);
        assert_eq!(b.handle.counts().rejected, 1);
        assert_eq!(c.handle.counts().received, 2);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_sends_only_invalid_messages_is_cut_off() {
    in_time(async {
        let [a, mut b, c] = row().await;
        for number in 0..REJECTED_MAX {
            let bytes = number.to_le_bytes().to_vec();
            a.handle
                .publish(Topic::Transactions, bytes)
                .expect("is sent");
            b.next().await.answer(Acceptance::Reject);
        }
        // B closes its connection with A and keeps the one with C.
        let c_id = c.handle.id();
        let mut peers = b.handle.watch_peers();
        peers
            .wait_for(|peers| peers.iter().all(|peer| peer.id == c_id))
            .await
            .expect("it runs");
        assert_eq!(b.handle.peers().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_here() {
    in_time(async {
        let a = node(1, &[]).await;
        for topic in Topic::ALL {
            let given = topic.bytes_max() + 1;
            let most = topic.bytes_max();
            assert_eq!(
                a.handle.publish(topic, vec![0; given]),
                Err(PublishError::TooLarge { given, most })
            );
        }
        a.handle.stop().await;
        assert_eq!(
            a.handle.publish(Topic::Transactions, vec![1]),
            Err(PublishError::Stopped)
        );
    })
    .await;
}

#[tokio::test]
async fn what_was_published_alone_reaches_the_first_peer() {
    in_time(async {
        let a = node(1, &[]).await;
        a.handle
            .publish(Topic::Transactions, b"early".to_vec())
            .expect("is kept");
        let mut b = node(2, from_ref(&a.address)).await;
        assert_eq!(b.accept_until(b"early").await, [b"early".to_vec()]);
    })
    .await;
}

#[tokio::test]
async fn a_restarted_peer_is_dialled_again() {
    in_time(async {
        let b = node(2, &[]).await;
        let a = node(1, from_ref(&b.address)).await;
        a.meets(1).await;
        let (address, id) = (b.address.to_string(), b.handle.id());
        b.handle.stop().await;
        a.meets(0).await;
        let mut b = start(&config(2, &address, &[])).await;
        assert_eq!(b.handle.id(), id);
        a.meets(1).await;
        a.handle
            .publish(Topic::Transactions, b"again".to_vec())
            .expect("is sent");
        assert_eq!(b.accept_until(b"again").await, [b"again".to_vec()]);
    })
    .await;
}

#[tokio::test]
async fn nodes_of_another_chain_are_let_go() {
    in_time(async {
        let a = node(1, &[]).await;
        let mut other = config(2, "/ip4/127.0.0.1/tcp/0", from_ref(&a.address));
        other.genesis = Hash::of("test/another", &[]);
        let b = start(&other).await;
        let mut peers = b.handle.watch_peers();
        peers
            .wait_for(|peers| !peers.is_empty())
            .await
            .expect("it runs");
        peers.wait_for(Vec::is_empty).await.expect("it runs");
        assert!(b.handle.peers().iter().all(|peer| !peer.subscribed));
    })
    .await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error_at_once() {
    in_time(async {
        let a = node(1, &[]).await;
        let second = Gossip::start(&config(2, &a.address.to_string(), &[]));
        assert!(matches!(second, Err(GossipError::Listen { .. })));
    })
    .await;
}

#[tokio::test]
async fn peers_hear_of_each_others_list_of_upgrades() {
    in_time(async {
        let ours = Hash::of("test/upgrades", &[]);
        let theirs = Hash::of("test/other-upgrades", &[]);
        let a = node(1, &[]).await;
        let same = node(2, from_ref(&a.address)).await;
        let other = start(&GossipConfig {
            upgrades: theirs,
            ..config(3, "/ip4/127.0.0.1/tcp/0", from_ref(&a.address))
        })
        .await;
        let told = |node: &Node, id| {
            let peers = node.handle.peers();
            let peer = peers.into_iter().find(|peer| peer.id == id);
            peer.and_then(|peer| peer.upgrades)
        };
        let mut peers = a.handle.watch_peers();
        peers
            .wait_for(|peers| peers.len() == 2 && peers.iter().all(|peer| peer.upgrades.is_some()))
            .await
            .expect("it runs");
        assert_eq!(told(&a, same.handle.id()), Some(ours));
        assert_eq!(told(&a, other.handle.id()), Some(theirs));
        let mut peers = other.handle.watch_peers();
        peers
            .wait_for(|peers| peers.iter().any(|peer| peer.upgrades == Some(ours)))
            .await
            .expect("it runs");
        // They go on exchanging messages: until the lists differ they follow one chain.
        a.meets(2).await;
        a.handle
            .publish(Topic::Transactions, vec![1; 10])
            .expect("is sent");
        let mut other = other;
        assert_eq!(other.next().await.bytes, vec![1; 10]);
    })
    .await;
}

/// Passes bytes on in both directions until `silent` turns true, and from then on none, without closing
/// anything: what a host that lost its power looks like.
async fn relay(listener: TcpListener, to: SocketAddr, silent: watch::Receiver<bool>) {
    let mut both = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.expect("a connection");
        if *silent.borrow() {
            // A host without power answers nothing; the connection stays half open.
            both.spawn(async move {
                std::future::pending::<()>().await;
                drop(near);
            });
            continue;
        }
        let far = TcpStream::connect(to).await.expect("the node listens");
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        for (mut from, mut to) in [(near_read, far_write), (far_read, near_write)] {
            let mut silent = silent.clone();
            both.spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy(&mut from, &mut to) => return,
                    _ = silent.wait_for(|silent| *silent) => {}
                }
                // Half open from now on: closing would be a word.
                std::future::pending::<()>().await;
            });
        }
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_no_longer_connected() {
    in_time(async {
        let keep_alive = KeepAlive {
            interval: Duration::from_millis(300),
            silent_max: Duration::from_secs(2),
        };
        let mut far = config(1, "/ip4/127.0.0.1/tcp/0", &[]);
        far.keep_alive = keep_alive;
        let far = start(&far).await;
        let port = far.address.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let far_at = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let between = listener.local_addr().expect("an address").port();
        let (silence, silent) = watch::channel(false);
        let relay = tokio::spawn(relay(listener, far_at, silent));
        let way = format!("/ip4/127.0.0.1/tcp/{between}");
        let way = way.parse().expect("an address");
        let mut near = config(2, "/ip4/127.0.0.1/tcp/0", from_ref(&way));
        near.keep_alive = keep_alive;
        let near = start(&near).await;
        near.meets(1).await;
        far.meets(1).await;
        // Nobody is cut off for having nothing to say.
        let quiet = timeout(keep_alive.noticed_within() * 2, near.meets(0)).await;
        assert!(quiet.is_err(), "an idle peer stays connected");

        silence.send_replace(true);
        let begun = Instant::now();
        near.meets(0).await;
        far.meets(0).await;
        let took = begun.elapsed();
        assert!(took >= keep_alive.silent_max / 2, "{took:?}");
        // Twice the time stated: the machine may be busy.
        assert!(took <= keep_alive.noticed_within() * 2, "{took:?}");
        relay.abort();
    })
    .await;
}

#[test]
fn silence_is_noticed_within_the_time_that_the_manual_states() {
    let manual = include_str!("../../../docs/operators.md");
    let stated = format!("within {} s", KEEP_ALIVE.noticed_within().as_secs());
    assert!(manual.contains(&stated), "{stated}");
}
