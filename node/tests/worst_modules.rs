//! A network whose blocks are full of the worst modules that the limits accept keeps its pace: published
//! without a pause, they are compared with ordinary modules of the same size.
//!
//! The default is short. Two minutes of each:
//! ```text
//! PROOFMILL_MODULES_SECONDS=120 cargo test --release --locked --workspace --test worst_modules -- --nocapture
//! ```
//! `PROOFMILL_MODULES_PATTERN` chooses another pattern of those that `proofmill bench modules` lists.

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::Height;
use proofmill_compute::ModuleLimits;
use proofmill_compute::adversary::{fill, ordinary, patterns};
use proofmill_node::client::{Options, Wallet};
use proofmill_node::dev_keys;
use proofmill_rpc::api::ReceiptResult;
use support::{Devnet, Node, count_from_environment};

/// How long modules of a kind are published, unless the environment says.
const SECONDS: u64 = 6;
/// The pattern that takes longest to validate, by `proofmill bench modules --bytes 1048576`.
const PATTERN: &str = "br-table";
/// The examples whose functions make an ordinary module.
const EXAMPLES: [&[u8]; 2] = [
    include_bytes!("../../examples/digits/digits.wasm"),
    include_bytes!("../../examples/genome-align/genome-align.wasm"),
];
/// Publishers, each with one module under way: more than a block holds, so that the next one is waiting.
const PUBLISHERS: u32 = 4;
/// Bytes that `different` adds at most.
const MARK_BYTES: usize = 16;

#[test]
fn a_network_keeps_its_pace_under_the_worst_modules() {
    let seconds = count_from_environment("PROOFMILL_MODULES_SECONDS", SECONDS);
    let pattern = std::env::var("PROOFMILL_MODULES_PATTERN").unwrap_or_else(|_| PATTERN.into());
    let limits = ModuleLimits::default();
    let bytes = limits.module_bytes_max - MARK_BYTES;
    let worst = patterns().find(|known| known.name() == pattern);
    let worst = worst.unwrap_or_else(|| panic!("no pattern is called {pattern}"));
    let worst = fill(worst, bytes, &limits).expect("the pattern is accepted");
    let mut usual = ordinary(&EXAMPLES, bytes).expect("an ordinary module");
    pad(&mut usual, bytes);
    assert_eq!(usual.len(), worst.len());

    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(
        &place.path().join("devnet"),
        &["--port", "0", "--workers", "0"],
        &[],
    );
    let numbers = AtomicU64::new(0);
    let usual = published(&devnet, "ordinary", &usual, seconds, &numbers);
    println!("{usual}\n{}", sizes(&devnet));
    let worst = published(&devnet, &pattern, &worst, seconds, &numbers);
    println!("{worst}\n{}", sizes(&devnet));
    assert!(usual.modules > 0 && worst.modules > 0);
    assert!(
        worst.rounds <= usual.rounds + usual.intervals.len() as u64 / 20 + 1,
        "more rounds failed\n{usual}\n{worst}"
    );
}

/// What became of the blocks while modules of one kind were published.
struct Pace {
    kind: String,
    /// Modules in the blocks.
    modules: u64,
    /// Sum of the rounds in which the blocks were built: 0 where no proposer failed.
    rounds: u64,
    /// From each block to the next, milliseconds, sorted.
    intervals: Vec<u64>,
}

impl std::fmt::Display for Pace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |part: usize| self.intervals[(self.intervals.len() - 1) * part / 100];
        write!(
            out,
            "{}: {} modules in {} blocks, {} rounds failed; from block to block ms: median {}, 90% {}, most {}",
            self.kind,
            self.modules,
            self.intervals.len(),
            self.rounds,
            at(50),
            at(90),
            at(100),
        )
    }
}

/// The most memory that the first validator has had so far, and what it keeps.
fn sizes(devnet: &Devnet) -> String {
    let node = &devnet.ready.validators[0];
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid)).expect("a process");
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let files = fs::read_dir(node.home.join("data/db")).expect("a database");
    let bytes: u64 = files
        .filter_map(|file| file.ok()?.metadata().ok())
        .map(|file| file.len())
        .sum();
    let peak = peak.unwrap_or_default().replace(char::is_whitespace, " ");
    format!(
        "{}: {peak} resident, {} MiB on disk",
        node.name,
        bytes >> 20
    )
}

/// Publishes modules that differ only in a number, from several accounts at once.
fn published(
    devnet: &Devnet,
    kind: &str,
    module: &[u8],
    seconds: u64,
    numbers: &AtomicU64,
) -> Pace {
    let node = devnet.node(0);
    let genesis = node.client.node_info().expect("an answer").genesis_hash;
    let first = node.head().height;
    let over = AtomicBool::new(false);
    let modules = AtomicU64::new(0);
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let entry = devnet.node(publisher as usize).client;
            let wallet = Wallet::new(entry, genesis, dev_keys::account(publisher));
            let (over, modules) = (&over, &modules);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let module = Blob::new(different(module, number));
                    let action = Action::PublishProgram { module };
                    let sent = wallet.send(&action, &Options::default());
                    let receipt = wallet.wait_included(&sent.expect("it is taken"));
                    let receipt = receipt.expect("it is included");
                    assert_eq!(receipt.result, ReceiptResult::Applied);
                    modules.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The time is the measure, not something that is waited for.
        thread::sleep(Duration::from_secs(seconds));
        over.store(true, Ordering::Relaxed);
    });
    let last = node.head().height;
    pace(&node, kind, first, last, modules.into_inner())
}

fn pace(node: &Node, kind: &str, first: Height, last: Height, modules: u64) -> Pace {
    let mut intervals = Vec::new();
    let mut rounds = 0;
    let mut before = node.block(first).time_ms;
    for height in first.get() + 1..=last.get() {
        let block = node.block(Height::new(height));
        rounds += u64::from(block.round.get());
        intervals.push(block.time_ms - before);
        before = block.time_ms;
    }
    intervals.sort_unstable();
    Pace {
        kind: kind.into(),
        modules,
        rounds,
        intervals,
    }
}

/// The module with a custom section that holds a number.
fn different(module: &[u8], number: u64) -> Vec<u8> {
    let mut module = module.to_vec();
    // Id, length, length of the name, name, content.
    module.extend([0, 10, 1, b'n']);
    module.extend(number.to_be_bytes());
    module
}

/// Fills a module up with a custom section of zeros.
fn pad(module: &mut Vec<u8>, bytes: usize) {
    // Id, a length of three bytes (LEB128), length of the name.
    let Some(content) = bytes.checked_sub(module.len() + 5) else {
        return;
    };
    let length = content + 1;
    let group = |at: usize| u8::try_from(length >> (7 * at) & 0x7f).expect("seven bits");
    module.extend([0, group(0) | 0x80, group(1) | 0x80, group(2), 0]);
    module.resize(bytes, 0);
}
