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

use crate::check::{self, BlockCheckError, TransactionError};
use crate::codec::{self, DecodeError};
use crate::crypto::verify::{BatchSecret, Item, verify_batch};
use crate::crypto::vrf;
use crate::execute::{
    BlockContext, Effects, ExecuteError, Executor, Outputs, Prepared, beacon_message,
};
use crate::finality::{CertificateError, verify_certificate};
use crate::machine::{Machine, ProgramFacts};
use crate::state::StateError;
use crate::state::overlay::WriteSet;
use crate::state::reader::StateReader;
use crate::tree::{Tree, value_hash};
use crate::types::block::{BLOCK_BYTES_MAX, Block, block_sign_bytes};
use crate::types::hash::{AccountId, Hash};
use crate::types::params::Params;
use crate::types::transaction::{Action, SignedTransaction, worker_consent_bytes};
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

/// Why a block is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes are not a block.
    #[error("not a block: {0}")]
    Decode(#[from] DecodeError),
    /// It contradicts itself.
    #[error(transparent)]
    Check(#[from] BlockCheckError),
    /// A header field is not what the parent demands.
    #[error("header field {field} is {given}, expected {expected}")]
    Header {
        /// Which.
        field: &'static str,
        /// Its value.
        given: String,
        /// What it must be.
        expected: String,
    },
    /// The parent's certificate is missing, not wanted, or proves nothing.
    #[error("last certificate: {0}")]
    Certificate(CertificateError),
    /// The parent's certificate is missing or not wanted.
    #[error("a certificate stands in every block but the first")]
    CertificatePresence,
    /// The proposer's signature.
    #[error("the proposer's signature does not verify")]
    ProposerSignature,
    /// The beacon.
    #[error("the beacon proof does not verify")]
    Beacon,
    /// A transaction's or attestation's signature.
    #[error("{what} {index}: the signature of {key} does not verify")]
    Signature {
        /// Of what.
        what: &'static str,
        /// Which.
        index: usize,
        /// Whose.
        key: AccountId,
    },
    /// The contents do not fit the parent's state.
    #[error(transparent)]
    Execute(ExecuteError),
    /// A root is not what execution gives.
    #[error("{what} root is {given}, execution gives {computed}")]
    Seal {
        /// Which.
        what: &'static str,
        /// The header's.
        given: Hash,
        /// Ours.
        computed: Hash,
    },
    /// Our own disk or bug: says nothing about the block.
    #[error(transparent)]
    Ours(StateError),
}

impl BlockError {
    /// Whether the trouble is our own, so that the block must not be called invalid.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }
}

impl From<StateError> for BlockError {
    fn from(error: StateError) -> Self {
        Self::Ours(error)
    }
}

impl From<ExecuteError> for BlockError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::State(error) => Self::Ours(error),
            other => Self::Execute(other),
        }
    }
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
    tree: Tree,
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

    /// The state tree after it.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
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
    let (reward, beacon_key, parent_beacon) = check_header(&block, context)?;
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

