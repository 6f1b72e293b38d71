//! The state on the disk: pieces of it, each as it was after some block, and the diffs since.
//!
//! ```text
//! keys      0 ──────────────────────────▶ next ────────────────────────────────────── end
//! pieces    [after 907][after 908][after 909]│[after 861][after 862] … [after 870]
//!             this round                       what is left of the round before
//! ```
//! With every block one more piece of the state is written, beginning where the last one ended, and
//! the pieces of the round before that it covers go. So the oldest piece says from which height on
//! diffs are needed to have the whole state after the head. A piece has half as many records as
//! its block changes, so a diff is kept until about twice as many records have changed as there are:
//! the disk never holds more than some three times the state, and no record is written on its own.

use std::collections::VecDeque;

use proofmill_chain::tree::LeafValue;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::StoreError;
use super::entry::{self, Entry};
use super::keys;

/// Records that a piece has however few its block changes.
const PIECE_LEAVES_MIN: usize = 16;
/// Records that a piece has however many its block changes: the piece is at most 4 MiB.
pub(super) const PIECE_LEAVES_MAX: usize = 1 << 16;

/// Some of the state's records, all there are between two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The first key that belongs to it.
    pub(super) from: Hash,
    /// The first key behind it, `None` at the end of the keys.
    pub(super) until: Option<Hash>,
    /// Its records.
    pub(super) leaves: Vec<(Hash, LeafValue)>,
}

/// A piece that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// The block after which the state was so.
    pub(super) at: Height,
    /// Which one of its height.
    pub(super) number: u32,
    pub(super) from: Hash,
    pub(super) until: Option<Hash>,
    /// Counts how often the keys were gone through.
    round: u64,
}

/// Which pieces and diffs are on the disk.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// By age.
    pieces: VecDeque<Written>,
    /// The oldest diff that is kept.
    diffs_from: Height,
}

/// A new piece and what it makes superfluous.
#[derive(Debug)]
pub(super) struct Step {
    piece: Written,
    /// Keys of pieces.
    pub(super) pieces_gone: Vec<[u8; keys::POSITION_BYTES]>,
    /// Heights of diffs.
    pub(super) diffs_gone: Vec<Height>,
}

/// How many records the piece that a block brings should have, given how many it changes.
pub(super) fn piece_leaves(changes: usize) -> usize {
    (changes / 2).clamp(PIECE_LEAVES_MIN, PIECE_LEAVES_MAX)
}

impl Piece {
    pub(super) fn encode(&self) -> Vec<u8> {
        let most = self.leaves.len().saturating_mul(entry::ENTRY_BYTES_MAX);
        let mut bytes = Vec::with_capacity(most / 2 + entry::ENTRY_BYTES_MAX);
        bytes.extend_from_slice(self.from.as_bytes());
        bytes.push(u8::from(self.until.is_some()));
        bytes.extend_from_slice(self.until.unwrap_or(Hash::ZERO).as_bytes());
        for (key, value) in &self.leaves {
            entry::write(key, Some(value), &mut bytes);
        }
        bytes
    }

    /// Where a piece begins and ends, and its records' bytes; `None` when the bytes are no piece.
    pub(super) fn bounds(bytes: &[u8]) -> Option<(Hash, Option<Hash>, &[u8])> {
        let (from, rest) = bytes.split_first_chunk::<{ Hash::LEN }>()?;
        let (bounded, rest) = rest.split_first()?;
        let (until, rest) = rest.split_first_chunk::<{ Hash::LEN }>()?;
        let until = match bounded {
            0 => None,
            1 => Some(Hash::new(*until)),
            _ => return None,
        };
        Some((Hash::new(*from), until, rest))
    }

    /// `None` when the bytes are no piece.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (from, until, records) = Self::bounds(bytes)?;
        let leaves = entry::read_all(records)?
            .into_iter()
            .map(|(key, value): Entry| {
                let inside = from <= key && until.is_none_or(|until| key < until);
                value.filter(|_| inside).map(|value| (key, value))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            from,
            until,
            leaves,
        })
    }
}

impl Written {
    pub(super) fn key(&self) -> [u8; keys::POSITION_BYTES] {
        keys::piece_key(self.at, self.number)
    }

    /// Whether a tree key belongs to the piece.
    fn has(&self, key: &Hash) -> bool {
        self.from <= *key && self.until.is_none_or(|until| *key < until)
    }
}

impl Checkpoint {
    /// That of a store without anything.
    pub(super) fn starting() -> Self {
        Self {
            pieces: VecDeque::new(),
            diffs_from: Height::ZERO.next(),
        }
    }

    /// Where the next piece begins.
    pub(super) fn next(&self) -> Hash {
        self.pieces
            .back()
            .and_then(|last| last.until)
            .unwrap_or(Hash::ZERO)
    }

    /// The pieces, by age.
    #[cfg(test)]
    fn pieces(&self) -> impl Iterator<Item = &Written> {
        self.pieces.iter()
    }

    /// The height after which diffs are needed: all later blocks' diffs are there.
    pub(super) fn oldest(&self) -> Height {
        self.pieces.front().map_or(Height::ZERO, |piece| piece.at)
    }

