//! The guard's file: crashes at every step of a write, damage, and its lock.

mod support;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_signer::{
    GuardError, GuardFile, LocalSigner, Message, ROUNDS_KEPT_MAX, Record, SignError, Signer, Step,
};
use support::{chain, empty, header, key, proposal, vote};

const STEPS: [Step; 3] = [Step::FirstCopy, Step::SecondCopy, Step::Sync];
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Where slot 0 has its copies, and slot 1.
const COPIES: [[usize; 2]; 2] = [[0, 512 << 10], [256 << 10, 768 << 10]];

fn voted(height: u64) -> Record {
    let vote = vote(VoteKind::Prevote, height, 0, 1);
    empty(0).with(&Message::Vote(&vote), Signature::new([1; 64]))
}

fn open(directory: &Path) -> Result<Record, GuardError> {
    GuardFile::open(directory, &chain(), &key().public()).map(|(_, record)| record)
}

/// A guard with records of heights 1 to `last`, and its file.
fn written(place: &Path, last: u64) -> (PathBuf, PathBuf) {
    let directory = place.join("guard");
    let mut guard = GuardFile::create(&directory, &voted(1)).expect("a guard");
    for height in 2..=last {
        guard.write(&voted(height)).expect("written");
    }
    let path = directory.join("signed");
    (directory, path)
}

#[test]
fn a_crash_at_any_step_leaves_the_old_record_or_the_new_one() {
    for crash in STEPS {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("guard");
        let mut guard = GuardFile::create(&directory, &voted(1)).expect("a guard");
        let failed = guard.write_in_steps(&voted(2), |step| {
            if step == crash {
                return Err(io::Error::other("crash"));
            }
            Ok(())
        });
        // No signature leaves: the caller never hears of success.
        assert!(matches!(failed, Err(GuardError::Io { .. })), "{crash:?}");
        // Nor does another write make two records of one number.
        let again = guard.write(&voted(3)).expect_err("it is over");
        assert!(again.to_string().contains("an earlier write failed"));
        drop(guard);
        let found = open(&directory).expect("a whole record");
        let expected = if crash == Step::FirstCopy { 1 } else { 2 };
        assert_eq!(found, voted(expected), "{crash:?}");
        // And what a crash leaves behind is in nobody's way.
        let (mut guard, _) = GuardFile::open(&directory, &chain(), &key().public()).expect("open");
        guard.write(&voted(3)).expect("written");
        drop(guard);
        assert_eq!(open(&directory).expect("a record"), voted(3));
    }
}

#[test]
fn the_steps_come_in_the_order_that_makes_a_write_durable() {
    let place = tempfile::tempdir().expect("a directory");
    let mut guard = GuardFile::create(&place.path().join("guard"), &empty(0)).expect("a guard");
    let mut steps = Vec::new();
    guard
        .write_in_steps(&voted(1), |step| {
            steps.push(step);
            Ok(())
        })
        .expect("written");
    assert_eq!(steps, STEPS);
}

/// Of a write that a power cut interrupts any sectors may be on the disk: all combinations, for both
/// slots.
#[test]
fn a_torn_write_leaves_the_old_record_or_the_new_one() {
    let place = tempfile::tempdir().expect("a directory");
    for last in [7, 8] {
        let home = place.path().join(last.to_string());
        fs::create_dir(&home).expect("a directory");
        let (directory, path) = written(&home, last);
        let old = fs::read(&path).expect("the file");
        let (mut guard, _) = GuardFile::open(&directory, &chain(), &key().public()).expect("open");
        let full = most_rounds(2);
        guard.write(&full).expect("written");
        drop(guard);
        let new = fs::read(&path).expect("the file");
        let sectors = (0..new.len() / SECTOR).map(|sector| sector * SECTOR..(sector + 1) * SECTOR);
        let changed: Vec<_> = sectors
            .filter(|at| old[at.clone()] != new[at.clone()])
            .collect();
        assert!(
            (4..=12).contains(&changed.len()),
            "{} sectors",
            changed.len()
        );
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.expect("the file");
        let mut outcomes = [0, 0];
        for mixture in 0_u32..1 << changed.len() {
            for (bit, at) in changed.iter().enumerate() {
                let from = if (mixture >> bit) & 1 == 1 {
                    &new
                } else {
                    &old
                };
                let sector = &from[at.clone()];
                file.write_all_at(sector, at.start as u64).expect("written");
            }
            let found = open(&directory).expect("a record");
            assert!(found == voted(last) || found == full, "{mixture:b}");
            outcomes[usize::from(found == full)] += 1;
            // It is durable now: the other slot may be written.
            assert_eq!(open(&directory).expect("a record"), found, "{mixture:b}");
        }
        assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
        // Torn within a sector, at every byte of either copy.
        for copy in COPIES[usize::from(last == 8)] {
            fs::write(&path, &old).expect("written");
            for cut in copy..copy + 1_100 {
                let byte = &new[cut..=cut];
                file.write_all_at(byte, cut as u64).expect("written");
                let found = GuardFile::peek(&directory).expect("a record");
                assert!(found == voted(last) || found == full, "{cut}");
            }
        }
    }
}

