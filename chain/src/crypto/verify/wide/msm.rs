//! Sums Σ n_i P_i, Pippenger's way: for each window of the numbers, points with equal digits meet
//! in a bucket, and the buckets are weighted by running sums (Bernstein, Doumen, Lange and
//! Oosterwijk, "Faster batch forgery identification", 2012).
//!
//! Digits are signed, so that 2^(c−1) buckets serve c bits, and come without a chain of carries:
//! half of the radix is added at every digit beforehand and taken off each digit afterwards.
//!
//! Eight lanes fill eight buckets of one window, each with its own points. Buckets are taken in
//! order of their sizes, so that lanes end together; a lane that ends early adds neutral points.
//! For the running sums a lane holds a window, with window j·rounds + g in lane j at round g.

use core::arch::x86_64::{_mm256_loadu_si256, _mm256_movepi32_mask};

use super::super::residue::Residue;
use super::narrow;
use super::point::{Affine, Affines, Points, Stored};

/// Bits of a short number, two's complement.
const SHORT_BITS: usize = 128;
/// Bits of a residue taken between −l/2 and l/2, two's complement but for values beyond ±2^251,
/// which the topmost digit takes in.
const LONG_BITS: usize = 252;
/// Window sizes considered.
const WINDOW_BITS_MIN: usize = 3;
const WINDOW_BITS_MAX: usize = 12;
/// Set in an entry of a schedule when the negative of the point is meant: the sign of its digit.
const NEGATIVE: u32 = 1 << 31;
/// The entry of a lane that has ended: an index beyond all points.
const NOBODY: u32 = NEGATIVE - 1;
/// The group's order l = 2^252 + 27742317777372353535851937790883648493, in words.
const ORDER: [u64; 5] = [
    0x5812_631a_5cf5_d3ed,
    0x14de_f9de_a2f7_9cd6,
    0,
    0x1000_0000_0000_0000,
    0,
];

/// Whether `[8](Σ short_i P_i + Σ long_i Q_i)` is the neutral point, where the points are first
/// all P, then all Q.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn sum_is_small(points: &[Affine], short: &[i128], long: &[Residue]) -> bool {
    debug_assert_eq!(points.len(), short.len() + long.len());
    let windows = Windows::choose(short.len(), long.len());
    let numbers = windows.numbers(short, long);
    let sum = windows.sum(points, &numbers, short.len());
    // Lane 0 holds the sum.
    sum.double().double().double().is_neutral() & 1 == 1
}

/// How numbers are cut into digits.
#[derive(Clone, Copy, Debug)]
struct Windows {
    /// Bits of a digit.
    bits: usize,
    /// Digits of short numbers.
    short: usize,
    /// Digits of long numbers.
    long: usize,
}

impl Windows {
    const fn new(bits: usize) -> Self {
        Self {
            bits,
            short: SHORT_BITS.div_ceil(bits),
            long: LONG_BITS.div_ceil(bits),
        }
    }

    /// The cheapest for so many numbers.
    fn choose(short: usize, long: usize) -> Self {
        (WINDOW_BITS_MIN..=WINDOW_BITS_MAX)
            .map(Self::new)
            .min_by_key(|windows| windows.cost(short, long))
            .expect("there are window sizes")
    }

    /// Products in the field, roughly: seven for a point, eighteen for a bucket in each lane, and
    /// as many as a hundred would take for the work around a window.
    const fn cost(&self, short: usize, long: usize) -> usize {
        7 * (short * self.short + long * self.long)
            + 18 * 8 * self.rounds() * self.buckets()
            + 100 * self.long
    }

    /// Buckets of a window: those of the digits 1 to 2^(c−1).
    const fn buckets(&self) -> usize {
        1 << (self.bits - 1)
    }

    /// Rounds in which eight windows are summed.
    const fn rounds(&self) -> usize {
        self.long.div_ceil(8)
    }

    /// Half of the radix at each of so many digits.
    fn halves(&self, digits: usize) -> [u64; 5] {
        let mut words = [0; 5];
        for digit in 0..digits {
            let bit = digit * self.bits + self.bits - 1;
            words[bit / 64] |= 1 << (bit % 64);
        }
        words
    }

    /// Every number, halves added, in bytes with room to read eight from any digit on.
    fn numbers(&self, short: &[i128], long: &[Residue]) -> Vec<[u8; 48]> {
        let of_short = self.halves(self.short);
        let of_long = self.halves(self.long);
        let shorts = short.iter().map(|number| {
            let bytes = number.to_le_bytes();
            let (halves, _) = bytes.as_chunks::<8>();
            let [low, high] = [halves[0], halves[1]].map(u64::from_le_bytes);
            let sign = if *number < 0 { u64::MAX } else { 0 };
            add([low, high, sign, sign, sign], of_short)
        });
        let longs = long.iter().map(|residue| {
            let [a, b, c, d] = residue.words();
            let number = [a, b, c, d, 0];
            // A residue is below l < 2^253: from 2^251 on, take l off.
            let centred = if d >> 59 == 0 {
                number
            } else {
                sub(number, ORDER)
            };
            add(centred, of_long)
        });
        shorts.chain(longs).map(bytes).collect()
    }

