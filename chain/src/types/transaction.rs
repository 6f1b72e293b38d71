//! Transactions: what a sender signs (protocol §3).

use serde::{Deserialize, Serialize};

use crate::crypto::sha256::Prefix;
use crate::types::hash::{AccountId, Blob, Hash, Signature};
use crate::types::task::TaskSpec;
use crate::types::units::{Amount, Height, Nonce, Weight};
use crate::types::worker::WorkerTerms;

/// Largest encoded signed transaction: a program of the largest size and room for the rest.
pub const TRANSACTION_BYTES_MAX: usize = (1 << 20) + 4096;

/// What the bytes begin with that a sender signs.
pub(crate) const TRANSACTION_TAG: &[u8] = b"proofmill/transaction/v1";
/// What the bytes begin with that a sponsor signs.
pub(crate) const SPONSOR_TAG: &[u8] = b"proofmill/sponsor/v1";

/// What a transaction's id is hashed under.
const ID_TAG: &str = "proofmill/transaction-id/v1";

/// What the hash begins with that is a transaction's id; its unsigned encoding follows.
pub(crate) fn id_prefix(genesis: &Hash) -> Prefix {
    Prefix::new(&[ID_TAG.as_bytes(), TRANSACTION_TAG, genesis.as_bytes()])
}

/// The id of the transaction with this unsigned encoding.
pub(crate) fn id_of(unsigned: &[u8], genesis: &Hash) -> Hash {
    Hash::of(ID_TAG, &[TRANSACTION_TAG, genesis.as_bytes(), unsigned])
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Moves grain from the sender to another account.
    Transfer {
        /// Who receives.
        to: AccountId,
        /// How much, at least one grain.
        amount: Amount,
    },
    /// The sender, as operator, registers a worker and puts up its collateral.
    RegisterWorker {
        /// The worker's own key, which signs its attestations.
        worker: AccountId,
        /// What the worker offers.
        terms: WorkerTerms,
        /// Collateral taken from the sender's balance.
        collateral: Amount,
        /// The worker's consent: its signature over [`worker_consent_bytes`].
        consent: Signature,
    },
    /// The operator changes what its worker offers and may add collateral.
    UpdateWorker {
        /// Which worker.
        worker: AccountId,
        /// The new terms, whole.
        terms: WorkerTerms,
        /// Collateral added from the sender's balance, may be zero.
        add_collateral: Amount,
    },
    /// The operator withdraws its worker; the collateral returns once no seat is held.
    RetireWorker {
        /// Which worker.
        worker: AccountId,
    },
    /// Puts a program into the chain under its content address.
    PublishProgram {
        /// The WebAssembly module.
        module: Blob,
    },
    /// Orders a computation and pays its escrow.
    SubmitTask(TaskSpec),
    /// Takes back a task that no worker has been drawn for.
    CancelTask {
        /// The task: the id of the transaction that submitted it.
        task: Hash,
    },
}

impl Action {
    /// The action's name, as in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transfer { .. } => "transfer",
            Self::RegisterWorker { .. } => "register_worker",
            Self::UpdateWorker { .. } => "update_worker",
            Self::RetireWorker { .. } => "retire_worker",
            Self::PublishProgram { .. } => "publish_program",
            Self::SubmitTask(_) => "submit_task",
            Self::CancelTask { .. } => "cancel_task",
        }
    }

    /// The module that the action publishes.
    #[must_use]
    pub const fn module(&self) -> Option<&Blob> {
        match self {
            Self::PublishProgram { module } => Some(module),
            Self::Transfer { .. }
            | Self::RegisterWorker { .. }
            | Self::UpdateWorker { .. }
            | Self::RetireWorker { .. }
            | Self::SubmitTask(_)
            | Self::CancelTask { .. } => None,
        }
    }

    /// The account that the action pays into, which signs nothing.
    #[must_use]
    pub const fn recipient(&self) -> Option<&AccountId> {
        match self {
            Self::Transfer { to, .. } => Some(to),
            Self::RegisterWorker { .. }
            | Self::UpdateWorker { .. }
            | Self::RetireWorker { .. }
            | Self::PublishProgram { .. }
            | Self::SubmitTask(_)
            | Self::CancelTask { .. } => None,
        }
    }

    /// The key that consents to the action beside its sender, and its signature.
    #[must_use]
    pub const fn consent(&self) -> Option<(&AccountId, &Signature)> {
        match self {
            Self::RegisterWorker {
                worker, consent, ..
            } => Some((worker, consent)),
            Self::Transfer { .. }
            | Self::UpdateWorker { .. }
            | Self::RetireWorker { .. }
            | Self::PublishProgram { .. }
            | Self::SubmitTask(_)
            | Self::CancelTask { .. } => None,
        }
    }

    /// The fixed part of the action's weight, before its bytes (protocol §3).
    const fn base_weight(&self) -> u64 {
        match self {
            Self::Transfer { .. } => 100,
            Self::RegisterWorker { .. } => 500,
            Self::UpdateWorker { .. } | Self::RetireWorker { .. } | Self::CancelTask { .. } => 200,
            Self::PublishProgram { .. } => 2_000,
            Self::SubmitTask(_) => 1_000,
        }
    }
}