    /// The newest piece that has a key; there always is one.
    pub(super) fn piece_of(&self, key: &Hash) -> Option<&Written> {
        let round = self.pieces.back()?.round;
        let ends_before = |piece: &Written| piece.until.is_some_and(|until| until <= *key);
        let this_round = |piece: &Written| piece.round < round || ends_before(piece);
        let before = |piece: &Written| piece.round < round && ends_before(piece);
        [
            self.pieces.partition_point(this_round),
            self.pieces.partition_point(before),
        ]
        .into_iter()
        .filter_map(|at| self.pieces.get(at))
        .find(|piece| piece.has(key))
    }

    /// The leaves of its pieces, given by age, by ascending key: of each key as the newest piece that has
    /// it says.
    pub(super) fn leaves(&self, mut pieces: Vec<Piece>) -> impl Iterator<Item = (Hash, LeafValue)> {
        let round = self.pieces.back().map_or(0, |newest| newest.round);
        let older = self.pieces.partition_point(|piece| piece.round < round);
        // Where the pieces of this round end. They may end in the middle of an older one.
        let next = self.next();
        let newer = pieces.split_off(older);
        let newer = newer.into_iter().flat_map(|piece| piece.leaves);
        let older = pieces.into_iter().flat_map(|piece| piece.leaves);
        newer.chain(older.filter(move |(key, _)| *key >= next))
    }

    /// What the pieces on the disk come to, given by age.
    ///
    /// # Errors
    /// When they are not all there, which is damage.
    pub(super) fn restore(
        pieces: impl IntoIterator<Item = (Height, u32, Hash, Option<Hash>)>,
    ) -> Result<Self, StoreError> {
        let mut restored = Self::starting();
        for (at, number, from, until) in pieces {
            let piece = restored.following(at, number, from, until)?;
            restored.pieces.push_back(piece);
        }
        restored.diffs_from = restored.oldest().next();
        let (Some(oldest), Some(newest)) = (restored.pieces.front(), restored.pieces.back()) else {
            return Err(StoreError::corrupt("the pieces of the state are missing"));
        };
        let whole = match newest.until {
            None => oldest.round == newest.round && oldest.from == Hash::ZERO,
            Some(next) => oldest.round.saturating_add(1) == newest.round && oldest.from <= next,
        };
        if !whole {
            return Err(StoreError::corrupt(format!(
                "a piece of the state before piece {} of height {} is missing",
                oldest.number, oldest.at
            )));
        }
        Ok(restored)
    }

    /// What a piece that begins where the last one ended comes to.
    ///
    /// # Errors
    /// When it does not, which is our own bug.
    pub(super) fn plan(
        &self,
        at: Height,
        number: u32,
        from: Hash,
        until: Option<Hash>,
    ) -> Result<Step, StoreError> {
        if self.pieces.is_empty() && from != Hash::ZERO {
            return Err(out_of_order(at, number));
        }
        let piece = self.following(at, number, from, until)?;
        let covered = |old: &&Written| {
            old.round < piece.round
                && until.is_none_or(|end| old.until.is_some_and(|until| until <= end))
        };
        let pieces: Vec<_> = self.pieces.iter().take_while(covered).collect();
        let oldest = self.pieces.get(pieces.len()).map_or(at, |piece| piece.at);
        let diffs = core::iter::successors(Some(self.diffs_from), |height| Some(height.next()));
        Ok(Step {
            piece,
            pieces_gone: pieces.iter().map(|piece| piece.key()).collect(),
            diffs_gone: diffs.take_while(|height| *height <= oldest).collect(),
        })
    }

    /// Takes a step that is on the disk.
    pub(super) fn take(&mut self, step: &Step) {
        self.pieces.drain(..step.pieces_gone.len());
        self.pieces.push_back(step.piece);
        if let Some(last) = step.diffs_gone.last() {
            self.diffs_from = last.next();
        }
    }

    /// A piece behind those there are.
    fn following(
        &self,
        at: Height,
        number: u32,
        from: Hash,
        until: Option<Hash>,
    ) -> Result<Written, StoreError> {
        let follows = self
            .pieces
            .back()
            .is_none_or(|last| from == self.next() && (last.at, last.number) < (at, number));
        if !follows || until.is_some_and(|until| until <= from) {
            return Err(out_of_order(at, number));
        }
        let round = self.pieces.back().map_or(0, |last| {
            last.round.saturating_add(u64::from(last.until.is_none()))
        });
        Ok(Written {
            at,
            number,
            from,
            until,
            round,
        })
    }
}

fn out_of_order(at: Height, number: u32) -> StoreError {
    StoreError::corrupt(format!(
        "piece {number} of height {at} of the state does not follow the one before it"
    ))
}

#[cfg(test)]
mod tests {
    use proofmill_chain::tree::LeafValue;
    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::Height;

    use super::{Checkpoint, PIECE_LEAVES_MAX, Piece, piece_leaves};
    use crate::store::keys::piece_key;

    fn key(first: u8) -> Hash {
        let mut bytes = [0; Hash::LEN];
        bytes[0] = first;
        Hash::new(bytes)
    }

