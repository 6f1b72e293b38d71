//! Merkle trees over lists, in the shape of RFC 6962: roots for headers, proofs for receipts.
//!
//! The tree over n leaves splits at the largest power of two below n, so the place of a leaf and
//! the number of leaves fix the length of its path and every turn of it. A leaf and an inner node
//! are hashed under different tags and neither can pass for the other. A list's root is a hash over the
//! number of leaves and the hash at the top of the tree ([`Hash::ZERO`] for no leaves), so that it
//! commits to the length too.
//!
//! ```
//! use proofmill_chain::merkle;
//!
//! let leaves = ["a", "b", "c"];
//! let root = merkle::root(&leaves);
//! let proof = merkle::prove(&leaves, 2).expect("there is a leaf 2");
//! assert!(proof.verify(&root, 2, 3, b"c"));
//! assert!(!proof.verify(&root, 1, 3, b"c"));
//! ```

use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::crypto::sha256::{Block, Engine, LANES, Prefix};
use crate::types::hash::Hash;

const LEAF_TAG: &str = "proofmill/merkle-leaf/v1";
const LIST_TAG: &str = "proofmill/merkle-list/v1";
const INNER_TAG: &str = "proofmill/merkle-inner/v1";
/// Leaves, or pairs of nodes, that one thread hashes before the work is split.
const LEAVES_PER_THREAD: usize = 256;
/// What an inner node hashes, padded, with the halves yet to be filled in: 25 bytes of tag and
/// twice 32.
const INNER: [Block; 2] = {
    let tag = INNER_TAG.as_bytes();
    let mut blocks = [[0; 64]; 2];
    let mut at = 0;
    while at < tag.len() {
        blocks[0][at] = tag[at];
        at += 1;
    }
    let len = tag.len() + 2 * Hash::LEN;
    blocks[1][len - 64] = 0x80;
    let [.., high, low] = (len as u64 * 8).to_be_bytes();
    blocks[1][62] = high;
    blocks[1][63] = low;
    blocks
};

/// The way from a leaf to the root: its siblings, lowest first. At most 64 of them ever verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    siblings: Vec<Hash>,
}

/// The root of a list of leaves.
#[must_use]
pub fn root<T: AsRef<[u8]> + Sync>(leaves: &[T]) -> Hash {
    root_by(Engine::fastest(), leaves)
}

/// The root of a list of encoded values; none of the encodings is kept.
#[must_use]
pub fn root_of_values<T: Serialize + Sync>(values: &[T]) -> Hash {
    let engine = Engine::fastest();
    let prefix = leaf_prefix();
    let hashes: Vec<_> = values
        .par_chunks(LEAVES_PER_THREAD)
        .map(|values| {
            let mut encodings = Vec::new();
            let mut ends = Vec::with_capacity(values.len());
            for value in values {
                codec::encode_into(value, &mut encodings);
                ends.push(encodings.len());
            }
            let mut rest = &encodings[..];
            let mut start = 0;
            let mut leaves = Vec::with_capacity(values.len());
            for end in ends {
                let (leaf, after) = rest.split_at(end - start);
                leaves.push(leaf);
                (rest, start) = (after, end);
            }
            engine.hash_bodies(&prefix, &leaves)
        })
        .collect();
    root_of_hashes_by(engine, hashes.concat())
}

/// The root over leaves that are hashed already, by [`leaf_hash`].
#[must_use]
pub fn root_of_hashes(leaves: Vec<Hash>) -> Hash {
    root_of_hashes_by(Engine::fastest(), leaves)
}

/// The proof that leaf `index` is in the list, `None` when there is no such leaf.
#[must_use]
pub fn prove<T: AsRef<[u8]> + Sync>(leaves: &[T], index: usize) -> Option<Proof> {
    if index >= leaves.len() {
        return None;
    }
    let mut siblings = Vec::new();
    let engine = Engine::fastest();
    let mut level = leaf_hashes(engine, leaves);
    let mut at = index;
    while level.len() > 1 {
        // The last node of an odd level has no sibling and rises unchanged.
        siblings.extend(level.get(at ^ 1));
        level = level_above(engine, &level);
        at >>= 1;
    }
    Some(Proof { siblings })
}

impl Proof {
    /// Whether `leaf` is leaf `index` of the `count` leaves under `root`
    /// (RFC 9162, section 2.1.3.2).
    #[must_use]
    pub fn verify(&self, root: &Hash, index: u64, count: u64, leaf: &[u8]) -> bool {
        if index >= count {
            return false;
        }
        let mut at = index;
        let mut last = count.saturating_sub(1);
        let mut node = leaf_hash(leaf);
        for sibling in &self.siblings {
            if last == 0 {
                return false;
            }
            if at & 1 == 1 || at == last {
                node = inner_hash(sibling, &node);
                // A node without a sibling rises until it is a right child.
                while at & 1 == 0 && at != 0 {
                    at >>= 1;
                    last >>= 1;
                }
            } else {
                node = inner_hash(&node, sibling);
            }
            at >>= 1;
            last >>= 1;
        }
        last == 0 && list_hash(count, &node) == *root
    }

