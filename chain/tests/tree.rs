//! Laws of the state tree, against the definition of protocol §4.

mod common;

use std::collections::BTreeSet;

use common::naive::{Model, naive_root, sha256};
use proofmill_chain::codec;
use proofmill_chain::tree::{
    Change, INLINE_MAX, LeafValue, Lookup, PROOF_BYTES_MAX, Proof, Tree, TreeError,
};
use proofmill_chain::types::hash::Hash;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;

fn change(key: Hash, value: Option<&[u8]>) -> Change {
    (key, value.map(LeafValue::of))
}

/// The tree after changes.
fn after(mut tree: Tree, changes: &[Change]) -> Tree {
    let patch = tree.update(changes);
    tree.apply(&patch).expect("the patch is the tree's");
    assert_eq!((tree.root(), tree.len()), (patch.root(), patch.len()));
    tree
}

fn changes(model: &Model) -> Vec<Change> {
    model
        .iter()
        .map(|(key, value)| change(*key, Some(value)))
        .collect()
}

/// The key's value, or its hash when it is long: what a read must give.
fn check_lookup(found: Lookup<'_>, value: Option<&[u8]>) {
    match value {
        None => assert_eq!(found, Lookup::Absent),
        Some(value) if value.len() <= INLINE_MAX => assert_eq!(found, Lookup::Inline(value)),
        Some(value) => assert_eq!(found, Lookup::Elsewhere(sha256(&[value]))),
    }
}

/// Some keys and their neighbours, there or not, read as the model says.
fn check_reads<'a>(tree: &Tree, model: &Model, keys: impl IntoIterator<Item = &'a Hash>) {
    let keys: Vec<_> = keys.into_iter().copied().collect();
    for (key, found) in keys.iter().zip(tree.read_many(&keys)) {
        let value = model.get(key).map(Vec::as_slice);
        check_lookup(found, value);
        check_lookup(tree.read(key), value);
        assert_eq!(tree.get(key), value.map(|value| sha256(&[value])));
    }
}

/// Keys that collide, that share long prefixes and that are spread.
fn keys() -> impl Strategy<Value = Hash> {
    prop_oneof![
        (0_u8..12).prop_map(|n| Hash::of("test", &[&[n]])),
        (0_u8..4, 0_u8..=255).prop_map(|(first, last)| {
            let mut bytes = [0xa5; 32];
            bytes[0] = first << 6;
            bytes[31] = last;
            Hash::new(bytes)
        }),
        (0_usize..256).prop_map(|at| {
            let mut bytes = [0; 32];
            bytes[at / 8] = 0x80 >> (at % 8);
            Hash::new(bytes)
        }),
        any::<[u8; 32]>().prop_map(Hash::new),
    ]
}

/// Short values and values about the longest that a leaf holds.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..3),
        vec(any::<u8>(), INLINE_MAX - 1..INLINE_MAX + 3),
        Just(vec![0; INLINE_MAX + 1]),
    ]
}

fn spread(count: u32) -> Vec<(Hash, Vec<u8>)> {
    (0..count)
        .map(|n| {
            let bytes = n.to_le_bytes();
            (Hash::of("spread", &[&bytes]), bytes.to_vec())
        })
        .collect()
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads start")
        .install(work)
}

#[test]
fn the_smallest_trees_are_the_definition() {
    let (low, high) = (Hash::new([0x00; 32]), Hash::new([0xff; 32]));
    let empty = Tree::new();
    assert_eq!(empty.root(), Hash::ZERO);
    let one = after(empty.clone(), &[change(low, Some(b"a"))]);
    let two = after(one.clone(), &[change(high, Some(b"b"))]);
    let leaf = |key: &Hash, value: &[u8]| {
        sha256(&[
            b"proofmill/leaf/1",
            key.as_bytes(),
            sha256(&[value]).as_bytes(),
        ])
    };
    assert_eq!(one.root(), leaf(&low, b"a"));
    assert_eq!(
        two.root(),
        sha256(&[leaf(&low, b"a").as_bytes(), leaf(&high, b"b").as_bytes()])
    );
    assert_eq!((empty.len(), one.len(), two.len()), (0, 1, 2));
    assert_eq!(two.update(&[change(high, None)]).root(), one.root());
    assert_eq!(one.update(&[change(low, None)]).root(), Hash::ZERO);
}

