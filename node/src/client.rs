//! A node as its users see it: typed calls, and a wallet that makes, sends and follows
//! transactions.
//!
//! ```no_run
//! use proofmill_chain::types::transaction::Action;
//! use proofmill_chain::types::units::Amount;
//! use proofmill_node::client::{Client, Options, Wallet};
//! use proofmill_node::keys;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:26650/rpc")?;
//! let to = keys::generate()?.public();
//! let key = keys::read("alice.json".as_ref())?;
//! let genesis = client.node_info()?.genesis_hash;
//! let wallet = Wallet::new(client, genesis, key);
//! let amount = Amount::new(1_000);
//! let sent = wallet.send(&Action::Transfer { to, amount }, &Options::default())?;
//! let receipt = wallet.wait_included(&sent)?;
//! println!("in block {}", receipt.height);
//! # Ok(())
//! # }
//! ```

mod calls;
mod delivery;
mod wallet;

pub use calls::Client;
pub use delivery::{RESENDS_MAX, Sent};
pub use wallet::{EXPIRES_IN, HALT_MAX, Options, RACES_MAX, Wallet, fee, spends};

use std::time::{Duration, Instant};

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Amount, Height, Weight};
use proofmill_rpc::api::FailureView;
use proofmill_rpc::client::ClientError;

/// How long a node that answered before may be unreachable before waiting for it ends.
pub const OUTAGE_MAX: Duration = Duration::from_secs(20);
/// Between two looks at a node.
pub const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Why something asked of a chain did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node could not be asked, or refused.
    #[error("{0}{hint}", hint = hint(.0))]
    Call(ClientError),
    /// The sender or the sponsor has not enough.
    #[error("{account} has {} ({available} grain), {} ({needed} grain) are needed: {what}", .available.in_mill(), .needed.in_mill())]
    Balance {
        /// Who pays.
        account: AccountId,
        /// What for.
        what: &'static str,
        /// What it takes.
        needed: Amount,
        /// What there is.
        available: Amount,
    },
    /// The fee is above what the caller would pay.
    #[error("the fee and tip are {needed} grain, --max-fee allows {max_fee} grain")]
    MaxFee {
        /// What it takes.
        needed: Amount,
        /// The caller's most.
        max_fee: Amount,
    },
    /// The fee does not fit into 64 bits.
    #[error("weight {weight} at {base_fee} grain is a fee beyond 64 bits")]
    FeeOverflow {
        /// The transaction's weight.
        weight: Weight,
        /// Grain per unit of weight.
        base_fee: Amount,
    },
    /// The transaction did not come into a block in time and never will.
    #[error("transaction {transaction} was not included before it expired at height {expires_at}")]
    Expired {
        /// The transaction.
        transaction: Hash,
        /// The last height that could include it.
        expires_at: Height,
    },
    /// The answer to a transaction was lost and the node could not say afterwards whether it has
    /// the transaction.
    #[error(
        "it is unknown whether transaction {transaction} was accepted: {cause}; `proofmill query tx \
         {transaction}` tells. It can be included until block {expires_at}: sending a new transaction \
         before that could pay twice"
    )]
    OutcomeUnknown {
        /// The transaction.
        transaction: Hash,
        /// The last height that may include it.
        expires_at: Height,
        /// The last answer, or the lack of one.
        cause: Box<Self>,
    },
    /// The transaction is in a block, where it took its fee and had no other effect.
    #[error("transaction {transaction} failed in block {height}: {}", .failure.message)]
    Failed {
        /// The transaction.
        transaction: Hash,
        /// The block.
        height: Height,
        /// Why.
        failure: FailureView,
    },
    /// The node's chain does not move.
    #[error("the chain stands at height {height} for {} s; transaction {transaction} is not included", .after.as_secs())]
    Halted {
        /// The transaction.
        transaction: Hash,
        /// Where the chain stands.
        height: Height,
        /// Since when.
        after: Duration,
    },
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Call(error)
    }
}

