//! Measuring the machine's rules: what the most expensive modules that are still accepted cost to
//! validate and to compile, beside ordinary modules of the same size.
//!
//! ```text
//! examples ─ repeated ─▶ ordinary module ─┐
//! patterns ─ fill ─────▶ worst module ────┴─▶ validate, compile ─▶ lines with ratios ─▶ table, JSON
//! worst module, in parts ─▶ block ─ validate on so many threads ─▶ ms
//! ```
//! Other load on the machine changes the times little: of many short ones the least counts, and what
//! takes long is told in processor time of its thread, which the kernel counts in ticks.

use std::time::{Duration, Instant};

use proofmill_compute::adversary::{Pattern, fill, ordinary, patterns};
use proofmill_compute::fast::Wasmtime;
use proofmill_compute::{MachineError, ModuleLimits, Program, ProgramError};
use rayon::prelude::*;
use serde::Serialize;

/// The examples whose functions make an ordinary module.
const EXAMPLES: [&[u8]; 2] = [
    include_bytes!("../../../examples/digits/digits.wasm"),
    include_bytes!("../../../examples/genome-align/genome-align.wasm"),
];
/// Fewest bytes of a module: below, what every module costs hides what its bytes cost.
pub const BYTES_MIN: usize = 4_096;
/// Times that a module is validated; the fastest one counts.
const VALIDATIONS: usize = 20;
/// A block's modules are of these sizes: parts of its limit.
const BLOCK_PARTS: [usize; 4] = [1, 2, 16, 256];

/// What to measure.
#[derive(Clone, Debug)]
pub struct ModuleOptions {
    /// Bytes of each module.
    pub bytes: usize,
    /// Only patterns whose name contains this.
    pub only: String,
    /// Whether to compile them, which takes most of the time.
    pub compile: bool,
    /// Threads that validate a block.
    pub threads: usize,
    /// Bytes of the modules of a block.
    pub block_bytes: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// An argument outside its range.
    #[error("--bytes {given}: from {BYTES_MIN} to {most}")]
    Bytes {
        /// Its value.
        given: usize,
        /// The largest module.
        most: usize,
    },
    /// No pattern has such a name.
    #[error("--only {0}: no pattern's name contains this")]
    Only(String),
    /// An example is not a program.
    #[error("an ordinary module is refused: {0}")]
    Program(#[from] ProgramError),
    /// This host cannot compile.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No threads.
    #[error("no threads to validate a block: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// One module.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleLine {
    /// Its pattern, or `ordinary`.
    pub name: String,
    /// Its length; 0 where the limits accept no unit of the pattern.
    pub bytes: usize,
    /// Its work, in tenths of an ordinary byte.
    pub work: u64,
    /// Milliseconds to validate it.
    pub validate_ms: f64,
    /// The same, in multiples of the ordinary module.
    pub validate_ratio: f64,
    /// Seconds to compile it; 0 where it was not compiled.
    pub compile_s: f64,
    /// The same, in multiples of the ordinary module.
    pub compile_ratio: f64,
}

/// A block full of one pattern.
#[derive(Clone, Debug, Serialize)]
pub struct BlockLine {
    /// The pattern.
    pub name: String,
    /// Modules in it.
    pub modules: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Milliseconds to validate them all.
    pub validate_ms: f64,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ModulesReport {
    /// Bytes of each module.
    pub bytes: usize,
    /// Threads that validated a block.
    pub threads: usize,
    /// The ordinary module.
    pub ordinary: ModuleLine,
    /// The patterns, in their order.
    pub patterns: Vec<ModuleLine>,
    /// Blocks of the pattern that takes longest to validate, in fewer and in more modules.
    pub blocks: Vec<BlockLine>,
}

impl ModulesReport {
    /// The pattern that takes longest to validate.
    #[must_use]
    pub fn slowest_to_validate(&self) -> Option<&ModuleLine> {
        self.patterns
            .iter()
            .max_by(|a, b| a.validate_ms.total_cmp(&b.validate_ms))
    }

