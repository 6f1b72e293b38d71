//! A node's home directory: where each file lives, and how a home comes to be.
//!
//! ```text
//! config.toml  genesis.json
//! keys/validator.json  keys/beacon.json  keys/node.json  keys/accounts/NAME.json
//! guard/signed  guard/lock
//! data/db  data/wal  logs/  worker/  bench/NAME.json
//! ```
//! A home is written beside its final place and renamed, so that a directory is either a whole
//! home or none.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_signer::{GuardError, GuardFile, Record};

use crate::keys;

/// Directories of a home are for their owner only: keys lie in them.
const DIRECTORY_MODE: u32 = 0o700;

/// A home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

/// The keys that make a node.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    /// Signs votes and blocks.
    pub validator: SecretKey,
    /// Makes the beacon's outputs.
    pub beacon: SecretKey,
    /// Names the node in the network.
    pub node: SecretKey,
}

/// Why a home could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Something is there already.
    #[error("{0} exists and is not empty: choose another directory with --home, or remove it")]
    NotEmpty(PathBuf),
    /// The path cannot be a home.
    #[error("`{0}` cannot be a home directory: it has no name")]
    Path(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The guard could not be written.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A key could not be written.
    #[error(transparent)]
    Key(#[from] keys::KeyFileError),
}

impl Home {
    /// The home at `path`, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The genesis file.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.0.join("genesis.json")
    }

    /// The key that signs votes and blocks.
    #[must_use]
    pub fn validator_key(&self) -> PathBuf {
        self.0.join("keys/validator.json")
    }

    /// The key of the beacon's outputs.
    #[must_use]
    pub fn beacon_key(&self) -> PathBuf {
        self.0.join("keys/beacon.json")
    }

    /// The key that names the node in the network.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.0.join("keys/node.json")
    }

    /// A worker's key.
    #[must_use]
    pub fn worker_key(&self) -> PathBuf {
        self.0.join("keys/worker.json")
    }

    /// The directory of account keys.
    #[must_use]
    pub fn accounts(&self) -> PathBuf {
        self.0.join("keys/accounts")
    }

    /// The directory of the signing guard.
    #[must_use]
    pub fn guard(&self) -> PathBuf {
        self.0.join("guard")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("data/db")
    }

    /// Consensus' write-ahead log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.0.join("data/wal")
    }

    /// The directory of log files.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What a worker keeps between runs.
    #[must_use]
    pub fn worker(&self) -> PathBuf {
        self.0.join("worker")
    }

    /// The directory of measurements that are kept.
    #[must_use]
    pub fn bench(&self) -> PathBuf {
        self.0.join("bench")
    }

    /// Makes the home of a node on the chain of a genesis, with a guard that has signed nothing: the
    /// keys are new.
    ///
    /// # Errors
    /// When the directory has anything in it, or cannot be written.
    pub fn create(
        self,
        keys: &NodeKeys,
        chain: &Hash,
        genesis: &str,
        config: &str,
    ) -> Result<Self, HomeError> {
        self.create_with(|new| {
            directory(&new.accounts())?;
            keys::write_new(&new.validator_key(), &keys.validator)?;
            keys::write_new(&new.beacon_key(), &keys.beacon)?;
            keys::write_new(&new.node_key(), &keys.node)?;
            let record = Record::new(*chain, keys.validator.public(), Height::ZERO);
            GuardFile::create(&new.guard(), &record)?;
            write_new(&new.config(), config)?;
            write_new(&new.genesis(), genesis)
        })
    }

    /// Makes the home of a worker.
    ///
    /// # Errors
    /// When the directory has anything in it, or cannot be written.
    pub fn create_worker(self, key: &SecretKey) -> Result<Self, HomeError> {
        self.create_with(|new| {
            directory(&new.accounts())?;
            Ok(keys::write_new(&new.worker_key(), key)?)
        })
    }

    fn create_with(
        self,
        fill: impl FnOnce(&Self) -> Result<(), HomeError>,
    ) -> Result<Self, HomeError> {
        if !is_vacant(&self.0)? {
            return Err(HomeError::NotEmpty(self.0));
        }
        let Some(name) = self.0.file_name() else {
            return Err(HomeError::Path(self.0));
        };
        let mut beside = name.to_os_string();
        beside.push(format!(".new-{}", std::process::id()));
        let new = Self(self.0.with_file_name(beside));
        directory(&new.0)?;
        let made = fill(&new)
            .and_then(|()| fs::rename(&new.0, &self.0).map_err(|error| io_error(&self.0, error)));
        if let Err(error) = made {
            // What is half made is of no use; the first error is the one to tell.
            let _ = fs::remove_dir_all(&new.0);
            return Err(error);
        }
        Ok(self)
    }
}

/// Whether nothing is at `path`, or an empty directory.
pub(crate) fn is_vacant(path: &Path) -> Result<bool, HomeError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(io_error(path, error)),
    }
}

/// Makes a directory and those above it, for their owner only.
pub(crate) fn directory(path: &Path) -> Result<(), HomeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(|error| io_error(path, error))
}

fn write_new(path: &Path, text: &str) -> Result<(), HomeError> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| io_error(path, error))
}

/// Replaces a file's content in one step: readers see the old text or the new one.
///
/// # Errors
/// When the file system refuses.
pub fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.file_name().unwrap_or_default().to_os_string();
    beside.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(beside);
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn io_error(path: &Path, error: io::Error) -> HomeError {
    HomeError::Io {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::Hash;

    use super::{Home, HomeError, NodeKeys, write_atomically};
    use crate::{dev_keys, keys};

    fn keys_of(index: u32) -> NodeKeys {
        NodeKeys {
            validator: dev_keys::validator(index),
            beacon: dev_keys::beacon(index),
            node: dev_keys::network(index),
        }
    }

    #[test]
    fn a_home_has_its_keys_and_files() {
        let place = tempfile::tempdir().expect("a directory");
        let home = Home::new(place.path().join("home"))
            .create(&keys_of(0), &Hash::ZERO, "{}", "moniker = \"a\"\n")
            .expect("a home");
        let validator = keys::read(&home.validator_key()).expect("a key");
        assert_eq!(validator.public(), dev_keys::validator(0).public());
        let node = keys::read(&home.node_key()).expect("a key");
        assert_eq!(node.public(), dev_keys::network(0).public());
        let config = std::fs::read_to_string(home.config()).expect("a file");
        assert_eq!(config, "moniker = \"a\"\n");
        let entries = std::fs::read_dir(place.path()).expect("a directory");
        assert_eq!(entries.count(), 1, "nothing is left beside the home");
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_untouched() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("mine"), "x").expect("a file");
        let refused = Home::new(place.path()).create(&keys_of(0), &Hash::ZERO, "{}", "");
        assert!(matches!(refused, Err(HomeError::NotEmpty(_))));
        let entries = std::fs::read_dir(place.path()).expect("a directory");
        assert_eq!(entries.count(), 1);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("file");
        write_atomically(&path, "one").expect("written");
        write_atomically(&path, "two").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "two");
    }
}
