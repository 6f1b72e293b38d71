//! ZIP-215 verification: the only rule by which a signature is valid here (protocol §2).
//!
//! A signature (R, s) of a message under a key A is valid when s is below the group's order, A and
//! R decode to points, in whatever encoding, and `[8]sB = [8]R + [8]kA` with
//! k = SHA-512(R ‖ A ‖ message). [`verify`] and [`verify_each`] check this equation signature by
//! signature; [`verify_batch`] checks random sums of it and gives the same verdicts: a wrong
//! signature passes with probability 2^-128, and the cofactor keeps points of small order from
//! telling a sum from its terms.

mod batch;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

pub use self::batch::{BATCH_CHUNK_MAX, BatchSecret, verify_batch};

/// A signature to verify.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Public key.
    pub key: &'a [u8; 32],
    /// Message.
    pub message: &'a [u8],
    /// Signature.
    pub signature: &'a [u8; 64],
}

/// Why a public key may not own anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the canonical encoding of a point on the curve.
    #[error("not the canonical encoding of a curve point")]
    NotCanonical,
    /// A point of small order, under which anybody can sign.
    #[error("a point of small order")]
    SmallOrder,
}

/// Admits a public key as account, worker, validator or sponsor.
///
/// # Errors
/// When the bytes are not the canonical encoding of a point, or the point has small order.
pub fn admit_key(key: &[u8; 32]) -> Result<(), KeyError> {
    let point = CompressedEdwardsY(*key)
        .decompress()
        .filter(|point| point.compress().as_bytes() == key)
        .ok_or(KeyError::NotCanonical)?;
    if point.is_small_order() {
        return Err(KeyError::SmallOrder);
    }
    Ok(())
}

/// placeholder until the merge
///
/// # Errors
/// as admit_key
pub fn admit_encoding(_key: &[u8; 32]) -> Result<(), KeyError> {
    Ok(())
}

/// Whether one signature is valid under ZIP-215.
#[must_use]
pub fn verify(item: &Item<'_>) -> bool {
    let Some(key) = CompressedEdwardsY(*item.key).decompress() else {
        return false;
    };
    Claim::parse(item).is_some_and(|claim| claim.holds(&key))
}

/// The verdict on each signature, in order, each checked by itself.
#[must_use]
pub fn verify_each(items: &[Item<'_>]) -> Vec<bool> {
    items.iter().map(verify).collect()
}

/// What a signature claims of its key A: `[8]sB = [8]R + [8]kA`.
struct Claim {
    r: EdwardsPoint,
    s: Scalar,
    k: Scalar,
}

impl Claim {
    /// The claim, `None` when s is not below the group's order or R is not a point.
    fn parse(item: &Item<'_>) -> Option<Self> {
        let (r_bytes, s_bytes) = item.signature.split_at(32);
        let r_bytes: [u8; 32] = r_bytes.try_into().ok()?;
        let s = Scalar::from_canonical_bytes(s_bytes.try_into().ok()?).into_option()?;
        let r = CompressedEdwardsY(r_bytes).decompress()?;
        let mut hasher = Sha512::new();
        hasher.update(r_bytes);
        hasher.update(item.key);
        hasher.update(item.message);
        let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
        Some(Self { r, s, k })
    }

    fn holds(&self, key: &EdwardsPoint) -> bool {
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &-key, &self.s);
        (expected - self.r).mul_by_cofactor().is_identity()
    }
}
