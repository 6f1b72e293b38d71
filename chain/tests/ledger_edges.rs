//! The ledger where it is easiest to get wrong: one account in two roles, grain spent in the block
//! that it came in, records that end as they began, and amounts at the supply's bound.

mod common;

use common::{
    COLLATERAL, FUNDS, STEP_MS, Step, World, candidates, claim, id, key, nonce, plain, reward_of,
    terms, transfer,
};
use proofmill_chain::check::{BlockCheckError, TransactionError};
use proofmill_chain::codec;
use proofmill_chain::execute::{ExecuteError, Inadmissible};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::BlockError;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::record::{Record, StateKey};
use proofmill_chain::types::task::Mode;
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Round, SUPPLY_MAX};

/// base_fee × (base weight + bytes) + tip, by the table of protocol §3.
fn cost(signed: &SignedTransaction) -> u64 {
    let base = match &signed.transaction.action {
        Action::Transfer { .. } => 100,
        Action::RegisterWorker { .. } => 500,
        Action::UpdateWorker { .. } | Action::RetireWorker { .. } | Action::CancelTask { .. } => {
            200
        }
        Action::PublishProgram { .. } => 2_000,
        Action::SubmitTask(_) => 1_000,
    };
    let bytes = u64::try_from(codec::encode(signed).len()).expect("it is small");
    8 * (base + bytes) + signed.transaction.tip.get()
}

fn cost_of_transfer(world: &World) -> u64 {
    cost(&world.tx(&key("alice"), transfer(id("bob"), 1)))
}

/// A transaction that is so many ahead of its sender's count.
fn ahead(world: &World, sender: &str, count: u64, action: Action) -> SignedTransaction {
    world.tx_with(&key(sender), action, |t| {
        t.nonce = nonce(t.nonce.get() + count);
    })
}

fn all_applied(step: &Step, count: usize) {
    let outcomes: Vec<_> = step.receipts().iter().map(|r| &r.outcome).collect();
    assert_eq!(outcomes, vec![&Outcome::Applied; count]);
}

/// Takes in these transactions, all of which must fit.
fn take(world: &mut World, list: &[SignedTransaction]) -> Step {
    let step = world.advance(candidates(list, &[]));
    assert_eq!(step.built.refused, vec![]);
    let alone = plain::execute(&copy_before(world, &step), step.sealed.block());
    assert_eq!(alone.as_ref(), Ok(step.sealed.effects()));
    step
}

/// The world before a step, as far as execution looks at it.
fn copy_before(world: &World, step: &Step) -> World {
    let mut before = world.clone();
    for write in &step.sealed.effects().writes.writes {
        match &write.old {
            Some(bytes) => before.state.insert(write.key, bytes.to_vec()),
            None => before.state.remove(&write.key),
        };
    }
    before
}

fn insufficient(needed: u64, available: u64) -> Outcome {
    Outcome::Failed {
        failure: Failure::InsufficientBalance {
            needed: Amount::new(needed),
            available: Amount::new(available),
        },
    }
}

#[test]
fn a_block_in_which_somebody_sponsors_itself_is_invalid_whatever_comes_before() {
    let mut world = World::new();
    world.idle(1);
    let fine = world.tx(&key("bob"), transfer(id("carol"), 1));
    let own = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
        t.sponsor = Some(id("alice"));
    });
    let block = world.forge(|block| block.transactions = vec![fine, own]);
    assert_eq!(
        world.validate(&block).map(|sealed| sealed.hash()),
        Err(BlockError::Check(BlockCheckError::Transaction {
            index: 1,
            error: TransactionError::SponsorIsSender
        }))
    );
}

