//! A block's effects: receipts, assignments and the writes they come to (protocol §4).
//!
//! The order is fixed: task deadlines → assignments → attestations → transactions → fees. Accounts
//! are read and decoded in parallel beforehand; effects are applied one after the other, so the
//! outcome is that of the sequential order whatever the number of threads.

mod actions;
mod attestations;
mod ledger;
mod tasks;
mod tentative;
pub mod transactions;

use std::sync::Arc;

use crate::machine::ProgramFacts;
use crate::state::accounts::{Accounts, Slots};
use crate::state::overlay::{Overlay, WriteSet};
use crate::state::reader::StateReader;
use crate::state::{Place, StateError};
use crate::task::Void;
use crate::types::block::Assignment;
use crate::types::hash::{AccountId, Blob, Hash, VrfOutput};
use crate::types::params::Params;
use crate::types::receipt::Receipt;
use crate::types::record::{LiveTasks, Record, StateKey};
use crate::types::task::{Moment, SignedAttestation};
use crate::types::transaction::SignedTransaction;
use crate::types::units::{Amount, Height, Nonce};
pub use attestations::Outputs;
pub use ledger::{SupplyError, check_supply_change, sum_supply};
pub use tentative::{spends, try_transaction};

/// What a block is executed with, beside the state.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext<'a> {
    /// Genesis hash.
    pub genesis: &'a Hash,
    /// The parameters.
    pub params: &'a Params,
    /// The block's height.
    pub height: Height,
    /// Its time.
    pub time_ms: u64,
    /// Its beacon output.
    pub beacon_output: &'a VrfOutput,
    /// The account that its tips go to.
    pub reward: AccountId,
}

/// A transaction with what was found out about it without the state.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    /// The transaction.
    pub signed: &'a SignedTransaction,
    /// Its id.
    pub id: Hash,
    /// Its encoded length.
    pub bytes: usize,
    /// The machine's verdict on the module that it publishes.
    pub program: Option<Result<ProgramFacts, u16>>,
    /// Where its accounts stand in those that the execution began with.
    pub slots: Slots,
}

/// Why a block's contents do not fit its parent's state: the proposer's fault, except for `State`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Our own disk or bug.
    #[error(transparent)]
    State(#[from] StateError),
    /// A transaction that may not stand there.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Which.
        index: usize,
        /// Why.
        error: Inadmissible,
    },
    /// An attestation that may not stand there.
    #[error("attestation {index}: {void}")]
    Attestation {
        /// Which.
        index: usize,
        /// Why.
        void: Void,
    },
    /// Outputs are missing, or there are some that no reveal names for the first time.
    #[error("the outputs are not those that the reveals name for the first time")]
    Outputs,
}

/// Why a transaction may not be included now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inadmissible {
    /// Not the sender's next nonce.
    #[error("expected nonce {expected}, got {received}")]
    Nonce {
        /// The sender's count.
        expected: Nonce,
        /// The transaction's.
        received: Nonce,
    },
    /// Too late.
    #[error("expired at height {expires_at}, this is {height}")]
    Expired {
        /// Its last height.
        expires_at: Height,
        /// The block's.
        height: Height,
    },
    /// It costs more than it gives.
    #[error("fee and tip are {needed} grain, max_fee is {max_fee}")]
    FeeTooLow {
        /// What it costs.
        needed: Amount,
        /// What it gives at most.
        max_fee: Amount,
    },
    /// The payer cannot pay.
    #[error("payer has {available} grain, fee and tip are {needed}")]
    PayerBalance {
        /// What it costs.
        needed: Amount,
        /// The payer's balance.
        available: Amount,
    },
    /// The fee does not fit into 64 bits.
    #[error("the fee does not fit into 64 bits")]
    FeeOverflow,
}

/// What a block does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The draws that every node derives.
    pub assignments: Vec<Assignment>,
    /// One per transaction.
    pub receipts: Vec<Receipt>,
    /// Programs, inputs and outputs that came with the block.
    pub blobs: Vec<Blob>,
    /// The changed records.
    pub writes: Arc<WriteSet>,
}

/// A block's state under execution.
pub struct Executor<'a> {
    context: BlockContext<'a>,
    overlay: Overlay<'a>,
    live: LiveTasks,
    now: Moment,
    /// Beacon of the parent: what this block's draws use.
    beacon: Hash,
    effects: Effects,
    /// For the proposer: tips and shares.
    earned: Amount,
    burned: Amount,
}

