//! One run of one program: the sequence of calls, their gas and their checkpoints.
//!
//! ```text
//! checkpoint 0 ─ [_initialize,] alloc, input, init, step ─▶ 1 ─ step ─▶ 2 ─ … ─ step, out_ptr, out_len ─▶ n + end
//! ```
//!
//! [`drive`] is the protocol; engines implement [`Instance`] and decide nothing.

use crate::checkpoint::{Checkpoint, End, PageTree, Trace};
use crate::instance::{Entry, Fault, GlobalValue, Instance};
use crate::program::Program;
use crate::{MEMORY_PAGE_BYTES, gas, hash};

/// Largest gas limit of a run.
pub const GAS_LIMIT_MAX: u64 = 1 << 62;

/// Bounds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Gas of the whole run, at most [`GAS_LIMIT_MAX`].
    pub gas_limit: u64,
    /// Pages of memory; the program may grow to the smaller of this and its declared maximum.
    pub memory_pages: u32,
    /// Steps.
    pub steps_max: u32,
    /// Gas of one step.
    pub step_gas_max: u64,
    /// Bytes of output.
    pub output_bytes_max: u32,
}

/// How a run ended. Every one is an outcome of the program, payable, the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// `step` answered 1 and the output was read.
    Done = 0,
    /// The program trapped.
    Trap = 1,
    /// The gas limit was reached.
    OutOfGas = 2,
    /// The output is too long or not inside the memory.
    BadOutput = 3,
    /// The last allowed step did not finish the run.
    TooManySteps = 4,
    /// One step reached its own gas limit.
    StepGas = 5,
}

/// Why a program trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TrapKind {
    /// `unreachable` was executed.
    Unreachable = 1,
    /// A load, store, fill or copy left the memory.
    MemoryOutOfBounds = 2,
    /// An indirect call left the table.
    TableOutOfBounds = 3,
    /// An indirect call met an empty element.
    IndirectCallToNull = 4,
    /// An indirect call met a function of another type.
    BadSignature = 5,
    /// An integer division or conversion overflowed.
    IntegerOverflow = 6,
    /// An integer was divided by zero.
    IntegerDivisionByZero = 7,
    /// A not-a-number was converted to an integer.
    BadConversionToInteger = 8,
    /// The counted call stack ran out.
    StackOverflow = 9,
    /// `alloc` answered a place where the input does not fit.
    InputOutOfBounds = 10,
    /// `step` answered neither 0 nor 1.
    BadStepAnswer = 11,
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The trap, when `status` is [`Status::Trap`].
    pub trap: Option<TrapKind>,
    /// The output; empty unless `status` is [`Status::Done`].
    pub output: Vec<u8>,
    /// [`output_hash`] of `output`.
    pub output_hash: [u8; 32],
    /// Gas used, at most the limit.
    pub gas_used: u64,
    /// Steps begun, at most the limit; the trace has one checkpoint more.
    pub steps: u32,
    /// Commitment to all checkpoints.
    pub trace_root: [u8; 32],
}

/// Hash of an output, as outcomes and checkpoints hold it.
#[must_use]
pub fn output_hash(output: &[u8]) -> [u8; 32] {
    hash("proofmill/output/v1", &[output])
}

/// A failure of the host or of its caller, never of the program; it says nothing about the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The limits are such as a task may not have.
    #[error("limits of the run are not possible: {0}")]
    Limits(String),
    /// The engine could not be set up or could not compile a valid program.
    #[error("engine failed: {0}")]
    Engine(String),
    /// The engine ran out of something the program is entitled to: memory, native stack, a thread.
    #[error("host ran out: {0}")]
    Resources(String),
}

/// Something that runs programs.
pub trait Machine {
    /// Runs a program on an input; `progress` hears of steps and gas after every step.
    ///
    /// # Errors
    /// Only the host's failure; whatever the program does is an [`Outcome`].
    fn run(
        &self,
        program: &Program,
        input: &[u8],
        limits: &RunLimits,
        progress: &mut dyn FnMut(u32, u64),
    ) -> Result<Outcome, MachineError>;
}

