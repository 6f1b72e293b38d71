//! Why a transaction does not wait.

use proofmill_chain::state::StateError;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Amount, Height, Nonce};

/// Why a transaction is not taken. All but [`InsertError::State`] are the sender's doing, or the
/// network's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// It waits already.
    #[error("transaction {id} is known")]
    Known {
        /// Its id.
        id: Hash,
    },
    /// It is larger than any transaction may be.
    #[error("transaction of {given} bytes, at most {most}")]
    TooLarge {
        /// Its size.
        given: usize,
        /// The most.
        most: usize,
    },
    /// It can not be in the next block any more.
    #[error("transaction expired at height {expires_at}, the chain is at {height}")]
    Expired {
        /// The last height that might include it.
        expires_at: Height,
        /// The last block.
        height: Height,
    },
    /// What it gives at most does not cover fee and tip.
    #[error("fee and tip are {needed} grain, max_fee is {max_fee}")]
    FeeTooLow {
        /// Base fee times weight, and the tip.
        needed: Amount,
        /// What it gives at most.
        max_fee: Amount,
    },
    /// Its nonce is in the chain already.
    #[error("expected nonce {expected}, got {received}")]
    NonceTooLow {
        /// The sender's next.
        expected: Nonce,
        /// The transaction's.
        received: Nonce,
    },
    /// A transaction before it is missing.
    #[error("expected nonce {expected}, got {received}: the ones between are missing")]
    NonceGap {
        /// The next after those that wait.
        expected: Nonce,
        /// The transaction's.
        received: Nonce,
    },
    /// Another transaction with this nonce waits and its tip is not much lower.
    #[error(
        "another transaction has this nonce; to replace it a tip of {needed} is needed, got {given}"
    )]
    ReplacementTipTooLow {
        /// The least tip that replaces.
        needed: Amount,
        /// The transaction's.
        given: Amount,
    },
    /// A module with this nonce waits, and the transaction is not the same module for at least as long.
    #[error(
        "transaction {waiting} has this nonce and publishes a module: only the same module, good until height \
         {expires_at} at least, replaces it"
    )]
    ModuleStays {
        /// The transaction that waits.
        waiting: Hash,
        /// The last height that might include it.
        expires_at: Height,
    },
    /// An account's balance does not cover what the transaction takes from it beside what pending
    /// transactions take.
    #[error(
        "the transaction takes {needed} grain from {account}, {available} are available beside its pending transactions"
    )]
    InsufficientBalance {
        /// Whose balance: the sender's or the sponsor's.
        account: AccountId,
        /// Fee and tip if the account pays them, and what the action spends if the account sends it.
        needed: Amount,
        /// Balance less what pending transactions take.
        available: Amount,
    },
    /// The sender has as many waiting transactions as it may.
    #[error("{most} transactions of this sender wait, the most there may be")]
    SenderFull {
        /// The most.
        most: usize,
    },
    /// The sender's waiting transactions have as many bytes as they may.
    #[error(
        "with the transaction {given} bytes of this sender would wait, at most {most}; later, when some are included"
    )]
    SenderBytes {
        /// Bytes of those that wait, and the transaction's.
        given: usize,
        /// The most.
        most: usize,
    },
    /// The pool is full of transactions that pay no less.
    #[error("the memory pool is full; a higher tip may find room")]
    Full,
    /// The state could not be read; our own fault.
    #[error(transparent)]
    State(#[from] StateError),
}
