//! The front end's ports, answered from the engine and its store.

mod clock;
mod liveness;
mod tasks;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use proofmill_chain::codec;
use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::Failure;
use proofmill_chain::types::task::AttestationMessage;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::Height;
use proofmill_consensus::EngineStatus;
use proofmill_rpc::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, HeadView, Hex, Include,
    NodeHealth, NodeInfo, ReceiptView, SendStatus, TaskFilter, TaskPage, TaskResult, TaskView,
    TransactionSent, TransactionStatus, TransactionView, ValidatorsView, WorkerPage, WorkerView,
};
use proofmill_rpc::error::{Code, Error};
use proofmill_rpc::port::{Query, Submit};

use proofmill_chain::check::TransactionError;

pub use self::liveness::{Liveness, Stuck};
use crate::engine::{AdmitError, Engine, Taken, clock_ms};
use crate::gossip::GossipHandle;
use crate::mempool::InsertError;
use crate::store::StoreError;

/// What may pass beyond the time for which an empty block is held back, in milliseconds, before an old
/// head means that the node lags or the chain stands still.
pub const HEAD_AGE_SLACK_MS: u64 = 14_000;

/// The oldest head of a node that is ready, in milliseconds, given how long it holds an empty block back.
#[must_use]
pub fn head_age_ready_ms_max(idle: Duration) -> u64 {
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    idle_ms.saturating_add(HEAD_AGE_SLACK_MS)
}

/// Tells where consensus is.
pub type StatusOf = Arc<dyn Fn() -> EngineStatus + Send + Sync>;

/// The node, as the front end sees it.
#[derive(Clone)]
pub struct NodePort {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The node's name.
    pub moniker: String,
    /// Where consensus is.
    pub status: StatusOf,
    /// Whether the engine and its store answer.
    liveness: Liveness,
    /// The figures of the newest block that was asked for: they take a whole block to read.
    newest: Arc<Mutex<Option<BlockSummary>>>,
}

impl From<StoreError> for ErrorOf {
    fn from(error: StoreError) -> Self {
        Self(Error::internal(error))
    }
}

impl From<StateError> for ErrorOf {
    fn from(error: StateError) -> Self {
        Self(Error::internal(error))
    }
}

/// An answer's error on its way out of blocking code.
pub(crate) struct ErrorOf(pub(crate) Error);

pub(crate) fn not_found(what: impl std::fmt::Display) -> ErrorOf {
    ErrorOf(Error::new(Code::NotFound, what.to_string()))
}

impl NodePort {
    /// The port of a node with this name; `status` tells where consensus is.
    #[must_use]
    pub fn new(engine: Arc<Engine>, moniker: String, status: StatusOf) -> Self {
        Self {
            liveness: Liveness::of(&engine),
            engine,
            moniker,
            status,
            newest: Arc::default(),
        }
    }

    /// Runs a reading or admitting call off the asynchronous threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Engine) -> Result<T, ErrorOf> + Send + 'static,
    ) -> Result<T, Error> {
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || question(&engine))
            .await
            .map_err(Error::internal)?
            .map_err(|ErrorOf(error)| error)
    }

    /// Runs a call that may have a large answer. The front end polls it on a thread for such calls,
    /// which has a low priority: on another one it would not.
    fn ask_here<T>(
        &self,
        question: impl FnOnce(&Engine) -> Result<T, ErrorOf>,
    ) -> Result<T, Error> {
        question(&self.engine).map_err(|ErrorOf(error)| error)
    }
}

impl NodePort {
    /// How many connected peers say that they have another list of upgrades.
    fn peers_with_other_upgrades(&self) -> u32 {
        let ours = self.engine.schedule().hash();
        let peers = self.engine.gossip().map(GossipHandle::peers);
        let peers = peers.unwrap_or_default();
        let others = peers.iter().filter_map(|peer| peer.upgrades);
        u32::try_from(others.filter(|theirs| *theirs != ours).count()).unwrap_or(u32::MAX)
    }
}

fn block_height(engine: &Engine, block: BlockRef) -> Result<Height, ErrorOf> {
    let height = match block {
        BlockRef::Head => engine.store().durable_head().height,
        BlockRef::Height(height) => height,
        BlockRef::Hash(hash) => engine
            .store()
            .height_of(&hash)?
            .ok_or_else(|| not_found(format_args!("no block has the hash {hash}")))?,
    };
    if height == Height::ZERO {
        return Err(not_found(
            "height 0 is genesis, which is not a block; the first block has height 1",
        ));
    }
    Ok(height)
}

