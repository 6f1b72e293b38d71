//! Whether this node has caught up with the network: no connected peer shows a higher height.
//!
//! A peer's status is a bare claim. It counts for [`CLAIM_MAX`], and longer only while the blocks that
//! the peer itself sends are new here; blocks that come from elsewhere say nothing of what it claims.
//! Claims of peers that the operator did not configure count for no longer than [`CLAIMS_MAX`] after the
//! start, whatever they send. So peers that invent heights, however many names they take, delay a
//! validator by [`CLAIMS_MAX`], peers that say nothing by [`CLAIM_MAX`], and only a configured peer
//! that goes on sending blocks delays it for longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use arc_malachitebft_peer::PeerId;
use proofmill_chain::types::units::Height;

use crate::wire::DECIDED_MAX;

/// How long a peer's unproven claim of a higher height counts.
pub(crate) const CLAIM_MAX: Duration = Duration::from_secs(10);
/// How long after the start claims count that are bare words or a stranger's: time for a node whose
/// connections are slow to come, and a bound for a stranger who has as many names as it likes.
const CLAIMS_MAX: Duration = Duration::from_secs(60);
/// How long a connected peer may take to report its height.
const REPORT_MAX: Duration = Duration::from_secs(2);
/// How far above the head the blocks of a peer count as sent: an answer holds no more, whatever heights
/// it names.
const SENT_AHEAD_MAX: u64 = DECIDED_MAX as u64;

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
    sent: Option<Sent>,
}

/// The blocks that a peer sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The highest.
    last: Height,
    /// When a new one came, or when the head last rose to one.
    at: Instant,
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
    /// The peers that the operator chose.
    configured: BTreeSet<PeerId>,
    /// The head, when it was last looked at.
    head: Height,
}

impl Peers {
    /// No peers yet; without any, a node has caught up after `alone_wait`.
    pub(crate) fn new(now: Instant, alone_wait: Duration, configured: BTreeSet<PeerId>) -> Self {
        Self {
            peers: BTreeMap::new(),
            begun: now,
            alone_wait,
            configured,
            head: Height::ZERO,
        }
    }

