//! A program: bytes that passed every rule, and their instrumented form.

use crate::instance::GlobalKind;
use crate::{hash, instrument, validate};

/// Export names that begin so belong to the instrumenter.
pub const RESERVED_PREFIX: &str = "proofmill:";

/// Bounds on a module; checked before the work or the allocation they bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes of the whole module.
    pub module_bytes_max: usize,
    /// Function types.
    pub types_max: u32,
    /// Parameters of a function or block type.
    pub params_max: usize,
    /// Results of a function or block type.
    pub results_max: usize,
    /// Functions.
    pub functions_max: u32,
    /// Bytes of one function's body; bounds the time of the compiler.
    pub function_bytes_max: usize,
    /// Declared locals of one function.
    pub locals_max: u32,
    /// Locals, parameters included, times branches and calls, each counted once more for every
    /// loop around it, of one function: what the compiler's time grows with when no single count
    /// is large.
    pub function_complexity_max: u64,
    /// Sum of that product over the functions of the module.
    pub module_complexity_max: u64,
    /// Globals.
    pub globals_max: u32,
    /// Elements of the table.
    pub table_elements_max: u64,
    /// Pages (64 KiB) of memory that a module may declare as its maximum.
    pub memory_pages_max: u32,
}

impl Default for ModuleLimits {
    /// The protocol's values.
    fn default() -> Self {
        Self {
            module_bytes_max: 1_048_576,
            types_max: 4_096,
            params_max: 128,
            results_max: 16,
            functions_max: 10_000,
            function_bytes_max: 65_536,
            locals_max: 1_024,
            function_complexity_max: 1_048_576,
            module_complexity_max: 8_388_608,
            globals_max: 1_024,
            table_elements_max: 65_536,
            memory_pages_max: 4_096,
        }
    }
}

/// What a task has to know of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Pages of memory the program starts with; a task must allow at least these.
    pub memory_pages_min: u32,
    /// Pages of memory the program declares as its maximum.
    pub memory_pages_max: u32,
}

/// Validated and instrumented program.
#[derive(Clone, Debug)]
pub struct Program {
    hash: [u8; 32],
    info: ProgramInfo,
    instrumented: Vec<u8>,
    mutable_globals: Vec<GlobalKind>,
}

impl Program {
    /// Validates a module without instrumenting or compiling it.
    ///
    /// # Errors
    /// The first rule that the module breaks, in the order of its bytes.
    pub fn compile_check(
        module: &[u8],
        limits: &ModuleLimits,
    ) -> Result<ProgramInfo, ProgramError> {
        validate::check(module, limits).map(|facts| facts.info)
    }

    /// Validates and instruments a module.
    ///
    /// Accepted: mutable globals, sign extension, saturating conversions, multiple values,
    /// `memory.copy` and `memory.fill`, 128-bit SIMD, active segments, one function table.
    /// Refused: imports, a start function, passive segments, `memory.init`, `data.drop`,
    /// `table.*`, `elem.drop`, reference types, tail calls, relaxed SIMD, exceptions, threads,
    /// garbage collection, 64-bit and multiple memories.
    ///
    /// # Errors
    /// The first rule that the module breaks, in the order of its bytes.
    pub fn load(module: &[u8], limits: &ModuleLimits) -> Result<Self, ProgramError> {
        let facts = validate::check(module, limits)?;
        let instrumented = instrument::instrument(module, &facts)?;
        Ok(Self {
            hash: Self::hash_of(module),
            info: facts.info,
            instrumented,
            mutable_globals: facts
                .mutable_globals
                .iter()
                .map(|(_, kind)| *kind)
                .collect(),
        })
    }

    /// Content address of a module: SHA-256 over the tag `proofmill/blob/v1` and the bytes,
    /// as for everything else that the chain stores by its content.
    #[must_use]
    pub fn hash_of(module: &[u8]) -> [u8; 32] {
        hash("proofmill/blob/v1", &[module])
    }

    /// Content address of the module this program was loaded from.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The module an engine executes.
    #[must_use]
    pub fn instrumented(&self) -> &[u8] {
        &self.instrumented
    }

    /// The program's memory bounds.
    #[must_use]
    pub const fn info(&self) -> &ProgramInfo {
        &self.info
    }

    /// Kinds of the mutable globals, in the order in which checkpoints hold them; the instrumented
    /// module exports the i-th one as [`crate::gas::state_global`]`(i)`.
    #[must_use]
    pub fn mutable_globals(&self) -> &[GlobalKind] {
        &self.mutable_globals
    }
}

