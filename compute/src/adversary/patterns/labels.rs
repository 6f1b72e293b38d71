//! Blocks and labels that carry many values, and code that is never reached.

use super::{Code, I64, LARGE, MIDDLE, Pattern, drops, five, framed, nothing, plain, words};
use crate::adversary::{Widths, functions, types};
use wasm_encoder::{BlockType, Function};

/// Its patterns.
pub(super) const LABELS: &[Pattern] = &[
    plain("nop", |f, _, _| {
        f.instructions().nop();
    }),
    plain("block", |f, _, _| {
        f.instructions().block(BlockType::Empty).end();
    }),
    framed(
        "block-nested",
        LARGE,
        Code {
            locals: five,
            open: nothing,
            unit: |f, _, _| {
                f.instructions().block(BlockType::Empty);
            },
            close: |f, _, units| {
                for _ in 0..units {
                    f.instructions().end();
                }
            },
        },
    ),
    unreachable("dead-br", |f, _, _| {
        f.instructions().br(0);
    }),
    unreachable("dead-call-wide", |f, w, _| {
        let mut code = f.instructions();
        code.call(functions::WIDE);
        drops(&mut code, w.results.min(1));
    }),
    unreachable("dead-block-wide", |f, w, _| {
        let mut code = f.instructions();
        code.block(BlockType::FunctionType(types::WIDE_IN));
        drops(&mut code, w.params);
        code.end();
    }),
    unreachable("dead-br-table", |f, _, _| {
        f.instructions().br_table([0; 500], 0);
    }),
    unreachable("dead-select", |f, _, _| {
        f.instructions().select();
    }),
    unreachable("dead-loop", |f, _, _| {
        f.instructions().loop_(BlockType::Empty).end();
    }),
    inside_wide("br-table-wide", LARGE, |f, w, _| {
        let mut code = f.instructions();
        code.local_get(0).br_table([0; 500], 0);
        words(&mut code, w.params);
    }),
    inside_wide("dead-br-table-wide", LARGE, |f, w, unit| {
        let mut code = f.instructions();
        if unit == 0 {
            code.unreachable();
            words(&mut code, w.params);
        }
        code.local_get(0).br_table([0; 500], 0);
        words(&mut code, w.params);
    }),
    inside_wide("br-if-wide", LARGE, |f, _, _| {
        f.instructions().local_get(0).br_if(0);
    }),
    inside_wide("br-if-wide-middle", MIDDLE, |f, _, _| {
        f.instructions().local_get(0).br_if(0);
    }),
    inside_wide("br-if-wide-rotated", LARGE, |f, w, _| {
        let mut code = f.instructions();
        code.i64_add();
        code.local_get(I64).local_get(0).br_if(0);
        let _ = w;
    }),
    inside_wide("loop-wide", LARGE, |f, _, _| {
        f.instructions()
            .loop_(BlockType::FunctionType(types::WIDE_BOTH))
            .end();
    }),
    inside_wide("block-wide", LARGE, |f, _, _| {
        f.instructions()
            .block(BlockType::FunctionType(types::WIDE_BOTH))
            .end();
    }),
    inside_wide("if-wide", LARGE, |f, _, _| {
        f.instructions()
            .local_get(0)
            .if_(BlockType::FunctionType(types::WIDE_BOTH))
            .else_()
            .end();
    }),
];

/// A loop or block with the widest parameters around the units.
const fn inside_wide(
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
                words(&mut code, w.params);
                code.loop_(BlockType::FunctionType(types::WIDE_IN));
            },
            unit,
            close: |f, w, _| {
                let mut code = f.instructions();
                drops(&mut code, w.params);
                code.end();
            },
        },
    )
}

const fn unreachable(name: &'static str, unit: fn(&mut Function, Widths, usize)) -> Pattern {
    framed(
        name,
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().unreachable();
            },
            unit,
            close: |f, _, _| {
                f.instructions().unreachable();
            },
        },
    )
}
