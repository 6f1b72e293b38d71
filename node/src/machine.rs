//! Joins the chain to the machine: what `chain` asks of a module, `compute` answers, once per module.
//!
//! ```text
//! admission ──┐                  ┌─ kept ──▶ verdict
//!             ├─▶ hash of module ┤
//! block ──────┘                  └─ new ──▶ compute, by one thread; others that ask for it wait
//! ```
//! A verdict depends on the module alone, so it never has to be computed twice, and where it comes from
//! cannot change a block's validity. The last [`VERDICTS_MAX`] are kept.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hashlink::LruCache;
use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::types::hash::{Hash, blob_hash};
use proofmill_chain::types::units::MachineVersion;
use proofmill_compute::{MACHINE_VERSION, ModuleLimits, Program, ProgramError};

/// Most verdicts kept. One takes at most some two kilobytes, with the text of a long refusal.
pub const VERDICTS_MAX: usize = 4_096;

/// Whether a module is a program, and why not.
pub type Verdict = Result<ProgramFacts, ProgramError>;

/// The machine's verdicts, as the chain wants them. Shared by admission, proposals and blocks.
pub struct ComputeMachine {
    limits: ModuleLimits,
    /// By hash of the module. A cell is empty while its verdict is being computed.
    kept: Mutex<LruCache<Hash, Arc<OnceLock<Verdict>>>>,
}

impl Default for ComputeMachine {
    fn default() -> Self {
        Self {
            limits: ModuleLimits::default(),
            kept: Mutex::new(LruCache::new(VERDICTS_MAX)),
        }
    }
}

impl std::fmt::Debug for ComputeMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComputeMachine").finish_non_exhaustive()
    }
}

impl ComputeMachine {
    /// The verdict with its reason for people. Blocks for as long as the module takes, unless its verdict
    /// is kept.
    ///
    /// # Errors
    /// The rule that the module breaks.
    pub fn explain(&self, module: &[u8]) -> Verdict {
        self.explain_with(module, |module| {
            let info = Program::compile_check(module, &self.limits)?;
            Ok(ProgramFacts {
                memory_pages_min: info.memory_pages_min,
                memory_pages_max: info.memory_pages_max,
            })
        })
    }

    fn explain_with(&self, module: &[u8], judge: impl FnOnce(&[u8]) -> Verdict) -> Verdict {
        let hash = blob_hash(module);
        let cell = {
            // A cache has no state that a panic could leave inconsistent.
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.get(&hash) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Arc::default();
                    kept.insert(hash, Arc::clone(&cell));
                    cell
                }
            }
        };
        // Outside the lock, so that only threads that ask for this module wait for it.
        cell.get_or_init(|| judge(module)).clone()
    }
}

/// The version of the machine that this program has.
pub const VERSION: MachineVersion = MachineVersion::new(MACHINE_VERSION);

impl Machine for ComputeMachine {
    fn judge(&self, version: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16> {
        // Rules with another version are refused before any block is judged by them.
        debug_assert_eq!(version, VERSION, "the machine has one version");
        self.explain(module).map_err(|error| error.code())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MODULE: &[u8] = include_bytes!("../../examples/genome-align/genome-align.wasm");

    fn kept(machine: &ComputeMachine) -> usize {
        machine.kept.lock().expect("no thread panicked").len()
    }

    #[test]
    fn threads_that_ask_at_the_same_time_share_one_computation() {
        const THREADS: usize = 8;
        let machine = ComputeMachine::default();
        let (computed, barrier) = (AtomicUsize::new(0), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    let verdict = machine.explain_with(MODULE, |module| {
                        computed.fetch_add(1, Ordering::SeqCst);
                        ComputeMachine::default().explain(module)
                    });
                    assert_eq!(verdict, ComputeMachine::default().explain(MODULE));
                });
            }
        });
        assert_eq!(computed.load(Ordering::SeqCst), 1);
        machine
            .explain_with(MODULE, |_| unreachable!("the verdict is kept"))
            .expect("an example is a program");
    }

    #[test]
    fn a_refusal_is_kept_like_any_verdict() {
        let machine = ComputeMachine::default();
        let refused = machine.explain(b"\0asm").expect_err("not a program");
        let again = machine.explain_with(b"\0asm", |_| unreachable!("the verdict is kept"));
        assert_eq!(again, Err(refused.clone()));
        assert_eq!(machine.judge(VERSION, b"\0asm"), Err(refused.code()));
    }

    #[test]
    fn the_least_recently_used_verdict_makes_room() {
        let machine = ComputeMachine::default();
        let module = |index: usize| index.to_le_bytes();
        for index in 0..VERDICTS_MAX {
            machine.explain(&module(index)).expect_err("not a program");
        }
        let keeps = |index: usize| {
            let mut computed = false;
            let _ = machine.explain_with(&module(index), |bytes| {
                computed = true;
                ComputeMachine::default().explain(bytes)
            });
            !computed
        };
        assert!(keeps(0), "the first one is used again");
        machine
            .explain(&module(VERDICTS_MAX))
            .expect_err("not a program");
        assert_eq!(kept(&machine), VERDICTS_MAX);
        assert!(keeps(0));
        assert!(!keeps(1), "the second one was the oldest");
        assert_eq!(kept(&machine), VERDICTS_MAX);
    }

    #[test]
    fn a_refusal_with_a_name_of_a_hundred_thousand_letters_is_short() {
        let name = "x".repeat(100_000);
        let module = wat::parse_str(format!(r#"(module (import "{name}" "{name}" (func)))"#));
        let error = ComputeMachine::default()
            .explain(&module.expect("well-formed text"))
            .expect_err("a program has no imports");
        assert!(error.to_string().len() < 500, "{error}");
    }
}