#[test]
fn one_thread_and_many_and_many_small_updates_give_one_root() {
    let mut values = spread(5000);
    // A thousand of them under one prefix of 230 bits, as if somebody had ground them.
    for (n, (key, _)) in values.iter_mut().take(1000).enumerate() {
        let mut bytes = [0x5a; 32];
        let [low, high, ..] = n.to_le_bytes();
        bytes[30] = high;
        bytes[31] = low;
        *key = Hash::new(bytes);
    }
    values.sort();
    let model: Model = values.iter().cloned().collect();
    let changes = changes(&model);
    let expected = naive_root(&model);
    for threads in [1, 2, 7] {
        let tree = on_threads(threads, || after(Tree::new(), &changes));
        assert_eq!((tree.root(), tree.len()), (expected, 5000));
    }
    let piecewise = changes.chunks(37).rev().fold(Tree::new(), after);
    assert_eq!(piecewise.root(), expected);
    let deletions: Vec<_> = changes.iter().map(|(key, _)| (*key, None)).collect();
    let emptied = on_threads(3, || piecewise.update(&deletions));
    assert!(emptied.is_empty());
    assert_eq!((emptied.root(), emptied.len()), (Hash::ZERO, 0));
    // The tree it came from is untouched.
    assert_eq!((piecewise.root(), piecewise.len()), (expected, 5000));
}

#[test]
fn keys_that_differ_in_the_last_bit_only_fit_a_small_stack() {
    let low = Hash::new([0xff; 32]);
    let mut bytes = [0xff; 32];
    bytes[31] = 0xfe;
    let high = Hash::new(bytes);
    let model: Model = [(low, b"a".to_vec()), (high, b"b".to_vec())].into();
    let changes = changes(&model);
    let tree = std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || {
            let tree = after(Tree::new(), &changes);
            assert_eq!(tree.update(&[(low, None)]).len(), 1);
            tree
        })
        .expect("a thread starts")
        .join()
        .expect("the stack does not overflow");
    assert_eq!(tree.root(), naive_root(&model));
    let proof = tree.prove(&low);
    assert_eq!(proof.siblings.len(), 256);
    assert!(codec::encode(&proof).len() <= PROOF_BYTES_MAX);
    assert!(proof.verify(&tree.root(), &low, Some(b"a")));
    let mut longer = proof;
    longer.siblings.push(Hash::ZERO);
    assert!(!longer.verify(&tree.root(), &low, Some(b"a")));
}

/// Two keys that share so many bits and nothing with others but by chance.
fn twins(shared: usize) -> [Hash; 2] {
    let key = Hash::of("twins", &[&shared.to_le_bytes()]);
    let mut other = *key.as_bytes();
    other[shared / 8] ^= 0x80 >> (shared % 8);
    [key, Hash::new(other)]
}

