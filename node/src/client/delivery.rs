//! Getting a signed transaction to a node although answers get lost.
//!
//! A transaction is named by its id and valid once, so the identical bytes may be sent any number
//! of times. When an answer is lost (a time-out, a reset connection, half an answer, a proxy's 5xx)
//! the node is asked for the id; only if it does not know the id are the same bytes sent again. A new
//! transaction is never made while the old one may still be included.

use std::thread;

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Height};
use proofmill_rpc::api::TransactionStatus;
use proofmill_rpc::client::ClientError;

use crate::client::{Client, Error, LOOK_EVERY, Patience};

/// Most times the bytes of one transaction are sent again after their answer was lost.
pub const RESENDS_MAX: u32 = 5;

/// A transaction that was sent, or is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub transaction: Hash,
    /// The last height that may include it.
    pub expires_at: Height,
    /// The most it costs in fee and tip.
    pub max_fee: Amount,
}

impl Sent {
    /// What a signed transaction is called on the chain of `genesis`.
    #[must_use]
    pub fn of(signed: &SignedTransaction, genesis: &Hash) -> Self {
        Self {
            transaction: signed.transaction.id(genesis),
            expires_at: signed.transaction.expires_at,
            max_fee: signed.transaction.max_fee,
        }
    }
}

impl Client {
    /// Sends a signed transaction; returns when the node has it. `sent` names it.
    ///
    /// # Errors
    /// When the node refuses it, when nothing answers at all, and [`Error::OutcomeUnknown`] when it
    /// stays unknown whether the node has it.
    pub fn deliver(&self, signed: &SignedTransaction, sent: &Sent) -> Result<(), Error> {
        let mut patience = Patience::default();
        let mut answer_lost = false;
        let mut resends = 0;
        loop {
            match self.send_transaction(signed) {
                Ok(_) => return Ok(()),
                Err(error) if error.may_have_been_performed() => {
                    answer_lost = true;
                    if resends == RESENDS_MAX {
                        return Err(unknown(sent, error));
                    }
                }
                // The node may have got an earlier copy and refuse this one for it.
                Err(_) if answer_lost && self.knows(sent)? => return Ok(()),
                Err(error @ Error::Call(ClientError::Connect { .. })) if !answer_lost => {
                    return Err(error);
                }
                // Another transaction with this nonce is in a block: this one never will be.
                Err(error) if error.name() == "TX_NONCE_TOO_LOW" => return Err(error),
                Err(error) => match patience.bear::<()>(Err(error)) {
                    Ok(_) => thread::sleep(LOOK_EVERY),
                    // Other nodes may have the earlier copy, whatever this one says of the next.
                    Err(error) if answer_lost => return Err(unknown(sent, error)),
                    Err(error) => return Err(error),
                },
            }
            if answer_lost {
                if self.knows(sent)? {
                    return Ok(());
                }
                resends += 1;
            }
        }
    }

    /// Whether the node has the transaction, pending or in a block; waits for a node that is away.
    fn knows(&self, sent: &Sent) -> Result<bool, Error> {
        let mut patience = Patience::default();
        loop {
            let answer = self.transaction(&sent.transaction);
            match patience.bear(answer) {
                Ok(Some(view)) => return Ok(view.status != TransactionStatus::Unknown),
                Ok(None) => thread::sleep(LOOK_EVERY),
                Err(error) => return Err(unknown(sent, error)),
            }
        }
    }
}

fn unknown(sent: &Sent, cause: Error) -> Error {
    Error::OutcomeUnknown {
        transaction: sent.transaction,
        expires_at: sent.expires_at,
        cause: Box::new(cause),
    }
}
