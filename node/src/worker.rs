//! A worker: a device that computes tasks. It has no privilege; it speaks JSON-RPC to any node.
//!
//! ```text
//! poll ──seat drawn──▶ compute (in a child) ──▶ journal (synced) ──▶ commit ──all committed──▶ reveal
//! ```
//!
//! The journal is written before the commitment is sent, so a worker that is killed at any moment
//! finds what it committed to and reveals it.

mod belief;
pub mod child;
pub mod journal;
mod nodes;
mod order;
mod pace;
mod seats;
pub mod self_test;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Phase, SignedAttestation, Statement,
};
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::Schedule;
use proofmill_rpc::api::{
    AttestationSent, Hex, LIST_MAX, TaskCursor, TaskPage, TaskView, TransactionView,
};
use proofmill_rpc::client::ClientError;
use serde_json::json;

use self::belief::{Belief, Said};
use self::child::{Cancel, Cancelled, Job, Sandbox};
use self::journal::{Entry, Journal};
pub use self::nodes::Nodes;
use self::pace::Pace;
use self::seats::{ended_at, is_lost};
use crate::machine;

/// How often the chain is asked for seats.
const POLL: Duration = Duration::from_millis(200);
/// How long an attestation that the chain does not show is waited for before it is sent again.
const RESEND: Duration = Duration::from_secs(1);
/// A journal entry is kept until its task has been over for so many blocks: what a node says of a
/// task is not proven, and a reveal that cannot be made costs the worker its pay.
pub const FORGET_AFTER_BLOCKS: u64 = 100;
/// A journal entry whose task one node alone says is over is looked at again after so many blocks.
const DOUBTED_AGAIN_BLOCKS: u64 = 10;
/// Most pages of a list of seats that are read at a look: a node looks at 2,000 live tasks for a page and
/// a genesis permits 16,384, so that nine reach the end; a node that gives pages without end is not followed.
const PAGES_MAX: usize = 10;
/// So often a node may be out of reach that alone says that a seat is held: each time costs the other seats
/// a wait.
const DOUBT_FAILURES_MAX: u32 = 5;
/// How often a computation that failed for a reason of this host is tried again.
const ATTEMPTS_MAX: u32 = 3;

/// What a worker runs with.
pub struct WorkerConfig {
    /// Its key.
    pub key: SecretKey,
    /// Front ends of nodes; the next one is asked when one does not answer.
    pub nodes: Vec<String>,
    /// Directory of the journal.
    pub journal: PathBuf,
    /// How programs are run.
    pub sandbox: Sandbox,
    /// The chain, when its genesis file is here; nodes are asked for its parameters otherwise.
    pub chain: Option<KnownChain>,
}

/// A chain that this worker knows without asking anybody.
pub struct KnownChain {
    /// Its identity.
    pub genesis: Hash,
    /// Its parameters, by height.
    pub schedule: Schedule,
}

/// A seat that this worker holds: the task and the draw.
type SeatId = (Hash, u8);

/// A seat of which the current node says that it is lost and this other one that it is held.
#[derive(Clone, Copy)]
struct Doubt {
    /// Its index.
    node: usize,
    /// How often it was out of reach.
    failures: u32,
}

/// What happens beside the clock.
enum Event {
    Stop,
    Computed(SeatId, Box<Result<Entry>>),
}

/// Asks a running worker to stop.
#[derive(Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Asks; the worker stops at the next opportunity.
    pub fn stop(&self) {
        // A worker that is gone has stopped.
        let _ = self.0.send(Event::Stop);
    }
}

/// A worker.
pub struct Worker {
    key: SecretKey,
    id: AccountId,
    nodes: Nodes,
    journal: Journal,
    sandbox: Sandbox,
    events: Receiver<Event>,
    sender: Sender<Event>,
    genesis: Hash,
    chain: Option<KnownChain>,
    computing: BTreeMap<SeatId, Cancel>,
    /// Seats in the journal whose task is over, with the height at which the entry may go.
    over: BTreeMap<SeatId, Height>,
    /// Seats about which the nodes contradict each other.
    doubted: BTreeMap<SeatId, Doubt>,
    failures: BTreeMap<SeatId, u32>,
    sent: BTreeMap<(SeatId, bool), Instant>,
    pace: Pace,
}