/// Few changes far apart, so that each is alone below a node of the tree: all that can become of a
/// value, at the end of short paths and of paths too long to be walked in one go.
#[test]
fn a_change_that_is_alone_below_a_node_is_the_definition() {
    let twins: Vec<_> = [24, 33, 47, 48, 49, 63, 64, 65, 100, 255].map(twins).into();
    let mut model: Model = spread(3_000).into_iter().collect();
    model.extend(twins.iter().flatten().map(|key| (*key, b"twin".to_vec())));
    let mut tree = after(Tree::new(), &changes(&model));
    let values: [Option<&[u8]>; 6] = [
        Some(b"new"),
        Some(&[7; INLINE_MAX]),
        Some(&[8; INLINE_MAX + 1]),
        Some(&[9; 100]),
        None,
        Some(b"back"),
    ];
    for (round, value) in values.into_iter().enumerate() {
        let keys: Vec<Hash> = model.keys().copied().collect();
        let absent = (0..40_u32).map(|n| Hash::of("absent", &[&n.to_le_bytes()]));
        let mut made: Vec<Change> = keys
            .iter()
            .skip(round)
            .step_by(90)
            .chain(twins.iter().map(|twins| &twins[round % 2]))
            .map(|key| change(*key, value))
            // What is there already, and what is not there and goes.
            .chain(keys.iter().skip(50).step_by(90).map(|key| {
                let is_there = model.get(key).map(Vec::as_slice);
                change(*key, is_there)
            }))
            .chain(absent.map(|key| change(key, None)))
            .collect();
        made.sort_unstable_by_key(|(key, _)| *key);
        made.dedup_by_key(|(key, _)| *key);
        for (key, new) in &made {
            match (new, value) {
                (None, _) => drop(model.remove(key)),
                (Some(new), Some(value)) if *new == LeafValue::of(value) => {
                    model.insert(*key, value.to_vec());
                }
                // It stays.
                (Some(_), _) => {}
            }
        }
        let expected = (naive_root(&model), model.len());
        for threads in [1, 3] {
            let patch = on_threads(threads, || tree.update(&made));
            assert_eq!((patch.root(), patch.len()), expected, "round {round}");
            for key in &keys {
                let found = patch.read(&tree, key).expect("the patch is the tree's");
                check_lookup(found, model.get(key).map(Vec::as_slice));
            }
        }
        tree = after(tree, &made);
        check_reads(&tree, &model, &keys);
        for key in keys.iter().step_by(17) {
            let proof = tree.prove(key);
            assert!(proof.verify(&tree.root(), key, model.get(key).map(Vec::as_slice)));
        }
    }
}

/// Above a value that changes alone, what had one half gets two, and the other way round.
#[test]
fn a_node_gains_or_loses_a_half_above_a_value_that_changes_alone() {
    for shared in [1, 2, 7, 30, 40, 70] {
        let [one, other] = twins(shared);
        for depth in 0..shared {
            // A key that leaves the twins' path there.
            let mut aside = *one.as_bytes();
            aside[depth / 8] ^= 0x80 >> (depth % 8);
            let aside = Hash::new(aside);
            let mut model: Model = [(one, vec![1]), (other, vec![2])].into();
            let tree = after(Tree::new(), &changes(&model));
            let came = [change(one, Some(b"3")), change(aside, Some(b"4"))];
            model.extend([(one, b"3".to_vec()), (aside, b"4".to_vec())]);
            let tree = after(tree, &came);
            assert_eq!(tree.root(), naive_root(&model), "{shared}, {depth}");
            check_reads(&tree, &model, &[one, other, aside]);
            let gone = [change(other, Some(b"5")), change(aside, None)];
            model.insert(other, b"5".to_vec());
            model.remove(&aside);
            let tree = after(tree, &gone);
            assert_eq!(tree.root(), naive_root(&model), "{shared}, {depth}");
            check_reads(&tree, &model, &[one, other, aside]);
        }
    }
}

#[test]
fn changes_out_of_order_count_as_if_made_one_by_one() {
    let [a, b] = [Hash::new([1; 32]), Hash::new([2; 32])];
    let changes = [
        change(b, Some(b"1")),
        change(a, Some(b"2")),
        change(b, None),
        change(a, Some(b"3")),
    ];
    let at_once = after(Tree::new(), &changes);
    let one_by_one = changes
        .iter()
        .fold(Tree::new(), |tree, change| after(tree, &[*change]));
    assert_eq!(at_once.root(), one_by_one.root());
    assert_eq!(at_once.get(&a), Some(sha256(&[b"3"])));
    assert_eq!(at_once.get(&b), None);
}

