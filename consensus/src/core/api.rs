//! What goes into the core and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use proofmill_chain::finality::Turn;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use super::part::{Announcement, PartMessage};
use crate::undecided::UndecidedProposal;

/// The time of an event. The core knows no other clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The machine's clock, milliseconds since the Unix epoch. It may jump in either direction.
    pub clock_ms: u64,
    /// Milliseconds since some fixed moment of this process. It never runs backwards.
    pub uptime_ms: u64,
}

/// Names a request of the engine that waits for an [`Answer`]. Chosen by the driver, unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names a piece of work that the core has ordered. Chosen by the core, unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job(pub u64);

/// The bytes of a peer's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(pub Arc<[u8]>);

/// What can be read off a block's bytes without the state, once they are known to be exactly the
/// bytes that the hash names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// The block's hash.
    pub hash: Hash,
    /// Height, round and proposer by its header.
    pub turn: Turn,
    /// The header's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// A proposal as the engine learns of it: a hash with the verdict on the block that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its height.
    pub height: Height,
    /// The round in which it is proposed.
    pub round: Round,
    /// The round of its proof of lock, when it is proposed again.
    pub pol_round: Option<Round>,
    /// Who proposes it in that round.
    pub proposer: AccountId,
    /// The block's hash.
    pub block: Hash,
    /// Whether the block is valid.
    pub valid: bool,
}

/// What the application says of a block whose bytes have the hash in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid against the head.
    Valid,
    /// The proposer's fault: it is voted against.
    Invalid {
        /// Which rule it breaks.
        reason: String,
    },
    /// Our own trouble: no vote is cast on it, and it may be judged again.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A proposal of the disk, with what its bytes turn out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What was stored.
    pub proposal: UndecidedProposal,
    /// The facts of its bytes, or why they are no block.
    pub facts: Result<BlockFacts, String>,
}

/// The application's state at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Last committed height.
    pub head: Height,
    /// The validators of the height after it.
    pub validators: ValidatorSet,
    /// The proposals stored for that height.
    pub stored: Vec<Stored>,
}

/// What happened. Events of the engine come first, results of commands after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The engine asks where to start. Answer: [`Answer::Start`].
    EngineReady {
        /// Whom to answer.
        ticket: Ticket,
    },
    /// The engine began a round. Answer, at once: [`Answer::Proposals`].
    RoundStarted {
        /// Whom to answer.
        ticket: Ticket,
        /// The height.
        height: Height,
        /// The round.
        round: Round,
    },
    /// It is this node's turn to propose. Answer: [`Answer::Value`] or [`Answer::Nothing`].
    ValueWanted {
        /// Whom to answer.
        ticket: Ticket,
        /// The height.
        height: Height,
        /// The round.
        round: Round,
    },
    /// A part of a proposed block. It needs no answer: the driver tells the engine at once that
    /// the part completes nothing, and values travel by [`Command::HandOver`].
    PartReceived {
        /// The neighbour that delivered it, over a connection to this node.
        from: Peer,
        /// Who made and signed the network message; the neighbour that passed it on is innocent.
        publisher: Peer,
        /// The part.
        message: PartMessage,
    },
    /// The engine wants a proposal's parts to be sent (again).
    RestreamWanted {
        /// The height.
        height: Height,
        /// The round of the proposal.
        round: Round,
        /// The round of its proof of lock.
        pol_round: Option<Round>,
        /// Who proposes it.
        proposer: AccountId,
        /// The block's hash.
        block: Hash,
    },
    /// The engine decided. Answer, once the block is durable: [`Answer::Committed`].
    Decided {
        /// Whom to answer.
        ticket: Ticket,
        /// Why.
        certificate: Certificate,
    },
    /// The engine asks for the next height. Answer, when it is due: [`Answer::Start`].
    Finalized {
        /// Whom to answer.
        ticket: Ticket,
        /// The height that was decided.
        height: Height,
    },
    /// A peer sent a block of which it says that it was decided; the engine verified the
    /// certificate. Answer: [`Answer::Synced`].
    SyncedValue {
        /// Whom to answer.
        ticket: Ticket,
        /// The certificate's height.
        height: Height,
        /// The certificate's round.
        round: Round,
        /// The proposer of that round.
        proposer: AccountId,
        /// The hash that the certificate names.
        block: Hash,
        /// The block that has it, the peer says.
        bytes: Arc<[u8]>,
    },

    /// Result of [`Command::Load`].
    Loaded(Result<Loaded, String>),
    /// Result of [`Command::Inspect`]: the facts, or why the bytes are not those of any hash. Every
    /// error is the fault of whoever announced or, after a decision, sent the bytes.
    Inspected {
        /// Which.
        job: Job,
        /// The outcome.
        facts: Result<BlockFacts, String>,
    },
    /// Result of [`Command::Judge`].
    Judged {
        /// Which.
        job: Job,
        /// The outcome.
        verdict: Verdict,
    },
    /// Result of [`Command::Build`]: the block's hash and bytes.
    Built {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The outcome.
        block: Result<(Hash, Arc<[u8]>), String>,
    },
    /// Result of [`Command::Sign`]; `None` when the signer refuses.
    Signed {
        /// What was to be signed.
        announcement: Announcement,
        /// The signature over [`super::announcement_bytes`].
        signature: Option<Signature>,
    },
    /// Result of [`Command::Store`].
    Stored {
        /// Which.
        job: Job,
        /// The outcome.
        result: Result<(), String>,
    },
    /// Result of [`Command::ReadBlock`]; `None` when it is not stored.
    BlockRead {
        /// Which.
        job: Job,
        /// The outcome.
        bytes: Result<Option<Arc<[u8]>>, String>,
    },
    /// Result of [`Command::Commit`]: the validators of the next height.
    Committed {
        /// The height committed.
        height: Height,
        /// The outcome.
        validators: Result<ValidatorSet, String>,
    },
    /// Result of [`Command::AwaitNextHeight`]: the application wants it to start.
    NextHeightDue {
        /// The next height.
        height: Height,
    },
    /// A timer set by [`Command::SetTimer`] ran out.
    TimerElapsed(Timer),
}

