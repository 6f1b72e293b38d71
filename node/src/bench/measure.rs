//! The clock: one block, stage by stage, next to its references.
//!
//! A pair is a reference and ours, one right after the other on the same block. Everything that a
//! node keeps from block to block is new where a row says so: a new verifier has seen no key.

use std::time::Instant;

use proofmill_chain::pipeline::{
    BlockError, Context, SealedBlock, check, decode, execute, seal, validate, verify,
};
use rayon::ThreadPool;

use crate::bench::chain::{Chain, Made};
use crate::bench::ledger::{Ledger, patch_of};
use crate::bench::reference::{Signatures, bare_cached, bare_parsed, naive, points};
use crate::bench::seen::Seen;
use crate::bench::stream::Segment;
use crate::bench::verifier::Keys;
use crate::bench::{BenchError, Options};

/// The stages that need no disk, in their order.
pub const STAGES: [&str; 5] = ["decode", "check", "verify", "execute", "seal"];

/// Time of each stage of one block when one follows the other, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way(pub [f64; STAGES.len()]);

impl Way {
    /// The stage that verifies signatures.
    #[must_use]
    pub const fn signatures(&self) -> f64 {
        self.0[2]
    }
}

/// One round of pairs on one block; all times in microseconds for the whole block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    /// Reference: signature by signature.
    pub naive: f64,
    /// Ours next to it.
    pub beside_naive: Way,
    /// Reference: the bare batch, keys decompressed on the way.
    pub bare_parsed: f64,
    /// Ours next to it, stage by stage, with a verifier that has seen no key.
    pub ours: Way,
    /// The reference again.
    pub bare_parsed_again: f64,
    /// Ours next to that: the whole block as a node validates it, no key seen.
    pub block: f64,
    /// Reference: the bare batch, keys decompressed before.
    pub bare_cached: f64,
    /// Ours next to it, stage by stage, with a verifier that has seen every key.
    pub ours_cached: Way,
    /// The reference again.
    pub bare_cached_again: f64,
    /// Ours next to that: the whole block, every key seen.
    pub block_cached: f64,
    /// The chain's batch alone, on the references' items, keys not seen and seen.
    pub batch: f64,
    /// As `batch`, keys seen.
    pub batch_cached: f64,
    /// As `ours`, on one thread.
    pub ours_one: Way,
    /// The bare batch, keys decompressed on the way, on one thread.
    pub bare_one: f64,
    /// As `block`, on one thread.
    pub block_one: f64,
    /// The whole block, no transaction seen before.
    pub unseen: f64,
    /// The whole block, every transaction seen before.
    pub seen: f64,
    /// The new state root alone.
    pub root: f64,
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Pairs, in the order of time.
    pub pairs: Vec<Pair>,
    /// By block: the durable commit, microseconds.
    pub commits: Vec<f64>,
    /// The stream, segment after segment.
    pub segments: Vec<Segment>,
    /// Opening the stream's store again, microseconds.
    pub restart: f64,
    /// By block: how many signatures it has.
    pub signatures: Vec<usize>,
    /// By block: its bytes.
    pub bytes: Vec<usize>,
    /// The arithmetic that verified.
    pub backend: String,
}

/// The threads and what is the same for every block.
pub struct Rig {
    all: ThreadPool,
    one: ThreadPool,
    pairs_per_block: usize,
    seen: bool,
}

impl Rig {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none.
    pub fn new(options: &Options) -> Result<Self, BenchError> {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Ok(Self {
            all: pool(options.threads)?,
            one: pool(1)?,
            pairs_per_block: options.pairs_per_block(),
            seen: options.seen == 100,
        })
    }

    /// All threads.
    #[must_use]
    pub const fn pool(&self) -> &ThreadPool {
        &self.all
    }

    /// Makes the chain's next block, measures it and commits it.
    ///
    /// # Errors
    /// When the block is not valid, a reference disagrees, or the disk fails.
    pub fn measure(&self, chain: &mut Chain, into: &mut Measured) -> Result<Made, BenchError> {
        let made = chain.make()?;
        let signatures = Signatures::of(&made.block, chain.ledger().genesis());
        let mut sealed = None;
        for _ in 0..self.pairs_per_block {
            // Dropped before the next round is timed.
            drop(sealed.take());
            let (pair, last) = self.pair(chain.ledger(), &made, &signatures)?;
            into.pairs.push(pair);
            sealed = Some(last);
        }
        into.signatures.push(signatures.len());
        into.bytes.push(made.bytes.len());
        into.backend = Keys::unseen().backend();
        if let Some(sealed) = sealed {
            let ledger = chain.ledger();
            let (commit_us, committed) = self
                .all
                .install(|| timed(|| ledger.commit(&sealed, &made.certificate)));
            committed?;
            into.commits.push(commit_us);
            chain.committed(&made.block, &made.certificate);
        }
        Ok(made)
    }

