//! The way of a block, readable on one screen.
//!
//! ```text
//! bytes ─decode─▶ DecodedBlock    structural: the bytes are a block and nothing else
//!       ─check──▶ CheckedBlock    semantic: sizes, roots of lists, the header's place in the chain
//!       ─verify─▶ VerifiedBlock   every signature and the beacon
//!       ─execute▶ ExecutedBlock   contextual: receipts, assignments, writes
//!       ─seal───▶ SealedBlock     computed roots are the header's
//! ```
//!
//! Fields are private and each type is made only by the stage before it, an executed block also by
//! [`verify_and_execute`], which is both stages at once; so what reaches the store has passed every rule. Validity is a function of the block and its parent's state alone.

mod decoded;
mod error;
mod examine;
mod header;
mod identify;
mod seen;
mod signatures;
mod transaction;

pub use self::decoded::DecodedBlock;
pub use self::error::BlockError;
use self::examine::Examined;
pub use self::identify::{IdentifiedBlock, identify};
pub use self::seen::{SEEN_MAX, SeenTransactions};
pub use self::transaction::{
    CheckedTransaction, EncodedTransaction, VerifiedTransaction, VerifyError, verify_transactions,
};
use crate::check::{self, BlockCheckError};
use crate::codec::DecodeError;
use crate::crypto::verify::Verifier;
use crate::crypto::vrf;
use crate::execute::{
    BlockContext, Effects, ExecuteError, Executor, Outputs, Prepared, beacon_message,
};
use crate::finality::verify_certificate;
use crate::machine::{Machine, ProgramFacts};
use crate::merkle;
use crate::state::accounts::Accounts;
use crate::state::overlay::WriteSet;
use crate::state::reader::StateReader;
use crate::tree::{Change, LeafValue, Patch, Tree};
use crate::types::block::{Block, version_of};
use crate::types::hash::{AccountId, Hash};
use crate::types::transaction::SignedTransaction;
use crate::types::units::{Height, MachineVersion};
use crate::types::validator::ValidatorSet;
use crate::upgrades::Rules;

/// What a block is judged against: its parent and the chain.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Genesis hash.
    pub genesis: &'a Hash,
    /// The rules of the block's height: [`Schedule::at`](crate::upgrades::Schedule::at) gives them.
    pub rules: &'a Rules,
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
    /// This node's batch verification, with its secret and the keys it knows.
    pub verifier: &'a Verifier,
    /// What this node has verified before; without it everything is verified.
    pub seen: Option<&'a SeenTransactions>,
}

/// A block that does not contradict itself or its parent's header.
#[derive(Clone, Debug)]
pub struct CheckedBlock {
    decoded: DecodedBlock,
    hash: Hash,
    examined: Vec<Examined>,
    reward: AccountId,
    beacon_key: AccountId,
    parent_beacon: Hash,
}

/// A block whose every signature and beacon proof verifies.
#[derive(Clone, Debug)]
pub struct VerifiedBlock {
    checked: CheckedBlock,
    preloaded: Preloaded,
}

/// What the execution of a block's transactions needs, read and judged on all threads before one thread
/// executes them.
#[derive(Clone, Debug)]
struct Preloaded {
    /// The accounts of the parent's state that they name.
    accounts: Accounts,
    /// The machine's verdict on each transaction's module, where it publishes one.
    programs: Vec<Option<Result<ProgramFacts, u16>>>,
}

/// A block with its effects on the parent's state.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    decoded: DecodedBlock,
    hash: Hash,
    effects: Effects,
}

/// A block that is valid: what the store may commit once it is decided.
#[derive(Clone, Debug)]
pub struct SealedBlock {
    decoded: DecodedBlock,
    hash: Hash,
    effects: Effects,
    patch: Patch,
}

impl SealedBlock {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> &Block {
        self.decoded.block()
    }

    /// The block with its encoding.
    #[must_use]
    pub const fn decoded(&self) -> &DecodedBlock {
        &self.decoded
    }

    /// Its hash.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
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
    let decoded = decode(bytes, context.rules)?;
    let checked = check(decoded, context)?;
    let executed = verify_and_execute(checked, context)?;
    seal(executed, context)
}

/// Structural: the bytes are a block.
///
/// # Errors
/// When they are not, when there are more than the parameters allow, or when they are a block of
/// another protocol version, of which nothing else is decoded.
pub fn decode(bytes: &[u8], rules: &Rules) -> Result<DecodedBlock, BlockError> {
    // Rule (protocol §4): a block has the protocol version of its height.
    if let Some(given) = version_of(bytes)
        && given != rules.version()
    {
        return Err(BlockError::Version {
            given,
            expected: rules.version(),
        });
    }
    let most = rules.params().block_bytes_max as usize;
    if bytes.len() > most {
        return Err(BlockError::Decode(DecodeError::TooLong {
            given: bytes.len(),
            most,
        }));
    }
    Ok(DecodedBlock::decode(bytes)?)
}

