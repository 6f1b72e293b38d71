//! Every signature of the transactions and attestations in a block: who signed what, and whether it
//! verifies.

use core::ops::Range;

use super::examine::{Examined, unsigned_bytes};
use super::{BlockError, Context, DecodedBlock};
use crate::check::{BlockCheckError, check_transaction};
use crate::crypto::verify::Item;
use crate::types::hash::{AccountId, Hash, Signature};
use crate::types::transaction::{
    SPONSOR_TAG, SignedTransaction, TRANSACTION_TAG, worker_consent_bytes,
};

/// Transactions whose messages share one piece of memory.
const TRANSACTIONS_PER_PIECE: usize = 256;

/// A signature in a block and where it stands.
struct Claim {
    what: &'static str,
    index: usize,
    key: AccountId,
    signature: Signature,
    /// Where its message stands among the piece's messages.
    message: Range<usize>,
}

/// Claims, and the messages that they are about.
#[derive(Default)]
pub(super) struct Piece {
    claims: Vec<Claim>,
    messages: Vec<u8>,
}

impl Piece {
    fn claim(
        &mut self,
        (what, index): (&'static str, usize),
        key: AccountId,
        signature: Signature,
        message: &[&[u8]],
    ) {
        let start = self.messages.len();
        for part in message {
            self.messages.extend_from_slice(part);
        }
        self.claims.push(Claim {
            what,
            index,
            key,
            signature,
            message: start..self.messages.len(),
        });
    }

    /// The signatures that a transaction must carry; `unsigned` is the encoding of its unsigned part.
    pub(super) fn transaction(
        &mut self,
        index: usize,
        signed: &SignedTransaction,
        unsigned: &[u8],
        genesis: &Hash,
    ) {
        let transaction = &signed.transaction;
        self.claim(
            ("transaction", index),
            transaction.sender,
            signed.signature,
            &[TRANSACTION_TAG, genesis.as_ref(), unsigned],
        );
        if let (Some(sponsor), Some(signature)) = (transaction.sponsor, signed.sponsor_signature) {
            self.claim(
                ("sponsored transaction", index),
                sponsor,
                signature,
                &[SPONSOR_TAG, genesis.as_ref(), unsigned],
            );
        }
        if let Some((worker, consent)) = transaction.action.consent() {
            self.claim(
                ("worker consent in transaction", index),
                *worker,
                *consent,
                &[&worker_consent_bytes(genesis, &transaction.sender, worker)],
            );
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.claims.iter().map(|claim| Item {
            key: claim.key.as_bytes(),
            message: self.messages.get(claim.message.clone()).unwrap_or_default(),
            signature: claim.signature.as_bytes(),
        })
    }
}

/// Verifies every signature of attestations and of transactions that were not seen, in one batch.
pub(super) fn verify(
    decoded: &DecodedBlock,
    examined: &[Examined],
    context: &Context<'_>,
) -> Result<(), BlockError> {
    use rayon::prelude::*;
    let block = decoded.block();
    let transactions = decoded.transactions();
    let unseen: Vec<_> = (0..)
        .zip(transactions.iter().zip(examined))
        .filter(|(_, (_, examined))| !examined.seen)
        .map(|(index, (transaction, _))| (index, *transaction))
        .collect();
    let mut pieces: Vec<Piece> = unseen
        .par_chunks(TRANSACTIONS_PER_PIECE)
        .map(|transactions| {
            let mut piece = Piece::default();
            for (index, (signed, bytes)) in transactions {
                let unsigned = unsigned_bytes(signed, bytes);
                piece.transaction(*index, signed, unsigned, context.genesis);
            }
            piece
        })
        .collect();
    let mut attestations = Piece::default();
    for (index, signed) in block.attestations.iter().enumerate() {
        attestations.claim(
            ("attestation", index),
            signed.attestation.worker,
            signed.signature,
            &[&signed.attestation.sign_bytes(context.genesis)],
        );
    }
    pieces.push(attestations);
    let items: Vec<_> = pieces.iter().flat_map(Piece::items).collect();
    let verdicts = context.verifier.verify_batch(&items);
    let Some(error) = first_bad(&pieces, &verdicts) else {
        return Ok(());
    };
    // A key that is no point signs nothing: then the key is what is wrong.
    if let BlockError::Signature { what, index, .. } = error
        && what != "attestation"
        && let Some(signed) = block.transactions.get(index)
        && let Err(error) = check_transaction(signed, context.genesis)
    {
        return Err(BlockError::Check(BlockCheckError::Transaction {
            index,
            error,
        }));
    }
    Err(error)
}

pub(super) fn first_bad(pieces: &[Piece], verdicts: &[bool]) -> Option<BlockError> {
    pieces
        .iter()
        .flat_map(|piece| &piece.claims)
        .zip(verdicts)
        .find(|(_, valid)| !**valid)
        .map(|(claim, _)| BlockError::Signature {
            what: claim.what,
            index: claim.index,
            key: claim.key,
        })
}
