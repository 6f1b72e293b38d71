//! Transactions whose rules and signatures this node has verified already.

use std::sync::{Mutex, PoisonError};

use crate::types::hash::Hash;

/// Transactions that are remembered unless another number is asked for.
pub const SEEN_MAX: usize = 1 << 17;
/// Transactions in one group: the newest take the places of the oldest.
const GROUP: usize = 8;

/// Transactions that passed every rule that needs no state, and whose signatures verified.
///
/// A transaction is named by the hash of its whole encoding, signatures included
/// ([`merkle::leaf_hash`](crate::merkle::leaf_hash)), never by its id, which no signature changes.
/// What is forgotten is verified again; nothing here decides what is valid. The memory is fixed: 32
/// bytes for each transaction that may be remembered.
pub struct SeenTransactions {
    groups: Vec<Mutex<Group>>,
    /// Chooses a transaction's group; odd and unknown to who makes transactions, so that nobody can
    /// crowd one group.
    key: u64,
}

#[derive(Clone, Copy)]
struct Group {
    names: [Hash; GROUP],
    next: usize,
}

impl SeenTransactions {
    /// Remembers at least `most` transactions; `secret` is random to everybody else.
    #[must_use]
    pub fn new(most: usize, secret: u64) -> Self {
        let empty = Group {
            names: [Hash::ZERO; GROUP],
            next: 0,
        };
        let groups = most.div_ceil(GROUP).max(1);
        Self {
            groups: (0..groups).map(|_| Mutex::new(empty)).collect(),
            key: secret | 1,
        }
    }

    /// Remembers a transaction by the hash of its encoding.
    pub fn insert(&self, name: &Hash) {
        let Some(group) = self.group(name) else {
            return;
        };
        let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
        if group.names.contains(name) {
            return;
        }
        let next = group.next;
        if let Some(place) = group.names.get_mut(next) {
            *place = *name;
        }
        group.next = next.wrapping_add(1) % GROUP;
    }

    /// Whether a transaction is remembered.
    #[must_use]
    pub fn contains(&self, name: &Hash) -> bool {
        self.group(name).is_some_and(|group| {
            let group = group.lock().unwrap_or_else(PoisonError::into_inner);
            group.names.contains(name)
        })
    }

    fn group(&self, name: &Hash) -> Option<&Mutex<Group>> {
        let [a, b, c, d, e, f, g, h, ..] = *name.as_bytes();
        let mixed = u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(self.key);
        let groups = u64::try_from(self.groups.len()).unwrap_or(u64::MAX);
        let at = (u128::from(mixed).wrapping_mul(u128::from(groups))) >> 64_u32;
        self.groups.get(usize::try_from(at).unwrap_or_default())
    }
}

impl core::fmt::Debug for SeenTransactions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SeenTransactions in {} groups", self.groups.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUP, SeenTransactions};
    use crate::types::hash::Hash;

    fn name(number: u32) -> Hash {
        Hash::of("test", &[&number.to_le_bytes()])
    }

    #[test]
    fn the_newest_are_remembered_and_the_memory_is_bounded() {
        let seen = SeenTransactions::new(GROUP, 0x9e37_79b9_7f4a_7c15);
        assert!(!seen.contains(&name(0)));
        for number in 0..100 {
            seen.insert(&name(number));
            seen.insert(&name(number));
            assert!(seen.contains(&name(number)));
        }
        let remembered = (0..100).filter(|number| seen.contains(&name(*number)));
        let first = 100 - u32::try_from(GROUP).expect("a group is small");
        assert!(remembered.eq(first..100));
    }

    #[test]
    fn transactions_spread_over_the_groups() {
        let seen = SeenTransactions::new(1 << 12, 0x9e37_79b9_7f4a_7c15);
        (0..1 << 11).for_each(|number| seen.insert(&name(number)));
        let kept = (0..1 << 11).filter(|number| seen.contains(&name(*number)));
        assert!(kept.count() > 2000, "half full, so few are crowded out");
    }
}
