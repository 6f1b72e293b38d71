//! What a run found: the figures, as JSON and as a table for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::Options;
use crate::bench::figures::Figures;
use crate::bench::measure::{Measured, Pair, STAGES, Way};
use crate::bench::workload::Pattern;
use crate::{COMMIT, VERSION};

/// The stage that ends on the disk.
pub const COMMIT_STAGE: &str = "commit";

/// One line of times, per transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What took it.
    pub name: String,
    /// The fastest block, microseconds per transaction.
    pub us_per_tx_min: f64,
    /// The median block, microseconds per transaction.
    pub us_per_tx_median: f64,
}

/// Throughput of ours by that of a reference: more than 1 is faster than the reference. Each is the
/// median over the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// The verify stage by the bare batch, keys decompressed on the way in both.
    pub signature_vs_bare_parsed: f64,
    /// The verify stage by the bare batch, keys decompressed before in both.
    pub signature_vs_bare_cached: f64,
    /// The verify stage, no key seen, by verification one by one.
    pub signature_vs_naive: f64,
    /// The chain's batch alone by the bare batch, keys decompressed on the way in both.
    pub batch_vs_bare_parsed: f64,
    /// The chain's batch alone by the bare batch, keys decompressed before in both.
    pub batch_vs_bare_cached: f64,
    /// Decoding to sealing, no key seen, by the bare batch.
    pub block_vs_bare_parsed: f64,
    /// A steady stream of blocks from bytes to disk, no key seen, by the bare batch.
    pub durable_vs_bare_parsed: f64,
    /// Decoding to sealing, every key seen, by the bare batch with keys decompressed before.
    pub block_cached_vs_bare_cached: f64,
    /// A block whose transactions were verified before by one whose transactions were not.
    pub seen_vs_unseen: f64,
    /// What more threads gain.
    pub thread_scaling: Scaling,
}

/// What going from one thread to all gains, by what the bare batch gains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// In the verify stage.
    pub signature: f64,
    /// From decoding to sealing.
    pub block: f64,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The arithmetic that verified.
    pub backend: String,
    /// The processor.
    pub processor: String,
    /// On how many threads.
    pub threads: usize,
    /// How many accounts the state has.
    pub accounts: usize,
    /// How many transactions a block has.
    pub txs: usize,
    /// How many blocks.
    pub blocks: usize,
    /// Who sends to whom.
    pub pattern: Pattern,
    /// How many of a hundred transactions were verified before their block came.
    pub seen: u8,
    /// How many pairs of reference and ours.
    pub pairs: usize,
    /// Signatures of the median block.
    pub signatures: f64,
    /// Bytes of the median block.
    pub block_bytes: f64,
    /// Ours, no key seen before, one stage after the other.
    pub stages: Vec<Line>,
    /// Ours, every key seen before.
    pub stages_cached: Vec<Line>,
    /// Decoding to sealing as a node does it, with execution beside the signatures (`block`, `block,
    /// keys cached`), and a block of a stream that becomes durable beside the verification of the next
    /// (`durable`).
    pub totals: Vec<Line>,
    /// The references and the chain's batch alone.
    pub references: Vec<Line>,
    /// Transactions per second from bytes to disk, in the stream's median segment.
    pub tx_per_s: f64,
    /// Transactions per second from bytes to the sealed block.
    pub tx_per_s_sealed: f64,
    /// Beside the references.
    pub ratios: Ratios,
    /// By name of the ratio: lower quartile, median, upper quartile.
    pub ratios_spread: BTreeMap<String, [f64; 3]>,
    /// The new state root alone, milliseconds, in the median block.
    pub root_ms: f64,
    /// Opening the store again with the whole state and its root, milliseconds.
    #[serde(default)]
    pub restart_ms: f64,
}

