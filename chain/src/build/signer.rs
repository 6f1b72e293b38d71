//! Who signs a block: the builder holds a signer, never a key.

use crate::crypto::sign::SecretKey;
use crate::crypto::vrf;
use crate::execute::beacon_message;
use crate::state::StateError;
use crate::types::block::{Header, block_sign_bytes};
use crate::types::hash::{Hash, Signature, VrfOutput, VrfProof};
use crate::types::units::Height;

/// The signer gives no signature: a lost turn, or trouble that it reports itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block is not signed: {0}")]
pub struct Unsigned(pub String);

/// Why no block was built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The signer declines.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
}

/// Signs a block as its proposer.
pub trait ProposerSigner {
    /// The proof and the output of the beacon for the block at `height`, after `parent`.
    ///
    /// # Errors
    /// When there is none.
    fn prove_beacon(
        &self,
        chain: &Hash,
        parent: &Hash,
        height: Height,
    ) -> Result<(VrfProof, VrfOutput), Unsigned>;

    /// The signature over a header that is complete.
    ///
    /// # Errors
    /// When the signer refuses it.
    fn sign_header(&self, header: &Header) -> Result<Signature, Unsigned>;
}

/// Plain keys, which sign whatever they are given: for tests and benchmarks. A validator signs
/// through its guard.
#[derive(Clone, Copy, Debug)]
pub struct UnguardedKeys<'a> {
    /// Signs headers.
    pub consensus: &'a SecretKey,
    /// Proves the beacon.
    pub beacon: &'a SecretKey,
}

impl ProposerSigner for UnguardedKeys<'_> {
    fn prove_beacon(
        &self,
        chain: &Hash,
        parent: &Hash,
        height: Height,
    ) -> Result<(VrfProof, VrfOutput), Unsigned> {
        let message = beacon_message(chain, parent, height);
        Ok(vrf::prove(self.beacon, &message))
    }

    fn sign_header(&self, header: &Header) -> Result<Signature, Unsigned> {
        Ok(self.consensus.sign(&block_sign_bytes(&header.hash())))
    }
}
