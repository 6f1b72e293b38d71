//! A chain of the bench in a home, replayed by the program: whole, in part, damaged, in use.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use proofmill_node::bench::export::export;
use proofmill_node::bench::workload::{Pattern, Shape};
use proofmill_node::genesis_file;
use proofmill_node::home::Home;
use proofmill_node::store::Store;
use rocksdb::{DB, Options};
use support::{command, run_to_end};

const BLOCKS: usize = 9;
const TXS: usize = 30;

/// A home with a chain of every kind of transaction.
fn chain(place: &Path) -> Home {
    let home = Home::new(place.join("home"));
    let shape = Shape {
        pattern: Pattern::Mixed,
        accounts: 100,
        txs: TXS,
    };
    let exported = export(home.clone(), shape, BLOCKS, &|_, _, _| {}).expect("a chain");
    assert_eq!(exported.height.get(), BLOCKS as u64);
    home
}

fn replay(home: &Home, more: &[&str]) -> Output {
    run_to_end(
        command()
            .args(["replay", "--home"])
            .arg(home.path())
            .args(more),
    )
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "`{word}` is not in: {last}");
    }
}

fn replayed(output: &Output) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Changes what the database has in a column family under a height.
fn change(home: &Home, family: &str, height: u64, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
    let path = home.database();
    let families = DB::list_cf(&Options::default(), &path).expect("column families");
    let db = DB::open_cf(&Options::default(), &path, families).expect("a database");
    let column = db.cf_handle(family).expect("a column family");
    let key = height.to_be_bytes();
    let value = db.get_cf(column, key).expect("read").expect("there");
    match change(value) {
        Some(value) => db.put_cf(column, key, value).expect("written"),
        None => db.delete_cf(column, key).expect("deleted"),
    }
}

/// Every file of a directory, with its content.
fn files(place: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(place).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn a_chain_replays_whole_and_in_part_and_stays_as_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let home = chain(place.path());
    let before = files(home.path());
    let whole = replayed(&replay(&home, &["--json"]));
    assert_eq!(whole["blocks"], BLOCKS);
    assert_eq!(whole["transactions"], BLOCKS * TXS);
    assert!(whole["attestations"].as_u64() > Some(0));
    assert!(whole["blocks_per_s"].as_f64() > Some(0.0));
    let part = replayed(&replay(&home, &["--from", "4", "--to", "6", "--json"]));
    assert_eq!(
        (&part["blocks"], &part["blocks_before"]),
        (&3.into(), &3.into())
    );
    let text = replay(&home, &["--from", "4"]);
    let said = String::from_utf8_lossy(&text.stdout);
    assert!(
        said.contains("3 (1 to 3), verified too") && said.contains("not counted"),
        "{said}"
    );
    assert_eq!(files(home.path()), before, "nothing was written");

    // A node that has the database open does not keep it from being read.
    let genesis = genesis_file::load(&home.genesis())
        .expect("a genesis")
        .genesis;
    let store = Store::open(&home.database(), &genesis).expect("it is whole");
    let again = replayed(&replay(&home, &["--json"]));
    assert_eq!(again["hash"], whole["hash"]);
    assert_eq!(again["hash"], store.head().hash.to_string());
    drop(store);

    refused(
        &replay(&home, &["--to", "10"]),
        &["--to 10", "blocks 1 to 9"],
    );
    refused(&replay(&home, &["--from", "0"]), &["--from 0"]);
    let nothing = Home::new(place.path().join("nothing"));
    refused(&replay(&nothing, &[]), &["nothing/genesis.json"]);
}

#[test]
fn one_flipped_byte_of_a_body_is_found_and_its_height_is_named() {
    let place = tempfile::tempdir().expect("a directory");
    let home = chain(place.path());
    // The proposer's signature, a length, transactions, and the parent's certificate at the end.
    for part in [0, 66, 500, 2_000, usize::MAX] {
        let flip = |mut body: Vec<u8>| {
            let at = part.min(body.len() - 1);
            body[at] ^= 1;
            Some(body)
        };
        change(&home, "body", 5, flip);
        refused(&replay(&home, &[]), &["block 5 is not valid: "]);
        // Before it the chain is good.
        replayed(&replay(&home, &["--to", "4", "--json"]));
        change(&home, "body", 5, flip);
    }
    replayed(&replay(&home, &["--json"]));
}

#[test]
fn a_missing_block_or_a_certificate_that_proves_nothing_is_named() {
    let place = tempfile::tempdir().expect("a directory");
    let home = chain(place.path());
    let mut kept = Vec::new();
    change(&home, "certificate", 7, |bytes| {
        kept = bytes.clone();
        let mut bytes = bytes;
        *bytes.last_mut()? ^= 1;
        Some(bytes)
    });
    refused(&replay(&home, &[]), &["block 7 is not final: "]);
    change(&home, "certificate", 7, |_| Some(kept));
    change(&home, "body", 8, |_| None);
    refused(&replay(&home, &[]), &["block 8: ", "the body is missing"]);
    change(&home, "header", 3, |_| None);
    refused(&replay(&home, &[]), &["block 3: ", "the header is missing"]);
}
