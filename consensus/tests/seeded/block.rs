//! The application's blocks: a header that names its turn and time, and padding.

use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Amount, Height, ProtocolVersion, Round};
use serde::{Deserialize, Serialize};

use crate::keyed;
use proofmill_consensus::core::BlockFacts;

/// The chain of every run.
pub(crate) const CHAIN: Hash = Hash::new([7; 32]);
/// No block is longer than this.
pub(crate) const BLOCK_BYTES_MAX: usize = 400_000;
const NONE: Hash = Hash::new([0; 32]);
/// The state root of blocks whose transactions do not execute.
const BROKEN: Hash = Hash::new([0xbb; 32]);
const PADDING: u8 = 0x5a;

/// What a proposer decides about its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) height: Height,
    pub(crate) round: Round,
    pub(crate) proposer: AccountId,
    pub(crate) parent: Hash,
    pub(crate) time_ms: u64,
    /// Whether its transactions execute.
    pub(crate) executes: bool,
    /// Makes blocks of one turn different.
    pub(crate) salt: u64,
    /// Bytes beside the header.
    pub(crate) padding: usize,
}

#[derive(Serialize, Deserialize)]
struct Block {
    header: Header,
    signature: Signature,
    padding: Blob,
}

/// The signature of a header's hash.
pub(crate) fn sign(header: &Header) -> Signature {
    keyed::sign(&header.proposer, header.hash().as_bytes())
}

impl Plan {
    /// The header, which commits to the padding's length; its content is fixed.
    pub(crate) fn header(&self) -> Header {
        let salt = [self.salt, self.padding as u64].map(u64::to_le_bytes);
        Header {
            version: ProtocolVersion::new(1),
            chain: CHAIN,
            height: self.height,
            round: self.round,
            time_ms: self.time_ms,
            parent: self.parent,
            proposer: self.proposer,
            transactions_root: Hash::of("simulation/salt", &[salt.as_flattened()]),
            assignments_root: NONE,
            attestations_root: NONE,
            evidence_root: NONE,
            receipts_root: Hash::of("simulation/padding", &[&salt[1]]),
            state_root: if self.executes { NONE } else { BROKEN },
            validators_hash: NONE,
            next_validators_hash: NONE,
            params_hash: NONE,
            base_fee: Amount::ZERO,
            beacon_output: VrfOutput::new([0; 64]),
            beacon_proof: VrfProof::new([0; 80]),
            last_certificate_hash: NONE,
        }
    }

    /// The block's hash and bytes.
    pub(crate) fn seal(&self) -> (Hash, Arc<[u8]>) {
        let header = self.header();
        let block = Block {
            signature: sign(&header),
            padding: Blob::new(vec![PADDING; self.padding]),
            header,
        };
        (block.header.hash(), codec::encode(&block).into())
    }
}

/// The header of a block, whose bytes are exactly those that its hash names.
pub(crate) fn open(bytes: &[u8]) -> Result<Header, String> {
    let block: Block =
        codec::decode::<_, BLOCK_BYTES_MAX>(bytes).map_err(|error| error.to_string())?;
    let Block {
        header,
        signature,
        padding,
    } = block;
    let length = (padding.len() as u64).to_le_bytes();
    if header.receipts_root != Hash::of("simulation/padding", &[&length])
        || padding.as_bytes().iter().any(|byte| *byte != PADDING)
    {
        return Err("the header does not commit to the body".to_owned());
    }
    if !keyed::is_valid(&header.proposer, header.hash().as_bytes(), &signature) {
        return Err("the block is not signed by its proposer".to_owned());
    }
    Ok(header)
}

/// What [`proofmill_consensus::core::Command::Inspect`] finds out.
pub(crate) fn inspect(bytes: &[u8]) -> Result<BlockFacts, String> {
    let header = open(bytes)?;
    Ok(BlockFacts {
        hash: header.hash(),
        turn: header.turn(),
        time_ms: header.time_ms,
    })
}

/// Whether the transactions of a block execute.
pub(crate) fn executes(header: &Header) -> bool {
    header.state_root != BROKEN
}
