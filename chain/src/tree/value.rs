//! What a leaf holds of its value: all of it if it is short, else its hash.

use super::hash::{short_value_hash, value_hash};
use crate::types::hash::Hash;

/// Longest value, in bytes, that a leaf holds itself. An encoded account has 20.
pub const INLINE_MAX: usize = Hash::LEN - 1;

/// What becomes of a key: its value, or `None` when it is deleted.
pub type Change = (Hash, Option<LeafValue>);

/// A value as a leaf holds it. Equal for equal values, and else different.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LeafValue {
    /// The hash of a long value; a short value, zeros, and its length in the last byte.
    payload: [u8; Hash::LEN],
    inline: bool,
}

/// What the tree knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// It has no value.
    Absent,
    /// Its value, of at most [`INLINE_MAX`] bytes.
    Inline(&'a [u8]),
    /// SHA-256 of its value, which is longer than [`INLINE_MAX`] and kept elsewhere.
    Elsewhere(Hash),
}

impl LeafValue {
    /// What a leaf holds of these bytes: up to [`INLINE_MAX`] of them, else their hash, which is
    /// computed here and now.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        match u8::try_from(value.len()) {
            Ok(len) if value.len() <= INLINE_MAX => {
                let mut payload = [0; Hash::LEN];
                payload[..value.len()].copy_from_slice(value);
                payload[INLINE_MAX] = len;
                Self {
                    payload,
                    inline: true,
                }
            }
            _ => Self {
                payload: *value_hash(value).as_bytes(),
                inline: false,
            },
        }
    }

    /// What a leaf holds of a value longer than [`INLINE_MAX`] with this SHA-256.
    #[must_use]
    pub const fn elsewhere(hash: Hash) -> Self {
        Self {
            payload: *hash.as_bytes(),
            inline: false,
        }
    }

    /// SHA-256 of the value (protocol §4): known for a long one, computed for a short one.
    #[must_use]
    pub fn hash(&self) -> Hash {
        if !self.inline {
            return Hash::new(self.payload);
        }
        let [value @ .., len] = &self.payload;
        short_value_hash(value, *len)
    }

    /// The value as a read of its leaf gives it.
    #[must_use]
    pub fn lookup(&self) -> Lookup<'_> {
        lookup(&self.payload, self.inline)
    }

    pub(super) const fn payload(&self) -> &[u8; Hash::LEN] {
        &self.payload
    }

    pub(super) const fn is_inline(&self) -> bool {
        self.inline
    }

    /// What a leaf holds, read back.
    pub(super) const fn from_payload(payload: [u8; Hash::LEN], inline: bool) -> Self {
        Self { payload, inline }
    }
}

impl core::fmt::Debug for LeafValue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.lookup().fmt(f)
    }
}

impl Lookup<'_> {
    /// SHA-256 of the value (protocol §4), `None` when there is none.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        match self {
            Self::Absent => None,
            Self::Inline(value) => Some(value_hash(value)),
            Self::Elsewhere(hash) => Some(*hash),
        }
    }
}

/// What a payload says of its value.
pub(super) fn lookup(payload: &[u8; Hash::LEN], inline: bool) -> Lookup<'_> {
    if !inline {
        return Lookup::Elsewhere(Hash::new(*payload));
    }
    let len = usize::from(payload[INLINE_MAX]).min(INLINE_MAX);
    Lookup::Inline(&payload[..len])
}
