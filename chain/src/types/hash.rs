//! Fixed-size byte strings: hashes, keys, signatures, and their texts.
//!
//! On the wire each is its plain bytes without a length; the wire's integers are little endian and of
//! fixed size, so they are written as words of eight. In JSON a hash, a signature and a
//! proof are `0x` + hex, an account is bech32m with the prefix `mill` (protocol §1).

use core::fmt;
use core::str::FromStr;

use bech32::{Bech32m, Hrp};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Prefix of an account's text form.
pub const ACCOUNT_PREFIX: &str = "mill";

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not `0x` followed by the right number of hex digits.
    #[error("`{text}` is not 0x and {digits} hex digits")]
    Hex {
        /// What was given.
        text: String,
        /// How many hex digits the type has.
        digits: usize,
    },
    /// Not a bech32m account.
    #[error("`{text}` is not an account: a bech32m text that begins with `mill1` is expected")]
    Account {
        /// What was given.
        text: String,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Bytes of a word in the binary forms below.
const WORD: usize = 8;

/// Reads N bytes, a multiple of eight, as little-endian words: on the wire the same bytes as a tuple
/// of N bytes, with an eighth of the calls.
struct WordsVisitor<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for WordsVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut bytes = [0; N];
        for (index, word) in bytes.chunks_exact_mut(WORD).enumerate() {
            let value: u64 = seq
                .next_element()?
                .ok_or_else(|| A::Error::invalid_length(index, &self))?;
            word.copy_from_slice(&value.to_le_bytes());
        }
        Ok(bytes)
    }
}

fn serialize_words<const N: usize, S: Serializer>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (words, _) = bytes.as_chunks::<WORD>();
    let mut tuple = serializer.serialize_tuple(words.len())?;
    for word in words {
        tuple.serialize_element(&u64::from_le_bytes(*word))?;
    }
    tuple.end()
}

pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], TextError> {
    let mut bytes = [0; N];
    text.strip_prefix("0x")
        .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
        .map(|()| bytes)
        .ok_or_else(|| TextError::Hex {
            text: shortened(text),
            digits: N.saturating_mul(2),
        })
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        const _: () = assert!($len % WORD == 0, "written as whole words");

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps raw bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serialize_words(&self.0, serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    deserializer
                        .deserialize_tuple($len / WORD, WordsVisitor)
                        .map(Self)
                }
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

fixed_bytes!(
    /// A SHA-256 hash.
    Hash, 32
);
hex_text!(Hash);

fixed_bytes!(
    /// An ed25519 public key that names an account, a worker or a validator.
    AccountId, 32
);

fixed_bytes!(
    /// An ed25519 signature, R then s.
    Signature, 64
);
hex_text!(Signature);

fixed_bytes!(
    /// An ECVRF-EDWARDS25519-SHA512-TAI proof (RFC 9381): Gamma, c, s.
    VrfProof, 80
);
hex_text!(VrfProof);

fixed_bytes!(
    /// The output that a [`VrfProof`] proves (RFC 9381 beta).
    VrfOutput, 64
);
hex_text!(VrfOutput);

impl Hash {
    /// Thirty-two zero bytes: the root of nothing, the parent of genesis.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 over the concatenation of a domain tag and the parts (protocol §1).
    #[must_use]
    pub fn of(tag: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(tag.as_bytes());
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// Whether this is the hash under `tag` of some beginning of `bytes`.
    pub(crate) fn is_of_beginning(&self, tag: &str, bytes: &[u8]) -> bool {
        let mut hasher = Sha256::new();
        hasher.update(tag.as_bytes());
        bytes.iter().any(|byte| {
            hasher.update([*byte]);
            hasher.clone().finalize().as_slice() == self.0
        })
    }

    /// The first four bytes, enough to tell chains apart by eye.
    #[must_use]
    pub const fn prefix(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }

    /// A short text for people: `0x` and the first eight hex digits.
    #[must_use]
    pub fn short(&self) -> String {
        format!("0x{}", hex::encode(self.prefix()))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse(ACCOUNT_PREFIX).map_err(|_| fmt::Error)?;
        bech32::encode_to_fmt::<Bech32m, _>(f, prefix, &self.0).map_err(|_| fmt::Error)
    }
}

impl FromStr for AccountId {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let refused = || TextError::Account {
            text: shortened(text),
        };
        let parsed = bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text)
            .map_err(|_| refused())?;
        if parsed.hrp().to_lowercase() != ACCOUNT_PREFIX {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        let mut data = parsed.byte_iter();
        for byte in &mut bytes {
            *byte = data.next().ok_or_else(refused)?;
        }
        if data.next().is_some() {
            return Err(refused());
        }
        Ok(Self(bytes))
    }
}

impl AccountId {
    /// The key as a decentralised identifier: `did:key:z6Mk…` (W3C did:key, multicodec 0xed).
    #[must_use]
    pub fn did(&self) -> String {
        let mut bytes = vec![0xed, 0x01];
        bytes.extend_from_slice(&self.0);
        format!("did:key:z{}", bs58::encode(bytes).into_string())
    }
}

/// A byte string with a length: a program, an input, an output. `0x` + hex in JSON.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Wraps bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content address: hash of the bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        blob_hash(&self.0)
    }
}

/// The content address of a program, an input or an output.
#[must_use]
pub fn blob_hash(bytes: &[u8]) -> Hash {
    Hash::of("proofmill/blob/v1", &[bytes])
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("0x{}", hex::encode(&self.0)))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

struct BlobVisitor;

impl Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return deserializer.deserialize_byte_buf(BlobVisitor);
        }
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .and_then(|digits| hex::decode(digits).ok())
            .map(Blob)
            .ok_or_else(|| D::Error::custom("a byte string is written as 0x and hex digits"))
    }
}
