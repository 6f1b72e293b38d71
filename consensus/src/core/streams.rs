//! Parts collected into blocks.
//!
//! A stream is named by the hash of its announcement, and there is one for each announcement: the
//! announcement commits to every part, so a part is checked before it is kept, and it does not matter
//! who sends it. The announcement is part 0, data follows from 1; parts may come in any order.
//!
//! Parts that come before their announcement cannot be checked. They are held for the neighbour that
//! delivered them, the oldest of the neighbour with the most give way, and all of them give way to
//! announced streams. They are checked when the announcement comes.
//!
//! # What gives way
//!
//! A stream counts for the validator that signed its announcement. When there is no room, a stream of the
//! validator that has the most goes, and half of all is the most that one may have. Of its streams, the one
//! of the furthest turn goes. So nobody but a validator takes room from announced streams, and no
//! validator displaces another that has less.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use super::api::Peer;
use super::part::{Announcement, PART_BYTES, PARTS_MAX, part_hash};

/// Streams collected at once.
pub const STREAMS_MAX: usize = 32;
/// Those of them that one validator announced: half, so that no validator's announcements keep all
/// others' out.
pub const STREAMS_PER_VALIDATOR_MAX: usize = STREAMS_MAX / 2;
/// Whole blocks' worth of bytes held by unfinished streams and parts without an announcement.
pub const COLLECTED_BLOCKS_MAX: usize = 8;
/// That of the blocks that one validator announced: half, as with streams.
pub const COLLECTED_PER_VALIDATOR_MAX: usize = COLLECTED_BLOCKS_MAX / 2;
/// Parts without an announcement that are held for one neighbour: a whole block.
pub const UNCLAIMED_PER_NEIGHBOUR_MAX: usize = PARTS_MAX;
/// Parts without an announcement that are held.
pub const UNCLAIMED_MAX: usize = 4 * UNCLAIMED_PER_NEIGHBOUR_MAX;
/// Finished, refused or displaced streams that are remembered, so that their late parts are dropped.
pub const CLOSED_MAX: usize = 128;

/// Why a part was dropped: always its publisher's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PartError {
    #[error("part {0} is outside the block")]
    Sequence(u64),
    #[error("part {sequence} has {given} bytes")]
    Size { sequence: u64, given: usize },
    #[error("part {0} is not the one that was announced")]
    Foreign(u64),
}

/// A block received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) announcement: Announcement,
    pub(super) signature: Signature,
    pub(super) bytes: Arc<[u8]>,
}

/// A slice of a block on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The neighbour that delivered it.
    pub(super) from: Peer,
    /// Who published it.
    pub(super) publisher: Peer,
    pub(super) stream: Hash,
    /// Its place, counted from 1.
    pub(super) sequence: u64,
    pub(super) bytes: Bytes,
}

struct Stream {
    /// Later streams have higher numbers.
    number: u64,
    announcement: Announcement,
    signature: Signature,
    /// The hashes of its parts.
    hashes: Vec<Hash>,
    /// The parts that have come; each has its hash.
    parts: BTreeMap<u64, Bytes>,
    held: usize,
}

impl Stream {
    /// The later, the further away its turn; of one turn, the later it was opened.
    const fn place(&self) -> (Height, Round, u64) {
        let Announcement { height, round, .. } = self.announcement;
        (height, round, self.number)
    }

    /// Keeps a part if it is the one that was announced.
    fn add(&mut self, sequence: u64, bytes: Bytes) -> Result<(), PartError> {
        let index = sequence.checked_sub(1);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let announced = index.and_then(|index| Some((index, self.hashes.get(index)?)));
        let Some((index, hash)) = announced else {
            return Err(PartError::Sequence(sequence));
        };
        if self.parts.contains_key(&sequence) {
            return Ok(());
        }
        let given = bytes.len();
        let rest = (self.announcement.size as usize).saturating_sub(index * PART_BYTES);
        if given != rest.min(PART_BYTES) {
            return Err(PartError::Size { sequence, given });
        }
        if part_hash(&bytes) != *hash {
            return Err(PartError::Foreign(sequence));
        }
        self.parts.insert(sequence, bytes);
        self.held += given;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.parts.len() == self.hashes.len()
    }

