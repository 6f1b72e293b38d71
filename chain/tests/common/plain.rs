//! A block executed without the pipeline: one thread, a map for a state, and no account read
//! beforehand unless a test wants that.

use super::{Magic, World};
use proofmill_chain::codec;
use proofmill_chain::execute::{BlockContext, Effects, ExecuteError, Executor, Outputs, Prepared};
use proofmill_chain::pipeline::judge;
use proofmill_chain::state::accounts::{Accounts, Slots};
use proofmill_chain::types::block::Block;

/// The effects of a block on a world's state, or the first rule of execution that it breaks.
pub(crate) fn execute(world: &World, block: &Block) -> Result<Effects, ExecuteError> {
    execute_with(world, block, &Accounts::default(), |_| Slots::default())
}

/// The same when some accounts were read before and somebody claims to know their places.
pub(crate) fn execute_with(
    world: &World,
    block: &Block,
    accounts: &Accounts,
    slots: impl Fn(usize) -> Slots,
) -> Result<Effects, ExecuteError> {
    let proposer = world
        .validators
        .proposer(block.header.height, block.header.round);
    let context = BlockContext {
        genesis: &world.id,
        params: &world.genesis.params,
        height: block.header.height,
        time_ms: block.header.time_ms,
        beacon_output: &block.header.beacon_output,
        reward: proposer.reward,
    };
    let mut executor = Executor::begin(&world.state, context, accounts)?;
    let mut outputs = Outputs::default();
    for (index, signed) in block.attestations.iter().enumerate() {
        executor
            .attestation(signed, &mut outputs)?
            .map_err(|void| ExecuteError::Attestation { index, void })?;
    }
    if !outputs.match_exactly(&block.outputs) {
        return Err(ExecuteError::Outputs);
    }
    for (index, signed) in block.transactions.iter().enumerate() {
        let prepared = Prepared {
            signed,
            id: signed.transaction.id(&world.id),
            bytes: codec::encode(signed).len(),
            program: judge(signed, &Magic, world.genesis.params.machine_version),
            slots: slots(index),
        };
        executor
            .transaction(&prepared)?
            .map_err(|error| ExecuteError::Transaction { index, error })?;
    }
    Ok(executor.finish(block.outputs.clone())?)
}
