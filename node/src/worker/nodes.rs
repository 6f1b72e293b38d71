//! The nodes that a worker may ask: one at a time, another when it does not answer, is not ready, or
//! lags behind. A node that was silent is left alone for a while:
//! all of this happens on the worker's only loop, and every wait there delays the seats.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_rpc::api::{NodeHealth, NodeInfo};
use proofmill_rpc::client::{Client, ClientError, with_scheme};
use proofmill_rpc::error::{Code, Fault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::belief::{Belief, Said, Told};

/// How long a worker waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits for the answers by which it compares nodes.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// A node whose answers to one comparison take longer than this in all is silent: below
/// `COMPARE_TIMEOUT`, so that whatever ran out of time counts.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long a silent node is not asked again: what it costs the loop is seconds, a window to commit is
/// not much more, so it may take a small part of the time only.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// Pause between two comparisons of the nodes.
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
    /// What a node has said that no other could be asked about.
    told: BTreeMap<Said, Told>,
}

struct Node {
    client: Client,
    /// The same node, asked with less patience.
    probe: Client,
    /// Whether it was ready at the last comparison, and of this chain.
    ready: bool,
    /// When it was last silent.
    silent: Option<Instant>,
}

impl Node {
    /// Whether it was silent a short while ago and is not to be asked.
    fn is_silent(&self) -> bool {
        self.silent
            .is_some_and(|since| since.elapsed() < SILENT_FOR)
    }
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
                    ready: false,
                    silent: None,
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

    /// Asks those of the nodes that are `meant` and not silent, all at once; answers come with the index of
    /// their node. One that takes too long is silent from now on, whatever it answers.
    fn ask<T: Send>(
        &mut self,
        meant: impl Fn(usize, &Node) -> bool,
        question: &(dyn Fn(&Client) -> Option<T> + Sync),
    ) -> Vec<(usize, T)> {
        let asked: Vec<(usize, Option<T>, bool)> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(index, node)| !node.is_silent() && meant(*index, node))
                .map(|(index, node)| {
                    let ask = move || {
                        let begun = Instant::now();
                        let answer = question(&node.probe);
                        (answer, begun.elapsed() >= SLOW)
                    };
                    (index, scope.spawn(ask))
                })
                .collect();
            asked
                .into_iter()
                .filter_map(|(index, asked)| {
                    let (answer, slow) = asked.join().ok()?;
                    Some((index, answer, slow))
                })
                .collect()
        });
        let mut answers = Vec::new();
        for (index, answer, slow) in asked {
            if slow {
                self.mark_silent(index);
            }
            answers.extend(answer.map(|answer| (index, answer)));
        }
        answers
    }

    fn mark_silent(&mut self, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            tracing::debug!(
                node = node.client.url(),
                "silent; not asked for {SILENT_FOR:?}"
            );
            node.silent = Some(Instant::now());
        }
    }

    /// Whether a node was silent a short while ago.
    pub(super) fn is_silent(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(Node::is_silent)
    }

    /// Asks the other nodes, all at once, what the current one has been asked: `says` gives what an answer
    /// means; it comes with the index of its node. A node that was not ready or of another chain at the last
    /// comparison, is silent or does not answer says nothing.
    pub(super) fn others<R: DeserializeOwned, T: Send>(
        &mut self,
        method: &str,
        params: &(impl Serialize + Sync),
        says: &(dyn Fn(&R) -> T + Sync),
    ) -> Vec<(usize, T)> {
        let current = self.current;
        self.ask(
            |index, node| index != current && node.ready,
            &|client: &Client| {
                let answer = client.call(method, params).ok();
                answer.map(|answer| says(&answer))
            },
        )
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
        let current = self.current;
        let mut nodes = self.nodes.iter().enumerate();
        let is_one_silent = nodes.any(|(index, node)| index != current && node.is_silent());
        let told = self.told.entry(said).or_insert_with(Told::begin);
        let belief = told.again(&others, is_one_silent);
        if belief != Belief::Open {
            self.told.remove(&said);
        }
        belief
    }

    /// The current node does not say so at this look.
    pub(super) fn not_said(&mut self, said: Said) {
        self.told.remove(&said);
    }

    /// The head of the node asked, as of the last comparison at which it told one.
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
        let genesis = self.genesis;
        let answers = self.ask(|_, _| true, &|client: &Client| standing(client, genesis));
        self.compared = Some(Instant::now());
        let mut standings = vec![Standing::default(); self.nodes.len()];
        for (index, answer) in &answers {
            if let Some(standing) = standings.get_mut(*index) {
                *standing = *answer;
            }
        }
        for (node, standing) in self.nodes.iter_mut().zip(&standings) {
            node.ready = standing.ready;
        }
        let chosen = best(&standings, self.current);
        if let (Some(new), true) = (self.nodes.get(chosen), chosen != self.current) {
            tracing::warn!(
                node = new.client.url(),
                "the node asked so far lags or is not ready; asking another"
            );
            self.current = chosen;
        }
        // One that told nothing leaves the head that is known.
        if let Some((_, standing)) = answers.iter().find(|(index, _)| *index == self.current) {
            self.head = standing.head;
        }
    }

    /// Compares all nodes now, the silent ones too: before what one of them could refute is believed at once.
    pub(super) fn compare_all(&mut self) {
        for node in &mut self.nodes {
            node.silent = None;
        }
        self.compared = None;
        self.choose();
    }

    /// Calls a method of the current node; when it is out of reach, or cannot answer for a reason of its own,
    /// the next call asks the next.
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
        if let Err(error) = &answer {
            if matches!(error, ClientError::Timeout { .. }) {
                self.mark_silent(self.current);
            }
            if is_fault_of_node(error) {
                self.leave();
            }
        }
        answer.with_context(|| method.to_owned())
    }

    /// Leaves the current node for the next that is not silent: it cannot answer, or gave an answer that
    /// cannot be true.
    pub fn leave(&mut self) {
        let silent: Vec<_> = self.nodes.iter().map(Node::is_silent).collect();
        self.current = following(self.current, &silent);
    }

    /// Makes a node the current one; returns which one was.
    pub(super) const fn turn_to(&mut self, node: usize) -> usize {
        std::mem::replace(&mut self.current, node)
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

/// Whether another node may do what this one did not: it is out of reach, or the error is its own fault by
/// the catalogue, as overload, not being ready or an internal failure.
fn is_fault_of_node(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. }
        | ClientError::Timeout { .. }
        | ClientError::Broken { .. }
        | ClientError::Http { .. } => true,
        ClientError::Rpc(error) => Code::ALL
            .iter()
            .any(|code| i64::from(code.number()) == error.code && code.fault() == Fault::Node),
        ClientError::Url { .. } | ClientError::Malformed { .. } => false,
    }
}

