//! One function: its bytes, its locals, its operators, and the work that it is to compile.

use super::{at_most, invalid};
use crate::program::{Counted, ModuleLimits, ProgramError};
use crate::signatures::Signatures;
use crate::work::FunctionWork;
use wasmparser::{
    FuncToValidate, FuncValidatorAllocations, FunctionBody, Operator, ValidatorResources,
};

/// What a valid function is.
pub(super) struct CheckedFunction {
    /// The work of compiling it.
    pub(super) work: u64,
    /// The function that its first operator calls.
    pub(super) first_call: Option<u32>,
    /// For the next function.
    pub(super) allocations: FuncValidatorAllocations,
}

/// Checks a function of a module that is `work_before` to compile so far and may be `work_max`.
pub(super) fn check(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    signatures: &Signatures,
    allocations: FuncValidatorAllocations,
    limits: &ModuleLimits,
    work_before: u64,
    work_max: u64,
) -> Result<CheckedFunction, ProgramError> {
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
    let index = function.index;
    let mut work = FunctionWork::new(signatures.ty(function.ty), locals);
    let mut validator = function.into_validator(allocations);
    validator
        .read_locals(&mut body.get_binary_reader())
        .map_err(invalid)?;
    let mut operators = body.get_operators_reader().map_err(invalid)?;
    let mut first_call = None;
    let mut is_first = true;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset().map_err(invalid)?;
        if let Some((operator, reason)) = refused(&operator) {
            return Err(ProgramError::Operator {
                operator,
                offset,
                reason,
            });
        }
        if let (true, Operator::Call { function_index }) = (is_first, &operator) {
            first_call = Some(*function_index);
        }
        is_first = false;
        check_block(&operator, signatures, limits)?;
        if let Operator::BrTable { targets } = &operator {
            let max = limits.table_targets_max.into();
            at_most(Counted::TableTargets, targets.len().into(), max)?;
        }
        let of_function = work.add(
            &operator,
            validator.operand_stack_height(),
            results(&operator, signatures),
        );
        at_most(Counted::Loops, work.loops(), limits.loops_max.into())?;
        at_most_work(index, of_function, limits.function_work_max)?;
        at_most_work(index, work_before.saturating_add(of_function), work_max)?;
        validator.op(offset, &operator).map_err(invalid)?;
    }
    operators.finish().map_err(invalid)?;
    Ok(CheckedFunction {
        work: work.sum(),
        first_call,
        allocations: validator.into_allocations(),
    })
}

/// The work that functions up to this one are is at most `max`.
pub(super) fn at_most_work(function: u32, work: u64, max: u64) -> Result<(), ProgramError> {
    if work > max {
        return Err(ProgramError::TooMuchWork {
            function,
            work,
            max,
        });
    }
    Ok(())
}

/// Rule: a block takes nothing from the stack and leaves at most one value there.
fn check_block(
    operator: &Operator<'_>,
    signatures: &Signatures,
    limits: &ModuleLimits,
) -> Result<(), ProgramError> {
    let (Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty }) =
        operator
    else {
        return Ok(());
    };
    let arity = signatures.block(*blockty);
    let (params, results) = (limits.block_params_max, limits.block_results_max);
    at_most(Counted::BlockParameters, arity.params.into(), params.into())?;
    at_most(Counted::BlockResults, arity.results.into(), results.into())
}

/// How many values a call leaves on the stack.
fn results(operator: &Operator<'_>, signatures: &Signatures) -> u32 {
    match operator {
        Operator::Call { function_index } => signatures.function(*function_index).results,
        Operator::CallIndirect { type_index, .. } => signatures.ty(*type_index).results,
        _ => 0,
    }
}

/// Operators that the validator lets pass and a program may not have: their state would escape the
/// checkpoint, or they belong to a feature that is not accepted.
fn refused(operator: &Operator<'_>) -> Option<(&'static str, &'static str)> {
    let passive = "passive segments escape the checkpoint";
    let table = "the table is fixed when the program is published";
    match operator {
        Operator::MemoryInit { .. } => Some(("memory.init", passive)),
        Operator::DataDrop { .. } => Some(("data.drop", passive)),
        Operator::TableInit { .. } => Some(("table.init", table)),
        Operator::TableCopy { .. } => Some(("table.copy", table)),
        Operator::ElemDrop { .. } => Some(("elem.drop", table)),
        Operator::TypedSelect { .. } | Operator::TypedSelectMulti { .. } => {
            Some(("select t", "reference types are not accepted"))
        }
        _ => None,
    }
}
