//! The plain forms of the engine's messages, in the chain's types: what is encoded.

mod transfer;

use arc_malachitebft_core_consensus::{LivenessMsg, SignedConsensusMsg};
use arc_malachitebft_core_types::{
    self as malachite, NilOrVal, PolkaCertificate, PolkaSignature, RoundCertificate,
    RoundCertificateType, RoundSignature, SignedMessage, VoteType,
};
use proofmill_chain::codec::DecodeError;
use proofmill_chain::types::block::CommitSignature;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::VALIDATORS_MAX;
use serde::{Deserialize, Serialize};

use crate::context::{self, Address, Chain, Value};
pub(crate) use transfer::{
    DECIDED_MAX, PartWire, ProofWire, ProposedWire, RequestWire, ResponseWire, StatusWire,
    StreamWire, certified, decided,
};

/// No round is later than this; consensus never comes near it.
const ROUND_MAX: u32 = 1 << 24;
/// Votes in a round certificate: a prevote and a precommit of each validator.
const ROUND_SIGNATURES_MAX: usize = 2 * VALIDATORS_MAX;

/// Why a message cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{given} {what}, at most {most}")]
    TooMany {
        what: &'static str,
        given: usize,
        most: usize,
    },
    #[error("round {0}, at most {ROUND_MAX}")]
    Round(u32),
    #[error("no round where there must be one")]
    NoRound,
    #[error("not a peer id")]
    Peer,
    #[error("stream id of {0} bytes, expected 32")]
    StreamId(usize),
    #[error("a vote extension, and this chain has none")]
    Extension,
    #[error("public key of {0} bytes, expected 32")]
    Key(usize),
}

fn round(round: malachite::Round) -> Result<Round, WireError> {
    round.as_u32().map(Round::new).ok_or(WireError::NoRound)
}

fn bounded(round: Round) -> Result<malachite::Round, WireError> {
    if round.get() > ROUND_MAX {
        return Err(WireError::Round(round.get()));
    }
    Ok(malachite::Round::new(round.get()))
}

fn bounded_or_nil(round: Option<Round>) -> Result<malachite::Round, WireError> {
    round.map_or(Ok(malachite::Round::Nil), bounded)
}

fn at_most(what: &'static str, given: usize, most: usize) -> Result<(), WireError> {
    if given > most {
        return Err(WireError::TooMany { what, given, most });
    }
    Ok(())
}

fn block_of(value: NilOrVal<Hash>) -> Option<Hash> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(hash) => Some(hash),
    }
}

fn value_of(block: Option<Hash>) -> NilOrVal<Hash> {
    block.map_or(NilOrVal::Nil, NilOrVal::Val)
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Prevote,
    Precommit,
}

impl From<VoteType> for Kind {
    fn from(kind: VoteType) -> Self {
        match kind {
            VoteType::Prevote => Self::Prevote,
            VoteType::Precommit => Self::Precommit,
        }
    }
}

impl From<Kind> for VoteType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Prevote => Self::Prevote,
            Kind::Precommit => Self::Precommit,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct VoteWire {
    kind: Kind,
    height: Height,
    round: Round,
    block: Option<Hash>,
    voter: AccountId,
    signature: Signature,
}

type SignedVote = SignedMessage<Chain, context::Vote>;

impl TryFrom<&SignedVote> for VoteWire {
    type Error = WireError;

    fn try_from(vote: &SignedVote) -> Result<Self, WireError> {
        Ok(Self {
            kind: vote.kind.into(),
            height: vote.height.0,
            round: round(vote.round)?,
            block: block_of(vote.value),
            voter: vote.voter.0,
            signature: vote.signature,
        })
    }
}

impl TryFrom<VoteWire> for SignedVote {
    type Error = WireError;

