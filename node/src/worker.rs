//! A worker: a device that computes tasks. It has no privilege; it speaks JSON-RPC to any node.
//!
//! ```text
//! poll ──seat drawn──▶ compute (in a child) ──▶ journal (synced) ──▶ commit ──all committed──▶ reveal
//! ```
//!
//! The journal is written before the commitment is sent, so a worker that is killed at any moment
//! finds what it committed to and reveals it.

pub mod child;
pub mod journal;
mod nodes;
mod order;
mod pace;
pub mod self_test;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Phase, SignedAttestation, Statement,
};
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::Schedule;
use proofmill_rpc::api::{AttestationSent, Hex, TaskPage, TaskView, TransactionView};
use proofmill_rpc::client::ClientError;
use serde_json::json;

use self::child::{Cancel, Cancelled, Job, Sandbox};
use self::journal::{Entry, Journal};
pub use self::nodes::Nodes;
use self::nodes::{Belief, Said};
use self::pace::Pace;
use crate::machine;

/// How often the chain is asked for seats.
const POLL: Duration = Duration::from_millis(200);
/// How long an attestation that the chain does not show is waited for before it is sent again.
const RESEND: Duration = Duration::from_secs(1);
/// A journal entry is kept until its task has been over for so many blocks: what a node says of a
/// task is not proven, and a reveal that cannot be made costs the worker its pay.
pub const FORGET_AFTER_BLOCKS: u64 = 100;
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
            for task in self.seats_in(state)? {
                match self.serve(&task, &mut seen) {
                    Ok(()) => {}
                    // One task must not keep the others from being served.
                    Err(Trouble::Node(error)) if !is_unreachable(&error) => failed = Some(error),
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        if let Some(error) = failed {
            return Err(Trouble::Node(error));
        }
        self.cancel_lost_seats(&seen)?;
        self.forget_what_is_over(&seen)
    }

    fn seats_in(&mut self, state: &str) -> Result<Vec<Hash>, Trouble> {
        let page: TaskPage = self.nodes.call(
            "task_list",
            &json!({ "state": state, "worker": self.id, "limit": 200 }),
        )?;
        Ok(page.tasks.into_iter().map(|summary| summary.task).collect())
    }

    fn serve(&mut self, id: &Hash, seen: &mut BTreeSet<SeatId>) -> Result<(), Trouble> {
        let view: TaskView = self.nodes.call("task_get", &json!({ "task": id }))?;
        let task = view.task;
        let Some(seat) = task.seats.iter().find(|seat| seat.worker == self.id) else {
            return Ok(());
        };
        let seat_id = (*id, seat.draw);
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
                tracing::warn!(task = %id, "this seat is committed but the journal knows nothing of it");
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
        let params = self.params()?;
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

    /// The chain's parameters: out of its genesis file, or else as the nodes tell them alike.
    fn params(&mut self) -> Result<Params> {
        if let Some(chain) = &self.chain {
            let rules = chain.schedule.at(self.nodes.head().next())?;
            return Ok(rules.params().clone());
        }
        let told: Params = self.nodes.call("chain_getParams", &json!({}))?;
        let others = self
            .nodes
            .others::<Params, _>("chain_getParams", &json!({}), &Params::clone);
        order::agreed(told, &others)
    }

    /// Ends the computations of seats that this worker does not hold any more, once that is believed.
    fn cancel_lost_seats(&mut self, seen: &BTreeSet<SeatId>) -> Result<(), Trouble> {
        let worker = self.id;
        let computing: Vec<_> = self.computing.keys().copied().collect();
        for seat in computing {
            let said = Said::Lost(seat);
            if seen.contains(&seat) {
                self.nodes.not_said(said);
                continue;
            }
            // A list is a page of what one node saw a moment ago; the task itself decides.
            let asked = json!({ "task": seat.0 });
            let view: TaskView = self.nodes.call("task_get", &asked)?;
            let lost = move |view: &TaskView| is_lost(view, &worker, &seat);
            if !lost(&view) {
                self.nodes.not_said(said);
                continue;
            }
            match self.nodes.belief(said, "task_get", &asked, &lost) {
                Belief::Open => {}
                Belief::Believed => {
                    if let Some(cancel) = self.computing.get(&seat) {
                        tracing::warn!(task = %seat.0, state = view.task.phase.name(), "the seat is lost; its computation ends");
                        cancel.cancel();
                    }
                }
                Belief::Contradicted => {
                    tracing::warn!(task = %seat.0, "a node says that the seat is lost, another one that it is not; asking another");
                    self.nodes.leave();
                }
            }
        }
        Ok(())
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

    /// Drops journal entries of tasks that have been over for [`FORGET_AFTER_BLOCKS`]. An entry whose
    /// seat is lost stays as long as its task.
    fn forget_what_is_over(&mut self, seen: &BTreeSet<SeatId>) -> Result<(), Trouble> {
        let head = self.nodes.head();
        let unseen: Vec<_> = self
            .journal
            .seats()
            .filter(|seat| !seen.contains(seat))
            .filter(|seat| self.over.get(seat).is_none_or(|until| head >= *until))
            .collect();
        for seat in unseen {
            let asked = json!({ "task": seat.0 });
            let view: TaskView = self.nodes.call("task_get", &asked)?;
            // Looked at again in a while, whatever it is: nothing here is urgent.
            let mut again = head.saturating_plus(FORGET_AFTER_BLOCKS);
            if let Some(ended) = ended_at(&view) {
                let until = ended.saturating_plus(FORGET_AFTER_BLOCKS);
                if head < until {
                    again = until;
                } else {
                    let is_over = move |view: &TaskView| ended_at(view).is_some();
                    match self
                        .nodes
                        .belief(Said::Over(seat), "task_get", &asked, &is_over)
                    {
                        Belief::Open => continue,
                        Belief::Contradicted => {}
                        Belief::Believed => {
                            self.forget(&seat).map_err(Trouble::Fatal)?;
                            tracing::info!(task = %seat.0, state = view.task.phase.name(), "task over");
                            continue;
                        }
                    }
                }
            } else {
                self.nodes.not_said(Said::Over(seat));
            }
            self.over.insert(seat, again);
        }
        Ok(())
    }

    fn forget(&mut self, seat: &SeatId) -> Result<()> {
        self.journal.remove(seat)?;
        self.failures.remove(seat);
        self.sent.retain(|(sent, _), _| sent != seat);
        self.over.remove(seat);
        Ok(())
    }
}

/// Whether a node says with this that a worker does not hold a seat any more.
fn is_lost(view: &TaskView, worker: &AccountId, seat: &SeatId) -> bool {
    let mut seats = view.task.seats.iter();
    let held = seats.any(|held| held.worker == *worker && held.draw == seat.1);
    view.task.phase.is_over() || !held
}

/// The block that ended a task; `None` as long as it goes on.
const fn ended_at(view: &TaskView) -> Option<Height> {
    match &view.task.phase {
        Phase::Final { at, .. } | Phase::Expired { at, .. } | Phase::Cancelled { at } => Some(*at),
        Phase::Open | Phase::Committing { .. } | Phase::Revealing { .. } => None,
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
