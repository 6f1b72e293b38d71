//! Validators and their set.

use serde::{Deserialize, Serialize};

use crate::types::hash::{AccountId, Hash};
use crate::types::units::{Height, Round, Weight};

/// Most validators in a set.
pub const VALIDATORS_MAX: usize = 256;
/// Largest total power: three times it must not overflow (consensus adds thirds).
pub const POWER_MAX: u64 = 1 << 62;

/// A validator, as consensus sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// Its consensus key: signs votes and blocks and is its address.
    pub key: AccountId,
    /// Its beacon key (RFC 9381).
    pub beacon_key: AccountId,
    /// The account that tips and shares go to.
    pub reward: AccountId,
    /// Voting power.
    pub power: Weight,
}

/// The validators of a height, in one fixed order: power descending, then key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
}

/// Why validators do not make a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// There is none, or there are too many.
    #[error("{0} validators, from 1 to {VALIDATORS_MAX} are expected")]
    Count(usize),
    /// A key twice.
    #[error("validator {0} stands twice")]
    Twice(AccountId),
    /// No power.
    #[error("validator {0} has no power")]
    NoPower(AccountId),
    /// Total power too large.
    #[error("total power reaches {POWER_MAX}")]
    Power,
}

impl ValidatorSet {
    /// Brings validators into the set's order.
    ///
    /// # Errors
    /// When there are none or too many, when one stands twice or has no power, or when the total
    /// power reaches [`POWER_MAX`].
    pub fn new(mut validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        if validators.is_empty() || validators.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::Count(validators.len()));
        }
        validators.sort_by(|a, b| b.power.cmp(&a.power).then(a.key.cmp(&b.key)));
        let mut keys: Vec<_> = validators.iter().map(|validator| validator.key).collect();
        keys.sort_unstable();
        for pair in keys.windows(2) {
            if let [a, b] = pair
                && a == b
            {
                return Err(ValidatorSetError::Twice(*a));
            }
        }
        let mut total = 0_u64;
        for validator in &validators {
            if validator.power == Weight::ZERO {
                return Err(ValidatorSetError::NoPower(validator.key));
            }
            total = total
                .checked_add(validator.power.get())
                .filter(|sum| *sum < POWER_MAX)
                .ok_or(ValidatorSetError::Power)?;
        }
        Ok(Self { validators })
    }

    /// The validators in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Validator] {
        &self.validators
    }

    /// The validator with this consensus key.
    #[must_use]
    pub fn by_key(&self, key: &AccountId) -> Option<&Validator> {
        self.validators
            .iter()
            .find(|validator| validator.key == *key)
    }

    /// Sum of all powers.
    #[must_use]
    pub fn total_power(&self) -> Weight {
        Weight::new(self.validators.iter().fold(0, |sum, validator| {
            sum.saturating_add(validator.power.get())
        }))
    }

    /// Whether `power` is more than two thirds of the whole.
    #[must_use]
    pub fn is_quorum(&self, power: Weight) -> bool {
        u128::from(power.get()).saturating_mul(3)
            > u128::from(self.total_power().get()).saturating_mul(2)
    }

    /// The proposer of a height and round, in proportion to power.
    ///
    /// The point `(height + round) × 2^64/φ mod 2^64` walks the powers laid end to end: over any
    /// run of heights each validator's share of turns stays close to its share of power, and
    /// successive rounds fall on distant validators.
    ///
    /// # Panics
    /// Never: a set is never empty.
    #[must_use]
    pub fn proposer(&self, height: Height, round: Round) -> &Validator {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let turn = height.get().wrapping_add(u64::from(round.get()));
        let point = u128::from(turn.wrapping_mul(GOLDEN));
        let total = u128::from(self.total_power().get());
        let mut at = point.saturating_mul(total) >> 64;
        for validator in &self.validators {
            let power = u128::from(validator.power.get());
            match at.checked_sub(power) {
                Some(rest) => at = rest,
                None => return validator,
            }
        }
        self.validators
            .last()
            .expect("a set has at least one validator")
    }

    /// The hash that headers carry.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of("proofmill/validators/v1", &[&crate::codec::encode(self)])
    }
}