#[async_trait]
impl Query for NodePort {
    async fn node_info(&self) -> Result<NodeInfo, Error> {
        let head = self.engine.store().durable_head();
        let status = (self.status)();
        let validator = self.engine.validator();
        let is_validator = self.engine.validators().by_key(&validator).is_some();
        Ok(NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: crate::COMMIT.to_owned(),
            chain_id: self.engine.genesis().caip2(),
            genesis_hash: self.engine.genesis_hash(),
            protocol_version: self
                .engine
                .schedule()
                .known_at(head.height.next())
                .version(),
            upgrades_hash: self.engine.schedule().hash(),
            peers_with_other_upgrades: self.peers_with_other_upgrades(),
            moniker: self.moniker.clone(),
            validator: is_validator.then_some(validator),
            head: HeadView {
                height: head.height,
                hash: head.hash,
                time_ms: head.time_ms,
            },
            peers: u32::try_from(status.peers).unwrap_or(u32::MAX),
            synced: clock_ms().saturating_sub(head.time_ms)
                <= head_age_ready_ms_max(self.engine.idle()),
        })
    }

    async fn node_health(&self) -> Result<NodeHealth, Error> {
        let head = match self.liveness.check().await {
            Ok(head) => head,
            Err(stuck) => {
                return Ok(NodeHealth {
                    live: false,
                    ready: false,
                    reasons: vec![stuck.reason],
                    head_age_ms: clock_ms().saturating_sub(stuck.head.time_ms),
                    clock_skew_ms: clock::skew_ms(
                        (self.status)().clocks_ahead_ms,
                        stuck.head.time_ms,
                        clock_ms(),
                    ),
                });
            }
        };
        let status = (self.status)();
        let head_age_ms = clock_ms().saturating_sub(head.time_ms);
        let mut reasons = Vec::new();
        if head.height == Height::ZERO {
            reasons.push("no block is final yet".to_owned());
        } else if head_age_ms > head_age_ready_ms_max(self.engine.idle()) {
            reasons.push(format!(
                "the head is {head_age_ms} ms old: the node lags, or too few validators are reachable"
            ));
        }
        if status.peers == 0 && self.engine.validators().as_slice().len() > 1 {
            reasons.push("no peer is connected".to_owned());
        }
        let clock_skew_ms = clock::skew_ms(status.clocks_ahead_ms, head.time_ms, clock_ms());
        reasons.extend(clock::reason(clock_skew_ms));
        Ok(NodeHealth {
            live: true,
            ready: reasons.is_empty(),
            reasons,
            head_age_ms,
            clock_skew_ms,
        })
    }

    async fn head(&self) -> Result<BlockSummary, Error> {
        let newest = Arc::clone(&self.newest);
        self.ask(move |engine| {
            let head = engine.store().durable_head();
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = newest.as_ref().filter(|known| known.hash == head.hash) {
                return Ok(known.clone());
            }
            let block = engine.store().block(head.height)?;
            let summary = block
                .as_ref()
                .map(BlockSummary::of)
                .ok_or_else(|| ErrorOf(Error::new(Code::NotReady, "no block is final yet")))?;
            *newest = Some(summary.clone());
            Ok(summary)
        })
        .await
    }

    async fn params(&self) -> Result<Params, Error> {
        Ok(self.engine.params().clone())
    }

    async fn block(&self, block: BlockRef, full: bool) -> Result<BlockView, Error> {
        self.ask_here(|engine| {
            let height = block_height(engine, block)?;
            let view = engine.store().view()?;
            let found = view.block(height)?.ok_or_else(|| {
                not_found(format_args!(
                    "block {height} does not exist; the head is {}",
                    engine.store().durable_head().height
                ))
            })?;
            let certificate = view.certificate(height)?;
            Ok(BlockView::of(
                found,
                certificate,
                full,
                &engine.genesis_hash(),
            ))
        })
    }

    async fn receipt(&self, transaction: Hash) -> Result<ReceiptView, Error> {
        self.ask(move |engine| {
            let view = engine.store().view()?;
            let (height, index) = view.transaction_at(&transaction)?.ok_or_else(|| {
                not_found(format_args!("transaction {transaction} is in no block"))
            })?;
            let receipts = view.receipts(height)?.unwrap_or_default();
            let header = view.header(height)?;
            let receipt = usize::try_from(index).ok().and_then(|i| receipts.get(i));
            match (receipt, header) {
                (Some(receipt), Some(header)) => Ok(ReceiptView::of(receipt, header.hash())),
                _ => Err(ErrorOf(Error::internal(format_args!(
                    "block {height} has no receipt {index}"
                )))),
            }
        })
        .await
    }

    async fn account(&self, account: AccountId) -> Result<AccountView, Error> {
        self.ask(move |engine| {
            let view = engine.store().view()?;
            let record = Overlay::new(&view).account(account)?;
            let next = engine
                .pools()
                .transactions
                .next_nonce(&account, record.nonce);
            Ok(AccountView::of(account, &record, next))
        })
        .await
    }

    async fn transaction(&self, transaction: Hash) -> Result<TransactionView, Error> {
        self.ask(move |engine| {
            let mut answer = TransactionView {
                transaction,
                status: TransactionStatus::Unknown,
                height: None,
                index: None,
                body: None,
                encoding: None,
            };
            if let Some((height, index)) = engine.store().transaction_at(&transaction)? {
                let block = engine.store().block(height)?;
                answer.status = TransactionStatus::Included;
                answer.height = Some(height);
                answer.index = Some(index);
                answer.body = block.and_then(|block| {
                    let index = usize::try_from(index).ok()?;
                    block.transactions.into_iter().nth(index)
                });
            } else if let Some(signed) = engine.pools().transactions.get(&transaction) {
                answer.status = TransactionStatus::Pending;
                answer.body = Some(signed.clone());
            }
            answer.encoding = answer.body.as_ref().map(|body| Hex(codec::encode(body)));
            Ok(answer)
        })
        .await
    }

    async fn task(&self, task: Hash, include: Include) -> Result<TaskView, Error> {
        if include.input || include.program {
            return self.ask_here(|engine| tasks::view(engine, &task, include));
        }
        self.ask(move |engine| tasks::view(engine, &task, include))
            .await
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, Error> {
        self.ask(move |engine| tasks::list(engine, &filter)).await
    }

    async fn task_result(&self, task: Hash) -> Result<TaskResult, Error> {
        self.ask_here(|engine| tasks::result(engine, &task))
    }

    async fn workers(&self, limit: u32, before: Option<AccountId>) -> Result<WorkerPage, Error> {
        self.ask(move |engine| {
            let view = engine.store().view()?;
            let mut overlay = Overlay::new(&view);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut workers: Vec<WorkerView> = Vec::new();
            let mut next = None;
            let ids = overlay.workers()?.ids;
            for id in ids.into_iter().rev() {
                if before.is_some_and(|before| id >= before) {
                    continue;
                }
                if workers.len() == limit {
                    next = workers.last().map(|last| last.worker.id);
                    break;
                }
                workers.extend(overlay.worker(id)?.cloned().map(WorkerView::from));
            }
            Ok(WorkerPage { workers, next })
        })
        .await
    }

    async fn validators(&self, height: Option<Height>) -> Result<ValidatorsView, Error> {
        let next = self.engine.store().durable_head().height.next();
        let height = height.unwrap_or(next);
        if height > next {
            return Err(Error::new(
                Code::NotFound,
                format!(
                    "the validators of height {height} are not known yet; the next height is {next}"
                ),
            ));
        }
        Ok(ValidatorsView::of(height, self.engine.validators()))
    }
}

