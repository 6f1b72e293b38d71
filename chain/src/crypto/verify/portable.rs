//! Batches with curve25519-dalek and sha2: for every processor, and the twin that the wide code is
//! compared with.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest, Sha512};

use super::batch::{Engine, Preimage};
use super::residue::Residue;

/// The safe code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Engine for Portable {
    type Point = EdwardsPoint;

    const NEUTRAL: EdwardsPoint = EIGHT_TORSION[0];

    fn decompress(self, encodings: &[&[u8; 32]], points: &mut [EdwardsPoint]) -> Vec<bool> {
        encodings
            .iter()
            .zip(points)
            .map(|(encoding, point)| {
                let decompressed = CompressedEdwardsY(**encoding).decompress();
                *point = decompressed.unwrap_or(*point);
                decompressed.is_some()
            })
            .collect()
    }

    fn hash(self, preimages: &[Preimage<'_>]) -> Vec<[u8; 64]> {
        preimages.iter().map(Preimage::hash).collect()
    }

    fn sum_is_small(self, points: &[EdwardsPoint], short: &[i128], long: &[Residue]) -> bool {
        let long = long
            .iter()
            .map(|residue| Scalar::from_bytes_mod_order(residue.bytes()));
        let scalars = short.iter().copied().map(signed).chain(long);
        EdwardsPoint::vartime_multiscalar_mul(scalars, points)
            .mul_by_cofactor()
            .is_identity()
    }
}

impl Preimage<'_> {
    /// SHA-512(R ‖ A ‖ message).
    pub(super) fn hash(&self) -> [u8; 64] {
        let mut hasher = Sha512::new();
        hasher.update(self.r);
        hasher.update(self.key);
        hasher.update(self.message);
        hasher.finalize().into()
    }
}

/// A number modulo the group's order.
pub(super) fn signed(number: i128) -> Scalar {
    let magnitude = Scalar::from(number.unsigned_abs());
    if number < 0 { -magnitude } else { magnitude }
}
