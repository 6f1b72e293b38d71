//! Two points at once, a coordinate in each lane: for long runs of doublings of few points, where
//! eight whole points in the lanes would take four times as long.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_si512, _mm512_mask_sub_epi64, _mm512_maskz_mov_epi64,
    _mm512_permutex_epi64, _mm512_setr_epi64, _mm512_sllv_epi64, _mm512_storeu_si512,
};

use super::field::{Field, LARGE_P, Sum};
use super::point::Stored;

/// Lanes Y − X, Y + X, Z and T of one point, then of another.
#[derive(Clone, Copy)]
struct Narrow(Field);

/// The doubles 2^times P of two points.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn doubled([a, b]: [&Stored; 2], times: usize) -> [Stored; 2] {
    let lanes = [a.coordinates(), b.coordinates()];
    let mut limbs = Field::zero();
    for (at, limb) in limbs.0.iter_mut().enumerate() {
        let words: [u64; 8] = core::array::from_fn(|lane| lanes[lane / 4][lane % 4][at]);
        // SAFETY: the array is 64 bytes long, and the load may be unaligned.
        *limb = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    }
    let mut points = Narrow(limbs);
    for _ in 0..times {
        points = points.double();
    }
    let mut doubled = [[[0; 5]; 4]; 2];
    for (at, limb) in points.0.0.into_iter().enumerate() {
        let mut words = [0_u64; 8];
        // SAFETY: the array is 64 bytes long, and the store may be unaligned.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), limb) };
        for (lane, word) in words.into_iter().enumerate() {
            doubled[lane / 4][lane % 4][at] = word;
        }
    }
    doubled.map(|coordinates| Stored::new(&coordinates))
}

/// In each half of the lanes: those that `ORDER` names, two bits each, the lowest first.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn lanes<const ORDER: i32>(limbs: &[__m512i; 5]) -> [__m512i; 5] {
    let mut chosen = *limbs;
    for limb in &mut chosen {
        *limb = _mm512_permutex_epi64::<ORDER>(*limb);
    }
    chosen
}

impl Narrow {
    /// The formulas of [`Points::double`](super::point::Points::double), whose bounds hold here.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn double(&self) -> Self {
        // The squares of Y − X, Y + X and Z, and the product of the first two.
        let left = Field(lanes::<0b00_10_01_00>(&self.0.0));
        let right = Field(lanes::<0b01_10_01_00>(&self.0.0));
        let Sum(products) = left.times(&right);
        // E, H, G and F: second less first, second plus first, twice the fourth, and four times
        // the third less twice the fourth.
        let mut sums = lanes::<0b10_11_01_01>(&products);
        let others = lanes::<0b11_11_00_00>(&products);
        let fourfold = _mm512_setr_epi64(0, 0, 0, 2, 0, 0, 0, 2);
        let twofold = _mm512_setr_epi64(0, 0, 0, 1, 0, 0, 0, 1);
        let large = Field::splat(LARGE_P);
        for ((sum, other), large) in sums.iter_mut().zip(others).zip(large.0) {
            let other = _mm512_sllv_epi64(other, twofold);
            let other = _mm512_mask_sub_epi64(other, 0b1001_1001, large, other);
            *sum = _mm512_add_epi64(_mm512_sllv_epi64(*sum, fourfold), other);
        }
        let Field(factors) = Sum(sums).carry();
        // X = EF, Y = GH, Z = FG and T = EH.
        let left = Field(lanes::<0b00_11_10_00>(&factors));
        let right = Field(lanes::<0b01_10_01_11>(&factors));
        let Sum(products) = left.times(&right);
        let mut sums = lanes::<0b11_10_01_01>(&products);
        let others = lanes::<0b00_00_00_00>(&products);
        for ((sum, other), large) in sums.iter_mut().zip(others).zip(large.0) {
            let other = _mm512_maskz_mov_epi64(0b0011_0011, other);
            let other = _mm512_mask_sub_epi64(other, 0b0001_0001, large, other);
            *sum = _mm512_add_epi64(*sum, other);
        }
        Self(Sum(sums).carry())
    }
}
