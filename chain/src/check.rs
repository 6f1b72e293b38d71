//! Rules that need no state, one function per rule.

use serde::Serialize;

use crate::codec;
use crate::crypto::verify::{KeyError, admit_encoding, admit_key};
use crate::merkle;
use crate::types::block::Block;
use crate::types::hash::{AccountId, Blob, Hash};
use crate::types::params::Params;
use crate::types::task::{
    AttestationMessage, INPUT_BYTES_MAX, OUTPUT_BYTES_MAX, PROGRAM_BYTES_MAX, Requirements,
    SignedAttestation, Statement, TaskSpec,
};
use crate::types::transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX, Transaction};
use crate::types::units::{Amount, Gas};
use crate::types::worker::{TAG_BYTES_MAX, TAGS_MAX, WorkerTerms};

/// Why a transaction is never valid, whatever the state: its sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Made for another chain.
    #[error("the transaction is for chain 0x{given}, this is 0x{expected}", given = hex::encode(given), expected = hex::encode(expected))]
    WrongChain {
        /// Prefix of the genesis hash it names.
        given: [u8; 4],
        /// Prefix of ours.
        expected: [u8; 4],
    },
    /// Too long.
    #[error("{given} bytes, at most {most}")]
    TooLong {
        /// Its length.
        given: usize,
        /// The most.
        most: usize,
    },
    /// A key that may not be admitted.
    #[error("{role} {key}: {error}")]
    Key {
        /// What the key is for.
        role: &'static str,
        /// The key.
        key: AccountId,
        /// Why not.
        error: KeyError,
    },
    /// A sponsor without its signature, or a signature without a sponsor.
    #[error("a sponsor's signature stands exactly where there is a sponsor")]
    SponsorSignature,
    /// The sender sponsors itself.
    #[error("the sponsor is the sender")]
    SponsorIsSender,
    /// More tip than fee.
    #[error("tip {tip} is above max_fee {max_fee}")]
    TipAboveMaxFee {
        /// Its tip.
        tip: Amount,
        /// Its most for fee and tip together.
        max_fee: Amount,
    },
    /// A field outside its range.
    #[error("{field}: {rule}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

/// Checks a transaction as far as that needs no state and no signature; returns its encoded
/// length.
///
/// # Errors
/// The first rule broken.
pub fn check_transaction(
    signed: &SignedTransaction,
    genesis: &Hash,
) -> Result<usize, TransactionError> {
    let bytes = codec::encode(signed).len();
    check_chain(signed.transaction.chain, genesis)?;
    admit_keys(&signed.transaction)?;
    check_form(signed, bytes, genesis)?;
    Ok(bytes)
}

/// [`check_transaction`] of `bytes` encoded bytes, but for one rule: whether its keys are points of the
/// curve, which costs more than all others together and which a signature or the state may tell.
///
/// # Errors
/// The first rule broken.
pub(crate) fn check_form(
    signed: &SignedTransaction,
    bytes: usize,
    genesis: &Hash,
) -> Result<(), TransactionError> {
    let transaction = &signed.transaction;
    check_chain(transaction.chain, genesis)?;
    for (role, key) in keys(transaction) {
        admit_encoding(key.as_bytes()).map_err(|error| key_error(role, key, error))?;
    }
    if transaction.sponsor == Some(transaction.sender) {
        return Err(TransactionError::SponsorIsSender);
    }
    if transaction.sponsor.is_some() != signed.sponsor_signature.is_some() {
        return Err(TransactionError::SponsorSignature);
    }
    if transaction.tip > transaction.max_fee {
        return Err(TransactionError::TipAboveMaxFee {
            tip: transaction.tip,
            max_fee: transaction.max_fee,
        });
    }
    check_action(&transaction.action)?;
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(TransactionError::TooLong {
            given: bytes,
            most: TRANSACTION_BYTES_MAX,
        });
    }
    Ok(())
}

/// Admits every key of a transaction.
pub(crate) fn admit_keys(transaction: &Transaction) -> Result<(), TransactionError> {
    for (role, key) in keys(transaction) {
        admit_key(key.as_bytes()).map_err(|error| key_error(role, key, error))?;
    }
    Ok(())
}

/// The keys that a transaction wants admitted, each with what it is for.
fn keys(transaction: &Transaction) -> impl Iterator<Item = (&'static str, &AccountId)> {
    let action = &transaction.action;
    let recipient = action.recipient().map(|key| ("recipient", key));
    let worker = action.consent().map(|(key, _)| ("worker", key));
    let sponsor = transaction.sponsor.as_ref().map(|key| ("sponsor", key));
    core::iter::once(("sender", &transaction.sender))
        .chain(sponsor)
        .chain(recipient)
        .chain(worker)
}

