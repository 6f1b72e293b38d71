//! The state in memory: the tree with its short records, and what the last blocks changed. Long
//! records are read from the disk, and must be what the tree says.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};

use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::{RecordBytes, Write, WriteSet};
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::tree::{LeafValue, Lookup, Tree, value_hash};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::keys::Family;
use super::{Current, Head, Store};

/// What the last blocks changed: the long records of those that are not durable yet, and what undoes
/// those that came after a view.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(Height, Arc<WriteSet>)>);

impl Recent {
    pub(super) fn add(&mut self, height: Height, writes: &Arc<WriteSet>) {
        self.0.push_back((height, Arc::clone(writes)));
    }

    /// Forgets blocks up to a height.
    pub(super) fn forget(&mut self, up_to: Height) {
        while self.0.front().is_some_and(|(height, _)| *height <= up_to) {
            self.0.pop_front();
        }
    }

    /// How many blocks it remembers.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The record that the last of the blocks to change it made.
    fn made(&self, key: &Hash) -> Option<&RecordBytes> {
        let changed = self
            .0
            .iter()
            .rev()
            .find_map(|(_, writes)| find(writes, key));
        changed.and_then(|write| write.new.as_ref())
    }

    /// The write that changed a record first after a block.
    fn changed_after(&self, at: Height, key: &Hash) -> Option<&Write> {
        let after = self.0.iter().filter(|(height, _)| *height > at);
        after.filter_map(|(_, writes)| find(writes, key)).next()
    }

    fn after(&self, at: Height) -> impl DoubleEndedIterator<Item = &WriteSet> {
        let after = self.0.iter().filter(move |(height, _)| *height > at);
        after.map(|(_, writes)| writes.as_ref())
    }
}

fn find<'a>(writes: &'a WriteSet, key: &Hash) -> Option<&'a Write> {
    let writes = &writes.writes;
    let at = writes.binary_search_by(|write| write.key.cmp(key));
    at.ok().map(|at| &writes[at])
}

/// Some of the state's leaves, all there are between two keys.
pub(super) struct Stretch {
    pub(super) leaves: Vec<(Hash, LeafValue)>,
    /// The first key behind them, `None` at the end of the keys.
    pub(super) until: Option<Hash>,
}

impl Current {
    /// What a key had after a block that is not older than the oldest view and the last durable one.
    pub(super) fn read_at(&self, at: Height, key: &Hash) -> Option<LeafValue> {
        match self.recent.changed_after(at, key) {
            Some(write) => write.old.as_deref().map(LeafValue::of),
            None => match self.tree.read(key) {
                Lookup::Absent => None,
                Lookup::Inline(bytes) => Some(LeafValue::of(bytes)),
                Lookup::Elsewhere(hash) => Some(LeafValue::elsewhere(hash)),
            },
        }
    }

    /// About `most` leaves from a key on, at least one if there is one, as they were after a block.
    pub(super) fn stretch_at(&self, at: Height, from: &Hash, most: usize) -> Stretch {
        let leaves = self.tree.leaves_from(from, most);
        let until = match leaves.last() {
            Some((last, _)) if leaves.len() == most => successor(last),
            _ => None,
        };
        let inside = |key: &Hash| from <= key && until.is_none_or(|until| *key < until);
        let mut undone = BTreeMap::new();
        for writes in self.recent.after(at).rev() {
            let writes = &writes.writes;
            let first = writes.partition_point(|write| write.key < *from);
            for write in writes[first..]
                .iter()
                .take_while(|write| inside(&write.key))
            {
                undone.insert(write.key, write.old.as_deref().map(LeafValue::of));
            }
        }
        if undone.is_empty() {
            return Stretch { leaves, until };
        }
        let now = leaves.into_iter().map(|(key, value)| (key, Some(value)));
        let mut then: BTreeMap<Hash, Option<LeafValue>> = now.collect();
        then.append(&mut undone);
        let there = then
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key, value)));
        Stretch {
            leaves: there.collect(),
            until,
        }
    }
}

/// The next key, `None` after the last.
fn successor(key: &Hash) -> Option<Hash> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(Hash::new(bytes));
        }
    }
    None
}

/// The blocks after which somebody looks at the state, each with how many do.
#[derive(Default)]
pub(super) struct Viewers(Mutex<BTreeMap<Height, usize>>);

impl Viewers {
    pub(super) fn enter(&self, at: Height) {
        *self.lock().entry(at).or_default() += 1;
    }

    pub(super) fn leave(&self, at: Height) {
        let mut viewers = self.lock();
        if let Some(count) = viewers.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                viewers.remove(&at);
            }
        }
    }

    /// The oldest block that somebody looks at.
    pub(super) fn oldest(&self) -> Option<Height> {
        self.lock().first_key_value().map(|(height, _)| *height)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Height, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state after the head, held still.
pub struct StateGuard<'a> {
    store: &'a Store,
    current: RwLockReadGuard<'a, Current>,
}

impl<'a> StateGuard<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            current: store.current(),
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

impl StateGuard<'_> {
    /// The record that the tree says is under a key.
    fn found<'a>(
        &'a self,
        key: &Hash,
        found: Lookup<'a>,
    ) -> Result<Option<Cow<'a, [u8]>>, StateError> {
        let expected = match found {
            Lookup::Absent => return Ok(None),
            Lookup::Inline(bytes) => return Ok(Some(Cow::Borrowed(bytes))),
            Lookup::Elsewhere(hash) => hash,
        };
        if let Some(bytes) = self.current.recent.made(key) {
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        let found = self.store.latest().get(Family::State, key.as_ref())?;
        long_record(key, found, expected).map(|bytes| Some(Cow::Owned(bytes)))
    }
}

impl StateReader for StateGuard<'_> {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        self.found(key, self.current.tree.read(key))
    }

    fn read_many(&self, keys: &[Hash]) -> Result<Vec<Option<Cow<'_, [u8]>>>, StateError> {
        let found = keys.iter().zip(self.current.tree.read_many(keys));
        found.map(|(key, found)| self.found(key, found)).collect()
    }
}

/// A long record from the disk, which must be the one that the tree names.
pub(super) fn long_record(
    key: &Hash,
    found: Option<Vec<u8>>,
    expected: Hash,
) -> Result<Vec<u8>, StateError> {
    found
        .filter(|bytes| value_hash(bytes) == expected)
        .ok_or_else(|| {
            StateError::Unreadable(format!(
                "the record under {key} on the disk is not the one that the state tree names"
            ))
        })
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::Hash;

    use super::successor;

    #[test]
    fn keys_follow_each_other_to_the_last() {
        let mut key = [0xff; Hash::LEN];
        assert_eq!(successor(&Hash::new(key)), None);
        key[30] = 7;
        let mut next = [0; Hash::LEN];
        next[..30].fill(0xff);
        next[30] = 8;
        assert_eq!(successor(&Hash::new(key)), Some(Hash::new(next)));
    }
}