impl Error {
    /// The error's name: as in the node's catalogue (`TX_NONCE_GAP`) when the node refused, else
    /// one of this client's own (`CONNECT`, `INSUFFICIENT_BALANCE`, ...).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Call(ClientError::Rpc(error)) => error.name(),
            Self::Call(ClientError::Url { .. }) => "BAD_URL",
            Self::Call(ClientError::Connect { .. }) => "CONNECT",
            Self::Call(ClientError::Timeout { .. }) => "NO_ANSWER",
            Self::Call(ClientError::Broken { .. }) => "CONNECTION_BROKEN",
            Self::Call(ClientError::Http { .. }) => "HTTP_STATUS",
            Self::Call(ClientError::Malformed { .. }) => "MALFORMED_ANSWER",
            Self::Balance { .. } => "INSUFFICIENT_BALANCE",
            Self::MaxFee { .. } => "MAX_FEE_TOO_LOW",
            Self::FeeOverflow { .. } => "FEE_OVERFLOW",
            Self::Expired { .. } => "TX_EXPIRED",
            Self::OutcomeUnknown { .. } => "OUTCOME_UNKNOWN",
            Self::Failed { .. } => "TX_FAILED",
            Self::Halted { .. } => "CHAIN_HALTED",
        }
    }

    /// The name of the failure that a node foresaw when it refused a transaction, as
    /// `program_exists`; empty for every other error.
    #[must_use]
    pub fn foreseen(&self) -> &str {
        match self {
            Self::Call(ClientError::Rpc(error)) => error
                .data
                .get("failure")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default(),
            _ => "",
        }
    }

    /// Whether the same call may succeed in a moment: the node is away, starting or overloaded, or
    /// something between us and the node is.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Call(ClientError::Rpc(error)) => {
                matches!(error.name(), "NOT_READY" | "OVERLOADED" | "TIMEOUT")
            }
            Self::Call(ClientError::Http { status, .. }) => is_passing_status(*status),
            Self::Call(error) => matches!(
                error,
                ClientError::Connect { .. }
                    | ClientError::Timeout { .. }
                    | ClientError::Broken { .. }
            ),
            _ => false,
        }
    }

    /// Whether the node may have performed the call although it gave no usable answer.
    #[must_use]
    pub fn may_have_been_performed(&self) -> bool {
        match self {
            Self::Call(ClientError::Rpc(error)) => matches!(error.name(), "TIMEOUT"),
            Self::Call(ClientError::Http { status, .. }) => is_passing_status(*status),
            Self::Call(error) => matches!(
                error,
                ClientError::Timeout { .. }
                    | ClientError::Broken { .. }
                    | ClientError::Malformed { .. }
            ),
            _ => false,
        }
    }
}

/// Whether an HTTP status says nothing about the call itself: 408, 429 and every 5xx.
const fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// What to do about an error, as the end of its sentence.
fn hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { .. } => {
            "; is a devnet running? start one with `make devnet`, or name another node with --rpc"
        }
        ClientError::Http { status, .. } if is_passing_status(*status) => {
            "; the node, or a proxy before it, is overloaded or starting: try again"
        }
        ClientError::Http { .. } | ClientError::Malformed { .. } => {
            "; is this a proofmill node of this version?"
        }
        ClientError::Rpc(error) => match error.name() {
            "TX_WRONG_CHAIN" => {
                "; the node at --rpc changed to another chain meanwhile: run the command again"
            }
            "TX_INSUFFICIENT_BALANCE" => "; on a devnet `proofmill tx faucet --to NAME` gives some",
            "TX_FEE_TOO_LOW" => "; leave --max-fee out to pay what the chain asks",
            "MEMPOOL_FULL" => "; wait for a few blocks and run the command again",
            "NOT_READY" => "; `proofmill query node` says how far it is",
            _ => "",
        },
        _ => "",
    }
}

/// Tolerates a node's absence while waiting for something, for up to [`OUTAGE_MAX`] at a time.
#[derive(Debug, Default)]
pub struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// The answer, `None` when the node is away for the moment.
    ///
    /// # Errors
    /// When the error will not pass or lasts too long.
    pub fn bear<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match answer {
            Ok(answer) => {
                self.since = None;
                Ok(Some(answer))
            }
            Err(error) if error.is_passing() => {
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() < OUTAGE_MAX {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }
}
