//! Floats: both engines give the same bits, and every NaN that arithmetic makes is the canonical one.

mod second;

use proofmill_compute::{Outcome, Status};
use second::same_as_uninstrumented;

/// Patterns that matter to a float: both zeros, ordinary, extremes, infinities, and NaNs of both
/// signs, quiet and signalling, with and without payload.
const F32: [u32; 16] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbfc0_0000,
    0x0000_0001,
    0x8000_0001,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0000,
    0x7f80_0001,
    0xff80_0001,
    0x7fc1_2345,
    0xffff_ffff,
    0x4f00_0001,
];
const F64: [u64; 16] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff8_0000_0000_0000,
    1,
    (1 << 63) | 1,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff0_0000_0000_0001,
    0x7ff8_dead_beef_0001,
    0xffff_ffff_ffff_ffff,
    0x41e0_0000_0010_0000,
];

/// Applies `operation`, which sees `$a` and `$b`, to all pairs of 16-byte inputs, one step a row.
fn over_pairs(load: &str, store: &str, operation: &str, width: u32) -> String {
    format!(
        r#"(module
  (memory (export "memory") 2 2)
  (global $row (mut i32) (i32.const 0))
  (func (export "alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "init") (param i32 i32))
  (func (export "out_ptr") (result i32) (i32.const 8192))
  (func (export "out_len") (result i32) (i32.const 4096))
  (func (export "step") (result i32) (local $j i32) (local $a i32) (local $b i32)
    (local.set $a (i32.add (i32.const 4096) (i32.mul (global.get $row) (i32.const {width}))))
    (loop $l
      (local.set $b (i32.add (i32.const 4096) (i32.mul (local.get $j) (i32.const {width}))))
      ({store} (i32.add (i32.const 8192)
          (i32.mul (i32.add (i32.mul (global.get $row) (i32.const 16)) (local.get $j)) (i32.const 16)))
        {})
      (br_if $l (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 16))))
    (global.set $row (i32.add (global.get $row) (i32.const 1)))
    (i32.eq (global.get $row) (i32.const 16))))"#,
        operation
            .replace("$A", &format!("({load} (local.get $a))"))
            .replace("$B", &format!("({load} (local.get $b))"))
    )
}

/// Every NaN among the results must be the canonical one.
fn assert_canonical(name: &str, outcome: &Outcome, lane: usize) {
    for (index, chunk) in outcome.output.chunks_exact(lane).enumerate() {
        let canonical = if lane == 4 {
            let bits = u32::from_le_bytes(chunk.try_into().expect("four"));
            bits & 0x7fff_ffff <= 0x7f80_0000 || bits == 0x7fc0_0000
        } else {
            let bits = u64::from_le_bytes(chunk.try_into().expect("eight"));
            bits & (u64::MAX >> 1) <= 0x7ff0_0000_0000_0000 || bits == 0x7ff8_0000_0000_0000
        };
        assert!(canonical, "{name}: lane {index} is {chunk:02x?}");
    }
}

fn floats(name: &str, load: &str, store: &str, operation: &str, width: u32) -> Outcome {
    // Operands lie one lane apart, so that every lane of a vector meets every pattern.
    let input: Vec<u8> = if width == 4 {
        F32.iter()
            .cycle()
            .take(32)
            .flat_map(|bits| bits.to_le_bytes())
            .collect()
    } else {
        F64.iter()
            .cycle()
            .take(32)
            .flat_map(|bits| bits.to_le_bytes())
            .collect()
    };
    let outcome = same_as_uninstrumented(&over_pairs(load, store, operation, width), &input);
    assert_eq!(outcome.status, Status::Done, "{name}");
    assert_eq!(outcome.steps, 16);
    outcome
}

