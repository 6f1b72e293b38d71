//! SHA-512 of eight messages at once (FIPS 180-4), each lane a message of its own length.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_mask_add_epi64, _mm512_ror_epi64, _mm512_set1_epi64,
    _mm512_set4_epi64, _mm512_shuffle_epi8, _mm512_srli_epi64, _mm512_storeu_si512,
    _mm512_ternarylogic_epi64,
};

use super::super::batch::Preimage;
use super::rows::{Row, transpose};

/// Bytes of a block.
const BLOCK: usize = 128;
/// Bytes of R and the key, which come before the message.
const PREFIX: usize = 64;
/// Least padding: a byte that ends the message, and its length in bits.
const PADDING_MIN: usize = 17;
/// Fractions of the square roots of the first eight primes.
const INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
/// Fractions of the cube roots of the first eighty primes.
const ROUNDS: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];
/// Truth tables of the three-input functions.
const XOR: i32 = 0x96;
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;

/// Blocks of a padded preimage.
pub(super) const fn blocks(preimage: &Preimage<'_>) -> usize {
    (PREFIX + preimage.message.len() + PADDING_MIN).div_ceil(BLOCK)
}

/// The hashes of up to eight preimages.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
pub(super) fn hash(preimages: &[&Preimage<'_>]) -> [[u8; 64]; 8] {
    debug_assert!(preimages.len() <= 8);
    let mut state = INITIAL.map(|word| splat(word));
    let most = preimages.iter().map(|preimage| blocks(preimage)).max();
    for block in 0..most.unwrap_or(0) {
        let mut lanes = [Row([0; 16]); 8];
        let mut active = 0;
        for (lane, (row, preimage)) in lanes.iter_mut().zip(preimages).enumerate() {
            if block < blocks(preimage) {
                *row = padded(preimage, block);
                active |= 1 << lane;
            }
        }
        compress(&mut state, &lanes, active);
    }
    let mut hashes = [[0; 64]; 8];
    for (hash, lane) in hashes.iter_mut().zip(transpose(state)) {
        // SAFETY: the hash is 64 bytes long, and the store may be unaligned.
        unsafe { _mm512_storeu_si512(hash.as_mut_ptr().cast(), big_endian(lane)) }
    }
    hashes
}

/// A block of a padded preimage.
fn padded(preimage: &Preimage<'_>, block: usize) -> Row<16> {
    let mut bytes = [0; BLOCK];
    let message = preimage.message;
    // Where the message starts in this block, and what of it is left from there on.
    let (start, rest) = if block == 0 {
        bytes[..32].copy_from_slice(preimage.r);
        bytes[32..PREFIX].copy_from_slice(preimage.key);
        (PREFIX, Some(message))
    } else {
        (0, message.get(block * BLOCK - PREFIX..))
    };
    if let Some(rest) = rest {
        let length = rest.len().min(BLOCK - start);
        bytes[start..start + length].copy_from_slice(&rest[..length]);
        if start + rest.len() < BLOCK {
            bytes[start + rest.len()] = 0x80;
        }
    }
    if block + 1 == blocks(preimage) {
        let bits = (PREFIX + message.len()) as u128 * 8;
        bytes[BLOCK - 16..].copy_from_slice(&bits.to_be_bytes());
    }
    let (words, _) = bytes.as_chunks::<8>();
    Row(core::array::from_fn(|at| u64::from_ne_bytes(words[at])))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

/// Each word's bytes the other way round.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn big_endian(words: __m512i) -> __m512i {
    let (high, low) = (0x0809_0a0b_0c0d_0e0f, 0x0001_0203_0405_0607);
    let order = _mm512_set4_epi64(high, low, high, low);
    _mm512_shuffle_epi8(words, order)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<XOR>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi64(a, b)
}

/// Takes a block into the state of the active lanes.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn compress(state: &mut [__m512i; 8], lanes: &[Row<16>; 8], active: u8) {
    let first = transpose(lanes.each_ref().map(|row| big_endian(row.part(0))));
    let second = transpose(lanes.each_ref().map(|row| big_endian(row.part(1))));
    let mut w = [first[0]; 16];
    w[..8].copy_from_slice(&first);
    w[8..].copy_from_slice(&second);
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    let (parts, _) = ROUNDS.as_chunks::<16>();
    for (part, constants) in parts.iter().enumerate() {
        for (t, constant) in constants.iter().enumerate() {
            if part > 0 {
                w[t] = scheduled(&w, t);
            }
            let choice = _mm512_ternarylogic_epi64::<CHOOSE>(e, f, g);
            let majority = _mm512_ternarylogic_epi64::<MAJORITY>(a, b, c);
            let of_e = xor(
                _mm512_ror_epi64::<14>(e),
                _mm512_ror_epi64::<18>(e),
                _mm512_ror_epi64::<41>(e),
            );
            let of_a = xor(
                _mm512_ror_epi64::<28>(a),
                _mm512_ror_epi64::<34>(a),
                _mm512_ror_epi64::<39>(a),
            );
            let one = add(add(h, add(w[t], splat(*constant))), add(of_e, choice));
            let two = add(of_a, majority);
            (h, g, f, e) = (g, f, e, add(d, one));
            (d, c, b, a) = (c, b, a, add(one, two));
        }
    }
    for (word, change) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = _mm512_mask_add_epi64(*word, active, *word, change);
    }
}

/// Word t of the next sixteen of a block's schedule.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn scheduled(w: &[__m512i; 16], t: usize) -> __m512i {
    let (early, late) = (w[(t + 1) % 16], w[(t + 14) % 16]);
    let of_early = xor(
        _mm512_ror_epi64::<1>(early),
        _mm512_ror_epi64::<8>(early),
        _mm512_srli_epi64::<7>(early),
    );
    let of_late = xor(
        _mm512_ror_epi64::<19>(late),
        _mm512_ror_epi64::<61>(late),
        _mm512_srli_epi64::<6>(late),
    );
    add(add(w[t], of_early), add(w[(t + 9) % 16], of_late))
}

#[cfg(test)]
mod tests {
    use super::super::reference::ifma;
    use super::Preimage;
    use crate::crypto::verify::batch::Engine;

    fn check(messages: &[&[u8]]) {
        let Some(ifma) = ifma() else {
            return;
        };
        let (r, key) = ([0xa5; 32], [0x3c; 32]);
        let preimages: Vec<_> = messages
            .iter()
            .map(|message| Preimage {
                r: &r,
                key: &key,
                message,
            })
            .collect();
        let expected: Vec<_> = preimages.iter().map(Preimage::hash).collect();
        assert_eq!(ifma.hash(&preimages), expected);
    }

    #[test]
    fn every_length_around_the_ends_of_blocks_hashes_as_sha2_does() {
        let bytes: Vec<u8> = (0..=250).cycle().take(4096).collect();
        let lengths: Vec<_> = (0..=700).chain([1000, 4031, 4032, 4033, 4096]).collect();
        let messages: Vec<_> = lengths.iter().map(|length| &bytes[..*length]).collect();
        check(&messages);
        // Every length with every other in a group of lanes, and groups that are not full.
        for (at, message) in messages.iter().enumerate().take(300) {
            check(&[
                message,
                messages[(at * 7 + 100) % 700],
                &[],
                messages[299 - at],
            ]);
            check(&[message]);
        }
        check(&[]);
    }
}
