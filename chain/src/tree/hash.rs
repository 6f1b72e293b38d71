//! What is hashed for a value, a leaf and an inner node (protocol §4, "State").
//!
//! Leaves and inner nodes have a fixed length, so their padding is known beforehand and each is one
//! call of the compression function over two blocks. Hashes of one level do not depend on each
//! other: whoever computes them one right after another gets them in nearly half the time, because
//! the processor overlaps them.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use super::value::INLINE_MAX;
use crate::types::hash::Hash;

/// Sixteen bytes before a leaf's key and value: a leaf hashes 80 bytes and an inner node 64.
const LEAF_TAG: &[u8; 16] = b"proofmill/leaf/1";
/// The state that SHA-256 begins with (FIPS 180-4, section 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The second block of every inner node: padding after 64 bytes (FIPS 180-4, section 5.1.1).
const INNER_END: [u8; 64] = {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};
/// The second block of every leaf, with the last 16 of its 80 bytes yet to be filled in.
const LEAF_END: [u8; 64] = {
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
    let mut blocks = [[0; 64], LEAF_END];
    let (value_start, value_end) = value.as_bytes().split_at(16);
    blocks[0][..16].copy_from_slice(LEAF_TAG);
    blocks[0][16..48].copy_from_slice(key.as_bytes());
    blocks[0][48..].copy_from_slice(value_start);
    blocks[1][..16].copy_from_slice(value_end);
    compress(&blocks)
}

/// The hash of an inner node, given those of its halves.
pub(super) fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    let mut blocks = [[0; 64], INNER_END];
    blocks[0][..32].copy_from_slice(left.as_bytes());
    blocks[0][32..].copy_from_slice(right.as_bytes());
    compress(&blocks)
}

/// The hash of a value that, with a length and a mark behind it, fits one block.
pub(super) fn short_value_hash(value: &[u8; INLINE_MAX], len: u8) -> Hash {
    let mut block = [0; 64];
    block[..INLINE_MAX].copy_from_slice(value);
    block[usize::from(len)] = 0x80;
    block[62..].copy_from_slice(&(u16::from(len) * 8).to_be_bytes());
    compress(&[block])
}

fn compress(blocks: &[[u8; 64]]) -> Hash {
    let mut state = START;
    compress256(&mut state, blocks);
    let mut bytes = [0; Hash::LEN];
    for (to, word) in bytes.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    Hash::new(bytes)
}