pub(crate) const fn key_error(
    role: &'static str,
    key: &AccountId,
    error: KeyError,
) -> TransactionError {
    TransactionError::Key {
        role,
        key: *key,
        error,
    }
}

fn check_chain(given: [u8; 4], genesis: &Hash) -> Result<(), TransactionError> {
    let expected = genesis.prefix();
    if given == expected {
        Ok(())
    } else {
        Err(TransactionError::WrongChain { given, expected })
    }
}

const fn require(
    holds: bool,
    field: &'static str,
    rule: &'static str,
) -> Result<(), TransactionError> {
    if holds {
        Ok(())
    } else {
        Err(TransactionError::Field { field, rule })
    }
}

fn check_action(action: &Action) -> Result<(), TransactionError> {
    match action {
        Action::Transfer { amount, .. } => {
            require(*amount > Amount::ZERO, "amount", "at least one grain")
        }
        Action::RegisterWorker { terms, .. } | Action::UpdateWorker { terms, .. } => {
            check_terms(terms)
        }
        Action::RetireWorker { .. } | Action::CancelTask { .. } => Ok(()),
        Action::PublishProgram { module } => check_blob("module", module, 1, PROGRAM_BYTES_MAX),
        Action::SubmitTask(spec) => check_spec(spec),
    }
}

fn check_blob(
    field: &'static str,
    blob: &Blob,
    least: usize,
    most: usize,
) -> Result<(), TransactionError> {
    require(blob.len() >= least, field, "not empty")?;
    require(
        blob.len() <= most,
        field,
        "longer than the chain takes (a module 1 MiB, an input 64 KiB)",
    )
}

pub(crate) fn check_terms(terms: &WorkerTerms) -> Result<(), TransactionError> {
    require(
        terms.gas_limit_max > Gas::ZERO,
        "terms.gas_limit_max",
        "at least 1",
    )?;
    require(
        terms.memory_pages_max > 0,
        "terms.memory_pages_max",
        "at least 1",
    )?;
    check_tags("terms.tags", &terms.tags)
}

/// Whether an order's fields are within their ranges, whatever the chain's parameters are.
///
/// # Errors
/// The first field that is not: the requester's fault.
pub fn check_spec(spec: &TaskSpec) -> Result<(), TransactionError> {
    check_blob("input", &spec.input, 0, INPUT_BYTES_MAX)?;
    require(spec.gas_limit > Gas::ZERO, "gas_limit", "at least 1")?;
    require(spec.memory_pages > 0, "memory_pages", "at least 1")?;
    require(spec.mode.seats() > 0, "mode.replicas", "at least 1")?;
    require(
        spec.price_per_mgas > Amount::ZERO,
        "price_per_mgas",
        "at least one grain",
    )?;
    require(spec.wait_max > 0, "wait_max", "at least 1")?;
    let Requirements { tags, .. } = &spec.requirements;
    check_tags("requirements.tags", tags)
}

fn check_tags(field: &'static str, tags: &[String]) -> Result<(), TransactionError> {
    require(tags.len() <= TAGS_MAX, field, "at most 16 tags")?;
    let ascending = tags
        .iter()
        .zip(tags.iter().skip(1))
        .all(|(earlier, later)| earlier < later);
    require(ascending, field, "sorted, each tag once")?;
    let worded = tags.iter().all(|tag| {
        !tag.is_empty()
            && tag.len() <= TAG_BYTES_MAX
            && tag
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    });
    require(
        worded,
        field,
        "each tag 1 to 32 lower-case letters, digits and hyphens",
    )
}

/// Why a block is invalid without a look at the state: its proposer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockCheckError {
    /// More of something than the parameters allow.
    #[error("{given} {what}, at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        given: usize,
        /// The most.
        most: usize,
    },
    /// A list's root is not the header's.
    #[error("the header's {0} root is not the list's")]
    Root(&'static str),
    /// The outputs are not in ascending order of hash, or one is empty or too long.
    #[error("outputs are not in ascending order of hash, or one is empty or too long")]
    Outputs,
    /// A transaction is never valid.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Which.
        index: usize,
        /// Why.
        error: TransactionError,
    },
}

