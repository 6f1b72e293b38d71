//! Which block some bytes are: everything that can be said of them without the parent's state.

use super::examine::{self, Examined};
use super::{BlockError, DecodedBlock, SeenTransactions};
use crate::check::{self, Roots, TransactionError};
use crate::crypto::verify::{Item, verify};
use crate::merkle;
use crate::types::block::{Block, Certificate, block_sign_bytes};
use crate::types::hash::Hash;

/// A block whose bytes are those that its hash names: the hash commits to every byte but the
/// proposer's signature, which verifies.
///
/// Whatever else is wrong with it is a fault of the block that has this hash, so that a verdict on it
/// may be kept under the hash. Bytes that cannot be identified are the fault of whoever sent them.
#[derive(Clone, Debug)]
pub struct IdentifiedBlock {
    pub(super) decoded: DecodedBlock,
    pub(super) hash: Hash,
    pub(super) examined: Vec<Examined>,
    pub(super) forms: Vec<Result<(), TransactionError>>,
}

impl IdentifiedBlock {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> &Block {
        self.decoded.block()
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }
}

/// Finds out which block it is.
///
/// # Errors
/// A part that the header does not commit to, or a signature that is not its proposer's.
pub fn identify(
    decoded: DecodedBlock,
    genesis: &Hash,
    seen: Option<&SeenTransactions>,
) -> Result<IdentifiedBlock, BlockError> {
    let identified = with_roots(decoded, genesis, seen)?;
    let block = identified.block();
    let certificate = block.last_certificate.as_ref();
    let computed = certificate.map_or(Hash::ZERO, Certificate::hash);
    if block.header.last_certificate_hash != computed {
        return Err(BlockError::Header {
            field: "last_certificate_hash",
            given: block.header.last_certificate_hash.to_string(),
            expected: computed.to_string(),
        });
    }
    verify_proposer(block, &identified.hash)?;
    Ok(identified)
}

/// Hashes the block and its lists; the rest of [`identify`] comes later on the whole way of a block.
pub(super) fn with_roots(
    decoded: DecodedBlock,
    genesis: &Hash,
    seen: Option<&SeenTransactions>,
) -> Result<IdentifiedBlock, BlockError> {
    let block = decoded.block();
    let (examined, forms): (Vec<_>, Vec<_>) = examine::examine(&decoded, genesis, seen)
        .into_iter()
        .unzip();
    let leaves = examined.iter().map(|examined| examined.leaf).collect();
    let roots = Roots::beside(merkle::root_of_hashes(leaves), block);
    check::check_roots(block, &roots)?;
    Ok(IdentifiedBlock {
        hash: block.header.hash(),
        decoded,
        examined,
        forms,
    })
}

/// The block's signature is by the proposer that its header names.
pub(super) fn verify_proposer(block: &Block, hash: &Hash) -> Result<(), BlockError> {
    let signed = verify(&Item {
        key: block.header.proposer.as_bytes(),
        message: &block_sign_bytes(hash),
        signature: block.proposer_signature.as_bytes(),
    });
    if signed {
        Ok(())
    } else {
        Err(BlockError::ProposerSignature)
    }
}
