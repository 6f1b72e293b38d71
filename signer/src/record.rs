//! The decision logic: what was signed at the current height, and what may be signed next.
//!
//! A [`Record`] is a value. Nothing here reads a file, a clock or a key, so the rules are tested
//! against a model (`tests/model.rs`).

use core::fmt;
use std::collections::BTreeMap;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use serde::{Deserialize, Serialize};

use crate::foreign::Sighting;
use crate::message::{Announcement, Block, Message, Proposal, Signed, Vote};

/// Rounds of a height that are kept: older ones can no longer be signed in, and are forgotten.
pub const ROUNDS_KEPT_MAX: usize = 64;

/// A request for a signature whose place is ordered.
pub type Request<'a> = Message<'a>;

/// The order of the messages of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// A block's header.
    Header,
    /// A proposal.
    Proposal,
    /// A prevote.
    Prevote,
    /// A precommit.
    Precommit,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Proposal => "proposal",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
        })
    }
}

/// What was signed in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTurn {
    /// The header, whole, with its signature.
    pub header: Option<(Header, Signature)>,
    /// The round of the proof of lock, the block, and the signature.
    pub proposal: Option<(Option<Round>, Hash, Signature)>,
    /// The block or nil, and the signature.
    pub prevote: Option<(Block, Signature)>,
    /// The block or nil, and the signature.
    pub precommit: Option<(Block, Signature)>,
}

impl SignedTurn {
    fn last(&self) -> Option<Position> {
        [
            (self.precommit.is_some(), Position::Precommit),
            (self.prevote.is_some(), Position::Prevote),
            (self.proposal.is_some(), Position::Proposal),
            (self.header.is_some(), Position::Header),
        ]
        .into_iter()
        .find_map(|(signed, position)| signed.then_some(position))
    }

    /// Takes over what is signed in places where it has nothing.
    fn fill(&mut self, other: &Self) {
        let Self {
            header,
            proposal,
            prevote,
            precommit,
        } = other;
        self.header = self.header.take().or_else(|| header.clone());
        self.proposal = self.proposal.or(*proposal);
        self.prevote = self.prevote.or(*prevote);
        self.precommit = self.precommit.or(*precommit);
    }

    /// Whether a message is signed in the place of this one.
    const fn holds(&self, sighting: &Sighting) -> bool {
        match sighting {
            Sighting::Proposal { .. } => self.proposal.is_some(),
            Sighting::Vote { kind, .. } => self.vote(*kind).is_some(),
        }
    }

    /// The vote of a kind.
    #[must_use]
    pub const fn vote(&self, kind: VoteKind) -> Option<&(Block, Signature)> {
        match kind {
            VoteKind::Prevote => self.prevote.as_ref(),
            VoteKind::Precommit => self.precommit.as_ref(),
        }
    }
}

/// Why no signature is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The guard does not sign at or below this height.
    #[error("height {asked} is not above the guard's floor {floor}")]
    Floor {
        /// The height of the request.
        asked: Height,
        /// The floor.
        floor: Height,
    },
    /// A later height was signed in.
    #[error("height {asked} is below {height}, at which this key has signed")]
    PastHeight {
        /// The height of the request.
        asked: Height,
        /// The guard's height.
        height: Height,
    },
    /// A later message of the height was signed.
    #[error("a {asked} of round {asked_round} comes after the {last} of round {last_round}")]
    Order {
        /// The position of the request.
        asked: Position,
        /// Its round.
        asked_round: Round,
        /// The last position signed.
        last: Position,
        /// Its round.
        last_round: Round,
    },
    /// Another message was signed in the same place.
    #[error("another {position} of height {height}, round {round} is signed")]
    Taken {
        /// The position.
        position: Position,
        /// The height.
        height: Height,
        /// The round.
        round: Round,
    },
    /// The block of an announcement is neither built nor proposed by this key at that height.
    #[error("block {block} of height {height} is not one whose header or proposal is signed")]
    NotOurs {
        /// The height.
        height: Height,
        /// The block.
        block: Hash,
    },
    /// The key is not the signer's.
    #[error("the message names {given}, the key is {key}")]
    OtherKey {
        /// Whom the message names.
        given: AccountId,
        /// The signer's key.
        key: AccountId,
    },
    /// The chain is not the signer's.
    #[error("the message is for chain {given}, the signer serves {chain}")]
    OtherChain {
        /// The message's.
        given: Hash,
        /// The signer's.
        chain: Hash,
    },
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Sign it.
    Sign,
    /// Sign this vote instead: nil, because a block precommit that the log lost is still binding.
    SignNil(Vote),
    /// Answer with this stored header's signature.
    StoredHeader(Signature),
    /// Answer with this stored proposal.
    StoredProposal(Signed<Proposal>),
    /// Answer with this stored vote.
    StoredVote(Signed<Vote>),
    /// Give no signature.
    Refuse(Refusal),
}

