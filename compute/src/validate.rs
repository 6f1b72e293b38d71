//! What a module must be to be a program (PROTOCOL §6.1), checked in one pass over its bytes.
//!
//! Our own rules look at a section before the validator does, so that the limits bound the
//! validator's work too.

mod function;

use crate::MEMORY_PAGE_BYTES;
use crate::instance::GlobalKind;
use crate::program::{Counted, ModuleLimits, ProgramError, ProgramInfo, RESERVED_PREFIX};
use crate::signatures::{Arity, Signatures};
use crate::work;
use std::collections::BTreeSet;
use wasmparser::{
    CompositeInnerType, DataKind, ElementItems, ElementKind, ExternalKind,
    FuncValidatorAllocations, Operator, Parser, Payload, ValType, ValidPayload, Validator,
    WasmFeatures,
};

/// The one feature set. Overlong table indexes are how LLVM writes `call_indirect`.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG);

/// The functions a program exports: name, parameters, results, the type in words.
const ENTRY_POINTS: [(&str, usize, usize, &str); 5] = [
    ("alloc", 1, 1, "`alloc(i32) -> i32`"),
    ("init", 2, 0, "`init(i32, i32)`"),
    ("step", 0, 1, "`step() -> i32`"),
    ("out_ptr", 0, 1, "`out_ptr() -> i32`"),
    ("out_len", 0, 1, "`out_len() -> i32`"),
];

/// The function that runs before `alloc` in step 1, if it is exported.
pub(crate) const INITIALIZE: &str = "_initialize";
/// What a linker calls the entry point of a command.
const COMMAND_ENTRY: &str = "_start";
/// Most characters that an error repeats of a name from the module.
const NAME_CHARS_MAX: usize = 64;
/// Most characters of the validator's own message.
const MESSAGE_CHARS_MAX: usize = 256;

/// What the instrumenter has to know of a valid module.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) info: ProgramInfo,
    /// Types and the functions that have them.
    pub(crate) signatures: Signatures,
    /// Count of all globals.
    pub(crate) globals: u32,
    /// Index and kind of the mutable ones.
    pub(crate) mutable_globals: Vec<(u32, GlobalKind)>,
    /// Export name and function index, in the order of `ENTRY_POINTS`; `_initialize` comes last.
    pub(crate) entry_points: Vec<(&'static str, u32)>,
    /// True where `_initialize` is among them.
    pub(crate) initializes: bool,
    /// The work of compiling it.
    pub(crate) work: u64,
}

