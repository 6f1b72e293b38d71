//! Leaves of the state tree as bytes: what diffs and checkpoints are made of.
//!
//! An entry is a tree key, a mark, and what the mark says: the bytes of a short record, the SHA-256 of
//! a longer one, which is in `state`, or nothing for a record that is gone.

use proofmill_chain::tree::{LeafValue, Lookup};
use proofmill_chain::types::hash::Hash;

/// Mark of a record that is gone; smaller ones are lengths of short records.
const GONE: u8 = 0xff;
/// Mark of a long record.
const LONG: u8 = 0xfe;
/// Bytes of an entry at most.
pub(super) const ENTRY_BYTES_MAX: usize = 2 * Hash::LEN + 1;

/// What a key has, `None` when its record is gone.
pub(super) type Entry = (Hash, Option<LeafValue>);

/// Appends an entry.
pub(super) fn write(key: &Hash, value: Option<&LeafValue>, to: &mut Vec<u8>) {
    to.extend_from_slice(key.as_bytes());
    match value.map(LeafValue::lookup) {
        None | Some(Lookup::Absent) => to.push(GONE),
        Some(Lookup::Inline(bytes)) => {
            to.push(u8::try_from(bytes.len()).expect("a short record has at most 31 bytes"));
            to.extend_from_slice(bytes);
        }
        Some(Lookup::Elsewhere(hash)) => {
            to.push(LONG);
            to.extend_from_slice(hash.as_bytes());
        }
    }
}

/// All entries of some bytes, `None` when they are not entries by ascending key.
pub(super) fn read_all(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / (Hash::LEN + 1));
    while !bytes.is_empty() {
        let (key, rest) = bytes.split_first_chunk::<{ Hash::LEN }>()?;
        let (mark, rest) = rest.split_first()?;
        let key = Hash::new(*key);
        let (value, rest) = match *mark {
            GONE => (None, rest),
            LONG => {
                let (hash, rest) = rest.split_first_chunk::<{ Hash::LEN }>()?;
                (Some(LeafValue::elsewhere(Hash::new(*hash))), rest)
            }
            len => {
                let (value, rest) = rest.split_at_checked(usize::from(len))?;
                let value = LeafValue::of(value);
                if matches!(value.lookup(), Lookup::Elsewhere(_)) {
                    return None;
                }
                (Some(value), rest)
            }
        };
        if entries.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        entries.push((key, value));
        bytes = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proofmill_chain::tree::LeafValue;
    use proofmill_chain::types::hash::Hash;

    use super::{ENTRY_BYTES_MAX, Entry, read_all, write};

    fn entries() -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..70_u8)
            .map(|n| {
                let value = vec![n; usize::from(n) / 2];
                let value = (n % 5 != 0).then(|| LeafValue::of(&value));
                (Hash::of("entry", &[&[n]]), value)
            })
            .collect();
        entries.push((Hash::of("entry", &[b"long"]), Some(LeafValue::of(&[1; 99]))));
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    fn bytes(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in entries {
            let before = bytes.len();
            write(key, value.as_ref(), &mut bytes);
            assert!(bytes.len() - before <= ENTRY_BYTES_MAX);
        }
        bytes
    }

    #[test]
    fn entries_come_back() {
        let entries = entries();
        assert_eq!(read_all(&bytes(&entries)), Some(entries));
        assert_eq!(read_all(&[]), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_or_out_of_order_is_refused() {
        let entries = entries();
        let bytes = bytes(&entries);
        let ends: Vec<usize> = (0..=entries.len())
            .map(|some| self::bytes(&entries[..some]).len())
            .collect();
        for end in (0..bytes.len()).filter(|end| !ends.contains(end)) {
            assert_eq!(read_all(&bytes[..end]), None, "cut at {end}");
        }
        let twice = [&bytes[..ends[1]], &bytes[..ends[1]]].concat();
        assert_eq!(read_all(&twice), None);
        let mut descending = entries;
        descending.reverse();
        assert_eq!(read_all(&self::bytes(&descending)), None);
    }
}
