//! SHA-256 of many messages at once (FIPS 180-4).
//!
//! One message leaves most of the processor idle: its rounds wait for each other. So messages go
//! side by side, [`LANES`] of them, where the processor has instructions for SHA-256, which is
//! found out at run time; everywhere else one after the other through sha2. The hashes are the
//! same. Whoever has many messages asks for [`Engine::fastest`] once.

#[cfg(target_arch = "x86_64")]
mod lanes;

use sha2::block_api::compress256;

use crate::types::hash::Hash;

/// Messages that are hashed side by side.
pub(crate) const LANES: usize = 4;
/// Bytes of a block.
const BLOCK: usize = 64;
/// Least padding: a byte that ends the message, and its length in bits.
const PADDING_MIN: usize = 9;
/// The state at the beginning: fractions of the square roots of the first eight primes.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// The second block of a message of 64 bytes.
const PAIR_END: Block = {
    let mut block = [0; BLOCK];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};

/// What the function takes in at a time.
pub(crate) type Block = [u8; BLOCK];

/// How to hash. Every one gives the same answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    /// One message after the other, through sha2.
    Single,
    /// Messages side by side.
    #[cfg(target_arch = "x86_64")]
    Lanes(lanes::ShaNi),
}

/// What many messages begin with.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    /// The state after its whole blocks.
    state: [u32; 8],
    /// Bytes of the whole blocks.
    taken: usize,
    /// The bytes after them.
    rest: Vec<u8>,
}

impl Prefix {
    /// A prefix of some parts, one after the other.
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let bytes = parts.concat();
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut state = INITIAL;
        compress256(&mut state, blocks);
        Self {
            state,
            taken: blocks.len() * BLOCK,
            rest: rest.to_vec(),
        }
    }

    /// How many blocks of a message are left, given the length of what follows the prefix.
    const fn blocks_left(&self, body: usize) -> usize {
        (self.rest.len() + body + PADDING_MIN).div_ceil(BLOCK)
    }

    /// The blocks that are left of a message, padded.
    fn pad(&self, body: &[u8], into: &mut Vec<Block>) {
        let end = self.rest.len() + body.len();
        into.clear();
        into.resize(self.blocks_left(body.len()), [0; BLOCK]);
        let bytes = into.as_flattened_mut();
        let (padded, length) = bytes.split_at_mut(bytes.len() - 8);
        padded[..self.rest.len()].copy_from_slice(&self.rest);
        padded[self.rest.len()..end].copy_from_slice(body);
        padded[end] = 0x80;
        let bits = (self.taken + end) as u64 * 8;
        length.copy_from_slice(&bits.to_be_bytes());
    }
}

impl Engine {
    /// The fastest that this processor has.
    pub(crate) fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(sha_ni) = lanes::ShaNi::detect() {
            return Self::Lanes(sha_ni);
        }
        Self::Single
    }

    /// Every one that this processor has.
    #[cfg(test)]
    pub(crate) fn each() -> Vec<Self> {
        let fastest = Self::fastest();
        if matches!(fastest, Self::Single) {
            eprintln!("SKIPPED: this processor has no instructions for SHA-256");
            return vec![Self::Single];
        }
        vec![Self::Single, fastest]
    }

    /// The hash of a prefix and a body, for each body in order.
    pub(crate) fn hash_bodies(self, prefix: &Prefix, bodies: &[&[u8]]) -> Vec<Hash> {
        // Side by side with others of as many blocks.
        let mut order: Vec<usize> = (0..bodies.len()).collect();
        order.sort_by_key(|index| prefix.blocks_left(bodies[*index].len()));
        let mut hashes = vec![Hash::ZERO; bodies.len()];
        let mut padded = [const { Vec::new() }; LANES];
        let (groups, rest) = order.as_chunks::<LANES>();
        for group in groups {
            for (index, blocks) in group.iter().zip(&mut padded) {
                prefix.pad(bodies[*index], blocks);
            }
            let messages = padded.each_ref().map(Vec::as_slice);
            for (index, hash) in group.iter().zip(self.hash_from(&prefix.state, messages)) {
                hashes[*index] = hash;
            }
        }
        for index in rest {
            prefix.pad(bodies[*index], &mut padded[0]);
            [hashes[*index]] = self.hash_from(&prefix.state, [&padded[0]]);
        }
        hashes
    }

    /// The hashes of messages that the caller has padded to whole blocks.
    pub(crate) fn hash_padded<const N: usize>(self, messages: [&[Block]; N]) -> [Hash; N] {
        self.hash_from(&INITIAL, messages)
    }

    /// The hashes of messages of two hashes each.
    pub(crate) fn hash_pairs<const N: usize>(self, pairs: [[&Hash; 2]; N]) -> [Hash; N] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Lanes(sha_ni) => sha_ni.hash_pairs(pairs),
            Self::Single => pairs.map(|[left, right]| {
                let mut block = [0; BLOCK];
                block[..Hash::LEN].copy_from_slice(left.as_bytes());
                block[Hash::LEN..].copy_from_slice(right.as_bytes());
                hash_one(&INITIAL, &[block, PAIR_END])
            }),
        }
    }

    /// The hashes of what is left of messages after a state.
    fn hash_from<const N: usize>(self, state: &[u32; 8], messages: [&[Block]; N]) -> [Hash; N] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Lanes(sha_ni) => sha_ni.hash_from(state, messages),
            Self::Single => messages.map(|blocks| hash_one(state, blocks)),
        }
    }
}

