//! Joins the chain to the machine: what `chain` asks of a module, `compute` answers.

use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_compute::{ModuleLimits, Program, ProgramError};

/// The machine's judgement, as the chain wants it.
#[derive(Clone, Debug, Default)]
pub struct ComputeMachine {
    limits: ModuleLimits,
}

impl ComputeMachine {
    /// The verdict with its reason for people.
    ///
    /// # Errors
    /// The rule that the module breaks.
    pub fn explain(&self, module: &[u8]) -> Result<ProgramFacts, ProgramError> {
        let info = Program::compile_check(module, &self.limits)?;
        Ok(ProgramFacts {
            memory_pages_min: info.memory_pages_min,
            memory_pages_max: info.memory_pages_max,
        })
    }
}

impl Machine for ComputeMachine {
    fn judge(&self, module: &[u8]) -> Result<ProgramFacts, u16> {
        self.explain(module).map_err(|error| error.code())
    }
}
