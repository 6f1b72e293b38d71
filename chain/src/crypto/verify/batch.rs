//! Many signatures at once: one equation per chunk, chunks in parallel.
//!
//! For claims i of a chunk and coefficients z the equation is
//! `[8](Σ z_i R_i + Σ z_i k_i A_i − Σ z_i s_i B) = 0`, one multi-scalar multiplication in which keys
//! that occur several times stand once (Bernstein, Duif, Lange, Schwabe and Yang, "High-speed
//! high-security signatures", §5). When it fails, the chunk's claims are checked one by one, so
//! that the verdicts never depend on how the signatures were cut into chunks.

use curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSlice;
use sha2::{Digest, Sha256};

use super::keys::{Hashed, KeyCache};
use super::residue::{Products, Residue};
use super::{Item, verify};

/// Most signatures in one equation.
pub const BATCH_CHUNK_MAX: usize = 1024;
/// Signatures below which another thread is not worth a smaller equation.
const BATCH_CHUNK_MIN: usize = 32;
/// Signatures from which an equation is cheaper than each by itself.
const BATCH_MIN: usize = 4;

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

    /// The neutral point.
    const NEUTRAL: Self::Point;

    /// Whether each encoding stands for a point by the rules of ZIP-215; those points, in their
    /// places. The other places stay as they are.
    fn decompress(self, encodings: &[&[u8; 32]], points: &mut [Self::Point]) -> Vec<bool>;

    /// SHA-512(R ‖ A ‖ message) of each.
    fn hash(self, preimages: &[Preimage<'_>]) -> Vec<[u8; 64]>;

    /// Whether `[8](Σ short_i P_i + Σ long_i Q_i)` is the neutral point, where the points are
    /// first all P, then all Q.
    fn sum_is_small(self, points: &[Self::Point], short: &[i128], long: &[Residue]) -> bool;
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
    /// Signatures that were looked at one by one because their chunk's equation did not hold.
    #[cfg(test)]
    resolved: core::sync::atomic::AtomicUsize,
}

/// What a signature claims of its key A: `[8]sB = [8]R + [8]kA`.
struct Claim {
    /// Index of the item.
    item: usize,
    /// Index of R among the chunk's points.
    r: usize,
    /// Index of A among the chunk's keys.
    key: usize,
    s: Residue,
    k: Residue,
}

/// A chunk's signatures, parsed.
struct Chunk<'a, P> {
    /// Every R, then every key of `keys`, then the base; neutral where an encoding is no point.
    points: Vec<P>,
    /// How many of the points are an R.
    r_count: usize,
    /// Each key once.
    keys: Vec<Hashed<'a>>,
    /// Indices of the keys that were not known before.
    new: Vec<usize>,
    /// The signatures that parse, with R and A points.
    claims: Vec<Claim>,
}