/// Semantic: the block agrees with itself and its header with the parent.
///
/// # Errors
/// The first rule broken.
pub fn check(decoded: DecodedBlock, context: &Context<'_>) -> Result<CheckedBlock, BlockError> {
    check::check_sizes(decoded.block(), context.rules.params())?;
    let identified = identify::with_roots(decoded, context.genesis, context.seen)?;
    check_place(identified, context)
}

/// [`validate`] of a block that was identified before.
///
/// # Errors
/// The first rule broken, or [`BlockError::Ours`]; all of them faults of the block that has the hash.
pub fn validate_identified(
    identified: IdentifiedBlock,
    context: &Context<'_>,
) -> Result<SealedBlock, BlockError> {
    check::check_sizes(identified.block(), context.rules.params())?;
    let checked = check_place(identified, context)?;
    let executed = verify_and_execute(checked, context)?;
    seal(executed, context)
}

/// The header's place in the chain, and the transactions' form.
fn check_place(
    identified: IdentifiedBlock,
    context: &Context<'_>,
) -> Result<CheckedBlock, BlockError> {
    let IdentifiedBlock {
        decoded,
        hash,
        examined,
        forms,
    } = identified;
    let block = decoded.block();
    let (reward, beacon_key, parent_beacon) = header::check(block, context)?;
    for (index, form) in forms.into_iter().enumerate() {
        form.map_err(|error| BlockCheckError::Transaction { index, error })?;
    }
    Ok(CheckedBlock {
        hash,
        decoded,
        examined,
        reward,
        beacon_key,
        parent_beacon,
    })
}

/// Every signature, every key, the beacon, the parent's certificate, and the modules' verdicts.
///
/// # Errors
/// The first that does not verify.
pub fn verify(checked: CheckedBlock, context: &Context<'_>) -> Result<VerifiedBlock, BlockError> {
    let (signed, preloaded) = rayon::join(
        || verify_signed(&checked, context),
        || preload(&checked, context),
    );
    signed?;
    let preloaded = preloaded?;
    examine::admit_recipients(&checked, &preloaded.accounts, context)?;
    Ok(VerifiedBlock { checked, preloaded })
}

/// [`verify`] and [`execute`] side by side: execution keeps one thread busy, the signatures all others.
/// The verdict is that of one after the other, down to which error is told; what an unsigned block
/// would do is thrown away.
///
/// # Errors
/// The first that does not verify, or else the first that may not stand there.
pub fn verify_and_execute(
    checked: CheckedBlock,
    context: &Context<'_>,
) -> Result<ExecutedBlock, BlockError> {
    let (signed, executed) = rayon::join(
        || verify_signed(&checked, context),
        || {
            let preloaded = preload(&checked, context)?;
            let effects = effects(&checked, &preloaded, context);
            Ok::<_, BlockError>((preloaded, effects))
        },
    );
    signed?;
    let (preloaded, effects) = executed?;
    examine::admit_recipients(&checked, &preloaded.accounts, context)?;
    Ok(ExecutedBlock {
        effects: effects?,
        decoded: checked.decoded,
        hash: checked.hash,
    })
}

/// All that is signed or proven in the block.
fn verify_signed(checked: &CheckedBlock, context: &Context<'_>) -> Result<(), BlockError> {
    let CheckedBlock {
        decoded, examined, ..
    } = checked;
    let (proofs, signatures) = rayon::join(
        || verify_proofs(checked, context),
        || signatures::verify(decoded, examined, context),
    );
    proofs.and(signatures)
}

/// What stands in the block about itself and its parent: the proposer's signature, the beacon and the
/// certificate.
fn verify_proofs(checked: &CheckedBlock, context: &Context<'_>) -> Result<(), BlockError> {
    let block = checked.decoded.block();
    let header = &block.header;
    identify::verify_proposer(block, &checked.hash)?;
    let message = beacon_message(context.genesis, &checked.parent_beacon, header.height);
    let output = vrf::verify(&checked.beacon_key, &message, &header.beacon_proof);
    if output != Some(header.beacon_output) {
        return Err(BlockError::Beacon);
    }
    let Some(certificate) = &block.last_certificate else {
        return Ok(());
    };
    verify_certificate(
        context.genesis,
        context.parent_validators,
        context.parent_height,
        context.parent,
        certificate,
    )
    .map_err(BlockError::Certificate)
}