/// The start writes the newest record again, whose signature has left. Whatever was written and not
/// synced when the power fails may be garbage.
#[test]
fn a_power_cut_while_the_guard_is_opened_keeps_the_newest_record() {
    let place = tempfile::tempdir().expect("a directory");
    for last in [7, 8] {
        let home = place.path().join(last.to_string());
        fs::create_dir(&home).expect("a directory");
        let (directory, path) = written(&home, last);
        let good = fs::read(&path).expect("the file");
        // The first record has number 1.
        let copies = COPIES[usize::from(last % 2 == 1)];
        for (damaged, crash) in [None, Some(0), Some(1)]
            .into_iter()
            .flat_map(|damaged| (0..=4).map(move |crash| (damaged, crash)))
        {
            let mut bytes = good.clone();
            if let Some(copy) = damaged {
                bytes[copies[copy]..copies[copy] + SECTOR].fill(0xA5);
            }
            fs::write(&path, &bytes).expect("written");
            let order = if damaged == Some(0) { [0, 1] } else { [1, 0] };
            let mut unsynced = Vec::new();
            let mut steps = 0;
            let opened = GuardFile::open_in_steps(&directory, &chain(), &key().public(), |step| {
                if steps == crash {
                    return Err(io::Error::other("crash"));
                }
                steps += 1;
                match step {
                    Step::FirstCopy => unsynced.push(copies[order[0]]),
                    Step::SecondCopy => unsynced.push(copies[order[1]]),
                    Step::Sync => unsynced.clear(),
                }
                Ok(())
            });
            assert_eq!(opened.is_ok(), crash == 4, "{damaged:?}, {crash}");
            drop(opened);
            let mut bytes = fs::read(&path).expect("the file");
            for copy in unsynced {
                bytes[copy..copy + SECTOR].fill(0x5A);
            }
            fs::write(&path, &bytes).expect("written");
            let found = open(&directory).expect("a record");
            assert_eq!(found, voted(last), "{damaged:?}, {crash}");
            let repaired = fs::read(&path).expect("the file");
            for copy in copies {
                assert_eq!(repaired[copy..copy + 200], good[copy..copy + 200]);
            }
        }
    }
}

/// A record with everything that a height of so many rounds can hold.
fn most_rounds(rounds: u32) -> Record {
    let signature = Signature::new([1; 64]);
    let mut record = empty(0);
    for round in 0..rounds {
        let (header, proposal) = (header(9, round, 1), proposal(9, round, 1));
        record = record.with(&Message::Header(&header), signature);
        record = record.with(&Message::Proposal(&proposal), signature);
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            record = record.with(&Message::Vote(&vote(kind, 9, round, 1)), signature);
        }
    }
    record
}

#[test]
fn a_record_of_the_most_rounds_has_room() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    let mut guard = GuardFile::create(&directory, &empty(0)).expect("a guard");
    let full = most_rounds(2 * u32::try_from(ROUNDS_KEPT_MAX).expect("small"));
    assert_eq!(full.turns().len(), ROUNDS_KEPT_MAX);
    guard.write(&full).expect("it has room");
    drop(guard);
    assert_eq!(open(&directory).expect("a record"), full);
}

#[test]
fn no_damage_at_one_place_hides_the_newest_record_and_every_cut_is_noticed() {
    let place = tempfile::tempdir().expect("a directory");
    let (directory, path) = written(place.path(), 6);
    let good = fs::read(&path).expect("the file");
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    for at in COPIES
        .into_iter()
        .flatten()
        .flat_map(|copy| copy..copy + 400)
    {
        file.write_all_at(&[good[at] ^ 0x40], at as u64)
            .expect("written");
        assert_eq!(
            GuardFile::peek(&directory).expect("a record"),
            voted(6),
            "{at}"
        );
        file.write_all_at(&good[at..=at], at as u64)
            .expect("written");
    }
    for length in [0, 1, 17, 300, SECTOR, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).expect("written");
        let error = open(&directory).expect_err("cut");
        assert!(
            matches!(error, GuardError::Damaged { .. }),
            "{length}: {error}"
        );
        assert!(error.to_string().contains(path.to_str().expect("a text")));
        assert!(error.to_string().contains("bytes"), "{error}");
    }
    fs::write(&path, [good.clone(), vec![0]].concat()).expect("written");
    assert!(matches!(open(&directory), Err(GuardError::Damaged { .. })));
    fs::write(&path, &good).expect("written");
    assert_eq!(open(&directory).expect("good again"), voted(6));
}

