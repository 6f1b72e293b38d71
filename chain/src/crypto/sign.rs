//! Signing with ed25519-dalek (RFC 8032).

use ed25519_dalek::{Signer, SigningKey};

use crate::types::hash::{AccountId, Signature};

/// A signing key. Its memory is wiped when it goes.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that a 32-byte seed stands for (RFC 8032, "private key").
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public key, which is the account's id.
    #[must_use]
    pub fn public(&self) -> AccountId {
        AccountId::new(self.0.verifying_key().to_bytes())
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.0.sign(message).to_bytes())
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}