/// Reads what the transactions name and has their modules judged.
fn preload(checked: &CheckedBlock, context: &Context<'_>) -> Result<Preloaded, BlockError> {
    let transactions = &checked.decoded.block().transactions;
    let version = context.rules.params().machine_version;
    Ok(Preloaded {
        accounts: Accounts::load(context.state, transactions)?,
        programs: judge_all(transactions, context.machine, version),
    })
}

/// [`judge`] for every transaction. A module is as much work as thousands of transactions, so each one is
/// a task of its own for the thread pool, wherever in the list it is.
#[must_use]
pub fn judge_all(
    transactions: &[SignedTransaction],
    machine: &dyn Machine,
    version: MachineVersion,
) -> Vec<Option<Result<ProgramFacts, u16>>> {
    use rayon::prelude::*;
    let publishing: Vec<(usize, &SignedTransaction)> = transactions
        .iter()
        .enumerate()
        .filter(|(_, signed)| signed.transaction.action.module().is_some())
        .collect();
    let judged: Vec<(usize, Option<Result<ProgramFacts, u16>>)> = publishing
        .into_par_iter()
        .with_max_len(1)
        .map(|(index, signed)| (index, judge(signed, machine, version)))
        .collect();
    let mut verdicts = vec![None; transactions.len()];
    for (index, verdict) in judged {
        if let Some(place) = verdicts.get_mut(index) {
            *place = verdict;
        }
    }
    verdicts
}

/// The machine's verdict on the module that a transaction publishes, if it does.
#[must_use]
pub fn judge(
    signed: &SignedTransaction,
    machine: &dyn Machine,
    version: MachineVersion,
) -> Option<Result<ProgramFacts, u16>> {
    let module = signed.transaction.action.module()?;
    Some(machine.judge(version, module.as_bytes()))
}

/// Contextual: what the block does to the parent's state.
///
/// # Errors
/// The first transaction or attestation that may not stand there, or our own trouble.
pub fn execute(
    verified: VerifiedBlock,
    context: &Context<'_>,
) -> Result<ExecutedBlock, BlockError> {
    let VerifiedBlock { checked, preloaded } = verified;
    let effects = effects(&checked, &preloaded, context)?;
    Ok(ExecutedBlock {
        decoded: checked.decoded,
        hash: checked.hash,
        effects,
    })
}

/// What the attestations and transactions do, one after the other.
fn effects(
    checked: &CheckedBlock,
    preloaded: &Preloaded,
    context: &Context<'_>,
) -> Result<Effects, BlockError> {
    let block = checked.decoded.block();
    let mut executor = Executor::begin(
        context.state,
        BlockContext {
            genesis: context.genesis,
            params: context.rules.params(),
            height: block.header.height,
            time_ms: block.header.time_ms,
            beacon_output: &block.header.beacon_output,
            reward: checked.reward,
        },
        &preloaded.accounts,
    )?;
    let mut outputs = Outputs::default();
    for (index, signed) in block.attestations.iter().enumerate() {
        executor
            .attestation(signed, &mut outputs)?
            .map_err(|void| BlockError::Execute(ExecuteError::Attestation { index, void }))?;
    }
    if !outputs.match_exactly(&block.outputs) {
        return Err(BlockError::Execute(ExecuteError::Outputs));
    }
    let transactions = block.transactions.iter().zip(&checked.examined);
    for (index, ((signed, examined), program)) in transactions.zip(&preloaded.programs).enumerate()
    {
        let prepared = Prepared {
            signed,
            id: examined.id,
            bytes: examined.bytes,
            program: *program,
            slots: preloaded.accounts.slots(index),
        };
        executor
            .transaction(&prepared)?
            .map_err(|error| BlockError::Execute(ExecuteError::Transaction { index, error }))?;
    }
    Ok(executor.finish(block.outputs.clone())?)
}

/// The roots that execution gives are the header's.
///
/// # Errors
/// The first that is not.
pub fn seal(executed: ExecutedBlock, context: &Context<'_>) -> Result<SealedBlock, BlockError> {
    let ExecutedBlock {
        decoded,
        hash,
        effects,
    } = executed;
    let (patch, receipts_root) = rayon::join(
        || tree_after(context.tree, &effects.writes),
        || merkle::root_of_values(&effects.receipts),
    );
    let assignments_root = merkle::root_of_values(&effects.assignments);
    let header = &decoded.block().header;
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
        decoded,
        hash,
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
