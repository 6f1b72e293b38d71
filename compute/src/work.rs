//! How much work a module is to compile, bounded before the compiler is asked.
//!
//! Bytes alone do not bound it: a call of two bytes becomes forty instructions with its counters, and
//! where many values meet many branches a compiler works for each pair. So every operator has a
//! weight, in tenths of the time that a byte of ordinary code takes, and a module may weigh a fixed
//! multiple of its bytes. The weights are measured (`proofmill bench modules`) and err on the high
//! side; they are part of the rules.
//!
//! | what | weight |
//! |---|---|
//! | an operator | [`OPERATOR`] |
//! | an edge of the control flow: `block`, `loop`, `if`, `else`, `br`, `br_if`, `return` | [`EDGE`] |
//! | `loop`, besides | [`LOOP`] |
//! | a target of `br_table` | [`TARGET`] |
//! | `call`, `call_indirect`, besides their edge | [`CALL`], [`CALL_INDIRECT`] |
//! | `memory.fill`, `memory.copy`, `memory.grow`, besides their edge | [`BULK`] |
//! | memory accesses | [`ACCESS`] |
//! | floating-point arithmetic | [`FLOAT`] |
//! | divisions, conversions that may trap or change the width of a float, rounding, minimum and maximum of floats | [`LONG`] |
//! | vectors, those of [`gas::VECTOR_LONG`], floats made integers | [`VECTOR`], [`VECTOR_LONG`], [`VECTOR_CONVERSION`] |
//! | an operator with more than [`DEEP`] operands below its own | [`DEEP_VALUE`] |
//! | a write to a local | 1 per [`LOCALS_PER_WRITE`] locals |
//! | an edge, besides, for each local that it hands on | see `compute::work::handed` |
//! | an edge, besides | 1 per [`EDGES_PER_EDGE`] edges before it in the function |
//! | an edge, besides | values² × (1 + loops around it) / [`VALUES_SQUARED_PER_EDGE`] |
//! | a function, one in the table besides, a type, a segment, an item of one | [`FUNCTION`], [`ESCAPING`], [`TYPE`], [`SEGMENT`], [`ELEMENT`] |
//!
//! Where edges meet, each of them hands on the locals that one way has written and another has not: so a
//! target of `br_table`, one byte, moves many values.
//!
//! *Values* are the locals, parameters included, and the operands on the stack: what may be alive on
//! both sides of the edge.

mod handed;

use self::handed::Handed;
use crate::gas;
use crate::signatures::Arity;
use wasmparser::Operator;

/// Of any operator.
pub const OPERATOR: u64 = 2;
/// Of an edge of the control flow, the counters of its block included.
pub const EDGE: u64 = 130;
/// Edges of the same function that add one to the weight of the next: compilers are not linear in them.
pub const EDGES_PER_EDGE: u64 = 25;
/// Of a loop's head, with its check of the gas.
pub const LOOP: u64 = 120;
/// Of a target of `br_table`.
pub const TARGET: u64 = 12;
/// Of a call, with its check of the stack.
pub const CALL: u64 = 50;
/// Of an indirect call.
pub const CALL_INDIRECT: u64 = 380;
/// Of an operation on many bytes, with its check of the gas.
pub const BULK: u64 = 120;
/// Of a load or store.
pub const ACCESS: u64 = 45;
/// Of floating-point arithmetic: its result is made canonical.
pub const FLOAT: u64 = 90;
/// Of the smaller or larger of two floats, of rounding one and of changing its width, and of divisions and
/// conversions that may trap.
pub const LONG: u64 = 110;
/// Of a vector operator.
pub const VECTOR: u64 = 45;
/// Of a vector operator that becomes a sequence of instructions.
pub const VECTOR_LONG: u64 = 100;
/// Of a vector of floats made integers.
pub const VECTOR_CONVERSION: u64 = 160;
/// Operands below an operator's own that are not counted.
pub const DEEP: u64 = 12;
/// Of an operator above more operands than that: each of them waits in memory.
pub const DEEP_VALUE: u64 = 195;
/// Locals that add one to the weight of each write to one of them.
pub const LOCALS_PER_WRITE: u64 = 16;
/// The square of the values at an edge is divided by this and added to the edge's weight.
pub const VALUES_SQUARED_PER_EDGE: u64 = 112;
/// Of a function: its entry, its frame, its place in the module.
pub const FUNCTION: u64 = 380;
/// Of a function in the table, besides: it can be called from outside.
pub const ESCAPING: u64 = 600;
/// Of a type.
pub const TYPE: u64 = 500;
/// Of a segment.
pub const SEGMENT: u64 = 200;
/// An item of an element segment, wherever it points: it is looked up in the set of functions seen.
pub const ELEMENT: u64 = 100;

