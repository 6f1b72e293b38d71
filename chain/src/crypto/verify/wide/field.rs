//! Eight elements of the field of 2^255 − 19 at once, in radix 2^51.
//!
//! The lanes of five vectors hold the limbs. Two types keep the bounds:
//!
//! - [`Field`]: what may be multiplied. Every limb is below 2^52; after [`Sum::carry`] it is below
//!   2^51 + 2^17.
//! - [`Sum`]: sums of products before their carries. A product of carried elements stays below
//!   2^59, a product of any elements below 2^60.1.
//!
//! `vpmadd52` adds the low or the high 52 bits of a 104-bit product. In radix 2^51 the high half
//! stands one bit too low, so it counts twice.

use core::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask,
    _mm512_cmpneq_epi64_mask, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_blend_epi64, _mm512_mullo_epi64, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_srli_epi64, _mm512_sub_epi64,
};

/// A limb's 51 bits.
const LIMB: i64 = (1 << 51) - 1;
/// Twice the modulus, limb by limb: 2^52 − 38 and 2^52 − 2.
const TWICE_P: [i64; 5] = [2 * (LIMB - 18), 2 * LIMB, 2 * LIMB, 2 * LIMB, 2 * LIMB];
/// A multiple of the modulus with every limb in 2^61..2^62: what keeps a difference positive.
pub(super) const LARGE_P: [i64; 5] = [
    (LIMB - 18) << 11,
    LIMB << 11,
    LIMB << 11,
    LIMB << 11,
    LIMB << 11,
];
/// The curve's d = −121665/121666 (RFC 8032 §5.1).
pub(super) const D: [i64; 5] = [
    929_955_233_495_203,
    466_365_720_129_213,
    1_662_059_464_998_953,
    2_033_849_074_728_123,
    1_442_794_654_840_575,
];
/// Twice the curve's d.
pub(super) const TWICE_D: [i64; 5] = [
    1_859_910_466_990_425,
    932_731_440_258_426,
    1_072_319_116_312_658,
    1_815_898_335_770_999,
    633_789_495_995_903,
];
/// A square root of −1.
pub(super) const ROOT_OF_MINUS_ONE: [i64; 5] = [
    1_718_705_420_411_056,
    234_908_883_556_509,
    2_233_514_472_574_048,
    2_117_202_627_021_982,
    765_476_049_583_133,
];

/// Eight field elements, limbs below 2^52.
#[derive(Clone, Copy)]
pub(super) struct Field(pub(super) [__m512i; 5]);

/// Eight sums of products, whose carries are still to be taken.
#[derive(Clone, Copy)]
pub(super) struct Sum(pub(super) [__m512i; 5]);