    /// The digit of a number in a window, without its halves.
    #[inline]
    fn digit(&self, number: &[u8; 48], window: usize, last: bool) -> i32 {
        let bit = window * self.bits;
        let word = number[bit / 8..]
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mask = if last { u64::MAX } else { (1 << self.bits) - 1 };
        let digit = (word >> (bit % 8)) & mask;
        i32::try_from(digit).map_or(0, |digit| digit - (1 << (self.bits - 1)))
    }

    /// The sum, in lane 0.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn sum(&self, points: &[Affine], numbers: &[[u8; 48]], short: usize) -> Points {
        let rounds = self.rounds();
        let mut schedule = Schedule::new(self.buckets());
        let mut stored = vec![Stored::NEUTRAL; 8 * self.buckets()];
        let mut sum = Points::neutral();
        for round in (0..rounds).rev() {
            for (lane, buckets) in stored.chunks_exact_mut(self.buckets()).enumerate() {
                self.digits(&mut schedule, numbers, short, lane * rounds + round);
                schedule.arrange();
                schedule.fill(points, buckets);
            }
            sum = doubled(&sum, self.bits).add(&weighted(&stored, self.buckets()));
        }
        // Lane j counts 2^(j·c·rounds) times.
        let bits = self.bits * rounds;
        let sum = sum.add(&doubled(&sum, bits).rotated::<1>());
        // From here on only lanes 0, 2, 4 and 6 count, and then only two.
        let [first, _, second, _, third, _, fourth, _] = sum.rows();
        let [second, fourth] = narrow::doubled([&second, &fourth], 2 * bits);
        let pairs = Points::in_lanes_0_and_1(&first, &third)
            .add(&Points::in_lanes_0_and_1(&second, &fourth));
        let [low, high, ..] = pairs.rows();
        let [high, _] = narrow::doubled([&high, &Stored::NEUTRAL], 4 * bits);
        pairs.add(&Points::in_lanes_0_and_1(&high, &low))
    }

    /// Every number's digit in a window.
    fn digits(&self, schedule: &mut Schedule, numbers: &[[u8; 48]], short: usize, window: usize) {
        let (shorts, longs) = numbers.split_at(short);
        schedule.digits.clear();
        schedule.first = index_of(short);
        if window < self.short {
            let last = window + 1 == self.short;
            let digits = shorts.iter().map(|number| self.digit(number, window, last));
            schedule.digits.extend(digits);
            schedule.first = 0;
        }
        if window < self.long {
            let last = window + 1 == self.long;
            let digits = longs.iter().map(|number| self.digit(number, window, last));
            schedule.digits.extend(digits);
        }
    }
}

/// Which points meet in the buckets of a window.
struct Schedule {
    /// Index of the point with the first digit.
    first: u32,
    /// Digits of the points from there on.
    digits: Vec<i32>,
    /// By bucket from 0 on, which holds nothing: how many points.
    counts: Vec<u32>,
    /// By bucket: where its next point goes.
    places: Vec<usize>,
    /// Buckets that hold something, largest first.
    order: Vec<usize>,
    /// Eight lanes at a time, a point for each: its index, and whether its negative is meant.
    entries: Vec<u32>,
}

impl Schedule {
    fn new(buckets: usize) -> Self {
        Self {
            first: 0,
            digits: Vec::new(),
            counts: vec![0; buckets + 1],
            places: vec![0; buckets + 1],
            order: Vec::new(),
            entries: Vec::new(),
        }
    }
}

impl Schedule {
    /// Arranges the points of the digits by buckets.
    fn arrange(&mut self) {
        self.counts.fill(0);
        for digit in &self.digits {
            self.counts[digit.unsigned_abs() as usize] += 1;
        }
        self.counts[0] = 0;
        self.sort_buckets();
        let mut rows = 0;
        for lanes in self.order.chunks(8) {
            for (lane, bucket) in lanes.iter().enumerate() {
                self.places[*bucket] = rows * 8 + lane;
            }
            rows += lanes.first().map_or(0, |bucket| self.counts[*bucket]) as usize;
        }
        self.entries.clear();
        self.entries.resize(rows * 8, NOBODY);
        for (index, digit) in (self.first..).zip(&self.digits) {
            if *digit == 0 {
                continue;
            }
            let place = &mut self.places[digit.unsigned_abs() as usize];
            self.entries[*place] = index | (digit.cast_unsigned() & NEGATIVE);
            *place += 8;
        }
    }

