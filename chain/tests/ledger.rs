//! Blocks of transfers against a ledger that was written from the protocol alone: the pipeline on any
//! number of threads takes the block whose receipts and root that ledger gives, and names the
//! transaction that the ledger stops at.
//!
//! `PROOFMILL_SEEDS=<count>` tries more seeds, `PROOFMILL_SEED=<seed>` repeats one.

mod common;

use common::ledger::Ledger;
use common::naive::naive_root;
use common::seeds::{POOLS, Random, each_seed};
use common::transfers::{Draft, People, Sum};
use common::{STEP_MS, World, both_ways, candidates, plain, reward_of};
use proofmill_chain::codec;
use proofmill_chain::execute::{Effects, ExecuteError, Inadmissible};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, SealedBlock};
use proofmill_chain::state::accounts::Accounts;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::genesis::GenesisAccount;
use proofmill_chain::types::receipt::{Outcome, Receipt};
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Round};

/// The verdict that every pool gives alike.
fn everywhere(world: &World, block: &Block) -> Result<SealedBlock, BlockError> {
    let bytes = codec::encode(block);
    let mut verdicts = POOLS
        .iter()
        .map(|pool| pool.install(|| both_ways(&bytes, &world.context())));
    let first = verdicts.next().expect("there are pools");
    for other in verdicts {
        match (&first, &other) {
            (Ok(first), Ok(other)) => {
                assert_eq!(first.hash(), other.hash());
                assert_eq!(first.effects(), other.effects());
                assert_eq!(first.patch().root(), other.patch().root());
                assert_eq!(first.patch().len(), other.patch().len());
            }
            (Err(first), Err(other)) => assert_eq!(first, other),
            (first, other) => panic!("{:?} and {:?}", first.is_ok(), other.is_ok()),
        }
    }
    first
}

/// What execution without the pipeline gives, whatever was read beforehand and whoever is told a
/// wrong place.
fn plainly(world: &World, block: &Block, random: &mut Random) -> Result<Effects, ExecuteError> {
    let plain = plain::execute(world, block);
    let list = &block.transactions;
    let cut = random.index(list.len() + 1);
    let some = Accounts::load(&world.state, &list[..cut]).expect("readable");
    let all = Accounts::load(&world.state, list).expect("readable");
    let shift = random.index(7);
    assert_eq!(
        plain::execute_with(world, block, &some, |index| some.slots(index)),
        plain
    );
    assert_eq!(
        plain::execute_with(world, block, &some, |index| all.slots(index)),
        plain
    );
    assert_eq!(
        plain::execute_with(world, block, &all, |index| all.slots(index + shift)),
        plain
    );
    plain
}

/// The block of these transfers with the roots of the ledger, which a valid block must have.
fn sealed_by_ledger(
    world: &World,
    ledger: &Ledger,
    list: &[SignedTransaction],
) -> (Block, common::ledger::Judged) {
    let reward = reward_of(world);
    let mut judged = Err((0, Vec::new()));
    let block = world.forge(|block| {
        block.transactions = list.to_vec();
        judged = ledger.judge(&block.header, reward, list);
        if let Ok((receipts, after)) = &judged {
            let leaves: Vec<_> = receipts.iter().map(codec::encode).collect();
            block.header.receipts_root = merkle::root(&leaves);
            block.header.state_root = after.root();
        }
    });
    (block, judged)
}

