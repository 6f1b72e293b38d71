//! The state in memory from what is on the disk.
//!
//! ```text
//! pieces ─────────────────────▶ leaves by key ─┐
//!                                              ├─▶ leaves ─▶ tree ─ root = header's ─▶ open
//! diffs ─ later than the piece ▶ last by key ──┘
//! ```

use std::sync::Arc;

use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::{LeafValue, Lookup, Tree, TreeError, value_hash};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator, ParallelSliceMut};
use rocksdb::{IteratorMode, ReadOptions};

use super::checkpoint::{Checkpoint, Piece};
use super::entry::Entry;
use super::keys::{self, Family, Position};
use super::transactions::{Ids, Waiting};
use super::{Current, Durable, Head, OpenOptions, Recent, Store, StoreError, diff};

/// A piece as it is on the disk.
type Stored = (Position, Box<[u8]>);

/// A change that is later than the piece its key is in.
type Later = (Hash, Height, Option<LeafValue>);

/// Read ahead in scans.
const SCAN_READAHEAD_BYTES: usize = 2 << 20;

impl Store {
    /// Checks that the head is whole, and makes memory's state the one that its header commits to.
    pub(super) fn restore(
        &self,
        genesis: &Genesis,
        options: &OpenOptions<'_>,
    ) -> Result<(), StoreError> {
        let head = self.latest().head()?;
        let root = if head.height == Height::ZERO {
            genesis_root(&genesis.state()?)
        } else {
            self.verify_block(head)?
        };
        self.verify_nothing_above(head.height)?;
        let (checkpoint, tree, long) = self.restore_state(head.height, options)?;
        if tree.root() != root {
            return Err(StoreError::corrupt(format!(
                "the state at height {} has root {}, expected {root}",
                head.height,
                tree.root()
            )));
        }
        self.verify_long_records(&tree, long, options)?;
        let waiting = self.restore_waiting(head.height, options)?;
        options.go_on()?;
        *self.writing.lock().expect("nobody else has it yet") = checkpoint;
        *self.current_mut() = Current {
            head,
            tree,
            recent: Recent::default(),
        };
        *self.durable_mut() = Durable { head, waiting };
        Ok(())
    }

    fn verify_nothing_above(&self, head: Height) -> Result<(), StoreError> {
        let above = keys::height_key(head.next());
        for family in [
            Family::Header,
            Family::Body,
            Family::Certificate,
            Family::Diff,
        ] {
            if self.latest().get(family, &above)?.is_some() {
                return Err(StoreError::corrupt(format!(
                    "{} {} stands above the head's height {head}",
                    family.name(),
                    head.next(),
                )));
            }
        }
        Ok(())
    }

    /// The state root of the head, whose pieces must all be there.
    fn verify_block(&self, head: Head) -> Result<Hash, StoreError> {
        let view = self.latest();
        let missing = |what: &str| {
            StoreError::corrupt(format!("{what} of height {} is missing", head.height))
        };
        let block = view
            .block(head.height)?
            .ok_or_else(|| missing("the block"))?;
        let certificate = view
            .certificate(head.height)?
            .ok_or_else(|| missing("the certificate"))?;
        let receipts = view
            .receipts(head.height)?
            .ok_or_else(|| missing("the list of receipts"))?;
        if certificate.block != head.hash || block.header.hash() != head.hash {
            return Err(StoreError::corrupt(format!(
                "the certificate of height {} is for {}, the header is {}",
                head.height, certificate.block, head.hash
            )));
        }
        if receipts.len() != block.transactions.len() {
            return Err(StoreError::corrupt(format!(
                "height {} has {} receipts for {} transactions",
                head.height,
                receipts.len(),
                block.transactions.len()
            )));
        }
        if view.height_of(&head.hash)? != Some(head.height) {
            return Err(missing("the index entry"));
        }
        Ok(block.header.state_root)
    }

