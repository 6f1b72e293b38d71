//! Messages for tests.

#![allow(dead_code, reason = "each test takes the parts that it needs")]

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{Hash, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Amount, Height, ProtocolVersion, Round};
use proofmill_signer::{Block, Proposal, Record, Vote};

pub(crate) fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

pub(crate) fn chain() -> Hash {
    Hash::of("test/genesis/v1", &[])
}

/// Block 0 is nil.
pub(crate) fn block(number: u8) -> Block {
    (number > 0).then(|| hash(number))
}

pub(crate) fn hash(number: u8) -> Hash {
    Hash::of("test/block/v1", &[&[number]])
}

pub(crate) fn vote(kind: VoteKind, height: u64, round: u32, number: u8) -> Vote {
    Vote {
        kind,
        height: Height::new(height),
        round: Round::new(round),
        block: block(number),
    }
}

pub(crate) fn proposal(height: u64, round: u32, number: u8) -> Proposal {
    Proposal {
        height: Height::new(height),
        round: Round::new(round),
        pol_round: None,
        block: hash(number),
    }
}

/// A header whose content depends on `number`.
pub(crate) fn header(height: u64, round: u32, number: u8) -> Header {
    Header {
        version: ProtocolVersion::new(1),
        chain: chain(),
        height: Height::new(height),
        round: Round::new(round),
        time_ms: u64::from(number),
        parent: Hash::ZERO,
        proposer: key().public(),
        transactions_root: Hash::ZERO,
        assignments_root: Hash::ZERO,
        attestations_root: Hash::ZERO,
        evidence_root: Hash::ZERO,
        receipts_root: Hash::ZERO,
        state_root: Hash::ZERO,
        validators_hash: Hash::ZERO,
        next_validators_hash: Hash::ZERO,
        params_hash: Hash::ZERO,
        base_fee: Amount::ZERO,
        beacon_output: VrfOutput::new([0; 64]),
        beacon_proof: VrfProof::new([0; 80]),
        last_certificate_hash: Hash::ZERO,
    }
}

pub(crate) fn empty(floor: u64) -> Record {
    Record::new(chain(), key().public(), Height::new(floor))
}
