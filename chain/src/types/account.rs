//! Accounts.

use serde::{Deserialize, Serialize};

use crate::types::units::{Amount, Nonce};

/// What the state keeps of an account. An account that was never credited does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Grain that the account may spend.
    pub balance: Amount,
    /// How many of its transactions are in the chain; its next transaction carries this number.
    pub nonce: Nonce,
}
