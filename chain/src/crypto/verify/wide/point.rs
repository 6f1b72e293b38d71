//! Eight points of edwards25519 at once.
//!
//! Sums use the complete formulas of Hisil, Wong, Carter and Dawson ("Twisted Edwards curves
//! revisited", 2008), so that equal points, opposite points and points of small order need no
//! case of their own. Differences and sums of products are formed before their carries are taken.

use core::arch::x86_64::{__m512i, __mmask8, _mm512_alignr_epi64, _mm512_setzero_si512};

use super::field::{Field, TWICE_D};
use super::rows::{Row, transpose};

/// A point in affine form as memory holds it: y + x, y − x and 2dxy, five limbs each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine(Row<16>);

/// A point in extended form as memory holds it: Y − X, Y + X, Z and T, five limbs each.
#[derive(Clone, Copy)]
pub(super) struct Stored(Row<24>);

/// Eight affine points.
#[derive(Clone, Copy)]
pub(super) struct Affines {
    plus: Field,
    minus: Field,
    product: Field,
}

/// Eight points (X : Y : Z) with T = XY/Z, as Y − X, Y + X, Z and T.
#[derive(Clone, Copy)]
pub(super) struct Points {
    minus: Field,
    plus: Field,
    z: Field,
    t: Field,
}

/// The last half of every formula: (EF : GH : FG) with T = EH. A macro, as a function would not be
/// inlined, and a point through memory costs a tenth of a sum.
macro_rules! finish {
    ($e:expr, $f:expr, $g:expr, $h:expr) => {{
        let (e, f, g, h) = ($e, $f, $g, $h);
        let x = e.times(f);
        let y = g.times(h);
        Points {
            minus: y.sub(&x).carry(),
            plus: y.add(&x).carry(),
            z: f.mul(g),
            t: e.mul(h),
        }
    }};
}

/// A sum from its first four products.
macro_rules! sum {
    ($a:expr, $b:expr, $c:expr, $d:expr) => {{
        let (a, b, c, d) = ($a, $b, $c, $d);
        finish!(
            &b.sub(a).carry(),
            &d.sub(c).carry(),
            &d.add(c).carry(),
            &b.add(a).carry()
        )
    }};
}

impl Affine {
    /// The neutral point.
    pub(super) const NEUTRAL: Self = {
        let mut words = [0; 16];
        words[0] = 1;
        words[5] = 1;
        Self(Row(words))
    };

    /// The limbs of y + x, y − x and 2dxy.
    #[cfg(test)]
    pub(super) fn coordinates(&self) -> [[u64; 5]; 3] {
        let words = self.0.0;
        core::array::from_fn(|at| core::array::from_fn(|limb| words[5 * at + limb]))
    }
}

impl Stored {
    /// The neutral point.
    pub(super) const NEUTRAL: Self = {
        let mut words = [0; 24];
        words[0] = 1;
        words[5] = 1;
        words[10] = 1;
        Self(Row(words))
    };

    /// Of the limbs of Y − X, Y + X, Z and T.
    pub(super) fn new(coordinates: &[[u64; 5]; 4]) -> Self {
        let mut words = [0; 24];
        words[..20].copy_from_slice(coordinates.as_flattened());
        Self(Row(words))
    }

    /// The limbs of Y − X, Y + X, Z and T.
    pub(super) fn coordinates(&self) -> [[u64; 5]; 4] {
        let words = self.0.0;
        core::array::from_fn(|at| core::array::from_fn(|limb| words[5 * at + limb]))
    }
}

impl Affines {
    /// From carried coordinates.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn new(x: &Field, y: &Field) -> Self {
        Self {
            plus: y.add(x),
            minus: y.sub(x),
            product: x.mul(y).mul(&Field::splat(TWICE_D)),
        }
    }

    /// From eight rows; those in `negative` stand for their negatives.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn load(rows: [&Affine; 8], negative: __mmask8) -> Self {
        let [a, b, c, d, e, f, g, h] = rows;
        let part = |part: usize| {
            transpose([
                a.0.part(part),
                b.0.part(part),
                c.0.part(part),
                d.0.part(part),
                e.0.part(part),
                f.0.part(part),
                g.0.part(part),
                h.0.part(part),
            ])
        };
        let [p0, p1, p2, p3, p4, m0, m1, m2] = part(0);
        let [m3, m4, t0, t1, t2, t3, t4, _] = part(1);
        let plus = Field([p0, p1, p2, p3, p4]);
        let minus = Field([m0, m1, m2, m3, m4]);
        Self {
            plus: plus.blend(negative, &minus),
            minus: minus.blend(negative, &plus),
            product: Field([t0, t1, t2, t3, t4]).negate_where(negative),
        }
    }

    /// Into eight rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn store(&self, rows: &mut [Affine; 8]) {
        let [p0, p1, p2, p3, p4] = self.plus.0;
        let [m0, m1, m2, m3, m4] = self.minus.0;
        let [t0, t1, t2, t3, t4] = self.product.0;
        let first = transpose([p0, p1, p2, p3, p4, m0, m1, m2]);
        let second = transpose([m3, m4, t0, t1, t2, t3, t4, _mm512_setzero_si512()]);
        for (row, (first, second)) in rows.iter_mut().zip(first.into_iter().zip(second)) {
            row.0.set_part(0, first);
            row.0.set_part(1, second);
        }
    }

    /// The same points in extended form, with Z = 2.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn extended(&self) -> Points {
        // (2x : 2y : 2) with T = 2xy. From y + x and y − x come 2x and 2y, whose product is 2T;
        // doubling all four instead of halving T gives (4x : 4y : 4), T = 4xy.
        let x2 = self.plus.sub(&self.minus);
        let y2 = self.plus.add(&self.minus);
        let fourfold = |a: &Field| {
            let twice = a.sum().add(&a.sum());
            twice.add(&twice).carry()
        };
        Points {
            minus: fourfold(&self.minus),
            plus: fourfold(&self.plus),
            z: Field::splat([4, 0, 0, 0, 0]),
            t: x2.mul(&y2),
        }
    }
}

