//! What the adapter decides, without doing anything: events and the time go in, commands come out.
//!
//! ```text
//! engine, network, disk, timers ──Event──▶ Core::handle(now) ──Command──▶ engine, network, disk, timers
//! ```
//!
//! The core never waits, reads no clock, draws no random number and starts no task. Whoever drives
//! it carries out each [`Command`] and returns the result as an [`Event`]; the order in which results
//! return is free. `crate::adapter` drives it with the real engine, `consensus/tests` drive several
//! of them together in virtual time. `node/tests/layering.rs` keeps it free of effects.
//!
//! # The way of a proposed block
//!
//! ```text
//! parts ─▶ announcement: size, height, round, turn, signature      before anything is kept
//!       ─▶ each part has the hash that was announced for it         a mismatch is the sender's fault
//!       ─▶ whole block ─Inspect─▶ bytes have the announced hash     a mismatch is the proposer's fault
//!       ─▶ held until its parent is committed, its round has begun and its time has come
//!       ─Judge─▶ verdict, kept under the hash that the bytes have
//!       ─Store─▶ durable ─HandOver─▶ engine
//! ```
//!
//! # Invariants
//!
//! - Nothing is recorded about a hash unless the bytes were found to have it.
//! - A value reaches the engine only once the round in which its header was built has begun here.
//! - No answer to the engine waits for a clock.
//! - Every collection has a named limit.

mod announced;
mod api;
mod decide;
mod offenders;
mod part;
mod proposals;
mod propose;
mod receive;
mod skew;
mod streams;
mod sync;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use self::announced::Announced;
pub use self::announced::{ANNOUNCEMENTS_AHEAD_MAX, ANNOUNCEMENTS_PER_TURN_MAX};
pub use self::api::{
    Answer, BlockFacts, Command, Event, Job, Loaded, Now, Peer, Proposed, Stored, SyncOutcome,
    Ticket, Timer, Verdict,
};
pub use self::offenders::OFFENDERS_PER_HEIGHT_MAX;
use self::offenders::Offenders;
pub use self::part::{
    Announcement, PART_BYTES, PARTS_MAX, Part, PartMessage, announcement_bytes, parts_root, split,
};
pub use self::proposals::BLOCKS_IN_MEMORY_MAX;
use self::proposals::{Proposals, Turn};
pub use self::receive::{
    CLOCK_DRIFT_MS_MAX, HEIGHTS_AHEAD_MAX, INSPECTIONS_MAX, INSPECTIONS_PER_VALIDATOR_MAX,
    JUDGING_MAX, ROUNDS_AHEAD_MAX,
};
use self::skew::Clocks;
use self::streams::Streams;
pub use self::streams::{
    CLOSED_MAX, COLLECTED_BLOCKS_MAX, COLLECTED_PER_VALIDATOR_MAX, STREAMS_MAX,
    STREAMS_PER_VALIDATOR_MAX, UNCLAIMED_MAX, UNCLAIMED_PER_NEIGHBOUR_MAX,
};
pub use self::sync::SYNCED_MAX;
use self::sync::Synced;
use self::waiting::Waiting;
pub use self::waiting::{WAITING_BLOCKS_MAX, WAITING_PER_VALIDATOR_MAX};

/// What a core needs to know beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Genesis hash, which every signature covers.
    pub chain: Hash,
    /// This node's validator key.
    pub me: AccountId,
    /// No block is longer than this.
    pub block_bytes_max: usize,
}

/// Work under way, by the job that its result names.
#[derive(Debug)]
enum Work {
    /// Which block was announced?
    InspectProposal {
        announcement: Announcement,
        signature: Signature,
        bytes: Arc<[u8]>,
    },
    /// Is a waiting block valid?
    JudgeProposal {
        height: Height,
        block: Hash,
    },
    /// A waiting block was valid.
    StoreProposal {
        height: Height,
        block: Hash,
    },
    /// Our own block, signed.
    StoreOwn {
        announcement: Announcement,
        signature: Signature,
        bytes: Arc<[u8]>,
    },
    InspectSynced(Synced),
    JudgeSynced(Synced, BlockFacts),
    StoreSynced(Synced, BlockFacts),
    /// The decided block.
    ReadDecided(Certificate),
    /// A block to send, under an announcement that is signed or not yet.
    ReadToPublish(Announcement, Option<Signature>),
}

impl Work {
    /// Bytes of a block that nothing but this work keeps, when another node sent it.
    fn bytes_held(&self) -> usize {
        match self {
            Self::InspectProposal { bytes, .. } => bytes.len(),
            Self::InspectSynced(synced)
            | Self::JudgeSynced(synced, _)
            | Self::StoreSynced(synced, _) => synced.bytes.len(),
            Self::JudgeProposal { .. }
            | Self::StoreProposal { .. }
            | Self::StoreOwn { .. }
            | Self::ReadDecided(_)
            | Self::ReadToPublish(..) => 0,
        }
    }
}

