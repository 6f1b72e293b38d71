//! The way of a block, stage by stage and whole, beside the references of `proofmill bench verify`.
//!
//! Names are `group/op/key=value`; the one-thread row stands beside the row of all threads. Each
//! bench asserts its answer outside the timed loop. `make bench ARGS="-- verify"` runs a part.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use proofmill_benches::{Fixture, pools};
use proofmill_chain::pipeline::{
    Context, SealedBlock, check, decode, execute, seal, validate, verify, verify_and_execute,
};
use proofmill_chain::tree::{Change, LeafValue, Tree};
use proofmill_chain::types::hash::Hash;
use proofmill_node::bench::ledger::{Ledger, patch_of};
use proofmill_node::bench::reference::{Signatures, bare_cached, bare_parsed, naive, points};
use proofmill_node::bench::seen::Seen;
use proofmill_node::bench::verifier::Keys;
use proofmill_node::bench::workload::Pattern;
use rayon::ThreadPool;

/// Leaves of the tree beside those of ground keys.
const LEAVES: u32 = 100_000;
/// Keys that somebody ground, whose values all change.
const GROUND: u32 = 10_000;
/// Bits that the ground keys share. Keys are hashes: n bits cost 2^n of them for each key under one
/// prefix, and some 2^(n/2) for a first pair, so that 64 are in reach for pairs and 200 for nobody.
const SHARED: [usize; 4] = [0, 24, 64, 200];
/// Accounts in the state.
const ACCOUNTS: usize = 20_000;
/// Transactions in a block.
const SIZES: [usize; 2] = [1_000, 10_000];
/// Transactions in a block of the patterns that are measured whole only.
const SIZE_OF_PATTERNS: usize = 2_000;
const SAMPLES: usize = 10;

fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    threads: usize,
    size: usize,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("{name}/threads={threads}"));
    group.sample_size(SAMPLES);
    group.throughput(Throughput::Elements(size as u64));
    group
}

fn id(operation: &str, size: usize) -> BenchmarkId {
    BenchmarkId::new(operation, format!("transfers={size}"))
}

/// Every stage that needs no disk, with a verifier that has seen the keys.
fn stages(criterion: &mut Criterion) {
    for size in SIZES {
        let fixture = Fixture::new(Pattern::Uniform, ACCOUNTS, size);
        let ledger = fixture.chain.ledger();
        ledger.with_context(&Keys::unseen(), &Seen::none(), |context| {
            for (threads, pool) in pools() {
                let group = group(criterion, "block", threads, size);
                stages_of(group, &pool, &fixture, context, size);
            }
        });
    }
}

fn stages_of(
    mut group: BenchmarkGroup<'_, WallTime>,
    pool: &ThreadPool,
    fixture: &Fixture,
    context: &Context<'_>,
    size: usize,
) {
    let made = &fixture.made;
    let block = decode(&made.bytes, context.rules).expect("built blocks decode");
    assert_eq!(*block.block(), made.block);
    let checked = check(block.clone(), context).expect("built blocks agree with themselves");
    let verified = verify(checked.clone(), context).expect("built blocks are signed");
    let executed = execute(verified.clone(), context).expect("built blocks execute");
    let sealed = seal(executed.clone(), context).expect("built blocks have their roots");
    assert_eq!(sealed.hash(), made.hash);
    assert_eq!(sealed.effects().receipts.len(), size);
    let writes = &sealed.effects().writes;
    assert_eq!(
        patch_of(context, writes).root(),
        made.block.header.state_root
    );

    let bytes = &made.bytes;
    group.bench_function(id("decode", size), |b| {
        b.iter(|| decode(black_box(bytes), context.rules).expect("asserted above"));
    });
    macro_rules! stage {
        ($name:literal, $input:expr, $stage:expr) => {
            group.bench_function(id($name, size), |b| {
                b.iter_batched(
                    || $input.clone(),
                    |input| {
                        pool.install(|| $stage(input, context))
                            .expect("asserted above")
                    },
                    BatchSize::LargeInput,
                );
            });
        };
    }
    stage!("check", block, check);
    stage!("verify", checked, verify);
    stage!("execute", verified, execute);
    stage!("verify_and_execute", checked, verify_and_execute);
    stage!("seal", executed, seal);
    group.bench_function(id("root", size), |b| {
        b.iter_with_large_drop(|| pool.install(|| patch_of(context, black_box(writes))));
    });
    group.bench_function(id("whole", size), |b| {
        b.iter(|| {
            pool.install(|| validate(black_box(bytes), context))
                .expect("asserted above")
        });
    });
    group.finish();
}

