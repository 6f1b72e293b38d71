//! A node's part as a validator: its keys, its signing guard, and what keeps it from signing.

use std::path::PathBuf;
use std::sync::Arc;

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::genesis::{Genesis, GenesisError};
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Height;
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_signer::{GuardError, LocalSigner, Signer};

use crate::home::Home;
use crate::keys::{self, KeyFileError};
use crate::store::{Store, StoreError};

/// How many of the newest certificates are compared with the guard.
const CERTIFICATES_COMPARED_MAX: u64 = 256;

/// Why a node with a validator's key does not start.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// A key file cannot be used.
    #[error("{what} key")]
    Key {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        error: KeyFileError,
    },
    /// Each key is in the other's file.
    #[error(
        "{} holds the beacon key of a validator and {} its consensus key: swap the two files",
        .validator.display(), .beacon.display()
    )]
    Swapped {
        /// The file of the consensus key.
        validator: PathBuf,
        /// The file of the beacon key.
        beacon: PathBuf,
    },
    /// The beacon key is not the one that genesis names.
    #[error(
        "{} holds key {given}, genesis names the beacon key {named} for this validator: put the right \
         file there",
        .path.display()
    )]
    BeaconKey {
        /// The file of the beacon key.
        path: PathBuf,
        /// The key in it.
        given: AccountId,
        /// The key that genesis names.
        named: AccountId,
    },
    /// The guard cannot be used.
    #[error("{error}; {}", remedy(.home, .error))]
    Guard {
        /// The node's home.
        home: PathBuf,
        /// Why.
        error: GuardError,
    },
    /// The guard is older than the chain.
    #[error(
        "the signing guard in {} ends at height {guarded}, and this key has signed the certificate of \
         height {signed}: it is an old copy; {}",
        .home.join("guard").display(), init_above(.home)
    )]
    OldGuard {
        /// The node's home.
        home: PathBuf,
        /// The guard's height.
        guarded: Height,
        /// The certificate's height.
        signed: Height,
    },
    /// Genesis names no lawful validators.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ValidatorError {
    /// Whether the guard forbids to sign, as opposed to a mistake in the files.
    #[must_use]
    pub const fn is_guard(&self) -> bool {
        matches!(self, Self::Guard { .. } | Self::OldGuard { .. })
    }
}

fn init_above(home: &std::path::Path) -> String {
    format!(
        "with every other process of this key stopped, run `proofmill validator guard init --home {} \
         --above H`, H being at least the highest height that any node of the network has certified, \
         plus 1",
        home.display()
    )
}

fn remedy(home: &std::path::Path, error: &GuardError) -> String {
    match error {
        GuardError::Busy(_) => "stop that process first".to_owned(),
        GuardError::Io { .. } => "make room on its disk or repair it".to_owned(),
        GuardError::Exists(_) => "remove nothing: it may be needed".to_owned(),
        GuardError::Missing(_)
        | GuardError::Damaged { .. }
        | GuardError::OtherKey { .. }
        | GuardError::OtherChain { .. } => init_above(home),
    }
}

/// The keys of a node's home.
#[derive(Debug)]
pub struct Keys {
    /// Signs votes and blocks.
    pub consensus: SecretKey,
    /// Proves the beacon.
    pub beacon: SecretKey,
}

impl Keys {
    /// Reads both key files.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn read(home: &Home) -> Result<Self, ValidatorError> {
        let key = |what, path: PathBuf| {
            keys::read(&path).map_err(|error| ValidatorError::Key { what, error })
        };
        Ok(Self {
            consensus: key("validator", home.validator_key())?,
            beacon: key("beacon", home.beacon_key())?,
        })
    }
}

/// A node's part in consensus.
#[derive(Clone)]
pub struct Role {
    /// Its consensus key.
    pub validator: AccountId,
    /// Signs for that key; `None` when the key is no validator's, and the node follows.
    pub signer: Option<Arc<dyn Signer>>,
}

impl Role {
    /// Opens the keys and the guard of a home. A key that is in no validator's place needs no guard.
    ///
    /// # Errors
    /// [`ValidatorError`]; each names the file and what to do.
    pub fn open(home: &Home, genesis: &Genesis) -> Result<Self, ValidatorError> {
        let validators = &genesis.validator_set()?;
        let Keys { consensus, beacon } = Keys::read(home)?;
        let validator = consensus.public();
        check_places(home, validators, &validator, &beacon.public())?;
        if validators.by_key(&validator).is_none() {
            tracing::info!(key = %validator, "this key is no validator's: the node follows");
            return Ok(Self {
                validator,
                signer: None,
            });
        }
        let signer = LocalSigner::open(&home.guard(), &genesis.hash(), consensus, beacon);
        let signer = signer.map_err(|error| ValidatorError::Guard {
            home: home.path().into(),
            error,
        })?;
        let record = signer.record();
        tracing::info!(height = %record.height(), floor = %record.floor(), "signing guard opened");
        Ok(Self {
            validator,
            signer: Some(Arc::new(signer)),
        })
    }

    /// Refuses a guard that is older than the signatures of its key in the newest certificates.
    ///
    /// # Errors
    /// When it is, or a certificate cannot be read.
    pub fn check_against(&self, home: &Home, store: &Store) -> Result<(), ValidatorError> {
        let Some(signer) = &self.signer else {
            return Ok(());
        };
        let record = signer.record();
        let guarded = record.height();
        // What it signed at the amnesic height it need not know.
        let excused = record.amnesic_height().unwrap_or(guarded).max(guarded);
        let mut height = store.head().height;
        for _ in 0..CERTIFICATES_COMPARED_MAX {
            if height <= excused {
                return Ok(());
            }
            let certificate = store.certificate(height)?;
            let ours = |certificate: &proofmill_chain::types::block::Certificate| {
                let mut signatures = certificate.signatures.iter();
                signatures.any(|signed| signed.validator == self.validator)
            };
            if certificate.as_ref().is_some_and(ours) {
                return Err(ValidatorError::OldGuard {
                    home: home.path().into(),
                    guarded,
                    signed: height,
                });
            }
            let Some(below) = height.previous() else {
                return Ok(());
            };
            height = below;
        }
        Ok(())
    }
}

fn check_places(
    home: &Home,
    validators: &ValidatorSet,
    consensus: &AccountId,
    beacon: &AccountId,
) -> Result<(), ValidatorError> {
    if let Some(validator) = validators.by_key(consensus) {
        if validator.beacon_key == *beacon {
            return Ok(());
        }
        return Err(ValidatorError::BeaconKey {
            path: home.beacon_key(),
            given: *beacon,
            named: validator.beacon_key,
        });
    }
    let swapped = validators.by_key(beacon).is_some();
    let mut all = validators.as_slice().iter();
    if swapped || all.any(|validator| validator.beacon_key == *consensus) {
        return Err(ValidatorError::Swapped {
            validator: home.validator_key(),
            beacon: home.beacon_key(),
        });
    }
    Ok(())
}