impl<'a> Executor<'a> {
    /// Begins a block: moves the chain's time and beacon on, applies deadlines and draws. `accounts`
    /// are those of its transactions, read from the same state; without some of them the outcome is
    /// the same.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn begin(
        reader: &'a dyn StateReader,
        context: BlockContext<'a>,
        accounts: &'a Accounts,
    ) -> Result<Self, StateError> {
        let mut overlay = Overlay::with_accounts(reader, accounts);
        let mut chain = overlay.chain()?;
        let beacon = chain.beacon;
        let step = context
            .time_ms
            .saturating_sub(chain.time_ms)
            .min(context.params.block_ms_max);
        chain.protocol_ms = chain.protocol_ms.saturating_add(step);
        chain.time_ms = context.time_ms;
        chain.height = context.height;
        chain.beacon = next_beacon(&beacon, context.beacon_output);
        let now = Moment {
            height: context.height,
            time_ms: chain.protocol_ms,
        };
        overlay.put(StateKey::Chain, Record::Chain(chain))?;
        let live = overlay.live_tasks()?;
        let mut executor = Self {
            context,
            overlay,
            live,
            now,
            beacon,
            effects: Effects::default(),
            earned: Amount::ZERO,
            burned: Amount::ZERO,
        };
        executor.apply_deadlines()?;
        executor.draw_seats()?;
        executor.overlay.keep();
        Ok(executor)
    }

    /// Applies one transaction, or says why it may not be included; then nothing has changed.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn transaction(
        &mut self,
        prepared: &Prepared<'_>,
    ) -> Result<Result<(), Inadmissible>, StateError> {
        let index = u32::try_from(self.effects.receipts.len()).unwrap_or(u32::MAX);
        let applied = self.apply_transaction(prepared, index)?;
        Ok(applied.map(|receipt| self.effects.receipts.push(receipt)))
    }

    /// Applies one attestation, or says why it is void; then nothing has changed.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn attestation(
        &mut self,
        signed: &SignedAttestation,
        outputs: &mut Outputs,
    ) -> Result<Result<(), Void>, StateError> {
        self.apply_attestation(signed, outputs)
    }

    /// Ends a block: pays the proposer, checks the supply and gives the effects out.
    ///
    /// # Errors
    /// When the state cannot be read or the ledger's law is broken, which stops the node.
    pub fn finish(mut self, outputs: Vec<Blob>) -> Result<Effects, StateError> {
        let reward = self.context.reward;
        self.credit(reward, self.earned)?;
        let mut chain = self.overlay.chain()?;
        chain.burned = chain
            .burned
            .checked_add(self.burned)
            .ok_or_else(|| StateError::Law("burned grain overflows".to_owned()))?;
        self.overlay.put(StateKey::Chain, Record::Chain(chain))?;
        let live = core::mem::take(&mut self.live);
        self.overlay
            .put(StateKey::LiveTasks, Record::LiveTasks(live))?;
        let mut effects = self.effects;
        effects.blobs.extend(outputs);
        let (writes, change) = self.overlay.into_writes()?;
        change
            .check()
            .map_err(|error| StateError::Law(error.to_string()))?;
        effects.writes = Arc::new(writes);
        Ok(effects)
    }

    /// The assignments made when the block began.
    #[must_use]
    pub fn assignments(&self) -> &[Assignment] {
        &self.effects.assignments
    }

    fn credit(&mut self, account: AccountId, amount: Amount) -> Result<(), StateError> {
        self.credit_at(account, Place::UNKNOWN, amount)
    }

    fn credit_at(
        &mut self,
        account: AccountId,
        place: Place,
        amount: Amount,
    ) -> Result<(), StateError> {
        if amount == Amount::ZERO {
            return Ok(());
        }
        let mut record = self.overlay.account_at(account, place)?;
        record.balance = record
            .balance
            .checked_add(amount)
            .ok_or_else(|| StateError::Law(format!("balance of {account} overflows")))?;
        self.overlay.put_account(account, place, record)
    }

    fn burn(&mut self, amount: Amount) -> Result<(), StateError> {
        self.burned = self
            .burned
            .checked_add(amount)
            .ok_or_else(|| StateError::Law("burned grain overflows".to_owned()))?;
        Ok(())
    }

    fn earn(&mut self, amount: Amount) -> Result<(), StateError> {
        self.earned = self
            .earned
            .checked_add(amount)
            .ok_or_else(|| StateError::Law("the proposer's income overflows".to_owned()))?;
        Ok(())
    }
}

/// The beacon after a block: hash of the parent's beacon and the proposer's output.
#[must_use]
pub fn next_beacon(parent: &Hash, output: &VrfOutput) -> Hash {
    Hash::of(
        "proofmill/beacon/v1",
        &[parent.as_bytes(), output.as_bytes()],
    )
}

/// What the proposer's beacon key proves: the parent's beacon and the height.
#[must_use]
pub fn beacon_message(genesis: &Hash, parent: &Hash, height: Height) -> Vec<u8> {
    let mut bytes = b"proofmill/beacon-message/v1".to_vec();
    bytes.extend_from_slice(genesis.as_bytes());
    bytes.extend_from_slice(parent.as_bytes());
    bytes.extend_from_slice(&height.get().to_le_bytes());
    bytes
}
