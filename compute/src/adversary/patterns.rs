//! The pieces that an attacker repeats, one per way in which a byte can cost more than a byte.

mod control;
mod labels;
mod moves;
mod sections;
mod straight;
mod values;

use super::{Draft, Widths};
use wasm_encoder::{Function, InstructionSink, MemArg, ValType};

/// One way to make a module expensive.
#[derive(Clone, Copy)]
pub struct Pattern {
    name: &'static str,
    function_bytes: usize,
    pub(super) place: Place,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Pattern {
    /// Its name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The most bytes of one function with it.
    pub(super) const fn function_bytes(&self) -> usize {
        self.function_bytes
    }
}

/// Where units go.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Into function bodies.
    Code(Code),
    /// Into the other sections; called with the number of the unit.
    Section(fn(&mut Draft, Widths, usize)),
}

/// A function of type `(i32)` made of units.
#[derive(Clone, Copy)]
pub(super) struct Code {
    pub(super) locals: fn(Widths) -> Vec<(u32, ValType)>,
    pub(super) open: fn(&mut Function, Widths),
    pub(super) unit: fn(&mut Function, Widths, usize),
    /// Called with the number of units in the function.
    pub(super) close: fn(&mut Function, Widths, usize),
}

/// Bytes of a small function, one of middling size and the largest.
const SMALL: usize = 600;
const MIDDLE: usize = 8_192;
const LARGE: usize = 65_536;

/// Locals of most patterns, beside the parameter, which is local 0 and an i32.
fn five(_: Widths) -> Vec<(u32, ValType)> {
    vec![
        (1, ValType::I64),
        (1, ValType::F64),
        (1, ValType::F32),
        (1, ValType::V128),
        (1, ValType::I32),
    ]
}
const I64: u32 = 1;
const F64: u32 = 2;
const V128: u32 = 4;

fn nothing(_: &mut Function, _: Widths) {}
fn closed(_: &mut Function, _: Widths, _: usize) {}

/// Units that leave the stack as they find it.
const fn plain(name: &'static str, unit: fn(&mut Function, Widths, usize)) -> Pattern {
    sized(name, LARGE, unit)
}

const fn sized(
    name: &'static str,
    function_bytes: usize,
    unit: fn(&mut Function, Widths, usize),
) -> Pattern {
    let (locals, open, close) = (five as fn(_) -> _, nothing as fn(&mut _, _), closed as _);
    let code = Code {
        locals,
        open,
        unit,
        close,
    };
    framed(name, function_bytes, code)
}

const fn framed(name: &'static str, function_bytes: usize, code: Code) -> Pattern {
    Pattern {
        name,
        function_bytes,
        place: Place::Code(code),
    }
}

const fn section(name: &'static str, add: fn(&mut Draft, Widths, usize)) -> Pattern {
    Pattern {
        name,
        function_bytes: LARGE,
        place: Place::Section(add),
    }
}

/// Stores the top of the stack, so that what computed it cannot be left out.
fn keep(f: &mut Function, local: u32) {
    let mut code = f.instructions();
    code.local_set(local).i32_const(0).local_get(local);
    match local {
        I64 => code.i64_store(at(0)),
        F64 => code.f64_store(at(0)),
        V128 => code.v128_store(at(0)),
        _ => code.i32_store(at(0)),
    };
}

const fn at(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 0,
        memory_index: 0,
    }
}

fn words(code: &mut InstructionSink<'_>, count: usize) {
    for _ in 0..count {
        code.i64_const(0);
    }
}

fn drops(code: &mut InstructionSink<'_>, count: usize) {
    for _ in 0..count {
        code.drop();
    }
}

/// Every pattern.
pub fn patterns() -> impl Iterator<Item = &'static Pattern> {
    [
        labels::LABELS,
        straight::STRAIGHT,
        control::CONTROL,
        values::VALUES,
        moves::MOVES,
        sections::SECTIONS,
    ]
    .into_iter()
    .flatten()
}