    fn into_whole(self) -> Whole {
        let mut bytes = Vec::with_capacity(self.held);
        for part in self.parts.values() {
            bytes.extend_from_slice(part);
        }
        Whole {
            announcement: self.announcement,
            signature: self.signature,
            bytes: bytes.into(),
        }
    }
}

/// The streams being collected, by name.
pub(super) struct Streams {
    block_bytes_max: usize,
    streams: BTreeMap<Hash, Stream>,
    /// Parts whose announcement has not come, each with the height decided when it came; oldest first.
    unclaimed: VecDeque<(Height, Slice)>,
    closed: VecDeque<Hash>,
    opened: u64,
    decided: Height,
}

impl Streams {
    pub(super) const fn new(block_bytes_max: usize) -> Self {
        Self {
            block_bytes_max,
            streams: BTreeMap::new(),
            unclaimed: VecDeque::new(),
            closed: VecDeque::new(),
            opened: 0,
            decided: Height::ZERO,
        }
    }

    /// Bytes held by unfinished streams and parts without an announcement.
    pub(super) fn held(&self) -> usize {
        let streams = self.streams.values().map(|stream| stream.held);
        let unclaimed = self.unclaimed.iter().map(|(_, slice)| slice.bytes.len());
        streams.chain(unclaimed).sum()
    }

    /// The height of a stream whose announcement has come.
    pub(super) fn height(&self, stream: &Hash) -> Option<Height> {
        let stream = self.streams.get(stream)?;
        Some(stream.announcement.height)
    }

    /// Opens the stream of an announcement, which the caller has verified, with the parts that came
    /// before it. Gives the block if it is whole, and the publishers of what were no parts of it.
    pub(super) fn open(
        &mut self,
        announcement: Announcement,
        signature: Signature,
        hashes: Vec<Hash>,
    ) -> (Option<Whole>, Vec<(Peer, PartError)>) {
        let name = announcement.stream();
        if self.streams.contains_key(&name) {
            return (None, Vec::new());
        }
        self.closed.retain(|closed| *closed != name);
        self.opened += 1;
        let mut stream = Stream {
            number: self.opened,
            announcement,
            signature,
            hashes,
            parts: BTreeMap::new(),
            held: 0,
        };
        let mut faults = Vec::new();
        for (at, slice) in std::mem::take(&mut self.unclaimed) {
            if slice.stream != name {
                self.unclaimed.push_back((at, slice));
            } else if let Err(error) = stream.add(slice.sequence, slice.bytes) {
                faults.push((slice.publisher, error));
            }
        }
        self.streams.insert(name, stream);
        (self.settle(&name), faults)
    }

    /// Adds a part; gives the block when it was the last one missing.
    ///
    /// # Errors
    /// When it is not a part of its stream; it is not kept then.
    pub(super) fn insert(&mut self, slice: Slice) -> Result<Option<Whole>, PartError> {
        let Slice {
            stream, sequence, ..
        } = slice;
        if let Some(announced) = self.streams.get_mut(&stream) {
            announced.add(sequence, slice.bytes)?;
            return Ok(self.settle(&stream));
        }
        let given = slice.bytes.len();
        if sequence == 0 || sequence > PARTS_MAX as u64 {
            return Err(PartError::Sequence(sequence));
        }
        if given == 0 || given > PART_BYTES {
            return Err(PartError::Size { sequence, given });
        }
        if !self.closed.contains(&stream) {
            self.hold(slice);
        }
        Ok(None)
    }

    /// Drops a stream that is not needed or gives way, and its later parts.
    pub(super) fn close(&mut self, stream: Hash) {
        self.streams.remove(&stream);
        self.ignore(stream);
    }

    /// Drops the parts of a stream from now on, unless it is being collected.
    pub(super) fn ignore(&mut self, stream: Hash) {
        if self.streams.contains_key(&stream) || self.closed.contains(&stream) {
            return;
        }
        self.unclaimed.retain(|(_, slice)| slice.stream != stream);
        if self.closed.len() == CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(stream);
    }

    /// Drops the streams up to a height that is decided, and the parts that came before the last
    /// decision and are not announced yet.
    pub(super) fn prune(&mut self, decided: Height) {
        let before = std::mem::replace(&mut self.decided, decided);
        self.unclaimed.retain(|(at, _)| *at >= before);
        let old = self.streams.iter();
        let old = old.filter(|(_, stream)| stream.announcement.height <= decided);
        let old: Vec<_> = old.map(|(name, _)| *name).collect();
        for name in old {
            self.close(name);
        }
    }

