//! The ledger: one block with a transfer and a failed transfer, a final task and an open one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
<<<<<<< HEAD
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::types::account::Account;
use proofmill_chain::types::block::{Block, Certificate, CommitSignature, Header};
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Mode, Moment, Phase, Requirements, ResultClaim, ResultStatus,
    Seat, Settlement, SignedAttestation, Statement, Task,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Gas, Height, Nonce, Round, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::{Reputation, Worker, WorkerTerms};
=======
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::types::account::Account;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Phase, SignedAttestation, Statement, Task,
};
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Height, Nonce};
use proofmill_chain::types::worker::Worker;
>>>>>>> rpc
use proofmill_rpc::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, HeadView, Include, NodeHealth,
    NodeInfo, ReceiptView, SendStatus, TaskContext, TaskCursor, TaskFilter, TaskPage, TaskResult,
    TaskState, TaskSummary, TaskView, TransactionSent, TransactionStatus, TransactionView,
    ValidatorsView, WorkerPage, WorkerView,
};
use proofmill_rpc::error::{Code, Error};
use proofmill_rpc::port::{Query, Submit};
use tokio::sync::Notify;

<<<<<<< HEAD
pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn hash(text: &str) -> Hash {
    Hash::of("example/", &[text.as_bytes()])
}
=======
use super::sample::{
    block, certificate, finished, hash, key, params, seats, signed, task, validators, workers,
};
>>>>>>> rpc

/// What stands behind the ports.
pub(crate) struct Ledger {
    pub(crate) genesis: Hash,
    pub(crate) block: Block,
    pub(crate) tasks: Vec<Task>,
    pub(crate) ready: AtomicBool,
    pub(crate) pending: Mutex<Vec<SignedTransaction>>,
    /// How many calls of `account_get` came through.
    pub(crate) account_calls: AtomicU64,
    /// Told when a call waits at the gate, and to open it.
    pub(crate) waits: Notify,
    pub(crate) gate: Notify,
    params: Params,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let genesis = hash("genesis");
        let block = block(&genesis);
        let open = task("open", 4, Phase::Open, Vec::new());
        let finished = task("final", 2, finished(), seats());
        Self {
            genesis,
            block,
            tasks: vec![open, finished],
            ready: AtomicBool::new(true),
            pending: Mutex::default(),
            account_calls: AtomicU64::new(0),
            waits: Notify::new(),
            gate: Notify::new(),
            params: params(),
        }
    }

    pub(crate) fn transfer_id(&self) -> Hash {
        self.block.transactions[0].transaction.id(&self.genesis)
    }

    pub(crate) fn failed_id(&self) -> Hash {
        self.block.transactions[1].transaction.id(&self.genesis)
    }

    /// A good transaction of an account that has sent two.
    pub(crate) fn next_transaction(&self) -> SignedTransaction {
        signed(&self.genesis, 2, 500)
    }

    pub(crate) fn attestation(&self) -> AttestationMessage {
        let attestation = Attestation {
            task: self.tasks[0].id,
            draw: 0,
            worker: key(21).public(),
            statement: Statement::Commit {
                commitment: hash("commitment"),
            },
        };
        let signature = key(21).sign(&attestation.sign_bytes(&self.genesis));
        AttestationMessage {
            signed: SignedAttestation {
                attestation,
                signature,
            },
            output: Blob::default(),
        }
    }

    fn find_task(&self, id: Hash) -> Result<&Task, Error> {
        let missing = || Error::new(Code::NotFound, format!("no task {id}"));
        self.tasks.iter().find(|t| t.id == id).ok_or_else(missing)
    }
}

<<<<<<< HEAD
fn params() -> Params {
    Params {
        block_bytes_max: 4 << 20,
        block_transactions_max: 20_000,
        block_attestations_max: 1_000,
        block_program_bytes_max: 2 << 20,
        base_fee: Amount::new(8),
        assign_delay: 2,
        seats_per_block_max: 100,
        timeouts_per_block_max: 100,
        commit_window_blocks: 20,
        commit_window_ms: 10_000,
        commit_gas_per_ms: 100_000,
        reveal_window_blocks: 10,
        reveal_window_ms: 5_000,
        redraws_max: 2,
        block_ms_max: 2_000,
        wait_max: 1_000,
        worker_activation_blocks: 2,
        worker_collateral_min: Amount::new(1_000_000_000),
        seat_bond_min: Amount::new(1_000_000),
        workers_max: 1_000,
        tasks_live_max: 1_000,
        replicas_max: 7,
        task_gas_max: Gas::new(10_000_000_000),
        task_memory_pages_max: 1_024,
        task_steps_max: 1_000_000,
        step_gas_max: Gas::new(100_000_000),
        share_workers: 8_800,
        share_audits: 500,
        share_validators: 400,
    }
}

