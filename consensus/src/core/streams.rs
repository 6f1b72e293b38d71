//! Parts collected into blocks.
//!
//! A stream is named by the hash of its announcement and collected apart for each publisher, so
//! that one publisher's junk does not spoil another's block. The announcement is part 0, data
//! follows from 1; parts may come in any order. What is collected is bounded per publisher and in
//! total, and streams whose announcement has not come are the first to go, then those of the
//! publisher that has the most.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_chain::types::units::Height;

use super::api::Peer;
use super::part::{Announcement, PART_BYTES, Part, PartMessage};

/// Streams collected at once from one publisher.
pub const STREAMS_PER_PUBLISHER_MAX: usize = 4;
/// Streams collected at once.
pub const STREAMS_MAX: usize = 32;
/// Whole blocks' worth of bytes held by unfinished streams.
pub const COLLECTED_BLOCKS_MAX: usize = 8;
/// Finished or refused streams that are remembered, so that their late parts are dropped.
pub const CLOSED_MAX: usize = 128;

/// Why a part was dropped: always its publisher's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
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
pub(super) struct Whole {
    pub(super) announcement: Announcement,
    pub(super) signature: Signature,
    pub(super) bytes: Arc<[u8]>,
}

#[derive(Default)]
struct Stream {
    age: u64,
    announced: Option<(Announcement, Signature)>,
    parts: BTreeMap<u64, Bytes>,
    held: usize,
}

/// A publisher and the stream's name.
pub(super) type Key = (Peer, Hash);

/// The streams being collected.
pub(super) struct Streams {
    block_bytes_max: usize,
    streams: BTreeMap<Key, Stream>,
    closed: VecDeque<Key>,
    held: usize,
    opened: u64,
}

impl Streams {
    pub(super) const fn new(block_bytes_max: usize) -> Self {
        Self {
            block_bytes_max,
            streams: BTreeMap::new(),
            closed: VecDeque::new(),
            held: 0,
            opened: 0,
        }
    }

    /// Bytes held by unfinished streams.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// The height of a stream, once its announcement has come.
    pub(super) fn height(&self, key: &Key) -> Option<Height> {
        let announced = self.streams.get(key)?.announced;
        announced.map(|(announcement, _)| announcement.height)
    }

    /// Adds a part; gives the block when it was the last one missing. An announcement must have
    /// been verified by the caller.
    ///
    /// # Errors
    /// When the part cannot belong to a stream; its stream is then closed.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        message: PartMessage,
    ) -> Result<Option<Whole>, StreamError> {
        if matches!(message.part, Part::Init(..)) {
            self.closed.retain(|closed| closed != key);
        } else if self.closed.contains(key) {
            return Ok(None);
        }
        self.open(key);
        let result = self
            .add(key, message.sequence, message.part)
            .and_then(|()| self.assemble(key));
        match result {
            Ok(None) => self.make_room(),
            Ok(Some(_)) | Err(_) => self.close(key.clone()),
        }
        result
    }

    /// Forgets a stream whose announcement was refused or is not needed.
    pub(super) fn close(&mut self, key: Key) {
        self.remove(&key);
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(key);
    }

    /// Drops every announced stream up to a height that is decided.
    pub(super) fn prune(&mut self, decided: Height) {
        let old: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.announced.is_some_and(|(a, _)| a.height <= decided))
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.close(key);
        }
    }

    fn open(&mut self, key: &Key) {
        if self.streams.contains_key(key) {
            return;
        }
        let of_publisher = self
            .streams
            .iter()
            .filter(|((publisher, _), _)| *publisher == key.0);
        let ages = of_publisher.map(|(key, stream)| (stream.age, key.clone()));
        let mut ages: Vec<_> = ages.collect();
        ages.sort_unstable();
        if let Some((_, oldest)) = ages.first()
            && ages.len() >= STREAMS_PER_PUBLISHER_MAX
        {
            self.remove(oldest);
        }
        self.opened += 1;
        let stream = Stream {
            age: self.opened,
            ..Stream::default()
        };
        self.streams.insert(key.clone(), stream);
    }

    fn add(&mut self, key: &Key, sequence: u64, part: Part) -> Result<(), StreamError> {
        let parts_max = self.block_bytes_max.div_ceil(PART_BYTES) as u64;
        let Some(stream) = self.streams.get_mut(key) else {
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

    fn assemble(&self, key: &Key) -> Result<Option<Whole>, StreamError> {
        let Some(stream) = self.streams.get(key) else {
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
        let held_max = self.block_bytes_max.saturating_mul(COLLECTED_BLOCKS_MAX);
        while self.streams.len() > STREAMS_MAX || self.held > held_max {
            let mut of_publisher: BTreeMap<&Peer, usize> = BTreeMap::new();
            for (publisher, _) in self.streams.keys() {
                *of_publisher.entry(publisher).or_default() += 1;
            }
            let first_to_go = self
                .streams
                .iter()
                .min_by_key(|(key, stream)| {
                    let others = of_publisher.get(&key.0).copied().unwrap_or_default();
                    (stream.announced.is_some(), usize::MAX - others, stream.age)
                })
                .map(|(key, _)| key.clone());
            match first_to_go {
                Some(key) => self.remove(&key),
                None => return,
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(stream) = self.streams.remove(key) {
            self.held -= stream.held;
        }
    }
}
