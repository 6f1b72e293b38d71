//! The way of a block, stage by stage and whole, for blocks of 1,000 and 10,000 transfers.
//!
//! Names are `group/op/key=value`; the one-thread row stands beside the row of all threads. Each
//! bench asserts its answer outside the timed loop.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proofmill_benches::World;
use proofmill_chain::crypto::verify::{Item, verify_batch};
use proofmill_chain::pipeline::{check, decode, execute, seal, tree_after, validate, verify};
use proofmill_node::store::{CommitBatch, Store};

/// Accounts in the state.
const ACCOUNTS: usize = 20_000;
/// Transfers in a block.
const SIZES: [usize; 2] = [1_000, 10_000];

fn pools() -> Vec<(usize, rayon::ThreadPool)> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1];
    if all > 1 {
        counts.push(all);
    }
    counts
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool of threads");
            (threads, pool)
        })
        .collect()
}

fn stages(criterion: &mut Criterion) {
    let world = World::new(ACCOUNTS);
    let context = world.context();
    for size in SIZES {
        let (bytes, hash) = world.block(size);
        let block = decode(&bytes, context.params).expect("built blocks decode");
        let checked = check(block.clone(), &context).expect("built blocks agree with themselves");
        let verified = verify(checked.clone(), &context).expect("built blocks are signed");
        let executed = execute(verified.clone(), &context).expect("built blocks execute");
        let sealed = seal(executed.clone(), &context).expect("built blocks have their roots");
        assert_eq!(sealed.hash(), hash);
        assert_eq!(sealed.effects().receipts.len(), size);
        let writes = &sealed.effects().writes;
        assert_eq!(tree_after(&world.tree, writes).root(), sealed.tree().root());

        let messages: Vec<_> = block
            .transactions
            .iter()
            .map(|signed| signed.transaction.sign_bytes(&world.hash))
            .collect();
        let items: Vec<_> = block
            .transactions
            .iter()
            .zip(&messages)
            .map(|(signed, message)| Item {
                key: signed.transaction.sender.as_bytes(),
                message,
                signature: signed.signature.as_bytes(),
            })
            .collect();
        assert!(
            verify_batch(&items, world.secret())
                .iter()
                .all(|valid| *valid)
        );

        for (threads, pool) in pools() {
            let mut group = criterion.benchmark_group(format!("block/threads={threads}"));
            group.sample_size(10);
            group.throughput(Throughput::Elements(size as u64));
            let id = |stage: &str| BenchmarkId::new(stage, format!("transfers={size}"));
            group.bench_function(id("decode"), |b| {
                b.iter(|| decode(black_box(&bytes), context.params).expect("asserted above"));
            });
            group.bench_function(id("check"), |b| {
                b.iter_batched(
                    || block.clone(),
                    |block| {
                        pool.install(|| check(block, &context))
                            .expect("asserted above")
                    },
                    BatchSize::LargeInput,
                );
            });
            group.bench_function(id("signatures"), |b| {
                b.iter(|| pool.install(|| verify_batch(black_box(&items), world.secret())));
            });
            group.bench_function(id("verify"), |b| {
                b.iter_batched(
                    || checked.clone(),
                    |checked| {
                        pool.install(|| verify(checked, &context))
                            .expect("asserted above")
                    },
                    BatchSize::LargeInput,
                );
            });
            group.bench_function(id("execute"), |b| {
                b.iter_batched(
                    || verified.clone(),
                    |block| {
                        pool.install(|| execute(block, &context))
                            .expect("asserted above")
                    },
                    BatchSize::LargeInput,
                );
            });
            group.bench_function(id("root"), |b| {
                b.iter(|| pool.install(|| tree_after(&world.tree, black_box(writes)).root()));
            });
            group.bench_function(id("whole"), |b| {
                b.iter(|| {
                    pool.install(|| validate(black_box(&bytes), &context))
                        .expect("asserted above")
                });
            });
            group.finish();
        }
        commit(criterion, &world, &sealed, size);
    }
}

/// The durable commit: one synced batch into a fresh RocksDB.
fn commit(
    criterion: &mut Criterion,
    world: &World,
    sealed: &proofmill_chain::pipeline::SealedBlock,
    size: usize,
) {
    let certificate = world.certificate(sealed.hash());
    let mut group = criterion.benchmark_group("block/durable");
    group.sample_size(10);
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(
        BenchmarkId::new("commit", format!("transfers={size}")),
        |b| {
            b.iter_batched(
                || {
                    let home = tempfile::tempdir().expect("a directory");
                    let store =
                        Store::open(home.path(), &world.genesis).expect("a fresh store opens");
                    (home, store)
                },
                |(home, store)| {
                    let effects = sealed.effects();
                    store
                        .commit(CommitBatch {
                            hash: sealed.hash(),
                            block: sealed.block(),
                            certificate: &certificate,
                            receipts: &effects.receipts,
                            writes: &effects.writes,
                            tree: sealed.tree().clone(),
                            blobs: effects.blobs.clone(),
                        })
                        .expect("the block follows genesis");
                    // Closed outside the measured time.
                    (home, store)
                },
                BatchSize::PerIteration,
            );
        },
    );
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
