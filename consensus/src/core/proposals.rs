//! Verdicts on blocks and the turns in which they were proposed, until their height is decided.
//!
//! A verdict is kept under a hash that the judged bytes were found to have; a turn is one
//! proposer's signed announcement of such a block. The blocks of some are kept in memory, every
//! valid one is on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use super::api::{BlockFacts, Proposed};
use super::part::Announcement;

/// Judged blocks kept in memory; older ones are read back from the disk.
pub const BLOCKS_IN_MEMORY_MAX: usize = 8;

/// A verdict.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    /// The round in which the block was built, by its header.
    pub(super) built: Round,
    /// The rule that it breaks; `None` when it is valid.
    pub(super) invalid: Option<Arc<str>>,
}

/// A judged block's announcement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) round: Round,
    pub(super) pol_round: Option<Round>,
    pub(super) proposer: AccountId,
    pub(super) block: Hash,
    /// The proposer's, over the announcement; absent when the block came by sync.
    pub(super) signature: Option<Signature>,
    /// Whether the engine has it.
    delivered: bool,
}

impl Turn {
    /// The turn of an announcement that the engine has not got.
    pub(super) const fn new(announcement: &Announcement, signature: Option<Signature>) -> Self {
        Self {
            round: announcement.round,
            pol_round: announcement.pol_round,
            proposer: announcement.proposer,
            block: announcement.block,
            signature,
            delivered: false,
        }
    }

    pub(super) const fn delivered(mut self) -> Self {
        self.delivered = true;
        self
    }
}

#[derive(Default)]
struct OfHeight {
    judgements: BTreeMap<Hash, Judgement>,
    turns: Vec<Turn>,
}

/// The proposals of undecided heights.
#[derive(Default)]
pub(super) struct Proposals {
    heights: BTreeMap<Height, OfHeight>,
    blocks: VecDeque<(Height, Hash, Arc<[u8]>)>,
}

impl Proposals {
    /// Records the verdict on a block whose bytes have this hash.
    pub(super) fn judged(&mut self, facts: &BlockFacts, verdict: Result<(), String>) {
        let judgement = Judgement {
            built: facts.turn.round,
            invalid: verdict.err().map(Into::into),
        };
        let of_height = self.heights.entry(facts.turn.height).or_default();
        of_height.judgements.insert(facts.hash, judgement);
    }

    /// The verdict on a block.
    pub(super) fn judgement(&self, height: Height, block: &Hash) -> Option<&Judgement> {
        self.heights.get(&height)?.judgements.get(block)
    }

    /// Records that a judged block is proposed in a turn.
    pub(super) fn proposed(&mut self, height: Height, turn: Turn) {
        let turns = &mut self.heights.entry(height).or_default().turns;
        let same = turns.iter_mut().find(|old| {
            (old.round, old.proposer, old.block) == (turn.round, turn.proposer, turn.block)
        });
        match same {
            Some(old) => {
                // The signature covers the round of the proof of lock, so the two stay together.
                if old.signature.is_none() {
                    old.signature = turn.signature;
                    old.pol_round = turn.pol_round;
                }
                old.delivered |= turn.delivered;
            }
            None => turns.push(turn),
        }
    }

    /// A turn that matches.
    pub(super) fn turn(
        &self,
        height: Height,
        round: Round,
        proposer: &AccountId,
        block: Option<&Hash>,
    ) -> Option<Turn> {
        let turns = &self.heights.get(&height)?.turns;
        let found = turns.iter().find(|turn| {
            turn.round == round
                && turn.proposer == *proposer
                && block.is_none_or(|block| turn.block == *block)
        });
        found.copied()
    }

    /// The proposals that the engine has not got and may have in a round; it gets them now.
    pub(super) fn deliver(&mut self, height: Height, round: Round) -> Vec<Proposed> {
        let Some(OfHeight { judgements, turns }) = self.heights.get_mut(&height) else {
            return Vec::new();
        };
        let mut proposed = Vec::new();
        for turn in turns.iter_mut().filter(|turn| !turn.delivered) {
            // A value handed in before its round could be decided in an earlier round than the
            // one in its header: the engine pairs values with proposals by hash alone.
            let judgement = judgements.get(&turn.block);
            if let Some(judgement) = judgement.filter(|judgement| judgement.built <= round) {
                turn.delivered = true;
                proposed.push(Proposed {
                    height,
                    round: turn.round,
                    pol_round: turn.pol_round,
                    proposer: turn.proposer,
                    block: turn.block,
                    valid: judgement.invalid.is_none(),
                });
            }
        }
        proposed
    }

    /// Keeps a judged block in memory.
    pub(super) fn keep(&mut self, height: Height, block: Hash, bytes: Arc<[u8]>) {
        if self.block(height, &block).is_some() {
            return;
        }
        if self.blocks.len() == BLOCKS_IN_MEMORY_MAX {
            self.blocks.pop_front();
        }
        self.blocks.push_back((height, block, bytes));
    }

    /// A judged block, when it is in memory.
    pub(super) fn block(&self, height: Height, block: &Hash) -> Option<Arc<[u8]>> {
        self.blocks
            .iter()
            .find(|(h, hash, _)| *h == height && hash == block)
            .map(|(_, _, bytes)| Arc::clone(bytes))
    }

    /// Bytes kept in memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|(_, _, bytes)| bytes.len()).sum()
    }

    /// Forgets the heights up to one that is committed.
    pub(super) fn prune(&mut self, committed: Height) {
        self.heights.retain(|height, _| *height > committed);
        self.blocks.retain(|(height, _, _)| *height > committed);
    }
}