fn signed(genesis: &Hash, nonce: u64, grain: u64) -> SignedTransaction {
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

fn validators() -> ValidatorSet {
    let one = |seed: u8, power: u64| Validator {
        key: key(seed).public(),
        beacon_key: key(seed + 1).public(),
        reward: key(seed + 2).public(),
        power: Weight::new(power),
    };
    ValidatorSet::new(vec![one(31, 200), one(35, 100)]).expect("a set")
}

fn block(genesis: &Hash) -> Block {
    let set = validators();
    let header = Header {
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

fn certificate(block: &Block) -> Certificate {
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

fn seats() -> Vec<Seat> {
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

fn finished() -> Phase {
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

fn task(name: &str, at: u64, phase: Phase, seats: Vec<Seat>) -> Task {
    let over = phase.is_over();
    Task {
        id: hash(name),
        requester: key(11).public(),
        program: Blob::new(b"\0asm".to_vec()).hash(),
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

fn workers() -> Vec<Worker> {
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

=======
>>>>>>> rpc
#[async_trait]
impl Query for Ledger {
    async fn node_info(&self) -> Result<NodeInfo, Error> {
        let head = BlockSummary::of(&self.block);
        Ok(NodeInfo {
            version: "0.1.0".into(),
            commit: "0123456789ab".into(),
            chain_id: "proofmill:devnet-1".into(),
            genesis_hash: self.genesis,
            moniker: "node-0".into(),
            validator: Some(key(31).public()),
            head: HeadView {
                height: head.height,
                hash: head.hash,
                time_ms: head.time_ms,
            },
            peers: 3,
            synced: true,
        })
    }

    async fn node_health(&self) -> Result<NodeHealth, Error> {
        let ready = self.ready.load(Ordering::SeqCst);
        let reasons = match ready {
            true => Vec::new(),
            false => vec!["catching up: 12 blocks behind".into()],
        };
        Ok(NodeHealth {
            live: true,
            ready,
            reasons,
            head_age_ms: 700,
        })
    }

    async fn head(&self) -> Result<BlockSummary, Error> {
        Ok(BlockSummary::of(&self.block))
    }

    async fn params(&self) -> Result<Params, Error> {
        Ok(self.params.clone())
    }

    async fn block(&self, block: BlockRef, full: bool) -> Result<BlockView, Error> {
        let header = &self.block.header;
        let found = match block {
            BlockRef::Head => true,
            BlockRef::Height(height) if height < header.height => {
                return Err(Error::new(
                    Code::Pruned,
                    format!("block {height} is pruned"),
                ));
            }
            BlockRef::Height(height) => height == header.height,
            BlockRef::Hash(hash) => hash == header.hash(),
        };
        if !found {
            return Err(Error::new(Code::NotFound, format!("no block {block}")));
        }
        let certificate = certificate(&self.block);
        let block = self.block.clone();
        Ok(BlockView::of(block, Some(certificate), full, &self.genesis))
    }

    async fn receipt(&self, transaction: Hash) -> Result<ReceiptView, Error> {
        let missing = || Error::new(Code::NotFound, format!("no transaction {transaction}"));
        let ids = [self.transfer_id(), self.failed_id()];
        let index = ids.iter().position(|id| *id == transaction);
        let index = index.ok_or_else(missing)?;
        let outcome = match index {
            0 => Outcome::Applied,
            _ => Outcome::Failed {
                failure: Failure::InsufficientBalance {
                    needed: Amount::new(u64::MAX),
                    available: Amount::new(5_000_000_000),
                },
            },
        };
        let receipt = Receipt {
            transaction,
            height: self.block.header.height,
            index: u32::try_from(index).expect("small"),
            payer: key(11).public(),
            fee: Amount::new(2_400),
            tip: Amount::new(100),
            outcome,
        };
        Ok(ReceiptView::of(&receipt, self.block.header.hash()))
    }

    async fn account(&self, account: AccountId) -> Result<AccountView, Error> {
        self.account_calls.fetch_add(1, Ordering::SeqCst);
        assert_ne!(account, key(66).public(), "the account that panics");
        if account == key(77).public() {
            self.waits.notify_one();
            self.gate.notified().await;
        }
        if account == key(88).public() {
            return Err(Error::internal("column family `state`: disk on fire"));
        }
        let known = account == key(11).public();
        let record = Account {
            balance: Amount::new(if known { 5_000_000_000 } else { 0 }),
            nonce: Nonce::new(if known { 2 } else { 0 }),
        };
        let pending = self.pending.lock().expect("no panic").len() as u64;
        let next = record
            .nonce
            .saturating_plus(if known { pending } else { 0 });
        Ok(AccountView::of(account, &record, next))
    }

    async fn transaction(&self, transaction: Hash) -> Result<TransactionView, Error> {
        let pending = self.pending.lock().expect("no panic");
        let is_it =
            |signed: &&SignedTransaction| signed.transaction.id(&self.genesis) == transaction;
        let waiting = pending.iter().find(is_it).cloned();
        let index = (self.block.transactions.iter()).position(|signed| is_it(&signed));
        let status = match (&waiting, index) {
            (_, Some(_)) => TransactionStatus::Included,
            (Some(_), None) => TransactionStatus::Pending,
            (None, None) => TransactionStatus::Unknown,
        };
        Ok(TransactionView {
            transaction,
            status,
            height: index.map(|_| self.block.header.height),
            index: index.and_then(|index| index.try_into().ok()),
            body: index
                .map(|index| self.block.transactions[index].clone())
                .or(waiting),
        })
    }

    async fn task(&self, task: Hash, include: Include) -> Result<TaskView, Error> {
        let task = self.find_task(task)?.clone();
        let context = TaskContext {
            head: self.block.header.height,
            first_draw: task.submitted_at.saturating_plus(3),
            commit_window: (20, 10_100),
            reveal_window: (10, 5_000),
            validators_account: Some(key(33).public()),
            escrow_returned: Amount::ZERO,
            input_bytes: include
                .input
                .then(|| Blob::new(b"six times seven".to_vec())),
            program_bytes: include.program.then(|| Blob::new(b"\0asm".to_vec())),
        };
        Ok(TaskView::of(task, context))
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, Error> {
        let place = |task: &Task| TaskCursor {
            height: task.submitted_at,
            index: task.index,
        };
        let wanted = |task: &&Task| {
            let seated = |worker| task.seats.iter().any(|seat| seat.worker == worker);
            filter
                .state
                .is_none_or(|state| state == TaskState::from(&task.phase))
                && filter.requester.is_none_or(|id| id == task.requester)
                && filter.worker.is_none_or(seated)
                && filter.before.is_none_or(|before| place(task) < before)
        };
        let all: Vec<_> = self.tasks.iter().filter(wanted).collect();
        let limit = usize::try_from(filter.limit).expect("small");
        let page: Vec<_> = all.iter().copied().take(limit).collect();
        let more = all.len() > page.len();
        Ok(TaskPage {
            next: page.last().filter(|_| more).map(|task| place(task)),
            tasks: page.into_iter().map(TaskSummary::from).collect(),
        })
    }

    async fn task_result(&self, task: Hash) -> Result<TaskResult, Error> {
        let task = self.find_task(task)?.clone();
        let state = task.phase.name();
        let output = Blob::new(b"42".to_vec());
        TaskResult::of(task, output).ok_or_else(|| {
            Error::new(Code::TaskNotFinal, format!("the task is {state}")).with("state", state)
        })
    }

    async fn workers(&self, limit: u32, before: Option<AccountId>) -> Result<WorkerPage, Error> {
        let below = |worker: &Worker| before.is_none_or(|before| worker.id < before);
        let all: Vec<_> = workers().into_iter().filter(below).collect();
        let limit = usize::try_from(limit).expect("small");
        let page: Vec<_> = all.iter().take(limit).cloned().collect();
        let more = all.len() > page.len();
        Ok(WorkerPage {
            next: page.last().filter(|_| more).map(|worker| worker.id),
            workers: page.into_iter().map(WorkerView::from).collect(),
        })
    }

    async fn validators(&self, height: Option<Height>) -> Result<ValidatorsView, Error> {
        let height = height.unwrap_or(self.block.header.height.next());
        Ok(ValidatorsView::of(height, &validators()))
    }
}

#[async_trait]
impl Submit for Ledger {
    async fn submit_transaction(&self, sent: SignedTransaction) -> Result<TransactionSent, Error> {
        let transaction = sent.transaction.id(&self.genesis);
        let item = Item {
            key: sent.transaction.sender.as_bytes(),
            message: &sent.transaction.sign_bytes(&self.genesis),
            signature: sent.signature.as_bytes(),
        };
        if !verify(&item) {
            return Err(Error::new(
                Code::TxBadSignature,
                "the sender's signature does not verify",
            ));
        }
        let mut pending = self.pending.lock().expect("no panic");
        let expected = 2 + pending.len() as u64;
        let given = sent.transaction.nonce.get();
        if pending.contains(&sent) {
            let status = SendStatus::Known;
            return Ok(TransactionSent {
                transaction,
                status,
            });
        }
        if given > expected {
            let message = format!("expected nonce {expected}, got {given}");
            return Err(Error::new(Code::TxNonceGap, message)
                .with("expected", expected.to_string())
                .with("received", given.to_string()));
        }
        pending.push(sent);
        Ok(TransactionSent {
            transaction,
            status: SendStatus::Pending,
        })
    }

    async fn submit_attestation(&self, sent: AttestationMessage) -> Result<AttestationSent, Error> {
        let attestation = sent.signed.attestation.id(&self.genesis);
        Ok(AttestationSent { attestation })
    }
}
