//! Whether this node has caught up with the network: no connected peer shows a higher height.
//!
//! A peer's status is a bare claim. It counts for [`CLAIM_MAX`], and longer only while blocks
//! arrive. When none do, a peer that invents heights delays a validator by that time, peers that come
//! one after the other and do so by [`CLAIMS_MAX`], and peers that say nothing by [`CLAIM_MAX`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arc_malachitebft_peer::PeerId;
use proofmill_chain::types::units::Height;

/// How long a peer's unproven claim of a higher height counts.
pub(crate) const CLAIM_MAX: Duration = Duration::from_secs(10);
/// How long unproven claims of all peers together count: time for a node whose connections are slow to
/// come, and a bound for a stranger who has as many names as it likes.
const CLAIMS_MAX: Duration = Duration::from_secs(60);
/// How long a connected peer may take to report its height.
const REPORT_MAX: Duration = Duration::from_secs(2);

/// What the peers' heights say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody shows a higher height.
    CaughtUp,
    /// Somebody shows this height.
    Behind(Height),
    /// Not known before this time, unless peers report.
    Unknown(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    connected: Instant,
    claim: Option<Claim>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The height reported last.
    height: Height,
    /// The highest that this node has not reached.
    highest: Height,
    /// Since when that is unproven.
    since: Instant,
}

/// The peers and their claims.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    begun: Instant,
    alone_wait: Duration,
    /// When the head last rose, and to which height.
    progress: (Height, Instant),
}

impl Peers {
    /// No peers yet; without any, a node has caught up after `alone_wait`.
    pub(crate) fn new(now: Instant, alone_wait: Duration) -> Self {
        Self {
            peers: BTreeMap::new(),
            begun: now,
            alone_wait,
            progress: (Height::ZERO, now),
        }
    }