    fn try_from(wire: VoteWire) -> Result<Self, WireError> {
        let vote = context::Vote {
            kind: wire.kind.into(),
            height: context::Height(wire.height),
            round: bounded(wire.round)?,
            value: value_of(wire.block),
            voter: Address(wire.voter),
        };
        Ok(Self::new(vote, wire.signature))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProposalWire {
    height: Height,
    round: Round,
    pol_round: Option<Round>,
    block: Hash,
    proposer: AccountId,
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum ConsensusWire {
    Vote(VoteWire),
    Proposal(ProposalWire),
}

impl TryFrom<&SignedConsensusMsg<Chain>> for ConsensusWire {
    type Error = WireError;

    fn try_from(message: &SignedConsensusMsg<Chain>) -> Result<Self, WireError> {
        Ok(match message {
            SignedConsensusMsg::Vote(vote) => Self::Vote(vote.try_into()?),
            SignedConsensusMsg::Proposal(proposal) => Self::Proposal(ProposalWire {
                height: proposal.height.0,
                round: round(proposal.round)?,
                pol_round: proposal.pol_round.as_u32().map(Round::new),
                block: proposal.value.0,
                proposer: proposal.proposer.0,
                signature: proposal.signature,
            }),
        })
    }
}

impl TryFrom<ConsensusWire> for SignedConsensusMsg<Chain> {
    type Error = WireError;

    fn try_from(wire: ConsensusWire) -> Result<Self, WireError> {
        Ok(match wire {
            ConsensusWire::Vote(vote) => Self::Vote(vote.try_into()?),
            ConsensusWire::Proposal(wire) => {
                let proposal = context::Proposal {
                    height: context::Height(wire.height),
                    round: bounded(wire.round)?,
                    value: Value(wire.block),
                    pol_round: bounded_or_nil(wire.pol_round)?,
                    proposer: Address(wire.proposer),
                };
                Self::Proposal(SignedMessage::new(proposal, wire.signature))
            }
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PolkaWire {
    height: Height,
    round: Round,
    block: Hash,
    signatures: Vec<CommitSignature>,
}

impl TryFrom<&PolkaCertificate<Chain>> for PolkaWire {
    type Error = WireError;

    fn try_from(polka: &PolkaCertificate<Chain>) -> Result<Self, WireError> {
        let signatures = polka.polka_signatures.iter();
        Ok(Self {
            height: polka.height.0,
            round: round(polka.round)?,
            block: polka.value_id,
            signatures: signatures
                .map(|signed| CommitSignature {
                    validator: signed.address.0,
                    signature: signed.signature,
                })
                .collect(),
        })
    }
}

impl TryFrom<PolkaWire> for PolkaCertificate<Chain> {
    type Error = WireError;

    fn try_from(wire: PolkaWire) -> Result<Self, WireError> {
        at_most("signatures", wire.signatures.len(), VALIDATORS_MAX)?;
        let signatures = wire.signatures.into_iter();
        Ok(Self {
            height: context::Height(wire.height),
            round: bounded(wire.round)?,
            value_id: wire.block,
            polka_signatures: signatures
                .map(|signed| PolkaSignature::new(Address(signed.validator), signed.signature))
                .collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct RoundSignatureWire {
    kind: Kind,
    block: Option<Hash>,
    voter: AccountId,
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RoundWire {
    height: Height,
    round: Round,
    /// Whether more than a third already voted in the round, else two thirds ended it.
    skip: bool,
    signatures: Vec<RoundSignatureWire>,
}

impl TryFrom<&RoundCertificate<Chain>> for RoundWire {
    type Error = WireError;

    fn try_from(certificate: &RoundCertificate<Chain>) -> Result<Self, WireError> {
        let signatures = certificate.round_signatures.iter();
        Ok(Self {
            height: certificate.height.0,
            round: round(certificate.round)?,
            skip: certificate.cert_type == RoundCertificateType::Skip,
            signatures: signatures
                .map(|signed| RoundSignatureWire {
                    kind: signed.vote_type.into(),
                    block: block_of(signed.value_id),
                    voter: signed.address.0,
                    signature: signed.signature,
                })
                .collect(),
        })
    }
}

impl TryFrom<RoundWire> for RoundCertificate<Chain> {
    type Error = WireError;

    fn try_from(wire: RoundWire) -> Result<Self, WireError> {
        at_most("signatures", wire.signatures.len(), ROUND_SIGNATURES_MAX)?;
        let signatures = wire.signatures.into_iter();
        Ok(Self {
            height: context::Height(wire.height),
            round: bounded(wire.round)?,
            cert_type: if wire.skip {
                RoundCertificateType::Skip
            } else {
                RoundCertificateType::Precommit
            },
            round_signatures: signatures
                .map(|signed| {
                    RoundSignature::new(
                        signed.kind.into(),
                        value_of(signed.block),
                        Address(signed.voter),
                        signed.signature,
                    )
                })
                .collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) enum LivenessWire {
    Vote(VoteWire),
    Polka(PolkaWire),
    Round(RoundWire),
}

impl TryFrom<&LivenessMsg<Chain>> for LivenessWire {
    type Error = WireError;

    fn try_from(message: &LivenessMsg<Chain>) -> Result<Self, WireError> {
        Ok(match message {
            LivenessMsg::Vote(vote) => Self::Vote(vote.try_into()?),
            LivenessMsg::PolkaCertificate(polka) => Self::Polka(polka.try_into()?),
            LivenessMsg::SkipRoundCertificate(round) => Self::Round(round.try_into()?),
        })
    }
}

impl TryFrom<LivenessWire> for LivenessMsg<Chain> {
    type Error = WireError;

    fn try_from(wire: LivenessWire) -> Result<Self, WireError> {
        Ok(match wire {
            LivenessWire::Vote(vote) => Self::Vote(vote.try_into()?),
            LivenessWire::Polka(polka) => Self::PolkaCertificate(polka.try_into()?),
            LivenessWire::Round(round) => Self::SkipRoundCertificate(round.try_into()?),
        })
    }
}
