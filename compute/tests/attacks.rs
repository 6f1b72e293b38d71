//! Modules that strangers made to be expensive, and modules that would be silently wrong.
//!
//! All of them were accepted once: the first two took minutes to compile or a second to validate at
//! 1 MiB, the others gave wrong answers that all workers agreed on.

mod second;

use proofmill_compute::adversary::{fill, patterns};
use proofmill_compute::program::Counted;
use proofmill_compute::{ModuleLimits, Program, ProgramError, Status};
use second::{LIMITS, both, load, program};

fn refuse(wat: &str) -> ProgramError {
    let module = wat::parse_str(wat).expect("the test's text is well formed");
    Program::load(&module, &ModuleLimits::default()).expect_err("must be refused")
}

/// A function around `units` copies of `unit` in a loop that takes `params` values.
fn in_wide_loop(params: usize, unit: &str, units: usize) -> String {
    let bomb = format!(
        "(type $t (func (param {})))
         (func $bomb (param i32 i64) {} loop (type $t) {} unreachable end)",
        "i64 ".repeat(params),
        "i64.const 0 ".repeat(params),
        unit.repeat(units),
    );
    program(&bomb, "(i32.const 1)")
}

#[test]
fn labels_that_carry_many_values_are_refused() {
    let compile_bomb = in_wide_loop(128, "local.get 1 local.get 0 br_if 0 ", 5_300);
    let targets = "0 ".repeat(64_000);
    let validation_bomb = in_wide_loop(128, &format!("local.get 0 br_table {targets}"), 1);
    for bomb in [compile_bomb, validation_bomb] {
        let error = refuse(&bomb);
        assert!(
            matches!(
                error,
                ProgramError::TooMany {
                    what: Counted::Parameters,
                    count: 128,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn labels_that_carry_any_value_of_a_loop_are_refused() {
    for params in [1, ModuleLimits::default().params_max] {
        let error = refuse(&in_wide_loop(params, "local.get 0 br_if 0 ", 1));
        assert!(
            matches!(
                error,
                ProgramError::TooMany {
                    what: Counted::BlockParameters,
                    max: 0,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_branch_every_four_bytes_is_too_much_work() {
    let branches = |count: usize| {
        let body = "local.get 0 br_if 0 ".repeat(count);
        program(
            &format!("(func (param i32) loop {body} end)"),
            "(i32.const 1)",
        )
    };
    load(&branches(500));
    let error = refuse(&branches(5_300));
    let ProgramError::TooMuchWork { work, max, .. } = error else {
        panic!("{error}");
    };
    assert!(work > max, "{error}");
    assert_eq!(error.code(), 16);
}

/// A target of a table is a byte, and hands on every local that one way has written and another has not,
/// as long as somebody reads it.
#[test]
fn edges_that_hand_on_many_locals_are_too_much_work() {
    let table = |reads: bool| {
        let each = |what: &dyn Fn(u32) -> String| (1..=32).map(what).collect::<String>();
        let writes = each(&|local| format!("i64.const {local} local.set {local} "));
        let read = each(&|local| format!("local.get {local} drop "));
        let targets = "1 ".repeat(500);
        let locals = "i64 ".repeat(32);
        program(
            &format!(
                "(func (param i32) (local {locals}) block local.get 0 if {writes} local.get 0 \
                 br_table {targets} end end {})",
                if reads { read.as_str() } else { "" }
            ),
            "(i32.const 1)",
        )
    };
    load(&table(false));
    let error = refuse(&table(true));
    assert!(matches!(error, ProgramError::TooMuchWork { .. }), "{error}");
}

/// The values still leave by the branch, whatever other ways to its label write afterwards.
#[test]
fn what_a_table_hands_on_is_owed_although_it_leaves_by_a_branch() {
    let each = |what: &dyn Fn(u32) -> String| (1..=32).map(what).collect::<String>();
    let writes = each(&|local| format!("i64.const {local} local.set {local} "));
    let zeros = each(&|local| format!("i64.const 0 local.set {local} "));
    let read = each(&|local| format!("local.get {local} drop "));
    let targets = "1 ".repeat(500);
    let locals = "i64 ".repeat(32);
    let unit = format!(
        "block local.get 0 if block local.get 0 if {writes} local.get 0 br_table {targets} end end \
         local.get 0 br_if 1 end {zeros} end {read}"
    );
    let error = refuse(&program(
        &format!("(func (param i32) (local {locals}) {})", unit.repeat(4)),
        "(i32.const 1)",
    ));
    assert!(matches!(error, ProgramError::TooMuchWork { .. }), "{error}");
}

/// The work counted bounds what the instrumenter writes, so nothing that is small becomes large.
#[test]
fn no_pattern_weighs_or_grows_more_than_its_size_allows() {
    /// Bytes of the instrumented module for each byte of the module, at most.
    const GROWTH_MAX: usize = 6;
    let limits = ModuleLimits::default();
    for pattern in patterns() {
        for bytes in [4_096, 40_000] {
            let Some(module) = fill(pattern, bytes, &limits) else {
                continue;
            };
            let program = Program::load(&module, &limits).expect("fill gives programs");
            assert!(module.len() <= bytes, "{pattern:?}");
            assert!(
                program.work() <= limits.work_max(module.len()),
                "{pattern:?}"
            );
            assert!(
                program.instrumented().len() <= GROWTH_MAX * bytes + 65_536,
                "{pattern:?}: {bytes} bytes become {}",
                program.instrumented().len()
            );
        }
    }
}

#[test]
fn initialize_runs_once_before_alloc() {
    let wat = r#"(module
      (memory (export "memory") 1 1)
      (global $ready (mut i32) (i32.const 0))
      (func (export "_initialize") (global.set $ready (i32.add (global.get $ready) (i32.const 42))))
      (func (export "alloc") (param i32) (result i32)
        (i32.store (i32.const 4) (global.get $ready)) (i32.const 4096))
      (func (export "init") (param i32 i32))
      (func (export "step") (result i32)
        (i32.store (i32.const 0) (global.get $ready))
        (i32.eq (global.get $ready) (global.get $ready)))
      (func (export "out_ptr") (result i32) (i32.const 0))
      (func (export "out_len") (result i32) (i32.const 8)))"#;
    let outcome = both(&load(wat), b"", &LIMITS);
    assert_eq!(outcome.status, Status::Done);
    assert_eq!(outcome.output, [42, 0, 0, 0, 42, 0, 0, 0]);
    // Its gas is counted in step 1, and its trap is the program's.
    let without = both(&load(&wat.replace("_initialize", "other")), b"", &LIMITS);
    assert!(outcome.gas_used > without.gas_used);
    assert_eq!(without.output, [0; 8]);
    let trap = wat.replace(
        "(global.set $ready (i32.add",
        "(unreachable) (global.set $ready (i32.add",
    );
    assert_eq!(both(&load(&trap), b"", &LIMITS).status, Status::Trap);
    let endless = wat.replace(
        "(global.set $ready (i32.add",
        "(loop $l (br $l)) (global.set $ready (i32.add",
    );
    assert_eq!(both(&load(&endless), b"", &LIMITS).status, Status::OutOfGas);
}

#[test]
fn initialize_of_another_type_is_refused() {
    for item in [
        r#"(func (export "_initialize") (param i32))"#,
        r#"(func (export "_initialize") (result i32) (i32.const 0))"#,
        r#"(global (export "_initialize") i32 (i32.const 0))"#,
    ] {
        let error = refuse(&program(item, "(i32.const 1)"));
        assert_eq!(
            error.to_string(),
            "export `_initialize` is not `_initialize()`"
        );
    }
}

#[test]
fn a_commands_entry_point_is_refused_with_the_flag_that_helps() {
    let error = refuse(&program(r#"(func (export "_start"))"#, "(i32.const 1)"));
    assert_eq!(
        (error.clone(), error.code()),
        (ProgramError::CommandExport, 14)
    );
    assert!(error.to_string().contains("--no-entry"), "{error}");
}

/// What clang and wasm-ld make of a C++ file with one static constructor.
fn command_style(callee: &str) -> String {
    format!(
        r#"(module
      (memory (export "memory") 1 1)
      (func $other)
      (func $ctors (i32.store (i32.const 16) (i32.const 3)))
      (func (export "alloc") (param i32) (result i32) (call $ctors) (i32.const 4096))
      (func (export "init") (param i32 i32) (call $ctors))
      (func (export "step") (result i32)
        (call $ctors)
        (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
        (i32.ge_u (i32.load (i32.const 16)) (i32.const 4)))
      (func (export "out_ptr") (result i32) (call $ctors) (i32.const 16))
      (func (export "out_len") (result i32) (call {callee}) (i32.const 4)))"#
    )
}

#[test]
fn constructors_at_every_call_are_refused_with_the_flag_that_helps() {
    let error = refuse(&command_style("$ctors"));
    assert_eq!(error, ProgramError::CommandStyle { function: 1 });
    assert_eq!(error.code(), 15);
    assert!(
        error.to_string().contains("-mexec-model=reactor"),
        "{error}"
    );
    // Four of five are no linker's work.
    let outcome = both(&load(&command_style("$other")), b"", &LIMITS);
    assert_eq!(outcome.status, Status::Done);
}

#[test]
fn select_with_a_type_is_refused() {
    let item = "(func (param i32) (result i32)
      (select (result i32) (local.get 0) (local.get 0) (local.get 0)))";
    let error = refuse(&program(item, "(i32.const 1)"));
    assert!(
        matches!(
            error,
            ProgramError::Operator {
                operator: "select t",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_memory_without_a_maximum_names_the_flag() {
    let error = refuse(&program("", "(i32.const 1)").replace("2 6)", "2)"));
    assert!(error.to_string().contains("--max-memory"), "{error}");
}
