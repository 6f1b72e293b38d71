//! Two unrelated engines give the same output, gas, trap and trace root on every program, and the
//! instrumented program does what the original does.

mod second;

use proofmill_compute::{Outcome, RunLimits, Status, TrapKind};
use second::{LIMITS, both, load, program, same_as_uninstrumented};

fn word(outcome: &Outcome, at: usize) -> u32 {
    u32::from_le_bytes(outcome.output[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn integer_arithmetic_agrees_and_is_right() {
    let wat = program(
        "",
        "(local $i i32) (local $x i64)
         (local.set $x (i64.const 0x9e3779b97f4a7c15))
         (loop $l
           (local.set $x (i64.mul (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 29)))
                                  (i64.const 0xbf58476d1ce4e5b9)))
           (local.set $x (i64.rotl (i64.add (local.get $x) (i64.popcnt (local.get $x)))
                                   (i64.extend_i32_s (local.get $i))))
           (i64.store (i32.and (i32.shl (local.get $i) (i32.const 3)) (i32.const 504)) (local.get $x))
           (local.set $x (i64.sub (local.get $x) (i64.div_s (local.get $x) (i64.const -7))))
           (local.set $x (i64.add (local.get $x) (i64.extend8_s (i64.rem_u (local.get $x) (i64.const 1009)))))
           (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
         (i32.store (i32.const 0) (i32.add (i32.const 40) (i32.const 2)))
         (i32.const 1)",
    );
    let outcome = same_as_uninstrumented(&wat, b"");
    assert_eq!((outcome.status, word(&outcome, 0)), (Status::Done, 42));
}

#[test]
fn gas_of_a_loop_is_the_table_applied_by_hand() {
    let turns = |n: u32| {
        let wat = program(
            "",
            &format!(
                "(local $i i32)
                 (loop $l
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {n}))))
                 (i32.const 1)"
            ),
        );
        both(&load(&wat), b"", &LIMITS).gas_used
    };
    // turn 1 + get, const, add, tee, const, lt, br_if
    assert_eq!(turns(100) - turns(99), 8);
    // step 10000, 2 pages x 16384, 1 global x 128; alloc 4+1; init 4+1+2; step 4+1 local,
    // 8 for the loop, 1 for the answer; out_ptr and out_len 4+1 each
    assert_eq!(
        turns(1),
        10_000 + 2 * 16_384 + 128 + 5 + 7 + (5 + 8 + 1) + 10
    );
}

