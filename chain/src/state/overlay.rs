//! Changes on top of a state, with undo, and the writes they come to.

use std::collections::BTreeMap;

use crate::codec;
use crate::state::StateError;
use crate::state::reader::StateReader;
use crate::types::account::Account;
use crate::types::hash::{AccountId, Hash};
use crate::types::record::{Chain, LiveTasks, Program, Record, StateKey, Workers};
use crate::types::task::Task;
use crate::types::validator::ValidatorSet;
use crate::types::worker::Worker;

/// One changed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its place in the tree.
    pub key: Hash,
    /// Its encoding before, `None` when it did not exist.
    pub old: Option<Vec<u8>>,
    /// Its encoding after, `None` when it is gone.
    pub new: Option<Vec<u8>>,
}

/// What a block changes, by ascending tree key, each key once, every write a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// The changes.
    pub writes: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Encoded, as the reader gave it.
    old: Option<Vec<u8>>,
    now: Option<Record>,
    touched: bool,
}

/// A view of a state with changes on top.
pub struct Overlay<'a> {
    reader: &'a dyn StateReader,
    entries: BTreeMap<StateKey, Entry>,
    undo: Vec<(StateKey, Option<Record>, bool)>,
}

macro_rules! typed {
    ($get:ident, $of:ident, $record:ident, $type:ty, $($arg:ident : $arg_type:ty)?) => {
        /// The record, `None` when it does not exist.
        ///
        /// # Errors
        /// When the store cannot be read or holds something else there.
        pub fn $get(&mut self $(, $arg: $arg_type)?) -> Result<Option<&$type>, StateError> {
            let key = StateKey::$of $(($arg))?;
            match self.get(key)? {
                None => Ok(None),
                Some(Record::$record(record)) => Ok(Some(record)),
                Some(_) => Err(StateError::Missing(key)),
            }
        }
    };
}

impl<'a> Overlay<'a> {
    /// A view of `reader` without changes.
    #[must_use]
    pub fn new(reader: &'a dyn StateReader) -> Self {
        Self {
            reader,
            entries: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// Brings records that were read and decoded elsewhere, so that they need not be read again.
    pub fn prime(&mut self, records: Vec<(StateKey, Option<Vec<u8>>, Option<Record>)>) {
        for (key, old, now) in records {
            self.entries.entry(key).or_insert(Entry {
                old,
                now,
                touched: false,
            });
        }
    }

    /// The record under a key.
    ///
    /// # Errors
    /// When the store cannot be read or what it holds does not decode.
    pub fn get(&mut self, key: StateKey) -> Result<Option<&Record>, StateError> {
        self.load(key).map(|entry| entry.now.as_ref())
    }

    /// Sets a record.
    ///
    /// # Errors
    /// As [`Overlay::get`].
    pub fn put(&mut self, key: StateKey, record: Record) -> Result<(), StateError> {
        self.set(key, Some(record))
    }

    /// Removes a record.
    ///
    /// # Errors
    /// As [`Overlay::get`].
    pub fn remove(&mut self, key: StateKey) -> Result<(), StateError> {
        self.set(key, None)
    }

    typed!(account_record, Account, Account, Account, id: AccountId);
    typed!(worker, Worker, Worker, Worker, id: AccountId);
    typed!(program, Program, Program, Program, id: Hash);
    typed!(task, Task, Task, Task, id: Hash);
    typed!(workers_record, Workers, Workers, Workers,);
    typed!(live_tasks_record, LiveTasks, LiveTasks, LiveTasks,);
    typed!(chain_record, Chain, Chain, Chain,);
    typed!(validators_record, Validators, Validators, ValidatorSet,);

    /// An account; one that does not exist is empty.
    ///
    /// # Errors
    /// As [`Overlay::get`].
    pub fn account(&mut self, id: AccountId) -> Result<Account, StateError> {
        Ok(self.account_record(id)?.copied().unwrap_or_default())
    }

    /// The list of workers.
    ///
    /// # Errors
    /// As [`Overlay::get`]; it exists from genesis on.
    pub fn workers(&mut self) -> Result<Workers, StateError> {
        self.workers_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Workers))
    }

    /// The tasks that are not over.
    ///
    /// # Errors
    /// As [`Overlay::get`]; the record exists from genesis on.
    pub fn live_tasks(&mut self) -> Result<LiveTasks, StateError> {
        self.live_tasks_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::LiveTasks))
    }

    /// The chain's own figures.
    ///
    /// # Errors
    /// As [`Overlay::get`]; the record exists from genesis on.
    pub fn chain(&mut self) -> Result<Chain, StateError> {
        self.chain_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Chain))
    }

    /// The validator set.
    ///
    /// # Errors
    /// As [`Overlay::get`]; the record exists from genesis on.
    pub fn validators(&mut self) -> Result<ValidatorSet, StateError> {
        self.validators_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Validators))
    }

    /// Forgets the way back: what was done until now stays.
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back everything since the last [`Overlay::keep`].
    pub fn revert(&mut self) {
        while let Some((key, record, touched)) = self.undo.pop() {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.now = record;
                entry.touched = touched;
            }
        }
    }

    /// The differences from the reader's state.
    ///
    /// # Errors
    /// Never today; a place for laws that all writes must keep.
    pub fn into_writes(self) -> Result<WriteSet, StateError> {
        let mut writes: Vec<_> = self
            .entries
            .into_iter()
            .filter(|(_, entry)| entry.touched)
            .filter_map(|(key, entry)| {
                let new = entry.now.as_ref().map(codec::encode);
                (new != entry.old).then(|| Write {
                    key: key.tree_key(),
                    old: entry.old,
                    new,
                })
            })
            .collect();
        writes.sort_unstable_by_key(|write| write.key);
        Ok(WriteSet { writes })
    }

    fn load(&mut self, key: StateKey) -> Result<&mut Entry, StateError> {
        use std::collections::btree_map::Entry as Place;
        match self.entries.entry(key) {
            Place::Occupied(place) => Ok(place.into_mut()),
            Place::Vacant(place) => {
                let (old, now) = read_record(self.reader, key)?;
                Ok(place.insert(Entry {
                    old,
                    now,
                    touched: false,
                }))
            }
        }
    }

    fn set(&mut self, key: StateKey, record: Option<Record>) -> Result<(), StateError> {
        let entry = self.load(key)?;
        let before = core::mem::replace(&mut entry.now, record);
        let touched = core::mem::replace(&mut entry.touched, true);
        self.undo.push((key, before, touched));
        Ok(())
    }
}

/// A stored record: its bytes and their meaning.
pub type Stored = (Option<Vec<u8>>, Option<Record>);

/// Reads and decodes one record.
///
/// # Errors
/// When the store cannot be read or what it holds does not decode.
pub fn read_record(reader: &dyn StateReader, key: StateKey) -> Result<Stored, StateError> {
    let old = reader.read(&key.tree_key())?;
    let now = old
        .as_deref()
        .map(Record::decode)
        .transpose()
        .map_err(|error| StateError::Damaged { key, error })?;
    Ok((old, now))
}