/// Checks a block's counts and sizes.
///
/// # Errors
/// The first rule broken.
pub fn check_sizes(block: &Block, params: &Params) -> Result<(), BlockCheckError> {
    let at_most = |what, given: usize, most: u32| {
        let most = most as usize;
        if given > most {
            Err(BlockCheckError::TooMany { what, given, most })
        } else {
            Ok(())
        }
    };
    at_most(
        "transactions",
        block.transactions.len(),
        params.block_transactions_max,
    )?;
    at_most(
        "attestations",
        block.attestations.len(),
        params.block_attestations_max,
    )?;
    at_most(
        "bytes of programs",
        program_bytes(&block.transactions),
        params.block_program_bytes_max,
    )?;
    check_outputs(&block.outputs)
}

/// Checks that the roots of the lists that a block carries are its header's.
///
/// # Errors
/// The first that is not.
pub fn check_roots(block: &Block, roots: &Roots) -> Result<(), BlockCheckError> {
    let header = &block.header;
    for (name, given, computed) in [
        ("transactions", header.transactions_root, roots.transactions),
        ("assignments", header.assignments_root, roots.assignments),
        ("attestations", header.attestations_root, roots.attestations),
        ("evidence", header.evidence_root, roots.evidence),
    ] {
        if given != computed {
            return Err(BlockCheckError::Root(name));
        }
    }
    Ok(())
}

/// Bytes of program modules that transactions publish.
#[must_use]
pub fn program_bytes(transactions: &[SignedTransaction]) -> usize {
    transactions
        .iter()
        .map(|signed| signed.transaction.action.module().map_or(0, Blob::len))
        .fold(0, usize::saturating_add)
}

fn check_outputs(outputs: &[Blob]) -> Result<(), BlockCheckError> {
    let hashes: Vec<_> = outputs.iter().map(Blob::hash).collect();
    let ascending = hashes
        .iter()
        .zip(hashes.iter().skip(1))
        .all(|(earlier, later)| earlier < later);
    let sized = outputs
        .iter()
        .all(|output| !output.is_empty() && output.len() <= OUTPUT_BYTES_MAX);
    if ascending && sized {
        Ok(())
    } else {
        Err(BlockCheckError::Outputs)
    }
}

/// A leaf under the attestations' root. Its kind is encoded first, so that an attestation never reads as
/// an output, nor an output as an attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum AttestationLeaf<'a> {
    /// An attestation.
    Attestation(&'a SignedAttestation),
    /// The bytes of an output.
    Output(&'a Blob),
}

/// The roots of the lists that a block carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Of the transactions.
    pub transactions: Hash,
    /// Of the assignments.
    pub assignments: Hash,
    /// Of the attestations, then the outputs, each an [`AttestationLeaf`].
    pub attestations: Hash,
    /// Of the evidence: there is none.
    pub evidence: Hash,
}

impl Roots {
    /// Computes them from the lists.
    #[must_use]
    pub fn of(block: &Block) -> Self {
        Self::beside(merkle::root_of_values(&block.transactions), block)
    }

    /// Computes the others beside the transactions' root.
    #[must_use]
    pub fn beside(transactions: Hash, block: &Block) -> Self {
        let attestations = block.attestations.iter().map(AttestationLeaf::Attestation);
        let outputs = block.outputs.iter().map(AttestationLeaf::Output);
        let leaves: Vec<_> = attestations.chain(outputs).collect();
        Self {
            transactions,
            assignments: merkle::root_of_values(&block.assignments),
            attestations: merkle::root_of_values(&leaves),
            evidence: merkle::root::<Vec<u8>>(&[]),
        }
    }
}

/// Why an attestation message is never valid: its worker's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// The output is not the one that the reveal names.
    #[error("the output that comes with the attestation is not the one that it names")]
    Output,
    /// The output is too long.
    #[error("an output of {given} bytes, at most {most}")]
    OutputTooLong {
        /// Its length.
        given: usize,
        /// The most.
        most: usize,
    },
}

/// Checks that a message brings exactly the output that its attestation names.
///
/// # Errors
/// When it does not.
pub fn check_attestation(message: &AttestationMessage) -> Result<(), AttestationError> {
    if message.output.len() > OUTPUT_BYTES_MAX {
        return Err(AttestationError::OutputTooLong {
            given: message.output.len(),
            most: OUTPUT_BYTES_MAX,
        });
    }
    let named = match &message.signed.attestation.statement {
        Statement::Commit { .. } => Blob::default().hash(),
        Statement::Reveal { claim, .. } => claim.output_hash,
    };
    if message.output.hash() == named {
        Ok(())
    } else {
        Err(AttestationError::Output)
    }
}
