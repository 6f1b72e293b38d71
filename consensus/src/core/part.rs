//! A block on its way: announced under its proposer's signature, then sent in parts.
//!
//! The announcement commits to the parts: `parts` is the root of the list of their hashes, and the list
//! itself travels with the announcement. So each part is checked alone when it arrives, whoever sends
//! it, and an announcement has exactly one stream.

use bytes::Bytes;
use proofmill_chain::types::block::BLOCK_BYTES_MAX;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::{codec, merkle};
use serde::{Deserialize, Serialize};

/// Bytes of a block in one part; the last part may have fewer.
pub const PART_BYTES: usize = 128 << 10;
/// Parts of a block: the list of their hashes has 1 KiB at most.
pub const PARTS_MAX: usize = BLOCK_BYTES_MAX.div_ceil(PART_BYTES);

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
    /// What commits to its parts; see [`parts_root`].
    pub parts: Hash,
}

impl Announcement {
    /// The stream that this announcement opens.
    #[must_use]
    pub fn stream(&self) -> Hash {
        Hash::of("proofmill/stream/v1", &[&codec::encode(self)])
    }

    /// Whether these are the hashes of its parts: as many as a block of its size has, under its root.
    pub(super) fn lists(&self, hashes: &[Hash]) -> bool {
        hashes.len() == (self.size as usize).div_ceil(PART_BYTES)
            && merkle::root_of_hashes(hashes.to_vec()) == self.parts
    }
}

/// The hash of a part, by which it is known.
pub(super) fn part_hash(bytes: &[u8]) -> Hash {
    merkle::leaf_hash(bytes)
}

/// The hashes of a block's parts, in their order.
fn part_hashes(block: &[u8]) -> Vec<Hash> {
    block.chunks(PART_BYTES).map(part_hash).collect()
}

/// What an announcement of a block commits to: the root of the list of its parts.
#[must_use]
pub fn parts_root(block: &[u8]) -> Hash {
    merkle::root_of_hashes(part_hashes(block))
}

/// A part of a proposed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Part 0: what is coming, signed by the proposer, and the hashes of the parts.
    Init(Announcement, Signature, Vec<Hash>),
    /// A slice of the block.
    Data(Bytes),
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
    let slices = block.chunks(PART_BYTES);
    let data = slices.map(|slice| Part::Data(Bytes::copy_from_slice(slice)));
    let init = Part::Init(*announcement, signature, part_hashes(block));
    std::iter::once(init)
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
    bytes.extend_from_slice(announcement.parts.as_bytes());
    bytes
}