/// Pages that a run of the program may have.
///
/// # Errors
/// [`MachineError::Limits`] when a task with these limits should never have been admitted.
pub fn admit(program: &Program, input: &[u8], limits: &RunLimits) -> Result<u32, MachineError> {
    let least = program.info().memory_pages_min;
    if limits.memory_pages < least {
        let given = limits.memory_pages;
        let message = format!("{given} pages of memory, the program starts with {least}");
        return Err(MachineError::Limits(message));
    }
    if limits.gas_limit > GAS_LIMIT_MAX {
        let message = format!("gas limit {}, at most {GAS_LIMIT_MAX}", limits.gas_limit);
        return Err(MachineError::Limits(message));
    }
    if u32::try_from(input.len()).is_err() {
        let message = format!("input of {} bytes, at most {}", input.len(), u32::MAX);
        return Err(MachineError::Limits(message));
    }
    Ok(limits.memory_pages.min(program.info().memory_pages_max))
}

/// Runs a fresh instance of `program` to its end.
///
/// # Errors
/// Only the host's failure.
pub fn drive(
    program: &Program,
    instance: &mut dyn Instance,
    input: &[u8],
    limits: &RunLimits,
    progress: &mut dyn FnMut(u32, u64),
) -> Result<Outcome, MachineError> {
    admit(program, input, limits)?;
    let names = (0..program.mutable_globals().len())
        .map(gas::state_global)
        .collect();
    let mut run = Run {
        program,
        instance,
        names,
        tree: PageTree::new(),
    };
    let mut trace = Trace::default();
    let mut last = run.checkpoint(0, 0, false)?;
    let (end, output) = loop {
        if last.step == limits.steps_max {
            break (Stop::at(Status::TooManySteps, last.gas_used), Vec::new());
        }
        trace.push(&last.hash(None));
        let step = last.step + 1;
        let left = limits.gas_limit - last.gas_used;
        let budget = left.min(limits.step_gas_max);
        let first = (step == 1).then_some(input);
        let ended = run.step(first, budget, last.memory_pages, limits.output_bytes_max)?;
        let gas_used = last.gas_used + ended.gas;
        // Rule: a step that does not complete leaves no state.
        let state = Checkpoint {
            step,
            gas_used,
            ..last.clone()
        };
        match ended.result {
            Stepped::More => last = run.checkpoint(step, gas_used, false)?,
            Stepped::Done(output) => {
                last = run.checkpoint(step, gas_used, true)?;
                break match output {
                    Some(output) => (Stop::at(Status::Done, gas_used), output),
                    None => (Stop::at(Status::BadOutput, gas_used), Vec::new()),
                };
            }
            Stepped::OutOfGas => {
                last = state;
                let status = if left <= limits.step_gas_max {
                    Status::OutOfGas
                } else {
                    Status::StepGas
                };
                break (Stop::at(status, gas_used), Vec::new());
            }
            Stepped::Trapped(trap) => {
                last = state;
                let stop = Stop {
                    trap: Some(trap),
                    ..Stop::at(Status::Trap, gas_used)
                };
                break (stop, Vec::new());
            }
        }
        progress(step, gas_used);
    };
    let output_hash = output_hash(&output);
    let Stop {
        status,
        trap,
        gas_used,
    } = end;
    trace.push(&last.hash(Some(&End {
        status,
        trap,
        output_hash,
        gas_used,
    })));
    progress(last.step, gas_used);
    let (steps, trace_root) = (last.step, trace.root());
    Ok(Outcome {
        status,
        trap,
        output,
        output_hash,
        gas_used,
        steps,
        trace_root,
    })
}

struct Stop {
    status: Status,
    trap: Option<TrapKind>,
    gas_used: u64,
}

impl Stop {
    const fn at(status: Status, gas_used: u64) -> Self {
        Self {
            status,
            trap: None,
            gas_used,
        }
    }
}

struct Ended {
    result: Stepped,
    gas: u64,
}

enum Stepped {
    More,
    /// With the output, unless it is too long or out of bounds.
    Done(Option<Vec<u8>>),
    OutOfGas,
    Trapped(TrapKind),
}

struct Run<'a> {
    program: &'a Program,
    instance: &'a mut dyn Instance,
    /// Export names of the program's mutable globals.
    names: Vec<String>,
    tree: PageTree,
}

