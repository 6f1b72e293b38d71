//! Malachite's core state machine with the shell around it in virtual time.
//!
//! What the engine's consensus actor does between its mailbox and its neighbours is done here, step
//! by step: an input makes the state machine yield effects; the effects become [`Action`]s that the
//! node carries out in their order, so that it may crash between any two of them, and the start of
//! a round holds back everything behind it until the application has answered.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use arc_malachitebft_app_channel::app::metrics::Metrics;
use arc_malachitebft_core_consensus::{
    Effect, Error, Input, LivenessMsg, Params, Resumable, Resume, SignedConsensusMsg, State,
    process,
};
use arc_malachitebft_core_types::{
    CommitCertificate, LinearTimeouts, Round as EngineRound, ThresholdParams, Timeout, TimeoutKind,
    ValidatorSet as _, ValuePayload, ValueResponse, VoteExtensionPolicy,
};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::Record;

use crate::context::{self, Chain, ValidatorSet, round_of};
use crate::guard::Guard;
use crate::keyed;
use proofmill_consensus::core::PartMessage;

/// Inputs that the engine buffers for later heights, and how many of one height.
const QUEUE_HEIGHTS: usize = 10;
const QUEUE_PER_HEIGHT: usize = 1000;
/// Messages that wait until the engine runs; the engine's own figure.
const HELD_MAX: usize = 1024;

/// What reaches the engine.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    /// Start a height.
    Start(Height, ValidatorSet),
    /// An entry of the log.
    Replay(Box<Input<Chain>>),
    /// The log is replayed.
    Replayed,
    /// A message of a peer, a value of the application, a synced value.
    Input(Box<Input<Chain>>),
    /// A part of a block, on its way to the application.
    Part(usize, PartMessage),
    /// A timer ran out, unless it was cancelled or set anew since.
    Elapsed(Timeout, u64),
}

/// What the engine does, in this order.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    CancelAll,
    Cancel(Timeout),
    Schedule(Timeout),
    StartRound(Height, Round),
    /// Make the guard's record durable.
    Guard(Box<Record>),
    Log(Height, Box<Input<Chain>>),
    Publish(SignedConsensusMsg<Chain>),
    Liveness(LivenessMsg<Chain>),
    GetValue(Height, Round),
    Restream {
        height: Height,
        round: Round,
        pol_round: Option<Round>,
        proposer: AccountId,
        block: Hash,
    },
    Decide(CommitCertificate<Chain>),
    Finalize(Height),
    SyncedValue(Box<ValueResponse<Chain>>, AccountId),
    SyncRejected(Height),
    /// The engine runs a height: sync may feed it.
    Running,
    Part(usize, PartMessage),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Waiting,
    Running,
    Recovering,
}

/// The write-ahead log, one height at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) height: Height,
    pub(crate) entries: Vec<Input<Chain>>,
    /// Entries that a crash cannot take away.
    pub(crate) flushed: usize,
}

impl Log {
    pub(crate) fn flush(&mut self) {
        self.flushed = self.entries.len();
    }
}

/// Why an engine stops.
#[derive(Debug)]
pub(crate) struct Stopped {
    what: &'static str,
    error: Box<Error<Chain>>,
}

impl Stopped {
    /// Whether the log holds another vote than its replay derives.
    pub(crate) fn is_divergence(&self) -> bool {
        matches!(*self.error, Error::ReplayDivergence(..))
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "engine: {}: {}", self.what, self.error)
    }
}

pub(crate) struct Engine {
    me: AccountId,
    /// Whether it signs and writes the log.
    pub(crate) enabled: bool,
    pub(crate) guard: Guard,
    state: Option<State<Chain>>,
    pub(crate) phase: Phase,
    pub(crate) validator: bool,
    timeouts: LinearTimeouts,
    metrics: Rc<Metrics>,
    pub(crate) outbox: VecDeque<Action>,
    mailbox: VecDeque<Letter>,
    held: VecDeque<Letter>,
    timers: BTreeMap<(u8, u32), u64>,
    timers_given: u64,
    /// Whether a round's start waits for the application's answer.
    pub(crate) blocked: bool,
}

/// The round time-outs of every run.
pub(crate) fn timeouts() -> LinearTimeouts {
    let ms = Duration::from_millis;
    LinearTimeouts {
        propose: ms(500),
        propose_delta: ms(100),
        prevote: ms(200),
        prevote_delta: ms(50),
        precommit: ms(200),
        precommit_delta: ms(50),
        rebroadcast: ms(900),
        max_timeout: ms(5000),
    }
}