#[test]
fn the_proposer_cannot_spend_the_tips_of_its_block_in_that_block() {
    let mut world = World::new();
    let reward = reward_of(&world);
    let name = (0..4)
        .map(|n| format!("reward-{n}"))
        .find(|name| id(name) == reward)
        .expect("the tests know it");
    let cost = cost_of_transfer(&world);
    let list = [
        world.tx_with(&key("alice"), transfer(reward, 2 * cost), |t| {
            t.tip = Amount::new(5_000);
        }),
        // It has what this costs and nothing beside.
        ahead(&world, &name, 0, transfer(id("bob"), cost + 1)),
        ahead(&world, &name, 1, transfer(id("bob"), 1)),
    ];
    let step = take(&mut world, &list);
    assert_eq!(step.receipts()[1].outcome, insufficient(cost + 1, cost));
    assert_eq!(step.receipts()[2].outcome, insufficient(1, 0));
    // Its own tips come back to it with the others.
    assert_eq!(world.balance(reward), 5_000 + 3 + 3);
    // And a fee that only the tips would cover is not covered.
    let fresh = World::new();
    let list = [
        fresh.tx_with(&key("alice"), transfer(reward, cost - 1), |t| {
            t.tip = Amount::new(5_000);
        }),
        ahead(&fresh, &name, 0, transfer(id("bob"), 1)),
    ];
    let built = fresh.build(Round::new(0), STEP_MS, candidates(&list, &[]));
    assert_eq!(
        built.refused,
        vec![(
            list[1].transaction.id(&fresh.id),
            Inadmissible::PayerBalance {
                needed: Amount::new(cost),
                available: Amount::new(cost - 1)
            }
        )]
    );
}

#[test]
fn a_new_account_is_paid_twice_and_sends_in_the_block_that_makes_it() {
    let mut world = World::new();
    let cost = cost_of_transfer(&world);
    let stranger = id("stranger");
    let list = [
        world.tx(&key("alice"), transfer(stranger, cost)),
        world.tx(&key("bob"), transfer(stranger, 7)),
        world.tx(&key("stranger"), transfer(stranger, 7)),
        ahead(&world, "alice", 1, transfer(stranger, cost - 6)),
        ahead(&world, "stranger", 1, transfer(id("carol"), 1)),
    ];
    let step = take(&mut world, &list);
    all_applied(&step, 5);
    let account = world.account(stranger);
    assert_eq!((account.balance.get(), account.nonce.get()), (0, 2));
    assert_eq!(world.balance(id("carol")), FUNDS + 1);
    // The empty account stays, and so does its count: nothing that it sent can come again.
    for old in [&list[2], &list[4]] {
        assert_eq!(
            world.inadmissible(old),
            Inadmissible::Nonce {
                expected: nonce(2),
                received: old.transaction.nonce
            }
        );
    }
}

#[test]
fn a_failed_transfer_makes_no_account_of_its_recipient() {
    let mut world = World::new();
    let list = [
        world.tx(&key("alice"), transfer(id("stranger"), FUNDS)),
        world.tx(&key("poor"), transfer(id("stranger"), u64::MAX)),
    ];
    take(&mut world, &list);
    assert_eq!(world.record(StateKey::Account(id("stranger"))), None);
}

#[test]
fn a_sponsor_that_gets_back_what_it_paid_is_not_among_the_changes() {
    let mut world = World::new();
    let sponsored = world.tx_with(&key("alice"), transfer(id("carol"), 1), |t| {
        t.sponsor = Some(id("bob"));
    });
    let back = ahead(&world, "alice", 1, transfer(id("bob"), cost(&sponsored)));
    let step = take(&mut world, &[sponsored, back]);
    all_applied(&step, 2);
    let bob = StateKey::Account(id("bob")).tree_key();
    let writes = &step.sealed.effects().writes.writes;
    assert!(writes.iter().all(|write| write.key != bob));
    assert_eq!(world.balance(id("bob")), FUNDS);
}

