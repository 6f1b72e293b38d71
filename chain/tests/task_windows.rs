//! Windows, redraws and budgets: what time does to tasks, and what it must not do.

mod common;

use common::{COLLATERAL, World, candidates, claim, expiry, id, terms};
use proofmill_chain::build::Candidates;
use proofmill_chain::task::{Void, commit_deadline};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{ExpiryReason, Phase, Task, TaskSpec};
use proofmill_chain::types::units::{Amount, Height};

const OUTPUT: &[u8] = b"the output";
const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// Commit window of the tests' task: 10,000 ms and 1 Mgas / 1 Mgas per ms, in blocks of 1,000 ms.
const COMMIT_BLOCKS: u64 = 11;

fn seated(world: &World, task: Hash) -> Vec<AccountId> {
    let task = world.task(task);
    task.seats.iter().map(|seat| seat.worker).collect()
}

/// Takes in the block that ends the commit windows of a task drawn in the last block; two seats
/// of three commit before.
fn miss_the_third(world: &mut World, task: Hash) -> AccountId {
    let commits: Vec<_> = (0..3)
        .filter(|place| world.task(task).seats[*place].commitment.is_none())
        .map(|place| world.commit(task, place, &claim(OUTPUT, 9)))
        .collect();
    let last = commits.len() - 1;
    let silent = commits[last].signed.attestation.worker;
    world.advance(candidates(&[], &commits[..last]));
    world.idle(COMMIT_BLOCKS - 2);
    assert!(seated(world, task).contains(&silent));
    world.idle(1);
    assert!(!seated(world, task).contains(&silent));
    silent
}

#[test]
fn the_commit_window_grows_with_the_bytes_that_a_worker_compiles() {
    let (mut world, spec) = World::with_program(|_| {});
    let id = world.drawn(&spec);
    let mut task = world.task(id);
    assert_eq!(task.module_bytes, 14, "the published module's length");
    let drawn = task.seats[0].drawn;
    let params = Params {
        commit_program_bytes_per_ms: 50,
        ..common::params()
    };
    let window = |task: &Task| commit_deadline(task, drawn, &params).time_ms - drawn.time_ms;
    assert_eq!(window(&task), 10_001);
    task.module_bytes = 1 << 20;
    assert_eq!(window(&task), 10_001 + (1 << 20) / 50);
}

#[test]
fn a_seat_that_does_not_commit_is_drawn_again_with_a_later_beacon() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let silent = miss_the_third(&mut world, task);
    let missed_at = world.height;
    let worker = world.worker(silent);
    assert_eq!((worker.locked, worker.seats), (Amount::ZERO, 0));
    assert_eq!(worker.reputation.missed, 1);
    assert_eq!(worker.collateral.get(), COLLATERAL);
    assert_eq!(world.task(task).missed, [silent]);
    let kept = seated(&world, task);
    // Meanwhile reveals stay shut, although everybody seated has committed.
    assert_eq!(
        world.void(&world.reveal(task, 0, &claim(OUTPUT, 9), OUTPUT)),
        Void::NotNow("revealing")
    );
    world.idle(2);
    assert_eq!(seated(&world, task), kept);
    let step = world.advance(Candidates::default());
    assert_eq!(world.height.since(missed_at), 3);
    let seats = world.task(task).seats;
    assert_eq!((seats.len(), seats[2].draw), (3, 1));
    assert_ne!(seats[2].worker, silent);
    assert_eq!(step.sealed.block().assignments.len(), 1);
    assert_eq!(step.sealed.block().assignments[0].draw, 1);
    // The silent worker's word counts no more.
    let late = world.attest(
        silent,
        task,
        0,
        proofmill_chain::types::task::Statement::Commit {
            commitment: Hash::ZERO,
        },
        b"",
    );
    assert_eq!(world.void(&late), Void::NoSeat);
    // The new one brings the task home.
    let mut all = world.commits(task, &claim(OUTPUT, 9));
    assert_eq!(all.len(), 1);
    all.extend(world.reveals(task, &claim(OUTPUT, 9), OUTPUT));
    world.advance(candidates(&[], &all));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn after_the_last_redraw_the_task_expires_with_its_escrow_back() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let alice = world.balance(id("alice"));
    for redraw in 0..2 {
        miss_the_third(&mut world, task);
        assert_eq!(world.task(task).missed.len(), redraw + 1);
        world.idle(3);
        assert_eq!(world.task(task).draws as usize, redraw + 2);
    }
    assert_eq!(world.balance(id("alice")), alice);
    miss_the_third(&mut world, task);
    let end = world.task(task);
    assert_eq!(expiry(&end), Some(ExpiryReason::NotCommitted));
    assert_eq!(world.balance(id("alice")), alice + 3_000_009);
    assert_eq!(end.missed.len(), 3);
    for worker in end.missed {
        assert_eq!(world.worker(worker).reputation.missed, 1);
    }
    for seat in &end.seats {
        let worker = world.worker(seat.worker);
        assert_eq!(worker.reputation, Default::default());
        assert_eq!(worker.locked, Amount::ZERO);
    }
}

