//! Where the nodes of the tree live: numbered slots in pages that never move.
//!
//! A slot has room for a leaf and for a fork, an inner node both of whose halves are there. A tree
//! has one fork less than leaves, so both fill the pages side by side, and where their slots were
//! given out in the order of the keys (see `apply`), the lowest levels of a subtree and its leaves
//! are in one page of memory: a walk down then waits once for the processor to find the page,
//! and not once for every node. A stem, an inner node with an empty half, needs no hashes; 4 of 13
//! inner nodes are stems, and they have slots of their own.

use super::prefetch::prefetch;
use super::value::{LeafValue, Lookup, lookup};
use crate::types::hash::Hash;

/// Leaves in a page, and forks.
pub(super) const PAGE_SLOTS: u32 = 30;
/// Bits of a slot's number for its place in the page.
pub(super) const PAGE_BITS: u32 = 5;
/// Marks the slot of a stem; also, one more than the highest number of each kind.
pub(super) const STEM: u32 = 1 << 29;
/// Pages in a chunk, as a power of two: 1 MiB.
const PAGES: u32 = 8;
/// Stems in a chunk, as a power of two: 128 KiB.
const STEMS: u32 = 14;

/// A subtree: its top's slot and two bits of kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(u32);

/// What a link points to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Inner,
    Leaf,
}

/// A leaf: one line of the cache. Whether its value is inline stands in the link to it.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Leaf {
    pub(super) key: Hash,
    payload: [u8; Hash::LEN],
}

/// The hashes of a fork's halves: one line of the cache, and what the node hashes.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Pair([Hash; 2]);

/// A page of memory, of 4 KiB on the common processors.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page {
    leaves: [Leaf; PAGE_SLOTS as usize],
    pairs: [Pair; PAGE_SLOTS as usize],
    links: [[Link; 2]; PAGE_SLOTS as usize],
}

const _: () = assert!(size_of::<Page>() == 4096, "a page of memory");

/// The nodes of a tree.
#[derive(Clone)]
pub(super) struct Arena {
    pages: Chunks<Page, PAGES>,
    stems: Chunks<[Link; 2], STEMS>,
}

/// Values by number, in chunks of 2^`BITS` that never move, except that the first one grows bit by
/// bit, so that a small tree is small.
#[derive(Clone)]
struct Chunks<T, const BITS: u32>(Vec<Vec<T>>);

impl Link {
    const KIND: u32 = 0b11 << 30;
    const INLINE: u32 = 0b10 << 30;
    const ELSEWHERE: u32 = 0b11 << 30;
    /// No leaf at all.
    pub(super) const EMPTY: Self = Self(0b01 << 30);

    pub(super) const fn inner(slot: u32) -> Self {
        Self(slot)
    }

    pub(super) const fn leaf(slot: u32, inline: bool) -> Self {
        Self(
            slot | if inline {
                Self::INLINE
            } else {
                Self::ELSEWHERE
            },
        )
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 & !Self::KIND
    }

    pub(super) const fn kind(self) -> Kind {
        match self.0 >> 30 {
            0b00 => Kind::Inner,
            0b01 => Kind::Empty,
            _ => Kind::Leaf,
        }
    }

    pub(super) const fn is_inner(self) -> bool {
        self.0 >> 30 == 0
    }

    /// Whether the value of the leaf is inline.
    pub(super) const fn is_inline(self) -> bool {
        self.0 & Self::KIND == Self::INLINE
    }
}

impl Leaf {
    const NONE: Self = Self {
        key: Hash::ZERO,
        payload: [0; Hash::LEN],
    };

    pub(super) const fn new(key: Hash, value: &LeafValue) -> Self {
        Self {
            key,
            payload: *value.payload(),
        }
    }

    pub(super) fn lookup(&self, link: Link) -> Lookup<'_> {
        lookup(&self.payload, link.is_inline())
    }

    pub(super) const fn value(&self, link: Link) -> LeafValue {
        LeafValue::from_payload(self.payload, link.is_inline())
    }
}

impl Pair {
    pub(super) const ZERO: Self = Self([Hash::ZERO; 2]);

    /// The hash of a half.
    pub(super) fn get(&self, right: bool) -> &Hash {
        &self.0[usize::from(right)]
    }

    pub(super) fn set(&mut self, right: bool, hash: &Hash) {
        self.0[usize::from(right)] = *hash;
    }

    /// What the node hashes.
    pub(super) const fn halves(&self) -> [&Hash; 2] {
        self.0.each_ref()
    }
}

