//! Values that edges and calls move, for a few bytes each: a branch hands on every local that was
//! written on one way to its target and not on another, a call its arguments and results.

use super::{Code, I64, LARGE, Pattern, at, drops, five, framed, plain, words};
use crate::adversary::{Widths, functions, types};
use wasm_encoder::{BlockType, Function, ValType};

/// Numbers of locals: a square that counts is small at the first two and large at the last.
const FEW: u32 = 32;
const SOME: u32 = 128;
const MANY: u32 = 500;
/// Targets of a table, and blocks around one.
const TARGETS: usize = 500;
const NESTED: u32 = 100;

/// Its patterns.
pub(super) const MOVES: &[Pattern] = &[
    table::<FEW>("br-table-set-few"),
    plain("br-table-result", |f, _, _| {
        f.instructions()
            .block(BlockType::Result(ValType::I64))
            .local_get(I64)
            .local_get(0)
            .br_if(0)
            .drop()
            .i64_const(7)
            .local_get(0)
            .br_table([0; TARGETS], 0)
            .end()
            .local_set(I64);
    }),
    table::<SOME>("br-table-set-some"),
    table::<MANY>("br-table-set-many"),
    left_table::<FEW>("br-table-left-set-few"),
    left_table::<SOME>("br-table-left-set-some"),
    nested_table::<FEW>("br-table-nested-set-few"),
    nested_table::<SOME>("br-table-nested-set-some"),
    forward::<FEW>("br-if-set-few"),
    forward::<SOME>("br-if-set-some"),
    forward::<MANY>("br-if-set-many"),
    back::<FEW>("br-if-back-set-few"),
    back::<SOME>("br-if-back-set-some"),
    back::<MANY>("br-if-back-set-many"),
    nested_if::<FEW>("if-nested-set-few"),
    nested_if::<SOME>("if-nested-set-some"),
    nested_if::<MANY>("if-nested-set-many"),
    nested_loop::<FEW>("loop-nested-set-few"),
    nested_loop::<SOME>("loop-nested-set-some"),
    alive::<FEW>("locals-few-loop-back"),
    alive::<SOME>("locals-some-loop-back"),
    // Calls whose arguments are few enough to cost no more than an operator each.
    plain("call-some", |f, _, _| {
        arguments(f);
        f.instructions().call(functions::SOME_IN);
    }),
    plain("call-some-results", |f, w, _| {
        arguments(f);
        let mut code = f.instructions();
        code.call(functions::SOME);
        drops(&mut code, w.results);
    }),
    plain("call-indirect-some", |f, _, _| {
        arguments(f);
        f.instructions()
            .local_get(0)
            .call_indirect(0, types::SOME_IN);
    }),
    framed(
        "call-chain-wide",
        LARGE,
        Code {
            locals: five,
            open: |f, w| {
                let mut code = f.instructions();
                code.i32_const(0);
                words(&mut code, w.params.min(w.results));
            },
            unit: |f, _, _| {
                f.instructions().call(functions::WIDE_BOTH);
            },
            close: |f, w, _| {
                let mut code = f.instructions();
                for _ in 1..w.params.min(w.results) {
                    code.i64_add();
                }
                code.i64_store(at(0));
            },
        },
    ),
    // Results that nobody takes from the stack: the branch leaves them behind.
    plain("call-results-left", |f, _, _| {
        f.instructions()
            .block(BlockType::Empty)
            .call(functions::WIDE_OUT)
            .br(0)
            .end();
    }),
];

fn arguments(f: &mut Function) {
    let mut code = f.instructions();
    for _ in 0..types::ARGUMENTS {
        code.local_get(I64);
    }
}

/// So many locals beside the parameter.
fn locals<const V: u32>(_: Widths) -> Vec<(u32, ValType)> {
    vec![(V, ValType::I64)]
}

/// Gives each local a value that no other has.
fn write<const V: u32>(f: &mut Function, _: Widths) {
    let mut code = f.instructions();
    for local in 1..=V {
        code.local_get(0)
            .i64_load32_u(at(local.into()))
            .local_set(local);
    }
}

/// Gives each local its neighbour's value, so that no two ways here can share a place for it.
fn rotate<const V: u32>(f: &mut Function) {
    let mut code = f.instructions();
    code.local_get(1);
    for local in 1..V {
        code.local_get(local + 1).local_set(local);
    }
    code.local_set(V);
}

