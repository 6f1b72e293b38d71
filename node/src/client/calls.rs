//! The node's methods, typed.

use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::AttestationMessage;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::Height;
use proofmill_rpc::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, Hex, Include, LIST_MAX,
    NodeHealth, NodeInfo, ReceiptView, TaskFilter, TaskPage, TaskResult, TaskView, TransactionSent,
    TransactionView, ValidatorsView, WorkerPage, WorkerView,
};
use proofmill_rpc::client::{CALL_TIMEOUT, Client as Caller, with_scheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::client::Error;

/// A client of one node. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Caller>);

impl Client {
    /// A client of the node at `url`, as `http://127.0.0.1:26650/rpc`; `http://` and `/rpc` may be
    /// left out.
    ///
    /// # Errors
    /// When `url` is not an address. Nothing is sent.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self(Arc::new(Caller::new(
            &with_scheme(url),
            CALL_TIMEOUT,
        )?)))
    }

    /// The node's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.url()
    }

    fn call<P, R>(&self, method: &str, params: &P) -> Result<R, Error>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        Ok(self.0.call(method, params)?)
    }

    fn plain<R: DeserializeOwned>(&self, method: &str) -> Result<R, Error> {
        self.call::<[(); 0], R>(method, &[])
    }
}

/// Each function calls the method of the same subject.
///
/// # Errors
/// [`Error::Call`]: the node cannot be reached, or refuses.
#[expect(
    clippy::missing_errors_doc,
    reason = "said once for all of them, above"
)]
impl Client {
    /// What the node is, and where its chain stands.
    pub fn node_info(&self) -> Result<NodeInfo, Error> {
        self.plain("node_info")
    }

    /// Whether the node works and should be asked anything.
    pub fn node_health(&self) -> Result<NodeHealth, Error> {
        self.plain("node_health")
    }

    /// The last final block.
    pub fn head(&self) -> Result<BlockSummary, Error> {
        self.plain("chain_getHead")
    }

    /// The chain's parameters.
    pub fn params(&self) -> Result<Params, Error> {
        self.plain("chain_getParams")
    }

    /// A final block; `full` brings the transactions whole, not as ids.
    pub fn block(&self, block: BlockRef, full: bool) -> Result<BlockView, Error> {
        self.call("chain_getBlock", &json!({ "block": block, "full": full }))
    }

    /// What became of a transaction in its block.
    pub fn receipt(&self, transaction: &Hash) -> Result<ReceiptView, Error> {
        let params = json!({ "transaction": transaction });
        self.call("chain_getReceipt", &params)
    }

    /// What became of a transaction, `None` when it is in no block yet.
    pub fn receipt_if_included(&self, transaction: &Hash) -> Result<Option<ReceiptView>, Error> {
        match self.receipt(transaction) {
            Ok(receipt) => Ok(Some(receipt)),
            Err(error) if error.name() == "NOT_FOUND" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An account.
    pub fn account(&self, account: &AccountId) -> Result<AccountView, Error> {
        self.call("account_get", &json!({ "account": account }))
    }

    /// Sends a signed transaction.
    pub fn send_transaction(&self, signed: &SignedTransaction) -> Result<TransactionSent, Error> {
        let bytes = Hex(codec::encode(signed));
        self.call("tx_send", &json!({ "transaction": bytes }))
    }

    /// A transaction, and where it is.
    pub fn transaction(&self, transaction: &Hash) -> Result<TransactionView, Error> {
        self.call("tx_get", &json!({ "transaction": transaction }))
    }

    /// Sends a worker's attestation.
    pub fn send_attestation(&self, message: &AttestationMessage) -> Result<AttestationSent, Error> {
        let bytes = Hex(codec::encode(message));
        self.call("attestation_send", &json!({ "attestation": bytes }))
    }

    /// A task.
    pub fn task(&self, task: &Hash, include: Include) -> Result<TaskView, Error> {
        let params = json!({
            "task": task,
            "include_input": include.input,
            "include_program": include.program,
        });
        self.call("task_get", &params)
    }

    /// Tasks, newest first.
    pub fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, Error> {
        let params = json!({
            "state": filter.state,
            "requester": filter.requester,
            "worker": filter.worker,
            "limit": filter.limit,
            "before": filter.before,
        });
        self.call("task_list", &params)
    }

    /// The result of a final task.
    pub fn task_result(&self, task: &Hash) -> Result<TaskResult, Error> {
        self.call("task_getResult", &json!({ "task": task }))
    }

    /// Workers by descending key, at most `limit`, below `before`.
    pub fn workers(&self, limit: u32, before: Option<AccountId>) -> Result<WorkerPage, Error> {
        let params = json!({ "limit": limit, "before": before });
        self.call("worker_list", &params)
    }

    /// All registered workers, by descending key.
    pub fn all_workers(&self) -> Result<Vec<WorkerView>, Error> {
        let mut workers: Vec<WorkerView> = Vec::new();
        let mut before = None;
        loop {
            let page = self.workers(LIST_MAX, before)?;
            workers.extend(page.workers);
            match page.next {
                // The order descends: a node that repeats itself is not asked for ever.
                Some(next) if before.is_none_or(|before| next < before) => before = Some(next),
                _ => return Ok(workers),
            }
        }
    }

    /// One worker, `None` when it is not registered.
    pub fn worker(&self, id: &AccountId) -> Result<Option<WorkerView>, Error> {
        let workers = self.all_workers()?;
        Ok(workers.into_iter().find(|view| view.worker.id == *id))
    }

    /// The validators that decide a height, or the next one.
    pub fn validators(&self, height: Option<Height>) -> Result<ValidatorsView, Error> {
        self.call("validator_list", &json!({ "height": height }))
    }
}