/// The node after the current one that is not silent; the current one when all others are, and the next
/// when it is silent too.
fn following(current: usize, silent: &[bool]) -> usize {
    let after = |step: usize| {
        let place = current.saturating_add(step);
        place.checked_rem(silent.len()).unwrap_or_default()
    };
    (1..=silent.len())
        .map(after)
        .find(|index| silent.get(*index) == Some(&false))
        .unwrap_or_else(|| after(1))
}

/// What a node says of itself; nothing when it does not answer or is of another chain.
fn standing(client: &Client, genesis: Option<Hash>) -> Option<Standing> {
    let health: NodeHealth = client.call("node_health", &json!({})).ok()?;
    let info: NodeInfo = client.call("node_info", &json!({})).ok()?;
    let is_of_chain = genesis.is_none_or(|genesis| genesis == info.genesis_hash);
    is_of_chain.then_some(Standing {
        ready: health.ready,
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
    use std::net::TcpListener;

    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::Height;
    use proofmill_rpc::client::{ClientError, RpcError};
    use proofmill_rpc::error::Code;
    use serde_json::{Value, json};

    use super::{LAG_BLOCKS_MAX, Nodes, Standing, best, following, is_fault_of_node};
    use crate::worker::belief::{Belief, Said, TELLINGS};

    fn node(ready: bool, head: u64) -> Standing {
        Standing {
            ready,
            head: Height::new(head),
        }
    }

    /// A node that takes connections and never answers.
    fn silent_node() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        (listener, address.to_string())
    }

    /// A node that is not there.
    fn absent_node() -> String {
        silent_node().1
    }

    /// How many connections wait at a node that takes none.
    fn calls(listener: &TcpListener) -> usize {
        listener.set_nonblocking(true).expect("a socket");
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn a_silent_node_is_asked_once_in_a_while_and_not_at_every_look() {
        let (listener, silent) = silent_node();
        let mut nodes = Nodes::new(&[absent_node(), silent]).expect("addresses");
        nodes.choose();
        nodes.compared = None;
        nodes.choose();
        assert_eq!(calls(&listener), 1, "comparing");
        nodes.compare_all();
        assert_eq!(calls(&listener), 1, "all of them");

        let (listener, silent) = silent_node();
        let mut nodes = Nodes::new(&[absent_node(), silent]).expect("addresses");
        nodes.nodes[1].ready = true;
        let is_so = |answer: &Value| answer.is_object();
        for seat in 0..=u8::try_from(TELLINGS).expect("few") {
            let said = Said::Over((Hash::ZERO, seat));
            let belief = nodes.belief(said, "task_get", &json!({}), &is_so);
            assert_eq!(belief, Belief::Open);
        }
        let said = Said::Lost((Hash::ZERO, 0));
        for _ in 0..=TELLINGS {
            let belief = nodes.belief(said, "task_get", &json!({}), &is_so);
            assert_eq!(belief, Belief::Open, "its silence is no consent");
        }
        assert_eq!(calls(&listener), 1, "asking about seats");
    }

    #[test]
    fn a_head_that_is_known_stays_when_no_node_tells_one() {
        let mut nodes = Nodes::new(&[absent_node()]).expect("an address");
        nodes.head = Height::new(7);
        nodes.choose();
        assert_eq!(nodes.head(), Height::new(7));
    }

    #[test]
    fn a_node_is_left_for_errors_that_are_its_own() {
        let refused = |code: Code| {
            is_fault_of_node(&ClientError::Rpc(RpcError {
                code: code.number().into(),
                message: String::new(),
                data: Value::Null,
            }))
        };
        for code in [
            Code::Overloaded,
            Code::NotReady,
            Code::Internal,
            Code::Timeout,
        ] {
            assert!(refused(code), "{}", code.name());
        }
        for code in [
            Code::NotFound,
            Code::InvalidParams,
            Code::AttestationRefused,
        ] {
            assert!(!refused(code), "{}", code.name());
        }
        assert!(is_fault_of_node(&ClientError::Connect {
            url: String::new(),
            reason: String::new(),
        }));
    }

    #[test]
    fn a_node_is_left_for_one_that_is_not_silent() {
        for (current, silent, next) in [
            (0, &[false][..], 0),
            (0, &[false, false], 1),
            (1, &[false, false], 0),
            (0, &[false, true], 0),
            (0, &[false, true, false], 2),
            (2, &[true, false, false], 1),
            (0, &[true, true], 1),
        ] {
            assert_eq!(following(current, silent), next, "{current} {silent:?}");
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
