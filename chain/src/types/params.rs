//! The chain's parameters, fixed by genesis (protocol §7).

use serde::{Deserialize, Serialize};

use crate::types::hash::{Blob, Hash};
use crate::types::transaction::Transaction;
use crate::types::units::{Amount, Gas, MachineVersion};

/// Shares of a task's pay are in parts of this many.
pub const SHARE_WHOLE: u64 = 10_000;
/// The least `base_fee` a chain may have, in grain per unit of weight.
pub const BASE_FEE_MIN: u64 = 8;

/// Every parameter that nodes must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The machine that judges modules: a program keeps the version under which it was published, and a
    /// task the one of its program.
    pub machine_version: MachineVersion,
    /// Largest encoded block, in bytes.
    pub block_bytes_max: u32,
    /// Most transactions in a block.
    pub block_transactions_max: u32,
    /// Most attestations in a block.
    pub block_attestations_max: u32,
    /// Most bytes of program modules published in one block.
    pub block_program_bytes_max: u32,
    /// Fee in grain per unit of weight; burned.
    pub base_fee: Amount,
    /// Grain per byte of a module that a transaction publishes, a part of its fee; burned. Every node
    /// judges the module and keeps it for good, whether it is used or not.
    pub module_byte_price: Amount,
    /// Blocks between a task's submission and the block whose beacon may draw its workers.
    pub assign_delay: u64,
    /// Most seats drawn in a block.
    pub seats_per_block_max: u32,
    /// Most tasks looked at for a draw or a deadline in a block.
    pub timeouts_per_block_max: u32,
    /// Least length of the commit window in blocks.
    pub commit_window_blocks: u64,
    /// Least length of the commit window in protocol time, milliseconds, before the gas part.
    pub commit_window_ms: u64,
    /// Gas per millisecond by which the commit window grows with a task's gas limit.
    pub commit_gas_per_ms: u64,
    /// Bytes of its program per millisecond by which a task's commit window grows: the worker compiles it.
    pub commit_program_bytes_per_ms: u64,
    /// Least length of the reveal window in blocks.
    pub reveal_window_blocks: u64,
    /// Least length of the reveal window in protocol time, milliseconds.
    pub reveal_window_ms: u64,
    /// How often missing seats are drawn again.
    pub redraws_max: u8,
    /// The most that one block adds to protocol time, milliseconds.
    pub block_ms_max: u64,
    /// The most blocks a task may ask to wait.
    pub wait_max: u64,
    /// Blocks between a worker's registration and its first draw.
    pub worker_activation_blocks: u64,
    /// Least collateral of a worker.
    pub worker_collateral_min: Amount,
    /// Least bond of a seat.
    pub seat_bond_min: Amount,
    /// Most workers registered.
    pub workers_max: u32,
    /// Most tasks that are not over.
    pub tasks_live_max: u32,
    /// Most seats of a task.
    pub replicas_max: u8,
    /// Largest gas limit of a task.
    pub task_gas_max: Gas,
    /// Largest memory of a task, pages of 64 KiB.
    pub task_memory_pages_max: u32,
    /// Most steps of an execution.
    pub task_steps_max: u32,
    /// Most gas of one step.
    pub step_gas_max: Gas,
    /// Workers' share of a task's pay, in ten-thousandths.
    pub share_workers: u32,
    /// Audits' share; returned to the requester as long as there are no audits.
    pub share_audits: u32,
    /// Validators' share. What is left of the whole is burned.
    pub share_validators: u32,
}

impl Params {
    /// What a transaction costs without tip.
    #[must_use]
    pub const fn fee_rates(&self) -> FeeRates {
        FeeRates {
            base_fee: self.base_fee,
            module_byte_price: self.module_byte_price,
        }
    }

    /// The hash that headers carry.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of("proofmill/params/v1", &[&crate::codec::encode(self)])
    }
}

/// What fees are made of (protocol §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeRates {
    /// Grain per unit of weight.
    pub base_fee: Amount,
    /// Grain per byte of a published module.
    pub module_byte_price: Amount,
}

impl FeeRates {
    /// The fee, without tip, of a transaction of so many encoded bytes; `None` beyond 64 bits.
    #[must_use]
    pub fn fee(&self, transaction: &Transaction, encoded_bytes: usize) -> Option<Amount> {
        let weight = transaction.weight(encoded_bytes).get();
        let module = transaction.action.module().map_or(0, Blob::len) as u64;
        self.base_fee
            .checked_mul(weight)?
            .checked_add(self.module_byte_price.checked_mul(module)?)
    }
}
