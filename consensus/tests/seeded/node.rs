//! A node: engine, core and sync in one process, its disk and its clock.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use arc_malachitebft_app_channel::app::metrics::Metrics;
use arc_malachitebft_core_consensus::{Input, LivenessMsg, SignedConsensusMsg};
use arc_malachitebft_core_types::Timeout;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Height;
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_consensus::core::{
    Command, Core, CoreConfig, Event, Now, PartMessage, Ticket, Timer,
};
use proofmill_signer as signer;

use crate::block::{BLOCK_BYTES_MAX, CHAIN};
use crate::byzantine::Byzantine;
use crate::connector::{Asked, Question};
use crate::context::Chain;
use crate::disk::Disk;
use crate::engine::{Engine, Letter};
use crate::guard::{self, Guard};
use crate::observed::Observed;
use crate::random::Random;
use crate::sync::{self, Decided, Request, Sync};
use crate::undo::Undo;

/// The clock at the start of every run, milliseconds since the Unix epoch.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// What travels between nodes.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    Consensus(SignedConsensusMsg<Chain>),
    Liveness(LivenessMsg<Chain>),
    Part(PartMessage),
    Status(Height),
    Request(Request),
    Served(u64, Vec<Decided>),
}

/// To whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    All,
    Only(Vec<usize>),
}

/// What happens to one process later on.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    Elapsed(Timeout, u64),
    /// Work that the core ordered ends.
    Carry(Box<Command>),
    /// The application wants the next height.
    Paced(Height, u64),
    CoreTimer(u64),
    SyncTick,
    /// The connector is free again.
    Unheld,
}

/// The rest of the world, as one node sees it during one event.
pub(crate) struct Outside<'a> {
    /// Microseconds since the run began.
    pub(crate) now: u64,
    pub(crate) random: &'a mut Random,
    pub(crate) sends: Vec<(To, Wire)>,
    /// What happens later, with the delay in microseconds.
    pub(crate) later: Vec<(u64, Later)>,
    pub(crate) observed: &'a mut Observed,
}

/// How the process of a node ended within an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It crashed between two actions.
    Crashed,
    /// It followed without signing, and starts again in order to sign.
    Restarts,
}

pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) core: Core,
    pub(crate) sync: Sync,
    /// With the time when they were asked.
    pub(crate) questions: VecDeque<(u64, Question)>,
    /// The question that the connector waits for.
    pub(crate) awaited: Option<Ticket>,
    pub(crate) tickets: BTreeMap<Ticket, (Asked, u64)>,
    pub(crate) tickets_given: u64,
    started: u64,
    /// It does not sign until this height is committed.
    follows_until: Option<Height>,
    pub(crate) paces: u64,
    pub(crate) timers: u64,
    /// With repair 2 undone: until when the connector is held.
    pub(crate) held_until: u64,
}

pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) key: SecretKey,
    pub(crate) me: AccountId,
    pub(crate) validators: ValidatorSet,
    pub(crate) disk: Disk,
    /// What its clock is ahead of the true time, in milliseconds.
    pub(crate) clock_ahead_ms: i64,
    pub(crate) process: Option<Process>,
    /// Counts its processes, so that nothing of an earlier one reaches a later one.
    pub(crate) incarnation: u64,
    /// Crash after so many actions.
    pub(crate) fuse: Option<u64>,
    pub(crate) byzantine: Option<Byzantine>,
    pub(crate) undo: Undo,
    /// Pads its blocks to so many bytes.
    pub(crate) padding: usize,
    /// The longest wait for the next height, in microseconds.
    pub(crate) idle: u64,
    pub(crate) metrics: Rc<Metrics>,
}

impl Process {
    pub(crate) fn ask(&mut self, now: u64, question: Question) {
        self.questions.push_back((now, question));
    }

    /// What the engine has waited for the longest, and since when.
    pub(crate) fn oldest_question(&self) -> Option<(String, u64)> {
        let waiting = self.questions.front();
        let waiting = waiting.map(|(since, _)| ("the connector".to_owned(), *since));
        let open = self.tickets.values().min_by_key(|(_, since)| *since);
        let open = open.map(|(asked, since)| (format!("{asked:?}"), *since));
        waiting
            .into_iter()
            .chain(open)
            .min_by_key(|(_, since)| *since)
    }
}

impl Node {
    pub(crate) fn clock_ms(&self, now: u64) -> u64 {
        (EPOCH_MS + now / 1000).saturating_add_signed(self.clock_ahead_ms)
    }

    pub(crate) fn now(&self, process: &Process, now: u64) -> Now {
        Now {
            clock_ms: self.clock_ms(now),
            uptime_ms: (now - process.started) / 1000,
        }
    }

