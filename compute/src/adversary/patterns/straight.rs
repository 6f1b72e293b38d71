//! Straight code: arithmetic, vectors, memory.

use super::{Code, F64, I64, LARGE, Pattern, V128, at, five, framed, keep, plain};

/// A chain of operators from one value to one of the same type, kept in a local.
macro_rules! chain {
    ($name:literal, $get:expr, $($op:ident),+) => {
        framed($name, LARGE, Code {
            locals: five,
            open: |f, _| { f.instructions().local_get($get); },
            unit: |f, _, _| { let mut code = f.instructions(); $( code.$op(); )+ },
            close: |f, _, _| { keep(f, $get); },
        })
    };
}

/// An operator of two operands, the second one the local itself.
macro_rules! binary {
    ($name:literal, $get:expr, $op:ident) => {
        framed(
            $name,
            LARGE,
            Code {
                locals: five,
                open: |f, _| {
                    f.instructions().local_get($get);
                },
                unit: |f, _, _| {
                    f.instructions().local_get($get).$op();
                },
                close: |f, _, _| {
                    keep(f, $get);
                },
            },
        )
    };
}

/// A vector shifted by the parameter.
macro_rules! shifted {
    ($name:literal, $op:ident) => {
        framed(
            $name,
            LARGE,
            Code {
                locals: five,
                open: |f, _| {
                    f.instructions().local_get(V128);
                },
                unit: |f, _, _| {
                    f.instructions().local_get(0).$op();
                },
                close: |f, _, _| {
                    keep(f, V128);
                },
            },
        )
    };
}

/// Its patterns.
pub(super) const STRAIGHT: &[Pattern] = &[
    plain("add", |f, _, _| {
        f.instructions()
            .local_get(I64)
            .i64_const(77)
            .i64_add()
            .local_set(I64);
    }),
    plain("const-i64", |f, _, unit| {
        let value = i64::try_from(unit)
            .unwrap_or(0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed());
        f.instructions().i64_const(value).local_set(I64);
    }),
    plain("const-store", |f, _, unit| {
        let value = i64::try_from(unit).unwrap_or(0).wrapping_mul(77_777);
        f.instructions()
            .i32_const(0)
            .i64_const(value)
            .i64_store(at(0));
    }),
    plain("tee", |f, _, _| {
        f.instructions().local_get(0).local_tee(5).local_set(0);
    }),
    plain("select", |f, _, _| {
        f.instructions()
            .local_get(0)
            .local_get(5)
            .local_get(0)
            .select()
            .local_set(5);
    }),
    chain!("clz", I64, i64_clz),
    chain!("ctz-popcnt", I64, i64_ctz, i64_popcnt),
    chain!("eqz-extend", 0, i32_eqz),
    chain!("f64-sqrt", F64, f64_sqrt),
    chain!("f64-nearest", F64, f64_nearest),
    chain!("f64-demote-promote", F64, f32_demote_f64, f64_promote_f32),
    chain!("trunc-f64-u", I64, f64_convert_i64_u, i64_trunc_f64_u),
    chain!("trunc-f64-s", 0, f64_convert_i32_s, i32_trunc_f64_s),
    chain!(
        "trunc-sat-f64-u",
        I64,
        f64_convert_i64_u,
        i64_trunc_sat_f64_u
    ),
    chain!(
        "trunc-sat-f32-s",
        I64,
        f32_convert_i64_u,
        i64_trunc_sat_f32_s
    ),
    binary!("rem-s", I64, i64_rem_s),
    binary!("div-s", 0, i32_div_s),
    binary!("rotl", I64, i64_rotl),
    binary!("f64-min", F64, f64_min),
    binary!("f64-copysign", F64, f64_copysign),
    // Vectors.
    binary!("i64x2-mul", V128, i64x2_mul),
    binary!("f32x4-min", V128, f32x4_min),
    binary!("f64x2-div", V128, f64x2_div),
    binary!("i8x16-swizzle", V128, i8x16_swizzle),
    binary!("i16x8-q15", V128, i16x8_q15mulr_sat_s),
    chain!("f64x2-sqrt", V128, f64x2_sqrt),
    chain!("i8x16-popcnt", V128, i8x16_popcnt),
    chain!("i64x2-abs", V128, i64x2_abs),
    chain!("trunc-sat-f64x2", V128, i32x4_trunc_sat_f64x2_u_zero),
    chain!("trunc-sat-f32x4", V128, i32x4_trunc_sat_f32x4_u),
    chain!("convert-i32x4-u", V128, f32x4_convert_i32x4_u),
    chain!("f64x2-nearest", V128, f64x2_nearest),
    chain!("f32x4-ceil", V128, f32x4_ceil),
    shifted!("i8x16-shl", i8x16_shl),
    shifted!("i8x16-shr-s", i8x16_shr_s),
    shifted!("i64x2-shr-s", i64x2_shr_s),
    plain("v128-const", |f, _, unit| {
        let value = i128::try_from(unit).unwrap_or(0) << 50 | 3;
        f.instructions().v128_const(value).local_set(V128);
    }),
    // Memory and globals.
    framed(
        "load-chain",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().local_get(0);
            },
            unit: |f, _, _| {
                f.instructions().i32_load(at(0));
            },
            close: |f, _, _| keep(f, 0),
        },
    ),
    framed(
        "load-chain-far",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().local_get(0);
            },
            unit: |f, _, _| {
                f.instructions().i32_load(at(0x7fff_fff0));
            },
            close: |f, _, _| keep(f, 0),
        },
    ),
    plain("store", |f, _, _| {
        f.instructions().local_get(0).local_get(0).i32_store(at(0));
    }),
    plain("store-lane", |f, _, _| {
        f.instructions()
            .local_get(0)
            .local_get(V128)
            .v128_store8_lane(at(0), 3);
    }),
    plain("global", |f, _, _| {
        f.instructions().global_get(0).global_set(0);
    }),
    framed(
        "memory-grow",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().local_get(0);
            },
            unit: |f, _, _| {
                f.instructions().memory_grow(0);
            },
            close: |f, _, _| keep(f, 0),
        },
    ),
    plain("memory-fill", |f, _, _| {
        f.instructions()
            .local_get(0)
            .local_get(0)
            .local_get(0)
            .memory_fill(0);
    }),
    plain("memory-copy", |f, _, _| {
        f.instructions()
            .local_get(0)
            .local_get(0)
            .local_get(0)
            .memory_copy(0, 0);
    }),
];