    /// Takes a piece whose bounds are told by their first byte, zero for the end.
    fn add(checkpoint: &mut Checkpoint, at: u64, from: u8, until: u8) -> (Vec<u64>, Vec<u64>) {
        let until = (until > 0).then(|| key(until));
        let step = checkpoint
            .plan(Height::new(at), 0, key(from), until)
            .expect("it follows");
        checkpoint.take(&step);
        let heights = step
            .pieces_gone
            .iter()
            .map(|piece| (0..=at).find(|at| piece_key(Height::new(*at), 0) == *piece))
            .map(|height| height.expect("a piece from before"));
        (
            heights.collect(),
            step.diffs_gone.into_iter().map(Height::get).collect(),
        )
    }

    fn restored(checkpoint: &Checkpoint) -> Checkpoint {
        let pieces = checkpoint.pieces();
        let pieces = pieces.map(|piece| (piece.at, piece.number, piece.from, piece.until));
        Checkpoint::restore(pieces.collect::<Vec<_>>()).expect("it is whole")
    }

    #[test]
    fn a_piece_makes_those_it_covers_superfluous_and_the_diffs_before_the_oldest() {
        let mut checkpoint = Checkpoint::starting();
        assert_eq!(add(&mut checkpoint, 0, 0, 0), (vec![], vec![]));
        assert_eq!(add(&mut checkpoint, 1, 0, 100), (vec![], vec![]));
        assert_eq!(add(&mut checkpoint, 2, 100, 200), (vec![], vec![]));
        // Only now is nothing of genesis needed any more.
        assert_eq!(add(&mut checkpoint, 3, 200, 0), (vec![0], vec![1]));
        assert_eq!(add(&mut checkpoint, 4, 0, 90), (vec![], vec![]));
        assert_eq!(add(&mut checkpoint, 5, 90, 210), (vec![1, 2], vec![2, 3]));
        assert_eq!(restored(&checkpoint).diffs_from, checkpoint.diffs_from);
        let at = |first| checkpoint.piece_of(&key(first)).expect("one has it").at;
        let ages = [0, 89, 90, 209, 210, 255].map(|first| at(first).get());
        assert_eq!(ages, [4, 4, 5, 5, 3, 3]);
        assert_eq!(checkpoint.next(), key(210));
        assert_eq!(add(&mut checkpoint, 6, 210, 0), (vec![3], vec![4]));
        assert_eq!(checkpoint.next(), Hash::ZERO);
        assert_eq!(checkpoint.oldest(), Height::new(4));
    }

    #[test]
    fn pieces_that_do_not_follow_or_are_not_all_there_are_refused() {
        let mut checkpoint = Checkpoint::starting();
        let none = |checkpoint: &Checkpoint, at, from, until: Option<u8>| {
            let planned = checkpoint.plan(Height::new(at), 0, key(from), until.map(key));
            planned.expect_err("it does not follow");
        };
        none(&checkpoint, 0, 1, None);
        add(&mut checkpoint, 0, 0, 0);
        add(&mut checkpoint, 1, 0, 100);
        none(&checkpoint, 2, 101, None);
        none(&checkpoint, 1, 100, None);
        none(&checkpoint, 2, 100, Some(100));
        add(&mut checkpoint, 2, 100, 0);
        add(&mut checkpoint, 3, 0, 100);
        let all: Vec<_> = checkpoint
            .pieces()
            .map(|piece| (piece.at, piece.number, piece.from, piece.until))
            .collect();
        Checkpoint::restore(all.clone()).expect("it is whole");
        for missing in 0..all.len() {
            let mut some = all.clone();
            some.remove(missing);
            let lost = Checkpoint::restore(some);
            assert!(lost.is_err(), "without {missing}");
        }
        Checkpoint::restore([]).expect_err("nothing is no state");
    }

    #[test]
    fn pieces_come_back_and_hold_only_what_belongs_to_them() {
        let piece = Piece {
            from: key(10),
            until: Some(key(20)),
            leaves: (10..20)
                .map(|first| (key(first), LeafValue::of(&[first; 40][..first.into()])))
                .collect(),
        };
        let bytes = piece.encode();
        assert_eq!(Piece::decode(&bytes), Some(piece.clone()));
        let end = Piece {
            until: None,
            ..piece.clone()
        };
        assert_eq!(Piece::decode(&end.encode()), Some(end));
        let narrow = Piece {
            until: Some(key(19)),
            ..piece.clone()
        };
        assert_eq!(Piece::decode(&narrow.encode()), None);
        let late = Piece {
            from: key(11),
            ..piece
        };
        assert_eq!(Piece::decode(&late.encode()), None);
        assert_eq!(Piece::decode(&bytes[..60]), None);
    }

    #[test]
    fn a_piece_has_half_as_many_records_as_its_block_changes() {
        assert_eq!(piece_leaves(0), 16);
        assert_eq!(piece_leaves(20_000), 10_000);
        assert_eq!(piece_leaves(usize::MAX), PIECE_LEAVES_MAX);
    }
}
