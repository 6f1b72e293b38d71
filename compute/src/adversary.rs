//! Modules that cost as much as the limits allow: what `bench modules` measures and tests bound.
//!
//! ```text
//! Pattern ── fill(bytes, limits) ──▶ the module of that size with as many units as are accepted
//! ordinary(modules, bytes) ────────▶ the functions of real programs, repeated to that size
//! ```
//!
//! A pattern is a short piece of a module, its unit, which an attacker repeats. [`fill`] looks for
//! the most units per function and per module that the rules accept, and pads the rest with data,
//! which is free. Nothing here is random: a pattern, a size and limits always give the same bytes.

mod ordinary;
mod patterns;

pub use ordinary::ordinary;
pub use patterns::{Pattern, patterns};

use crate::{MEMORY_PAGE_BYTES, ModuleLimits, Program};
use patterns::Place;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, ElementSection, Elements, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, MemorySection, MemoryType, Module,
    RefType, TableSection, TableType, TypeSection, ValType,
};

/// Room that a function keeps for its last unit and for what closes it.
const FUNCTION_ROOM: usize = 9_000;
/// Pages of memory: enough for a data segment as large as any module.
const PAGES: u64 = 32;
/// Functions before those of the pattern.
const FUNCTIONS_FIXED: u32 = 12;

/// Widest block or function type that the limits allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    pub(crate) params: usize,
    pub(crate) results: usize,
    pub(crate) locals: u32,
}

/// The module of `bytes` bytes with as many units of the pattern as the limits accept; `None` when
/// not even one unit is.
#[must_use]
pub fn fill(pattern: &Pattern, bytes: usize, limits: &ModuleLimits) -> Option<Vec<u8>> {
    let widths = Widths {
        params: limits.params_max,
        results: limits.results_max,
        locals: limits.locals_max.saturating_sub(8),
    };
    let accepted = |per_function: usize, units: usize| {
        let module = draft(pattern, widths, per_function, units, bytes)?;
        Program::compile_check(&module, limits)
            .is_ok()
            .then_some(module)
    };
    let function_bytes = limits.function_bytes_max.min(pattern.function_bytes());
    let most = capacity(pattern, widths, function_bytes.min(bytes));
    let per_function = largest(most, |units| accepted(units, units).is_some())?;
    let units = largest(bytes, |units| accepted(per_function, units).is_some())?;
    accepted(per_function, units)
}

/// Units that fit into a function of so many bytes.
fn capacity(pattern: &Pattern, widths: Widths, bytes: usize) -> usize {
    let room = bytes.saturating_sub(FUNCTION_ROOM.min(bytes / 8));
    let Place::Code(code) = pattern.place else {
        return usize::MAX >> 1;
    };
    let mut function = Function::new((code.locals)(widths));
    (code.open)(&mut function, widths);
    let mut units = 0;
    while function.byte_len() < room && units < bytes {
        (code.unit)(&mut function, widths, units);
        units += 1;
    }
    units.max(1)
}

/// Largest number from 1 to `most` of which `holds` is true, given that it is for all smaller ones.
fn largest(most: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    if !holds(1) {
        return None;
    }
    let (mut good, mut step) = (1, 1);
    while good + step <= most && holds(good + step) {
        good += step;
        step *= 2;
    }
    while step > 0 {
        if good + step <= most && holds(good + step) {
            good += step;
        }
        step /= 2;
    }
    Some(good)
}

/// A program with so many units, padded to `bytes`; `None` when it is longer.
fn draft(
    pattern: &Pattern,
    widths: Widths,
    per_function: usize,
    units: usize,
    bytes: usize,
) -> Option<Vec<u8>> {
    let mut draft = Draft::new(widths);
    match pattern.place {
        Place::Section(add) => {
            for unit in 0..units {
                add(&mut draft, widths, unit);
                // A count that can never fit is not built to its end.
                if unit > bytes {
                    return None;
                }
            }
        }
        Place::Code(code) => {
            let mut left = units;
            let mut written = 0;
            while left > 0 {
                let here = left.min(per_function);
                let mut function = Function::new((code.locals)(widths));
                (code.open)(&mut function, widths);
                for unit in 0..here {
                    (code.unit)(&mut function, widths, unit);
                }
                (code.close)(&mut function, widths, here);
                function.instructions().end();
                written += function.byte_len();
                if written > bytes {
                    return None;
                }
                draft.functions.function(types::BODY);
                draft.code.function(&function);
                left -= here;
            }
        }
    }
    draft.finish(bytes)
}

/// Indexes of the types that every draft has.
pub(crate) mod types {
    /// `(i32) -> i32`
    pub(crate) const UNARY: u32 = 0;
    /// `(i32, i32)`
    pub(crate) const PAIR: u32 = 1;
    /// `() -> i32`
    pub(crate) const SOURCE: u32 = 2;
    /// `()`
    pub(crate) const NOTHING: u32 = 3;
    /// `(i32)`, of the pattern's functions
    pub(crate) const BODY: u32 = 4;
    /// The widest parameters to the widest results
    pub(crate) const WIDE: u32 = 5;
    /// The widest parameters to nothing
    pub(crate) const WIDE_IN: u32 = 6;
    /// Nothing to the widest results
    pub(crate) const WIDE_OUT: u32 = 7;
    /// As many parameters as results, the widest
    pub(crate) const WIDE_BOTH: u32 = 8;
    /// Some parameters to nothing
    pub(crate) const SOME_IN: u32 = 9;
    /// Some parameters to the widest results
    pub(crate) const SOME: u32 = 10;
    /// Parameters of the two before: so many operands weigh nothing of their own.
    pub(crate) const ARGUMENTS: usize = 12;
}

