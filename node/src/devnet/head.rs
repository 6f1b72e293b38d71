//! Asking a node where its chain stands.

use std::time::Duration;

use proofmill_chain::types::units::Height;
use proofmill_rpc::api::BlockSummary;
use proofmill_rpc::client::{Client, ClientError};
use proofmill_rpc::error::Code;

/// The head of the node at `url`, `None` when its chain is at genesis, or why it did not tell within
/// `patience`.
pub(super) fn ask(url: &str, patience: Duration) -> Result<Option<BlockSummary>, String> {
    let client = Client::new(url, patience).map_err(|error| error.to_string())?;
    let none: [(); 0] = [];
    match client.call("chain_getHead", &none) {
        Ok(head) => Ok(Some(head)),
        Err(ClientError::Rpc(error)) if error.name() == Code::NotReady.name() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The height of an answer: that of genesis is an answer, too.
pub(super) fn height(head: Option<&BlockSummary>) -> Height {
    head.map_or(Height::ZERO, |head| head.height)
}

/// As [`ask`], on a thread that may wait.
pub(super) async fn of(url: String, patience: Duration) -> Result<Option<BlockSummary>, String> {
    tokio::task::spawn_blocking(move || ask(&url, patience))
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}
