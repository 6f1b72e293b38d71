//! What a module must be to be a program (PROTOCOL §6.1), checked in one pass over its bytes.
//!
//! Our own rules look at a section before the validator does, so that the limits bound the
//! validator's work too.

use crate::MEMORY_PAGE_BYTES;
use crate::complexity::Complexity;
use crate::instance::GlobalKind;
use crate::program::{Counted, ModuleLimits, ProgramError, ProgramInfo, RESERVED_PREFIX};
use wasmparser::{
    BlockType, CompositeInnerType, DataKind, ElementItems, ElementKind, ExternalKind,
    FuncToValidate, FuncValidatorAllocations, FunctionBody, Operator, Parser, Payload, ValType,
    ValidPayload, Validator, ValidatorResources, WasmFeatures,
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

/// Parameters and results of a type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arity {
    pub(crate) params: u32,
    pub(crate) results: u32,
}

/// What the instrumenter has to know of a valid module.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) info: ProgramInfo,
    /// By type index.
    pub(crate) types: Vec<Arity>,
    /// Type index by function index.
    pub(crate) functions: Vec<u32>,
    /// Count of all globals.
    pub(crate) globals: u32,
    /// Index and kind of the mutable ones.
    pub(crate) mutable_globals: Vec<(u32, GlobalKind)>,
    /// Export name and function index, in the order of `ENTRY_POINTS`.
    pub(crate) entry_points: Vec<(&'static str, u32)>,
}

/// Checks a module against every rule.
pub(crate) fn check(module: &[u8], limits: &ModuleLimits) -> Result<Facts, ProgramError> {
    if module.len() > limits.module_bytes_max {
        return Err(ProgramError::ModuleTooLarge {
            bytes: module.len(),
            max: limits.module_bytes_max,
        });
    }
    let mut sections = Sections::new(limits);
    let mut validator = Validator::new_with_features(FEATURES);
    let mut allocations = FuncValidatorAllocations::default();
    let mut complexity = 0u64;
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    for payload in parser.parse_all(module) {
        let payload = payload.map_err(invalid)?;
        sections.read(&payload)?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(invalid)? {
            let params = sections
                .types
                .get(function.ty as usize)
                .map_or(0, |ty| ty.params);
            let (of_function, reusable) =
                check_function(function, &body, params, allocations, limits)?;
            allocations = reusable;
            complexity += of_function;
            at_most(
                Counted::ModuleComplexity,
                complexity,
                limits.module_complexity_max,
            )?;
        }
    }
    sections.finish()
}

fn invalid(error: impl std::fmt::Display) -> ProgramError {
    ProgramError::Invalid(error.to_string())
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
    types: Vec<Arity>,
    /// True where the type is made of i32 alone.
    plain: Vec<bool>,
    functions: Vec<u32>,
    table_elements: u64,
    memory: Option<ProgramInfo>,
    globals: u32,
    mutable_globals: Vec<(u32, GlobalKind)>,
    exports: Vec<(String, ExternalKind, u32)>,
}

impl<'l> Sections<'l> {
    const fn new(limits: &'l ModuleLimits) -> Self {
        Self {
            limits,
            types: Vec::new(),
            plain: Vec::new(),
            functions: Vec::new(),
            table_elements: 0,
            memory: None,
            globals: 0,
            mutable_globals: Vec::new(),
            exports: Vec::new(),
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
                        module: import.module.to_owned(),
                        name: import.name.to_owned(),
                    })
                }
                None => Ok(()),
            },
            Payload::FunctionSection(section) => {
                let max = u64::from(self.limits.functions_max);
                at_most(Counted::Functions, section.count().into(), max)?;
                for index in section.clone() {
                    self.functions.push(index.map_err(invalid)?);
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
                self.types.push(arity);
                self.plain.push(plain);
                let max = u64::from(self.limits.types_max);
                at_most(Counted::Types, self.types.len() as u64, max)?;
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
                    name: export.name.to_owned(),
                });
            }
            // Other exports are allowed and ignored: compilers emit some.
            if export.name == "memory" || ENTRY_POINTS.iter().any(|e| e.0 == export.name) {
                self.exports
                    .push((export.name.to_owned(), export.kind, export.index));
            }
        }
        Ok(())
    }

    fn elements(&self, section: wasmparser::ElementSectionReader<'_>) -> Result<(), ProgramError> {
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
            if end > self.table_elements {
                return Err(ProgramError::SegmentBounds {
                    section: "element",
                    index,
                    end,
                    target: "table",
                    size: self.table_elements,
                });
            }
        }
        Ok(())
    }

    fn data(&self, section: wasmparser::DataSectionReader<'_>) -> Result<(), ProgramError> {
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

    /// What remains once every byte is valid: the exports.
    fn finish(self) -> Result<Facts, ProgramError> {
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
        let mut entry_points = Vec::with_capacity(ENTRY_POINTS.len());
        for (name, params, results, expected) in ENTRY_POINTS {
            let (_, kind, index) = self
                .exports
                .iter()
                .find(|export| export.0 == name)
                .ok_or(ProgramError::MissingExport { name, expected })?;
            let ty = (*kind == ExternalKind::Func)
                .then(|| self.functions.get(*index as usize))
                .flatten()
                .map(|ty| *ty as usize);
            let fits = ty.is_some_and(|ty| {
                self.plain.get(ty) == Some(&true)
                    && self.types.get(ty).is_some_and(|arity| {
                        (arity.params as usize, arity.results as usize) == (params, results)
                    })
            });
            if !fits {
                return Err(ProgramError::ExportType { name, expected });
            }
            entry_points.push((name, *index));
        }
        Ok(Facts {
            info,
            types: self.types,
            functions: self.functions,
            globals: self.globals,
            mutable_globals: self.mutable_globals,
            entry_points,
        })
    }
}

