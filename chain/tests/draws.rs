//! Who proposes and who computes: shares of turns and draws, by count and with fixed seeds.

mod common;

use std::collections::BTreeMap;

use common::{World, genesis, id, spec, terms};
use proofmill_chain::assign::{Bar, bar, sample, seat_bond, seed, survey};
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::task;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::record::Program;
use proofmill_chain::types::task::{Moment, Task};
use proofmill_chain::types::units::{Amount, Gas, Height, MachineVersion, Round, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::{Reputation, Worker};

fn set(powers: &[u64]) -> ValidatorSet {
    let validators = powers.iter().zip(0_u8..).map(|(power, n)| Validator {
        key: AccountId::new([n; 32]),
        beacon_key: AccountId::new([n; 32]),
        reward: AccountId::new([n; 32]),
        power: Weight::new(*power),
    });
    ValidatorSet::new(validators.collect()).expect("they make a set")
}

#[test]
fn over_ten_thousand_heights_turns_follow_power_within_two_percent() {
    for powers in [
        vec![1; 4],
        vec![4, 3, 2, 1],
        vec![100, 10, 10, 1],
        vec![1_000_000_007, 999_999_937, 500_000_003],
        vec![1],
        (1..=32).collect(),
        vec![(1 << 61) - 1, 1 << 60, 1 << 59],
    ] {
        let set = set(&powers);
        let total: u128 = powers.iter().map(|power| u128::from(*power)).sum();
        for start in [1, 5_000_000_000] {
            let mut turns: BTreeMap<AccountId, u128> = BTreeMap::new();
            for height in start..start + 10_000 {
                let proposer = set.proposer(Height::new(height), Round::new(0));
                *turns.entry(proposer.key).or_default() += 1;
            }
            for validator in set.as_slice() {
                let share = turns.get(&validator.key).copied().unwrap_or_default();
                let expected = 10_000 * u128::from(validator.power.get()) / total;
                // Two percent of the share, and a handful of turns for the smallest.
                let slack = (expected / 50).max(6);
                assert!(
                    share.abs_diff(expected) <= slack,
                    "{powers:?} from {start}: {share} turns, {expected} expected"
                );
            }
        }
    }
}

#[test]
fn successive_rounds_reach_every_validator_of_equal_power_within_twice_their_number() {
    for count in 1..=64_u32 {
        let set = set(&vec![7; count as usize]);
        for height in [1, 2, 1_000, 123_456_789, u64::MAX - 3] {
            let mut seen: Vec<_> = (0..2 * count)
                .map(|round| set.proposer(Height::new(height), Round::new(round)).key)
                .collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count as usize, "{count} validators at {height}");
        }
    }
}

#[test]
fn a_silent_minority_never_holds_more_than_a_few_rounds_in_a_row() {
    // One of four equal ones is down: two rounds never both fall on it.
    let set = set(&[1; 4]);
    for down in set.as_slice() {
        for height in 1..10_000 {
            let both = (0..2)
                .all(|round| set.proposer(Height::new(height), Round::new(round)).key == down.key);
            assert!(!both, "height {height}");
        }
    }
}

fn worker(name: &str, operator: &str, free: u64) -> Worker {
    Worker {
        id: id(name),
        operator: id(operator),
        terms: terms(),
        collateral: Amount::new(free + 500),
        locked: Amount::new(500),
        seats: 1,
        registered_at: Height::ZERO,
        retiring: false,
        reputation: Reputation::default(),
    }
}

/// Nine workers of nine operators with free collateral 1, 2, … 9 thousand.
fn nine() -> Vec<Worker> {
    let mut workers: Vec<_> = (0..9)
        .map(|n| {
            worker(
                &format!("worker-{n}"),
                &format!("operator-{n}"),
                1_000 * (n + 1),
            )
        })
        .collect();
    workers.sort_by_key(|worker| worker.id);
    workers
}

fn draw_seed(n: u32) -> Hash {
    Hash::of("test-seed", &[&n.to_le_bytes()])
}

