//! Tasks, as callers see them: where one stands, what it waits for, who was paid.

use std::fmt;
use std::str::FromStr;

use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::task::{Moment, Phase, ResultStatus, Seat, Settlement, Task};
use proofmill_chain::types::units::{Amount, Gas, Height};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a task's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for its workers.
    Open,
    /// Its workers compute and commit.
    Committing,
    /// Its workers open their results.
    Revealing,
    /// It has its result.
    Final,
    /// It ended without a result.
    Expired,
    /// The requester took it back.
    Cancelled,
}

impl From<&Phase> for TaskState {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Open => Self::Open,
            Phase::Committing { .. } => Self::Committing,
            Phase::Revealing { .. } => Self::Revealing,
            Phase::Final { .. } => Self::Final,
            Phase::Expired { .. } => Self::Expired,
            Phase::Cancelled { .. } => Self::Cancelled,
        }
    }
}

/// What to send along with a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// The input's bytes.
    pub input: bool,
    /// The program's bytes.
    pub program: bool,
}

/// What a task's view needs beside the task itself; the node knows it from the chain's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskContext {
    /// The last final height.
    pub head: Height,
    /// The first height whose block may draw the task's workers.
    pub first_draw: Height,
    /// Whether a block has tried to draw them, and found too few.
    pub drawn_in_vain: bool,
    /// Length of the commit window: blocks, and milliseconds of protocol time.
    pub commit_window: (u64, u64),
    /// Length of the reveal window: blocks, and milliseconds of protocol time.
    pub reveal_window: (u64, u64),
    /// The account that got the validators' part, when the task is final.
    pub validators_account: Option<AccountId>,
    /// The escrow that went back to the requester, when the task expired or was cancelled.
    pub escrow_returned: Amount,
    /// The input's bytes, when they were asked for.
    pub input_bytes: Option<Blob>,
    /// The program's bytes, when they were asked for.
    pub program_bytes: Option<Blob>,
}

/// The kind of thing a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// The block whose randomness draws the workers.
    Draw,
    /// Eligible workers.
    Workers,
    /// Commitments.
    Commits,
    /// Reveals.
    Reveals,
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The kind.
    #[serde(rename = "for")]
    pub what: WaitingFor,
    /// The same for people.
    pub reason: String,
    /// How many there are: workers, commitments or reveals.
    pub have: u32,
    /// How many it takes.
    pub need: u32,
}

/// How far a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeatStep {
    /// The worker computes.
    Computing,
    /// It has committed.
    Committed,
    /// It has revealed.
    Revealed,
}

/// A seat's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatProgress {
    /// The draw that gave the seat.
    pub draw: u8,
    /// The worker.
    pub worker: AccountId,
    /// How far it is.
    pub step: SeatStep,
    /// Its next step is late once both the height and the protocol time have passed; null when
    /// nothing is due.
    pub due: Option<Moment>,
}

/// Why somebody was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// For computing.
    Worker,
    /// For validating.
    Validators,
    /// What was not used.
    Requester,
    /// Destroyed.
    Burned,
}

/// A part of the escrow and where it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// To whom; null for what was burned.
    pub account: Option<AccountId>,
    /// How much.
    pub amount: Amount,
    /// Why.
    pub role: Role,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// What the state keeps of it.
    #[serde(flatten)]
    pub task: Task,
    /// The name of its phase.
    pub state: TaskState,
    /// What it waits for; null when it is over.
    pub waiting: Option<Waiting>,
    /// How far each seat is.
    pub progress: Vec<SeatProgress>,
    /// Where the escrow went; empty while the task is under way.
    pub paid: Vec<Payment>,
    /// The input's bytes, when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<Blob>,
    /// The program's bytes, when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_bytes: Option<Blob>,
}

impl TaskView {
    /// The view of `task`.
    #[must_use]
    pub fn of(task: Task, context: TaskContext) -> Self {
        Self {
            state: (&task.phase).into(),
            waiting: waiting(&task, &context),
            progress: progress(&task, &context),
            paid: paid(&task, &context),
            input_bytes: context.input_bytes,
            program_bytes: context.program_bytes,
            task,
        }
    }
}

fn count(seats: usize) -> u32 {
    u32::try_from(seats).unwrap_or(u32::MAX)
}

fn waiting(task: &Task, context: &TaskContext) -> Option<Waiting> {
    let need = u32::from(task.mode.seats());
    let seated = count(task.seats.len());
    let committed = count(task.seats.iter().filter(|s| s.commitment.is_some()).count());
    let revealed = count(task.seats.iter().filter(|s| s.claim.is_some()).count());
    let (what, have, need, reason) = match task.phase {
        // A block draws for so many seats and no more: the head may be past the first draw.
        Phase::Open if !context.drawn_in_vain => (
            WaitingFor::Draw,
            seated,
            need,
            format!(
                "its workers are drawn in block {} at the earliest; the head is {}",
                context.first_draw.max(context.head.next()),
                context.head
            ),
        ),
        Phase::Open => (
            WaitingFor::Workers,
            task.eligible_last,
            need,
            format!(
                "{need} eligible workers are needed, the last draw found {}; it expires after block {}",
                task.eligible_last, task.wait_until
            ),
        ),
        Phase::Committing { .. } if seated < need => (
            WaitingFor::Workers,
            seated,
            need,
            format!("{} of {need} seats wait to be drawn again", need - seated),
        ),
        Phase::Committing { .. } => (
            WaitingFor::Commits,
            committed,
            need,
            format!("{committed} of {need} workers have committed"),
        ),
        Phase::Revealing { .. } => (
            WaitingFor::Reveals,
            revealed,
            committed,
            format!("{revealed} of {committed} workers have revealed"),
        ),
        Phase::Final { .. } | Phase::Expired { .. } | Phase::Cancelled { .. } => return None,
    };
    Some(Waiting {
        what,
        reason,
        have,
        need,
    })
}

