//! What a block's transactions tell without the state and without their signatures.

use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;

use super::{BlockError, CheckedBlock, Context, DecodedBlock, SeenTransactions};
use crate::check::{BlockCheckError, TransactionError, check_form, key_error};
use crate::crypto::sha256::Engine;
use crate::merkle;
use crate::state::accounts::Accounts;
use crate::types::hash::{Hash, Signature};
use crate::types::transaction::{SignedTransaction, id_prefix};

/// Transactions that one thread examines before the work is split.
const TRANSACTIONS_PER_THREAD: usize = 128;

/// What is known of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    pub(super) id: Hash,
    /// Encoded length.
    pub(super) bytes: usize,
    /// Hash of the whole encoding: its leaf under the transactions' root.
    pub(super) leaf: Hash,
    /// Whether this node has verified it before.
    pub(super) seen: bool,
}

/// Hashes and checks each transaction.
pub(super) fn examine(
    decoded: &DecodedBlock,
    genesis: &Hash,
    known: Option<&SeenTransactions>,
) -> Vec<(Examined, Result<(), TransactionError>)> {
    let engine = Engine::fastest();
    let (of_leaves, of_ids) = (merkle::leaf_prefix(), id_prefix(genesis));
    let groups: Vec<Vec<_>> = decoded
        .transactions()
        .par_chunks(TRANSACTIONS_PER_THREAD)
        .map(|group| {
            let encodings: Vec<_> = group.iter().map(|(_, bytes)| *bytes).collect();
            let unsigned: Vec<_> = group
                .iter()
                .map(|(signed, bytes)| unsigned_bytes(signed, bytes))
                .collect();
            let leaves = engine.hash_bodies(&of_leaves, &encodings);
            let ids = engine.hash_bodies(&of_ids, &unsigned);
            group
                .iter()
                .zip(leaves.into_iter().zip(ids))
                .map(|((signed, bytes), (leaf, id))| {
                    let examined = Examined {
                        id,
                        bytes: bytes.len(),
                        leaf,
                        seen: known.is_some_and(|seen| seen.contains(&leaf)),
                    };
                    (examined, check_form(signed, bytes.len(), genesis))
                })
                .collect()
        })
        .collect();
    groups.into_iter().flatten().collect()
}

/// The encoding of the unsigned transaction, which the signatures follow.
pub(super) fn unsigned_bytes<'a>(signed: &SignedTransaction, bytes: &'a [u8]) -> &'a [u8] {
    /// The mark before the sponsor's signature.
    const MARK: usize = 1;
    let sponsor = signed.sponsor_signature.map_or(0, |_| Signature::LEN);
    let signatures = Signature::LEN.saturating_add(MARK).saturating_add(sponsor);
    bytes
        .len()
        .checked_sub(signatures)
        .and_then(|unsigned| bytes.get(..unsigned))
        .unwrap_or_default()
}

/// Admits the recipients that no one has admitted before: an account that exists was admitted when it
/// was made, and a key that signs is a point.
pub(super) fn admit_recipients(
    checked: &CheckedBlock,
    accounts: &Accounts,
    context: &Context<'_>,
) -> Result<(), BlockError> {
    let transactions = &checked.decoded.block().transactions;
    let newcomers: Vec<_> = (0..)
        .zip(transactions.iter().zip(&checked.examined))
        .filter(|(index, (_, examined))| {
            let recipient = accounts.get(accounts.slots(*index).recipient);
            !examined.seen && recipient.is_some_and(|loaded| loaded.account.is_none())
        })
        .filter_map(|(index, (signed, _))| Some((index, signed.transaction.action.recipient()?)))
        .collect();
    let keys: Vec<_> = newcomers.iter().map(|(_, to)| to.as_bytes()).collect();
    let verdicts = context.verifier.admit_keys(&keys);
    for ((index, to), admitted) in newcomers.into_iter().zip(verdicts) {
        admitted.map_err(|error| BlockCheckError::Transaction {
            index,
            error: key_error("recipient", to, error),
        })?;
    }
    Ok(())
}
