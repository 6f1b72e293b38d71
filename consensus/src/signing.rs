//! How the engine signs, and by which rule signatures count: ZIP-215 for all of it.

use std::sync::Arc;

use arc_malachitebft_core_types::{
    NilOrVal, SignedMessage, ValidatorProof, VoteExtensionScope, VoteType,
};
use arc_malachitebft_signing::{Error, VerificationResult};
use async_trait::async_trait;
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::Round;
use proofmill_signer::{self as signer, PeerProof, SignError, proposal_bytes, vote_bytes};
use tokio::sync::watch;

use crate::context::{Address, Chain, Proposal, Value, Vote, round_of, round_or_nil};

/// What stands in the place of a signature that the signer refused. It verifies under no key: its
/// first half is a point of small order, so the equation would need a key of small order as well,
/// and those are not admitted.
pub(crate) const UNSIGNED: Signature = Signature::new([0; 64]);

/// Whether a signature over `message` is valid.
pub(crate) fn is_valid(key: &AccountId, message: &[u8], signature: &Signature) -> bool {
    verify(&Item {
        key: key.as_bytes(),
        message,
        signature: signature.as_bytes(),
    })
}

/// The chain's kind of a vote.
pub(crate) const fn kind_of(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

/// A vote as the signer knows it.
fn vote_of(vote: &Vote) -> signer::Vote {
    signer::Vote {
        kind: kind_of(vote.kind),
        height: vote.height.0,
        round: round_of(vote.round),
        block: match vote.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(hash) => Some(hash),
        },
    }
}

/// A proposal as the signer knows it.
fn proposal_of(proposal: &Proposal) -> signer::Proposal {
    signer::Proposal {
        height: proposal.height.0,
        round: round_of(proposal.round),
        pol_round: proposal.pol_round.as_u32().map(Round::new),
        block: proposal.value.0,
    }
}

/// Checks signatures for the engine.
pub(crate) struct Verifier {
    pub(crate) chain: Hash,
}

#[async_trait]
impl arc_malachitebft_signing::Verifier<Chain> for Verifier {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        signature: &Signature,
        public_key: &AccountId,
    ) -> Result<VerificationResult, Error> {
        let message = vote_bytes(&self.chain, &vote.voter.0, &vote_of(vote));
        Ok(VerificationResult::from_bool(is_valid(
            public_key, &message, signature,
        )))
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        signature: &Signature,
        public_key: &AccountId,
    ) -> Result<VerificationResult, Error> {
        let message = proposal_bytes(&self.chain, &proposal.proposer.0, &proposal_of(proposal));
        Ok(VerificationResult::from_bool(is_valid(
            public_key, &message, signature,
        )))
    }

    async fn verify_signed_vote_extension(
        &self,
        _: &VoteExtensionScope<Chain>,
        (): &(),
        _: &Signature,
        _: &AccountId,
    ) -> Result<VerificationResult, Error> {
        Ok(VerificationResult::Invalid)
    }

    async fn verify_validator_proof(
        &self,
        proof: &ValidatorProof<Chain>,
    ) -> Result<VerificationResult, Error> {
        let valid = proof
            .decoded_public_key()
            .is_ok_and(|key| is_valid(&key, &proof.preimage(), &proof.signature));
        Ok(VerificationResult::from_bool(valid))
    }
}

/// The proof that a validator stands behind a network peer.
///
/// # Errors
/// When the signer gives none.
pub(crate) fn prove_peer(
    signer: &dyn signer::Signer,
    peer_id: Vec<u8>,
) -> Result<ValidatorProof<Chain>, SignError> {
    let proof = PeerProof { peer_id };
    let signature = signer.prove_peer(&proof)?;
    let key = signer.key().as_bytes().to_vec();
    Ok(ValidatorProof::new(key, proof.peer_id, signature))
}

/// Signs for the engine. It never answers with an error: live that would end the engine, and during
/// a replay it would hang.
pub(crate) struct EngineSigner {
    pub(crate) signer: Arc<dyn signer::Signer>,
    /// Set when nothing can be signed any more.
    pub(crate) broken: watch::Sender<Option<String>>,
}

impl EngineSigner {
    /// Asks the signer on a thread that may block; `None` when it refuses.
    async fn ask<T: Send + 'static>(
        &self,
        what: impl std::fmt::Debug,
        call: impl FnOnce(&dyn signer::Signer) -> Result<T, SignError> + Send + 'static,
    ) -> Option<T> {
        let signer = Arc::clone(&self.signer);
        let answer = tokio::task::spawn_blocking(move || call(signer.as_ref())).await;
        let error = match answer {
            Ok(Ok(signed)) => return Some(signed),
            Ok(Err(SignError::Refused(refusal))) => {
                tracing::warn!(?what, %refusal, "not signed");
                return None;
            }
            Ok(Err(SignError::Unavailable(reason))) => {
                tracing::error!(?what, reason, "not signed");
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("the signer died: {error}"),
        };
        self.broken.send_replace(Some(error));
        None
    }
}

#[async_trait]
impl arc_malachitebft_signing::Signer<Chain> for EngineSigner {
    async fn sign_vote(&self, vote: Vote) -> Result<SignedMessage<Chain, Vote>, Error> {
        let asked = vote_of(&vote);
        let signed = self
            .ask(asked, move |signer| signer.sign_vote(&asked))
            .await;
        let Some(signed) = signed else {
            return Ok(SignedMessage::new(vote, UNSIGNED));
        };
        let value = signed.message.block.map_or(NilOrVal::Nil, NilOrVal::Val);
        Ok(SignedMessage::new(Vote { value, ..vote }, signed.signature))
    }

    async fn sign_proposal(
        &self,
        proposal: Proposal,
    ) -> Result<SignedMessage<Chain, Proposal>, Error> {
        let asked = proposal_of(&proposal);
        let signed = self
            .ask(asked, move |signer| signer.sign_proposal(&asked))
            .await;
        let Some(signed) = signed else {
            return Ok(SignedMessage::new(proposal, UNSIGNED));
        };
        let proposal = Proposal {
            pol_round: round_or_nil(signed.message.pol_round),
            value: Value(signed.message.block),
            ..proposal
        };
        Ok(SignedMessage::new(proposal, signed.signature))
    }

    async fn sign_vote_extension(
        &self,
        _: VoteExtensionScope<Chain>,
        (): (),
    ) -> Result<SignedMessage<Chain, ()>, Error> {
        Err(Error::from_source("this chain has no vote extensions"))
    }

    async fn sign_validator_proof(
        &self,
        _: Vec<u8>,
        peer_id: Vec<u8>,
    ) -> Result<ValidatorProof<Chain>, Error> {
        prove_peer(self.signer.as_ref(), peer_id).map_err(Error::from_source)
    }
}

/// The address of an engine that does not sign: no key of a validator, so that the engine takes
/// itself for a follower.
pub(crate) const FOLLOWER: Address = Address(AccountId::new([0; 32]));
