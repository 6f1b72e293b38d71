//! A block on its way: announced under its proposer's signature, cut into parts, collected again.
//!
//! A stream is named by the hash of its announcement. The announcement is part 0, data follows
//! from 1; parts may come in any order. What is collected is bounded per publisher and in total,
//! and a stream whose announcement is not verified yet is the first to go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_malachitebft_engine::util::streaming::{StreamContent, StreamId, StreamMessage};
use arc_malachitebft_peer::PeerId;
use bytes::Bytes;
use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use serde::{Deserialize, Serialize};

/// Bytes of a block in one part; the last part may have fewer.
pub(crate) const PART_BYTES: usize = 128 << 10;
/// Streams collected at once from one publisher.
const STREAMS_PER_PUBLISHER_MAX: usize = 4;
/// Streams collected at once.
const STREAMS_MAX: usize = 32;
/// Whole blocks' worth of bytes held by unfinished streams.
const HELD_BLOCKS_MAX: usize = 8;
/// Finished or refused streams that are remembered, so that their late parts are dropped.
const CLOSED_MAX: usize = 128;

/// What a proposer says of the block it is about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) height: Height,
    pub(crate) round: Round,
    pub(crate) pol_round: Option<Round>,
    pub(crate) proposer: AccountId,
    pub(crate) block: Hash,
    pub(crate) size: u32,
}

impl Announcement {
    /// The stream that this announcement opens.
    pub(crate) fn stream(&self) -> Hash {
        Hash::of("proofmill/stream/v1", &[&codec::encode(self)])
    }
}

/// A part of a proposed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
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

/// Cuts a block into the messages of its stream.
pub(crate) fn split(
    announcement: &Announcement,
    signature: Signature,
    block: &[u8],
) -> Vec<StreamMessage<Part>> {
    let id = StreamId::new(Bytes::copy_from_slice(announcement.stream().as_bytes()));
    let count = block.len().div_ceil(PART_BYTES);
    let slices = block.chunks(PART_BYTES).enumerate();
    let data = slices.map(|(index, slice)| Part::Data {
        bytes: Bytes::copy_from_slice(slice),
        last: index + 1 == count,
    });
    std::iter::once(Part::Init(*announcement, signature))
        .chain(data)
        .zip(0..)
        .map(|(part, sequence)| StreamMessage::new(id.clone(), sequence, StreamContent::Data(part)))
        .collect()
}

/// Why a part was dropped: always its publisher's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("stream id of {0} bytes, expected 32")]
    Id(usize),
    #[error("stream is not the one that its announcement opens")]
    ForeignAnnouncement,
    #[error("announcement has sequence {0}, expected 0")]
    AnnouncementSequence(u64),
    #[error("part {0} is outside the block")]
    Sequence(u64),
    #[error("part {sequence} has {given} bytes")]
    PartSize { sequence: u64, given: usize },
    #[error("{given} bytes in {parts} parts, {announced} announced")]
    Size {
        given: usize,
        parts: usize,
        announced: u32,
    },
}

/// A block received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) announcement: Announcement,
    pub(crate) signature: Signature,
    pub(crate) bytes: Arc<[u8]>,
}

#[derive(Default)]
struct Stream {
    age: u64,
    announced: Option<(Announcement, Signature)>,
    parts: BTreeMap<u64, Bytes>,
    held: usize,
}

type Key = (PeerId, Hash);

/// The streams being collected.
pub(crate) struct Streams {
    block_bytes_max: usize,
    streams: BTreeMap<Key, Stream>,
    closed: VecDeque<Key>,
    held: usize,
    clock: u64,
}

impl Streams {
    pub(crate) fn new(block_bytes_max: usize) -> Self {
        Self {
            block_bytes_max,
            streams: BTreeMap::new(),
            closed: VecDeque::new(),
            held: 0,
            clock: 0,
        }
    }

