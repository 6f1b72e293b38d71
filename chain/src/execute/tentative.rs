//! What a transaction would do to the state as it is: what a node tells its client before the fee is
//! lost.

use crate::execute::{BlockContext, Effects, Executor, Inadmissible, Prepared};
use crate::state::StateError;
use crate::state::overlay::Overlay;
use crate::state::reader::StateReader;
use crate::task;
use crate::types::hash::{Hash, VrfOutput};
use crate::types::params::Params;
use crate::types::receipt::Outcome;
use crate::types::record::LiveTasks;
use crate::types::task::Moment;
use crate::types::transaction::Action;
use crate::types::units::Amount;

/// The outcome of a transaction in a block on this state that carries nothing before it and at whose
/// beginning no deadline passes and no seat is drawn; or why the block could not include it.
///
/// Costs what the transaction itself costs, however much the next block has to do at its beginning.
///
/// # Errors
/// When the state cannot be read.
pub fn try_transaction(
    reader: &dyn StateReader,
    genesis: &Hash,
    params: &Params,
    prepared: &Prepared<'_>,
) -> Result<Result<Outcome, Inadmissible>, StateError> {
    let mut overlay = Overlay::new(reader);
    let chain = overlay.chain()?;
    let height = chain.height.next();
    let live = match &prepared.signed.transaction.action {
        Action::SubmitTask(_) | Action::CancelTask { .. } => overlay.live_tasks()?,
        Action::Transfer { .. }
        | Action::RegisterWorker { .. }
        | Action::UpdateWorker { .. }
        | Action::RetireWorker { .. }
        | Action::PublishProgram { .. } => LiveTasks::default(),
    };
    // No seat is drawn, so nothing depends on the beacon that the block will bring.
    let beacon_output = VrfOutput::new([0; VrfOutput::LEN]);
    let mut executor = Executor {
        context: BlockContext {
            genesis,
            params,
            height,
            time_ms: chain.time_ms.saturating_add(1),
            beacon_output: &beacon_output,
            reward: prepared.signed.transaction.sender,
        },
        overlay,
        live,
        now: Moment {
            height,
            time_ms: chain.protocol_ms,
        },
        beacon: chain.beacon,
        effects: Effects::default(),
        earned: Amount::ZERO,
        burned: Amount::ZERO,
    };
    let receipt = executor.apply_transaction(prepared, 0)?;
    Ok(receipt.map(|receipt| receipt.outcome))
}

/// What an action takes from its sender's balance beside the fee, as far as the action alone says; an
/// action that takes more than any balance takes [`u64::MAX`].
#[must_use]
pub fn spends(action: &Action) -> Amount {
    match action {
        Action::Transfer { amount, .. } => *amount,
        Action::RegisterWorker { collateral, .. } => *collateral,
        Action::UpdateWorker { add_collateral, .. } => *add_collateral,
        Action::SubmitTask(spec) => task::escrow(spec.price_per_mgas, spec.gas_limit, spec.mode)
            .unwrap_or(Amount::new(u64::MAX)),
        Action::RetireWorker { .. } | Action::PublishProgram { .. } | Action::CancelTask { .. } => {
            Amount::ZERO
        }
    }
}
