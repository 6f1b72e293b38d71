//! Where transactions stand, by id.
//!
//! Ids are as random as hashes, which is the dearest thing to put into a sorted store one block at a
//! time. So the last blocks' are in memory, and now and then a thread of its own sorts them together
//! into one table and hands it to RocksDB, which takes it whole or not at all. The table says up to
//! which height it goes; what is later is read from the blocks' receipts on start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::receipt::Receipt;
use proofmill_chain::types::units::Height;
use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter};

use super::keys::{self, Family, Position};
use super::open::{self, io_error};
use super::{Durable, StoreError};

/// Transactions that wait in memory before they are indexed: some 15 MB.
const WAITING_MAX: usize = 1 << 18;
/// Blocks whose transactions wait.
const WAITING_BLOCKS_MAX: usize = 128;
/// Where in the data directory a table is made.
const WORKSHOP: &str = "workshop";

/// The transactions of a block that is not indexed.
#[derive(Debug)]
pub(super) struct Ids {
    height: Height,
    /// Ascending, each with its number in the block.
    sorted: Vec<(Hash, u32)>,
}

/// The blocks that are not indexed, by ascending height.
pub(super) type Waiting = Arc<Vec<Arc<Ids>>>;

impl Ids {
    pub(super) fn of(height: Height, receipts: &[Receipt]) -> Self {
        let ids = receipts.iter().map(|receipt| receipt.transaction);
        let mut sorted: Vec<_> = ids.zip(0..).collect();
        sorted.sort_unstable();
        Self { height, sorted }
    }
}

/// Where a transaction of these blocks up to a height stands.
pub(super) fn find(waiting: &[Arc<Ids>], id: &Hash, up_to: Height) -> Option<Position> {
    waiting
        .iter()
        .filter(|ids| ids.height <= up_to)
        .find_map(|ids| {
            let at = ids.sorted.binary_search_by(|(other, _)| other.cmp(id));
            at.ok().map(|at| (ids.height, ids.sorted[at].1))
        })
}

/// Whether so many wait that they should be indexed.
fn enough(waiting: &[Arc<Ids>]) -> bool {
    let transactions: usize = waiting.iter().map(|ids| ids.sorted.len()).sum();
    transactions >= WAITING_MAX || waiting.len() >= WAITING_BLOCKS_MAX
}

/// The thread that indexes.
pub(super) struct Indexer {
    /// `None` once it is to end.
    orders: Option<SyncSender<Waiting>>,
    failed: Arc<OnceLock<StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Starts it for an open database.
    ///
    /// # Errors
    /// When what a crash left of its last work cannot be removed.
    pub(super) fn start(
        db: Arc<DB>,
        durable: Arc<RwLock<Durable>>,
        place: &Path,
    ) -> Result<Self, StoreError> {
        let workshop = place.join(WORKSHOP);
        clean(&workshop)?;
        let failed = Arc::new(OnceLock::new());
        // One order at a time: the thread takes it when it waits for one, and else it comes again.
        let (orders, waiting) = sync_channel::<Waiting>(0);
        let failure = Arc::clone(&failed);
        let thread = std::thread::spawn(move || {
            for some in waiting {
                match index(&db, &workshop, &some) {
                    Ok(up_to) => forget(&durable, up_to),
                    Err(error) => {
                        // The first error is the one that is told.
                        let _ = failure.set(error);
                        return;
                    }
                }
            }
        });
        Ok(Self {
            orders: Some(orders),
            failed,
            thread: Some(thread),
        })
    }

    /// Tells whether the disk has failed it.
    ///
    /// # Errors
    /// When it has.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Has durable transactions indexed if they are enough and no others are under way.
    pub(super) fn offer(&self, waiting: Waiting) {
        if enough(&waiting) {
            let orders = self.orders.as_ref().expect("it is taken on drop alone");
            // While it is busy they wait for the next offer.
            let _ = orders.try_send(waiting);
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that indexes transactions panicked");
        }
    }
}

fn forget(durable: &RwLock<Durable>, up_to: Height) {
    let mut durable = durable.write().unwrap_or_else(PoisonError::into_inner);
    let later = durable.waiting.iter().filter(|ids| ids.height > up_to);
    durable.waiting = Arc::new(later.cloned().collect());
}

/// Puts the transactions of some blocks into the index, and gives the height up to which it then goes.
fn index(db: &DB, workshop: &Path, waiting: &[Arc<Ids>]) -> Result<Height, StoreError> {
    let Some(up_to) = waiting.last().map(|ids| ids.height) else {
        return Ok(Height::ZERO);
    };
    let table = make_table(workshop, waiting, up_to)?;
    take_table(db, &table)?;
    Ok(up_to)
}

/// Makes a table of the transactions of some blocks.
pub(super) fn make_table(
    workshop: &Path,
    waiting: &[Arc<Ids>],
    up_to: Height,
) -> Result<PathBuf, StoreError> {
    clean(workshop)?;
    fs::create_dir_all(workshop).map_err(|error| io_error(workshop, &error))?;
    let mut all: Vec<(Hash, Position)> = waiting
        .iter()
        .flat_map(|ids| {
            let position = |(id, number): &(Hash, u32)| (*id, (ids.height, *number));
            ids.sorted.iter().map(position)
        })
        .collect();
    all.sort_unstable();
    let mark = all.partition_point(|(id, _)| id.as_ref() < keys::INDEXED_HEIGHT);

    let table = workshop.join("transactions.sst");
    let options = open::transactions_options();
    let mut writer = SstFileWriter::create(&options);
    writer.open(&table)?;
    let write = |writer: &mut SstFileWriter<'_>, some: &[(Hash, Position)]| {
        some.iter()
            .try_for_each(|(id, position)| writer.put(id, keys::position_bytes(*position)))
    };
    write(&mut writer, &all[..mark])?;
    writer.put(keys::INDEXED_HEIGHT, keys::height_key(up_to))?;
    write(&mut writer, &all[mark..])?;
    writer.finish()?;
    Ok(table)
}

/// Makes a table part of the database.
pub(super) fn take_table(db: &DB, table: &Path) -> Result<(), StoreError> {
    let family = db
        .cf_handle(Family::Transactions.name())
        .expect("every column family was opened with the database");
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    db.ingest_external_file_cf_opts(family, &options, vec![table])?;
    Ok(())
}

/// Removes what a crash left in the workshop.
fn clean(workshop: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(workshop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(workshop, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) fn workshop(place: &Path) -> PathBuf {
    place.join(WORKSHOP)
}
