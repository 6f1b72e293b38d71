//! Why a block is not valid, and whose fault it is.

use crate::check::BlockCheckError;
use crate::codec::DecodeError;
use crate::execute::ExecuteError;
use crate::finality::CertificateError;
use crate::state::StateError;
use crate::types::hash::{AccountId, Hash};
use crate::types::units::ProtocolVersion;
use crate::upgrades::UnknownVersion;

/// Why a block is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A block of another protocol version.
    #[error("the block has protocol version {given}, its height has version {expected}")]
    Version {
        /// The block's.
        given: ProtocolVersion,
        /// The height's.
        expected: ProtocolVersion,
    },
    /// The bytes are not a block.
    #[error("not a block: {0}")]
    Decode(#[from] DecodeError),
    /// It contradicts itself.
    #[error(transparent)]
    Check(#[from] BlockCheckError),
    /// A header field is not what the parent demands.
    #[error("header field {field} is {given}, expected {expected}")]
    Header {
        /// Which.
        field: &'static str,
        /// Its value.
        given: String,
        /// What it must be.
        expected: String,
    },
    /// The parent's certificate is missing, not wanted, or proves nothing.
    #[error("last certificate: {0}")]
    Certificate(CertificateError),
    /// The parent's certificate is missing or not wanted.
    #[error("a certificate stands in every block but the first")]
    CertificatePresence,
    /// The proposer's signature.
    #[error("the proposer's signature does not verify")]
    ProposerSignature,
    /// The beacon.
    #[error("the beacon proof does not verify")]
    Beacon,
    /// A transaction's or attestation's signature.
    #[error("{what} {index}: the signature of {key} does not verify")]
    Signature {
        /// Of what.
        what: &'static str,
        /// Which.
        index: usize,
        /// Whose.
        key: AccountId,
    },
    /// The contents do not fit the parent's state.
    #[error(transparent)]
    Execute(ExecuteError),
    /// A root is not what execution gives.
    #[error("{what} root is {given}, execution gives {computed}")]
    Seal {
        /// Which.
        what: &'static str,
        /// The header's.
        given: Hash,
        /// Ours.
        computed: Hash,
    },
    /// This program does not know the rules of the block's height: says nothing about the block.
    #[error(transparent)]
    Upgrade(#[from] UnknownVersion),
    /// Our own disk or bug: says nothing about the block.
    #[error(transparent)]
    Ours(StateError),
}

impl BlockError {
    /// Whether the trouble is our own, so that the block must not be called invalid.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_) | Self::Upgrade(_))
    }
}

impl From<StateError> for BlockError {
    fn from(error: StateError) -> Self {
        Self::Ours(error)
    }
}

impl From<ExecuteError> for BlockError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::State(error) => Self::Ours(error),
            other => Self::Execute(other),
        }
    }
}
