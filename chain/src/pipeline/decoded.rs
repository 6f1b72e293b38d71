//! A block beside its encoding: what is hashed, signed and stored is never encoded again.

use core::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::codec::{self, DecodeError};
use crate::types::block::{BLOCK_BYTES_MAX, Block, Header};
use crate::types::hash::Signature;
use crate::types::transaction::SignedTransaction;

/// Shortest encoding of a signed transaction; a list that claims more of them than its bytes can hold
/// gets no memory for them.
const TRANSACTION_BYTES_MIN: usize = 100;

/// A block, its encoding, and where in it each transaction stands.
#[derive(Clone, Debug)]
pub struct DecodedBlock {
    block: Block,
    bytes: Arc<[u8]>,
    header_len: usize,
    transactions: Vec<Range<usize>>,
}

/// Reads one value after the other.
struct Sections<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Sections<'_> {
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (value, read) = codec::decode_prefix::<T, BLOCK_BYTES_MAX>(rest)?;
        self.at = self.at.saturating_add(read);
        Ok(value)
    }

    const fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

impl DecodedBlock {
    /// Decodes a block; gives the verdicts of [`codec::decode`] for [`Block`].
    ///
    /// # Errors
    /// When the bytes are not exactly a block of at most [`BLOCK_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(DecodeError::TooLong {
                given: bytes.len(),
                most: BLOCK_BYTES_MAX,
            });
        }
        let mut sections = Sections { bytes, at: 0 };
        let header: Header = sections.next()?;
        let header_len = sections.at;
        let proposer_signature: Signature = sections.next()?;
        let count: u64 = sections.next()?;
        let room = sections.left() / TRANSACTION_BYTES_MIN;
        let expected = usize::try_from(count).unwrap_or(usize::MAX).min(room);
        let mut transactions: Vec<SignedTransaction> = Vec::with_capacity(expected);
        let mut places = Vec::with_capacity(expected);
        for _ in 0..count {
            let start = sections.at;
            transactions.push(sections.next()?);
            places.push(start..sections.at);
        }
        let block = Block {
            header,
            proposer_signature,
            transactions,
            assignments: sections.next()?,
            attestations: sections.next()?,
            outputs: sections.next()?,
            last_certificate: sections.next()?,
        };
        match sections.left() {
            0 => Ok(Self {
                block,
                bytes: bytes.into(),
                header_len,
                transactions: places,
            }),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// The block.
    #[must_use]
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// Its encoding.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The encodings of the header and of all that follows it.
    #[must_use]
    pub fn header_and_body(&self) -> (&[u8], &[u8]) {
        self.bytes
            .split_at_checked(self.header_len)
            .unwrap_or_default()
    }

    /// The transactions with their encodings, in order.
    pub(super) fn transactions(&self) -> Vec<(&SignedTransaction, &[u8])> {
        self.block
            .transactions
            .iter()
            .zip(&self.transactions)
            .map(|(signed, place)| {
                let encoding = self.bytes.get(place.clone()).unwrap_or_default();
                (signed, encoding)
            })
            .collect()
    }
}