/// Everything that one key has signed at its latest height, and below which height it never signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    chain: Hash,
    key: AccountId,
    floor: Height,
    height: Height,
    turns: BTreeMap<Round, SignedTurn>,
    /// A block precommit of the height that the engine may not know of.
    bound: Option<(Round, Hash)>,
    /// Whether the height above the floor was open when a guard was lost.
    is_amnesic: bool,
    /// What the lost guard signed at that height, as far as peers brought it back.
    recalled: BTreeMap<Round, SignedTurn>,
}

impl Record {
    /// A record of a key that has signed nothing above `floor`.
    #[must_use]
    pub const fn new(chain: Hash, key: AccountId, floor: Height) -> Self {
        Self {
            chain,
            key,
            floor,
            height: floor,
            turns: BTreeMap::new(),
            bound: None,
            is_amnesic: false,
            recalled: BTreeMap::new(),
        }
    }

    /// A record of a key that signs above `floor` again, although it may have signed at the next height
    /// already: nobody has the logs of that height any more. What `known`, an earlier record of the key,
    /// has of that height is recalled.
    #[must_use]
    pub fn amnesic(chain: Hash, key: AccountId, floor: Height, known: Option<&Self>) -> Self {
        let mut record = Self::new(chain, key, floor);
        record.is_amnesic = true;
        if let Some(known) = known.filter(|known| known.height == floor.next()) {
            record.height = known.height;
            record.recalled.clone_from(&known.turns);
            for (round, turn) in &known.recalled {
                let both = record.recalled.entry(*round).or_default();
                both.fill(turn);
            }
            while record.recalled.len() > ROUNDS_KEPT_MAX {
                record.recalled.pop_first();
            }
        }
        record
    }

    /// The chain's genesis hash.
    #[must_use]
    pub const fn chain(&self) -> Hash {
        self.chain
    }

    /// The consensus key.
    #[must_use]
    pub const fn key(&self) -> AccountId {
        self.key
    }

    /// Nothing is signed at or below this height.
    #[must_use]
    pub const fn floor(&self) -> Height {
        self.floor
    }

    /// The latest height at which something may have been signed.
    #[must_use]
    pub const fn height(&self) -> Height {
        self.height
    }

    /// What was signed at that height, by round. Empty when the height is the floor.
    #[must_use]
    pub const fn turns(&self) -> &BTreeMap<Round, SignedTurn> {
        &self.turns
    }

    /// The last message signed at the height.
    #[must_use]
    pub fn last(&self) -> Option<(Round, Position)> {
        let (round, turn) = self.turns.last_key_value()?;
        turn.last().map(|position| (*round, position))
    }

    /// The block precommit of the latest round that has one.
    #[must_use]
    pub fn lock(&self) -> Option<(Round, Hash)> {
        let locks = self.turns.iter().rev();
        locks
            .filter_map(|(round, turn)| Some((*round, turn.precommit.as_ref()?.0?)))
            .next()
    }

    /// The block precommit that binds until the height is decided.
    #[must_use]
    pub const fn bound(&self) -> Option<(Round, Hash)> {
        self.bound
    }

    /// The record with a block precommit of its height that binds from now on, because the engine may
    /// not know of it ([`Plan::Continue`](crate::Plan::Continue)).
    #[must_use]
    pub fn bound_by(&self, lock: (Round, Hash)) -> Self {
        Self {
            bound: Some(lock),
            ..self.clone()
        }
    }

    /// The height at which this key may have signed what the record does not have; `None` once a later
    /// one was signed in.
    #[must_use]
    pub fn amnesic_height(&self) -> Option<Height> {
        self.is_amnesic.then(|| self.floor.next())
    }

    /// What the key is known to have signed at the amnesic height before its guard was lost, by round.
    #[must_use]
    pub const fn recalled(&self) -> &BTreeMap<Round, SignedTurn> {
        &self.recalled
    }

    /// The record with a message of the amnesic height that its key signed before the guard was lost: its
    /// place is taken. `None` when nothing changes: it is of another height, the place is taken, or
    /// [`ROUNDS_KEPT_MAX`] rounds are recalled. The signature must have been verified.
    ///
    /// Neither the order of places nor a lock follows from it. With them whoever kept such messages could
    /// silence the key, or bind it to a block that nobody has any more.
    #[must_use]
    pub fn recalling(&self, sighting: &Sighting, signature: Signature) -> Option<Self> {
        let (height, round) = sighting.place();
        if self.amnesic_height() != Some(height) {
            return None;
        }
        let no_room = self.recalled.len() >= ROUNDS_KEPT_MAX && !self.recalled.contains_key(&round);
        let signed = self.turns.get(&round);
        let is_signed = signed.is_some_and(|turn| turn.holds(sighting));
        if no_room || is_signed {
            return None;
        }
        let mut next = self.clone();
        let turn = next.recalled.entry(round).or_default();
        if turn.holds(sighting) {
            return None;
        }
        match *sighting {
            Sighting::Proposal {
                pol_round, block, ..
            } => turn.proposal = Some((pol_round, block, signature)),
            Sighting::Vote { kind, block, .. } => match kind {
                VoteKind::Prevote => turn.prevote = Some((block, signature)),
                VoteKind::Precommit => turn.precommit = Some((block, signature)),
            },
        }
        next.height = height;
        Some(next)
    }

