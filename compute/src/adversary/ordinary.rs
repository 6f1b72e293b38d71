//! Ordinary modules of any size: the functions of real programs, repeated.

use crate::ModuleLimits;
use crate::program::ProgramError;
use crate::validate::{Facts, check};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, FunctionSection, GlobalSection, Module, TypeSection,
};
use wasmparser::{FunctionBody, Parser, Payload};

/// A program of about `bytes` bytes whose functions are those of `programs`, in turn, again and again.
/// It has their types, globals and code, and no data; it is there to be validated and compiled, and
/// says nothing of use when it is run.
///
/// # Errors
/// When one of them is not a program, or one calls through a table.
pub fn ordinary(programs: &[&[u8]], bytes: usize) -> Result<Vec<u8>, ProgramError> {
    let limits = ModuleLimits {
        functions_max: u32::MAX,
        ..ModuleLimits::unbounded()
    };
    let sources = programs
        .iter()
        .map(|program| Source::read(program, &limits))
        .collect::<Result<Vec<_>, _>>()?;
    build(&sources, bytes).map_err(|error| ProgramError::Invalid(error.to_string()))
}

/// Bytes of the other sections.
const ROOM: usize = 300;

struct Source<'a> {
    module: &'a [u8],
    facts: Facts,
    bodies: Vec<FunctionBody<'a>>,
}

impl<'a> Source<'a> {
    fn read(module: &'a [u8], limits: &ModuleLimits) -> Result<Self, ProgramError> {
        let facts = check(module, limits)?;
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload.map_err(|error| ProgramError::Invalid(error.to_string()))?;
            if let Payload::CodeSectionEntry(body) = payload {
                bodies.push(body);
            }
        }
        Ok(Self {
            module,
            facts,
            bodies,
        })
    }
}

/// Where a source's types, functions and globals begin in the module that is built.
struct Shift {
    types: u32,
    functions: u32,
    globals: u32,
}

impl Reencode for Shift {
    type Error = core::convert::Infallible;

    fn type_index(&mut self, ty: u32) -> Result<u32, Error<Self::Error>> {
        Ok(ty + self.types)
    }

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Self::Error>> {
        Ok(function + self.functions)
    }

    fn global_index(&mut self, global: u32) -> Result<u32, Error<Self::Error>> {
        Ok(global + self.globals)
    }
}

fn build(sources: &[Source<'_>], bytes: usize) -> Result<Vec<u8>, Error> {
    let mut types = TypeSection::new();
    let mut globals = GlobalSection::new();
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    let mut shifts = Vec::new();
    let (mut first_function, mut first_global) = (0, 0);
    for source in sources {
        let mut shift = Shift {
            types: types.len(),
            functions: first_function,
            globals: first_global,
        };
        for payload in Parser::new(0).parse_all(source.module) {
            match payload? {
                Payload::TypeSection(section) => shift.parse_type_section(&mut types, section)?,
                Payload::GlobalSection(section) => {
                    shift.parse_global_section(&mut globals, section)?;
                }
                _ => {}
            }
        }
        first_function += u32::try_from(source.bodies.len()).unwrap_or(u32::MAX);
        first_global += source.facts.globals;
        shifts.push(shift);
    }
    // Every function once, so that each call finds its callee; then again, as long as there is room.
    'rounds: for round in 0.. {
        for (source, shift) in sources.iter().zip(&mut shifts) {
            for (body, ty) in source.bodies.iter().zip(&source.facts.signatures.functions) {
                let written = code.byte_len() + 2 * functions.len() as usize;
                if round > 0 && written + body.range().len() + ROOM > bytes {
                    break 'rounds;
                }
                functions.function(shift.types + ty);
                shift.parse_function_body(&mut code, body.clone())?;
            }
        }
    }
    Ok(finish(sources, &types, &functions, &globals, &code))
}

fn finish(
    sources: &[Source<'_>],
    types: &TypeSection,
    functions: &FunctionSection,
    globals: &GlobalSection,
    code: &CodeSection,
) -> Vec<u8> {
    let mut memories = wasm_encoder::MemorySection::new();
    memories.memory(wasm_encoder::MemoryType {
        minimum: 64,
        maximum: Some(64),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    // The first source's entry points are the module's.
    for (name, function) in sources.iter().take(1).flat_map(|s| &s.facts.entry_points) {
        exports.export(name, ExportKind::Func, *function);
    }
    let mut module = Module::new();
    module.section(types).section(functions).section(&memories);
    if !globals.is_empty() {
        module.section(globals);
    }
    module.section(&exports).section(code);
    module.finish()
}
