//! The second opinion: the same driver over wasmi, and the original module run without our code.

#![allow(dead_code, reason = "each test file uses the part it needs")]

use proofmill_compute::machine::{admit, drive};
use proofmill_compute::{
    Entry, Fault, GlobalValue, Instance, MEMORY_PAGE_BYTES, Machine, MachineError, ModuleLimits,
    Outcome, Program, RunLimits, Status, TrapKind, fast,
};
use std::sync::LazyLock;
use wasmi::errors::ErrorKind;
use wasmi::{CompilationMode, Config, Engine, Module, Store, StoreLimits, StoreLimitsBuilder};
use wasmi::{F32, F64, TrapCode, V128, Val};

static WASMTIME: LazyLock<fast::Wasmtime> =
    LazyLock::new(|| fast::Wasmtime::new().expect("the host runs wasmtime"));

/// Limits under which most test programs run.
pub(crate) const LIMITS: RunLimits = RunLimits {
    gas_limit: 20_000_000,
    memory_pages: 8,
    steps_max: 100,
    step_gas_max: u64::MAX,
    output_bytes_max: 65_536,
};

pub(crate) struct Wasmi;

impl Machine for Wasmi {
    fn run(
        &self,
        program: &Program,
        input: &[u8],
        limits: &RunLimits,
        progress: &mut dyn FnMut(u32, u64),
    ) -> Result<Outcome, MachineError> {
        let pages = admit(program, input, limits)?;
        let mut instance = WasmiInstance::new(program.instrumented(), pages)?;
        drive(program, &mut instance, input, limits, progress)
    }
}

pub(crate) struct WasmiInstance {
    store: Store<StoreLimits>,
    instance: wasmi::Instance,
    memory: wasmi::Memory,
}

impl WasmiInstance {
    pub(crate) fn new(module: &[u8], pages: u32) -> Result<Self, MachineError> {
        let failed = |error: wasmi::Error| MachineError::Engine(error.to_string());
        let mut config = Config::default();
        config
            .set_max_stack_height(256 << 20)
            .set_max_recursion_depth(1 << 20)
            .compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, module).map_err(failed)?;
        let bound = StoreLimitsBuilder::new()
            .memory_size(pages as usize * MEMORY_PAGE_BYTES)
            .build();
        let mut store = Store::new(&engine, bound);
        store.limiter(|bound| bound);
        let instance = wasmi::Instance::new(&mut store, &module, &[]).map_err(failed)?;
        let memory = instance
            .get_memory(&store, "memory")
            .expect("programs export a memory");
        Ok(Self {
            store,
            instance,
            memory,
        })
    }
}

impl WasmiInstance {
    fn exports(&self, name: &str) -> bool {
        self.instance.get_func(&self.store, name).is_some()
    }
}

impl Instance for WasmiInstance {
    fn call(&mut self, entry: Entry, arguments: &[i32]) -> Result<i32, Fault> {
        let function = self
            .instance
            .get_func(&self.store, entry.name())
            .expect("programs export it");
        let arguments: Vec<Val> = arguments.iter().map(|value| Val::I32(*value)).collect();
        let mut results = [Val::I32(0)];
        let has_result = !matches!(entry, Entry::Initialize | Entry::Init);
        let results = &mut results[..usize::from(has_result)];
        function
            .call(&mut self.store, &arguments, results)
            .map_err(|error| fault(&error))?;
        match results {
            [Val::I32(value)] => Ok(*value),
            _ => Ok(0),
        }
    }

    fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        self.memory.data_mut(&mut self.store)
    }

    fn global(&mut self, name: &str) -> Result<GlobalValue, MachineError> {
        let global = self
            .instance
            .get_global(&self.store, name)
            .expect("exported");
        Ok(match global.get(&self.store) {
            Val::I32(value) => GlobalValue::I32(value),
            Val::I64(value) => GlobalValue::I64(value),
            Val::F32(value) => GlobalValue::F32(value.to_bits()),
            Val::F64(value) => GlobalValue::F64(value.to_bits()),
            Val::V128(value) => GlobalValue::V128(value.as_u128()),
            other => panic!("global `{name}` is {other:?}"),
        })
    }

    fn set_global(&mut self, name: &str, value: GlobalValue) -> Result<(), MachineError> {
        let value = match value {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(F32::from_bits(bits)),
            GlobalValue::F64(bits) => Val::F64(F64::from_bits(bits)),
            GlobalValue::V128(bits) => Val::V128(V128::from(bits)),
        };
        let global = self
            .instance
            .get_global(&self.store, name)
            .expect("exported");
        global
            .set(&mut self.store, value)
            .map_err(|error| MachineError::Engine(error.to_string()))
    }
}

