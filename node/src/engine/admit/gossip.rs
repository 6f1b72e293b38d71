//! What peers bring: batches, each in the order of what it costs.

use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::pipeline::{
    CheckedTransaction, EncodedTransaction, VerifiedTransaction, verify_transactions,
};
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::task::{ATTESTATION_BYTES_MAX, AttestationMessage};

use super::{AdmitError, Taken, Ticket, known_attestation};
use crate::engine::Engine;
use crate::gossip::{Acceptance, Topic};
use crate::mempool::{AttestationError, InsertError};

/// What becomes of a peer's message.
#[derive(Debug)]
pub enum GossipVerdict {
    /// It is judged.
    Done(Acceptance),
    /// Everything but its module is judged.
    Module(PendingModule),
    /// It follows a transaction whose module is being judged, and is to be brought again after that.
    Behind(AccountId),
}

/// A transaction whose module is to be judged.
#[derive(Debug)]
pub struct PendingModule {
    ticket: Ticket,
    transaction: Arc<VerifiedTransaction>,
}

impl PendingModule {
    /// Whose transaction it is.
    #[must_use]
    pub fn sender(&self) -> AccountId {
        self.transaction.transaction().sender
    }
}

/// A message that passed all that is cheap.
enum Checked {
    Transaction(CheckedTransaction),
    Attestation(AttestationMessage),
}

impl Engine {
    /// Takes what peers passed on, and says of each whether it should travel further.
    #[must_use]
    pub fn admit_gossip(&self, messages: Vec<(Topic, Vec<u8>)>) -> Vec<GossipVerdict> {
        let mut verdicts: Vec<Option<GossipVerdict>> = Vec::new();
        verdicts.resize_with(messages.len(), || None);
        let (mut transactions, mut attestations) = (Vec::new(), Vec::new());
        for (index, (topic, bytes)) in messages.into_iter().enumerate() {
            match self.decode_gossip(topic, bytes) {
                Ok(Checked::Transaction(checked)) => transactions.push((index, checked)),
                Ok(Checked::Attestation(message)) => attestations.push((index, message)),
                Err(error) => verdicts[index] = Some(done(&Err(error))),
            }
        }
        self.gossiped_transactions(transactions, &mut verdicts);
        self.gossiped_attestations(attestations, &mut verdicts);
        verdicts
            .into_iter()
            .map(|verdict| verdict.unwrap_or(GossipVerdict::Done(Acceptance::Ignore)))
            .collect()
    }

    /// Judges a module and takes its transaction. Blocking.
    #[must_use]
    pub fn admit_module(&self, pending: PendingModule) -> Acceptance {
        let PendingModule {
            ticket,
            transaction,
        } = pending;
        let taken = self
            .new_module(&transaction)
            .and_then(|module| {
                module.map_or(Ok(()), |module| {
                    self.judge_module(&ticket, module).map(|_| ())
                })
            })
            .and_then(|()| self.insert_transaction(transaction));
        // The sender's next module may be judged.
        drop(ticket);
        acceptance(&taken)
    }

    fn decode_gossip(&self, topic: Topic, bytes: Vec<u8>) -> Result<Checked, AdmitError> {
        match topic {
            Topic::Transactions => {
                let encoded = EncodedTransaction::decode(bytes)?;
                Ok(Checked::Transaction(encoded.check(&self.genesis_hash())?))
            }
            Topic::Attestations => {
                let message = codec::decode::<AttestationMessage, ATTESTATION_BYTES_MAX>(&bytes)?;
                self.check_attestation(&message, bytes.len())?;
                Ok(Checked::Attestation(message))
            }
        }
    }

    fn gossiped_transactions(
        &self,
        transactions: Vec<(usize, CheckedTransaction)>,
        verdicts: &mut [Option<GossipVerdict>],
    ) {
        // Asked first: a module that is judged meanwhile reports only after this batch.
        let held: Vec<_> = transactions
            .iter()
            .map(|(_, checked)| self.modules.holds(&checked.transaction().sender))
            .collect();
        let looks = self.preview_batch(&transactions);
        let (mut indexes, mut passed) = (Vec::new(), Vec::new());
        for (((index, checked), look), held) in transactions.into_iter().zip(looks).zip(held) {
            match look {
                Ok(()) => {
                    indexes.push(index);
                    passed.push(checked);
                }
                Err(error) => verdicts[index] = Some(self.not_taken(&checked, error, held)),
            }
        }
        let genesis = self.genesis_hash();
        let verified = verify_transactions(passed, &genesis, &self.verifier, Some(&self.seen));
        for (index, verified) in indexes.into_iter().zip(verified) {
            verdicts[index] = Some(match verified {
                Ok((transaction, _)) => self.gossiped(Arc::new(transaction)),
                Err(error) => done(&Err(error.into())),
            });
        }
    }