/// Indexes of the functions that every draft has, after the five entry points.
pub(crate) mod functions {
    /// `()`
    pub(crate) const NOTHING: u32 = 5;
    /// `(i32) -> i32`
    pub(crate) const UNARY: u32 = 6;
    /// The widest type
    pub(crate) const WIDE: u32 = 7;
    /// Nothing to the widest results
    pub(crate) const WIDE_OUT: u32 = 8;
    /// As many parameters as results
    pub(crate) const WIDE_BOTH: u32 = 9;
    /// Some parameters to nothing
    pub(crate) const SOME_IN: u32 = 10;
    /// Some parameters to the widest results
    pub(crate) const SOME: u32 = 11;
}

/// A module in the making.
pub(crate) struct Draft {
    pub(crate) types: TypeSection,
    pub(crate) functions: FunctionSection,
    pub(crate) globals: GlobalSection,
    pub(crate) exports: ExportSection,
    pub(crate) elements: ElementSection,
    pub(crate) code: CodeSection,
    pub(crate) data: DataSection,
}

impl Draft {
    fn new(widths: Widths) -> Self {
        let mut draft = Self {
            types: TypeSection::new(),
            functions: FunctionSection::new(),
            globals: GlobalSection::new(),
            exports: ExportSection::new(),
            elements: ElementSection::new(),
            code: CodeSection::new(),
            data: DataSection::new(),
        };
        let words = |count: usize| vec![ValType::I64; count];
        let i32s = |count: usize| vec![ValType::I32; count];
        let (wide_in, wide_out) = (words(widths.params), words(widths.results));
        let both = words(widths.params.min(widths.results));
        for (params, results) in [
            (i32s(1), i32s(1)),
            (i32s(2), i32s(0)),
            (i32s(0), i32s(1)),
            (i32s(0), i32s(0)),
            (i32s(1), i32s(0)),
            (wide_in.clone(), wide_out.clone()),
            (wide_in, Vec::new()),
            (Vec::new(), wide_out.clone()),
            (both.clone(), both),
            (words(types::ARGUMENTS), Vec::new()),
            (words(types::ARGUMENTS), wide_out),
        ] {
            draft.types.ty().function(params, results);
        }
        draft.fixed_functions(widths);
        draft.exports.export("memory", ExportKind::Memory, 0);
        for (index, name) in ["alloc", "init", "step", "out_ptr", "out_len"]
            .into_iter()
            .zip(0..)
            .map(|(name, index)| (index, name))
        {
            draft.exports.export(name, ExportKind::Func, index);
        }
        let kind = GlobalType {
            val_type: ValType::I64,
            mutable: true,
            shared: false,
        };
        draft.globals.global(kind, &ConstExpr::i64_const(0));
        let unary = [functions::UNARY];
        let list = Elements::Functions((&unary[..]).into());
        draft.elements.active(None, &ConstExpr::i32_const(0), list);
        draft
    }

    fn fixed_functions(&mut self, widths: Widths) {
        use types::{NOTHING, PAIR, SOME, SOME_IN, SOURCE, UNARY, WIDE, WIDE_BOTH, WIDE_OUT};
        for ty in [
            UNARY, PAIR, SOURCE, SOURCE, SOURCE, NOTHING, UNARY, WIDE, WIDE_OUT, WIDE_BOTH,
            SOME_IN, SOME,
        ] {
            self.functions.function(ty);
        }
        for index in 0..FUNCTIONS_FIXED {
            let mut function = Function::new([]);
            let mut code = function.instructions();
            match index {
                0 | 6 => {
                    code.local_get(0);
                }
                2 => {
                    code.i32_const(1);
                }
                3 | 4 => {
                    code.i32_const(0);
                }
                7 | 8 | 11 => {
                    for _ in 0..widths.results {
                        code.i64_const(0);
                    }
                }
                9 => {
                    for local in (0..).take(widths.params.min(widths.results)) {
                        code.local_get(local);
                    }
                }
                _ => {}
            }
            code.end();
            self.code.function(&function);
        }
    }

    /// The module, with a data segment of what is missing to `bytes`.
    fn finish(mut self, bytes: usize) -> Option<Vec<u8>> {
        let bare = self.encode(None).len();
        if bare > bytes {
            return None;
        }
        // The lengths around the segment take a few bytes more or fewer; the second try fits.
        let mut missing = (bytes - bare).saturating_sub(16);
        let mut module = self.encode(Some(missing));
        missing += bytes.saturating_sub(module.len());
        module = self.encode(Some(missing));
        if module.len() > bytes {
            missing = missing.saturating_sub(module.len() - bytes);
            module = self.encode(Some(missing));
        }
        (module.len() <= bytes).then_some(module)
    }

    fn encode(&mut self, padding: Option<usize>) -> Vec<u8> {
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 60_000,
            maximum: Some(60_000),
            shared: false,
        });
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: PAGES,
            maximum: Some(PAGES),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.functions)
            .section(&tables)
            .section(&memories)
            .section(&self.globals)
            .section(&self.exports)
            .section(&self.elements)
            .section(&self.code);
        let mut data = self.data.clone();
        if let Some(bytes) = padding {
            let most = usize::try_from(PAGES).unwrap_or(0) * MEMORY_PAGE_BYTES;
            let filler = vec![0x5a; bytes.min(most)];
            data.active(0, &ConstExpr::i32_const(0), filler);
        }
        if !data.is_empty() {
            module.section(&data);
        }
        module.finish()
    }
}