/// The signatures of a block alone: the chain's batch and the references.
fn signatures(criterion: &mut Criterion) {
    for size in SIZES {
        let fixture = Fixture::new(Pattern::Uniform, ACCOUNTS, size);
        let genesis = fixture.chain.ledger().genesis();
        let signatures = Signatures::of(&fixture.made.block, genesis);
        let items = signatures.items();
        let keys = points(&items).expect("accounts are points");
        let seen = Keys::unseen();
        assert!(seen.batch(&items).iter().all(|valid| *valid));
        assert!(bare_parsed(&items) && bare_cached(&items, &keys) && naive(&items));
        for (threads, pool) in pools() {
            let mut group = group(criterion, "signatures", threads, size);
            group.bench_function(id("batch-keys-unseen", size), |b| {
                b.iter_batched(
                    Keys::unseen,
                    |keys| pool.install(|| keys.batch(black_box(&items))),
                    BatchSize::PerIteration,
                );
            });
            group.bench_function(id("batch-keys-seen", size), |b| {
                b.iter(|| pool.install(|| seen.batch(black_box(&items))));
            });
            group.bench_function(id("bare-parsed", size), |b| {
                b.iter(|| pool.install(|| bare_parsed(black_box(&items))));
            });
            group.bench_function(id("bare-cached", size), |b| {
                b.iter(|| pool.install(|| bare_cached(black_box(&items), &keys)));
            });
            group.bench_function(id("one-by-one", size), |b| {
                b.iter(|| pool.install(|| naive(black_box(&items))));
            });
            group.finish();
        }
    }
}

/// Whole blocks of every pattern.
fn patterns(criterion: &mut Criterion) {
    for pattern in [
        Pattern::Uniform,
        Pattern::Zipf,
        Pattern::Mixed,
        Pattern::OneRecipient,
    ] {
        let fixture = Fixture::new(pattern, ACCOUNTS, SIZE_OF_PATTERNS);
        let ledger = fixture.chain.ledger();
        let bytes = &fixture.made.bytes;
        ledger.with_context(&Keys::unseen(), &Seen::none(), |context| {
            let sealed = validate(bytes, context).expect("built blocks are valid");
            assert_eq!(sealed.hash(), fixture.made.hash);
            for (threads, pool) in pools() {
                let mut group = group(criterion, "pattern", threads, SIZE_OF_PATTERNS);
                let txs = format!("transactions={SIZE_OF_PATTERNS}");
                group.bench_function(BenchmarkId::new(pattern.name(), txs), |b| {
                    b.iter(|| {
                        pool.install(|| validate(black_box(bytes), context))
                            .expect("asserted above")
                    });
                });
                group.finish();
            }
        });
    }
}