impl Worker {
    /// Tests this host, opens the journal and meets the chain; waits for a node to answer.
    ///
    /// # Errors
    /// When this host cannot compute, the journal cannot be opened, belongs to another chain, or no node is
    /// of the chain.
    pub fn start(config: WorkerConfig, stopped: &dyn Fn() -> bool) -> Result<(Self, Stopper)> {
        let mut nodes = Nodes::new(&config.nodes)?;
        // Before anything is served: a host that cannot compute would miss every seat.
        self_test::run(&config.sandbox)?;
        let info = nodes.meet(config.chain.as_ref().map(|chain| chain.genesis), stopped)?;
        let journal = Journal::open(&config.journal, &info.genesis_hash)?;
        let (sender, events) = channel();
        let id = config.key.public();
        tracing::info!(worker = %id, chain = %info.chain_id, entries = journal.len(), "worker started");
        let stopper = Stopper(sender.clone());
        Ok((
            Self {
                key: config.key,
                id,
                nodes,
                journal,
                sandbox: config.sandbox,
                events,
                sender,
                genesis: info.genesis_hash,
                chain: config.chain,
                computing: BTreeMap::new(),
                over: BTreeMap::new(),
                doubted: BTreeMap::new(),
                failures: BTreeMap::new(),
                sent: BTreeMap::new(),
                pace: Pace::new(POLL),
            },
            stopper,
        ))
    }

