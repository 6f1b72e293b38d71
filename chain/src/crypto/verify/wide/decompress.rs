//! Encodings to points, eight or sixteen at a time.
//!
//! The rule is ZIP-215's, which is also that of curve25519-dalek's `decompress`: y is taken modulo
//! p, whether canonical or not, and the sign bit of a point with x = 0 is ignored.

use core::arch::x86_64::{
    __m512i, __mmask8, _mm512_and_si512, _mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_test_epi64_mask,
};

use super::field::{D, Field, ROOT_OF_MINUS_ONE};
use super::point::{Affine, Affines};

/// Encodings handled together.
pub(super) const GROUP: usize = 16;

/// The points of up to [`GROUP`] encodings, and a bit for each that is one.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn decompress(encodings: &[&[u8; 32]]) -> ([Affine; GROUP], u16) {
    debug_assert!(encodings.len() <= GROUP);
    let mut words = [[[0_u64; 8]; 4]; 2];
    for (at, encoding) in encodings.iter().take(GROUP).enumerate() {
        let (quarters, _) = encoding.as_chunks::<8>();
        for (word, quarter) in quarters.iter().enumerate() {
            words[at / 8][word][at % 8] = u64::from_le_bytes(*quarter);
        }
    }
    let halves = words.each_ref().map(|half| Encoded::load(half));
    let ratios = halves.each_ref().map(|half| half.ratio());
    let powers = Ratio::powers(&ratios);
    let mut points = [Affine::NEUTRAL; GROUP];
    let mut valid = [0_u8; 2];
    let (parts, _) = points.as_chunks_mut::<8>();
    for (half, part) in parts.iter_mut().enumerate() {
        let (x, is_square) = ratios[half].root(&powers[half]);
        valid[half] = is_square;
        let wrong_sign = x.is_odd() ^ halves[half].sign;
        Affines::new(&x.negate_where(wrong_sign), &halves[half].y).store(part);
    }
    (points, u16::from_le_bytes(valid))
}

/// Eight encodings: y and the lanes with a sign.
struct Encoded {
    y: Field,
    sign: __mmask8,
}

impl Encoded {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn load(words: &[[u64; 8]; 4]) -> Self {
        let [a, b, c, d]: [__m512i; 4] = words.each_ref().map(|lanes| {
            // SAFETY: the array is 64 bytes long, and the load may be unaligned.
            unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
        });
        let low = _mm512_set1_epi64((1 << 51) - 1);
        let limb = |word: __m512i| _mm512_and_si512(word, low);
        let y = Field([
            limb(a),
            limb(_mm512_or_si512(
                _mm512_srli_epi64::<51>(a),
                _mm512_slli_epi64::<13>(b),
            )),
            limb(_mm512_or_si512(
                _mm512_srli_epi64::<38>(b),
                _mm512_slli_epi64::<26>(c),
            )),
            limb(_mm512_or_si512(
                _mm512_srli_epi64::<25>(c),
                _mm512_slli_epi64::<39>(d),
            )),
            limb(_mm512_srli_epi64::<12>(d)),
        ]);
        let sign = _mm512_test_epi64_mask(d, _mm512_set1_epi64(i64::MIN));
        Self { y, sign }
    }

    /// x² = (y² − 1) / (dy² + 1).
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn ratio(&self) -> Ratio {
        let square = self.y.square();
        let u = square.sub(&Field::one());
        let v = square.mul(&Field::splat(D)).add(&Field::one());
        let v3 = v.square().mul(&v);
        Ratio {
            u,
            v,
            uv3: u.mul(&v3),
            uv7: u.mul(&v3.square()).mul(&v),
        }
    }
}

/// Eight ratios u/v whose roots are wanted (RFC 8032 §5.1.3).
struct Ratio {
    u: Field,
    v: Field,
    uv3: Field,
    uv7: Field,
}

