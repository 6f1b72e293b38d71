//! Many values that are alive for long.

use super::{Code, LARGE, Pattern, at, five, framed};
use crate::adversary::{Widths, functions};
use wasm_encoder::{BlockType, Function, ValType};

/// Its patterns.
pub(super) const VALUES: &[Pattern] = &[
    with_locals(
        "locals-if",
        LARGE,
        |f, _, _| {
            f.instructions().local_get(0).if_(BlockType::Empty).end();
        },
        false,
    ),
    with_locals(
        "locals-loop",
        LARGE,
        |f, _, _| {
            f.instructions().loop_(BlockType::Empty).end();
        },
        false,
    ),
    with_locals(
        "locals-loop-back",
        LARGE,
        |f, _, _| {
            f.instructions()
                .loop_(BlockType::Empty)
                .local_get(0)
                .br_if(0)
                .end();
        },
        false,
    ),
    with_locals(
        "locals-loop-nested",
        LARGE,
        |f, _, _| {
            f.instructions().loop_(BlockType::Empty);
        },
        true,
    ),
    with_locals(
        "locals-loop-nested-back",
        LARGE,
        |f, _, _| {
            f.instructions()
                .loop_(BlockType::Empty)
                .local_get(0)
                .br_if(0);
        },
        true,
    ),
    with_locals(
        "locals-call",
        LARGE,
        |f, _, _| {
            f.instructions().call(functions::NOTHING);
        },
        false,
    ),
    with_locals(
        "locals-if-set",
        LARGE,
        |f, w, unit| {
            let count = usize::try_from(w.locals).unwrap_or(1);
            let local = u32::try_from(unit % count).unwrap_or(0) + 1;
            f.instructions()
                .local_get(0)
                .if_(BlockType::Empty)
                .i64_const(1)
                .local_set(local)
                .end();
        },
        false,
    ),
    with_locals(
        "locals-loop-set",
        LARGE,
        |f, w, unit| {
            let count = usize::try_from(w.locals).unwrap_or(1);
            let local = u32::try_from(unit % count).unwrap_or(0) + 1;
            f.instructions()
                .loop_(BlockType::Empty)
                .i64_const(1)
                .local_set(local)
                .local_get(0)
                .br_if(0)
                .end();
        },
        false,
    ),
    over_values("values-call", LARGE, |f, _, _| {
        f.instructions().call(functions::NOTHING);
    }),
    over_values("values-if", LARGE, |f, _, _| {
        f.instructions().local_get(0).if_(BlockType::Empty).end();
    }),
    over_values("values-loop-back", LARGE, |f, _, _| {
        f.instructions()
            .loop_(BlockType::Empty)
            .local_get(0)
            .br_if(0)
            .end();
    }),
    over_values("values-more", LARGE, |f, _, unit| {
        let offset = u64::try_from(unit).unwrap_or(0) * 8;
        f.instructions()
            .local_get(0)
            .i64_load32_u(at(offset))
            .i64_xor();
    }),
    framed(
        "stack-deep",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().i32_const(0).i64_const(0);
            },
            unit: |f, _, unit| {
                let offset = u64::try_from(unit).unwrap_or(0) % 4_000;
                f.instructions().local_get(0).i64_load32_u(at(offset));
            },
            close: |f, _, units| {
                let mut code = f.instructions();
                for _ in 0..units {
                    code.i64_add();
                }
                code.i64_store(at(0));
            },
        },
    ),
];

fn many(widths: Widths) -> Vec<(u32, ValType)> {
    vec![(widths.locals, ValType::I64)]
}

/// Many locals, written first and read last, with the units in between.
const fn with_locals(
    name: &'static str,
    function_bytes: usize,
    unit: fn(&mut Function, Widths, usize),
    ends_per_unit: bool,
) -> Pattern {
    let close: fn(&mut Function, Widths, usize) = if ends_per_unit {
        |f, w, units| {
            for _ in 0..units {
                f.instructions().end();
            }
            read_locals(f, w);
        }
    } else {
        |f, w, _| read_locals(f, w)
    };
    let code = Code {
        locals: many,
        open: |f, w| {
            let mut code = f.instructions();
            for local in 1..=w.locals {
                code.local_get(0).i64_load32_u(at(0)).local_set(local);
            }
        },
        unit,
        close,
    };
    framed(name, function_bytes, code)
}

fn read_locals(f: &mut Function, w: Widths) {
    let mut code = f.instructions();
    code.i32_const(0).i64_const(0);
    for local in 1..=w.locals {
        code.local_get(local).i64_add();
    }
    code.i64_store(at(0));
}

/// Many values on the operand stack while the units run.
const fn over_values(
    name: &'static str,
    function_bytes: usize,
    unit: fn(&mut Function, Widths, usize),
) -> Pattern {
    framed(
        name,
        function_bytes,
        Code {
            locals: five,
            open: |f, w| {
                let mut code = f.instructions();
                code.i32_const(0);
                for value in 0..w.locals {
                    code.local_get(0).i64_load32_u(at(value.into()));
                }
            },
            unit,
            close: |f, w, _| {
                let mut code = f.instructions();
                for _ in 1..w.locals {
                    code.i64_add();
                }
                code.i64_store(at(0));
            },
        },
    )
}
