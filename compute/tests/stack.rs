//! The counted call stack: balanced on every way out, and always the first to end.

mod second;

use proofmill_compute::{Outcome, RunLimits, Status, TrapKind};
use second::{LIMITS, both, load, program, same_as_uninstrumented};

fn word(outcome: &Outcome, at: usize) -> u32 {
    u32::from_le_bytes(outcome.output[at..at + 4].try_into().expect("four bytes"))
}

#[test]
fn deep_recursion_ends_in_the_counted_stack() {
    let plain = "(func $f (param i32) (result i32)
        (i32.add (i32.const 1) (call $f (i32.add (local.get 0) (i32.const 1)))))";
    let mutual = "(type $t (func (param i32) (result i32))) (table 2 funcref) (elem (i32.const 0) $f $g)
        (func $f (type $t) (i32.xor (local.get 0) (call_indirect (type $t) (local.get 0) (i32.const 1))))
        (func $g (type $t) (i32.sub (call $f (local.get 0)) (local.get 0)))";
    // Forty vectors alive across the call.
    let loads = |i| format!("(v128.load offset={} (local.get 0))", i * 16);
    let wide = format!(
        "(func $f (param i32) (result i32) (local $v v128)
           {} (drop (call $f (local.get 0))) {} (v128.any_true (local.get $v)))",
        (0..40).map(loads).collect::<String>(),
        "(local.get $v) (v128.xor) (local.set $v)".repeat(40),
    );
    for items in [plain, mutual, &wide] {
        let wat = program(items, "(drop (call $f (i32.const 0))) (i32.const 1)");
        let outcome = both(
            &load(&wat),
            b"",
            &RunLimits {
                gas_limit: 100_000_000,
                ..LIMITS
            },
        );
        assert_eq!(
            (outcome.status, outcome.trap),
            (Status::Trap, Some(TrapKind::StackOverflow))
        );
    }
}

#[test]
fn the_stack_counter_is_balanced_whatever_way_a_function_is_left() {
    // A hundred thousand calls, left by return, by br out of nested blocks, and by falling through;
    // one leaked frame each would overflow the counted stack.
    let items = "(func $f (param i32) (result i32)
        (block $out (result i32)
          (block $one
            (block $two
              (br_table $one $two $one (i32.rem_u (call $id (local.get 0)) (i32.const 4))))
            (return (call $id (i32.const 7))))
          (drop (br_if $out (call $id (i32.const 8)) (i32.and (local.get 0) (i32.const 4))))
          (call $id (i32.const 9))))
      (func $id (param i32) (result i32) (local.get 0))";
    let step = "(local $i i32) (local $sum i32)
        (loop $l
          (local.set $sum (i32.add (local.get $sum) (call $f (local.get $i))))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))
        (i32.store (i32.const 0) (local.get $sum)) (i32.const 1)";
    let outcome = same_as_uninstrumented(&program(items, step), b"");
    assert_eq!(outcome.status, Status::Done);
    let expected: u32 = (0u32..100_000)
        .map(|i| {
            if i % 4 == 1 {
                7
            } else if i & 4 != 0 {
                8
            } else {
                9
            }
        })
        .sum();
    assert_eq!(word(&outcome, 0), expected);
}

/// Functions whose frames are as large as the limits allow, called as deep as they can be.
#[test]
fn the_counted_stack_ends_before_the_native_one() {
    let locals: String = (0..500)
        .map(|i| {
            format!(
                "(local.set {} (i64.load offset={} (local.get 0)))",
                i + 1,
                i * 8
            )
        })
        .collect();
    let sum: String = (0..500)
        .map(|i| format!("(i64.add (local.get {}))", i + 1))
        .collect();
    let many_locals = format!(
        "(func $f (param i32) (result i32) (local {})
           {locals} (drop (call $f (local.get 0))) (i64.const 0) {sum} (i32.wrap_i64))",
        "i64 ".repeat(500)
    );
    // Eight hundred values that do not change in the loop, all wanted after the call.
    let hoisted: String = (1..800)
        .map(|i| {
            format!(
                "(i64.rotl (i64.xor (local.get 1) (i64.const {})) (local.get 1))",
                i * 977
            )
        })
        .collect();
    let hoisting = format!(
        "(func $f (param i32) (result i32) (local i64)
           (local.set 1 (i64.load (local.get 0)))
           (loop $l (drop (call $f (local.get 0)))
             (i64.const 1) {hoisted} {} (local.set 1) (br_if $l (i64.eqz (local.get 1))))
           (i32.wrap_i64 (local.get 1)))",
        "(i64.mul)".repeat(799)
    );
    let results = "(result i64 i64 i64 i64)";
    let many_results = format!(
        "(func $r {results} {}) (func $f (param i32) (result i32)
           {} (drop (call $f (local.get 0))) {} (i32.wrap_i64))",
        "(i64.load (i32.const 8))".repeat(4),
        "(call $r)".repeat(200),
        "(i64.add)".repeat(200 * 4 - 1)
    );
    let small = "(func $f (param i32) (result i32) (call $f (local.get 0)))";
    // Bytes that the work of such functions is allowed for.
    let room = format!("(data (i32.const 0) \"{}\")", "x".repeat(60_000));
    for items in [&many_locals, &hoisting, &many_results, small] {
        let program = load(&program(
            &format!("{room} {items}"),
            "(drop (call $f (i32.const 0))) (i32.const 1)",
        ));
        let outcome = both(
            &program,
            b"",
            &RunLimits {
                gas_limit: 1 << 40,
                ..LIMITS
            },
        );
        assert_eq!(
            (outcome.status, outcome.trap),
            (Status::Trap, Some(TrapKind::StackOverflow))
        );
    }
}
