//! Changes on top of a state, with undo, and the writes they come to.
//!
//! Accounts that were read beforehand ([`Accounts`]) stand in a list and are reached by their place;
//! everything else is read when it is first asked for.

use std::collections::BTreeMap;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use smallvec::SmallVec;

use crate::codec;
use crate::state::accounts::{Accounts, Loaded};
use crate::state::reader::StateReader;
use crate::state::{Place, StateError};
use crate::types::account::Account;
use crate::types::hash::{AccountId, Hash};
use crate::types::record::{Chain, LiveTasks, Program, Record, StateKey, Workers};
use crate::types::task::Task;
use crate::types::validator::ValidatorSet;
use crate::types::worker::Worker;

/// An encoded record; an account's needs no memory of its own.
pub type RecordBytes = SmallVec<[u8; 24]>;

/// One changed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its place in the tree.
    pub key: Hash,
    /// Its encoding before, `None` when it did not exist.
    pub old: Option<RecordBytes>,
    /// Its encoding after, `None` when it is gone.
    pub new: Option<RecordBytes>,
}

/// What a block changes, by ascending tree key, each key once, every write a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// The changes.
    pub writes: Vec<Write>,
}

/// Accounts whose writes one thread makes before the work is split.
const SLOTS_PER_THREAD: usize = 512;

#[derive(Clone, Debug)]
struct Entry {
    /// Encoded, as the reader gave it.
    old: Option<RecordBytes>,
    now: Option<Record>,
    touched: bool,
}

/// What has become of an account that was read beforehand: small, since executing a block is little
/// else than waiting for these.
#[derive(Clone, Copy, Debug)]
struct Slot {
    now: Account,
    exists: bool,
    touched: bool,
}

/// How to take one change back.
#[derive(Debug)]
enum Undo {
    Slot(usize, Slot),
    Entry(StateKey, Option<Record>, bool),
}

/// A view of a state with changes on top.
pub struct Overlay<'a> {
    reader: &'a dyn StateReader,
    /// The accounts that were read beforehand, by ascending id.
    loaded: &'a [Loaded],
    /// What has become of each of them.
    slots: Vec<Slot>,
    /// Never an account that has a slot.
    entries: BTreeMap<StateKey, Entry>,
    undo: Vec<Undo>,
}

/// What a block's changes come to, summed over the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupplyChange {
    /// Change of balances, collateral and escrows.
    pub held: i128,
    /// Change of what the chain's own figures account for: rewards less burns.
    pub accounted: i128,
}

/// A record's part in the supply.
fn share(record: Option<&Record>, sign: i128) -> SupplyChange {
    let signed = |value: i128| value.saturating_mul(sign);
    SupplyChange {
        held: record.map_or(0, |record| signed(i128::from(record.holds().get()))),
        accounted: match record {
            Some(Record::Chain(chain)) => signed(chain.made()),
            _ => 0,
        },
    }
}

