//! The nodes that a worker may ask: one at a time, another when it does not answer, is not ready, or
//! lags behind; and what is believed of what one says.
//!
//! What costs a seat when it is false is not done on one node's word (`believed`): as long as there are
//! no proofs of state, a second node must say the same, or the only one that answers must say it again
//! and again.

use std::collections::BTreeMap;
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
/// How many looks in a row the only node that answers must say what ends a seat: five seconds of looks,
/// some blocks, so that no passing confusion of that node ends it.
const TELLINGS: u32 = 25;
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
    /// How many looks in a row a node has said something that no other could be asked about.
    told: BTreeMap<Said, u32>,
}

/// What a node says that costs a seat when it is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// The worker does not hold this seat any more, of this task and draw.
    Lost((Hash, u8)),
    /// The task of this seat has been over for long.
    Over((Hash, u8)),
}

/// What follows from what a node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// It is so.
    Believed,
    /// It may be so: to be asked again at the next look.
    Open,
    /// Another node says the opposite.
    Contradicted,
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
            told: BTreeMap::new(),
        })
    }

    /// Asks the other nodes, all at once, what the current one has been asked: `says` gives what an answer
    /// means. A node that is not ready, of another chain or does not answer says nothing.
    pub(super) fn others<R: DeserializeOwned, T: Send>(
        &self,
        method: &str,
        params: &(impl Serialize + Sync),
        says: &(dyn Fn(&R) -> T + Sync),
    ) -> Vec<T> {
        let genesis = self.genesis;
        let others = self.nodes.iter().enumerate();
        let others = others.filter(|(index, _)| *index != self.current);
        let ask = &|node: &Node| {
            let client = &node.probe;
            standing(client, genesis).ok().filter(|node| node.ready)?;
            client.call(method, params).ok().map(|answer| says(&answer))
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> = others
                .map(|(_, node)| scope.spawn(move || ask(node)))
                .collect();
            asked
                .into_iter()
                .filter_map(|asked| asked.join().ok().flatten())
                .collect()
        })
    }

    /// What to believe when the current node says at this look that something is so; `is_so` finds it in
    /// another node's answer.
    pub(super) fn belief<R: DeserializeOwned>(
        &mut self,
        said: Said,
        method: &str,
        params: &(impl Serialize + Sync),
        is_so: &(dyn Fn(&R) -> bool + Sync),
    ) -> Belief {
        let others = self.others(method, params, is_so);
        let told = self.told.entry(said).or_default();
        *told = told.saturating_add(1);
        let belief = believed(&others, *told);
        if belief != Belief::Open {
            self.told.remove(&said);
        }
        belief
    }

    /// The current node does not say so at this look.
    pub(super) fn not_said(&mut self, said: Said) {
        self.told.remove(&said);
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

    /// Waits for a node of the chain with this genesis, or of any when none is known, and keeps to its
    /// chain from now on.
    ///
    /// # Errors
    /// When every node is of another chain, or the wait is stopped.
    pub fn meet(&mut self, genesis: Option<Hash>, stopped: &dyn Fn() -> bool) -> Result<NodeInfo> {
        let mut others = Vec::new();
        for _ in 0..self.nodes.len() {
            let info: NodeInfo = self.wait_for("node_info", stopped)?;
            if genesis.is_none_or(|genesis| genesis == info.genesis_hash) {
                self.genesis = Some(info.genesis_hash);
                return Ok(info);
            }
            others.push(info.genesis_hash.to_string());
            self.leave();
        }
        bail!(
            "the genesis file is of chain {}, the nodes say that theirs is {}",
            genesis.unwrap_or(Hash::ZERO),
            others.join(", ")
        )
    }

    /// Calls a method without parameters until a node answers or `stopped` says so.
    ///
    /// # Errors
    /// When a node answers with an error, or the wait is stopped.
    fn wait_for<R: DeserializeOwned>(
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

/// What to believe of what a node has said so many looks in a row when these are the answers of the others,
/// true where one says the same: two nodes of the operator's choice that say the same are believed, one is
/// not as long as another one contradicts it, and one that is alone has to say it [`TELLINGS`] times.
fn believed(others: &[bool], told: u32) -> Belief {
    if others.contains(&true) || (others.is_empty() && told >= TELLINGS) {
        Belief::Believed
    } else if others.is_empty() {
        Belief::Open
    } else {
        Belief::Contradicted
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

    use super::{Belief, LAG_BLOCKS_MAX, Standing, TELLINGS, believed, best};

    fn node(ready: bool, head: u64) -> Standing {
        Standing {
            ready,
            head: Height::new(head),
        }
    }

    #[test]
    fn one_node_s_word_ends_no_seat_as_long_as_another_one_says_otherwise() {
        for (others, told, belief) in [
            (&[true][..], 1, Belief::Believed),
            (&[false, true], 1, Belief::Believed),
            (&[false], 1, Belief::Contradicted),
            (&[false, false], TELLINGS, Belief::Contradicted),
            (&[], 1, Belief::Open),
            (&[], TELLINGS - 1, Belief::Open),
            (&[], TELLINGS, Belief::Believed),
        ] {
            assert_eq!(believed(others, told), belief, "{others:?} {told}");
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
