//! The wire encoding, and the only file that names bincode (protocol §1).
//!
//! bincode 2's format with fixed-width little-endian integers. Bytes that decode re-encode to the
//! same bytes, so a hash of the bytes names the value.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian, NoLimit};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

type Unlimited = Configuration<LittleEndian, Fixint, NoLimit>;

const fn unlimited() -> Unlimited {
    bincode::config::standard().with_fixed_int_encoding()
}

const fn limited<const N: usize>() -> Configuration<LittleEndian, Fixint, Limit<N>> {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<N>()
}

/// Why bytes are not the value they should be: always the fault of who made the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the type may have.
    #[error("{given} bytes, at most {most}")]
    TooLong {
        /// How many were given.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// Not an encoding of the type.
    #[error("malformed encoding: {0}")]
    Malformed(String),
    /// Bytes behind the value.
    #[error("{0} bytes behind the value")]
    Trailing(usize),
}

/// Encodes a value.
///
/// # Panics
/// Never: the wire types hold nothing that serde can refuse.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

/// Where encoded bytes go.
pub trait Sink {
    /// Takes the next bytes.
    fn append(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<A: smallvec::Array<Item = u8>> Sink for SmallVec<A> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends a value's encoding to `sink`.
///
/// # Panics
/// Never: see [`encode`].
pub fn encode_into<T: Serialize>(value: &T, sink: &mut impl Sink) {
    bincode::serde::encode_into_writer(value, Appender(sink), unlimited())
        .expect("wire types serialize without an error and memory writes do not fail");
}

struct Appender<'a, S>(&'a mut S);

impl<S: Sink> Writer for Appender<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.append(bytes);
        Ok(())
    }
}

/// Decodes a value of at most `MOST` bytes; every byte must belong to it.
///
/// # Errors
/// When there are more bytes than `MOST`, when they are malformed, or when some are left over.
/// No length that the bytes claim is allocated beyond `MOST`.
pub fn decode<T: DeserializeOwned, const MOST: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MOST {
        return Err(DecodeError::TooLong {
            given: bytes.len(),
            most: MOST,
        });
    }
    let (value, read) = decode_prefix::<T, MOST>(bytes)?;
    match bytes.len().checked_sub(read) {
        Some(0) => Ok(value),
        left => Err(DecodeError::Trailing(left.unwrap_or_default())),
    }
}

/// Decodes the value that `bytes` begin with, of at most `MOST` bytes; returns how many it took.
///
/// # Errors
/// When they are malformed. No length that the bytes claim is allocated beyond `MOST`.
pub fn decode_prefix<T: DeserializeOwned, const MOST: usize>(
    bytes: &[u8],
) -> Result<(T, usize), DecodeError> {
    bincode::serde::decode_from_slice(bytes, limited::<MOST>())
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}
