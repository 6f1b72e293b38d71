//! The ledger's law: balances + collateral + escrows = genesis − burned + rewarded.

use crate::codec::DecodeError;
use crate::state::overlay::{SupplyChange, Write, WriteSet};
use crate::types::record::Record;

/// How the law is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SupplyError {
    /// A block made or lost grain.
    #[error(
        "the block changed what is held by {held} grain, burns and rewards account for {accounted}"
    )]
    Change {
        /// Change of balances, collateral and escrows.
        held: i128,
        /// Rewards less burns.
        accounted: i128,
    },
    /// The whole does not sum up.
    #[error("balances, collateral and escrows sum to {held} grain, expected {expected}")]
    Whole {
        /// What is there.
        held: u128,
        /// Genesis − burned + rewarded.
        expected: u128,
    },
    /// A record does not decode.
    #[error("a record is damaged: {0}")]
    Damaged(#[from] DecodeError),
    /// The chain's own record is missing.
    #[error("the chain's own record is missing")]
    NoChain,
}

impl SupplyChange {
    /// Checks the law: what is held changed by exactly what was rewarded less burned.
    ///
    /// # Errors
    /// When it did not.
    pub const fn check(self) -> Result<(), SupplyError> {
        let Self { held, accounted } = self;
        if held == accounted {
            Ok(())
        } else {
            Err(SupplyError::Change { held, accounted })
        }
    }
}

/// Checks a block's writes by their bytes alone; [`SupplyChange::check`] says the same of the records
/// that they were made from.
///
/// # Errors
/// When what is held did not change by what was rewarded less burned, or a record does not decode.
pub fn check_supply_change(writes: &WriteSet) -> Result<(), SupplyError> {
    let mut held = 0_i128;
    let mut accounted = 0_i128;
    for Write { old, new, .. } in &writes.writes {
        for (bytes, sign) in [(old, -1_i128), (new, 1)] {
            let Some(bytes) = bytes else { continue };
            let record = Record::decode(bytes)?;
            let signed = |value: i128| value.saturating_mul(sign);
            held = held.saturating_add(signed(i128::from(record.holds().get())));
            if let Record::Chain(chain) = &record {
                accounted = accounted.saturating_add(signed(chain.made()));
            }
        }
    }
    SupplyChange { held, accounted }.check()
}

/// Sums a whole state, given record by record; returns the grain it holds.
///
/// # Errors
/// When the sum is not genesis − burned + rewarded, or a record does not decode.
pub fn sum_supply<'a>(records: impl Iterator<Item = &'a [u8]>) -> Result<u128, SupplyError> {
    let mut held = 0_u128;
    let mut chain = None;
    for bytes in records {
        let record = Record::decode(bytes)?;
        held = held.saturating_add(u128::from(record.holds().get()));
        if let Record::Chain(found) = record {
            chain = Some(found);
        }
    }
    let chain = chain.ok_or(SupplyError::NoChain)?;
    let expected = u128::from(chain.genesis_supply.get())
        .saturating_add(u128::from(chain.rewarded.get()))
        .saturating_sub(u128::from(chain.burned.get()));
    if held == expected {
        Ok(held)
    } else {
        Err(SupplyError::Whole { held, expected })
    }
}
