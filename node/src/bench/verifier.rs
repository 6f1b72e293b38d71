//! The bench's one place that knows how this node verifies many signatures.

use proofmill_chain::crypto::verify::{BatchSecret, Item, Verifier};

/// A verifier as a node has it. A new one has seen no key; the same one again has seen the keys
/// that it was given before.
pub struct Keys(Verifier);

impl Keys {
    /// A verifier that has seen no key.
    ///
    /// The coefficients are the same in every run: a bench has no adversary.
    #[must_use]
    pub fn unseen() -> Self {
        Self(Verifier::new(BatchSecret::new([7; 32])))
    }

    /// What a block's context wants of it.
    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.0
    }

    /// The verdicts on signatures, as the node's block path computes them.
    #[must_use]
    pub fn batch(&self, items: &[Item<'_>]) -> Vec<bool> {
        self.0.verify_batch(items)
    }

    /// Which arithmetic the signatures are verified with on this processor.
    #[must_use]
    pub fn backend(&self) -> String {
        self.0.backend().name().to_owned()
    }
}