#[async_trait]
impl Submit for NodePort {
    async fn submit_transaction(
        &self,
        transaction: SignedTransaction,
    ) -> Result<TransactionSent, Error> {
        let engine = Arc::clone(&self.engine);
        let taken = tokio::task::spawn_blocking(move || engine.admit_transaction(transaction))
            .await
            .map_err(Error::internal)?
            .map_err(refusal)?;
        Ok(match taken {
            Taken::New(transaction) => TransactionSent {
                transaction,
                status: SendStatus::Pending,
            },
            Taken::Known(transaction) => TransactionSent {
                transaction,
                status: SendStatus::Known,
            },
        })
    }

    async fn submit_attestation(
        &self,
        attestation: AttestationMessage,
    ) -> Result<AttestationSent, Error> {
        let engine = Arc::clone(&self.engine);
        let taken = tokio::task::spawn_blocking(move || engine.admit_attestation(attestation))
            .await
            .map_err(Error::internal)?
            .map_err(refusal)?;
        let (Taken::New(attestation) | Taken::Known(attestation)) = taken;
        Ok(AttestationSent { attestation })
    }
}

/// A refusal in the catalogue's terms.
fn refusal(error: AdmitError) -> Error {
    let message = error.to_string();
    let plain = |code| Error::new(code, message.clone());
    match error {
        AdmitError::Malformed(_) => plain(Code::TxMalformed),
        AdmitError::Rule(rule) => match rule {
            TransactionError::WrongChain { given, expected } => plain(Code::TxWrongChain)
                .with("expected", format!("0x{}", hex::encode(expected)))
                .with("received", format!("0x{}", hex::encode(given))),
            TransactionError::Key { key, .. } => plain(Code::TxBadKey).with("key", key.to_string()),
            TransactionError::SponsorSignature => plain(Code::TxBadSignature),
            TransactionError::TooLong { .. } => plain(Code::TxMalformed),
            TransactionError::SponsorIsSender
            | TransactionError::TipAboveMaxFee { .. }
            | TransactionError::Field { .. } => plain(Code::TxRefused),
        },
        AdmitError::Signature { .. } => plain(Code::TxBadSignature),
        AdmitError::Program(error) => plain(Code::TxRefused).with("rule", error.code()),
        AdmitError::Pool(error) => pool_refusal(&error, plain),
        AdmitError::WouldFail(failure) => {
            let code = match failure {
                Failure::InsufficientBalance { .. } => Code::TxInsufficientBalance,
                _ => Code::TxRefused,
            };
            let view = proofmill_rpc::api::FailureView::from(&failure);
            plain(code).with("failure", view.code)
        }
        AdmitError::Output(_)
        | AdmitError::AttestationSignature(_)
        | AdmitError::AttestationPool(_) => plain(Code::AttestationRefused),
        AdmitError::State(error) => Error::internal(error),
        AdmitError::Store(error) => Error::internal(error),
    }
}

