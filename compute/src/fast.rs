//! The engine that ships: wasmtime, compiling ahead of the run, counting nothing itself.
//!
//! A run has its own thread, whose stack is larger than the counted call stack can become.

use crate::MEMORY_PAGE_BYTES;
use crate::gas::STACK_BYTES_MAX;
use crate::instance::{Entry, Fault, GlobalValue, Instance};
use crate::machine::{Machine, MachineError, Outcome, RunLimits, TrapKind, admit, drive};
use crate::program::Program;
use std::sync::{Mutex, PoisonError, mpsc};
use wasmtime::{
    Config, Engine, Extern, Global, Memory, Module, OptLevel, ResourceLimiter, Store, Trap,
    TypedFunc, V128, Val,
};

/// Address space mapped for a program's memory, whatever its size: it never moves.
pub const MEMORY_RESERVATION_BYTES: u64 = 256 * 1024 * 1024;
/// Address space after it in which accesses fault.
pub const MEMORY_GUARD_BYTES: u64 = 65_536;
/// Native stack that compiled code may use: the counted one and room for the last frame.
pub const NATIVE_STACK_BYTES: usize = STACK_BYTES_MAX.cast_unsigned() as usize + 4 * 1024 * 1024;
/// Native stack of the thread of a run.
pub const THREAD_STACK_BYTES: usize = NATIVE_STACK_BYTES + 4 * 1024 * 1024;
/// Compiled programs kept.
const MODULES_KEPT: usize = 8;

/// The wasmtime engine and the last programs it compiled.
pub struct Wasmtime {
    engine: Engine,
    /// By hash of the program, the most recently used last.
    modules: Mutex<Vec<([u8; 32], Module)>>,
}

impl std::fmt::Debug for Wasmtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wasmtime").finish_non_exhaustive()
    }
}

impl Wasmtime {
    /// Sets the engine up.
    ///
    /// # Errors
    /// [`MachineError::Engine`] when this host cannot run it.
    pub fn new() -> Result<Self, MachineError> {
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .cranelift_nan_canonicalization(true)
            .consume_fuel(false)
            .epoch_interruption(false)
            .async_stack_size(THREAD_STACK_BYTES) // unused, but has to be the larger
            .max_wasm_stack(NATIVE_STACK_BYTES)
            .memory_reservation(MEMORY_RESERVATION_BYTES)
            .memory_reservation_for_growth(0)
            .memory_guard_size(MEMORY_GUARD_BYTES)
            .guard_before_linear_memory(false)
            .memory_may_move(false)
            .memory_init_cow(false)
            .generate_address_map(false)
            .native_unwind_info(false)
            .wasm_backtrace_max_frames(None)
            .wasm_simd(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_relaxed_simd(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_extended_const(false)
            .wasm_tail_call(false);
        let engine = Engine::new(&config).map_err(engine_error)?;
        Ok(Self {
            engine,
            modules: Mutex::new(Vec::new()),
        })
    }

    /// Compiles a program, so that its first run need not; the last few stay compiled.
    ///
    /// # Errors
    /// [`MachineError::Engine`] when the engine cannot compile it.
    pub fn compile(&self, program: &Program) -> Result<(), MachineError> {
        self.module(program).map(|_| ())
    }

    fn module(&self, program: &Program) -> Result<Module, MachineError> {
        let kept = || self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = program.hash();
        let found = {
            let mut modules = kept();
            let position = modules.iter().position(|(of, _)| *of == hash);
            position.map(|position| {
                let entry = modules.remove(position);
                let module = entry.1.clone();
                modules.push(entry);
                module
            })
        };
        if let Some(module) = found {
            return Ok(module);
        }
        let module = Module::new(&self.engine, program.instrumented()).map_err(engine_error)?;
        let mut modules = kept();
        if modules.len() >= MODULES_KEPT {
            modules.remove(0);
        }
        modules.push((hash, module.clone()));
        Ok(module)
    }
}

impl Machine for Wasmtime {
    fn run(
        &self,
        program: &Program,
        input: &[u8],
        limits: &RunLimits,
        progress: &mut dyn FnMut(u32, u64),
    ) -> Result<Outcome, MachineError> {
        let pages = admit(program, input, limits)?;
        let (sender, steps) = mpsc::channel();
        std::thread::scope(|scope| {
            let run = move || {
                let module = self.module(program)?;
                let mut instance = WasmtimeInstance::new(&self.engine, &module, pages)?;
                // The receiver outlives this thread, so sending does not fail.
                let mut report = |step, gas| {
                    let _ = sender.send((step, gas));
                };
                drive(program, &mut instance, input, limits, &mut report)
            };
            let thread = std::thread::Builder::new()
                .name("program".to_owned())
                .stack_size(THREAD_STACK_BYTES)
                .spawn_scoped(scope, run)
                .map_err(|error| MachineError::Resources(format!("no thread: {error}")))?;
            for (step, gas) in steps {
                progress(step, gas);
            }
            thread
                .join()
                .unwrap_or_else(|_| Err(MachineError::Engine("the engine panicked".to_owned())))
        })
    }
}

fn engine_error(error: impl std::fmt::Display) -> MachineError {
    MachineError::Engine(format!("{error:#}"))
}

/// Keeps the memory within the run's bound, and tells a refusal from the host's failure.
struct Bound {
    memory_bytes_max: usize,
}

impl ResourceLimiter for Bound {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.memory_bytes_max)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Rule: growth that the host cannot serve is the host's failure, not an answer.
        Err(error)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(true) // a table is created once and never grows; the validator bounds it
    }
}