impl Field {
    /// The same element in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn splat(limbs: [i64; 5]) -> Self {
        let [a, b, c, d, e] = limbs;
        Self([
            _mm512_set1_epi64(a),
            _mm512_set1_epi64(b),
            _mm512_set1_epi64(c),
            _mm512_set1_epi64(d),
            _mm512_set1_epi64(e),
        ])
    }

    /// Zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 5])
    }

    /// One.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn one() -> Self {
        Self::splat([1, 0, 0, 0, 0])
    }

    /// The product, below 2^59 for carried factors and 2^60.1 for any.
    ///
    /// At position 5, the largest that is folded, stand four low and twice five high halves, and
    /// they count nineteen times.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn times(&self, other: &Self) -> Sum {
        let (a, b) = (&self.0, &other.0);
        let mut at = [_mm512_setzero_si512(); 10];
        for i in 0..5 {
            for j in 0..5 {
                at[i + j + 1] = _mm512_madd52hi_epu64(at[i + j + 1], a[i], b[j]);
            }
        }
        for limb in &mut at[1..] {
            *limb = _mm512_add_epi64(*limb, *limb);
        }
        for i in 0..5 {
            for j in 0..5 {
                at[i + j] = _mm512_madd52lo_epu64(at[i + j], a[i], b[j]);
            }
        }
        Sum::fold(&at)
    }

    /// The square, within the bounds of [`times`](Self::times).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn squared(&self) -> Sum {
        let a = &self.0;
        let mut at = [_mm512_setzero_si512(); 10];
        // High halves of mixed products: twice for the two orders, twice for the radix.
        for i in 0..5 {
            for j in i + 1..5 {
                at[i + j + 1] = _mm512_madd52hi_epu64(at[i + j + 1], a[i], a[j]);
            }
        }
        for limb in &mut at[2..9] {
            *limb = _mm512_add_epi64(*limb, *limb);
        }
        // Low halves of mixed products and high halves of squares: twice.
        for i in 0..5 {
            at[2 * i + 1] = _mm512_madd52hi_epu64(at[2 * i + 1], a[i], a[i]);
            for j in i + 1..5 {
                at[i + j] = _mm512_madd52lo_epu64(at[i + j], a[i], a[j]);
            }
        }
        for limb in &mut at[1..] {
            *limb = _mm512_add_epi64(*limb, *limb);
        }
        for i in 0..5 {
            at[2 * i] = _mm512_madd52lo_epu64(at[2 * i], a[i], a[i]);
        }
        Sum::fold(&at)
    }

    /// The product, carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn mul(&self, other: &Self) -> Self {
        self.times(other).carry()
    }

    /// The square, carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn square(&self) -> Self {
        self.squared().carry()
    }

    /// As a sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) const fn sum(&self) -> Sum {
        Sum(self.0)
    }

    /// The sum, carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn add(&self, other: &Self) -> Self {
        self.sum().add(&other.sum()).carry()
    }

    /// The difference, carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn sub(&self, other: &Self) -> Self {
        self.sum().sub(&other.sum()).carry()
    }

    /// The negative of the lanes in `mask`, of carried elements; limbs stay below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn negate_where(&self, mask: __mmask8) -> Self {
        let twice_p = Self::splat(TWICE_P);
        let mut limbs = self.0;
        for (limb, of_p) in limbs.iter_mut().zip(twice_p.0) {
            *limb = _mm512_mask_blend_epi64(mask, *limb, _mm512_sub_epi64(of_p, *limb));
        }
        Self(limbs)
    }

    /// The lanes of `other` in `mask`, else of this.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn blend(&self, mask: __mmask8, other: &Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_mask_blend_epi64(mask, *limb, other);
        }
        Self(limbs)
    }

    /// The least representatives: limbs below 2^51, the whole below the modulus.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn canonical(&self) -> Self {
        let low = _mm512_set1_epi64(LIMB);
        let nineteen = _mm512_set1_epi64(19);
        let mut a = self.0;
        // Twice round: limbs below 2^51, the whole below 2^255.
        for _ in 0..2 {
            let mut carry = _mm512_setzero_si512();
            for limb in &mut a {
                let sum = _mm512_add_epi64(*limb, carry);
                carry = _mm512_srli_epi64::<51>(sum);
                *limb = _mm512_and_si512(sum, low);
            }
            a[0] = _mm512_madd52lo_epu64(a[0], carry, nineteen);
        }
        // When the second round carries out of the top, the lowest limb has just overflowed and is
        // small. Adding 19 carries out of the top exactly from the modulus on.
        let mut quotient = nineteen;
        for limb in &a {
            quotient = _mm512_srli_epi64::<51>(_mm512_add_epi64(*limb, quotient));
        }
        let mut carry = _mm512_madd52lo_epu64(_mm512_setzero_si512(), quotient, nineteen);
        for limb in &mut a {
            let sum = _mm512_add_epi64(*limb, carry);
            carry = _mm512_srli_epi64::<51>(sum);
            *limb = _mm512_and_si512(sum, low);
        }
        Self(a)
    }

    /// The lanes that are zero.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn is_zero(&self) -> __mmask8 {
        let [a, b, c, d, e] = self.canonical().0;
        let any = _mm512_or_si512(
            _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)),
            e,
        );
        _mm512_cmpeq_epi64_mask(any, _mm512_setzero_si512())
    }

    /// The lanes whose least representative is odd: those called negative (RFC 8032 §5.1.2).
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn is_odd(&self) -> __mmask8 {
        let lowest = _mm512_and_si512(self.canonical().0[0], _mm512_set1_epi64(1));
        _mm512_cmpneq_epi64_mask(lowest, _mm512_setzero_si512())
    }
}