fn fault(error: &wasmi::Error) -> Fault {
    let ErrorKind::TrapCode(code) = error.kind() else {
        return Fault::Host(MachineError::Engine(error.to_string()));
    };
    Fault::Trap(match code {
        TrapCode::UnreachableCodeReached => TrapKind::Unreachable,
        TrapCode::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds => TrapKind::TableOutOfBounds,
        TrapCode::IndirectCallToNull => TrapKind::IndirectCallToNull,
        TrapCode::BadSignature => TrapKind::BadSignature,
        TrapCode::IntegerOverflow => TrapKind::IntegerOverflow,
        TrapCode::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
        TrapCode::BadConversionToInteger => TrapKind::BadConversionToInteger,
        other => return Fault::Host(MachineError::Resources(other.to_string())),
    })
}

pub(crate) fn load(wat: &str) -> Program {
    let module = wat::parse_str(wat).expect("the test's text is well formed");
    Program::load(&module, &ModuleLimits::default()).expect("the test's module is a program")
}

/// Runs a program on both engines, which have to agree on all of the outcome.
pub(crate) fn both(program: &Program, input: &[u8], limits: &RunLimits) -> Outcome {
    let mut heard = Vec::new();
    let fast = WASMTIME
        .run(program, input, limits, &mut |step, gas| {
            heard.push((step, gas))
        })
        .expect("wasmtime's host does not fail");
    let second = Wasmi
        .run(program, input, limits, &mut |_, _| {})
        .expect("wasmi's host does not fail");
    assert_eq!(fast, second, "wasmtime on the left, wasmi on the right");
    assert_eq!(heard.last(), Some(&(fast.steps, fast.gas_used)));
    assert!(fast.gas_used <= limits.gas_limit);
    fast
}

/// What the module does by itself: its output or its trap, with no gas, no counters, no checkpoints.
pub(crate) fn uninstrumented(
    module: &[u8],
    input: &[u8],
    limits: &RunLimits,
) -> Result<Vec<u8>, TrapKind> {
    let mut instance = WasmiInstance::new(module, limits.memory_pages).expect("wasmi runs it");
    let call = |instance: &mut WasmiInstance, entry, arguments: &[i32]| match instance
        .call(entry, arguments)
    {
        Ok(value) => Ok(value),
        Err(Fault::Trap(kind)) => Err(kind),
        Err(Fault::Host(error)) => panic!("{error}"),
    };
    if instance.exports("_initialize") {
        call(&mut instance, Entry::Initialize, &[])?;
    }
    let length = i32::try_from(input.len()).expect("small");
    let at = call(&mut instance, Entry::Alloc, &[length])?;
    let start = usize::try_from(at).expect("positive");
    instance.memory_mut()[start..start + input.len()].copy_from_slice(input);
    call(&mut instance, Entry::Init, &[at, length])?;
    while call(&mut instance, Entry::Step, &[])? == 0 {}
    let at = usize::try_from(call(&mut instance, Entry::OutPtr, &[])?).expect("positive");
    let length = usize::try_from(call(&mut instance, Entry::OutLen, &[])?).expect("positive");
    Ok(instance.memory()[at..at + length].to_vec())
}

/// `both`, and the original module without instrumentation does the same where gas plays no part.
pub(crate) fn same_as_uninstrumented(wat: &str, input: &[u8]) -> Outcome {
    let outcome = both(&load(wat), input, &LIMITS);
    let module = wat::parse_str(wat).expect("parsed before");
    match outcome.status {
        Status::Done => {
            assert_eq!(
                uninstrumented(&module, input, &LIMITS).as_ref(),
                Ok(&outcome.output)
            );
        }
        Status::Trap => {
            assert_eq!(uninstrumented(&module, input, &LIMITS).err(), outcome.trap);
        }
        other => panic!("{other:?} is not something the module does by itself"),
    }
    outcome
}

/// A program that starts with 2 pages, at most 6; the output is its first 512 bytes of memory;
/// the input lies at 4096, its length in `$len`.
pub(crate) fn program(items: &str, step: &str) -> String {
    format!(
        r#"(module
  (memory (export "memory") 2 6)
  (global $len (mut i32) (i32.const 0))
  (func (export "alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "init") (param $at i32) (param $n i32) (global.set $len (local.get $n)))
  (func (export "out_ptr") (result i32) (i32.const 0))
  (func (export "out_len") (result i32) (i32.const 512))
  {items}
  (func $step (export "step") (result i32)
    {step}))"#
    )
}
