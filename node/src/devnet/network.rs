//! The processes of a development network.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::future::{join_all, try_join_all};
use proofmill_chain::types::units::Height;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::head;
use super::layout::Layout;
use super::ports::NodePorts;
use super::process::{Process, Spec};
use super::ready::{AccountReady, FaucetReady, NodeReady, Ready, ValidatorReady, WorkerReady};
use super::run::{LAST_WORD, died, highest, is_before_upgrade};
use crate::home::Home;
use crate::stop::{DEVNET_STOP_WITHIN, NODE_STOP_WITHIN, STOP_WITHIN_MAX, WORKER_STOP_WITHIN};
use crate::{dev_keys, telemetry};

/// How long a process may take until it is ready, and the chain until its first block.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// What has not ended by itself by then is killed. A process of ours ends earlier, whatever it does,
/// unless it is not given the processor.
const WORKER_KILLED_AFTER: Duration = WORKER_STOP_WITHIN.saturating_add(Duration::from_millis(300));
const NODE_KILLED_AFTER: Duration = NODE_STOP_WITHIN.saturating_add(Duration::from_millis(500));
const _: () = assert!(
    LAST_WORD.as_millis() + WORKER_KILLED_AFTER.as_millis() + NODE_KILLED_AFTER.as_millis()
        < DEVNET_STOP_WITHIN.as_millis()
        && DEVNET_STOP_WITHIN.as_millis() < STOP_WITHIN_MAX.as_millis()
);
/// How often another process' progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a node may take to answer a call while it starts.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A network that is starting, running or stopping.
pub(super) struct Network<'a> {
    layout: &'a Layout,
    program: PathBuf,
    ended: mpsc::UnboundedSender<String>,
    ports: Vec<NodePorts>,
    nodes: Vec<Process>,
    told: Vec<NodeReady>,
    workers: Vec<Process>,
}

impl<'a> Network<'a> {
    /// A network without processes. The names of those that end go to `ended`.
    pub(super) const fn new(
        layout: &'a Layout,
        program: PathBuf,
        ended: mpsc::UnboundedSender<String>,
    ) -> Self {
        Self {
            layout,
            program,
            ended,
            ports: Vec::new(),
            nodes: Vec::new(),
            told: Vec::new(),
            workers: Vec::new(),
        }
    }

    pub(super) const fn layout(&self) -> &Layout {
        self.layout
    }

    pub(super) fn ports(&self) -> &[NodePorts] {
        &self.ports
    }

    /// Starts the validators, waits until they are ready, and starts the workers.
    pub(super) async fn start(&mut self, ports: &[NodePorts]) -> anyhow::Result<()> {
        self.ports = ports.to_vec();
        for index in 0..self.layout.validators() {
            let process = self.launch(self.node_spec(index), &self.layout.node(index))?;
            self.nodes.push(process);
        }
        let homes = (0..self.layout.validators()).map(|index| self.layout.node(index));
        let told = self.nodes.iter().zip(homes).map(async |(process, home)| {
            let text = ready(process, &ready_file(&home)).await?;
            serde_json::from_str(&text)
                .with_context(|| format!("what {} says is not known: {text}", process.spec.name))
        });
        self.told = try_join_all(told).await?;
        for index in 0..self.layout.workers() {
            let process = self.launch(self.worker_spec(index)?, &self.layout.worker(index))?;
            self.workers.push(process);
        }
        Ok(())
    }

    /// Waits until every validator has a final block: the first, or the next when the chain goes on.
    /// Workers have started by then, or failed.
    pub(super) async fn first_block(&self) -> anyhow::Result<()> {
        let goal = if self.layout.is_new() {
            Height::new(1)
        } else {
            let urls = self.told.iter().map(|told| told.rpc.clone()).collect();
            highest(urls, ANSWER_WITHIN)
                .await
                .context("no validator answers where its chain stands")?
                .next()
        };
        let waits = self.nodes.iter().zip(&self.told);
        let waits = waits.map(|(process, told)| reaches(process, &told.rpc, goal));
        try_join_all(waits).await?;
        for worker in &self.workers {
            if let Some(status) = worker.status() {
                return Err(failed(worker, status));
            }
        }
        Ok(())
    }

