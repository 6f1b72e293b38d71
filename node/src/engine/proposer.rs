//! The signer behind the blocks that this validator builds.

use std::sync::OnceLock;

use proofmill_chain::build::{ProposerSigner, Unsigned};
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::Height;
use proofmill_signer::{BeaconInput, SignError, Signer};

/// A validator's signer, as the builder of blocks uses it.
pub(super) struct AsProposer<'a> {
    pub(super) signer: Option<&'a dyn Signer>,
    /// Why the signer can sign nothing any more, when that shows while a block is signed.
    pub(super) broken: &'a OnceLock<String>,
}

impl AsProposer<'_> {
    fn signer(&self) -> Result<&dyn Signer, Unsigned> {
        let follower = || Unsigned("this node follows and has no signer".to_owned());
        self.signer.ok_or_else(follower)
    }

    fn unsigned(&self, error: &SignError) -> Unsigned {
        // A signer that is revoked ends consensus, which says why.
        if matches!(error, SignError::Guard(_)) {
            self.broken.get_or_init(|| error.to_string());
        }
        Unsigned(error.to_string())
    }
}

impl ProposerSigner for AsProposer<'_> {
    fn prove_beacon(
        &self,
        _: &Hash,
        parent: &Hash,
        height: Height,
    ) -> Result<(VrfProof, VrfOutput), Unsigned> {
        let input = BeaconInput {
            parent: *parent,
            height,
        };
        let proved = self.signer()?.prove_beacon(&input);
        proved.map_err(|error| self.unsigned(&error))
    }

    fn sign_header(&self, header: &Header) -> Result<Signature, Unsigned> {
        let signed = self.signer()?.sign_header(header);
        signed.map_err(|error| self.unsigned(&error))
    }
}