fn pool_refusal(error: &InsertError, plain: impl Fn(Code) -> Error) -> Error {
    let pair = |code, expected: String, received: String| {
        plain(code)
            .with("expected", expected)
            .with("received", received)
    };
    match error {
        InsertError::NonceTooLow { expected, received } => pair(
            Code::TxNonceTooLow,
            expected.to_string(),
            received.to_string(),
        ),
        InsertError::NonceGap { expected, received } => {
            pair(Code::TxNonceGap, expected.to_string(), received.to_string())
        }
        InsertError::Expired { expires_at, height } => plain(Code::TxExpired)
            .with("expires_at", expires_at.to_string())
            .with("height", height.to_string()),
        InsertError::FeeTooLow { needed, max_fee } => {
            pair(Code::TxFeeTooLow, needed.to_string(), max_fee.to_string())
        }
        InsertError::InsufficientBalance {
            needed, available, ..
        } => pair(
            Code::TxInsufficientBalance,
            needed.to_string(),
            available.to_string(),
        ),
        InsertError::SenderFull { .. } | InsertError::SenderBytes { .. } | InsertError::Full => {
            plain(Code::MempoolFull)
        }
        InsertError::TooLarge { .. } => plain(Code::TxMalformed),
        InsertError::ModuleStays {
            waiting,
            expires_at,
        } => plain(Code::TxRefused)
            .with("waiting", waiting.to_string())
            .with("expires_at", expires_at.to_string()),
        InsertError::State(error) => Error::internal(error),
        // One that is known is no refusal, and is answered as such.
        InsertError::Known { .. } | InsertError::ReplacementTipTooLow { .. } => {
            plain(Code::TxRefused)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{HEAD_AGE_SLACK_MS, head_age_ready_ms_max};

    #[test]
    fn an_idle_chain_is_ready_however_long_empty_blocks_are_held_back() {
        for idle_ms in [0, 1_000, 15_000, 60_000] {
            let most = head_age_ready_ms_max(Duration::from_millis(idle_ms));
            assert_eq!(most, idle_ms + HEAD_AGE_SLACK_MS);
        }
    }
}
