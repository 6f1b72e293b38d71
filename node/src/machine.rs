//! Joins the chain to the machine: what `chain` asks of a module, `compute` answers, once per module.
//!
//! ```text
//! ahead ──────┐                  ┌─ kept ──▶ verdict
//!             ├─▶ hash of module ┤
//! block ──────┘                  └─ new ──▶ compute, by one thread; others that ask for it wait
//! ```
//! A verdict depends on the machine's version and the module alone, so it never has to be computed twice, and
//! where it comes from cannot change a block's validity. The last [`VERDICTS_MAX`] are kept.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hashlink::LruCache;
use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::types::hash::{Hash, blob_hash};
use proofmill_chain::types::units::MachineVersion;
use proofmill_compute::{MACHINE_VERSION, ModuleLimits, Program, ProgramError};

/// Most verdicts kept. One takes at most some two kilobytes, with the text of a long refusal.
pub const VERDICTS_MAX: usize = 4_096;

/// What a verdict is on: a module, by the rules of a version of the machine.
type Judged = (MachineVersion, Hash);

/// Whether a module is a program, and why not.
pub type Verdict = Result<ProgramFacts, ProgramError>;

/// The machine's verdicts, as the chain wants them. Shared by admission, proposals and blocks.
pub struct ComputeMachine {
    limits: ModuleLimits,
    /// By version and hash of the module. A cell is empty while its verdict is being computed.
    kept: Mutex<LruCache<Judged, Arc<OnceLock<Verdict>>>>,
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
    pub fn explain(&self, version: MachineVersion, module: &[u8]) -> Verdict {
        self.explain_with(version, module, |module| {
            // Rules with another version are refused before anything is judged by them.
            debug_assert_eq!(version, VERSION, "the machine has one version");
            verdict(module, &self.limits)
        })
    }

    /// The verdict on the module with this hash, when it is kept: costs a lookup.
    #[must_use]
    pub fn kept(&self, version: MachineVersion, module: Hash) -> Option<Verdict> {
        let cell = self.lock().peek(&(version, module)).map(Arc::clone)?;
        cell.get().cloned()
    }

    fn explain_with(
        &self,
        version: MachineVersion,
        module: &[u8],
        judge: impl FnOnce(&[u8]) -> Verdict,
    ) -> Verdict {
        let judged = (version, blob_hash(module));
        let cell = {
            let mut kept = self.lock();
            match kept.get(&judged) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Arc::default();
                    kept.insert(judged, Arc::clone(&cell));
                    cell
                }
            }
        };
        // Outside the lock, so that only threads that ask for this module wait for it.
        cell.get_or_init(|| judge(module)).clone()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Judged, Arc<OnceLock<Verdict>>>> {
        // A cache has no state that a panic could leave inconsistent.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verdict of this program's machine, for whoever is about to publish a module: nothing is kept.
///
/// # Errors
/// The rule that the module breaks.
pub fn check(module: &[u8]) -> Verdict {
    verdict(module, &ModuleLimits::default())
}

fn verdict(module: &[u8], limits: &ModuleLimits) -> Verdict {
    let info = Program::compile_check(module, limits)?;
    Ok(ProgramFacts {
        memory_pages_min: info.memory_pages_min,
        memory_pages_max: info.memory_pages_max,
    })
}

/// The version of the machine that this program has.
pub const VERSION: MachineVersion = MachineVersion::new(MACHINE_VERSION);

impl Machine for ComputeMachine {
    fn judge(&self, version: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16> {
        self.explain(version, module).map_err(|error| error.code())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MODULE: &[u8] = include_bytes!("../../examples/genome-align/genome-align.wasm");

    fn count(machine: &ComputeMachine) -> usize {
        machine.lock().len()
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
                    let verdict = machine.explain_with(VERSION, MODULE, |module| {
                        computed.fetch_add(1, Ordering::SeqCst);
                        ComputeMachine::default().explain(VERSION, module)
                    });
                    assert_eq!(verdict, ComputeMachine::default().explain(VERSION, MODULE));
                });
            }
        });
        assert_eq!(computed.load(Ordering::SeqCst), 1);
        machine
            .explain_with(VERSION, MODULE, |_| unreachable!("the verdict is kept"))
            .expect("an example is a program");
    }

    #[test]
    fn a_refusal_is_kept_like_any_verdict() {
        let machine = ComputeMachine::default();
        let refused = machine
            .explain(VERSION, b"\0asm")
            .expect_err("not a program");
        let again =
            machine.explain_with(VERSION, b"\0asm", |_| unreachable!("the verdict is kept"));
        assert_eq!(again, Err(refused.clone()));
        assert_eq!(machine.judge(VERSION, b"\0asm"), Err(refused.code()));
    }

    #[test]
    fn each_version_of_the_machine_has_a_verdict_of_its_own() {
        let machine = ComputeMachine::default();
        let other = MachineVersion::new(MACHINE_VERSION + 1);
        let program = blob_hash(MODULE);
        assert_eq!(machine.kept(VERSION, program), None);
        let facts = machine.explain(VERSION, MODULE);
        assert_eq!(machine.kept(VERSION, program), Some(facts.clone()));
        assert_eq!(machine.kept(other, program), None);
        let stricter = ProgramError::Invalid("by another rule".to_owned());
        let refused = machine.explain_with(other, MODULE, |_| Err(stricter.clone()));
        assert_eq!(refused, Err(stricter));
        assert_eq!(machine.kept(other, program), Some(refused));
        assert_eq!(machine.explain(VERSION, MODULE), facts);
    }

    #[test]
    fn the_least_recently_used_verdict_makes_room() {
        let machine = ComputeMachine::default();
        let module = |index: usize| index.to_le_bytes();
        for index in 0..VERDICTS_MAX {
            machine
                .explain(VERSION, &module(index))
                .expect_err("not a program");
        }
        let keeps = |index: usize| {
            let mut computed = false;
            let _ = machine.explain_with(VERSION, &module(index), |bytes| {
                computed = true;
                ComputeMachine::default().explain(VERSION, bytes)
            });
            !computed
        };
        assert!(keeps(0), "the first one is used again");
        machine
            .explain(VERSION, &module(VERDICTS_MAX))
            .expect_err("not a program");
        assert_eq!(count(&machine), VERDICTS_MAX);
        assert!(keeps(0));
        assert!(!keeps(1), "the second one was the oldest");
        assert_eq!(count(&machine), VERDICTS_MAX);
    }

    #[test]
    fn a_refusal_with_a_name_of_a_hundred_thousand_letters_is_short() {
        let name = "x".repeat(100_000);
        let module = wat::parse_str(format!(r#"(module (import "{name}" "{name}" (func)))"#));
        let error = ComputeMachine::default()
            .explain(VERSION, &module.expect("well-formed text"))
            .expect_err("a program has no imports");
        assert!(error.to_string().len() < 500, "{error}");
    }
}
