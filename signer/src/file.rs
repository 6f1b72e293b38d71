//! The guard's file: written in place, synced before a signature leaves, held by one process.
//!
//! ```text
//! guard/lock      held exclusively as long as a process may sign
//! guard/signed    four regions: slot 0, slot 1, slot 0 again, slot 1 again
//! guard/signed.new    only while a guard is made
//! region          line "proofmill guard 4", SHA-256 of the rest, number, length, the record
//! ```
//!
//! Records are numbered. Number n goes to both copies of slot n mod 2 and is synced once; the other
//! slot keeps number n - 1 meanwhile. The file is written whole when it is made, so a record needs
//! no room on the disk and changes no directory.
//!
//! A crash can leave the slot that was being written in any state, and nothing else. (The start
//! writes the newest record again, one copy after the other: a crash spoils one of them.) One slot is
//! therefore always whole: both copies valid and equal. The record is the valid one with the
//! highest number. That a record is written twice tells a crash from damage: damage at one place
//! never hides a record whose signature has left, as the other copy still has it, and a file
//! without a whole slot is refused, because no crash makes one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash};

use crate::record::Record;

const MAGIC: &[u8] = b"proofmill guard 4\n";
const DOMAIN: &str = "proofmill/guard/v4";
const SIGNED: &str = "signed";
const NEW: &str = "signed.new";
const LOCK: &str = "lock";
const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const HASH_BYTES: usize = 32;
const NUMBER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
const HEADER_BYTES: usize = MAGIC.len() + HASH_BYTES + NUMBER_BYTES + LENGTH_BYTES;
/// Room for a record of the most rounds, signed and recalled, each with a whole header: those take
/// 128 KiB. A multiple of
/// any disk's sector, so that no write touches two regions.
const REGION_BYTES: usize = 256 << 10;
const RECORD_BYTES_MAX: usize = REGION_BYTES - HEADER_BYTES;
const SLOTS: usize = 2;
const COPIES: usize = 2;
const FILE_BYTES: usize = SLOTS * COPIES * REGION_BYTES;
/// Looks at a guard that another process writes, before it counts as damaged: a look takes far less
/// than the time between two records.
const PEEKS_MAX: usize = 3;

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
    /// Write the first copy.
    FirstCopy,
    /// Write the second.
    SecondCopy,
    /// Sync what was written.
    Sync,
}

/// How a new record is written.
const WRITE_STEPS: [Step; 3] = [Step::FirstCopy, Step::SecondCopy, Step::Sync];
/// How a record that may already be durable is written again.
const REPAIR_STEPS: [Step; 4] = [Step::FirstCopy, Step::Sync, Step::SecondCopy, Step::Sync];

