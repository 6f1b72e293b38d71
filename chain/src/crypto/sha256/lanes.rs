//! SHA-256 side by side with the processor's instructions for it.
//!
//! An instruction for two rounds takes four steps of the clock, and another can begin at every
//! step; so messages are interleaved by four rounds. Own code, reached only through [`ShaNi`], which
//! exists only where the processor has the instructions. Its safe twin is sha2, against which the
//! tests compare it. Nothing here is secret.
#![allow(
    unsafe_code,
    reason = "intrinsics that take pointers, and the step into functions that need SHA-NI, \
              which side by side makes a hash half as dear"
)]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi8,
    _mm_set_epi32, _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

use super::{Block, INITIAL, PAIR_END};
use crate::types::hash::Hash;

/// Fractions of the cube roots of the first sixty-four primes.
#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];
/// The rounds' constants with the schedule of [`PAIR_END`] added.
const PAIR_END_ROUNDS: [u32; 64] = {
    let mut w = [0_u32; 64];
    let mut t = 0;
    while t < 16 {
        w[t] = u32::from_be_bytes(PAIR_END.as_chunks::<4>().0[t]);
        t += 1;
    }
    while t < 64 {
        let (early, late) = (w[t - 15], w[t - 2]);
        let of_early = early.rotate_right(7) ^ early.rotate_right(18) ^ (early >> 3);
        let of_late = late.rotate_right(17) ^ late.rotate_right(19) ^ (late >> 10);
        w[t] = w[t - 16]
            .wrapping_add(of_early)
            .wrapping_add(w[t - 7])
            .wrapping_add(of_late);
        t += 1;
    }
    t = 0;
    while t < 64 {
        w[t] = w[t].wrapping_add(ROUNDS[t]);
        t += 1;
    }
    w
};

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShaNi(());

/// The state in the order in which the instructions take it: words a, b, e, f from the highest
/// down, and c, d, g, h.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

impl ShaNi {
    /// `None` on a processor without the instructions.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("ssse3"))
        .then_some(Self(()))
    }

    /// The hashes of what is left of messages after a state.
    pub(super) fn hash_from<const N: usize>(
        self,
        state: &[u32; 8],
        messages: [&[Block]; N],
    ) -> [Hash; N] {
        // SAFETY: `detect` saw the instructions.
        unsafe { hash_from(state, messages) }
    }

    /// The hashes of messages of two hashes each.
    pub(super) fn hash_pairs<const N: usize>(self, pairs: [[&Hash; 2]; N]) -> [Hash; N] {
        // SAFETY: `detect` saw the instructions.
        unsafe { hash_pairs(pairs) }
    }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hash_from<const N: usize>(state: &[u32; 8], messages: [&[Block]; N]) -> [Hash; N] {
    let mut states = [State::new(state); N];
    // Side by side as long as all last, then each by itself.
    let common = messages.iter().map(|blocks| blocks.len()).min();
    let common = common.unwrap_or(0);
    for at in 0..common {
        compress(&mut states, &messages.map(|blocks| &blocks[at]));
    }
    for (state, blocks) in states.iter_mut().zip(messages) {
        for block in &blocks[common..] {
            compress(core::array::from_mut(state), &[block]);
        }
    }
    hashes(&states)
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hash_pairs<const N: usize>(pairs: [[&Hash; 2]; N]) -> [Hash; N] {
    let mut states = [State::new(&INITIAL); N];
    let mut schedules = [[_mm_setzero_si128(); 4]; N];
    for (words, halves) in schedules.iter_mut().zip(pairs) {
        let [[a, b], [c, d]] = halves.map(quarters);
        *words = [load(a), load(b), load(c), load(d)];
    }
    compress_words(&mut states, &mut schedules);
    compress_pair_end(&mut states);
    hashes(&states)
}

/// The two quarters of a block that a hash is.
#[inline]
fn quarters(hash: &Hash) -> [&[u8; 16]; 2] {
    let (quarters, _) = hash.as_bytes().as_chunks();
    [&quarters[0], &quarters[1]]
}

/// A statement for each of some numbers, known to the compiler.
macro_rules! for_each {
    ($name:ident in [$($number:literal)*] $statement:block) => {
        $({
            const $name: usize = $number;
            $statement
        })*
    };
}

/// Takes a block into each state.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress<const N: usize>(states: &mut [State; N], blocks: &[&Block; N]) {
    let mut schedules = [[_mm_setzero_si128(); 4]; N];
    for (words, block) in schedules.iter_mut().zip(blocks) {
        let (quarters, _) = block.as_chunks::<16>();
        for (to, quarter) in words.iter_mut().zip(quarters) {
            *to = load(quarter);
        }
    }
    compress_words(states, &mut schedules);
}