/// Why an announcement is being signed.
#[derive(Debug)]
enum ToSign {
    /// It is the first of our own new block.
    Propose(Arc<[u8]>),
    /// The block is known and proposed once more.
    Repeat(Arc<[u8]>),
}

/// The adapter's decisions. See the module's documentation.
pub struct Core {
    config: CoreConfig,
    now: Now,
    out: Vec<Command>,
    jobs: BTreeMap<Job, Work>,
    jobs_given: u64,
    /// Whether the head is known; nothing is taken before.
    started: bool,
    ready: Option<Ticket>,
    /// Highest height that the engine decided.
    decided: Height,
    /// Highest height that the application made final.
    committed: Height,
    /// Highest height whose block came by sync.
    synced: Height,
    /// The height and round that the engine has begun.
    position: (Height, Round),
    /// The validators of the committed height and of its successor.
    validators: BTreeMap<Height, ValidatorSet>,
    streams: Streams,
    announced: Announced,
    offenders: Offenders,
    waiting: Waiting,
    proposals: Proposals,
    clocks: Clocks,
    /// Turns for which the engine waits for our block.
    wanted: BTreeMap<(Height, Round), Ticket>,
    signing: BTreeMap<Announcement, ToSign>,
    /// The decision that is being committed.
    committing: Option<Ticket>,
    /// The height after which the engine wants to go on.
    finalized: Option<(Ticket, Height)>,
    /// Whether the application was asked when the next height is due.
    pacing: bool,
    /// Synced blocks whose parent is not committed.
    synced_waiting: Vec<Synced>,
}

