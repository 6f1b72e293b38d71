//! Receipts: what became of each transaction.

use serde::{Deserialize, Serialize};

use crate::types::hash::{AccountId, Hash};
use crate::types::units::{Amount, Gas, Height};

/// Why a transaction whose fee was taken had no other effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The balance does not cover what the action spends.
    #[error("balance {available} grain, {needed} grain are needed")]
    InsufficientBalance {
        /// What the action spends.
        needed: Amount,
        /// What is there once the fee is paid.
        available: Amount,
    },
    /// A worker with this key exists.
    #[error("worker {worker} is registered already")]
    WorkerExists {
        /// The worker.
        worker: AccountId,
    },
    /// No worker with this key exists.
    #[error("worker {worker} is not registered")]
    WorkerUnknown {
        /// The worker.
        worker: AccountId,
    },
    /// The sender is not the worker's operator.
    #[error("worker {worker} belongs to another operator")]
    NotOperator {
        /// The worker.
        worker: AccountId,
    },
    /// The worker is leaving.
    #[error("worker {worker} is retiring")]
    WorkerRetiring {
        /// The worker.
        worker: AccountId,
    },
    /// Not enough collateral.
    #[error("collateral {given} grain, at least {least} grain")]
    CollateralTooSmall {
        /// What was offered.
        given: Amount,
        /// The chain's least.
        least: Amount,
    },
    /// The registry is full.
    #[error("{most} workers are registered, the most there may be")]
    WorkersFull {
        /// The chain's most.
        most: u32,
    },
    /// The program was published before.
    #[error("program {program} is published already")]
    ProgramExists {
        /// Its content address.
        program: Hash,
    },
    /// The module breaks a rule of the machine.
    #[error("the module is not a program (rule {rule})")]
    ProgramRefused {
        /// The machine's code of the rule.
        rule: u16,
    },
    /// No such program.
    #[error("program {program} is not published")]
    ProgramUnknown {
        /// Its content address.
        program: Hash,
    },
    /// The task asks for less memory than its program starts with.
    #[error("the program starts with {needed} pages of memory, the task gives {given}")]
    MemoryTooSmall {
        /// The program's initial pages.
        needed: u32,
        /// The task's.
        given: u32,
    },
    /// The gas limit is above the chain's.
    #[error("gas limit {given}, at most {most}")]
    GasLimitTooLarge {
        /// The task's.
        given: Gas,
        /// The chain's.
        most: Gas,
    },
    /// More memory than the chain allows.
    #[error("{given} pages of memory, at most {most}")]
    MemoryTooLarge {
        /// The task's.
        given: u32,
        /// The chain's.
        most: u32,
    },
    /// No seat, or more than the chain allows.
    #[error("{given} replicas, from 1 to {most}")]
    Replicas {
        /// The task's.
        given: u8,
        /// The chain's.
        most: u8,
    },
    /// A longer wait than the chain allows.
    #[error("wait of {given} blocks, at most {most}")]
    WaitTooLong {
        /// The task's.
        given: u64,
        /// The chain's.
        most: u64,
    },
    /// The cost or the bond does not fit into 64 bits.
    #[error("the task's cost or bond does not fit into 64 bits")]
    CostOverflow,
    /// The chain holds as many unfinished tasks as it may.
    #[error("{most} tasks are under way, the most there may be")]
    TasksFull {
        /// The chain's most.
        most: u32,
    },
    /// No such task.
    #[error("task {task} is unknown")]
    TaskUnknown {
        /// The task.
        task: Hash,
    },
    /// The sender did not order the task.
    #[error("task {task} belongs to another requester")]
    NotRequester {
        /// The task.
        task: Hash,
    },
    /// The task has its workers already or is over.
    #[error("task {task} is not open any more")]
    TaskNotOpen {
        /// The task.
        task: Hash,
    },
}

/// What the action did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything it says.
    Applied,
    /// Nothing but the fee.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The transaction.
    pub transaction: Hash,
    /// The block's height.
    pub height: Height,
    /// Index in the block.
    pub index: u32,
    /// Who paid.
    pub payer: AccountId,
    /// Burned.
    pub fee: Amount,
    /// To the proposer.
    pub tip: Amount,
    /// What the action did.
    pub outcome: Outcome,
}
