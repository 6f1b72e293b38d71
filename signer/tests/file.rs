//! The guard's file: crashes at every step of a write, damage, and its lock.

mod support;

use std::fs;
use std::io;
use std::path::Path;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_signer::{
    GuardError, GuardFile, LocalSigner, Message, Record, SignError, Signer, Step,
};
use support::{chain, empty, key, vote};

const STEPS: [Step; 6] = [
    Step::Create,
    Step::FirstHalf,
    Step::SecondHalf,
    Step::Sync,
    Step::Rename,
    Step::SyncDirectory,
];

fn voted(height: u64) -> Record {
    let vote = vote(VoteKind::Prevote, height, 0, 1);
    empty(0).with(&Message::Vote(&vote), Signature::new([1; 64]))
}

fn open(directory: &Path) -> Result<Record, GuardError> {
    GuardFile::open(directory, &chain(), &key().public()).map(|(_, record)| record)
}

#[test]
fn a_crash_at_any_step_leaves_the_old_record_or_the_new_one() {
    for crash in STEPS {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("guard");
        let guard = GuardFile::create(&directory, &voted(1)).expect("a guard");
        let failed = guard.write_in_steps(&voted(2), |step| {
            if step == crash {
                return Err(io::Error::other("crash"));
            }
            Ok(())
        });
        // No signature leaves: the caller never hears of success.
        assert!(matches!(failed, Err(GuardError::Io { .. })), "{crash:?}");
        drop(guard);
        let found = open(&directory).expect("a whole record");
        let expected = if crash == Step::SyncDirectory { 2 } else { 1 };
        assert_eq!(found, voted(expected), "{crash:?}");
        // And what a crash leaves behind is in nobody's way.
        let (guard, _) = GuardFile::open(&directory, &chain(), &key().public()).expect("open");
        guard.write(&voted(3)).expect("written");
        drop(guard);
        assert_eq!(open(&directory).expect("a record"), voted(3));
    }
}

#[test]
fn the_steps_come_in_the_order_that_makes_a_write_durable() {
    let place = tempfile::tempdir().expect("a directory");
    let guard = GuardFile::create(&place.path().join("guard"), &empty(0)).expect("a guard");
    let mut steps = Vec::new();
    guard
        .write_in_steps(&voted(1), |step| {
            steps.push(step);
            Ok(())
        })
        .expect("written");
    assert_eq!(steps, STEPS);
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    drop(GuardFile::create(&directory, &voted(5)).expect("a guard"));
    let path = directory.join("signed");
    let good = fs::read(&path).expect("the file");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).expect("written");
        let error = open(&directory).expect_err("damaged");
        assert!(matches!(error, GuardError::Damaged { .. }), "{at}: {error}");
        assert!(error.to_string().contains(path.to_str().expect("a text")));
        fs::write(&path, &good[..at]).expect("written");
        let error = open(&directory).expect_err("cut");
        assert!(matches!(error, GuardError::Damaged { .. }), "{at}: {error}");
    }
    fs::write(&path, [good.clone(), vec![0]].concat()).expect("written");
    assert!(matches!(open(&directory), Err(GuardError::Damaged { .. })));
    fs::write(&path, &good).expect("written");
    assert_eq!(open(&directory).expect("good again"), voted(5));
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
    drop(GuardFile::create(&directory, &empty(0)).expect("a guard"));
    let signer = LocalSigner::open(&directory, &chain(), key(), key()).expect("a signer");
    let first = vote(VoteKind::Prevote, 1, 0, 1);
    signer.sign_vote(&first).expect("signed");
    // A directory in the place of the new file: no write can succeed.
    fs::create_dir(directory.join("signed.new")).expect("a directory");
    let second = vote(VoteKind::Precommit, 1, 0, 1);
    let error = signer.sign_vote(&second).expect_err("not recorded");
    assert!(matches!(error, SignError::Guard(_)), "{error}");
    // From then on it signs nothing new, even when the disk is well again.
    fs::remove_dir(directory.join("signed.new")).expect("removed");
    let error = signer.sign_vote(&second).expect_err("broken");
    assert!(matches!(error, SignError::Unavailable(_)), "{error}");
    let again = signer.sign_vote(&first).expect("stored");
    assert_eq!(again.message, first);
}
