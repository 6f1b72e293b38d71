//! A block on its way: announced under its proposer's signature, then sent in parts.

use bytes::Bytes;
use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use serde::{Deserialize, Serialize};

/// Bytes of a block in one part; the last part may have fewer.
pub const PART_BYTES: usize = 128 << 10;

/// What a proposer says of the block it is about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Announcement {
    /// Its height.
    pub height: Height,
    /// The round in which it is proposed.
    pub round: Round,
    /// The round of its proof of lock, when it is proposed again.
    pub pol_round: Option<Round>,
    /// Who proposes it.
    pub proposer: AccountId,
    /// Its hash.
    pub block: Hash,
    /// Its length in bytes.
    pub size: u32,
}

impl Announcement {
    /// The stream that this announcement opens.
    #[must_use]
    pub fn stream(&self) -> Hash {
        Hash::of("proofmill/stream/v1", &[&codec::encode(self)])
    }
}

/// A part of a proposed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Part 0: what is coming, signed by the proposer.
    Init(Announcement, Signature),
    /// A slice of the block.
    Data {
        /// The slice.
        bytes: Bytes,
        /// Whether it is the last.
        last: bool,
    },
}

/// A part with its place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMessage {
    /// The stream, named by its announcement.
    pub stream: Hash,
    /// The place: 0 is the announcement, data follows from 1.
    pub sequence: u64,
    /// The part.
    pub part: Part,
}

/// Cuts a block into the messages of its stream.
#[must_use]
pub fn split(announcement: &Announcement, signature: Signature, block: &[u8]) -> Vec<PartMessage> {
    let stream = announcement.stream();
    let count = block.len().div_ceil(PART_BYTES);
    let slices = block.chunks(PART_BYTES).enumerate();
    let data = slices.map(|(index, slice)| Part::Data {
        bytes: Bytes::copy_from_slice(slice),
        last: index + 1 == count,
    });
    std::iter::once(Part::Init(*announcement, signature))
        .chain(data)
        .zip(0..)
        .map(|(part, sequence)| PartMessage {
            stream,
            sequence,
            part,
        })
        .collect()
}

/// What a proposer signs on the announcement of a block's parts.
#[must_use]
pub fn announcement_bytes(chain: &Hash, announcement: &Announcement) -> Vec<u8> {
    let mut bytes = b"proofmill/parts/v1".to_vec();
    bytes.extend_from_slice(chain.as_bytes());
    bytes.extend_from_slice(&announcement.height.get().to_le_bytes());
    bytes.extend_from_slice(&announcement.round.get().to_le_bytes());
    match announcement.pol_round {
        None => bytes.push(0),
        Some(round) => {
            bytes.push(1);
            bytes.extend_from_slice(&round.get().to_le_bytes());
        }
    }
    bytes.extend_from_slice(announcement.proposer.as_bytes());
    bytes.extend_from_slice(announcement.block.as_bytes());
    bytes.extend_from_slice(&announcement.size.to_le_bytes());
    bytes
}