impl Sum {
    /// Positions 5 to 9 stand for 2^255 times positions 0 to 4, which is 19 times.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn fold(at: &[__m512i; 10]) -> Self {
        let nineteen = _mm512_set1_epi64(19);
        let mut limbs = [_mm512_setzero_si512(); 5];
        for (k, limb) in limbs.iter_mut().enumerate() {
            *limb = _mm512_add_epi64(at[k], _mm512_mullo_epi64(at[k + 5], nineteen));
        }
        Self(limbs)
    }

    /// The sum; the caller keeps it below 2^63.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn add(&self, other: &Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_add_epi64(*limb, other);
        }
        Self(limbs)
    }

    /// The difference of sums below 2^61; below 2^63.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn sub(&self, other: &Self) -> Self {
        let large = Field::splat(LARGE_P);
        let mut limbs = self.0;
        for ((limb, other), large) in limbs.iter_mut().zip(other.0).zip(large.0) {
            *limb = _mm512_add_epi64(*limb, _mm512_sub_epi64(large, other));
        }
        Self(limbs)
    }

    /// The element, limbs below 2^51 + 2^17: a carry is below 2^13 and the topmost counts
    /// nineteen times.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn carry(&self) -> Field {
        let low = _mm512_set1_epi64(LIMB);
        let mut carries = self.0;
        let mut limbs = self.0;
        for (limb, carry) in limbs.iter_mut().zip(&mut carries) {
            *carry = _mm512_srli_epi64::<51>(*limb);
            *limb = _mm512_and_si512(*limb, low);
        }
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], carries[4], _mm512_set1_epi64(19));
        for k in 1..5 {
            limbs[k] = _mm512_add_epi64(limbs[k], carries[k - 1]);
        }
        Field(limbs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    use super::super::reference::{Element, field, ifma, lanes, limbs};
    use super::{D, Field, ROOT_OF_MINUS_ONE, TWICE_D};

    /// Carried limbs: what products and negation are given.
    const CARRIED: u64 = (1 << 51) + (1 << 17);

    /// Each lane of the wide result against the reference, and the wide result's limbs.
    #[track_caller]
    fn check(wide: &Field, below: u64, expected: impl Fn(usize) -> Element) {
        for (lane, limbs) in lanes(wide).into_iter().enumerate() {
            assert!(limbs.iter().all(|limb| *limb < below), "{limbs:x?}");
            assert_eq!(
                Element::from_limbs(limbs).canonical(),
                expected(lane).canonical(),
                "lane {lane}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn lanes_compute_what_single_elements_do(
            a in proptest::array::uniform8(limbs()),
            b in proptest::array::uniform8(limbs()),
            mask in any::<u8>(),
        ) {
            if ifma().is_none() {
                return Ok(());
            }
            let (wide_a, wide_b) = (field(a), field(b));
            let a = a.map(Element::from_limbs);
            let b = b.map(Element::from_limbs);
            // SAFETY: `ifma` saw the instructions.
            unsafe {
                check(&wide_a.mul(&wide_b), CARRIED, |lane| a[lane].mul(&b[lane]));
                check(&wide_a.square(), CARRIED, |lane| a[lane].mul(&a[lane]));
                check(&wide_a.add(&wide_b), CARRIED, |lane| a[lane].add(&b[lane]));
                check(&wide_a.sub(&wide_b), CARRIED, |lane| a[lane].sub(&b[lane]));
                let chosen = wide_a.blend(mask, &wide_b);
                check(&chosen, 1 << 52, |lane| if mask >> lane & 1 == 1 { b[lane] } else { a[lane] });
                let (canonical, odd, zero) = (wide_a.canonical(), wide_a.is_odd(), wide_a.is_zero());
                check(&canonical, 1 << 51, |lane| a[lane]);
                for (lane, limbs) in lanes(&canonical).into_iter().enumerate() {
                    let expected = a[lane].canonical();
                    prop_assert_eq!(limbs[0] & 1, expected[0] & 1);
                    prop_assert_eq!(u64::from(odd >> lane & 1), expected[0] & 1);
                    prop_assert_eq!(zero >> lane & 1 == 1, expected == [0; 4]);
                    // The limbs are those of the least representative, not of another.
                    let low = limbs[0] | limbs[1] << 51;
                    prop_assert_eq!(low, expected[0]);
                }
                let carried = wide_a.mul(&wide_b);
                check(&carried.negate_where(mask), 1 << 52, |lane| {
                    let product = a[lane].mul(&b[lane]);
                    if mask >> lane & 1 == 1 { Element::from_limbs([0; 5]).sub(&product) } else { product }
                });
            }
        }

        #[test]
        fn sums_of_products_keep_their_bounds(
            a in proptest::array::uniform8(limbs()),
            b in proptest::array::uniform8(limbs()),
        ) {
            if ifma().is_none() {
                return Ok(());
            }
            let (wide_a, wide_b) = (field(a), field(b));
            let a = a.map(Element::from_limbs);
            let b = b.map(Element::from_limbs);
            // SAFETY: `ifma` saw the instructions.
            unsafe {
                let (square, product) = (wide_a.squared(), wide_a.times(&wide_b));
                check(&square.sub(&product).carry(), CARRIED, |lane| {
                    a[lane].mul(&a[lane]).sub(&a[lane].mul(&b[lane]))
                });
                check(&square.add(&product).carry(), CARRIED, |lane| {
                    a[lane].mul(&a[lane]).add(&a[lane].mul(&b[lane]))
                });
            }
        }
    }

    #[test]
    fn zeros_of_every_shape_are_zero() {
        if ifma().is_none() {
            return;
        }
        let low = (1_u64 << 51) - 1;
        let p = [low - 18, low, low, low, low];
        let twice_p = p.map(|limb| 2 * limb);
        let carried_p = [low - 18 + (1 << 51), low - 1, low, low, low];
        let above = [low - 17, low, low, low, low];
        let all = [
            [0; 5],
            p,
            twice_p,
            carried_p,
            above,
            [1, 0, 0, 0, 0],
            [low; 5],
            [2 * low; 5],
        ];
        // SAFETY: `ifma` saw the instructions.
        let zero = unsafe { field(all).is_zero() };
        assert_eq!(zero, 0b0000_1111);
    }

    #[test]
    fn constants_are_what_they_are_called() {
        let element = |limbs: [i64; 5]| Element::from_limbs(limbs.map(i64::cast_unsigned));
        let number = |number| Element::from_limbs([number, 0, 0, 0, 0]);
        let zero = number(0);
        let d = element(D);
        assert_eq!(
            d.mul(&number(121_666)).add(&number(121_665)).canonical(),
            zero.canonical()
        );
        assert_eq!(d.add(&d).canonical(), element(TWICE_D).canonical());
        let root = element(ROOT_OF_MINUS_ONE);
        assert_eq!(
            root.mul(&root).add(&Element::ONE).canonical(),
            zero.canonical()
        );
    }
}
