//! Many signatures at once: one equation per chunk, chunks in parallel.
//!
//! For claims i of a chunk and coefficients z the equation is
//! `[8](Σ z_i R_i + Σ z_i k_i A_i − Σ z_i s_i B) = 0`, one multi-scalar multiplication in which keys
//! that occur several times stand once (Bernstein, Duif, Lange, Schwabe and Yang, "High-speed
//! high-security signatures", §5). When it fails, the chunk's claims are checked one by one, so
//! that the verdicts never depend on how the signatures were cut into chunks.

use curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED;
use curve25519_dalek::scalar::Scalar;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSlice;
use sha2::{Digest, Sha256};

use super::keys::{Hashed, KeyCache};
use super::portable::signed;
use super::{Item, verify};

/// Most signatures in one equation.
pub const BATCH_CHUNK_MAX: usize = 1024;
/// Signatures below which another thread is not worth a smaller equation.
const BATCH_CHUNK_MIN: usize = 32;

/// Thirty-two random bytes of the node that no signer knows, drawn once when it starts.
///
/// They make the coefficients unpredictable and decide nothing else: the verdicts are the same
/// under every secret.
#[derive(Clone)]
pub struct BatchSecret(pub(super) [u8; 32]);

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

/// Arithmetic of a batch. Every implementation gives the same answers.
pub(super) trait Engine: Copy + Sync {
    /// A point of the curve.
    type Point: Copy + Send + Sync;

    /// The points of encodings by the rules of ZIP-215, `None` where there is none.
    fn decompress(self, encodings: &[&[u8; 32]]) -> Vec<Option<Self::Point>>;

    /// SHA-512(R ‖ A ‖ message) of each.
    fn hash(self, preimages: &[Preimage<'_>]) -> Vec<[u8; 64]>;

    /// Whether `[8](Σ short_i P_i + Σ long_i Q_i)` is the neutral point, where the points are
    /// first all P, then all Q.
    fn sum_is_small(self, points: Vec<Self::Point>, short: &[i128], long: &[Scalar]) -> bool;
}

/// What a signature's challenge is the hash of.
pub(super) struct Preimage<'a> {
    pub(super) r: &'a [u8; 32],
    pub(super) key: &'a [u8; 32],
    pub(super) message: &'a [u8],
}

/// Equations of one engine, and the keys it has seen.
pub(super) struct Batches<E: Engine> {
    engine: E,
    secret: BatchSecret,
    base: E::Point,
    keys: KeyCache<E::Point>,
}

/// What a signature claims of its key A: `[8]sB = [8]R + [8]kA`.
struct Claim<P> {
    /// Index of the item.
    item: usize,
    /// Index of A among the chunk's keys.
    key: usize,
    r: P,
    s: Scalar,
    k: Scalar,
}

/// A chunk's signatures, parsed.
struct Chunk<'a, P> {
    /// Each key once, with its point if it has one.
    keys: Vec<(Hashed<'a>, Option<P>)>,
    /// How many of the keys, and which, were not known before.
    new: Vec<usize>,
    /// The signatures that parse.
    claims: Vec<Claim<P>>,
}

impl<E: Engine> Batches<E> {
    /// Equations with coefficients from a secret, and room for so many keys.
    pub(super) fn new(engine: E, secret: BatchSecret, keys_max: usize) -> Self {
        let base = engine
            .decompress(&[ED25519_BASEPOINT_COMPRESSED.as_bytes()])
            .pop()
            .flatten()
            .expect("the base point is a point");
        let keys = KeyCache::new(&secret, keys_max, base);
        Self {
            engine,
            secret,
            base,
            keys,
        }
    }

