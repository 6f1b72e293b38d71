//! Reading what is committed, from the newest state or from one moment of it.

use std::borrow::Cow;

use proofmill_chain::codec::{self, decode};
use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::types::block::{BLOCK_BYTES_MAX, Block, Certificate, Header};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::receipt::Receipt;
use proofmill_chain::types::units::{Height, Round};
use rocksdb::{Direction, IteratorMode, Snapshot};
use serde::de::DeserializeOwned;

use super::keys::{self, Family, Position};
use super::{Head, Store, StoreError, diff};

/// Largest encoded header.
pub(super) const HEADER_BYTES_MAX: usize = 4096;
/// Largest encoded certificate: 256 validators at 96 bytes and room for the rest.
pub(super) const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// Largest encoded list of a block's receipts.
pub(super) const RECEIPTS_BYTES_MAX: usize = 16 << 20;
/// Most entries that one listing gives.
pub const LISTING_MAX: usize = 1000;

/// A proposal seen and not decided: its round, the block's hash, and the bytes that were kept.
pub type Undecided = (Round, Hash, Vec<u8>);

/// The store at one moment: everything read through a view belongs to the same head.
pub struct View<'a> {
    store: &'a Store,
    /// `None` reads whatever is newest.
    snapshot: Option<Snapshot<'a>>,
}

impl<'a> View<'a> {
    pub(super) const fn latest(store: &'a Store) -> Self {
        Self {
            store,
            snapshot: None,
        }
    }

    pub(super) fn now(store: &'a Store) -> Self {
        Self {
            store,
            snapshot: Some(store.db.snapshot()),
        }
    }

    /// The last committed block; genesis when there is none.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        let height = self
            .get(Family::State, keys::APPLIED_HEIGHT)?
            .and_then(|bytes| keys::parse_height(&bytes))
            .ok_or_else(|| StoreError::corrupt("the state does not say which height it is of"))?;
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

    /// What a block changed in the state; kept for the last [`super::DIFFS_KEPT`] heights.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn writes(&self, height: Height) -> Result<Option<WriteSet>, StoreError> {
        self.get(Family::Diff, &keys::height_key(height))?
            .map(|bytes| {
                diff::decode(&bytes).map_err(|error| {
                    StoreError::undecodable(&format!("diff of height {height}"), &error)
                })
            })
            .transpose()
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
        self.get(Family::Index, &keys::transaction_index(id))?
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
        for entry in self.iterate(Family::State, &[], Direction::Forward) {
            let (key, value) = entry?;
            if *key != *keys::APPLIED_HEIGHT {
                let key = keys::parse_hash(&key)
                    .ok_or_else(|| StoreError::corrupt("a key of the state has another length"))?;
                each(key, &value);
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let column = self.store.column(family);
        let value = match &self.snapshot {
            Some(snapshot) => snapshot.get_cf(column, key),
            None => self.store.db.get_cf(column, key),
        };
        Ok(value?)
    }

    fn iterate(
        &self,
        family: Family,
        start: &[u8],
        direction: Direction,
    ) -> rocksdb::DBIterator<'_> {
        let column = self.store.column(family);
        let mode = IteratorMode::From(start, direction);
        match &self.snapshot {
            Some(snapshot) => snapshot.iterator_cf(column, mode),
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
        Ok(self.get(Family::State, key.as_ref())?.map(Cow::Owned))
    }
}

fn damaged_index() -> StoreError {
    StoreError::corrupt("an entry of the index has another length")
}
