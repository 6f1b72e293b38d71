//! What the state holds: one record per key (protocol §4, "State commitment").

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::types::account::Account;
use crate::types::hash::{AccountId, Hash};
use crate::types::task::Task;
use crate::types::units::{Amount, Height, MachineVersion};
use crate::types::validator::ValidatorSet;
use crate::types::worker::Worker;

/// Largest encoded record.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKey {
    /// An account.
    Account(AccountId),
    /// A worker.
    Worker(AccountId),
    /// A program.
    Program(Hash),
    /// A task.
    Task(Hash),
    /// The list of workers.
    Workers,
    /// The tasks that are not over.
    LiveTasks,
    /// The chain's own figures.
    Chain,
    /// The validator set.
    Validators,
}

/// What an account's tree key hashes before the id.
pub(crate) const ACCOUNT_TAG: &str = "proofmill/state/account/v1";

impl StateKey {
    /// The record's place in the state tree: SHA-256 over a tag of the kind and the id.
    #[must_use]
    pub fn tree_key(&self) -> Hash {
        const NOTHING: &[u8] = &[];
        let (tag, id): (&str, &[u8]) = match self {
            Self::Account(id) => (ACCOUNT_TAG, id.as_ref()),
            Self::Worker(id) => ("proofmill/state/worker/v1", id.as_ref()),
            Self::Program(id) => ("proofmill/state/program/v1", id.as_ref()),
            Self::Task(id) => ("proofmill/state/task/v1", id.as_ref()),
            Self::Workers => ("proofmill/state/workers/v1", NOTHING),
            Self::LiveTasks => ("proofmill/state/live-tasks/v1", NOTHING),
            Self::Chain => ("proofmill/state/chain/v1", NOTHING),
            Self::Validators => ("proofmill/state/validators/v1", NOTHING),
        };
        Hash::of(tag, &[id])
    }
}

/// A published program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its content address.
    pub id: Hash,
    /// Who published it.
    pub publisher: AccountId,
    /// Version of the machine that judged it and that runs it.
    pub machine_version: MachineVersion,
    /// Length of the module in bytes.
    pub bytes: u32,
    /// Pages of memory it starts with.
    pub memory_pages_min: u32,
    /// Pages of memory it declares as its most.
    pub memory_pages_max: u32,
    /// The block that published it.
    pub published_at: Height,
}

/// What a live task is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// Its first draw, or the first attempt to fill vacated seats.
    Draw,
    /// Another attempt to draw, since there were too few eligible workers.
    Retry,
    /// A deadline.
    Deadline,
}

/// A task that is not over, and when it must be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTask {
    /// The block that submitted it.
    pub submitted_at: Height,
    /// Index in that block.
    pub index: u32,
    /// The task.
    pub task: Hash,
    /// No look is due before this height.
    pub due: Height,
    /// What for.
    pub look: Look,
}

/// The tasks that are not over, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTasks {
    /// By (height, index) of submission.
    pub entries: Vec<LiveTask>,
}

/// The registered workers by ascending key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Their keys.
    pub ids: Vec<AccountId>,
}

/// The chain's own figures after a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The block.
    pub height: Height,
    /// Its header's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Protocol time: milliseconds since genesis in steps of at most `block_ms_max`.
    pub protocol_ms: u64,
    /// The beacon after this block.
    pub beacon: Hash,
    /// Grain that genesis made.
    pub genesis_supply: Amount,
    /// Grain burned since.
    pub burned: Amount,
    /// Grain made as rewards since.
    pub rewarded: Amount,
}

impl Chain {
    /// Grain made since genesis: rewards less burns.
    #[must_use]
    pub fn made(&self) -> i128 {
        i128::from(self.rewarded.get()).saturating_sub(i128::from(self.burned.get()))
    }
}

/// Any record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An account.
    Account(Account),
    /// A worker.
    Worker(Worker),
    /// A program.
    Program(Program),
    /// A task.
    Task(Box<Task>),
    /// The list of workers.
    Workers(Workers),
    /// The tasks that are not over.
    LiveTasks(LiveTasks),
    /// The chain's own figures.
    Chain(Chain),
    /// The validator set.
    Validators(ValidatorSet),
}

impl Record {
    /// Decodes a stored record.
    ///
    /// # Errors
    /// When the bytes are not one; that is our own disk's fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, RECORD_BYTES_MAX>(bytes)
    }

    /// Grain that the record holds: balance, collateral or escrow.
    #[must_use]
    pub fn holds(&self) -> Amount {
        match self {
            Self::Account(account) => account.balance,
            Self::Worker(worker) => worker.collateral,
            Self::Task(task) => task.escrow,
            _ => Amount::ZERO,
        }
    }
}