impl Ratio {
    /// (uv⁷)^((p − 5)/8) for both halves, interleaved: a square waits longer than it computes.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn powers([a, b]: &[Self; 2]) -> [Field; 2] {
        let base = Pair(a.uv7, b.uv7);
        // The exponent is 2^252 − 3. A name is the number of ones in the exponent so far.
        let two = base.square();
        let nine = two.squares(2).mul(&base);
        let eleven = nine.mul(&two);
        let ones_5 = eleven.square().mul(&nine);
        let ones_10 = ones_5.squares(5).mul(&ones_5);
        let ones_20 = ones_10.squares(10).mul(&ones_10);
        let ones_40 = ones_20.squares(20).mul(&ones_20);
        let ones_50 = ones_40.squares(10).mul(&ones_10);
        let ones_100 = ones_50.squares(50).mul(&ones_50);
        let ones_200 = ones_100.squares(100).mul(&ones_100);
        let ones_250 = ones_200.squares(50).mul(&ones_50);
        let Pair(a, b) = ones_250.squares(2).mul(&base);
        [a, b]
    }

    /// A root of each ratio, and the lanes that have one.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn root(&self, power: &Field) -> (Field, __mmask8) {
        let root = self.uv3.mul(power);
        let square = root.square().mul(&self.v);
        let is_u = square.sub(&self.u).is_zero();
        let is_minus_u = square.add(&self.u).is_zero();
        let turned = root.mul(&Field::splat(ROOT_OF_MINUS_ONE));
        (root.blend(is_minus_u, &turned), is_u | is_minus_u)
    }
}

/// Sixteen elements.
#[derive(Clone, Copy)]
struct Pair(Field, Field);

impl Pair {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn mul(&self, other: &Self) -> Self {
        Self(self.0.mul(&other.0), self.1.mul(&other.1))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn square(&self) -> Self {
        Self(self.0.square(), self.1.square())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn squares(&self, times: u32) -> Self {
        let mut pair = *self;
        for _ in 0..times {
            pair = pair.square();
        }
        pair
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::edwards::CompressedEdwardsY;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::super::reference::{encoding, ifma};
    use super::Affine;
    use crate::crypto::verify::batch::Engine;

    fn check(encodings: &[[u8; 32]]) -> usize {
        let Some(ifma) = ifma() else {
            return 0;
        };
        let borrowed: Vec<_> = encodings.iter().collect();
        let mut points = vec![Affine::NEUTRAL; encodings.len()];
        let valid = ifma.decompress(&borrowed, &mut points);
        let neutral = encoding(&Affine::NEUTRAL);
        for ((bytes, point), valid) in encodings.iter().zip(&points).zip(&valid) {
            let expected = CompressedEdwardsY(*bytes).decompress();
            assert_eq!(*valid, expected.is_some(), "{bytes:x?}");
            let expected = expected.map_or(neutral, |point| point.compress().to_bytes());
            assert_eq!(encoding(point), expected, "{bytes:x?}");
        }
        valid.iter().filter(|valid| **valid).count()
    }

    #[test]
    fn edges_are_the_points_they_are_for_dalek() {
        let mut encodings = Vec::new();
        // The least numbers, those around the modulus and all above it.
        for sign in [0, 0x80] {
            for low in 0..=255 {
                let mut least = [0; 32];
                least[0] = low;
                least[31] = sign;
                let mut greatest = [0xff; 32];
                greatest[0] = low;
                greatest[31] = 0x7f | sign;
                encodings.extend([least, greatest]);
            }
        }
        for point in EIGHT_TORSION {
            let mut bytes = point.compress().to_bytes();
            encodings.push(bytes);
            bytes[31] ^= 0x80;
            encodings.push(bytes);
        }
        let points = check(&encodings);
        assert!(
            points == 0 || points > 400,
            "{points} of {}",
            encodings.len()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_point_they_are_for_dalek(encodings in vec(any::<[u8; 32]>(), 0..70)) {
            check(&encodings);
        }
    }
}
