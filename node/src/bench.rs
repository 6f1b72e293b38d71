//! Measuring the block path of this machine: a real chain is built block by block, every block goes
//! the whole way of a node, and beside each stage stand references measured in the same run.
//!
//! ```text
//! workload ─▶ chain ─make─▶ block ─▶ measure: reference, ours, reference, ours … ─▶ commit ─▶ next
//!                                        └──▶ report ─▶ table, JSON, plot
//! ```
//! Figures of different minutes of a machine differ by more than what is to be seen: ratios are
//! taken within a pair of neighbours, and their median and quartiles are what is told.

pub mod chain;
pub mod export;
pub mod figures;
pub mod ledger;
pub mod measure;
pub mod modules;
pub mod plot;
pub mod reference;
pub mod report;
pub mod saved;
pub mod seen;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod verifier;
pub mod workload;

use std::io;
use std::path::{Path, PathBuf};

use proofmill_chain::build::BuildError;
use proofmill_chain::pipeline::BlockError;
use proofmill_chain::state::StateError;
use proofmill_chain::types::block::BLOCK_BYTES_MAX;

use self::chain::Chain;
use self::measure::{Measured, Rig};
use self::report::Report;
use self::stream::{SEGMENTS, Stream};
use self::workload::{Pattern, Shape, Workload};
use crate::home::HomeError;
use crate::store::StoreError;

/// Most transactions of a block: the development network's parameters say so.
pub const TXS_MAX: usize = 20_000;
/// Most accounts: each takes some hundred bytes of memory.
pub const ACCOUNTS_MAX: usize = 10_000_000;
/// Most blocks of one run.
pub const BLOCKS_MAX: usize = 100_000;
/// Most threads.
pub const THREADS_MAX: usize = 1_024;
/// Fewest pairs of reference and ours, whatever the number of blocks.
pub const PAIRS_MIN: usize = 10;
/// Room of a block for its header, its certificate and its lists' lengths.
const FRAME_BYTES: usize = 2_048;

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Making the keys of accounts.
    Accounts,
    /// Laying out their state.
    State,
    /// Making and measuring blocks.
    Blocks,
    /// Making and measuring modules.
    Modules,
}

/// Called with what is under way, how much of it is done, and how much there is.
pub type Watch<'a> = &'a (dyn Fn(Work, u64, u64) + Sync);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument outside its range.
    #[error("--{flag} {given}: {rule}")]
    Argument {
        /// Which.
        flag: &'static str,
        /// Its value.
        given: String,
        /// What it must be.
        rule: String,
    },
    /// Not all transactions fit into a block.
    #[error("--txs {txs}: only {fit} transactions of the pattern {} fit into a block ({reason})", .pattern.name())]
    Fit {
        /// How many were asked for.
        txs: usize,
        /// Of which pattern.
        pattern: Pattern,
        /// How many fit.
        fit: usize,
        /// Why the next one does not.
        reason: String,
    },
    /// A reference refuses signatures that the chain takes: one of the two is wrong.
    #[error("the reference `{0}` refuses signatures that the block path takes")]
    Reference(&'static str),
    /// The store is another one after it was closed and opened: a bug.
    #[error("the store that was closed and opened again has another head")]
    Restart,
    /// No such baseline.
    #[error("no baseline `{name}` in {}: {}", .place.display(), there(.known))]
    NoBaseline {
        /// Which was asked for.
        name: String,
        /// Where it would be.
        place: PathBuf,
        /// Which there are.
        known: Vec<String>,
    },
    /// A baseline cannot be read.
    #[error("the baseline {} is damaged ({error}): save it again with --save", .path.display())]
    BadBaseline {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A block that was made is not valid: a bug.
    #[error("a block of the bench is not valid: {0}")]
    Block(#[from] BlockError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A block that cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The home that is written.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The threads could not be started.
    #[error("the threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The file system refused.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn there(known: &[String]) -> String {
    if known.is_empty() {
        "there are none yet, make one with --save".into()
    } else {
        format!("there are {}", known.join(", "))
    }
}

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The blocks.
    pub shape: Shape,
    /// On how many threads.
    pub threads: usize,
    /// How many blocks.
    pub blocks: usize,
    /// How many of a hundred transactions were verified before their block came: none or all.
    pub seen: u8,
}

impl Options {
    /// Checks the numbers.
    ///
    /// # Errors
    /// The first that is out of range, with the rule.
    pub fn check(&self) -> Result<(), BenchError> {
        check_shape(&self.shape)?;
        within("threads", self.threads, 1, THREADS_MAX)?;
        within("blocks", self.blocks, 1, BLOCKS_MAX)?;
        if self.seen != 0 && self.seen != 100 {
            return Err(BenchError::Argument {
                flag: "seen",
                given: self.seen.to_string(),
                rule: "0 for none of the transactions, or 100 for all".into(),
            });
        }
        Ok(())
    }

    /// Pairs measured with each block.
    #[must_use]
    pub const fn pairs_per_block(&self) -> usize {
        PAIRS_MIN.div_ceil(self.blocks)
    }
}

/// Checks the numbers of a block.
///
/// # Errors
/// The first that is out of range, with the rule.
pub fn check_shape(shape: &Shape) -> Result<(), BenchError> {
    within("txs", shape.txs, 1, TXS_MAX)?;
    within("accounts", shape.accounts, 2, ACCOUNTS_MAX)?;
    let (needed, room) = (shape.block_bytes_max(), BLOCK_BYTES_MAX - FRAME_BYTES);
    if needed > room {
        return Err(BenchError::Argument {
            flag: "txs",
            given: shape.txs.to_string(),
            rule: format!(
                "the pattern {} needs up to {needed} bytes for so many, and a block has room for \
                 {room}",
                shape.pattern.name()
            ),
        });
    }
    Ok(())
}

fn within(flag: &'static str, given: usize, least: usize, most: usize) -> Result<(), BenchError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(BenchError::Argument {
        flag,
        given: given.to_string(),
        rule: format!("{least} to {most} are possible"),
    })
}

/// Builds the chain in an empty directory, measures its blocks and reports.
///
/// # Errors
/// When a number is out of range, the disk fails, or something that was made is not valid.
pub fn verify(options: &Options, place: &Path, watch: Watch<'_>) -> Result<Report, BenchError> {
    options.check()?;
    let workload = Workload::new(options.shape, watch);
    let mut chain = Chain::start(place, workload, watch)?;
    let rig = Rig::new(options)?;
    let mut measured = Measured::default();
    let blocks = options.blocks as u64;
    let total = blocks.saturating_add(SEGMENTS);
    let following = temporary()?;
    let stream = Stream::start(following.path(), &chain)?;
    watch(Work::Blocks, 0, total);
    for done in 1..=blocks {
        let made = rig.measure(&mut chain, &mut measured)?;
        stream.follow(&[made], rig.pool())?;
        watch(Work::Blocks, done, total);
    }
    for done in 1..=SEGMENTS {
        let segment = stream.segment(&mut chain, rig.pool())?;
        measured.segments.push(segment);
        watch(Work::Blocks, blocks.saturating_add(done), total);
    }
    measured.restart = stream.restart(&chain, rig.pool())?;
    Ok(Report::of(options, &measured))
}

/// A directory that is removed when it is dropped.
///
/// # Errors
/// When it cannot be made.
pub fn temporary() -> Result<tempfile::TempDir, BenchError> {
    tempfile::Builder::new()
        .prefix("proofmill-")
        .tempdir()
        .map_err(|error| BenchError::Io {
            path: std::env::temp_dir(),
            error,
        })
}
