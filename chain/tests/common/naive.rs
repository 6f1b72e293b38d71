//! The state tree as protocol §4 defines it, written as a recursion.

use std::collections::BTreeMap;

use proofmill_chain::types::hash::Hash;
use sha2::{Digest, Sha256};

/// A whole state by tree key.
pub(crate) type Model = BTreeMap<Hash, Vec<u8>>;

fn key_bit(key: &Hash, depth: usize) -> bool {
    key.as_bytes()[depth / 8] >> (7 - depth % 8) & 1 == 1
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    Hash::new(Sha256::digest(parts.concat()).into())
}

/// The definition, word for word.
fn naive(leaves: &[(&Hash, &Vec<u8>)], depth: usize) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [(key, value)] => sha256(&[
            b"proofmill/leaf/1",
            key.as_bytes(),
            sha256(&[value]).as_bytes(),
        ]),
        _ => {
            let (right, left): (Vec<_>, Vec<_>) =
                leaves.iter().partition(|(key, _)| key_bit(key, depth));
            sha256(&[
                naive(&left, depth + 1).as_bytes(),
                naive(&right, depth + 1).as_bytes(),
            ])
        }
    }
}

pub(crate) fn naive_root(model: &Model) -> Hash {
    naive(&model.iter().collect::<Vec<_>>(), 0)
}