#[test]
fn a_value_cannot_be_denied_by_the_leaf_of_another_place() {
    let model: Model = spread(50).into_iter().collect();
    let changes = changes(&model);
    let tree = after(Tree::new(), &changes);
    let root = tree.root();
    for (key, value) in &model {
        for other in model.keys() {
            let proof = tree.prove(other);
            assert!(!proof.verify(&root, key, None));
            assert_eq!(proof.verify(&root, key, Some(value)), key == other);
        }
    }
}

/// Twenty thousand changes: many parts, a deep index.
fn large() -> Model {
    spread(20_000).into_iter().collect()
}

#[test]
fn large_updates_over_a_large_tree_are_the_definition() {
    let mut model = large();
    let mut tree = after(Tree::new(), &changes(&model));
    assert_eq!(tree.root(), naive_root(&model));
    check_reads(&tree, &model, model.keys());
    let all: Vec<_> = model.keys().copied().collect();
    for round in 0_u8..4 {
        // A third is changed, a third deleted or back again, and as many are new as will be gone.
        let mut batch = Vec::new();
        for (n, key) in all.iter().enumerate() {
            match (n + usize::from(round)) % 3 {
                0 => batch.push((*key, Some(vec![round; 20 + usize::from(round % 2) * 20]))),
                1 => batch.push((*key, (!model.contains_key(key)).then(|| vec![round; 8]))),
                _ => {}
            }
        }
        for n in 0..3000_u32 {
            let bytes = [&[round][..], &n.to_le_bytes()].concat();
            batch.push((Hash::of("new", &[&bytes]), Some(bytes)));
        }
        let changes: Vec<_> = batch
            .iter()
            .map(|(key, value)| change(*key, value.as_deref()))
            .collect();
        let patch = on_threads(2, || tree.update(&changes));
        for (key, value) in batch {
            match value {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
        for key in all.iter().chain(model.keys()).step_by(7) {
            let found = patch.read(&tree, key).expect("the patch is the tree's");
            check_lookup(found, model.get(key).map(Vec::as_slice));
        }
        assert_eq!(on_threads(1, || tree.update(&changes)).root(), patch.root());
        tree.apply(&patch).expect("the patch is the tree's");
        assert_eq!((tree.root(), tree.len()), (naive_root(&model), model.len()));
        check_reads(&tree, &model, all.iter().chain(model.keys()));
    }
}

#[test]
fn ground_keys_cost_no_more_than_others() {
    let base = after(Tree::new(), &changes(&large()));
    let ground = |shared: usize| -> Model {
        spread(20_000)
            .into_iter()
            .map(|(key, value)| {
                let mut bytes = *key.as_bytes();
                bytes.rotate_right(3);
                bytes[..shared].fill(0x5a);
                (Hash::new(bytes), value)
            })
            .collect()
    };
    for shared in [1, 3, 25] {
        let some = ground(shared);
        let mut both = large();
        both.extend(some.clone());
        let expected = naive_root(&both);
        for threads in [1, 2, 5] {
            let patch = on_threads(threads, || base.update(&changes(&some)));
            assert_eq!((patch.root(), patch.len()), (expected, both.len()));
        }
        let tree = after(base.clone(), &changes(&some));
        check_reads(&tree, &both, both.keys());
        let gone: Vec<_> = some.keys().map(|key| (*key, None)).collect();
        assert_eq!(after(tree, &gone).root(), base.root());
    }
}

#[test]
fn a_patch_fits_no_tree_but_the_one_it_was_made_from() {
    let [a, b] = [Hash::new([1; 32]), Hash::new([2; 32])];
    let mut tree = after(Tree::new(), &[change(a, Some(b"1"))]);
    let patch = tree.update(&[change(b, Some(b"2"))]);
    let mut equal = after(Tree::new(), &[change(a, Some(b"1"))]);
    assert_eq!(equal.root(), tree.root());
    assert_eq!(equal.apply(&patch), Err(TreeError::OtherBase));
    assert_eq!(patch.read(&equal, &a), Err(TreeError::OtherBase));
    assert_eq!((equal.root(), equal.len()), (tree.root(), 1));
    assert_eq!(Tree::new().apply(&patch), Err(TreeError::OtherBase));
    // A clone has the same slots until it changes.
    let mut twin = tree.clone();
    assert_eq!(twin.apply(&patch), Ok(()));
    assert_eq!(tree.apply(&patch), Ok(()));
    assert_eq!(twin.root(), tree.root());
    assert_eq!(tree.apply(&patch), Err(TreeError::OtherBase));
    assert_eq!(patch.read(&tree, &b), Err(TreeError::OtherBase));
    let empty = tree.update(&[]);
    assert_eq!((empty.root(), empty.len()), (tree.root(), tree.len()));
    assert_eq!(tree.apply(&empty), Ok(()));
    assert_eq!(tree.apply(&empty), Err(TreeError::OtherBase));
    assert_eq!(tree.read(&b), Lookup::Inline(b"2"));
}

#[test]
fn memory_is_taken_by_the_leaf_and_not_by_churn() {
    let keys: Vec<_> = spread(60_000).into_iter().map(|(key, _)| key).collect();
    let of = |keys: &[Hash], value: Option<&[u8]>| -> Vec<_> {
        keys.iter().map(|key| change(*key, value)).collect()
    };
    let (half, other) = keys.split_at(keys.len() / 2);
    let mut tree = after(Tree::new(), &of(half, Some(b"1")));
    for round in 0..6_u8 {
        let (here, gone) = if round % 2 == 0 {
            (other, half)
        } else {
            (half, other)
        };
        let held = tree.bytes();
        // In small steps, each of which takes what the one before gave back.
        for (come, go) in here.chunks(2000).zip(gone.chunks(2000)) {
            tree = after(tree, &of(go, None));
            tree = after(tree, &of(come, Some(&[round; 20])));
        }
        // As many leaves have another shape: a few more forks or stems, and the lists of free slots.
        assert!(tree.bytes() <= held + held / 4, "{} {held}", tree.bytes());
        let held = tree.bytes();
        for _ in 0..3 {
            tree = after(tree, &of(here, Some(&[round; 40])));
            tree = after(tree, &of(here, Some(&[round; 20])));
        }
        assert_eq!(tree.bytes(), held);
    }
    assert_eq!(tree.len(), half.len());
    let tree = after(tree, &of(&keys, Some(b"1")));
    assert!(tree.bytes() / tree.len() < 190, "{}", tree.bytes());
}

#[test]
fn lookups_give_the_bytes_of_short_values_and_the_hash_of_long_ones() {
    let key = Hash::new([7; 32]);
    let mut tree = Tree::new();
    for len in (0..100).chain([INLINE_MAX, 256, 257, INLINE_MAX + 1, 255, 256 + INLINE_MAX]) {
        let value = vec![u8::try_from(len % 251).expect("it is below 251"); len];
        tree = after(tree, &[change(key, Some(&value))]);
        check_lookup(tree.read(&key), Some(&value));
        check_lookup(LeafValue::of(&value).lookup(), Some(&value));
        assert_eq!(LeafValue::of(&value).hash(), sha256(&[&value]));
        assert!(tree.prove(&key).verify(&tree.root(), &key, Some(&value)));
    }
    assert_eq!(tree.read(&Hash::new([8; 32])), Lookup::Absent);
    // The payload of a long value is its hash, and that hash as a value is another value.
    let long = [1; 40];
    let hash = sha256(&[&long]);
    assert_ne!(LeafValue::of(&long), LeafValue::of(hash.as_bytes()));
    assert_ne!(LeafValue::of(&[0; 2]), LeafValue::of(&[0; 3]));
}

#[test]
fn what_is_shown_of_a_tree_is_its_size_and_root() {
    let tree = after(Tree::default(), &[change(Hash::new([1; 32]), Some(b"1"))]);
    let (root, patch) = (tree.root(), tree.update(&[]));
    assert_eq!(format!("{tree:?}"), format!("Tree of 1 with root {root}"));
    assert_eq!(format!("{patch:?}"), format!("Patch to 1 with root {root}"));
}

proptest! {
    #[test]
    fn any_sequence_of_updates_gives_the_tree_of_the_final_state(
        batches in vec(vec((keys(), proptest::option::of(values())), 0..40), 1..12),
    ) {
        let mut model = Model::new();
        let mut tree = Tree::new();
        let mut touched = BTreeSet::new();
        for batch in batches {
            let changes: Vec<_> = batch
                .iter()
                .map(|(key, value)| change(*key, value.as_deref()))
                .collect();
            let before = (tree.root(), tree.len());
            let patch = tree.update(&changes);
            prop_assert_eq!((tree.root(), tree.len()), before);
            check_reads(&tree, &model, &touched);
            touched.extend(batch.iter().map(|(key, _)| *key));
            for (key, value) in batch {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
            for key in &touched {
                let found = patch.read(&tree, key).expect("the patch is the tree's");
                check_lookup(found, model.get(key).map(Vec::as_slice));
            }
            tree.apply(&patch).expect("the patch is the tree's");
            prop_assert_eq!((tree.root(), tree.len()), (naive_root(&model), model.len()));
            prop_assert_eq!((patch.root(), patch.len()), (tree.root(), tree.len()));
            check_reads(&tree, &model, &touched);
        }
        let leaves: Vec<_> = model
            .iter()
            .map(|(key, value)| (*key, LeafValue::of(value)))
            .collect();
        let built = Tree::from_leaves(&leaves).expect("it is small");
        prop_assert_eq!((built.root(), built.len()), (tree.root(), tree.len()));
        for key in &touched {
            prop_assert_eq!(built.read(key), tree.read(key));
            prop_assert_eq!(built.prove(key), tree.prove(key));
        }
    }

    #[test]
    fn proofs_say_what_the_state_says_and_nothing_else(
        state in vec((keys(), values()), 0..60),
        asked in keys(),
        chosen in any::<Index>(),
        at in any::<Index>(),
        bit in 0_u32..8,
    ) {
        let model: Model = state.into_iter().collect();
        let tree = after(Tree::new(), &changes(&model));
        let root = tree.root();
        let known = model.keys().nth(chosen.index(model.len().max(1))).copied();
        for key in [Some(asked), known].into_iter().flatten() {
            let value = model.get(&key).map(Vec::as_slice);
            let proof = tree.prove(&key);
            prop_assert!(proof.verify(&root, &key, value));
            check_lookup(tree.read(&key), value);

            // The opposite, another value, another root.
            let opposite = if value.is_some() { None } else { Some(&b""[..]) };
            prop_assert!(!proof.verify(&root, &key, opposite));
            prop_assert!(!proof.verify(&root, &key, Some(b"another")));
            prop_assert!(!proof.verify(&Hash::of("x", &[]), &key, value));

            let mut bytes = codec::encode(&proof);
            prop_assert_eq!(
                &codec::decode::<Proof, PROOF_BYTES_MAX>(&bytes).expect("a proof decodes"),
                &proof
            );
            let byte = at.index(bytes.len());
            bytes[byte] ^= 1 << bit;
            if let Ok(forged) = codec::decode::<Proof, PROOF_BYTES_MAX>(&bytes) {
                prop_assert!(!forged.verify(&root, &key, value));
                prop_assert!(!forged.verify(&root, &key, opposite));
            }
        }
    }
}