    /// Works until it is asked to stop.
    ///
    /// # Errors
    /// When the journal cannot be written: a worker that cannot remember must not commit.
    pub fn run(mut self) -> Result<()> {
        loop {
            match self.look() {
                Ok(()) => self.pace.succeeded(),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Node(error)) => self.pace.failed(&error),
            }
            match self.events.recv_timeout(self.pace.pause()) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    tracing::info!("worker stopped");
                    return Ok(());
                }
                Ok(Event::Computed(seat, entry)) => self.computed(seat, *entry)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// One look at the chain: what do my seats need?
    fn look(&mut self) -> Result<(), Trouble> {
        self.nodes.choose();
        let mut seen = BTreeSet::new();
        let mut failed = None;
        // A reveal that comes late costs more than a commitment that does.
        for state in ["revealing", "committing"] {
            let mut views = Vec::new();
            for task in self.seats_in(state)? {
                match self.view(&task) {
                    Ok(view) => views.push(view),
                    // One task must not keep the others from being served.
                    Err(error) if !is_unreachable(&error) => failed = Some(error),
                    Err(error) => return Err(Trouble::Node(error)),
                }
            }
            views.sort_by_key(|view| seats::urgency(view, &self.id));
            for view in &views {
                match self.serve(view, &mut seen) {
                    Ok(()) => {}
                    Err(Trouble::Node(error)) if !is_unreachable(&error) => failed = Some(error),
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        self.serve_doubted(&seen)?;
        if let Some(error) = failed {
            return Err(Trouble::Node(error));
        }
        // Other nodes are asked about one seat at a look: each time may be a wait.
        if self.cancel_lost_seats(&seen)? {
            return Ok(());
        }
        self.forget_what_is_over(&seen)
    }

    /// The tasks in which the current node says that this worker has a seat, page by page.
    fn seats_in(&mut self, state: &str) -> Result<Vec<Hash>, Trouble> {
        let mut tasks = Vec::new();
        let mut before: Option<TaskCursor> = None;
        for _ in 0..PAGES_MAX {
            let page: TaskPage = self.nodes.call(
                "task_list",
                &json!({ "state": state, "worker": self.id, "limit": LIST_MAX, "before": before }),
            )?;
            tasks.extend(page.tasks.into_iter().map(|summary| summary.task));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        Ok(tasks)
    }

    /// A task as the current node tells it.
    fn view(&mut self, task: &Hash) -> Result<TaskView> {
        let view: TaskView = self.nodes.call("task_get", &json!({ "task": task }))?;
        if view.task.id != *task {
            bail!(
                "task {task} was asked for, the node told of {}",
                view.task.id
            );
        }
        Ok(view)
    }

    /// Serves the seats about which the nodes contradict each other with those that say that they are held;
    /// the current node stays the one for all others. So neither of the two costs a seat when it lies.
    fn serve_doubted(&mut self, seen: &BTreeSet<SeatId>) -> Result<(), Trouble> {
        self.doubted.retain(|seat, _| !seen.contains(seat));
        for (seat, mut doubt) in self.doubted.clone() {
            if self.nodes.is_silent(doubt.node) {
                continue;
            }
            let current = self.nodes.turn_to(doubt.node);
            let held = self.serve_if_held(&seat);
            self.nodes.turn_to(current);
            match held {
                Ok(true) => continue,
                Ok(false) => doubt.failures = DOUBT_FAILURES_MAX,
                // The other seats do not wait longer for it.
                Err(Trouble::Node(error)) => {
                    tracing::debug!(task = %seat.0, "a seat in doubt: {error:#}");
                    let failed = u32::from(is_unreachable(&error));
                    doubt.failures = doubt.failures.saturating_add(failed);
                }
                Err(trouble) => return Err(trouble),
            }
            if doubt.failures < DOUBT_FAILURES_MAX {
                self.doubted.insert(seat, doubt);
            } else {
                self.doubted.remove(&seat);
            }
        }
        Ok(())
    }

    /// Serves a seat when the current node says that it is held; returns whether it does.
    fn serve_if_held(&mut self, seat: &SeatId) -> Result<bool, Trouble> {
        let view = self.view(&seat.0)?;
        let held = !is_lost(&view, &self.id, seat);
        if held {
            self.serve(&view, &mut BTreeSet::new())?;
        }
        Ok(held)
    }

    fn serve(&mut self, view: &TaskView, seen: &mut BTreeSet<SeatId>) -> Result<(), Trouble> {
        let task = &view.task;
        let Some(seat) = task.seats.iter().find(|seat| seat.worker == self.id) else {
            return Ok(());
        };
        let seat_id = (task.id, seat.draw);
        seen.insert(seat_id);
        let entry = self.journal.get(&seat_id).cloned();
        match (&task.phase, entry) {
            (Phase::Committing { .. }, None) if seat.commitment.is_none() => self.compute(seat_id),
            (Phase::Committing { .. }, Some(entry)) if seat.commitment.is_none() => {
                self.send_commit(seat_id, &entry)
            }
            (Phase::Revealing { .. }, Some(entry)) if seat.claim.is_none() => {
                self.send_reveal(seat_id, &entry)
            }
            (_, None) if seat.commitment.is_some() && seat.claim.is_none() => {
                tracing::warn!(task = %task.id, "this seat is committed but the journal knows nothing of it");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Starts a computation in a thread of its own, which waits for the child process.
    fn compute(&mut self, seat: SeatId) -> Result<(), Trouble> {
        if !self.computing.is_empty()
            || self.failures.get(&seat).is_some_and(|n| *n >= ATTEMPTS_MAX)
        {
            return Ok(());
        }
        let Some(job) = self.job(&seat)? else {
            // The node contradicts itself; another is asked at the next look.
            self.nodes.leave();
            return Ok(());
        };
        tracing::info!(task = %seat.0, draw = seat.1, gas_limit = %job.gas_limit, "computing");
        let (run, cancel) = self.sandbox.prepare();
        let sender = self.sender.clone();
        std::thread::Builder::new()
            .name("compute".to_owned())
            .spawn(move || {
                let entry = run.run(&job).and_then(|(claim, output)| {
                    let mut salt = [0; 32];
                    getrandom::fill(&mut salt).context("the system gave no random numbers")?;
                    Ok(Entry {
                        task: seat.0,
                        draw: seat.1,
                        salt: Hash::new(salt),
                        claim,
                        output,
                    })
                });
                // When nobody listens the worker has stopped, and the result is computed again.
                let _ = sender.send(Event::Computed(seat, Box::new(entry)));
            })
            .map_err(|error| Trouble::Node(anyhow!("no thread for a computation: {error}")))?;
        self.computing.insert(seat, cancel);
        Ok(())
    }

    /// The job of a seat; `None` when the node's answers do not fit the task's id.
    fn job(&mut self, seat: &SeatId) -> Result<Option<Job>, Trouble> {
        let ordered: TransactionView = self
            .nodes
            .call("tx_get", &json!({ "transaction": seat.0 }))?;
        let Some(Hex(encoding)) = ordered.encoding else {
            tracing::warn!(task = %seat.0, "the node does not have the order");
            return Ok(None);
        };
        let view: TaskView = self.nodes.call(
            "task_get",
            &json!({ "task": seat.0, "include_program": true }),
        )?;
        if view.task.machine_version != machine::VERSION {
            return Err(Trouble::Node(anyhow!(
                "task {} needs machine version {}, this program has {}",
                seat.0,
                view.task.machine_version,
                machine::VERSION
            )));
        }
        let program = view.program_bytes.unwrap_or_default();
        let params = self.params(view.task.submitted_at)?;
        let job = order::order(&encoding, &seat.0, &self.genesis)
            .and_then(|spec| order::job(spec, program, &params));
        match job {
            Ok(job) => Ok(Some(job)),
            Err(error) => {
                tracing::error!(task = %seat.0, "the node's answers are false: {error:#}");
                Ok(None)
            }
        }
    }

    /// The parameters for a task ordered at this height: out of the chain's genesis file, or else as the nodes
    /// tell them alike.
    fn params(&mut self, ordered_at: Height) -> Result<Params> {
        if let Some(chain) = &self.chain {
            return order::params_at(&chain.schedule, ordered_at);
        }
        self.nodes.compare_all();
        let told: Params = self.nodes.call("chain_getParams", &json!({}))?;
        let others = self
            .nodes
            .others::<Params, _>("chain_getParams", &json!({}), &Params::clone);
        let others: Vec<_> = others.into_iter().map(|(_, told)| told).collect();
        order::agreed(told, &others)
    }

    /// Ends the computations of seats that this worker does not hold any more, once that is believed;
    /// returns whether other nodes were asked.
    fn cancel_lost_seats(&mut self, seen: &BTreeSet<SeatId>) -> Result<bool, Trouble> {
        let worker = self.id;
        // There is one at a time.
        let computing: Vec<_> = self.computing.keys().copied().collect();
        for seat in computing {
            let said = Said::Lost(seat);
            if seen.contains(&seat) {
                self.nodes.not_said(said);
                continue;
            }
            // A list is a page of what one node saw a moment ago; the task itself decides.
            let view = self.view(&seat.0)?;
            let lost = move |view: &TaskView| is_lost(view, &worker, &seat);
            if !lost(&view) {
                self.nodes.not_said(said);
                continue;
            }
            let asked = json!({ "task": seat.0 });
            match self.nodes.belief(said, "task_get", &asked, &lost) {
                Belief::Open => {}
                Belief::Believed => {
                    if let Some(cancel) = self.computing.get(&seat) {
                        tracing::warn!(task = %seat.0, state = view.task.phase.name(), "the seat is lost; its computation ends");
                        cancel.cancel();
                    }
                    self.doubted.remove(&seat);
                }
                // Which of them lies is not known: none becomes or ceases to be the current one for it.
                Belief::Contradicted { by } => {
                    self.doubted.entry(seat).or_insert_with(|| {
                        tracing::warn!(task = %seat.0, "a node says that the seat is lost, another one that it is not; serving it with that one");
                        Doubt {
                            node: by,
                            failures: 0,
                        }
                    });
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn computed(&mut self, seat: SeatId, entry: Result<Entry>) -> Result<()> {
        self.computing.remove(&seat);
        match entry {
            Ok(entry) => {
                tracing::info!(task = %seat.0, gas = %entry.claim.gas, status = ?entry.claim.status, "computed");
                self.journal
                    .put(entry)
                    .context("the journal cannot be written; nothing was committed")?;
            }
            // No fault of this host: the seat may turn out to be held after all.
            Err(error) if error.is::<Cancelled>() => tracing::info!(task = %seat.0, "{error}"),
            Err(error) => {
                let failures = self.failures.entry(seat).or_default();
                *failures = failures.saturating_add(1);
                tracing::error!(task = %seat.0, attempt = *failures, "this host could not compute: {error:#}");
            }
        }
        Ok(())
    }

    fn send_commit(&mut self, seat: SeatId, entry: &Entry) -> Result<(), Trouble> {
        let commitment = entry
            .claim
            .commitment(&entry.task, entry.draw, &self.id, &entry.salt);
        self.send(seat, Statement::Commit { commitment }, Blob::default())
    }

    fn send_reveal(&mut self, seat: SeatId, entry: &Entry) -> Result<(), Trouble> {
        let statement = Statement::Reveal {
            claim: entry.claim,
            salt: entry.salt,
        };
        self.send(seat, statement, entry.output.clone())
    }

    fn send(&mut self, seat: SeatId, statement: Statement, output: Blob) -> Result<(), Trouble> {
        let is_reveal = matches!(statement, Statement::Reveal { .. });
        let recently = self
            .sent
            .get(&(seat, is_reveal))
            .is_some_and(|at| at.elapsed() < RESEND);
        if recently {
            return Ok(());
        }
        let attestation = Attestation {
            task: seat.0,
            draw: seat.1,
            worker: self.id,
            statement,
        };
        let message = AttestationMessage {
            signed: SignedAttestation {
                attestation,
                signature: self.key.sign(&attestation.sign_bytes(&self.genesis)),
            },
            output,
        };
        let bytes = Hex(codec::encode(&message));
        let sent: AttestationSent = self
            .nodes
            .call("attestation_send", &json!({ "attestation": bytes }))?;
        tracing::info!(task = %seat.0, reveal = is_reveal, id = %sent.attestation.short(), "attested");
        self.sent.insert((seat, is_reveal), Instant::now());
        Ok(())
    }

    /// Drops the journal entry of a task that has been over for [`FORGET_AFTER_BLOCKS`]; one is looked at at a
    /// time. An entry whose seat is lost stays as long as its task.
    fn forget_what_is_over(&mut self, seen: &BTreeSet<SeatId>) -> Result<(), Trouble> {
        let head = self.nodes.head();
        let due = self
            .journal
            .seats()
            .filter(|seat| !seen.contains(seat))
            .find(|seat| self.over.get(seat).is_none_or(|until| head >= *until));
        let Some(seat) = due else {
            return Ok(());
        };
        // Looked at again in a while, whatever comes of it: nothing here is urgent.
        let again = head.saturating_plus(FORGET_AFTER_BLOCKS);
        self.over.insert(seat, again);
        let view = self.view(&seat.0)?;
        let Some(ended) = ended_at(&view) else {
            self.nodes.not_said(Said::Over(seat));
            return Ok(());
        };
        let until = ended.saturating_plus(FORGET_AFTER_BLOCKS);
        if head < until {
            self.over.insert(seat, until);
            return Ok(());
        }
        let asked = json!({ "task": seat.0 });
        let is_over = |view: &TaskView| ended_at(view).is_some();
        let said = Said::Over(seat);
        match self.nodes.belief(said, "task_get", &asked, &is_over) {
            Belief::Open => {
                let again = head.saturating_plus(DOUBTED_AGAIN_BLOCKS);
                self.over.insert(seat, again);
            }
            Belief::Contradicted { .. } => {}
            Belief::Believed => {
                self.forget(&seat).map_err(Trouble::Fatal)?;
                tracing::info!(task = %seat.0, state = view.task.phase.name(), "task over");
            }
        }
        Ok(())
    }

    fn forget(&mut self, seat: &SeatId) -> Result<()> {
        self.journal.remove(seat)?;
        self.failures.remove(seat);
        self.sent.retain(|(sent, _), _| sent != seat);
        self.over.remove(seat);
        self.doubted.remove(seat);
        Ok(())
    }
}

/// Whether the node could not be asked at all, so that asking it for more is in vain.
fn is_unreachable(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<ClientError>())
        .any(|error| !matches!(error, ClientError::Rpc(_) | ClientError::Malformed { .. }))
}

/// What went wrong in a look.
enum Trouble {
    /// A node, or the way to it: try again.
    Node(anyhow::Error),
    /// This worker cannot go on.
    Fatal(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Node(error)
    }
}
