//! What comes from outside: a transaction or an attestation is checked, verified, taken into its pool and
//! passed on. A refusal says which rule and whose fault, and changes nothing.
//!
//! ```text
//! decode ─▶ rules of form ─▶ pool and state: lookups ─▶ signatures ─▶ try-out ─▶ pool
//!           nothing costly is done for what a cheaper rule refuses
//! ```
//!
//! No module is judged here: that is work, and a transaction that is refused pays for none.
//!
//! What peers bring is taken in batches, whose signatures are verified together. Locks are taken in one
//! order: the state's, then the pools'.

mod gossip;

use std::sync::Arc;

use proofmill_chain::assign::may_be_drawn;
use proofmill_chain::check::{
    AttestationError as AttestationRule, TransactionError, check_attestation,
};
use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::crypto::verify::Item;
use proofmill_chain::execute::{Prepared, try_transaction};
use proofmill_chain::pipeline::{
    CheckedTransaction, EncodedTransaction, VerifiedTransaction, VerifyError, verify_transactions,
};
use proofmill_chain::state::StateError;
use proofmill_chain::state::accounts::Slots;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::task::{Readiness, readiness};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::task::{Attestation, AttestationMessage};
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::Height;
use proofmill_compute::ProgramError;

use super::Engine;
use crate::gossip::Topic;
use crate::mempool::{AttestationError, InsertError};
use crate::store::StoreError;

/// Why something is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The bytes are not what they should be.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// A rule that needs no state.
    #[error(transparent)]
    Rule(#[from] TransactionError),
    /// A signature.
    #[error("{what}: the signature of {key} does not verify")]
    Signature {
        /// Of what.
        what: &'static str,
        /// Whose.
        key: AccountId,
    },
    /// The module is known not to be a program.
    #[error("the module is not a program: {0}")]
    Program(ProgramError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] InsertError),
    /// It would be included, and fail.
    #[error("the transaction would fail: {0}")]
    WouldFail(Failure),
    /// An attestation brings the wrong output.
    #[error(transparent)]
    Output(#[from] AttestationRule),
    /// An attestation's signature.
    #[error("the signature of worker {0} does not verify")]
    AttestationSignature(AccountId),
    /// The pool of attestations.
    #[error(transparent)]
    AttestationPool(#[from] AttestationError),
    /// Our own trouble.
    #[error(transparent)]
    State(#[from] StateError),
    /// Our own trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<VerifyError> for AdmitError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Rule(rule) => Self::Rule(rule),
            VerifyError::Signature { what, key } => Self::Signature { what, key },
        }
    }
}

/// Whether something was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken and passed on.
    New(Hash),
    /// It waits already or is in the chain.
    Known(Hash),
}

impl Engine {
    /// Takes a transaction from a client: one that would fail at the head is refused, as far as that is known
    /// without judging a module.
    ///
    /// # Errors
    /// The first rule broken.
    ///
    /// # Panics
    /// Never: a batch has a verdict on each transaction.
    pub fn admit_transaction(&self, signed: SignedTransaction) -> Result<Taken, AdmitError> {
        let genesis = self.genesis_hash();
        let encoded = EncodedTransaction::of(signed);
        if let Some(known) = self.known(&encoded)? {
            return Ok(Taken::Known(known));
        }
        let checked = encoded.check(&genesis)?;
        self.preview(&checked)?;
        let mut verified =
            verify_transactions(vec![checked], &genesis, &self.verifier, Some(&self.seen));
        let (transaction, encoding) = verified
            .pop()
            .expect("there is a verdict on each transaction")?;
        match self.new_module(&transaction)? {
            None => self.try_out(&transaction)?,
            Some(program) => self.check_verdict(program)?,
        }
        let taken = self.insert_transaction(Arc::new(transaction))?;
        if let Taken::New(_) = taken {
            self.publish(Topic::Transactions, encoding);
        }
        Ok(taken)
    }

    /// Takes an attestation from a worker.
    ///
    /// # Errors
    /// The first rule broken.
    ///
    /// # Panics
    /// Never: a batch has a verdict on each attestation.
    pub fn admit_attestation(&self, message: AttestationMessage) -> Result<Taken, AdmitError> {
        let encoding = codec::encode(&message);
        let taken = self
            .check_attestation(&message, encoding.len())
            .and_then(|()| {
                self.verify_attestations(&[&message])
                    .pop()
                    .expect("there is a verdict on each attestation")
            })
            .and_then(|()| self.insert_attestation(message));
        let taken = known_attestation(taken)?;
        if let Taken::New(_) = taken {
            self.publish(Topic::Attestations, encoding);
        }
        Ok(taken)
    }

    fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        if let Some(gossip) = self.gossip()
            && let Err(error) = gossip.publish(topic, bytes)
        {
            tracing::warn!(?topic, %error, "a message could not be passed on");
        }
    }

    /// The id of a transaction that is pending or in the chain.
    fn known(&self, encoded: &EncodedTransaction) -> Result<Option<Hash>, StoreError> {
        let id = encoded.id(&self.genesis_hash());
        let known =
            self.pools().transactions.contains(&id) || self.store().transaction_at(&id)?.is_some();
        Ok(known.then_some(id))
    }

    /// Asks the pool and the state, by lookups alone.
    fn preview(&self, checked: &CheckedTransaction) -> Result<(), InsertError> {
        let state = self.store.state();
        let pools = self.pools();
        pools.transactions.preview().check(
            checked.transaction(),
            checked.bytes(),
            state.head().height,
            |id| Overlay::new(&state).account(*id),
        )
    }

    /// The hash of the module that a transaction publishes, if it does; one that the chain has is refused.
    fn new_module(&self, transaction: &VerifiedTransaction) -> Result<Option<Hash>, AdmitError> {
        let Some(module) = transaction.transaction().action.module() else {
            return Ok(None);
        };
        let program = module.hash();
        let state = self.store.state();
        if Overlay::new(&state).program(program)?.is_some() {
            return Err(AdmitError::WouldFail(Failure::ProgramExists { program }));
        }
        Ok(Some(program))
    }

    /// Tells the sender of a module what is known of it. Without a verdict the module is not judged for this:
    /// the block that includes it tells, and is paid.
    fn check_verdict(&self, program: Hash) -> Result<(), AdmitError> {
        let version = self.params().machine_version;
        match self.machine.kept(version, program) {
            Some(Err(error)) => Err(AdmitError::Program(error)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Applies a transaction to the head's state and forgets the effects: tells its sender at once what
    /// would otherwise cost it a fee. One that waits for others of its sender is not tried.
    fn try_out(&self, transaction: &VerifiedTransaction) -> Result<(), AdmitError> {
        let state = self.store.state();
        let prepared = Prepared {
            signed: transaction.signed(),
            id: transaction.id(),
            bytes: transaction.bytes(),
            program: None,
            slots: Slots::default(),
        };
        let params = self.params_after(state.head().height);
        match try_transaction(&state, &self.genesis_hash(), params, &prepared)? {
            Ok(Outcome::Failed { failure }) => Err(AdmitError::WouldFail(failure)),
            // What is inadmissible now the pool says better: it knows what comes before it.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn insert_transaction(
        &self,
        transaction: Arc<VerifiedTransaction>,
    ) -> Result<Taken, AdmitError> {
        let publishes = transaction.transaction().action.module().is_some();
        let inserted = {
            let state = self.store.state();
            self.pools()
                .transactions
                .insert(transaction, state.head().height, |id| {
                    Overlay::new(&state).account(*id)
                })
        };
        match inserted {
            Ok(id) => {
                self.work.notify_waiters();
                if publishes {
                    self.modules.notify_one();
                }
                Ok(Taken::New(id))
            }
            Err(InsertError::Known { id }) => Ok(Taken::Known(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the pool and the state, then looks at the output: by lookups, but for its hash.
    fn check_attestation(
        &self,
        message: &AttestationMessage,
        bytes: usize,
    ) -> Result<(), AdmitError> {
        let attestation = &message.signed.attestation;
        let readiness = {
            let state = self.store.state();
            self.readiness(&mut Overlay::new(&state), state.head().height, attestation)?
        };
        self.pools()
            .attestations
            .check(attestation, bytes, readiness)?;
        Ok(check_attestation(message)?)
    }

    fn verify_attestations(&self, messages: &[&AttestationMessage]) -> Vec<Result<(), AdmitError>> {
        let genesis = self.genesis_hash();
        let signed: Vec<_> = messages
            .iter()
            .map(|message| message.signed.attestation.sign_bytes(&genesis))
            .collect();
        let items: Vec<_> = messages
            .iter()
            .zip(&signed)
            .map(|(message, bytes)| Item {
                key: message.signed.attestation.worker.as_bytes(),
                message: bytes,
                signature: message.signed.signature.as_bytes(),
            })
            .collect();
        self.verifier
            .verify_batch(&items)
            .into_iter()
            .zip(messages)
            .map(|(valid, message)| {
                let worker = message.signed.attestation.worker;
                valid
                    .then_some(())
                    .ok_or(AdmitError::AttestationSignature(worker))
            })
            .collect()
    }

    fn insert_attestation(&self, message: AttestationMessage) -> Result<Taken, AdmitError> {
        let inserted = {
            let state = self.store.state();
            let head = state.head().height;
            let attestation = &message.signed.attestation;
            let readiness = self.readiness(&mut Overlay::new(&state), head, attestation)?;
            self.pools().attestations.insert(message, readiness, head)
        };
        let id = inserted?;
        self.work.notify_waiters();
        Ok(Taken::New(id))
    }

    /// Whether a block after `head`, whose state the overlay reads, may carry an attestation. A seat of a
    /// task that this state does not have cannot be in the next block, nor one of a worker that it bars.
    pub(super) fn readiness(
        &self,
        overlay: &mut Overlay<'_>,
        head: Height,
        attestation: &Attestation,
    ) -> Result<Readiness, StateError> {
        let Some(task) = overlay.task(attestation.task)?.cloned() else {
            return Ok(Readiness::Unseen);
        };
        let seated = task
            .seats
            .iter()
            .any(|seat| seat.worker == attestation.worker && seat.draw == attestation.draw);
        let readiness = readiness(&task, attestation);
        if readiness == Readiness::Later && !seated {
            let worker = attestation.worker;
            if !may_be_drawn(overlay, &task, worker, self.params_after(head), head.next())? {
                return Ok(Readiness::Unseen);
            }
        }
        Ok(readiness)
    }
}

/// One that is pending already was not refused.
fn known_attestation(taken: Result<Taken, AdmitError>) -> Result<Taken, AdmitError> {
    match taken {
        Err(AdmitError::AttestationPool(AttestationError::Known { id })) => Ok(Taken::Known(id)),
        other => other,
    }
}
