//! Gas: what every operation costs, and the names under which the host meets the counters.
//!
//! One gas is about a nanosecond of compiled code on a 2020s core; prices err on the high side.
//!
//! | operation | gas |
//! |---|---|
//! | entering a function | [`FUNCTION`] + 1 per declared local |
//! | `nop`, `block`, `else`, `end`, `drop`, `loop` where it stands | [`STRUCTURE`] |
//! | each turn of a loop | [`TURN`] |
//! | constants, locals, integer arithmetic, comparisons, `select`, branches | [`SIMPLE`] |
//! | loads, stores, globals, `memory.size` | [`MEMORY`] |
//! | scalar floating-point arithmetic and conversions | [`FLOAT`] |
//! | `br_table` | [`BRANCH_TABLE`] |
//! | integer and floating-point division, remainder, square root, trapping conversions | [`DIVISION`] |
//! | `call` / `call_indirect` (beside the callee's own) | [`CALL`] / [`CALL_INDIRECT`] |
//! | SIMD / SIMD that becomes a sequence of instructions | [`VECTOR`] / [`VECTOR_LONG`] |
//! | `memory.fill`, `memory.copy` | [`BULK`] + 1 per 8 bytes begun, less the first |
//! | `memory.grow` | [`GROW`] + [`GROW_PAGE`] per page asked for, granted or not |
//! | each step | [`STEP`] + [`STEP_PAGE`] per page of memory + [`STEP_GLOBAL`] per mutable global |
//! | the input, in step 1 | 1 per 8 bytes |
//!
//! # Rules
//!
//! A basic block is charged whole when it is entered, from a counter that starts at the step's
//! budget. The counter is compared with zero at function entry, at loop heads and before bulk
//! operations; between those, code is straight, so the counter may be below zero for a moment but
//! never by more than one function costs. However a step ends, a counter below zero means that the
//! gas ran out: the outcome is then out-of-gas and the gas used is the limit itself.
//!
//! # The call stack
//!
//! Before a call, the caller's frame is taken from a second counter, [`STACK_BYTES_MAX`] at the
//! start of each entry point, and given back after; below zero the program traps with a stack
//! overflow. A frame counts [`FRAME`] bytes and [`SLOT`] per parameter, per local and per value the
//! function's operators can produce: more than any compiler can need to spill at once. The bound
//! is reached long before an engine's own stack ends.

use wasmparser::Operator;

/// Gas of entering a function.
pub const FUNCTION: u64 = 4;
/// Gas of an operator that only gives structure.
pub const STRUCTURE: u64 = 0;
/// Gas of one turn of a loop.
pub const TURN: u64 = 1;
/// Gas of an ordinary operator.
pub const SIMPLE: u64 = 1;
/// Gas of an operator that reads or writes memory or a global.
pub const MEMORY: u64 = 2;
/// Gas of scalar floating-point arithmetic, its canonical result included.
pub const FLOAT: u64 = 3;
/// Gas of `br_table`.
pub const BRANCH_TABLE: u64 = 4;
/// Gas of a division and its like.
pub const DIVISION: u64 = 16;
/// Gas of `call`.
pub const CALL: u64 = 8;
/// Gas of `call_indirect`.
pub const CALL_INDIRECT: u64 = 16;
/// Gas of a SIMD operator.
pub const VECTOR: u64 = 3;
/// Gas of a SIMD operator that becomes a sequence of machine instructions.
pub const VECTOR_LONG: u64 = 16;
/// Gas of a bulk operation before its bytes.
pub const BULK: u64 = 16;
/// Bytes of a bulk operation per gas, as a power of two.
pub const BULK_BYTES_LOG2: u32 = 3;
/// Gas of `memory.grow` before its pages.
pub const GROW: u64 = 512;
/// Gas of each page asked for.
pub const GROW_PAGE: u64 = 8_192;
/// Gas of each step: a call from the host and a checkpoint.
pub const STEP: u64 = 10_000;
/// Gas of each page of memory at the start of each step: the checkpoint reads all of them.
pub const STEP_PAGE: u64 = 16_384;
/// Gas of each mutable global in each step.
pub const STEP_GLOBAL: u64 = 128;

/// Bytes of the call stack, as counted by the instrumenter.
pub const STACK_BYTES_MAX: i32 = 32 * 1024 * 1024;
/// Bytes counted for a frame before its values.
pub const FRAME: u64 = 128;
/// Bytes counted for each value of a frame.
pub const SLOT: u64 = 16;

