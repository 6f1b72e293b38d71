//! `proofmill bench`: how fast this machine verifies blocks.

mod modules;
mod table;

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use crate::bench::export::export;
use crate::bench::workload::{Pattern, Shape};
use crate::bench::{Options, Work, plot, saved, temporary, verify};
use crate::cli::progress::Progress;
use crate::cli::{Global, interrupt, out};
use crate::home::write_atomically;
use crate::limits;

const EXAMPLES: &str = "\
Examples:
  proofmill bench verify
  proofmill bench verify --txs 1000 --accounts 10000 --pattern zipf --json
  proofmill bench chain --home chain --blocks 20 --txs 1000";

const VERIFY_EXAMPLES: &str = "\
Examples:
  proofmill bench verify
  proofmill bench verify --threads 1 --pattern mixed --accounts 100000
  proofmill bench verify --save before
  proofmill bench verify --baseline before --plot verify.svg

Ratios are throughput of ours by that of a reference measured next to it: 1.00 is as fast as the
reference, more is faster. docs/benchmarks.md tells how to read them.";

const CHAIN_EXAMPLES: &str = "\
Examples:
  proofmill bench chain --home chain --blocks 200 --txs 10000
  proofmill replay --home chain";

/// Measure how fast this machine verifies blocks
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Verify blocks of a real chain, stage by stage, beside references of the same run
    ///
    /// The chain is made on the way and lives in a temporary directory: each block follows the one
    /// before, with its certificate, its beacon and signed transactions, and is committed durably.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Make a chain in a new home, for `proofmill replay`
    #[command(after_help = CHAIN_EXAMPLES)]
    Chain(ChainArgs),
    /// Validate and compile the most expensive modules that the rules accept, beside ordinary ones
    Modules(modules::ModulesArgs),
}

/// What blocks are made of.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct BlockArgs {
    /// Transactions of a block
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub txs: usize,
    /// Who sends to whom
    #[arg(long, value_enum, default_value_t = Pattern::Uniform)]
    pub pattern: Pattern,
}

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The blocks.
    #[command(flatten)]
    pub block: BlockArgs,
    /// Accounts of the state
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub accounts: usize,
    /// Threads that verify [default: all of this machine]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How many of a hundred transactions were verified before their block came: 0 or 100
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub seen: u8,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub blocks: usize,
    /// Write the stages as a picture
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Keep the figures under this name in the home's bench/
    #[arg(long, value_name = "NAME", conflicts_with = "baseline")]
    pub save: Option<String>,
    /// Show the difference from the figures kept under this name
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
}

/// What chain to make.
#[derive(Debug, clap::Args)]
pub struct ChainArgs {
    /// The blocks.
    #[command(flatten)]
    pub block: BlockArgs,
    /// Accounts of the state; a genesis file takes some hundred thousand
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub accounts: usize,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub blocks: usize,
}

impl BlockArgs {
    const fn shape(self, accounts: usize) -> Shape {
        Shape {
            pattern: self.pattern,
            accounts,
            txs: self.txs,
        }
    }
}

/// Measures.
///
/// # Errors
/// When an argument is out of range, or the disk fails.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    limits::raise_open_files()?;
    match args.command {
        BenchCommand::Verify(args) => run_verify(&args, global),
        BenchCommand::Chain(args) => run_chain(&args, global),
        BenchCommand::Modules(args) => modules::run(&args, global),
    }
}

fn run_verify(args: &VerifyArgs, global: &Global) -> anyhow::Result<()> {
    let options = Options {
        shape: args.block.shape(args.accounts),
        threads: args
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        blocks: args.blocks,
        seen: args.seen,
    };
    // What is wrong is said before minutes are spent.
    options.check()?;
    if let Some(name) = &args.save {
        saved::check_name("save", name)?;
    }
    let baseline = match &args.baseline {
        Some(name) => Some((name, saved::load(&global.home()?, name)?)),
        None => None,
    };
    let report = {
        let place = temporary()?;
        let path = place.path().to_owned();
        interrupt::on_ctrl_c(move || {
            // What cannot be removed stays where temporary files go.
            let _ = std::fs::remove_dir_all(path);
        });
        let bars = Bars::default();
        verify(&options, place.path(), &|work, done, total| {
            bars.show(work, done, total);
        })?
    };
    if let Some(path) = &args.plot {
        write_atomically(path, &plot::svg(&report))
            .with_context(|| format!("cannot write {}", path.display()))?;
        out::note(&format!("the picture is in {}", path.display()));
    }
    if let Some(name) = &args.save {
        let path = saved::save(&global.home()?, name, &report)?;
        out::note(&format!("the figures are in {}", path.display()));
    }
    let beside = baseline.map(|(name, baseline)| table::Beside {
        name: name.clone(),
        changes: saved::changes(&report, &baseline),
        differences: saved::differences(&report, &baseline),
    });
    if global.json {
        let mut object = serde_json::to_value(&report)?;
        if let Some(beside) = beside {
            object["baseline"] = serde_json::to_value(beside)?;
        }
        return out::json(&object);
    }
    out::text(&table::text(&report, beside.as_ref()))
}

fn run_chain(args: &ChainArgs, global: &Global) -> anyhow::Result<()> {
    global
        .home
        .as_ref()
        .context("say with --home which directory becomes the chain's home")?;
    let home = global.home()?;
    let exported = {
        let bars = Bars::default();
        let shape = args.block.shape(args.accounts);
        export(home.clone(), shape, args.blocks, &|work, done, total| {
            bars.show(work, done, total);
        })?
    };
    if global.json {
        let mut object = serde_json::to_value(exported)?;
        object["home"] = json!(home.path());
        return out::json(&object);
    }
    let mut text = out::pairs(&[
        ("home", home.path().display().to_string()),
        ("blocks", exported.height.to_string()),
        ("transactions", exported.transactions.to_string()),
        ("bytes", exported.bytes.to_string()),
    ]);
    text.push_str(&format!(
        "verify it again: proofmill replay --home {}\n",
        home.path().display()
    ));
    out::text(&text)
}

/// One bar after the other.
#[derive(Default)]
struct Bars(Mutex<Option<(Work, Progress)>>);

impl Bars {
    fn show(&self, work: Work, done: u64, total: u64) {
        // A thread that died while it showed something took nothing along.
        let Ok(mut shown) = self.0.lock() else {
            return;
        };
        let bar = match shown.take().filter(|(shown, _)| *shown == work) {
            Some((_, bar)) => bar,
            None => Progress::start(
                match work {
                    Work::Accounts => "accounts",
                    Work::State => "state",
                    Work::Blocks => "blocks",
                    Work::Modules => "modules",
                },
                total,
            ),
        };
        bar.at(done);
        *shown = Some((work, bar));
    }
}

#[cfg(test)]
mod tests;
