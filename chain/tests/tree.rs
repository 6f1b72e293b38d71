//! Laws of the state tree, against the definition of protocol §4 written as a recursion.

use std::collections::BTreeMap;

use proofmill_chain::codec;
use proofmill_chain::tree::{Change, PROOF_BYTES_MAX, Proof, Tree, value_hash};
use proofmill_chain::types::hash::Hash;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use sha2::{Digest, Sha256};

type Model = BTreeMap<Hash, Vec<u8>>;

fn key_bit(key: &Hash, depth: usize) -> bool {
    key.as_bytes()[depth / 8] >> (7 - depth % 8) & 1 == 1
}

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash::new(Sha256::digest(parts.concat()).into())
}

/// The definition, word for word.
fn naive(leaves: &[(Hash, Vec<u8>)], depth: usize) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [(key, value)] => sha256(&[
            b"proofmill/leaf/1",
            key.as_bytes(),
            sha256(&[value]).as_bytes(),
        ]),
        _ => {
            let (right, left): (Vec<_>, Vec<_>) = leaves
                .iter()
                .cloned()
                .partition(|(key, _)| key_bit(key, depth));
            sha256(&[
                naive(&left, depth + 1).as_bytes(),
                naive(&right, depth + 1).as_bytes(),
            ])
        }
    }
}

fn naive_root(model: &Model) -> Hash {
    let leaves: Vec<_> = model
        .iter()
        .map(|(key, value)| (*key, value.clone()))
        .collect();
    naive(&leaves, 0)
}

fn change(key: Hash, value: Option<&[u8]>) -> Change {
    (key, value.map(value_hash))
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
    let one = empty.update(&[change(low, Some(b"a"))]);
    let two = one.update(&[change(high, Some(b"b"))]);
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
    let changes: Vec<_> = model
        .iter()
        .map(|(key, value)| change(*key, Some(value)))
        .collect();
    let expected = naive_root(&model);
    for threads in [1, 2, 7] {
        let tree = on_threads(threads, || Tree::new().update(&changes));
        assert_eq!((tree.root(), tree.len()), (expected, 5000));
    }
    let piecewise = changes
        .chunks(37)
        .rev()
        .fold(Tree::new(), |tree, some| tree.update(some));
    assert_eq!(piecewise.root(), expected);
    let deletions: Vec<_> = changes.iter().map(|(key, _)| (*key, None)).collect();
    let emptied = on_threads(3, || piecewise.update(&deletions));
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
    let changes: Vec<_> = model
        .iter()
        .map(|(key, value)| change(*key, Some(value)))
        .collect();
    let tree = std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || {
            let tree = Tree::new().update(&changes);
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

#[test]
fn changes_out_of_order_count_as_if_made_one_by_one() {
    let [a, b] = [Hash::new([1; 32]), Hash::new([2; 32])];
    let changes = [
        change(b, Some(b"1")),
        change(a, Some(b"2")),
        change(b, None),
        change(a, Some(b"3")),
    ];
    let at_once = Tree::new().update(&changes);
    let one_by_one = changes
        .iter()
        .fold(Tree::new(), |tree, change| tree.update(&[*change]));
    assert_eq!(at_once.root(), one_by_one.root());
    assert_eq!(at_once.get(&a), Some(value_hash(b"3")));
    assert_eq!(at_once.get(&b), None);
}

#[test]
fn a_value_cannot_be_denied_by_the_leaf_of_another_place() {
    let model: Model = spread(50).into_iter().collect();
    let changes: Vec<_> = model
        .iter()
        .map(|(key, value)| change(*key, Some(value)))
        .collect();
    let tree = Tree::new().update(&changes);
    let root = tree.root();
    for (key, value) in &model {
        for other in model.keys() {
            let proof = tree.prove(other);
            assert!(!proof.verify(&root, key, None));
            assert_eq!(proof.verify(&root, key, Some(value)), key == other);
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_updates_gives_the_tree_of_the_final_state(
        batches in vec(vec((keys(), proptest::option::of(vec(any::<u8>(), 0..3))), 0..40), 1..8),
    ) {
        let mut model = Model::new();
        let mut tree = Tree::new();
        for batch in batches {
            let changes: Vec<_> = batch
                .iter()
                .map(|(key, value)| change(*key, value.as_deref()))
                .collect();
            tree = tree.update(&changes);
            for (key, value) in batch {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
            prop_assert_eq!(tree.root(), naive_root(&model));
            prop_assert_eq!(tree.len(), model.len());
        }
    }

    #[test]
    fn proofs_say_what_the_state_says_and_nothing_else(
        state in vec((keys(), vec(any::<u8>(), 0..3)), 0..60),
        asked in keys(),
        chosen in any::<Index>(),
        at in any::<Index>(),
        bit in 0_u32..8,
    ) {
        let model: Model = state.into_iter().collect();
        let changes: Vec<_> = model
            .iter()
            .map(|(key, value)| change(*key, Some(value)))
            .collect();
        let tree = Tree::new().update(&changes);
        let root = tree.root();
        let known = model.keys().nth(chosen.index(model.len().max(1))).copied();
        for key in [Some(asked), known].into_iter().flatten() {
            let value = model.get(&key).map(Vec::as_slice);
            let proof = tree.prove(&key);
            prop_assert!(proof.verify(&root, &key, value));
            prop_assert_eq!(tree.get(&key), value.map(value_hash));

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