/// Work of a function so far.
pub(crate) struct FunctionWork {
    locals: u64,
    /// The blocks around the next operator, the function itself not among them; true for a loop.
    open: Vec<bool>,
    handed: Handed,
    /// Loops among them.
    depth: u64,
    /// Loops of the function.
    loops: u64,
    /// Operators with edges of the function.
    edges: u64,
    sum: u64,
}

impl FunctionWork {
    /// Of a function of this type with so many declared locals, before its first operator.
    pub(crate) fn new(ty: Arity, declared: u64) -> Self {
        let locals = declared + ty.params as u64;
        Self {
            locals,
            open: Vec::new(),
            handed: Handed::new(locals),
            depth: 0,
            loops: 0,
            edges: 0,
            sum: FUNCTION + locals,
        }
    }

    /// The work with one operator more, which finds so many operands on the stack and, if it is a call,
    /// has so many results.
    pub(crate) fn add(&mut self, operator: &Operator<'_>, operands: u32, results: u32) -> u64 {
        match operator {
            Operator::Block { .. } | Operator::If { .. } => self.open.push(false),
            Operator::Loop { .. } => {
                self.open.push(true);
                self.depth += 1;
                self.loops += 1;
            }
            Operator::End if self.open.pop() == Some(true) => self.depth -= 1,
            _ => {}
        }
        let (operands, results) = (u64::from(operands), u64::from(results));
        self.sum += weight(operator) + self.handed.add(operator);
        if operands > DEEP {
            self.sum += DEEP_VALUE * (1 + results);
        }
        if let Operator::LocalSet { .. } | Operator::LocalTee { .. } = operator {
            self.sum += self.locals / LOCALS_PER_WRITE;
        }
        let edges = edges(operator);
        if edges > 0 {
            let values = self.locals + operands;
            self.sum += edges * (values * values * (1 + self.depth) / VALUES_SQUARED_PER_EDGE);
            self.sum += self.edges / EDGES_PER_EDGE;
            self.edges += 1;
        }
        self.sum
    }

    /// The sum over the operators counted.
    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// Loops counted.
    pub(crate) const fn loops(&self) -> u64 {
        self.loops
    }
}

/// Edges of the control flow that an operator adds, those of injected code included.
fn edges(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::Return
        | Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryGrow { .. } => 1,
        Operator::BrTable { targets } => 1 + u64::from(targets.len()),
        _ => 0,
    }
}

/// The weight of an operator wherever it is.
fn weight(operator: &Operator<'_>) -> u64 {
    OPERATOR
        + match operator {
            Operator::Loop { .. } => EDGE + LOOP,
            Operator::Block { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::Return => EDGE,
            Operator::BrTable { targets } => EDGE + TARGET * u64::from(targets.len()),
            Operator::Call { .. } => EDGE + CALL,
            Operator::CallIndirect { .. } => EDGE + CALL_INDIRECT,
            Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryGrow { .. } => EDGE + BULK,
            Operator::GlobalGet { .. } | Operator::GlobalSet { .. } => 0,
            Operator::F32Min
            | Operator::F32Max
            | Operator::F64Min
            | Operator::F64Max
            | Operator::F32Ceil
            | Operator::F32Floor
            | Operator::F32Trunc
            | Operator::F32Nearest
            | Operator::F64Ceil
            | Operator::F64Floor
            | Operator::F64Trunc
            | Operator::F64Nearest
            | Operator::F32DemoteF64
            | Operator::F64PromoteF32 => LONG,
            Operator::I32x4TruncSatF32x4S
            | Operator::I32x4TruncSatF32x4U
            | Operator::I32x4TruncSatF64x2SZero
            | Operator::I32x4TruncSatF64x2UZero => VECTOR_CONVERSION,
            other => match gas::cost(other) {
                gas::MEMORY => ACCESS,
                gas::VECTOR if gas::is_vector(other) => VECTOR,
                gas::VECTOR_LONG if gas::is_vector(other) => VECTOR_LONG,
                gas::FLOAT => FLOAT,
                gas::DIVISION => LONG,
                _ => 0,
            },
        }
}