#[test]
fn collateral_and_escrow_come_back_in_time_to_be_spent_to_the_grain() {
    let (mut world, mut order) = World::with_program(|_| {});
    order.mode = Mode::Replicated { replicas: 1 };
    let register = world.register("alice", "worker-9", terms(), 50_000);
    let register = world.tx(&key("alice"), register);
    let retire = Action::RetireWorker {
        worker: id("worker-9"),
    };
    let retire = ahead(&world, "alice", 1, retire);
    let submit = ahead(&world, "alice", 2, Action::SubmitTask(order));
    let task = submit.transaction.id(&world.id);
    let cancel = ahead(&world, "alice", 3, Action::CancelTask { task });
    let fees: u64 = [&register, &retire, &submit, &cancel]
        .into_iter()
        .map(cost)
        .sum();
    let left = world.balance(id("alice")) - fees - cost_of_transfer(&world);
    let spend = ahead(&world, "alice", 4, transfer(id("bob"), left));
    let list = [register, retire, submit, cancel, spend];
    // Sent before the escrow is back, the last one fails by exactly that escrow.
    let mut early = list.clone();
    early.swap(3, 4);
    for (place, signed) in early.iter_mut().enumerate().skip(3) {
        let mut transaction = signed.transaction.clone();
        transaction.nonce = nonce(u64::try_from(place).expect("small"));
        *signed = world.sign(transaction, &key("alice"));
    }
    let before = world.clone();
    let step = take(&mut world, &list);
    all_applied(&step, 5);
    assert_eq!(world.account(id("alice")).balance, Amount::ZERO);
    assert_eq!(world.task(task).phase.name(), "cancelled");
    assert_eq!(world.record(StateKey::Worker(id("worker-9"))), None);
    let mut world = before;
    let step = take(&mut world, &early);
    let escrow = 1_000_003;
    let cancelling = cost(&list[3]);
    assert_eq!(
        step.receipts()[3].outcome,
        insufficient(left, left + cancelling - escrow)
    );
}

#[test]
fn pay_and_an_expired_escrow_are_spent_in_the_block_that_brings_them() {
    // An operator is paid by the attestations of a block and spends all in its transactions.
    let (mut world, order) = World::with_program(|_| {});
    let result = claim(b"output", 500_000);
    let task = world.revealing(&order, &result);
    let operator = world.task(task).seats[0].operator;
    let name = (0..8)
        .map(|n| format!("operator-{n}"))
        .find(|name| id(name) == operator)
        .expect("the tests know it");
    // 88% of price × gas × seats / 10^6, in three equal parts.
    let pay = 1_000_003 * 500_000 * 3 / 1_000_000 * 88 / 100 / 3;
    let all = 10_000_000 + pay - cost_of_transfer(&world);
    let reveals = world.reveals(task, &result, b"output");
    let list = [
        world.tx(&key(&name), transfer(id("bob"), all)),
        world.tx(&key("bob"), transfer(operator, 1)),
    ];
    let step = world.advance(candidates(&list, &reveals));
    all_applied(&step, 2);
    assert_eq!(world.balance(operator), 1);

    // Nobody may serve this order: its escrow is back when the block's transactions begin.
    let (mut world, mut order) = World::with_program(|_| {});
    order.requirements.tags = vec!["gpu".to_owned()];
    order.wait_max = 1;
    let task = world.order(&order);
    let escrow = world.task(task).escrow.get();
    while world.live().entries[0].due > world.height.next() {
        world.idle(1);
    }
    let mut tried = 0;
    while world.task(task).phase.name() == "open" {
        tried += 1;
        assert!(tried < 10, "it expires");
        let all = world.balance(id("alice")) + escrow - cost_of_transfer(&world);
        let signed = world.tx(&key("alice"), transfer(id("bob"), all));
        let mut next = world.clone();
        let step = next.advance(candidates(core::slice::from_ref(&signed), &[]));
        if next.task(task).phase.name() == "open" {
            world.idle(1);
            continue;
        }
        all_applied(&step, 1);
        assert_eq!(next.account(id("alice")).balance, Amount::ZERO);
        world = next;
    }
}

/// A chain whose supply is the most there may be, nearly all of it alice's.
fn full() -> (World, u64) {
    let mut whole = 0;
    let world = World::with(|genesis| {
        let others: u64 = genesis
            .accounts
            .iter()
            .filter(|account| account.id != id("alice"))
            .map(|account| account.balance.get())
            .sum();
        whole = SUPPLY_MAX - 1 - others - 8 * COLLATERAL;
        for account in &mut genesis.accounts {
            if account.id == id("alice") {
                account.balance = Amount::new(whole);
            }
        }
    });
    (world, whole)
}

