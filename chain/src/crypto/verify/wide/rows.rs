//! Points in memory: a row for each, turned into lanes eight at a time.

use core::arch::x86_64::{
    __m512i, _mm512_load_si512, _mm512_shuffle_i64x2, _mm512_store_si512, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

/// `WORDS` words, a multiple of eight, at the start of a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Row<const WORDS: usize>(pub(super) [u64; WORDS]);

impl<const WORDS: usize> Row<WORDS> {
    /// The eight words from eight times `part` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn part(&self, part: usize) -> __m512i {
        let words = &self.0[part * 8..part * 8 + 8];
        // SAFETY: the slice is eight words long, and it starts a multiple of 64 bytes behind the
        // start of a row, which is aligned to 64.
        unsafe { _mm512_load_si512(words.as_ptr().cast()) }
    }

    /// Writes the eight words from eight times `part` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
    pub(super) fn set_part(&mut self, part: usize, value: __m512i) {
        let words = &mut self.0[part * 8..part * 8 + 8];
        // SAFETY: as in `part`, and the slice is borrowed for writing.
        unsafe { _mm512_store_si512(words.as_mut_ptr().cast(), value) }
    }
}

/// Word j of lane i becomes word i of lane j.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
pub(super) fn transpose(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let [even_0, even_2, even_4, even_6] = quarter(
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    );
    let [odd_1, odd_3, odd_5, odd_7] = quarter(
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    );
    [even_0, odd_1, even_2, odd_3, even_4, odd_5, even_6, odd_7]
}

/// The same of four vectors of pairs of words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512ifma")]
fn quarter(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let ab_even = _mm512_shuffle_i64x2::<0x88>(a, b);
    let ab_odd = _mm512_shuffle_i64x2::<0xdd>(a, b);
    let cd_even = _mm512_shuffle_i64x2::<0x88>(c, d);
    let cd_odd = _mm512_shuffle_i64x2::<0xdd>(c, d);
    [
        _mm512_shuffle_i64x2::<0x88>(ab_even, cd_even),
        _mm512_shuffle_i64x2::<0x88>(ab_odd, cd_odd),
        _mm512_shuffle_i64x2::<0xdd>(ab_even, cd_even),
        _mm512_shuffle_i64x2::<0xdd>(ab_odd, cd_odd),
    ]
}
