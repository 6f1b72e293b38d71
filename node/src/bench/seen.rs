//! The bench's one place that knows what a node remembers of transactions that it verified on
//! entering the mempool.

use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::Hash;

/// The transactions that were verified before their block came.
///
/// Nothing is remembered yet: a block whose transactions were all seen costs what any other does.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    _private: (),
}

impl Seen {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self { _private: () }
    }

    /// All of a block's, as the mempool of the chain with this genesis would have them.
    #[must_use]
    pub const fn all_of(_block: &Block, _genesis: &Hash) -> Self {
        Self::none()
    }
}
