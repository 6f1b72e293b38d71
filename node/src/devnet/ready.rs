//! What processes say when they are ready, and what the devnet says when all of them are.

use std::path::PathBuf;

use proofmill_chain::types::hash::{AccountId, Hash};
use serde::{Deserialize, Serialize};

/// The content of a node's ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReady {
    /// Where its JSON-RPC server answers, as `http://127.0.0.1:26650/rpc`.
    pub rpc: String,
    /// Where its gossip listens.
    pub gossip: String,
    /// Where its consensus listens.
    pub consensus: String,
    /// Its process.
    pub pid: u32,
}

/// The content of a devnet's ready file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Its directory.
    pub home: PathBuf,
    /// The chain's name.
    pub chain_id: String,
    /// The chain's identity.
    pub genesis_hash: Hash,
    /// The validators, `node0` first.
    pub validators: Vec<ValidatorReady>,
    /// The workers, `worker0` first.
    pub workers: Vec<WorkerReady>,
    /// Who has money to give away.
    pub faucet: FaucetReady,
    /// Accounts with money, `dev0` first.
    pub accounts: Vec<AccountReady>,
    /// The devnet's own process.
    pub pid: u32,
}

/// A validator that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorReady {
    /// Its name.
    pub name: String,
    /// Where its JSON-RPC server answers.
    pub rpc: String,
    /// Its process.
    pub pid: u32,
    /// Its home.
    pub home: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// How it ended, when it has ended since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A worker that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReady {
    /// Its name.
    pub name: String,
    /// Its key.
    pub account: AccountId,
    /// Its process.
    pub pid: u32,
    /// Its home.
    pub home: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// The account that has money to give away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaucetReady {
    /// The account.
    pub account: AccountId,
}

/// An account with money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountReady {
    /// Its name.
    pub name: String,
    /// The account.
    pub account: AccountId,
}
