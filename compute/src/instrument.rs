//! The instrumenter: the same program, counting its own gas and call stack.
//!
//! Three globals are appended (gas, stack, reason); no code of the program can name them, for the
//! program was validated without them. Exports become: the memory and the five entry points, the
//! three counters, and every mutable global of the program, so that a checkpoint can hold it.
//! Everything else of the module is kept as it was; custom sections are dropped.

use crate::gas;
use crate::program::ProgramError;
use crate::validate::{FEATURES, Facts};
use wasm_encoder::reencode::{Error, Reencode, RoundtripReencoder};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ElementSection, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, InstructionSink, MemorySection, Module,
    TableSection, TypeSection, ValType,
};
use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// Rewrites a module that `validate::check` accepted.
pub(crate) fn instrument(module: &[u8], facts: &Facts) -> Result<Vec<u8>, ProgramError> {
    encode(module, facts).map_err(|error| ProgramError::Invalid(error.to_string()))
}

fn encode(module: &[u8], facts: &Facts) -> Result<Vec<u8>, Error> {
    let same = &mut RoundtripReencoder;
    let mut types = TypeSection::new();
    let mut functions = FunctionSection::new();
    let mut tables = TableSection::new();
    let mut memories = MemorySection::new();
    let mut globals = GlobalSection::new();
    let mut elements = ElementSection::new();
    let mut code = CodeSection::new();
    let mut data = DataSection::new();
    let mut body_index = 0u32;
    let mut parser = Parser::new(0);
    parser.set_features(FEATURES);
    for payload in parser.parse_all(module) {
        match payload? {
            Payload::TypeSection(section) => same.parse_type_section(&mut types, section)?,
            Payload::FunctionSection(section) => {
                same.parse_function_section(&mut functions, section)?;
            }
            Payload::TableSection(section) => same.parse_table_section(&mut tables, section)?,
            Payload::MemorySection(section) => same.parse_memory_section(&mut memories, section)?,
            Payload::GlobalSection(section) => same.parse_global_section(&mut globals, section)?,
            Payload::ElementSection(section) => {
                same.parse_element_section(&mut elements, section)?;
            }
            Payload::DataSection(section) => same.parse_data_section(&mut data, section)?,
            Payload::CodeSectionEntry(body) => {
                let params = facts.signatures.function(body_index).params;
                code.function(&Body::read(&body, params, facts)?.write(facts)?);
                body_index += 1;
            }
            _ => {}
        }
    }
    let mut counter = |val_type, start: &ConstExpr| {
        globals.global(
            GlobalType {
                val_type,
                mutable: true,
                shared: false,
            },
            start,
        );
    };
    counter(ValType::I64, &ConstExpr::i64_const(0));
    counter(ValType::I32, &ConstExpr::i32_const(0));
    counter(ValType::I32, &ConstExpr::i32_const(gas::REASON_NONE));

    let mut result = Module::new();
    result.section(&types).section(&functions);
    if !tables.is_empty() {
        result.section(&tables);
    }
    result
        .section(&memories)
        .section(&globals)
        .section(&exports(facts));
    if !elements.is_empty() {
        result.section(&elements);
    }
    result.section(&code);
    if !data.is_empty() {
        result.section(&data);
    }
    Ok(result.finish())
}

fn exports(facts: &Facts) -> ExportSection {
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    for (name, function) in &facts.entry_points {
        exports.export(name, ExportKind::Func, *function);
    }
    let counters = Counters::of(facts);
    exports.export(gas::GAS_GLOBAL, ExportKind::Global, counters.gas);
    exports.export(gas::STACK_GLOBAL, ExportKind::Global, counters.stack);
    exports.export(gas::REASON_GLOBAL, ExportKind::Global, counters.reason);
    for (position, (global, _)) in facts.mutable_globals.iter().enumerate() {
        exports.export(&gas::state_global(position), ExportKind::Global, *global);
    }
    exports
}

/// Indexes of the appended globals.
#[derive(Clone, Copy)]
struct Counters {
    gas: u32,
    stack: u32,
    reason: u32,
}

impl Counters {
    const fn of(facts: &Facts) -> Self {
        Self {
            gas: facts.globals,
            stack: facts.globals + 1,
            reason: facts.globals + 2,
        }
    }

    /// gas -= amount
    fn charge(self, code: &mut InstructionSink<'_>, amount: u64) {
        code.global_get(self.gas)
            .i64_const(amount.cast_signed())
            .i64_sub()
            .global_set(self.gas);
    }

    /// if gas < 0 { reason = gas; unreachable }
    fn check_gas(self, code: &mut InstructionSink<'_>) {
        code.global_get(self.gas)
            .i64_const(0)
            .i64_lt_s()
            .if_(BlockType::Empty);
        code.i32_const(gas::REASON_GAS)
            .global_set(self.reason)
            .unreachable()
            .end();
    }

    /// gas -= f(the value on top of the stack, which stays there); then the check
    fn charge_for_top(self, code: &mut InstructionSink<'_>, scratch: u32, unit: Unit) {
        code.local_tee(scratch)
            .global_get(self.gas)
            .local_get(scratch)
            .i64_extend_i32_u();
        match unit {
            Unit::Bytes => code.i64_const(gas::BULK_BYTES_LOG2.into()).i64_shr_u(),
            Unit::Pages => code.i64_const(gas::GROW_PAGE.cast_signed()).i64_mul(),
        };
        code.i64_sub().global_set(self.gas);
        self.check_gas(code);
    }

