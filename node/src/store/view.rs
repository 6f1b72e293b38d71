//! Reading what is committed, from the newest state or from one moment of it.

use std::borrow::Cow;

use proofmill_chain::codec::{self, decode};
use proofmill_chain::state::StateError;
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::tree::{LeafValue, Lookup};
use proofmill_chain::types::block::{
    BLOCK_BYTES_MAX, Block, Certificate, HEADER_BYTES_MAX, Header,
};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::receipt::Receipt;
use proofmill_chain::types::units::{Height, Round};
use rocksdb::{Direction, IteratorMode, Snapshot};
use serde::de::DeserializeOwned;

use super::keys::{self, Family, Position};
use super::state::long_record;
use super::transactions::{self, Waiting};
use super::{Head, Store, StoreError};

/// Largest encoded certificate: 256 validators at 96 bytes and room for the rest.
pub(super) const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// Largest encoded list of a block's receipts.
pub(super) const RECEIPTS_BYTES_MAX: usize = 16 << 20;
/// Most entries that one listing gives.
pub const LISTING_MAX: usize = 1000;

/// A proposal seen and not decided: its round, the block's hash, and the bytes that were kept.
pub type Undecided = (Round, Hash, Vec<u8>);

/// Leaves that a scan of the state takes at a time.
const SCAN_LEAVES: usize = 4096;

/// The store at one moment: everything read through a view belongs to the same head.
///
/// What blocks change while a view lives is kept in memory for it, so it should not live for long.
pub struct View<'a> {
    store: &'a Store,
    /// `None` reads whatever is newest.
    moment: Option<Moment<'a>>,
}

struct Moment<'a> {
    snapshot: Snapshot<'a>,
    height: Height,
    waiting: Waiting,
}

impl<'a> View<'a> {
    pub(super) const fn latest(store: &'a Store) -> Self {
        Self {
            store,
            moment: None,
        }
    }

    pub(super) fn now(store: &'a Store) -> Result<Self, StoreError> {
        // While these are held nothing is forgotten, neither changes nor transactions.
        let _changes = store.current();
        let durable = store.durable();
        let snapshot = store.db.snapshot();
        let height = parse_head(snapshot.get_cf(store.column(Family::Meta), keys::META_HEAD)?)?;
        store.viewers.enter(height);
        let waiting = Waiting::clone(&durable.waiting);
        Ok(Self {
            store,
            moment: Some(Moment {
                snapshot,
                height,
                waiting,
            }),
        })
    }

