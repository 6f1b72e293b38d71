//! What the wide code is compared with in tests: the field one element at a time, in four words
//! modulo 2^256 − 38, and points as encodings.

use core::arch::x86_64::__m512i;

use proptest::strategy::Strategy;

use super::Ifma;
use super::field::{D, Field, TWICE_D};
use super::point::Affine;

/// The instructions, or a visible line that says why a test checks nothing.
pub(super) fn ifma() -> Option<Ifma> {
    let ifma = Ifma::detect();
    if ifma.is_none() {
        eprintln!("SKIPPED: this processor lacks AVX-512 IFMA");
    }
    ifma
}

/// A field element, any number below 2^256.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element([u64; 4]);

impl Element {
    pub(super) const ONE: Self = Self([1, 0, 0, 0]);
    const P: [u64; 4] = [u64::MAX - 18, u64::MAX, u64::MAX, u64::MAX >> 1];

    pub(super) fn from_limbs(limbs: [u64; 5]) -> Self {
        let mut sum = Self([0; 4]);
        for limb in limbs.into_iter().rev() {
            sum = sum
                .mul(&Self([1 << 51, 0, 0, 0]))
                .add(&Self([limb, 0, 0, 0]));
        }
        sum
    }

    fn constant(limbs: [i64; 5]) -> Self {
        Self::from_limbs(limbs.map(i64::cast_unsigned))
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let mut words = [0; 8];
        let mut carry = false;
        for (word, (a, b)) in words.iter_mut().zip(self.0.iter().zip(other.0)) {
            (*word, carry) = a.carrying_add(b, carry);
        }
        words[4] = u64::from(carry);
        Self::folded(words)
    }

    pub(super) fn sub(&self, other: &Self) -> Self {
        self.add(&other.mul(&Self([Self::P[0] - 1, Self::P[1], Self::P[2], Self::P[3]])))
    }

    pub(super) fn mul(&self, other: &Self) -> Self {
        let mut words = [0; 8];
        for i in 0..4 {
            let mut carry = 0;
            for j in 0..4 {
                (words[i + j], carry) = self.0[i].carrying_mul_add(other.0[j], words[i + j], carry);
            }
            words[i + 4] = carry;
        }
        Self::folded(words)
    }

    /// 2^256 counts 38.
    fn folded(mut words: [u64; 8]) -> Self {
        while words[4..] != [0; 4] {
            let high = [words[4], words[5], words[6], words[7]];
            words[4..].fill(0);
            let mut carry = 0;
            for at in 0..4 {
                (words[at], carry) = high[at].carrying_mul_add(38, words[at], carry);
            }
            words[4] = carry;
        }
        Self([words[0], words[1], words[2], words[3]])
    }

    pub(super) fn canonical(&self) -> [u64; 4] {
        let mut words = self.0;
        while words.iter().rev().ge(Self::P.iter().rev()) {
            let mut borrow = false;
            for (word, of_p) in words.iter_mut().zip(Self::P) {
                (*word, borrow) = word.borrowing_sub(of_p, borrow);
            }
        }
        words
    }

    fn half(&self) -> Self {
        // (p + 1)/2 = 2^254 − 9.
        self.mul(&Self([u64::MAX - 8, u64::MAX, u64::MAX, u64::MAX >> 2]))
    }
}

/// The limbs of each lane.
pub(super) fn lanes(field: &Field) -> [[u64; 5]; 8] {
    let limbs = field.0.map(|limb| {
        // SAFETY: both are 64 bytes in which every pattern of bits is a value.
        unsafe { core::mem::transmute::<__m512i, [u64; 8]>(limb) }
    });
    core::array::from_fn(|lane| limbs.map(|limb| limb[lane]))
}

/// Eight elements of these limbs.
pub(super) fn field(lanes: [[u64; 5]; 8]) -> Field {
    Field(core::array::from_fn(|limb| {
        let words = lanes.map(|limbs| limbs[limb]);
        // SAFETY: both are 64 bytes in which every pattern of bits is a value.
        unsafe { core::mem::transmute::<[u64; 8], __m512i>(words) }
    }))
}

/// The encoding of an affine point, whose three coordinates must belong together.
pub(super) fn encoding(point: &Affine) -> [u8; 32] {
    let [plus, minus, product] = point.coordinates().map(Element::from_limbs);
    let y = plus.add(&minus).half();
    let x = plus.sub(&minus).half();
    let xy = x.mul(&y);
    let of_curve = Element::ONE.add(&Element::constant(D).mul(&xy.mul(&xy)));
    assert_eq!(
        y.mul(&y).sub(&x.mul(&x)).canonical(),
        of_curve.canonical(),
        "not on the curve"
    );
    assert_eq!(
        product.canonical(),
        Element::constant(TWICE_D).mul(&xy).canonical()
    );
    let mut words = y.canonical();
    words[3] |= (x.canonical()[0] & 1) << 63;
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Limbs below 2^52, often at an end of their range.
pub(super) fn limbs() -> impl Strategy<Value = [u64; 5]> {
    let limb = proptest::prop_oneof![
        0..1_u64 << 52,
        0..3_u64,
        (1_u64 << 51) - 20..(1 << 51) + 3,
        (1_u64 << 52) - 3..1 << 52,
    ];
    proptest::array::uniform5(limb)
}
