//! Workers: bonded devices that compute (protocol §6.3).

use serde::{Deserialize, Serialize};

use crate::types::hash::AccountId;
use crate::types::units::{Amount, Gas, Height};

/// Most tags a worker or a task's requirements may have.
pub const TAGS_MAX: usize = 16;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 32;

/// What a worker offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerTerms {
    /// The least it asks, in grain per million gas.
    pub price_per_mgas: Amount,
    /// The largest gas limit it takes.
    pub gas_limit_max: Gas,
    /// The most memory it gives, in pages of 64 KiB.
    pub memory_pages_max: u32,
    /// What it can do, sorted, without repetition.
    pub tags: Vec<String>,
    /// Whether it may be drawn.
    pub active: bool,
}

/// What the chain has seen of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reputation {
    /// Seats whose result was accepted.
    pub accepted: u32,
    /// Seats in tasks that ended without agreement.
    pub disputed: u32,
    /// Seats that were not committed or not revealed in time.
    pub missed: u32,
    /// Gas of accepted results.
    pub gas_served: Gas,
}

/// What the state keeps of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its key.
    pub id: AccountId,
    /// The account that put up the collateral and is paid.
    pub operator: AccountId,
    /// What it offers.
    pub terms: WorkerTerms,
    /// All its collateral, in grain.
    pub collateral: Amount,
    /// The part of the collateral that seats hold.
    pub locked: Amount,
    /// How many seats it holds now.
    pub seats: u32,
    /// When it was registered.
    pub registered_at: Height,
    /// Whether it leaves when its last seat is given back.
    pub retiring: bool,
    /// What the chain has seen of it.
    pub reputation: Reputation,
}

impl Worker {
    /// Collateral that no seat holds.
    #[must_use]
    pub fn free_collateral(&self) -> Amount {
        self.collateral
            .checked_sub(self.locked)
            .unwrap_or(Amount::ZERO)
    }
}
