//! What the block path is compared with: the least that verifying the same signatures can cost in
//! plain curve25519-dalek, and the way that suggests itself.
//!
//! Keys, messages and signatures lie ready: only hashing and group arithmetic are timed.

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use ed25519_dalek::VerifyingKey;
use proofmill_chain::crypto::verify::Item;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::transaction::{Action, worker_consent_bytes};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSlice;
use sha2::{Digest, Sha512};

use crate::bench::workload::Random;

/// Signatures in one equation of the bare batch.
const CHUNK: usize = 1_000;

/// A signature of a block, with what it is of.
pub struct Signed {
    key: AccountId,
    message: Vec<u8>,
    signature: Signature,
}

/// Every signature of a block's transactions and attestations.
pub struct Signatures(Vec<Signed>);

impl Signatures {
    /// Those of a block, in the order in which the block path verifies them.
    #[must_use]
    pub fn of(block: &Block, genesis: &Hash) -> Self {
        let mut all = Vec::with_capacity(block.transactions.len());
        for signed in &block.transactions {
            let transaction = &signed.transaction;
            all.push(Signed {
                key: transaction.sender,
                message: transaction.sign_bytes(genesis),
                signature: signed.signature,
            });
            if let (Some(key), Some(signature)) = (transaction.sponsor, signed.sponsor_signature) {
                all.push(Signed {
                    key,
                    message: transaction.sponsor_sign_bytes(genesis),
                    signature,
                });
            }
            if let Action::RegisterWorker {
                worker, consent, ..
            } = &transaction.action
            {
                all.push(Signed {
                    key: *worker,
                    message: worker_consent_bytes(genesis, &transaction.sender, worker),
                    signature: *consent,
                });
            }
        }
        all.extend(block.attestations.iter().map(|signed| Signed {
            key: signed.attestation.worker,
            message: signed.attestation.sign_bytes(genesis),
            signature: signed.signature,
        }));
        Self(all)
    }

    /// As the chain's verifier takes them.
    #[must_use]
    pub fn items(&self) -> Vec<Item<'_>> {
        self.0
            .iter()
            .map(|signed| Item {
                key: signed.key.as_bytes(),
                message: &signed.message,
                signature: signed.signature.as_bytes(),
            })
            .collect()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The keys of some signatures, decompressed; `None` where the bytes are no point.
#[must_use]
pub fn points(items: &[Item<'_>]) -> Option<Vec<EdwardsPoint>> {
    items
        .par_iter()
        .map(|item| CompressedEdwardsY(*item.key).decompress())
        .collect()
}

/// Whether all signatures are valid under ZIP-215, by the bare batch equation in chunks of a
/// thousand on every thread of the pool; every key is decompressed on the way.
#[must_use]
pub fn bare_parsed(items: &[Item<'_>]) -> bool {
    items.par_chunks(CHUNK).all(|chunk| {
        sum_holds(chunk, |at| {
            CompressedEdwardsY(*chunk.get(at)?.key).decompress()
        })
    })
}

/// The same with keys that were decompressed before.
#[must_use]
pub fn bare_cached(items: &[Item<'_>], keys: &[EdwardsPoint]) -> bool {
    items
        .par_chunks(CHUNK)
        .zip(keys.par_chunks(CHUNK))
        .all(|(chunk, keys)| sum_holds(chunk, |at| keys.get(at).copied()))
}

/// The way that suggests itself: each signature by itself, on every thread of the pool.
#[must_use]
pub fn naive(items: &[Item<'_>]) -> bool {
    items.par_iter().all(|item| {
        let signature = ed25519_dalek::Signature::from_bytes(item.signature);
        VerifyingKey::from_bytes(item.key)
            .is_ok_and(|key| key.verify_strict(item.message, &signature).is_ok())
    })
}

/// `[8](Σ z R + Σ z k A − Σ z s B) = 0`.
fn sum_holds(chunk: &[Item<'_>], key: impl Fn(usize) -> Option<EdwardsPoint>) -> bool {
    sum(chunk, key).is_some_and(|sum| sum.mul_by_cofactor().is_identity())
}

fn sum(chunk: &[Item<'_>], key: impl Fn(usize) -> Option<EdwardsPoint>) -> Option<EdwardsPoint> {
    // Nobody attacks a bench: any coefficients of 128 bits cost the same.
    let mut random = Random::new(chunk.len() as u64);
    let terms = 2 * chunk.len() + 1;
    let (mut scalars, mut points) = (Vec::with_capacity(terms), Vec::with_capacity(terms));
    let mut base = Scalar::ZERO;
    for (at, item) in chunk.iter().enumerate() {
        let (r, s) = item.signature.split_at(32);
        let r: [u8; 32] = r.try_into().ok()?;
        let s = Scalar::from_canonical_bytes(s.try_into().ok()?).into_option()?;
        let mut hasher = Sha512::new();
        hasher.update(r);
        hasher.update(item.key);
        hasher.update(item.message);
        let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
        let z = Scalar::from(u128::from(random.next()) << 64 | u128::from(random.next()));
        base -= z * s;
        scalars.push(z);
        points.push(CompressedEdwardsY(r).decompress()?);
        scalars.push(z * k);
        points.push(key(at)?);
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    Some(EdwardsPoint::vartime_multiscalar_mul(scalars, points))
}

#[cfg(test)]
mod tests {
    use proofmill_chain::crypto::sign::SecretKey;
    use proofmill_chain::crypto::verify::Item;

    use super::{CHUNK, bare_cached, bare_parsed, naive, points};

    #[test]
    fn the_references_take_good_signatures_and_refuse_a_single_bad_one() {
        let count = CHUNK + 7;
        let keys: Vec<_> = (0..count)
            .map(|index| {
                let mut seed = [1; 32];
                seed[..8].copy_from_slice(&(index as u64).to_le_bytes());
                SecretKey::from_seed(&seed)
            })
            .collect();
        let publics: Vec<_> = keys.iter().map(SecretKey::public).collect();
        let mut signatures: Vec<_> = keys.iter().map(|key| key.sign(b"message")).collect();
        for good in [true, false] {
            if !good {
                signatures[count - 1] = keys[count - 1].sign(b"another");
            }
            let items: Vec<_> = publics
                .iter()
                .zip(&signatures)
                .map(|(key, signature)| Item {
                    key: key.as_bytes(),
                    message: b"message",
                    signature: signature.as_bytes(),
                })
                .collect();
            let points = points(&items).expect("keys are points");
            assert_eq!(bare_parsed(&items), good);
            assert_eq!(bare_cached(&items, &points), good);
            assert_eq!(naive(&items), good);
        }
    }
}
