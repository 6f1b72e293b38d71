//! Directories that must not be opened, and what is said about them.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use proofmill_chain::tree::LeafValue;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use rocksdb::{DB, Options};

use super::{folder, open, refused, store_of};
use crate::store::checkpoint::Piece;
use crate::store::keys::{self, Family};
use crate::store::{History, StoreError};

fn raw(path: &Path) -> DB {
    let names = Family::ALL.map(Family::name);
    DB::open_cf(&Options::default(), path, names).expect("RocksDB opens it")
}

fn put_raw(path: &Path, family: Family, key: impl AsRef<[u8]>, value: Option<&[u8]>) {
    let db = raw(path);
    let column = db.cf_handle(family.name()).expect("it exists");
    match value {
        Some(value) => db.put_cf(column, key, value).expect("written"),
        None => db.delete_cf(column, key).expect("deleted"),
    }
}

fn assert_damage(error: &StoreError, part: &str) {
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(part), "{text}");
    assert!(text.contains("move the database directory away"));
    assert!(text.contains("fetches the chain from its peers"));
}

#[test]
fn a_changed_record_is_refused() {
    let long = Hash::of("made", &[&2_u64.to_le_bytes()]);
    let stranger = Hash::of("stranger", &[]);
    for (key, value, part) in [
        (
            long,
            Some(&b"forged"[..]),
            "is not the one that the state has",
        ),
        (
            stranger,
            Some(b"forged"),
            "is not the one that the state has",
        ),
        (long, None, "long records, the state has"),
    ] {
        let folder = folder();
        drop(store_of(folder.path(), 2));
        put_raw(folder.path(), Family::State, key, value);
        assert_damage(&refused(folder.path()), part);
    }
}

#[test]
fn a_changed_or_missing_piece_of_the_state_is_refused() {
    let forged = |from: Hash, until, value: &[u8]| {
        let leaves = vec![(Hash::of("counter", &[]), LeafValue::of(value))];
        let piece = Piece {
            from,
            until,
            leaves,
        };
        piece.encode()
    };
    let one = keys::piece_key(Height::new(1), 0);
    let (zero, all) = (Hash::ZERO, forged(Hash::ZERO, None, b"forged"));
    for (key, value, part) in [
        // Genesis whole, forged.
        (keys::piece_key(Height::ZERO, 0), Some(&all[..]), "has root"),
        (keys::piece_key(Height::ZERO, 0), None, "is missing"),
        (one, None, "does not follow"),
        (one, Some(&all[..40]), "does not decode"),
        (
            one,
            Some(&forged(zero, Some(zero), b"")[..]),
            "does not follow",
        ),
        (
            keys::piece_key(Height::new(9), 0),
            Some(&all[..]),
            "is of height 9",
        ),
    ] {
        let folder = folder();
        drop(store_of(folder.path(), 2));
        put_raw(folder.path(), Family::Checkpoint, key, value);
        assert_damage(&refused(folder.path()), part);
    }
    let folder = folder();
    drop(open(folder.path()).expect("it opens"));
    let genesis = keys::piece_key(Height::ZERO, 0);
    put_raw(folder.path(), Family::Checkpoint, genesis, Some(&all));
    assert_damage(&refused(folder.path()), "has root");
}

#[test]
fn keys_and_marks_of_another_length_are_refused() {
    let short = &b"short"[..];
    for (family, key, part) in [
        (Family::Checkpoint, short, "the key of a piece of the state"),
        (
            Family::State,
            short,
            "a key of the state has another length",
        ),
        (
            Family::Transactions,
            keys::INDEXED_HEIGHT,
            "how far the index of transactions goes has another length",
        ),
    ] {
        let folder = folder();
        drop(store_of(folder.path(), 2));
        put_raw(folder.path(), family, key, Some(b"x"));
        assert_damage(&refused(folder.path()), part);
    }
}

#[test]
fn a_changed_or_missing_diff_is_refused() {
    for (value, part) in [
        (None, "the changes of height 2 are missing"),
        (
            Some(&[1, 2, 3][..]),
            "the changes of height 2 do not decode",
        ),
        (Some(&[][..]), "has root"),
    ] {
        let folder = folder();
        drop(store_of(folder.path(), 2));
        let two = keys::height_key(Height::new(2));
        put_raw(folder.path(), Family::Diff, two, value);
        assert_damage(&refused(folder.path()), part);
    }
}

#[test]
fn a_missing_piece_of_the_head_is_refused() {
    for (family, part) in [
        (Family::Header, "header 2 is missing"),
        (Family::Body, "body 2 is missing"),
        (
            Family::Certificate,
            "the certificate of height 2 is missing",
        ),
        (
            Family::Receipts,
            "the list of receipts of height 2 is missing",
        ),
    ] {
        let folder = folder();
        drop(store_of(folder.path(), 2));
        let key = keys::height_key(Height::new(2));
        put_raw(folder.path(), family, key, None);
        assert_damage(&refused(folder.path()), part);
    }
    let folder = folder();
    drop(store_of(folder.path(), 2));
    put_raw(folder.path(), Family::Meta, keys::META_HEAD, None);
    assert_damage(&refused(folder.path()), "does not say which block");
    let folder = self::folder();
    drop(store_of(folder.path(), 2));
    let one = keys::height_key(Height::new(1));
    put_raw(folder.path(), Family::Meta, keys::META_HEAD, Some(&one));
    assert_damage(&refused(folder.path()), "stands above");
}

