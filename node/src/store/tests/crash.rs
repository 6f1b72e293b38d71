//! Crashes at every step of a commit and of the index: what a copy of the directory taken in between
//! opens to. What a killed process has written stays in the system's memory, and a copy sees it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::{Next, folder, next, open, store_of, task, transfer};
use crate::store::transactions::{Ids, make_table, take_table, workshop};
use crate::store::{Store, StoreError};

/// Copies a directory as a crash would leave it. Files that RocksDB removes meanwhile are not needed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// What a crash at this moment leaves, opened.
fn after_crash<T>(path: &Path, look: impl FnOnce(&Store) -> T) -> T {
    let copied = folder();
    copy(path, copied.path());
    let store = open(copied.path()).expect("what a crash leaves opens");
    look(&store)
}

fn root_and_hash(store: &Store) -> (Hash, Hash) {
    (store.state().tree().root(), store.head().hash)
}

fn assert_whole(store: &Store, made: &[Next]) {
    let height = made.len() as u64;
    assert_eq!(store.head().height, Height::new(height));
    let last = made.last().expect("there is a block");
    let header = &last.block.block().header;
    assert_eq!(root_and_hash(store), (header.state_root, last.hash));
    let receipts = made.iter().flat_map(|made| &made.receipts);
    for receipt in receipts {
        let at = Some((receipt.height, receipt.index));
        assert_eq!(store.transaction_at(&receipt.transaction), Ok(at));
    }
    // It goes on.
    let block = next(store, vec![transfer(30, 31)]);
    store.commit(&block.batch()).expect("it is committed");
}

#[test]
fn a_crash_between_the_steps_of_a_commit_leaves_the_block_whole_or_not_at_all() {
    let folder = folder();
    let (store, mut made) = store_of(folder.path(), 1);
    for _ in 0..6 {
        let block = next(&store, vec![transfer(20, 21), task(22)]);
        after_crash(folder.path(), |store| assert_whole(store, &made));
        store.stage(&block.batch()).expect("it follows");
        after_crash(folder.path(), |store| assert_whole(store, &made));
        store.persist(&block.batch()).expect("it is written");
        made.push(block);
        after_crash(folder.path(), |store| assert_whole(store, &made));
    }
}

#[test]
fn a_log_cut_anywhere_in_its_last_block_opens_to_the_block_before() {
    let folder = folder();
    let (store, mut made) = store_of(folder.path(), 3);
    let log = || {
        let logs = fs::read_dir(folder.path()).expect("a folder");
        logs.map(|entry| entry.expect("an entry").path())
            .find(|path| path.extension().is_some_and(|ending| ending == "log"))
            .expect("a log")
    };
    let length = |path: &Path| fs::metadata(path).expect("a file").len();
    let before = length(&log());
    made.push(next(&store, vec![transfer(20, 21), task(22)]));
    store.commit(&made[3].batch()).expect("it is committed");
    let after = length(&log());
    assert!(before < after);
    drop(store);
    let cut = |end: u64| {
        let copied = super::folder();
        copy(folder.path(), copied.path());
        let name = log();
        let log = copied.path().join(name.file_name().expect("a name"));
        let file = fs::OpenOptions::new().write(true).open(log);
        file.and_then(|file| file.set_len(end)).expect("cut");
        let store = open(copied.path()).expect("a torn end is what a crash leaves");
        let whole = if end == after { &made[..] } else { &made[..3] };
        assert_whole(&store, whole);
    };
    // Every byte would take minutes: the ends, and a stride that meets all parts of the record.
    let inside = (before..after).step_by(151);
    for end in inside.chain([before, before + 1, after - 1, after]) {
        cut(end);
    }
}

#[test]
fn a_crash_between_the_steps_of_indexing_loses_no_transaction() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 5);
    let waiting: Vec<_> = made
        .iter()
        .map(|made| Arc::new(Ids::of(made.block.block().header.height, &made.receipts)))
        .collect();
    // Another table that was begun, and is taken for none.
    let place = workshop(folder.path());
    fs::create_dir_all(&place).expect("a folder");
    fs::write(place.join("transactions.sst"), b"half a table").expect("written");
    after_crash(folder.path(), |store| assert_whole(store, &made));
    let up_to = Height::new(3);
    let table = make_table(&place, &waiting[..3], up_to).expect("a table");
    after_crash(folder.path(), |store| {
        assert_whole(store, &made);
        assert_eq!(store.durable().waiting.len(), 6);
    });
    take_table(&store.db, &table).expect("it is taken");
    after_crash(folder.path(), |store| {
        assert_whole(store, &made);
        assert_eq!(store.durable().waiting.len(), 3);
    });
    drop(store);
    let store = open(folder.path()).expect("it opens");
    assert_whole(&store, &made);
}

#[test]
fn transactions_are_indexed_by_and_by_and_found_all_the_time() {
    let folder = folder();
    let (store, mut made) = store_of(folder.path(), 1);
    // More blocks than may wait, so that at least one table is made.
    for _ in 0..140 {
        let block = next(&store, vec![transfer(20, 21)]);
        store.commit(&block.batch()).expect("it is committed");
        made.push(block);
    }
    assert_whole(&store, &made);
    // Closing waits for the table that is under way.
    drop(store);
    let store = open(folder.path()).expect("it opens");
    assert!(store.durable().waiting.len() < 140, "nothing was indexed");
    // One more came when the rest was looked at.
    assert_eq!(store.head().height, Height::new(142));
    for receipt in made.iter().flat_map(|made| &made.receipts) {
        let at = Some((receipt.height, receipt.index));
        assert_eq!(store.transaction_at(&receipt.transaction), Ok(at));
    }
}

#[test]
fn an_index_that_is_ahead_of_the_chain_is_refused() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 2);
    let ids = Arc::new(Ids::of(Height::new(3), &made[1].receipts));
    let table = make_table(&workshop(folder.path()), &[ids], Height::new(3)).expect("a table");
    take_table(&store.db, &table).expect("it is taken");
    drop(store);
    let error = open(folder.path()).err().expect("it is refused");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("goes to height 3, the head's is 2")
    );
}

#[test]
fn an_index_that_cannot_be_written_stops_the_commits() {
    let folder = folder();
    let (store, _) = store_of(folder.path(), 1);
    // Where its tables are made is a file.
    fs::write(workshop(folder.path()), b"in the way").expect("written");
    let error = (0..2_000).find_map(|_| {
        let block = next(&store, vec![transfer(20, 21)]);
        let durable = store.durable_head();
        let error = store.commit(&block.batch()).err()?;
        assert_eq!(store.durable_head(), durable);
        Some(error)
    });
    let error = error.expect("it is told");
    assert!(matches!(error, StoreError::Io(_)), "{error}");
    assert!(error.to_string().contains("workshop"), "{error}");
    drop(store);
    // The next start says so too, and once it is gone all is there.
    let error = open(folder.path()).err().expect("it is in the way");
    assert!(error.to_string().contains("workshop"), "{error}");
    fs::remove_file(workshop(folder.path())).expect("removed");
    open(folder.path()).expect("it opens");
}
