//! Sample values, made from fixed seeds so that the documentation's examples stay the same.

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::block::{Block, Certificate, CommitSignature, Header};
use proofmill_chain::types::hash::{Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{
    Mode, Moment, Phase, Requirements, ResultClaim, ResultStatus, Seat, Settlement, Task,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{
    Amount, Gas, Height, MachineVersion, Nonce, ProtocolVersion, Round, Weight,
};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::{Reputation, Worker, WorkerTerms};

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn hash(text: &str) -> Hash {
    Hash::of("example/", &[text.as_bytes()])
}

/// The parameters of the devnet, so that the documentation shows what its reader sees.
pub(crate) fn params() -> Params {
    let genesis = include_str!("../../../genesis.json");
    let genesis: serde_json::Value = serde_json::from_str(genesis).expect("genesis.json is JSON");
    serde_json::from_value(genesis["params"].clone()).expect("genesis.json has parameters")
}

pub(crate) fn signed(genesis: &Hash, nonce: u64, grain: u64) -> SignedTransaction {
    let transaction = Transaction {
        chain: genesis.prefix(),
        sender: key(11).public(),
        nonce: Nonce::new(nonce),
        max_fee: Amount::new(5_000),
        tip: Amount::new(100),
        expires_at: Height::new(100),
        sponsor: None,
        action: Action::Transfer {
            to: key(12).public(),
            amount: Amount::new(grain),
        },
    };
    let signature = key(11).sign(&transaction.sign_bytes(genesis));
    SignedTransaction {
        transaction,
        signature,
        sponsor_signature: None,
    }
}

pub(crate) fn validators() -> ValidatorSet {
    let one = |seed: u8, power: u64| Validator {
        key: key(seed).public(),
        beacon_key: key(seed + 1).public(),
        reward: key(seed + 2).public(),
        power: Weight::new(power),
    };
    ValidatorSet::new(vec![one(31, 200), one(35, 100)]).expect("a set")
}

pub(crate) fn block(genesis: &Hash) -> Block {
    let set = validators();
    let header = Header {
        version: ProtocolVersion::new(1),
        chain: *genesis,
        height: Height::new(5),
        round: Round::new(0),
        time_ms: 1_767_225_600_000,
        parent: hash("parent"),
        proposer: key(31).public(),
        transactions_root: hash("transactions"),
        assignments_root: hash("assignments"),
        attestations_root: hash("attestations"),
        evidence_root: Hash::ZERO,
        receipts_root: hash("receipts"),
        state_root: hash("state"),
        validators_hash: set.hash(),
        next_validators_hash: set.hash(),
        params_hash: params().hash(),
        base_fee: Amount::new(8),
        beacon_output: VrfOutput::new([1; 64]),
        beacon_proof: VrfProof::new([2; 80]),
        last_certificate_hash: hash("certificate"),
    };
    Block {
        proposer_signature: key(31).sign(header.hash().as_bytes()),
        header,
        transactions: vec![signed(genesis, 0, 250), signed(genesis, 1, u64::MAX)],
        assignments: Vec::new(),
        attestations: Vec::new(),
        outputs: Vec::new(),
        last_certificate: None,
    }
}

pub(crate) fn certificate(block: &Block) -> Certificate {
    Certificate {
        height: block.header.height,
        round: Round::new(0),
        block: block.header.hash(),
        signatures: vec![CommitSignature {
            validator: key(31).public(),
            signature: Signature::new([3; 64]),
        }],
    }
}

fn claim() -> ResultClaim {
    ResultClaim {
        output_hash: Blob::new(b"42".to_vec()).hash(),
        trace_root: hash("trace"),
        gas: Gas::new(1_234_567),
        status: ResultStatus::Done,
    }
}

pub(crate) fn seats() -> Vec<Seat> {
    let seat = |worker: u8, draw: u8| Seat {
        worker: key(worker).public(),
        operator: key(worker + 1).public(),
        draw,
        bond: Amount::new(1_000_000),
        drawn: Moment {
            height: Height::new(3),
            time_ms: 3_000,
        },
        commitment: Some(hash("commitment")),
        claim: Some(claim()),
    };
    vec![seat(21, 0), seat(23, 0)]
}

pub(crate) fn finished() -> Phase {
    Phase::Final {
        at: Height::new(5),
        claim: claim(),
        settlement: Settlement {
            gas: claim().gas,
            per_seat: Amount::new(108),
            validators: Amount::new(9),
            burned: Amount::new(10),
            refunded: Amount::new(1_765),
        },
    }
}

pub(crate) fn task(name: &str, at: u64, phase: Phase, seats: Vec<Seat>) -> Task {
    let over = phase.is_over();
    Task {
        id: hash(name),
        requester: key(11).public(),
        program: Blob::new(b"\0asm".to_vec()).hash(),
        machine_version: MachineVersion::new(1),
        module_bytes: 4,
        input: Blob::new(b"six times seven".to_vec()).hash(),
        gas_limit: Gas::new(10_000_000),
        memory_pages: 16,
        mode: Mode::Replicated { replicas: 2 },
        price_per_mgas: Amount::new(100),
        insured_value: Amount::new(2_000_000),
        requirements: Requirements::default(),
        wait_until: Height::new(100),
        escrow: Amount::new(if over { 0 } else { 2_000 }),
        submitted_at: Height::new(at),
        index: 0,
        phase,
        seats,
        missed: Vec::new(),
        draws: u8::from(over),
        eligible_last: 0,
    }
}

pub(crate) fn workers() -> Vec<Worker> {
    let worker = |seed: u8| Worker {
        id: key(seed).public(),
        operator: key(seed + 1).public(),
        terms: WorkerTerms {
            price_per_mgas: Amount::new(50),
            gas_limit_max: Gas::new(1_000_000_000),
            memory_pages_max: 256,
            tags: vec!["simd".into()],
            active: true,
        },
        collateral: Amount::new(5_000_000_000),
        locked: Amount::new(1_000_000),
        seats: 1,
        registered_at: Height::new(0),
        retiring: false,
        reputation: Reputation::default(),
    };
    let mut workers: Vec<_> = [21, 23, 25].into_iter().map(worker).collect();
    workers.sort_by_key(|worker| std::cmp::Reverse(worker.id));
    workers
}