#[test]
fn the_first_seat_is_drawn_in_proportion_to_free_collateral() {
    const DRAWS: u32 = 20_000;
    let workers = nine();
    let mut counts: BTreeMap<AccountId, f64> = BTreeMap::new();
    for n in 0..DRAWS {
        let drawn = sample(workers.clone(), 1, &draw_seed(n)).expect("there are nine");
        *counts.entry(drawn[0].id).or_default() += 1.0;
    }
    for worker in &workers {
        let free = u32::try_from(worker.free_collateral().get()).expect("small");
        let p = f64::from(free) / 45_000.0;
        let expected = f64::from(DRAWS) * p;
        let deviation = (expected * (1.0 - p)).sqrt();
        let count = counts.get(&worker.id).copied().unwrap_or_default();
        assert!(
            (count - expected).abs() < 4.5 * deviation,
            "{count} of {DRAWS}, {expected} ± {deviation} expected"
        );
    }
}

#[test]
fn later_seats_are_drawn_in_proportion_among_those_left() {
    const DRAWS: u32 = 20_000;
    // Weights 1, 2, 3: the second seat is the heavy one's with probability
    // 1/6 · 3/5 + 2/6 · 3/4 = 0.35.
    let workers: Vec<_> = nine()
        .into_iter()
        .filter(|worker| worker.free_collateral().get() <= 3_000)
        .collect();
    let heavy = id("worker-2");
    let mut second = 0.0;
    for n in 0..DRAWS {
        let drawn = sample(workers.clone(), 2, &draw_seed(n)).expect("there are three");
        assert_ne!(drawn[0].id, drawn[1].id);
        if drawn[1].id == heavy {
            second += 1.0;
        }
    }
    let deviation = (f64::from(DRAWS) * 0.35 * 0.65).sqrt();
    assert!((second - 0.35 * f64::from(DRAWS)).abs() < 4.5 * deviation);
}

#[test]
fn a_draw_is_a_function_of_its_seed_and_gives_each_operator_one_seat() {
    // Three operators with three workers each.
    let mut workers: Vec<_> = (0..9)
        .map(|n| {
            worker(
                &format!("worker-{n}"),
                &format!("operator-{}", n % 3),
                1_000,
            )
        })
        .collect();
    workers.sort_by_key(|worker| worker.id);
    let mut different = 0;
    for n in 0..500 {
        let drawn = sample(workers.clone(), 3, &draw_seed(n)).expect("there are three operators");
        assert_eq!(
            Some(&drawn),
            sample(workers.clone(), 3, &draw_seed(n)).as_ref()
        );
        let mut operators: Vec<_> = drawn.iter().map(|worker| worker.operator).collect();
        operators.sort_unstable();
        operators.dedup();
        assert_eq!(operators.len(), 3);
        different += u32::from(Some(drawn) != sample(workers.clone(), 3, &draw_seed(n + 1)));
        assert_eq!(sample(workers.clone(), 4, &draw_seed(n)), None);
    }
    assert!(different > 450);
    assert_eq!(sample(Vec::new(), 1, &draw_seed(0)), None);
    assert_eq!(sample(Vec::new(), 0, &draw_seed(0)), Some(Vec::new()));
}

#[test]
fn splitting_a_collateral_wins_nothing() {
    const DRAWS: u32 = 20_000;
    // 6,000 in one worker, or in three of the same operator, against 6,000 of another.
    let whole = vec![
        worker("worker-0", "operator-0", 6_000),
        worker("worker-1", "operator-1", 6_000),
    ];
    let mut split: Vec<_> = (2..5)
        .map(|n| worker(&format!("worker-{n}"), "operator-0", 2_000))
        .collect();
    split.push(worker("worker-1", "operator-1", 6_000));
    for mut workers in [whole, split] {
        workers.sort_by_key(|worker| worker.id);
        let first = (0..DRAWS)
            .filter(|n| {
                let drawn = sample(workers.clone(), 1, &draw_seed(*n)).expect("there are two");
                drawn[0].operator == id("operator-0")
            })
            .count();
        assert!(first.abs_diff(10_000) < 320, "{first}");
    }
}

fn open_task() -> Task {
    let mut task_spec = spec(Hash::ZERO);
    task_spec.requirements.tags = vec!["cpu".to_owned()];
    task_spec.requirements.min_reputation = 2;
    let program = Program {
        id: task_spec.program,
        publisher: id("carol"),
        machine_version: MachineVersion::new(1),
        bytes: 4,
        memory_pages_min: 1,
        memory_pages_max: 16,
        published_at: Height::new(1),
    };
    task::open(
        Hash::of("task", &[]),
        id("alice"),
        &task_spec,
        &program,
        Amount::new(3),
        Height::new(10),
        4,
    )
}

