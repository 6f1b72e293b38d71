//! Proofmill's tree in memory, and the changed records in one synced batch.

use std::path::Path;

use proofmill_chain::tree::{Change, LeafValue, Tree, value_hash};
use proofmill_chain::types::hash::Hash;
use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

use crate::{Times, Write, timed};

pub struct Ours {
    db: DB,
    tree: Tree,
}

impl Ours {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        Ok(Self {
            db: DB::open(&options, path)?,
            tree: Tree::new(),
        })
    }

    pub fn lay(&mut self, writes: &[Write]) -> anyhow::Result<()> {
        self.block(writes).map(|_| ())
    }

    /// Takes a block in.
    pub fn block(&mut self, writes: &[Write]) -> anyhow::Result<Times> {
        // The chain's write sets ascend by key as they come out of execution.
        let mut writes: Vec<&Write> = writes.iter().collect();
        writes.sort_unstable_by_key(|(key, _)| *key);
        let (update, patch) = timed(|| {
            let changes: Vec<Change> = writes
                .par_iter()
                .with_min_len(512)
                .map(|(key, value)| (*key, Some(LeafValue::of(value))))
                .collect();
            Ok(self.tree.update(&changes))
        })?;
        let (commit, ()) = timed(|| {
            self.tree.apply(&patch)?;
            let mut batch = WriteBatch::default();
            for (key, value) in &writes {
                batch.put(key, value);
            }
            let mut options = WriteOptions::default();
            options.set_sync(true);
            Ok(self.db.write_opt(batch, &options)?)
        })?;
        Ok(Times { update, commit })
    }

    pub fn has(&self, key: &Hash, value: &[u8]) -> bool {
        self.tree.get(key) == Some(value_hash(value))
    }
}
