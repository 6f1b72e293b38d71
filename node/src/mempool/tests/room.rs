//! Who gets the pool's room, and who is offered a block's.

use proofmill_chain::build::TransactionSource;
use proofmill_chain::codec;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Height, Nonce};

use super::{Fixture, drained, fixture, id, name, publish, transfer};
use crate::mempool::{InsertError, MempoolLimits};

fn fixture_of(transactions_max: usize) -> Fixture {
    Fixture::new(MempoolLimits {
        transactions_max,
        ..MempoolLimits::default()
    })
}

#[test]
fn a_tail_that_pays_much_protects_nothing_that_it_waits_for() {
    let mut f = fixture_of(4);
    f.insert(publish(1, 1_000, 0)).expect("is taken");
    for (nonce, tip) in [(1, 5), (2, 5), (3, 1_000_000)] {
        f.insert(transfer(1, nonce, tip)).expect("is taken");
    }
    for sender in 2..6 {
        f.insert(transfer(sender, 0, 1))
            .expect("it pays more than the module");
    }
    assert_eq!(f.selected(), [(2, 0), (3, 0), (4, 0), (5, 0)]);
    assert_eq!(f.insert(transfer(6, 0, 1)), Err(InsertError::Full));
}

#[test]
fn what_waits_for_a_cheap_one_pushes_nobody_out() {
    let mut f = fixture_of(3);
    f.insert(transfer(1, 0, 0)).expect("is taken");
    f.insert(transfer(2, 0, 5)).expect("is taken");
    f.insert(transfer(3, 0, 5)).expect("is taken");
    assert_eq!(f.insert(transfer(1, 1, 1_000_000)), Err(InsertError::Full));
    // When the first pays, so does what follows it.
    f.insert(transfer(1, 0, 9)).expect("it needs no more room");
    f.insert(transfer(1, 1, 9)).expect("is taken");
    assert_eq!(f.selected(), [(1, 0), (1, 1), (2, 0)]);
}

#[test]
fn a_queue_counts_for_more_when_its_cheapest_is_included() {
    let mut f = fixture_of(3);
    for (nonce, tip) in [(0, 1), (1, 50), (2, 50)] {
        f.insert(transfer(1, nonce, tip)).expect("is taken");
    }
    f.state.set(1, 1 << 60, 1);
    f.committed(&[transfer(1, 0, 1)], 11);
    f.insert(transfer(2, 0, 20)).expect("there is room");
    assert_eq!(f.insert(transfer(3, 0, 10)), Err(InsertError::Full));
    f.insert(transfer(3, 0, 40)).expect("2 pays less");
    assert_eq!(f.selected(), [(1, 1), (1, 2), (3, 0)]);
}

#[test]
fn a_sender_has_so_many_bytes_and_no_more() {
    let module = codec::encode(&publish(1, 500, 1)).len();
    let one = codec::encode(&transfer(1, 1, 1)).len();
    let most = module + one;
    let mut f = Fixture::new(MempoolLimits {
        per_sender_bytes_max: most,
        ..MempoolLimits::default()
    });
    let refused = |given| InsertError::SenderBytes { given, most };
    f.insert(transfer(1, 0, 1)).expect("is taken");
    // A replacement counts for what it is larger by.
    f.insert(publish(1, 500, 2)).expect("is taken");
    f.insert(transfer(1, 1, 1)).expect("it fits exactly");
    assert_eq!(f.insert(transfer(1, 2, 1)), Err(refused(most + one)));
    let mut large = publish(1, 500, 9);
    large.transaction.nonce = Nonce::new(1);
    assert_eq!(f.insert(large), Err(refused(2 * module)));
    f.insert(transfer(2, 0, 1)).expect("another sender");
    f.state.set(1, 1 << 60, 1);
    f.committed(&[publish(1, 500, 2)], 11);
    f.insert(transfer(1, 2, 1)).expect("there is room again");
    // Those that are looked at together count for each other.
    let mut preview = f.pool.preview();
    let mut look = |signed: &SignedTransaction| {
        let bytes = codec::encode(signed).len();
        let account = |account: &AccountId| f.state.read(account);
        preview.check(&signed.transaction, bytes, Height::new(10), account)
    };
    let mut large = publish(2, 500, 9);
    assert_eq!(look(&transfer(2, 1, 1)), Ok(()));
    large.transaction.nonce = Nonce::new(2);
    assert_eq!(look(&large), Err(refused(module + 2 * one)));
}

#[test]
fn a_sender_who_is_resumed_goes_on_where_it_was() {
    let mut f = fixture();
    for (sender, nonce, tip) in [(1, 0, 9), (1, 1, 3), (1, 2, 9), (2, 0, 5), (2, 1, 1)] {
        f.insert(transfer(sender, nonce, tip)).expect("is taken");
    }
    let mut candidates = f.pool.candidates();
    let first = candidates.draw().expect("there are five");
    assert_eq!(name(first.signed()), (1, 0));
    candidates.skip_sender(&id(1));
    let second = candidates.draw().expect("there are four");
    assert_eq!(name(second.signed()), (2, 0));
    candidates.resume_sender(&id(1));
    // In the order of what they pay, each once.
    assert_eq!(drained(candidates), [(1, 1), (1, 2), (2, 1)]);
}

#[test]
fn a_refusal_is_in_doubt_where_one_before_it_counts_and_a_second_look_counts_none() {
    let f = fixture();
    let account = |account: &AccountId| f.state.read(account);
    let height = Height::new(10);
    let rich = transfer(1, 0, 3);
    let size = |signed: &SignedTransaction| codec::encode(signed).len();
    let other = transfer(1, 0, 4);
    let mut preview = f.pool.preview();
    let first = preview.check(&rich.transaction, size(&rich), height, account);
    assert_eq!(first, Ok(()));
    let refused = preview.check(&other.transaction, size(&other), height, account);
    assert!(matches!(refused, Err(InsertError::NonceTooLow { .. })));
    assert!(preview.doubts(&other.transaction));
    // Whose fee an account in doubt would pay is in doubt, and then what follows it.
    let mut sponsored = transfer(2, 0, 3);
    sponsored.transaction.sponsor = Some(id(1));
    assert!(preview.doubts(&sponsored.transaction));
    assert!(preview.doubts(&transfer(2, 1, 3).transaction));
    assert!(!preview.doubts(&transfer(3, 0, 3).transaction));

    // Whichever of the two is good, and what follows it, may be taken.
    let mut again = f.pool.preview_tentative();
    for signed in [&rich, &other, &transfer(1, 1, 3), &transfer(1, 2, 3)] {
        let looked = again.check(&signed.transaction, size(signed), height, account);
        assert_eq!(looked, Ok(()));
    }
    let far = transfer(1, 4, 3);
    let gap = again.check(&far.transaction, size(&far), height, account);
    assert!(matches!(gap, Err(InsertError::NonceGap { .. })));
}
