//! Quantities with a type of their own: a height is never a nonce, an amount is never a gas.
//!
//! On the wire each is its fixed-width integer; in JSON the 64-bit ones are decimal strings
//! (protocol §1). There is no `From<u64>`: the conversion is written where it happens.

use core::fmt;
use core::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One MILL in grain, the native unit.
pub const GRAIN_PER_MILL: u64 = 1_000_000_000;

/// Total supply stays below this many grain, so that sums of balances never overflow.
pub const SUPPLY_MAX: u64 = 1 << 63;

macro_rules! unit64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The zero of this quantity.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw value.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The raw value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The value plus `count`, or `None` on overflow.
            #[must_use]
            pub const fn checked_plus(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The value plus `count`, held at the largest value.
            #[must_use]
            pub const fn saturating_plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(&self.0)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    decimal(&text).map(Self).ok_or_else(|| {
                        D::Error::custom(format!(
                            "`{text}` is not a decimal 64-bit integer in a string"
                        ))
                    })
                } else {
                    u64::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

/// Parses canonical decimal text: digits only, no sign, no leading zero, at most 64 bits.
fn decimal(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

unit64!(
    /// A block's position; the first block has height 1, genesis is 0.
    Height
);
unit64!(
    /// Value in grain.
    Amount
);
unit64!(
    /// Deterministic work units of the machine (protocol §6.1).
    Gas
);
unit64!(
    /// Count of transactions an account has had included.
    Nonce
);
unit64!(
    /// Voting power, in whole MILL.
    Weight
);

macro_rules! unit32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(u32);

        impl $name {
            /// Wraps a raw value.
            #[must_use]
            pub const fn new(value: u32) -> Self {
                Self(value)
            }

            /// The raw value.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit32!(
    /// A round of consensus within a height, from 0.
    Round
);
unit32!(
    /// Version of the rules that a block follows (protocol §7).
    ProtocolVersion
);
unit32!(
    /// Version of the machine: what a program is, what it costs and what it gives (protocol §6.1).
    MachineVersion
);

impl Height {
    /// The height after this one.
    ///
    /// # Panics
    /// Never in practice: the chain would need 2^64 blocks.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.checked_plus(1) {
            Some(next) => next,
            None => panic!("a chain of 2^64 blocks cannot exist"),
        }
    }

    /// The height before this one, `None` before genesis.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Blocks from `earlier` to this height, zero when it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Amount {
    /// The sum, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        self.checked_plus(other.0)
    }

    /// The difference, or `None` when `other` is larger.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The product with a count, or `None` on overflow.
    #[must_use]
    pub const fn checked_mul(self, count: u64) -> Option<Self> {
        match self.0.checked_mul(count) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The amount as text in MILL with up to nine decimals, for people.
    #[must_use]
    pub fn in_mill(self) -> String {
        let whole = self.0.checked_div(GRAIN_PER_MILL).unwrap_or_default();
        let part = self.0.checked_rem(GRAIN_PER_MILL).unwrap_or_default();
        if part == 0 {
            return format!("{whole} MILL");
        }
        let digits = format!("{part:09}");
        format!("{whole}.{} MILL", digits.trim_end_matches('0'))
    }
}

impl Nonce {
    /// The nonce after this one, `None` at the end of the range.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        self.checked_plus(1)
    }
}