impl<E: Engine> Batches<E> {
    /// Equations with coefficients from a secret, and room for so many keys.
    pub(super) fn new(engine: E, secret: BatchSecret, keys_max: usize) -> Self {
        let mut base = [E::NEUTRAL];
        let _is_a_point = engine.decompress(&[ED25519_BASEPOINT_COMPRESSED.as_bytes()], &mut base);
        let [base] = base;
        let keys = KeyCache::new(&secret, keys_max, E::NEUTRAL);
        Self {
            engine,
            secret,
            base,
            keys,
            #[cfg(test)]
            resolved: core::sync::atomic::AtomicUsize::new(0),
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
        let mut point = [E::NEUTRAL];
        self.keys.find(&[self.keys.hashed(key)], &mut point) == [true]
    }

    /// Whether each key is a point, in whatever encoding; those that are will be known.
    pub(super) fn are_points(&self, keys: &[&[u8; 32]]) -> Vec<bool> {
        let verdicts: Vec<_> = keys
            .par_chunks(BATCH_CHUNK_MAX)
            .map(|chunk| {
                let keys: Vec<_> = chunk.iter().map(|key| self.keys.hashed(key)).collect();
                let mut points = vec![E::NEUTRAL; keys.len()];
                let (valid, new) = self.points_of(&keys, &mut points);
                let learnt = new.into_iter().filter(|index| valid[*index]);
                self.keys
                    .insert(learnt.map(|index| (keys[index], points[index])));
                valid
            })
            .collect::<Vec<Vec<bool>>>();
        verdicts.concat()
    }

    /// The points of keys in their places; which keys have one, and the indices of those that were
    /// not known.
    fn points_of(&self, keys: &[Hashed<'_>], points: &mut [E::Point]) -> (Vec<bool>, Vec<usize>) {
        let mut valid = self.keys.find(keys, points);
        let new: Vec<usize> = (0..keys.len()).filter(|index| !valid[*index]).collect();
        let encodings: Vec<_> = new.iter().map(|index| keys[*index].key).collect();
        let mut decompressed = vec![E::NEUTRAL; new.len()];
        let are_points = self.engine.decompress(&encodings, &mut decompressed);
        for ((index, point), is_point) in new.iter().zip(decompressed).zip(are_points) {
            points[*index] = point;
            valid[*index] = is_point;
        }
        (valid, new)
    }

    fn verdicts(&self, items: &[Item<'_>]) -> Vec<bool> {
        if items.len() < BATCH_MIN {
            return items.iter().map(verify).collect();
        }
        let chunk = self.parse(items);
        let verdicts = if chunk.claims.is_empty() || self.sum_holds(&chunk) {
            let mut verdicts = vec![false; items.len()];
            for claim in &chunk.claims {
                verdicts[claim.item] = true;
            }
            verdicts
        } else {
            #[cfg(test)]
            self.resolved
                .fetch_add(items.len(), core::sync::atomic::Ordering::Relaxed);
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
        let mut have_signed = vec![false; chunk.keys.len()];
        for claim in &chunk.claims {
            have_signed[claim.key] |= verdicts[claim.item];
        }
        let learnt = chunk.new.iter().filter(|index| have_signed[**index]);
        let of_keys = &chunk.points[chunk.r_count..];
        self.keys
            .insert(learnt.map(|index| (chunk.keys[*index], of_keys[*index])));
    }

    fn parse<'a>(&self, items: &[Item<'a>]) -> Chunk<'a, E::Point> {
        let mut keys = Vec::with_capacity(items.len());
        let mut places = Places::new(items.len());
        let mut r_encodings = Vec::with_capacity(items.len());
        let mut claims = Vec::with_capacity(items.len());
        for (item, of_item) in items.iter().enumerate() {
            let Some((r, s)) = halves(of_item.signature) else {
                continue;
            };
            claims.push(Claim {
                item,
                r: r_encodings.len(),
                key: places.place(&mut keys, self.keys.hashed(of_item.key)),
                s,
                k: Residue::ZERO,
            });
            r_encodings.push(r);
        }
        let r_count = r_encodings.len();
        let mut points = vec![E::NEUTRAL; r_count + keys.len() + 1];
        let r_valid = self.engine.decompress(&r_encodings, &mut points[..r_count]);
        let (keys_valid, new) = self.points_of(&keys, &mut points[r_count..r_count + keys.len()]);
        points[r_count + keys.len()] = self.base;
        claims.retain(|claim| r_valid[claim.r] && keys_valid[claim.key]);
        let preimages: Vec<_> = claims
            .iter()
            .map(|claim| Preimage {
                r: r_encodings[claim.r],
                key: keys[claim.key].key,
                message: items[claim.item].message,
            })
            .collect();
        for (claim, hash) in claims.iter_mut().zip(self.engine.hash(&preimages)) {
            claim.k = Residue::reduced(&hash);
        }
        Chunk {
            points,
            r_count,
            keys,
            new,
            claims,
        }
    }

    fn sum_holds(&self, chunk: &Chunk<'_, E::Point>) -> bool {
        // What no claim names counts zero times.
        let mut short = vec![0; chunk.r_count];
        let mut base = Products::EMPTY;
        let mut of_keys = vec![Products::EMPTY; chunk.keys.len()];
        for (claim, z) in chunk.claims.iter().zip(self.coefficients(&chunk.claims)) {
            short[claim.r] = z;
            of_keys[claim.key].add(z, &claim.k);
            base.add(z, &claim.s);
        }
        let mut long: Vec<_> = of_keys.iter().map(Products::residue).collect();
        long.push(base.residue().negative());
        self.engine.sum_is_small(&chunk.points, &short, &long)
    }

    /// A coefficient for each claim: 128 bits, so that a wrong claim passes with probability
    /// 2^-128.
    ///
    /// They come from the node's secret and every claim of the chunk. A claim is bound by s and k,
    /// and k binds R, the key and the message.
    fn coefficients(&self, claims: &[Claim]) -> impl Iterator<Item = i128> {
        let mut hasher = Sha256::new();
        hasher.update(b"proofmill/batch/v2");
        hasher.update(self.secret.0);
        for claim in claims {
            hasher.update(claim.s.bytes());
            hasher.update(claim.k.bytes());
        }
        expand(hasher.finalize().into())
    }
}

/// R's encoding and s, `None` when s is not below the group's order.
fn halves(signature: &[u8; 64]) -> Option<(&[u8; 32], Residue)> {
    let r = signature.first_chunk()?;
    let s = signature.last_chunk()?;
    Some((r, Residue::canonical(s)?))
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
    fn place<'a>(&mut self, keys: &mut Vec<Hashed<'a>>, key: Hashed<'a>) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = key.low() & mask;
        loop {
            let Some(index) = self.slots[slot].checked_sub(1) else {
                keys.push(key);
                self.slots[slot] = keys.len();
                return keys.len() - 1;
            };
            if keys[index].key == key.key {
                return index;
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// The coefficients that a seed stands for, two from each hash.
fn expand(seed: [u8; 32]) -> impl Iterator<Item = i128> {
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
    use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
    use curve25519_dalek::scalar::Scalar;

    use super::{
        BATCH_CHUNK_MAX, BATCH_CHUNK_MIN, BatchSecret, Batches, Engine, Item, Preimage, chunk_size,
        expand,
    };
    use crate::crypto::verify::portable::Portable;

    /// Keys and signatures of one message, with points of small order added to A and R.
    fn of_mixed_order(message: &[u8], count: u64) -> Vec<([u8; 32], [u8; 64])> {
        let torsions = EIGHT_TORSION.iter().cycle();
        (2..count + 2)
            .zip(torsions.clone().zip(torsions.skip(3)))
            .map(|(number, (of_key, of_r))| {
                let (a, r) = (Scalar::from(number % 90), Scalar::from(number * 7));
                let key = (&a * ED25519_BASEPOINT_TABLE + of_key)
                    .compress()
                    .to_bytes();
                let r_bytes = (&r * ED25519_BASEPOINT_TABLE + of_r).compress().to_bytes();
                let preimage = Preimage {
                    r: &r_bytes,
                    key: &key,
                    message,
                };
                let s = r + Scalar::from_bytes_mod_order_wide(&preimage.hash()) * a;
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&r_bytes);
                signature[32..].copy_from_slice(s.as_bytes());
                (key, signature)
            })
            .collect()
    }

    fn items_of<'a>(signed: &'a [([u8; 32], [u8; 64])], message: &'a [u8]) -> Vec<Item<'a>> {
        let signed = signed.iter();
        signed
            .map(|(key, signature)| Item {
                key,
                message,
                signature,
            })
            .collect()
    }

    fn check_equations<E: Engine>(engine: E) {
        let message = b"message";
        let batches = Batches::new(engine, BatchSecret::new([5; 32]), 100);
        for count in [1, 2, 3, 5, 8, 33, 100, 500] {
            let mut signed = of_mixed_order(message, count);
            let holds = |signed: &[([u8; 32], [u8; 64])]| {
                let items = items_of(signed, message);
                let chunk = batches.parse(&items);
                assert_eq!(chunk.claims.len(), items.len());
                batches.sum_holds(&chunk)
            };
            assert!(holds(&signed), "{count} valid signatures");
            signed[0].1[33] ^= 1;
            assert!(!holds(&signed), "one of {count} is wrong");
        }
    }

    #[test]
    fn equations_tell_valid_chunks_from_others_without_a_look_at_singles() {
        check_equations(Portable);
        #[cfg(target_arch = "x86_64")]
        match crate::crypto::verify::wide::Ifma::detect() {
            Some(ifma) => check_equations(ifma),
            None => eprintln!("SKIPPED: this processor lacks AVX-512 IFMA"),
        }
    }

    fn check_cost_of_a_bad_signature<E: Engine>(engine: E) {
        let message = b"message";
        let batches = Batches::new(engine, BatchSecret::new([6; 32]), 100);
        let resolved = || batches.resolved.load(core::sync::atomic::Ordering::Relaxed);
        let count = 2_500;
        let mut signed = of_mixed_order(message, count as u64);
        let mut looked_at = 0;
        // One, then another in the same chunk, then one in the next.
        let size = chunk_size(count, rayon::current_num_threads());
        for (bad, chunks) in [
            (None, 0),
            (Some(size - 1), 1),
            (Some(3), 1),
            (Some(size), 2),
        ] {
            if let Some(bad) = bad {
                signed[bad].1[33] ^= 1;
            }
            let items = items_of(&signed, message);
            let valid = batches.verify(&items);
            assert_eq!(valid.iter().all(|valid| *valid), bad.is_none());
            assert_eq!(resolved() - looked_at, chunks * size);
            looked_at = resolved();
        }
    }

    #[test]
    fn a_bad_signature_costs_a_look_at_each_of_its_chunk_and_no_more() {
        check_cost_of_a_bad_signature(Portable);
        #[cfg(target_arch = "x86_64")]
        match crate::crypto::verify::wide::Ifma::detect() {
            Some(ifma) => check_cost_of_a_bad_signature(ifma),
            None => eprintln!("SKIPPED: this processor lacks AVX-512 IFMA"),
        }
    }

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
            .into_iter()
            .flat_map(|seed| expand(seed).take(500))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
        let negative = seen.iter().filter(|number| **number < 0).count();
        assert!((400..600).contains(&negative));
    }
}