#[test]
fn nobody_commits_and_all_seats_are_drawn_again_together() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let first = seated(&world, task);
    world.idle(COMMIT_BLOCKS);
    assert_eq!(world.task(task).missed, first);
    assert!(seated(&world, task).is_empty());
    world.idle(3);
    let second = seated(&world, task);
    assert_eq!(second.len(), 3);
    assert!(second.iter().all(|worker| !first.contains(worker)));
    // Two of eight are left for three seats: the vacancy lasts a commit window, then it is over.
    world.idle(COMMIT_BLOCKS);
    assert_eq!(world.task(task).missed.len(), 6);
    world.idle(COMMIT_BLOCKS - 1);
    assert_eq!(world.task(task).phase.name(), "committing");
    world.idle(1);
    assert_eq!(expiry(&world.task(task)), Some(ExpiryReason::NotCommitted));
}

fn three_workers(genesis: &mut Genesis) {
    genesis.workers.truncate(3);
}

#[test]
fn a_vacancy_that_nobody_fills_expires_after_a_commit_window() {
    let (mut world, spec) = World::with_program(three_workers);
    let task = world.drawn(&spec);
    let alice = world.balance(id("alice"));
    miss_the_third(&mut world, task);
    world.idle(COMMIT_BLOCKS - 1);
    let waiting = world.task(task);
    assert!(matches!(
        waiting.phase,
        Phase::Committing {
            vacant_since: Some(_)
        }
    ));
    assert_eq!((waiting.eligible_last, waiting.draws), (0, 1));
    world.idle(1);
    let end = world.task(task);
    assert_eq!(expiry(&end), Some(ExpiryReason::NotCommitted));
    assert_eq!(world.balance(id("alice")), alice + 3_000_009);
    for seat in &end.seats {
        assert_eq!(world.worker(seat.worker).reputation, Default::default());
    }
}