impl Run<'_> {
    /// The state as it is now.
    fn checkpoint(
        &mut self,
        step: u32,
        gas_used: u64,
        done: bool,
    ) -> Result<Checkpoint, MachineError> {
        let mut globals = Vec::with_capacity(self.names.len());
        for name in &self.names {
            globals.push(self.instance.global(name)?);
        }
        let memory = self.instance.memory();
        self.tree.update(memory);
        Ok(Checkpoint {
            program: self.program.hash(),
            step,
            memory_pages: pages(memory),
            globals,
            gas_used,
            done,
            pages_root: self.tree.root(),
        })
    }

    /// One step within `budget`; the first one is given the input.
    fn step(
        &mut self,
        input: Option<&[u8]>,
        budget: u64,
        memory_pages: u32,
        output_bytes_max: u32,
    ) -> Result<Ended, MachineError> {
        let fixed = gas::STEP
            + gas::STEP_PAGE * u64::from(memory_pages)
            + gas::STEP_GLOBAL * self.names.len() as u64
            + input.map_or(0, |input| input.len() as u64 >> gas::BULK_BYTES_LOG2);
        let Some(start) = budget.checked_sub(fixed) else {
            return Ok(Ended {
                result: Stepped::OutOfGas,
                gas: budget,
            });
        };
        self.instance
            .set_global(gas::GAS_GLOBAL, GlobalValue::I64(start.cast_signed()))?;
        let result = match self.calls(input, output_bytes_max) {
            Ok(result) => result,
            Err(Fault::Trap(kind)) => Stepped::Trapped(self.name_trap(kind)?),
            Err(Fault::Host(error)) => return Err(error),
        };
        // Rule: a counter below zero means that the gas ran out, however the step ended.
        Ok(match u64::try_from(self.gas_left()?) {
            Ok(left) => Ended {
                result,
                gas: budget - left.min(budget),
            },
            Err(_) => Ended {
                result: Stepped::OutOfGas,
                gas: budget,
            },
        })
    }

    fn calls(&mut self, input: Option<&[u8]>, output_bytes_max: u32) -> Result<Stepped, Fault> {
        if let Some(input) = input {
            // Rule: `_initialize` runs once, before anything else of the program.
            if self.program.initializes() {
                self.call(Entry::Initialize, &[])?;
            }
            let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
            let at = self.call(Entry::Alloc, &[length.cast_signed()])?;
            let place = range(at, length);
            let Some(place) = self.instance.memory_mut().get_mut(place) else {
                return Err(Fault::Trap(TrapKind::InputOutOfBounds));
            };
            place.copy_from_slice(input);
            self.call(Entry::Init, &[at, length.cast_signed()])?;
        }
        match self.call(Entry::Step, &[])? {
            0 => return Ok(Stepped::More),
            1 => {}
            _ => return Err(Fault::Trap(TrapKind::BadStepAnswer)),
        }
        let at = self.call(Entry::OutPtr, &[])?;
        let length = self.call(Entry::OutLen, &[])?.cast_unsigned();
        if length > output_bytes_max {
            return Ok(Stepped::Done(None));
        }
        Ok(Stepped::Done(
            self.instance
                .memory()
                .get(range(at, length))
                .map(<[u8]>::to_vec),
        ))
    }

    fn call(&mut self, entry: Entry, arguments: &[i32]) -> Result<i32, Fault> {
        let stack = GlobalValue::I32(gas::STACK_BYTES_MAX);
        self.instance.set_global(gas::STACK_GLOBAL, stack)?;
        self.instance.call(entry, arguments)
    }

    /// An injected trap is an `unreachable` with a reason.
    fn name_trap(&mut self, kind: TrapKind) -> Result<TrapKind, MachineError> {
        let reason = self.instance.global(gas::REASON_GLOBAL)?;
        Ok(match (kind, reason) {
            (TrapKind::Unreachable, GlobalValue::I32(gas::REASON_STACK)) => TrapKind::StackOverflow,
            _ => kind,
        })
    }

    fn gas_left(&mut self) -> Result<i64, MachineError> {
        match self.instance.global(gas::GAS_GLOBAL)? {
            GlobalValue::I64(left) => Ok(left),
            other => Err(MachineError::Engine(format!("gas counter is {other:?}"))),
        }
    }
}

fn pages(memory: &[u8]) -> u32 {
    u32::try_from(memory.len() / MEMORY_PAGE_BYTES).unwrap_or(u32::MAX)
}

fn range(at: i32, length: u32) -> std::ops::Range<usize> {
    let at = at.cast_unsigned() as usize;
    at..at.saturating_add(length as usize)
}