    /// Asks the pool and the state about a batch, by lookups alone.
    fn preview_batch(
        &self,
        transactions: &[(usize, CheckedTransaction)],
    ) -> Vec<Result<(), InsertError>> {
        let state = self.store.state();
        let pools = self.pools();
        let mut preview = pools.transactions.preview();
        let look = |(_, checked): &(usize, CheckedTransaction)| {
            let height = state.head().height;
            preview.check(checked.transaction(), checked.bytes(), height, |id| {
                Overlay::new(&state).account(*id)
            })
        };
        transactions.iter().map(look).collect()
    }

    /// The verdict on a transaction that the pool does not want; `held` says whether its sender had a
    /// module to be judged before the pool was asked.
    fn not_taken(
        &self,
        checked: &CheckedTransaction,
        error: InsertError,
        held: bool,
    ) -> GossipVerdict {
        if held && matches!(error, InsertError::NonceGap { .. }) {
            return GossipVerdict::Behind(checked.transaction().sender);
        }
        let may_be_known = matches!(
            error,
            InsertError::NonceTooLow { .. } | InsertError::ReplacementTipTooLow { .. }
        );
        if may_be_known && let Ok(Some(_)) = self.known(checked.encoded()) {
            return GossipVerdict::Done(Acceptance::Ignore);
        }
        done(&Err(error.into()))
    }

    /// Takes a verified transaction, or says what it waits for.
    fn gossiped(&self, transaction: Arc<VerifiedTransaction>) -> GossipVerdict {
        let sender = transaction.transaction().sender;
        match self.new_module(&transaction) {
            Ok(None) => {
                let held = self.modules.holds(&sender);
                match self.insert_transaction(transaction) {
                    Err(AdmitError::Pool(InsertError::NonceGap { .. })) if held => {
                        GossipVerdict::Behind(sender)
                    }
                    taken => done(&taken),
                }
            }
            Ok(Some(_)) => match self.modules.enter(sender) {
                Ok(ticket) => GossipVerdict::Module(PendingModule {
                    ticket,
                    transaction,
                }),
                Err(busy) => done(&Err(busy.into())),
            },
            Err(error) => done(&Err(error)),
        }
    }

    fn gossiped_attestations(
        &self,
        attestations: Vec<(usize, AttestationMessage)>,
        verdicts: &mut [Option<GossipVerdict>],
    ) {
        let messages: Vec<_> = attestations.iter().map(|(_, message)| message).collect();
        let verified = self.verify_attestations(&messages);
        for ((index, message), verified) in attestations.into_iter().zip(verified) {
            let taken = verified.and_then(|()| self.insert_attestation(message));
            let taken = known_attestation(taken);
            verdicts[index] = Some(done(&taken));
        }
    }
}

fn done(taken: &Result<Taken, AdmitError>) -> GossipVerdict {
    GossipVerdict::Done(acceptance(taken))
}

fn acceptance(taken: &Result<Taken, AdmitError>) -> Acceptance {
    let error = match taken {
        Ok(Taken::New(_)) => return Acceptance::Accept,
        Ok(Taken::Known(_)) => return Acceptance::Ignore,
        Err(error) => error,
    };
    tracing::debug!(%error, "a message from a peer is refused");
    match error {
        // Never valid on any node: the peer should not have passed it on.
        AdmitError::Malformed(_)
        | AdmitError::Rule(_)
        | AdmitError::Signature { .. }
        | AdmitError::Program(_)
        | AdmitError::Output(_)
        | AdmitError::AttestationSignature(_) => Acceptance::Reject,
        // The peer's own state refuses it too, unless a block lies between.
        AdmitError::Pool(
            InsertError::InsufficientBalance { .. } | InsertError::FeeTooLow { .. },
        )
        | AdmitError::AttestationPool(
            AttestationError::NoSeat | AttestationError::WorkerFull { .. },
        )
        | AdmitError::WouldFail(_) => Acceptance::Useless,
        // Depends on the order of arrival or the load of this node.
        AdmitError::Pool(_)
        | AdmitError::AttestationPool(_)
        | AdmitError::Busy(_)
        | AdmitError::State(_)
        | AdmitError::Store(_) => Acceptance::Ignore,
    }
}
