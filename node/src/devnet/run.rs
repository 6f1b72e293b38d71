//! Running a development network from its first process to its last.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proofmill_chain::types::units::Height;
use tokio::sync::{mpsc, watch};

use super::layout::Layout;
use super::network::Network;
use super::ports::{self, NodePorts};
use super::process::Process;
use super::ready::Ready;
use super::{Options, head};
use crate::exit::Exit;
use crate::stop::{DEVNET_STOP_WITHIN, Rules};
use crate::{home, limits, stop};

/// How often any free ports are chosen again because somebody took one in between.
const PORT_TRIES: u32 = 3;
/// How long a node may take to tell its head when all is about to stop.
pub(super) const LAST_WORD: Duration = Duration::from_millis(400);
/// Threads of the devnet's own process.
const DEVNET_THREADS: u64 = 16;

/// What there is to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something goes on.
    Progress(String),
    /// All is ready.
    Ready {
        /// What runs where.
        ready: Box<Ready>,
        /// The ports of each validator.
        ports: Vec<NodePorts>,
        /// How long it took.
        after: Duration,
    },
    /// A process ended without being asked to.
    Died(String),
    /// All has stopped.
    Stopped(Summary),
}

/// What is left to say at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The devnet's directory.
    pub home: PathBuf,
    /// The last final block that a validator told of.
    pub height: Option<Height>,
    /// How long it ran since it was ready; zero when it never was.
    pub ran: Duration,
    /// Processes that had to be killed.
    pub killed: Vec<String>,
}

/// Starts a development network and runs it until the process is asked to stop.
///
/// # Errors
/// When the directory or the ports cannot be had, when a process does not become ready, or when
/// the last validator dies. All processes are stopped before it returns.
pub fn run(
    options: &Options,
    tell: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    limits::check_threads(DEVNET_THREADS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(run_all(options, tell));
    // A call to a node that does not answer must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn run_all(
    options: &Options,
    tell: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut stop = stop::requested(Rules {
        exit_with_parent: false,
        within: DEVNET_STOP_WITHIN,
        late: Exit::Late,
    })
    .context("cannot listen for signals")?;
    let layout = Layout::open(
        &options.home,
        options.validators,
        options.workers,
        options.reset,
    )?;
    if let Some(upgrades) = &options.upgrades {
        layout.set_upgrades(upgrades, options.known)?;
    }
    let mut ready_files = vec![layout.ready_file()];
    ready_files.extend(options.ready_file.clone());
    remove(&ready_files)?;
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut network = Network::new(&layout, std::env::current_exe()?, ended);
    let started = tokio::select! {
        started = start(options.port, &mut network, tell) => Some(started),
        () = stop::wait(&mut stop) => None,
    };
    let mut ready_at = None;
    let outcome = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => {
            ready_at = Some(Instant::now());
            announce(&network, &ready_files, begun.elapsed(), tell)
        }
    };
    let outcome = match (outcome, ready_at) {
        (Ok(()), Some(_)) => {
            let mut note = || write_ready(&network, &ready_files).map(drop);
            watch_over(&network, &mut endings, &mut stop, &mut note, tell).await
        }
        (outcome, _) => outcome,
    };
    let height = network.height(LAST_WORD).await;
    let killed = network.stop().await;
    remove(&ready_files)?;
    outcome?;
    tell(Event::Stopped(Summary {
        home: layout.path().into(),
        height,
        ran: ready_at.map_or(Duration::ZERO, |at| at.elapsed()),
        killed,
    }))
}

/// Starts everything and waits until it is ready.
async fn start(
    base: u16,
    network: &mut Network<'_>,
    tell: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let count = network.layout().validators();
    tell(Event::Progress(format!(
        "starting {} and {} in {}",
        counted(count, "validator"),
        counted(network.layout().workers(), "worker"),
        network.layout().path().display()
    )))?;
    let mut tries = 1;
    loop {
        let ports = match base {
            0 => ports::free(count)?,
            base => ports::fixed(base, count)?,
        };
        let Err(failure) = network.start(&ports).await else {
            break;
        };
        let taken = ports
            .iter()
            .zip(0..)
            .any(|(ports, index)| !network.is_up(index) && ports.check(index).is_err());
        network.stop().await;
        if base != 0 || !taken || tries == PORT_TRIES {
            return Err(failure);
        }
        tries += 1;
    }
    network.first_block().await
}

fn announce(
    network: &Network<'_>,
    ready_files: &[PathBuf],
    after: Duration,
    tell: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ready = write_ready(network, ready_files)?;
    tell(Event::Ready {
        ready: Box::new(ready),
        ports: network.ports().to_vec(),
        after,
    })
}

/// Writes what runs where, and what has ended.
fn write_ready(network: &Network<'_>, ready_files: &[PathBuf]) -> anyhow::Result<Ready> {
    let ready = network.ready();
    let mut text = serde_json::to_string_pretty(&ready)?;
    text.push('\n');
    for path in ready_files {
        home::write_atomically(path, &text)
            .with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }
    Ok(ready)
}

/// Tells of every process that dies, until all are asked to stop or no validator is left.
async fn watch_over(
    network: &Network<'_>,
    endings: &mut mpsc::UnboundedReceiver<String>,
    stop: &mut watch::Receiver<bool>,
    note: &mut dyn FnMut() -> anyhow::Result<()>,
    tell: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        let name = tokio::select! {
            () = stop::wait(stop) => return Ok(()),
            Some(name) = endings.recv() => name,
        };
        if let Some(line) = network.ending(&name) {
            note()?;
            tell(Event::Died(line))?;
        }
        if network.needs_upgrade() {
            return Err(AllNeedUpgrade.into());
        }
        if !network.has_validators() {
            bail!("no validator is left: everything stops");
        }
    }
}

fn counted(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Why a devnet ends whose program is too old for its chain.
#[derive(Debug, thiserror::Error)]
#[error(
    "every validator stopped before an upgrade that this program does not know: everything stops"
)]
pub struct AllNeedUpgrade;

/// Whether a node ended so because the chain needs a newer program.
pub(super) fn is_before_upgrade(status: &ExitStatus) -> bool {
    status.code() == Some(i32::from(Exit::Upgrade.code()))
}

/// One line about a process that ended.
pub(super) fn died(process: &Process, status: ExitStatus) -> String {
    let name = &process.spec.name;
    let log = process.spec.log.display();
    if is_before_upgrade(&status) {
        let tail = process.tail();
        let reason = tail.lines().next_back().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        return format!("{name} stopped before an upgrade ({status}): {reason}; its log: {log}");
    }
    format!("{name} died ({status}); its log: {log}")
}

fn remove(paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The highest of the heads that the nodes at `urls` tell within `patience`.
pub(super) async fn highest(urls: Vec<String>, patience: Duration) -> Option<Height> {
    let heads = urls.into_iter().map(|url| head::of(url, patience));
    let heads = futures::future::join_all(heads).await;
    heads
        .into_iter()
        .filter_map(|head| Some(head::height(head.ok()?.as_ref())))
        .max()
}