#[test]
fn a_worker_that_comes_late_fills_a_vacancy_once_it_is_active() {
    let (mut world, spec) = World::with_program(three_workers);
    let task = world.drawn(&spec);
    miss_the_third(&mut world, task);
    let register = world.register("bob", "worker-9", terms(), COLLATERAL);
    world.does("bob", register);
    world.does("bob", common::transfer(id("carol"), 1));
    world.idle(1);
    assert_eq!(seated(&world, task).len(), 2);
    // worker_activation_blocks after its registration.
    world.idle(1);
    assert_eq!(seated(&world, task)[2], id("worker-9"));
    let mut all = world.commits(task, &claim(OUTPUT, 9));
    all.extend(world.reveals(task, &claim(OUTPUT, 9), OUTPUT));
    world.advance(candidates(&[], &all));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn a_task_that_nobody_can_serve_waits_and_then_expires_with_its_escrow_back() {
    let (mut world, mut spec) = World::with_program(|_| {});
    spec.requirements.tags = vec!["gpu".to_owned()];
    spec.wait_max = 23;
    let task = world.order(&spec);
    let alice = world.balance(id("alice"));
    world.idle(23);
    assert_eq!(world.task(task).phase, Phase::Open);
    assert_eq!(world.task(task).eligible_last, 0);
    assert_eq!(world.balance(id("alice")), alice);
    world.idle(1);
    assert_eq!(expiry(&world.task(task)), Some(ExpiryReason::NoWorkers));
    assert_eq!(world.balance(id("alice")), alice + 3_000_009);
}

#[test]
fn a_waiting_task_says_how_many_there_are_and_is_drawn_when_there_are_enough() {
    let (mut world, spec) = World::with_program(|genesis| genesis.workers.truncate(2));
    let task = world.order(&spec);
    world.idle(3);
    assert_eq!(world.task(task).eligible_last, 2);
    let register = world.register("bob", "worker-9", terms(), COLLATERAL);
    world.does("bob", register);
    world.idle(6);
    assert_eq!(world.task(task).phase.name(), "committing");
    assert_eq!(world.task(task).draws, 1);
}

#[test]
fn fast_blocks_expire_nothing() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let fast = |world: &mut World| {
        for _ in 0..200 {
            world.advance_at(world.time_ms + 1, Candidates::default());
        }
    };
    fast(&mut world);
    assert_eq!(seated(&world, task).len(), 3);
    let commits = world.commits(task, &claim(OUTPUT, 9));
    world.advance(candidates(&[], &commits));
    fast(&mut world);
    let reveals = world.reveals(task, &claim(OUTPUT, 9), OUTPUT);
    world.advance(candidates(&[], &reveals));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn a_halt_of_the_chain_expires_nothing() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    world.advance_at(world.time_ms + 10 * YEAR_MS, Candidates::default());
    assert_eq!(seated(&world, task).len(), 3);
    let commits = world.commits(task, &claim(OUTPUT, 9));
    world.advance_at(world.time_ms + YEAR_MS, candidates(&[], &commits));
    world.advance_at(world.time_ms + YEAR_MS, Candidates::default());
    let reveals = world.reveals(task, &claim(OUTPUT, 9), OUTPUT);
    world.advance_at(world.time_ms + YEAR_MS, candidates(&[], &reveals));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn protocol_time_grows_by_at_most_a_step_a_block_and_decides_with_the_blocks() {
    // Slow blocks: 2,000 ms of protocol time each, so 10,001 ms pass with the sixth block.
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    for blocks in 1..=6 {
        let before = world.chain().protocol_ms;
        world.advance_at(world.time_ms + YEAR_MS, Candidates::default());
        assert_eq!(world.chain().protocol_ms, before + 2_000);
        assert_eq!(seated(&world, task).len(), if blocks < 6 { 3 } else { 0 });
    }
    // The reveal window has 10,000 ms, which pass with the fifth block, and eight blocks.
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.revealing(&spec, &claim(OUTPUT, 9));
    for blocks in 1..=8 {
        world.advance_at(world.time_ms + YEAR_MS, Candidates::default());
        let phase = world.task(task).phase;
        assert_eq!(phase.name() == "expired", blocks == 8);
    }
}

#[test]
fn the_last_word_before_the_deadline_counts() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    world.idle(COMMIT_BLOCKS - 2);
    let commits = world.commits(task, &claim(OUTPUT, 9));
    world.advance(candidates(&[], &commits));
    world.idle(8);
    // The deadline is ten blocks and 10,000 ms after the last commitment.
    let reveals = world.reveals(task, &claim(OUTPUT, 9), OUTPUT);
    world.advance(candidates(&[], &reveals));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn a_larger_gas_limit_gives_a_longer_commit_window() {
    let (mut world, mut spec) = World::with_program(|_| {});
    spec.gas_limit = proofmill_chain::types::units::Gas::new(1_000_000_000);
    spec.price_per_mgas = Amount::new(10);
    let task = world.drawn(&spec);
    // A thousand milliseconds more.
    world.idle(COMMIT_BLOCKS - 1);
    assert_eq!(seated(&world, task).len(), 3);
    world.idle(1);
    assert_eq!(seated(&world, task).len(), 0);
}

fn orders(world: &mut World, specs: &[TaskSpec]) -> Vec<Hash> {
    let transactions: Vec<_> = specs
        .iter()
        .zip(0..)
        .map(|(spec, n)| {
            let action = proofmill_chain::types::transaction::Action::SubmitTask(spec.clone());
            world.tx_with(&common::key("alice"), action, |t| {
                t.nonce = t.nonce.checked_plus(n).expect("small");
            })
        })
        .collect();
    let step = world.advance(candidates(&transactions, &[]));
    let receipts = &step.sealed.effects().receipts;
    receipts.iter().map(|receipt| receipt.transaction).collect()
}

#[test]
fn seats_beyond_a_blocks_budget_wait_and_the_oldest_task_goes_first() {
    let (mut world, spec) = World::with_program(|genesis| {
        genesis.params.seats_per_block_max = 7;
        for worker in &mut genesis.workers {
            worker.collateral = Amount::new(10 * COLLATERAL);
        }
    });
    let tasks = orders(&mut world, &vec![spec; 5]);
    world.idle(2);
    for drawn in [2, 4, 5] {
        let step = world.advance(Candidates::default());
        let committing: Vec<_> = tasks
            .iter()
            .map(|task| world.task(*task).phase.name() == "committing")
            .collect();
        let expected: Vec<_> = (0..5).map(|n| n < drawn).collect();
        assert_eq!(committing, expected);
        assert!(step.sealed.block().assignments.len() <= 7);
    }
}

#[test]
fn deadlines_beyond_a_blocks_budget_are_taken_later_oldest_first() {
    let (mut world, mut spec) = World::with_program(|genesis| {
        genesis.params.timeouts_per_block_max = 2;
    });
    spec.requirements.tags = vec!["gpu".to_owned()];
    spec.wait_max = 20;
    let tasks = orders(&mut world, &vec![spec; 5]);
    world.idle(20);
    assert!(
        tasks
            .iter()
            .all(|task| world.task(*task).phase == Phase::Open)
    );
    for over in [2, 4, 5] {
        world.idle(1);
        let expired: Vec<_> = tasks
            .iter()
            .map(|task| world.task(*task).phase.is_over())
            .collect();
        let expected: Vec<_> = (0..5).map(|n| n < over).collect();
        assert_eq!(expired, expected);
    }
}

#[test]
fn a_task_behind_one_that_nobody_can_serve_gets_its_turn() {
    let (mut world, spec) = World::with_program(|genesis| {
        genesis.params.timeouts_per_block_max = 1;
    });
    let mut hopeless = spec.clone();
    hopeless.requirements.tags = vec!["gpu".to_owned()];
    let tasks = orders(&mut world, &[hopeless, spec]);
    world.idle(9);
    assert_eq!(world.task(tasks[0]).phase, Phase::Open);
    assert_eq!(world.task(tasks[1]).phase.name(), "committing");
}

#[test]
fn a_task_that_fits_no_budget_for_long_still_gets_its_draw() {
    // One task is drawn per block, and the last one's wait would be over before its turn.
    let (mut world, mut spec) = World::with_program(|genesis| {
        genesis.params.seats_per_block_max = 5;
        for worker in &mut genesis.workers {
            worker.collateral = Amount::new(10 * COLLATERAL);
        }
    });
    spec.wait_max = 4;
    let tasks = orders(&mut world, &vec![spec; 4]);
    let submitted = world.height;
    world.idle(2 + 4);
    for (task, place) in tasks.iter().zip(0..) {
        // Rule (protocol §4): what does not fit waits with its window stopped.
        let task = world.task(*task);
        assert_eq!(task.phase.name(), "committing", "task {place}");
        let drawn = task.seats[0].drawn.height;
        assert_eq!(drawn, Height::new(submitted.get() + 3 + place));
    }
}
