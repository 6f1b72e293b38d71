//! What peers bring: batches, each in the order of what it costs.

use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::pipeline::{CheckedTransaction, EncodedTransaction, verify_transactions};
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::task::{ATTESTATION_BYTES_MAX, AttestationMessage};

use super::{AdmitError, Taken, known_attestation};
use crate::engine::Engine;
use crate::gossip::{Acceptance, Topic};
use crate::mempool::{AttestationError, InsertError};

/// A message that passed all that is cheap.
enum Checked {
    Transaction(CheckedTransaction),
    Attestation(AttestationMessage),
}

impl Engine {
    /// Takes what peers passed on, and says of each whether it should travel further.
    #[must_use]
    pub fn admit_gossip(&self, messages: Vec<(Topic, Vec<u8>)>) -> Vec<Acceptance> {
        // Each message gets its verdict in one of the steps.
        let mut verdicts = vec![Acceptance::Ignore; messages.len()];
        let (mut transactions, mut attestations) = (Vec::new(), Vec::new());
        for (index, (topic, bytes)) in messages.into_iter().enumerate() {
            match self.decode_gossip(topic, bytes) {
                Ok(Checked::Transaction(checked)) => transactions.push((index, checked)),
                Ok(Checked::Attestation(message)) => attestations.push((index, message)),
                Err(error) => verdicts[index] = acceptance(&Err(error)),
            }
        }
        self.gossiped_transactions(transactions, &mut verdicts);
        self.gossiped_attestations(attestations, &mut verdicts);
        verdicts
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
        verdicts: &mut [Acceptance],
    ) {
        let looks = self.preview_batch(&transactions);
        let (mut indexes, mut passed) = (Vec::new(), Vec::new());
        for ((index, checked), look) in transactions.into_iter().zip(looks) {
            match look {
                Ok(()) => {
                    indexes.push(index);
                    passed.push(checked);
                }
                Err(error) => verdicts[index] = self.not_taken(&checked, error),
            }
        }
        let genesis = self.genesis_hash();
        let verified = verify_transactions(passed, &genesis, &self.verifier, Some(&self.seen));
        for (index, verified) in indexes.into_iter().zip(verified) {
            let taken = verified
                .map_err(AdmitError::from)
                .and_then(|(transaction, _)| {
                    self.new_module(&transaction)?;
                    self.insert_transaction(Arc::new(transaction))
                });
            verdicts[index] = acceptance(&taken);
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

    /// The verdict on a transaction that the pool does not want.
    fn not_taken(&self, checked: &CheckedTransaction, error: InsertError) -> Acceptance {
        let may_be_known = matches!(
            error,
            InsertError::NonceTooLow { .. } | InsertError::ReplacementTipTooLow { .. }
        );
        if may_be_known && let Ok(Some(_)) = self.known(checked.encoded()) {
            return Acceptance::Ignore;
        }
        acceptance(&Err(error.into()))
    }

    fn gossiped_attestations(
        &self,
        attestations: Vec<(usize, AttestationMessage)>,
        verdicts: &mut [Acceptance],
    ) {
        let messages: Vec<_> = attestations.iter().map(|(_, message)| message).collect();
        let verified = self.verify_attestations(&messages);
        for ((index, message), verified) in attestations.into_iter().zip(verified) {
            let taken = verified.and_then(|()| self.insert_attestation(message));
            verdicts[index] = acceptance(&known_attestation(taken));
        }
    }
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
        | AdmitError::Output(_)
        | AdmitError::AttestationSignature(_) => Acceptance::Reject,
        // The peer's own state refuses it too, unless a block lies between.
        AdmitError::Pool(
            InsertError::InsufficientBalance { .. } | InsertError::FeeTooLow { .. },
        )
        | AdmitError::AttestationPool(AttestationError::NoSeat)
        | AdmitError::WouldFail(_) => Acceptance::Useless,
        // Depends on the order of arrival, the load of this node, or how far behind it is (an attestation
        // for a task, a draw or a worker that this state does not have yet may be as good as any), or is for
        // clients alone.
        AdmitError::Pool(_)
        | AdmitError::AttestationPool(_)
        | AdmitError::Program(_)
        | AdmitError::State(_)
        | AdmitError::Store(_) => Acceptance::Ignore,
    }
}
