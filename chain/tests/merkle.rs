//! Laws of the Merkle trees over lists, against the recursion of RFC 6962 section 2.1.

use proofmill_chain::codec;
use proofmill_chain::merkle::{self, Proof};
use proofmill_chain::types::hash::Hash;
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::Index;

/// A list's root: its length and the top of its tree.
fn naive_root(leaves: &[Vec<u8>]) -> Hash {
    let count = (leaves.len() as u64).to_le_bytes();
    let top = naive(leaves);
    Hash::of("proofmill/merkle-list/v1", &[&count, top.as_bytes()])
}

/// The tree's definition, word for word.
fn naive(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [leaf] => Hash::of("proofmill/merkle-leaf/v1", &[leaf]),
        _ => {
            let mut split = 1;
            while split * 2 < leaves.len() {
                split *= 2;
            }
            let (left, right) = leaves.split_at(split);
            Hash::of(
                "proofmill/merkle-inner/v1",
                &[naive(left).as_bytes(), naive(right).as_bytes()],
            )
        }
    }
}

fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| number.to_le_bytes().to_vec())
        .collect()
}

#[test]
fn root_is_the_definition_for_every_small_count_and_a_large_one() {
    for count in (0..130).chain([5000]) {
        let leaves = numbered(count);
        assert_eq!(merkle::root(&leaves), naive_root(&leaves), "{count} leaves");
    }
}

#[test]
fn every_leaf_of_every_small_tree_has_a_proof_for_its_place_only() {
    for count in 1..40 {
        let leaves = numbered(count);
        let root = merkle::root(&leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let proof = merkle::prove(&leaves, index).expect("the leaf exists");
            for other in 0..=count {
                assert_eq!(
                    proof.verify(&root, other as u64, count as u64, leaf),
                    other == index,
                    "leaf {index} of {count} as {other}"
                );
            }
        }
        assert_eq!(merkle::prove(&leaves, count), None);
    }
}

#[test]
fn a_root_commits_to_the_number_of_leaves() {
    // The last leaf of two and the last of three have the same siblings up to the top of the tree of
    // two, whose proof for a longer list would otherwise verify under the same root.
    let leaves = numbered(5);
    let root = merkle::root(&leaves);
    let proof = merkle::prove(&leaves, 4).expect("the leaf exists");
    assert_eq!(
        proof.siblings().len(),
        1,
        "the last of five hangs below the top"
    );
    assert!(proof.verify(&root, 4, 5, &leaves[4]));
    // The path of the second of two, and of the third of three, has one sibling as well.
    for (index, count) in [(1, 2), (2, 3), (8, 9), (16, 17)] {
        assert!(
            !proof.verify(&root, index, count, &leaves[4]),
            "{index} of {count}"
        );
    }
    assert_ne!(merkle::root::<Vec<u8>>(&[]), Hash::ZERO);
}

#[test]
fn an_inner_node_does_not_pass_for_a_leaf() {
    let leaves = numbered(4);
    let root = merkle::root(&leaves);
    let node = |pair: &[Vec<u8>]| naive(pair);
    let (left, right) = leaves.split_at(2);
    let forged = [*node(left).as_bytes(), *node(right).as_bytes()];
    assert_ne!(merkle::root(&forged), root);
    let proof = merkle::prove(&forged, 0).expect("the leaf exists");
    assert!(!proof.verify(&root, 0, 2, node(left).as_bytes()));
}

proptest! {
    #[test]
    fn changed_leaves_places_and_paths_are_refused(
        leaves in vec(vec(any::<u8>(), 0..40), 1..70),
        place in any::<Index>(),
        at in any::<Index>(),
        bit in 0_u32..8,
    ) {
        let root = merkle::root(&leaves);
        prop_assert_eq!(root, naive_root(&leaves));
        let index = place.index(leaves.len());
        let leaf = &leaves[index];
        let proof = merkle::prove(&leaves, index).expect("the leaf exists");
        let whole = leaves.len() as u64;
        prop_assert!(proof.verify(&root, index as u64, whole, leaf));
        for other in (0..2 * whole + 2).filter(|other| *other != whole) {
            prop_assert!(!proof.verify(&root, index as u64, other, leaf), "as one of {}", other);
        }

        let mut other = leaf.clone();
        other.push(0);
        prop_assert!(!proof.verify(&root, index as u64, whole, &other));

        let mut bytes = codec::encode(&proof);
        prop_assert_eq!(&codec::decode::<Proof, 4096>(&bytes).expect("a proof decodes"), &proof);
        if bytes.len() > 8 {
            let byte = 8 + at.index(bytes.len() - 8);
            bytes[byte] ^= 1 << bit;
            let forged: Proof = codec::decode::<_, 4096>(&bytes).expect("still a list of hashes");
            prop_assert!(!forged.verify(&root, index as u64, whole, leaf));
        }
    }
}
