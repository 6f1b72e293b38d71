//! Batch verification with memory: a node's secret, a backend and the keys it has seen.

use core::fmt;

use super::batch::{BatchSecret, Batches};
use super::keys::KEYS_CACHED_MAX;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::wide::Ifma;
use super::{Item, KeyError, admit_encoding};

/// Which code checks batches. The verdicts are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// curve25519-dalek and sha2, for every processor.
    Portable,
    /// Eight lanes of AVX-512 IFMA, own code.
    Ifma,
}

impl Backend {
    /// The fastest that this processor supports.
    #[must_use]
    pub fn detect() -> Self {
        if Self::Ifma.is_supported() {
            Self::Ifma
        } else {
            Self::Portable
        }
    }

    /// Whether this processor supports it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Ifma::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Ifma => false,
        }
    }

    /// Its name in configurations, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Ifma => "avx512-ifma",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// The processor lacks the backend's instructions.
    #[error("this processor does not support {0}")]
    Unsupported(Backend),
}

/// Verifies batches and admits keys, on every thread of the pool; shared by reference.
///
/// It remembers the points of keys that have signed something or were admitted, so that they need
/// no decompression the next time. Neither that memory nor the secret nor the backend changes a
/// verdict.
///
/// ```
/// use proofmill_chain::crypto::sign::SecretKey;
/// use proofmill_chain::crypto::verify::{BatchSecret, Item, Verifier};
///
/// let verifier = Verifier::new(BatchSecret::new([0; 32])); // random bytes in a node
/// let secret = SecretKey::from_seed(&[1; 32]);
/// let (key, signature) = (secret.public(), secret.sign(b"message"));
/// let item = Item {
///     key: key.as_bytes(),
///     message: b"message",
///     signature: signature.as_bytes(),
/// };
/// assert_eq!(verifier.verify_batch(&[item]), [true]);
/// ```
pub struct Verifier(Inner);

enum Inner {
    Portable(Batches<Portable>),
    #[cfg(target_arch = "x86_64")]
    Ifma(Batches<Ifma>),
}

/// Calls a method of the batches, whatever their engine.
macro_rules! each {
    ($verifier:expr, $batches:ident => $call:expr) => {
        match &$verifier.0 {
            Inner::Portable($batches) => $call,
            #[cfg(target_arch = "x86_64")]
            Inner::Ifma($batches) => $call,
        }
    };
}

impl Verifier {
    /// With the fastest backend and room for [`KEYS_CACHED_MAX`] keys.
    #[must_use]
    pub fn new(secret: BatchSecret) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(engine) = Ifma::detect() {
            return Self(Inner::Ifma(Batches::new(engine, secret, KEYS_CACHED_MAX)));
        }
        Self(Inner::Portable(Batches::new(
            Portable,
            secret,
            KEYS_CACHED_MAX,
        )))
    }

    /// With a backend, and room for at most `keys_max` keys.
    ///
    /// # Errors
    /// When the processor lacks the backend's instructions.
    pub fn with(
        secret: BatchSecret,
        backend: Backend,
        keys_max: usize,
    ) -> Result<Self, VerifierError> {
        match backend {
            Backend::Portable => Ok(Self(Inner::Portable(Batches::new(
                Portable, secret, keys_max,
            )))),
            #[cfg(target_arch = "x86_64")]
            Backend::Ifma => {
                let engine = Ifma::detect().ok_or(VerifierError::Unsupported(backend))?;
                Ok(Self(Inner::Ifma(Batches::new(engine, secret, keys_max))))
            }
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Ifma => Err(VerifierError::Unsupported(backend)),
        }
    }

    /// Which code checks batches.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        match self.0 {
            Inner::Portable(_) => Backend::Portable,
            #[cfg(target_arch = "x86_64")]
            Inner::Ifma(_) => Backend::Ifma,
        }
    }

    /// The verdict on each signature, in order: those of [`verify_each`](super::verify_each).
    #[must_use]
    pub fn verify_batch(&self, items: &[Item<'_>]) -> Vec<bool> {
        each!(self, batches => batches.verify(items))
    }

    /// Whether each key may own anything, in order: the answers of
    /// [`admit_key`](super::admit_key). Keys that may are known from then on, and a known key costs
    /// no decompression.
    ///
    /// # Errors
    /// By key: when the bytes are not the canonical encoding of a point, or the point has small
    /// order.
    #[must_use]
    pub fn admit_keys(&self, keys: &[&[u8; 32]]) -> Vec<Result<(), KeyError>> {
        let mut verdicts: Vec<_> = keys.iter().map(|key| admit_encoding(key)).collect();
        let encoded: Vec<_> = keys
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_ok())
            .map(|(key, _)| *key)
            .collect();
        let are_points = each!(self, batches => batches.are_points(&encoded));
        let undecided = verdicts.iter_mut().filter(|verdict| verdict.is_ok());
        for (verdict, is_point) in undecided.zip(are_points) {
            if !is_point {
                *verdict = Err(KeyError::NotCanonical);
            }
        }
        verdicts
    }

    /// Makes keys known, as far as they are points.
    pub fn warm(&self, keys: &[&[u8; 32]]) {
        each!(self, batches => batches.are_points(keys));
    }

    /// Whether a key's point is in memory.
    #[must_use]
    pub fn knows(&self, key: &[u8; 32]) -> bool {
        each!(self, batches => batches.knows(key))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.backend())
    }
}
