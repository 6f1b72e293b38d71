//! Each way in which a transaction is never valid or not admitted, and what one costs.

mod common;

use common::{
    COLLATERAL, FUNDS, MAX_FEE, World, candidates, id, key, nonce, spec, terms, transfer,
};
use proofmill_chain::check::{TransactionError, check_transaction};
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::KeyError;
use proofmill_chain::execute::Inadmissible;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::receipt::Failure;
use proofmill_chain::types::task::{INPUT_BYTES_MAX, Mode, PROGRAM_BYTES_MAX, TaskSpec};
use proofmill_chain::types::transaction::{Action, TRANSACTION_BYTES_MAX, Transaction};
use proofmill_chain::types::units::{Amount, Gas, Height, Round};
use proofmill_chain::types::worker::WorkerTerms;

fn error(action: Action, change: impl FnOnce(&mut Transaction)) -> Result<usize, TransactionError> {
    let world = World::new();
    check_transaction(&world.tx_with(&key("alice"), action, change), &world.id)
}

#[test]
fn a_transaction_of_another_chain_is_never_valid() {
    let expected = World::new().id.prefix();
    let given = [expected[0] ^ 1, expected[1], expected[2], expected[3]];
    assert_eq!(
        error(transfer(id("bob"), 1), |t| t.chain = given),
        Err(TransactionError::WrongChain { given, expected })
    );
}

#[test]
fn keys_that_anybody_can_sign_for_or_that_have_two_encodings_are_never_admitted() {
    // The identity has order 1; y = 2 is not on the curve.
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    for (bytes, reason) in [
        (identity, KeyError::SmallOrder),
        ([0; 32], KeyError::SmallOrder),
        (off_curve, KeyError::NotCanonical),
        ([0xff; 32], KeyError::NotCanonical),
    ] {
        let bad = AccountId::new(bytes);
        let refused = |role| {
            Err(TransactionError::Key {
                role,
                key: bad,
                error: reason,
            })
        };
        let fine = transfer(id("bob"), 1);
        assert_eq!(error(fine.clone(), |t| t.sender = bad), refused("sender"));
        assert_eq!(error(fine, |t| t.sponsor = Some(bad)), refused("sponsor"));
        assert_eq!(error(transfer(bad, 1), |_| {}), refused("recipient"));
        let mut register = World::new().register("alice", "worker-9", terms(), COLLATERAL);
        if let Action::RegisterWorker { worker, .. } = &mut register {
            *worker = bad;
        }
        assert_eq!(error(register, |_| {}), refused("worker"));
    }
}

#[test]
fn a_sponsors_signature_stands_exactly_where_there_is_a_sponsor() {
    let world = World::new();
    let mut with = world.tx_with(&key("alice"), transfer(id("carol"), 1), |t| {
        t.sponsor = Some(id("bob"));
    });
    assert!(check_transaction(&with, &world.id).is_ok());
    with.sponsor_signature = None;
    let mut without = world.tx(&key("alice"), transfer(id("carol"), 1));
    without.sponsor_signature = Some(without.signature);
    for signed in [with, without] {
        assert_eq!(
            check_transaction(&signed, &world.id),
            Err(TransactionError::SponsorSignature)
        );
    }
    assert_eq!(
        error(transfer(id("carol"), 1), |t| t.sponsor = Some(id("alice"))),
        Err(TransactionError::SponsorIsSender)
    );
}

#[test]
fn a_tip_above_max_fee_is_never_valid() {
    let (tip, max_fee) = (Amount::new(MAX_FEE + 1), Amount::new(MAX_FEE));
    assert_eq!(
        error(transfer(id("bob"), 1), |t| t.tip = tip),
        Err(TransactionError::TipAboveMaxFee { tip, max_fee })
    );
    assert!(error(transfer(id("bob"), 1), |t| t.tip = max_fee).is_ok());
}

