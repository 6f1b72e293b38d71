//! Whether this host can compute at all, found out before anybody relies on it: a small program runs in the
//! sandboxed child, and its output must be the known one.

use std::time::Duration;

use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::task::ResultStatus;
use proofmill_chain::types::units::Gas;

use super::child::{Job, Sandbox};
use crate::limits::{self, LimitError};

/// The program; its source is beside it.
const PROGRAM: &[u8] = include_bytes!("self_test/program.wasm");
/// Its input.
const INPUT: &[u8; 16] = b"proofmill worker";
/// What it makes of it: a hash and the square root of that hash.
const OUTPUT: &str = "dfd733e00000000051ecc0a160f2ed40";
/// How long it may take: it runs for a microsecond, and a busy host may take seconds to start a process.
const WITHIN: Duration = Duration::from_secs(30);
/// Gas and pages that are plenty.
const GAS: u64 = 1_000_000;
const PAGES: u32 = 2;

/// Why this host cannot be a worker.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The system grants too little.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// A program cannot be run.
    #[error(
        "this host cannot run programs and would miss every task: {0}. A worker needs memory in which code \
         may be executed (no MemoryDenyWriteExecute, no SELinux execmem denial) and {gib} GiB of address \
         space for the computing process",
        gib = super::child::CHILD_MEMORY_BYTES_MAX >> 30
    )]
    Cannot(String),
    /// A program computes something else here.
    #[error(
        "this host computes wrong results and would lose every dispute: {what} instead of {OUTPUT}; the \
         processor or the memory is faulty, or this program is"
    )]
    Wrong {
        /// What came out.
        what: String,
    },
}

/// Runs the self-test.
///
/// # Errors
/// When this host cannot be a worker, with what it lacks.
pub fn run(sandbox: &Sandbox) -> Result<(), SelfTestError> {
    limits::check_threads(limits::WORKER_THREADS)?;
    let job = Job {
        program: Blob::new(PROGRAM.to_vec()),
        input: Blob::new(INPUT.to_vec()),
        gas_limit: Gas::new(GAS),
        memory_pages: PAGES,
        steps_max: 1,
        step_gas_max: Gas::new(GAS),
        output_bytes_max: 64,
    };
    let sandbox = Sandbox {
        wall_time_max: WITHIN,
        ..sandbox.clone()
    };
    let (claim, output) = sandbox
        .run(&job)
        .map_err(|error| SelfTestError::Cannot(format!("{error:#}")))?;
    let output = hex::encode(output.as_bytes());
    if claim.status != ResultStatus::Done {
        let what = format!("the program ended with {:?}", claim.status);
        return Err(SelfTestError::Wrong { what });
    }
    if output != OUTPUT {
        return Err(SelfTestError::Wrong { what: output });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::Blob;
    use proofmill_chain::types::units::Gas;

    use super::{GAS, INPUT, OUTPUT, PAGES, PROGRAM};
    use crate::worker::child::{Job, compute};

    #[test]
    fn the_program_is_its_source_and_computes_the_known_output() {
        let source = include_str!("self_test/program.wat");
        let built = wat::parse_str(source).expect("a module");
        let names = built
            .strip_prefix(PROGRAM)
            .expect("the program and nothing before it");
        assert_eq!(
            names.first(),
            Some(&0),
            "what is left out is a custom section"
        );
        // By the definitions, without the machine.
        let hash = INPUT.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
        });
        let root = f64::from(hash).sqrt().to_le_bytes();
        let expected = [&hash.to_le_bytes()[..], &[0; 4], &root].concat();
        assert_eq!(hex::encode(expected), OUTPUT);
        let (_, output) = compute(
            &Job {
                program: Blob::new(PROGRAM.to_vec()),
                input: Blob::new(INPUT.to_vec()),
                gas_limit: Gas::new(GAS),
                memory_pages: PAGES,
                steps_max: 1,
                step_gas_max: Gas::new(GAS),
                output_bytes_max: 64,
            },
            &mut || {},
        )
        .expect("this host computes");
        assert_eq!(hex::encode(output.as_bytes()), OUTPUT);
    }
}
