//! A signer that can be revoked: from then on no signature comes out of it.
//!
//! A node that hears another process sign with its key must sign nothing more, and its engines take
//! a while to end. All that is signed with a validator's key, the headers of the blocks that it builds
//! included, is signed through one [`Revocable`], so that the moment of detection is the last one,
//! whatever still runs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::Round;
use proofmill_signer::{
    Announcement, BeaconInput, Foreign, PeerProof, Proposal, Record, Sighting, SignError, Signed,
    Signer, Vote,
};

/// A signer in front of another one, which it can cut off for good.
pub struct Revocable {
    signer: Arc<dyn Signer>,
    revoked: OnceLock<String>,
    /// Held while a signature leaves and while the signer is revoked.
    leaving: Mutex<()>,
}

impl Revocable {
    /// Passes everything on to `signer` until it is revoked.
    #[must_use]
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self {
            signer,
            revoked: OnceLock::new(),
            leaving: Mutex::new(()),
        }
    }

    /// Signs nothing from now on, also not what is being signed; the first reason stays.
    pub fn revoke(&self, reason: impl std::fmt::Display) {
        let _leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        self.revoked.get_or_init(|| reason.to_string());
    }

    /// Lets something signed leave; nothing leaves any more once [`Revocable::revoke`] has returned.
    pub fn let_leave<T>(&self, leave: impl FnOnce() -> T) -> Option<T> {
        let _leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_revoked()).then(leave)
    }

    /// Whether it is revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.get().is_some()
    }

    fn check(&self) -> Result<(), SignError> {
        match self.revoked.get() {
            None => Ok(()),
            Some(reason) => Err(SignError::Unavailable(reason.clone())),
        }
    }

    /// Has something signed; what was being signed when the signer was revoked stays here.
    fn guarded<T>(
        &self,
        sign: impl FnOnce(&dyn Signer) -> Result<T, SignError>,
    ) -> Result<T, SignError> {
        self.check()?;
        let signed = sign(self.signer.as_ref())?;
        self.check()?;
        Ok(signed)
    }
}

impl Signer for Revocable {
    fn key(&self) -> AccountId {
        self.signer.key()
    }

    fn record(&self) -> Record {
        self.signer.record()
    }

    fn bind(&self, lock: Option<(Round, Hash)>) {
        self.signer.bind(lock);
    }

    fn recall(&self, sighting: &Sighting, signature: Signature) {
        self.signer.recall(sighting, signature);
    }

    fn sign_header(&self, header: &Header) -> Result<Signature, SignError> {
        self.guarded(|signer| signer.sign_header(header))
    }

    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError> {
        self.guarded(|signer| signer.sign_proposal(proposal))
    }

    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        self.guarded(|signer| signer.sign_vote(vote))
    }

    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        self.guarded(|signer| signer.sign_announcement(announcement))
    }

    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        self.guarded(|signer| signer.prove_peer(proof))
    }

    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        self.guarded(|signer| signer.prove_beacon(input))
    }

    fn foreign(&self, sighting: &Sighting) -> Option<Foreign> {
        self.signer.foreign(sighting)
    }
}
