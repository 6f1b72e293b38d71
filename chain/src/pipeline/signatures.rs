//! Every signature in a block: who signed what, and whether it verifies.

use super::{BlockError, Context};
use crate::crypto::verify::{Item, verify_each};
use crate::types::block::Block;
use crate::types::hash::{AccountId, Hash, Signature};
use crate::types::transaction::{Action, SignedTransaction, worker_consent_bytes};

/// A signature in a block and where it stands.
struct Claim {
    what: &'static str,
    index: usize,
    key: AccountId,
    message: Vec<u8>,
    signature: Signature,
}

/// The signatures that a transaction must carry, and its id.
fn transaction_claims(
    index: usize,
    signed: &SignedTransaction,
    genesis: &Hash,
) -> (Hash, Vec<Claim>) {
    let transaction = &signed.transaction;
    let message = transaction.sign_bytes(genesis);
    let id = transaction.id(genesis);
    let mut claims = vec![Claim {
        what: "transaction",
        index,
        key: transaction.sender,
        message,
        signature: signed.signature,
    }];
    if let (Some(key), Some(signature)) = (transaction.sponsor, signed.sponsor_signature) {
        claims.push(Claim {
            what: "sponsored transaction",
            index,
            key,
            message: transaction.sponsor_sign_bytes(genesis),
            signature,
        });
    }
    if let Action::RegisterWorker {
        worker, consent, ..
    } = &transaction.action
    {
        claims.push(Claim {
            what: "worker consent in transaction",
            index,
            key: *worker,
            message: worker_consent_bytes(genesis, &transaction.sender, worker),
            signature: *consent,
        });
    }
    (id, claims)
}

/// Verifies a single transaction's signatures, as a mempool does; returns its id.
///
/// # Errors
/// The first signature that does not verify.
pub fn verify_transaction(signed: &SignedTransaction, genesis: &Hash) -> Result<Hash, BlockError> {
    let (id, claims) = transaction_claims(0, signed, genesis);
    first_bad(&claims, verify_each).map_or(Ok(id), Err)
}

/// Verifies every signature of transactions and attestations in one batch; returns the
/// transactions' ids.
pub(super) fn verify(block: &Block, context: &Context<'_>) -> Result<Vec<Hash>, BlockError> {
    use rayon::prelude::*;
    let of_transactions: Vec<(Hash, Vec<Claim>)> = block
        .transactions
        .par_iter()
        .enumerate()
        .map(|(index, signed)| transaction_claims(index, signed, context.genesis))
        .collect();
    let mut ids = Vec::with_capacity(of_transactions.len());
    let mut claims = Vec::with_capacity(of_transactions.len());
    for (id, of_one) in of_transactions {
        ids.push(id);
        claims.extend(of_one);
    }
    claims.extend(
        block
            .attestations
            .iter()
            .enumerate()
            .map(|(index, signed)| Claim {
                what: "attestation",
                index,
                key: signed.attestation.worker,
                message: signed.attestation.sign_bytes(context.genesis),
                signature: signed.signature,
            }),
    );
    first_bad(&claims, |items| context.verifier.verify_batch(items)).map_or(Ok(ids), Err)
}

fn first_bad(claims: &[Claim], verify: impl Fn(&[Item<'_>]) -> Vec<bool>) -> Option<BlockError> {
    let items: Vec<_> = claims
        .iter()
        .map(|claim| Item {
            key: claim.key.as_bytes(),
            message: &claim.message,
            signature: claim.signature.as_bytes(),
        })
        .collect();
    let bad = verify(&items).into_iter().position(|valid| !valid)?;
    claims.get(bad).map(|claim| BlockError::Signature {
        what: claim.what,
        index: claim.index,
        key: claim.key,
    })
}
