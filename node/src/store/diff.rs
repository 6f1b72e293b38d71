//! A block's changes to the state as one record.

use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::state::overlay::{Write, WriteSet};
use proofmill_chain::types::hash::{Blob, Hash};
use serde::{Deserialize, Serialize, Serializer};

/// Largest diff that is read back: old and new of everything that a block can touch.
const DIFF_BYTES_MAX: usize = 256 << 20;

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[derive(Serialize)]
struct Borrowed<'a> {
    key: Hash,
    old: Option<Bytes<'a>>,
    new: Option<Bytes<'a>>,
}

#[derive(Deserialize)]
struct Owned {
    key: Hash,
    old: Option<Blob>,
    new: Option<Blob>,
}

pub(super) fn encode(writes: &WriteSet) -> Vec<u8> {
    let entries: Vec<_> = writes
        .writes
        .iter()
        .map(|write| Borrowed {
            key: write.key,
            old: write.old.as_deref().map(Bytes),
            new: write.new.as_deref().map(Bytes),
        })
        .collect();
    codec::encode(&entries)
}

pub(super) fn decode(bytes: &[u8]) -> Result<WriteSet, DecodeError> {
    let entries = codec::decode::<Vec<Owned>, DIFF_BYTES_MAX>(bytes)?;
    let writes = entries
        .into_iter()
        .map(|entry| Write {
            key: entry.key,
            old: entry.old.map(|bytes| bytes.into_bytes().into()),
            new: entry.new.map(|bytes| bytes.into_bytes().into()),
        })
        .collect();
    Ok(WriteSet { writes })
}
