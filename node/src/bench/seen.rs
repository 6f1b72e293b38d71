//! The bench's one place that knows what a node remembers of transactions that it verified on
//! entering the mempool.

use proofmill_chain::codec;
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{SEEN_MAX, SeenTransactions};
use proofmill_chain::types::block::Block;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

/// Chooses the groups of what is remembered; a bench has no adversary.
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

/// The transactions that were verified before their block came.
pub struct Seen(Option<SeenTransactions>);

impl Seen {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// All of a block's, as a node remembers them that admitted each to its mempool.
    #[must_use]
    pub fn all_of(block: &Block) -> Self {
        let seen = SeenTransactions::new(SEEN_MAX, KEY);
        block
            .transactions
            .par_iter()
            .for_each(|signed| seen.insert(&merkle::leaf_hash(&codec::encode(signed))));
        Self(Some(seen))
    }

    /// What a block's context wants of it.
    #[must_use]
    pub const fn transactions(&self) -> Option<&SeenTransactions> {
        self.0.as_ref()
    }
}
