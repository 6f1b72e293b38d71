//! What an engine has to offer: one instance, its calls, its memory and its exported globals.

use crate::machine::{MachineError, TrapKind};

/// A function that the host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `_initialize()`, called only where [`crate::Program::initializes`]
    Initialize,
    /// `alloc(len) -> ptr`
    Alloc,
    /// `init(ptr, len)`
    Init,
    /// `step() -> i32`
    Step,
    /// `out_ptr() -> i32`
    OutPtr,
    /// `out_len() -> i32`
    OutLen,
}

impl Entry {
    /// Its export name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => crate::validate::INITIALIZE,
            Self::Alloc => "alloc",
            Self::Init => "init",
            Self::Step => "step",
            Self::OutPtr => "out_ptr",
            Self::OutLen => "out_len",
        }
    }
}

/// Type of a global.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GlobalKind {
    /// 32-bit integer.
    I32 = 0,
    /// 64-bit integer.
    I64 = 1,
    /// 32-bit float.
    F32 = 2,
    /// 64-bit float.
    F64 = 3,
    /// 128-bit vector.
    V128 = 4,
}

/// Value of a global; floats as their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobalValue {
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// Bits of a vector, lane 0 lowest.
    V128(u128),
}

impl GlobalValue {
    /// Its type.
    #[must_use]
    pub const fn kind(self) -> GlobalKind {
        match self {
            Self::I32(_) => GlobalKind::I32,
            Self::I64(_) => GlobalKind::I64,
            Self::F32(_) => GlobalKind::F32,
            Self::F64(_) => GlobalKind::F64,
            Self::V128(_) => GlobalKind::V128,
        }
    }

    /// Its bits, zero-extended.
    #[must_use]
    pub fn bits(self) -> u128 {
        match self {
            Self::I32(value) => value.cast_unsigned().into(),
            Self::I64(value) => value.cast_unsigned().into(),
            Self::F32(bits) => bits.into(),
            Self::F64(bits) => bits.into(),
            Self::V128(bits) => bits,
        }
    }
}

/// Why a call did not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program trapped; injected traps come as [`TrapKind::Unreachable`].
    Trap(TrapKind),
    /// The host failed.
    Host(MachineError),
}

impl From<MachineError> for Fault {
    fn from(error: MachineError) -> Self {
        Self::Host(error)
    }
}

/// One instance of an instrumented program inside an engine.
///
/// The engine has to give canonical not-a-number results and to keep the memory within the bound
/// it was created with (a growth past it answers -1).
pub trait Instance {
    /// Calls an entry point; `_initialize` and `init`, which have no result, answer 0.
    ///
    /// # Errors
    /// The trap, or the host's failure.
    fn call(&mut self, entry: Entry, arguments: &[i32]) -> Result<i32, Fault>;
    /// The memory.
    fn memory(&self) -> &[u8];
    /// The memory, to be written.
    fn memory_mut(&mut self) -> &mut [u8];
    /// Reads an exported global.
    ///
    /// # Errors
    /// The host's failure.
    fn global(&mut self, name: &str) -> Result<GlobalValue, MachineError>;
    /// Writes an exported global.
    ///
    /// # Errors
    /// The host's failure.
    fn set_global(&mut self, name: &str, value: GlobalValue) -> Result<(), MachineError>;
}
