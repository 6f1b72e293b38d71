//! A proposal that is not decided yet, as the node stores it.

use std::sync::Arc;

use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::types::block::BLOCK_BYTES_MAX;
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use serde::{Deserialize, Serialize};

/// A stored proposal is no longer than this.
const UNDECIDED_BYTES_MAX: usize = BLOCK_BYTES_MAX + 1024;

/// A proposal seen or made, kept until its height is committed, so that a restarted node finds
/// the very value it voted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedProposal {
    /// Its height.
    pub height: Height,
    /// The round it was proposed in.
    pub round: Round,
    /// The round of the proof of lock, when it is proposed again.
    pub pol_round: Option<Round>,
    /// Who proposed it in that round.
    pub proposer: AccountId,
    /// The block's hash.
    pub hash: Hash,
    /// The block.
    pub bytes: Arc<[u8]>,
    /// Whether the application called it valid.
    pub valid: bool,
    /// The proposer's signature over the announcement of the parts; absent when the block came
    /// with a certificate from sync.
    pub signature: Option<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    height: Height,
    round: Round,
    pol_round: Option<Round>,
    proposer: AccountId,
    hash: Hash,
    valid: bool,
    signature: Option<Signature>,
    bytes: Blob,
}

impl UndecidedProposal {
    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Stored {
            height: self.height,
            round: self.round,
            pol_round: self.pol_round,
            proposer: self.proposer,
            hash: self.hash,
            valid: self.valid,
            signature: self.signature,
            bytes: Blob::new(self.bytes.to_vec()),
        })
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not an encoding of a proposal.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored: Stored = codec::decode::<_, UNDECIDED_BYTES_MAX>(bytes)?;
        Ok(Self {
            height: stored.height,
            round: stored.round,
            pol_round: stored.pol_round,
            proposer: stored.proposer,
            hash: stored.hash,
            bytes: stored.bytes.into_bytes().into(),
            valid: stored.valid,
            signature: stored.signature,
        })
    }
}