#[test]
fn nearly_the_whole_supply_moves_and_nothing_overflows() {
    let (mut world, whole) = full();
    let cost = cost_of_transfer(&world);
    let list = [
        world.tx(&key("alice"), transfer(id("bob"), u64::MAX)),
        ahead(&world, "alice", 1, transfer(id("bob"), whole - 2 * cost)),
        world.tx(&key("bob"), transfer(id("alice"), u64::MAX)),
        ahead(&world, "bob", 1, transfer(id("bob"), whole)),
    ];
    let step = take(&mut world, &list);
    let outcomes: Vec<_> = step.receipts().iter().map(|r| r.outcome.clone()).collect();
    assert_eq!(outcomes[0], insufficient(u64::MAX, whole - cost));
    assert_eq!(outcomes[1], Outcome::Applied);
    let bobs = FUNDS + whole - 2 * cost;
    assert_eq!(outcomes[2], insufficient(u64::MAX, bobs - cost));
    assert_eq!(outcomes[3], Outcome::Applied, "it has the fees beside");
    assert_eq!(world.account(id("alice")).balance, Amount::ZERO);
    assert_eq!(world.balance(id("bob")), bobs - 2 * cost);
}

#[test]
fn a_tip_of_nearly_the_whole_supply_is_the_proposers_income() {
    let (mut world, whole) = full();
    let reward = reward_of(&world);
    let fee = cost_of_transfer(&world) - 3;
    let with_tip = |tip: u64| {
        world.tx_with(&key("alice"), transfer(reward, 1), |t| {
            t.tip = Amount::new(tip);
            t.max_fee = Amount::new(u64::MAX);
        })
    };
    assert_eq!(
        world.inadmissible(&with_tip(whole - fee + 1)),
        Inadmissible::PayerBalance {
            needed: Amount::new(whole + 1),
            available: Amount::new(whole)
        }
    );
    assert_eq!(
        world.inadmissible(&with_tip(u64::MAX - fee)),
        Inadmissible::PayerBalance {
            needed: Amount::new(u64::MAX),
            available: Amount::new(whole)
        }
    );
    assert_eq!(
        world.inadmissible(&with_tip(u64::MAX - fee + 1)),
        Inadmissible::FeeOverflow
    );
    let most = with_tip(whole - fee - 1);
    let step = take(&mut world, &[most]);
    all_applied(&step, 1);
    assert_eq!(world.account(id("alice")).balance, Amount::ZERO);
    assert_eq!(world.balance(reward), whole - fee);
}

#[test]
fn an_account_at_the_end_of_its_count_sends_nothing_more() {
    let mut world = World::new();
    let account = StateKey::Account(id("alice"));
    let record = Record::Account(Account {
        balance: Amount::new(FUNDS),
        nonce: nonce(u64::MAX),
    });
    world
        .state
        .insert(account.tree_key(), codec::encode(&record));
    let last = world.tx(&key("alice"), transfer(id("bob"), 1));
    let block = world.forge(|block| block.transactions = vec![last]);
    assert!(matches!(
        plain::execute(&world, &block),
        Err(ExecuteError::Transaction { index: 0, .. })
    ));
}

#[test]
fn a_block_without_transactions_moves_no_grain() {
    let mut world = World::new();
    for _ in 0..3 {
        let step = take(&mut world, &[]);
        let effects = step.sealed.effects();
        assert_eq!((effects.receipts.len(), effects.blobs.len()), (0, 0));
        let keys: Vec<_> = effects.writes.writes.iter().map(|w| w.key).collect();
        assert_eq!(keys, [StateKey::Chain.tree_key()]);
        assert_eq!(
            step.sealed.block().header.receipts_root,
            merkle::root::<Vec<u8>>(&[])
        );
    }
    assert_eq!(world.chain().burned, Amount::ZERO);
}