#[test]
fn every_field_outside_its_range_is_named() {
    let world = World::new();
    let terms_with = |change: &dyn Fn(&mut WorkerTerms)| {
        let mut terms = terms();
        change(&mut terms);
        vec![
            world.register("alice", "worker-9", terms.clone(), COLLATERAL),
            Action::UpdateWorker {
                worker: id("worker-0"),
                terms,
                add_collateral: Amount::ZERO,
            },
        ]
    };
    let task = |change: &dyn Fn(&mut TaskSpec)| {
        let mut spec = spec(Hash::ZERO);
        change(&mut spec);
        vec![Action::SubmitTask(spec)]
    };
    let module = |len| {
        vec![Action::PublishProgram {
            module: Blob::new(vec![1; len]),
        }]
    };
    let mut cases = vec![
        ("amount", vec![transfer(id("bob"), 0)]),
        (
            "terms.gas_limit_max",
            terms_with(&|t| t.gas_limit_max = Gas::ZERO),
        ),
        (
            "terms.memory_pages_max",
            terms_with(&|t| t.memory_pages_max = 0),
        ),
        ("module", module(0)),
        ("module", module(PROGRAM_BYTES_MAX + 1)),
        (
            "input",
            task(&|s| s.input = Blob::new(vec![0; INPUT_BYTES_MAX + 1])),
        ),
        ("gas_limit", task(&|s| s.gas_limit = Gas::ZERO)),
        ("memory_pages", task(&|s| s.memory_pages = 0)),
        (
            "mode.replicas",
            task(&|s| s.mode = Mode::Replicated { replicas: 0 }),
        ),
        ("price_per_mgas", task(&|s| s.price_per_mgas = Amount::ZERO)),
        ("wait_max", task(&|s| s.wait_max = 0)),
    ];
    let tags: [Vec<String>; 7] = [
        (0..17).map(|n| format!("tag-{n:02}")).collect(),
        vec!["b".to_owned(), "a".to_owned()],
        vec!["a".to_owned(), "a".to_owned()],
        vec![String::new()],
        vec!["a".repeat(33)],
        vec!["Upper".to_owned()],
        vec!["ä".to_owned()],
    ];
    for bad in tags {
        cases.push(("terms.tags", terms_with(&|t| t.tags.clone_from(&bad))));
        cases.push((
            "requirements.tags",
            task(&|s| s.requirements.tags.clone_from(&bad)),
        ));
    }
    for (expected, actions) in cases {
        for action in actions {
            match error(action, |_| {}) {
                Err(TransactionError::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_is_at_its_limit_is_taken_and_no_transaction_of_bounded_fields_is_too_long() {
    let tags: Vec<_> = (0..16).map(|n| format!("{n:032}")).collect();
    let mut largest_task = spec(Hash::ZERO);
    largest_task.input = Blob::new(vec![0; INPUT_BYTES_MAX]);
    largest_task.requirements.tags.clone_from(&tags);
    let mut largest_terms = terms();
    largest_terms.tags = tags;
    for action in [
        Action::PublishProgram {
            module: Blob::new(vec![0; PROGRAM_BYTES_MAX]),
        },
        Action::SubmitTask(largest_task),
        World::new().register("alice", "worker-9", largest_terms, COLLATERAL),
    ] {
        let bytes = error(action, |t| t.sponsor = Some(id("bob"))).expect("it is valid");
        assert!(bytes <= TRANSACTION_BYTES_MAX);
    }
}

#[test]
fn a_wrong_nonce_is_answered_with_the_expected_and_the_received() {
    let mut world = World::new();
    world.does("alice", transfer(id("bob"), 1));
    for given in [0, 2, u64::MAX] {
        let signed = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
            t.nonce = nonce(given);
        });
        assert_eq!(
            world.inadmissible(&signed),
            Inadmissible::Nonce {
                expected: nonce(1),
                received: nonce(given)
            }
        );
    }
}

#[test]
fn a_transaction_is_taken_in_the_block_of_its_last_height_and_not_after() {
    let mut world = World::new();
    world.idle(4);
    let until = |height| {
        world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
            t.expires_at = Height::new(height);
        })
    };
    assert_eq!(
        world.inadmissible(&until(4)),
        Inadmissible::Expired {
            expires_at: Height::new(4),
            height: Height::new(5)
        }
    );
    let last = until(5);
    world.advance(candidates(&[last], &[]));
    assert_eq!(world.account(id("alice")).nonce, nonce(1));
}

/// base_fee × (weight of a transfer + bytes) + tip.
fn cost_of_transfer(world: &World) -> u64 {
    let bytes = codec::encode(&world.tx(&key("alice"), transfer(id("bob"), 1))).len();
    8 * (100 + u64::try_from(bytes).expect("small")) + 3
}

#[test]
fn max_fee_must_cover_fee_and_tip_to_the_grain() {
    let mut world = World::new();
    let needed = Amount::new(cost_of_transfer(&world));
    let giving = |most: u64| {
        world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
            t.max_fee = Amount::new(most);
        })
    };
    let max_fee = Amount::new(needed.get() - 1);
    assert_eq!(
        world.inadmissible(&giving(max_fee.get())),
        Inadmissible::FeeTooLow { needed, max_fee }
    );
    let enough = giving(needed.get());
    let reward = world.proposer(Round::new(0)).reward;
    let step = world.advance(candidates(&[enough], &[]));
    let receipt = &step.receipts()[0];
    assert_eq!(receipt.fee.get() + receipt.tip.get(), needed.get());
    assert_eq!(world.balance(id("alice")), FUNDS - needed.get() - 1);
    assert_eq!(world.balance(id("bob")), FUNDS + 1);
    assert_eq!(world.balance(reward), 3);
    assert_eq!(world.chain().burned, receipt.fee);
}

#[test]
fn the_payer_must_have_the_fee_be_it_the_sender_or_the_sponsor() {
    let world = World::new();
    let broke = world.tx(&key("stranger"), transfer(id("bob"), 1));
    let sponsored = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
        t.sponsor = Some(id("stranger"));
    });
    for signed in [broke, sponsored] {
        match world.inadmissible(&signed) {
            Inadmissible::PayerBalance { available, needed } => {
                assert_eq!(available, Amount::ZERO);
                assert!(needed > available);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_fee_beyond_64_bits_is_refused() {
    let world = World::new();
    let signed = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
        t.max_fee = Amount::new(u64::MAX);
        t.tip = Amount::new(u64::MAX);
    });
    assert_eq!(world.inadmissible(&signed), Inadmissible::FeeOverflow);
    let dear = World::with(|genesis| genesis.params.base_fee = Amount::new(u64::MAX / 2));
    let signed = dear.tx(&key("alice"), transfer(id("bob"), 1));
    assert_eq!(dear.inadmissible(&signed), Inadmissible::FeeOverflow);
}

#[test]
fn a_sponsor_pays_the_fee_and_a_sender_without_an_account_can_act() {
    let mut world = World::new();
    let update = world.tx_with(
        &key("stranger"),
        Action::RetireWorker {
            worker: id("worker-0"),
        },
        |t| t.sponsor = Some(id("bob")),
    );
    assert_eq!(
        world.failure(&update),
        Failure::NotOperator {
            worker: id("worker-0")
        }
    );
    world.advance(candidates(&[update], &[]));
    assert_eq!(world.account(id("stranger")).nonce, nonce(1));
    assert_eq!(world.account(id("bob")).nonce, nonce(0));
    assert!(world.balance(id("bob")) < FUNDS);
}
