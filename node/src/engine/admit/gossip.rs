//! What peers bring: batches, each in the order of what it costs.

use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::pipeline::{
    CheckedTransaction, EncodedTransaction, VerifiedTransaction, verify_transactions,
};
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

/// A transaction whose signatures are good, and its place in the batch.
type Verified = (usize, Arc<VerifiedTransaction>);

/// A transaction that is looked at again.
enum Coming {
    Checked(Box<CheckedTransaction>),
    Verified(Arc<VerifiedTransaction>),
}

/// What a first look says.
enum Look {
    Passed,
    Refused(InsertError),
    /// It is refused, and one before it that may be forged may be why.
    Doubtful,
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

    /// Takes a batch in at most two turns. In the first a transaction counts for the later ones before anybody
    /// knows its signatures; what is refused for such a one, or comes behind it and finds it missing, is looked
    /// at again when they are known. No signature is verified twice.
    fn gossiped_transactions(
        &self,
        transactions: Vec<(usize, CheckedTransaction)>,
        verdicts: &mut [Acceptance],
    ) {
        let looks = self.preview_batch(&transactions);
        let (mut passed, mut again) = (Vec::new(), Vec::new());
        for ((index, checked), look) in transactions.into_iter().zip(looks) {
            match look {
                Look::Passed => passed.push((index, checked)),
                Look::Doubtful => again.push((index, Coming::Checked(Box::new(checked)))),
                Look::Refused(error) => verdicts[index] = self.not_taken(&checked, error),
            }
        }
        let verified = self.verified(passed, verdicts);
        let gaps = self.insert_verified(verified, verdicts);
        // Without one that was refused in doubt the gaps stay.
        if again.is_empty() {
            return;
        }
        let gaps = gaps.into_iter();
        again.extend(gaps.map(|(index, transaction)| (index, Coming::Verified(transaction))));
        again.sort_unstable_by_key(|(index, _)| *index);
        let looks = self.preview_again(&again);
        let (mut passed, mut verified) = (Vec::new(), Vec::new());
        for ((index, coming), look) in again.into_iter().zip(looks) {
            match (coming, look) {
                (Coming::Checked(checked), Ok(())) => passed.push((index, *checked)),
                (Coming::Verified(transaction), Ok(())) => verified.push((index, transaction)),
                (Coming::Checked(checked), Err(error)) => {
                    verdicts[index] = self.not_taken(&checked, error);
                }
                (Coming::Verified(_), Err(error)) => {
                    verdicts[index] = acceptance(&Err(error.into()));
                }
            }
        }
        verified.extend(self.verified(passed, verdicts));
        verified.sort_unstable_by_key(|(index, _)| *index);
        self.insert_verified(verified, verdicts);
    }

    /// Asks the pool and the state about a batch, by lookups alone.
    fn preview_batch(&self, transactions: &[(usize, CheckedTransaction)]) -> Vec<Look> {
        let state = self.store.state();
        let pools = self.pools();
        let mut preview = pools.transactions.preview();
        let height = state.head().height;
        let look = |(_, checked): &(usize, CheckedTransaction)| {
            let transaction = checked.transaction();
            let looked = preview.check(transaction, checked.bytes(), height, |id| {
                Overlay::new(&state).account(*id)
            });
            match looked {
                Ok(()) => Look::Passed,
                Err(_) if preview.doubts(transaction) => Look::Doubtful,
                Err(error) => Look::Refused(error),
            }
        };
        transactions.iter().map(look).collect()
    }

    /// Asks again, about transactions of which some may be forged.
    fn preview_again(&self, transactions: &[(usize, Coming)]) -> Vec<Result<(), InsertError>> {
        let state = self.store.state();
        let pools = self.pools();
        let mut preview = pools.transactions.preview_tentative();
        let height = state.head().height;
        let look = |(_, coming): &(usize, Coming)| {
            let (transaction, bytes) = match coming {
                Coming::Checked(checked) => (checked.transaction(), checked.bytes()),
                Coming::Verified(verified) => (verified.transaction(), verified.bytes()),
            };
            preview.check(transaction, bytes, height, |id| {
                Overlay::new(&state).account(*id)
            })
        };
        transactions.iter().map(look).collect()
    }

    /// Those whose signatures are good.
    fn verified(
        &self,
        transactions: Vec<(usize, CheckedTransaction)>,
        verdicts: &mut [Acceptance],
    ) -> Vec<Verified> {
        let (indexes, transactions): (Vec<_>, Vec<_>) = transactions.into_iter().unzip();
        let genesis = self.genesis_hash();
        let verified =
            verify_transactions(transactions, &genesis, &self.verifier, Some(&self.seen));
        let mut good = Vec::new();
        for (index, verified) in indexes.into_iter().zip(verified) {
            match verified {
                Ok((transaction, _)) => good.push((index, Arc::new(transaction))),
                Err(error) => verdicts[index] = acceptance(&Err(error.into())),
            }
        }
        good
    }

    /// Takes them in their order; gives those that one before them is missing for.
    fn insert_verified(
        &self,
        transactions: Vec<Verified>,
        verdicts: &mut [Acceptance],
    ) -> Vec<Verified> {
        let mut gaps = Vec::new();
        for (index, transaction) in transactions {
            let taken = self
                .new_module(&transaction)
                .and_then(|_| self.insert_transaction(Arc::clone(&transaction)));
            verdicts[index] = acceptance(&taken);
            if let Err(AdmitError::Pool(InsertError::NonceGap { .. })) = taken {
                gaps.push((index, transaction));
            }
        }
        gaps
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
