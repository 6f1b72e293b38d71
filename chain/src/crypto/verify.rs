//! ZIP-215 verification: the only rule by which a signature is valid here (protocol §2).
//!
//! A signature (R, s) of a message under a key A is valid when s is below the group's order, A and
//! R decode to points, in whatever encoding, and `[8]sB = [8]R + [8]kA` with
//! k = SHA-512(R ‖ A ‖ message). [`verify`] and [`verify_each`] check this equation signature by
//! signature; [`Verifier::verify_batch`] checks random sums of it and gives the same verdicts: a
//! wrong signature passes with probability 2^-128, and the cofactor keeps points of small order
//! from telling a sum from its terms.
//!
//! ```text
//! Verifier ─▶ batch: chunks, coefficients, equations, and keys, a cache of their points
//!               ├──▶ portable: curve25519-dalek and sha2
//!               └──▶ wide: eight lanes of AVX-512 IFMA, found at run time; unsafe code
//! ```

mod batch;
mod keys;
mod portable;
mod residue;
mod verifier;
#[cfg(target_arch = "x86_64")]
mod wide;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;

pub use self::batch::{BATCH_CHUNK_MAX, BatchSecret};
pub use self::keys::KEYS_CACHED_MAX;
pub use self::verifier::{Backend, Verifier, VerifierError};

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

/// The eight points of small order in their canonical encodings: of order 1, 2, 4, 4, and 8 four
/// times.
const SMALL_ORDER: [[u8; 32]; 8] = {
    const fn filled(first: u8, rest: u8, last: u8) -> [u8; 32] {
        let mut bytes = [rest; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    const EIGHT: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    const fn signed(mut bytes: [u8; 32]) -> [u8; 32] {
        bytes[31] |= 0x80;
        bytes
    }
    [
        filled(1, 0, 0),
        filled(0xec, 0xff, 0x7f),
        filled(0, 0, 0),
        filled(0, 0, 0x80),
        EIGHT[0],
        signed(EIGHT[0]),
        EIGHT[1],
        signed(EIGHT[1]),
    ]
};
/// The modulus p = 2^255 − 19 and p − 1, in words.
const MODULUS: [u64; 4] = [u64::MAX - 18, u64::MAX, u64::MAX, u64::MAX >> 1];
const MINUS_ONE: [u64; 4] = [u64::MAX - 19, u64::MAX, u64::MAX, u64::MAX >> 1];

/// Admits a public key as account, worker, validator or sponsor.
///
/// # Errors
/// When the bytes are not the canonical encoding of a point, or the point has small order.
pub fn admit_key(key: &[u8; 32]) -> Result<(), KeyError> {
    admit_encoding(key)?;
    match CompressedEdwardsY(*key).decompress() {
        Some(_) => Ok(()),
        None => Err(KeyError::NotCanonical),
    }
}

/// What a public key's bytes tell without a square root (RFC 8032 §5.1.3): [`admit_key`] refuses
/// whatever this refuses, and for the same reason, and beyond that only what is not on the curve.
///
/// # Errors
/// When y is not below the modulus, when the sign of x = 0 is set, or when the bytes are the
/// canonical encoding of a point of small order.
pub fn admit_encoding(key: &[u8; 32]) -> Result<(), KeyError> {
    let (quarters, _) = key.as_chunks::<8>();
    let mut y = [0; 4];
    for (word, quarter) in y.iter_mut().zip(quarters) {
        *word = u64::from_le_bytes(*quarter);
    }
    let has_sign = y[3] >> 63 == 1;
    y[3] &= u64::MAX >> 1;
    // x = 0 exactly where y = 1 or y = −1.
    let has_zero_x = y == [1, 0, 0, 0] || y == MINUS_ONE;
    if y.iter().rev().ge(MODULUS.iter().rev()) || (has_zero_x && has_sign) {
        return Err(KeyError::NotCanonical);
    }
    if SMALL_ORDER.contains(key) {
        return Err(KeyError::SmallOrder);
    }
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
        let r_bytes = item.signature.first_chunk()?;
        let s_bytes = item.signature.last_chunk()?;
        let s = Scalar::from_canonical_bytes(*s_bytes).into_option()?;
        let r = CompressedEdwardsY(*r_bytes).decompress()?;
        let preimage = batch::Preimage {
            r: r_bytes,
            key: item.key,
            message: item.message,
        };
        let k = Scalar::from_bytes_mod_order_wide(&preimage.hash());
        Some(Self { r, s, k })
    }

    fn holds(&self, key: &EdwardsPoint) -> bool {
        let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&self.k, &-key, &self.s);
        (expected - self.r).mul_by_cofactor().is_identity()
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::SMALL_ORDER;

    #[test]
    fn the_table_of_small_orders_is_the_torsion_subgroup() {
        let mut torsion = EIGHT_TORSION.map(|point| point.compress().to_bytes());
        let mut table = SMALL_ORDER;
        torsion.sort_unstable();
        table.sort_unstable();
        assert_eq!(table, torsion);
    }
}
