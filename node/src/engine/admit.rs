//! What comes from outside: a transaction or an attestation is checked, verified, taken into its
//! pool and passed on. A refusal says which rule and whose fault, and changes nothing.

use proofmill_chain::check::{
    AttestationError as AttestationRule, TransactionError, check_attestation, check_transaction,
};
use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::execute::{BlockContext, Executor, Prepared};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, judge, verify_transaction};
use proofmill_chain::state::StateError;
use proofmill_chain::state::accounts::{Accounts, Slots};
use proofmill_chain::types::hash::{AccountId, Hash, VrfOutput};
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::task::{ATTESTATION_BYTES_MAX, AttestationMessage};
use proofmill_chain::types::transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX};
use proofmill_compute::ProgramError;

use super::pace::Fit;
use super::{Engine, clock_ms};
use crate::gossip::{Acceptance, Topic};
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
    #[error("{0}")]
    Signature(BlockError),
    /// The module is not a program.
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
    /// An attestation that no block can hold.
    #[error("attestation refused: the worker has no open seat that it fits, or the task is over")]
    NoSeat,
    /// The pool of attestations.
    #[error(transparent)]
    AttestationPool(AttestationError),
    /// Our own trouble.
    #[error(transparent)]
    State(#[from] StateError),
    /// Our own trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// Takes a transaction from a client: one that would fail at the head is refused.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn admit_transaction(&self, signed: SignedTransaction) -> Result<Taken, AdmitError> {
        let bytes = codec::encode(&signed);
        let taken = self.take_transaction(signed, true)?;
        if let Taken::New(_) = taken {
            self.publish(Topic::Transactions, bytes);
        }
        Ok(taken)
    }

    /// Takes an attestation from a worker.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn admit_attestation(&self, message: AttestationMessage) -> Result<Taken, AdmitError> {
        let bytes = codec::encode(&message);
        let taken = self.take_attestation(message)?;
        if let Taken::New(_) = taken {
            self.publish(Topic::Attestations, bytes);
        }
        Ok(taken)
    }

    /// Takes what a peer passed on, and says whether it should travel further.
    #[must_use]
    pub fn admit_gossip(&self, topic: Topic, bytes: &[u8]) -> Acceptance {
        let taken = match topic {
            Topic::Transactions => codec::decode::<SignedTransaction, TRANSACTION_BYTES_MAX>(bytes)
                .map_err(AdmitError::from)
                .and_then(|signed| self.take_transaction(signed, false)),
            Topic::Attestations => {
                codec::decode::<AttestationMessage, ATTESTATION_BYTES_MAX>(bytes)
                    .map_err(AdmitError::from)
                    .and_then(|message| self.take_attestation(message))
            }
        };
        match taken {
            Ok(Taken::New(_)) => Acceptance::Accept,
            Ok(Taken::Known(_)) => Acceptance::Ignore,
            Err(error) => {
                tracing::debug!(?topic, %error, "a message from a peer is refused");
                match error {
                    // Never valid on any node: the peer should not have passed it on.
                    AdmitError::Malformed(_)
                    | AdmitError::Rule(_)
                    | AdmitError::Signature(_)
                    | AdmitError::Program(_)
                    | AdmitError::Output(_)
                    | AdmitError::AttestationSignature(_) => Acceptance::Reject,
                    // Depends on the state or the load of this node.
                    _ => Acceptance::Ignore,
                }
            }
        }
    }

    fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        if let Some(gossip) = self.gossip()
            && let Err(error) = gossip.publish(topic, bytes)
        {
            tracing::warn!(?topic, %error, "a message could not be passed on");
        }
    }

    fn take_transaction(
        &self,
        signed: SignedTransaction,
        try_first: bool,
    ) -> Result<Taken, AdmitError> {
        let genesis = self.genesis_hash();
        let id = signed.transaction.id(&genesis);
        if self.pools().transactions.contains(&id) || self.store().transaction_at(&id)?.is_some() {
            return Ok(Taken::Known(id));
        }
        let bytes = check_transaction(&signed, &genesis)?;
        verify_transaction(&signed, &genesis).map_err(AdmitError::Signature)?;
        self.seen
            .insert(&merkle::leaf_hash(&codec::encode(&signed)));
        if let Action::PublishProgram { module } = &signed.transaction.action {
            self.machine()
                .explain(module.as_bytes())
                .map_err(AdmitError::Program)?;
        }
        if try_first {
            self.try_out(&signed, id, bytes)?;
        }
        let height = self.store().head().height;
        let inserted = self
            .pools()
            .transactions
            .insert(signed, height, |id| self.account(id));
        match inserted {
            Ok(id) => {
                self.work.notify_waiters();
                Ok(Taken::New(id))
            }
            Err(InsertError::Known { id }) => Ok(Taken::Known(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies a transaction to the head and forgets the effects: tells its sender at once what
    /// would otherwise cost it a fee. One that waits for others of its sender is not tried.
    fn try_out(
        &self,
        signed: &SignedTransaction,
        id: Hash,
        bytes: usize,
    ) -> Result<(), AdmitError> {
        let head = self.store().head();
        let genesis = self.genesis_hash();
        let beacon_output = VrfOutput::new([0; VrfOutput::LEN]);
        let none_read = Accounts::default();
        let mut executor = Executor::begin(
            self.store(),
            BlockContext {
                genesis: &genesis,
                params: self.params(),
                height: head.height.next(),
                time_ms: clock_ms().max(head.time_ms.saturating_add(1)),
                beacon_output: &beacon_output,
                reward: self.validator(),
            },
            &none_read,
        )?;
        let applied = executor.transaction(&Prepared {
            signed,
            id,
            bytes,
            program: judge(signed, self.machine(), self.params().machine_version),
            slots: Slots::default(),
        })?;
        // What is inadmissible now the pool says better: it knows what waits before it.
        if applied.is_err() {
            return Ok(());
        }
        let effects = executor.finish(Vec::new())?;
        match effects.receipts.into_iter().next().map(|r| r.outcome) {
            Some(Outcome::Failed { failure }) => Err(AdmitError::WouldFail(failure)),
            _ => Ok(()),
        }
    }

    fn take_attestation(&self, message: AttestationMessage) -> Result<Taken, AdmitError> {
        let genesis = self.genesis_hash();
        let attestation = message.signed.attestation;
        let id = attestation.id(&genesis);
        if self.pools().attestations.contains(&id) {
            return Ok(Taken::Known(id));
        }
        check_attestation(&message)?;
        let sign_bytes = attestation.sign_bytes(&genesis);
        let item = Item {
            key: attestation.worker.as_bytes(),
            message: &sign_bytes,
            signature: message.signed.signature.as_bytes(),
        };
        if !verify(&item) {
            return Err(AdmitError::AttestationSignature(attestation.worker));
        }
        // Only registered workers may take room in the pool.
        let known = proofmill_chain::state::overlay::Overlay::new(self.store())
            .worker(attestation.worker)?
            .is_some();
        if !known || self.fit_of(&attestation)? == Fit::Never {
            return Err(AdmitError::NoSeat);
        }
        let inserted = self.pools().attestations.insert(message);
        match inserted {
            Ok(id) => {
                self.work.notify_waiters();
                Ok(Taken::New(id))
            }
            Err(AttestationError::Known { id }) => Ok(Taken::Known(id)),
            Err(error) => Err(AdmitError::AttestationPool(error)),
        }
    }
}