/// Export name of the gas counter, an `i64`.
pub const GAS_GLOBAL: &str = "proofmill:gas";
/// Export name of the stack counter, an `i32`.
pub const STACK_GLOBAL: &str = "proofmill:stack";
/// Export name of the reason of an injected trap, an `i32`: one of the `REASON_*`.
pub const REASON_GLOBAL: &str = "proofmill:reason";
/// The program's own trap.
pub const REASON_NONE: i32 = 0;
/// The gas ran out.
pub const REASON_GAS: i32 = 1;
/// The call stack ran out.
pub const REASON_STACK: i32 = 2;

/// Export name of the i-th mutable global of the program.
#[must_use]
pub fn state_global(index: usize) -> String {
    format!("proofmill:global:{index}")
}

macro_rules! define_is_vector {
    ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        pub(crate) fn is_vector(operator: &Operator<'_>) -> bool {
            matches!(operator, $( Operator::$op { .. } )|*)
        }
    };
}
wasmparser::for_each_visit_simd_operator!(define_is_vector);

/// Gas of one operator, charged with its basic block.
pub(crate) fn cost(operator: &Operator<'_>) -> u64 {
    use Operator as O;
    match operator {
        O::Nop | O::Block { .. } | O::Loop { .. } | O::Else | O::End | O::Drop | O::Unreachable => {
            STRUCTURE
        }
        O::BrTable { .. } => BRANCH_TABLE,
        O::Call { .. } => CALL,
        O::CallIndirect { .. } => CALL_INDIRECT,
        O::MemoryFill { .. } | O::MemoryCopy { .. } => BULK,
        O::MemoryGrow { .. } => GROW,
        O::GlobalGet { .. } | O::GlobalSet { .. } | O::MemorySize { .. } => MEMORY,
        O::I32Load { .. }
        | O::I64Load { .. }
        | O::F32Load { .. }
        | O::F64Load { .. }
        | O::I32Load8S { .. }
        | O::I32Load8U { .. }
        | O::I32Load16S { .. }
        | O::I32Load16U { .. }
        | O::I64Load8S { .. }
        | O::I64Load8U { .. }
        | O::I64Load16S { .. }
        | O::I64Load16U { .. }
        | O::I64Load32S { .. }
        | O::I64Load32U { .. }
        | O::I32Store { .. }
        | O::I64Store { .. }
        | O::F32Store { .. }
        | O::F64Store { .. }
        | O::I32Store8 { .. }
        | O::I32Store16 { .. }
        | O::I64Store8 { .. }
        | O::I64Store16 { .. }
        | O::I64Store32 { .. } => MEMORY,
        O::I32DivS
        | O::I32DivU
        | O::I32RemS
        | O::I32RemU
        | O::I64DivS
        | O::I64DivU
        | O::I64RemS
        | O::I64RemU
        | O::F32Div
        | O::F64Div
        | O::F32Sqrt
        | O::F64Sqrt
        | O::I32TruncF32S
        | O::I32TruncF32U
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U => DIVISION,
        O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Min
        | O::F32Max
        | O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest
        | O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Min
        | O::F64Max
        | O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest
        | O::F32ConvertI32S
        | O::F32ConvertI32U
        | O::F32ConvertI64S
        | O::F32ConvertI64U
        | O::F64ConvertI32S
        | O::F64ConvertI32U
        | O::F64ConvertI64S
        | O::F64ConvertI64U
        | O::F32DemoteF64
        | O::F64PromoteF32 => FLOAT,
        O::I8x16Shl
        | O::I8x16ShrS
        | O::I8x16ShrU
        | O::I8x16Popcnt
        | O::I64x2ShrS
        | O::I64x2Abs
        | O::I64x2Mul
        | O::F32x4Sqrt
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F64x2Sqrt
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::I32x4TruncSatF32x4S
        | O::I32x4TruncSatF32x4U
        | O::I32x4TruncSatF64x2SZero
        | O::I32x4TruncSatF64x2UZero
        | O::F32x4ConvertI32x4U
        | O::F64x2ConvertLowI32x4U => VECTOR_LONG,
        other if is_vector(other) => VECTOR,
        _ => SIMPLE,
    }
}
