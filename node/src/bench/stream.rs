//! A steady stream of blocks: each is verified and staged while the disk writes those before it.
//!
//! The blocks come from a chain that is ahead; a second store follows it. A segment of the stream ends
//! when its last block is durable, so the one write that nothing runs beside is counted in.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use proofmill_chain::pipeline::{SealedBlock, validate};
use proofmill_chain::types::block::Certificate;
use rayon::ThreadPool;

use crate::bench::BenchError;
use crate::bench::chain::{Chain, Made};
use crate::bench::ledger::Ledger;
use crate::bench::measure::{reference, timed};
use crate::bench::reference::{Signatures, bare_parsed};
use crate::bench::seen::Seen;
use crate::bench::verifier::Keys;
use crate::store::StoreError;

/// Segments of the stream, each beside its reference.
pub const SEGMENTS: u64 = 10;
/// Blocks of a segment.
const SEGMENT_BLOCKS: usize = 4;
/// Blocks that wait for the disk before the verification waits too.
const WAITING_MAX: usize = 1;

/// One segment; times in microseconds per block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Reference: the bare batch over the signatures of the segment's blocks, keys decompressed on the
    /// way.
    pub bare_parsed: f64,
    /// Ours: from the first block's bytes to the last one's durable commit, no key seen.
    pub durable: f64,
}

/// A store that follows a chain.
pub struct Stream {
    place: PathBuf,
    ledger: Ledger,
}

impl Stream {
    /// A store at the chain's genesis, in an empty directory.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn start(place: &Path, chain: &Chain) -> Result<Self, BenchError> {
        let ledger = Ledger::open(place, chain.workload().genesis())?;
        Ok(Self {
            place: place.to_owned(),
            ledger,
        })
    }

    /// Takes blocks in without measuring.
    ///
    /// # Errors
    /// When one is not valid or the disk fails.
    pub fn follow(&self, blocks: &[Made], pool: &ThreadPool) -> Result<(), BenchError> {
        run(&self.ledger, blocks, pool)
    }

    /// Closes the store, and opens it again from what is on the disk: every part of the state read, the
    /// tree built, its root compared with the header's. Gives the microseconds of opening.
    ///
    /// # Errors
    /// When it does not come back as it was.
    pub fn restart(self, chain: &Chain, pool: &ThreadPool) -> Result<f64, BenchError> {
        let Self { place, ledger } = self;
        let head = ledger.head();
        drop(ledger);
        let genesis = chain.workload().genesis();
        let (us, opened) = pool.install(|| timed(|| Ledger::open(&place, genesis)));
        if opened?.head() != head {
            return Err(BenchError::Restart);
        }
        Ok(us)
    }

    /// Has the chain make a segment's blocks, and measures them beside their reference.
    ///
    /// # Errors
    /// When one is not valid, the reference disagrees, or the disk fails.
    pub fn segment(&self, chain: &mut Chain, pool: &ThreadPool) -> Result<Segment, BenchError> {
        let blocks = (0..SEGMENT_BLOCKS)
            .map(|_| Ok(chain.advance()?.0))
            .collect::<Result<Vec<_>, BenchError>>()?;
        let genesis = self.ledger.genesis();
        let of = |made: &Made| Signatures::of(&made.block, genesis);
        let signatures: Vec<_> = blocks.iter().map(of).collect();
        let mut bare = 0.0;
        for signatures in &signatures {
            let items = signatures.items();
            bare += reference(pool, "bare, parsed", || bare_parsed(&items))?;
        }
        let (us, ran) = timed(|| run(&self.ledger, &blocks, pool));
        ran?;
        let count = blocks.len() as f64;
        Ok(Segment {
            bare_parsed: bare / count,
            durable: us / count,
        })
    }
}

/// Verifies and stages blocks on the pool while another thread makes them durable.
fn run(ledger: &Ledger, blocks: &[Made], pool: &ThreadPool) -> Result<(), BenchError> {
    std::thread::scope(|scope| {
        let (to_disk, waiting) =
            mpsc::sync_channel::<(Box<SealedBlock>, &Certificate)>(WAITING_MAX);
        let disk = scope.spawn(move || -> Result<(), StoreError> {
            waiting
                .into_iter()
                .try_for_each(|(sealed, certificate)| ledger.persist(&sealed, certificate))
        });
        let verified = blocks.iter().try_for_each(|made| {
            let keys = Keys::unseen();
            let sealed = ledger.with_context(&keys, &Seen::none(), |context| {
                pool.install(|| validate(&made.bytes, context))
            })?;
            ledger.stage(&sealed, &made.certificate)?;
            // Nobody takes it once the disk has failed; its error is told below.
            let _ = to_disk.send((Box::new(sealed), &made.certificate));
            Ok(())
        });
        drop(to_disk);
        match disk.join() {
            Ok(written) => written.map_err(BenchError::from).and(verified),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
