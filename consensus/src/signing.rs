//! What is signed, and by which rule signatures count: ZIP-215 for all of it.

use arc_malachitebft_core_types::{NilOrVal, SignedMessage, ValidatorProof, VoteExtensionScope};
use arc_malachitebft_signing::{Error, VerificationResult};
use async_trait::async_trait;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};

use crate::context::{Chain, Proposal, Vote, round_of};

/// Whether a signature over `message` is valid.
pub(crate) fn is_valid(key: &AccountId, message: &[u8], signature: &Signature) -> bool {
    verify(&Item {
        key: key.as_bytes(),
        message,
        signature: signature.as_bytes(),
    })
}

fn vote_bytes(chain: &Hash, vote: &Vote) -> Vec<u8> {
    use arc_malachitebft_core_types::VoteType;
    let kind = match vote.kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    };
    let block = match &vote.value {
        NilOrVal::Nil => None,
        NilOrVal::Val(hash) => Some(hash),
    };
    vote_sign_bytes(
        chain,
        kind,
        vote.height.0,
        round_of(vote.round),
        block,
        &vote.voter.0,
    )
}

fn push_pol_round(bytes: &mut Vec<u8>, pol_round: Option<u32>) {
    match pol_round {
        None => bytes.push(0),
        Some(round) => {
            bytes.push(1);
            bytes.extend_from_slice(&round.to_le_bytes());
        }
    }
}

/// What a proposer signs on its proposal message.
fn proposal_bytes(chain: &Hash, proposal: &Proposal) -> Vec<u8> {
    let mut bytes = b"proofmill/proposal/v1".to_vec();
    bytes.extend_from_slice(chain.as_bytes());
    bytes.extend_from_slice(&proposal.height.0.get().to_le_bytes());
    bytes.extend_from_slice(&round_of(proposal.round).get().to_le_bytes());
    push_pol_round(&mut bytes, proposal.pol_round.as_u32());
    bytes.extend_from_slice(proposal.value.0.as_bytes());
    bytes.extend_from_slice(proposal.proposer.0.as_bytes());
    bytes
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
        let message = vote_bytes(&self.chain, vote);
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
        let message = proposal_bytes(&self.chain, proposal);
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

/// Signs for the engine with the validator's key.
pub(crate) struct Signer {
    pub(crate) chain: Hash,
    pub(crate) key: SecretKey,
}

impl Signer {
    /// The proof that the validator stands behind a network peer.
    pub(crate) fn prove_peer(
        &self,
        public_key: Vec<u8>,
        peer_id: Vec<u8>,
    ) -> ValidatorProof<Chain> {
        let message = ValidatorProof::<Chain>::signing_bytes(&public_key, &peer_id);
        ValidatorProof::new(public_key, peer_id, self.key.sign(&message))
    }
}

#[async_trait]
impl arc_malachitebft_signing::Signer<Chain> for Signer {
    async fn sign_vote(&self, vote: Vote) -> Result<SignedMessage<Chain, Vote>, Error> {
        let signature = self.key.sign(&vote_bytes(&self.chain, &vote));
        Ok(SignedMessage::new(vote, signature))
    }

    async fn sign_proposal(
        &self,
        proposal: Proposal,
    ) -> Result<SignedMessage<Chain, Proposal>, Error> {
        let signature = self.key.sign(&proposal_bytes(&self.chain, &proposal));
        Ok(SignedMessage::new(proposal, signature))
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
        public_key: Vec<u8>,
        peer_id: Vec<u8>,
    ) -> Result<ValidatorProof<Chain>, Error> {
        Ok(self.prove_peer(public_key, peer_id))
    }
}
