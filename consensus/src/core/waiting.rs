//! Blocks that are not judged yet: their parent is not committed, their round has not begun or
//! their time has not come; and those being judged or stored.
//!
//! Each block is known to have its hash and to be signed by its builder. What is kept is bounded per
//! builder and in bytes, and the builder with the most bytes gives way first, so that no validator
//! displaces another's blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::finality::{TurnError, check_turn};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use super::api::BlockFacts;
use super::part::Announcement;

/// Blocks built by one validator that wait at once.
pub const WAITING_PER_VALIDATOR_MAX: usize = 2;
/// Whole blocks' worth of bytes that wait at once.
pub const WAITING_BLOCKS_MAX: usize = 8;

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits; not before the given round, when an attempt to judge it failed.
    Waiting { not_before: Round },
    /// It is being judged.
    Judging,
    /// It is valid and being stored.
    Storing,
}

/// A block with the announcements that named it; at least one.
#[derive(Clone, Debug)]
pub(super) struct WaitingBlock {
    pub(super) facts: BlockFacts,
    pub(super) bytes: Arc<[u8]>,
    pub(super) stage: Stage,
    pub(super) announcements: Vec<(Announcement, Signature)>,
}

impl WaitingBlock {
    /// Whose block it is, by the header that its builder signed; others may announce it too.
    const fn builder(&self) -> AccountId {
        self.facts.turn.proposer
    }

    /// The first round in which it is proposed.
    fn first_round(&self) -> Round {
        let rounds = self.announcements.iter();
        let rounds = rounds.map(|(announcement, _)| announcement.round);
        rounds.min().unwrap_or(self.facts.turn.round)
    }

    const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }
}

type Key = (Height, Hash);

/// The blocks that are not judged yet.
pub(super) struct Waiting {
    bytes_max: usize,
    blocks: BTreeMap<Key, WaitingBlock>,
}

impl Waiting {
    pub(super) const fn new(block_bytes_max: usize) -> Self {
        Self {
            bytes_max: block_bytes_max.saturating_mul(WAITING_BLOCKS_MAX),
            blocks: BTreeMap::new(),
        }
    }

    /// Adds a block, which may displace others of its builder or of the one that keeps the most.
    pub(super) fn insert(&mut self, block: WaitingBlock) {
        let builder = block.builder();
        let key = (block.facts.turn.height, block.facts.hash);
        self.blocks.insert(key, block);
        while self.of(&builder).count() > WAITING_PER_VALIDATOR_MAX {
            if !self.drop_furthest(&builder) {
                break;
            }
        }
        while self.bytes() > self.bytes_max {
            let Some(most) = self.keeps_most() else { break };
            if !self.drop_furthest(&most) {
                break;
            }
        }
    }

    pub(super) fn get_mut(&mut self, height: Height, block: &Hash) -> Option<&mut WaitingBlock> {
        self.blocks.get_mut(&(height, *block))
    }

    pub(super) fn remove(&mut self, height: Height, block: &Hash) -> Option<WaitingBlock> {
        self.blocks.remove(&(height, *block))
    }

    /// Adds an announcement to a block that is here.
    pub(super) fn announce(&mut self, announcement: &Announcement, signature: Signature) -> bool {
        let Some(block) = self.get_mut(announcement.height, &announcement.block) else {
            return false;
        };
        let known = block.announcements.iter().any(|(a, _)| a == announcement);
        // A turn before the block was built is no turn of this block; see `check_turn`.
        if !known && block.facts.turn.round <= announcement.round {
            block.announcements.push((*announcement, signature));
        }
        true
    }

    /// The waiting blocks of a height that may be judged in a round, earliest turn first.
    pub(super) fn ready(&self, height: Height, round: Round) -> Vec<BlockFacts> {
        let of_height = self.blocks.values().filter(|block| {
            block.facts.turn.height == height
                && block.first_round() <= round
                && matches!(block.stage, Stage::Waiting { not_before } if not_before <= round)
        });
        let mut ready: Vec<_> = of_height
            .map(|block| (block.first_round(), block.facts))
            .collect();
        ready.sort_unstable_by_key(|(turn, facts)| (*turn, facts.hash));
        ready.into_iter().map(|(_, facts)| facts).collect()
    }

    /// How many are being judged.
    pub(super) fn judging(&self) -> usize {
        let stages = self.blocks.values().map(|block| block.stage);
        stages.filter(|stage| *stage == Stage::Judging).count()
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.values().map(|block| block.bytes.len()).sum()
    }

    /// Forgets the heights up to one that is committed.
    pub(super) fn prune(&mut self, committed: Height) {
        self.blocks.retain(|(height, _), _| *height > committed);
    }

    /// Checks the announcements of a height whose validators have become known.
    pub(super) fn check_turns(&mut self, height: Height, validators: &ValidatorSet) {
        for (_, block) in self.of_height_mut(height) {
            let turn = block.facts.turn;
            block.announcements.retain(|(announcement, _)| {
                let round = announcement.round;
                let in_turn = validators.proposer(height, round).key == announcement.proposer;
                let before = check_turn(&turn, validators, round);
                in_turn && !matches!(before, Err(TurnError::LaterRound { .. }))
            });
        }
        self.blocks
            .retain(|_, block| !block.announcements.is_empty());
    }

    fn of_height_mut(&mut self, height: Height) -> impl Iterator<Item = (&Key, &mut WaitingBlock)> {
        let blocks = self.blocks.iter_mut();
        blocks.filter(move |((of, _), _)| *of == height)
    }

    fn of(&self, builder: &AccountId) -> impl Iterator<Item = (&Key, &WaitingBlock)> {
        let idle = self.blocks.iter().filter(|(_, block)| block.is_idle());
        idle.filter(move |(_, block)| block.builder() == *builder)
    }

    /// The validator whose waiting blocks have the most bytes.
    fn keeps_most(&self) -> Option<AccountId> {
        let mut kept: BTreeMap<AccountId, usize> = BTreeMap::new();
        for block in self.blocks.values().filter(|block| block.is_idle()) {
            *kept.entry(block.builder()).or_default() += block.bytes.len();
        }
        let most = kept.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        Some(most.0)
    }

    /// Drops the block of a validator whose turn is the furthest away.
    fn drop_furthest(&mut self, builder: &AccountId) -> bool {
        let furthest = self
            .of(builder)
            .map(|((height, hash), block)| (*height, block.first_round(), *hash))
            .max();
        let dropped = furthest.and_then(|(height, _, hash)| self.blocks.remove(&(height, hash)));
        dropped.is_some()
    }
}
