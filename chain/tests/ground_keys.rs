//! Accounts that somebody ground until they stand close together in the state tree: the blocks that
//! touch them are valid, and the tree answers as its definition does and stays small.

mod common;

use common::ledger::Ledger;
use common::naive::{Model, naive_root};
use common::raw_key::RawKey;
use common::seeds::{POOLS, Random};
use common::{FUNDS, World, both_ways, reward_of, transfer};
use curve25519_dalek::constants::ED25519_BASEPOINT_TABLE;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::admit_key;
use proofmill_chain::merkle;
use proofmill_chain::tree::{Change, LeafValue, Tree};
use proofmill_chain::types::genesis::GenesisAccount;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::record::StateKey;
use proofmill_chain::types::transaction::{SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Bits that the ground senders' tree keys share, and those of the recipients.
const SENDER_BITS: u32 = 16;
const RECIPIENT_BITS: u32 = 16;
const SENDERS: usize = 96;
const RECIPIENTS: usize = 160;

fn tree_key(id: &AccountId) -> Hash {
    StateKey::Account(*id).tree_key()
}

fn leading(key: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// How many bits two keys share, of the first 64.
fn shared(one: &Hash, other: &Hash) -> u32 {
    (leading(one) ^ leading(other)).leading_zeros()
}

/// A prefix that nobody chose.
fn target() -> Hash {
    Hash::of("ground", &[])
}

/// Keys that can sign and whose places share [`SENDER_BITS`] with the target: one addition a try.
fn senders() -> Vec<RawKey> {
    const RUN: u64 = 2_048;
    let target = target();
    let mut found = Vec::new();
    for batch in 0_u64.. {
        let some: Vec<_> = (batch * 64..(batch + 1) * 64)
            .into_par_iter()
            .flat_map_iter(|run| {
                let first = Scalar::from(run * RUN + 1) * Scalar::from(0x1_0000_0001_u64);
                let one = &Scalar::ONE * ED25519_BASEPOINT_TABLE;
                let start = &first * ED25519_BASEPOINT_TABLE;
                let points: Vec<_> = core::iter::successors(Some(start), |point| Some(point + one))
                    .zip(0..RUN)
                    .map(|(point, _)| point)
                    .collect();
                let encodings = EdwardsPoint::compress_batch_alloc(&points);
                (0..RUN).zip(encodings).filter_map(move |(step, encoding)| {
                    let id = AccountId::new(encoding.to_bytes());
                    (shared(&tree_key(&id), &target) >= SENDER_BITS).then(|| RawKey {
                        scalar: first + Scalar::from(step),
                        id,
                    })
                })
            })
            .collect();
        found.extend(some);
        if found.len() >= SENDERS {
            break;
        }
    }
    found.truncate(SENDERS);
    found
}

/// A key that nobody can sign with, if it is one at all.
fn some_id(number: u64) -> AccountId {
    let mut bytes = [0x11; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    AccountId::new(bytes)
}

/// Accounts that share [`RECIPIENT_BITS`] with the target, and so the senders' place.
fn recipients() -> Vec<AccountId> {
    let target = target();
    let mut found: Vec<_> = (0..3_u64 << 23)
        .into_par_iter()
        .map(some_id)
        .filter(|id| shared(&tree_key(id), &target) >= RECIPIENT_BITS)
        .filter(|id| admit_key(id.as_bytes()).is_ok())
        .collect();
    found.truncate(RECIPIENTS);
    found
}

/// The closest neighbours among a million accounts, which is what pairs cost least.
fn close_pairs() -> Vec<[AccountId; 2]> {
    let mut all: Vec<_> = (1_u64 << 40..(1 << 40) + (1 << 20))
        .into_par_iter()
        .map(|number| (leading(&tree_key(&some_id(number))), number))
        .collect();
    all.par_sort_unstable();
    let mut pairs: Vec<_> = all
        .windows(2)
        .map(|pair| ((pair[0].0 ^ pair[1].0).leading_zeros(), pair))
        .filter(|(bits, _)| *bits > 26)
        .map(|(bits, pair)| (bits, [pair[0].1, pair[1].1].map(some_id)))
        .filter(|(_, pair)| pair.iter().all(|id| admit_key(id.as_bytes()).is_ok()))
        .collect();
    pairs.sort_by_key(|(bits, _)| core::cmp::Reverse(*bits));
    assert!(pairs[0].0 >= 34, "the closest share {} bits", pairs[0].0);
    pairs.truncate(120);
    pairs.into_iter().map(|(_, pair)| pair).collect()
}

fn world(senders: &[RawKey]) -> World {
    World::with(|genesis| {
        let accounts = senders.iter().map(|sender| GenesisAccount {
            id: sender.id,
            balance: Amount::new(FUNDS),
        });
        genesis.accounts.extend(accounts);
    })
}

/// Transfers from the senders in turn to these accounts.
fn transfers(world: &World, senders: &[RawKey], to: &[AccountId]) -> Vec<SignedTransaction> {
    let turns = (0_usize..).zip(to);
    turns
        .map(|(turn, to)| {
            let sender = &senders[turn % senders.len()];
            let sent = u64::try_from(turn / senders.len()).expect("it is small");
            let transaction = Transaction {
                chain: world.id.prefix(),
                sender: sender.id,
                nonce: Nonce::new(world.account(sender.id).nonce.get() + sent),
                max_fee: Amount::new(1 << 20),
                tip: Amount::new(1),
                expires_at: Height::new(100),
                sponsor: None,
                action: transfer(*to, 1 + sent),
            };
            sender.signed(transaction, &world.id, 0)
        })
        .collect()
}

/// Takes in the block of these transfers, which has the root of the definition on any number of
/// threads.
fn take(world: &mut World, ids: &[AccountId], list: &[SignedTransaction]) {
    let ledger = Ledger::of(world, ids);
    let reward = reward_of(world);
    let mut after = ledger.clone();
    let block = world.forge(|block| {
        block.transactions = list.to_vec();
        let judged = ledger.judge(&block.header, reward, list);
        let (receipts, then) = judged.expect("everybody is rich");
        let leaves: Vec<_> = receipts.iter().map(codec::encode).collect();
        block.header.receipts_root = merkle::root(&leaves);
        block.header.state_root = then.root();
        after = then;
    });
    let bytes = codec::encode(&block);
    let mut sealed = Vec::new();
    for pool in POOLS.iter() {
        let verdict = pool.install(|| both_ways(&bytes, &world.context()));
        sealed.push(verdict.expect("what the protocol's ledger does is valid"));
    }
    world.apply(&sealed[0]);
    assert!(world.state == after.state(), "the state is the ledger's");
    for (key, value) in &world.state {
        assert_eq!(world.tree.get(key), Some(common::naive::sha256(&[value])));
        assert!(
            world
                .tree
                .prove(key)
                .verify(&world.tree.root(), key, Some(value))
        );
    }
}

#[test]
fn blocks_of_accounts_with_one_long_prefix_have_the_definitions_root() {
    let (senders, recipients) = (senders(), recipients());
    assert_eq!((senders.len(), recipients.len()), (SENDERS, RECIPIENTS));
    let ids: Vec<_> = senders
        .iter()
        .map(|sender| sender.id)
        .chain(recipients.iter().copied())
        .collect();
    assert!(
        ids.iter()
            .all(|id| shared(&tree_key(id), &target()) >= SENDER_BITS)
    );
    let mut world = world(&senders);
    // All of the recipients are new, then none is, and then the senders pay each other.
    for to in [&ids[SENDERS..], &ids[SENDERS..], &ids[..SENDERS]] {
        let list = transfers(&world, &senders, to);
        take(&mut world, &ids, &list);
    }
}

#[test]
fn blocks_that_make_the_closest_neighbours_of_a_million_have_the_definitions_root() {
    let senders: Vec<_> = (1..20_u64)
        .map(|n| RawKey::new(Scalar::from(n * 977)))
        .collect();
    let pairs = close_pairs();
    let (there, later) = pairs.split_at(pairs.len() / 2);
    let ids: Vec<_> = senders
        .iter()
        .map(|sender| sender.id)
        .chain(pairs.iter().flatten().copied())
        .collect();
    let mut world = world(&senders);
    // Both neighbours at once; then one, and the other beside it in the block after.
    let both: Vec<_> = there.iter().flatten().copied().collect();
    let [one, other] = [0, 1].map(|side| later.iter().map(|pair| pair[side]).collect::<Vec<_>>());
    for to in [both, one, other] {
        let list = transfers(&world, &senders, &to);
        take(&mut world, &ids, &list);
    }
}

/// Keys under one prefix of so many bits, spread below it.
fn under(bits: usize, count: u32) -> Model {
    let prefix = target();
    (0..count)
        .map(|number| {
            let mut key = *Hash::of("below", &[&number.to_le_bytes()]).as_bytes();
            for bit in 0..bits {
                let mask = 0x80 >> (bit % 8);
                key[bit / 8] = key[bit / 8] & !mask | prefix.as_bytes()[bit / 8] & mask;
            }
            (Hash::new(key), number.to_le_bytes().to_vec())
        })
        .collect()
}

/// For each length of prefix one key that leaves the target's path just there: the deepest tree.
fn along_one_path() -> Model {
    (0..=255_usize)
        .map(|bits| {
            let mut key = *target().as_bytes();
            key[bits / 8] ^= 0x80 >> (bits % 8);
            (Hash::new(key), vec![1])
        })
        .chain([(target(), vec![2])])
        .collect()
}

fn changes(model: &Model) -> Vec<Change> {
    model
        .iter()
        .map(|(key, value)| (*key, Some(LeafValue::of(value))))
        .collect()
}

fn after(mut tree: Tree, changes: &[Change]) -> Tree {
    let patch = tree.update(changes);
    tree.apply(&patch).expect("the patch is the tree's");
    tree
}

/// The tree of `first`, to which `second` is added, then changed in part, then removed.
fn check_tree(first: &Model, second: &Model) {
    let base = after(Tree::new(), &changes(first));
    assert_eq!(base.root(), naive_root(first));
    let mut both = first.clone();
    both.extend(second.clone());
    let added = changes(second);
    for pool in POOLS.iter() {
        let patch = pool.install(|| base.update(&added));
        assert_eq!((patch.root(), patch.len()), (naive_root(&both), both.len()));
    }
    let tree = after(base, &added);
    let root = tree.root();
    for (key, value) in &both {
        let proof = tree.prove(key);
        assert!(proof.verify(&root, key, Some(value)));
        assert!(!proof.verify(&root, key, None));
    }
    // Every third is changed, every third goes.
    let mut random = Random::new(11);
    let mut partly = Vec::new();
    for key in second.keys() {
        match random.below(3) {
            0 => {
                partly.push((*key, Some(LeafValue::of(b"changed"))));
                both.insert(*key, b"changed".to_vec());
            }
            1 if !first.contains_key(key) => {
                partly.push((*key, None));
                both.remove(key);
            }
            _ => {}
        }
    }
    let tree = after(tree, &partly);
    assert_eq!((tree.root(), tree.len()), (naive_root(&both), both.len()));
    let gone: Vec<_> = second
        .keys()
        .filter(|key| !first.contains_key(*key))
        .map(|key| (*key, None))
        .collect();
    assert_eq!(after(tree, &gone).len(), first.len());
}

#[test]
fn under_any_common_prefix_the_tree_is_its_definition() {
    let spread = under(0, 700);
    for bits in (16..=40).chain([63, 64, 65, 127, 200, 247, 255]) {
        let count = if bits == 255 { 2 } else { 300 };
        check_tree(&spread, &under(bits, count));
        check_tree(&under(bits, count), &spread);
    }
    let path = along_one_path();
    check_tree(&spread, &path);
    check_tree(&path, &spread);
    check_tree(&Model::new(), &path);
}

#[test]
fn ground_keys_take_no_more_memory_than_their_prefix_has_bits() {
    let on_one = |model: &Model| POOLS[0].install(|| after(Tree::new(), &changes(model)));
    let spread = on_one(&under(0, 4_000)).bytes();
    for bits in [16, 40, 200] {
        let ground = on_one(&under(bits, 4_000)).bytes();
        // One way down for all of them, with which a list of some thousand links may have doubled.
        assert!(
            ground < spread + 64 * bits + (1 << 14),
            "{bits} bits: {ground}, {spread}"
        );
    }
    // Two thousand pairs that share so many bits: a node for each bit of each, of 16 bytes or less.
    for bits in [16_usize, 24, 40] {
        let pairs: Model = under(0, 2_000)
            .into_iter()
            .flat_map(|(key, value)| {
                let mut other = *key.as_bytes();
                other[bits / 8] ^= 0x80 >> (bits % 8);
                [(key, value.clone()), (Hash::new(other), value)]
            })
            .collect();
        let tree = on_one(&pairs);
        assert_eq!(tree.root(), naive_root(&pairs));
        let most = spread + 2_000 * bits * 16;
        assert!(
            tree.bytes() <= most,
            "{bits} bits: {}, {most}",
            tree.bytes()
        );
    }
}