    /// The block of a stream that is whole; drops what is too much if it is not.
    fn settle(&mut self, name: &Hash) -> Option<Whole> {
        let stream = self.streams.get(name)?;
        if !stream.is_whole() {
            let validator = stream.announcement.proposer;
            self.make_room(&validator);
            return None;
        }
        let whole = self.streams.remove(name).map(Stream::into_whole);
        self.ignore(*name);
        whole
    }

    /// Holds a part whose announcement has not come.
    fn hold(&mut self, slice: Slice) {
        let from = slice.from.clone();
        self.unclaimed.push_back((self.decided, slice));
        let theirs = self.unclaimed.iter();
        let theirs = theirs.filter(|(_, slice)| slice.from == from).count();
        if theirs > UNCLAIMED_PER_NEIGHBOUR_MAX {
            self.drop_oldest_of(&from);
        }
        if self.unclaimed.len() > UNCLAIMED_MAX {
            self.drop_unclaimed();
        }
        while self.held() > self.bytes_max(COLLECTED_BLOCKS_MAX) && self.drop_unclaimed() {}
    }

    /// Drops the oldest part without an announcement of the neighbour that delivered the most of them;
    /// whether there was one.
    fn drop_unclaimed(&mut self) -> bool {
        let mut counts: BTreeMap<&Peer, usize> = BTreeMap::new();
        for (_, slice) in &self.unclaimed {
            *counts.entry(&slice.from).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let most = most.map(|(peer, _)| peer.clone());
        most.is_some_and(|peer| self.drop_oldest_of(&peer))
    }

    fn drop_oldest_of(&mut self, neighbour: &Peer) -> bool {
        let mut unclaimed = self.unclaimed.iter();
        let oldest = unclaimed.position(|(_, slice)| slice.from == *neighbour);
        oldest.is_some_and(|at| self.unclaimed.remove(at).is_some())
    }

    const fn bytes_max(&self, blocks: usize) -> usize {
        self.block_bytes_max.saturating_mul(blocks)
    }

    /// Drops what is too much after a validator's stream has grown.
    fn make_room(&mut self, validator: &AccountId) {
        let all_max = self.bytes_max(COLLECTED_BLOCKS_MAX);
        while self.held() > all_max && self.drop_unclaimed() {}
        let one_max = self.bytes_max(COLLECTED_PER_VALIDATOR_MAX);
        self.shrink((STREAMS_PER_VALIDATOR_MAX, one_max), |stream| {
            stream.announcement.proposer == *validator
        });
        self.shrink((STREAMS_MAX, all_max), |_| true);
    }

    /// Drops streams of some until they are no more than so many with no more than so many bytes.
    fn shrink(&mut self, (count_max, bytes_max): (usize, usize), of: impl Fn(&Stream) -> bool) {
        loop {
            let some = || self.streams.values().filter(|stream| of(stream));
            let by_bytes = some().map(|stream| stream.held).sum::<usize>() > bytes_max;
            if !by_bytes && some().count() <= count_max {
                return;
            }
            let gone = first_to_go(&some().collect::<Vec<_>>(), by_bytes);
            match gone {
                // Its later parts would only be collected again, without the earlier ones.
                Some(name) => self.close(name),
                None => return,
            }
        }
    }
}

/// Which of some streams gives way: that of the furthest turn of the validator that has the most; of two
/// that have as much, of the one with the furthest turn.
fn first_to_go(streams: &[&Stream], by_bytes: bool) -> Option<Hash> {
    let mut sums = BTreeMap::new();
    for stream in streams {
        let validator = stream.announcement.proposer;
        let (sum, furthest) = sums.entry(validator).or_insert((0_usize, stream.place()));
        *sum += if by_bytes { stream.held } else { 1 };
        *furthest = stream.place().max(*furthest);
    }
    let (_, (_, furthest)) = sums.into_iter().max_by_key(|(_, sum)| *sum)?;
    let mut streams = streams.iter();
    let gone = streams.find(|stream| stream.place() == furthest)?;
    Some(gone.announcement.stream())
}
