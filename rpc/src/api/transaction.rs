//! Transactions, receipts and attestations, as callers see them.

use std::fmt;
use std::str::FromStr;

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Height};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Bytes in hex, as a sent transaction or attestation comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl FromStr for Hex {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").ok_or_else(|| {
            let c = text.chars().next().unwrap_or(' ');
            hex::FromHexError::InvalidHexCharacter { c, index: 0 }
        })?;
        hex::decode(digits).map(Self)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of a sent transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendStatus {
    /// The node took it and passes it on.
    Pending,
    /// The node had it already, pending or in a block.
    Known,
}

/// The answer to a sent transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionSent {
    /// Its id.
    pub transaction: Hash,
    /// What became of it.
    pub status: SendStatus,
}

/// The answer to a sent attestation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationSent {
    /// Its id.
    pub attestation: Hash,
}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionStatus {
    /// It waits for a block.
    Pending,
    /// It is in a final block.
    Included,
    /// The node does not know it.
    Unknown,
}

/// A transaction and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionView {
    /// Its id.
    pub transaction: Hash,
    /// Where it is.
    pub status: TransactionStatus,
    /// The block's height, when it is included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Height>,
    /// Its index in the block, when it is included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The transaction, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<SignedTransaction>,
    /// Its wire encoding, when it is known: who has the id can verify that it is this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Hex>,
}

/// Whether a transaction did what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptResult {
    /// It did.
    Applied,
    /// The fee was taken, nothing else happened.
    Failed,
}

/// Why a transaction failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureView {
    /// The reason's name, as `insufficient_balance`.
    pub code: String,
    /// The reason for people.
    pub message: String,
    /// The values that matter.
    pub details: Map<String, Value>,
}

impl From<&Failure> for FailureView {
    fn from(failure: &Failure) -> Self {
        let message = failure.to_string();
        let (code, details) = match serde_json::to_value(failure) {
            Ok(Value::Object(variant)) => variant
                .into_iter()
                .next()
                .map(|(code, details)| (code, details.as_object().cloned().unwrap_or_default()))
                .unwrap_or_default(),
            Ok(Value::String(code)) => (code, Map::new()),
            _ => <(String, Map<String, Value>)>::default(),
        };
        Self {
            code,
            message,
            details,
        }
    }
}

/// What became of a transaction in a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// The transaction.
    pub transaction: Hash,
    /// The block's height.
    pub height: Height,
    /// The block's hash.
    pub block: Hash,
    /// Index in the block.
    pub index: u32,
    /// Who paid.
    pub payer: AccountId,
    /// Burned.
    pub fee: Amount,
    /// To the proposer.
    pub tip: Amount,
    /// Whether the transaction did what it says.
    pub result: ReceiptResult,
    /// Why not, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

impl ReceiptView {
    /// The view of a receipt in `block`.
    #[must_use]
    pub fn of(receipt: &Receipt, block: Hash) -> Self {
        let (result, failure) = match &receipt.outcome {
            Outcome::Applied => (ReceiptResult::Applied, None),
            Outcome::Failed { failure } => (ReceiptResult::Failed, Some(failure.into())),
        };
        Self {
            transaction: receipt.transaction,
            height: receipt.height,
            block,
            index: receipt.index,
            payer: receipt.payer,
            fee: receipt.fee,
            tip: receipt.tip,
            result,
            failure,
        }
    }
}
