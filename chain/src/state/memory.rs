//! A whole state in memory: the tree with its short records, and the long ones beside it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::pipeline::tree_after;
use crate::state::StateError;
use crate::state::overlay::{RecordBytes, WriteSet};
use crate::state::reader::StateReader;
use crate::tree::{INLINE_MAX, Lookup, Patch, Tree, TreeError};
use crate::types::hash::Hash;

/// A state that needs no disk: what a replay, a bench or a test executes on.
#[derive(Default)]
pub struct MemoryState {
    tree: Tree,
    long: BTreeMap<Hash, RecordBytes>,
}

impl MemoryState {
    /// The state that genesis' writes make.
    ///
    /// # Errors
    /// When there are more records than a tree can hold.
    pub fn genesis(writes: &WriteSet) -> Result<Self, TreeError> {
        let mut state = Self::default();
        let patch = tree_after(&state.tree, writes);
        state.apply(writes, &patch)?;
        Ok(state)
    }

    /// The tree over the state.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The record that the tree says is under a key.
    fn found<'a>(
        &'a self,
        key: &Hash,
        found: Lookup<'a>,
    ) -> Result<Option<Cow<'a, [u8]>>, StateError> {
        match found {
            Lookup::Absent => Ok(None),
            Lookup::Inline(bytes) => Ok(Some(Cow::Borrowed(bytes))),
            Lookup::Elsewhere(_) => match self.long.get(key) {
                Some(bytes) => Ok(Some(Cow::Borrowed(bytes))),
                None => Err(StateError::Unreadable(format!(
                    "the tree has the record {key}, the state does not"
                ))),
            },
        }
    }

    /// Goes on to the state after a block, whose writes the patch was made of.
    ///
    /// # Errors
    /// When the patch was made from another state; then nothing has changed.
    pub fn apply(&mut self, writes: &WriteSet, patch: &Patch) -> Result<(), TreeError> {
        self.tree.apply(patch)?;
        for write in &writes.writes {
            match &write.new {
                Some(bytes) if bytes.len() > INLINE_MAX => {
                    self.long.insert(write.key, bytes.clone());
                }
                _ if write.old.as_ref().is_some_and(|old| old.len() > INLINE_MAX) => {
                    self.long.remove(&write.key);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl StateReader for MemoryState {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        self.found(key, self.tree.read(key))
    }

    fn read_many(&self, keys: &[Hash]) -> Result<Vec<Option<Cow<'_, [u8]>>>, StateError> {
        let found = keys.iter().zip(self.tree.read_many(keys));
        found.map(|(key, found)| self.found(key, found)).collect()
    }
}
