//! Keys that were decompressed before: bounded, shared between threads, without influence on any
//! verdict.
//!
//! A table of sets of [`WAYS`] slots. A key belongs to one set, by a hash keyed with the node's
//! secret, so that nobody can choose keys that meet in one; a new key takes the place of the oldest
//! of its set. Sets are spread over shards, each behind a lock of its own that is held for one
//! look-up, and a shard takes its memory when its first key comes.
//!
//! A key costs its point, its 32 bytes and a tag of one: 161 bytes with the points of
//! [`Backend::Ifma`](super::Backend::Ifma), 193 with those of
//! [`Backend::Portable`](super::Backend::Portable).

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::BatchSecret;

/// Keys kept unless the node says otherwise: 21 or 25 MB.
pub const KEYS_CACHED_MAX: usize = 1 << 17;
/// Slots of a set.
const WAYS: usize = 4;
/// Most shards, and the keys for which one is worth while.
const SHARDS_MAX: usize = 64;
const SHARD_KEYS_MIN: usize = 64;

/// Keys and their points.
pub(super) struct KeyCache<P> {
    hasher: DefaultHasher,
    shards: Vec<Mutex<Shard<P>>>,
    /// Sets of a shard.
    sets: usize,
    /// Slots of a set.
    ways: usize,
    /// What fills empty slots.
    filler: P,
}

/// A key with its hash, which is computed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed<'a> {
    pub(super) key: &'a [u8; 32],
    pub(super) hash: u64,
}

impl Hashed<'_> {
    /// Thirty-two bits that a table of one's own may use.
    pub(super) const fn low(&self) -> usize {
        let [a, b, c, d, ..] = self.hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) as usize
    }

    /// A shard of so many, by bits that nothing else uses.
    const fn shard(&self, shards: usize) -> usize {
        let [.., a, b] = self.hash.to_le_bytes();
        (u16::from_le_bytes([a, b]) as usize * shards) >> 16
    }

    /// A set of so many, by bits of which the tag is none.
    const fn set(&self, sets: usize) -> usize {
        (self.low() * sets) >> 32
    }

    /// Never zero, which marks an empty slot.
    const fn tag(&self) -> u8 {
        let [_, _, _, _, tag, ..] = self.hash.to_le_bytes();
        tag | 1
    }
}

/// A part of the table; empty until its first key comes.
struct Shard<P> {
    tags: Vec<u8>,
    keys: Vec<[u8; 32]>,
    points: Vec<P>,
    /// By set: the slot that goes next.
    next: Vec<u8>,
}

impl<P: Copy> KeyCache<P> {
    /// Room for at most `keys_max` keys.
    pub(super) fn new(secret: &BatchSecret, keys_max: usize, filler: P) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(b"proofmill/key-cache/v1");
        hasher.write(&secret.0);
        let shards = (keys_max / SHARD_KEYS_MIN).clamp(1, SHARDS_MAX);
        let slots = keys_max / shards;
        let ways = slots.min(WAYS);
        Self {
            hasher,
            shards: (0..shards).map(|_| Mutex::new(Shard::empty())).collect(),
            sets: slots.checked_div(ways).unwrap_or(0),
            ways,
            filler,
        }
    }

    /// A key with its hash.
    pub(super) fn hashed<'a>(&self, key: &'a [u8; 32]) -> Hashed<'a> {
        let mut hasher = self.hasher.clone();
        hasher.write(key);
        Hashed {
            key,
            hash: hasher.finish(),
        }
    }

    /// The point of a key, `None` when it is not known.
    pub(super) fn find(&self, key: Hashed<'_>) -> Option<P> {
        let shard = self.shard(key)?;
        let slot = shard.slot(key, self.first(key), self.ways)?;
        shard.points.get(slot).copied()
    }

    /// Remembers a key's point.
    pub(super) fn insert(&self, key: Hashed<'_>, point: P) {
        let Some(mut shard) = self.shard(key) else {
            return;
        };
        let first = self.first(key);
        if shard.tags.is_empty() {
            *shard = Shard::new(self.sets, self.ways, self.filler);
        }
        if shard.slot(key, first, self.ways).is_none() {
            shard.replace(key, point, first, self.ways);
        }
    }

    /// The shard of a key, unless nothing is kept at all.
    fn shard(&self, key: Hashed<'_>) -> Option<MutexGuard<'_, Shard<P>>> {
        if self.sets == 0 {
            return None;
        }
        let shard = self.shards.get(key.shard(self.shards.len()))?;
        // A slot is written key last, so a thread that died left nothing half true.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first slot of a key's set.
    const fn first(&self, key: Hashed<'_>) -> usize {
        key.set(self.sets) * self.ways
    }
}

impl<P: Copy> Shard<P> {
    const fn empty() -> Self {
        Self {
            tags: Vec::new(),
            keys: Vec::new(),
            points: Vec::new(),
            next: Vec::new(),
        }
    }

    fn new(sets: usize, ways: usize, filler: P) -> Self {
        let slots = sets * ways;
        Self {
            tags: vec![0; slots],
            keys: vec![[0; 32]; slots],
            points: vec![filler; slots],
            next: vec![0; sets],
        }
    }

    fn slot(&self, key: Hashed<'_>, first: usize, ways: usize) -> Option<usize> {
        let tags = self.tags.get(first..first + ways)?;
        let tag = key.tag();
        (first..)
            .zip(tags)
            .filter(|(_, of_slot)| **of_slot == tag)
            .map(|(slot, _)| slot)
            .find(|slot| self.keys.get(*slot) == Some(key.key))
    }

    fn replace(&mut self, key: Hashed<'_>, point: P, first: usize, ways: usize) {
        let next = &mut self.next[first / ways];
        let slot = first + usize::from(*next);
        *next = if usize::from(*next) + 1 == ways {
            0
        } else {
            *next + 1
        };
        self.tags[slot] = 0;
        self.points[slot] = point;
        self.keys[slot] = *key.key;
        self.tags[slot] = key.tag();
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchSecret, KeyCache};

    fn key(number: u32) -> [u8; 32] {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn a_known_key_has_its_own_point_and_no_more_than_the_limit_are_known() {
        for limit in [0, 1, 2, 3, 4, 5, 63, 64, 129, 1000, 5000] {
            let cache = KeyCache::new(&BatchSecret::new([3; 32]), limit, u32::MAX);
            for number in 0..10_000 {
                let key = key(number);
                assert_eq!(cache.find(cache.hashed(&key)), None);
                cache.insert(cache.hashed(&key), number);
                if limit > 0 {
                    assert_eq!(cache.find(cache.hashed(&key)), Some(number));
                }
            }
            let known = (0..10_000)
                .filter(|number| {
                    let key = key(*number);
                    let found = cache.find(cache.hashed(&key));
                    assert!(found.is_none() || found == Some(*number));
                    found.is_some()
                })
                .count();
            assert!(known <= limit, "{known} of {limit}");
            assert!(known >= limit / 2, "{known} of {limit}");
        }
    }

    #[test]
    fn the_same_key_takes_one_slot() {
        let cache = KeyCache::new(&BatchSecret::new([3; 32]), 4, 0);
        for _ in 0..100 {
            for number in 0..3 {
                let key = key(number);
                cache.insert(cache.hashed(&key), number);
            }
        }
        for number in 0..3 {
            let key = key(number);
            assert_eq!(cache.find(cache.hashed(&key)), Some(number));
        }
    }
}
