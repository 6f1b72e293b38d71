//! Many signatures at once: one equation per chunk, chunks in parallel.
//!
//! For claims i of a chunk and coefficients z the equation is
//! `[8](Σ z_i R_i + Σ z_i k_i A_i − Σ z_i s_i B) = 0`, one multi-scalar multiplication in which keys
//! that occur several times stand once. When it fails, the chunk's claims are checked one by one,
//! so that the verdicts never depend on how the signatures were cut into chunks.

use std::collections::BTreeMap;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSlice;
use sha2::{Digest, Sha256};

use super::{Claim, Item};

/// Most signatures in one equation.
pub const BATCH_CHUNK_MAX: usize = 1024;
/// Signatures below which another thread is not worth a smaller equation.
const BATCH_CHUNK_MIN: usize = 32;
/// Length of a coefficient: 128 bits, so that a wrong claim passes with probability 2^-128.
const COEFFICIENT_LEN: usize = 16;

/// Thirty-two random bytes of the node that no signer knows, drawn once when it starts.
///
/// They make the coefficients unpredictable and decide nothing else: the verdicts are the same
/// under every secret.
#[derive(Clone)]
pub struct BatchSecret([u8; 32]);

impl BatchSecret {
    /// Wraps random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl core::fmt::Debug for BatchSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BatchSecret")
    }
}

/// The verdict on each signature, in order: those of [`verify_each`](super::verify_each), faster,
/// on every thread of the pool.
#[must_use]
pub fn verify_batch(items: &[Item<'_>], secret: &BatchSecret) -> Vec<bool> {
    let size = chunk_size(items.len(), rayon::current_num_threads());
    let verdicts: Vec<_> = items
        .par_chunks(size)
        .map(|chunk| Chunk::parse(chunk).verdicts(chunk, secret))
        .collect();
    verdicts.concat()
}

/// Chunks of equal size, as many as a multiple of the threads, none too large or too small.
fn chunk_size(items: usize, threads: usize) -> usize {
    let threads = threads.max(1);
    let chunks = items
        .div_ceil(BATCH_CHUNK_MAX)
        .next_multiple_of(threads)
        .max(threads);
    items
        .div_ceil(chunks)
        .clamp(BATCH_CHUNK_MIN, BATCH_CHUNK_MAX)
}

/// A chunk's signatures, parsed.
struct Chunk {
    /// Each key once.
    keys: Vec<EdwardsPoint>,
    /// By item: its claim and the place of its key, `None` when either does not parse.
    claims: Vec<Option<(Claim, usize)>>,
}

impl Chunk {
    fn parse(items: &[Item<'_>]) -> Self {
        let mut keys = Vec::new();
        let mut places = BTreeMap::new();
        let claims = items
            .iter()
            .map(|item| {
                let place = (*places.entry(item.key).or_insert_with(|| {
                    let key = CompressedEdwardsY(*item.key).decompress()?;
                    keys.push(key);
                    keys.len().checked_sub(1)
                }))?;
                Some((Claim::parse(item)?, place))
            })
            .collect();
        Self { keys, claims }
    }

    fn verdicts(&self, items: &[Item<'_>], secret: &BatchSecret) -> Vec<bool> {
        if self.sum_holds(&self.seed(items, secret)) {
            return self.claims.iter().map(Option::is_some).collect();
        }
        self.claims
            .par_iter()
            .map(|claim| {
                claim
                    .as_ref()
                    .and_then(|(claim, place)| Some(claim.holds(self.keys.get(*place)?)))
                    .unwrap_or(false)
            })
            .collect()
    }

    /// What the coefficients come from: the node's secret and every claim of the chunk. A claim
    /// is bound by its key, R, s and k, and k binds the message.
    fn seed(&self, items: &[Item<'_>], secret: &BatchSecret) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"proofmill/batch/v1");
        hasher.update(secret.0);
        for (item, claim) in items.iter().zip(&self.claims) {
            if let Some((claim, _)) = claim {
                hasher.update(item.key);
                hasher.update(item.signature);
                hasher.update(claim.k.as_bytes());
            }
        }
        hasher.finalize().into()
    }

    fn sum_holds(&self, seed: &[u8; 32]) -> bool {
        let mut base = Scalar::ZERO;
        let mut of_keys = vec![Scalar::ZERO; self.keys.len()];
        let mut scalars = Vec::with_capacity(self.claims.len() + self.keys.len() + 1);
        let mut points = Vec::with_capacity(scalars.capacity());
        for ((claim, place), z) in self.claims.iter().flatten().zip(coefficients(seed)) {
            base -= z * claim.s;
            if let Some(of_key) = of_keys.get_mut(*place) {
                *of_key += z * claim.k;
            }
            scalars.push(z);
            points.push(claim.r);
        }
        scalars.extend(of_keys);
        points.extend(&self.keys);
        scalars.push(base);
        points.push(ED25519_BASEPOINT_POINT);
        EdwardsPoint::vartime_multiscalar_mul(scalars, points)
            .mul_by_cofactor()
            .is_identity()
    }
}

/// The coefficients that a seed stands for, two from each hash.
fn coefficients(seed: &[u8; 32]) -> impl Iterator<Item = Scalar> {
    let seed = *seed;
    (0_u64..).flat_map(move |counter| {
        let mut hasher = Sha256::new();
        hasher.update(b"proofmill/batch-coefficient/v1");
        hasher.update(seed);
        hasher.update(counter.to_le_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let (low, high) = hash.split_at(COEFFICIENT_LEN);
        [low, high].map(|half| {
            let mut bytes = [0; 32];
            bytes[..COEFFICIENT_LEN].copy_from_slice(half);
            Scalar::from_bytes_mod_order(bytes)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{BATCH_CHUNK_MAX, BATCH_CHUNK_MIN, chunk_size, coefficients};

    #[test]
    fn chunks_keep_every_thread_at_work_and_stay_within_limits() {
        for threads in 1..9 {
            for items in 0..5000 {
                let size = chunk_size(items, threads);
                assert!((BATCH_CHUNK_MIN..=BATCH_CHUNK_MAX).contains(&size));
                let chunks = items.div_ceil(size);
                assert!(
                    chunks >= threads || size == BATCH_CHUNK_MIN || items < threads * size,
                    "{items} on {threads}"
                );
            }
        }
        assert_eq!(chunk_size(10_000, 2), 1000);
        assert_eq!(chunk_size(100, 2), 50);
    }

    #[test]
    fn coefficients_differ_and_have_128_bits() {
        let mut seen: Vec<_> = [[1; 32], [2; 32]]
            .iter()
            .flat_map(|seed| coefficients(seed).take(500))
            .map(|scalar| scalar.to_bytes())
            .collect();
        assert!(seen.iter().all(|bytes| bytes[16..] == [0; 16]));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
