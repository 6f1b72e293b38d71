//! What is hashed for a value, a leaf and an inner node (protocol §4, "State").
//!
//! Leaves and inner nodes have a fixed length, so their padding is known beforehand and each is one
//! call of the compression function over two blocks. Hashes of one level do not depend on each
//! other: whoever computes them one right after another gets them in nearly half the time, because
//! the processor overlaps them.

use sha2::{Digest, Sha256};

use super::value::{INLINE_MAX, LeafValue};
use crate::crypto::sha256::{Block, Engine};
use crate::types::hash::Hash;

/// Sixteen bytes before a leaf's key and value: a leaf hashes 80 bytes and an inner node 64.
const LEAF_TAG: &[u8; 16] = b"proofmill/leaf/1";
/// The second block of every leaf, with the last 16 of its 80 bytes yet to be filled in.
const LEAF_END: Block = {
    let mut block = [0; 64];
    block[16] = 0x80;
    block[62] = 0x02;
    block[63] = 0x80;
    block
};

/// The hash by which the tree knows a value: SHA-256 of its bytes (protocol §4).
#[must_use]
pub fn value_hash(value: &[u8]) -> Hash {
    Hash::new(Sha256::digest(value).into())
}

/// The hash of a leaf, given the hash of its value.
pub(super) fn leaf_hash(key: &Hash, value: &Hash) -> Hash {
    let [hash] = leaf_hashes(Engine::fastest(), [(key, value)]);
    hash
}

/// The hash of an inner node.
pub(super) fn inner_hash(halves: [&Hash; 2]) -> Hash {
    let [hash] = Engine::fastest().hash_pairs([halves]);
    hash
}

/// The hash of a value that, with a length and a mark behind it, fits one block.
pub(super) fn short_value_hash(value: &[u8; INLINE_MAX], len: u8) -> Hash {
    let [hash] = Engine::fastest().hash_padded([&[value_block(value, len)]]);
    hash
}

/// The hashes of several leaves, given the hashes of their values.
pub(super) fn leaf_hashes<const N: usize>(
    engine: Engine,
    leaves: [(&Hash, &Hash); N],
) -> [Hash; N] {
    let blocks = leaves.map(|(key, value)| leaf_blocks(key, value));
    engine.hash_padded(blocks.each_ref().map(|blocks| &blocks[..]))
}

/// [`LeafValue::hash`] of several.
pub(super) fn value_hashes<const N: usize>(engine: Engine, values: [&LeafValue; N]) -> [Hash; N] {
    let blocks = values.map(|value| {
        // Of a long value there is a hash already, and no length: what is computed is dropped.
        let is_inline = value.is_inline();
        let [value @ .., last] = value.payload();
        [value_block(value, if is_inline { *last } else { 0 })]
    });
    let mut hashes = engine.hash_padded(blocks.each_ref().map(|block| &block[..]));
    for (hash, value) in hashes.iter_mut().zip(values) {
        if !value.is_inline() {
            *hash = Hash::new(*value.payload());
        }
    }
    hashes
}

/// What a leaf hashes, padded.
fn leaf_blocks(key: &Hash, value: &Hash) -> [Block; 2] {
    let mut blocks = [[0; 64], LEAF_END];
    let (value_start, value_end) = value.as_bytes().split_at(16);
    blocks[0][..16].copy_from_slice(LEAF_TAG);
    blocks[0][16..48].copy_from_slice(key.as_bytes());
    blocks[0][48..].copy_from_slice(value_start);
    blocks[1][..16].copy_from_slice(value_end);
    blocks
}

/// What a short value hashes, padded.
fn value_block(value: &[u8; INLINE_MAX], len: u8) -> Block {
    let mut block = [0; 64];
    block[..INLINE_MAX].copy_from_slice(value);
    block[usize::from(len)] = 0x80;
    block[62..].copy_from_slice(&(u16::from(len) * 8).to_be_bytes());
    block
}