impl Report {
    /// Sums a run up.
    #[must_use]
    pub fn of(options: &Options, measured: &Measured) -> Self {
        let pairs = &measured.pairs;
        let txs = options.shape.txs as f64;
        let line = |name: &str, values: Vec<f64>| {
            let figures = Figures::of(values.into_iter().map(|us| us / txs));
            Line {
                name: name.to_owned(),
                us_per_tx_min: figures.min,
                us_per_tx_median: figures.median,
            }
        };
        let each = |of: fn(&Pair) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
        let stages_of = |of: fn(&Pair) -> Way| -> Vec<Line> {
            STAGES
                .iter()
                .enumerate()
                .map(|(at, name)| line(name, pairs.iter().map(|pair| of(pair).0[at]).collect()))
                .collect()
        };
        let mut stages = stages_of(|pair| pair.ours);
        stages.push(line(COMMIT_STAGE, measured.commits.clone()));
        let segments = measured.segments.iter();
        let durable: Vec<f64> = segments.map(|segment| segment.durable).collect();
        let per_second = |us: &[f64]| Figures::of(us.iter().map(|us| txs / us * 1e6)).median;
        let whole = each(|pair| pair.block);
        let (ratios, ratios_spread) = ratios(measured);
        let middle = |values: &[usize]| Figures::of(values.iter().map(|v| *v as f64)).median;
        Self {
            version: VERSION.into(),
            commit: COMMIT.into(),
            backend: measured.backend.clone(),
            processor: processor(),
            threads: options.threads,
            accounts: options.shape.accounts,
            txs: options.shape.txs,
            blocks: options.blocks,
            pattern: options.shape.pattern,
            seen: options.seen,
            pairs: pairs.len(),
            signatures: middle(&measured.signatures),
            block_bytes: middle(&measured.bytes),
            stages,
            stages_cached: stages_of(|pair| pair.ours_cached),
            tx_per_s: per_second(&durable),
            tx_per_s_sealed: per_second(&whole),
            totals: vec![
                line("block", whole),
                line("block, keys cached", each(|pair| pair.block_cached)),
                line("durable", durable),
            ],
            references: vec![
                line("bare batch, keys parsed", each(|pair| pair.bare_parsed)),
                line("bare batch, keys cached", each(|pair| pair.bare_cached)),
                line("one by one", each(|pair| pair.naive)),
                line("our batch alone, keys parsed", each(|pair| pair.batch)),
                line(
                    "our batch alone, keys cached",
                    each(|pair| pair.batch_cached),
                ),
            ],
            ratios,
            ratios_spread,
            root_ms: Figures::of(each(|pair| pair.root / 1e3)).median,
            restart_ms: Figures::of([measured.restart / 1e3]).median,
        }
    }

    /// The stages in their order, then the totals.
    pub fn stages_and_totals(&self) -> impl Iterator<Item = &Line> {
        self.stages.iter().chain(&self.totals)
    }
}

/// The medians, and the quartiles by name.
fn ratios(measured: &Measured) -> (Ratios, BTreeMap<String, [f64; 3]>) {
    let pairs = &measured.pairs;
    let mut spread = BTreeMap::new();
    let mut keep = |name: &str, figures: Figures| {
        spread.insert(name.to_owned(), figures.spread());
        figures.median
    };
    let of = |ratio: fn(&Pair) -> f64| Figures::of(pairs.iter().map(ratio));
    let segments = measured.segments.iter();
    let durable = Figures::of(segments.map(|segment| segment.bare_parsed / segment.durable));
    let ratios = Ratios {
        signature_vs_bare_parsed: keep(
            "signature_vs_bare_parsed",
            of(|pair| pair.bare_parsed / pair.ours.signatures()),
        ),
        signature_vs_bare_cached: keep(
            "signature_vs_bare_cached",
            of(|pair| pair.bare_cached / pair.ours_cached.signatures()),
        ),
        signature_vs_naive: keep(
            "signature_vs_naive",
            of(|pair| pair.naive / pair.beside_naive.signatures()),
        ),
        batch_vs_bare_parsed: keep(
            "batch_vs_bare_parsed",
            of(|pair| pair.bare_parsed / pair.batch),
        ),
        batch_vs_bare_cached: keep(
            "batch_vs_bare_cached",
            of(|pair| pair.bare_cached / pair.batch_cached),
        ),
        block_vs_bare_parsed: keep(
            "block_vs_bare_parsed",
            of(|pair| pair.bare_parsed_again / pair.block),
        ),
        durable_vs_bare_parsed: keep("durable_vs_bare_parsed", durable),
        block_cached_vs_bare_cached: keep(
            "block_cached_vs_bare_cached",
            of(|pair| pair.bare_cached_again / pair.block_cached),
        ),
        seen_vs_unseen: keep("seen_vs_unseen", of(|pair| pair.unseen / pair.seen)),
        thread_scaling: Scaling {
            signature: keep(
                "thread_scaling.signature",
                of(|pair| {
                    let ours = pair.ours_one.signatures() / pair.ours.signatures();
                    ours / (pair.bare_one / pair.bare_parsed)
                }),
            ),
            block: keep(
                "thread_scaling.block",
                of(|pair| {
                    let ours = pair.block_one / pair.block;
                    ours / (pair.bare_one / pair.bare_parsed_again)
                }),
            ),
        },
    };
    (ratios, spread)
}

/// The processor's name, as the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, name)| name.trim().to_owned(),
        )
}