    /// Bytes held by unfinished streams.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Adds a part; gives the block when it was the last one missing. An announcement must have
    /// been verified by the caller.
    ///
    /// # Errors
    /// When the part cannot belong to a stream; its stream is then closed.
    pub(crate) fn insert(
        &mut self,
        publisher: PeerId,
        message: StreamMessage<Part>,
    ) -> Result<Option<Whole>, StreamError> {
        let key = (publisher, stream_of(&message)?);
        let sequence = message.sequence;
        let Some(part) = message.content.into_data() else {
            return Ok(None);
        };
        let announced = matches!(part, Part::Init(..));
        if announced {
            self.closed.retain(|closed| *closed != key);
        } else if self.closed.contains(&key) {
            return Ok(None);
        }
        self.open(key);
        let result = self
            .add(key, sequence, part)
            .and_then(|()| self.assemble(key));
        match result {
            Ok(None) => self.make_room(),
            Ok(Some(_)) | Err(_) => self.close(key),
        }
        result
    }

    /// Forgets a stream whose announcement was refused or is not needed.
    pub(crate) fn close(&mut self, key: Key) {
        self.remove(key);
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(key);
    }

    /// Drops every announced stream up to a height that is decided.
    pub(crate) fn prune(&mut self, decided: Height) {
        let old: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.announced.is_some_and(|(a, _)| a.height <= decided))
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            self.close(key);
        }
    }

    fn open(&mut self, key: Key) {
        if self.streams.contains_key(&key) {
            return;
        }
        let mut of_publisher: Vec<_> = self
            .streams
            .iter()
            .filter(|((publisher, _), _)| *publisher == key.0)
            .map(|(key, stream)| (stream.age, *key))
            .collect();
        of_publisher.sort_unstable();
        if of_publisher.len() >= STREAMS_PER_PUBLISHER_MAX {
            let (_, oldest) = of_publisher[0];
            self.remove(oldest);
        }
        self.clock += 1;
        let stream = Stream {
            age: self.clock,
            ..Stream::default()
        };
        self.streams.insert(key, stream);
    }

    fn add(&mut self, key: Key, sequence: u64, part: Part) -> Result<(), StreamError> {
        let parts_max = self.block_bytes_max.div_ceil(PART_BYTES) as u64;
        let Some(stream) = self.streams.get_mut(&key) else {
            return Ok(());
        };
        match part {
            Part::Init(announcement, signature) => {
                if sequence != 0 {
                    return Err(StreamError::AnnouncementSequence(sequence));
                }
                if announcement.stream() != key.1 {
                    return Err(StreamError::ForeignAnnouncement);
                }
                stream.announced = Some((announcement, signature));
            }
            Part::Data { bytes, last } => {
                if sequence == 0 || sequence > parts_max {
                    return Err(StreamError::Sequence(sequence));
                }
                let given = bytes.len();
                if given == 0 || given > PART_BYTES || (!last && given != PART_BYTES) {
                    return Err(StreamError::PartSize { sequence, given });
                }
                if let Entry::Vacant(place) = stream.parts.entry(sequence) {
                    place.insert(bytes);
                    stream.held += given;
                    self.held += given;
                }
            }
        }
        Ok(())
    }

    fn assemble(&self, key: Key) -> Result<Option<Whole>, StreamError> {
        let Some(stream) = self.streams.get(&key) else {
            return Ok(None);
        };
        let Some((announcement, signature)) = stream.announced else {
            return Ok(None);
        };
        let expected = (announcement.size as usize).div_ceil(PART_BYTES);
        let outside = stream.parts.keys().next_back().copied();
        if let Some(sequence) = outside.filter(|sequence| *sequence > expected as u64) {
            return Err(StreamError::Sequence(sequence));
        }
        if stream.parts.len() < expected {
            return Ok(None);
        }
        if stream.held != announcement.size as usize {
            return Err(StreamError::Size {
                given: stream.held,
                parts: stream.parts.len(),
                announced: announcement.size,
            });
        }
        let mut bytes = Vec::with_capacity(stream.held);
        for part in stream.parts.values() {
            bytes.extend_from_slice(part);
        }
        Ok(Some(Whole {
            announcement,
            signature,
            bytes: bytes.into(),
        }))
    }

    fn make_room(&mut self) {
        while self.streams.len() > STREAMS_MAX
            || self.held > self.block_bytes_max.saturating_mul(HELD_BLOCKS_MAX)
        {
            let first_to_go = self
                .streams
                .iter()
                .map(|(key, stream)| (stream.announced.is_some(), stream.age, *key))
                .min();
            match first_to_go {
                Some((_, _, key)) => self.remove(key),
                None => return,
            }
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(&key) {
            self.held -= stream.held;
        }
    }
}

