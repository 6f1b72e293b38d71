//! Keys by their scalar: they can be ground by addition, and sign one message in many ways.

use curve25519_dalek::constants::ED25519_BASEPOINT_TABLE;
use curve25519_dalek::scalar::Scalar;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::transaction::{SignedTransaction, Transaction};
use sha2::{Digest, Sha512};

#[derive(Clone, Copy, Debug)]
pub(crate) struct RawKey {
    pub(crate) scalar: Scalar,
    pub(crate) id: AccountId,
}

impl RawKey {
    pub(crate) fn new(scalar: Scalar) -> Self {
        let id = (&scalar * ED25519_BASEPOINT_TABLE).compress().to_bytes();
        Self {
            scalar,
            id: AccountId::new(id),
        }
    }

    /// One of the many valid signatures of a message: each salt makes another.
    pub(crate) fn sign(&self, message: &[u8], salt: u8) -> Signature {
        let digest = |parts: [&[u8]; 3]| {
            let hash = Sha512::digest(parts.concat());
            Scalar::from_bytes_mod_order_wide(&hash.into())
        };
        let r = digest([self.scalar.as_bytes(), &[salt], message]);
        let r_bytes = (&r * ED25519_BASEPOINT_TABLE).compress().to_bytes();
        let s = r + digest([&r_bytes, self.id.as_bytes(), message]) * self.scalar;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r_bytes);
        signature[32..].copy_from_slice(s.as_bytes());
        Signature::new(signature)
    }

    /// The transaction, signed by this key as its sender.
    pub(crate) fn signed(
        &self,
        transaction: Transaction,
        genesis: &Hash,
        salt: u8,
    ) -> SignedTransaction {
        SignedTransaction {
            signature: self.sign(&transaction.sign_bytes(genesis), salt),
            sponsor_signature: None,
            transaction,
        }
    }
}