/// What is to be done. Commands of one event are carried out in their order; whatever takes time
/// is started and returns its result as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answers a request of the engine. Each ticket is answered exactly once.
    Answer {
        /// Which.
        ticket: Ticket,
        /// With what.
        answer: Answer,
    },
    /// Gives the engine a proposal, as if the last of its parts had just come. Malachite's input
    /// for it is `ProposedValue(value, ValueOrigin::Consensus)`.
    HandOver(Proposed),
    /// Reads the head, the validators of the next height and the proposals stored for it.
    Load,
    /// Finds out which block the bytes are: decodes and hashes all of them, and verifies the
    /// proposer's signature over the hash. Needs no state.
    Inspect {
        /// Names the result.
        job: Job,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// Judges a block against the head, which is its parent's height. There is no rule about
    /// the local clock in this: the core has applied it where it applies.
    Judge {
        /// Names the result.
        job: Job,
        /// The height.
        height: Height,
        /// The round in which it is proposed or was decided.
        round: Round,
        /// Its hash, verified.
        block: Hash,
        /// The block.
        bytes: Arc<[u8]>,
    },
    /// Builds this node's block on the head.
    Build {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
    },
    /// Signs an announcement with the validator's key.
    Sign {
        /// Which.
        announcement: Announcement,
    },
    /// Stores a proposal durably.
    Store {
        /// Names the result.
        job: Job,
        /// Which.
        proposal: UndecidedProposal,
    },
    /// Reads a stored block back.
    ReadBlock {
        /// Names the result.
        job: Job,
        /// Its height.
        height: Height,
        /// Its hash.
        block: Hash,
    },
    /// Sends a block to the other validators: its announcement, then its parts.
    Publish {
        /// The announcement.
        announcement: Announcement,
        /// Its signature.
        signature: Signature,
        /// The block.
        bytes: Arc<[u8]>,
    },
    /// Makes a block final and durable.
    Commit {
        /// Why it is final.
        certificate: Certificate,
        /// The block.
        bytes: Arc<[u8]>,
    },
    /// Waits until the application wants the next height to start. At most one wait is under way.
    AwaitNextHeight {
        /// The next height.
        height: Height,
    },
    /// Ends that wait.
    StopWaiting,
    /// Sets a timer; one that is set again is replaced.
    SetTimer {
        /// Which.
        timer: Timer,
        /// When it runs out, from now.
        after: Duration,
    },
    /// A peer sent what no honest one sends. Its further streams of that height are refused.
    Penalise {
        /// Who.
        peer: Peer,
        /// At which height.
        height: Height,
        /// What it did.
        reason: String,
    },
    /// A validator signed an announcement that its own parts contradict. Nothing more is taken under
    /// that announcement; its sender is innocent.
    Accuse {
        /// Who.
        validator: AccountId,
        /// At which height.
        height: Height,
        /// What is wrong with what it announced.
        reason: String,
    },
    /// A block has the hash that a certificate names and is invalid by this node's rules: no peer is to
    /// blame, and consensus cannot go on.
    Disagree {
        /// Its height.
        height: Height,
        /// Its hash, verified and certified.
        block: Hash,
        /// The block.
        bytes: Arc<[u8]>,
        /// Which rule it breaks here.
        reason: String,
    },
    /// Consensus cannot go on.
    Fail {
        /// Why.
        reason: String,
    },
}

/// An answer to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Start this height.
    Start {
        /// Which.
        height: Height,
        /// Its validators.
        validators: ValidatorSet,
    },
    /// The proposals of the height that the engine has not got and may have in this round.
    Proposals(Vec<Proposed>),
    /// Our proposal.
    Value {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The block's hash.
        block: Hash,
    },
    /// The decided block is durable.
    Committed,
    /// What became of a synced value.
    Synced(SyncOutcome),
    /// There is no answer: the request is dropped, and the engine goes on by its time-outs.
    Nothing,
}

/// What became of a synced value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// It is valid.
    Valid(Proposed),
    /// Whoever sent it sent something else than what was decided: the bytes do not have the hash that
    /// the certificate names.
    PeerFault,
    /// It could not be judged; another attempt may succeed.
    OurFault,
}

/// The core's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A block from the future may be due.
    EarlyBlocks,
}