    /// Whether a validator's process runs.
    pub(super) fn is_up(&self, index: u32) -> bool {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.nodes
            .get(index)
            .is_some_and(|process| process.status().is_none())
    }

    /// Whether a validator's process is left.
    pub(super) fn has_validators(&self) -> bool {
        self.nodes.iter().any(|process| process.status().is_none())
    }

    /// Whether every validator stopped before an upgrade that its program does not know.
    pub(super) fn needs_upgrade(&self) -> bool {
        let mut statuses = self.nodes.iter().map(Process::status);
        statuses.all(|status| status.is_some_and(|status| is_before_upgrade(&status)))
    }

    /// One line about how a process ended.
    pub(super) fn ending(&self, name: &str) -> Option<String> {
        let mut all = self.nodes.iter().chain(&self.workers);
        let process = all.find(|process| process.spec.name == name)?;
        Some(died(process, process.status()?))
    }

    /// The last final block that a running validator tells of.
    pub(super) async fn height(&self, patience: Duration) -> Option<Height> {
        highest(
            self.told.iter().map(|told| told.rpc.clone()).collect(),
            patience,
        )
        .await
    }

    /// Stops the workers, then the validators. Returns the names of those that had to be killed.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        use std::os::unix::process::ExitStatusExt as _;
        const SIGKILL: i32 = 9;
        let mut killed = Vec::new();
        for (processes, within) in [
            (&mut self.workers, WORKER_KILLED_AFTER),
            (&mut self.nodes, NODE_KILLED_AFTER),
        ] {
            let running = processes
                .iter()
                .filter(|process| process.status().is_none());
            let stopped = join_all(running.map(async |process| {
                let status = process.stop(within).await;
                (status.signal() == Some(SIGKILL)).then(|| process.spec.name.clone())
            }));
            killed.extend(stopped.await.into_iter().flatten());
            processes.clear();
        }
        self.told.clear();
        killed
    }

    /// What runs where, with whom.
    pub(super) fn ready(&self) -> Ready {
        let genesis = self.layout.genesis();
        let validators = self.nodes.iter().zip(&self.told).zip(0..);
        let validators = validators.map(|((process, told), index)| ValidatorReady {
            name: process.spec.name.clone(),
            rpc: told.rpc.clone(),
            pid: process.pid,
            home: self.layout.node(index).path().into(),
            log: process.spec.log.clone(),
            ended: process.status().map(|status| died(process, status)),
        });
        let workers = self.workers.iter().zip(0..);
        let workers = workers.map(|(process, index)| WorkerReady {
            name: process.spec.name.clone(),
            account: dev_keys::worker(index).public(),
            pid: process.pid,
            home: self.layout.worker(index).path().into(),
            log: process.spec.log.clone(),
        });
        let accounts = (0..dev_keys::ACCOUNTS).map(|index| AccountReady {
            name: format!("dev{index}"),
            account: dev_keys::account(index).public(),
        });
        Ready {
            home: self.layout.path().into(),
            chain_id: genesis.chain_id.clone(),
            genesis_hash: genesis.hash(),
            validators: validators.collect(),
            workers: workers.collect(),
            faucet: FaucetReady {
                account: dev_keys::faucet().public(),
            },
            accounts: accounts.collect(),
            pid: std::process::id(),
        }
    }

    fn launch(&self, spec: Spec, home: &Home) -> anyhow::Result<Process> {
        match std::fs::remove_file(ready_file(home)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", ready_file(home).display()));
            }
            _ => {}
        }
        let name = spec.name.clone();
        Process::start(spec, self.ended.clone()).with_context(|| format!("cannot start {name}"))
    }

    fn node_spec(&self, index: u32) -> Spec {
        let home = self.layout.node(index);
        let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
        let others = |port: fn(&NodePorts) -> u16| {
            let all = (0_u32..).zip(&self.ports);
            let others = all.filter(|(other, _)| *other != index);
            let others: Vec<_> = others.map(|(_, ports)| at(port(ports))).collect();
            others.join(",")
        };
        let own = (0_u32..)
            .zip(&self.ports)
            .find(|(other, _)| *other == index);
        let own = own.map(|(_, ports)| *ports);
        let own = own.expect("every validator has ports");
        let arguments = [
            ("--ready-file", ready_file(&home).display().to_string()),
            ("--rpc-listen", format!("127.0.0.1:{}", own.rpc)),
            ("--consensus-listen", at(own.consensus)),
            ("--consensus-peers", others(|ports| ports.consensus)),
            ("--gossip-listen", at(own.gossip)),
            ("--gossip-peers", others(|ports| ports.gossip)),
        ];
        let log = home.logs().join(telemetry::FILE_NAME);
        self.spec(format!("node{index}"), &["start"], &home, log, &arguments)
    }

    /// Workers are spread over the validators and know all of them, should one die, and have the genesis.
    fn worker_spec(&self, index: u32) -> anyhow::Result<Spec> {
        let home = self.layout.worker(index);
        let mut nodes: Vec<_> = self.told.iter().map(|told| told.rpc.clone()).collect();
        let first = usize::try_from(index)?.checked_rem(nodes.len());
        nodes.rotate_left(first.context("there is no validator to ask")?);
        let flags = std::iter::once("--rpc").chain(std::iter::repeat("--node"));
        let mut arguments: Vec<_> = flags.zip(nodes).collect();
        let genesis = self.layout.node(0).genesis();
        arguments.push(("--genesis", genesis.display().to_string()));
        let log = home.logs().join(telemetry::WORKER_FILE_NAME);
        let name = format!("worker{index}");
        Ok(self.spec(name, &["worker", "run"], &home, log, &arguments))
    }

    fn spec(
        &self,
        name: String,
        command: &[&str],
        home: &Home,
        log: PathBuf,
        arguments: &[(&str, String)],
    ) -> Spec {
        let mut all: Vec<String> = command.iter().copied().map(String::from).collect();
        all.extend(["--home".into(), home.path().display().to_string()]);
        for (flag, value) in arguments {
            all.extend([(*flag).into(), value.clone()]);
        }
        all.push("--exit-with-parent".into());
        Spec {
            name,
            program: self.program.clone(),
            arguments: all,
            output: home.logs().join("output.log"),
            log,
        }
    }
}

