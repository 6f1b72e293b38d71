//! Joins the chain to the machine: what `chain` asks of a module, `compute` answers.

use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::types::units::MachineVersion;
use proofmill_compute::{MACHINE_VERSION, ModuleLimits, Program, ProgramError};

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

/// The version of the machine that this program has.
pub const VERSION: MachineVersion = MachineVersion::new(MACHINE_VERSION);

impl Machine for ComputeMachine {
    fn judge(&self, version: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16> {
        // Rules with another version are refused before any block is judged by them.
        debug_assert_eq!(version, VERSION, "the machine has one version");
        self.explain(module).map_err(|error| error.code())
    }
}
