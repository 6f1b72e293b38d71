//! Calls and the flow of control.

use super::{
    Code, LARGE, MIDDLE, Pattern, SMALL, at, drops, five, framed, keep, nothing, plain, sized,
    words,
};
use crate::adversary::{Widths, functions, types};
use wasm_encoder::{BlockType, Function};

/// Its patterns.
pub(super) const CONTROL: &[Pattern] = &[
    plain("call", |f, _, _| {
        f.instructions().call(functions::NOTHING);
    }),
    sized("call-small", SMALL, |f, _, _| {
        f.instructions().call(functions::NOTHING);
    }),
    framed(
        "call-chain",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().local_get(0);
            },
            unit: |f, _, _| {
                f.instructions().call(functions::UNARY);
            },
            close: |f, _, _| keep(f, 0),
        },
    ),
    plain("call-wide", |f, w, _| {
        let mut code = f.instructions();
        words(&mut code, w.params);
        code.call(functions::WIDE);
        drops(&mut code, w.results);
    }),
    plain("call-results", |f, w, _| {
        let mut code = f.instructions();
        code.call(functions::WIDE_OUT);
        drops(&mut code, w.results);
    }),
    framed(
        "call-results-kept",
        MIDDLE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().i32_const(0);
            },
            unit: |f, _, _| {
                f.instructions().call(functions::WIDE_OUT);
            },
            close: |f, w, units| {
                let mut code = f.instructions();
                for _ in 1..units * w.results {
                    code.i64_add();
                }
                code.i64_store(at(0));
            },
        },
    ),
    framed(
        "call-indirect",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().local_get(0);
            },
            unit: |f, _, _| {
                f.instructions().local_get(0).call_indirect(0, types::UNARY);
            },
            close: |f, _, _| keep(f, 0),
        },
    ),
    // Branches.
    plain("loop", |f, _, _| {
        f.instructions().loop_(BlockType::Empty).end();
    }),
    sized("loop-middle", MIDDLE, |f, _, _| {
        f.instructions().loop_(BlockType::Empty).end();
    }),
    framed(
        "loop-nested",
        LARGE,
        Code {
            locals: five,
            open: nothing,
            unit: |f, _, _| {
                f.instructions().loop_(BlockType::Empty);
            },
            close: |f, _, units| {
                for _ in 0..units {
                    f.instructions().end();
                }
            },
        },
    ),
    plain("loop-back", |f, _, _| {
        f.instructions()
            .loop_(BlockType::Empty)
            .local_get(0)
            .br_if(0)
            .end();
    }),
    framed(
        "loop-nested-back",
        LARGE,
        Code {
            locals: five,
            open: nothing,
            unit: |f, _, unit| {
                let up = u32::try_from(unit).unwrap_or(0);
                f.instructions()
                    .loop_(BlockType::Empty)
                    .local_get(0)
                    .br_if(up);
            },
            close: |f, _, units| {
                for _ in 0..units {
                    f.instructions().end();
                }
            },
        },
    ),
    plain("if", |f, _, _| {
        f.instructions().local_get(0).if_(BlockType::Empty).end();
    }),
    plain("if-else-set", |f, _, _| {
        f.instructions()
            .local_get(0)
            .if_(BlockType::Empty)
            .local_get(5)
            .local_set(0)
            .else_()
            .local_get(0)
            .local_set(5)
            .end();
    }),
    plain("if-return", |f, _, _| {
        f.instructions()
            .local_get(0)
            .if_(BlockType::Empty)
            .return_()
            .end();
    }),
    plain("if-unreachable", |f, _, _| {
        f.instructions()
            .local_get(0)
            .if_(BlockType::Empty)
            .unreachable()
            .end();
    }),
    inside_loop("br-if", |f, _, _| {
        f.instructions().local_get(0).br_if(0);
    }),
    inside_loop("br-if-set", |f, _, _| {
        f.instructions()
            .local_get(0)
            .i32_eqz()
            .local_tee(0)
            .br_if(0);
    }),
    framed(
        "br-if-results",
        LARGE,
        Code {
            locals: five,
            open: |f, w| {
                let mut code = f.instructions();
                code.block(BlockType::FunctionType(types::WIDE_OUT));
                words(&mut code, w.results);
            },
            unit: |f, _, _| {
                f.instructions().local_get(0).br_if(0);
            },
            close: |f, w, _| {
                let mut code = f.instructions();
                code.end();
                drops(&mut code, w.results);
            },
        },
    ),
    plain("br-table", |f, _, _| {
        f.instructions()
            .block(BlockType::Empty)
            .local_get(0)
            .br_table([0; 500], 0)
            .end();
    }),
    plain("br-table-short", |f, _, _| {
        f.instructions()
            .block(BlockType::Empty)
            .local_get(0)
            .br_table([0; 2], 0)
            .end();
    }),
    framed(
        "br-table-deep",
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                for _ in 0..100 {
                    f.instructions().loop_(BlockType::Empty);
                }
            },
            unit: |f, _, _| {
                f.instructions()
                    .block(BlockType::Empty)
                    .local_get(0)
                    .br_table(1..101, 0)
                    .end();
            },
            close: |f, _, _| {
                for _ in 0..100 {
                    f.instructions().end();
                }
            },
        },
    ),
];

const fn inside_loop(name: &'static str, unit: fn(&mut Function, Widths, usize)) -> Pattern {
    framed(
        name,
        LARGE,
        Code {
            locals: five,
            open: |f, _| {
                f.instructions().loop_(BlockType::Empty);
            },
            unit,
            close: |f, _, _| {
                f.instructions().end();
            },
        },
    )
}