#[test]
fn every_trap_has_one_name_in_both_engines() {
    let items = r#"
      (type $v (func)) (type $i (func (result i32)))
      (table 3 funcref) (elem (i32.const 0) $seven)
      (func $seven (type $i) (i32.const 7))"#;
    let cases = [
        (TrapKind::Unreachable, "(unreachable)"),
        (
            TrapKind::MemoryOutOfBounds,
            "(drop (i32.load (i32.const 131070)))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(drop (i32.load offset=4294967295 (i32.const 4)))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(drop (i32.load (i32.const -1)))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(i64.store (i32.const 131065) (i64.const -1))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(v128.store (i32.const 131057) (v128.const i64x2 1 2))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(memory.fill (i32.const 131000) (i32.const 1) (i32.const 73))",
        ),
        (
            TrapKind::MemoryOutOfBounds,
            "(memory.copy (i32.const 0) (i32.const 131071) (i32.const 2))",
        ),
        (
            TrapKind::TableOutOfBounds,
            "(drop (call_indirect (type $i) (i32.const 3)))",
        ),
        (
            TrapKind::TableOutOfBounds,
            "(drop (call_indirect (type $i) (i32.const -1)))",
        ),
        (
            TrapKind::IndirectCallToNull,
            "(drop (call_indirect (type $i) (i32.const 2)))",
        ),
        (
            TrapKind::BadSignature,
            "(call_indirect (type $v) (i32.const 0))",
        ),
        (
            TrapKind::IntegerOverflow,
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
        ),
        (
            TrapKind::IntegerOverflow,
            "(drop (i64.div_s (i64.const 0x8000000000000000) (i64.const -1)))",
        ),
        (
            TrapKind::IntegerOverflow,
            "(drop (i32.trunc_f64_s (f64.const 1e10)))",
        ),
        (
            TrapKind::IntegerOverflow,
            "(drop (i64.trunc_f32_u (f32.const -1)))",
        ),
        (
            TrapKind::IntegerOverflow,
            "(drop (i64.trunc_f64_u (f64.const inf)))",
        ),
        (
            TrapKind::IntegerDivisionByZero,
            "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        ),
        (
            TrapKind::IntegerDivisionByZero,
            "(drop (i64.rem_s (i64.const 1) (i64.const 0)))",
        ),
        (
            TrapKind::BadConversionToInteger,
            "(drop (i32.trunc_f32_s (f32.const nan)))",
        ),
        (
            TrapKind::BadConversionToInteger,
            "(drop (i64.trunc_f64_u (f64.const -nan:0x1)))",
        ),
    ];
    for (kind, body) in cases {
        // The same with the trapping code inside a callee, and operands the compiler cannot fold.
        let hidden = body.replace(
            "(i32.const ",
            "(i32.add (i32.load (i32.const 16)) (i32.const ",
        );
        let hidden = close_the_added(&hidden);
        for body in [body.to_owned(), hidden] {
            let items =
                format!("{items} (func $f (i32.store8 (i32.const 9) (i32.const 9)) {body})");
            let wat = program(&items, "(call $f) (i32.const 1)");
            let outcome = same_as_uninstrumented(&wat, b"x");
            assert_eq!(
                (outcome.status, outcome.trap),
                (Status::Trap, Some(kind)),
                "{body}"
            );
            assert_eq!((outcome.steps, outcome.output.len()), (1, 0));
            assert!(outcome.gas_used < 100_000);
        }
    }
}

/// Adds the parenthesis that the replacement above opened.
fn close_the_added(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    let opening = "(i32.add (i32.load (i32.const 16)) (i32.const ";
    // The address inside the replacement is written as itself.
    while let Some(at) = rest.find(opening) {
        let (before, after) = rest.split_at(at + opening.len());
        let close = after.find(')').expect("balanced");
        result.push_str(before);
        result.push_str(&after[..=close]);
        result.push(')');
        rest = &after[close + 1..];
    }
    result + rest
}

#[test]
fn a_step_answer_other_than_0_or_1_and_a_bad_alloc_are_traps() {
    let outcome = both(&load(&program("", "(i32.const 2)")), b"", &LIMITS);
    assert_eq!(
        (outcome.status, outcome.trap),
        (Status::Trap, Some(TrapKind::BadStepAnswer))
    );
    let wat = program("", "(i32.const 1)").replace("(i32.const 4096)", "(i32.const 131070)");
    let outcome = both(&load(&wat), b"abc", &LIMITS);
    assert_eq!(
        (outcome.status, outcome.trap),
        (Status::Trap, Some(TrapKind::InputOutOfBounds))
    );
    assert_eq!(both(&load(&wat), b"ab", &LIMITS).status, Status::Done);
}

#[test]
fn out_of_gas_is_the_same_wherever_it_strikes() {
    let items = "(func $f (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))";
    let step = "(local $i i32)
        (loop $l
          (local.set $i (call $f (local.get $i)))
          (if (i32.and (local.get $i) (i32.const 1)) (then (i32.store (i32.const 8) (local.get $i))))
          (memory.fill (i32.const 64) (local.get $i) (i32.const 100))
          (br $l))
        (i32.const 1)";
    let program = load(&program(items, step));
    for gas_limit in (0..60)
        .map(|i| 42_000 + i * 17)
        .chain([0, 1, 10_000, 5_000_000])
    {
        let outcome = both(
            &program,
            b"",
            &RunLimits {
                gas_limit,
                ..LIMITS
            },
        );
        assert_eq!(
            (outcome.status, outcome.gas_used),
            (Status::OutOfGas, gas_limit)
        );
        let limits = RunLimits {
            step_gas_max: gas_limit,
            ..LIMITS
        };
        let outcome = both(&program, b"", &limits);
        assert_eq!(
            (outcome.status, outcome.gas_used),
            (Status::StepGas, gas_limit)
        );
    }
}

#[test]
fn gas_that_ends_before_a_trap_is_out_of_gas() {
    // Straight code after the last check: the counter falls below zero, then the program divides
    // by zero. At every limit the two engines agree, and the change happens once.
    let step = "(i32.store (i32.const 0) (i32.div_u (i32.const 1) (i32.load (i32.const 0)))) (i32.const 1)";
    let program = load(&program("", step));
    let ends: Vec<_> = (42_880..42_960)
        .map(|gas_limit| {
            both(
                &program,
                b"",
                &RunLimits {
                    gas_limit,
                    ..LIMITS
                },
            )
            .status
        })
        .collect();
    let change = ends
        .iter()
        .position(|status| *status == Status::Trap)
        .expect("enough gas");
    assert!(change > 0, "the range begins below");
    assert!(
        ends[..change]
            .iter()
            .all(|status| *status == Status::OutOfGas)
    );
    assert!(ends[change..].iter().all(|status| *status == Status::Trap));
}

#[test]
fn bulk_memory_moves_bytes_and_costs_by_the_byte() {
    let of = |length: u32| {
        let step = format!(
            "(memory.fill (i32.const 5000) (i32.const 0xab) (i32.const {length}))
             (memory.copy (i32.const 0) (i32.const 4990) (i32.const 64))
             (memory.copy (i32.const 7) (i32.const 0) (i32.const 300)) (i32.const 1)"
        );
        same_as_uninstrumented(&program("", &step), b"input").gas_used
    };
    assert_eq!(of(80_000) - of(0), 10_000);
    let huge = program(
        "",
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const -1)) (i32.const 1)",
    );
    assert_eq!(both(&load(&huge), b"", &LIMITS).status, Status::OutOfGas);
}

