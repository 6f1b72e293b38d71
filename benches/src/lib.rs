//! What the benchmarks share: a chain of `node::bench` with its next block, and pools of threads.

use proofmill_node::bench::chain::{Chain, Made};
use proofmill_node::bench::workload::{Pattern, Shape, Workload};
use tempfile::TempDir;

/// A chain at its genesis and the block that follows.
pub struct Fixture {
    /// The chain.
    pub chain: Chain,
    /// Its first block, not yet committed.
    pub made: Made,
    _place: TempDir,
}

impl Fixture {
    /// A chain with so many accounts, and a block with so many transactions.
    ///
    /// # Panics
    /// When the block does not fit or the disk fails: then there is nothing to measure.
    #[must_use]
    pub fn new(pattern: Pattern, accounts: usize, txs: usize) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let shape = Shape {
            pattern,
            accounts,
            txs,
        };
        let quiet = |_, _, _| {};
        let workload = Workload::new(shape, &quiet);
        let mut chain = Chain::start(place.path(), workload, &quiet).expect("a chain");
        let made = chain.make().expect("a block of the whole shape");
        Self {
            chain,
            made,
            _place: place,
        }
    }
}

/// A pool of one thread, and one of as many as the machine has, with their numbers.
///
/// # Panics
/// When the system gives no threads.
#[must_use]
pub fn pools() -> Vec<(usize, rayon::ThreadPool)> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
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