fn key_of(timeout: &Timeout) -> (u8, u32) {
    let kind = match timeout.kind {
        TimeoutKind::Propose => 0,
        TimeoutKind::Prevote => 1,
        TimeoutKind::Precommit => 2,
        TimeoutKind::Rebroadcast => 3,
        TimeoutKind::FinalizeHeight(_) => 4,
    };
    (kind, timeout.round.as_u32().unwrap_or(u32::MAX))
}

impl Engine {
    pub(crate) fn new(me: AccountId, guard: Guard, enabled: bool, metrics: Rc<Metrics>) -> Self {
        Self {
            me,
            enabled,
            guard,
            state: None,
            phase: Phase::Waiting,
            validator: false,
            timeouts: timeouts(),
            metrics,
            outbox: VecDeque::new(),
            mailbox: VecDeque::new(),
            held: VecDeque::new(),
            timers: BTreeMap::new(),
            timers_given: 0,
            blocked: false,
        }
    }

    /// The height and round that the state machine is in.
    pub(crate) fn position(&self) -> (Height, EngineRound) {
        self.state
            .as_ref()
            .map_or((Height::ZERO, EngineRound::Nil), |state| {
                (state.height().0, state.round())
            })
    }

    pub(crate) fn post(&mut self, letter: Letter) {
        self.mailbox.push_back(letter);
    }

    pub(crate) fn input(&mut self, input: Input<Chain>) {
        self.post(Letter::Input(Box::new(input)));
    }

    /// Sets a timer and returns when it runs out and its number.
    pub(crate) fn schedule(&mut self, timeout: Timeout) -> (Duration, u64) {
        self.timers_given += 1;
        self.timers.insert(key_of(&timeout), self.timers_given);
        (self.timeouts.duration_for(timeout), self.timers_given)
    }

    pub(crate) fn cancel(&mut self, timeout: &Timeout) {
        self.timers.remove(&key_of(timeout));
    }

    pub(crate) fn cancel_all(&mut self) {
        self.timers.clear();
    }

    /// Takes the next letter; false when there is none.
    pub(crate) fn step(&mut self, log: &mut Log) -> Result<bool, Stopped> {
        let Some(letter) = self.mailbox.pop_front() else {
            return Ok(false);
        };
        match letter {
            Letter::Start(height, set) => self.start(height, set, log)?,
            Letter::Replay(input) => self.process(*input, "replay")?,
            Letter::Replayed => {
                if let Some(state) = &mut self.state {
                    state.reset_entries_index();
                }
                self.run();
            }
            letter if self.phase != Phase::Running => {
                if self.held.len() < HELD_MAX {
                    self.held.push_back(letter);
                }
            }
            Letter::Input(input) => self.process(*input, "input")?,
            Letter::Part(from, message) => self.outbox.push_back(Action::Part(from, message)),
            Letter::Elapsed(timeout, number) => {
                let key = key_of(&timeout);
                if self.timers.get(&key) == Some(&number) {
                    self.timers.remove(&key);
                    self.process(Input::TimeoutElapsed(timeout), "timeout")?;
                }
            }
        }
        Ok(true)
    }

    fn start(&mut self, height: Height, set: ValidatorSet, log: &mut Log) -> Result<(), Stopped> {
        let params = Params {
            address: keyed::address(self.me),
            threshold_params: ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: self.enabled,
        };
        if self.state.is_none() {
            self.state = Some(State::new(
                Chain,
                context::Height(height),
                set.clone(),
                params,
                QUEUE_HEIGHTS,
                QUEUE_PER_HEIGHT,
            ));
        }
        let member = set.get_by_address(&keyed::address(self.me)).is_some();
        self.validator = self.enabled && member;
        // An engine that does not sign has a log of its own, which is always empty.
        if self.validator && log.height != height {
            *log = Log {
                height,
                ..Log::default()
            };
        }
        let entries = if self.validator {
            log.entries.clone()
        } else {
            Vec::new()
        };
        self.process(
            Input::StartHeight(
                context::Height(height),
                set,
                false,
                None,
                VoteExtensionPolicy::Disabled,
            ),
            "start",
        )?;
        if entries.is_empty() {
            self.run();
            return Ok(());
        }
        self.phase = Phase::Recovering;
        if let Some(state) = &mut self.state {
            state.record_recovered_own_precommit_extensions(&entries);
            state.index_wal_entries(&entries);
        }
        self.mailbox.push_front(Letter::Replayed);
        for entry in entries.into_iter().rev() {
            self.mailbox.push_front(Letter::Replay(Box::new(entry)));
        }
        Ok(())
    }

    fn run(&mut self) {
        self.phase = Phase::Running;
        self.outbox.push_back(Action::Running);
        while let Some(letter) = self.held.pop_back() {
            self.mailbox.push_front(letter);
        }
    }

