//! The state in memory from what is on the disk.
//!
//! ```text
//! pieces ─┐
//!         ├─ by first byte of the key, on all threads ─▶ leaves ─▶ tree ─ root = header's ─▶ open
//! diffs ──┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::{LeafValue, Lookup, Tree, TreeError, value_hash};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rayon::prelude::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rocksdb::{IteratorMode, ReadOptions};

use super::checkpoint::{Checkpoint, Piece};
use super::entry::Entry;
use super::keys::{self, Family};
use super::transactions::{Ids, Waiting};
use super::{Current, Durable, Head, Recent, Store, StoreError, diff};

/// Read ahead in scans.
const SCAN_READAHEAD_BYTES: usize = 2 << 20;

impl Store {
    /// Checks that the head is whole, and makes memory's state the one that its header commits to.
    pub(super) fn restore(&self, genesis: &Genesis) -> Result<(), StoreError> {
        let head = self.latest().head()?;
        let root = if head.height == Height::ZERO {
            genesis_root(&genesis.state()?)
        } else {
            self.verify_block(head)?
        };
        self.verify_nothing_above(head.height)?;
        let (checkpoint, tree, long) = self.restore_state(head.height)?;
        if tree.root() != root {
            return Err(StoreError::corrupt(format!(
                "the state at height {} has root {}, expected {root}",
                head.height,
                tree.root()
            )));
        }
        self.verify_long_records(&tree, long)?;
        let waiting = self.restore_waiting(head.height)?;
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
    fn restore_state(&self, head: Height) -> Result<(Checkpoint, Tree, usize), StoreError> {
        let records = self.pieces()?;
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
            .map(|(_, bytes)| Piece::decode(bytes).ok_or_else(undecodable))
            .collect::<Result<_, _>>()?;
        drop(records);
        let heights: Vec<u64> = (checkpoint.oldest().next().get()..=head.get()).collect();
        let diffs: Vec<(Height, Vec<Entry>)> = heights
            .par_iter()
            .map(|height| self.diff(Height::new(*height)))
            .collect::<Result<_, _>>()?;
        let parts: Vec<Vec<(Hash, LeafValue)>> = (0..=u8::MAX)
            .into_par_iter()
            .map(|first| leaves(first, &checkpoint, &pieces, &diffs))
            .collect();
        drop((pieces, diffs));
        let refused = |error: TreeError| StoreError::corrupt(error.to_string());
        let leaves = parts.concat();
        drop(parts);
        let is_long = |value: &LeafValue| matches!(value.lookup(), Lookup::Elsewhere(_));
        let long = leaves.iter().filter(|(_, value)| is_long(value)).count();
        let tree = Tree::from_leaves(&leaves).map_err(refused)?;
        Ok((checkpoint, tree, long))
    }

    /// The pieces on the disk, by age.
    #[allow(
        clippy::type_complexity,
        reason = "a position and bytes are no type of their own"
    )]
    fn pieces(&self) -> Result<Vec<((Height, u32), Box<[u8]>)>, StoreError> {
        self.scan(Family::Checkpoint)
            .map(|entry| {
                let (key, bytes) = entry?;
                let position = keys::parse_position(&key)
                    .ok_or_else(|| StoreError::corrupt("the key of a piece of the state"))?;
                Ok((position, bytes))
            })
            .collect()
    }

    fn diff(&self, height: Height) -> Result<(Height, Vec<Entry>), StoreError> {
        let bytes = self
            .latest()
            .get(Family::Diff, &keys::height_key(height))?
            .ok_or_else(|| {
                StoreError::corrupt(format!("the changes of height {height} are missing"))
            })?;
        let entries = diff::decode(&bytes).ok_or_else(|| {
            StoreError::corrupt(format!("the changes of height {height} do not decode"))
        })?;
        Ok((height, entries))
    }

    /// Checks that the long records are those that the tree names.
    fn verify_long_records(&self, tree: &Tree, expected: usize) -> Result<(), StoreError> {
        let mut found = 0_usize;
        for entry in self.scan(Family::State) {
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
    fn restore_waiting(&self, head: Height) -> Result<Waiting, StoreError> {
        let view = self.latest();
        let indexed = match view.get(Family::Transactions, keys::INDEXED_HEIGHT)? {
            Some(bytes) => keys::parse_height(&bytes)
                .ok_or_else(|| StoreError::corrupt("how far the index of transactions goes"))?,
            None => Height::ZERO,
        };
        if indexed > head {
            return Err(StoreError::corrupt(format!(
                "the index of transactions goes to height {indexed}, the head's is {head}"
            )));
        }
        let heights: Vec<u64> = (indexed.next().get()..=head.get()).collect();
        let waiting = heights.par_iter().map(|height| {
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

/// The leaves whose key begins with a byte, by ascending key.
fn leaves(
    first: u8,
    checkpoint: &Checkpoint,
    pieces: &[Piece],
    diffs: &[(Height, Vec<Entry>)],
) -> Vec<(Hash, LeafValue)> {
    let below = |key: &Hash| key.as_bytes()[0] < first;
    let within = |key: &Hash| key.as_bytes()[0] == first;
    let mut last = BTreeMap::new();
    for (height, entries) in diffs {
        let start = entries.partition_point(|(key, _)| below(key));
        for (key, value) in entries[start..].iter().take_while(|(key, _)| within(key)) {
            let piece = checkpoint.piece_of(key);
            if piece.is_none_or(|piece| piece.at < *height) {
                last.insert(*key, *value);
            }
        }
    }
    let mut there: BTreeMap<Hash, LeafValue> = BTreeMap::new();
    // By age: what a newer piece covers an older one's records are not taken from.
    for (piece, written) in pieces.iter().zip(checkpoint.pieces()) {
        let start = piece.leaves.partition_point(|(key, _)| below(key));
        for (key, value) in piece.leaves[start..]
            .iter()
            .take_while(|(key, _)| within(key))
        {
            if checkpoint.piece_of(key) == Some(written) {
                there.insert(*key, *value);
            }
        }
    }
    for (key, value) in last {
        match value {
            Some(value) => there.insert(key, value),
            None => there.remove(&key),
        };
    }
    there.into_iter().collect()
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
