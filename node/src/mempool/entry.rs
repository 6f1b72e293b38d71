//! A waiting transaction and what is derived from it once.

use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};

/// Tip per unit of weight, in 2^-32 grain: what a proposer gains from room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rate(u128);

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: Hash,
    pub(super) signed: SignedTransaction,
    /// Encoded.
    pub(super) bytes: usize,
    /// Of these, the module that it publishes.
    pub(super) program_bytes: usize,
    /// Fee and tip together.
    pub(super) cost: Amount,
    pub(super) rate: Rate,
    /// In order of arrival.
    pub(super) sequence: u64,
}

impl Entry {
    /// `None` when fee and tip do not fit into 64 bits.
    pub(super) fn new(
        signed: SignedTransaction,
        genesis: &Hash,
        base_fee: Amount,
        sequence: u64,
    ) -> Option<Self> {
        let bytes = codec::encode(&signed).len();
        let transaction = &signed.transaction;
        let weight = transaction.weight(bytes).get();
        let cost = base_fee.checked_mul(weight)?.checked_add(transaction.tip)?;
        let rate = (u128::from(transaction.tip.get()) << 32) / u128::from(weight.max(1));
        let program_bytes = match &transaction.action {
            Action::PublishProgram { module } => module.len(),
            _ => 0,
        };
        Some(Self {
            id: transaction.id(genesis),
            bytes,
            program_bytes,
            cost,
            rate: Rate(rate),
            sequence,
            signed,
        })
    }

    pub(super) const fn sender(&self) -> AccountId {
        self.signed.transaction.sender
    }

    pub(super) fn payer(&self) -> AccountId {
        self.signed.transaction.payer()
    }

    pub(super) const fn nonce(&self) -> Nonce {
        self.signed.transaction.nonce
    }

    pub(super) const fn tip(&self) -> Amount {
        self.signed.transaction.tip
    }

    pub(super) const fn expires_at(&self) -> Height {
        self.signed.transaction.expires_at
    }
}
