//! Parts collected into blocks.
//!
//! A stream is named by the hash of its announcement and collected apart for each publisher, so
//! that one publisher's junk does not spoil another's block. The announcement is part 0, data
//! follows from 1; parts may come in any order.
//!
//! # What gives way
//!
//! Publishers' keys are free, and a valid announcement may be replayed under any number of them; a
//! signed announcement and a connection are not. So a stream counts for the validator that signed its
//! announcement and for the neighbour that opened it:
//!
//! 1. Streams whose announcement has not come go first, those of the neighbour that has the most of
//!    them, the oldest first.
//! 2. Then those of the validator that has the most, and half of all is the most that it may have.
//! 3. Of its streams those under the announcement with the most copies, of these copies those of the
//!    neighbour that delivered the most, and of these the youngest.
//!
//! So a validator's block is displaced by copies of its own announcement only; a neighbour's copies
//! displace those of another neighbour that delivered fewer never, and where all come through one
//! neighbour, the copy that was first stays. Bytes decide between validators only: if they did between
//! copies, the copy that has come the furthest would go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::Height;

use super::api::Peer;
use super::part::{Announcement, PART_BYTES, Part, PartMessage};

/// Streams collected at once from one publisher.
pub const STREAMS_PER_PUBLISHER_MAX: usize = 4;
/// Streams collected at once.
pub const STREAMS_MAX: usize = 32;
/// Those of them that one validator announced: half, so that no validator's announcements, however often
/// they are replayed, keep all others' out.
pub const STREAMS_PER_VALIDATOR_MAX: usize = STREAMS_MAX / 2;
/// Whole blocks' worth of bytes held by unfinished streams.
pub const COLLECTED_BLOCKS_MAX: usize = 8;
/// That of the blocks that one validator announced: half, as with streams.
pub const COLLECTED_PER_VALIDATOR_MAX: usize = COLLECTED_BLOCKS_MAX / 2;
/// Finished, refused or displaced streams that are remembered, so that their late parts are dropped.
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

struct Stream {
    /// Later streams have higher numbers.
    number: u64,
    /// The neighbour that delivered what came first.
    from: Peer,
    /// What was decided then.
    opened_at: Height,
    announced: Option<(Announcement, Signature)>,
    parts: BTreeMap<u64, Bytes>,
    held: usize,
}

impl Stream {
    /// The validator that signed its announcement.
    fn validator(&self) -> Option<AccountId> {
        self.announced
            .map(|(announcement, _)| announcement.proposer)
    }
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
    decided: Height,
}

