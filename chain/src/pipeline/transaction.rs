//! A single transaction on its way into a node's pool.
//!
//! ```text
//! bytes ─decode─▶ EncodedTransaction   the bytes are a transaction and nothing else
//!       ─check──▶ CheckedTransaction   every rule that needs neither state nor signature nor curve
//!       ─verify─▶ VerifiedTransaction  every key and signature, many transactions in one batch
//! ```
//!
//! The stages are in order of cost, so that a node can ask its pool and the state between the second
//! and the third. The encoding is made once and travels with the transaction until it is verified.

use super::examine::unsigned_bytes;
use super::signatures::{Piece, first_bad};
use super::{BlockError, SeenTransactions};
use crate::check::{TransactionError, admit_keys, check_form, key_error};
use crate::codec::{self, DecodeError};
use crate::crypto::verify::{Item, Verifier};
use crate::merkle;
use crate::types::hash::{AccountId, Hash};
use crate::types::transaction::{SignedTransaction, TRANSACTION_BYTES_MAX, Transaction, id_of};

/// A transaction beside its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedTransaction {
    signed: SignedTransaction,
    encoding: Vec<u8>,
}

/// A transaction that breaks no rule which needs neither state nor signature nor curve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTransaction(EncodedTransaction);

/// A transaction whose keys and signatures verify: what a pool holds and a proposer builds from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTransaction {
    signed: SignedTransaction,
    id: Hash,
    /// Hash of the whole encoding: its leaf under a block's transactions' root.
    leaf: Hash,
    /// Encoded length.
    bytes: usize,
}

/// Why a transaction does not verify: its sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A key that may not be admitted.
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
}

impl EncodedTransaction {
    /// Decodes a transaction and keeps the bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly a transaction of at most [`TRANSACTION_BYTES_MAX`] bytes.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        Ok(Self {
            signed: codec::decode::<SignedTransaction, TRANSACTION_BYTES_MAX>(&bytes)?,
            encoding: bytes,
        })
    }

    /// Encodes a transaction.
    #[must_use]
    pub fn of(signed: SignedTransaction) -> Self {
        Self {
            encoding: codec::encode(&signed),
            signed,
        }
    }

    /// The transaction with its signatures.
    #[must_use]
    pub const fn signed(&self) -> &SignedTransaction {
        &self.signed
    }

    /// Its encoding.
    #[must_use]
    pub fn encoding(&self) -> &[u8] {
        &self.encoding
    }

    /// Its id.
    #[must_use]
    pub fn id(&self, genesis: &Hash) -> Hash {
        id_of(self.unsigned(), genesis)
    }

    /// Checks the rules that need neither state nor signature nor curve.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(self, genesis: &Hash) -> Result<CheckedTransaction, TransactionError> {
        check_form(&self.signed, self.encoding.len(), genesis)?;
        Ok(CheckedTransaction(self))
    }

    fn unsigned(&self) -> &[u8] {
        unsigned_bytes(&self.signed, &self.encoding)
    }
}

impl CheckedTransaction {
    /// The transaction beside its encoding.
    #[must_use]
    pub const fn encoded(&self) -> &EncodedTransaction {
        &self.0
    }

    /// The unsigned transaction.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.0.signed.transaction
    }

    /// Its encoded length.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.0.encoding.len()
    }
}

/// Verifies the keys and signatures of some transactions together; the verdicts, in order, are those
/// on each transaction alone. A verified transaction comes with its encoding and is remembered in
/// `seen`, so that a block with it need not verify it again.
#[must_use]
pub fn verify_transactions(
    transactions: Vec<CheckedTransaction>,
    genesis: &Hash,
    verifier: &Verifier,
    seen: Option<&SeenTransactions>,
) -> Vec<Result<(VerifiedTransaction, Vec<u8>), VerifyError>> {
    let pieces: Vec<Piece> = transactions
        .iter()
        .map(|CheckedTransaction(encoded)| {
            let mut piece = Piece::default();
            piece.transaction(0, &encoded.signed, encoded.unsigned(), genesis);
            piece
        })
        .collect();
    let items: Vec<Item<'_>> = pieces.iter().flat_map(Piece::items).collect();
    let verdicts = verifier.verify_batch(&items);
    let mut rest = verdicts.as_slice();
    let signatures: Vec<Option<BlockError>> = pieces
        .iter()
        .map(|piece| {
            let (own, others) = rest.split_at_checked(piece.len()).unwrap_or_default();
            rest = others;
            first_bad(core::slice::from_ref(piece), own)
        })
        .collect();
    let recipients = admit_recipients(&transactions, verifier);
    transactions
        .into_iter()
        .zip(signatures.into_iter().zip(recipients))
        .map(|(checked, (signature, recipient))| {
            if let Some(BlockError::Signature { what, key, .. }) = signature {
                // A key that is no point signs nothing: then the key is what is wrong.
                admit_keys(checked.transaction())?;
                return Err(VerifyError::Signature { what, key });
            }
            recipient?;
            let named = Named::of(&checked.0, genesis);
            if let Some(seen) = seen {
                seen.insert(&named.leaf);
            }
            let EncodedTransaction { signed, encoding } = checked.0;
            Ok((named.verified(signed), encoding))
        })
        .collect()
}

/// Whether each transaction's recipient, if there is one, may be admitted; every other key signs and
/// thereby is a point.
fn admit_recipients(
    transactions: &[CheckedTransaction],
    verifier: &Verifier,
) -> Vec<Result<(), TransactionError>> {
    let recipients: Vec<Option<&AccountId>> = transactions
        .iter()
        .map(|checked| checked.transaction().action.recipient())
        .collect();
    let keys: Vec<_> = recipients
        .iter()
        .flatten()
        .map(|to| to.as_bytes())
        .collect();
    let mut verdicts = verifier.admit_keys(&keys).into_iter();
    recipients
        .into_iter()
        .map(|recipient| match recipient {
            None => Ok(()),
            Some(to) => match verdicts.next() {
                Some(Err(error)) => Err(key_error("recipient", to, error)),
                _ => Ok(()),
            },
        })
        .collect()
}

impl VerifiedTransaction {
    /// A transaction that the caller vouches for, as one who has just signed it can. Nothing is
    /// verified; a block with a transaction that does not verify is invalid.
    #[must_use]
    pub fn vouched(signed: SignedTransaction, genesis: &Hash) -> Self {
        let encoded = EncodedTransaction::of(signed);
        let named = Named::of(&encoded, genesis);
        named.verified(encoded.signed)
    }

    /// The transaction with its signatures.
    #[must_use]
    pub const fn signed(&self) -> &SignedTransaction {
        &self.signed
    }

    /// The unsigned transaction.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.signed.transaction
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Hash {
        self.id
    }

    /// Hash of the whole encoding, signatures included.
    #[must_use]
    pub const fn leaf(&self) -> Hash {
        self.leaf
    }

    /// Its encoded length.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What is derived from an encoding.
struct Named {
    id: Hash,
    leaf: Hash,
    bytes: usize,
}

impl Named {
    fn of(encoded: &EncodedTransaction, genesis: &Hash) -> Self {
        Self {
            id: encoded.id(genesis),
            leaf: merkle::leaf_hash(&encoded.encoding),
            bytes: encoded.encoding.len(),
        }
    }

    const fn verified(self, signed: SignedTransaction) -> VerifiedTransaction {
        let Self { id, leaf, bytes } = self;
        VerifiedTransaction {
            signed,
            id,
            leaf,
            bytes,
        }
    }
}
