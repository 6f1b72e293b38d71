//! Building a block: what a proposer does with its mempool.
//!
//! Candidates are drawn one after the other until the block is full; what is refused makes room for the
//! next. The block is valid whatever the candidates, and a function of them, their order and the parent.

mod fill;
mod signer;
mod source;

use self::fill::{Filled, Filling, Room, draw_block, signed};
pub use self::signer::{BuildError, ProposerSigner, UnguardedKeys, Unsigned};
use self::source::Listed;
pub use self::source::TransactionSource;
use crate::check::Roots;
use crate::execute::{BlockContext, Executor, Inadmissible};
use crate::merkle;
use crate::pipeline::{Context, tree_after};
use crate::state::accounts::Accounts;
use crate::state::overlay::Overlay;
use crate::task::Void;
use crate::types::block::{Block, Certificate, Header};
use crate::types::hash::{Hash, Signature, VrfOutput, VrfProof};
use crate::types::task::AttestationMessage;
use crate::types::transaction::SignedTransaction;
use crate::types::units::Round;

/// Most candidates that are tried and refused while a block is built.
pub const REFUSED_MAX: usize = 16_384;
/// Most candidates that are larger than what is left of a block while it is built; then it is nearly full. A
/// module that does not fit beside other modules is not counted: the block may have room for everything
/// else, passing it over costs a lookup, and a pool has no more than it may hold.
pub const MISFITS_MAX: usize = 1_024;

/// What a proposer has to build from, as a mempool admits it: [`check_transaction`](crate::check::check_transaction),
/// [`check_attestation`](crate::check::check_attestation) and the signatures are taken as passed and not looked at again.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Transactions in the order of preference, each sender's by nonce.
    pub transactions: Vec<SignedTransaction>,
    /// Attestations with their outputs.
    pub attestations: Vec<AttestationMessage>,
    /// The parent's certificate; `None` for the first block.
    pub certificate: Option<Certificate>,
}

/// [`Candidates`] of which the transactions are drawn as the block fills.
pub struct Offer<'a> {
    /// Transactions.
    pub transactions: &'a mut dyn TransactionSource,
    /// Attestations with their outputs.
    pub attestations: Vec<AttestationMessage>,
    /// The parent's certificate; `None` for the first block.
    pub certificate: Option<Certificate>,
}

/// What became of the candidates.
#[derive(Clone, Debug)]
pub struct Built {
    /// The block, signed.
    pub block: Block,
    /// Its hash.
    pub hash: Hash,
    /// Transactions that do not fit this parent, with the reason; one whose nonce is ahead may fit
    /// a later one. Candidates that were not drawn are not among them.
    pub refused: Vec<(Hash, Inadmissible)>,
    /// Attestations that are void on this parent; a reveal that is early may be good on a later one.
    pub void: Vec<(Hash, Void)>,
}

/// Builds and signs the block of `round` after the context's parent.
///
/// `time_ms` is the proposer's clock; the block's time is at least one more than its parent's.
///
/// # Errors
/// When the state cannot be read, or the signer declines.
pub fn build(
    context: &Context<'_>,
    round: Round,
    time_ms: u64,
    signer: &dyn ProposerSigner,
    candidates: Candidates,
) -> Result<Built, BuildError> {
    let offer = Offer {
        transactions: &mut Listed::new(candidates.transactions, context.genesis),
        attestations: candidates.attestations,
        certificate: candidates.certificate,
    };
    build_from(context, round, time_ms, signer, offer)
}

/// [`build`] from candidates that are drawn as the block fills.
///
/// # Errors
/// When the state cannot be read, or the signer declines.
pub fn build_from(
    context: &Context<'_>,
    round: Round,
    time_ms: u64,
    signer: &dyn ProposerSigner,
    offer: Offer<'_>,
) -> Result<Built, BuildError> {
    let mut overlay = Overlay::new(context.state);
    let chain = overlay.chain()?;
    let validators = overlay.validators()?;
    let height = context.parent_height.next();
    let proposer = validators.proposer(height, round);
    let time_ms = time_ms.max(chain.time_ms.saturating_add(1));
    let (beacon_proof, beacon_output) =
        signer.prove_beacon(context.genesis, &chain.beacon, height)?;
    let drawn = draw_block(Room::all(context.rules.params()), offer.transactions);
    let accounts = Accounts::load(context.state, &signed(&drawn))?;
    let mut executor = Executor::begin(
        context.state,
        BlockContext {
            genesis: context.genesis,
            params: context.rules.params(),
            height,
            time_ms,
            beacon_output: &beacon_output,
            reward: proposer.reward,
        },
        &accounts,
    )?;
    let mut block = Block {
        header: Header {
            version: context.rules.version(),
            chain: *context.genesis,
            height,
            round,
            time_ms,
            parent: *context.parent,
            proposer: proposer.key,
            transactions_root: Hash::ZERO,
            assignments_root: Hash::ZERO,
            attestations_root: Hash::ZERO,
            evidence_root: Hash::ZERO,
            receipts_root: Hash::ZERO,
            state_root: Hash::ZERO,
            validators_hash: validators.hash(),
            next_validators_hash: validators.hash(),
            params_hash: context.rules.params_hash(),
            base_fee: context.rules.params().base_fee,
            beacon_output: VrfOutput::new([0; 64]),
            beacon_proof: VrfProof::new([0; 80]),
            last_certificate_hash: offer
                .certificate
                .as_ref()
                .map_or(Hash::ZERO, Certificate::hash),
        },
        proposer_signature: Signature::new([0; 64]),
        transactions: Vec::new(),
        assignments: executor.assignments().to_vec(),
        attestations: Vec::new(),
        outputs: Vec::new(),
        last_certificate: offer.certificate,
    };
    block.header.beacon_output = beacon_output;
    block.header.beacon_proof = beacon_proof;
    let room = Room::of(context, &block);
    let mut filling = Filling::new(&mut executor, context, &mut block, room);
    let void = filling.attestations(offer.attestations)?;
    filling.transactions(drawn, &accounts, offer.transactions)?;
    let Filled { leaves, refused } = filling.end();
    let effects = executor.finish(block.outputs.clone())?;
    let roots = Roots::beside(merkle::root_of_hashes(leaves), &block);
    block.header.transactions_root = roots.transactions;
    block.header.assignments_root = roots.assignments;
    block.header.attestations_root = roots.attestations;
    block.header.evidence_root = roots.evidence;
    block.header.receipts_root = merkle::root_of_values(&effects.receipts);
    block.header.state_root = tree_after(context.tree, &effects.writes).root();
    let hash = block.header.hash();
    block.proposer_signature = signer.sign_header(&block.header)?;
    Ok(Built {
        block,
        hash,
        refused,
        void,
    })
}
