//! Opening and creating the data directory, and the checks that decide whether it may be used.

use std::fs;
use std::io;
use std::path::Path;

use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::{LeafValue, Tree, TreeError};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    IteratorMode, Options, ReadOptions, WriteBatch,
};

use super::keys::{self, Family};
use super::{Head, Store, StoreError};

/// Most files that RocksDB keeps open.
pub const FILES_OPEN_MAX: i32 = 256;
/// Memory for blocks of all files.
const CACHE_BYTES: usize = 256 << 20;
/// Memory for what is not yet in files, all column families together.
const WRITE_BUFFER_BYTES: usize = 256 << 20;
/// Log beyond which RocksDB writes its buffers out.
const LOG_BYTES_MAX: u64 = 512 << 20;
/// RocksDB's own diary, which is for its developers.
const DIARY_FILES_KEPT: usize = 4;
const DIARY_BYTES_MAX: usize = 4 << 20;
/// Read ahead in the scan of the state.
const SCAN_READAHEAD_BYTES: usize = 2 << 20;
/// Bits per key of the filters that spare reads of absent keys.
const FILTER_BITS: f64 = 10.0;

/// Opens the database, creating it in an empty or absent directory.
pub(super) fn open_database(path: &Path) -> Result<DB, StoreError> {
    let existing = match fs::exists(path.join("CURRENT")) {
        Ok(existing) => existing,
        Err(error) => return Err(io_error(path, &error)),
    };
    if !existing {
        refuse_remains(path)?;
        fs::create_dir_all(path).map_err(|error| io_error(path, &error))?;
    }
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let families = Family::ALL
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(&cache)));
    DB::open_cf_descriptors(&database_options(existing), path, families)
        .map_err(|error| StoreError::from_open(error.as_ref(), path, existing))
}

/// A database without its `CURRENT` file must not be taken for a fresh directory: RocksDB would
/// delete what is left of it.
fn refuse_remains(path: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path, &error)),
    };
    for entry in entries {
        let file = entry.map_err(|error| io_error(path, &error))?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("sst" | "log" | "blob")) {
            return Err(StoreError::corrupt(format!(
                "{} has data and no CURRENT file",
                path.display()
            )));
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("{}: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::NoSpace(message)
    } else {
        StoreError::Io(message)
    }
}

fn database_options(existing: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(!existing);
    // A crash in the middle of the creation leaves some of them missing.
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_max_open_files(FILES_OPEN_MAX);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_keep_log_file_num(DIARY_FILES_KEPT);
    options.set_max_log_file_size(DIARY_BYTES_MAX);
    // What a crash cut off at the very end was never promised to anybody; damage anywhere else
    // would drop committed blocks, so it is refused.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options
}

/// Checks that a directory has this version's layout and is the chain's with this genesis; `None`
/// when it does not say which layout it has. `meta` reads what it says of itself.
pub(super) fn check_identity(
    path: &Path,
    genesis: Hash,
    meta: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Option<()>, StoreError> {
    let Some(schema) = meta(keys::META_SCHEMA)? else {
        return Ok(None);
    };
    let schema = schema
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| StoreError::corrupt("the layout's version has another length"))?;
    if schema != keys::SCHEMA_VERSION {
        return Err(StoreError::OtherSchema {
            path: path.into(),
            found: schema,
            expected: keys::SCHEMA_VERSION,
        });
    }
    let found = meta(keys::META_GENESIS)?
        .and_then(|bytes| keys::parse_hash(&bytes))
        .ok_or_else(|| StoreError::corrupt("the genesis hash is missing"))?;
    if found != genesis {
        return Err(StoreError::OtherGenesis {
            path: path.into(),
            found,
            expected: genesis,
        });
    }
    Ok(Some(()))
}

impl Store {
    /// Writes genesis into a new directory, or checks that the directory is this chain's.
    pub(super) fn settle(
        &self,
        path: &Path,
        genesis: &Genesis,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        let meta = |key: &[u8]| self.latest().get(Family::Meta, key);
        match check_identity(path, self.genesis.hash, meta)? {
            Some(()) => Ok(()),
            None => self.lay_genesis(genesis, writes),
        }
    }

    fn lay_genesis(&self, genesis: &Genesis, writes: &WriteSet) -> Result<(), StoreError> {
        for family in Family::ALL {
            let mut entries = self
                .db
                .iterator_cf(self.column(family), IteratorMode::Start);
            if entries.next().transpose()?.is_some() {
                return Err(StoreError::corrupt(format!(
                    "{} has entries but the directory does not say which layout it has",
                    family.name()
                )));
            }
        }
        let meta = self.column(Family::Meta);
        let mut batch = WriteBatch::default();
        batch.put_cf(meta, keys::META_SCHEMA, keys::SCHEMA_VERSION.to_be_bytes());
        batch.put_cf(meta, keys::META_GENESIS, self.genesis.hash);
        batch.put_cf(meta, keys::META_CHAIN_ID, genesis.chain_id.as_bytes());
        self.add_state(&mut batch, Height::ZERO, writes);
        self.write_synced(batch)
    }

    /// Checks that the head is whole and that the state is the one its header commits to.
    pub(super) fn verify(&self, genesis_root: Hash) -> Result<(Head, Tree), StoreError> {
        let view = self.latest();
        let head = view.head()?;
        let root = if head.height == Height::ZERO {
            genesis_root
        } else {
            self.verify_block(head)?
        };
        let above = keys::height_key(head.height.next());
        for family in [Family::Header, Family::Body, Family::Certificate] {
            if view.get(family, &above)?.is_some() {
                return Err(StoreError::corrupt(format!(
                    "{} {} stands above the state's height {}",
                    family.name(),
                    head.height.next(),
                    head.height
                )));
            }
        }
        let tree = self.rebuild_tree()?;
        if tree.root() != root {
            return Err(StoreError::corrupt(format!(
                "the state at height {} has root {}, expected {root}",
                head.height,
                tree.root()
            )));
        }
        Ok((head, tree))
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

    fn rebuild_tree(&self) -> Result<Tree, StoreError> {
        let parts: Vec<_> = (0..=u8::MAX)
            .into_par_iter()
            .map(|first| self.leaves(first))
            .collect::<Result<_, _>>()?;
        let refused = |error: TreeError| StoreError::corrupt(error.to_string());
        Tree::from_leaves(&parts.concat()).map_err(refused)
    }

    /// The leaves whose key begins with a byte.
    fn leaves(&self, first: u8) -> Result<Vec<(Hash, LeafValue)>, StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(SCAN_READAHEAD_BYTES);
        options.set_iterate_lower_bound([first]);
        if let Some(next) = first.checked_add(1) {
            options.set_iterate_upper_bound([next]);
        }
        let entries =
            self.db
                .iterator_cf_opt(self.column(Family::State), options, IteratorMode::Start);
        let mut leaves = Vec::new();
        for entry in entries {
            let (key, value) = entry?;
            if *key != *keys::APPLIED_HEIGHT {
                let key = keys::parse_hash(&key)
                    .ok_or_else(|| StoreError::corrupt("a key of the state has another length"))?;
                leaves.push((key, LeafValue::of(&value)));
            }
        }
        Ok(leaves)
    }
}
