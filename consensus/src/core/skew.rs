//! How far this machine's clock is from those of the other validators, by the times in the headers
//! of the blocks that they have just built.
//!
//! A block's time is compared with this process's uptime, which does not jump, so that a clock that
//! is set right is seen to be right at once. A sample is late by the way of the block; the
//! earliest of a validator's last few counts. The figure is the median by power, this node counted
//! with its own clock, and there is none until more than two thirds of the power is known: less
//! than a third of the power cannot move it out of the range of honest clocks.

use std::collections::{BTreeMap, VecDeque};

use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Weight;
use proofmill_chain::types::validator::ValidatorSet;

use super::api::Now;

/// Samples kept of one validator.
const SAMPLES_PER_VALIDATOR_MAX: usize = 8;
/// A sample older than this does not count.
const SAMPLE_AGE_MS_MAX: u64 = 300_000;

#[derive(Clone, Copy)]
struct Sample {
    /// The block's time less our uptime when it came.
    clock_at_start_ms: i128,
    at_ms: u64,
}

/// The other validators' clocks.
#[derive(Default)]
pub(super) struct Clocks {
    samples: BTreeMap<AccountId, VecDeque<Sample>>,
}

impl Clocks {
    /// Records the time of a block that its proposer has just built.
    pub(super) fn record(&mut self, proposer: AccountId, time_ms: u64, now: Now) {
        let samples = self.samples.entry(proposer).or_default();
        if samples.len() == SAMPLES_PER_VALIDATOR_MAX {
            samples.pop_front();
        }
        samples.push_back(Sample {
            clock_at_start_ms: i128::from(time_ms) - i128::from(now.uptime_ms),
            at_ms: now.uptime_ms,
        });
    }

    /// Forgets those who are no validators any more.
    pub(super) fn retain(&mut self, validators: &ValidatorSet) {
        self.samples
            .retain(|key, _| validators.by_key(key).is_some());
    }

    /// What the validators' clocks say, less our own clock, milliseconds: positive when ours is
    /// behind.
    pub(super) fn ahead_of_us_ms(
        &self,
        me: &AccountId,
        validators: &ValidatorSet,
        now: Now,
    ) -> Option<i64> {
        let ours = i128::from(now.clock_ms) - i128::from(now.uptime_ms);
        let mut known: Vec<(i128, u64)> = Vec::new();
        for validator in validators.as_slice() {
            let clock = if validator.key == *me {
                Some(ours)
            } else {
                self.earliest(&validator.key, now)
            };
            known.extend(clock.map(|clock| (clock - ours, validator.power.get())));
        }
        let power = known.iter().map(|(_, power)| *power).sum();
        if !validators.is_quorum(Weight::new(power)) {
            return None;
        }
        known.sort_unstable();
        let mut below = 0_u64;
        let median = known.into_iter().find(|(_, of_one)| {
            below += of_one;
            below.saturating_mul(2) >= power
        });
        median.and_then(|(ahead, _)| i64::try_from(ahead).ok())
    }

    fn earliest(&self, validator: &AccountId, now: Now) -> Option<i128> {
        let samples = self.samples.get(validator)?.iter();
        let recent = samples
            .filter(|sample| now.uptime_ms.saturating_sub(sample.at_ms) <= SAMPLE_AGE_MS_MAX);
        recent.map(|sample| sample.clock_at_start_ms).max()
    }
}
