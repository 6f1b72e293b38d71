//! The node's disk: blocks, state and indexes in RocksDB.
//!
//! A block is committed in two steps. [`Store::stage`] makes it the head in memory, so that the next
//! block can be verified; [`Store::persist`] makes it durable with one synced write, which may happen
//! on another thread. Only what is durable may be told to anybody; [`Store::commit`] does both.
//! Opening checks that what is there is whole and that the state is the one that the head's header
//! commits to.
//!
//! The state lives in memory, as the tree with the short records in it, accounts above all. On the disk
//! it is in pieces from different heights and the diffs since (`checkpoint`); the long records, which
//! are few, are there one by one.

mod checkpoint;
mod commit;
mod diff;
mod entry;
mod error;
mod history;
mod keys;
mod open;
mod restore;
mod state;
#[cfg(test)]
mod tests;
mod transactions;
mod view;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use proofmill_chain::state::StateError;
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::tree::Tree;
use proofmill_chain::types::block::{Block, Certificate, Header};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::receipt::Receipt;
use proofmill_chain::types::units::{Height, Round};
use rocksdb::{ColumnFamily, DB};

use self::checkpoint::Checkpoint;
pub use self::commit::CommitBatch;
pub use self::error::{CORRUPTION_ADVICE, StoreError};
pub use self::history::History;
use self::keys::Family;
pub use self::keys::Position;
pub use self::open::{FILES_OPEN_MAX, OpenOptions};
pub use self::state::StateGuard;
use self::state::{Recent, Viewers};
use self::transactions::{Indexer, Waiting};
pub use self::view::{LISTING_MAX, Undecided, View};

/// The last committed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height, zero for genesis.
    pub height: Height,
    /// Its hash, the genesis hash for genesis.
    pub hash: Hash,
    /// Its time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// What the newest stage made current.
struct Current {
    head: Head,
    tree: Tree,
    recent: Recent,
}

/// How far the disk is.
struct Durable {
    /// The last block that is on it.
    head: Head,
    /// The transactions of the last blocks.
    waiting: Waiting,
}

/// The data directory, open and checked.
pub struct Store {
    /// Ends before the database is closed.
    indexer: Indexer,
    db: Arc<DB>,
    genesis: Head,
    /// Held while a commit or an undecided proposal is written.
    writing: Mutex<Checkpoint>,
    /// Locked before `durable` by who needs both.
    current: RwLock<Current>,
    durable: Arc<RwLock<Durable>>,
    viewers: Viewers,
}

impl Store {
    /// Opens a data directory with caches of the default size; see [`Store::open_with`].
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        Self::open_with(path, genesis, &OpenOptions::default())
    }

    /// Opens a data directory, or creates it when it is absent or empty.
    ///
    /// Reads the whole state and rebuilds its tree, one to two seconds per million records.
    ///
    /// # Errors
    /// When the directory is another chain's, of another layout, used by another process, damaged
    /// or unreadable, when the genesis starts no chain, or when it is asked to stop.
    pub fn open_with(
        path: &Path,
        genesis: &Genesis,
        options: &OpenOptions<'_>,
    ) -> Result<Self, StoreError> {
        Self::open_and_restore(path, genesis, options).map_err(|error| error.at(path))
    }

    fn open_and_restore(
        path: &Path,
        genesis: &Genesis,
        options: &OpenOptions<'_>,
    ) -> Result<Self, StoreError> {
        options.go_on()?;
        let db = Arc::new(open::open_database(path, options)?);
        let head = Head {
            height: Height::ZERO,
            hash: genesis.hash(),
            time_ms: genesis.genesis_time_ms,
        };
        let current = RwLock::new(Current {
            head,
            tree: Tree::new(),
            recent: Recent::default(),
        });
        let durable = Arc::new(RwLock::new(Durable {
            head,
            waiting: Waiting::default(),
        }));
        let indexer = Indexer::start(Arc::clone(&db), Arc::clone(&durable), path)?;
        let store = Self {
            indexer,
            db,
            genesis: head,
            writing: Mutex::new(Checkpoint::starting()),
            current,
            durable,
            viewers: Viewers::default(),
        };
        options.go_on()?;
        store.settle(path, genesis)?;
        store.restore(genesis, options)?;
        Ok(store)
    }

    /// The last staged block, which every block that was committed is; genesis when there is none.
    #[must_use]
    pub fn head(&self) -> Head {
        self.state().head()
    }

    /// The last block that is durable: the one that others may be told of.
    #[must_use]
    pub fn durable_head(&self) -> Head {
        self.durable().head
    }

    /// The state after the head, held still: no block is staged while the guard lives.
    #[must_use]
    pub fn state(&self) -> StateGuard<'_> {
        StateGuard::new(self)
    }

    /// The genesis block's place in the chain.
    #[must_use]
    pub const fn genesis(&self) -> Head {
        self.genesis
    }

    /// The store as it is now: reads through the view are consistent with each other, whatever is
    /// committed meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn view(&self) -> Result<View<'_>, StoreError> {
        View::now(self)
    }

    /// A block.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        self.latest().block(height)
    }

    /// A block's encoding.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn block_bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        self.latest().block_bytes(height)
    }

    /// A block's header.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        self.latest().header(height)
    }

    /// The certificate that makes a block final.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn certificate(&self, height: Height) -> Result<Option<Certificate>, StoreError> {
        self.latest().certificate(height)
    }

    /// What became of a block's transactions, in their order.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn receipts(&self, height: Height) -> Result<Option<Vec<Receipt>>, StoreError> {
        self.latest().receipts(height)
    }

    /// The height of the block with this hash.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn height_of(&self, block: &Hash) -> Result<Option<Height>, StoreError> {
        self.latest().height_of(block)
    }

    /// Where a transaction stands.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn transaction_at(&self, id: &Hash) -> Result<Option<Position>, StoreError> {
        self.latest().transaction_at(id)
    }

    /// See [`View::tasks_before`].
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn tasks_before(
        &self,
        cursor: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, Hash)>, StoreError> {
        self.latest().tasks_before(cursor, limit)
    }

    /// The bytes with this content address.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn blob(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.latest().blob(hash)
    }

    /// The proposals kept for a height, by round and hash.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn undecided(&self, height: Height) -> Result<Vec<Undecided>, StoreError> {
        self.latest().undecided(height)
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
        self.latest().undecided_at(height, round, block)
    }

    /// What the node keeps under a name of its own.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.latest().meta(name)
    }

    /// Calls `each` with every record of the state after the last durable block, by ascending tree key.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged.
    pub fn scan_state(&self, each: impl FnMut(Hash, &[u8])) -> Result<(), StoreError> {
        self.view()?.scan_state(each)
    }

    const fn latest(&self) -> View<'_> {
        View::latest(self)
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable_mut(&self) -> RwLockWriteGuard<'_, Durable> {
        self.durable.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn column(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("every column family was opened with the database")
    }
}

/// The state after the head, each read by itself.
impl StateReader for Store {
    fn read(&self, key: &Hash) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let found = self.state().read(key)?.map(Cow::into_owned);
        Ok(found.map(Cow::Owned))
    }
}
