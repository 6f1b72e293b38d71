//! Transactions and attestations that wait for a block.
//!
//! Nothing here does I/O or reads a clock: heights and account states are arguments. What comes in
//! has valid signatures already. Order never depends on hashing: equal calls give equal pools.

mod attestations;
mod entry;
mod error;
mod pool;
#[cfg(test)]
mod tests;

use proofmill_chain::types::transaction::TRANSACTION_BYTES_MAX;

pub use self::attestations::{AttestationError, AttestationLimits, AttestationPool};
pub use self::error::InsertError;
pub use self::pool::{Mempool, MempoolLimits, PoolCandidates, Preview};

/// Most bytes of transactions that wait.
pub const MEMPOOL_BYTES_MAX: usize = 64 << 20;
/// Most transactions that wait.
pub const MEMPOOL_TRANSACTIONS_MAX: usize = 50_000;
/// Most transactions of one sender that wait.
pub const PER_SENDER_MAX: usize = 1_000;
/// Most bytes of transactions of one sender that wait: as much as a block holds, a sixteenth of the pool. The
/// largest transaction must fit.
pub const PER_SENDER_BYTES_MAX: usize = MEMPOOL_BYTES_MAX / 16;
const _: () = assert!(PER_SENDER_BYTES_MAX >= TRANSACTION_BYTES_MAX);
/// By how many hundredths a replacement's tip must be higher at least.
pub const REPLACEMENT_TIP_PERCENT: u64 = 10;
/// Most attestations of one worker for seats that it does not hold yet, or that wait for others to commit.
pub const ATTESTATIONS_EARLY_PER_WORKER: usize = 16;
/// For how many blocks an attestation may be early.
pub const ATTESTATIONS_EARLY_BLOCKS: u64 = 16;
/// Most attestations that wait.
pub const ATTESTATIONS_MAX: usize = 8_192;
/// Most bytes of attestations, outputs included, that wait.
pub const ATTESTATION_POOL_BYTES_MAX: usize = 64 << 20;