#[test]
fn memory_grows_to_the_smaller_bound_and_no_further() {
    let step = "(local $i i32)
        (loop $l
          (i32.store (i32.shl (local.get $i) (i32.const 2)) (memory.grow (i32.const 1)))
          (i32.store8 (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1)) (local.get $i))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 6))))
        (i32.store (i32.const 24) (memory.grow (i32.const 100)))
        (i32.store (i32.const 28) (memory.size))
        (i32.store (i32.const 32) (memory.grow (i32.const 0)))
        (i32.const 1)";
    let program = load(&program("", step));
    for (memory_pages, pages) in [(2, 2), (3, 3), (5, 5), (6, 6), (8, 6), (4096, 6)] {
        let outcome = both(
            &program,
            b"",
            &RunLimits {
                memory_pages,
                ..LIMITS
            },
        );
        assert_eq!(outcome.status, Status::Done);
        let expected = |i: u32| if 2 + i < pages { 2 + i } else { u32::MAX };
        for i in 0..6 {
            assert_eq!(
                word(&outcome, i as usize * 4),
                expected(i),
                "growth {i} of {memory_pages}"
            );
        }
        assert_eq!(
            [24, 28, 32].map(|at| word(&outcome, at)),
            [u32::MAX, pages, pages]
        );
    }
}

#[test]
fn steps_carry_memory_and_every_kind_of_global() {
    let items = "(global $n (mut i32) (i32.const 0)) (global $a (mut i64) (i64.const 1))
        (global $b (mut f32) (f32.const 1.5)) (global $c (mut f64) (f64.const -0.0))
        (global $d (mut v128) (v128.const i32x4 1 2 3 4)) (global $k i32 (i32.const 5))";
    let step = "(global.set $n (i32.add (global.get $n) (i32.const 1)))
        (global.set $a (i64.mul (global.get $a) (i64.const 3)))
        (global.set $b (f32.mul (global.get $b) (f32.const 1.25)))
        (global.set $c (f64.sub (global.get $c) (f64.const 0.125)))
        (global.set $d (i32x4.add (global.get $d) (global.get $d)))
        (i64.store (i32.shl (global.get $n) (i32.const 3)) (global.get $a))
        (v128.store (i32.const 128) (global.get $d))
        (f64.store (i32.const 160) (f64.add (global.get $c) (f64.promote_f32 (global.get $b))))
        (i32.ge_u (global.get $n) (global.get $k))";
    let wat = program(items, step);
    let done = same_as_uninstrumented(&wat, b"in");
    assert_eq!((done.status, done.steps), (Status::Done, 5));
    let program = load(&wat);
    let short = both(
        &program,
        b"in",
        &RunLimits {
            steps_max: 4,
            ..LIMITS
        },
    );
    assert_eq!((short.status, short.steps), (Status::TooManySteps, 4));
    assert_eq!(
        both(
            &program,
            b"in",
            &RunLimits {
                steps_max: 5,
                ..LIMITS
            }
        ),
        done
    );
    assert_eq!(
        both(
            &program,
            b"in",
            &RunLimits {
                steps_max: 0,
                ..LIMITS
            }
        )
        .steps,
        0
    );
    // The trace binds the input, although the output does not depend on it.
    let other = both(&program, b"IN", &LIMITS);
    assert_eq!(
        (&other.output, other.gas_used),
        (&done.output, done.gas_used)
    );
    assert_ne!(other.trace_root, done.trace_root);
}