/// An unsigned transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// First four bytes of the genesis hash, so that a transaction of another chain is told apart
    /// from a forged one. The whole genesis hash is in the signed bytes.
    pub chain: [u8; 4],
    /// Who signs and acts.
    pub sender: AccountId,
    /// The sender's count of included transactions.
    pub nonce: Nonce,
    /// The most the payer gives for fee and tip together.
    pub max_fee: Amount,
    /// What the proposer gets for including it.
    pub tip: Amount,
    /// The last height whose block may include it.
    pub expires_at: Height,
    /// Who pays the fee in the sender's place.
    pub sponsor: Option<AccountId>,
    /// What it does.
    pub action: Action,
}

/// A transaction with its signatures, as it travels and stands in blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTransaction {
    /// What is signed.
    pub transaction: Transaction,
    /// The sender's signature over [`Transaction::sign_bytes`].
    pub signature: Signature,
    /// The sponsor's signature over [`Transaction::sponsor_sign_bytes`], exactly when there is a
    /// sponsor.
    pub sponsor_signature: Option<Signature>,
}

impl Transaction {
    /// The account the fee is taken from.
    #[must_use]
    pub fn payer(&self) -> AccountId {
        self.sponsor.unwrap_or(self.sender)
    }

    /// What the sender signs: a domain tag, the genesis hash and the encoded transaction.
    #[must_use]
    pub fn sign_bytes(&self, genesis: &Hash) -> Vec<u8> {
        self.tagged(TRANSACTION_TAG, genesis)
    }

    /// What the sponsor signs: the same under a tag of its own.
    #[must_use]
    pub fn sponsor_sign_bytes(&self, genesis: &Hash) -> Vec<u8> {
        self.tagged(SPONSOR_TAG, genesis)
    }

    /// The transaction's id: a hash of the unsigned transaction, never of a signature.
    #[must_use]
    pub fn id(&self, genesis: &Hash) -> Hash {
        id_of(&crate::codec::encode(self), genesis)
    }

    /// The weight that the fee is proportional to: the action's own plus one per encoded byte.
    #[must_use]
    pub fn weight(&self, encoded_bytes: usize) -> Weight {
        Weight::new(
            self.action
                .base_weight()
                .saturating_add(encoded_bytes as u64),
        )
    }

    fn tagged(&self, tag: &[u8], genesis: &Hash) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(genesis.as_bytes());
        crate::codec::encode_into(self, &mut bytes);
        bytes
    }
}

/// What a worker's key signs to consent to be registered by `operator`.
#[must_use]
pub fn worker_consent_bytes(genesis: &Hash, operator: &AccountId, worker: &AccountId) -> Vec<u8> {
    let mut bytes = b"proofmill/worker-consent/v1".to_vec();
    bytes.extend_from_slice(genesis.as_bytes());
    bytes.extend_from_slice(operator.as_bytes());
    bytes.extend_from_slice(worker.as_bytes());
    bytes
}