fn progress(task: &Task, context: &TaskContext) -> Vec<SeatProgress> {
    let after = |start: Moment, (blocks, ms): (u64, u64)| Moment {
        height: start.height.saturating_plus(blocks),
        time_ms: start.time_ms.saturating_add(ms),
    };
    let of = |seat: &Seat| {
        let step = match (seat.commitment, seat.claim) {
            (_, Some(_)) => SeatStep::Revealed,
            (Some(_), None) => SeatStep::Committed,
            (None, None) => SeatStep::Computing,
        };
        let due = match (&task.phase, step) {
            (Phase::Committing { .. }, SeatStep::Computing) => {
                Some(after(seat.drawn, context.commit_window))
            }
            (Phase::Revealing { since }, SeatStep::Committed) => {
                Some(after(*since, context.reveal_window))
            }
            _ => None,
        };
        SeatProgress {
            draw: seat.draw,
            worker: seat.worker,
            step,
            due,
        }
    };
    task.seats.iter().map(of).collect()
}

fn paid(task: &Task, context: &TaskContext) -> Vec<Payment> {
    let pay = |account, amount, role| Payment {
        account,
        amount,
        role,
    };
    let requester = Some(task.requester);
    match &task.phase {
        Phase::Final { settlement, .. } => {
            let worker = |seat: &Seat| pay(Some(seat.operator), settlement.per_seat, Role::Worker);
            let mut paid: Vec<_> = task.seats.iter().map(worker).collect();
            paid.push(pay(
                context.validators_account,
                settlement.validators,
                Role::Validators,
            ));
            paid.push(pay(requester, settlement.refunded, Role::Requester));
            paid.push(pay(None, settlement.burned, Role::Burned));
            paid
        }
        Phase::Expired { .. } | Phase::Cancelled { .. } => {
            vec![pay(requester, context.escrow_returned, Role::Requester)]
        }
        Phase::Open | Phase::Committing { .. } | Phase::Revealing { .. } => Vec::new(),
    }
}

/// A task in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// The task.
    pub task: Hash,
    /// The name of its phase.
    pub state: TaskState,
    /// Who ordered it.
    pub requester: AccountId,
    /// The program.
    pub program: Hash,
    /// The most gas one execution may use.
    pub gas_limit: Gas,
    /// Pay in grain per million gas and seat.
    pub price_per_mgas: Amount,
    /// How many workers it takes.
    pub replicas: u8,
    /// The workers it has.
    pub workers: Vec<AccountId>,
    /// The block that submitted it.
    pub submitted_at: Height,
    /// Its transaction's index in that block.
    pub index: u32,
}

impl From<&Task> for TaskSummary {
    fn from(task: &Task) -> Self {
        Self {
            task: task.id,
            state: (&task.phase).into(),
            requester: task.requester,
            program: task.program,
            gas_limit: task.gas_limit,
            price_per_mgas: task.price_per_mgas,
            replicas: task.mode.seats(),
            workers: task.seats.iter().map(|seat| seat.worker).collect(),
            submitted_at: task.submitted_at,
            index: task.index,
        }
    }
}

/// A place in the list of all tasks: height and index of submission, as `12-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskCursor {
    /// The block that submitted the task.
    pub height: Height,
    /// Its transaction's index in that block.
    pub index: u32,
}

impl fmt::Display for TaskCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.height, self.index)
    }
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: a height, a hyphen and an index are expected")]
pub struct CursorError;

impl FromStr for TaskCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (height, index) = text.split_once('-').ok_or(CursorError)?;
        let cursor = Self {
            height: height.parse().map_err(|_| CursorError)?,
            index: index.parse().map_err(|_| CursorError)?,
        };
        // Signs and leading zeros are not canonical.
        (cursor.to_string() == text)
            .then_some(cursor)
            .ok_or(CursorError)
    }
}

impl Serialize for TaskCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Which tasks to list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only tasks in this state.
    pub state: Option<TaskState>,
    /// Only tasks of this requester.
    pub requester: Option<AccountId>,
    /// Only tasks in which this worker has a seat.
    pub worker: Option<AccountId>,
    /// Most tasks, from 1 to [`LIST_MAX`](crate::api::LIST_MAX).
    pub limit: u32,
    /// Only tasks older than this place.
    pub before: Option<TaskCursor>,
}

/// Tasks, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// What to give as `before` for the next page; null on the last.
    pub next: Option<TaskCursor>,
}

/// A task's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task.
    pub task: Hash,
    /// The block that settled it.
    pub height: Height,
    /// How the execution ended.
    pub status: ResultStatus,
    /// The output; empty unless the execution ended well.
    pub output: Blob,
    /// Its content address.
    pub output_hash: Hash,
    /// Gas of one execution.
    pub gas: Gas,
    /// Root over the execution's checkpoints.
    pub trace_root: Hash,
    /// Who got what.
    pub settlement: Settlement,
    /// The workers with their commitments and revealed results.
    pub seats: Vec<Seat>,
}

impl TaskResult {
    /// The result of `task` whose output is `output`; `None` when the task is not final.
    #[must_use]
    pub fn of(task: Task, output: Blob) -> Option<Self> {
        let Phase::Final {
            at,
            claim,
            settlement,
        } = task.phase
        else {
            return None;
        };
        Some(Self {
            task: task.id,
            height: at,
            status: claim.status,
            output,
            output_hash: claim.output_hash,
            gas: claim.gas,
            trace_root: claim.trace_root,
            settlement,
            seats: task.seats,
        })
    }
}
