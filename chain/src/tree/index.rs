//! The shortcut of reads: the subtree under every prefix of as many bits as the tree is deep.
//!
//! A read from the root would wait for memory once per level. The index has an entry for each of
//! the 2^k prefixes of k bits, with at least one leaf and less than two to an entry, and the two or
//! three levels below it are all that is walked. Where the tree ends above k, the entries under its
//! leaf all point to it. It does not shrink.

use super::arena::{Arena, Link};
use super::prefetch::prefetch;
use crate::types::hash::Hash;

/// Most bits of a prefix.
const DEPTH_MAX: u32 = 30;

/// Links by prefix.
#[derive(Clone)]
pub(super) struct Index {
    depth: u32,
    entries: Vec<Link>,
}

/// A subtree whose link may have changed: the first bits of a key under it, and its depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Changed {
    prefix: u64,
    depth: u32,
}

impl Changed {
    /// The subtree at `depth`, at most 32, above a key.
    pub(super) fn new(key: &Hash, depth: u32) -> Self {
        let below = u64::MAX.checked_shr(depth).unwrap_or(0);
        Self {
            prefix: first_bits(key) & !below,
            depth,
        }
    }
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            depth: 0,
            entries: vec![Link::EMPTY],
        }
    }

    /// The depth of the nodes that the entries point to.
    pub(super) const fn depth(&self) -> u32 {
        self.depth
    }

    /// The subtree that has the key if any has, and its depth or a greater one if it is a leaf.
    #[inline]
    pub(super) fn find(&self, key: &Hash) -> (Link, usize) {
        (
            self.entries[self.place(first_bits(key))],
            self.depth as usize,
        )
    }

    /// Begins to load the entry of a key.
    pub(super) fn prefetch(&self, key: &Hash) {
        prefetch(&self.entries[self.place(first_bits(key))]);
    }

    /// The entries from the key's on: at least one.
    pub(super) fn from(&self, key: &Hash) -> &[Link] {
        &self.entries[self.place(first_bits(key))..]
    }

    /// Looks up again what changed, in a tree of these inner nodes under `top`.
    pub(super) fn refresh(&mut self, arena: &Arena, top: Link, mut changed: Vec<Changed>) {
        changed.sort_unstable();
        let mut done = 0;
        for Changed { prefix, depth } in changed {
            let first = self.place(prefix);
            // Subtrees are disjoint or one is in the other, and then the greater comes first.
            if first < done {
                continue;
            }
            let mut link = top;
            for level in 0..depth {
                if !link.is_inner() {
                    break;
                }
                link = arena.links(link.slot())[usize::from(prefix << level >> 63 == 1)];
            }
            let count = 1 << self.depth.saturating_sub(depth);
            done = first + count;
            fill(&mut self.entries[first..done], arena, link);
        }
    }

    /// Grows until there are less than two leaves per entry.
    pub(super) fn grow(&mut self, arena: &Arena, leaves: usize) {
        while self.depth < DEPTH_MAX && leaves >> (self.depth + 1) > 0 {
            let mut entries = Vec::with_capacity(self.entries.len() * 2);
            for link in &self.entries {
                entries.extend(if link.is_inner() {
                    *arena.links(link.slot())
                } else {
                    [*link; 2]
                });
            }
            self.entries = entries;
            self.depth += 1;
        }
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Link>()
    }

    #[inline]
    fn place(&self, first_bits: u64) -> usize {
        let place = first_bits.checked_shr(u64::BITS - self.depth).unwrap_or(0);
        usize::try_from(place).expect("there are that many entries")
    }
}

/// The first 64 bits of a key.
pub(super) fn first_bits(key: &Hash) -> u64 {
    let (first, _) = key.as_bytes().split_first_chunk().expect("32 is over 8");
    u64::from_be_bytes(*first)
}

/// Fills the entries under a subtree.
fn fill(entries: &mut [Link], arena: &Arena, link: Link) {
    if entries.len() > 1 && link.is_inner() {
        let [left, right] = *arena.links(link.slot());
        let (to_left, to_right) = entries.split_at_mut(entries.len() / 2);
        fill(to_left, arena, left);
        fill(to_right, arena, right);
    } else {
        entries.fill(link);
    }
}
