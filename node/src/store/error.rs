//! What goes wrong with the data directory. Every variant is our own disk's or our own bug's fault.

use std::path::{Path, PathBuf};

use proofmill_chain::codec::DecodeError;
use proofmill_chain::state::StateError;
use proofmill_chain::types::genesis::GenesisError;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::upgrades::UpgradesError;

/// What to do about damaged data.
pub const CORRUPTION_ADVICE: &str = "move the database directory away, keep the consensus log beside it, and start again: the \
     node fetches the chain from its peers";

/// Why the store cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The directory holds another chain.
    #[error(
        "data directory {path} belongs to the chain with genesis {found}, this node's genesis is {expected}: choose another directory"
    )]
    OtherGenesis {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: Hash,
        /// What was asked for.
        expected: Hash,
    },
    /// The directory was written by a version with another layout.
    #[error(
        "data directory {path} has layout {found}, this version reads layout {expected}: another version of proofmill wrote it. Use that version, or make a new home with `proofmill init` and let it synchronise; a development network begins anew with `proofmill devnet --reset`"
    )]
    OtherSchema {
        /// The directory.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What this version reads.
        expected: u32,
    },
    /// Another process has the directory.
    #[error("data directory {path} already in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// What is stored is damaged or incomplete.
    #[error("the data directory{} is damaged: {what}; {advice}", named(.path.as_deref()))]
    Corrupt {
        /// The directory, once known.
        path: Option<PathBuf>,
        /// What is damaged.
        what: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The disk is full. Nothing of the write that failed is visible.
    #[error("no space left on the disk of the data directory: free some and start again ({0})")]
    NoSpace(String),
    /// The disk or its file system failed.
    #[error(
        "the data directory cannot be read or written: {0}; check that it is a directory that this user may \
         write to, on a disk that works"
    )]
    Io(String),
    /// Somebody wanted the opening to end.
    #[error("stopped while the data directory was being opened")]
    Stopped,
    /// The genesis starts no chain.
    #[error("genesis: {0}")]
    Genesis(#[from] GenesisError),
    /// The list of upgrades makes no schedule.
    #[error("upgrades: {0}")]
    Upgrades(#[from] UpgradesError),
    /// A commit that does not follow the head; a bug of ours.
    #[error("commit refused: {0}")]
    Refused(String),
}

fn named(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
}

impl StoreError {
    /// Damage, with the advice that belongs to it.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: None,
            what: what.into(),
            advice: CORRUPTION_ADVICE,
        }
    }

    /// The same error, which now names the directory.
    pub(crate) fn at(mut self, directory: &Path) -> Self {
        if let Self::Corrupt { path, .. } = &mut self {
            path.get_or_insert_with(|| directory.into());
        }
        self
    }

    /// A record that does not decode.
    pub(crate) fn undecodable(what: &str, error: &DecodeError) -> Self {
        Self::corrupt(format!("{what} does not decode: {error}"))
    }

    /// The meaning of an error that opening an existing or a new database gave.
    pub(crate) fn from_open(message: &str, path: &Path, existing: bool) -> Self {
        // Another process holds the lock, or this process does through another handle.
        if message.contains("While lock file") || message.contains("lock hold by current process") {
            return Self::Locked { path: path.into() };
        }
        let piece_missing = message.contains("No such file");
        let refused = message.starts_with("Invalid argument");
        if existing && (piece_missing || refused) {
            return Self::corrupt(message).at(path);
        }
        Self::from_message(message).at(path)
    }

    /// The meaning of an error that reading or writing an open database gave.
    pub(crate) fn from_message(message: &str) -> Self {
        if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
            Self::NoSpace(message.into())
        } else if message.starts_with("Corruption") {
            Self::corrupt(message)
        } else {
            Self::Io(message.into())
        }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        Self::from_message(error.as_ref())
    }
}

impl From<StoreError> for StateError {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::StoreError;

    #[test]
    fn a_full_disk_is_told_apart_from_a_failing_one() {
        let full = "IO error: No space left on device: While appending to file: data/000004.log: No space left on device";
        assert!(matches!(
            StoreError::from_message(full),
            StoreError::NoSpace(_)
        ));
        let failing = "IO error: While fsync: data/000004.log: Input/output error";
        assert!(matches!(
            StoreError::from_message(failing),
            StoreError::Io(_)
        ));
    }

    #[test]
    fn a_missing_file_is_damage_only_in_a_database_that_exists() {
        let message = "IO error: No such file or directory: While open a file: data/000012.sst";
        let path = Path::new("data");
        let existing = StoreError::from_open(message, path, true);
        assert!(matches!(existing, StoreError::Corrupt { .. }));
        let fresh = StoreError::from_open(message, path, false);
        assert!(matches!(fresh, StoreError::Io(_)));
    }
}
