//! `jmt` over RocksDB: nodes, values by version and the list of stale nodes, as its users keep them.

use std::path::Path;

use anyhow::{Context as _, bail};
use jmt::storage::{LeafNode, Node, NodeBatch, NodeKey, TreeReader, TreeUpdateBatch, TreeWriter};
use jmt::{KeyHash, OwnedValue, Sha256Jmt, Version};
use proofmill_chain::types::hash::Hash;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

use crate::{Times, Write, timed};

const NODES: &str = "nodes";
const VALUES: &str = "values";
const STALE: &str = "stale";

pub struct Jellyfish {
    store: Store,
    version: Version,
}

impl Jellyfish {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf(&options, path, [NODES, VALUES, STALE])?;
        Ok(Self {
            store: Store { db },
            version: 0,
        })
    }

    pub fn lay(&mut self, writes: &[Write]) -> anyhow::Result<()> {
        self.block(writes).map(|_| ())
    }

    /// Takes a block in.
    pub fn block(&mut self, writes: &[Write]) -> anyhow::Result<Times> {
        let set: Vec<(KeyHash, OwnedValue)> = writes
            .iter()
            .map(|(key, value)| (KeyHash(*key.as_bytes()), value.clone()))
            .collect();
        // Of jmt's two ways to update this is the faster one.
        let (update, (roots, batch)) = timed(|| {
            Sha256Jmt::new(&self.store).batch_put_value_sets(vec![set], None, self.version)
        })?;
        let (commit, ()) = timed(|| self.store.write(&batch))?;
        let root = Sha256Jmt::new(&self.store).get_root_hash(self.version)?;
        anyhow::ensure!(
            roots == [root],
            "jmt's root is not the one that was written"
        );
        self.version += 1;
        Ok(Times { update, commit })
    }

    pub fn get(&self, key: &Hash) -> anyhow::Result<Option<Vec<u8>>> {
        let latest = self.version.checked_sub(1).context("nothing is there")?;
        Sha256Jmt::new(&self.store).get(KeyHash(*key.as_bytes()), latest)
    }
}

struct Store {
    db: DB,
}

impl Store {
    fn column(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with the database")
    }

    fn write(&self, update: &TreeUpdateBatch) -> anyhow::Result<()> {
        let mut batch = WriteBatch::default();
        self.add(&mut batch, &update.node_batch)?;
        let stale = self.column(STALE);
        for index in &update.stale_node_index_batch {
            let mut key = index.stale_since_version.to_be_bytes().to_vec();
            key.extend_from_slice(&node_key(&index.node_key)?);
            batch.put_cf(stale, key, []);
        }
        self.sync(batch)
    }

    fn add(&self, batch: &mut WriteBatch, nodes: &NodeBatch) -> anyhow::Result<()> {
        let column = self.column(NODES);
        for (key, node) in nodes.nodes() {
            batch.put_cf(column, node_key(key)?, borsh::to_vec(node)?);
        }
        let column = self.column(VALUES);
        for ((version, key), value) in nodes.values() {
            batch.put_cf(column, value_key(key, *version), borsh::to_vec(value)?);
        }
        Ok(())
    }

    fn sync(&self, batch: WriteBatch) -> anyhow::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.write_opt(batch, &options)?)
    }
}

impl TreeReader for Store {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let bytes = self.db.get_pinned_cf(self.column(NODES), node_key(key)?)?;
        Ok(bytes.map(|bytes| borsh::from_slice(&bytes)).transpose()?)
    }

    fn get_value_option(
        &self,
        version: Version,
        key: KeyHash,
    ) -> anyhow::Result<Option<OwnedValue>> {
        let start = value_key(&key, version);
        let mode = IteratorMode::From(&start, Direction::Reverse);
        match self.db.iterator_cf(self.column(VALUES), mode).next() {
            Some(entry) => {
                let (found, value) = entry?;
                if found.starts_with(&key.0) {
                    Ok(borsh::from_slice(&value)?)
                } else {
                    Ok(None)
                }
            }
            None => Ok(None),
        }
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        bail!("only restoring a tree asks for it")
    }
}

impl TreeWriter for Store {
    fn write_node_batch(&self, nodes: &NodeBatch) -> anyhow::Result<()> {
        let mut batch = WriteBatch::default();
        self.add(&mut batch, nodes)?;
        self.sync(batch)
    }
}

/// The version first, big-endian, then the path: nodes of one version lie together.
fn node_key(key: &NodeKey) -> anyhow::Result<Vec<u8>> {
    let mut bytes = key.version().to_be_bytes().to_vec();
    bytes.extend(borsh::to_vec(key.nibble_path())?);
    Ok(bytes)
}

/// The key first, then the version: an older value stands before a newer one.
fn value_key(key: &KeyHash, version: Version) -> Vec<u8> {
    let mut bytes = key.0.to_vec();
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes
}