    /// Decides about a request.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let (height, round, position) = place(request);
        if height <= self.floor {
            return Decision::Refuse(Refusal::Floor {
                asked: height,
                floor: self.floor,
            });
        }
        if height < self.height {
            return Decision::Refuse(Refusal::PastHeight {
                asked: height,
                height: self.height,
            });
        }
        if height > self.height {
            return Decision::Sign;
        }
        if let Some(stored) = self.stored(request) {
            return stored;
        }
        if let Some((last_round, last)) = self.last()
            && (round, position) < (last_round, last)
        {
            return Decision::Refuse(Refusal::Order {
                asked: position,
                asked_round: round,
                last,
                last_round,
            });
        }
        if let Message::Vote(vote) = request
            && let (Some(block), Some((locked_at, locked))) = (vote.block, self.bound)
            && round > locked_at
            && block != locked
        {
            return Decision::SignNil(Vote {
                block: None,
                ..**vote
            });
        }
        Decision::Sign
    }

    /// What a taken place answers; `None` when the place is free.
    fn stored(&self, request: &Request<'_>) -> Option<Decision> {
        let (_, round, _) = place(request);
        let turns = [&self.turns, &self.recalled];
        let turns = turns.into_iter().filter_map(|turns| turns.get(&round));
        turns
            .filter_map(|turn| Self::stored_in(turn, request))
            .next()
    }

    fn stored_in(turn: &SignedTurn, request: &Request<'_>) -> Option<Decision> {
        let (height, round, position) = place(request);
        let taken = || {
            Decision::Refuse(Refusal::Taken {
                position,
                height,
                round,
            })
        };
        match request {
            Message::Header(header) => {
                let (stored, signature) = turn.header.as_ref()?;
                Some(if stored == *header {
                    Decision::StoredHeader(*signature)
                } else {
                    taken()
                })
            }
            Message::Proposal(proposal) => {
                let (pol_round, block, signature) = turn.proposal?;
                let same = (pol_round, block) == (proposal.pol_round, proposal.block);
                Some(if same {
                    Decision::StoredProposal(Signed {
                        message: **proposal,
                        signature,
                    })
                } else {
                    taken()
                })
            }
            Message::Vote(vote) => {
                let (block, signature) = *turn.vote(vote.kind)?;
                let binding = vote.kind == VoteKind::Precommit && block.is_some();
                if block != vote.block && binding {
                    return Some(taken());
                }
                Some(Decision::StoredVote(Signed {
                    message: Vote { block, ..**vote },
                    signature,
                }))
            }
        }
    }

    /// Whether an announcement may be signed: only of a block whose header or proposal is signed.
    ///
    /// # Errors
    /// When the block is not one of those.
    pub fn may_announce(&self, announcement: &Announcement) -> Result<(), Refusal> {
        if announcement.proposer != self.key {
            return Err(Refusal::OtherKey {
                given: announcement.proposer,
                key: self.key,
            });
        }
        let block = announcement.block;
        let ours = |turn: &SignedTurn| {
            let proposed = turn.proposal.is_some_and(|(_, hash, _)| hash == block);
            let built = turn.header.as_ref();
            proposed || built.is_some_and(|(header, _)| header.hash() == block)
        };
        if announcement.height == self.height && self.turns.values().any(ours) {
            Ok(())
        } else {
            Err(Refusal::NotOurs {
                height: announcement.height,
                block,
            })
        }
    }

    /// The record with one more signed message, which [`Self::decide`] allowed.
    #[must_use]
    pub fn with(&self, message: &Message<'_>, signature: Signature) -> Self {
        let (height, round, _) = place(message);
        let mut next = self.clone();
        if height > next.height {
            next.height = height;
            next.turns.clear();
            next.bound = None;
            // The first signature at the amnesic height does not end it.
            if self.amnesic_height() != Some(height) {
                next.is_amnesic = false;
                next.recalled.clear();
            }
        }
        let turn = next.turns.entry(round).or_default();
        match message {
            Message::Header(header) => turn.header = Some(((*header).clone(), signature)),
            Message::Proposal(proposal) => {
                turn.proposal = Some((proposal.pol_round, proposal.block, signature));
            }
            Message::Vote(vote) => match vote.kind {
                VoteKind::Prevote => turn.prevote = Some((vote.block, signature)),
                VoteKind::Precommit => turn.precommit = Some((vote.block, signature)),
            },
        }
        while next.turns.len() > ROUNDS_KEPT_MAX {
            next.turns.pop_first();
        }
        next
    }
}

fn place(message: &Message<'_>) -> (Height, Round, Position) {
    match message {
        Message::Header(header) => (header.height, header.round, Position::Header),
        Message::Proposal(proposal) => (proposal.height, proposal.round, Position::Proposal),
        Message::Vote(vote) => {
            let position = match vote.kind {
                VoteKind::Prevote => Position::Prevote,
                VoteKind::Precommit => Position::Precommit,
            };
            (vote.height, vote.round, position)
        }
    }
}