/// The value of a segment's offset: without imports it can only be one constant.
fn constant(expression: &wasmparser::ConstExpr<'_>) -> Result<u64, ProgramError> {
    match expression.get_operators_reader().read().map_err(invalid)? {
        Operator::I32Const { value } => Ok(u64::from(value.cast_unsigned())),
        other => Err(ProgramError::Invalid(format!(
            "segment offset is {other:?}, not i32.const"
        ))),
    }
}

/// Returns the function's locals times its branches, each as often as loops contain it.
fn check_function(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    params: u32,
    allocations: FuncValidatorAllocations,
    limits: &ModuleLimits,
) -> Result<(u64, FuncValidatorAllocations), ProgramError> {
    let bytes = body.range().len();
    if bytes > limits.function_bytes_max {
        let (function, max) = (function.index as usize, limits.function_bytes_max);
        return Err(ProgramError::FunctionTooLarge {
            function,
            bytes,
            max,
        });
    }
    let mut locals = 0u64;
    for group in body.get_locals_reader().map_err(invalid)? {
        locals += u64::from(group.map_err(invalid)?.0);
        at_most(Counted::Locals, locals, limits.locals_max.into())?;
    }
    let mut validator = function.into_validator(allocations);
    validator
        .read_locals(&mut body.get_binary_reader())
        .map_err(invalid)?;
    let locals = 1 + locals + u64::from(params);
    let mut complexity = Complexity::new(locals);
    let mut operators = body.get_operators_reader().map_err(invalid)?;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset().map_err(invalid)?;
        if let Some((operator, reason)) = refused(&operator) {
            return Err(ProgramError::Operator {
                operator,
                offset,
                reason,
            });
        }
        let so_far = complexity.add(&operator);
        at_most(
            Counted::FunctionComplexity,
            so_far,
            limits.function_complexity_max,
        )?;
        validator.op(offset, &operator).map_err(invalid)?;
    }
    operators.finish().map_err(invalid)?;
    Ok((complexity.sum(), validator.into_allocations()))
}

/// Operators of the accepted features whose state a checkpoint would not hold.
fn refused(operator: &Operator<'_>) -> Option<(&'static str, &'static str)> {
    let passive = "passive segments escape the checkpoint";
    let table = "the table is fixed when the program is published";
    match operator {
        Operator::MemoryInit { .. } => Some(("memory.init", passive)),
        Operator::DataDrop { .. } => Some(("data.drop", passive)),
        Operator::TableInit { .. } => Some(("table.init", table)),
        Operator::TableCopy { .. } => Some(("table.copy", table)),
        Operator::ElemDrop { .. } => Some(("elem.drop", table)),
        _ => None,
    }
}

impl Facts {
    /// Parameters and results of a block.
    pub(crate) fn block(&self, ty: BlockType) -> Arity {
        match ty {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity {
                params: 0,
                results: 1,
            },
            BlockType::FuncType(index) => self.ty(index),
        }
    }

    /// Parameters and results of a type.
    pub(crate) fn ty(&self, index: u32) -> Arity {
        self.types.get(index as usize).copied().unwrap_or_default()
    }

    /// Parameters and results of a function.
    pub(crate) fn function(&self, index: u32) -> Arity {
        self.functions
            .get(index as usize)
            .map_or_else(Arity::default, |ty| self.ty(*ty))
    }
}
