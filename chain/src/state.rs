//! The state: a reader in, a set of writes out.

pub mod accounts;
pub mod memory;
pub mod overlay;
pub mod reader;

use crate::codec::DecodeError;
use crate::types::record::StateKey;

/// Our own disk or our own bug: never the fault of who sent us something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A stored record does not decode.
    #[error("state record {key:?} is damaged: {error}")]
    Damaged {
        /// Which.
        key: StateKey,
        /// How.
        error: DecodeError,
    },
    /// A stored record is of another kind than its key says, or one that must exist does not.
    #[error("state record {0:?} is missing or of the wrong kind")]
    Missing(StateKey),
    /// The store could not be read.
    #[error("state cannot be read: {0}")]
    Unreadable(String),
    /// A law of the ledger is broken.
    #[error("ledger law broken: {0}")]
    Law(String),
}

/// Where an account that was read beforehand stands, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// Nowhere: the account is looked up by its id.
    pub const UNKNOWN: Self = Self(u32::MAX);

    pub(crate) fn at(index: usize) -> Self {
        u32::try_from(index).map_or(Self::UNKNOWN, Self)
    }

    pub(crate) const fn index(self) -> Option<usize> {
        match self {
            Self::UNKNOWN => None,
            Self(index) => Some(index as usize),
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::UNKNOWN { other } else { self }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::UNKNOWN
    }
}
