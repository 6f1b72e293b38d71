//! The way of a block, readable on one screen.
//!
//! ```text
//! bytes ─decode─▶ Block           structural: the bytes are a block and nothing else
//!       ─check──▶ CheckedBlock    semantic: sizes, roots of lists, the header's place in the chain
//!       ─verify─▶ VerifiedBlock   every signature and the beacon
//!       ─execute▶ ExecutedBlock   contextual: receipts, assignments, writes
//!       ─seal───▶ SealedBlock     computed roots are the header's
//! ```
//!
//! Fields are private and each type is made only by the stage before it, so what reaches the store
//! has passed every rule. Validity is a function of the block and its parent's state alone.

mod error;
mod header;
mod signatures;

pub use self::error::BlockError;
pub use self::signatures::verify_transaction;
use crate::check::{self, BlockCheckError, TransactionError};
use crate::codec::{self, DecodeError};
use crate::crypto::verify::{BatchSecret, Item};
use crate::crypto::vrf;
use crate::execute::{
    BlockContext, Effects, ExecuteError, Executor, Outputs, Prepared, beacon_message,
};
use crate::finality::verify_certificate;
use crate::machine::{Machine, ProgramFacts};
use crate::state::overlay::WriteSet;
use crate::state::reader::StateReader;
use crate::tree::{Change, LeafValue, Patch, Tree};
use crate::types::block::{BLOCK_BYTES_MAX, Block, block_sign_bytes};
use crate::types::hash::{AccountId, Hash};
use crate::types::params::Params;
use crate::types::transaction::{Action, SignedTransaction};
use crate::types::units::Height;
use crate::types::validator::ValidatorSet;

/// What a block is judged against: its parent and the chain.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Genesis hash.
    pub genesis: &'a Hash,
    /// The parameters.
    pub params: &'a Params,
    /// Height of the parent; 0 is genesis.
    pub parent_height: Height,
    /// Hash of the parent's header; the genesis hash for the first block.
    pub parent: &'a Hash,
    /// Who decided the parent.
    pub parent_validators: &'a ValidatorSet,
    /// State after the parent.
    pub state: &'a dyn StateReader,
    /// Tree over that state.
    pub tree: &'a Tree,
    /// Judges modules.
    pub machine: &'a dyn Machine,
    /// This node's secret for batch verification.
    pub secret: &'a BatchSecret,
}

/// A block that does not contradict itself or its parent's header.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    block: Block,
    hash: Hash,
    /// Encoded length of each transaction.
    lengths: Vec<usize>,
    reward: AccountId,
    beacon_key: AccountId,
    parent_beacon: Hash,
}

/// A block whose every signature and beacon proof verifies.
#[derive(Clone, Debug)]
pub struct VerifiedBlock {
    checked: CheckedBlock,
    ids: Vec<Hash>,
    programs: Vec<Option<Result<ProgramFacts, u16>>>,
}

/// A block with its effects on the parent's state.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    block: Block,
    hash: Hash,
    ids: Vec<Hash>,
    effects: Effects,
}

/// A block that is valid: what the store may commit once it is decided.
#[derive(Clone, Debug)]
pub struct SealedBlock {
    block: Block,
    hash: Hash,
    ids: Vec<Hash>,
    effects: Effects,
    patch: Patch,
}

impl SealedBlock {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// The ids of its transactions.
    #[must_use]
    pub fn transaction_ids(&self) -> &[Hash] {
        &self.ids
    }

    /// What it does.
    #[must_use]
    pub const fn effects(&self) -> &Effects {
        &self.effects
    }

    /// What makes its parent's state tree its own.
    #[must_use]
    pub const fn patch(&self) -> &Patch {
        &self.patch
    }
}

/// The whole way: bytes in, a valid block out.
///
/// # Errors
/// The first rule broken, or [`BlockError::Ours`].
pub fn validate(bytes: &[u8], context: &Context<'_>) -> Result<SealedBlock, BlockError> {
    let block = decode(bytes, context.params)?;
    let checked = check(block, context)?;
    let verified = verify(checked, context)?;
    let executed = execute(verified, context)?;
    seal(executed, context)
}

/// Structural: the bytes are a block.
///
/// # Errors
/// When they are not, or there are more than the parameters allow.
pub fn decode(bytes: &[u8], params: &Params) -> Result<Block, BlockError> {
    let most = params.block_bytes_max as usize;
    if bytes.len() > most {
        return Err(BlockError::Decode(DecodeError::TooLong {
            given: bytes.len(),
            most,
        }));
    }
    Ok(codec::decode::<Block, BLOCK_BYTES_MAX>(bytes)?)
}

/// Semantic: the block agrees with itself and its header with the parent.
///
/// # Errors
/// The first rule broken.
pub fn check(block: Block, context: &Context<'_>) -> Result<CheckedBlock, BlockError> {
    check::check_block(&block, context.params)?;
    let (reward, beacon_key, parent_beacon) = header::check(&block, context)?;
    let lengths = check_transactions(&block.transactions, context.genesis)?;
    Ok(CheckedBlock {
        hash: block.header.hash(),
        block,
        lengths,
        reward,
        beacon_key,
        parent_beacon,
    })
}

fn check_transactions(
    transactions: &[SignedTransaction],
    genesis: &Hash,
) -> Result<Vec<usize>, BlockError> {
    use rayon::prelude::*;
    let checked: Vec<Result<usize, TransactionError>> = transactions
        .par_iter()
        .map(|signed| check::check_transaction(signed, genesis))
        .collect();
    checked
        .into_iter()
        .enumerate()
        .map(|(index, result)| {
            result.map_err(|error| BlockError::Check(BlockCheckError::Transaction { index, error }))
        })
        .collect()
}

