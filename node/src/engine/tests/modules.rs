//! A module is paid for by the transaction that brings it, and nothing is judged for nothing.

use std::path::Path;

use futures::FutureExt;
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{Blob, Hash, Signature};
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Height};

use super::super::{AHEAD_BLOCKS, AHEAD_EXPIRY_BLOCKS, AdmitError, Ahead, Engine, Taken};
use super::admission::{
    account, admitted, advance, alone, engine, genesis, gossip, module, transaction, transfer,
};
use crate::dev_keys;
use crate::gossip::{Acceptance, Topic};
use crate::machine::VERSION;
use crate::mempool::InsertError;

/// What a block of these tests has for modules.
const ROOM: u32 = 64 << 10;
/// A quarter of it.
const QUARTER: usize = (ROOM / 4) as usize;

/// An engine that decides alone, with a block's room for modules of [`ROOM`] bytes.
fn small(place: &Path, accounts: u32) -> Engine {
    let mut genesis = alone(accounts);
    genesis.params.block_program_bytes_max = ROOM;
    engine(place, genesis)
}

fn publishing(module: Vec<u8>) -> Action {
    Action::PublishProgram {
        module: Blob::new(module),
    }
}

/// The module of account `number`, which is none.
fn junk(number: u32) -> Vec<u8> {
    let mut module = vec![0x5a; QUARTER];
    module[..4].copy_from_slice(&number.to_le_bytes());
    module
}

fn publish(engine: &Engine, number: u32, tip: u64) -> SignedTransaction {
    transaction(engine, &account(number), 0, tip, publishing(junk(number)))
}

fn judged(engine: &Engine, module: Vec<u8>) -> bool {
    let program = Blob::new(module).hash();
    engine.machine().kept(VERSION, program).is_some()
}

/// Which of the first accounts' modules are judged.
fn judged_of(engine: &Engine, accounts: u32) -> Vec<u32> {
    (0..accounts)
        .filter(|number| judged(engine, junk(*number)))
        .collect()
}

fn receipts(engine: &Engine) -> Vec<Receipt> {
    let head = engine.store().head().height;
    let receipts = engine.store().receipts(head).expect("it can be read");
    receipts.expect("the head has receipts")
}

#[test]
fn a_module_is_not_looked_at_before_its_sender_can_pay_for_it() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), genesis(1));
    let module = vec![0x5a; 1 << 20];
    let stranger = account(1_000);
    let unfunded = transaction(&engine, &stranger, 0, 0, publishing(module.clone()));
    let mut unsigned = unfunded.clone();
    unsigned.signature = Signature::new([0; 64]);
    let later = transaction(&engine, &account(0), 7, 0, publishing(module.clone()));
    for (what, signed) in [
        ("unfunded", unfunded),
        ("unsigned and unfunded", unsigned),
        ("bad nonce", later),
    ] {
        let refused = engine.admit_transaction(signed).expect_err("it is refused");
        assert!(matches!(refused, AdmitError::Pool(_)), "{what}: {refused}");
    }
    Ahead::default().judge(&engine);
    assert!(!judged(&engine, module));
}

#[test]
fn a_module_that_is_no_program_is_taken_pays_and_its_receipt_says_why() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), 3);
    let first = publish(&engine, 0, 0);
    assert_eq!(gossip(&engine, &first), Acceptance::Accept);
    let second = publish(&engine, 1, 0);
    admitted(&engine, second);
    assert!(judged_of(&engine, 3).is_empty(), "nobody has paid");
    assert_eq!(advance(&engine).transactions.len(), 2);
    let price = engine.params().module_byte_price.get() * QUARTER as u64;
    let receipts = receipts(&engine);
    for receipt in &receipts {
        let failure = match &receipt.outcome {
            Outcome::Failed { failure } => failure,
            Outcome::Applied => panic!("it is no program"),
        };
        assert!(
            matches!(failure, Failure::ProgramRefused { .. }),
            "{failure}"
        );
        assert!(receipt.fee.get() > price);
    }
    assert_eq!(receipts.len(), 2);
    // What is known is told for nothing: there is nothing to judge.
    let again = transaction(&engine, &account(2), 0, 0, publishing(junk(0)));
    let refused = engine.admit_transaction(again.clone());
    assert!(
        matches!(refused, Err(AdmitError::Program(_))),
        "{refused:?}"
    );
    assert_eq!(engine.pools().transactions.len(), 0);
    // A peer is not told, and passes it on to whom it pays.
    assert_eq!(gossip(&engine, &again), Acceptance::Accept);
}

#[test]
fn what_follows_a_module_of_its_sender_is_taken_in_the_same_batch() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), alone(1));
    let key = account(0);
    let burst = [
        transaction(&engine, &key, 0, 0, publishing(module())),
        transaction(&engine, &key, 1, 0, publishing(junk(1))),
        transfer(&engine, &key, 2, 0, 1),
    ];
    let messages = burst
        .iter()
        .map(|signed| (Topic::Transactions, codec::encode(signed)));
    let verdicts = engine.admit_gossip(messages.collect());
    assert_eq!(verdicts, [Acceptance::Accept; 3]);
    assert_eq!(advance(&engine).transactions.len(), 3);
    let applied = |receipt: &Receipt| receipt.outcome == Outcome::Applied;
    let applied: Vec<_> = receipts(&engine).iter().map(applied).collect();
    assert_eq!(applied, [true, false, true]);
}

