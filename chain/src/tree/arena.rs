//! Where the nodes of the tree live: numbered slots in chunks that never move.

use super::prefetch::prefetch;
use super::value::{LeafValue, Lookup, lookup};
use crate::crypto::sha256::Block;
use crate::types::hash::Hash;

/// Slots in a chunk, as a power of two.
pub(super) const CHUNK_BITS: u32 = 14;
/// Slots in a chunk.
pub(super) const CHUNK: usize = 1 << CHUNK_BITS;
/// Most chunks in an arena: a link has 30 bits for the slot.
pub(super) const CHUNKS_MAX: usize = 1 << (30 - CHUNK_BITS);
/// Chunks at the beginning that grow bit by bit, so that a small tree is small.
const GROWING_CHUNKS: usize = 2;

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
pub(super) struct Pair(Block);

/// Values by slot, in chunks that hold nothing until one of their slots is used.
#[derive(Clone)]
pub(super) struct Chunks<T>(Vec<Vec<T>>);

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
    pub(super) const ZERO: Self = Self([0; 64]);

    pub(super) fn new(left: &Hash, right: &Hash) -> Self {
        let mut pair = Self::ZERO;
        pair.set(false, left);
        pair.set(true, right);
        pair
    }

    /// The hash of a half.
    pub(super) fn get(&self, right: bool) -> Hash {
        let (halves, _) = self.0.as_chunks::<{ Hash::LEN }>();
        Hash::new(halves[usize::from(right)])
    }

    pub(super) fn set(&mut self, right: bool, hash: &Hash) {
        let (halves, _) = self.0.as_chunks_mut::<{ Hash::LEN }>();
        halves[usize::from(right)] = *hash.as_bytes();
    }

    /// What the node hashes.
    pub(super) const fn bytes(&self) -> &Block {
        &self.0
    }
}

impl<T: Copy> Chunks<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> &T {
        &self.0[(slot >> CHUNK_BITS) as usize][slot as usize % CHUNK]
    }

    /// Begins to load what is in a slot, if anything is.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        let chunk = self.0.get((slot >> CHUNK_BITS) as usize);
        if let Some(value) = chunk.and_then(|values| values.get(slot as usize % CHUNK)) {
            prefetch(value);
        }
    }

    /// Puts a value into a slot. Those of a chunk are used in order for the first time.
    #[inline]
    pub(super) fn put(&mut self, slot: u32, value: T) {
        let (chunk, at) = ((slot >> CHUNK_BITS) as usize, slot as usize % CHUNK);
        if chunk >= self.0.len() {
            self.0.resize_with(chunk + 1, Vec::new);
        }
        let values = &mut self.0[chunk];
        if let Some(place) = values.get_mut(at) {
            *place = value;
            return;
        }
        if values.capacity() == 0 && chunk >= GROWING_CHUNKS {
            values.reserve_exact(CHUNK);
        }
        values.push(value);
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.0.iter().map(Vec::capacity).sum();
        slots * size_of::<T>() + self.0.capacity() * size_of::<Vec<T>>()
    }
}