fn ready_file(home: &Home) -> PathBuf {
    home.path().join("ready.json")
}

/// Waits for a process' ready file and returns its text.
async fn ready(process: &Process, path: &Path) -> anyhow::Result<String> {
    until(process, "become ready", async || {
        std::fs::read_to_string(path).ok()
    })
    .await
}

/// Waits until the node at `url` has a final block of height `goal`.
async fn reaches(process: &Process, url: &str, goal: Height) -> anyhow::Result<()> {
    let what = format!("reach height {goal}");
    until(process, &what, async || {
        let head = head::of(url.into(), ANSWER_WITHIN).await.ok()?;
        (head::height(head.as_ref()) >= goal).then_some(())
    })
    .await
}

/// Looks until there is something, the process ends, or it took too long.
async fn until<T>(
    process: &Process,
    what: &str,
    look: impl AsyncFn() -> Option<T>,
) -> anyhow::Result<T> {
    let name = &process.spec.name;
    let deadline = Instant::now() + READY_WITHIN;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            status = process.ended() => return Err(failed(process, status)),
            _ = looks.tick() => {}
        }
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!(
                "{name} did not {what} within {} s; its log: {}",
                READY_WITHIN.as_secs(),
                process.spec.log.display()
            );
        }
    }
}

/// What there is to say about a process that ended before all was ready.
fn failed(process: &Process, status: ExitStatus) -> anyhow::Error {
    let line = died(process, status);
    match process.tail() {
        tail if tail.is_empty() => anyhow!(line),
        tail => anyhow!(tail).context(line),
    }
}