/// Why a module is not a program. The sender's fault, always.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The module is too long.
    #[error("module is {bytes} bytes, at most {max}")]
    ModuleTooLarge {
        /// Length of the module.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not a valid module of the accepted feature set.
    #[error("module is not valid: {0}")]
    Invalid(String),
    /// The module imports something.
    #[error("module imports `{module}.{name}`: a program has no imports")]
    Import {
        /// Module part of the import's name.
        module: String,
        /// Field part of the import's name.
        name: String,
    },
    /// The module has a start function.
    #[error("function {function} is a start function: a program starts at its exports")]
    Start {
        /// Index of the function.
        function: u32,
    },
    /// A required export is absent.
    #[error("export `{name}` is missing: a program exports {expected}")]
    MissingExport {
        /// Name of the export.
        name: &'static str,
        /// Its type.
        expected: &'static str,
    },
    /// A required export has another type.
    #[error("export `{name}` is not {expected}")]
    ExportType {
        /// Name of the export.
        name: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
    /// An export uses a name of the instrumenter.
    #[error("export `{name}` is reserved: names that begin with `{RESERVED_PREFIX}` are")]
    ReservedExport {
        /// Name of the export.
        name: String,
    },
    /// The memory declares no maximum.
    #[error("memory has no declared maximum: a program declares one")]
    MemoryUnbounded,
    /// The memory's declared maximum is too large.
    #[error("memory may grow to {pages} pages, at most {max}")]
    MemoryTooLarge {
        /// Declared maximum.
        pages: u64,
        /// The limit.
        max: u32,
    },
    /// An operator whose state would escape the checkpoint.
    #[error("operator `{operator}` at byte {offset} is refused: {reason}")]
    Operator {
        /// Name of the operator.
        operator: &'static str,
        /// Where it stands in the module.
        offset: usize,
        /// The rule.
        reason: &'static str,
    },
    /// A data or element segment that is not active.
    #[error("{section} segment {index} is {kind}: segments are active lists of bytes or functions")]
    Segment {
        /// `data` or `element`.
        section: &'static str,
        /// Index of the segment.
        index: usize,
        /// What it is instead.
        kind: &'static str,
    },
    /// An active segment lies outside the memory or table as first created.
    #[error("{section} segment {index} ends at {end}, the {target} has {size}")]
    SegmentBounds {
        /// `data` or `element`.
        section: &'static str,
        /// Index of the segment.
        index: usize,
        /// One past its last byte or element.
        end: u64,
        /// `memory` or `table`.
        target: &'static str,
        /// Bytes or elements there are.
        size: u64,
    },
    /// A function body is too long.
    #[error("function {function} is {bytes} bytes, at most {max}")]
    FunctionTooLarge {
        /// Index of the function.
        function: usize,
        /// Length of its body.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Some other count is over its limit.
    #[error("module has {count} {what}, at most {max}")]
    TooMany {
        /// What was counted.
        what: Counted,
        /// How many there are.
        count: u64,
        /// The limit.
        max: u64,
    },
}

/// Things counted in a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Counted {
    /// Function types.
    Types = 0,
    /// Parameters of one type.
    Parameters = 1,
    /// Results of one type.
    Results = 2,
    /// Functions.
    Functions = 3,
    /// Declared locals of one function.
    Locals = 4,
    /// Globals.
    Globals = 5,
    /// Elements of the table.
    TableElements = 6,
    /// Locals times branches of one function.
    FunctionComplexity = 7,
    /// The sum of those products.
    ModuleComplexity = 8,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Types => "types",
            Self::Parameters => "parameters in one type",
            Self::Results => "results in one type",
            Self::Functions => "functions",
            Self::Locals => "locals in one function",
            Self::Globals => "globals",
            Self::TableElements => "elements in its table",
            Self::FunctionComplexity => "locals times branches in one function",
            Self::ModuleComplexity => "locals times branches in all functions",
        })
    }
}

impl ProgramError {
    /// The stable number that stands for this error in receipts.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::ModuleTooLarge { .. } => 1,
            Self::Invalid(_) => 2,
            Self::Import { .. } => 3,
            Self::Start { .. } => 4,
            Self::MissingExport { .. } => 5,
            Self::ExportType { .. } => 6,
            Self::ReservedExport { .. } => 7,
            Self::MemoryUnbounded => 8,
            Self::MemoryTooLarge { .. } => 9,
            Self::Operator { .. } => 10,
            Self::Segment { .. } => 11,
            Self::SegmentBounds { .. } => 12,
            Self::FunctionTooLarge { .. } => 13,
            Self::TooMany { what, .. } => 32 + *what as u16,
        }
    }
}