#[test]
fn another_layout_is_refused() {
    let folder = folder();
    drop(open(folder.path()).expect("it opens"));
    let other = keys::SCHEMA_VERSION + 1;
    let bytes = other.to_be_bytes();
    put_raw(folder.path(), Family::Meta, keys::META_SCHEMA, Some(&bytes));
    let expected = StoreError::OtherSchema {
        path: folder.path().into(),
        found: other,
        expected: keys::SCHEMA_VERSION,
    };
    assert_eq!(refused(folder.path()), expected);
    assert_eq!(History::other_layout(folder.path()), Some(expected));
    let old = (keys::SCHEMA_VERSION - 1).to_be_bytes();
    put_raw(folder.path(), Family::Meta, keys::META_SCHEMA, Some(&old));
    let told = History::other_layout(folder.path()).expect("it is an older one");
    let told = told.to_string();
    let path = folder.path().display().to_string();
    for words in [
        path.as_str(),
        "layout 3",
        "layout 4",
        "--reset",
        "proofmill init",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let ours = keys::SCHEMA_VERSION.to_be_bytes();
    put_raw(folder.path(), Family::Meta, keys::META_SCHEMA, Some(&ours));
    assert_eq!(History::other_layout(folder.path()), None);
    assert_eq!(History::other_layout(&folder.path().join("nothing")), None);
    put_raw(folder.path(), Family::Meta, keys::META_SCHEMA, None);
    assert_damage(&refused(folder.path()), "which layout");
}

#[test]
fn a_creation_that_was_cut_off_is_finished() {
    let folder = folder();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let names = ["state", "diff"];
    drop(DB::open_cf(&options, folder.path(), names).expect("RocksDB makes it"));
    let store = open(folder.path()).expect("it opens");
    assert_eq!(store.head(), store.genesis());
}

/// A store whose data is in files, not in the log.
fn flushed(path: &Path) {
    let (store, _) = store_of(path, 3);
    for family in Family::ALL {
        store.db.flush_cf(store.column(family)).expect("flushed");
    }
}

fn files(path: &Path, matches: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(path)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(&matches)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn overwrite(file: &Path, at: u64) {
    let mut file = OpenOptions::new().write(true).open(file).expect("a file");
    file.seek(SeekFrom::Start(at)).expect("seekable");
    file.write_all(&[0xa5; 64]).expect("written");
}

#[test]
fn overwritten_files_are_refused() {
    for name in ["CURRENT", "MANIFEST", ".sst"] {
        let folder = folder();
        flushed(folder.path());
        for file in files(folder.path(), |file| file.contains(name)) {
            overwrite(&file, 8);
        }
        assert_damage(&refused(folder.path()), "");
    }
}

#[test]
fn a_damaged_log_is_refused_rather_than_cut_short() {
    let folder = folder();
    let (store, _) = store_of(folder.path(), 3);
    drop(store);
    let log = files(folder.path(), |file| file.ends_with(".log")).pop();
    overwrite(&log.expect("a log"), 200);
    assert_damage(&refused(folder.path()), "");
}

#[test]
fn missing_files_are_refused() {
    for name in ["CURRENT", "MANIFEST", ".sst"] {
        let folder = folder();
        flushed(folder.path());
        for file in files(folder.path(), |file| file.contains(name)) {
            fs::remove_file(file).expect("removed");
        }
        assert_damage(&refused(folder.path()), "");
        // And refusing has not made it worse: asked again it says the same.
        assert_damage(&refused(folder.path()), "");
    }
}

#[test]
fn a_log_cut_in_its_last_record_loses_only_that_record() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 3);
    drop(store);
    let log = files(folder.path(), |file| file.ends_with(".log")).pop();
    let log = log.expect("a log");
    let length = fs::metadata(&log).expect("a file").len();
    let file = OpenOptions::new().write(true).open(log).expect("a file");
    file.set_len(length - 5).expect("cut");
    drop(file);
    let store = open(folder.path()).expect("a torn end is what a crash leaves");
    assert_eq!(store.head().hash, made[1].hash);
    assert_eq!(store.block(Height::new(3)), Ok(None));
    assert_eq!(store.height_of(&made[2].hash), Ok(None));
}

/// Where the records of a MANIFEST end: a checksum of four bytes, two of length and one of kind before each
/// (RocksDB's log format; it is shorter than one of its blocks).
fn record_ends(manifest: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(&[low, high]) = manifest.get(at + 4..at + 6) {
        at += 7 + usize::from(u16::from_le_bytes([low, high]));
        ends.push(at);
    }
    ends
}

#[test]
fn a_manifest_cut_between_two_records_never_makes_a_new_chain() {
    let folder = folder();
    flushed(folder.path());
    // A second opening, so that all is in tables.
    drop(open(folder.path()).expect("it opens"));
    let whole: Vec<_> = files(folder.path(), |_| true)
        .into_iter()
        .map(|file| (file.clone(), fs::read(file).expect("a file")))
        .collect();
    let current = fs::read_to_string(folder.path().join("CURRENT")).expect("a name");
    let manifest = folder.path().join(current.trim_end());
    let bytes = fs::read(&manifest).expect("a file");
    let ends = record_ends(&bytes);
    assert_eq!(ends.last(), Some(&bytes.len()));
    assert!(ends.len() > 3, "{ends:?}");
    for end in &ends[..ends.len() - 1] {
        fs::write(&manifest, &bytes[..*end]).expect("written");
        // Refused, and not worse for it; or it has the chain, by what else knows of it.
        for _ in 0..2 {
            match open(folder.path()) {
                Ok(store) => assert_ne!(store.head(), store.genesis(), "cut at {end}"),
                Err(error) => assert_damage(&error, ""),
            }
        }
        for file in files(folder.path(), |_| true) {
            fs::remove_file(file).expect("removed");
        }
        for (file, bytes) in &whole {
            fs::write(file, bytes).expect("written");
        }
    }
}
