//! Asking a node where its chain stands.

use std::time::Duration;

use proofmill_rpc::api::BlockSummary;
use proofmill_rpc::client::Client;

/// The head of the node at `url`, or why it did not tell within `patience`.
pub(super) fn ask(url: &str, patience: Duration) -> Result<BlockSummary, String> {
    let client = Client::new(url, patience).map_err(|error| error.to_string())?;
    let none: [(); 0] = [];
    client
        .call("chain_getHead", &none)
        .map_err(|error| error.to_string())
}

/// As [`ask`], on a thread that may wait.
pub(super) async fn of(url: String, patience: Duration) -> Result<BlockSummary, String> {
    tokio::task::spawn_blocking(move || ask(&url, patience))
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}
