//! The signer's interface, and the signer that holds its keys in this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::vrf;
use proofmill_chain::execute::beacon_message;
use proofmill_chain::types::block::{Header, block_sign_bytes};
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::Round;

use crate::file::{GuardError, GuardFile};
use crate::foreign::{Foreign, Sighting};
use crate::message::{
    Announcement, BeaconInput, Message, PeerProof, Proposal, Signed, Vote, announcement_bytes,
    peer_proof_bytes, proposal_bytes, vote_bytes,
};
use crate::record::{Decision, Record, Refusal};

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It could contradict what is signed: a lost turn, no fault.
    #[error("not signed: {0}")]
    Refused(#[from] Refusal),
    /// What was signed cannot be kept: this node must not sign any more.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A remote signer gives no answer.
    #[error("the signer is not available: {0}")]
    Unavailable(String),
}

/// Signs for a validator. Calls block: they wait for the disk, or for a remote signer.
///
/// An implementation never gives signatures over two different messages of one kind, height and
/// round, and keeps what it signed where no restart, repair or restored copy of the node loses it.
pub trait Signer: Send + Sync + 'static {
    /// The consensus key.
    fn key(&self) -> AccountId;

    /// What was signed last, with the messages of that height.
    fn record(&self) -> Record;

    /// Makes a block precommit binding that the engine may not know of, until a later height, however
    /// often the node restarts. `None` changes nothing. When it cannot be kept, nothing new is signed.
    fn bind(&self, lock: Option<(Round, Hash)>);

    /// Takes note of a verified message of the [amnesic height](Record::amnesic_height) under our key, so
    /// that nothing is signed against it. Of others it takes no note. When it cannot be kept, nothing new is
    /// signed.
    fn recall(&self, sighting: &Sighting, signature: Signature);

    /// Signs a block's header.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign_header(&self, header: &Header) -> Result<Signature, SignError>;

    /// Signs a proposal.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError>;

    /// Signs a vote, or answers with the one that was signed in its place.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError>;

    /// Signs the announcement of a block whose header or proposal is signed.
    ///
    /// # Errors
    /// [`SignError`].
    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError>;

    /// Signs the proof that the validator stands behind a network peer.
    ///
    /// # Errors
    /// [`SignError`].
    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError>;

    /// The beacon's contribution. An input has one output, so it needs no guard.
    ///
    /// # Errors
    /// [`SignError`].
    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError>;

    /// Whether a verified message under our key is another process's.
    fn foreign(&self, sighting: &Sighting) -> Option<Foreign> {
        self.record().foreign(sighting)
    }
}

struct State {
    file: GuardFile,
    record: Record,
    /// Set when a write failed: what is on the disk is uncertain.
    is_broken: bool,
}

/// A signer with its keys and its guard in this process.
pub struct LocalSigner {
    consensus: SecretKey,
    beacon: SecretKey,
    state: Mutex<State>,
}

impl core::fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LocalSigner of {}", self.consensus.public())
    }
}

impl LocalSigner {
    /// A signer over an open guard.
    #[must_use]
    pub const fn new(
        consensus: SecretKey,
        beacon: SecretKey,
        file: GuardFile,
        record: Record,
    ) -> Self {
        Self {
            consensus,
            beacon,
            state: Mutex::new(State {
                file,
                record,
                is_broken: false,
            }),
        }
    }

    /// Opens the guard in `directory` for these keys.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(
        directory: &std::path::Path,
        chain: &Hash,
        consensus: SecretKey,
        beacon: SecretKey,
    ) -> Result<Self, GuardError> {
        let (file, record) = GuardFile::open(directory, chain, &consensus.public())?;
        Ok(Self::new(consensus, beacon, file, record))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self) -> Hash {
        self.state().record.chain()
    }

    /// Signs, records, and gives the signature once the record is durable.
    fn signed(
        &self,
        state: &mut State,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<Signature, SignError> {
        if state.is_broken {
            return Err(SignError::Unavailable(
                "the signing guard could not be written".to_owned(),
            ));
        }
        let signature = self.consensus.sign(bytes);
        let next = state.record.with(message, signature);
        if let Err(error) = state.file.write(&next) {
            state.is_broken = true;
            return Err(error.into());
        }
        state.record = next;
        Ok(signature)
    }

    fn sign_new_vote(&self, state: &mut State, vote: Vote) -> Result<Signed<Vote>, SignError> {
        let bytes = vote_bytes(&state.record.chain(), &state.record.key(), &vote);
        let signature = self.signed(state, &Message::Vote(&vote), &bytes)?;
        Ok(Signed {
            message: vote,
            signature,
        })
    }
}