impl Core {
    /// A core that waits for the engine.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        let block_bytes_max = config.block_bytes_max;
        Self {
            config,
            now: Now::default(),
            out: Vec::new(),
            jobs: BTreeMap::new(),
            jobs_given: 0,
            started: false,
            ready: None,
            decided: Height::ZERO,
            committed: Height::ZERO,
            synced: Height::ZERO,
            position: (Height::ZERO, Round::default()),
            validators: BTreeMap::new(),
            streams: Streams::new(block_bytes_max),
            announced: Announced::default(),
            offenders: Offenders::default(),
            waiting: Waiting::new(block_bytes_max),
            proposals: Proposals::default(),
            clocks: Clocks::default(),
            wanted: BTreeMap::new(),
            signing: BTreeMap::new(),
            committing: None,
            finalized: None,
            pacing: false,
            synced_waiting: Vec::new(),
        }
    }

    /// Takes an event and returns what is to be done, in this order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Command> {
        self.now = now;
        match event {
            Event::EngineReady { ticket } => self.engine_ready(ticket),
            Event::RoundStarted {
                ticket,
                height,
                round,
            } => self.round_started(ticket, height, round),
            Event::ValueWanted {
                ticket,
                height,
                round,
            } => self.value_wanted(ticket, height, round),
            Event::PartReceived {
                from,
                publisher,
                message,
            } => self.part_received(&from, &publisher, message),
            Event::RestreamWanted {
                height,
                round,
                pol_round,
                proposer,
                block,
            } => self.restream(height, round, pol_round, proposer, block),
            Event::Decided {
                ticket,
                certificate,
            } => self.decided(ticket, certificate),
            Event::Finalized { ticket, height } => self.finalized(ticket, height),
            Event::SyncedValue {
                ticket,
                height,
                round,
                proposer,
                block,
                bytes,
            } => self.synced_value(Synced {
                ticket,
                height,
                round,
                proposer,
                block,
                bytes,
            }),
            Event::Loaded(loaded) => self.loaded(loaded),
            Event::Inspected { job, facts } => self.inspected(job, facts),
            Event::Judged { job, verdict } => self.judged(job, &verdict),
            Event::Built {
                height,
                round,
                block,
            } => self.built(height, round, block),
            Event::Signed {
                announcement,
                signature,
            } => self.signed(&announcement, signature),
            Event::Stored { job, result } => self.stored(job, result.is_ok()),
            Event::BlockRead { job, bytes } => self.block_read(job, bytes),
            Event::Committed { height, validators } => self.commit_ended(height, validators),
            Event::NextHeightDue { height } => self.next_height_due(height),
            Event::TimerElapsed(Timer::EarlyBlocks) => self.judge_ready(),
        }
        std::mem::take(&mut self.out)
    }

    /// The height and round that the engine has begun.
    #[must_use]
    pub const fn position(&self) -> (Height, Round) {
        self.position
    }

    /// What the other validators' clocks say, less this machine's clock, in milliseconds: positive
    /// when this clock is behind. `None` until validators of more than two thirds of the power
    /// are known by recent blocks.
    #[must_use]
    pub fn clocks_ahead_ms(&self, now: Now) -> Option<i64> {
        let (_, validators) = self.validators.last_key_value()?;
        self.clocks.ahead_of_us_ms(&self.config.me, validators, now)
    }

    /// Bytes of others' blocks that are being collected or inspected, wait, are kept in memory or came
    /// by sync.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let at_work = self.jobs.values().map(Work::bytes_held);
        let synced = self.synced_waiting.iter().map(|synced| synced.bytes.len());
        self.streams.held()
            + self.waiting.bytes()
            + self.proposals.bytes()
            + at_work.chain(synced).sum::<usize>()
    }

    fn order(&mut self, command: Command) {
        self.out.push(command);
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.order(Command::Answer { ticket, answer });
    }

    fn fail(&mut self, reason: String) {
        self.order(Command::Fail { reason });
    }

    fn begin(&mut self, work: Work) -> Job {
        self.jobs_given += 1;
        let job = Job(self.jobs_given);
        self.jobs.insert(job, work);
        job
    }

    /// The round of a height that the engine has begun, the first one before it has.
    fn round_of(&self, height: Height) -> Round {
        let (at, round) = self.position;
        if at == height {
            round
        } else {
            Round::default()
        }
    }

    /// Gives the engine what it may have in the round that it is in.
    fn hand_over(&mut self) {
        let (height, round) = self.position;
        if height <= self.decided {
            return;
        }
        for proposed in self.proposals.deliver(height, round) {
            self.order(Command::HandOver(proposed));
        }
    }

    fn engine_ready(&mut self, ticket: Ticket) {
        self.ready = Some(ticket);
        self.order(Command::Load);
    }

    fn loaded(&mut self, loaded: Result<Loaded, String>) {
        let Loaded {
            head,
            validators,
            stored,
        } = match loaded {
            Ok(loaded) => loaded,
            Err(reason) => return self.fail(reason),
        };
        self.decided = head;
        self.committed = head;
        self.validators.insert(head.next(), validators.clone());
        for Stored { proposal, facts } in stored {
            // A block that has another name than it was stored under helps nobody.
            let Ok(facts) = facts else { continue };
            if facts.hash != proposal.hash || facts.turn.height != proposal.height {
                continue;
            }
            self.record(&proposal, &facts, false);
        }
        self.started = true;
        if let Some(ticket) = self.ready.take() {
            let height = head.next();
            self.answer(ticket, Answer::Start { height, validators });
        }
    }

    /// Records a proposal that is on the disk.
    fn record(
        &mut self,
        proposal: &crate::undecided::UndecidedProposal,
        facts: &BlockFacts,
        delivered: bool,
    ) {
        let verdict = proposal.valid.then_some(());
        let verdict = verdict.ok_or_else(|| "it is stored as invalid".to_owned());
        self.proposals.judged(facts, verdict);
        let bytes = Arc::clone(&proposal.bytes);
        self.proposals.keep(proposal.height, proposal.hash, bytes);
        let announcement = Announcement {
            height: proposal.height,
            round: proposal.round,
            pol_round: proposal.pol_round,
            proposer: proposal.proposer,
            block: proposal.hash,
            size: 0,
            parts: Hash::ZERO,
        };
        let turn = Turn::new(&announcement, proposal.signature);
        let turn = if delivered { turn.delivered() } else { turn };
        self.proposals.proposed(proposal.height, turn);
    }

    fn round_started(&mut self, ticket: Ticket, height: Height, round: Round) {
        self.position = (height, round);
        let proposed = self.proposals.deliver(height, round);
        self.answer(ticket, Answer::Proposals(proposed));
        self.judge_ready();
    }

    fn stored(&mut self, job: Job, stored: bool) {
        match self.jobs.remove(&job) {
            Some(Work::StoreProposal { height, block }) => {
                self.proposal_stored(height, &block, stored);
            }
            Some(Work::StoreOwn {
                announcement,
                signature,
                bytes,
            }) => self.own_stored(&announcement, signature, bytes, stored),
            Some(Work::StoreSynced(synced, facts)) => {
                self.synced_stored(&synced, &facts, stored);
            }
            _ => {}
        }
    }

    fn inspected(&mut self, job: Job, facts: Result<BlockFacts, String>) {
        match self.jobs.remove(&job) {
            Some(Work::InspectProposal {
                announcement,
                signature,
                bytes,
            }) => self.proposal_inspected(announcement, signature, bytes, facts),
            Some(Work::InspectSynced(synced)) => self.synced_inspected(synced, facts),
            _ => {}
        }
    }

    fn judged(&mut self, job: Job, verdict: &Verdict) {
        match self.jobs.remove(&job) {
            Some(Work::JudgeProposal { height, block }) => {
                self.proposal_judged(height, &block, verdict);
            }
            Some(Work::JudgeSynced(synced, facts)) => self.synced_judged(synced, facts, verdict),
            _ => {}
        }
    }
}