/// The durable commit: one synced batch into a fresh RocksDB.
fn commit(criterion: &mut Criterion) {
    for size in SIZES {
        let fixture = Fixture::new(Pattern::Uniform, ACCOUNTS, size);
        let genesis = fixture.chain.workload().genesis();
        let fresh = || {
            let home = tempfile::tempdir().expect("a directory");
            let ledger = Ledger::open(home.path(), genesis).expect("a fresh store opens");
            (home, ledger)
        };
        let made = &fixture.made;
        let seal = |ledger: &Ledger| -> SealedBlock {
            ledger
                .with_context(&Keys::unseen(), &Seen::none(), |context| {
                    validate(&made.bytes, context)
                })
                .expect("built blocks are valid")
        };
        let mut group = criterion.benchmark_group("block/durable");
        group.sample_size(SAMPLES);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(id("commit", size), |b| {
            b.iter_batched(
                || {
                    let (home, ledger) = fresh();
                    let sealed = seal(&ledger);
                    (home, ledger, sealed)
                },
                |(home, ledger, sealed)| {
                    ledger
                        .commit(&sealed, &made.certificate)
                        .expect("the block follows genesis");
                    // Closed outside the measured time.
                    (home, ledger, sealed)
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
        let (_home, ledger) = fresh();
        ledger
            .commit(&seal(&ledger), &made.certificate)
            .expect("the block follows genesis");
        assert_eq!(ledger.head().hash, made.hash);
    }
}

/// A key whose first bits are those of another.
fn sharing(key: Hash, other: &Hash, bits: usize) -> Hash {
    let mut bytes = *key.as_bytes();
    for bit in 0..bits {
        let mask = 0x80 >> (bit % 8);
        bytes[bit / 8] = bytes[bit / 8] & !mask | other.as_bytes()[bit / 8] & mask;
    }
    Hash::new(bytes)
}

/// Keys that share so many bits, all of them or each with one other.
fn ground(bits: usize, paired: bool) -> Vec<Hash> {
    let prefix = Hash::of("bench/prefix", &[]);
    let mut keys: Vec<Hash> = (0..GROUND)
        .map(|number| {
            let own = Hash::of("bench/ground", &[&number.to_le_bytes()]);
            let pair = Hash::of("bench/pair", &[&(number / 2).to_le_bytes()]);
            sharing(own, if paired { &pair } else { &prefix }, bits)
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// The new root, and reading them before, when all changed keys were ground to share a prefix, beside
/// keys that were not: all that an adversary's choice of keys can make a block cost.
fn ground_keys(criterion: &mut Criterion) {
    let cases = SHARED
        .into_iter()
        .flat_map(|bits| [(bits, false), (bits, true)]);
    for (bits, paired) in cases.skip(1) {
        let keys = ground(bits, paired);
        let spread = (0..LEAVES).map(|number| Hash::of("bench/leaf", &[&number.to_le_bytes()]));
        let mut leaves: Vec<_> = spread
            .chain(keys.iter().copied())
            .map(|key| (key, LeafValue::of(b"before")))
            .collect();
        leaves.sort_unstable_by_key(|(key, _)| *key);
        let tree = Tree::from_leaves(&leaves).expect("there is room");
        let changes: Vec<Change> = keys
            .iter()
            .map(|key| (*key, Some(LeafValue::of(b"after"))))
            .collect();
        let expected = tree.update(&changes).root();
        let before = LeafValue::of(b"before").hash();
        for (threads, pool) in pools() {
            assert_eq!(pool.install(|| tree.update(&changes)).root(), expected);
            let mut group = criterion.benchmark_group(format!("root/threads={threads}"));
            group.sample_size(SAMPLES);
            group.throughput(Throughput::Elements(u64::from(GROUND)));
            let how = if paired { "pairs" } else { "all" };
            group.bench_function(BenchmarkId::new(how, format!("shared-bits={bits}")), |b| {
                b.iter_with_large_drop(|| pool.install(|| tree.update(black_box(&changes))));
            });
            group.finish();
            let found = pool.install(|| tree.read_many(&keys));
            assert!(found.iter().all(|found| found.hash() == Some(before)));
            let mut group = criterion.benchmark_group(format!("read/threads={threads}"));
            group.sample_size(SAMPLES);
            group.throughput(Throughput::Elements(u64::from(GROUND)));
            group.bench_function(BenchmarkId::new(how, format!("shared-bits={bits}")), |b| {
                b.iter_with_large_drop(|| pool.install(|| tree.read_many(black_box(&keys))));
            });
            group.finish();
        }
    }
}

criterion_group!(benches, stages, signatures, patterns, ground_keys, commit);
criterion_main!(benches);