#[test]
fn every_bar_keeps_a_worker_out_and_nothing_else_does() {
    let params = common::params();
    let task = open_task();
    let height = Height::new(20);
    // A third of 100,000, rounded up.
    assert_eq!(seat_bond(&task, &params).get(), 33_334);
    let mut fit = worker("worker-0", "operator-0", 33_334);
    fit.reputation.accepted = 2;
    fit.terms.gas_limit_max = task.gas_limit;
    fit.terms.memory_pages_max = task.memory_pages;
    fit.terms.price_per_mgas = task.price_per_mgas;
    fit.registered_at = Height::new(17);
    assert_eq!(bar(&fit, &task, &params, height), None);
    type Change = fn(&mut Worker, &mut Task);
    let cases: [(Bar, Change); 13] = [
        (Bar::Inactive, |w, _| w.terms.active = false),
        (Bar::Inactive, |w, _| w.retiring = true),
        (Bar::TooRecent, |w, _| w.registered_at = Height::new(18)),
        (Bar::Requester, |w, _| w.operator = id("alice")),
        (Bar::Requester, |w, _| w.id = id("alice")),
        (Bar::Missed, |w, t| t.missed.push(w.id)),
        (Bar::Seated, |w, t| {
            let other = worker("worker-1", "operator-0", 1);
            assert_eq!(other.operator, w.operator);
            task::seat(t, &[other], Amount::ZERO, Moment::default());
        }),
        (Bar::Gas, |_, t| {
            t.gas_limit = Gas::new(t.gas_limit.get() + 1);
        }),
        (Bar::Memory, |_, t| t.memory_pages += 1),
        (Bar::Price, |w, t| {
            w.terms.price_per_mgas = Amount::new(t.price_per_mgas.get() + 1);
        }),
        (Bar::Tags, |_, t| {
            t.requirements.tags.push("gpu".to_owned());
        }),
        (Bar::Reputation, |w, _| w.reputation.accepted = 1),
        (Bar::Collateral, |w, _| {
            w.locked = Amount::new(w.locked.get() + 1);
        }),
    ];
    for (expected, change) in cases {
        let (mut worker, mut task) = (fit.clone(), task.clone());
        change(&mut worker, &mut task);
        assert_eq!(bar(&worker, &task, &params, height), Some(expected));
    }
}

#[test]
fn a_survey_counts_all_registered_workers_and_the_requester_is_never_drawn() {
    let mut start = genesis();
    start.workers[0].operator = id("alice");
    start.workers[1].terms.active = false;
    start.workers[2].terms.price_per_mgas = Amount::new(u64::MAX);
    let world = World::with(|genesis| *genesis = start);
    let mut task = open_task();
    task.requirements.min_reputation = 0;
    let mut overlay = Overlay::new(&world.state);
    let survey =
        survey(&mut overlay, &task, &world.genesis.params, Height::new(20)).expect("readable");
    assert_eq!(
        survey.barred,
        [(Bar::Inactive, 1), (Bar::Requester, 1), (Bar::Price, 1)]
    );
    assert_eq!((survey.eligible.len(), survey.operators()), (5, 5));
    assert!(survey.eligible.is_sorted_by_key(|worker| worker.id));
    for n in 0..500 {
        let drawn = sample(survey.eligible.clone(), 5, &draw_seed(n)).expect("there are five");
        assert!(drawn.iter().all(|worker| worker.operator != id("alice")));
    }
}

#[test]
fn a_seed_depends_on_beacon_block_index_and_draw() {
    let (beacon, task) = (Hash::of("beacon", &[]), open_task());
    let changed = |change: fn(&mut Task)| {
        let mut task = task.clone();
        change(&mut task);
        seed(&beacon, &task)
    };
    let mut seeds = vec![
        seed(&beacon, &task),
        seed(&Hash::ZERO, &task),
        changed(|t| t.submitted_at = Height::new(11)),
        changed(|t| t.index = 5),
        changed(|t| t.draws = 1),
    ];
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 5);
}
