//! Several nodes in virtual time: the core and Malachite's state machine under a hostile network,
//! crashes, damaged homes, wrong clocks and dishonest validators.
//!
//! A run follows from its seed alone. It is single-threaded; the network, the timers, the disks
//! and the work that the core orders are modelled, the core (`proofmill_consensus::core`), Malachite's state
//! machine, the signing guard's rules and the rule about a header's turn are the real ones. What
//! it leaves out is Malachite's shell: the process tests are for that.
//!
//! ```text
//! seed ─▶ plan: who, which network, which faults when
//!      ─▶ world: queue of events in virtual time ─▶ node: engine · core · sync · disk · clock
//!      ─▶ observed: what must hold, checked at each event
//! ```
//!
//! `docs/testing.md` says how to run more seeds, how to go on after an interruption and how to
//! replay a seed.

#[path = "../../src/context.rs"]
#[allow(
    dead_code,
    reason = "the engine's vocabulary is the adapter's own; the simulation needs less of it"
)]
mod context;

mod actions;
mod block;
mod byzantine;
mod connector;
mod disk;
mod engine;
mod guard;
mod keyed;
mod node;
mod observed;
mod plan;
mod random;
mod sync;
mod undo;
mod work;
mod world;

pub(crate) use proofmill_consensus::core;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use self::undo::Undo;
use self::world::Outcome;

/// Seeds of the default suite.
const SEEDS: u64 = 400;
/// Seeds between two notes of how far a long run has come.
const BATCH: u64 = 100;
/// Lines at the end of a trace that are printed with a failure.
const TRACE_TAIL: usize = 40;

/// What the seeds of the default suite bring about, or they test less than they claim.
const MEANT: [&str; 9] = [
    "kills",
    "kills with damage",
    "offences seen",
    "proposers accused",
    "refused signatures",
    "starts without signing",
    "synced blocks",
    "synced junk",
    "waits for early blocks",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a 64-bit integer, not `{text}`")))
}

fn replay(test: &str, seed: u64) -> String {
    format!(
        "PROOFMILL_SEED={seed} PROOFMILL_TRACE=1 cargo test --release --locked \
         -p proofmill-consensus --test seeded {test} -- --exact --nocapture"
    )
}

/// Runs a seed; a panic in it is a violation as well.
fn run(seed: u64, undo: &Undo, traced: bool) -> Outcome {
    let undo = undo.clone();
    let run = std::panic::catch_unwind(move || world::run(seed, &undo, traced));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            violation: Some(format!("panic: {}", text.unwrap_or_default())),
            trace: Vec::new(),
            counts: BTreeMap::new(),
            heights: 0,
            events: 0,
            rounds: proofmill_chain::types::units::Round::default(),
        }
    })
}

/// What a number of runs did.
#[derive(Default)]
struct Sums {
    /// The lowest seed that failed, and how.
    failed: Option<(u64, String)>,
    heights: u64,
    events: u64,
    rounds: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Runs seeds until one fails; all cores help.
fn run_all(seeds: std::ops::Range<u64>, undo: &Undo) -> Sums {
    let next = AtomicU64::new(seeds.start);
    let sums = Mutex::new(Sums::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(seed, undo, false);
                    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                    sums.heights += outcome.heights;
                    sums.events += outcome.events;
                    sums.rounds += u64::from(outcome.rounds.get());
                    for (what, count) in outcome.counts {
                        *sums.counts.entry(what).or_default() += count;
                    }
                    if let Some(violation) = outcome.violation {
                        next.fetch_max(seeds.end, Ordering::Relaxed);
                        let lowest = sums.failed.as_ref().map(|(lowest, _)| *lowest);
                        if lowest.is_none_or(|lowest| seed < lowest) {
                            sums.failed = Some((seed, violation));
                        }
                        return;
                    }
                }
            });
        }
    });
    sums.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Replays a seed with its trace and fails if the seed does.
fn replay_one(test: &str, seed: u64, undo: &Undo) -> Outcome {
    let outcome = run(seed, undo, true);
    let all = number("PROOFMILL_TRACE").is_some_and(|trace| trace > 0);
    let shown = if all { outcome.trace.len() } else { TRACE_TAIL };
    for line in &outcome.trace[outcome.trace.len().saturating_sub(shown)..] {
        eprintln!("{line}");
    }
    eprintln!(
        "seed {seed}: {} heights, {} events, highest round {}: {}\nrepeat: {}",
        outcome.heights,
        outcome.events,
        outcome.rounds,
        outcome.violation.as_deref().unwrap_or("all as it must be"),
        replay(test, seed)
    );
    outcome
}

