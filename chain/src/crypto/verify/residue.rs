//! Numbers modulo the group's order, for the sums of a batch: products stay wide, and only a
//! finished sum is reduced. Nothing here is secret.
//!
//! The order is l = 2^252 + δ, so that 2^252 counts −δ.

/// The group's order l (RFC 8032 §5.1), in words.
const ORDER: [u64; 4] = [
    0x5812_631a_5cf5_d3ed,
    0x14de_f9de_a2f7_9cd6,
    0,
    0x1000_0000_0000_0000,
];
/// δ = l − 2^252, below 2^125.
const DELTA: [u64; 2] = [ORDER[0], ORDER[1]];

/// A number below the group's order, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Residue([u64; 4]);

impl Residue {
    /// Zero.
    pub(super) const ZERO: Self = Self([0; 4]);

    /// The number in 32 bytes, `None` when it is not below the order.
    pub(super) fn canonical(bytes: &[u8; 32]) -> Option<Self> {
        let words = words(bytes);
        words
            .iter()
            .rev()
            .lt(ORDER.iter().rev())
            .then_some(Self(words))
    }

    /// The number in 64 bytes, modulo the order.
    pub(super) fn reduced(bytes: &[u8; 64]) -> Self {
        Self::of(&words(bytes))
    }

    /// x modulo the order: with x = x_1·2^252 + x_0 it is x_0 − δ·x_1, and so on for δ·x_1.
    fn of(x: &[u64; 8]) -> Self {
        let [x0, x1, x2, x3, x4, x5, x6, x7] = *x;
        // δ·x_1 is below 2^385.
        let x_high = [
            high(x3, x4),
            high(x4, x5),
            high(x5, x6),
            high(x6, x7),
            x7 >> 60,
        ];
        let [y0, y1, y2, y3, y4, y5, y6] = times_delta::<5, 7>(&x_high);
        // δ·y_1 is below 2^258.
        let y_high = [high(y3, y4), high(y4, y5), high(y5, y6)];
        let [w0, w1, w2, w3, w4] = times_delta::<3, 5>(&y_high);
        // δ·w_1 is below 2^131.
        let [v0, v1, v2] = times_delta::<1, 3>(&[high(w3, w4)]);
        // x_0 + w_0 + 2l − y_0 − δ·w_1 is positive and below 2^254 + 2^253.
        let twice_order = double(&ORDER);
        let sum = add(&[x0, x1, x2, low(x3)], &[w0, w1, w2, low(w3)]);
        let mut sum = add(&sum, &twice_order);
        sum = sub(&sum, &[y0, y1, y2, low(y3)]).0;
        sum = sub(&sum, &[v0, v1, v2, 0]).0;
        for multiple in [double(&twice_order), twice_order, ORDER] {
            let (less, borrow) = sub(&sum, &multiple);
            if !borrow {
                sum = less;
            }
        }
        Self(sum)
    }

    /// The negative.
    pub(super) fn negative(&self) -> Self {
        if *self == Self::ZERO {
            Self::ZERO
        } else {
            Self(sub(&ORDER, &self.0).0)
        }
    }

    /// Little-endian words.
    #[cfg(target_arch = "x86_64")]
    pub(super) const fn words(&self) -> [u64; 4] {
        self.0
    }

    /// Little-endian bytes.
    pub(super) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(self.0) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

/// A sum of products of coefficients and residues, positive and negative ones apart. There is room
/// for 2^67 of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products([[u64; 7]; 2]);

impl Products {
    /// An empty sum.
    pub(super) const EMPTY: Self = Self([[0; 7]; 2]);

    /// Adds a product.
    pub(super) fn add(&mut self, coefficient: i128, residue: &Residue) {
        let magnitude = coefficient.unsigned_abs();
        let [low, high] = halves(magnitude);
        let product = times(&residue.0, low, high);
        let sum = &mut self.0[usize::from(coefficient < 0)];
        let mut carry = false;
        for (word, of_product) in sum.iter_mut().zip(product) {
            (*word, carry) = word.carrying_add(of_product, carry);
        }
        sum[6] = sum[6].wrapping_add(u64::from(carry));
    }

