//! Checkpoints of a run, and the root that commits to all of them.
//!
//! ```text
//! memory ── 4 KiB pages ──▶ page tree root ─┐
//! program, version, step, pages, globals, gas, done ─┴─▶ checkpoint hash ──▶ trace root (with count)
//! ```
//!
//! All hashes are SHA-256 over a domain tag. Integers are little endian.

use crate::hash;
use crate::instance::GlobalValue;
use crate::machine::{Status, TrapKind};

/// Bytes of a page of the page tree.
pub const PAGE_BYTES: usize = 4_096;
/// Levels above the leaves: the tree always spans 2^20 pages, all of a 32-bit memory.
pub const PAGE_TREE_DEPTH: usize = 20;

const TAG_PAGE: &str = "proofmill/page/v1";
const TAG_PAGE_NODE: &str = "proofmill/page-node/v1";
const TAG_CHECKPOINT: &str = "proofmill/checkpoint/v1";
const TAG_TRACE_LEAF: &str = "proofmill/trace-leaf/v1";
const TAG_TRACE_NODE: &str = "proofmill/trace-node/v1";
const TAG_TRACE: &str = "proofmill/trace/v1";

const ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Binary Merkle tree over the 4 KiB pages of a memory; what lies past its end counts as zero.
#[derive(Clone, Debug)]
pub struct PageTree {
    /// The memory at the last update; `None` is a page of zeros.
    pages: Vec<Option<Box<[u8]>>>,
    /// Hashes by level, leaves first, as far as the memory reaches.
    levels: Vec<Vec<[u8; 32]>>,
    /// Hash of an all-zero subtree, by level.
    zero: Vec<[u8; 32]>,
}

impl Default for PageTree {
    fn default() -> Self {
        Self::new()
    }
}

impl PageTree {
    /// The tree of an empty memory.
    #[must_use]
    pub fn new() -> Self {
        let mut zero = vec![hash(TAG_PAGE, &[&ZERO_PAGE])];
        for level in 0..PAGE_TREE_DEPTH {
            zero.push(hash(TAG_PAGE_NODE, &[&zero[level], &zero[level]]));
        }
        Self {
            pages: Vec::new(),
            levels: vec![Vec::new(); PAGE_TREE_DEPTH + 1],
            zero,
        }
    }

    /// Takes the memory's present content; hashes the pages that changed since the last update.
    /// A memory never shrinks; bytes after the last whole page are no part of it.
    pub fn update(&mut self, memory: &[u8]) {
        let mut dirty = Vec::new();
        for (index, now) in memory.chunks_exact(PAGE_BYTES).enumerate() {
            if index == self.pages.len() {
                self.pages.push(None);
                self.levels[0].push(self.zero[0]);
            }
            let before = self.pages[index].as_deref().unwrap_or(&ZERO_PAGE);
            if now == before {
                continue;
            }
            self.levels[0][index] = hash(TAG_PAGE, &[now]);
            match &mut self.pages[index] {
                Some(page) => page.copy_from_slice(now),
                empty => *empty = Some(now.into()),
            }
            dirty.push(index);
        }
        for level in 0..PAGE_TREE_DEPTH {
            for index in &mut dirty {
                *index /= 2;
            }
            dirty.dedup();
            let (below, above) = self.levels.split_at_mut(level + 1);
            let (below, above) = (&below[level], &mut above[0]);
            above.resize(below.len().div_ceil(2), self.zero[level + 1]);
            for index in &dirty {
                let node = |at: usize| below.get(at).unwrap_or(&self.zero[level]);
                let (left, right) = (node(2 * index), node(2 * index + 1));
                let both_zero = *left == self.zero[level] && *right == self.zero[level];
                above[*index] = if both_zero {
                    self.zero[level + 1]
                } else {
                    hash(TAG_PAGE_NODE, &[left, right])
                };
            }
        }
    }

    /// Root over all 2^20 pages.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        *self.levels[PAGE_TREE_DEPTH]
            .first()
            .unwrap_or(&self.zero[PAGE_TREE_DEPTH])
    }
}

/// The machine's whole state between two steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Content address of the program.
    pub program: [u8; 32],
    /// How many steps came before.
    pub step: u32,
    /// Size of the memory in 64 KiB pages.
    pub memory_pages: u32,
    /// Every mutable global of the program, by index.
    pub globals: Vec<GlobalValue>,
    /// Gas used so far.
    pub gas_used: u64,
    /// True once `step` has answered 1.
    pub done: bool,
    /// Root of the page tree.
    pub pages_root: [u8; 32],
}

/// What the last checkpoint binds beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How the run ended.
    pub status: Status,
    /// The trap, where it ended with one.
    pub trap: Option<TrapKind>,
    /// Hash of the output.
    pub output_hash: [u8; 32],
    /// Gas of the whole run.
    pub gas_used: u64,
}

