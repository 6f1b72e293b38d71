//! What a block changes in the state, as one record: entries by ascending key.

use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::LeafValue;

use super::entry::{self, Entry};

/// Bytes of an account's entry: enough for most.
const USUAL_ENTRY_BYTES: usize = 56;

pub(super) fn encode(writes: &WriteSet) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(writes.writes.len().saturating_mul(USUAL_ENTRY_BYTES));
    for write in &writes.writes {
        let value = write.new.as_deref().map(LeafValue::of);
        entry::write(&write.key, value.as_ref(), &mut bytes);
    }
    bytes
}

/// `None` when the bytes are no diff.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    entry::read_all(bytes)
}