impl Streams {
    pub(super) const fn new(block_bytes_max: usize) -> Self {
        Self {
            block_bytes_max,
            streams: BTreeMap::new(),
            closed: VecDeque::new(),
            held: 0,
            opened: 0,
            decided: Height::ZERO,
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
        from: &Peer,
        message: PartMessage,
    ) -> Result<Option<Whole>, StreamError> {
        if matches!(message.part, Part::Init(..)) {
            self.closed.retain(|closed| closed != key);
        } else if self.closed.contains(key) {
            return Ok(None);
        }
        self.open(key, from);
        let result = self
            .add(key, message.sequence, message.part)
            .and_then(|()| self.assemble(key));
        match result {
            Ok(None) => self.make_room(key),
            Ok(Some(_)) | Err(_) => self.close(key.clone()),
        }
        result
    }

    /// Forgets a stream whose announcement was refused or is not needed, or that gives way.
    pub(super) fn close(&mut self, key: Key) {
        self.remove(&key);
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(key);
    }

    /// Drops the streams up to a height that is decided, and those that were opened before the last
    /// decision and are not announced yet.
    pub(super) fn prune(&mut self, decided: Height) {
        let before = std::mem::replace(&mut self.decided, decided);
        let is_old = |stream: &Stream| match stream.announced {
            Some((announcement, _)) => announcement.height <= decided,
            None => stream.opened_at < before,
        };
        let old = self.streams.iter().filter(|(_, stream)| is_old(stream));
        let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
        for key in old {
            self.close(key);
        }
    }

    fn open(&mut self, key: &Key, from: &Peer) {
        if self.streams.contains_key(key) {
            return;
        }
        let of_publisher = self
            .streams
            .iter()
            .filter(|((publisher, _), _)| *publisher == key.0);
        let ages = of_publisher.map(|(key, stream)| (stream.number, key.clone()));
        let mut ages: Vec<_> = ages.collect();
        ages.sort_unstable();
        if let Some((_, oldest)) = ages.first()
            && ages.len() >= STREAMS_PER_PUBLISHER_MAX
        {
            self.remove(oldest);
        }
        self.opened += 1;
        let stream = Stream {
            number: self.opened,
            from: from.clone(),
            opened_at: self.decided,
            announced: None,
            parts: BTreeMap::new(),
            held: 0,
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

    /// Drops what is too much after a stream has grown.
    fn make_room(&mut self, grown: &Key) {
        let bytes = |blocks: usize| self.block_bytes_max.saturating_mul(blocks);
        let of_one = (
            STREAMS_PER_VALIDATOR_MAX,
            bytes(COLLECTED_PER_VALIDATOR_MAX),
        );
        let of_all = (STREAMS_MAX, bytes(COLLECTED_BLOCKS_MAX));
        let validator = self.streams.get(grown).and_then(Stream::validator);
        if validator.is_some() {
            self.shrink(of_one, |stream| stream.validator() == validator);
        }
        self.shrink(of_all, |_| true);
    }

    /// Drops streams of some until they are no more than so many with no more than so many bytes.
    fn shrink(&mut self, (count_max, bytes_max): (usize, usize), of: impl Fn(&Stream) -> bool) {
        loop {
            let some = || self.streams.iter().filter(|(_, stream)| of(stream));
            let by_bytes = some().map(|(_, stream)| stream.held).sum::<usize>() > bytes_max;
            if !by_bytes && some().count() <= count_max {
                return;
            }
            match first_to_go(some().collect(), by_bytes) {
                // Its later parts would only be collected again, without the earlier ones.
                Some(key) => self.close(key),
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

type Held<'a> = (&'a Key, &'a Stream);

/// Which of some streams gives way; see the module's documentation.
fn first_to_go(streams: Vec<Held<'_>>, by_bytes: bool) -> Option<Key> {
    let size = |stream: &Stream| if by_bytes { stream.held } else { 1 };
    let (announced, strange): (Vec<_>, Vec<_>) = streams
        .into_iter()
        .partition(|(_, stream)| stream.announced.is_some());
    let gone = if strange.is_empty() {
        let of_validator = most(announced, |(_, stream)| stream.validator(), size);
        let copies = most(of_validator, |(key, _)| key.1, |_| 1);
        let delivered = most(copies, |(_, stream)| stream.from.clone(), |_| 1);
        delivered.into_iter().max_by_key(|(_, of)| of.number)
    } else {
        let delivered = most(strange, |(_, stream)| stream.from.clone(), size);
        delivered.into_iter().min_by_key(|(_, of)| of.number)
    };
    gone.map(|(key, _)| key.clone())
}

/// The streams of whoever has the most of them; of two that have as much, of the one with the youngest.
fn most<'a, K: Ord>(
    streams: Vec<Held<'a>>,
    whose: impl Fn(&Held<'a>) -> K,
    size: impl Fn(&Stream) -> usize,
) -> Vec<Held<'a>> {
    let mut sums: BTreeMap<K, (usize, u64)> = BTreeMap::new();
    for entry in &streams {
        let (sum, youngest) = sums.entry(whose(entry)).or_default();
        *sum += size(entry.1);
        *youngest = entry.1.number.max(*youngest);
    }
    let most = sums.into_iter().max_by_key(|(_, sum)| *sum);
    let Some((most, _)) = most else {
        return Vec::new();
    };
    let mut theirs = streams;
    theirs.retain(|entry| whose(entry) == most);
    theirs
}