    /// The verdict on each signature, in order, on every thread of the pool.
    pub(super) fn verify(&self, items: &[Item<'_>]) -> Vec<bool> {
        let size = chunk_size(items.len(), rayon::current_num_threads());
        if items.len() <= size {
            return self.verdicts(items);
        }
        let verdicts: Vec<_> = items
            .par_chunks(size)
            .map(|chunk| self.verdicts(chunk))
            .collect();
        verdicts.concat()
    }

    /// Whether a key's point is in memory.
    pub(super) fn knows(&self, key: &[u8; 32]) -> bool {
        self.keys.find(self.keys.hashed(key)).is_some()
    }

    /// Whether each key is a point, in whatever encoding; those that are will be known.
    pub(super) fn are_points(&self, keys: &[&[u8; 32]]) -> Vec<bool> {
        let verdicts: Vec<_> = keys
            .par_chunks(BATCH_CHUNK_MAX)
            .map(|chunk| {
                let mut keys: Vec<_> = chunk
                    .iter()
                    .map(|key| {
                        let hashed = self.keys.hashed(key);
                        (hashed, self.keys.find(hashed))
                    })
                    .collect();
                for index in self.decompress_missing(&mut keys) {
                    if let Some((hashed, Some(point))) = keys.get(index) {
                        self.keys.insert(*hashed, *point);
                    }
                }
                keys.iter().map(|(_, point)| point.is_some()).collect()
            })
            .collect::<Vec<Vec<bool>>>();
        verdicts.concat()
    }

    /// Decompresses the keys without a point; returns their indices.
    fn decompress_missing(&self, keys: &mut [(Hashed<'_>, Option<E::Point>)]) -> Vec<usize> {
        let missing: Vec<usize> = (0..)
            .zip(keys.iter())
            .filter(|(_, (_, point))| point.is_none())
            .map(|(index, _)| index)
            .collect();
        let encodings: Vec<_> = missing.iter().map(|index| keys[*index].0.key).collect();
        for (index, point) in missing.iter().zip(self.engine.decompress(&encodings)) {
            keys[*index].1 = point;
        }
        missing
    }

    fn verdicts(&self, items: &[Item<'_>]) -> Vec<bool> {
        let chunk = self.parse(items);
        let verdicts = if self.sum_holds(&chunk) {
            let mut verdicts = vec![false; items.len()];
            for claim in &chunk.claims {
                verdicts[claim.item] = true;
            }
            verdicts
        } else {
            items.par_iter().map(verify).collect()
        };
        self.remember(&chunk, &verdicts);
        verdicts
    }

    /// Remembers the new keys that have signed something.
    fn remember(&self, chunk: &Chunk<'_, E::Point>, verdicts: &[bool]) {
        if chunk.new.is_empty() {
            return;
        }
        let mut signed = vec![false; chunk.keys.len()];
        for claim in &chunk.claims {
            signed[claim.key] |= verdicts[claim.item];
        }
        for index in &chunk.new {
            if let ((key, Some(point)), true) = (&chunk.keys[*index], signed[*index]) {
                self.keys.insert(*key, *point);
            }
        }
    }

    fn parse<'a>(&self, items: &[Item<'a>]) -> Chunk<'a, E::Point> {
        let mut keys = Vec::with_capacity(items.len());
        let mut places = Places::new(items.len());
        let halves: Vec<_> = (0..)
            .zip(items)
            .filter_map(|(item, of_item)| {
                let (r, s) = halves(of_item.signature)?;
                let hashed = self.keys.hashed(of_item.key);
                let key = places.place(&mut keys, hashed, || self.keys.find(hashed));
                Some((item, key, r, s))
            })
            .collect();
        let new = self.decompress_missing(&mut keys);
        let encodings: Vec<_> = halves.iter().map(|(_, _, r, _)| *r).collect();
        let points = self.engine.decompress(&encodings);
        let mut preimages = Vec::with_capacity(halves.len());
        let mut claims = Vec::with_capacity(halves.len());
        for ((item, key, r_bytes, s), r) in halves.into_iter().zip(points) {
            if let (Some(r), Some(_)) = (r, keys[key].1) {
                preimages.push(Preimage {
                    r: r_bytes,
                    key: items[item].key,
                    message: items[item].message,
                });
                claims.push(Claim {
                    item,
                    key,
                    r,
                    s,
                    k: Scalar::ZERO,
                });
            }
        }
        for (claim, hash) in claims.iter_mut().zip(self.engine.hash(&preimages)) {
            claim.k = Scalar::from_bytes_mod_order_wide(&hash);
        }
        Chunk { keys, new, claims }
    }

    fn sum_holds(&self, chunk: &Chunk<'_, E::Point>) -> bool {
        let short = self.coefficients(&chunk.claims);
        let mut base = Scalar::ZERO;
        let mut long = vec![Scalar::ZERO; chunk.keys.len()];
        let mut points = Vec::with_capacity(chunk.claims.len() + chunk.keys.len() + 2);
        for (claim, z) in chunk.claims.iter().zip(&short) {
            let z = signed(*z);
            base -= z * claim.s;
            long[claim.key] += z * claim.k;
            points.push(claim.r);
        }
        // A key without a point has no claim and counts zero times, like any point.
        points.extend(chunk.keys.iter().map(|(_, key)| key.unwrap_or(self.base)));
        points.push(self.base);
        long.push(base);
        self.engine.sum_is_small(points, &short, &long)
    }

    /// A coefficient for each claim: 128 bits, so that a wrong claim passes with probability
    /// 2^-128.
    ///
    /// They come from the node's secret and every claim of the chunk. A claim is bound by s and k,
    /// and k binds R, the key and the message.
    fn coefficients(&self, claims: &[Claim<E::Point>]) -> Vec<i128> {
        let mut hasher = Sha256::new();
        hasher.update(b"proofmill/batch/v2");
        hasher.update(self.secret.0);
        for claim in claims {
            hasher.update(claim.s.as_bytes());
            hasher.update(claim.k.as_bytes());
        }
        expand(&hasher.finalize().into())
            .take(claims.len())
            .collect()
    }
}

/// R's encoding and s, `None` when s is not below the group's order.
fn halves(signature: &[u8; 64]) -> Option<(&[u8; 32], Scalar)> {
    let r = signature.first_chunk()?;
    let s = signature.last_chunk()?;
    Some((r, Scalar::from_canonical_bytes(*s).into_option()?))
}

/// Where a chunk's keys stand: a hash table of indices, half empty, with linear probing.
struct Places {
    /// Indices plus one; zero is empty.
    slots: Vec<usize>,
}

impl Places {
    fn new(keys: usize) -> Self {
        Self {
            slots: vec![0; (2 * keys + 1).next_power_of_two()],
        }
    }