impl Page {
    const EMPTY: Self = Self {
        leaves: [Leaf::NONE; PAGE_SLOTS as usize],
        pairs: [Pair::ZERO; PAGE_SLOTS as usize],
        links: [[Link::EMPTY; 2]; PAGE_SLOTS as usize],
    };
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            pages: Chunks(Vec::new()),
            stems: Chunks(Vec::new()),
        }
    }

    /// The halves of an inner node.
    #[inline]
    pub(super) fn links(&self, slot: u32) -> &[Link; 2] {
        if is_stem(slot) {
            self.stems.get(slot & !STEM)
        } else {
            &self.pages.get(slot >> PAGE_BITS).links[in_page(slot)]
        }
    }

    /// The halves of an inner node, and the hash of one of them: of a stem, which holds none, that of
    /// its empty half.
    #[inline]
    pub(super) fn links_and_hash(&self, slot: u32, right: bool) -> (&[Link; 2], &Hash) {
        if is_stem(slot) {
            (self.stems.get(slot & !STEM), &Hash::ZERO)
        } else {
            let page = self.pages.get(slot >> PAGE_BITS);
            let at = in_page(slot);
            (&page.links[at], page.pairs[at].get(right))
        }
    }

    /// The hashes of a fork's halves.
    #[inline]
    pub(super) fn pair(&self, slot: u32) -> &Pair {
        &self.pages.get(slot >> PAGE_BITS).pairs[in_page(slot)]
    }

    #[inline]
    pub(super) fn leaf(&self, slot: u32) -> &Leaf {
        &self.pages.get(slot >> PAGE_BITS).leaves[in_page(slot)]
    }

    /// Begins to load the halves of an inner node, if there is one.
    #[inline]
    pub(super) fn prefetch_links(&self, slot: u32) {
        if is_stem(slot) {
            if let Some(links) = self.stems.find(slot & !STEM) {
                prefetch(links);
            }
        } else if let Some(page) = self.pages.find(slot >> PAGE_BITS) {
            prefetch(&page.links[in_page(slot)]);
        }
    }

    /// Begins to load the halves of an inner node, and their hashes if it is a fork.
    #[inline]
    pub(super) fn prefetch_inner(&self, slot: u32) {
        self.prefetch_links(slot);
        if !is_stem(slot) {
            self.prefetch_pair(slot);
        }
    }

    /// Begins to load the hashes of a fork's halves, if there is one.
    #[inline]
    pub(super) fn prefetch_pair(&self, slot: u32) {
        if let Some(page) = self.pages.find(slot >> PAGE_BITS) {
            prefetch(&page.pairs[in_page(slot)]);
        }
    }

    /// Begins to load a leaf, if there is one.
    #[inline]
    pub(super) fn prefetch_leaf(&self, slot: u32) {
        if let Some(page) = self.pages.find(slot >> PAGE_BITS) {
            prefetch(&page.leaves[in_page(slot)]);
        }
    }

    /// Makes room for a slot, and for all of its kind below it.
    #[inline]
    pub(super) fn grow(&mut self, slot: u32) {
        if is_stem(slot) {
            self.stems.grow(slot & !STEM, [Link::EMPTY; 2]);
        } else {
            self.pages.grow(slot >> PAGE_BITS, Page::EMPTY);
        }
    }

    /// Writes a leaf into a slot that there is.
    #[inline]
    pub(super) fn put_leaf(&mut self, slot: u32, leaf: Leaf) {
        self.pages.get_mut(slot >> PAGE_BITS).leaves[in_page(slot)] = leaf;
    }

    /// Writes an inner node into a slot that there is; a stem has no hashes.
    #[inline]
    pub(super) fn put_inner(&mut self, slot: u32, links: [Link; 2], pair: &Pair) {
        if is_stem(slot) {
            *self.stems.get_mut(slot & !STEM) = links;
        } else {
            let page = self.pages.get_mut(slot >> PAGE_BITS);
            page.links[in_page(slot)] = links;
            page.pairs[in_page(slot)] = *pair;
        }
    }

    /// Writes the hash of one half of a fork that there is.
    #[inline]
    pub(super) fn put_hash(&mut self, slot: u32, right: bool, hash: &Hash) {
        self.pages.get_mut(slot >> PAGE_BITS).pairs[in_page(slot)].set(right, hash);
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.pages.bytes() + self.stems.bytes()
    }
}

/// Whether a slot is a stem's, and not a fork's.
#[inline]
pub(super) const fn is_stem(slot: u32) -> bool {
    slot & STEM != 0
}

#[inline]
const fn in_page(slot: u32) -> usize {
    (slot & ((1 << PAGE_BITS) - 1)) as usize
}

impl<T: Copy, const BITS: u32> Chunks<T, BITS> {
    const LEN: usize = 1 << BITS;

    #[inline]
    fn get(&self, at: u32) -> &T {
        &self.0[(at >> BITS) as usize][at as usize % Self::LEN]
    }

    #[inline]
    fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.0[(at >> BITS) as usize][at as usize % Self::LEN]
    }

    #[inline]
    fn find(&self, at: u32) -> Option<&T> {
        let chunk = self.0.get((at >> BITS) as usize)?;
        chunk.get(at as usize % Self::LEN)
    }

    /// Makes values until there is one of this number.
    #[inline]
    fn grow(&mut self, at: u32, empty: T) {
        while self.find(at).is_none() {
            if self.0.last().is_none_or(|chunk| chunk.len() == Self::LEN) {
                let is_first = self.0.is_empty();
                let capacity = if is_first { 0 } else { Self::LEN };
                self.0.push(Vec::with_capacity(capacity));
            }
            if let Some(chunk) = self.0.last_mut() {
                chunk.push(empty);
            }
        }
    }

    /// Bytes of memory held.
    fn bytes(&self) -> usize {
        let values: usize = self.0.iter().map(Vec::capacity).sum();
        values * size_of::<T>() + self.0.capacity() * size_of::<Vec<T>>()
    }
}
