//! The machine, as far as the chain must know it: whether bytes are a program.

use crate::types::units::MachineVersion;

/// What the chain keeps of a valid program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Pages of memory it starts with.
    pub memory_pages_min: u32,
    /// Pages of memory it declares as its most.
    pub memory_pages_max: u32,
}

/// Judges modules. The verdict is a function of the version and the bytes alone and the same on every
/// node.
pub trait Machine: Sync {
    /// What the chain keeps of a module that is a program for this version of the machine. A node never
    /// follows rules with a version that its machine does not know.
    ///
    /// # Errors
    /// The code of the rule that the module breaks.
    fn judge(&self, version: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16>;
}
