//! Many small things in the sections of a module.

use super::{Pattern, section, words};
use crate::adversary::{FUNCTIONS_FIXED, functions, types};
use wasm_encoder::{ConstExpr, Elements, ExportKind, Function, GlobalType, ValType};

/// Its patterns.
pub(super) const SECTIONS: &[Pattern] = &[
    section("functions-empty", |draft, _, _| {
        let mut function = Function::new([]);
        function.instructions().end();
        draft.functions.function(types::NOTHING);
        draft.code.function(&function);
    }),
    section("functions-call", |draft, _, _| {
        let mut function = Function::new([]);
        function.instructions().call(functions::NOTHING).end();
        draft.functions.function(types::NOTHING);
        draft.code.function(&function);
    }),
    section("functions-wide", |draft, w, _| {
        let mut function = Function::new([]);
        let mut code = function.instructions();
        words(&mut code, w.results);
        code.end();
        draft.functions.function(types::WIDE);
        draft.code.function(&function);
    }),
    section("functions-locals", |draft, w, _| {
        let mut function = Function::new([(w.locals, ValType::V128)]);
        function.instructions().end();
        draft.functions.function(types::NOTHING);
        draft.code.function(&function);
    }),
    section("functions-in-table", |draft, _, unit| {
        let mut function = Function::new([]);
        function.instructions().end();
        draft.functions.function(types::NOTHING);
        draft.code.function(&function);
        let index = FUNCTIONS_FIXED + u32::try_from(unit).unwrap_or(0);
        let offset = ConstExpr::i32_const(i32::try_from(unit % 50_000).unwrap_or(0));
        let list = [index];
        draft
            .elements
            .active(None, &offset, Elements::Functions((&list[..]).into()));
    }),
    section("types", |draft, w, unit| {
        let params: Vec<_> = (0..w.params.min(12))
            .map(|bit| match unit >> bit & 1 {
                0 => ValType::I32,
                _ => ValType::I64,
            })
            .collect();
        draft.types.ty().function(params, [ValType::F64]);
    }),
    section("globals", |draft, _, _| {
        let kind = GlobalType {
            val_type: ValType::I32,
            mutable: true,
            shared: false,
        };
        draft.globals.global(kind, &ConstExpr::i32_const(1));
    }),
    section("exports", |draft, _, unit| {
        draft
            .exports
            .export(&format!("{unit:x}"), ExportKind::Func, functions::NOTHING);
    }),
    section("data", |draft, _, _| {
        draft.data.active(0, &ConstExpr::i32_const(0), []);
    }),
    section("elements", |draft, _, _| {
        let list = [functions::NOTHING; 1_000];
        draft.elements.active(
            None,
            &ConstExpr::i32_const(0),
            Elements::Functions((&list[..]).into()),
        );
    }),
    section("elements-short", |draft, _, _| {
        draft.elements.active(
            None,
            &ConstExpr::i32_const(0),
            Elements::Functions((&[][..]).into()),
        );
    }),
];
