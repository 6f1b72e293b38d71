//! The guard's file: replaced whole, synced before a signature leaves, held by one process.
//!
//! ```text
//! guard/lock      held exclusively as long as a process may sign
//! guard/signed    line "proofmill guard 1", SHA-256 of the rest, the record
//! guard/signed.new    only during a write
//! ```
//!
//! A write goes to `signed.new`, is synced, renamed over `signed`, and the directory is synced. A
//! crash at any point leaves the old record or the new one; the signature leaves only after the
//! last step.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash};

use crate::record::Record;

const MAGIC: &[u8] = b"proofmill guard 1\n";
const DOMAIN: &str = "proofmill/guard/v1";
const SIGNED: &str = "signed";
const NEW: &str = "signed.new";
const LOCK: &str = "lock";
const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const HASH_BYTES: usize = 32;
/// A record of the most rounds, each with a whole header, is far smaller.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Why the guard cannot be used. Every message names the path.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// There is none.
    #[error("the signing guard {} is missing", .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("the signing guard {} exists already", .0.display())]
    Exists(PathBuf),
    /// Another process holds it.
    #[error("the signing guard {} is held by another process: one home is one node", .0.display())]
    Busy(PathBuf),
    /// Its content is not what was written.
    #[error("the signing guard {} is damaged: {reason}", .path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It guards another key.
    #[error("the signing guard {} is for key {guarded}, the validator key is {key}", .path.display())]
    OtherKey {
        /// Where.
        path: PathBuf,
        /// The guard's key.
        guarded: AccountId,
        /// The node's.
        key: AccountId,
    },
    /// It guards another chain.
    #[error("the signing guard {} is for chain {guarded}, the genesis is {chain}", .path.display())]
    OtherChain {
        /// Where.
        path: PathBuf,
        /// The guard's chain.
        guarded: Hash,
        /// The node's.
        chain: Hash,
    },
    /// The file system refused.
    #[error("the signing guard {}: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A step of a write, in order; a crash may come before each of them and after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the new file.
    Create,
    /// Write the first half.
    FirstHalf,
    /// Write the rest.
    SecondHalf,
    /// Sync the new file.
    Sync,
    /// Put it in the place of the old one.
    Rename,
    /// Sync the directory.
    SyncDirectory,
}

/// The guard of one home, locked as long as this lives.
#[derive(Debug)]
pub struct GuardFile {
    directory: PathBuf,
    _lock: File,
}

impl GuardFile {
    /// Makes a guard in `directory`, which may exist.
    ///
    /// # Errors
    /// When there is a guard already, another process holds it, or it cannot be written.
    pub fn create(directory: &Path, record: &Record) -> Result<Self, GuardError> {
        let path = directory.join(SIGNED);
        make(directory)?;
        let guard = Self::lock(directory)?;
        if path.exists() {
            return Err(GuardError::Exists(path));
        }
        guard.write(record)?;
        Ok(guard)
    }

    /// Replaces whatever guard is in `directory`, readable or not.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be written.
    pub fn replace(directory: &Path, record: &Record) -> Result<Self, GuardError> {
        make(directory)?;
        let guard = Self::lock(directory)?;
        guard.write(record)?;
        Ok(guard)
    }

    /// Opens the guard of a key on a chain.
    ///
    /// # Errors
    /// When there is none, when it is damaged, of another key or chain, or held by another process.
    pub fn open(
        directory: &Path,
        chain: &Hash,
        key: &AccountId,
    ) -> Result<(Self, Record), GuardError> {
        let path = directory.join(SIGNED);
        if !path.exists() {
            return Err(GuardError::Missing(path));
        }
        let guard = Self::lock(directory)?;
        let record = read(directory)?;
        if record.key() != *key {
            return Err(GuardError::OtherKey {
                path,
                guarded: record.key(),
                key: *key,
            });
        }
        if record.chain() != *chain {
            return Err(GuardError::OtherChain {
                path,
                guarded: record.chain(),
                chain: *chain,
            });
        }
        Ok((guard, record))
    }

    /// Reads a guard without holding it: what it shows may be old a moment later.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn peek(directory: &Path) -> Result<Record, GuardError> {
        read(directory)
    }

    /// The guard's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Replaces the record; durable when it returns.
    ///
    /// # Errors
    /// When the file system refuses. The old record or the new one is then on the disk.
    pub fn write(&self, record: &Record) -> Result<(), GuardError> {
        self.write_in_steps(record, |_| Ok(()))
    }

    /// [`Self::write`], asking before each step whether to go on; for tests of crashes.
    ///
    /// # Errors
    /// When the file system refuses, or `before` does.
    pub fn write_in_steps(
        &self,
        record: &Record,
        mut before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), GuardError> {
        let new = self.directory.join(NEW);
        let bytes = encode(record);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut write = || {
            before(Step::Create)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(MODE)
                .open(&new)?;
            before(Step::FirstHalf)?;
            file.write_all(first)?;
            before(Step::SecondHalf)?;
            file.write_all(second)?;
            before(Step::Sync)?;
            file.sync_all()?;
            before(Step::Rename)?;
            fs::rename(&new, self.directory.join(SIGNED))?;
            before(Step::SyncDirectory)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| io_error(&new, error))
    }

    fn lock(directory: &Path) -> Result<Self, GuardError> {
        let path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(&path)
            .map_err(|error| io_error(&path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.into(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(GuardError::Busy(path)),
            Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
        }
    }
}

fn make(directory: &Path) -> Result<(), GuardError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|error| io_error(directory, error))?;
    // So that a crash cannot lose the directory with the guard in it.
    let parent = directory.parent().unwrap_or(directory);
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|error| io_error(parent, error))
}

fn encode(record: &Record) -> Vec<u8> {
    let body = codec::encode(record);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(Hash::of(DOMAIN, &[&body]).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn read(directory: &Path) -> Result<Record, GuardError> {
    let path = directory.join(SIGNED);
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => GuardError::Missing(path.clone()),
        _ => io_error(&path, error),
    })?;
    let mut bytes = Vec::new();
    file.take(2 * RECORD_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(&path, error))?;
    decode(&bytes).map_err(|reason| GuardError::Damaged { path, reason })
}

fn decode(bytes: &[u8]) -> Result<Record, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a guard of this version does")?;
    let (hash, body) = rest
        .split_at_checked(HASH_BYTES)
        .ok_or("it ends within its check sum")?;
    if *Hash::of(DOMAIN, &[body]).as_bytes() != *hash {
        return Err("its check sum is wrong".to_owned());
    }
    codec::decode::<Record, RECORD_BYTES_MAX>(body).map_err(|error| error.to_string())
}

fn io_error(path: &Path, error: io::Error) -> GuardError {
    GuardError::Io {
        path: path.into(),
        error,
    }
}
