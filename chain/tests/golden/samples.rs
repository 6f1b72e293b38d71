//! One fixed value of every wire type; the fields differ, so that none can pass for another.

use proofmill_chain::types::account::Account;
use proofmill_chain::types::block::{Assignment, Block, Certificate, CommitSignature, Header};
use proofmill_chain::types::genesis::{Genesis, GenesisAccount, GenesisWorker};
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::record::{Chain, LiveTask, LiveTasks, Look, Program, Record, Workers};
use proofmill_chain::types::task::{
    Attestation, ExpiryReason, Mode, Moment, Phase, Requirements, ResultClaim, ResultStatus, Seat,
    Settlement, SignedAttestation, Statement, Task, TaskSpec,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{
    Amount, Gas, Height, MachineVersion, Nonce, ProtocolVersion, Round, Weight,
};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::{Reputation, Worker, WorkerTerms};

pub(crate) fn hash(byte: u8) -> Hash {
    Hash::new([byte; 32])
}

pub(crate) fn account(byte: u8) -> AccountId {
    AccountId::new([byte; 32])
}

fn signature(byte: u8) -> Signature {
    Signature::new([byte; 64])
}

fn moment(height: u64) -> Moment {
    Moment {
        height: Height::new(height),
        time_ms: height * 1_000 - 500,
    }
}

fn terms() -> WorkerTerms {
    WorkerTerms {
        price_per_mgas: Amount::new(0x0102_0304_0506_0708),
        gas_limit_max: Gas::new(5_000_000_000),
        memory_pages_max: 1024,
        tags: vec!["gpu".to_owned(), "simd".to_owned()],
        active: true,
    }
}

fn requirements() -> Requirements {
    Requirements {
        tags: vec!["simd".to_owned()],
        min_reputation: 3,
    }
}

fn spec() -> TaskSpec {
    TaskSpec {
        program: hash(0x21),
        input: Blob::new(vec![1, 2, 3, 4, 5]),
        gas_limit: Gas::new(1_000_000),
        memory_pages: 16,
        mode: Mode::Replicated { replicas: 3 },
        price_per_mgas: Amount::new(40),
        insured_value: Amount::new(9_000),
        requirements: requirements(),
        wait_max: 100,
    }
}

pub(crate) fn actions() -> Vec<Action> {
    vec![
        Action::Transfer {
            to: account(0x11),
            amount: Amount::new(1_000_000_007),
        },
        Action::RegisterWorker {
            worker: account(0x12),
            terms: terms(),
            collateral: Amount::new(77),
            consent: signature(0x13),
        },
        Action::UpdateWorker {
            worker: account(0x12),
            terms: terms(),
            add_collateral: Amount::new(78),
        },
        Action::RetireWorker {
            worker: account(0x12),
        },
        Action::PublishProgram {
            module: Blob::new(b"\0asm\x01\0\0\0".to_vec()),
        },
        Action::SubmitTask(spec()),
        Action::CancelTask { task: hash(0x22) },
    ]
}

pub(crate) fn transaction(action: Action, sponsor: Option<AccountId>) -> SignedTransaction {
    SignedTransaction {
        transaction: Transaction {
            chain: [0xc0, 0xc1, 0xc2, 0xc3],
            sender: account(0x01),
            nonce: Nonce::new(7),
            max_fee: Amount::new(5_000),
            tip: Amount::new(6),
            expires_at: Height::new(500),
            sponsor,
            action,
        },
        signature: signature(0x02),
        sponsor_signature: sponsor.map(|_| signature(0x03)),
    }
}

pub(crate) const STATUSES: [ResultStatus; 6] = [
    ResultStatus::Done,
    ResultStatus::Trap,
    ResultStatus::OutOfGas,
    ResultStatus::BadOutput,
    ResultStatus::TooManySteps,
    ResultStatus::StepOutOfGas,
];

fn claim() -> ResultClaim {
    ResultClaim {
        output_hash: hash(0x31),
        trace_root: hash(0x32),
        gas: Gas::new(123_456),
        status: ResultStatus::Done,
    }
}

fn attestation(statement: Statement) -> SignedAttestation {
    SignedAttestation {
        attestation: Attestation {
            task: hash(0x22),
            draw: 1,
            worker: account(0x12),
            statement,
        },
        signature: signature(0x33),
    }
}

pub(crate) fn commit() -> SignedAttestation {
    attestation(Statement::Commit {
        commitment: hash(0x34),
    })
}

pub(crate) fn reveal() -> SignedAttestation {
    attestation(Statement::Reveal {
        claim: claim(),
        salt: hash(0x35),
    })
}

pub(crate) fn certificate() -> Certificate {
    Certificate {
        height: Height::new(41),
        round: Round::new(2),
        block: hash(0x41),
        signatures: vec![
            CommitSignature {
                validator: account(0x51),
                signature: signature(0x42),
            },
            CommitSignature {
                validator: account(0x52),
                signature: signature(0x43),
            },
        ],
    }
}

pub(crate) fn header() -> Header {
    Header {
        version: ProtocolVersion::new(0x0403_0201),
        chain: hash(0x61),
        height: Height::new(42),
        round: Round::new(1),
        time_ms: 1_800_000_000_123,
        parent: hash(0x41),
        proposer: account(0x51),
        transactions_root: hash(0x62),
        assignments_root: hash(0x63),
        attestations_root: hash(0x64),
        evidence_root: hash(0x65),
        receipts_root: hash(0x66),
        state_root: hash(0x67),
        validators_hash: hash(0x68),
        next_validators_hash: hash(0x69),
        params_hash: hash(0x6a),
        base_fee: Amount::new(8),
        beacon_output: VrfOutput::new([0x6b; 64]),
        beacon_proof: VrfProof::new([0x6c; 80]),
        last_certificate_hash: hash(0x6d),
    }
}

pub(crate) fn block() -> Block {
    Block {
        header: header(),
        proposer_signature: signature(0x6e),
        transactions: actions()
            .into_iter()
            .map(|action| transaction(action, None))
            .collect(),
        assignments: vec![Assignment {
            task: hash(0x22),
            draw: 1,
            worker: account(0x12),
        }],
        attestations: vec![commit(), reveal()],
        outputs: vec![Blob::new(b"output".to_vec())],
        last_certificate: Some(certificate()),
    }
}

pub(crate) fn failures() -> Vec<Failure> {
    let (worker, task, program) = (account(0x12), hash(0x22), hash(0x21));
    vec![
        Failure::InsufficientBalance {
            needed: Amount::new(2),
            available: Amount::new(1),
        },
        Failure::WorkerExists { worker },
        Failure::WorkerUnknown { worker },
        Failure::NotOperator { worker },
        Failure::WorkerRetiring { worker },
        Failure::CollateralTooSmall {
            given: Amount::new(3),
            least: Amount::new(4),
        },
        Failure::WorkersFull { most: 5 },
        Failure::ProgramExists { program },
        Failure::ProgramRefused { rule: 6 },
        Failure::ProgramUnknown { program },
        Failure::MemoryTooSmall {
            needed: 8,
            given: 7,
        },
        Failure::GasLimitTooLarge {
            given: Gas::new(10),
            most: Gas::new(9),
        },
        Failure::MemoryTooLarge {
            given: 12,
            most: 11,
        },
        Failure::Replicas {
            given: 14,
            most: 13,
        },
        Failure::WaitTooLong {
            given: 16,
            most: 15,
        },
        Failure::CostOverflow,
        Failure::TasksFull { most: 17 },
        Failure::TaskUnknown { task },
        Failure::NotRequester { task },
        Failure::TaskNotOpen { task },
    ]
}

pub(crate) fn receipt(outcome: Outcome) -> Receipt {
    Receipt {
        transaction: hash(0x71),
        height: Height::new(42),
        index: 9,
        payer: account(0x01),
        fee: Amount::new(2_400),
        tip: Amount::new(6),
        outcome,
    }
}

pub(crate) fn phases() -> Vec<Phase> {
    let at = Height::new(43);
    let reasons = [
        ExpiryReason::NoWorkers,
        ExpiryReason::NotCommitted,
        ExpiryReason::NotRevealed,
        ExpiryReason::ResultsDiffer,
    ];
    let mut phases = vec![
        Phase::Open,
        Phase::Committing { vacant_since: None },
        Phase::Committing {
            vacant_since: Some(moment(39)),
        },
        Phase::Revealing { since: moment(40) },
        Phase::Final {
            at,
            claim: claim(),
            settlement: Settlement {
                gas: Gas::new(123_456),
                per_seat: Amount::new(88),
                validators: Amount::new(4),
                burned: Amount::new(3),
                refunded: Amount::new(5),
            },
        },
    ];
    phases.extend(reasons.map(|reason| Phase::Expired { at, reason }));
    phases.push(Phase::Cancelled { at });
    phases
}

fn seat() -> Seat {
    Seat {
        worker: account(0x12),
        operator: account(0x14),
        draw: 1,
        bond: Amount::new(3_000),
        drawn: moment(38),
        commitment: Some(hash(0x34)),
        claim: Some(claim()),
    }
}

fn task() -> Task {
    Task {
        id: hash(0x22),
        requester: account(0x01),
        program: hash(0x21),
        machine_version: MachineVersion::new(7),
        module_bytes: 4,
        input: hash(0x23),
        gas_limit: Gas::new(1_000_000),
        memory_pages: 16,
        mode: Mode::Replicated { replicas: 3 },
        price_per_mgas: Amount::new(40),
        insured_value: Amount::new(9_000),
        requirements: requirements(),
        wait_until: Height::new(136),
        escrow: Amount::new(126),
        submitted_at: Height::new(36),
        index: 4,
        phase: Phase::Committing { vacant_since: None },
        seats: vec![
            seat(),
            Seat {
                commitment: None,
                claim: None,
                ..seat()
            },
        ],
        missed: vec![account(0x15)],
        draws: 2,
        eligible_last: 11,
    }
}

fn validators() -> Vec<Validator> {
    [(0x51, 10), (0x52, 30)]
        .map(|(key, power)| Validator {
            key: account(key),
            beacon_key: account(key + 0x10),
            reward: account(key + 0x20),
            power: Weight::new(power),
        })
        .to_vec()
}

pub(crate) fn validator_set() -> ValidatorSet {
    ValidatorSet::new(validators()).expect("two validators make a set")
}

pub(crate) fn records() -> Vec<(&'static str, Record)> {
    let look = |look| LiveTask {
        submitted_at: Height::new(36),
        index: 4,
        task: hash(0x22),
        due: Height::new(38),
        look,
    };
    vec![
        (
            "account",
            Record::Account(Account {
                balance: Amount::new(1_000_000_007),
                nonce: Nonce::new(7),
            }),
        ),
        (
            "worker",
            Record::Worker(Worker {
                id: account(0x12),
                operator: account(0x14),
                terms: terms(),
                collateral: Amount::new(10_000),
                locked: Amount::new(3_000),
                seats: 1,
                registered_at: Height::new(2),
                retiring: false,
                reputation: Reputation {
                    accepted: 4,
                    disputed: 3,
                    missed: 2,
                    gas_served: Gas::new(493_824),
                },
            }),
        ),
        (
            "program",
            Record::Program(Program {
                id: hash(0x21),
                publisher: account(0x01),
                machine_version: MachineVersion::new(7),
                bytes: 8,
                memory_pages_min: 1,
                memory_pages_max: 16,
                published_at: Height::new(3),
            }),
        ),
        ("task", Record::Task(Box::new(task()))),
        (
            "workers",
            Record::Workers(Workers {
                ids: vec![account(0x12), account(0x15)],
            }),
        ),
        (
            "live_tasks",
            Record::LiveTasks(LiveTasks {
                entries: vec![look(Look::Draw), look(Look::Retry), look(Look::Deadline)],
            }),
        ),
        (
            "chain",
            Record::Chain(Chain {
                height: Height::new(42),
                time_ms: 1_800_000_000_123,
                protocol_ms: 41_000,
                beacon: hash(0x72),
                genesis_supply: Amount::new(1 << 60),
                burned: Amount::new(12),
                rewarded: Amount::new(13),
            }),
        ),
        ("validators", Record::Validators(validator_set())),
    ]
}

pub(crate) fn params() -> Params {
    Params {
        machine_version: MachineVersion::new(7),
        block_bytes_max: 1,
        block_transactions_max: 2,
        block_attestations_max: 3,
        block_program_bytes_max: 4,
        base_fee: Amount::new(5),
        module_byte_price: Amount::new(31),
        assign_delay: 6,
        seats_per_block_max: 7,
        timeouts_per_block_max: 8,
        commit_window_blocks: 9,
        commit_window_ms: 10,
        commit_gas_per_ms: 11,
        commit_program_bytes_per_ms: 32,
        reveal_window_blocks: 12,
        reveal_window_ms: 13,
        redraws_max: 14,
        block_ms_max: 15,
        wait_max: 16,
        worker_activation_blocks: 17,
        worker_collateral_min: Amount::new(18),
        seat_bond_min: Amount::new(19),
        workers_max: 20,
        tasks_live_max: 21,
        replicas_max: 22,
        task_gas_max: Gas::new(23),
        task_memory_pages_max: 24,
        task_steps_max: 25,
        step_gas_max: Gas::new(26),
        share_workers: 27,
        share_audits: 28,
        share_validators: 29,
    }
}

pub(crate) fn genesis() -> Genesis {
    Genesis {
        chain_id: "devnet-1".to_owned(),
        genesis_time_ms: 1_800_000_000_000,
        params: params(),
        validators: validators(),
        accounts: vec![GenesisAccount {
            id: account(0x01),
            balance: Amount::new(1_000_000_007),
        }],
        workers: vec![GenesisWorker {
            id: account(0x12),
            operator: account(0x14),
            collateral: Amount::new(10_000),
            terms: terms(),
        }],
    }
}
