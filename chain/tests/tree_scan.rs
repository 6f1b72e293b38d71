//! Leaves in the order of their keys: what the tree gives is what a sorted map has.

use std::collections::BTreeMap;

use proofmill_chain::tree::{Change, INLINE_MAX, LeafValue, Tree};
use proofmill_chain::types::hash::Hash;
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

type Model = BTreeMap<Hash, Vec<u8>>;

/// Keys of which many share long prefixes.
fn keys() -> impl Strategy<Value = Hash> {
    prop_oneof![
        (0..256_usize, any::<u8>()).prop_map(|(bits, end)| {
            let mut bytes = [0xff; 32];
            bytes[bits / 8] = 0x80 >> (bits % 8);
            bytes[31] = end;
            Hash::new(bytes)
        }),
        any::<[u8; 32]>().prop_map(Hash::new),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..INLINE_MAX + 3)
}

fn tree_of(model: &Model) -> Tree {
    let leaves: Vec<_> = model
        .iter()
        .map(|(key, value)| (*key, LeafValue::of(value)))
        .collect();
    Tree::from_leaves(&leaves).expect("it is small")
}

fn expected(model: &Model, from: &Hash, most: usize) -> Vec<(Hash, LeafValue)> {
    let range = model.range(*from..);
    range
        .take(most)
        .map(|(key, value)| (*key, LeafValue::of(value)))
        .collect()
}

proptest! {
    #[test]
    fn leaves_come_as_from_a_sorted_map(
        model in btree_map(keys(), values(), 0..80),
        gone in vec(keys(), 0..20),
        from in keys(),
        most in 0..100_usize,
    ) {
        let (mut model, mut tree) = (model.clone(), tree_of(&model));
        // Some of those that are there go, which leaves the index as deep as it was.
        let some: Vec<Hash> = model.keys().copied().step_by(3).collect();
        let removed: Vec<Change> = gone.iter().chain(&some).map(|key| (*key, None)).collect();
        let patch = tree.update(&removed);
        tree.apply(&patch).expect("it is of this tree");
        for (key, _) in &removed {
            model.remove(key);
        }
        let near = model.keys().copied().take(3);
        for from in near.chain([from, Hash::ZERO, Hash::new([0xff; 32])]) {
            prop_assert_eq!(tree.leaves_from(&from, most), expected(&model, &from, most));
        }
    }
}

#[test]
fn a_large_tree_is_gone_through_piece_by_piece() {
    let model: Model = (0..20_000_u32)
        .map(|n| {
            let bytes = n.to_le_bytes();
            (Hash::of("scan", &[&bytes]), bytes.to_vec())
        })
        .collect();
    let tree = tree_of(&model);
    let (mut found, mut from) = (Vec::new(), Hash::ZERO);
    loop {
        let some = tree.leaves_from(&from, 777);
        let Some((last, _)) = some.last() else { break };
        let mut next = *last.as_bytes();
        next[31] = next[31].checked_add(1).expect("no key here ends so");
        from = Hash::new(next);
        found.extend(some);
    }
    assert_eq!(found, expected(&model, &Hash::ZERO, usize::MAX));
}
