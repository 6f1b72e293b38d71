//! A transaction's way: admission, fee, action, receipt.

use crate::execute::{Executor, Inadmissible, Prepared};
use crate::state::StateError;
use crate::types::account::Account;
use crate::types::params::Params;
use crate::types::receipt::{Outcome, Receipt};
use crate::types::transaction::Transaction;
use crate::types::units::{Amount, Height, Nonce};

/// The fee, without tip, of a transaction of so many encoded bytes.
///
/// # Errors
/// When it does not fit into 64 bits.
pub(crate) fn fee_of(
    transaction: &Transaction,
    bytes: usize,
    params: &Params,
) -> Result<Amount, Inadmissible> {
    params
        .fee_rates()
        .fee(transaction, bytes)
        .ok_or(Inadmissible::FeeOverflow)
}

/// Whether a transaction may be included, given its sender's nonce and its payer's balance;
/// returns the fee and what it costs with the tip.
///
/// # Errors
/// The first rule broken.
pub fn admit(
    transaction: &Transaction,
    bytes: usize,
    params: &Params,
    height: Height,
    nonce: Nonce,
    payer_balance: Amount,
) -> Result<(Amount, Amount), Inadmissible> {
    if transaction.expires_at < height {
        return Err(Inadmissible::Expired {
            expires_at: transaction.expires_at,
            height,
        });
    }
    if transaction.nonce != nonce {
        return Err(Inadmissible::Nonce {
            expected: nonce,
            received: transaction.nonce,
        });
    }
    let fee = fee_of(transaction, bytes, params)?;
    let needed = fee
        .checked_add(transaction.tip)
        .ok_or(Inadmissible::FeeOverflow)?;
    if needed > transaction.max_fee {
        return Err(Inadmissible::FeeTooLow {
            needed,
            max_fee: transaction.max_fee,
        });
    }
    if needed > payer_balance {
        return Err(Inadmissible::PayerBalance {
            needed,
            available: payer_balance,
        });
    }
    Ok((fee, needed))
}

impl Executor<'_> {
    /// Whether a transaction may be included next; nothing changes.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn admits(
        &mut self,
        prepared: &Prepared<'_>,
    ) -> Result<Result<(), Inadmissible>, StateError> {
        Ok(self.costs(prepared)?.map(|_| ()))
    }

    /// The sender's account, the fee, and what it comes to with the tip; or why the transaction may not
    /// be included.
    fn costs(
        &mut self,
        prepared: &Prepared<'_>,
    ) -> Result<Result<(Account, Amount, Amount), Inadmissible>, StateError> {
        let transaction = &prepared.signed.transaction;
        let (payer, slots) = (transaction.payer(), prepared.slots);
        let sender = self.overlay.account_at(transaction.sender, slots.sender)?;
        let payer_balance = self.overlay.account_at(payer, slots.payer)?.balance;
        let admitted = admit(
            transaction,
            prepared.bytes,
            self.context.params,
            self.context.height,
            sender.nonce,
            payer_balance,
        );
        Ok(admitted.map(|(fee, cost)| (sender, fee, cost)))
    }

    pub(super) fn apply_transaction(
        &mut self,
        prepared: &Prepared<'_>,
        index: u32,
    ) -> Result<Result<Receipt, Inadmissible>, StateError> {
        let transaction = &prepared.signed.transaction;
        let payer = transaction.payer();
        let slots = prepared.slots;
        let (mut sender, fee, cost) = match self.costs(prepared)? {
            Ok(costs) => costs,
            Err(error) => return Ok(Err(error)),
        };
        let Some(nonce) = sender.nonce.next() else {
            return Ok(Err(Inadmissible::FeeOverflow));
        };
        sender.nonce = nonce;
        self.overlay
            .put_account(transaction.sender, slots.sender, sender)?;
        let mut account = self.overlay.account_at(payer, slots.payer)?;
        account.balance = account.balance.checked_sub(cost).ok_or_else(|| {
            StateError::Law(format!("{payer} pays a fee that it was checked to have"))
        })?;
        self.overlay.put_account(payer, slots.payer, account)?;
        self.burn(fee)?;
        self.earn(transaction.tip)?;
        // From here on the fee is taken; the action has all of its effect or none.
        self.overlay.keep();
        let blobs = self.effects.blobs.len();
        let live = self.live.entries.len();
        let outcome = match self.apply_action(prepared, index)? {
            Ok(()) => Outcome::Applied,
            Err(failure) => {
                self.overlay.revert();
                debug_assert_eq!(
                    (blobs, live),
                    (self.effects.blobs.len(), self.live.entries.len()),
                    "a failed action leaves nothing outside the overlay"
                );
                Outcome::Failed { failure }
            }
        };
        self.overlay.keep();
        Ok(Ok(Receipt {
            transaction: prepared.id,
            height: self.context.height,
            index,
            payer,
            fee,
            tip: transaction.tip,
            outcome,
        }))
    }
}
