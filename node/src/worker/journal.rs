//! What a worker must not forget: for each seat its salt and result, synced before it commits.
//!
//! One file per seat, written beside its place and renamed into it, file and directory synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::task::ResultClaim;
use serde::{Deserialize, Serialize};

/// A seat's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The task.
    pub task: Hash,
    /// The draw.
    pub draw: u8,
    /// The salt of the commitment.
    pub salt: Hash,
    /// The result.
    pub claim: ResultClaim,
    /// The output bytes.
    pub output: Blob,
}

/// The journal of one worker on one chain.
pub struct Journal {
    directory: PathBuf,
    entries: BTreeMap<(Hash, u8), Entry>,
    /// Held as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal.
    ///
    /// # Errors
    /// When the directory is in use by another worker, belongs to another chain, cannot be read,
    /// or holds a damaged entry.
    pub fn open(directory: &Path, genesis: &Hash) -> Result<Self> {
        let at = || format!("journal {}", directory.display());
        fs::create_dir_all(directory).with_context(at)?;
        let lock = File::create(directory.join("lock")).with_context(at)?;
        if lock.try_lock().is_err() {
            bail!("{} is in use by another worker", at());
        }
        let chain = directory.join("genesis");
        match fs::read_to_string(&chain) {
            Ok(found) if found.trim() == genesis.to_string() => {}
            Ok(found) => bail!(
                "{} belongs to the chain with genesis {}, the node's is {genesis}; use another --home",
                at(),
                found.trim()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write_synced(directory, "genesis", genesis.to_string().as_bytes())?;
            }
            Err(error) => return Err(error).with_context(at),
        }
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(directory).with_context(at)? {
            let path = file.with_context(at)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(at)?;
            let entry: Entry = serde_json::from_str(&text)
                .with_context(|| format!("journal entry {} is damaged", path.display()))?;
            entries.insert((entry.task, entry.draw), entry);
        }
        Ok(Self {
            directory: directory.to_owned(),
            entries,
            _lock: lock,
        })
    }

    /// How many seats it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a seat.
    #[must_use]
    pub fn get(&self, seat: &(Hash, u8)) -> Option<&Entry> {
        self.entries.get(seat)
    }

    /// The seats it knows.
    pub fn seats(&self) -> impl Iterator<Item = (Hash, u8)> {
        self.entries.keys().copied()
    }

    /// Remembers a seat's result, durably when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, entry: Entry) -> Result<()> {
        let text = serde_json::to_vec(&entry).context("an entry is plain JSON")?;
        write_synced(&self.directory, &file_name(&entry.task, entry.draw), &text)?;
        self.entries.insert((entry.task, entry.draw), entry);
        Ok(())
    }

    /// Forgets a seat.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn remove(&mut self, seat: &(Hash, u8)) -> Result<()> {
        let path = self.directory.join(file_name(&seat.0, seat.1));
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        self.entries.remove(seat);
        Ok(())
    }
}

fn file_name(task: &Hash, draw: u8) -> String {
    format!("{}-{draw}.json", hex::encode(task.as_bytes()))
}

fn write_synced(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    let staged = directory.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, &path)?;
        File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::task::ResultStatus;
    use proofmill_chain::types::units::Gas;

    use super::*;

    fn entry(number: u8) -> Entry {
        Entry {
            task: Hash::new([number; 32]),
            draw: 1,
            salt: Hash::new([7; 32]),
            claim: ResultClaim {
                output_hash: Blob::new(vec![1, 2]).hash(),
                trace_root: Hash::ZERO,
                gas: Gas::new(5),
                status: ResultStatus::Done,
            },
            output: Blob::new(vec![1, 2]),
        }
    }

    #[test]
    fn entries_survive_reopening_and_removal() -> Result<()> {
        let home = tempfile::tempdir()?;
        let chain = Hash::new([9; 32]);
        let mut journal = Journal::open(home.path(), &chain)?;
        journal.put(entry(1))?;
        journal.put(entry(2))?;
        journal.remove(&(Hash::new([1; 32]), 1))?;
        drop(journal);
        let journal = Journal::open(home.path(), &chain)?;
        assert_eq!(journal.len(), 1);
        assert_eq!(journal.get(&(Hash::new([2; 32]), 1)), Some(&entry(2)));
        Ok(())
    }

    #[test]
    fn a_journal_in_use_or_of_another_chain_is_refused() -> Result<()> {
        let home = tempfile::tempdir()?;
        let chain = Hash::new([9; 32]);
        let journal = Journal::open(home.path(), &chain)?;
        let second = Journal::open(home.path(), &chain)
            .err()
            .map(|e| e.to_string());
        assert!(second.is_some_and(|text| text.contains("in use")));
        drop(journal);
        let other = Journal::open(home.path(), &Hash::ZERO)
            .err()
            .map(|e| e.to_string());
        assert!(other.is_some_and(|text| text.contains("belongs to the chain")));
        Ok(())
    }

    #[test]
    fn a_damaged_entry_is_named() -> Result<()> {
        let home = tempfile::tempdir()?;
        let chain = Hash::new([9; 32]);
        drop(Journal::open(home.path(), &chain)?);
        fs::write(home.path().join("aa-0.json"), "{")?;
        let error = Journal::open(home.path(), &chain)
            .err()
            .map(|e| format!("{e:#}"));
        assert!(error.is_some_and(|text| text.contains("aa-0.json is damaged")));
        Ok(())
    }
}
