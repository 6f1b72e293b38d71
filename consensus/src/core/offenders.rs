//! Peers that sent parts that are not those of their announcement, by height.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::types::units::Height;

use super::api::Peer;

/// Peers remembered for one height; heights are bounded by how far ahead blocks are collected.
pub const OFFENDERS_PER_HEIGHT_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Offenders {
    heights: BTreeMap<Height, BTreeSet<Peer>>,
}

impl Offenders {
    /// Remembers a peer; whether it is new.
    pub(super) fn record(&mut self, height: Height, peer: &Peer) -> bool {
        let peers = self.heights.entry(height).or_default();
        peers.len() < OFFENDERS_PER_HEIGHT_MAX && peers.insert(peer.clone())
    }

    pub(super) fn contains(&self, height: Height, peer: &Peer) -> bool {
        let peers = self.heights.get(&height);
        peers.is_some_and(|peers| peers.contains(peer))
    }

    /// Whether a peer is remembered for any height.
    pub(super) fn knows(&self, peer: &Peer) -> bool {
        self.heights.values().any(|peers| peers.contains(peer))
    }

    /// Forgets the heights up to one that is committed.
    pub(super) fn prune(&mut self, committed: Height) {
        self.heights.retain(|height, _| *height > committed);
    }
}