fn hash_one(state: &[u32; 8], blocks: &[Block]) -> Hash {
    let mut state = *state;
    compress256(&mut state, blocks);
    let mut bytes = [0; Hash::LEN];
    for (to, word) in bytes.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    Hash::new(bytes)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{Block, Engine, LANES, Prefix};
    use crate::types::hash::Hash;

    fn expected(prefix: &[u8], body: &[u8]) -> Hash {
        let hasher = Sha256::new().chain_update(prefix).chain_update(body);
        Hash::new(hasher.finalize().into())
    }

    /// Bytes without a period that blocks share.
    fn some_bytes(count: usize) -> Vec<u8> {
        (0..=250).cycle().take(count).collect()
    }

    fn check(prefix: &[u8], bodies: &[&[u8]]) {
        let expected: Vec<_> = bodies.iter().map(|body| expected(prefix, body)).collect();
        for engine in Engine::each() {
            let hashes = engine.hash_bodies(&Prefix::new(&[prefix]), bodies);
            assert_eq!(hashes, expected, "{engine:?}, prefix of {}", prefix.len());
        }
    }

    #[test]
    fn the_examples_of_the_standard_have_their_hashes() {
        // FIPS 180-2, appendix B, and the empty message.
        let examples: [(&[u8], &str); 3] = [
            (
                b"",
                "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                b"abc",
                "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "0x248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ];
        for engine in Engine::each() {
            for (message, hash) in examples {
                let hashes = engine.hash_bodies(&Prefix::new(&[]), &[message; 5]);
                assert_eq!(hashes, [hash.parse().expect("it is a hash"); 5]);
            }
        }
    }

    #[test]
    fn every_length_hashes_as_sha2_does() {
        let bytes = some_bytes(5000);
        let lengths = (0..=300).chain([1000, 4095, 4096, 4097, 5000]);
        let bodies: Vec<_> = lengths.map(|length| &bytes[..length]).collect();
        for prefix in [0, 1, 24, 25, 55, 56, 63, 64, 65, 83, 128, 200] {
            check(&bytes[7..7 + prefix], &bodies);
        }
        for body in &bodies {
            check(&[], &[body]);
            check(&[], &[*body; LANES]);
        }
    }

    #[test]
    fn any_number_of_any_lengths_hashes_as_sha2_does() {
        let bytes = some_bytes(300);
        for count in 0..=40 {
            let lengths = (0..count).map(|at| (at * 7919 + count * 104_729) % 301);
            let bodies: Vec<_> = lengths.map(|length| &bytes[300 - length..]).collect();
            check(b"prefix", &bodies);
        }
    }

    #[test]
    fn pairs_and_padded_messages_hash_as_sha2_does() {
        let bytes = some_bytes(64 * 40);
        let (hashes, _) = bytes.as_chunks::<{ Hash::LEN }>();
        let hashes: Vec<Hash> = hashes.iter().copied().map(Hash::new).collect();
        let pairs: Vec<[&Hash; 2]> = hashes.windows(2).map(|two| [&two[0], &two[1]]).collect();
        let mut long: Vec<Block> = Vec::new();
        Prefix::new(&[]).pad(&bytes[..500], &mut long);
        let mut short: Vec<Block> = Vec::new();
        Prefix::new(&[]).pad(&bytes[..100], &mut short);
        for engine in Engine::each() {
            for of_pairs in pairs.windows(LANES) {
                let of_pairs = of_pairs.first_chunk::<LANES>().expect("a window");
                let expected = of_pairs.map(|[a, b]| expected(a.as_ref(), b.as_ref()));
                assert_eq!(engine.hash_pairs(*of_pairs), expected);
                assert_eq!(engine.hash_pairs([of_pairs[0]]), [expected[0]]);
            }
            let (of_long, of_short) = (expected(&[], &bytes[..500]), expected(&[], &bytes[..100]));
            assert_eq!(
                engine.hash_padded([&short, &long, &long, &short]),
                [of_short, of_long, of_long, of_short],
                "lanes end one by one"
            );
        }
    }
}