/// The guard of one home, locked as long as this lives.
#[derive(Debug)]
pub struct GuardFile {
    path: PathBuf,
    file: File,
    /// The number of the record on the disk.
    number: u64,
    /// Set while a write is under way, and for good once one has failed: another write could make
    /// two records of one number.
    is_uncertain: bool,
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
        let lock = lock(directory)?;
        if path.exists() {
            return Err(GuardError::Exists(path));
        }
        Self::put_new(directory, record, lock)
    }

    /// Replaces whatever guard is in `directory`, readable or not.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be written.
    pub fn replace(directory: &Path, record: &Record) -> Result<Self, GuardError> {
        make(directory)?;
        let lock = lock(directory)?;
        Self::put_new(directory, record, lock)
    }

    /// Opens the guard of a key on a chain.
    ///
    /// # Errors
    /// When there is none, when it is damaged, of another key or chain, held by another process, or
    /// cannot be written.
    pub fn open(
        directory: &Path,
        chain: &Hash,
        key: &AccountId,
    ) -> Result<(Self, Record), GuardError> {
        Self::open_in_steps(directory, chain, key, |_| Ok(()))
    }

    /// [`Self::open`], asking before each step of the repair whether to go on; for tests of crashes.
    ///
    /// # Errors
    /// Those of [`Self::open`], and when `before` refuses.
    pub fn open_in_steps(
        directory: &Path,
        chain: &Hash,
        key: &AccountId,
        before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(Self, Record), GuardError> {
        let path = directory.join(SIGNED);
        if !path.exists() {
            return Err(GuardError::Missing(path));
        }
        let lock = lock(directory)?;
        let bytes = bytes_of(&path)?;
        let (number, record) = decoded(&path, &bytes)?;
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
        let opened = OpenOptions::new().write(true).open(&path);
        let mut guard = Self {
            file: opened.map_err(|error| io_error(&path, error))?,
            path,
            number,
            is_uncertain: false,
            _lock: lock,
        };
        // What was read may be in memory only, or in one copy: a crash came before the sync, or the sync
        // failed. It must be durable before it is answered with, so both copies are written again.
        guard.repair(&bytes, &record, before)?;
        Ok((guard, record))
    }

    /// Reads a guard without holding it: what it shows may be old a moment later.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn peek(directory: &Path) -> Result<Record, GuardError> {
        let path = directory.join(SIGNED);
        let mut found = read(&path);
        for _ in 1..PEEKS_MAX {
            if !matches!(found, Err(GuardError::Damaged { .. })) {
                break;
            }
            found = read(&path);
        }
        found.map(|(_, record)| record)
    }

    /// Records; durable when it returns.
    ///
    /// # Errors
    /// When the file system refuses, or refused before: from then on nothing is written. The old
    /// record or the new one is on the disk.
    pub fn write(&mut self, record: &Record) -> Result<(), GuardError> {
        self.write_in_steps(record, |_| Ok(()))
    }

    /// [`Self::write`], asking before each step whether to go on; for tests of crashes.
    ///
    /// # Errors
    /// When the file system refuses, or `before` does.
    pub fn write_in_steps(
        &mut self,
        record: &Record,
        before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), GuardError> {
        self.put(self.number + 1, record, before)
    }

    /// Writes both copies of the record that the file holds again. Its signature may have left, and a
    /// write that a power cut interrupts may spoil what it was to write. So the copies are written one
    /// after the other, a spoilt one first, with a sync in between: one of them is whole at any moment.
    fn repair(
        &mut self,
        bytes: &[u8],
        record: &Record,
        before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), GuardError> {
        let number = self.number;
        let [first, second] = places(number);
        let is_whole = |place| {
            region(bytes, number % SLOTS as u64, place).is_some_and(|(found, _)| found == number)
        };
        let order = if is_whole(first) {
            [second, first]
        } else {
            [first, second]
        };
        self.in_steps(number, record, order, &REPAIR_STEPS, before)
    }

    /// Puts a record into both copies of its slot. Nothing there is needed: the other slot has the
    /// record before it, and the signature has not left.
    fn put(
        &mut self,
        number: u64,
        record: &Record,
        before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), GuardError> {
        self.in_steps(number, record, places(number), &WRITE_STEPS, before)
    }

    /// Takes the steps of a write; the first copy is the one at the first place.
    fn in_steps(
        &mut self,
        number: u64,
        record: &Record,
        [first, second]: [usize; COPIES],
        steps: &[Step],
        mut before: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<(), GuardError> {
        if self.is_uncertain {
            let error = io::Error::other("an earlier write failed");
            return Err(io_error(&self.path, error));
        }
        self.is_uncertain = true;
        let mut write = || -> io::Result<()> {
            let region = encode(number, record)?;
            for step in steps {
                before(*step)?;
                match step {
                    Step::FirstCopy => self.file.write_all_at(&region, first as u64)?,
                    Step::SecondCopy => self.file.write_all_at(&region, second as u64)?,
                    Step::Sync => self.file.sync_data()?,
                }
            }
            Ok(())
        };
        write().map_err(|error| io_error(&self.path, error))?;
        self.is_uncertain = false;
        self.number = number;
        Ok(())
    }

    /// Writes a whole new file, with the record in both slots, and puts it in the place of the old one.
    fn put_new(directory: &Path, record: &Record, lock: File) -> Result<Self, GuardError> {
        let (path, new) = (directory.join(SIGNED), directory.join(NEW));
        let write = || {
            let mut bytes = vec![0; FILE_BYTES];
            for number in 0..SLOTS as u64 {
                let region = encode(number, record)?;
                for place in places(number) {
                    bytes[place..place + region.len()].copy_from_slice(&region);
                }
            }
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(MODE)
                .open(&new)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        Ok(Self {
            file: write().map_err(|error| io_error(&new, error))?,
            path,
            number: SLOTS as u64 - 1,
            is_uncertain: false,
            _lock: lock,
        })
    }
}

fn lock(directory: &Path) -> Result<File, GuardError> {
    let path = directory.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(&path)
        .map_err(|error| io_error(&path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(GuardError::Busy(path)),
        Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
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

/// Where the copies of a record lie: apart, with the other slot between them.
fn places(number: u64) -> [usize; COPIES] {
    let slot = usize::from(!number.is_multiple_of(SLOTS as u64));
    [slot * REGION_BYTES, (SLOTS + slot) * REGION_BYTES]
}

fn encode(number: u64, record: &Record) -> io::Result<Vec<u8>> {
    let body = codec::encode(record);
    let length = body.len();
    let short = u32::try_from(length).ok();
    let short = short.filter(|_| length <= RECORD_BYTES_MAX);
    let Some(short) = short else {
        let what = format!("a record of {length} bytes, at most {RECORD_BYTES_MAX} have room");
        return Err(io::Error::other(what));
    };
    let number = number.to_le_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(Hash::of(DOMAIN, &[&number, &body]).as_bytes());
    bytes.extend_from_slice(&number);
    bytes.extend_from_slice(&short.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The number and the record of a guard's file.
fn read(path: &Path) -> Result<(u64, Record), GuardError> {
    decoded(path, &bytes_of(path)?)
}

/// A guard's file, no more of it than shows that it is too long.
fn bytes_of(path: &Path) -> Result<Vec<u8>, GuardError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => GuardError::Missing(path.into()),
        _ => io_error(path, error),
    })?;
    let mut bytes = Vec::with_capacity(FILE_BYTES + 1);
    file.take(FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(path, error))?;
    Ok(bytes)
}

fn decoded(path: &Path, bytes: &[u8]) -> Result<(u64, Record), GuardError> {
    decode(bytes).map_err(|reason| GuardError::Damaged {
        path: path.into(),
        reason,
    })
}

fn decode(bytes: &[u8]) -> Result<(u64, Record), String> {
    if bytes.len() != FILE_BYTES {
        let length = bytes.len();
        return Err(format!(
            "it has {length} bytes{}, a guard of this version has {FILE_BYTES}",
            if length > FILE_BYTES { " or more" } else { "" }
        ));
    }
    let slots = [0, 1].map(|slot| places(slot).map(|place| region(bytes, slot, place)));
    // The slot that was not being written. Of two whole ones, the newer.
    let whole = slots.iter().filter_map(|copies| match copies {
        [Some(first), Some(second)] if first == second => Some(*first),
        _ => None,
    });
    let Some(whole) = whole.max_by_key(|(number, _)| *number) else {
        return Err(
            "check sums are wrong or copies differ in both of its slots, which no crash explains"
                .to_owned(),
        );
    };
    let mut newest = whole;
    for (number, body) in slots.into_iter().flatten().flatten() {
        if number.abs_diff(whole.0) > 1 {
            return Err(format!(
                "it holds the records {} and {number}, which do not follow each other",
                whole.0
            ));
        }
        if number > newest.0 {
            newest = (number, body);
        }
        if number == newest.0 && body != newest.1 {
            return Err(format!("it holds two different records {number}"));
        }
    }
    let record = codec::decode::<Record, RECORD_BYTES_MAX>(newest.1);
    Ok((newest.0, record.map_err(|error| error.to_string())?))
}

/// The number and the body of the region at `place`; `None` when it is not whole.
fn region(bytes: &[u8], slot: u64, place: usize) -> Option<(u64, &[u8])> {
    let rest = bytes
        .get(place..place + REGION_BYTES)?
        .strip_prefix(MAGIC)?;
    let (hash, rest) = rest.split_at_checked(HASH_BYTES)?;
    let (number, rest) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let body = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let whole = *Hash::of(DOMAIN, &[number, body]).as_bytes() == *hash;
    let number = u64::from_le_bytes(*number);
    (whole && number % SLOTS as u64 == slot).then_some((number, body))
}

fn io_error(path: &Path, error: io::Error) -> GuardError {
    GuardError::Io {
        path: path.into(),
        error,
    }
}