    /// The height of the last committed block.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub(super) fn head_height(&self) -> Result<Height, StoreError> {
        parse_head(self.get(Family::Meta, keys::META_HEAD)?)
    }

    /// The last committed block; genesis when there is none.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        let height = self.head_height()?;
        if height == Height::ZERO {
            return Ok(self.store.genesis);
        }
        let header = self
            .header(height)?
            .ok_or_else(|| StoreError::corrupt(format!("header {height} is missing")))?;
        Ok(Head {
            height,
            hash: header.hash(),
            time_ms: header.time_ms,
        })
    }

    /// A block.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        self.block_bytes(height)?
            .map(|bytes| {
                decode::<Block, BLOCK_BYTES_MAX>(&bytes)
                    .map_err(|error| StoreError::undecodable(&format!("block {height}"), &error))
            })
            .transpose()
    }

    /// A block's encoding.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn block_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        let key = keys::height_key(height);
        let Some(mut bytes) = self.get(Family::Header, &key)? else {
            return Ok(None);
        };
        let body = self
            .get(Family::Body, &key)?
            .ok_or_else(|| StoreError::corrupt(format!("body {height} is missing")))?;
        bytes.extend_from_slice(&body);
        Ok(Some(bytes))
    }

    /// A block's header.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        self.record::<_, HEADER_BYTES_MAX>(Family::Header, height)
    }

    /// The certificate that makes a block final.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StoreError> {
        self.record::<_, CERTIFICATE_BYTES_MAX>(Family::Certificate, height)
    }

    /// What became of a block's transactions, in their order.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn receipts(&self, height: Height) -> Result<Option<Vec<Receipt>>, StoreError> {
        self.record::<_, RECEIPTS_BYTES_MAX>(Family::Receipts, height)
    }

    /// The height of the block with this hash.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn height_of(&self, block: &Hash) -> Result<Option<Height>, StoreError> {
        self.get(Family::Index, &keys::block_index(block))?
            .map(|bytes| keys::parse_height(&bytes).ok_or_else(damaged_index))
            .transpose()
    }

    /// Where a transaction stands: its block's height and its index there.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn transaction_at(&self, id: &Hash) -> Result<Option<Position>, StoreError> {
        let waiting = match &self.moment {
            Some(moment) => transactions::find(&moment.waiting, id, moment.height),
            None => {
                let durable = self.store.durable();
                transactions::find(&durable.waiting, id, durable.head.height)
            }
        };
        if waiting.is_some() {
            return Ok(waiting);
        }
        self.get(Family::Transactions, id.as_ref())?
            .map(|bytes| keys::parse_position(&bytes).ok_or_else(damaged_index))
            .transpose()
    }

    /// Tasks, newest first, from before `cursor` or from the newest on; at most `limit` and never
    /// more than [`LISTING_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn tasks_before(
        &self,
        cursor: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, Hash)>, StoreError> {
        self.list_before(&keys::tasks_prefix(), cursor, limit)
    }

    /// The bytes with this content address.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn blob(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Family::Blob, hash.as_ref())
    }

    /// The proposals kept for a height, by round and hash.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn undecided(&self, height: Height) -> Result<Vec<Undecided>, StoreError> {
        let start = keys::height_key(height);
        let mut found = Vec::new();
        for entry in self.iterate(Family::Undecided, &start, Direction::Forward) {
            let (key, bytes) = entry?;
            let (at, round, block) = keys::parse_undecided(&key)
                .ok_or_else(|| StoreError::corrupt("the key of an undecided proposal"))?;
            if at != height {
                break;
            }
            found.push((round, block, bytes.into_vec()));
        }
        Ok(found)
    }

    /// One proposal kept.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn undecided_at(
        &self,
        height: Height,
        round: Round,
        block: &Hash,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(
            Family::Undecided,
            &keys::undecided_key(height, round, block),
        )
    }

    /// What the node keeps under a name of its own.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(Family::Meta, &keys::user_meta(name))
    }

    /// Calls `each` with every record of the state, by ascending tree key.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn scan_state(&self, mut each: impl FnMut(Hash, &[u8])) -> Result<(), StoreError> {
        let mut from = Some(Hash::ZERO);
        while let Some(start) = from {
            let stretch = {
                let current = self.store.current();
                current.stretch_at(self.height(), &start, SCAN_LEAVES)
            };
            for (key, value) in &stretch.leaves {
                match value.lookup() {
                    Lookup::Absent => {}
                    Lookup::Inline(bytes) => each(*key, bytes),
                    Lookup::Elsewhere(hash) => each(*key, &self.long(key, hash)?),
                }
            }
            from = stretch.until;
        }
        Ok(())
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let column = self.store.column(family);
        let value = match &self.moment {
            Some(moment) => moment.snapshot.get_cf(column, key),
            None => self.store.db.get_cf(column, key),
        };
        Ok(value?)
    }

    /// The block that the view's state is after.
    fn height(&self) -> Height {
        match &self.moment {
            Some(moment) => moment.height,
            None => self.store.durable_head().height,
        }
    }

    fn long(&self, key: &Hash, expected: Hash) -> Result<Vec<u8>, StoreError> {
        let found = self.get(Family::State, key.as_ref())?;
        long_record(key, found, expected).map_err(|error| StoreError::corrupt(error.to_string()))
    }

    fn iterate(
        &self,
        family: Family,
        start: &[u8],
        direction: Direction,
    ) -> rocksdb::DBIterator<'_> {
        let column = self.store.column(family);
        let mode = IteratorMode::From(start, direction);
        match &self.moment {
            Some(moment) => moment.snapshot.iterator_cf(column, mode),
            None => self.store.db.iterator_cf(column, mode),
        }
    }

    fn record<T: DeserializeOwned, const MOST: usize>(
        &self,
        family: Family,
        height: Height,
    ) -> Result<Option<T>, StoreError> {
        self.get(family, &keys::height_key(height))?
            .map(|bytes| {
                codec::decode::<T, MOST>(&bytes).map_err(|error| {
                    StoreError::undecodable(&format!("{} {height}", family.name()), &error)
                })
            })
            .transpose()
    }

    fn list_before(
        &self,
        prefix: &[u8],
        cursor: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, Hash)>, StoreError> {
        let end = cursor.unwrap_or((Height::new(u64::MAX), u32::MAX));
        let start = keys::under(prefix.to_vec(), end);
        let mut found = Vec::new();
        for entry in self.iterate(Family::Index, &start, Direction::Reverse) {
            if found.len() >= limit.min(LISTING_MAX) {
                break;
            }
            let (key, value) = entry?;
            let Some(position) = key.strip_prefix(prefix) else {
                break;
            };
            let position = keys::parse_position(position).ok_or_else(damaged_index)?;
            if position == end {
                continue;
            }
            found.push((
                position,
                keys::parse_hash(&value).ok_or_else(damaged_index)?,
            ));
        }
        Ok(found)
    }
}

impl StateReader for View<'_> {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let value = {
            let current = self.store.current();
            current.read_at(self.height(), key)
        };
        let bytes = match value.as_ref().map(LeafValue::lookup) {
            None | Some(Lookup::Absent) => return Ok(None),
            Some(Lookup::Inline(bytes)) => bytes.to_vec(),
            Some(Lookup::Elsewhere(hash)) => {
                let found = self.get(Family::State, key.as_ref())?;
                long_record(key, found, hash)?
            }
        };
        Ok(Some(Cow::Owned(bytes)))
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let Some(moment) = &self.moment {
            self.store.viewers.leave(moment.height);
        }
    }
}

pub(super) fn parse_head(bytes: Option<Vec<u8>>) -> Result<Height, StoreError> {
    bytes
        .and_then(|bytes| keys::parse_height(&bytes))
        .ok_or_else(|| StoreError::corrupt("the database does not say which block is its head"))
}

fn damaged_index() -> StoreError {
    StoreError::corrupt("an entry of the index has another length")
}
