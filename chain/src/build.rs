//! Building a block: what a proposer does with its mempool.

use std::collections::BTreeMap;

use crate::check::Roots;
use crate::codec;
use crate::crypto::sign::SecretKey;
use crate::crypto::vrf;
use crate::execute::{BlockContext, Executor, Inadmissible, Outputs, Prepared, beacon_message};
use crate::pipeline::{Context, judge, tree_after};
use crate::state::StateError;
use crate::state::accounts::Accounts;
use crate::state::overlay::Overlay;
use crate::task::Void;
use crate::types::block::{Block, Certificate, Header, block_sign_bytes};
use crate::types::hash::{Blob, Hash, Signature, VrfOutput, VrfProof};
use crate::types::task::AttestationMessage;
use crate::types::transaction::{Action, SignedTransaction};
use crate::types::units::Round;

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

/// What became of the candidates.
#[derive(Clone, Debug)]
pub struct Built {
    /// The block, signed.
    pub block: Block,
    /// Its hash.
    pub hash: Hash,
    /// Transactions that do not fit this parent, with the reason; one whose nonce is ahead may fit
    /// a later one.
    pub refused: Vec<(Hash, Inadmissible)>,
    /// Attestations that are void on this parent; a reveal that is early may be good on a later one.
    pub void: Vec<(Hash, Void)>,
}

/// Builds and signs the block of `round` after the context's parent.
///
/// `time_ms` is the proposer's clock; the block's time is at least one more than its parent's.
///
/// # Errors
/// When the state cannot be read.
pub fn build(
    context: &Context<'_>,
    round: Round,
    time_ms: u64,
    key: &SecretKey,
    beacon_key: &SecretKey,
    candidates: Candidates,
) -> Result<Built, StateError> {
    let mut overlay = Overlay::new(context.state);
    let chain = overlay.chain()?;
    let validators = overlay.validators()?;
    let height = context.parent_height.next();
    let proposer = validators.proposer(height, round);
    let time_ms = time_ms.max(chain.time_ms.saturating_add(1));
    let message = beacon_message(context.genesis, &chain.beacon, height);
    let (beacon_proof, beacon_output) = vrf::prove(beacon_key, &message);
    let accounts = Accounts::load(context.state, &candidates.transactions)?;
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
            last_certificate_hash: candidates
                .certificate
                .as_ref()
                .map_or(Hash::ZERO, Certificate::hash),
        },
        proposer_signature: Signature::new([0; 64]),
        transactions: Vec::new(),
        assignments: executor.assignments().to_vec(),
        attestations: Vec::new(),
        outputs: Vec::new(),
        last_certificate: candidates.certificate,
    };
    block.header.beacon_output = beacon_output;
    block.header.beacon_proof = beacon_proof;
    let mut room = Room::of(context, &block);
    let void = include_attestations(
        &mut executor,
        context,
        &mut block,
        &mut room,
        candidates.attestations,
    )?;
    let refused = include_transactions(
        &mut executor,
        context,
        &mut block,
        &mut room,
        candidates.transactions,
        &accounts,
    )?;
    let effects = executor.finish(block.outputs.clone())?;
    let roots = Roots::of(&block);
    block.header.transactions_root = roots.transactions;
    block.header.assignments_root = roots.assignments;
    block.header.attestations_root = roots.attestations;
    block.header.evidence_root = roots.evidence;
    block.header.receipts_root = crate::merkle::root_of_values(&effects.receipts);
    block.header.state_root = tree_after(context.tree, &effects.writes).root();
    let hash = block.header.hash();
    block.proposer_signature = key.sign(&block_sign_bytes(&hash));
    Ok(Built {
        block,
        hash,
        refused,
        void,
    })
}

/// What still fits into the block.
struct Room {
    bytes: usize,
    transactions: usize,
    attestations: usize,
    program_bytes: usize,
}

impl Room {
    fn of(context: &Context<'_>, block: &Block) -> Self {
        let params = context.rules.params();
        Self {
            bytes: (params.block_bytes_max as usize).saturating_sub(codec::encode(block).len()),
            transactions: params.block_transactions_max as usize,
            attestations: params.block_attestations_max as usize,
            program_bytes: params.block_program_bytes_max as usize,
        }
    }
}

fn include_attestations(
    executor: &mut Executor<'_>,
    context: &Context<'_>,
    block: &mut Block,
    room: &mut Room,
    candidates: Vec<AttestationMessage>,
) -> Result<Vec<(Hash, Void)>, StateError> {
    /// Length prefix of an output in the block.
    const PREFIX: usize = 8;
    let mut void = Vec::new();
    let mut carried: BTreeMap<Hash, Blob> = BTreeMap::new();
    let mut outputs = Outputs::default();
    for AttestationMessage { signed, output } in candidates {
        let needed = codec::encode(&signed)
            .len()
            .saturating_add(output.len())
            .saturating_add(PREFIX);
        let (Some(bytes), Some(left)) = (
            room.bytes.checked_sub(needed),
            room.attestations.checked_sub(1),
        ) else {
            break;
        };
        match executor.attestation(&signed, &mut outputs)? {
            Err(error) => void.push((signed.attestation.id(context.genesis), error)),
            Ok(()) => {
                room.bytes = bytes;
                room.attestations = left;
                block.attestations.push(signed);
                if !output.is_empty() {
                    carried.insert(output.hash(), output);
                }
            }
        }
    }
    block.outputs = outputs
        .needed()
        .filter_map(|hash| carried.remove(hash))
        .collect();
    Ok(void)
}

fn include_transactions(
    executor: &mut Executor<'_>,
    context: &Context<'_>,
    block: &mut Block,
    room: &mut Room,
    candidates: Vec<SignedTransaction>,
    accounts: &Accounts,
) -> Result<Vec<(Hash, Inadmissible)>, StateError> {
    let mut refused = Vec::new();
    let machine_version = context.rules.params().machine_version;
    for (candidate, signed) in candidates.into_iter().enumerate() {
        let length = codec::encode(&signed).len();
        let module = match &signed.transaction.action {
            Action::PublishProgram { module } => module.len(),
            _ => 0,
        };
        let (Some(bytes), Some(program_bytes), Some(left)) = (
            room.bytes.checked_sub(length),
            room.program_bytes.checked_sub(module),
            room.transactions.checked_sub(1),
        ) else {
            continue;
        };
        let prepared = Prepared {
            signed: &signed,
            id: signed.transaction.id(context.genesis),
            bytes: length,
            program: judge(&signed, context.machine, machine_version),
            slots: accounts.slots(candidate),
        };
        match executor.transaction(&prepared)? {
            Err(error) => refused.push((prepared.id, error)),
            Ok(()) => {
                room.bytes = bytes;
                room.program_bytes = program_bytes;
                room.transactions = left;
                block.transactions.push(signed);
            }
        }
    }
    Ok(refused)
}