#[test]
fn control_flow_of_every_shape_agrees() {
    let items = "
      (type $bin (func (param i32 i32) (result i32)))
      (table 4 funcref) (elem (i32.const 0) $add $sub $mul $pick)
      (func $add (type $bin) (i32.add (local.get 0) (local.get 1)))
      (func $sub (type $bin) (i32.sub (local.get 0) (local.get 1)))
      (func $mul (type $bin) (i32.mul (local.get 0) (local.get 1)))
      (func $pick (type $bin)
        (loop $again
          (if (i32.gt_s (local.get 0) (i32.const 50)) (then (return (local.get 1))))
          (local.set 0 (i32.add (local.get 0) (i32.const 13)))
          (block $b (br_if $b (i32.and (local.get 0) (i32.const 1))) (br $again))
          (br $again))
        (unreachable))
      (func $pair (param i32) (result i32 i64) (local.get 0) (i64.extend_i32_s (local.get 0)))
      (func $swap (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
      (func $switch (param i32) (result i32)
        (block $d (block $c (block $b (block $a
          (br_table $a $b $c $b $d (local.get 0)))
          (return (i32.const 10)))
          (local.set 0 (i32.add (local.get 0) (i32.const 20))) (br $d))
          (local.set 0 (select (i32.const 31) (i32.const 32) (local.get 0))))
        (local.get 0))";
    let step = "(local $i i32) (local $s i32) (local $x i64)
      (block $out (loop $l
        (local.set $s (i32.add (local.get $s) (call $switch (i32.rem_u (local.get $i) (i32.const 7)))))
        (local.set $s (call_indirect (type $bin) (local.get $s) (local.get $i)
                         (i32.and (local.get $i) (i32.const 3))))
        (call $swap (call $pair (local.get $i)))
        (local.set $s) (local.get $x) (i64.add) (local.set $x)
        (block $inner (result i32)
          (if (result i32) (i32.eqz (i32.rem_u (local.get $i) (i32.const 11)))
            (then (br $inner (i32.const 3)))
            (else (nop) (i32.const 4))))
        (i32.const 1) (i32.add)
        (local.get $s) (i32.add) (local.set $s)
        (i32.store (i32.and (i32.mul (local.get $i) (i32.const 4)) (i32.const 508)) (local.get $s))
        (br_if $out (i32.gt_u (local.get $i) (i32.const 200)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $l)
        (memory.fill) (drop (memory.grow)) (call_indirect (type $bin)) (drop)))
      (i64.store (i32.const 504) (local.get $x))
      (i32.const 1)";
    assert_eq!(
        same_as_uninstrumented(&program(items, step), b"").status,
        Status::Done
    );
}

#[test]
fn output_outside_memory_or_too_long_is_bad_output() {
    let with = |at: &str, length: &str| {
        let text = program("", "(i32.const 1)")
            .replace(
                "\"out_ptr\") (result i32) (i32.const 0)",
                &format!("\"out_ptr\") (result i32) (i32.const {at})"),
            )
            .replace("(i32.const 512)", &format!("(i32.const {length})"));
        both(&load(&text), b"", &LIMITS)
    };
    for (at, length) in [
        ("131072", "1"),
        ("131071", "2"),
        ("-1", "1"),
        ("0", "65537"),
        ("0", "-1"),
    ] {
        let outcome = with(at, length);
        assert_eq!(
            (outcome.status, outcome.output.len()),
            (Status::BadOutput, 0),
            "{at} {length}"
        );
    }
    for (at, length) in [("131072", "0"), ("131071", "1"), ("0", "65536")] {
        let outcome = with(at, length);
        assert_eq!(outcome.status, Status::Done, "{at} {length}");
        assert_eq!(outcome.output.len().to_string(), length);
    }
}