    /// Feeds one input to the state machine and keeps what it wants done.
    fn process(&mut self, input: Input<Chain>, what: &'static str) -> Result<(), Stopped> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let log = self.validator && self.phase != Phase::Recovering;
        let metrics = Rc::clone(&self.metrics);
        let mut effects = Effects {
            guard: &mut self.guard,
            outbox: &mut self.outbox,
            log,
        };
        let done: Result<(), Error<Chain>> = process!(
            input: input,
            state: state,
            metrics: metrics.as_ref(),
            with: effect => Ok::<_, String>(effects.handle(effect))
        );
        done.map_err(|error| Stopped {
            what,
            error: Box::new(error),
        })
    }
}

struct Effects<'a> {
    guard: &'a mut Guard,
    outbox: &'a mut VecDeque<Action>,
    log: bool,
}

impl Effects<'_> {
    fn handle(&mut self, effect: Effect<Chain>) -> Resume<Chain> {
        if let Some(action) = self.action(&effect) {
            self.outbox.push_back(action);
            return Resume::Continue;
        }
        match effect {
            Effect::SignVote(vote, r) => {
                let (signed, record) = self.guard.vote(vote);
                self.keep(record);
                r.resume_with(signed)
            }
            Effect::SignProposal(proposal, r) => {
                let (signed, record) = self.guard.proposal(proposal);
                self.keep(record);
                r.resume_with(signed)
            }
            Effect::VerifySignature(signed, key, r) => {
                r.resume_with(keyed::verify(&signed.message, &signed.signature, &key))
            }
            Effect::VerifyCommitCertificate(certificate, set, thresholds, r) => {
                r.resume_with(keyed::verify_commit(&certificate, &set, &thresholds))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, thresholds, _, r) => {
                r.resume_with(keyed::verify_extended(&certificate, &set, &thresholds))
            }
            Effect::VerifyPolkaCertificate(certificate, set, thresholds, r) => {
                r.resume_with(keyed::verify_polka(&certificate, &set, &thresholds))
            }
            Effect::VerifyRoundCertificate(certificate, set, thresholds, r) => {
                r.resume_with(keyed::verify_round(&certificate, &set, &thresholds))
            }
            // There are no vote extensions.
            Effect::ExtendVote(.., r) => r.resume_with(None),
            Effect::VerifyVoteExtension(.., r) => r.resume_with(Ok(())),
            _ => Resume::Continue,
        }
    }

    fn keep(&mut self, record: Option<Record>) {
        let record = record.map(|record| Action::Guard(Box::new(record)));
        self.outbox.extend(record);
    }

    /// What is done later; `None` for what the state machine waits for.
    fn action(&self, effect: &Effect<Chain>) -> Option<Action> {
        Some(match effect {
            Effect::CancelAllTimeouts(_) => Action::CancelAll,
            Effect::CancelTimeout(timeout, _) => Action::Cancel(*timeout),
            Effect::ScheduleTimeout(timeout, _) => Action::Schedule(*timeout),
            Effect::StartRound(height, round, ..) => Action::StartRound(height.0, round_of(*round)),
            Effect::PublishConsensusMsg(message, _) => Action::Publish(message.clone()),
            Effect::PublishLivenessMsg(message, _) => Action::Liveness(message.clone()),
            Effect::RepublishVote(vote, _) => Action::Liveness(LivenessMsg::Vote(vote.clone())),
            Effect::RepublishRoundCertificate(certificate, _) => {
                Action::Liveness(LivenessMsg::SkipRoundCertificate(certificate.clone()))
            }
            Effect::GetValue(height, round, ..) => Action::GetValue(height.0, round_of(*round)),
            Effect::RestreamProposal(height, round, valid_round, proposer, block, _) => {
                Action::Restream {
                    height: height.0,
                    round: round_of(*round),
                    pol_round: valid_round.as_u32().map(Round::new),
                    proposer: proposer.0,
                    block: *block,
                }
            }
            Effect::Decide(certificate, ..) => Action::Decide(certificate.clone()),
            Effect::Finalize(certificate, ..) => Action::Finalize(certificate.height.0),
            Effect::CertVerifiedSyncValue(response, proposer, _) => {
                Action::SyncedValue(Box::new(response.clone()), proposer.0)
            }
            Effect::CertRejectedSyncValue(_, height, ..) => Action::SyncRejected(height.0),
            Effect::WalAppend(height, input, _) if self.log => {
                Action::Log(height.0, Box::new(input.clone()))
            }
            _ => return None,
        })
    }
}
