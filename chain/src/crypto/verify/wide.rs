//! Eight lanes of AVX-512 IFMA for batches: decompression and sums of points.
//!
//! Own code, reached only through [`Ifma`], which exists only where the processor has the
//! instructions. Everything here has a safe twin in curve25519-dalek and sha2, against which the
//! tests compare it; nothing here can make a signature valid by itself but the sum's last test,
//! and nothing here is secret, so that time may depend on values.
#![allow(
    unsafe_code,
    reason = "intrinsics that take pointers, and the step into functions that need AVX-512 IFMA, \
              which makes a signature three times cheaper"
)]

mod decompress;
mod field;
mod msm;
mod narrow;
mod point;
#[cfg(test)]
mod reference;
mod rows;
mod sha512;

use self::point::Affine;
use super::batch::{Engine, Preimage};
use super::residue::Residue;

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ifma(());

impl Ifma {
    /// `None` on a processor without the instructions.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma"))
        .then_some(Self(()))
    }
}

impl Engine for Ifma {
    type Point = Affine;

    const NEUTRAL: Affine = Affine::NEUTRAL;

    fn decompress(self, encodings: &[&[u8; 32]], points: &mut [Affine]) -> Vec<bool> {
        let mut verdicts = Vec::with_capacity(encodings.len());
        for (group, places) in encodings
            .chunks(decompress::GROUP)
            .zip(points.chunks_mut(decompress::GROUP))
        {
            // SAFETY: `detect` saw the instructions.
            let (of_group, valid) = unsafe { decompress::decompress(group) };
            for (at, (point, place)) in of_group.iter().zip(places).enumerate() {
                let is_point = (valid >> at) & 1 == 1;
                if is_point {
                    *place = *point;
                }
                verdicts.push(is_point);
            }
        }
        verdicts
    }

    fn hash(self, preimages: &[Preimage<'_>]) -> Vec<[u8; 64]> {
        // Lanes together with others of as many blocks.
        let mut order: Vec<usize> = (0..preimages.len()).collect();
        order.sort_by_key(|index| sha512::blocks(&preimages[*index]));
        let mut hashes = vec![[0; 64]; preimages.len()];
        for group in order.chunks(8) {
            let lanes: Vec<_> = group.iter().map(|index| &preimages[*index]).collect();
            // SAFETY: `detect` saw the instructions.
            let of_group = unsafe { sha512::hash(&lanes) };
            for (index, hash) in group.iter().zip(of_group) {
                hashes[*index] = hash;
            }
        }
        hashes
    }

    fn sum_is_small(self, points: &[Affine], short: &[i128], long: &[Residue]) -> bool {
        // SAFETY: `detect` saw the instructions.
        unsafe { msm::sum_is_small(points, short, long) }
    }
}