/// Needs each local's value.
fn read<const V: u32>(f: &mut Function) {
    let mut code = f.instructions();
    code.i32_const(0).i64_const(0);
    for local in 1..=V {
        code.local_get(local).i64_add();
    }
    code.i64_store(at(0));
}

fn ends(f: &mut Function, count: usize) {
    for _ in 0..count {
        f.instructions().end();
    }
}

/// A table whose targets are all one block, which another way leads to with other values.
const fn table<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: write::<V>,
        unit: |f, _, _| {
            f.instructions()
                .block(BlockType::Empty)
                .local_get(0)
                .if_(BlockType::Empty);
            rotate::<V>(f);
            f.instructions()
                .local_get(0)
                .br_table([1; TARGETS], 1)
                .end()
                .end();
        },
        close: |f, _, _| read::<V>(f),
    };
    framed(name, LARGE, code)
}

/// A table as in [`table`], whose values leave by a branch before another label and writes on the way
/// there take their place: the branch still needs them.
const fn left_table<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: write::<V>,
        unit: |f, _, _| {
            f.instructions()
                .block(BlockType::Empty)
                .local_get(0)
                .if_(BlockType::Empty)
                .block(BlockType::Empty)
                .local_get(0)
                .if_(BlockType::Empty);
            rotate::<V>(f);
            let mut code = f.instructions();
            code.local_get(0)
                .br_table([1; TARGETS], 1)
                .end()
                .end()
                .local_get(0)
                .br_if(1)
                .end();
            for local in 1..=V {
                code.i64_const(0).local_set(local);
            }
            code.end();
        },
        close: |f, _, _| read::<V>(f),
    };
    framed(name, LARGE, code)
}

/// Tables whose targets are as many blocks, each with values of every table.
const fn nested_table<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: |f, w| {
            write::<V>(f, w);
            for _ in 0..NESTED {
                f.instructions().block(BlockType::Empty);
            }
        },
        unit: |f, _, _| {
            f.instructions().local_get(0).if_(BlockType::Empty);
            rotate::<V>(f);
            f.instructions()
                .local_get(0)
                .br_table(1..NESTED + 1, 1)
                .end();
        },
        close: |f, _, _| {
            ends(f, NESTED as usize);
            read::<V>(f);
        },
    };
    framed(name, LARGE, code)
}

/// Branches to the end of a block, half of them before the locals change.
const fn forward<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: |f, w| {
            write::<V>(f, w);
            f.instructions()
                .block(BlockType::Empty)
                .local_get(0)
                .br_if(0);
            rotate::<V>(f);
        },
        unit: |f, _, _| {
            f.instructions().local_get(0).br_if(0);
        },
        close: |f, _, _| {
            ends(f, 1);
            read::<V>(f);
        },
    };
    framed(name, LARGE, code)
}

/// Branches to the head of a loop whose locals change.
const fn back<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: |f, w| {
            write::<V>(f, w);
            f.instructions().loop_(BlockType::Empty);
            rotate::<V>(f);
        },
        unit: |f, _, _| {
            f.instructions().local_get(0).br_if(0);
        },
        close: |f, _, _| {
            ends(f, 1);
            read::<V>(f);
        },
    };
    framed(name, LARGE, code)
}

/// Conditions around conditions; the locals change in the innermost.
const fn nested_if<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: write::<V>,
        unit: |f, _, _| {
            f.instructions().local_get(0).if_(BlockType::Empty);
        },
        close: |f, _, units| {
            rotate::<V>(f);
            ends(f, units);
            read::<V>(f);
        },
    };
    framed(name, LARGE, code)
}

/// Loops around loops; the locals change in the innermost.
const fn nested_loop<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: write::<V>,
        unit: |f, _, _| {
            f.instructions().loop_(BlockType::Empty);
        },
        close: |f, _, units| {
            rotate::<V>(f);
            for _ in 0..units {
                f.instructions().local_get(0).br_if(0).end();
            }
            read::<V>(f);
        },
    };
    framed(name, LARGE, code)
}

/// Locals that are alive around loops that leave them alone.
const fn alive<const V: u32>(name: &'static str) -> Pattern {
    let code = Code {
        locals: locals::<V>,
        open: write::<V>,
        unit: |f, _, _| {
            f.instructions()
                .loop_(BlockType::Empty)
                .local_get(0)
                .br_if(0)
                .end();
        },
        close: |f, _, _| read::<V>(f),
    };
    framed(name, LARGE, code)
}
