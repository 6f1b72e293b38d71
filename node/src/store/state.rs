//! The state in memory: the tree with its short records, and the long records of blocks that are not
//! durable yet. Other long records are read from the disk, and must be what the tree says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLockReadGuard};

use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::{RecordBytes, WriteSet};
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::tree::{INLINE_MAX, Lookup, Tree, value_hash};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::keys::Family;
use super::{Current, Head, Store};

/// Long records that blocks changed which are not durable yet, each with the last height that did. A
/// record that is gone or has become short is never looked for here.
#[derive(Default)]
pub(super) struct Staged(BTreeMap<Hash, (Height, RecordBytes)>);

impl Staged {
    /// Takes the long records of a block.
    pub(super) fn add(&mut self, height: Height, writes: &WriteSet) {
        for write in &writes.writes {
            if let Some(bytes) = write.new.as_ref().filter(|bytes| bytes.len() > INLINE_MAX) {
                self.0.insert(write.key, (height, bytes.clone()));
            }
        }
    }

    /// Forgets what the disk has, up to a height.
    pub(super) fn forget(&mut self, durable: Height) {
        self.0.retain(|_, (height, _)| *height > durable);
    }
}

/// The state after the head, held still.
pub struct StateGuard<'a> {
    store: &'a Store,
    current: RwLockReadGuard<'a, Current>,
}

impl<'a> StateGuard<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        let current = store.current.read();
        Self {
            store,
            current: current.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The block that the state is after.
    #[must_use]
    pub fn head(&self) -> Head {
        self.current.head
    }

    /// The tree over the state.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.current.tree
    }
}

impl StateReader for StateGuard<'_> {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let expected = match self.current.tree.read(key) {
            Lookup::Absent => return Ok(None),
            Lookup::Inline(bytes) => return Ok(Some(Cow::Borrowed(bytes))),
            Lookup::Elsewhere(hash) => hash,
        };
        if let Some((_, bytes)) = self.current.staged.0.get(key) {
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        let found = self.store.latest().get(Family::State, key.as_ref())?;
        match found {
            Some(bytes) if value_hash(&bytes) == expected => Ok(Some(Cow::Owned(bytes))),
            _ => Err(StateError::Unreadable(format!(
                "the record under {key} on the disk is not the one that the state tree names"
            ))),
        }
    }
}