    /// The state after the head, whatever its root is, and how many long records it has.
    fn restore_state(
        &self,
        head: Height,
        options: &OpenOptions<'_>,
    ) -> Result<(Checkpoint, Tree, usize), StoreError> {
        let records = self.pieces(options)?;
        let undecodable = || StoreError::corrupt("a piece of the state does not decode");
        let bounds = records
            .iter()
            .map(|((at, number), bytes)| {
                let (from, until, _) = Piece::bounds(bytes).ok_or_else(undecodable)?;
                Ok((*at, *number, from, until))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if let Some((at, ..)) = bounds.last().filter(|(at, ..)| *at > head) {
            return Err(StoreError::corrupt(format!(
                "a piece of the state is of height {at}, the head's is {head}"
            )));
        }
        let checkpoint = Checkpoint::restore(bounds)?;
        let pieces: Vec<Piece> = records
            .par_iter()
            .map(|(_, bytes)| {
                options.go_on()?;
                Piece::decode(bytes).ok_or_else(undecodable)
            })
            .collect::<Result<_, _>>()?;
        drop(records);
        let heights: Vec<u64> = (checkpoint.oldest().next().get()..=head.get()).collect();
        let later: Vec<Vec<Later>> = heights
            .par_iter()
            .map(|height| {
                options.go_on()?;
                self.later(Height::new(*height), &checkpoint)
            })
            .collect::<Result<_, _>>()?;
        let later = last_of_each(later);
        options.go_on()?;
        let leaves = with_changes(checkpoint.leaves(pieces), later);
        options.go_on()?;
        let refused = |error: TreeError| StoreError::corrupt(error.to_string());
        let is_long = |value: &LeafValue| matches!(value.lookup(), Lookup::Elsewhere(_));
        let long = leaves.iter().filter(|(_, value)| is_long(value)).count();
        let tree = Tree::from_leaves(&leaves).map_err(refused)?;
        Ok((checkpoint, tree, long))
    }

    /// The pieces on the disk, by age.
    fn pieces(&self, options: &OpenOptions<'_>) -> Result<Vec<Stored>, StoreError> {
        self.scan(Family::Checkpoint)
            .map(|entry| {
                options.go_on()?;
                let (key, bytes) = entry?;
                let position = keys::parse_position(&key).ok_or_else(|| {
                    StoreError::corrupt("the key of a piece of the state has another length")
                })?;
                Ok((position, bytes))
            })
            .collect()
    }

    /// What a block changed of pieces that are older.
    fn later(&self, height: Height, checkpoint: &Checkpoint) -> Result<Vec<Later>, StoreError> {
        let bytes = self
            .latest()
            .get(Family::Diff, &keys::height_key(height))?
            .ok_or_else(|| {
                StoreError::corrupt(format!("the changes of height {height} are missing"))
            })?;
        let entries = diff::decode(&bytes).ok_or_else(|| {
            StoreError::corrupt(format!("the changes of height {height} do not decode"))
        })?;
        let later = entries.into_iter().filter(|(key, _)| {
            let piece = checkpoint.piece_of(key);
            piece.is_none_or(|piece| piece.at < height)
        });
        Ok(later.map(|(key, value)| (key, height, value)).collect())
    }

    /// Checks that the long records are those that the tree names.
    fn verify_long_records(
        &self,
        tree: &Tree,
        expected: usize,
        options: &OpenOptions<'_>,
    ) -> Result<(), StoreError> {
        let mut found = 0_usize;
        for entry in self.scan(Family::State) {
            options.go_on()?;
            let (key, bytes) = entry?;
            let key = keys::parse_hash(&key)
                .ok_or_else(|| StoreError::corrupt("a key of the state has another length"))?;
            if tree.read(&key) != Lookup::Elsewhere(value_hash(&bytes)) {
                return Err(StoreError::corrupt(format!(
                    "the record under {key} is not the one that the state has"
                )));
            }
            found += 1;
        }
        if found != expected {
            return Err(StoreError::corrupt(format!(
                "{found} long records, the state has {expected}"
            )));
        }
        Ok(())
    }

    /// The transactions of the blocks that are not indexed.
    fn restore_waiting(
        &self,
        head: Height,
        options: &OpenOptions<'_>,
    ) -> Result<Waiting, StoreError> {
        let view = self.latest();
        let indexed = match view.get(Family::Transactions, keys::INDEXED_HEIGHT)? {
            Some(bytes) => keys::parse_height(&bytes).ok_or_else(|| {
                StoreError::corrupt("how far the index of transactions goes has another length")
            })?,
            None => Height::ZERO,
        };
        if indexed > head {
            return Err(StoreError::corrupt(format!(
                "the index of transactions goes to height {indexed}, the head's is {head}"
            )));
        }
        let heights: Vec<u64> = (indexed.next().get()..=head.get()).collect();
        let waiting = heights.par_iter().map(|height| {
            options.go_on()?;
            let height = Height::new(*height);
            let receipts = self.latest().receipts(height)?.ok_or_else(|| {
                StoreError::corrupt(format!(
                    "the list of receipts of height {height} is missing"
                ))
            })?;
            Ok(Arc::new(Ids::of(height, &receipts)))
        });
        Ok(Arc::new(waiting.collect::<Result<_, StoreError>>()?))
    }

    fn scan(&self, family: Family) -> rocksdb::DBIterator<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(SCAN_READAHEAD_BYTES);
        self.db
            .iterator_cf_opt(self.column(family), options, IteratorMode::Start)
    }
}

/// The last change of each key, by ascending key.
fn last_of_each(changes: Vec<Vec<Later>>) -> Vec<Entry> {
    let mut all = changes.concat();
    drop(changes);
    all.par_sort_unstable_by_key(|(key, height, _)| (*key, *height));
    let is_last = |at: usize| all.get(at + 1).is_none_or(|next| next.0 != all[at].0);
    let last = (0..all.len()).filter(|at| is_last(*at));
    last.map(|at| (all[at].0, all[at].2)).collect()
}

/// Leaves with changes made to them; both ascend, and so does what comes out.
fn with_changes(
    leaves: impl Iterator<Item = (Hash, LeafValue)>,
    changes: Vec<Entry>,
) -> Vec<(Hash, LeafValue)> {
    let mut changes = changes.into_iter().peekable();
    let mut made = Vec::new();
    for (key, value) in leaves {
        let mut unchanged = true;
        while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed <= key) {
            unchanged = changed != key;
            made.extend(new.map(|new| (changed, new)));
        }
        if unchanged {
            made.push((key, value));
        }
    }
    made.extend(changes.filter_map(|(key, new)| Some((key, new?))));
    made
}