/// States that no crash leaves behind.
#[test]
fn damage_that_is_no_torn_write_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let (directory, path) = written(place.path(), 6);
    let good = fs::read(&path).expect("the file");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).expect("written");
        let error = open(&directory).expect_err(what).to_string();
        assert!(
            error.contains("is damaged") && error.contains(what),
            "{error}"
        );
    };
    for [first, second] in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        let mut bad = good.clone();
        bad[COPIES[0][first] + 30] ^= 1;
        bad[COPIES[1][second] + 30] ^= 1;
        refused(&bad, "in both of its slots");
    }
    refused(&vec![0; good.len()], "in both of its slots");
    refused(
        b"proofmill guard 1\nand the rest of an earlier version's",
        "bytes",
    );
    // One slot of this guard, the other of an older copy.
    drop(written(&place.path().join("other"), 2));
    let older = fs::read(place.path().join("other/guard/signed")).expect("the file");
    let mut mixed = good;
    for copy in COPIES[1] {
        mixed[copy..copy + SECTOR].copy_from_slice(&older[copy..copy + SECTOR]);
    }
    refused(&mixed, "do not follow each other");
}

#[test]
fn one_home_is_one_process() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    assert!(matches!(open(&directory), Err(GuardError::Missing(_))));
    let guard = GuardFile::create(&directory, &empty(0)).expect("a guard");
    assert!(matches!(open(&directory), Err(GuardError::Busy(_))));
    let again = GuardFile::replace(&directory, &empty(9)).expect_err("held");
    assert!(matches!(again, GuardError::Busy(_)), "{again}");
    drop(guard);
    let again = GuardFile::create(&directory, &empty(0)).expect_err("there is one");
    assert!(matches!(again, GuardError::Exists(_)), "{again}");
    open(&directory).expect("free again");
}

#[test]
fn a_guard_serves_its_own_key_and_chain() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    drop(GuardFile::create(&directory, &empty(0)).expect("a guard"));
    let other = proofmill_chain::crypto::sign::SecretKey::from_seed(&[9; 32]).public();
    let error = GuardFile::open(&directory, &chain(), &other).expect_err("another key");
    assert!(matches!(error, GuardError::OtherKey { .. }), "{error}");
    let error = GuardFile::open(&directory, &Hash::ZERO, &key().public()).expect_err("a chain");
    assert!(matches!(error, GuardError::OtherChain { .. }), "{error}");
}

#[test]
fn a_signature_that_cannot_be_recorded_is_not_given() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    let mut guard = GuardFile::create(&directory, &empty(0)).expect("a guard");
    let first = vote(VoteKind::Prevote, 1, 0, 1);
    let record = empty(0).with(&Message::Vote(&first), Signature::new([1; 64]));
    guard.write(&record).expect("written");
    // The disk refuses a record; from then on the file takes none.
    let failed = guard.write_in_steps(&voted(9), |_| Err(io::Error::other("no room")));
    failed.expect_err("refused");
    let signer = LocalSigner::new(key(), key(), guard, record);
    let second = vote(VoteKind::Precommit, 1, 0, 1);
    let error = signer.sign_vote(&second).expect_err("not recorded");
    assert!(matches!(error, SignError::Guard(_)), "{error}");
    // From then on it signs nothing new.
    let error = signer.sign_vote(&second).expect_err("broken");
    assert!(matches!(error, SignError::Unavailable(_)), "{error}");
    let again = signer.sign_vote(&first).expect("stored");
    assert_eq!(again.message, first);
}

/// Milliseconds for each record on the disk of the target directory.
#[test]
#[ignore = "measures, and proves nothing"]
fn what_a_record_costs() {
    const RECORDS: u64 = 1_000;
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut guard = GuardFile::create(&place.path().join("guard"), &empty(0)).expect("a guard");
    let mut costs: Vec<_> = (1..=RECORDS)
        .map(|height| {
            let begun = Instant::now();
            guard.write(&voted(height)).expect("written");
            begun.elapsed()
        })
        .collect();
    costs.sort();
    let at = |share: usize| costs[costs.len() * share / 100].as_secs_f64() * 1_000.0;
    eprintln!("median {:.3} ms, p90 {:.3} ms", at(50), at(90));
}
