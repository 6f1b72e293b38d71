//! The state root of one block: Proofmill's tree beside `jmt` 0.12 over RocksDB, in one run.
//!
//! ```text
//! cargo run --release -- [ACCOUNTS [TOUCHED [BLOCKS]]]
//! ```
//! Both get the same keys and values. A pair is a block on jmt, then the same block on ours; each
//! side updates its tree and makes the block durable in one synced batch of its own RocksDB: jmt
//! its nodes, values and list of stale nodes, ours the changed records (its tree is rebuilt from
//! them on start); making the new root the tree's in memory counts as a part of our commit. The two roots differ by design and are each checked against reads.

mod jellyfish;
mod ours;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proofmill_chain::types::hash::Hash;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};

use crate::jellyfish::Jellyfish;
use crate::ours::Ours;

/// A key and its value.
type Write = (Hash, Vec<u8>);

/// Accounts that are inserted at once while the state is laid out.
const LAID_AT_ONCE: usize = 100_000;
/// A record of an account: kind, balance, nonce.
const VALUE_BYTES: usize = 20;

/// Milliseconds of one block.
#[derive(Clone, Copy)]
struct Times {
    update: f64,
    commit: f64,
}

impl Times {
    fn whole(&self) -> f64 {
        self.update + self.commit
    }
}

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| {
        text.parse::<usize>()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("`{text}`: a number from 1 on is expected"))
    });
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (accounts, touched, blocks) = (next(1_000_000)?, next(20_000)?, next(12)?);
    ensure!(
        touched <= accounts,
        "more accounts are touched than there are"
    );

    let place = tempfile::tempdir().context("a temporary directory")?;
    let mut jellyfish = Jellyfish::open(&place.path().join("jmt"))?;
    let mut ours = Ours::open(&place.path().join("ours"))?;
    for first in (0..accounts).step_by(LAID_AT_ONCE) {
        let last = accounts.min(first + LAID_AT_ONCE);
        let writes: Vec<Write> = (first..last)
            .into_par_iter()
            .map(|index| (key(index), value(index, 0)))
            .collect();
        jellyfish.lay(&writes)?;
        ours.lay(&writes)?;
        eprintln!("accounts: {last} of {accounts}");
    }

    let mut pairs = Vec::with_capacity(blocks);
    for block in 1..=blocks {
        // A stride that is prime to most numbers of accounts spreads the touched ones.
        let writes: Vec<Write> = (0..touched)
            .map(|at| {
                let index = (block * 7_919 + at * 104_729) % accounts;
                (key(index), value(index, block))
            })
            .collect();
        let theirs = jellyfish.block(&writes)?;
        let own = ours.block(&writes)?;
        for (key, value) in writes.iter().rev().take(3) {
            ensure!(
                jellyfish.get(key)?.as_ref() == Some(value),
                "jmt lost a value"
            );
            ensure!(ours.has(key, value), "our tree lost a value");
        }
        pairs.push((theirs, own));
    }
    report(accounts, touched, &pairs);
    Ok(())
}

fn key(index: usize) -> Hash {
    Hash::of("jmt-comparison/key", &[&index.to_le_bytes()])
}

fn value(index: usize, block: usize) -> Vec<u8> {
    let mut value = vec![1; VALUE_BYTES];
    value[4..12].copy_from_slice(&index.to_le_bytes());
    value[12..].copy_from_slice(&block.to_le_bytes());
    value
}

fn report(accounts: usize, touched: usize, pairs: &[(Times, Times)]) {
    let row = |name: &str, of: &dyn Fn(&(Times, Times)) -> f64| {
        let [lower, median, upper] = quartiles(pairs.iter().map(of).collect());
        println!("{name:34} {median:9.2}  {lower:9.2}  {upper:9.2}");
    };
    println!(
        "{} blocks, {touched} of {accounts} accounts touched, {} threads",
        pairs.len(),
        rayon::current_num_threads()
    );
    println!("{:34} {:>9}  {:>9}  {:>9}", "", "MEDIAN", "LOWER", "UPPER");
    row("jmt update, ms", &|(theirs, _)| theirs.update);
    row("jmt commit, ms", &|(theirs, _)| theirs.commit);
    row("ours update, ms", &|(_, own)| own.update);
    row("ours commit, ms", &|(_, own)| own.commit);
    row("ratio, update and commit / update", &|(theirs, own)| {
        theirs.whole() / own.update
    });
    row("ratio, update / update", &|(theirs, own)| {
        theirs.update / own.update
    });
    row("ratio, durable / durable", &|(theirs, own)| {
        theirs.whole() / own.whole()
    });
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [1, 2, 3].map(|quarter| values[last * quarter / 4])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Runs something and tells how long it took, milliseconds.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let start = Instant::now();
    let done = work()?;
    Ok((ms(start.elapsed()), done))
}
