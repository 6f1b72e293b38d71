//! Proofs that a key has a value in the state, or has none.

use serde::{Deserialize, Serialize};

use super::bit;
use super::hash::{inner_hash, leaf_hash, value_hash};
use crate::types::hash::Hash;

/// Most siblings in a proof: a path is no longer than a key.
pub const PROOF_SIBLINGS_MAX: usize = 256;
/// Largest encoded proof: the siblings with their count, and a leaf behind its mark.
pub const PROOF_BYTES_MAX: usize = 8 + PROOF_SIBLINGS_MAX * Hash::LEN + 1 + 2 * Hash::LEN;

/// The way from the root to the end of a key's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The halves that the path leaves aside, from the root down.
    pub siblings: Vec<Hash>,
    /// What the path ends at: the key's own leaf, another one that stands in its place, or none.
    pub leaf: Option<ProofLeaf>,
}

/// The leaf at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofLeaf {
    /// Its key.
    pub key: Hash,
    /// SHA-256 of its value.
    pub value: Hash,
}

impl Proof {
    /// Whether, in the state under `root`, `key` has this value, or no value for `None`.
    ///
    /// A key has no value when its path ends at nothing or at the leaf of another key: a subtree
    /// with two leaves would be an inner node, which hashes another number of bytes.
    #[must_use]
    pub fn verify(&self, root: &Hash, key: &Hash, value: Option<&[u8]>) -> bool {
        let depth = self.siblings.len();
        if depth > PROOF_SIBLINGS_MAX {
            return false;
        }
        let end = match (&self.leaf, value) {
            (Some(leaf), Some(value)) if leaf.key == *key && leaf.value == value_hash(value) => {
                leaf_hash(&leaf.key, &leaf.value)
            }
            (Some(leaf), None) if leaf.key != *key && agree(&leaf.key, key, depth) => {
                leaf_hash(&leaf.key, &leaf.value)
            }
            (None, None) => Hash::ZERO,
            _ => return false,
        };
        let computed =
            self.siblings
                .iter()
                .enumerate()
                .rev()
                .fold(end, |node, (depth, sibling)| {
                    if bit(key, depth) {
                        inner_hash([sibling, &node])
                    } else {
                        inner_hash([&node, sibling])
                    }
                });
        computed == *root
    }
}

/// Whether two keys agree in their first `depth` bits.
fn agree(a: &Hash, b: &Hash, depth: usize) -> bool {
    (0..depth).all(|at| bit(a, at) == bit(b, at))
}
