//! Merkle trees over lists, in the shape of RFC 6962: roots for headers, proofs for receipts.
//!
//! The tree over n leaves splits at the largest power of two below n, so the place of a leaf and
//! the number of leaves fix the length of its path and every turn of it. A leaf and an inner node
//! are hashed under different tags and neither can pass for the other; the empty list has the
//! root [`Hash::ZERO`], which is the hash of nothing.
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

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSlice;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::types::hash::Hash;

const LEAF_TAG: &str = "proofmill/merkle-leaf/v1";
const INNER_TAG: &str = "proofmill/merkle-inner/v1";
/// Leaves that one thread hashes before the work is split.
const LEAVES_PER_THREAD: usize = 256;

/// The way from a leaf to the root: its siblings, lowest first. At most 64 of them ever verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    siblings: Vec<Hash>,
}

/// The root of a list of leaves.
#[must_use]
pub fn root<T: AsRef<[u8]> + Sync>(leaves: &[T]) -> Hash {
    root_of_hashes(leaf_hashes(leaves))
}

/// The root of a list of encoded values; none of the encodings is kept.
#[must_use]
pub fn root_of_values<T: Serialize + Sync>(values: &[T]) -> Hash {
    let hashes = values
        .par_iter()
        .with_min_len(LEAVES_PER_THREAD)
        .map_init(Vec::new, |bytes, value| {
            bytes.clear();
            codec::encode_into(value, bytes);
            leaf_hash(bytes)
        })
        .collect();
    root_of_hashes(hashes)
}

/// The root over leaves that are hashed already, by [`leaf_hash`].
#[must_use]
pub fn root_of_hashes(leaves: Vec<Hash>) -> Hash {
    let mut level = leaves;
    while level.len() > 1 {
        level = level_above(&level);
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

/// The proof that leaf `index` is in the list, `None` when there is no such leaf.
#[must_use]
pub fn prove<T: AsRef<[u8]> + Sync>(leaves: &[T], index: usize) -> Option<Proof> {
    if index >= leaves.len() {
        return None;
    }
    let mut siblings = Vec::new();
    let mut level = leaf_hashes(leaves);
    let mut at = index;
    while level.len() > 1 {
        // The last node of an odd level has no sibling and rises unchanged.
        siblings.extend(level.get(at ^ 1));
        level = level_above(&level);
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
        last == 0 && node == *root
    }

    /// The siblings, lowest first.
    #[must_use]
    pub fn siblings(&self) -> &[Hash] {
        &self.siblings
    }
}

fn leaf_hashes<T: AsRef<[u8]> + Sync>(leaves: &[T]) -> Vec<Hash> {
    leaves
        .par_iter()
        .with_min_len(LEAVES_PER_THREAD)
        .map(|leaf| leaf_hash(leaf.as_ref()))
        .collect()
}

fn level_above(level: &[Hash]) -> Vec<Hash> {
    level
        .par_chunks(2)
        .with_min_len(LEAVES_PER_THREAD)
        .map(|pair| match pair {
            [left, right] => inner_hash(left, right),
            [single] => *single,
            _ => Hash::ZERO,
        })
        .collect()
}

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash::of(LEAF_TAG, &[leaf])
}

fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(INNER_TAG, &[left.as_bytes(), right.as_bytes()])
}
