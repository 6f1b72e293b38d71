//! `bench modules`: what the most expensive modules cost, as a table or as JSON.

use proofmill_compute::ModuleLimits;

use super::Bars;
use crate::bench::Work;
use crate::bench::modules::{ModuleLine, ModuleOptions, ModulesReport, measure_modules};
use crate::cli::{Global, out};
use crate::devnet::BLOCK_PROGRAM_BYTES_MAX;

const EXAMPLES: &str = "\
Examples:
  proofmill bench modules
  proofmill bench modules --bytes 1048576 --only call
  proofmill bench modules --bytes 1048576 --validate-only --json

Each line is the most expensive module of that size that the rules accept, made of one repeated
pattern. An ordinary module is the examples' functions, repeated to the same size.";

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ModulesArgs {
    /// Bytes of each module
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub bytes: usize,
    /// Only patterns whose name contains this
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub only: String,
    /// Do not compile, which takes most of the time
    #[arg(long)]
    pub validate_only: bool,
    /// Threads that validate a block
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,
}

pub(super) fn run(args: &ModulesArgs, global: &Global) -> anyhow::Result<()> {
    let options = ModuleOptions {
        bytes: args.bytes,
        only: args.only.clone(),
        compile: !args.validate_only,
        threads: args.threads,
        block_bytes: BLOCK_PROGRAM_BYTES_MAX as usize,
    };
    let report = {
        let bars = Bars::default();
        measure_modules(&options, &|done, total| {
            bars.show(Work::Modules, done, total);
        })?
    };
    if global.json {
        return out::json(&serde_json::to_value(&report)?);
    }
    out::text(&text(&report))
}

fn text(report: &ModulesReport) -> String {
    let limits = ModuleLimits::default();
    let mut text = format!(
        "modules of {} bytes, at most {} units of work\n\n{:<24}{:>9}{:>12}{:>13}{:>8}{:>12}{:>8}\n",
        report.bytes,
        limits.work_max(report.bytes),
        "pattern",
        "bytes",
        "work",
        "validate ms",
        "ratio",
        "compile s",
        "ratio",
    );
    for line in std::iter::once(&report.ordinary).chain(&report.patterns) {
        text.push_str(&row(line));
    }
    text.push('\n');
    if let Some(line) = report.slowest_to_validate() {
        text.push_str(&format!(
            "slowest to validate: {}, {:.1} ms, {:.1} times an ordinary module\n",
            line.name, line.validate_ms, line.validate_ratio
        ));
    }
    if let Some(line) = report
        .slowest_to_compile()
        .filter(|line| line.compile_s > 0.0)
    {
        text.push_str(&format!(
            "slowest to compile: {}, {:.2} s, {:.1} times an ordinary module\n",
            line.name, line.compile_s, line.compile_ratio
        ));
    }
    for block in &report.blocks {
        text.push_str(&format!(
            "a block of {} modules, {} bytes in all: {:.1} ms on {} threads\n",
            block.modules, block.bytes, block.validate_ms, report.threads
        ));
    }
    text
}

fn row(line: &ModuleLine) -> String {
    if line.bytes == 0 {
        return format!("{:<24}  refused\n", line.name);
    }
    format!(
        "{:<24}{:>9}{:>12}{:>13.2}{:>8.2}{:>12.3}{:>8.2}\n",
        line.name,
        line.bytes,
        line.work,
        line.validate_ms,
        line.validate_ratio,
        line.compile_s,
        line.compile_ratio
    )
}
