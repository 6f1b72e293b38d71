//! Which slots of the arena are taken.

use super::arena::{PAGE_BITS, PAGE_SLOTS, STEM};

/// Slots may be left out, to be taken later, while they are fewer than one in so many.
const LEFT_OUT: u32 = 64;

/// The slots of a tree's nodes.
#[derive(Clone, Default)]
pub(super) struct Slots {
    pub(super) leaves: Free,
    pub(super) forks: Free,
    /// Without the mark.
    stems: Free,
}

/// Slots of one kind that are free: those given back, and all from a number on.
#[derive(Clone, Default)]
pub(super) struct Free {
    given_back: Vec<u32>,
    next: u32,
}

impl Slots {
    /// Takes a slot for an inner node. There must be [`Self::room`].
    pub(super) fn take_inner(&mut self, stem: bool) -> u32 {
        if stem {
            self.stems.take() | STEM
        } else {
            self.forks.take()
        }
    }

    pub(super) fn give_back_inner(&mut self, slots: &[u32]) {
        for slot in slots {
            let kind = if slot & STEM == 0 {
                &mut self.forks
            } else {
                &mut self.stems
            };
            kind.given_back.push(slot & !STEM);
        }
    }

    pub(super) fn give_back_leaves(&mut self, slots: &[u32]) {
        self.leaves.given_back.extend_from_slice(slots);
    }

    /// How many slots of every kind can be taken, at least.
    pub(super) fn room(&self) -> usize {
        [&self.leaves, &self.forks, &self.stems]
            .into_iter()
            .map(Free::room)
            .min()
            .unwrap_or_default()
    }

    /// Begins a run of slots that were never taken: from now on the next leaf's and the next fork's
    /// have the same number. Those left out are taken later. Says no where they are too many, or
    /// half of all numbers are gone.
    pub(super) fn begin_run(&mut self) -> bool {
        let Self { leaves, forks, .. } = self;
        let most = leaves.next.max(forks.next);
        let left_out = |kind: &Free| kind.given_back.len() + (most - kind.next) as usize;
        let few = most.div_ceil(LEFT_OUT) as usize;
        if most > STEM / 2 || left_out(leaves) > few || left_out(forks) > few {
            return false;
        }
        for kind in [leaves, forks] {
            while kind.next < most {
                let slot = kind.take_next();
                kind.given_back.push(slot);
            }
        }
        true
    }

    /// Bytes of memory held.
    pub(super) const fn bytes(&self) -> usize {
        self.leaves.bytes() + self.forks.bytes() + self.stems.bytes()
    }
}

impl Free {
    /// Takes a slot: one that was given back, if there is any.
    pub(super) fn take(&mut self) -> u32 {
        self.given_back.pop().unwrap_or_else(|| self.take_next())
    }

    /// Takes the lowest slot that was never taken.
    pub(super) fn take_next(&mut self) -> u32 {
        let slot = self.next;
        self.next = if slot % (1 << PAGE_BITS) == PAGE_SLOTS - 1 {
            (slot / (1 << PAGE_BITS) + 1) << PAGE_BITS
        } else {
            slot + 1
        };
        slot
    }

    /// How many slots can be taken, at least.
    fn room(&self) -> usize {
        let pages = STEM.saturating_sub(self.next) >> PAGE_BITS;
        pages as usize * PAGE_SLOTS as usize
    }

    const fn bytes(&self) -> usize {
        self.given_back.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_SLOTS, STEM, Slots};

    #[test]
    fn a_page_has_as_many_slots_as_fit() {
        let mut slots = Slots::default();
        let taken: Vec<u32> = (0..2 * PAGE_SLOTS).map(|_| slots.leaves.take()).collect();
        let pages = [0..PAGE_SLOTS, 32..32 + PAGE_SLOTS];
        assert_eq!(taken, pages.into_iter().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn inner_slots_go_back_to_their_kind() {
        let mut slots = Slots::default();
        let stem = slots.take_inner(true);
        let fork = slots.take_inner(false);
        assert_eq!((stem, fork), (STEM, 0));
        slots.give_back_inner(&[stem, fork]);
        assert_eq!(slots.take_inner(false), fork);
        assert_eq!(slots.take_inner(true), stem);
    }

    #[test]
    fn a_run_begins_at_one_number_and_nothing_is_lost() {
        let mut slots = Slots::default();
        for _ in 0..1000 {
            slots.leaves.take();
            slots.forks.take();
        }
        let more: Vec<u32> = (0..10).map(|_| slots.leaves.take()).collect();
        assert!(slots.begin_run());
        assert_eq!(slots.leaves.next, slots.forks.next);
        let mut left_out: Vec<u32> = (0..10).map(|_| slots.forks.take()).collect();
        left_out.sort_unstable();
        assert_eq!(left_out, more, "the forks of these numbers were left out");
    }

    #[test]
    fn no_run_where_many_slots_would_be_left_out() {
        let mut slots = Slots::default();
        let taken: Vec<u32> = (0..1000).map(|_| slots.leaves.take()).collect();
        assert!(!slots.begin_run(), "forks are far behind");
        (0..1000).for_each(|_| {
            slots.forks.take();
        });
        assert!(slots.begin_run());
        slots.give_back_leaves(&taken[..20]);
        assert!(!slots.begin_run(), "many were given back");
    }
}