    /// The index of a key, which is added when it is new.
    fn place<'a, P>(
        &mut self,
        keys: &mut Vec<(Hashed<'a>, Option<P>)>,
        key: Hashed<'a>,
        point: impl FnOnce() -> Option<P>,
    ) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = key.low() & mask;
        loop {
            let Some(index) = self.slots[slot].checked_sub(1) else {
                keys.push((key, point()));
                self.slots[slot] = keys.len();
                return keys.len() - 1;
            };
            if keys[index].0.key == key.key {
                return index;
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// The coefficients that a seed stands for, two from each hash.
fn expand(seed: &[u8; 32]) -> impl Iterator<Item = i128> {
    let seed = *seed;
    (0_u64..).flat_map(move |counter| {
        let mut hasher = Sha256::new();
        hasher.update(seed);
        hasher.update(counter.to_le_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let (halves, _) = hash.as_chunks::<16>();
        [halves[0], halves[1]].map(i128::from_le_bytes)
    })
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

#[cfg(test)]
mod tests {
    use super::{BATCH_CHUNK_MAX, BATCH_CHUNK_MIN, chunk_size, expand};

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
    fn coefficients_differ() {
        let mut seen: Vec<_> = [[1; 32], [2; 32]]
            .iter()
            .flat_map(|seed| expand(seed).take(500))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
        let negative = seen.iter().filter(|number| **number < 0).count();
        assert!((400..600).contains(&negative));
    }
}