/// Checks a module against every rule.
pub(crate) fn check(module: &[u8], limits: &ModuleLimits) -> Result<Facts, ProgramError> {
    if module.len() > limits.module_bytes_max {
        return Err(ProgramError::ModuleTooLarge {
            bytes: module.len(),
            max: limits.module_bytes_max,
        });
    }
    let work_max = limits.work_max(module.len());
    let mut sections = Sections::new(limits, work_max);
    let mut validator = Validator::new_with_features(FEATURES);
    let mut allocations = FuncValidatorAllocations::default();
    let mut work = 0u64;
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    for payload in parser.parse_all(module) {
        let payload = payload.map_err(invalid)?;
        sections.read(&payload)?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(invalid)? {
            let checked = function::check(
                function,
                &body,
                &sections.signatures,
                allocations,
                limits,
                work + sections.work,
                work_max,
            )?;
            allocations = checked.allocations;
            work += checked.work;
            sections.first_calls.push(checked.first_call);
        }
    }
    // The sections after the code count too.
    let work = work + sections.work;
    function::at_most_work(sections.last_function(), work, work_max)?;
    sections.finish(work)
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> ProgramError {
    ProgramError::Invalid(clip(&error.to_string(), MESSAGE_CHARS_MAX))
}

/// The beginning of a text that a stranger may have made long: errors are kept and shown.
fn clip(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn at_most(what: Counted, count: u64, max: u64) -> Result<(), ProgramError> {
    if count > max {
        return Err(ProgramError::TooMany { what, count, max });
    }
    Ok(())
}

/// Facts gathered while the sections go by.
struct Sections<'l> {
    limits: &'l ModuleLimits,
    signatures: Signatures,
    /// True where the type is made of i32 alone.
    plain: Vec<bool>,
    table_elements: u64,
    memory: Option<ProgramInfo>,
    globals: u32,
    mutable_globals: Vec<(u32, GlobalKind)>,
    exports: Vec<(String, ExternalKind, u32)>,
    /// By function: the function that its first operator calls.
    first_calls: Vec<Option<u32>>,
    /// Work of all but the functions' own.
    work: u64,
    /// What the module may be in all.
    work_max: u64,
    /// Functions in the table.
    escaping: BTreeSet<u32>,
}

impl<'l> Sections<'l> {
    const fn new(limits: &'l ModuleLimits, work_max: u64) -> Self {
        Self {
            limits,
            work_max,
            signatures: Signatures {
                types: Vec::new(),
                functions: Vec::new(),
            },
            plain: Vec::new(),
            table_elements: 0,
            memory: None,
            globals: 0,
            mutable_globals: Vec::new(),
            exports: Vec::new(),
            first_calls: Vec::new(),
            work: 0,
            escaping: BTreeSet::new(),
        }
    }

    fn read(&mut self, payload: &Payload<'_>) -> Result<(), ProgramError> {
        match payload {
            Payload::TypeSection(section) => self.types(section.clone()),
            // Rule: no imports at all.
            Payload::ImportSection(section) => match section.clone().into_imports().next() {
                Some(import) => {
                    let import = import.map_err(invalid)?;
                    Err(ProgramError::Import {
                        module: clip(import.module, NAME_CHARS_MAX),
                        name: clip(import.name, NAME_CHARS_MAX),
                    })
                }
                None => Ok(()),
            },
            Payload::FunctionSection(section) => {
                let max = u64::from(self.limits.functions_max);
                at_most(Counted::Functions, section.count().into(), max)?;
                for index in section.clone() {
                    self.signatures.functions.push(index.map_err(invalid)?);
                }
                Ok(())
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    self.table_elements = table.map_err(invalid)?.ty.initial;
                    let max = self.limits.table_elements_max;
                    at_most(Counted::TableElements, self.table_elements, max)?;
                }
                Ok(())
            }
            Payload::MemorySection(section) => self.memory(section.clone()),
            Payload::GlobalSection(section) => self.globals(section.clone()),
            Payload::ExportSection(section) => self.exports(section.clone()),
            Payload::StartSection { func, .. } => Err(ProgramError::Start { function: *func }),
            Payload::ElementSection(section) => self.elements(section.clone()),
            Payload::DataSection(section) => self.data(section.clone()),
            _ => Ok(()),
        }
    }

    fn types(&mut self, section: wasmparser::TypeSectionReader<'_>) -> Result<(), ProgramError> {
        for group in section {
            for ty in group.map_err(invalid)?.types() {
                let (arity, plain) = match &ty.composite_type.inner {
                    CompositeInnerType::Func(function) => self.function_type(function)?,
                    // The validator refuses it next.
                    _ => (Arity::default(), false),
                };
                self.signatures.types.push(arity);
                self.work += work::TYPE;
                self.plain.push(plain);
                let max = u64::from(self.limits.types_max);
                at_most(Counted::Types, self.signatures.types.len() as u64, max)?;
            }
        }
        Ok(())
    }

    fn function_type(&self, ty: &wasmparser::FuncType) -> Result<(Arity, bool), ProgramError> {
        let (params, results) = (ty.params().len(), ty.results().len());
        at_most(
            Counted::Parameters,
            params as u64,
            self.limits.params_max as u64,
        )?;
        at_most(
            Counted::Results,
            results as u64,
            self.limits.results_max as u64,
        )?;
        let plain = ty
            .params()
            .iter()
            .chain(ty.results())
            .all(|v| *v == ValType::I32);
        let arity = Arity {
            params: u32::try_from(params).unwrap_or(u32::MAX),
            results: u32::try_from(results).unwrap_or(u32::MAX),
        };
        Ok((arity, plain))
    }

    fn memory(&mut self, section: wasmparser::MemorySectionReader<'_>) -> Result<(), ProgramError> {
        for memory in section {
            let memory = memory.map_err(invalid)?;
            let pages = memory.maximum.ok_or(ProgramError::MemoryUnbounded)?;
            let max = self.limits.memory_pages_max;
            let too_large = |pages| ProgramError::MemoryTooLarge { pages, max };
            if pages > u64::from(max) {
                return Err(too_large(pages));
            }
            self.memory = Some(ProgramInfo {
                memory_pages_min: u32::try_from(memory.initial)
                    .map_err(|_| too_large(memory.initial))?,
                memory_pages_max: u32::try_from(pages).map_err(|_| too_large(pages))?,
            });
        }
        Ok(())
    }

    fn globals(
        &mut self,
        section: wasmparser::GlobalSectionReader<'_>,
    ) -> Result<(), ProgramError> {
        let max = u64::from(self.limits.globals_max);
        at_most(Counted::Globals, section.count().into(), max)?;
        for global in section {
            let ty = global.map_err(invalid)?.ty;
            let kind = match ty.content_type {
                ValType::I32 => Some(GlobalKind::I32),
                ValType::I64 => Some(GlobalKind::I64),
                ValType::F32 => Some(GlobalKind::F32),
                ValType::F64 => Some(GlobalKind::F64),
                ValType::V128 => Some(GlobalKind::V128),
                // The validator refuses it next.
                ValType::Ref(_) => None,
            };
            if let (true, Some(kind)) = (ty.mutable, kind) {
                self.mutable_globals.push((self.globals, kind));
            }
            self.globals += 1;
        }
        Ok(())
    }

    fn exports(
        &mut self,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), ProgramError> {
        for export in section {
            let export = export.map_err(invalid)?;
            if export.name.starts_with(RESERVED_PREFIX) {
                return Err(ProgramError::ReservedExport {
                    name: clip(export.name, NAME_CHARS_MAX),
                });
            }
            // Rule: no command's entry point: nobody would call it.
            if export.name == COMMAND_ENTRY {
                return Err(ProgramError::CommandExport);
            }
            // Other exports are allowed and ignored: compilers emit some.
            if ["memory", INITIALIZE].contains(&export.name)
                || ENTRY_POINTS.iter().any(|e| e.0 == export.name)
            {
                self.exports
                    .push((export.name.to_owned(), export.kind, export.index));
            }
        }
        Ok(())
    }

    fn elements(
        &mut self,
        section: wasmparser::ElementSectionReader<'_>,
    ) -> Result<(), ProgramError> {
        for (index, element) in section.into_iter().enumerate() {
            let element = element.map_err(invalid)?;
            let refuse = |kind| ProgramError::Segment {
                section: "element",
                index,
                kind,
            };
            let offset = match element.kind {
                ElementKind::Active { offset_expr, .. } => constant(&offset_expr)?,
                ElementKind::Passive => return Err(refuse("passive")),
                ElementKind::Declared => return Err(refuse("declared")),
            };
            let ElementItems::Functions(items) = element.items else {
                return Err(refuse("a list of expressions"));
            };
            let end = offset + u64::from(items.count());
            // Before the items are looked at: a refusal must not cost more than a segment that fits.
            if end > self.table_elements {
                return Err(ProgramError::SegmentBounds {
                    section: "element",
                    index,
                    end,
                    target: "table",
                    size: self.table_elements,
                });
            }
            self.work += work::SEGMENT + work::ELEMENT * u64::from(items.count());
            function::at_most_work(self.last_function(), self.work, self.work_max)?;
            for item in items {
                if self.escaping.insert(item.map_err(invalid)?) {
                    self.work += work::ESCAPING;
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, section: wasmparser::DataSectionReader<'_>) -> Result<(), ProgramError> {
        let pages = self.memory.map_or(0, |memory| memory.memory_pages_min);
        let size = u64::from(pages) * MEMORY_PAGE_BYTES as u64;
        for (index, data) in section.into_iter().enumerate() {
            let data = data.map_err(invalid)?;
            // Rule: passive segments are refused: their state would escape the checkpoint.
            let DataKind::Active { offset_expr, .. } = data.kind else {
                return Err(ProgramError::Segment {
                    section: "data",
                    index,
                    kind: "passive",
                });
            };
            self.work += work::SEGMENT;
            let end = constant(&offset_expr)? + data.data.len() as u64;
            if end > size {
                let (section, target) = ("data", "memory");
                return Err(ProgramError::SegmentBounds {
                    section,
                    index,
                    end,
                    target,
                    size,
                });
            }
        }
        Ok(())
    }

    /// Index of the last function.
    fn last_function(&self) -> u32 {
        let count = u32::try_from(self.signatures.functions.len()).unwrap_or(u32::MAX);
        count.saturating_sub(1)
    }

    /// What remains once every byte is valid: the exports.
    fn finish(self, work: u64) -> Result<Facts, ProgramError> {
        let expected = "`memory`, with a declared maximum";
        match self.exports.iter().find(|(name, ..)| name == "memory") {
            None => {
                return Err(ProgramError::MissingExport {
                    name: "memory",
                    expected,
                });
            }
            Some((_, ExternalKind::Memory, _)) => {}
            Some(_) => {
                return Err(ProgramError::ExportType {
                    name: "memory",
                    expected,
                });
            }
        }
        let info = self.memory.ok_or(ProgramError::MissingExport {
            name: "memory",
            expected,
        })?;
        let mut entry_points = Vec::with_capacity(ENTRY_POINTS.len() + 1);
        for entry in ENTRY_POINTS {
            let function = self
                .entry_point(entry)?
                .ok_or(ProgramError::MissingExport {
                    name: entry.0,
                    expected: entry.3,
                })?;
            entry_points.push((entry.0, function));
        }
        self.check_not_command(&entry_points)?;
        let initialize = self.entry_point((INITIALIZE, 0, 0, "`_initialize()`"))?;
        entry_points.extend(initialize.map(|function| (INITIALIZE, function)));
        Ok(Facts {
            info,
            signatures: self.signatures,
            globals: self.globals,
            mutable_globals: self.mutable_globals,
            entry_points,
            initializes: initialize.is_some(),
            work,
        })
    }

    /// The function exported under a name, which must have the type given.
    fn entry_point(
        &self,
        (name, params, results, expected): (&'static str, usize, usize, &'static str),
    ) -> Result<Option<u32>, ProgramError> {
        let Some((_, kind, index)) = self.exports.iter().find(|export| export.0 == name) else {
            return Ok(None);
        };
        let is_plain = *kind == ExternalKind::Func
            && self
                .signatures
                .functions
                .get(*index as usize)
                .is_some_and(|ty| {
                    let (plain, arity) = (self.plain.get(*ty as usize), self.signatures.ty(*ty));
                    plain == Some(&true)
                        && (arity.params as usize, arity.results as usize) == (params, results)
                });
        if is_plain {
            Ok(Some(*index))
        } else {
            Err(ProgramError::ExportType { name, expected })
        }
    }

    /// Rule: the entry points do not all begin by calling one function without parameters and results.
    /// That is how wasm-ld wraps the exports of a command: static constructors would run at every call.
    fn check_not_command(&self, entry_points: &[(&'static str, u32)]) -> Result<(), ProgramError> {
        let first_call = |function: u32| self.first_calls.get(function as usize).copied().flatten();
        let Some(callee) = entry_points.first().and_then(|entry| first_call(entry.1)) else {
            return Ok(());
        };
        let arity = self.signatures.function(callee);
        let same = entry_points
            .iter()
            .all(|entry| first_call(entry.1) == Some(callee));
        if same && (arity.params, arity.results) == (0, 0) {
            return Err(ProgramError::CommandStyle { function: callee });
        }
        Ok(())
    }
}

/// The value of a segment's offset: without imports it can only be one constant.
fn constant(expression: &wasmparser::ConstExpr<'_>) -> Result<u64, ProgramError> {
    match expression.get_operators_reader().read().map_err(invalid)? {
        Operator::I32Const { value } => Ok(u64::from(value.cast_unsigned())),
        other => Err(invalid(format!(
            "segment offset is {other:?}, not i32.const"
        ))),
    }
}