fn check_header(
    block: &Block,
    context: &Context<'_>,
) -> Result<(AccountId, AccountId, Hash), BlockError> {
    let header = &block.header;
    let mut overlay = crate::state::overlay::Overlay::new(context.state);
    let chain = overlay.chain()?;
    let validators = overlay.validators()?;
    let height = context.parent_height.next();
    let proposer = validators.proposer(height, header.round);
    let certificate_hash = block
        .last_certificate
        .as_ref()
        .map_or(Hash::ZERO, crate::types::block::Certificate::hash);
    let validators_hash = validators.hash();
    let fields: [(&'static str, String, String); 10] = [
        field("chain", &header.chain, context.genesis),
        field("height", &header.height, &height),
        field("parent", &header.parent, context.parent),
        field("proposer", &header.proposer, &proposer.key),
        field("validators_hash", &header.validators_hash, &validators_hash),
        field(
            "next_validators_hash",
            &header.next_validators_hash,
            &validators_hash,
        ),
        field("params_hash", &header.params_hash, &context.params.hash()),
        field("base_fee", &header.base_fee, &context.params.base_fee),
        field(
            "last_certificate_hash",
            &header.last_certificate_hash,
            &certificate_hash,
        ),
        (
            "time_ms",
            (header.time_ms > chain.time_ms).to_string(),
            true.to_string(),
        ),
    ];
    for (field, given, expected) in fields {
        if given != expected {
            return Err(match field {
                "time_ms" => BlockError::Header {
                    field,
                    given: header.time_ms.to_string(),
                    expected: format!("more than the parent's {}", chain.time_ms),
                },
                _ => BlockError::Header {
                    field,
                    given,
                    expected,
                },
            });
        }
    }
    if block.last_certificate.is_none() != (context.parent_height == Height::ZERO) {
        return Err(BlockError::CertificatePresence);
    }
    Ok((proposer.reward, proposer.beacon_key, chain.beacon))
}

fn field<T: core::fmt::Display>(
    name: &'static str,
    given: &T,
    expected: &T,
) -> (&'static str, String, String) {
    (name, given.to_string(), expected.to_string())
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
    let ids = verify_signatures(&checked.block, context)?;
    let programs = judge_programs(&checked.block.transactions, context.machine);
    Ok(VerifiedBlock {
        checked,
        ids,
        programs,
    })
}

/// A signature in a block and where it stands.
struct Claim {
    what: &'static str,
    index: usize,
    key: AccountId,
    message: Vec<u8>,
    signature: crate::types::hash::Signature,
}

/// The signatures that a transaction must carry, and its id.
fn transaction_claims(
    index: usize,
    signed: &SignedTransaction,
    genesis: &Hash,
) -> (Hash, Vec<Claim>) {
    let transaction = &signed.transaction;
    let message = transaction.sign_bytes(genesis);
    let id = transaction.id(genesis);
    let mut claims = vec![Claim {
        what: "transaction",
        index,
        key: transaction.sender,
        message,
        signature: signed.signature,
    }];
    if let (Some(key), Some(signature)) = (transaction.sponsor, signed.sponsor_signature) {
        claims.push(Claim {
            what: "sponsored transaction",
            index,
            key,
            message: transaction.sponsor_sign_bytes(genesis),
            signature,
        });
    }
    if let Action::RegisterWorker {
        worker, consent, ..
    } = &transaction.action
    {
        claims.push(Claim {
            what: "worker consent in transaction",
            index,
            key: *worker,
            message: worker_consent_bytes(genesis, &transaction.sender, worker),
            signature: *consent,
        });
    }
    (id, claims)
}

/// Verifies a single transaction's signatures, as a mempool does; returns its id.
///
/// # Errors
/// The first signature that does not verify.
pub fn verify_transaction(signed: &SignedTransaction, genesis: &Hash) -> Result<Hash, BlockError> {
    let (id, claims) = transaction_claims(0, signed, genesis);
    first_bad(&claims, crate::crypto::verify::verify_each).map_or(Ok(id), Err)
}

fn verify_signatures(block: &Block, context: &Context<'_>) -> Result<Vec<Hash>, BlockError> {
    use rayon::prelude::*;
    let of_transactions: Vec<(Hash, Vec<Claim>)> = block
        .transactions
        .par_iter()
        .enumerate()
        .map(|(index, signed)| transaction_claims(index, signed, context.genesis))
        .collect();
    let mut ids = Vec::with_capacity(of_transactions.len());
    let mut claims = Vec::with_capacity(of_transactions.len());
    for (id, of_one) in of_transactions {
        ids.push(id);
        claims.extend(of_one);
    }
    claims.extend(
        block
            .attestations
            .iter()
            .enumerate()
            .map(|(index, signed)| Claim {
                what: "attestation",
                index,
                key: signed.attestation.worker,
                message: signed.attestation.sign_bytes(context.genesis),
                signature: signed.signature,
            }),
    );
    first_bad(&claims, |items| verify_batch(items, context.secret)).map_or(Ok(ids), Err)
}

fn first_bad(claims: &[Claim], verify: impl Fn(&[Item<'_>]) -> Vec<bool>) -> Option<BlockError> {
    let items: Vec<_> = claims
        .iter()
        .map(|claim| Item {
            key: claim.key.as_bytes(),
            message: &claim.message,
            signature: claim.signature.as_bytes(),
        })
        .collect();
    let bad = verify(&items).into_iter().position(|valid| !valid)?;
    claims.get(bad).map(|claim| BlockError::Signature {
        what: claim.what,
        index: claim.index,
        key: claim.key,
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
    let tree = tree_after(context.tree, &effects.writes);
    let receipts_root = crate::merkle::root(&check::encode_all(&effects.receipts));
    let assignments_root = crate::merkle::root(&check::encode_all(&effects.assignments));
    let header = &block.header;
    for (what, given, computed) in [
        ("assignments", header.assignments_root, assignments_root),
        ("receipts", header.receipts_root, receipts_root),
        ("state", header.state_root, tree.root()),
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
        tree,
    })
}

/// The state tree after a block's writes.
#[must_use]
pub fn tree_after(tree: &Tree, writes: &WriteSet) -> Tree {
    use rayon::prelude::*;
    let changes: Vec<(Hash, Option<Hash>)> = writes
        .writes
        .par_iter()
        .with_min_len(512)
        .map(|write| (write.key, write.new.as_deref().map(value_hash)))
        .collect();
    tree.update(&changes)
}