impl Checkpoint {
    /// Hash of the checkpoint; `end` is given for the last one of a run and only for it.
    #[must_use]
    pub fn hash(&self, end: Option<&End>) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(128 + self.globals.len() * 17);
        bytes.extend_from_slice(&self.program);
        bytes.extend_from_slice(&crate::MACHINE_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.step.to_le_bytes());
        bytes.extend_from_slice(&self.memory_pages.to_le_bytes());
        bytes.extend_from_slice(&(self.globals.len() as u64).to_le_bytes());
        for global in &self.globals {
            bytes.push(global.kind() as u8);
            bytes.extend_from_slice(&global.bits().to_le_bytes());
        }
        bytes.extend_from_slice(&self.gas_used.to_le_bytes());
        bytes.push(u8::from(self.done));
        bytes.extend_from_slice(&self.pages_root);
        bytes.push(u8::from(end.is_some()));
        if let Some(end) = end {
            bytes.push(end.status as u8);
            bytes.push(end.trap.map_or(0, |trap| trap as u8));
            bytes.extend_from_slice(&end.output_hash);
            bytes.extend_from_slice(&end.gas_used.to_le_bytes());
        }
        hash(TAG_CHECKPOINT, &[&bytes])
    }
}

/// Accumulates the hashes of a run's checkpoints in memory logarithmic in their number.
///
/// The tree over n leaves splits at the largest power of two below n, as in RFC 6962.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    count: u32,
    /// Roots of the complete subtrees, largest first: one for each set bit of `count`.
    peaks: Vec<[u8; 32]>,
}

impl Trace {
    /// Appends the hash of the next checkpoint.
    pub fn push(&mut self, checkpoint: &[u8; 32]) {
        let mut node = hash(TAG_TRACE_LEAF, &[checkpoint]);
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = hash(TAG_TRACE_NODE, &[&left, &node]);
            }
        }
        self.peaks.push(node);
        self.count += 1;
    }

    /// Commits to the number of checkpoints and to each of them.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let tree = self
            .peaks
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| hash(TAG_TRACE_NODE, &[&left, &right]))
            .unwrap_or_default();
        hash(TAG_TRACE, &[&self.count.to_le_bytes(), &tree])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive_root(memory: &[u8]) -> [u8; 32] {
        let mut zero = hash(TAG_PAGE, &[&ZERO_PAGE]);
        let mut level: Vec<_> = memory
            .chunks_exact(PAGE_BYTES)
            .map(|page| hash(TAG_PAGE, &[page]))
            .collect();
        for _ in 0..PAGE_TREE_DEPTH {
            level = level
                .chunks(2)
                .map(|pair| hash(TAG_PAGE_NODE, &[&pair[0], pair.get(1).unwrap_or(&zero)]))
                .collect();
            zero = hash(TAG_PAGE_NODE, &[&zero, &zero]);
        }
        level.first().copied().unwrap_or(zero)
    }

    #[test]
    fn page_tree_equals_the_tree_built_from_nothing_at_every_update() {
        let mut tree = PageTree::new();
        assert_eq!(tree.root(), naive_root(&[]));
        let mut memory = vec![0u8; 3 * PAGE_BYTES];
        let mut state = 7u64;
        for round in 0..60usize {
            for _ in 0..round % 4 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(state >> 33).expect("31 bits") % memory.len();
                memory[at] = u8::try_from((state >> 8) & 1).expect("one bit");
            }
            if round % 5 == 4 {
                let length = memory.len() + (1 + round % 3) * PAGE_BYTES;
                memory.resize(length, 0);
            }
            tree.update(&memory);
            assert_eq!(tree.root(), naive_root(&memory), "round {round}");
        }
        memory.fill(0);
        tree.update(&memory);
        assert_eq!(
            tree.root(),
            PageTree::new().root(),
            "zeros are the empty memory"
        );
    }

    #[test]
    fn trace_root_depends_on_every_leaf_and_on_the_count() {
        let leaves: Vec<[u8; 32]> = (0..9).map(|i| [i; 32]).collect();
        let root = |leaves: &[[u8; 32]]| {
            let mut trace = Trace::default();
            leaves.iter().for_each(|leaf| trace.push(leaf));
            trace.root()
        };
        fn split(leaves: &[[u8; 32]]) -> [u8; 32] {
            match leaves {
                [leaf] => hash(TAG_TRACE_LEAF, &[leaf]),
                _ => {
                    let at = leaves.len().next_power_of_two() / 2;
                    let (left, right) = (split(&leaves[..at]), split(&leaves[at..]));
                    hash(TAG_TRACE_NODE, &[&left, &right])
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for count in 1..=leaves.len() {
            let bytes = u32::try_from(count).expect("small").to_le_bytes();
            let expected = hash(TAG_TRACE, &[&bytes, &split(&leaves[..count])]);
            assert_eq!(root(&leaves[..count]), expected, "{count} leaves");
            for changed in 0..count {
                let mut other = leaves[..count].to_vec();
                other[changed] = [99; 32];
                assert!(seen.insert(root(&other)), "leaf {changed} of {count}");
            }
        }
    }
}
