//! Opening and creating the data directory, and the checks that decide whether it may be used.

use std::fs;
use std::io;
use std::path::Path;

use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::LeafValue;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, IteratorMode, Options, WriteBatch,
};

use super::checkpoint::{PIECE_LEAVES_MAX, Piece};
use super::keys::{self, Family};
use super::{Store, StoreError};
use crate::config::Caches;

/// Most files that RocksDB keeps open.
pub const FILES_OPEN_MAX: i32 = 256;
/// Log beyond which RocksDB writes its buffers out, as a multiple of these.
const LOG_PER_WRITE_BUFFERS: u64 = 2;
/// RocksDB's own diary, which is for its developers.
const DIARY_FILES_KEPT: usize = 4;
const DIARY_BYTES_MAX: usize = 4 << 20;
/// Bits per key of the filters that spare reads of absent keys.
const FILTER_BITS: f64 = 10.0;

/// How a data directory is opened.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// Memory for what may be read or written again.
    pub caches: Caches,
    /// Whether somebody wants this to end. Asked between any two steps that take long; what is on the
    /// disk is whole at each of them.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self {
            caches: Caches::default(),
            stopped: &|| false,
        }
    }
}

impl OpenOptions<'_> {
    /// Ends the opening when somebody wants that.
    pub(super) fn go_on(&self) -> Result<(), StoreError> {
        if (self.stopped)() {
            return Err(StoreError::Stopped);
        }
        Ok(())
    }
}

/// Opens the database, creating it in an empty or absent directory.
pub(super) fn open_database(path: &Path, options: &OpenOptions<'_>) -> Result<DB, StoreError> {
    let caches = options.caches;
    let existing = match fs::exists(path.join("CURRENT")) {
        Ok(existing) => existing,
        Err(error) => return Err(io_error(path, &error)),
    };
    if !existing {
        refuse_remains(path)?;
        fs::create_dir_all(path).map_err(|error| io_error(path, &error))?;
    } else if has_file(path, &["sst"])? {
        refuse_forgotten_tables(path)?;
    }
    let cache = Cache::new_lru_cache(caches.tables());
    let families = Family::ALL.map(|family| {
        let mut options = family_options(&cache);
        if family == Family::Transactions {
            // Its tables are large, never change and span all keys: to write each again for every
            // level would cost more than to look into some more of them.
            options.set_compaction_style(DBCompactionStyle::Universal);
        }
        ColumnFamilyDescriptor::new(family.name(), options)
    });
    // Every database has this one. Without options of its own it would get a cache of its own.
    let unused = ColumnFamilyDescriptor::new("default", family_options(&cache));
    let families = families.into_iter().chain([unused]);
    DB::open_cf_descriptors(&database_options(existing, caches), path, families)
        .map_err(|error| StoreError::from_open(error.as_ref(), path, existing))
}

/// A database without its `CURRENT` file must not be taken for a fresh directory: RocksDB would
/// delete what is left of it.
fn refuse_remains(path: &Path) -> Result<(), StoreError> {
    if has_file(path, &["sst", "log", "blob"])? {
        return Err(StoreError::corrupt(format!(
            "{} has data and no CURRENT file",
            path.display()
        )));
    }
    Ok(())
}

/// A MANIFEST that ends between two of its records is whole to RocksDB, which then deletes the tables
/// that the lost records named. Genesis is written at once, so a database that has tables says something of
/// itself. Nothing is changed by this look at it.
fn refuse_forgotten_tables(path: &Path) -> Result<(), StoreError> {
    let meta = Family::Meta.name();
    let read = |error: rocksdb::Error| StoreError::from_open(error.as_ref(), path, true);
    let db = DB::open_cf_for_read_only(&reading_options(), path, [meta], false).map_err(read)?;
    let first = match db.cf_handle(meta) {
        Some(column) => db.iterator_cf(column, IteratorMode::Start).next(),
        None => None,
    };
    if first.transpose().map_err(read)?.is_none() {
        return Err(StoreError::corrupt(format!(
            "{} has tables that its MANIFEST does not name",
            path.display()
        )));
    }
    Ok(())
}

/// Whether a directory holds a file with one of these endings; an absent one holds none.
fn has_file(path: &Path, endings: &[&str]) -> Result<bool, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(path, &error)),
    };
    for entry in entries {
        let file = entry.map_err(|error| io_error(path, &error))?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| endings.contains(&ending)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a directory is opened that is not written to.
pub(super) fn reading_options() -> Options {
    let mut options = Options::default();
    // Every table stays open: a node that runs here may remove one from the directory.
    options.set_max_open_files(-1);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

/// What an error of the file system at a path means.
pub(super) fn io_error(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("{}: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::NoSpace(message)
    } else {
        StoreError::Io(message)
    }
}

fn database_options(existing: bool, caches: Caches) -> Options {
    let mut options = Options::default();
    options.create_if_missing(!existing);
    // A crash in the middle of the creation leaves some of them missing.
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_max_open_files(FILES_OPEN_MAX);
    let buffers = caches.write_buffers();
    options.set_db_write_buffer_size(buffers);
    options.set_max_total_wal_size(LOG_PER_WRITE_BUFFERS * buffers as u64);
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

/// Options of a table that is made for the family of transactions.
pub(super) fn transactions_options() -> Options {
    family_options(&Cache::new_lru_cache(0))
}

impl Store {
    /// Writes genesis into a new directory, or checks that the directory is this chain's.
    pub(super) fn settle(&self, path: &Path, genesis: &Genesis) -> Result<(), StoreError> {
        let meta = |key: &[u8]| self.latest().get(Family::Meta, key);
        match check_identity(path, self.genesis.hash, meta)? {
            Some(()) => Ok(()),
            None => self.lay_genesis(genesis),
        }
    }

    fn lay_genesis(&self, genesis: &Genesis) -> Result<(), StoreError> {
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
        let writes = genesis.state()?;
        let meta = self.column(Family::Meta);
        let mut batch = WriteBatch::default();
        batch.put_cf(meta, keys::META_SCHEMA, keys::SCHEMA_VERSION.to_be_bytes());
        batch.put_cf(meta, keys::META_GENESIS, self.genesis.hash);
        batch.put_cf(meta, keys::META_CHAIN_ID, genesis.chain_id.as_bytes());
        batch.put_cf(meta, keys::META_HEAD, keys::height_key(Height::ZERO));
        self.add_long_records(&mut batch, &writes);
        let pieces = self.column(Family::Checkpoint);
        for (number, piece) in (0..).zip(genesis_pieces(&writes)) {
            let key = keys::piece_key(Height::ZERO, number);
            batch.put_cf(pieces, key, piece.encode());
        }
        self.write_synced(batch)
    }
}

/// The whole state of genesis in pieces.
fn genesis_pieces(writes: &WriteSet) -> impl Iterator<Item = Piece> {
    let chunks = writes.writes.chunks(PIECE_LEAVES_MAX);
    let firsts = chunks.clone().map(|chunk| chunk[0].key);
    let ends = firsts.skip(1).map(Some).chain([None]);
    let mut from = Hash::ZERO;
    chunks.zip(ends).map(move |(chunk, until)| {
        let leaves = chunk
            .iter()
            .filter_map(|write| Some((write.key, LeafValue::of(write.new.as_deref()?))));
        Piece {
            from: core::mem::replace(&mut from, until.unwrap_or(Hash::ZERO)),
            until,
            leaves: leaves.collect(),
        }
    })
}
