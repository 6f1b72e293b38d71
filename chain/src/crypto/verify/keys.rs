//! Keys that were decompressed before: bounded, shared between threads, without influence on any
//! verdict.
//!
//! A table of sets of [`WAYS`] slots. A key belongs to one set, by a hash keyed with the node's
//! secret, so that nobody can choose keys that meet in one; a new key takes the place of the oldest
//! of its set. Sets are spread over shards, each behind a lock of its own that a chunk
//! takes once, and a shard takes its memory when its first key comes.
//!
//! A key costs 193 bytes with either backend's points, and a quarter of a byte for its set.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::BatchSecret;

/// Keys kept unless the node says otherwise: 25 MB.
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
    slots: Vec<([u8; 32], P)>,
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

    /// Which keys are known; their points, in their places. The other places stay as they are.
    pub(super) fn find(&self, keys: &[Hashed<'_>], points: &mut [P]) -> Vec<bool> {
        let mut known = vec![false; keys.len()];
        if self.sets == 0 {
            return known;
        }
        self.by_shard(keys, |shard, indices| {
            let shard = lock(shard);
            for index in indices {
                let key = keys[*index];
                let first = key.set(self.sets) * self.ways;
                if let Some(slot) = shard.slot(key, first, self.ways) {
                    points[*index] = shard.slots[slot].1;
                    known[*index] = true;
                }
            }
        });
        known
    }

    /// Remembers keys' points.
    pub(super) fn insert<'a>(&self, learnt: impl Iterator<Item = (Hashed<'a>, P)>) {
        if self.sets == 0 {
            return;
        }
        let (keys, points): (Vec<_>, Vec<_>) = learnt.unzip();
        self.by_shard(&keys, |shard, indices| {
            let mut shard = lock(shard);
            if shard.tags.is_empty() {
                *shard = Shard::new(self.sets, self.ways, self.filler);
            }
            for index in indices {
                let key = keys[*index];
                let first = key.set(self.sets) * self.ways;
                if shard.slot(key, first, self.ways).is_none() {
                    shard.replace(key, points[*index], first, self.ways);
                }
            }
        });
    }

    /// Goes through the shards that keys belong to, with the indices of their keys.
    fn by_shard(&self, keys: &[Hashed<'_>], mut visit: impl FnMut(&Mutex<Shard<P>>, &[usize])) {
        let shard_of = |key: &Hashed<'_>| key.shard(self.shards.len());
        let mut ends = vec![0; self.shards.len()];
        for key in keys {
            ends[shard_of(key)] += 1;
        }
        let mut end = 0;
        for place in &mut ends {
            end += *place;
            *place = end;
        }
        let mut order = vec![0; keys.len()];
        for (index, key) in keys.iter().enumerate().rev() {
            let place = &mut ends[shard_of(key)];
            *place -= 1;
            order[*place] = index;
        }
        // The ends have become starts.
        let ends = ends.iter().copied().skip(1).chain([keys.len()]);
        let mut start = 0;
        for (shard, end) in self.shards.iter().zip(ends) {
            if start < end {
                visit(shard, &order[start..end]);
            }
            start = end;
        }
    }
}

/// A slot is written tag last, so a thread that died left nothing half true.
fn lock<P>(shard: &Mutex<Shard<P>>) -> MutexGuard<'_, Shard<P>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Copy> Shard<P> {
    const fn empty() -> Self {
        Self {
            tags: Vec::new(),
            slots: Vec::new(),
            next: Vec::new(),
        }
    }

    fn new(sets: usize, ways: usize, filler: P) -> Self {
        let slots = sets * ways;
        Self {
            tags: vec![0; slots],
            slots: vec![([0; 32], filler); slots],
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
            .find(|slot| self.slots[*slot].0 == *key.key)
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
        self.slots[slot] = (*key.key, point);
        self.tags[slot] = key.tag();
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchSecret, KeyCache};

    fn find(cache: &KeyCache<u32>, number: u32) -> Option<u32> {
        let mut point = [u32::MAX];
        let known = cache.find(&[cache.hashed(&key(number))], &mut point) == [true];
        known.then_some(point[0])
    }

    fn insert(cache: &KeyCache<u32>, number: u32) {
        let key = key(number);
        cache.insert([(cache.hashed(&key), number)].into_iter());
    }

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
                assert_eq!(find(&cache, number), None);
                insert(&cache, number);
                assert_eq!(find(&cache, number), (limit > 0).then_some(number));
            }
            let known = (0..10_000)
                .filter(|number| {
                    let found = find(&cache, *number);
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
                insert(&cache, number);
            }
        }
        for number in 0..3 {
            assert_eq!(find(&cache, number), Some(number));
        }
    }
}
