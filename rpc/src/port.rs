//! What the front end asks of a node: two traits, one for reading, one for sending.

use std::sync::Arc;

use async_trait::async_trait;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::AttestationMessage;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::Height;

use crate::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, Include, NodeHealth, NodeInfo,
    ReceiptView, TaskFilter, TaskPage, TaskResult, TaskView, TransactionSent, TransactionView,
    ValidatorsView, WorkerPage,
};
use crate::error::Error;

/// Reading. Each function answers the method of the same subject.
///
/// What may have a large answer, that is `block`, `task` with an input or a program and `task_result`, is
/// polled on a thread on which it may block. The others may not.
///
/// # Errors
/// With codes of the catalogue: [`NotFound`](crate::error::Code::NotFound) for what does not
/// exist, [`Pruned`](crate::error::Code::Pruned) for what this node dropped,
/// [`NotReady`](crate::error::Code::NotReady) before it has a state.
#[async_trait]
pub trait Query: Send + Sync + 'static {
    /// `node_info`.
    async fn node_info(&self) -> Result<NodeInfo, Error>;

    /// `node_health`, and the answers of `/livez` and `/readyz`.
    async fn node_health(&self) -> Result<NodeHealth, Error>;

    /// `chain_getHead`.
    async fn head(&self) -> Result<BlockSummary, Error>;

    /// `chain_getParams`.
    async fn params(&self) -> Result<Params, Error>;

    /// `chain_getBlock`.
    async fn block(&self, block: BlockRef, full: bool) -> Result<BlockView, Error>;

    /// `chain_getReceipt`.
    async fn receipt(&self, transaction: Hash) -> Result<ReceiptView, Error>;

    /// `account_get`: an account that does not exist has nothing and nonce 0.
    async fn account(&self, account: AccountId) -> Result<AccountView, Error>;

    /// `tx_get`: a transaction that the node does not know is an answer, not an error.
    async fn transaction(&self, transaction: Hash) -> Result<TransactionView, Error>;

    /// `task_get`.
    async fn task(&self, task: Hash, include: Include) -> Result<TaskView, Error>;

    /// `task_list`.
    async fn tasks(&self, filter: TaskFilter) -> Result<TaskPage, Error>;

    /// `task_getResult`: [`TaskNotFinal`](crate::error::Code::TaskNotFinal) while the task is
    /// under way, [`TaskWithoutResult`](crate::error::Code::TaskWithoutResult) when it ended
    /// without one.
    async fn task_result(&self, task: Hash) -> Result<TaskResult, Error>;

    /// `worker_list`: at most `limit` workers by descending key, below `before`.
    async fn workers(&self, limit: u32, before: Option<AccountId>) -> Result<WorkerPage, Error>;

    /// `validator_list`: the set that decides `height`, or the next height.
    async fn validators(&self, height: Option<Height>) -> Result<ValidatorsView, Error>;
}

/// Sending.
///
/// # Errors
/// With the `Tx…`, [`MempoolFull`](crate::error::Code::MempoolFull) and
/// [`AttestationRefused`](crate::error::Code::AttestationRefused) codes of the catalogue.
#[async_trait]
pub trait Submit: Send + Sync + 'static {
    /// `tx_send`, once the bytes are a transaction.
    async fn submit_transaction(
        &self,
        transaction: SignedTransaction,
    ) -> Result<TransactionSent, Error>;

    /// `attestation_send`, once the bytes are an attestation.
    async fn submit_attestation(
        &self,
        attestation: AttestationMessage,
    ) -> Result<AttestationSent, Error>;
}

/// The node, as the front end sees it.
#[derive(Clone)]
pub struct Ports {
    /// For reading.
    pub query: Arc<dyn Query>,
    /// For sending.
    pub submit: Arc<dyn Submit>,
}