/// Every signature, the beacon, the parent's certificate, and the modules' verdicts.
///
/// # Errors
/// The first that does not verify.
pub fn verify(checked: CheckedBlock, context: &Context<'_>) -> Result<VerifiedBlock, BlockError> {
    let header = &checked.block.header;
    let proposer = Item {
        key: header.proposer.as_bytes(),
        message: &block_sign_bytes(&checked.hash),
        signature: checked.block.proposer_signature.as_bytes(),
    };
    if !crate::crypto::verify::verify(&proposer) {
        return Err(BlockError::ProposerSignature);
    }
    let message = beacon_message(context.genesis, &checked.parent_beacon, header.height);
    let output = vrf::verify(&checked.beacon_key, &message, &header.beacon_proof);
    if output != Some(header.beacon_output) {
        return Err(BlockError::Beacon);
    }
    if let Some(certificate) = &checked.block.last_certificate {
        verify_certificate(
            context.genesis,
            context.parent_validators,
            context.parent_height,
            context.parent,
            certificate,
        )
        .map_err(BlockError::Certificate)?;
    }
    let ids = signatures::verify(&checked.block, context)?;
    let programs = judge_programs(&checked.block.transactions, context.machine);
    Ok(VerifiedBlock {
        checked,
        ids,
        programs,
    })
}

fn judge_programs(
    transactions: &[SignedTransaction],
    machine: &dyn Machine,
) -> Vec<Option<Result<ProgramFacts, u16>>> {
    use rayon::prelude::*;
    transactions
        .par_iter()
        .map(|signed| judge(signed, machine))
        .collect()
}

/// The machine's verdict on the module that a transaction publishes, if it does.
#[must_use]
pub fn judge(
    signed: &SignedTransaction,
    machine: &dyn Machine,
) -> Option<Result<ProgramFacts, u16>> {
    match &signed.transaction.action {
        Action::PublishProgram { module } => Some(machine.judge(module.as_bytes())),
        _ => None,
    }
}

/// Contextual: what the block does to the parent's state.
///
/// # Errors
/// The first transaction or attestation that may not stand there, or our own trouble.
pub fn execute(
    verified: VerifiedBlock,
    context: &Context<'_>,
) -> Result<ExecutedBlock, BlockError> {
    let VerifiedBlock {
        checked,
        ids,
        programs,
    } = verified;
    let block = &checked.block;
    let mut executor = Executor::begin(
        context.state,
        BlockContext {
            genesis: context.genesis,
            params: context.params,
            height: block.header.height,
            time_ms: block.header.time_ms,
            beacon_output: &block.header.beacon_output,
            reward: checked.reward,
        },
    )?;
    let prepared: Vec<_> = block
        .transactions
        .iter()
        .zip(&ids)
        .zip(&checked.lengths)
        .zip(&programs)
        .map(|(((signed, id), bytes), program)| Prepared {
            signed,
            id: *id,
            bytes: *bytes,
            program: *program,
        })
        .collect();
    executor.prefetch(context.state, &prepared)?;
    let mut outputs = Outputs::default();
    for (index, signed) in block.attestations.iter().enumerate() {
        executor
            .attestation(signed, &mut outputs)?
            .map_err(|void| BlockError::Execute(ExecuteError::Attestation { index, void }))?;
    }
    if !outputs.match_exactly(&block.outputs) {
        return Err(BlockError::Execute(ExecuteError::Outputs));
    }
    for (index, prepared) in prepared.iter().enumerate() {
        executor
            .transaction(prepared)?
            .map_err(|error| BlockError::Execute(ExecuteError::Transaction { index, error }))?;
    }
    let effects = executor.finish(block.outputs.clone())?;
    Ok(ExecutedBlock {
        block: checked.block,
        hash: checked.hash,
        ids,
        effects,
    })
}

/// The roots that execution gives are the header's.
///
/// # Errors
/// The first that is not.
pub fn seal(executed: ExecutedBlock, context: &Context<'_>) -> Result<SealedBlock, BlockError> {
    let ExecutedBlock {
        block,
        hash,
        ids,
        effects,
    } = executed;
    let patch = tree_after(context.tree, &effects.writes);
    let receipts_root = crate::merkle::root(&check::encode_all(&effects.receipts));
    let assignments_root = crate::merkle::root(&check::encode_all(&effects.assignments));
    let header = &block.header;
    for (what, given, computed) in [
        ("assignments", header.assignments_root, assignments_root),
        ("receipts", header.receipts_root, receipts_root),
        ("state", header.state_root, patch.root()),
    ] {
        if given != computed {
            return Err(BlockError::Seal {
                what,
                given,
                computed,
            });
        }
    }
    Ok(SealedBlock {
        block,
        hash,
        ids,
        effects,
        patch,
    })
}

/// The state tree after a block's writes, as a patch of the one before.
#[must_use]
pub fn tree_after(tree: &Tree, writes: &WriteSet) -> Patch {
    use rayon::prelude::*;
    let changes: Vec<Change> = writes
        .writes
        .par_iter()
        .with_min_len(512)
        .map(|write| (write.key, write.new.as_deref().map(LeafValue::of)))
        .collect();
    tree.update(&changes)
}