struct WasmtimeInstance {
    store: Store<Bound>,
    instance: wasmtime::Instance,
    memory: Memory,
    initialize: Option<TypedFunc<(), ()>>,
    alloc: TypedFunc<i32, i32>,
    init: TypedFunc<(i32, i32), ()>,
    step: TypedFunc<(), i32>,
    out_ptr: TypedFunc<(), i32>,
    out_len: TypedFunc<(), i32>,
}

impl WasmtimeInstance {
    fn new(engine: &Engine, module: &Module, pages: u32) -> Result<Self, MachineError> {
        let memory_bytes_max = pages as usize * MEMORY_PAGE_BYTES;
        let mut store = Store::new(engine, Bound { memory_bytes_max });
        store.limiter(|bound| bound);
        // Every segment was checked against its bounds, so only the host can fail here.
        let instance = wasmtime::Instance::new(&mut store, module, &[])
            .map_err(|error| MachineError::Resources(format!("{error:#}")))?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| engine_error("no memory in the instance"))?;
        let s = &mut store;
        let initialize = instance.get_func(&mut *s, Entry::Initialize.name());
        Ok(Self {
            initialize: initialize
                .map(|function| function.typed(&*s))
                .transpose()
                .map_err(engine_error)?,
            alloc: instance
                .get_typed_func(&mut *s, Entry::Alloc.name())
                .map_err(engine_error)?,
            init: instance
                .get_typed_func(&mut *s, Entry::Init.name())
                .map_err(engine_error)?,
            step: instance
                .get_typed_func(&mut *s, Entry::Step.name())
                .map_err(engine_error)?,
            out_ptr: instance
                .get_typed_func(&mut *s, Entry::OutPtr.name())
                .map_err(engine_error)?,
            out_len: instance
                .get_typed_func(&mut *s, Entry::OutLen.name())
                .map_err(engine_error)?,
            memory,
            instance,
            store,
        })
    }

    fn exported(&mut self, name: &str) -> Result<Global, MachineError> {
        match self.instance.get_export(&mut self.store, name) {
            Some(Extern::Global(global)) => Ok(global),
            _ => Err(MachineError::Engine(format!(
                "no global `{name}` in the instance"
            ))),
        }
    }
}

impl Instance for WasmtimeInstance {
    fn call(&mut self, entry: Entry, arguments: &[i32]) -> Result<i32, Fault> {
        let store = &mut self.store;
        match (entry, arguments) {
            (Entry::Initialize, []) => match &self.initialize {
                Some(function) => function.call(store, ()).map(|()| 0),
                None => return Err(engine_error("no `_initialize` in the instance").into()),
            },
            (Entry::Alloc, [length]) => self.alloc.call(store, *length),
            (Entry::Init, [at, length]) => self.init.call(store, (*at, *length)).map(|()| 0),
            (Entry::Step, []) => self.step.call(store, ()),
            (Entry::OutPtr, []) => self.out_ptr.call(store, ()),
            (Entry::OutLen, []) => self.out_len.call(store, ()),
            _ => return Err(engine_error(format!("{entry:?} called with {arguments:?}")).into()),
        }
        .map_err(|error| fault(&error))
    }

    fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        self.memory.data_mut(&mut self.store)
    }

    fn global(&mut self, name: &str) -> Result<GlobalValue, MachineError> {
        match self.exported(name)?.get(&mut self.store) {
            Val::I32(value) => Ok(GlobalValue::I32(value)),
            Val::I64(value) => Ok(GlobalValue::I64(value)),
            Val::F32(bits) => Ok(GlobalValue::F32(bits)),
            Val::F64(bits) => Ok(GlobalValue::F64(bits)),
            Val::V128(value) => Ok(GlobalValue::V128(value.as_u128())),
            _ => Err(MachineError::Engine(format!(
                "global `{name}` holds a reference"
            ))),
        }
    }

    fn set_global(&mut self, name: &str, value: GlobalValue) -> Result<(), MachineError> {
        let value = match value {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(bits),
            GlobalValue::F64(bits) => Val::F64(bits),
            GlobalValue::V128(bits) => Val::V128(V128::from(bits)),
        };
        self.exported(name)?
            .set(&mut self.store, value)
            .map_err(engine_error)
    }
}

fn fault(error: &wasmtime::Error) -> Fault {
    let Some(trap) = error.downcast_ref::<Trap>() else {
        return Fault::Host(MachineError::Resources(format!("{error:#}")));
    };
    Fault::Trap(match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
        Trap::IndirectCallToNull => TrapKind::IndirectCallToNull,
        Trap::BadSignature => TrapKind::BadSignature,
        Trap::IntegerOverflow => TrapKind::IntegerOverflow,
        Trap::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
        Trap::BadConversionToInteger => TrapKind::BadConversionToInteger,
        // The counted stack ends before the native one; should it ever not, the host has failed.
        other => return Fault::Host(MachineError::Resources(other.to_string())),
    })
}
