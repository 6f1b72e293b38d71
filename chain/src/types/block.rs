//! Blocks, headers and the certificates that make them final (protocol §4 and §5).

use serde::{Deserialize, Serialize};

use crate::finality::Turn;
use crate::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use crate::types::task::SignedAttestation;
use crate::types::transaction::SignedTransaction;
use crate::types::units::{Amount, Height, ProtocolVersion, Round};

/// No block is larger than this, whatever the parameters say.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;

/// No header of any protocol version is longer than this, encoded.
pub const HEADER_BYTES_MAX: usize = 4 << 10;

/// What a header's hash begins with.
const HEADER_TAG: &str = "proofmill/header/v1";

/// A draw that gave a worker a seat; every node derives the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The task.
    pub task: Hash,
    /// Which draw of the task, from 0.
    pub draw: u8,
    /// The worker drawn.
    pub worker: AccountId,
}

/// What the proposer signs and consensus decides: commitments to everything else.
///
/// Three things are the same in every protocol version, so that a node can tell what it does not know:
/// a block begins with its header, a header with its version, and a header's hash is [`Header::hash`]'s
/// over its encoding, which is at most [`HEADER_BYTES_MAX`] long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the rules that the block follows. It stays the first field in every version, so that
    /// [`version_of`] reads it from bytes of any version.
    pub version: ProtocolVersion,
    /// Genesis hash.
    pub chain: Hash,
    /// Position.
    pub height: Height,
    /// The round in which the block was first built.
    pub round: Round,
    /// Milliseconds since the Unix epoch, greater than the parent's.
    pub time_ms: u64,
    /// Hash of the parent's header; of genesis for the first block.
    pub parent: Hash,
    /// Consensus key of the proposer of (height, round).
    pub proposer: AccountId,
    /// Merkle root of the transactions.
    pub transactions_root: Hash,
    /// Merkle root of the assignments.
    pub assignments_root: Hash,
    /// Merkle root of the attestations and the outputs they bring.
    pub attestations_root: Hash,
    /// Merkle root of the evidence: the empty list's until evidence exists.
    pub evidence_root: Hash,
    /// Merkle root of the receipts.
    pub receipts_root: Hash,
    /// Root of the state tree after this block.
    pub state_root: Hash,
    /// Hash of the validator set that decides this block.
    pub validators_hash: Hash,
    /// Hash of the validator set that decides the next block.
    pub next_validators_hash: Hash,
    /// Hash of the parameters.
    pub params_hash: Hash,
    /// Fee per unit of weight in this block.
    pub base_fee: Amount,
    /// The proposer's contribution to the beacon.
    pub beacon_output: VrfOutput,
    /// Its proof.
    pub beacon_proof: VrfProof,
    /// Hash of the certificate that the block carries for its parent; zero in the first block.
    pub last_certificate_hash: Hash,
}

impl Header {
    /// The block's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(HEADER_TAG, &[&crate::codec::encode(self)])
    }

    /// The turn that it claims.
    #[must_use]
    pub const fn turn(&self) -> Turn {
        Turn {
            height: self.height,
            round: self.round,
            proposer: self.proposer,
        }
    }
}

/// The protocol version in the bytes of a header or a block of any version, without decoding the rest;
/// `None` when there are too few bytes for one.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Option<ProtocolVersion> {
    let first = bytes.first_chunk()?;
    Some(ProtocolVersion::new(u32::from_le_bytes(*first)))
}

/// The protocol version of the header with this hash, when `bytes`, of any version, begin with it. Bytes
/// of another version do not say where their header ends, so every length up to [`HEADER_BYTES_MAX`] is
/// tried: some milliseconds at most.
#[must_use]
pub fn header_version_under(hash: &Hash, bytes: &[u8]) -> Option<ProtocolVersion> {
    let version = version_of(bytes)?;
    let longest = bytes.get(..HEADER_BYTES_MAX).unwrap_or(bytes);
    hash.is_of_beginning(HEADER_TAG, longest).then_some(version)
}

/// What a proposer signs on its block.
#[must_use]
pub fn block_sign_bytes(block: &Hash) -> Vec<u8> {
    let mut bytes = b"proofmill/block/v1".to_vec();
    bytes.extend_from_slice(block.as_bytes());
    bytes
}

/// A validator's precommit in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitSignature {
    /// Its consensus key.
    pub validator: AccountId,
    /// Over the precommit's sign bytes.
    pub signature: Signature,
}

/// Proof that a block is final: precommits of more than two thirds of the power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The block's height.
    pub height: Height,
    /// The round in which it was decided.
    pub round: Round,
    /// The block's hash.
    pub block: Hash,
    /// The precommits, by ascending key, each validator once.
    pub signatures: Vec<CommitSignature>,
}

impl Certificate {
    /// The hash that the next header carries.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of("proofmill/certificate/v1", &[&crate::codec::encode(self)])
    }
}

/// A whole block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The commitments.
    pub header: Header,
    /// The proposer's signature over [`block_sign_bytes`].
    pub proposer_signature: Signature,
    /// In the order in which they take effect.
    pub transactions: Vec<SignedTransaction>,
    /// In the order of the tasks.
    pub assignments: Vec<Assignment>,
    /// In the order in which they take effect.
    pub attestations: Vec<SignedAttestation>,
    /// Output bytes that the reveals name for the first time, by ascending hash.
    pub outputs: Vec<Blob>,
    /// Why the parent is final; absent in the first block.
    pub last_certificate: Option<Certificate>,
}