    /// The pattern that takes longest to compile.
    #[must_use]
    pub fn slowest_to_compile(&self) -> Option<&ModuleLine> {
        self.patterns
            .iter()
            .max_by(|a, b| a.compile_s.total_cmp(&b.compile_s))
    }
}

/// Measures every pattern; `watch` hears how many of how many are done.
///
/// # Errors
/// When an argument is out of range or this host cannot compile.
pub fn measure_modules(
    options: &ModuleOptions,
    watch: &dyn Fn(u64, u64),
) -> Result<ModulesReport, ModulesError> {
    let limits = ModuleLimits::default();
    let most = limits.module_bytes_max;
    if !(BYTES_MIN..=most).contains(&options.bytes) {
        let given = options.bytes;
        return Err(ModulesError::Bytes { given, most });
    }
    let chosen: Vec<&Pattern> = patterns()
        .filter(|pattern| pattern.name().contains(&options.only))
        .collect();
    if chosen.is_empty() {
        return Err(ModulesError::Only(options.only.clone()));
    }
    let module = ordinary(&EXAMPLES, options.bytes)?;
    let ordinary = line("ordinary", &module, options, &limits)?;
    let mut patterns = Vec::with_capacity(chosen.len());
    let total = chosen.len() as u64;
    for (done, pattern) in (0..).zip(&chosen) {
        watch(done, total);
        patterns.push(match fill(pattern, options.bytes, &limits) {
            Some(module) => beside(&ordinary, line(pattern.name(), &module, options, &limits)?),
            None => refused(pattern.name()),
        });
    }
    watch(total, total);
    let mut report = ModulesReport {
        bytes: options.bytes,
        threads: options.threads,
        ordinary,
        patterns,
        blocks: Vec::new(),
    };
    if let Some(slowest) = report.slowest_to_validate() {
        let pattern = chosen.iter().find(|pattern| pattern.name() == slowest.name);
        if let Some(pattern) = pattern {
            report.blocks = blocks(pattern, options, &limits)?;
        }
    }
    Ok(report)
}

fn line(
    name: &str,
    module: &[u8],
    options: &ModuleOptions,
    limits: &ModuleLimits,
) -> Result<ModuleLine, ModulesError> {
    let mut validate = Duration::MAX;
    for _ in 0..VALIDATIONS {
        let begin = Instant::now();
        let result = Program::compile_check(module, limits);
        validate = validate.min(begin.elapsed());
        result?;
    }
    let program = Program::load(module, limits)?;
    let compile = if options.compile {
        let engine = Wasmtime::new()?;
        let (taken, result) = processor_time(|| engine.compile(&program));
        result?;
        taken
    } else {
        Duration::ZERO
    };
    Ok(ModuleLine {
        name: name.to_owned(),
        bytes: module.len(),
        work: program.work(),
        validate_ms: validate.as_secs_f64() * 1e3,
        validate_ratio: 1.0,
        compile_s: compile.as_secs_f64(),
        compile_ratio: 1.0,
    })
}

fn beside(ordinary: &ModuleLine, line: ModuleLine) -> ModuleLine {
    let compile_ratio = if ordinary.compile_s > 0.0 {
        line.compile_s / ordinary.compile_s
    } else {
        0.0
    };
    ModuleLine {
        validate_ratio: line.validate_ms / ordinary.validate_ms,
        compile_ratio,
        ..line
    }
}

fn refused(name: &str) -> ModuleLine {
    ModuleLine {
        name: name.to_owned(),
        bytes: 0,
        work: 0,
        validate_ms: 0.0,
        validate_ratio: 0.0,
        compile_s: 0.0,
        compile_ratio: 0.0,
    }
}

fn blocks(
    pattern: &Pattern,
    options: &ModuleOptions,
    limits: &ModuleLimits,
) -> Result<Vec<BlockLine>, ModulesError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let mut lines = Vec::new();
    for part in BLOCK_PARTS {
        let bytes = (options.block_bytes / part).min(limits.module_bytes_max);
        let Some(module) = fill(pattern, bytes, limits) else {
            continue;
        };
        let modules = vec![module; options.block_bytes / bytes];
        let validate = (0..VALIDATIONS).map(|_| {
            let begin = Instant::now();
            pool.install(|| {
                modules
                    .par_iter()
                    .with_max_len(1)
                    .for_each(|module| drop(Program::compile_check(module, limits)));
            });
            begin.elapsed()
        });
        let validate = validate.min().unwrap_or_default();
        lines.push(BlockLine {
            name: pattern.name().to_owned(),
            modules: modules.len(),
            bytes: modules.iter().map(Vec::len).sum(),
            validate_ms: validate.as_secs_f64() * 1e3,
        });
    }
    Ok(lines)
}

/// How long this thread ran to do something; where the kernel does not say, how long it took.
fn processor_time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let (before, begin) = (ran(), Instant::now());
    let result = work();
    let taken = match (before, ran()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => begin.elapsed(),
    };
    (taken, result)
}

/// How long this thread has run (`Documentation/scheduler/sched-stats.rst` of Linux).
fn ran() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_beside_an_ordinary_module_of_its_size() {
        let options = ModuleOptions {
            bytes: 16_384,
            only: "call-indirect".to_owned(),
            compile: true,
            threads: 2,
            block_bytes: 65_536,
        };
        let report = measure_modules(&options, &|_, _| {}).expect("it can be measured");
        assert!(report.ordinary.bytes.abs_diff(16_384) < 2_048);
        let mut names = report.patterns.iter().map(|line| &line.name);
        assert!(names.all(|name| name.contains(&options.only)), "{report:?}");
        let line = report.patterns.first().expect("a pattern of this name");
        assert_eq!(line.bytes, 16_384);
        assert!(line.compile_s > 0.0 && line.validate_ms > 0.0);
        let modules: Vec<usize> = report.blocks.iter().map(|block| block.modules).collect();
        assert_eq!(modules.first(), Some(&1));
        assert!(report.blocks.iter().all(|block| block.bytes <= 65_536));
    }

    #[test]
    fn arguments_out_of_range_are_refused() {
        let options = |bytes, only: &str| ModuleOptions {
            bytes,
            only: only.to_owned(),
            compile: false,
            threads: 1,
            block_bytes: 65_536,
        };
        let refused = |options| measure_modules(&options, &|_, _| {}).expect_err("out of range");
        assert!(matches!(
            refused(options(1, "")),
            ModulesError::Bytes { given: 1, .. }
        ));
        assert!(matches!(
            refused(options(1 << 21, "")),
            ModulesError::Bytes { .. }
        ));
        assert!(matches!(
            refused(options(4_096, "zzz")),
            ModulesError::Only(_)
        ));
    }
}
