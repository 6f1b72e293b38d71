//! The budget of memory for caches, and its parts.

/// Bytes of a decompressed key in the cache of keys.
const KEY_BYTES: usize = 194;
const MIB: usize = 1 << 20;

/// Memory for what may be read, written or verified again, all of it together.
///
/// | part | share |
/// |---|---|
/// | blocks that are not in the database's tables yet | 1/2 |
/// | parts of those tables that were read | 3/8 |
/// | decompressed public keys | 1/8 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    bytes: usize,
}

impl Caches {
    /// A budget of so many MiB.
    #[must_use]
    pub fn of_mib(mib: u64) -> Self {
        let mib = usize::try_from(mib).unwrap_or(usize::MAX);
        Self {
            bytes: mib.saturating_mul(MIB),
        }
    }

    /// All of it, bytes.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.bytes as u64
    }

    /// For what is written and not in tables yet, all column families together, bytes.
    #[must_use]
    pub const fn write_buffers(self) -> usize {
        self.bytes / 2
    }

    /// For parts of tables, bytes.
    #[must_use]
    pub const fn tables(self) -> usize {
        self.bytes / 8 * 3
    }

    /// How many decompressed keys are kept.
    #[must_use]
    pub const fn keys(self) -> usize {
        self.bytes / 8 / KEY_BYTES
    }
}

impl Default for Caches {
    fn default() -> Self {
        Self::of_mib(super::Memory::default().caches_mib)
    }
}

#[cfg(test)]
mod tests {
    use super::{Caches, KEY_BYTES};

    #[test]
    fn the_parts_are_the_whole() {
        for mib in [32, 256, 1_000, u64::MAX] {
            let caches = Caches::of_mib(mib);
            let keys = caches.keys() * KEY_BYTES;
            let parts = caches.write_buffers() + caches.tables() + keys;
            assert!(parts as u64 <= caches.total(), "{mib}");
            assert!(
                caches.total() - parts as u64 <= KEY_BYTES as u64 + 32,
                "{mib}"
            );
        }
        assert_eq!(Caches::default(), Caches::of_mib(256));
    }
}
