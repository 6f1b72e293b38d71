//! The node itself, accounts, workers and validators, as callers see them.

use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Amount, Height, Nonce, ProtocolVersion, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::Worker;
use serde::{Deserialize, Serialize};

/// Where the chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadView {
    /// The last final block's height.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
    /// Its time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The program's version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The chain's name as CAIP-2.
    pub chain_id: String,
    /// The chain's identity.
    pub genesis_hash: Hash,
    /// The protocol version of the next block, as far as the node knows it.
    pub protocol_version: ProtocolVersion,
    /// Names the node's list of upgrades: nodes that differ will part at some height.
    pub upgrades_hash: Hash,
    /// Peers that say they have another list.
    pub peers_with_other_upgrades: u32,
    /// The node's own name.
    pub moniker: String,
    /// Its consensus key, when it is a validator.
    pub validator: Option<AccountId>,
    /// Where its chain stands.
    pub head: HeadView,
    /// How many peers it is connected to.
    pub peers: u32,
    /// Whether it has caught up with its peers.
    pub synced: bool,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Whether the process works; when not, it should be restarted.
    pub live: bool,
    /// Whether it should be asked anything.
    pub ready: bool,
    /// Why it is not live or not ready; empty when it is both.
    pub reasons: Vec<String>,
    /// Milliseconds since the head's time.
    pub head_age_ms: u64,
    /// Milliseconds by which the machine's clock is ahead of the validators' clocks, by the times of
    /// their recent blocks; negative when it is behind, absent while too few are known.
    pub clock_skew_ms: Option<i64>,
}

/// An account. One that was never credited has nothing and nonce 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// The account.
    pub account: AccountId,
    /// The same as a decentralised identifier.
    pub did: String,
    /// Grain it may spend.
    pub balance: Amount,
    /// How many of its transactions are in the chain.
    pub nonce: Nonce,
    /// The nonce its next transaction carries, pending ones counted.
    pub next_nonce: Nonce,
}

impl AccountView {
    /// The view of an account's record.
    #[must_use]
    pub fn of(account: AccountId, record: &Account, next_nonce: Nonce) -> Self {
        Self {
            account,
            did: account.did(),
            balance: record.balance,
            nonce: record.nonce,
            next_nonce,
        }
    }
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// What the state keeps of it.
    #[serde(flatten)]
    pub worker: Worker,
    /// Collateral that no seat holds.
    pub free_collateral: Amount,
}

impl From<Worker> for WorkerView {
    fn from(worker: Worker) -> Self {
        let free_collateral = worker.free_collateral();
        Self {
            worker,
            free_collateral,
        }
    }
}

/// Workers by descending key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPage {
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// What to give as `before` for the next page; null on the last.
    pub next: Option<AccountId>,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorView {
    /// Its keys, its reward account and its power.
    #[serde(flatten)]
    pub validator: Validator,
    /// Its part of the whole power in ten-thousandths, rounded down.
    pub share: u32,
}

/// The validators that decide a height.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorsView {
    /// The height.
    pub height: Height,
    /// Hash of the set, as in headers.
    pub hash: Hash,
    /// The whole power.
    pub total_power: Weight,
    /// The validators, by power descending, then by key.
    pub validators: Vec<ValidatorView>,
}

impl ValidatorsView {
    /// The view of the set that decides `height`.
    #[must_use]
    pub fn of(height: Height, set: &ValidatorSet) -> Self {
        let total = set.total_power();
        let share = |power: Weight| {
            let parts = u128::from(power.get()) * 10_000;
            let share = parts.checked_div(u128::from(total.get()));
            share.and_then(|share| share.try_into().ok()).unwrap_or(0)
        };
        Self {
            height,
            hash: set.hash(),
            total_power: total,
            validators: set
                .as_slice()
                .iter()
                .map(|validator| ValidatorView {
                    validator: validator.clone(),
                    share: share(validator.power),
                })
                .collect(),
        }
    }
}