    /// Starts a process on what the disk holds.
    pub(crate) fn start(&mut self, out: &mut Outside<'_>) -> Option<Ended> {
        self.incarnation += 1;
        let off = self.byzantine.is_some() || self.undo.guard;
        let next = self.disk.head().next();
        self.set_log_aside(next);
        let log =
            (self.disk.log.height == next).then(|| guard::logged(&self.disk.log.entries, &self.me));
        let plan = match signer::plan(&self.disk.guard, next, Ok(log)) {
            _ if off => signer::Plan::Begin,
            Ok(plan) => plan,
            Err(error) => {
                let index = self.index;
                out.observed
                    .violation(format!("node {index} cannot start: {error}"));
                return None;
            }
        };
        out.observed.note(|| format!("starts at {next}: {plan:?}"));
        match plan {
            signer::Plan::Continue { lock: Some(_) } => out.observed.count("starts with a lock"),
            signer::Plan::Follow { .. } => out.observed.count("starts without signing"),
            _ => {}
        }
        let (lock, follows_until) = match plan {
            signer::Plan::Begin => {
                // The log of a height in which nothing was signed is of no use.
                if !off {
                    self.disk.log = crate::engine::Log::default();
                }
                (None, None)
            }
            signer::Plan::Continue { lock } => (lock, None),
            signer::Plan::Follow { until, .. } => (None, Some(until)),
        };
        if let Some(lock) = lock {
            self.disk.guard = self.disk.guard.bound_by(lock);
        }
        let guard = Guard::new(self.disk.guard.clone(), off);
        let enabled = follows_until.is_none();
        let engine = Engine::new(self.me, guard, enabled, Rc::clone(&self.metrics));
        let core = Core::new(CoreConfig {
            chain: CHAIN,
            me: self.me,
            block_bytes_max: BLOCK_BYTES_MAX,
        });
        self.process = Some(Process {
            engine,
            core,
            sync: Sync::default(),
            questions: VecDeque::from([(out.now, Question::Ready)]),
            awaited: None,
            tickets: BTreeMap::new(),
            tickets_given: 0,
            started: out.now,
            follows_until,
            paces: 0,
            timers: 0,
            held_until: 0,
        });
        let first_tick = out.random.below(sync::INTERVAL);
        out.later.push((first_tick, Later::SyncTick));
        self.run(out)
    }

    /// A log that names valid blocks which the database has lost would decide what cannot be
    /// committed.
    fn set_log_aside(&mut self, next: Height) {
        let lost = self.disk.log.entries.iter().any(|entry| match entry {
            Input::ProposedValue(value, _) if value.validity.is_valid() => {
                self.disk.block(next, &value.value.0).is_none()
            }
            _ => false,
        });
        if lost {
            self.disk.log = crate::engine::Log::default();
        }
    }

    /// Ends the process.
    pub(crate) fn crash(&mut self) {
        self.process = None;
        self.fuse = None;
    }

    /// Takes a message of another node.
    pub(crate) fn arrive(
        &mut self,
        from: usize,
        wire: Wire,
        out: &mut Outside<'_>,
    ) -> Option<Ended> {
        if let Some(byzantine) = &mut self.byzantine
            && let Wire::Part(message) = &wire
        {
            byzantine.overhear(&self.key, &self.validators, message, out);
        }
        let process = self.process.as_mut()?;
        match wire {
            Wire::Consensus(SignedConsensusMsg::Vote(vote))
            | Wire::Liveness(LivenessMsg::Vote(vote)) => process.engine.input(Input::Vote(vote)),
            Wire::Consensus(SignedConsensusMsg::Proposal(proposal)) => {
                process.engine.input(Input::Proposal(proposal));
            }
            Wire::Liveness(LivenessMsg::PolkaCertificate(certificate)) => {
                process.engine.input(Input::PolkaCertificate(certificate));
            }
            Wire::Liveness(LivenessMsg::SkipRoundCertificate(certificate)) => {
                process.engine.input(Input::RoundCertificate(certificate));
            }
            Wire::Part(message) => process.engine.post(Letter::Part(from, message)),
            Wire::Status(tip) => process.sync.tip(from, tip),
            Wire::Request(request) => self.serve(from, request, out),
            Wire::Served(number, values) => {
                process.sync.answer(from, number, values);
                self.feed(out);
            }
        }
        self.run(out)
    }

    /// Something that this process waited for.
    pub(crate) fn later(&mut self, later: Later, out: &mut Outside<'_>) -> Option<Ended> {
        let process = self.process.as_mut()?;
        match later {
            Later::Elapsed(timeout, number) => {
                process.engine.post(Letter::Elapsed(timeout, number));
            }
            Later::Carry(command) => self.carry(*command, out),
            Later::Paced(height, number) => {
                if process.paces == number {
                    self.tell(Event::NextHeightDue { height }, out);
                }
            }
            Later::CoreTimer(number) => {
                if process.timers == number {
                    self.tell(Event::TimerElapsed(Timer::EarlyBlocks), out);
                }
            }
            Later::SyncTick => {
                out.later.push((sync::INTERVAL, Later::SyncTick));
                self.announce_tip(out);
                self.feed(out);
                self.request(out);
            }
            Later::Unheld => {}
        }
        self.run(out)
    }

    /// Does everything that can be done now.
    fn run(&mut self, out: &mut Outside<'_>) -> Option<Ended> {
        loop {
            let process = self.process.as_mut()?;
            if let Some(until) = process.follows_until
                && self.disk.head() >= until
            {
                return Some(Ended::Restarts);
            }
            if process.awaited.is_none()
                && out.now >= process.held_until
                && let Some((since, question)) = process.questions.pop_front()
            {
                self.hand_out(since, question, out);
                continue;
            }
            if process.engine.blocked {
                return None;
            }
            if let Some(action) = process.engine.outbox.pop_front() {
                if let Some(fuse) = &mut self.fuse {
                    if *fuse == 0 {
                        return Some(Ended::Crashed);
                    }
                    *fuse -= 1;
                }
                self.perform(action, out);
                continue;
            }
            match process.engine.step(&mut self.disk.log) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) if error.is_divergence() => {
                    // The guard had answered with what it had signed before; its record takes the
                    // place of the log.
                    out.observed.note(|| error.to_string());
                    out.observed.count("logs set aside");
                    self.disk.log = crate::engine::Log::default();
                    return Some(Ended::Restarts);
                }
                Err(error) => {
                    if self.byzantine.is_none() {
                        let index = self.index;
                        out.observed
                            .violation(format!("node {index} stops: {error}"));
                    }
                    return Some(Ended::Crashed);
                }
            }
        }
    }
}