    /// The sum, modulo the order.
    pub(super) fn residue(&self) -> Residue {
        let [plus, minus] = self
            .0
            .map(|[a, b, c, d, e, f, g]| Residue::of(&[a, b, c, d, e, f, g, 0]));
        let (difference, borrow) = sub(&plus.0, &minus.0);
        Residue(if borrow {
            add(&difference, &ORDER)
        } else {
            difference
        })
    }
}

/// The low and the high word.
const fn halves(number: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = number.to_le_bytes();
    [
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// Bits 60 to 123 of two words: what counts 2^252 when they are words 3 and 4.
const fn high(word: u64, next: u64) -> u64 {
    (word >> 60) | (next << 4)
}

/// The lowest sixty bits.
const fn low(word: u64) -> u64 {
    word & (u64::MAX >> 4)
}

/// A number times δ.
fn times_delta<const WORDS: usize, const PRODUCT: usize>(number: &[u64; WORDS]) -> [u64; PRODUCT] {
    let mut product = [0; PRODUCT];
    for (at, factor) in DELTA.iter().enumerate() {
        let mut carry = 0;
        for (word, place) in number.iter().zip(&mut product[at..]) {
            (*place, carry) = word.carrying_mul_add(*factor, *place, carry);
        }
        product[at + WORDS] = carry;
    }
    product
}

/// A residue times two words.
fn times(residue: &[u64; 4], low: u64, high: u64) -> [u64; 6] {
    let mut product = [0; 6];
    for (at, factor) in [low, high].iter().enumerate() {
        let mut carry = 0;
        for (word, place) in residue.iter().zip(&mut product[at..]) {
            (*place, carry) = word.carrying_mul_add(*factor, *place, carry);
        }
        product[at + 4] = carry;
    }
    product
}

fn add(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    let mut carry = false;
    core::array::from_fn(|at| {
        let (word, out) = a[at].carrying_add(b[at], carry);
        carry = out;
        word
    })
}

fn double(a: &[u64; 4]) -> [u64; 4] {
    add(a, a)
}

/// The difference, and whether it is negative.
fn sub(a: &[u64; 4], b: &[u64; 4]) -> ([u64; 4], bool) {
    let mut borrow = false;
    let difference = core::array::from_fn(|at| {
        let (word, out) = a[at].borrowing_sub(b[at], borrow);
        borrow = out;
        word
    });
    (difference, borrow)
}

/// Little-endian words of bytes.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let (chunks, _) = bytes.as_chunks::<8>();
    core::array::from_fn(|at| u64::from_le_bytes(chunks[at]))
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::scalar::Scalar;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{ORDER, Products, Residue, words};
    use crate::crypto::verify::portable::signed;

    #[test]
    fn edges_are_reduced_as_dalek_does() {
        let order = Residue(ORDER).bytes();
        for low in [[0; 32], [0xff; 32], order] {
            for high in [[0; 32], [0xff; 32], order, Residue([1, 0, 0, 0]).bytes()] {
                for change in [0_u8, 1, 0xff] {
                    let mut bytes = [0; 64];
                    bytes[..32].copy_from_slice(&low);
                    bytes[32..].copy_from_slice(&high);
                    bytes[0] = bytes[0].wrapping_add(change);
                    assert_eq!(
                        Residue::reduced(&bytes).bytes(),
                        Scalar::from_bytes_mod_order_wide(&bytes).to_bytes()
                    );
                }
            }
        }
        assert_eq!(Residue::canonical(&order), None);
        assert_eq!(Residue::canonical(&[0xff; 32]), None);
        let mut below = order;
        below[0] -= 1;
        assert_eq!(Residue::canonical(&below).map(|s| s.bytes()), Some(below));
        assert_eq!(Residue::ZERO.negative(), Residue::ZERO);
    }

    proptest! {
        #[test]
        fn numbers_are_reduced_as_dalek_does(bytes in any::<[[u8; 32]; 2]>()) {
            let bytes: [u8; 64] = bytes.concat().try_into().expect("64 bytes");
            let expected = Scalar::from_bytes_mod_order_wide(&bytes);
            let residue = Residue::reduced(&bytes);
            prop_assert_eq!(residue.bytes(), expected.to_bytes());
            prop_assert_eq!(residue.negative().bytes(), (-expected).to_bytes());
            let low: [u8; 32] = bytes[..32].try_into().expect("32 bytes");
            prop_assert_eq!(
                Residue::canonical(&low).is_some(),
                bool::from(Scalar::from_canonical_bytes(low).is_some())
            );
        }

        #[test]
        fn products_sum_as_dalek_does(
            terms in proptest::collection::vec((any::<i128>(), any::<[[u8; 32]; 2]>()), 0..20)
        ) {
            let mut products = Products::EMPTY;
            let mut expected = Scalar::ZERO;
            for (coefficient, bytes) in terms {
                let bytes: [u8; 64] = bytes.concat().try_into().expect("64 bytes");
                products.add(coefficient, &Residue::reduced(&bytes));
                expected += signed(coefficient) * Scalar::from_bytes_mod_order_wide(&bytes);
            }
            prop_assert_eq!(products.residue().bytes(), expected.to_bytes());
        }
    }

    #[test]
    fn the_least_coefficient_has_a_magnitude() {
        let mut products = Products::EMPTY;
        let one = Residue(words(&Scalar::ONE.to_bytes()));
        products.add(i128::MIN, &one);
        assert_eq!(products.residue().bytes(), signed(i128::MIN).to_bytes());
    }
}