#[test]
fn modules_are_judged_ahead_as_the_next_block_would_take_them_and_no_more_than_bounded() {
    const ACCOUNTS: u32 = 24;
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), ACCOUNTS);
    let mut ahead = Ahead::default();
    // Many cheap senders do not come before one that pays more, though it comes last.
    for number in 1..8 {
        admitted(&engine, publish(&engine, number, 0));
    }
    admitted(&engine, publish(&engine, 0, 1_000));
    for _ in 0..2 {
        ahead.judge(&engine);
        assert_eq!(judged_of(&engine, ACCOUNTS), [0, 1, 2, 3]);
    }
    // Who outbids has its module judged, until some blocks' worth is.
    for number in 8..ACCOUNTS {
        let tip = 1_000 * u64::from(number);
        admitted(&engine, publish(&engine, number, tip));
        ahead.judge(&engine);
    }
    let judged = judged_of(&engine, ACCOUNTS);
    assert_eq!(judged, [0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!(judged.len() * QUARTER, AHEAD_BLOCKS * ROOM as usize);
    // The block takes the best, and then there is room again.
    assert_eq!(advance(&engine).transactions.len(), 4);
    ahead.judge(&engine);
    let judged = judged_of(&engine, ACCOUNTS);
    assert_eq!(judged[8..], [16, 17, 18, 19, 20, 21, 22, 23]);
}

#[test]
fn a_module_that_is_judged_costs_no_more_when_its_tip_is_raised() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), 2);
    let mut ahead = Ahead::default();
    // As often as all that may be judged ahead has room for it, and once more.
    for time in 0..=AHEAD_BLOCKS * ROOM as usize / QUARTER {
        let again = publish(&engine, 0, 1_000 << time);
        assert_eq!(gossip(&engine, &again), Acceptance::Accept);
        ahead.judge(&engine);
    }
    admitted(&engine, publish(&engine, 1, 0));
    ahead.judge(&engine);
    assert_eq!(judged_of(&engine, 2), [0, 1]);
}

#[test]
fn a_module_that_expires_soon_or_is_not_its_senders_next_is_left_to_its_block() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), 4);
    let until = |number: u32, height: u64| {
        let key: SecretKey = account(number);
        let mut signed = publish(&engine, number, 0);
        signed.transaction.expires_at = Height::new(height);
        let bytes = signed.transaction.sign_bytes(&engine.genesis_hash());
        signed.signature = key.sign(&bytes);
        signed
    };
    admitted(&engine, until(0, AHEAD_EXPIRY_BLOCKS - 1));
    admitted(&engine, until(1, AHEAD_EXPIRY_BLOCKS));
    admitted(&engine, transfer(&engine, &account(2), 0, 0, 1));
    let behind = transaction(&engine, &account(2), 1, 0, publishing(junk(2)));
    admitted(&engine, behind);
    let mut ahead = Ahead::default();
    ahead.judge(&engine);
    assert_eq!(judged_of(&engine, 4), [1]);
    // They pay like any other.
    assert_eq!(advance(&engine).transactions.len(), 4);
    assert_eq!(judged_of(&engine, 4), [0, 1, 2]);
}

#[tokio::test]
async fn a_module_that_comes_in_and_a_block_wake_who_judges_ahead() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), 2);
    admitted(&engine, transfer(&engine, &account(0), 0, 0, 1));
    assert_eq!(engine.modules_changed().now_or_never(), None);
    assert_eq!(gossip(&engine, &publish(&engine, 1, 0)), Acceptance::Accept);
    assert_eq!(engine.modules_changed().now_or_never(), Some(()));
    advance(&engine);
    assert_eq!(engine.modules_changed().now_or_never(), Some(()));
    assert_eq!(engine.modules_changed().now_or_never(), None);
}

#[test]
fn a_pending_module_gives_way_to_itself_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = small(place.path(), 1);
    let key = dev_keys::account(1);
    let waiting = admitted(
        &engine,
        transaction(&engine, &key, 0, 0, publishing(junk(0))),
    );
    for action in [
        publishing(junk(1)),
        Action::Transfer {
            to: account(0).public(),
            amount: Amount::new(1),
        },
    ] {
        let refused = engine.admit_transaction(transaction(&engine, &key, 0, 1_000, action));
        let stays = |waits: &Hash| *waits == waiting;
        assert!(
            matches!(&refused, Err(AdmitError::Pool(InsertError::ModuleStays { waiting, .. })) if stays(waiting)),
            "{refused:?}"
        );
    }
    let again = transaction(&engine, &key, 0, 1_000, publishing(junk(0)));
    let taken = engine.admit_transaction(again).expect("it pays more");
    assert!(matches!(taken, Taken::New(id) if id != waiting));
    assert_eq!(engine.pools().transactions.len(), 1);
}
