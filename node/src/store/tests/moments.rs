//! Views and what is staged behind them, and the state on the disk as blocks go by.

use std::collections::BTreeMap;

use proofmill_chain::state::reader::StateReader;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::{folder, next, open, store_of, task, transfer};
use crate::store::Store;
use crate::store::keys::Family;

#[test]
fn a_view_stays_at_its_moment() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 1);
    let view = store.view().expect("readable");
    let block = next(&store, vec![transfer(20, 21)]);
    store.commit(&block.batch()).expect("it is committed");
    assert_eq!(view.head().expect("readable").hash, made[0].hash);
    let counter = Hash::of("counter", &[]);
    let then = Some(1_u64.to_le_bytes().to_vec().into());
    assert_eq!(view.read(&counter), Ok(then));
    assert_eq!(view.block(Height::new(2)), Ok(None));
    assert_eq!(view.height_of(&block.hash), Ok(None));
    let now = Some(2_u64.to_le_bytes().to_vec().into());
    assert_eq!(store.read(&counter), Ok(now));
    assert_eq!(store.view().expect("readable").head(), Ok(store.head()));
}

type Records = BTreeMap<Hash, Vec<u8>>;

fn scanned(scan: impl FnOnce(&mut dyn FnMut(Hash, &[u8]))) -> Records {
    let mut records = Records::new();
    let mut keys = Vec::new();
    scan(&mut |key, value| {
        keys.push(key);
        records.insert(key, value.to_vec());
    });
    assert!(keys.is_sorted_by(|a, b| a < b));
    records
}

/// A store's state after the last durable block.
fn state(store: &Store) -> Records {
    scanned(|each| store.scan_state(each).expect("readable"))
}

fn count(store: &Store, family: Family) -> usize {
    let entries = store
        .db
        .iterator_cf(store.column(family), rocksdb::IteratorMode::Start);
    entries
        .collect::<Result<Vec<_>, _>>()
        .expect("readable")
        .len()
}

#[test]
fn a_view_sees_the_whole_state_of_its_block_whatever_is_staged_and_written_behind_it() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 2);
    let then = state(&store);
    let view = store.view().expect("readable");
    let expected: Vec<_> = (0..5)
        .map(|_| {
            let block = next(&store, vec![transfer(20, 21)]);
            store.stage(&block.batch()).expect("it follows");
            // Staged or written, it is later than the view.
            let late = store.view().expect("readable");
            assert_eq!(
                late.head().expect("readable").height,
                store.durable_head().height
            );
            for view in [&view, &late] {
                let (at, seen) = (
                    view.head().expect("readable"),
                    scanned(|each| {
                        view.scan_state(each).expect("readable");
                    }),
                );
                let made = (1..=9).map(|height: u64| Hash::of("made", &[&height.to_le_bytes()]));
                for key in then.keys().copied().chain(made) {
                    let read = view
                        .read(&key)
                        .expect("readable")
                        .map(|bytes| bytes.into_owned());
                    assert_eq!(read.as_ref(), seen.get(&key), "{key} after {}", at.height);
                }
                let counter = at.height.get().to_le_bytes().to_vec();
                assert_eq!(seen.get(&Hash::of("counter", &[])), Some(&counter));
            }
            store.persist(&block.batch()).expect("it is written");
            block
        })
        .collect();
    assert_eq!(
        scanned(|each| view.scan_state(each).expect("readable")),
        then
    );
    assert_eq!(view.head().expect("readable").hash, made[1].hash);
    let id = expected[0].receipts[0].transaction;
    assert_eq!(view.transaction_at(&id), Ok(None));
    assert_eq!(store.transaction_at(&id), Ok(Some((Height::new(3), 0))));
    drop(view);
    let block = next(&store, Vec::new());
    store.commit(&block.batch()).expect("it is committed");
    // What only the view needed is gone with it.
    let block = next(&store, Vec::new());
    store.stage(&block.batch()).expect("it follows");
    assert_eq!(store.current().recent.len(), 1);
}

#[test]
fn the_state_comes_back_after_every_block_of_several_rounds_through_it() {
    let folder = folder();
    let mut store = open(folder.path()).expect("it opens");
    let genesis = state(&store);
    // Some 60 records, at least 16 of them with every block: five rounds.
    for height in 1..=20_u8 {
        let block = next(&store, vec![transfer(20, 21), task(22)]);
        store.commit(&block.batch()).expect("it is committed");
        let (before, root) = (state(&store), store.state().tree().root());
        drop(store);
        store = open(folder.path()).expect("it opens again");
        assert_eq!(store.head().hash, block.hash, "height {height}");
        assert_eq!(store.state().tree().root(), root);
        assert_eq!(state(&store), before);
    }
    assert_eq!(state(&store).len(), genesis.len() + 2);
    // The disk holds no more than it takes to come back.
    let (pieces, diffs) = (
        count(&store, Family::Checkpoint),
        count(&store, Family::Diff),
    );
    assert!((2..=9).contains(&pieces), "{pieces} pieces");
    assert!((2..=9).contains(&diffs), "{diffs} diffs");
    assert_eq!(count(&store, Family::State), long_records(&store));
}

fn long_records(store: &Store) -> usize {
    let is_long = |bytes: &&Vec<u8>| bytes.len() > proofmill_chain::tree::INLINE_MAX;
    state(store).values().filter(is_long).count()
}