    /// stack -= frame; if stack < 0 { reason = stack; unreachable }
    fn push_frame(self, code: &mut InstructionSink<'_>, frame: i32) {
        code.global_get(self.stack)
            .i32_const(frame)
            .i32_sub()
            .global_set(self.stack);
        code.global_get(self.stack)
            .i32_const(0)
            .i32_lt_s()
            .if_(BlockType::Empty);
        code.i32_const(gas::REASON_STACK)
            .global_set(self.reason)
            .unreachable()
            .end();
    }

    /// stack += frame
    fn pop_frame(self, code: &mut InstructionSink<'_>, frame: i32) {
        code.global_get(self.stack)
            .i32_const(frame)
            .i32_add()
            .global_set(self.stack);
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Pages,
}

/// A function body, read, with what it will be charged.
struct Body<'a> {
    locals: Vec<(u32, ValType)>,
    operators: Vec<Operator<'a>>,
    /// Gas charged before the operator of the same index; zero where no basic block begins.
    charges: Vec<u64>,
    /// Bytes of its frame.
    frame: i32,
    /// Index of the local added for bulk operations.
    scratch: u32,
}

impl<'a> Body<'a> {
    fn read(body: &FunctionBody<'a>, params: u32, facts: &Facts) -> Result<Self, Error> {
        let mut locals = Vec::new();
        let mut declared = 0u32;
        for group in body.get_locals_reader()? {
            let (count, ty) = group?;
            declared = declared.saturating_add(count);
            locals.push((count, RoundtripReencoder.val_type(ty)?));
        }
        let mut operators = Vec::new();
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            operators.push(reader.read()?);
        }
        let scratch = params.saturating_add(declared);
        let mut slots = u64::from(scratch);
        let mut charges = vec![0; operators.len()];
        let mut block = 0;
        let mut cost = gas::FUNCTION + u64::from(declared);
        for (index, operator) in operators.iter().enumerate() {
            cost += gas::cost(operator);
            slots += u64::from(slots_of(operator, facts));
            if ends_block(operator) || index + 1 == operators.len() {
                charges[block] = cost;
                block = index + 1;
                cost = if matches!(operator, Operator::Loop { .. }) {
                    gas::TURN
                } else {
                    0
                };
            }
        }
        // The module limits keep a frame far below the bound; if they are ever raised, a function
        // that could not be called twice in a row still counts as the whole stack.
        let frame = i32::try_from(gas::FRAME + gas::SLOT * slots).unwrap_or(gas::STACK_BYTES_MAX);
        Ok(Self {
            locals,
            operators,
            charges,
            frame,
            scratch,
        })
    }

    fn write(self, facts: &Facts) -> Result<Function, Error> {
        let counters = Counters::of(facts);
        let bulk = |operator: &Operator<'_>| {
            matches!(
                operator,
                Operator::MemoryFill { .. }
                    | Operator::MemoryCopy { .. }
                    | Operator::MemoryGrow { .. }
            )
        };
        let mut locals = self.locals;
        if self.operators.iter().any(bulk) {
            locals.push((1, ValType::I32));
        }
        let mut function = Function::new(locals);
        let mut check = true; // Rule: checked at function entry and loop heads.
        for (operator, charge) in self.operators.into_iter().zip(self.charges) {
            let code = &mut function.instructions();
            if charge > 0 {
                counters.charge(code, charge);
            }
            if check {
                counters.check_gas(code);
            }
            check = matches!(operator, Operator::Loop { .. });
            let calls = matches!(
                operator,
                Operator::Call { .. } | Operator::CallIndirect { .. }
            );
            match operator {
                Operator::MemoryFill { .. } | Operator::MemoryCopy { .. } => {
                    counters.charge_for_top(code, self.scratch, Unit::Bytes);
                }
                Operator::MemoryGrow { .. } => {
                    counters.charge_for_top(code, self.scratch, Unit::Pages);
                }
                _ if calls => counters.push_frame(code, self.frame),
                _ => {}
            }
            function.instruction(&RoundtripReencoder.instruction(operator)?);
            if calls {
                counters.pop_frame(&mut function.instructions(), self.frame);
            }
        }
        Ok(function)
    }
}

/// True where control may leave the line or join it after the operator.
const fn ends_block(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::Return
            | Operator::Unreachable
    )
}

/// Values that an operator can add to those a compiler keeps alive.
fn slots_of(operator: &Operator<'_>, facts: &Facts) -> u32 {
    match operator {
        Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
            let arity = facts.signatures.block(*blockty);
            1 + arity.params + arity.results
        }
        Operator::Call { function_index } => {
            let arity = facts.signatures.function(*function_index);
            1 + arity.params + arity.results
        }
        Operator::CallIndirect { type_index, .. } => {
            let arity = facts.signatures.ty(*type_index);
            1 + arity.params + arity.results
        }
        _ => 1,
    }
}
