//! The signing guard as the node uses it: asked before each signature, durable before one leaves.

use arc_malachitebft_core_types::{NilOrVal, SignedMessage, VoteType};
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{self as signer, Decision, LoggedMessages, Message, Record};

use crate::block::{self, CHAIN};
use crate::context::{Chain, Proposal, Vote, round_of};
use crate::keyed;

type SignedVote = SignedMessage<Chain, Vote>;
type SignedProposal = SignedMessage<Chain, Proposal>;

/// What a running process knows of its guard.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// What is signed, some of it perhaps not yet durable.
    record: Record,
    /// Whether it signs whatever it is asked to: a Byzantine node, or the repair undone.
    off: bool,
}

/// An empty record of a new validator.
pub(crate) const fn new_record(key: AccountId) -> Record {
    Record::new(CHAIN, key, Height::ZERO)
}

const fn kind_of(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

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

fn proposal_of(proposal: &Proposal) -> signer::Proposal {
    signer::Proposal {
        height: proposal.height.0,
        round: round_of(proposal.round),
        pol_round: proposal.pol_round.as_u32().map(Round::new),
        block: proposal.value.0,
    }
}

impl Guard {
    pub(crate) const fn new(record: Record, off: bool) -> Self {
        Self { record, off }
    }

    fn decide(&self, message: &Message<'_>) -> Decision {
        if self.off {
            return Decision::Sign;
        }
        self.record.decide(message)
    }

    fn sign(&mut self, message: &Message<'_>, signature: Signature) -> Record {
        self.record = self.record.with(message, signature);
        self.record.clone()
    }

    /// Signs a vote or answers with what is stored; with the record to make durable first.
    pub(crate) fn vote(&mut self, vote: Vote) -> (SignedVote, Option<Record>) {
        let asked = vote_of(&vote);
        let decision = self.decide(&Message::Vote(&asked));
        let (block, stored) = match decision {
            Decision::Sign => (asked.block, None),
            Decision::SignNil(nil) => (nil.block, None),
            Decision::StoredVote(stored) => (stored.message.block, Some(stored.signature)),
            _ => return (SignedMessage::new(vote, keyed::REFUSED), None),
        };
        let vote = Vote {
            value: block.map_or(NilOrVal::Nil, NilOrVal::Val),
            ..vote
        };
        if let Some(signature) = stored {
            return (SignedMessage::new(vote, signature), None);
        }
        let signature = keyed::sign(&vote.voter.0, &keyed::vote_bytes(&vote));
        let message = signer::Vote { block, ..asked };
        let record = self.sign(&Message::Vote(&message), signature);
        (SignedMessage::new(vote, signature), Some(record))
    }

    /// Signs a proposal or answers with the stored one.
    pub(crate) fn proposal(&mut self, proposal: Proposal) -> (SignedProposal, Option<Record>) {
        let asked = proposal_of(&proposal);
        let decision = self.decide(&Message::Proposal(&asked));
        match decision {
            Decision::Sign => {
                let bytes = keyed::proposal_bytes(&proposal);
                let signature = keyed::sign(&proposal.proposer.0, &bytes);
                let record = self.sign(&Message::Proposal(&asked), signature);
                (SignedMessage::new(proposal, signature), Some(record))
            }
            Decision::StoredProposal(stored) => {
                (SignedMessage::new(proposal, stored.signature), None)
            }
            _ => (SignedMessage::new(proposal, keyed::REFUSED), None),
        }
    }

    /// Whether a header may be signed; with the record to make durable first.
    pub(crate) fn header(&mut self, header: &Header) -> Result<Option<Record>, String> {
        let decision = self.decide(&Message::Header(header));
        match decision {
            Decision::Sign => {
                let record = self.sign(&Message::Header(header), block::sign(header));
                Ok(Some(record))
            }
            Decision::StoredHeader(_) => Ok(None),
            other => Err(format!("{other:?}")),
        }
    }

    /// Whether the announcement of a block may be signed.
    pub(crate) fn may_announce(
        &self,
        announcement: &proofmill_consensus::core::Announcement,
    ) -> bool {
        let announcement = signer::Announcement {
            height: announcement.height,
            round: announcement.round,
            pol_round: announcement.pol_round,
            proposer: announcement.proposer,
            block: announcement.block,
            size: announcement.size,
            parts: announcement.parts,
        };
        self.off || self.record.may_announce(&announcement).is_ok()
    }
}

/// Our messages in a log.
pub(crate) fn logged(
    entries: &[arc_malachitebft_core_consensus::Input<Chain>],
    me: &AccountId,
) -> LoggedMessages {
    use arc_malachitebft_core_consensus::Input;
    let mut logged = LoggedMessages::default();
    for entry in entries {
        match entry {
            Input::Vote(vote) if vote.message.voter.0 == *me => {
                let signer::Vote {
                    kind, round, block, ..
                } = vote_of(&vote.message);
                logged.votes.push((kind, round, block));
            }
            Input::Proposal(proposal) if proposal.message.proposer.0 == *me => {
                let signer::Proposal {
                    round,
                    pol_round,
                    block,
                    ..
                } = proposal_of(&proposal.message);
                logged.proposals.push((round, pol_round, block));
            }
            _ => {}
        }
    }
    logged
}
