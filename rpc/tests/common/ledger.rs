//! The ledger: one block with a transfer and a failed transfer, a final task and an open one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::types::account::Account;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Phase, SignedAttestation, Statement, Task,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Height, Nonce, ProtocolVersion};
use proofmill_chain::types::worker::Worker;
use proofmill_rpc::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, HeadView, Hex, Include,
    NodeHealth, NodeInfo, ReceiptView, SendStatus, TaskContext, TaskCursor, TaskFilter, TaskPage,
    TaskResult, TaskState, TaskSummary, TaskView, TransactionSent, TransactionStatus,
    TransactionView, ValidatorsView, WorkerPage, WorkerView,
};
use proofmill_rpc::error::{Code, Error};
use proofmill_rpc::limits::ANSWER_BYTES_SMALL;
use proofmill_rpc::port::{Query, Submit};
use tokio::sync::Notify;

use super::sample::{
    block, certificate, finished, hash, key, params, seats, signed, task, validators, workers,
};

/// Largest encoding of a block.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// What stands behind the ports.
pub(crate) struct Ledger {
    pub(crate) genesis: Hash,
    pub(crate) block: Arc<Block>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) ready: AtomicBool,
    pub(crate) live: AtomicBool,
    /// Whether health is never known.
    pub(crate) silent: AtomicBool,
    pub(crate) pending: Mutex<Vec<SignedTransaction>>,
    /// How many calls of `account_get` came through.
    pub(crate) account_calls: AtomicU64,
    /// How many calls of `tx_get` came through.
    pub(crate) transaction_calls: AtomicU64,
    /// Told when a call waits at the gate, and to open it.
    pub(crate) waits: Notify,
    pub(crate) gate: Notify,
    params: Params,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let genesis = hash("genesis");
        let block = Arc::new(block(&genesis));
        let open = task("open", 4, Phase::Open, Vec::new());
        let finished = task("final", 2, finished(), seats());
        Self {
            genesis,
            block,
            tasks: vec![open, finished],
            ready: AtomicBool::new(true),
            live: AtomicBool::new(true),
            silent: AtomicBool::new(false),
            pending: Mutex::default(),
            account_calls: AtomicU64::new(0),
            transaction_calls: AtomicU64::new(0),
            waits: Notify::new(),
            gate: Notify::new(),
            params: params(),
        }
    }

    /// The same, with a block of the largest size: transfers of which only the first two are signed.
    pub(crate) fn with_full_block() -> Self {
        let mut ledger = Self::new();
        let block = Arc::get_mut(&mut ledger.block).expect("not shared yet");
        let one = block.transactions[0].clone();
        let room = BLOCK_BYTES_MAX - codec::encode(block).len();
        let count = room / codec::encode(&one).len();
        let most = ledger.params.block_transactions_max as usize - block.transactions.len();
        let copies = std::iter::repeat_n(one, count.min(most));
        block.transactions.extend(copies);
        ledger
    }

    /// The same, with a program that makes a large answer to a lookup, as the block's first transaction.
    pub(crate) fn with_program() -> Self {
        let mut ledger = Self::new();
        let block = Arc::get_mut(&mut ledger.block).expect("not shared yet");
        let module = Blob::new(vec![0; ANSWER_BYTES_SMALL]);
        block.transactions[0].transaction.action = Action::PublishProgram { module };
        ledger
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

#[async_trait]
impl Query for Ledger {
    async fn node_info(&self) -> Result<NodeInfo, Error> {
        let head = BlockSummary::of(&self.block);
        Ok(NodeInfo {
            version: "0.1.0".into(),
            commit: "0123456789ab".into(),
            chain_id: "proofmill:devnet-1".into(),
            genesis_hash: self.genesis,
            protocol_version: ProtocolVersion::new(1),
            upgrades_hash: Hash::of("example/upgrades", &[]),
            peers_with_other_upgrades: 0,
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
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(NodeHealth {
            live: self.live.load(Ordering::SeqCst),
            ready,
            reasons,
            head_age_ms: 700,
            clock_skew_ms: Some(-12),
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
        let certificate = Some(certificate(&self.block));
        let block = Block::clone(&self.block);
        Ok(BlockView::of(block, certificate, full, &self.genesis))
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
        self.transaction_calls.fetch_add(1, Ordering::SeqCst);
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
        let body = index
            .map(|index| self.block.transactions[index].clone())
            .or(waiting);
        Ok(TransactionView {
            transaction,
            status,
            height: index.map(|_| self.block.header.height),
            index: index.and_then(|index| index.try_into().ok()),
            encoding: body
                .as_ref()
                .map(|body| Hex(proofmill_chain::codec::encode(body))),
            body,
        })
    }

    async fn task(&self, task: Hash, include: Include) -> Result<TaskView, Error> {
        let task = self.find_task(task)?.clone();
        let context = TaskContext {
            head: self.block.header.height,
            first_draw: task.submitted_at.saturating_plus(3),
            drawn_in_vain: false,
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