/// Takes a block of sixteen words, which are used up, into each state.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress_words<const N: usize>(states: &mut [State; N], schedules: &mut [[__m128i; 4]; N]) {
    let before = *states;
    for_each!(R in [0 1 2 3] {
        for (state, words) in states.iter_mut().zip(schedules.iter()) {
            state.four_rounds(_mm_add_epi32(words[R], constants(&ROUNDS, R)));
        }
    });
    for_each!(R in [4 5 6 7 8 9 10 11 12 13 14 15] {
        for (state, words) in states.iter_mut().zip(schedules.iter_mut()) {
            schedule::<R>(words);
            state.four_rounds(_mm_add_epi32(words[R % 4], constants(&ROUNDS, R)));
        }
    });
    for (state, before) in states.iter_mut().zip(before) {
        state.add(before);
    }
}

/// Takes [`PAIR_END`] into each state.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress_pair_end<const N: usize>(states: &mut [State; N]) {
    let before = *states;
    for_each!(R in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        for state in states.iter_mut() {
            state.four_rounds(constants(&PAIR_END_ROUNDS, R));
        }
    });
    for (state, before) in states.iter_mut().zip(before) {
        state.add(before);
    }
}

impl State {
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn new(words: &[u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
        Self {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
        }
    }

    /// Four rounds, given the words of the schedule with the constants added.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn four_rounds(&mut self, words: __m128i) {
        let next = _mm_shuffle_epi32::<0x0e>(words);
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, words);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, next);
    }

    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn add(&mut self, other: Self) {
        self.abef = _mm_add_epi32(self.abef, other.abef);
        self.cdgh = _mm_add_epi32(self.cdgh, other.cdgh);
    }
}

/// The next four words of a block's schedule, in place of the first of the last sixteen.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn schedule<const R: usize>(words: &mut [__m128i; 4]) {
    let [first, second, third, last] = [0, 1, 2, 3].map(|at| words[(R + at) % 4]);
    let sum = _mm_add_epi32(
        _mm_sha256msg1_epu32(first, second),
        _mm_alignr_epi8::<4>(last, third),
    );
    words[R % 4] = _mm_sha256msg2_epu32(sum, last);
}

/// The constants of four rounds.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn constants(table: &[u32; 64], four: usize) -> __m128i {
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| table[4 * four + at].cast_signed());
    _mm_set_epi32(d, c, b, a)
}

/// Four words, big endian in memory.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: there are 16 bytes, and the load may be unaligned.
    let words = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    big_endian(words)
}

/// Each word's bytes the other way round.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn big_endian(words: __m128i) -> __m128i {
    let order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    _mm_shuffle_epi8(words, order)
}

/// The hashes that states stand for.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hashes<const N: usize>(states: &[State; N]) -> [Hash; N] {
    let mut hashes = [[0; Hash::LEN]; N];
    for (hash, state) in hashes.iter_mut().zip(states) {
        let feba = _mm_shuffle_epi32::<0x1b>(state.abef);
        let dchg = _mm_shuffle_epi32::<0xb1>(state.cdgh);
        let halves = [
            _mm_blend_epi16::<0xf0>(feba, dchg),
            _mm_alignr_epi8::<8>(dchg, feba),
        ];
        let (places, _) = hash.as_chunks_mut::<16>();
        for (place, half) in places.iter_mut().zip(halves) {
            // SAFETY: there are 16 bytes, and the store may be unaligned.
            unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), big_endian(half)) }
        }
    }
    hashes.map(Hash::new)
}
