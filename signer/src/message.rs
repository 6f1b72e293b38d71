//! The messages that are signed, and the bytes that their signatures cover.

use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use serde::{Deserialize, Serialize};

/// The engine's own domain.
const PEER_PROOF_DOMAIN: &[u8] = b"PoV";

/// A block's hash, or `None` for nil.
pub type Block = Option<Hash>;

/// A vote of this signer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// Its height.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// What it is for.
    pub block: Block,
}

/// A proposal of this signer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its height.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// The round of the proof of lock, when a block is proposed again.
    pub pol_round: Option<Round>,
    /// The block proposed.
    pub block: Hash,
}

/// What a proposer announces before it sends a block's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The block's height.
    pub height: Height,
    /// The round it is proposed in.
    pub round: Round,
    /// The round of the proof of lock, when it is proposed again.
    pub pol_round: Option<Round>,
    /// The proposer.
    pub proposer: AccountId,
    /// The block.
    pub block: Hash,
    /// Its size in bytes.
    pub size: u32,
    /// The root of the list of its parts, each of which is so signed, too.
    pub parts: Hash,
}

/// Binds a validator to a network peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProof {
    /// The peer's id as the network encodes it.
    pub peer_id: Vec<u8>,
}

/// What a beacon proof is for: the beacon after the parent block, and the height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconInput {
    /// The parent's beacon.
    pub parent: Hash,
    /// The height of the block that will carry the proof.
    pub height: Height,
}

/// A message with its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// The message.
    pub message: T,
    /// Over its bytes.
    pub signature: Signature,
}

/// A message whose place in a height is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole header.
    Header(&'a Header),
    /// A proposal.
    Proposal(&'a Proposal),
    /// A vote.
    Vote(&'a Vote),
}

/// The bytes of a vote.
#[must_use]
pub fn vote_bytes(chain: &Hash, voter: &AccountId, vote: &Vote) -> Vec<u8> {
    vote_sign_bytes(
        chain,
        vote.kind,
        vote.height,
        vote.round,
        vote.block.as_ref(),
        voter,
    )
}

fn push_pol_round(bytes: &mut Vec<u8>, pol_round: Option<Round>) {
    match pol_round {
        None => bytes.push(0),
        Some(round) => {
            bytes.push(1);
            bytes.extend_from_slice(&round.get().to_le_bytes());
        }
    }
}

/// The bytes of a proposal.
#[must_use]
pub fn proposal_bytes(chain: &Hash, proposer: &AccountId, proposal: &Proposal) -> Vec<u8> {
    let mut bytes = b"proofmill/proposal/v1".to_vec();
    bytes.extend_from_slice(chain.as_bytes());
    bytes.extend_from_slice(&proposal.height.get().to_le_bytes());
    bytes.extend_from_slice(&proposal.round.get().to_le_bytes());
    push_pol_round(&mut bytes, proposal.pol_round);
    bytes.extend_from_slice(proposal.block.as_bytes());
    bytes.extend_from_slice(proposer.as_bytes());
    bytes
}

/// The bytes of an announcement.
#[must_use]
pub fn announcement_bytes(chain: &Hash, announcement: &Announcement) -> Vec<u8> {
    let mut bytes = b"proofmill/parts/v1".to_vec();
    bytes.extend_from_slice(chain.as_bytes());
    bytes.extend_from_slice(&announcement.height.get().to_le_bytes());
    bytes.extend_from_slice(&announcement.round.get().to_le_bytes());
    push_pol_round(&mut bytes, announcement.pol_round);
    bytes.extend_from_slice(announcement.proposer.as_bytes());
    bytes.extend_from_slice(announcement.block.as_bytes());
    bytes.extend_from_slice(&announcement.size.to_le_bytes());
    bytes.extend_from_slice(announcement.parts.as_bytes());
    bytes
}

/// The bytes of a peer proof: what the consensus engine verifies.
#[must_use]
pub fn peer_proof_bytes(validator: &AccountId, proof: &PeerProof) -> Vec<u8> {
    let mut bytes = PEER_PROOF_DOMAIN.to_vec();
    for field in [validator.as_bytes().as_slice(), &proof.peer_id] {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}
