//! Signatures by a keyed hash, which only the harness can forge, and the certificates made of them.
//!
//! Announcements of parts are the exception: the core verifies those itself, so they carry real
//! signatures.

#![allow(
    clippy::result_large_err,
    reason = "the state machine takes its own errors unboxed"
)]

use std::collections::BTreeSet;

use arc_malachitebft_core_consensus::ConsensusMsg;
use arc_malachitebft_core_types::{
    CertificateError, CommitCertificate, CommitSignature, Context, ExtendedCommitCertificate,
    NilOrVal, PolkaCertificate, PolkaSignature, RoundCertificate, RoundCertificateType,
    RoundSignature, SignedVote, ThresholdParams, Validator as _, ValidatorSet as _, VoteType,
};
use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use crate::context::{Address, Chain, Proposal, ValidatorSet, Vote, round_of};

/// The signature of a key over a message.
pub(crate) fn sign(key: &AccountId, message: &[u8]) -> Signature {
    let half = Hash::of("simulation/signature", &[key.as_bytes(), message]);
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(half.as_bytes());
    bytes[32..].copy_from_slice(key.as_bytes());
    Signature::new(bytes)
}

/// Whether a signature is the key's over the message.
pub(crate) fn is_valid(key: &AccountId, message: &[u8], signature: &Signature) -> bool {
    sign(key, message) == *signature
}

/// What a refused request is answered with: no key has this signature.
pub(crate) const REFUSED: Signature = Signature::new([0; 64]);

pub(crate) fn vote_bytes(vote: &Vote) -> Vec<u8> {
    let kind = match vote.kind {
        VoteType::Prevote => 0_u8,
        VoteType::Precommit => 1,
    };
    let block = match vote.value {
        NilOrVal::Nil => None,
        NilOrVal::Val(hash) => Some(hash),
    };
    let parts: (u8, Height, Round, Option<Hash>) =
        (kind, vote.height.0, round_of(vote.round), block);
    codec::encode(&parts)
}

pub(crate) fn proposal_bytes(proposal: &Proposal) -> Vec<u8> {
    let parts: (u8, Height, Round, Option<u32>, Hash) = (
        2,
        proposal.height.0,
        round_of(proposal.round),
        proposal.pol_round.as_u32(),
        proposal.value.0,
    );
    codec::encode(&parts)
}

/// Verifies a vote or a proposal.
pub(crate) fn verify(
    message: &ConsensusMsg<Chain>,
    signature: &Signature,
    key: &AccountId,
) -> bool {
    match message {
        ConsensusMsg::Vote(vote) => is_valid(key, &vote_bytes(vote), signature),
        ConsensusMsg::Proposal(proposal) => is_valid(key, &proposal_bytes(proposal), signature),
    }
}

type Verified = Result<(), CertificateError<Chain>>;

fn quorum(signed: u64, set: &ValidatorSet, thresholds: &ThresholdParams, skip: bool) -> Verified {
    let total = set.total_voting_power();
    let threshold = if skip {
        thresholds.honest
    } else {
        thresholds.quorum
    };
    if threshold.is_met(signed, total) {
        return Ok(());
    }
    Err(CertificateError::NotEnoughVotingPower {
        signed,
        total,
        expected: threshold.min_expected(total),
    })
}

/// The power behind the votes of a certificate, each verified.
fn power(
    set: &ValidatorSet,
    votes: impl Iterator<Item = SignedVote<Chain>>,
    invalid: impl Fn(&SignedVote<Chain>) -> CertificateError<Chain>,
) -> Result<u64, CertificateError<Chain>> {
    let mut signed = 0;
    let mut seen = BTreeSet::new();
    for vote in votes {
        let address = vote.message.voter;
        if !seen.insert(address) {
            return Err(CertificateError::DuplicateVote(address));
        }
        let validator = set
            .get_by_address(&address)
            .ok_or(CertificateError::UnknownValidator(address))?;
        if !is_valid(&address.0, &vote_bytes(&vote.message), &vote.signature) {
            return Err(invalid(&vote));
        }
        signed += validator.voting_power();
    }
    Ok(signed)
}

pub(crate) fn verify_commit(
    certificate: &CommitCertificate<Chain>,
    set: &ValidatorSet,
    thresholds: &ThresholdParams,
) -> Verified {
    let votes = certificate.commit_signatures.iter().map(|signed| {
        let value = NilOrVal::Val(certificate.value_id);
        let vote =
            Chain.new_precommit(certificate.height, certificate.round, value, signed.address);
        SignedVote::new(vote, signed.signature)
    });
    let signed = power(set, votes, |vote| {
        CertificateError::InvalidCommitSignature(CommitSignature::new(
            vote.message.voter,
            vote.signature,
        ))
    })?;
    quorum(signed, set, thresholds, false)
}

pub(crate) fn verify_extended(
    certificate: &ExtendedCommitCertificate<Chain>,
    set: &ValidatorSet,
    thresholds: &ThresholdParams,
) -> Verified {
    verify_commit(&certificate.trim_vote_extensions(), set, thresholds)
}

pub(crate) fn verify_polka(
    certificate: &PolkaCertificate<Chain>,
    set: &ValidatorSet,
    thresholds: &ThresholdParams,
) -> Verified {
    let signed = power(set, certificate.votes(&Chain), |vote| {
        CertificateError::InvalidPolkaSignature(PolkaSignature::new(
            vote.message.voter,
            vote.signature,
        ))
    })?;
    quorum(signed, set, thresholds, false)
}

pub(crate) fn verify_round(
    certificate: &RoundCertificate<Chain>,
    set: &ValidatorSet,
    thresholds: &ThresholdParams,
) -> Verified {
    let precommits_only = certificate.cert_type == RoundCertificateType::Precommit;
    let prevote = certificate
        .round_signatures
        .iter()
        .find(|signed| precommits_only && signed.vote_type == VoteType::Prevote);
    if let Some(signed) = prevote {
        return Err(CertificateError::InvalidVoteType(signed.address));
    }
    let signed = power(set, certificate.votes(&Chain), |vote| {
        CertificateError::InvalidRoundSignature(RoundSignature::new(
            vote.message.kind,
            vote.message.value,
            vote.message.voter,
            vote.signature,
        ))
    })?;
    quorum(signed, set, thresholds, !precommits_only)
}

/// The address of a key.
pub(crate) const fn address(key: AccountId) -> Address {
    Address(key)
}
