//! ZIP-215 verification: the only rule by which a signature is valid here (protocol §2).

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

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

/// Whether one signature is valid under ZIP-215: s is canonical and [8]sB = [8]R + [8]kA.
#[must_use]
pub fn verify(item: &Item<'_>) -> bool {
    let Some(key) = CompressedEdwardsY(*item.key).decompress() else {
        return false;
    };
    let (r_bytes, s_bytes) = item.signature.split_at(32);
    let (Ok(r_bytes), Ok(s_bytes)) = (<[u8; 32]>::try_from(r_bytes), s_bytes.try_into()) else {
        return false;
    };
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s_bytes)) else {
        return false;
    };
    let Some(r) = CompressedEdwardsY(r_bytes).decompress() else {
        return false;
    };
    let mut hasher = Sha512::new();
    hasher.update(r_bytes);
    hasher.update(item.key);
    hasher.update(item.message);
    let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-key, &s);
    (expected - r).mul_by_cofactor().is_identity()
}

/// The verdict on each signature, in order.
#[must_use]
pub fn verify_each(items: &[Item<'_>]) -> Vec<bool> {
    items.iter().map(verify).collect()
}
