//! The computing child ends with its seat, and when compiling or computing takes too long.

mod scenario_support;

use std::time::Duration;

use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::units::Gas;
use proofmill_node::worker::child::{Cancelled, Job, Sandbox};
use scenario_support::{PATIENCE, computing, until};

fn job() -> Job {
    let endless = r#"(module
        (memory (export "memory") 1 1)
        (func (export "alloc") (param i32) (result i32) i32.const 1024)
        (func (export "init") (param i32 i32))
        (func (export "step") (result i32) (loop $more (br $more)) i32.const 0)
        (func (export "out_ptr") (result i32) i32.const 0)
        (func (export "out_len") (result i32) i32.const 0))"#;
    Job {
        program: Blob::new(wat::parse_str(endless).expect("a module")),
        input: Blob::default(),
        gas_limit: Gas::new(1 << 60),
        memory_pages: 1,
        steps_max: 1,
        step_gas_max: Gas::new(1 << 60),
        output_bytes_max: 0,
    }
}

/// A child that runs this program, with these limits.
fn sandbox(words: &[&str], compile: Duration, wall: Duration) -> Sandbox {
    let (executable, arguments) = words.split_first().expect("a program");
    Sandbox {
        executable: executable.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        compile_time_max: compile,
        wall_time_max: wall,
    }
}

/// One test, for it counts this process's children.
#[test]
fn a_computation_ends_when_it_is_cancelled_or_too_slow() {
    let own = std::process::id();
    let moment = Duration::from_millis(100);

    let program = [env!("CARGO_BIN_EXE_proofmill"), "worker", "compute"];
    let (run, cancel) = sandbox(&program, PATIENCE, PATIENCE).prepare();
    let running = std::thread::spawn(move || run.run(&job()));
    until("it computes", || computing(own).first().copied());
    cancel.cancel();
    let error = running.join().expect("no panic").expect_err("cancelled");
    assert!(error.is::<Cancelled>(), "{error:#}");
    assert!(computing(own).is_empty(), "it is killed");
    // One that has ended is not affected.
    cancel.cancel();

    let mute = ["/bin/sleep", "3600"];
    let error = sandbox(&mute, moment, PATIENCE).run(&job());
    let error = format!("{:#}", error.expect_err("it never compiles"));
    assert!(
        error.contains("the program was not compiled within"),
        "{error}"
    );
    assert!(computing(own).is_empty(), "it is killed");

    let compiled = ["/bin/sh", "-c", "printf C; exec /bin/sleep 3600"];
    let error = sandbox(&compiled, PATIENCE, moment * 50).run(&job());
    let error = format!("{:#}", error.expect_err("it never answers"));
    assert!(error.contains("no result came within"), "{error}");
    assert!(computing(own).is_empty(), "it is killed");
}