/// A decision that no request of this kind can get.
const WRONG_KIND: &str = "a stored message has the kind of its request";

impl Signer for LocalSigner {
    fn key(&self) -> AccountId {
        self.consensus.public()
    }

    fn record(&self) -> Record {
        self.state().record.clone()
    }

    fn bind(&self, lock: Option<(Round, Hash)>) {
        let Some(lock) = lock else {
            return;
        };
        let mut state = self.state();
        if state.record.bound() == Some(lock) {
            return;
        }
        let next = state.record.bound_by(lock);
        // A write that fails is the file's last: the next signature meets the error, and is not given.
        let _ = state.file.write(&next);
        state.record = next;
    }

    fn recall(&self, sighting: &Sighting, signature: Signature) {
        let mut state = self.state();
        let Some(next) = state.record.recalling(sighting, signature) else {
            return;
        };
        // As with a lock: a write that fails is the file's last.
        let _ = state.file.write(&next);
        state.record = next;
    }

    fn sign_header(&self, header: &Header) -> Result<Signature, SignError> {
        let key = self.key();
        let mut state = self.state();
        if header.proposer != key {
            let given = header.proposer;
            return Err(Refusal::OtherKey { given, key }.into());
        }
        if header.chain != state.record.chain() {
            let (given, chain) = (header.chain, state.record.chain());
            return Err(Refusal::OtherChain { given, chain }.into());
        }
        let message = Message::Header(header);
        match state.record.decide(&message) {
            Decision::Sign => {
                let bytes = block_sign_bytes(&header.hash());
                self.signed(&mut state, &message, &bytes)
            }
            Decision::StoredHeader(signature) => Ok(signature),
            Decision::Refuse(refusal) => Err(refusal.into()),
            _ => unreachable!("{WRONG_KIND}"),
        }
    }

    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError> {
        let mut state = self.state();
        let message = Message::Proposal(proposal);
        match state.record.decide(&message) {
            Decision::Sign => {
                let bytes = proposal_bytes(&state.record.chain(), &state.record.key(), proposal);
                let signature = self.signed(&mut state, &message, &bytes)?;
                Ok(Signed {
                    message: *proposal,
                    signature,
                })
            }
            Decision::StoredProposal(stored) => Ok(stored),
            Decision::Refuse(refusal) => Err(refusal.into()),
            _ => unreachable!("{WRONG_KIND}"),
        }
    }

    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        let mut state = self.state();
        match state.record.decide(&Message::Vote(vote)) {
            Decision::Sign => self.sign_new_vote(&mut state, *vote),
            Decision::SignNil(nil) => self.sign_new_vote(&mut state, nil),
            Decision::StoredVote(stored) => Ok(stored),
            Decision::Refuse(refusal) => Err(refusal.into()),
            _ => unreachable!("{WRONG_KIND}"),
        }
    }

    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        self.state().record.may_announce(announcement)?;
        let bytes = announcement_bytes(&self.chain(), announcement);
        Ok(self.consensus.sign(&bytes))
    }

    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        Ok(self.consensus.sign(&peer_proof_bytes(&self.key(), proof)))
    }

    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        let message = beacon_message(&self.chain(), &input.parent, input.height);
        Ok(vrf::prove(&self.beacon, &message))
    }

    fn foreign(&self, sighting: &Sighting) -> Option<Foreign> {
        self.state().record.foreign(sighting)
    }
}