    fn pair(
        &self,
        ledger: &Ledger,
        made: &Made,
        signatures: &Signatures,
    ) -> Result<(Pair, SealedBlock), BenchError> {
        let mut pair = Pair::default();
        let items = signatures.items();
        let keys_of_items = points(&items).ok_or(BenchError::Reference("decompress"))?;
        let all = Seen::all_of(&made.block);
        let usual = if self.seen { &all } else { &Seen::none() };
        let whole = |pool: &ThreadPool, keys: &Keys, seen: &Seen| {
            ledger.with_context(keys, seen, |context| {
                let (us, sealed) = pool.install(|| timed(|| validate(&made.bytes, context)));
                Ok::<_, BlockError>((us, sealed?))
            })
        };
        let staged = |pool: &ThreadPool, keys: &Keys, seen: &Seen| {
            ledger.with_context(keys, seen, |context| pool.install(|| walk(made, context)))
        };

        pair.naive = reference(&self.all, "naive", || naive(&items))?;
        pair.beside_naive = staged(&self.all, &Keys::unseen(), usual)?;

        let bare = || bare_parsed(&items);
        pair.bare_parsed = reference(&self.all, "bare, parsed", bare)?;
        pair.ours = staged(&self.all, &Keys::unseen(), usual)?;
        pair.bare_parsed_again = reference(&self.all, "bare, parsed", bare)?;
        let keys = Keys::unseen();
        (pair.block, _) = whole(&self.all, &keys, usual)?;

        let cached = || bare_cached(&items, &keys_of_items);
        pair.bare_cached = reference(&self.all, "bare, cached", cached)?;
        // The same verifier again: it has seen every key of this block.
        pair.ours_cached = staged(&self.all, &keys, usual)?;
        pair.bare_cached_again = reference(&self.all, "bare, cached", cached)?;
        (pair.block_cached, _) = whole(&self.all, &keys, usual)?;

        let fresh = Keys::unseen();
        let batch = |keys: &Keys| keys.batch(&items).iter().all(|valid| *valid);
        pair.batch = reference(&self.all, "batch", || batch(&fresh))?;
        pair.batch_cached = reference(&self.all, "batch, cached", || batch(&fresh))?;

        pair.ours_one = staged(&self.one, &Keys::unseen(), usual)?;
        pair.bare_one = reference(&self.one, "bare, one thread", bare)?;
        (pair.block_one, _) = whole(&self.one, &Keys::unseen(), usual)?;

        (pair.unseen, _) = whole(&self.all, &Keys::unseen(), &Seen::none())?;
        let sealed;
        (pair.seen, sealed) = whole(&self.all, &Keys::unseen(), &all)?;

        let writes = &sealed.effects().writes;
        let (root_us, patch) = ledger.with_context(&keys, usual, |context| {
            self.all.install(|| timed(|| patch_of(context, writes)))
        });
        if patch.root() != made.block.header.state_root {
            return Err(BenchError::Reference("root"));
        }
        pair.root = root_us;
        Ok((pair, sealed))
    }
}

/// Times a check that must succeed.
pub(super) fn reference(
    pool: &ThreadPool,
    name: &'static str,
    holds: impl Fn() -> bool + Sync,
) -> Result<f64, BenchError> {
    let (us, holds) = pool.install(|| timed(&holds));
    if holds {
        Ok(us)
    } else {
        Err(BenchError::Reference(name))
    }
}

/// A block's way but the disk, one stage after the other, each timed.
fn walk(made: &Made, context: &Context<'_>) -> Result<Way, BlockError> {
    let (decode_us, block) = timed(|| decode(&made.bytes, context.rules));
    let block = block?;
    let (check_us, checked) = timed(|| check(block, context));
    let checked = checked?;
    let (verify_us, verified) = timed(|| verify(checked, context));
    let verified = verified?;
    let (execute_us, executed) = timed(|| execute(verified, context));
    let executed = executed?;
    let (seal_us, sealed) = timed(|| seal(executed, context));
    sealed?;
    Ok(Way([decode_us, check_us, verify_us, execute_us, seal_us]))
}

pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64() * 1e6, result)
}