    /// Orders the buckets that hold something by size, largest first.
    fn sort_buckets(&mut self) {
        self.order.clear();
        let counts = &self.counts;
        self.order
            .extend((1..counts.len()).filter(|bucket| counts[*bucket] != 0));
        self.order
            .sort_unstable_by_key(|bucket| core::cmp::Reverse(counts[*bucket]));
    }

    /// Sums each bucket.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    fn fill(&self, points: &[Affine], buckets: &mut [Stored]) {
        for (stored, count) in buckets.iter_mut().zip(&self.counts[1..]) {
            if *count == 0 {
                *stored = Stored::NEUTRAL;
            }
        }
        let (mut entries, _) = self.entries.as_chunks::<8>();
        for lanes in self.order.chunks(8) {
            let rows = self.counts[lanes[0]] as usize;
            let (of_group, rest) = entries.split_at(rows);
            entries = rest;
            let sums = total(points, of_group);
            for (bucket, sum) in lanes.iter().zip(sums.rows()) {
                buckets[bucket - 1] = sum;
            }
        }
    }
}

/// What a lane that has ended adds.
static NEUTRAL: Affine = Affine::NEUTRAL;

/// The sum in each lane of the points that entries name, of which there is one at least.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn total(points: &[Affine], entries: &[[u32; 8]]) -> Points {
    let load = |lanes: &[u32; 8]| {
        let rows = lanes.map(|entry| {
            let index = (entry & !NEGATIVE) as usize;
            points.get(index).unwrap_or(&NEUTRAL)
        });
        // SAFETY: the array is 32 bytes long, and the load may be unaligned.
        let signs = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
        let negative = _mm256_movepi32_mask(signs);
        Affines::load(rows, negative)
    };
    let mut entries = entries.iter();
    let mut sum = entries
        .next()
        .map_or_else(|| Points::neutral(), |lanes| load(lanes).extended());
    for lanes in entries {
        sum = sum.add_affine(&load(lanes));
    }
    sum
}

/// Σ b·S_b over the buckets b from 1 on, in each lane for its own buckets: from the highest down,
/// the running sum is added to the whole after each.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn weighted(stored: &[Stored], buckets: usize) -> Points {
    let mut running = Points::neutral();
    let mut whole = Points::neutral();
    for bucket in (0..buckets).rev() {
        let lanes = core::array::from_fn(|lane| &stored[lane * buckets + bucket]);
        running = running.add(&Points::load(lanes));
        whole = whole.add(&running);
    }
    whole
}

/// 2^times P.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn doubled(points: &Points, times: usize) -> Points {
    let mut points = *points;
    for _ in 0..times {
        points = points.double();
    }
    points
}

/// The index of a point in a schedule's entries.
fn index_of(place: usize) -> u32 {
    u32::try_from(place).expect("a chunk has far fewer than 2^31 points")
}

