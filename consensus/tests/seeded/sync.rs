//! Value sync in miniature: peers announce their heights, a node behind asks one of them for decided
//! blocks and feeds them to its engine one height after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::units::Height;

/// Decided blocks in one answer.
const ANSWER_MAX: u64 = 5;
/// How long an answer is waited for, in microseconds.
const PATIENCE: u64 = 1_500_000;
/// How often heights are announced, in microseconds.
pub(crate) const INTERVAL: u64 = 500_000;

/// A decided block as it is stored and served.
pub(crate) type Decided = (Certificate, Arc<[u8]>);

/// A request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) first: Height,
    pub(crate) last: Height,
}

#[derive(Debug, Default)]
pub(crate) struct Sync {
    tips: BTreeMap<usize, Height>,
    pending: Option<(usize, Request, u64)>,
    requests: u64,
    values: BTreeMap<Height, (usize, Decided)>,
    /// The height whose value the engine has, and who sent it.
    fed: Option<(Height, usize)>,
    excluded: BTreeMap<Height, BTreeSet<usize>>,
}

impl Sync {
    pub(crate) fn tip(&mut self, peer: usize, height: Height) {
        self.tips.insert(peer, height);
    }

    /// The value to feed at a height.
    pub(crate) fn feed(&mut self, height: Height) -> Option<(usize, Decided)> {
        self.values.retain(|of, _| *of >= height);
        self.excluded.retain(|of, _| *of >= height);
        if self.fed.is_some_and(|(of, _)| of >= height) {
            return None;
        }
        let (peer, value) = self.values.remove(&height)?;
        self.fed = Some((height, peer));
        Some((peer, value))
    }

    /// Whom to ask for what, when something at `height` or above is missing.
    pub(crate) fn request(
        &mut self,
        height: Height,
        now: u64,
        pick: impl FnOnce(usize) -> usize,
    ) -> Option<(usize, Request)> {
        if self.pending.is_some_and(|(_, _, until)| now < until) {
            return None;
        }
        if let Some((late, request, _)) = self.pending.take() {
            self.excluded.entry(request.first).or_default().insert(late);
        }
        let mut first = height;
        while self.values.contains_key(&first) || self.fed.is_some_and(|(of, _)| of == first) {
            first = first.next();
        }
        let excluded = self.excluded.entry(first).or_default();
        let able = |excluded: &BTreeSet<usize>| -> Vec<usize> {
            let tips = self.tips.iter().filter(|(_, tip)| **tip >= first);
            let peers = tips.map(|(peer, _)| *peer);
            peers.filter(|peer| !excluded.contains(peer)).collect()
        };
        let mut peers = able(excluded);
        if peers.is_empty() {
            excluded.clear();
            peers = able(excluded);
        }
        if peers.is_empty() {
            return None;
        }
        let peer = peers[pick(peers.len())];
        self.requests += 1;
        let request = Request {
            number: self.requests,
            first,
            last: first.saturating_plus(ANSWER_MAX - 1).min(self.tips[&peer]),
        };
        self.pending = Some((peer, request, now + PATIENCE));
        Some((peer, request))
    }

    /// Takes an answer.
    pub(crate) fn answer(&mut self, peer: usize, number: u64, values: Vec<Decided>) {
        let Some((asked, request, _)) = self.pending else {
            return;
        };
        if (asked, request.number) != (peer, number) {
            return;
        }
        self.pending = None;
        if values.is_empty() {
            self.excluded.entry(request.first).or_default().insert(peer);
        }
        for value in values {
            let height = value.0.height;
            if (request.first..=request.last).contains(&height) {
                self.values.insert(height, (peer, value));
            }
        }
    }

    /// The value of a height was not what was decided, by the fault of whoever sent it or not.
    pub(crate) fn failed(&mut self, height: Height, by_peer: bool) {
        let Some((of, peer)) = self.fed else { return };
        if of != height {
            return;
        }
        self.fed = None;
        if by_peer {
            self.values.retain(|_, (from, _)| *from != peer);
            self.excluded.entry(height).or_default().insert(peer);
        }
    }
}
