//! The nodes that a worker may ask: one at a time, the next when one does not answer.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use proofmill_rpc::client::{Client, ClientError, with_scheme};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a worker waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts to reach a first node.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Front ends of nodes.
pub struct Nodes {
    clients: Vec<Client>,
    current: usize,
}

impl Nodes {
    /// Nodes by the addresses of their front ends.
    ///
    /// # Errors
    /// When there is none or one is not an address.
    pub fn new(urls: &[String]) -> Result<Self> {
        if urls.is_empty() {
            bail!("no node to ask: give at least one --rpc URL");
        }
        let clients = urls
            .iter()
            .map(|url| Client::new(&with_scheme(url), CALL_TIMEOUT))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            clients,
            current: 0,
        })
    }

    /// Calls a method of the current node; when it is out of reach the next call asks the next.
    ///
    /// # Errors
    /// When the node does not answer or refuses.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R> {
        let client = self
            .clients
            .get(self.current)
            .context("there is at least one node")?;
        let answer = client.call(method, params);
        if let Err(
            ClientError::Connect { .. }
            | ClientError::Timeout { .. }
            | ClientError::Broken { .. }
            | ClientError::Http { .. },
        ) = &answer
        {
            self.current = self
                .current
                .saturating_add(1)
                .checked_rem(self.clients.len())
                .unwrap_or_default();
        }
        answer.with_context(|| method.to_owned())
    }

    /// Calls a method without parameters until a node answers or `stopped` says so.
    ///
    /// # Errors
    /// When a node answers with an error, or the wait is stopped.
    pub fn wait_for<R: DeserializeOwned>(
        &mut self,
        method: &str,
        stopped: &dyn Fn() -> bool,
    ) -> Result<R> {
        let mut told = false;
        loop {
            let error = match self.call(method, &serde_json::json!({})) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if stopped() {
                bail!("stopped while waiting for a node");
            }
            if !told {
                tracing::warn!("waiting for a node: {error:#}");
                told = true;
            }
            std::thread::sleep(FIRST_PAUSE);
        }
    }
}
