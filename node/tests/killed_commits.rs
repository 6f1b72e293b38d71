//! A process that commits one block after another as fast as it can is killed at a moment that nobody
//! chose: every block that it told of is there, with its state, its transactions and its order.
//!
//! `PROOFMILL_KILLS` says how often (6), `PROOFMILL_SEED` repeats a run's moments.

mod support;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use proofmill_chain::types::units::Height;
use proofmill_node::genesis_file;
use proofmill_node::home::Home;
use proofmill_node::store::Store;
use support::{PATIENCE, Process, Random, command, count_from_environment, run_to_end, within};

/// Kills, unless the environment says.
const KILLS: u64 = 6;
/// More blocks than are committed before the kill, and than wait to be indexed.
const BLOCKS: u64 = 600;
/// A kill comes when at most so many blocks are told of, and up to so much later.
const TOLD_MAX: u64 = 420;
const KILL_WITHIN_US: u64 = 30_000;

#[test]
fn what_a_killed_process_told_of_is_there() {
    let kills = count_from_environment("PROOFMILL_KILLS", KILLS);
    let mut random = Random::from_environment();
    for kill in 1..=kills {
        let place = tempfile::tempdir().expect("a directory");
        let home = Home::new(place.path().join("home"));
        let told = commit_and_kill(&home, place.path(), &mut random);
        let head = is_whole(&home, told);
        eprintln!("kill {kill}: {told} blocks told of, {head} there");
    }
}

/// Has a process commit blocks and kills it; gives the last block that it told of.
fn commit_and_kill(home: &Home, place: &Path, random: &mut Random) -> u64 {
    let mut command = command();
    command.args(["bench", "chain", "--pattern", "mixed"]);
    command.args(["--txs", "40", "--accounts", "400"]);
    command.arg("--blocks").arg(BLOCKS.to_string());
    command.arg("--home").arg(home.path());
    let output = place.join("output");
    let mut process = Process::start("the chain", command, &output, &[]);
    let goal = random.below(TOLD_MAX);
    within(PATIENCE, "blocks are committed", || {
        assert_eq!(process.status(), None, "it ended before it was killed");
        told(&output).filter(|told| *told >= goal)
    });
    thread::sleep(Duration::from_micros(random.below(KILL_WITHIN_US)));
    process.kill();
    process.wait();
    told(&output).expect("it told of blocks")
}

/// The last `blocks: N of M` that was written.
fn told(output: &Path) -> Option<u64> {
    let text = fs::read_to_string(output).ok()?;
    let counts = text.lines().rev().find_map(|line| {
        let line = line.strip_prefix("blocks: ")?;
        let (count, _) = line.split_once(" of ")?;
        Some(count.parse())
    })?;
    Some(counts.expect("a number"))
}

/// Opens what is left, twice, and replays it; gives the head's height.
fn is_whole(home: &Home, told: u64) -> Height {
    let genesis = genesis_file::load(&home.genesis())
        .expect("a genesis")
        .genesis;
    let mut head = None;
    for _ in 0..2 {
        // Opening compares the state's root with the header's.
        let store = Store::open(&home.database(), &genesis).expect("what a kill leaves opens");
        let there = store.head();
        assert!(there.height.get() >= told, "{} of {told}", there.height);
        assert_eq!(head.replace(there).unwrap_or(there), there);
        for height in 1..=there.height.get() {
            let height = Height::new(height);
            let receipts = store.receipts(height).expect("readable").expect("there");
            for receipt in receipts {
                let at = store.transaction_at(&receipt.transaction);
                assert_eq!(at, Ok(Some((height, receipt.index))));
            }
        }
    }
    let replay = run_to_end(command().args(["replay", "--home"]).arg(home.path()));
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success(), "{said}");
    head.expect("it was opened").height
}