impl Points {
    /// Eight neutral points.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn neutral() -> Self {
        Self {
            minus: Field::one(),
            plus: Field::one(),
            z: Field::one(),
            t: Field::zero(),
        }
    }

    /// The sum with affine points: seven products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn add_affine(&self, other: &Affines) -> Self {
        let d = self.z.sum();
        sum!(
            &self.minus.times(&other.minus),
            &self.plus.times(&other.plus),
            &self.t.times(&other.product),
            &d.add(&d)
        )
    }

    /// The sum: nine products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn add(&self, other: &Self) -> Self {
        let d = self.z.times(&other.z);
        sum!(
            &self.minus.times(&other.minus),
            &self.plus.times(&other.plus),
            &self.t.mul(&other.t).times(&Field::splat(TWICE_D)),
            &d.add(&d)
        )
    }

    /// The double: three squares and five products.
    ///
    /// With E = 4XY, H = 2(X² + Y²), G = 2(Y² − X²) and F = 4Z² − G, all from Y − X and Y + X:
    /// x = E/G and y = H/F.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn double(&self) -> Self {
        let plus = self.plus.squared();
        let minus = self.minus.squared();
        let g = self.plus.times(&self.minus);
        let g = g.add(&g);
        let z = self.z.squared();
        let z = z.add(&z);
        finish!(
            &plus.sub(&minus).carry(),
            &z.add(&z).sub(&g).carry(),
            &g.carry(),
            &plus.add(&minus).carry()
        )
    }

    /// In lane i the point of lane i + `LANES`, modulo eight.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn rotated<const LANES: i32>(&self) -> Self {
        let turn = |field: &Field| {
            let mut limbs = field.0;
            for limb in &mut limbs {
                *limb = _mm512_alignr_epi64::<LANES>(*limb, *limb);
            }
            Field(limbs)
        };
        Self {
            minus: turn(&self.minus),
            plus: turn(&self.plus),
            z: turn(&self.z),
            t: turn(&self.t),
        }
    }

    /// The lanes with the neutral point: X = 0 and Y = Z.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn is_neutral(&self) -> __mmask8 {
        let x2 = self.plus.sub(&self.minus);
        let y2 = self.plus.add(&self.minus);
        x2.is_zero() & y2.sub(&self.z.add(&self.z)).is_zero()
    }

    /// From eight rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn load(rows: [&Stored; 8]) -> Self {
        let part = |part: usize| {
            let [a, b, c, d, e, f, g, h] = rows;
            transpose([
                a.0.part(part),
                b.0.part(part),
                c.0.part(part),
                d.0.part(part),
                e.0.part(part),
                f.0.part(part),
                g.0.part(part),
                h.0.part(part),
            ])
        };
        let [m0, m1, m2, m3, m4, p0, p1, p2] = part(0);
        let [p3, p4, z0, z1, z2, z3, z4, t0] = part(1);
        let [t1, t2, t3, t4, ..] = part(2);
        Self {
            minus: Field([m0, m1, m2, m3, m4]),
            plus: Field([p0, p1, p2, p3, p4]),
            z: Field([z0, z1, z2, z3, z4]),
            t: Field([t0, t1, t2, t3, t4]),
        }
    }

    /// From two rows; the other lanes are neutral.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn in_lanes_0_and_1(first: &Stored, second: &Stored) -> Self {
        let none = &Stored::NEUTRAL;
        Self::load([first, second, none, none, none, none, none, none])
    }

    /// As eight rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn rows(&self) -> [Stored; 8] {
        let [m0, m1, m2, m3, m4] = self.minus.0;
        let [p0, p1, p2, p3, p4] = self.plus.0;
        let [z0, z1, z2, z3, z4] = self.z.0;
        let [t0, t1, t2, t3, t4] = self.t.0;
        let none: __m512i = _mm512_setzero_si512();
        let parts = [
            transpose([m0, m1, m2, m3, m4, p0, p1, p2]),
            transpose([p3, p4, z0, z1, z2, z3, z4, t0]),
            transpose([t1, t2, t3, t4, none, none, none, none]),
        ];
        let mut rows = [Stored::NEUTRAL; 8];
        for (part, lanes) in parts.into_iter().enumerate() {
            for (row, lane) in rows.iter_mut().zip(lanes) {
                row.0.set_part(part, lane);
            }
        }
        rows
    }
}