#[test]
fn scalar_nans_agree_and_arithmetic_ones_are_canonical() {
    for (ty, width, lane) in [("f32", 4, 4), ("f64", 8, 8)] {
        let (load, store) = (format!("{ty}.load"), format!("{ty}.store"));
        for op in ["add", "sub", "mul", "div", "min", "max"] {
            let name = format!("{ty}.{op}");
            let outcome = floats(&name, &load, &store, &format!("({name} $A $B)"), width);
            assert_canonical(&name, &outcome, lane);
        }
        for op in ["ceil", "floor", "trunc", "nearest", "sqrt"] {
            let name = format!("{ty}.{op}");
            let outcome = floats(&name, &load, &store, &format!("({name} $A)"), width);
            assert_canonical(&name, &outcome, lane);
        }
        // Only signs change here; NaNs keep their bits.
        floats(
            "copysign",
            &load,
            &store,
            &format!("({ty}.copysign $A $B)"),
            width,
        );
        for op in ["abs", "neg"] {
            floats(op, &load, &store, &format!("({ty}.{op} $A)"), width);
        }
        // Folding must not change bits: what an optimiser might call the same value is not.
        for tempting in [
            "mul $A ({}.const 1)",
            "div $A ({}.const 1)",
            "sub $A ({}.const 0)",
        ] {
            let operation = format!("({ty}.{})", tempting.replace("{}", ty));
            assert_canonical(
                &operation,
                &floats(&operation, &load, &store, &operation, width),
                lane,
            );
        }
    }
    let demote = floats("demote", "f64.load", "f32.store", "(f32.demote_f64 $A)", 8);
    assert_canonical("demote", &demote, 4);
    let promote = floats(
        "promote",
        "f32.load",
        "f64.store",
        "(f64.promote_f32 $A)",
        4,
    );
    assert_canonical("promote", &promote, 8);
    let constant = "(f64.add (f64.const -nan:0x4000000000001) (f64.const nan))";
    assert_canonical(
        "constant",
        &floats("constant", "f64.load", "f64.store", constant, 8),
        8,
    );
    let constant = "(f64.promote_f32 (f32.demote_f64 (f64.const -nan:0x4000000000001)))";
    assert_canonical(
        "constant",
        &floats("constant", "f64.load", "f64.store", constant, 8),
        8,
    );
    for saturating in ["f32_s", "f32_u", "f64_s", "f64_u"] {
        let load = format!("{}.load", &saturating[..3]);
        let width = if load.starts_with("f32") { 4 } else { 8 };
        for int in ["i32", "i64"] {
            let operation = format!("({int}.trunc_sat_{saturating} $A)");
            floats(
                &operation,
                &load,
                &format!("{int}.store"),
                &operation,
                width,
            );
        }
    }
}

#[test]
fn simd_lanes_agree_and_arithmetic_nans_are_canonical() {
    for (ty, lane, width) in [("f32x4", 4, 4), ("f64x2", 8, 8)] {
        for op in ["add", "sub", "mul", "div", "min", "max"] {
            let name = format!("{ty}.{op}");
            let outcome = floats(
                &name,
                "v128.load",
                "v128.store",
                &format!("({name} $A $B)"),
                width,
            );
            assert_canonical(&name, &outcome, lane);
        }
        for op in ["ceil", "floor", "trunc", "nearest", "sqrt"] {
            let name = format!("{ty}.{op}");
            let outcome = floats(
                &name,
                "v128.load",
                "v128.store",
                &format!("({name} $A)"),
                width,
            );
            assert_canonical(&name, &outcome, lane);
        }
        for op in ["pmin", "pmax"] {
            let name = format!("{ty}.{op}");
            floats(
                &name,
                "v128.load",
                "v128.store",
                &format!("({name} $A $B)"),
                width,
            );
        }
        for op in ["abs", "neg"] {
            let name = format!("{ty}.{op}");
            floats(
                &name,
                "v128.load",
                "v128.store",
                &format!("({name} $A)"),
                width,
            );
        }
    }
    for (name, lane) in [
        ("f32x4.demote_f64x2_zero", 4),
        ("f64x2.promote_low_f32x4", 8),
    ] {
        for width in [4, 8] {
            let outcome = floats(
                name,
                "v128.load",
                "v128.store",
                &format!("({name} $A)"),
                width,
            );
            assert_canonical(name, &outcome, lane);
        }
    }
    for name in [
        "i32x4.trunc_sat_f32x4_s",
        "i32x4.trunc_sat_f32x4_u",
        "i32x4.trunc_sat_f64x2_s_zero",
        "i32x4.trunc_sat_f64x2_u_zero",
        "f32x4.convert_i32x4_s",
        "f32x4.convert_i32x4_u",
        "f64x2.convert_low_i32x4_s",
        "f64x2.convert_low_i32x4_u",
        "i8x16.popcnt",
        "i64x2.abs",
        "i16x8.extadd_pairwise_i8x16_s",
        "i32x4.extend_high_i16x8_u",
    ] {
        floats(name, "v128.load", "v128.store", &format!("({name} $A)"), 4);
    }
    for name in [
        "i8x16.swizzle",
        "i8x16.add_sat_s",
        "i8x16.avgr_u",
        "i16x8.q15mulr_sat_s",
        "i16x8.mul",
        "i32x4.dot_i16x8_s",
        "i64x2.mul",
        "i64x2.extmul_high_i32x4_u",
        "i8x16.narrow_i16x8_u",
        "v128.andnot",
        "f32x4.lt",
        "f64x2.ne",
        "i8x16.shuffle 0 31 2 29 4 27 6 25 8 23 10 21 12 19 14 17",
    ] {
        floats(
            name,
            "v128.load",
            "v128.store",
            &format!("({name} $A $B)"),
            4,
        );
    }
    for name in ["i8x16.shl", "i8x16.shr_s", "i16x8.shr_u", "i64x2.shr_s"] {
        floats(
            name,
            "v128.load",
            "v128.store",
            &format!("({name} $A (local.get $j))"),
            4,
        );
    }
}
