//! The nodes that a worker may ask: one at a time, another when it does not answer, is not ready, or
//! lags behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_rpc::api::{NodeHealth, NodeInfo};
use proofmill_rpc::client::{Client, ClientError, with_scheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// How long a worker waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits for the answers by which it compares nodes.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the nodes are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// A node whose head is further behind the highest one seen is left: seats are found late there.
const LAG_BLOCKS_MAX: u64 = 3;
/// Pause between attempts to reach a first node.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Front ends of nodes.
pub struct Nodes {
    nodes: Vec<Node>,
    current: usize,
    compared: Option<Instant>,
    head: Height,
    /// Nodes of another chain are never asked.
    genesis: Option<Hash>,
}

struct Node {
    client: Client,
    /// The same node, asked with less patience.
    probe: Client,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    ready: bool,
    head: Height,
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
        let nodes = urls
            .iter()
            .map(|url| {
                let url = with_scheme(url);
                Ok(Node {
                    client: Client::new(&url, CALL_TIMEOUT)?,
                    probe: Client::new(&url, COMPARE_TIMEOUT)?,
                })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        Ok(Self {
            nodes,
            current: 0,
            compared: None,
            head: Height::ZERO,
            genesis: None,
        })
    }

    /// From now on only nodes of this chain count as ready.
    pub const fn keep_to(&mut self, genesis: Hash) {
        self.genesis = Some(genesis);
    }

    /// The head of the node asked, as of the last comparison.
    pub const fn head(&self) -> Height {
        self.head
    }

    /// Compares the nodes every `COMPARE_EVERY` and turns to another when the current one does not
    /// answer, is not ready, or lags more than `LAG_BLOCKS_MAX` blocks behind one that is ready.
    /// When none is ready the current one stays: there is no better choice.
    pub fn choose(&mut self) {
        if self.compared.is_some_and(|at| at.elapsed() < COMPARE_EVERY) {
            return;
        }
        self.compared = Some(Instant::now());
        let genesis = self.genesis;
        let standings: Vec<Standing> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(move || standing(&node.probe, genesis).unwrap_or_default()))
                .collect();
            asked
                .into_iter()
                .map(|asked| asked.join().unwrap_or_default())
                .collect()
        });
        let chosen = best(&standings, self.current);
        if let (Some(new), true) = (self.nodes.get(chosen), chosen != self.current) {
            tracing::warn!(
                node = new.client.url(),
                "the node asked so far lags or is not ready; asking another"
            );
            self.current = chosen;
        }
        if let Some(standing) = standings.get(self.current) {
            self.head = standing.head;
        }
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
        let node = self
            .nodes
            .get(self.current)
            .context("there is at least one node")?;
        let answer = node.client.call(method, params);
        if let Err(
            ClientError::Connect { .. }
            | ClientError::Timeout { .. }
            | ClientError::Broken { .. }
            | ClientError::Http { .. },
        ) = &answer
        {
            self.leave();
        }
        answer.with_context(|| method.to_owned())
    }

    /// Leaves the current node for the next: it gave an answer that cannot be true.
    pub fn leave(&mut self) {
        self.current = self
            .current
            .saturating_add(1)
            .checked_rem(self.nodes.len())
            .unwrap_or_default();
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
            let error = match self.call(method, &json!({})) {
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

fn standing(client: &Client, genesis: Option<Hash>) -> Result<Standing, ClientError> {
    let health: NodeHealth = client.call("node_health", &json!({}))?;
    let info: NodeInfo = client.call("node_info", &json!({}))?;
    Ok(Standing {
        ready: health.ready && genesis.is_none_or(|genesis| genesis == info.genesis_hash),
        head: info.head.height,
    })
}

/// The node to ask: the current one as long as it is ready and near the highest head among the ready
/// ones, else the first of these with the highest head.
fn best(standings: &[Standing], current: usize) -> usize {
    let ready = || standings.iter().enumerate().filter(|(_, node)| node.ready);
    let mut heads: Vec<_> = ready().map(|(_, node)| node.head).collect();
    heads.sort_unstable();
    // Of three or more nodes one alone cannot say where the chain is.
    if heads.len() > 2 {
        heads.pop();
    }
    let Some(highest) = heads.last().copied() else {
        return current;
    };
    let is_near =
        |node: &Standing| node.ready && highest <= node.head.saturating_plus(LAG_BLOCKS_MAX);
    if standings.get(current).is_some_and(is_near) {
        return current;
    }
    ready()
        .find(|(_, node)| node.head >= highest)
        .map_or(current, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::units::Height;

    use super::{LAG_BLOCKS_MAX, Standing, best};

    fn node(ready: bool, head: u64) -> Standing {
        Standing {
            ready,
            head: Height::new(head),
        }
    }

    #[test]
    fn a_node_is_left_when_it_lags_or_is_not_ready() {
        let near = 100 - LAG_BLOCKS_MAX;
        for (first, second, chosen) in [
            (node(true, 100), node(true, 100), 0),
            (node(true, near), node(true, 100), 0),
            (node(true, near - 1), node(true, 100), 1),
            (node(false, 100), node(true, 90), 1),
            (node(true, 90), node(false, 100), 0),
            (node(false, 90), node(false, 100), 0),
        ] {
            assert_eq!(best(&[first, second], 0), chosen, "{first:?} {second:?}");
        }
        assert_eq!(best(&[node(true, 100), node(true, 100)], 1), 1, "it stays");
        let three = [node(true, 100), node(true, 1_000_000), node(true, 101)];
        assert_eq!(best(&three, 0), 0, "one node alone moves nobody");
    }
}