    pub(crate) fn connected(&mut self, peer: PeerId, now: Instant) {
        let new = Peer {
            connected: now,
            claim: None,
        };
        self.peers.entry(peer).or_insert(new);
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// A connected peer says that it has committed `height`.
    pub(crate) fn reported(&mut self, peer: PeerId, height: Height, now: Instant) {
        self.connected(peer, now);
        let Some(peer) = self.peers.get_mut(&peer) else {
            return;
        };
        // Without blocks that prove what a peer claimed, no further claim starts its time anew.
        let claim = match peer.claim {
            Some(before) if before.highest > self.progress.0 => Claim {
                height,
                highest: before.highest.max(height),
                ..before
            },
            _ => Claim {
                height,
                highest: height,
                since: now,
            },
        };
        peer.claim = Some(claim);
    }

    /// Where this node stands with `head` committed.
    pub(crate) fn standing(&mut self, head: Height, now: Instant) -> Standing {
        if head > self.progress.0 {
            self.progress = (head, now);
        }
        let progress = self.progress.1;
        let counts =
            |since: Instant| now < (since.max(progress) + CLAIM_MAX).min(progress + CLAIMS_MAX);
        let claims = self.peers.values().filter_map(|peer| peer.claim);
        let higher = claims.filter(|claim| claim.height > head && counts(claim.since));
        if let Some(height) = higher.map(|claim| claim.height).max() {
            return Standing::Behind(height);
        }
        let silent = self.peers.values().filter(|peer| peer.claim.is_none());
        let awaited = silent.map(|peer| peer.connected + REPORT_MAX).max();
        let awaited = awaited.map(|until| until.min(self.begun + CLAIM_MAX));
        match awaited {
            Some(until) if now < until => Standing::Unknown(until),
            _ if self.peers.values().any(|peer| peer.claim.is_some()) => Standing::CaughtUp,
            _ => {
                let until = self.begun + self.alone_wait;
                if now < until {
                    Standing::Unknown(until)
                } else {
                    Standing::CaughtUp
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use arc_malachitebft_peer::PeerId;
    use proofmill_chain::types::units::Height;

    use super::{CLAIM_MAX, CLAIMS_MAX, Peers, REPORT_MAX, Standing};

    const ALONE: Duration = Duration::from_secs(10);

    /// A peer id: an identity multihash of some bytes.
    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes(&[0, 2, 7, number]).expect("a short identity")
    }

    fn height(height: u64) -> Height {
        Height::new(height)
    }

    #[test]
    fn without_peers_it_is_a_matter_of_time() {
        let now = Instant::now();
        let mut peers = Peers::new(now, ALONE);
        assert_eq!(
            peers.standing(height(5), now),
            Standing::Unknown(now + ALONE)
        );
        assert_eq!(peers.standing(height(5), now + ALONE), Standing::CaughtUp);
    }

    #[test]
    fn one_higher_peer_is_enough_to_be_behind_and_its_departure_ends_it() {
        let now = Instant::now();
        let (low, high) = (peer(1), peer(2));
        let mut peers = Peers::new(now, ALONE);
        peers.reported(low, height(5), now);
        assert_eq!(peers.standing(height(5), now), Standing::CaughtUp);
        peers.reported(high, height(9), now);
        assert_eq!(peers.standing(height(5), now), Standing::Behind(height(9)));
        assert_eq!(peers.standing(height(9), now), Standing::CaughtUp);
        peers.reported(high, height(12), now);
        peers.disconnected(&high);
        assert_eq!(peers.standing(height(9), now), Standing::CaughtUp);
    }

    #[test]
    fn a_claim_that_no_block_proves_counts_for_a_while_even_when_it_grows() {
        let now = Instant::now();
        let liar = peer(1);
        let mut peers = Peers::new(now, ALONE);
        peers.standing(height(5), now);
        for second in 0..CLAIM_MAX.as_secs() {
            let then = now + Duration::from_secs(second);
            peers.reported(liar, height(100 + second), then);
            let standing = peers.standing(height(5), then);
            assert_eq!(standing, Standing::Behind(height(100 + second)));
        }
        let late = now + CLAIM_MAX;
        peers.reported(liar, height(1), late);
        peers.reported(liar, height(900), late);
        assert_eq!(peers.standing(height(5), late), Standing::CaughtUp);
    }

    #[test]
    fn strangers_with_ever_new_names_delay_for_a_bounded_time() {
        let now = Instant::now();
        let (mut silent, mut liars) = (Peers::new(now, ALONE), Peers::new(now, ALONE));
        for second in 0..CLAIMS_MAX.as_secs() {
            let then = now + Duration::from_secs(second);
            let stranger = peer(u8::try_from(second).expect("few"));
            silent.connected(stranger, then);
            let waits = matches!(silent.standing(height(5), then), Standing::Unknown(_));
            assert_eq!(waits, then < now + CLAIM_MAX, "{second}");
            liars.reported(stranger, height(900), then);
            assert_eq!(
                liars.standing(height(5), then),
                Standing::Behind(height(900))
            );
        }
        let late = now + CLAIMS_MAX;
        liars.reported(peer(99), height(900), late);
        assert_eq!(liars.standing(height(5), late), Standing::CaughtUp);
    }

    #[test]
    fn while_blocks_arrive_a_claim_goes_on_counting() {
        let now = Instant::now();
        let honest = peer(1);
        let mut peers = Peers::new(now, ALONE);
        for second in 0..60 {
            let then = now + Duration::from_secs(second);
            peers.reported(honest, height(1000), then);
            let standing = peers.standing(height(second), then);
            assert_eq!(standing, Standing::Behind(height(1000)));
        }
    }

    #[test]
    fn a_connected_peer_is_given_time_to_report() {
        let now = Instant::now();
        let mut peers = Peers::new(now, Duration::ZERO);
        peers.reported(peer(1), height(5), now);
        peers.connected(peer(2), now);
        assert_eq!(
            peers.standing(height(5), now),
            Standing::Unknown(now + REPORT_MAX)
        );
        assert_eq!(
            peers.standing(height(5), now + REPORT_MAX),
            Standing::CaughtUp
        );
    }
}