/// The root of the state of genesis.
pub(super) fn genesis_root(writes: &WriteSet) -> Hash {
    let leaves: Vec<_> = writes
        .writes
        .iter()
        .filter_map(|write| Some((write.key, LeafValue::of(write.new.as_deref()?))))
        .map(|(key, value)| (key, Some(value)))
        .collect();
    Tree::new().update(&leaves).root()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proofmill_chain::tree::LeafValue;
    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::Height;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Later, last_of_each, with_changes};

    fn key(number: u8) -> Hash {
        Hash::new([number; Hash::LEN])
    }

    proptest! {
        #[test]
        fn leaves_with_changes_are_what_a_sorted_map_comes_to(
            leaves in btree_map(any::<u8>(), any::<u8>(), 0..40),
            blocks in vec(btree_map(any::<u8>(), any::<Option<u8>>(), 0..20), 0..6),
        ) {
            let value = |byte: &u8| LeafValue::of(&[*byte]);
            let mut expected: BTreeMap<Hash, LeafValue> =
                leaves.iter().map(|(number, byte)| (key(*number), value(byte))).collect();
            let before = expected.clone();
            let mut changes: Vec<Vec<Later>> = Vec::new();
            for (height, block) in (1..).map(Height::new).zip(&blocks) {
                for (number, byte) in block {
                    match byte {
                        Some(byte) => expected.insert(key(*number), value(byte)),
                        None => expected.remove(&key(*number)),
                    };
                }
                let later = block.iter();
                let later = later.map(|(number, byte)| (key(*number), height, byte.as_ref().map(value)));
                changes.push(later.collect());
            }
            // In whatever order the blocks were read.
            changes.reverse();
            let made = with_changes(before.into_iter(), last_of_each(changes));
            prop_assert_eq!(made, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