/// Bytes of words, and eight zeros.
fn bytes(words: [u64; 5]) -> [u8; 48] {
    let mut bytes = [0; 48];
    let (chunks, _) = bytes.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

/// Two's complement.
fn add(a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
    let mut carry = false;
    core::array::from_fn(|at| {
        let (sum, out) = a[at].carrying_add(b[at], carry);
        carry = out;
        sum
    })
}

fn sub(a: [u64; 5], b: [u64; 5]) -> [u64; 5] {
    let mut borrow = false;
    core::array::from_fn(|at| {
        let (difference, out) = a[at].borrowing_sub(b[at], borrow);
        borrow = out;
        difference
    })
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::edwards::EdwardsPoint;
    use curve25519_dalek::scalar::Scalar;
    use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    use super::super::reference::ifma;
    use super::{Affine, Residue, WINDOW_BITS_MAX, WINDOW_BITS_MIN, Windows};
    use crate::crypto::verify::batch::Engine;
    use crate::crypto::verify::portable::{Portable, signed};
    use crate::crypto::verify::wide::Ifma;

    /// A few points, some of mixed or small order, with repetitions.
    fn point(choice: u16) -> EdwardsPoint {
        let torsion = EIGHT_TORSION[usize::from(choice % 8)];
        match choice % 5 {
            0 => torsion,
            1 => ED25519_BASEPOINT_POINT * Scalar::from(choice) + torsion,
            2 => -(ED25519_BASEPOINT_POINT * Scalar::from(choice % 7)),
            _ => ED25519_BASEPOINT_POINT * Scalar::from(choice),
        }
    }

    fn wide(ifma: Ifma, points: &[EdwardsPoint]) -> Vec<Affine> {
        let bytes: Vec<_> = points.iter().map(|p| p.compress().to_bytes()).collect();
        let mut wide = vec![Affine::NEUTRAL; points.len()];
        let valid = ifma.decompress(&bytes.iter().collect::<Vec<_>>(), &mut wide);
        assert!(valid.iter().all(|valid| *valid));
        wide
    }

    /// Numbers at the ends of digits and of their range.
    fn short(choice: u8, number: i128) -> i128 {
        match choice % 16 {
            0 => 0,
            1 => 1,
            2 => -1,
            3 => i128::MAX,
            4 => i128::MIN,
            5 => 1 << number.rem_euclid(127),
            6 => -(1 << number.rem_euclid(127)),
            _ => number,
        }
    }

    fn long(choice: u8, bytes: &[[u8; 32]; 2]) -> Residue {
        let power = || {
            let mut number = [0; 32];
            number[usize::from(bytes[0][0] % 32)] = 1 << (bytes[0][1] % 8);
            Scalar::from_bytes_mod_order(number)
        };
        let half = Scalar::from(2_u8).invert();
        let scalar = match choice % 16 {
            0 => Scalar::ZERO,
            1 => Scalar::ONE,
            2 => -Scalar::ONE,
            3 => half,
            4 => half - Scalar::ONE,
            5 => power(),
            6 => -power(),
            7 => power() - Scalar::ONE,
            _ => {
                let bytes: [u8; 64] = bytes.concat().try_into().expect("64 bytes");
                Scalar::from_bytes_mod_order_wide(&bytes)
            }
        };
        Residue::canonical(&scalar.to_bytes()).expect("a scalar is below the order")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn sums_are_dalek_sums_with_every_window(
            shorts in vec((any::<u16>(), any::<u8>(), any::<i128>()), 0..60),
            longs in vec((any::<u16>(), any::<u8>(), any::<[[u8; 32]; 2]>()), 0..60),
            bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX,
        ) {
            let Some(ifma) = ifma() else {
                return Ok(());
            };
            let mut points: Vec<_> = shorts.iter().map(|(choice, ..)| point(*choice)).collect();
            points.extend(longs.iter().map(|(choice, ..)| point(*choice)));
            let short: Vec<_> = shorts.iter().map(|(_, choice, n)| short(*choice, *n)).collect();
            let mut long: Vec<_> = longs.iter().map(|(_, choice, n)| long(*choice, n)).collect();
            let scalars = short.iter().copied().map(signed).chain(
                long.iter().map(|n| Scalar::from_bytes_mod_order(n.bytes())));
            let sum = EdwardsPoint::vartime_multiscalar_mul(scalars, &points);
            let is_small = sum.mul_by_cofactor().is_identity();
            let of_wide = wide(ifma, &points);
            prop_assert_eq!(ifma.sum_is_small(&of_wide, &short, &long), is_small);
            prop_assert_eq!(Portable.sum_is_small(&points, &short, &long), is_small);

            // Less the sum itself nothing is left, with whatever window.
            points.push(-sum);
            long.push(Residue::canonical(Scalar::ONE.as_bytes()).expect("one is small"));
            let of_wide = wide(ifma, &points);
            prop_assert_eq!(ifma.sum_is_small(&of_wide, &short, &long), true);
            let windows = Windows::new(bits);
            let numbers = windows.numbers(&short, &long);
            // SAFETY: `ifma` saw the instructions.
            let eightfold = unsafe {
                let sum = windows.sum(&of_wide, &numbers, short.len());
                sum.double().double().double().is_neutral()
            };
            prop_assert_eq!(eightfold & 1, 1, "{} bits", bits);
        }
    }

    #[test]
    fn one_wrong_number_among_many_shows() {
        let Some(ifma) = ifma() else {
            return;
        };
        for count in [1_usize, 2, 7, 8, 9, 63, 64, 65, 300, 1000, 3000] {
            let multiples = (1..=count as u64).map(|n| n * n + 1);
            let mut points: Vec<_> = multiples
                .clone()
                .map(|n| ED25519_BASEPOINT_POINT * Scalar::from(n))
                .collect();
            points.push(ED25519_BASEPOINT_POINT);
            let spread = |at: usize| {
                let [low, high] = [0x9e37_79b9_7f4a_7c15_u64, 0xc2b2_ae3d_27d4_eb4f]
                    .map(|odd| odd.wrapping_mul(at as u64 + 1));
                i128::from(low.cast_signed()) << 64 | i128::from(high)
            };
            let mut short: Vec<_> = (0..count).map(spread).collect();
            let sum: Scalar = short
                .iter()
                .zip(multiples)
                .map(|(z, n)| signed(*z) * Scalar::from(n))
                .sum();
            let long = [Residue::canonical(&(-sum).to_bytes()).expect("below the order")];
            let points = wide(ifma, &points);
            assert!(ifma.sum_is_small(&points, &short, &long), "{count}");
            short[count / 2] ^= 1;
            assert!(!ifma.sum_is_small(&points, &short, &long), "{count}");
        }
    }
}
