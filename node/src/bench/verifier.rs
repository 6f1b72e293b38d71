//! The bench's one place that knows how this node verifies many signatures.

use proofmill_chain::crypto::verify::{BatchSecret, Item, verify_batch};

/// A verifier as a node has it. A new one has seen no key; the same one again has seen the keys
/// that it was given before.
pub struct Keys {
    secret: BatchSecret,
}

impl Keys {
    /// A verifier that has seen no key.
    ///
    /// The coefficients are the same in every run: a bench has no adversary.
    #[must_use]
    pub const fn unseen() -> Self {
        Self {
            secret: BatchSecret::new([7; 32]),
        }
    }

    /// What a block's context wants of it.
    #[must_use]
    pub const fn secret(&self) -> &BatchSecret {
        &self.secret
    }

    /// The verdicts on signatures, as the node's block path computes them.
    #[must_use]
    pub fn batch(&self, items: &[Item<'_>]) -> Vec<bool> {
        verify_batch(items, &self.secret)
    }

    /// Which arithmetic the signatures are verified with on this processor.
    #[must_use]
    pub fn backend(&self) -> String {
        // `.cargo/config.toml` builds all of them in; curve25519-dalek chooses in this order.
        let simd = if has_ifma() {
            "avx512-ifma"
        } else if has_avx2() {
            "avx2"
        } else {
            "portable"
        };
        format!("curve25519-dalek {simd}")
    }
}

#[cfg(target_arch = "x86_64")]
fn has_ifma() -> bool {
    std::arch::is_x86_feature_detected!("avx512ifma")
        && std::arch::is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_ifma() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_avx2() -> bool {
    false
}
