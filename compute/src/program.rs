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
    /// Parameters of a function type.
    pub params_max: usize,
    /// Results of a function type.
    pub results_max: usize,
    /// Parameters of a block: values that every branch to a loop would move.
    pub block_params_max: u32,
    /// Results of a block: values that every branch to its end would move.
    pub block_results_max: u32,
    /// Functions.
    pub functions_max: u32,
    /// Bytes of one function's body; bounds the time of the compiler.
    pub function_bytes_max: usize,
    /// Declared locals of one function.
    pub locals_max: u32,
    /// Loops of one function.
    pub loops_max: u32,
    /// Targets of one `br_table`, the default not among them.
    pub table_targets_max: u32,
    /// Work of compiling one function.
    pub function_work_max: u64,
    /// Work of compiling a module, before what its bytes allow; see [`Self::work_max`].
    pub work_base: u64,
    /// Work of compiling a module, per byte of it.
    pub work_per_byte: u64,
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
            types_max: 1_024,
            params_max: 32,
            results_max: 4,
            block_params_max: 0,
            block_results_max: 1,
            functions_max: 10_000,
            function_bytes_max: 65_536,
            locals_max: 512,
            loops_max: 256,
            table_targets_max: 4_096,
            function_work_max: 1_800_000,
            work_base: 250_000,
            work_per_byte: 25,
            globals_max: 1_024,
            table_elements_max: 65_536,
            memory_pages_max: 4_096,
        }
    }
}

impl ModuleLimits {
    /// The most work that a module of so many bytes may be to compile, in tenths of what a byte of
    /// ordinary code takes.
    #[must_use]
    pub const fn work_max(&self, bytes: usize) -> u64 {
        self.work_base
            .saturating_add(self.work_per_byte.saturating_mul(bytes as u64))
    }

    /// No limits: for measuring what a limit is worth, never for judging.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self {
            module_bytes_max: usize::MAX,
            types_max: u32::MAX,
            params_max: 128,
            results_max: 16,
            block_params_max: u32::MAX,
            block_results_max: u32::MAX,
            functions_max: u32::MAX,
            function_bytes_max: 65_536,
            locals_max: 1_024,
            loops_max: u32::MAX,
            table_targets_max: u32::MAX,
            function_work_max: u64::MAX,
            work_base: u64::MAX,
            work_per_byte: 0,
            globals_max: u32::MAX,
            table_elements_max: u64::MAX,
            memory_pages_max: 65_536,
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
    initializes: bool,
    work: u64,
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
    /// An export `_initialize` of type `() -> ()` runs once, before `alloc`.
    /// Refused: imports, a start function, an export `_start`, entry points wrapped as a command's, passive segments, `memory.init`, `data.drop`,
    /// `table.*`, `elem.drop`, `select` with a type, reference types, tail calls, relaxed SIMD, exceptions, threads,
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
            initializes: facts.initializes,
            work: facts.work,
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

    /// Whether it exports `_initialize`, which runs before `alloc` in step 1.
    #[must_use]
    pub const fn initializes(&self) -> bool {
        self.initializes
    }

    /// The work of compiling it, in tenths of what a byte of ordinary code takes.
    #[must_use]
    pub const fn work(&self) -> u64 {
        self.work
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
    #[error(
        "function {function} is a start function: a program starts at its exports; AssemblyScript \
         exports it instead with `--exportStart _initialize`"
    )]
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
    /// The module exports a command's entry point.
    #[error(
        "export `_start` makes the module a command, and a program is called many times: link with \
         `--no-entry`, or with `-mexec-model=reactor`"
    )]
    CommandExport,
    /// Every entry point begins by calling the same function, as the linker does for a command.
    #[error(
        "all five entry points begin by calling function {function}, so static constructors would \
         run at every call: link with `-mexec-model=reactor`, or export an `_initialize` that calls \
         `__wasm_call_ctors`"
    )]
    CommandStyle {
        /// Index of the function.
        function: u32,
    },
    /// The memory declares no maximum.
    #[error(
        "memory has no declared maximum: link with `--max-memory=BYTES`, a multiple of 65536 \
         (AssemblyScript: `--maximumMemory PAGES`)"
    )]
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
    /// The module takes too long to compile for its size.
    #[error(
        "module is {work} units of work to compile in its functions up to {function}, at most {max} \
         for a module of its size"
    )]
    TooMuchWork {
        /// Index of the function that goes over the limit.
        function: u32,
        /// The work counted.
        work: u64,
        /// The limit, which grows with the module's bytes.
        max: u64,
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
    /// Parameters of a block.
    BlockParameters = 7,
    /// Results of a block.
    BlockResults = 8,
    /// Loops of one function.
    Loops = 9,
    /// Targets of one `br_table`.
    TableTargets = 10,
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
            Self::BlockParameters => "parameters of one block",
            Self::BlockResults => "results of one block",
            Self::Loops => "loops in one function",
            Self::TableTargets => "targets of one br_table",
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
            Self::CommandExport => 14,
            Self::CommandStyle { .. } => 15,
            Self::TooMuchWork { .. } => 16,
            Self::TooMany { what, .. } => 32 + *what as u16,
        }
    }
}