    /// The siblings, lowest first.
    #[must_use]
    pub fn siblings(&self) -> &[Hash] {
        &self.siblings
    }
}

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash::of(LEAF_TAG, &[leaf])
}

/// What every leaf's hash begins with.
pub(crate) fn leaf_prefix() -> Prefix {
    Prefix::new(&[LEAF_TAG.as_bytes()])
}

fn root_by<T: AsRef<[u8]> + Sync>(engine: Engine, leaves: &[T]) -> Hash {
    root_of_hashes_by(engine, leaf_hashes(engine, leaves))
}

fn root_of_hashes_by(engine: Engine, leaves: Vec<Hash>) -> Hash {
    let count = leaves.len() as u64;
    let mut level = leaves;
    while level.len() > 1 {
        level = level_above(engine, &level);
    }
    list_hash(count, level.first().unwrap_or(&Hash::ZERO))
}

/// A list's root: its length and the top of its tree.
fn list_hash(count: u64, top: &Hash) -> Hash {
    Hash::of(LIST_TAG, &[&count.to_le_bytes(), top.as_bytes()])
}

fn leaf_hashes<T: AsRef<[u8]> + Sync>(engine: Engine, leaves: &[T]) -> Vec<Hash> {
    let prefix = leaf_prefix();
    let hashes: Vec<_> = leaves
        .par_chunks(LEAVES_PER_THREAD)
        .map(|leaves| {
            let leaves: Vec<_> = leaves.iter().map(AsRef::as_ref).collect();
            engine.hash_bodies(&prefix, &leaves)
        })
        .collect();
    hashes.concat()
}

fn level_above(engine: Engine, level: &[Hash]) -> Vec<Hash> {
    let (pairs, single) = level.as_chunks::<2>();
    let mut hashes = pairs
        .par_chunks(LEAVES_PER_THREAD)
        .map(|pairs| {
            let mut hashes = Vec::with_capacity(pairs.len());
            let (groups, rest) = pairs.as_chunks::<LANES>();
            for group in groups {
                let blocks = group.each_ref().map(inner_blocks);
                hashes.extend(engine.hash_padded(blocks.each_ref().map(|blocks| &blocks[..])));
            }
            for pair in rest {
                hashes.extend(engine.hash_padded([&inner_blocks(pair)]));
            }
            hashes
        })
        .collect::<Vec<Vec<Hash>>>()
        .concat();
    hashes.extend(single);
    hashes
}

fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(INNER_TAG, &[left.as_bytes(), right.as_bytes()])
}

/// What an inner node hashes, padded.
fn inner_blocks([left, right]: &[Hash; 2]) -> [Block; 2] {
    let mut blocks = INNER;
    let (_, halves) = blocks.as_flattened_mut().split_at_mut(INNER_TAG.len());
    halves[..Hash::LEN].copy_from_slice(left.as_bytes());
    halves[Hash::LEN..2 * Hash::LEN].copy_from_slice(right.as_bytes());
    blocks
}

#[cfg(test)]
mod tests {
    use super::{LEAVES_PER_THREAD, inner_blocks, inner_hash, leaf_hash, list_hash, root_by};
    use crate::crypto::sha256::Engine;
    use crate::types::hash::Hash;

    #[test]
    fn a_padded_inner_node_has_the_hash_of_the_tag_and_its_halves() {
        let [left, right] = ["left", "right"].map(|text| Hash::of(text, &[]));
        for engine in Engine::each() {
            let hash = engine.hash_padded([&inner_blocks(&[left, right])]);
            assert_eq!(hash, [inner_hash(&left, &right)]);
        }
    }

    #[test]
    fn roots_do_not_depend_on_the_engine() {
        for count in (0..70).chain([2 * LEAVES_PER_THREAD + 11]) {
            let leaves: Vec<_> = (0..count).map(|at| vec![7; at * 31 % 300]).collect();
            // Each level by itself, each node by itself.
            let mut level: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
            while level.len() > 1 {
                level = level
                    .chunks(2)
                    .map(|nodes| match nodes {
                        [left, right] => inner_hash(left, right),
                        _ => nodes[0],
                    })
                    .collect();
            }
            let top = level.first().copied().unwrap_or(Hash::ZERO);
            let expected = list_hash(leaves.len() as u64, &top);
            for engine in Engine::each() {
                assert_eq!(root_by(engine, &leaves), expected, "{count}, {engine:?}");
            }
        }
    }
}