#[test]
fn no_seed_stops_the_chain_or_splits_it() {
    const TEST: &str = "no_seed_stops_the_chain_or_splits_it";
    let undo = Undo::default();
    if let Some(seed) = number("PROOFMILL_SEED") {
        let outcome = replay_one(TEST, seed, &undo);
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let end = number("PROOFMILL_SEEDS").unwrap_or(SEEDS);
    let progress = std::env::var_os("PROOFMILL_PROGRESS").map(PathBuf::from);
    let mut from = match progress.as_ref().map(std::fs::read_to_string) {
        Some(Ok(text)) => text.trim().parse().expect("the progress file holds a seed"),
        _ => 0,
    };
    let batch = if progress.is_some() { BATCH } else { end };
    while from < end {
        let start = Instant::now();
        let to = end.min(from + batch);
        let sums = run_all(from..to, &undo);
        if let Some((seed, violation)) = sums.failed {
            replay_one(TEST, seed, &undo);
            panic!("seed {seed}: {violation}");
        }
        let seconds = start.elapsed().as_secs_f64();
        let Sums {
            heights,
            events,
            rounds,
            counts,
            ..
        } = sums;
        eprintln!(
            "seeds {from} to {to}: {heights} heights, {events} events, {rounds} highest rounds \
             in sum, {:.0} seeds a minute; {counts:?}",
            60.0 * (to - from) as f64 / seconds
        );
        if to - from >= SEEDS {
            for what in MEANT {
                assert!(counts.contains_key(what), "no run has any {what}");
            }
        }
        from = to;
        if let Some(file) = &progress {
            std::fs::write(file, format!("{from}\n")).expect("the progress file is written");
        }
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..10 {
        let [first, again] = [(); 2].map(|()| run(seed, &Undo::default(), true));
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert!(first.trace.len() > 100, "seed {seed} does something");
    }
}

fn undone(undo: impl Fn(&mut Undo)) -> Undo {
    let mut undone = Undo::default();
    undo(&mut undone);
    undone
}

/// A repair undone is found by this seed, and by this sign.
fn is_found(test: &str, seed: u64, sign: &str, undo: &Undo) {
    if let Some(seeds) = number("PROOFMILL_UNDONE_SEEDS") {
        let failed = run_all(0..seeds, undo).failed;
        eprintln!("{test}: the first of {seeds} seeds that finds it: {failed:?}");
        return;
    }
    let seed = number("PROOFMILL_SEED").unwrap_or(seed);
    let outcome = replay_one(test, seed, undo);
    let found = outcome.violation.expect("the repair undone is found");
    assert!(
        found.contains(sign),
        "seed {seed} finds something else: {found}"
    );
    // With the repair, the same seed passes.
    assert_eq!(run(seed, &Undo::default(), false).violation, None);
}

#[test]
fn blocks_from_the_future_that_hold_answers_are_found() {
    let undo = undone(|undo| undo.early_is_held = true);
    let test = "blocks_from_the_future_that_hold_answers_are_found";
    is_found(test, 0, "the engine waits 10 s for the connector", &undo);
}

#[test]
fn certified_blocks_held_for_the_clock_are_found() {
    let undo = undone(|undo| undo.certified_is_held = true);
    let test = "certified_blocks_held_for_the_clock_are_found";
    is_found(test, 33, "s for Synced", &undo);
}

#[test]
fn a_verdict_under_the_announced_hash_is_found() {
    let undo = undone(|undo| undo.verdict_by_announcement = true);
    let test = "a_verdict_under_the_announced_hash_is_found";
    is_found(test, 14, "disagrees with what is certified", &undo);
}

#[test]
fn a_header_of_a_later_round_is_found() {
    let undo = undone(|undo| undo.any_round = true);
    let test = "a_header_of_a_later_round_is_found";
    is_found(test, 0, "the rule of the header's round", &undo);
}

#[test]
fn a_value_handed_in_before_its_round_is_found() {
    let undo = undone(|undo| undo.value_is_early = true);
    let test = "a_value_handed_in_before_its_round_is_found";
    is_found(test, 4, "proposed or decided in round", &undo);
}

#[test]
fn a_missing_guard_is_found() {
    let undo = undone(|undo| undo.guard = true);
    let test = "a_missing_guard_is_found";
    is_found(test, 6, "signs two", &undo);
}
