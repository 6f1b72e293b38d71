//! Reading the state of a block.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::state::StateError;
use crate::types::hash::Hash;

/// The state after some block, by tree key.
pub trait StateReader: Sync {
    /// The encoded record under a tree key, `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError>;

    /// What each of some keys has, in their order: what as many calls of [`Self::read`] give, and where
    /// the state is in memory several times faster.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read_many(&self, keys: &[Hash]) -> Result<Vec<Option<Cow<'_, [u8]>>>, StateError> {
        keys.iter().map(|key| self.read(key)).collect()
    }
}

/// The state before genesis.
#[derive(Clone, Copy, Debug)]
pub struct EmptyState;

impl StateReader for EmptyState {
    fn read(&self, _: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        Ok(None)
    }
}

/// A state in memory.
impl StateReader for BTreeMap<Hash, Vec<u8>> {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        Ok(self.get(key).map(|bytes| Cow::Borrowed(bytes.as_slice())))
    }
}
