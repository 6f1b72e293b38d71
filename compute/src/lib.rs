//! The deterministic machine: WebAssembly programs that give every honest computer the same bytes.
//!
//! ```text
//! bytes ── Program::compile_check ──▶ ProgramInfo      cheap, inside a block, on every validator
//!       ── Program::load ───────────▶ Program          validated and instrumented with gas
//! Program + input + RunLimits ── Machine::run ──▶ Outcome   output, gas, status, trace root
//! ```
//!
//! A program exports `memory` (with a declared maximum), `alloc(len) -> ptr`, `init(ptr, len)`,
//! `step() -> i32` (0 = more, 1 = done), `out_ptr()` and `out_len()`, and imports nothing. The run
//! calls `_initialize`, if the program exports it, then `alloc`, copies the input in, calls `init`, then `step` until it answers 1, then reads the
//! output. [`machine::drive`] is that sequence, written once over the [`Instance`] trait; an engine
//! only executes calls. [`fast::Wasmtime`] is the engine that ships; a second, unrelated one runs
//! the same driver in this crate's tests and has to agree on every byte.
//!
//! # What makes it deterministic
//!
//! * one feature set ([`Program::load`] lists what is refused), no imports, no start function;
//! * gas and the call stack are counted by code injected into the program ([`gas`]), never by the
//!   engine; every trap has one name ([`TrapKind`]);
//! * not-a-number results of arithmetic are the one canonical bit pattern (positive, quiet, no payload);
//! * memory never grows past the task's limit and a growth the host cannot serve is the host's
//!   failure ([`MachineError`]), never an answer to the program;
//! * a step that does not complete leaves no state: its checkpoint repeats the state before it.
//!
//! # Address space
//!
//! A run maps [`fast::MEMORY_RESERVATION_BYTES`] (256 MiB) for the program's memory, whatever its
//! size, plus [`fast::THREAD_STACK_BYTES`] (40 MiB) for the stack of the thread it runs on, plus the
//! non-zero part of the memory once more for the page tree (at most 256 MiB), plus compiled code
//! and Cranelift's working memory. A process that runs one program at a time fits under an
//! address-space limit of 1 GiB. `SIGSEGV` is handled by the engine: out-of-bounds accesses are
//! caught by page protection.
//!
//! # Gas
//!
//! The cost table and the rules of charging are in [`gas`].

pub mod adversary;
pub mod checkpoint;
pub mod fast;
pub mod gas;
pub mod instance;
mod instrument;
pub mod machine;
pub mod program;
mod signatures;
mod validate;
pub mod work;

pub use instance::{Entry, Fault, GlobalKind, GlobalValue, Instance};
pub use machine::{Machine, MachineError, Outcome, RunLimits, Status, TrapKind};
pub use program::{ModuleLimits, Program, ProgramError, ProgramInfo};

/// Version of the machine: what it accepts, the instrumenter and the cost table. Part of consensus and of
/// every checkpoint.
pub const MACHINE_VERSION: u32 = 1;

/// Bytes in a page of WebAssembly memory.
pub const MEMORY_PAGE_BYTES: usize = 65_536;

/// SHA-256 over a domain tag and parts, concatenated.
pub(crate) fn hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    hasher.update(tag.as_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}