    pub(crate) fn connected(&mut self, peer: PeerId, now: Instant) {
        let new = Peer {
            connected: now,
            claim: None,
            sent: None,
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
            Some(before) if before.highest > self.head => Claim {
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

    /// A connected peer sent blocks, `last` being the highest.
    pub(crate) fn sent(&mut self, peer: &PeerId, last: Height, now: Instant) {
        let Some(peer) = self.peers.get_mut(peer) else {
            return;
        };
        if last > self.head {
            let highest = Height::new(self.head.get().saturating_add(SENT_AHEAD_MAX));
            let last = last.min(highest);
            peer.sent = Some(Sent { last, at: now });
        }
    }

    /// Where this node stands with `head` committed.
    pub(crate) fn standing(&mut self, head: Height, now: Instant) -> Standing {
        if head > self.head {
            self.head = head;
            let sent = self.peers.values_mut();
            let sent = sent.filter_map(|peer| peer.sent.as_mut());
            for sent in sent.filter(|sent| sent.last >= head) {
                sent.at = now;
            }
        }
        let claims = self.peers.iter().filter_map(|(name, peer)| {
            let claim = peer.claim?;
            (claim.height > head && self.counts(name, &claim, peer.sent, now))
                .then_some(claim.height)
        });
        if let Some(height) = claims.max() {
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

    fn counts(&self, name: &PeerId, claim: &Claim, sent: Option<Sent>, now: Instant) -> bool {
        let is_early = now < self.begun + CLAIMS_MAX;
        let is_new = now < claim.since + CLAIM_MAX;
        let sends = sent.is_some_and(|sent| now < sent.at + CLAIM_MAX);
        (is_early && is_new) || (sends && (is_early || self.configured.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use arc_malachitebft_peer::PeerId;
    use proofmill_chain::types::units::Height;

    use super::{CLAIM_MAX, CLAIMS_MAX, Peers, REPORT_MAX, SENT_AHEAD_MAX, Standing};

    const ALONE: Duration = Duration::from_secs(10);

    /// A peer id: an identity multihash of some bytes.
    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes(&[0, 2, 7, number]).expect("a short identity")
    }

    /// Peers none of whom the operator chose.
    fn strangers(now: Instant) -> Peers {
        Peers::new(now, ALONE, BTreeSet::new())
    }

    fn height(height: u64) -> Height {
        Height::new(height)
    }

    #[test]
    fn without_peers_it_is_a_matter_of_time() {
        let now = Instant::now();
        let mut peers = strangers(now);
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
        let mut peers = strangers(now);
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
        let mut peers = strangers(now);
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
        let (mut silent, mut liars) = (strangers(now), strangers(now));
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

    /// Seconds in which a block arrives each, far more than claims of strangers count.
    const LONG: u64 = 200;

    #[test]
    fn blocks_that_others_send_do_not_prolong_a_claim() {
        let now = Instant::now();
        let (liar, honest) = (peer(1), peer(2));
        // What a peer claims is as little true when the operator chose it.
        for configured in [BTreeSet::new(), BTreeSet::from([liar, honest])] {
            let mut peers = Peers::new(now, ALONE, configured);
            for second in 0..LONG {
                let then = now + Duration::from_secs(second);
                peers.reported(liar, height(u64::MAX), then);
                peers.reported(honest, height(second), then);
                peers.sent(&honest, height(second), then);
                let standing = peers.standing(height(second), then);
                let is_behind = standing == Standing::Behind(height(u64::MAX));
                assert_eq!(is_behind, then < now + CLAIM_MAX, "{second}: {standing:?}");
            }
        }
    }

    #[test]
    fn a_configured_peer_counts_for_as_long_as_it_sends_blocks() {
        let now = Instant::now();
        let honest = peer(1);
        let mut peers = Peers::new(now, ALONE, BTreeSet::from([honest]));
        for second in 0..LONG {
            let then = now + Duration::from_secs(second);
            peers.reported(honest, height(1000), then);
            // Thirty blocks at once, which take longer to judge than a claim counts.
            if second % 30 == 0 {
                peers.sent(&honest, height(second + 30), then);
            }
            let standing = peers.standing(height(second), then);
            assert_eq!(standing, Standing::Behind(height(1000)), "{second}");
        }
        let late = now + Duration::from_secs(LONG) + CLAIM_MAX;
        peers.reported(honest, height(1000), late);
        assert_eq!(peers.standing(height(LONG - 1), late), Standing::CaughtUp);
    }

    #[test]
    fn a_stranger_counts_for_a_bounded_time_whatever_it_sends() {
        let now = Instant::now();
        let stranger = peer(1);
        let mut peers = strangers(now);
        for second in 0..LONG {
            let then = now + Duration::from_secs(second);
            peers.reported(stranger, height(1000), then);
            peers.sent(&stranger, height(second + 1), then);
            let standing = peers.standing(height(second), then);
            let is_behind = standing == Standing::Behind(height(1000));
            assert_eq!(is_behind, then < now + CLAIMS_MAX, "{second}: {standing:?}");
        }
    }

    #[test]
    fn one_answer_with_absurd_heights_prolongs_a_claim_by_few_blocks() {
        let now = Instant::now();
        let liar = peer(1);
        let mut peers = Peers::new(now, ALONE, BTreeSet::from([liar]));
        peers.reported(liar, height(u64::MAX), now);
        peers.sent(&liar, height(u64::MAX), now);
        let end = now + Duration::from_secs(SENT_AHEAD_MAX) + CLAIM_MAX;
        for second in 0..LONG {
            let then = now + Duration::from_secs(second);
            let standing = peers.standing(height(second), then);
            let is_behind = standing == Standing::Behind(height(u64::MAX));
            assert_eq!(is_behind, then < end, "{second}: {standing:?}");
        }
    }

    #[test]
    fn a_configured_peer_that_comes_again_and_sends_nothing_counts_for_a_bounded_time() {
        let now = Instant::now();
        let liar = peer(1);
        let mut peers = Peers::new(now, ALONE, BTreeSet::from([liar]));
        for second in 0..LONG {
            let then = now + Duration::from_secs(second);
            peers.disconnected(&liar);
            peers.reported(liar, height(u64::MAX), then);
            let standing = peers.standing(height(second), then);
            let is_behind = standing == Standing::Behind(height(u64::MAX));
            assert_eq!(is_behind, then < now + CLAIMS_MAX, "{second}: {standing:?}");
        }
    }

    #[test]
    fn a_connected_peer_is_given_time_to_report() {
        let now = Instant::now();
        let mut peers = Peers::new(now, Duration::ZERO, BTreeSet::new());
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