impl core::ops::Add for SupplyChange {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            held: self.held.saturating_add(other.held),
            accounted: self.accounted.saturating_add(other.accounted),
        }
    }
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
        Self::with_loaded(reader, &[])
    }

    /// A view of `reader` without changes, some of whose accounts were read already: those of
    /// `accounts` are reached by the places that it tells.
    #[must_use]
    pub fn with_accounts(reader: &'a dyn StateReader, accounts: &'a Accounts) -> Self {
        Self::with_loaded(reader, &accounts.list)
    }

    fn with_loaded(reader: &'a dyn StateReader, loaded: &'a [Loaded]) -> Self {
        Self {
            reader,
            loaded,
            slots: loaded.iter().map(Slot::of).collect(),
            entries: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// The record under a key that has no slot.
    ///
    /// # Errors
    /// When the store cannot be read or what it holds does not decode.
    fn get(&mut self, key: StateKey) -> Result<Option<&Record>, StateError> {
        self.load(key).map(|entry| entry.now.as_ref())
    }

    /// Sets a record.
    ///
    /// # Errors
    /// When the store cannot be read or what it holds does not decode.
    pub fn put(&mut self, key: StateKey, record: Record) -> Result<(), StateError> {
        self.set(key, Some(record))
    }

    /// Removes a record.
    ///
    /// # Errors
    /// As [`Overlay::put`].
    pub fn remove(&mut self, key: StateKey) -> Result<(), StateError> {
        self.set(key, None)
    }

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
    /// As [`Overlay::put`].
    pub fn account(&mut self, id: AccountId) -> Result<Account, StateError> {
        self.account_at(id, Place::UNKNOWN)
    }

    /// [`Overlay::account`] for an account whose place may be known.
    ///
    /// # Errors
    /// As [`Overlay::put`].
    pub fn account_at(&mut self, id: AccountId, place: Place) -> Result<Account, StateError> {
        if let Some(slot) = self.slot(&id, place).and_then(|at| self.slots.get(at)) {
            return Ok(slot.now);
        }
        let key = StateKey::Account(id);
        match self.get(key)? {
            None => Ok(Account::default()),
            Some(Record::Account(account)) => Ok(*account),
            Some(_) => Err(StateError::Missing(key)),
        }
    }

    /// Sets an account whose place may be known.
    ///
    /// # Errors
    /// As [`Overlay::put`].
    pub fn put_account(
        &mut self,
        id: AccountId,
        place: Place,
        account: Account,
    ) -> Result<(), StateError> {
        if self.set_slot(&id, place, Some(account)) {
            return Ok(());
        }
        self.set_entry(StateKey::Account(id), Some(Record::Account(account)))
    }

    /// The list of workers.
    ///
    /// # Errors
    /// As [`Overlay::put`]; it exists from genesis on.
    pub fn workers(&mut self) -> Result<Workers, StateError> {
        self.workers_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Workers))
    }

    /// The tasks that are not over.
    ///
    /// # Errors
    /// As [`Overlay::put`]; the record exists from genesis on.
    pub fn live_tasks(&mut self) -> Result<LiveTasks, StateError> {
        self.live_tasks_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::LiveTasks))
    }

    /// The chain's own figures.
    ///
    /// # Errors
    /// As [`Overlay::put`]; the record exists from genesis on.
    pub fn chain(&mut self) -> Result<Chain, StateError> {
        self.chain_record()?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Chain))
    }

    /// The validator set.
    ///
    /// # Errors
    /// As [`Overlay::put`]; the record exists from genesis on.
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
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Slot(at, before) => {
                    if let Some(slot) = self.slots.get_mut(at) {
                        *slot = before;
                    }
                }
                Undo::Entry(key, record, touched) => {
                    if let Some(entry) = self.entries.get_mut(&key) {
                        entry.now = record;
                        entry.touched = touched;
                    }
                }
            }
        }
    }

    /// The differences from the reader's state, and what they sum up to.
    ///
    /// # Errors
    /// When a record that was read does not decode.
    pub fn into_writes(self) -> Result<(WriteSet, SupplyChange), StateError> {
        let (mut writes, mut sum) = self
            .loaded
            .par_iter()
            .zip(self.slots)
            .with_min_len(SLOTS_PER_THREAD)
            .fold(
                || (Vec::new(), SupplyChange::default()),
                |(mut writes, sum), (loaded, slot)| {
                    let write = slot.write(loaded);
                    let change = write.map_or_else(SupplyChange::default, |write| {
                        writes.push(write);
                        let now = slot.account().map(Record::Account);
                        let old = loaded.account.map(Record::Account);
                        share(now.as_ref(), 1) + share(old.as_ref(), -1)
                    });
                    (writes, sum + change)
                },
            )
            .reduce(
                || (Vec::new(), SupplyChange::default()),
                |(mut writes, sum), (more, other)| {
                    writes.extend(more);
                    (writes, sum + other)
                },
            );
        for (key, entry) in self.entries {
            let new = entry.now.as_ref().map(encoded);
            if !entry.touched || new == entry.old {
                continue;
            }
            let old = decoded(key, entry.old.as_deref())?;
            sum = sum + share(entry.now.as_ref(), 1) + share(old.as_ref(), -1);
            writes.push(Write {
                key: key.tree_key(),
                old: entry.old,
                new,
            });
        }
        writes.par_sort_unstable_by_key(|write| write.key);
        Ok((WriteSet { writes }, sum))
    }

    /// The slot of an account, by its place when that is known.
    fn slot(&self, id: &AccountId, place: Place) -> Option<usize> {
        if let Some(at) = place.index()
            && self.loaded.get(at).is_some_and(|loaded| loaded.id == *id)
        {
            return Some(at);
        }
        self.loaded
            .binary_search_by(|loaded| loaded.id.cmp(id))
            .ok()
    }

    fn load(&mut self, key: StateKey) -> Result<&mut Entry, StateError> {
        use std::collections::btree_map::Entry as Vacancy;
        match self.entries.entry(key) {
            Vacancy::Occupied(found) => Ok(found.into_mut()),
            Vacancy::Vacant(vacant) => {
                let (old, now) = read_record(self.reader, key, &key.tree_key())?;
                Ok(vacant.insert(Entry {
                    old,
                    now,
                    touched: false,
                }))
            }
        }
    }

    fn set(&mut self, key: StateKey, record: Option<Record>) -> Result<(), StateError> {
        if let StateKey::Account(id) = key {
            let account = match &record {
                None => None,
                Some(Record::Account(account)) => Some(*account),
                Some(_) => return Err(StateError::Missing(key)),
            };
            if self.set_slot(&id, Place::UNKNOWN, account) {
                return Ok(());
            }
        }
        self.set_entry(key, record)
    }

    /// Sets an account that has a slot; says whether it has.
    fn set_slot(&mut self, id: &AccountId, place: Place, account: Option<Account>) -> bool {
        let slot = self.slot(id, place);
        let Some((at, slot)) = slot.and_then(|at| Some((at, self.slots.get_mut(at)?))) else {
            return false;
        };
        self.undo.push(Undo::Slot(at, *slot));
        slot.now = account.unwrap_or_default();
        slot.exists = account.is_some();
        slot.touched = true;
        true
    }

    fn set_entry(&mut self, key: StateKey, record: Option<Record>) -> Result<(), StateError> {
        let entry = self.load(key)?;
        let before = core::mem::replace(&mut entry.now, record);
        let touched = core::mem::replace(&mut entry.touched, true);
        self.undo.push(Undo::Entry(key, before, touched));
        Ok(())
    }
}

