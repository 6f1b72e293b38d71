//! The proposals of undecided heights, in memory: a reflection of what the application stores.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_core_types::Validity;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use crate::context::{self, Address, Chain, Value, round_or_nil};
use crate::undecided::UndecidedProposal;

/// Blocks kept in memory; older ones are read back from the application.
const BLOCKS_MAX: usize = 8;
/// Different blocks of one proposer in one round: two already prove its fault.
const BLOCKS_PER_TURN_MAX: usize = 2;

/// A proposal without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) round: Round,
    pub(crate) pol_round: Option<Round>,
    pub(crate) proposer: AccountId,
    pub(crate) hash: Hash,
    pub(crate) valid: bool,
    pub(crate) signature: Option<Signature>,
    delivered: bool,
}

impl Known {
    pub(crate) fn value(&self, height: Height) -> ProposedValue<Chain> {
        ProposedValue {
            height: context::Height(height),
            round: round_or_nil(Some(self.round)),
            valid_round: round_or_nil(self.pol_round),
            proposer: Address(self.proposer),
            value: Value(self.hash),
            validity: Validity::from_bool(self.valid),
        }
    }
}

/// The proposals of undecided heights.
#[derive(Default)]
pub(crate) struct Proposals {
    known: BTreeMap<Height, Vec<Known>>,
    blocks: VecDeque<(Height, Hash, Arc<[u8]>)>,
}

impl Proposals {
    /// Remembers a proposal that the application stores, or that repeats a stored block.
    pub(crate) fn record(&mut self, proposal: &UndecidedProposal) {
        let height = proposal.height;
        let known = Known {
            round: proposal.round,
            pol_round: proposal.pol_round,
            proposer: proposal.proposer,
            hash: proposal.hash,
            valid: proposal.valid,
            signature: proposal.signature,
            delivered: false,
        };
        self.remember(height, known);
        if self.block(height, &proposal.hash).is_none() {
            if self.blocks.len() == BLOCKS_MAX {
                self.blocks.pop_front();
            }
            let bytes = Arc::clone(&proposal.bytes);
            self.blocks.push_back((height, proposal.hash, bytes));
        }
    }

    /// Remembers that a block with a known verdict is proposed once more.
    pub(crate) fn repeat(
        &mut self,
        height: Height,
        again: &crate::stream::Announcement,
        valid: bool,
        signature: Signature,
    ) -> ProposedValue<Chain> {
        let known = Known {
            round: again.round,
            pol_round: again.pol_round,
            proposer: again.proposer,
            hash: again.block,
            valid,
            signature: Some(signature),
            delivered: true,
        };
        self.remember(height, known);
        known.value(height)
    }

    fn remember(&mut self, height: Height, known: Known) {
        let of_height = self.known.entry(height).or_default();
        let same = of_height.iter_mut().find(|old| {
            (old.round, old.proposer, old.hash) == (known.round, known.proposer, known.hash)
        });
        match same {
            Some(old) => *old = known,
            None => of_height.push(known),
        }
    }

    fn of(&self, height: Height) -> impl Iterator<Item = &Known> {
        self.known.get(&height).into_iter().flatten()
    }

    /// What this node proposed in a round.
    pub(crate) fn made_by(
        &self,
        height: Height,
        round: Round,
        proposer: &AccountId,
    ) -> Option<Known> {
        self.of(height)
            .find(|known| known.round == round && known.proposer == *proposer)
            .copied()
    }

    /// A given proposal of a round.
    pub(crate) fn proposed(
        &self,
        height: Height,
        round: Round,
        proposer: &AccountId,
        hash: &Hash,
    ) -> Option<Known> {
        self.of(height)
            .find(|known| {
                known.round == round && known.proposer == *proposer && known.hash == *hash
            })
            .copied()
    }

    /// Whether a block was found valid, `None` when it was not judged.
    pub(crate) fn verdict(&self, height: Height, hash: &Hash) -> Option<bool> {
        self.of(height)
            .find(|known| known.hash == *hash)
            .map(|known| known.valid)
    }

    /// Whether a proposer may still bring this block in a round.
    pub(crate) fn has_room(
        &self,
        height: Height,
        round: Round,
        proposer: &AccountId,
        hash: &Hash,
    ) -> bool {
        let others = self.of(height).filter(|known| {
            known.round == round && known.proposer == *proposer && known.hash != *hash
        });
        others.count() < BLOCKS_PER_TURN_MAX
    }

    /// The bytes of a block, when they are in memory.
    pub(crate) fn block(&self, height: Height, hash: &Hash) -> Option<Arc<[u8]>> {
        self.blocks
            .iter()
            .find(|(h, block, _)| *h == height && block == hash)
            .map(|(_, _, bytes)| Arc::clone(bytes))
    }

    /// Takes note that the engine got a proposal.
    pub(crate) fn delivered(&mut self, value: &ProposedValue<Chain>) {
        let of_height = self.known.get_mut(&value.height.0);
        for known in of_height.into_iter().flatten() {
            if known.value(value.height.0) == *value {
                known.delivered = true;
            }
        }
    }

    /// The proposals of a height that the engine has not got yet; it gets them now.
    pub(crate) fn deliver(&mut self, height: Height) -> Vec<ProposedValue<Chain>> {
        let of_height = self.known.get_mut(&height).into_iter().flatten();
        of_height
            .filter(|known| !known.delivered)
            .map(|known| {
                known.delivered = true;
                known.value(height)
            })
            .collect()
    }

    /// Forgets the heights up to one that is decided.
    pub(crate) fn prune(&mut self, decided: Height) {
        self.known.retain(|height, _| *height > decided);
        self.blocks.retain(|(height, _, _)| *height > decided);
    }
}
