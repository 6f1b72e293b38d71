//! The announcements whose signature was verified: who announced what, by height and round.
//!
//! They bound what one validator may announce, spare the second verification of a repeated
//! announcement, remember which of them their own block contradicts, and show that a height has begun,
//! so that the wait for work before it ends early.
//!
//! # When the wait ends early
//!
//! The wait before height h ends early when
//!
//! - the proposer of (h, round 0) has announced its block for that turn, or
//! - validators with more than a third of the power have announced blocks of h or later heights.
//!
//! Without the first part every idle interval would be as long as that of the slowest node. It
//! gives a validator nothing that it lacks: its own turn at round 0 begins when it says so, and its
//! share of such turns is its share of the power. Later rounds do not count alone: within ten
//! rounds almost every validator has a turn at every height, so one validator could end every
//! wait. The second part lets a node that waits join others whose round-0 proposer is dead: more
//! than a third of the power includes an honest validator, and that one began h by its own wait.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use super::part::Announcement;

/// Different announcements by one proposer in one round: two already prove its fault.
pub const ANNOUNCEMENTS_PER_TURN_MAX: usize = 2;
/// Different announcements by one validator for a height whose proposers are not known yet.
pub const ANNOUNCEMENTS_AHEAD_MAX: usize = 2;

/// An announcement that was verified.
struct Known {
    round: Round,
    stream: Hash,
    signature: Signature,
    /// Whether the bytes that it commits to are not the block that it names.
    refuted: bool,
}

/// Announcements of one validator at one height.
type OfValidator = Vec<Known>;

/// The verified announcements. Their number is bounded by validators times the heights and rounds that
/// are collected ahead.
#[derive(Default)]
pub(super) struct Announced {
    heights: BTreeMap<Height, BTreeMap<AccountId, OfValidator>>,
}

impl Announced {
    fn of(&self, announcement: &Announcement) -> &[Known] {
        self.heights
            .get(&announcement.height)
            .and_then(|of_height| of_height.get(&announcement.proposer))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether this announcement was verified with this signature before.
    pub(super) fn contains(&self, announcement: &Announcement, signature: &Signature) -> bool {
        let stream = announcement.stream();
        let mut known = self.of(announcement).iter();
        known.any(|known| known.stream == stream && known.signature == *signature)
    }

    /// Whether this announcement was refuted.
    pub(super) fn is_refuted(&self, announcement: &Announcement) -> bool {
        let stream = announcement.stream();
        let mut known = self.of(announcement).iter();
        known.any(|known| known.stream == stream && known.refuted)
    }

    /// Records that a verified announcement is contradicted by what it commits to.
    pub(super) fn refute(&mut self, announcement: &Announcement) {
        let stream = announcement.stream();
        let of_height = self.heights.get_mut(&announcement.height);
        let known = of_height.and_then(|of_height| of_height.get_mut(&announcement.proposer));
        for known in known.into_iter().flatten() {
            known.refuted |= known.stream == stream;
        }
    }

    /// Whether its proposer may announce one more; `turn_known` when the height's proposers are.
    pub(super) fn has_room(&self, announcement: &Announcement, turn_known: bool) -> bool {
        let stream = announcement.stream();
        let others = self.of(announcement).iter();
        let others = others.filter(|known| known.stream != stream);
        if turn_known {
            let in_turn = others.filter(|known| known.round == announcement.round);
            in_turn.count() < ANNOUNCEMENTS_PER_TURN_MAX
        } else {
            others.count() < ANNOUNCEMENTS_AHEAD_MAX
        }
    }

    /// Records a verified announcement.
    pub(super) fn record(&mut self, announcement: &Announcement, signature: Signature) {
        let stream = announcement.stream();
        let of_height = self.heights.entry(announcement.height).or_default();
        let known = of_height.entry(announcement.proposer).or_default();
        if !known.iter().any(|old| old.stream == stream) {
            known.push(Known {
                round: announcement.round,
                stream,
                signature,
                refuted: false,
            });
        }
    }

    /// Whether a height has begun elsewhere, by its validators.
    pub(super) fn has_begun(&self, height: Height, validators: &ValidatorSet) -> bool {
        let first = validators.proposer(height, Round::default()).key;
        let first_turn = self.heights.get(&height).and_then(|of| of.get(&first));
        let mut first_turn = first_turn.into_iter().flatten();
        if first_turn.any(|known| known.round == Round::default()) {
            return true;
        }
        let later: BTreeSet<&AccountId> = self
            .heights
            .range(height..)
            .flat_map(|(_, announcers)| announcers.keys())
            .collect();
        let known = later.into_iter().filter_map(|key| validators.by_key(key));
        let power: u128 = known
            .map(|validator| u128::from(validator.power.get()))
            .sum();
        power * 3 > u128::from(validators.total_power().get())
    }

    /// Forgets the heights up to one that is committed.
    pub(super) fn prune(&mut self, committed: Height) {
        self.heights.retain(|height, _| *height > committed);
    }
}