/// Checks the block of these transfers in every way; takes it in when it is valid.
fn check(
    world: &mut World,
    people: &People,
    random: &mut Random,
    list: &[SignedTransaction],
) -> Result<Vec<Receipt>, Inadmissible> {
    let ledger = Ledger::of(world, &people.ids);
    let (block, judged) = sealed_by_ledger(world, &ledger, list);
    let verdict = everywhere(world, &block);
    let plain = plainly(world, &block, random);
    match judged {
        Ok((receipts, after)) => {
            let sealed = verdict.expect("what the protocol's ledger does is valid");
            let effects = sealed.effects();
            assert_eq!(effects.receipts, receipts);
            assert_eq!(Ok(effects), plain.as_ref());
            assert_eq!(sealed.patch().root(), after.root());
            let fees: u64 = receipts.iter().map(|receipt| receipt.fee.get()).sum();
            assert_eq!(after.burned(), ledger.burned() + fees);
            assert_eq!(after.held() + u128::from(fees), ledger.held());
            let built = world.build(
                Round::new(0),
                world.time_ms + STEP_MS,
                candidates(list, &[]),
            );
            assert_eq!((&built.block, built.refused.len()), (&block, 0));
            world.apply(&sealed);
            assert!(world.state == after.state(), "the state is the ledger's");
            Ok(receipts)
        }
        Err((index, broken)) => {
            let Err(BlockError::Execute(error)) = verdict.map(|sealed| sealed.hash()) else {
                panic!("transaction {index} may not stand there: {broken:?}");
            };
            assert_eq!(plain.as_ref().map(|_| ()), Err(&error));
            let ExecuteError::Transaction {
                index: named,
                error,
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!(named, index);
            assert!(broken.contains(&error), "{error:?} is not in {broken:?}");
            check_builder(world, &ledger, list);
            Err(error)
        }
    }
}

/// The builder takes what the ledger takes, one after the other, and says of the rest why not.
fn check_builder(world: &World, ledger: &Ledger, list: &[SignedTransaction]) {
    let built = world.build(
        Round::new(0),
        world.time_ms + STEP_MS,
        candidates(list, &[]),
    );
    let mut greedy = ledger.clone();
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for signed in list {
        match greedy.transact(signed) {
            Ok(_) => taken.push(signed.clone()),
            Err(broken) => refused.push((signed.transaction.id(&world.id), broken)),
        }
    }
    greedy.end(&built.block.header, reward_of(world));
    assert_eq!(built.block.transactions, taken);
    assert_eq!(built.block.header.state_root, greedy.root());
    assert_eq!(built.refused.len(), refused.len());
    for ((id, error), (expected, broken)) in built.refused.iter().zip(&refused) {
        assert_eq!(id, expected);
        assert!(broken.contains(error), "{error:?} is not in {broken:?}");
    }
    assert!(everywhere(world, &built.block).is_ok());
}

#[test]
fn blocks_of_dependent_transfers_do_what_the_protocols_ledger_does() {
    let mut counts = [0_usize; 3];
    let seeds = each_seed(80, |random| {
        let people = People::new(12);
        let mut world = people.world(random, |_| {});
        for _ in 0..5 {
            let mut draft = Draft::new(&world, &people, random);
            while draft.list.len() < 40 && !draft.random.one_in(30) {
                draft.scenario();
            }
            let list = draft.list;
            let receipts = check(&mut world, &people, random, &list).expect("it was tried");
            let applied = receipts.iter().filter(|r| r.outcome == Outcome::Applied);
            counts[0] += applied.count();
            counts[1] += receipts.len();
            let sponsored = list.iter().filter(|s| s.transaction.sponsor.is_some());
            counts[2] += sponsored.count();
        }
    });
    // All of it happens often: transfers that are applied, that fail, and that others pay for.
    if seeds > 20 {
        let [applied, all, sponsored] = counts;
        assert!(applied > all / 3, "{counts:?}");
        assert!(all - applied > all / 20, "{counts:?}");
        assert!(sponsored > all / 20, "{counts:?}");
    }
}

#[test]
fn a_spoiled_block_is_refused_for_the_transaction_that_the_protocols_ledger_stops_at() {
    let mut reasons = [0_usize; 6];
    let seeds = each_seed(120, |random| {
        let people = People::new(12);
        let mut world = people.world(random, |_| {});
        for _ in 0..4 {
            let mut draft = Draft::new(&world, &people, random);
            while draft.list.len() < 15 {
                draft.scenario();
            }
            draft.spoil();
            let list = draft.list;
            let reason = match check(&mut world, &people, random, &list) {
                Ok(_) => 0,
                Err(Inadmissible::Nonce { .. }) => 1,
                Err(Inadmissible::Expired { .. }) => 2,
                Err(Inadmissible::FeeTooLow { .. }) => 3,
                Err(Inadmissible::PayerBalance { .. }) => 4,
                Err(Inadmissible::FeeOverflow) => 5,
            };
            reasons[reason] += 1;
        }
    });
    assert!(
        seeds < 20 || reasons.iter().all(|count| *count > 0),
        "{reasons:?}"
    );
}

#[test]
fn a_block_large_enough_for_every_thread_does_what_the_protocols_ledger_does() {
    each_seed(1, |random| {
        let people = People::new(2_400);
        let mut world = people.world(random, |_| {});
        let mut draft = Draft::new(&world, &people, random);
        while draft.list.len() < 2_500 {
            draft.scenario();
        }
        let list = draft.list.clone();
        draft.spoil();
        let spoiled = draft.list;
        let copy = &mut world.clone();
        let _either = check(copy, &people, random, &spoiled);
        let receipts = check(&mut world, &people, random, &list).expect("it was tried");
        assert_eq!(receipts.len(), list.len());
        assert_eq!(world.tree.root(), naive_root(&world.state));
    });
}

#[test]
fn one_grain_through_a_thousand_hands_arrives() {
    let people = People::new(1_000);
    let mut random = Random::new(1);
    let mut world = World::with(|genesis| {
        genesis.params.block_transactions_max = 5_000;
        genesis.accounts.push(GenesisAccount {
            id: people.ids[0],
            balance: Amount::new(1 << 40),
        });
    });
    let mut draft = Draft::new(&world, &people, &mut random);
    for hands in people.ids[..1_000].windows(2) {
        assert!(draft.push(hands[0], hands[1], Sum::AllAnd(0), None));
    }
    let left = draft.ledger.balance(&people.ids[999]);
    let list = draft.list;
    // Backwards, nobody but the last in the list has anything when its turn comes.
    let backwards: Vec<_> = list.iter().rev().cloned().collect();
    let error = check(&mut world, &people, &mut random, &backwards).expect_err("it is empty");
    assert!(
        matches!(error, Inadmissible::PayerBalance { .. }),
        "{error:?}"
    );
    let receipts = check(&mut world, &people, &mut random, &list).expect("each has what came in");
    assert!(receipts.iter().all(|r| r.outcome == Outcome::Applied));
    assert_eq!(world.balance(people.ids[999]), left);
    for id in &people.ids[..999] {
        let account = world.account(*id);
        assert_eq!((account.balance.get(), account.nonce.get()), (0, 1));
    }
}
