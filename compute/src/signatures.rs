//! How many values types, functions and blocks take and give.

use wasmparser::BlockType;

/// Parameters and results of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arity {
    pub(crate) params: u32,
    pub(crate) results: u32,
}

/// The types of a module and the functions that have them.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    /// By type index.
    pub(crate) types: Vec<Arity>,
    /// Type index by function index.
    pub(crate) functions: Vec<u32>,
}

impl Signatures {
    /// Of a block.
    pub(crate) fn block(&self, ty: BlockType) -> Arity {
        match ty {
            BlockType::Empty => Arity::default(),
            BlockType::Type(_) => Arity {
                params: 0,
                results: 1,
            },
            BlockType::FuncType(index) => self.ty(index),
        }
    }

    /// Of a type.
    pub(crate) fn ty(&self, index: u32) -> Arity {
        self.types.get(index as usize).copied().unwrap_or_default()
    }

    /// Of a function.
    pub(crate) fn function(&self, index: u32) -> Arity {
        self.functions
            .get(index as usize)
            .map_or_else(Arity::default, |ty| self.ty(*ty))
    }
}
