//! How many connections an address may open, and which peers have lost our patience.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use tokio::time::Instant;

use super::{CUT_OFF_MAX, PER_IP_MAX, REJECTED_MAX, USELESS_MAX, USELESS_PER_SECOND};

/// Connections that others opened, by where they come from.
#[derive(Debug, Default)]
pub(super) struct Origins {
    by_connection: BTreeMap<ConnectionId, IpAddr>,
    counts: BTreeMap<IpAddr, usize>,
}

impl Origins {
    /// Whether the connection may stay.
    pub(super) fn admit(&mut self, connection: ConnectionId, address: &Multiaddr) -> bool {
        let Some(ip) = ip_of(address) else {
            return false;
        };
        let count = self.counts.entry(ip).or_default();
        *count += 1;
        self.by_connection.insert(connection, ip);
        ip.is_loopback() || *count <= PER_IP_MAX
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        let Some(ip) = self.by_connection.remove(&connection) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&ip);
            }
        }
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

/// What invalid and useless messages cost. The clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    rejected: BTreeMap<PeerId, u32>,
    credits: BTreeMap<PeerId, Credit>,
    /// Oldest first, so that the memory is bounded.
    cut_off: VecDeque<PeerId>,
}

/// How many useless messages a peer may still send.
#[derive(Clone, Copy, Debug)]
struct Credit {
    left: u32,
    /// When `left` was right.
    at: Instant,
}

impl Credit {
    /// The credit now: it grows with time up to its most.
    fn now(self, now: Instant) -> Self {
        let earned =
            now.duration_since(self.at).as_millis() * u128::from(USELESS_PER_SECOND) / 1_000;
        if earned == 0 {
            return self;
        }
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        Self {
            left: self.left.saturating_add(earned).min(USELESS_MAX),
            at: now,
        }
    }
}

/// What follows from a rejected message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Nothing yet.
    Counted,
    /// The peer is cut off; the oldest one cut off may be forgiven in return.
    CutOff {
        /// Who is forgiven.
        forgiven: Option<PeerId>,
    },
}

impl Conduct {
    pub(super) fn rejected(&mut self, peer: PeerId) -> Consequence {
        let count = self.rejected.entry(peer).or_default();
        *count += 1;
        if *count < REJECTED_MAX {
            return Consequence::Counted;
        }
        self.rejected.remove(&peer);
        let full = self.cut_off.len() >= CUT_OFF_MAX;
        let forgiven = if full { self.cut_off.pop_front() } else { None };
        self.cut_off.push_back(peer);
        Consequence::CutOff { forgiven }
    }

    /// A message of the peer was useless.
    pub(super) fn useless(&mut self, peer: PeerId, now: Instant) {
        let full = Credit {
            left: USELESS_MAX,
            at: now,
        };
        let credit = self.credits.entry(peer).or_insert(full);
        *credit = credit.now(now);
        credit.left = credit.left.saturating_sub(1);
    }

    /// Whether the peer has no credit left.
    pub(super) fn is_muted(&self, peer: &PeerId, now: Instant) -> bool {
        let credit = self.credits.get(peer);
        credit.is_some_and(|credit| credit.now(now).left == 0)
    }

    pub(super) fn is_cut_off(&self, peer: &PeerId) -> bool {
        self.cut_off.contains(peer)
    }

    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.rejected.remove(peer);
        self.credits.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::ConnectionId;
    use libp2p::{Multiaddr, PeerId};

    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Conduct, Consequence, Origins};
    use crate::gossip::{CUT_OFF_MAX, PER_IP_MAX, REJECTED_MAX, USELESS_MAX, USELESS_PER_SECOND};

    #[test]
    fn useless_messages_mute_a_peer_until_it_has_credit_again() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let mut conduct = Conduct::default();
        let mut now = Instant::now();
        for _ in 0..USELESS_MAX {
            assert!(!conduct.is_muted(&peer, now));
            conduct.useless(peer, now);
        }
        assert!(conduct.is_muted(&peer, now));
        assert!(!conduct.is_muted(&other, now));
        now += Duration::from_secs(1);
        for _ in 0..USELESS_PER_SECOND {
            assert!(!conduct.is_muted(&peer, now));
            conduct.useless(peer, now);
        }
        assert!(conduct.is_muted(&peer, now));
        // A long silence earns no more than the whole credit.
        now += Duration::from_secs(100_000);
        for _ in 0..USELESS_MAX {
            conduct.useless(peer, now);
        }
        assert!(conduct.is_muted(&peer, now));
    }

    #[test]
    fn an_address_opens_so_many_connections_and_no_more() {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().expect("an address");
        let mut origins = Origins::default();
        for number in 0..PER_IP_MAX {
            assert!(origins.admit(ConnectionId::new_unchecked(number), &address));
        }
        let one_more = ConnectionId::new_unchecked(PER_IP_MAX);
        assert!(!origins.admit(one_more, &address));
        origins.closed(one_more);
        origins.closed(ConnectionId::new_unchecked(0));
        assert!(origins.admit(ConnectionId::new_unchecked(100), &address));
        let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
        for number in 200..202 + PER_IP_MAX {
            assert!(origins.admit(ConnectionId::new_unchecked(number), &loopback));
        }
    }

    #[test]
    fn repeated_invalid_messages_cut_a_peer_off_and_the_memory_is_bounded() {
        let mut conduct = Conduct::default();
        let first = PeerId::random();
        for _ in 1..REJECTED_MAX {
            assert_eq!(conduct.rejected(first), Consequence::Counted);
        }
        assert!(!conduct.is_cut_off(&first));
        let forgiven = None;
        assert_eq!(conduct.rejected(first), Consequence::CutOff { forgiven });
        assert!(conduct.is_cut_off(&first));
        let mut last = Consequence::Counted;
        for _ in 0..CUT_OFF_MAX {
            let peer = PeerId::random();
            for _ in 0..REJECTED_MAX {
                last = conduct.rejected(peer);
            }
        }
        let forgiven = Some(first);
        assert_eq!(last, Consequence::CutOff { forgiven });
        assert!(!conduct.is_cut_off(&first));
    }
}
