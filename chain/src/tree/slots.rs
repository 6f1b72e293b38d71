//! Which slots of the arenas are taken.
//!
//! Inner nodes share one numbering, but a fork (both halves are there) needs room for two hashes
//! and a stem (one half is empty) for none; 4 of 13 inner nodes are stems. So every chunk is for
//! one of the two, and a chunk of stems has no hashes.

use super::arena::{CHUNK, CHUNK_BITS, CHUNKS_MAX};

/// Slots of leaves.
#[derive(Clone, Default)]
pub(super) struct Slots {
    cursor: Cursor,
    /// How many chunks were begun.
    chunks: usize,
}

/// Slots of inner nodes.
#[derive(Clone, Default)]
pub(super) struct InnerSlots {
    forks: Cursor,
    stems: Cursor,
    /// Of each chunk that was begun, whether it is for forks.
    chunks: Vec<bool>,
}

/// Slots that are free: those given back, and the rest of a chunk.
#[derive(Clone, Default)]
struct Cursor {
    given_back: Vec<u32>,
    next: usize,
    end: usize,
}

impl Slots {
    /// Takes a slot. There must be [`Self::room`].
    pub(super) fn take(&mut self) -> u32 {
        self.cursor.take(|| {
            self.chunks += 1;
            self.chunks - 1
        })
    }

    pub(super) fn give_back(&mut self, slots: &[u32]) {
        self.cursor.given_back.extend_from_slice(slots);
    }

    /// How many slots can be taken, at least.
    pub(super) const fn room(&self) -> usize {
        (CHUNKS_MAX - self.chunks) * CHUNK
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.cursor.bytes()
    }
}

impl InnerSlots {
    /// Takes a slot for a fork or a stem. There must be [`Self::room`].
    pub(super) fn take(&mut self, fork: bool) -> u32 {
        let cursor = if fork {
            &mut self.forks
        } else {
            &mut self.stems
        };
        cursor.take(|| {
            self.chunks.push(fork);
            self.chunks.len() - 1
        })
    }

    pub(super) fn give_back(&mut self, slots: &[u32]) {
        for slot in slots {
            let cursor = if self.chunks[(slot >> CHUNK_BITS) as usize] {
                &mut self.forks
            } else {
                &mut self.stems
            };
            cursor.given_back.push(*slot);
        }
    }

    /// How many slots of both kinds together can be taken, at least.
    pub(super) const fn room(&self) -> usize {
        // Each of the kinds may leave its last chunk unfinished.
        (CHUNKS_MAX - self.chunks.len()).saturating_sub(2) * CHUNK
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.forks.bytes() + self.stems.bytes() + self.chunks.capacity()
    }
}

impl Cursor {
    fn take(&mut self, begin_chunk: impl FnOnce() -> usize) -> u32 {
        if let Some(slot) = self.given_back.pop() {
            return slot;
        }
        if self.next == self.end {
            self.next = begin_chunk() * CHUNK;
            self.end = self.next + CHUNK;
        }
        let slot = u32::try_from(self.next).expect("there are at most 2^16 chunks of 2^14 slots");
        self.next += 1;
        slot
    }

    const fn bytes(&self) -> usize {
        self.given_back.capacity() * size_of::<u32>()
    }
}
