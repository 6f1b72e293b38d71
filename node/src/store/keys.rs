//! Column families and the layout of their keys. Numbers are big-endian, so that keys sort as they do.

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};

/// A block's height and an index in it.
pub type Position = (Height, u32);

/// The layout that this version writes.
pub(super) const SCHEMA_VERSION: u32 = 4;

/// In `meta`: the height of the last block.
pub(super) const META_HEAD: &[u8] = b"head";
/// In `transactions`, beside the 32-byte ids: the height of the last block whose transactions are in.
pub(super) const INDEXED_HEIGHT: &[u8] = b"indexed_height";
/// Bytes of a position, which is also the key of a piece of the state.
pub(super) const POSITION_BYTES: usize = 12;

/// In `meta`: the layout.
pub(super) const META_SCHEMA: &[u8] = b"schema";
/// In `meta`: the genesis hash.
pub(super) const META_GENESIS: &[u8] = b"genesis";
/// In `meta`: the chain id.
pub(super) const META_CHAIN_ID: &[u8] = b"chain_id";
/// In `meta`: what the node keeps under names of its own begins so.
const META_USER: &[u8] = b"user/";

const INDEX_BLOCK: u8 = b'b';
const INDEX_TASK: u8 = b'k';

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    State,
    Checkpoint,
    Diff,
    Header,
    Body,
    Receipts,
    Certificate,
    Index,
    Transactions,
    Undecided,
    Blob,
    Meta,
}

impl Family {
    pub(super) const ALL: [Self; 12] = [
        Self::State,
        Self::Checkpoint,
        Self::Diff,
        Self::Header,
        Self::Body,
        Self::Receipts,
        Self::Certificate,
        Self::Index,
        Self::Transactions,
        Self::Undecided,
        Self::Blob,
        Self::Meta,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Checkpoint => "checkpoint",
            Self::Diff => "diff",
            Self::Header => "header",
            Self::Body => "body",
            Self::Receipts => "receipts",
            Self::Certificate => "certificate",
            Self::Index => "index",
            Self::Transactions => "transactions",
            Self::Undecided => "undecided",
            Self::Blob => "blob",
            Self::Meta => "meta",
        }
    }
}

pub(super) fn height_key(height: Height) -> [u8; 8] {
    height.get().to_be_bytes()
}

pub(super) fn parse_height(bytes: &[u8]) -> Option<Height> {
    bytes
        .try_into()
        .ok()
        .map(u64::from_be_bytes)
        .map(Height::new)
}

pub(super) fn position_bytes((height, index): Position) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    bytes[..8].copy_from_slice(&height_key(height));
    bytes[8..].copy_from_slice(&index.to_be_bytes());
    bytes
}

pub(super) fn parse_position(bytes: &[u8]) -> Option<Position> {
    let (height, index) = bytes.split_at_checked(8)?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    Some((parse_height(height)?, index))
}

pub(super) fn piece_key(height: Height, number: u32) -> [u8; POSITION_BYTES] {
    position_bytes((height, number))
}

pub(super) fn parse_hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok().map(Hash::new)
}

pub(super) fn block_index(block: &Hash) -> Vec<u8> {
    tagged(INDEX_BLOCK, &[block.as_ref()])
}

/// Where all tasks stand, in the order of their submission.
pub(super) fn tasks_prefix() -> Vec<u8> {
    vec![INDEX_TASK]
}

/// A position under the prefix above.
pub(super) fn under(mut prefix: Vec<u8>, position: Position) -> Vec<u8> {
    prefix.extend_from_slice(&position_bytes(position));
    prefix
}

pub(super) fn undecided_key(height: Height, round: Round, block: &Hash) -> Vec<u8> {
    let mut key = height_key(height).to_vec();
    key.extend_from_slice(&round.get().to_be_bytes());
    key.extend_from_slice(block.as_ref());
    key
}

pub(super) fn parse_undecided(key: &[u8]) -> Option<(Height, Round, Hash)> {
    let (position, block) = key.split_at_checked(12)?;
    let (height, round) = parse_position(position)?;
    Some((height, Round::new(round), parse_hash(block)?))
}

pub(super) fn user_meta(name: &str) -> Vec<u8> {
    let mut key = META_USER.to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tag];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::{Height, Round};

    use super::{parse_position, parse_undecided, position_bytes, undecided_key};

    #[test]
    fn positions_sort_as_their_keys_and_come_back() {
        let positions = [(1, 0), (1, 255), (1, 256), (2, 0), (256, 1), (u64::MAX, 9)];
        let keys: Vec<_> = positions
            .iter()
            .map(|(height, index)| position_bytes((Height::new(*height), *index)))
            .collect();
        assert!(keys.is_sorted());
        for (key, (height, index)) in keys.iter().zip(positions) {
            assert_eq!(parse_position(key), Some((Height::new(height), index)));
        }
        assert_eq!(parse_position(&keys[0][..11]), None);
    }

    #[test]
    fn undecided_keys_come_back() {
        let block = Hash::of("test", &[]);
        let key = undecided_key(Height::new(7), Round::new(3), &block);
        assert_eq!(
            parse_undecided(&key),
            Some((Height::new(7), Round::new(3), block))
        );
        assert_eq!(parse_undecided(&key[1..]), None);
    }
}
