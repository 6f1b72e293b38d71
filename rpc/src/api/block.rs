//! Blocks, as callers see them.

use std::fmt;

use proofmill_chain::codec;
use proofmill_chain::types::block::{Assignment, Block, Certificate, Header};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::task::SignedAttestation;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Height, Round};
use serde::{Deserialize, Serialize, Serializer};

/// Names a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRef {
    /// The last final block.
    Head,
    /// The block of a height.
    Height(Height),
    /// The block of a hash.
    Hash(Hash),
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Height(height) => height.fmt(f),
            Self::Hash(hash) => hash.fmt(f),
        }
    }
}

impl Serialize for BlockRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The figures of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSummary {
    /// Position.
    pub height: Height,
    /// Hash of the header.
    pub hash: Hash,
    /// Hash of the parent's header.
    pub parent: Hash,
    /// The header's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Consensus key of the proposer.
    pub proposer: AccountId,
    /// The round in which the block was first built.
    pub round: Round,
    /// Root of the state after the block.
    pub state_root: Hash,
    /// How many transactions it holds.
    pub transactions: usize,
    /// How many attestations it holds.
    pub attestations: usize,
    /// How many seats it assigns.
    pub assignments: usize,
    /// Fee per unit of weight.
    pub base_fee: Amount,
    /// Length of its encoding.
    pub bytes: usize,
}

impl BlockSummary {
    /// The figures of `block`.
    #[must_use]
    pub fn of(block: &Block) -> Self {
        let header = &block.header;
        Self {
            height: header.height,
            hash: header.hash(),
            parent: header.parent,
            time_ms: header.time_ms,
            proposer: header.proposer,
            round: header.round,
            state_root: header.state_root,
            transactions: block.transactions.len(),
            attestations: block.attestations.len(),
            assignments: block.assignments.len(),
            base_fee: header.base_fee,
            bytes: codec::encode(block).len(),
        }
    }
}

/// A transaction in a block: its id, or the whole when asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BlockTransaction {
    /// Its id.
    Id(Hash),
    /// Its id and body.
    Full {
        /// The id.
        id: Hash,
        /// The transaction with its signatures.
        body: Box<SignedTransaction>,
    },
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockView {
    /// Its figures.
    pub summary: BlockSummary,
    /// Its header.
    pub header: Header,
    /// Its transactions in order.
    pub transactions: Vec<BlockTransaction>,
    /// The seats it assigns.
    pub assignments: Vec<Assignment>,
    /// The attestations it holds.
    pub attestations: Vec<SignedAttestation>,
    /// Why this very block is final; null while the node has no certificate for it.
    pub certificate: Option<Certificate>,
}

impl BlockView {
    /// `block` with the `certificate` that makes it final; `genesis` is the chain's genesis hash.
    #[must_use]
    pub fn of(block: Block, certificate: Option<Certificate>, full: bool, genesis: &Hash) -> Self {
        let summary = BlockSummary::of(&block);
        let view = |signed: SignedTransaction| {
            let id = signed.transaction.id(genesis);
            if full {
                let body = Box::new(signed);
                BlockTransaction::Full { id, body }
            } else {
                BlockTransaction::Id(id)
            }
        };
        Self {
            summary,
            header: block.header,
            transactions: block.transactions.into_iter().map(view).collect(),
            assignments: block.assignments,
            attestations: block.attestations,
            certificate,
        }
    }
}