impl Slot {
    fn of(loaded: &Loaded) -> Self {
        Self {
            now: loaded.account.unwrap_or_default(),
            exists: loaded.account.is_some(),
            touched: false,
        }
    }

    /// The account, `None` when it does not exist.
    fn account(&self) -> Option<Account> {
        self.exists.then_some(self.now)
    }

    /// What became of the account, `None` when nothing did.
    fn write(&self, loaded: &Loaded) -> Option<Write> {
        let (old, now) = (loaded.account, self.account());
        (self.touched && now != old).then(|| Write {
            key: loaded.tree_key,
            old: old.map(|account| encoded(&Record::Account(account))),
            new: now.map(|account| encoded(&Record::Account(account))),
        })
    }
}

fn encoded(record: &Record) -> RecordBytes {
    let mut bytes = RecordBytes::new();
    codec::encode_into(record, &mut bytes);
    bytes
}

/// A stored record: its bytes and their meaning.
pub type Stored = (Option<RecordBytes>, Option<Record>);

/// Reads and decodes the record of `key`, whose place in the tree is `tree_key`.
///
/// # Errors
/// When the store cannot be read or what it holds does not decode.
fn read_record(
    reader: &dyn StateReader,
    key: StateKey,
    tree_key: &Hash,
) -> Result<Stored, StateError> {
    let old = reader.read(tree_key)?;
    let now = decoded(key, old.as_deref())?;
    Ok((old.map(|bytes| RecordBytes::from_slice(&bytes)), now))
}

/// A record from its bytes, which must be of the key's kind.
pub(super) fn decoded(key: StateKey, bytes: Option<&[u8]>) -> Result<Option<Record>, StateError> {
    bytes
        .map(Record::decode)
        .transpose()
        .map_err(|error| StateError::Damaged { key, error })
}
