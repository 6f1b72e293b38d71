//! Every rule a module can break, with the module that breaks it; and programs that want too much.

mod second;

use proofmill_compute::program::Counted;
use proofmill_compute::{
    Machine, MachineError, ModuleLimits, Program, ProgramError, RunLimits, Status, fast,
};
use second::{LIMITS, both, load, program};

fn refuse(wat: &str) -> ProgramError {
    refuse_bytes(&wat::parse_str(wat).expect("the test's text is well formed"))
}

fn refuse_bytes(module: &[u8]) -> ProgramError {
    let limits = ModuleLimits::default();
    let error = Program::compile_check(module, &limits).expect_err("must be refused");
    assert_eq!(Program::load(module, &limits).err().as_ref(), Some(&error));
    error
}

/// A good program with one item more.
fn with(item: &str) -> String {
    program(item, "(i32.const 1)")
}

/// A good program but for one export, which is `item`.
fn instead(name: &str, item: &str) -> String {
    let without = with("").replace(&format!("\"{name}\""), "\"other\"");
    without.replacen("(module", &format!("(module {item}"), 1)
}

#[test]
fn a_good_program_is_accepted_with_unused_exports() {
    let wat = with(r#"(func (export "main")) (global (export "__heap_base") i32 (i32.const 9))"#);
    let info = *load(&wat).info();
    assert_eq!((info.memory_pages_min, info.memory_pages_max), (2, 6));
}

#[test]
fn a_module_over_the_size_is_refused_before_anything_is_read() {
    let error = refuse_bytes(&vec![0xff; 1_048_577]);
    assert_eq!(
        error.to_string(),
        "module is 1048577 bytes, at most 1048576"
    );
    assert_eq!(error.code(), 1);
}

#[test]
fn invalid_bytes_and_refused_features_are_refused() {
    assert_eq!(refuse_bytes(b"").code(), 2);
    assert_eq!(refuse_bytes(b"\0asm\x01\0\0\0\x01").code(), 2);
    assert_eq!(refuse_bytes(b"\0asm\x0d\0\x01\0").code(), 2, "a component");
    for item in [
        "(func (result i32) (i64.const 1))",
        "(func $t (return_call $t))",
        "(func (param v128) (drop (f32x4.relaxed_madd (local.get 0) (local.get 0) (local.get 0))))",
        "(tag $t) (func (throw $t))",
        "(func (drop (i32.atomic.load (i32.const 0))))",
        "(type (struct (field i32)))",
        "(memory 1 1)",
        "(table 1 externref)",
        "(table 1 funcref) (table 1 funcref)",
        "(table 1 funcref) (func (table.set (i32.const 0) (ref.null func)))",
        "(table 1 funcref) (func (drop (table.get (i32.const 0))))",
        "(table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))",
        "(func (drop (ref.null func)))",
        "(global funcref (ref.null func))",
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
        "(func (drop (i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1))) (drop))",
    ] {
        let error = refuse(&with(item));
        assert!(matches!(error, ProgramError::Invalid(_)), "{item}: {error}");
    }
    let wide = with("").replace(
        "(memory (export \"memory\") 2 6)",
        "(memory (export \"memory\") i64 2 6)",
    );
    assert_eq!(refuse(&wide).code(), 2, "a 64-bit memory");
    let shared = with("").replace("2 6)", "2 6 shared)");
    assert_eq!(refuse(&shared).code(), 2, "a shared memory");
}

#[test]
fn imports_are_refused() {
    let error = refuse(&with("").replace("(memory", r#"(import "env" "print" (func)) (memory"#));
    assert_eq!(
        error.to_string(),
        "module imports `env.print`: a program has no imports"
    );
    assert_eq!(error.code(), 3);
}

#[test]
fn a_start_function_is_refused() {
    let error = refuse(&with("(func $s) (start $s)"));
    assert!(
        matches!(error, ProgramError::Start { function: 4 }),
        "{error}"
    );
    assert_eq!(error.code(), 4);
}

#[test]
fn every_missing_or_mistyped_export_is_named() {
    for name in ["memory", "alloc", "init", "step", "out_ptr", "out_len"] {
        let error = refuse(&with("").replace(&format!("\"{name}\""), "\"other\""));
        assert!(
            matches!(error, ProgramError::MissingExport { name: n, .. } if n == name),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("export `{name}` is missing"))
        );
        assert_eq!(error.code(), 5);
        let other = instead(name, &format!("(func (export \"{name}\") (param i64))"));
        let error = refuse(&other);
        assert!(
            matches!(error, ProgramError::ExportType { name: n, .. } if n == name),
            "{error}"
        );
        assert_eq!(error.code(), 6);
    }
    let global = instead("step", r#"(global (export "step") i32 (i32.const 1))"#);
    assert_eq!(refuse(&global).code(), 6);
}

#[test]
fn reserved_names_are_refused() {
    let error = refuse(&with(r#"(func (export "proofmill:gas"))"#));
    assert!(
        matches!(error, ProgramError::ReservedExport { .. }),
        "{error}"
    );
    assert_eq!(error.code(), 7);
}

#[test]
fn a_memory_without_or_with_too_large_a_maximum_is_refused() {
    let error = refuse(&with("").replace("2 6)", "2)"));
    assert_eq!(
        (error.clone(), error.code()),
        (ProgramError::MemoryUnbounded, 8)
    );
    let error = refuse(&with("").replace("2 6)", "2 4097)"));
    assert_eq!(
        error.to_string(),
        "memory may grow to 4097 pages, at most 4096"
    );
    assert_eq!(error.code(), 9);
    assert_eq!(refuse(&with("").replace("2 6)", "7 6)")).code(), 2);
}

#[test]
fn operators_whose_state_escapes_the_checkpoint_are_refused() {
    for (name, item) in [
        (
            "memory.init",
            "(data $d \"x\") (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)))",
        ),
        (
            "data.drop",
            "(data $d (i32.const 0) \"x\") (func (data.drop $d))",
        ),
        (
            "table.init",
            "(table 1 funcref) (elem $e (i32.const 0) $f) (func $f (table.init $e (i32.const 0) (i32.const 0) (i32.const 0)))",
        ),
        (
            "table.copy",
            "(table 1 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 0)))",
        ),
        (
            "elem.drop",
            "(table 1 funcref) (elem $e (i32.const 0) $f) (func $f (elem.drop $e))",
        ),
    ] {
        let error = refuse(&with(item));
        assert!(
            matches!(error, ProgramError::Operator { operator, .. } if operator == name),
            "{error}"
        );
        assert_eq!(error.code(), 10);
    }
}

#[test]
fn segments_are_active_and_inside() {
    for item in [
        "(data \"passive\")",
        "(func $f) (elem func $f)",
        "(func $f) (elem declare func $f)",
        "(table 1 funcref) (func $f) (elem (i32.const 0) funcref (ref.func $f))",
    ] {
        let error = refuse(&with(item));
        assert!(
            matches!(error, ProgramError::Segment { .. }),
            "{item}: {error}"
        );
        assert_eq!(error.code(), 11);
    }
    for item in [
        "(data (i32.const 131071) \"ab\")",
        "(data (i32.const -1) \"\")",
        "(table 3 funcref) (func $f) (elem (i32.const 2) $f $f)",
    ] {
        let error = refuse(&with(item));
        assert!(
            matches!(error, ProgramError::SegmentBounds { .. }),
            "{item}: {error}"
        );
        assert_eq!(error.code(), 12);
    }
    load(&with(
        "(data (i32.const 131070) \"ab\") (table 2 funcref) (func $f) (elem (i32.const 0) $f $f)",
    ));
}

#[test]
fn counts_and_sizes_are_bounded() {
    let error = refuse(&with(&format!("(func {})", "(nop)".repeat(65_536))));
    assert!(
        matches!(error, ProgramError::FunctionTooLarge { function: 4, .. }),
        "{error}"
    );
    assert_eq!(error.code(), 13);
    let two = "(result i32 i32)";
    for (what, code, item) in [
        (
            Counted::Types,
            32,
            (0..1_025)
                .map(|i| {
                    let bits = (0..10).map(|bit| if i >> bit & 1 == 1 { "i64 " } else { "i32 " });
                    format!("(type (func (param {})))", bits.collect::<String>())
                })
                .collect(),
        ),
        (
            Counted::Parameters,
            33,
            format!("(type (func {}))", "(param i64)".repeat(33)),
        ),
        (
            Counted::Results,
            34,
            format!("(type (func {}))", "(result i64)".repeat(5)),
        ),
        (Counted::Functions, 35, "(func)".repeat(10_000)),
        (
            Counted::Locals,
            36,
            format!("(func (local {}))", "i32 i64 ".repeat(257)),
        ),
        (
            Counted::Globals,
            37,
            "(global i32 (i32.const 0))".repeat(1_025),
        ),
        (
            Counted::TableElements,
            38,
            "(table 65537 funcref)".to_owned(),
        ),
        (
            Counted::BlockParameters,
            39,
            "(func (i32.const 0) (loop (param i32) (drop)))".to_owned(),
        ),
        (
            Counted::BlockResults,
            40,
            format!("(func (block {two} (i32.const 0) (i32.const 0)) (drop) (drop))"),
        ),
        (
            Counted::Loops,
            41,
            format!("(func {})", "(loop)".repeat(257)),
        ),
        (
            Counted::TableTargets,
            42,
            format!("(func (br_table {} (i32.const 0)))", "0 ".repeat(4_098)),
        ),
    ] {
        let error = refuse(&with(&item));
        assert!(
            matches!(error, ProgramError::TooMany { what: w, .. } if w == what),
            "{error}"
        );
        assert_eq!(error.code(), code);
    }
    // A block's type may be written as a type's index if it is no wider.
    load(&with(
        "(type $t (func (result i32))) (func (drop (block (type $t) (i32.const 0))))",
    ));
    work_is_bounded();
    // A count that only claims to be large allocates nothing.
    let mut bomb = b"\0asm\x01\0\0\0".to_vec();
    bomb.extend([0x01, 0x05, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(refuse_bytes(&bomb).code(), 2);
    let locals = [
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".as_slice(),
        b"\x0a\x0b\x01\x09\x01\xff\xff\xff\xff\x0f\x7e\x0b\x0b",
    ]
    .concat();
    assert!(Program::load(&locals, &ModuleLimits::default()).is_err());
}

/// A function has its own bound; a module has one that grows with its bytes, wherever they are.
fn work_is_bounded() {
    let blocks = |count: usize| {
        let locals = "i32 ".repeat(500);
        with(&format!(
            "(func (local {locals}) {})",
            "(block)".repeat(count)
        ))
    };
    let work = |error: ProgramError| match error {
        ProgramError::TooMuchWork {
            function,
            work,
            max,
        } => (function, work > max, max),
        other => panic!("{other}"),
    };
    let limits = ModuleLimits::default();
    let module = wat::parse_str(blocks(400)).expect("well-formed text");
    let max = limits.work_max(module.len());
    assert_eq!(work(refuse(&blocks(400))), (4, true, max));
    let room = r#"(data (i32.const 0) ""#.to_owned() + &"x".repeat(100_000) + r#"")"#;
    let enough = blocks(400).replacen("(func (local", &format!("{room} (func (local"), 1);
    load(&enough);
    let much = blocks(2_000).replacen("(func (local", &format!("{room} (func (local"), 1);
    assert_eq!(work(refuse(&much)), (4, true, limits.function_work_max));
    // Deep loops weigh more than the same loops one after the other: compilers are quadratic there.
    let loops = |text: String| with(&format!("(func (local {}) {text})", "i32 ".repeat(100)));
    load(&loops("(loop)".repeat(200)));
    let nested = format!("{}{}", "(loop ".repeat(200), ")".repeat(200));
    assert_eq!(refuse(&loops(nested)).code(), 16);
}

#[test]
fn limits_no_task_may_have_are_the_callers_fault() {
    let program = load(&with(""));
    let machine = fast::Wasmtime::new().expect("the host runs wasmtime");
    for limits in [
        RunLimits {
            memory_pages: 1,
            ..LIMITS
        },
        RunLimits {
            gas_limit: u64::MAX,
            ..LIMITS
        },
    ] {
        let result = machine.run(&program, b"", &limits, &mut |_, _| {});
        assert!(matches!(result, Err(MachineError::Limits(_))), "{result:?}");
    }
}

#[test]
fn an_endless_loop_runs_out_of_gas() {
    let program = load(&program("", "(loop $l (br $l)) (i32.const 1)"));
    let outcome = both(&program, b"", &LIMITS);
    assert_eq!(
        (outcome.status, outcome.gas_used),
        (Status::OutOfGas, LIMITS.gas_limit)
    );
    let recursion = load(&with("(func $f (call $f)) (func (export \"x\") (call $f))"));
    assert_eq!(both(&recursion, b"", &LIMITS).status, Status::Done);
}

#[test]
fn steps_without_end_are_too_many_steps() {
    let outcome = both(&load(&program("", "(i32.const 0)")), b"", &LIMITS);
    assert_eq!(
        (outcome.status, outcome.steps),
        (Status::TooManySteps, LIMITS.steps_max)
    );
}

#[test]
fn a_memory_bomb_gets_what_it_paid_for_and_no_more() {
    let step = "(local $n i32)
        (loop $l
          (if (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0))
            (then (memory.fill (i32.shl (i32.sub (memory.size) (i32.const 1)) (i32.const 16))
                               (i32.const 255) (i32.const 65536)) (br $l))))
        (drop (memory.grow (i32.const -1)))
        (i32.const 1)";
    let bomb = load(&program("", step).replace("2 6)", "2 4096)"));
    let limits = RunLimits {
        gas_limit: 1 << 40,
        memory_pages: 300,
        ..LIMITS
    };
    // The last growth asks for 2^32 - 1 pages and pays for them.
    assert_eq!(both(&bomb, b"", &limits).status, Status::OutOfGas);
    let limits = RunLimits {
        gas_limit: 1 << 46,
        ..limits
    };
    let outcome = both(&bomb, b"", &limits);
    assert_eq!((outcome.status, outcome.output.len()), (Status::Done, 512));
}

/// The address space promised in the crate's documentation, enforced by the kernel.
#[test]
fn the_largest_run_fits_under_one_gibibyte_of_address_space() {
    const INSIDE: &str = "PROOFMILL_TEST_UNDER_LIMIT";
    const NAME: &str = "the_largest_run_fits_under_one_gibibyte_of_address_space";
    if std::env::var_os(INSIDE).is_some() {
        let step = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 0x10000000)) (i32.const 1)";
        let program = load(&program("", step).replace("2 6)", "4096 4096)"));
        let limits = RunLimits {
            gas_limit: 1 << 40,
            memory_pages: 4_096,
            ..LIMITS
        };
        let machine = fast::Wasmtime::new().expect("the engine fits");
        let outcome = machine
            .run(&program, b"", &limits, &mut |_, _| {})
            .expect("the run fits");
        assert_eq!(
            (outcome.status, outcome.output),
            (Status::Done, vec![7; 512])
        );
        return;
    }
    let test = std::env::current_exe().expect("a test knows its file");
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 1048576 && exec \"$0\" --exact --test-threads=1 \"$1\"",
        ])
        .arg(test)
        .arg(NAME)
        .env(INSIDE, "1")
        .status()
        .expect("there is a shell");
    assert!(status.success());
}