/// The stream that a message names.
pub(crate) fn stream_of(message: &StreamMessage<Part>) -> Result<Hash, StreamError> {
    let id = message.stream_id.to_bytes();
    <[u8; 32]>::try_from(id.as_ref())
        .map(Hash::new)
        .map_err(|_| StreamError::Id(id.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES_MAX: usize = 1 << 20;

    fn announcement(block: &[u8], round: u32) -> Announcement {
        Announcement {
            height: Height::new(7),
            round: Round::new(round),
            pol_round: None,
            proposer: AccountId::new([1; 32]),
            block: Hash::of("test", &[block]),
            size: block.len().try_into().expect("a test block is small"),
        }
    }

    fn block(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    fn peer(tag: u8) -> PeerId {
        let mut bytes = vec![0x12, 32];
        bytes.extend([tag; 32]);
        PeerId::from_bytes(&bytes).expect("a SHA-256 multihash")
    }

    fn parts(block: &[u8], round: u32) -> Vec<StreamMessage<Part>> {
        split(&announcement(block, round), Signature::new([2; 64]), block)
    }

    #[test]
    fn parts_in_any_order_make_the_block_again() {
        for length in [1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES - 5] {
            let block = block(length);
            for reversed in [false, true] {
                let mut messages = parts(&block, 0);
                if reversed {
                    messages.reverse();
                }
                let mut streams = Streams::new(BLOCK_BYTES_MAX);
                let last = messages.pop().expect("at least two messages");
                for message in messages {
                    assert_eq!(streams.insert(peer(1), message), Ok(None));
                }
                let whole = streams.insert(peer(1), last);
                let whole = whole.expect("well formed").expect("complete");
                assert_eq!(whole.bytes.as_ref(), block);
                assert_eq!(streams.held(), 0);
            }
        }
    }

    #[test]
    fn parts_of_two_publishers_do_not_mix() {
        let block = block(2 * PART_BYTES);
        let mut streams = Streams::new(BLOCK_BYTES_MAX);
        for (index, message) in parts(&block, 0).into_iter().enumerate() {
            let from = peer(u8::from(index == 1));
            assert_eq!(streams.insert(from, message), Ok(None));
        }
    }

    #[test]
    fn a_block_longer_than_announced_is_refused() {
        let block = block(PART_BYTES);
        let mut short = announcement(&block, 0);
        short.size -= 1;
        let messages = split(&short, Signature::new([2; 64]), &block);
        let mut streams = Streams::new(BLOCK_BYTES_MAX);
        let results: Vec<_> = messages
            .into_iter()
            .map(|message| streams.insert(peer(1), message))
            .collect();
        assert!(matches!(results[1], Err(StreamError::Size { .. })));
        assert_eq!(streams.held(), 0);
    }

    #[test]
    fn an_announcement_opens_only_its_own_stream() {
        let block = block(10);
        let mut message = parts(&block, 0).remove(0);
        message.stream_id = parts(&block, 1)[0].stream_id.clone();
        let mut streams = Streams::new(BLOCK_BYTES_MAX);
        assert_eq!(
            streams.insert(peer(1), message),
            Err(StreamError::ForeignAnnouncement)
        );
    }

    #[test]
    fn what_is_held_is_bounded_and_announced_streams_go_last() {
        let good = block(2 * PART_BYTES);
        let mut streams = Streams::new(BLOCK_BYTES_MAX);
        let mut messages = parts(&good, 0);
        let last = messages.pop().expect("three messages");
        for message in messages {
            assert_eq!(streams.insert(peer(0), message), Ok(None));
        }
        // Data without announcements, from many publishers, as much as they can send.
        let flood = block(BLOCK_BYTES_MAX);
        for publisher in 1..=20 {
            for round in 0..6 {
                for message in parts(&flood, round).into_iter().skip(1) {
                    assert_eq!(streams.insert(peer(publisher), message), Ok(None));
                    assert!(streams.held() <= HELD_BLOCKS_MAX * BLOCK_BYTES_MAX);
                }
            }
        }
        let whole = streams.insert(peer(0), last).expect("well formed");
        assert_eq!(whole.expect("complete").bytes.as_ref(), good);
    }
}
