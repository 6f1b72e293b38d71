//! Tasks: one, a list, a result, and why one waits.

use proofmill_chain::assign::{Bar, Survey, survey};
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::task::{commit_deadline, escrow, reveal_deadline};
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::record::{LiveTask, Look};
use proofmill_chain::types::task::{Moment, Phase, Task};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_rpc::api::{
    Include, TaskContext, TaskCursor, TaskFilter, TaskPage, TaskResult, TaskState, TaskSummary,
    TaskView, WaitingFor,
};
use proofmill_rpc::error::{Code, Error};

use super::{ErrorOf, not_found};
use crate::engine::Engine;
use crate::store::{Position, View};

/// Most tasks looked at for one page of a filtered list.
const TASKS_SCANNED_MAX: usize = 2_000;
/// Tasks read from the index at a time.
const SCAN_STEP: usize = 200;

fn find(overlay: &mut Overlay<'_>, id: &Hash) -> Result<Task, ErrorOf> {
    overlay
        .task(*id)?
        .cloned()
        .ok_or_else(|| not_found(format_args!("task {id} is unknown")))
}

/// `task_get`.
pub(super) fn view(engine: &Engine, id: &Hash, include: Include) -> Result<TaskView, ErrorOf> {
    let store = engine.store().view()?;
    let mut overlay = Overlay::new(&store);
    let task = find(&mut overlay, id)?;
    let context = context(engine, &store, &mut overlay, &task, include)?;
    let head = context.head;
    let mut view = TaskView::of(task, context);
    let waits_for_workers = view
        .waiting
        .as_ref()
        .is_some_and(|waiting| matches!(waiting.what, WaitingFor::Workers));
    if waits_for_workers {
        let survey = survey(&mut overlay, &view.task, engine.params(), head.next())?;
        if let Some(waiting) = view.waiting.as_mut() {
            waiting.reason.push_str(&explain(&survey));
        }
    }
    Ok(view)
}

fn context(
    engine: &Engine,
    store: &View<'_>,
    overlay: &mut Overlay<'_>,
    task: &Task,
    include: Include,
) -> Result<TaskContext, ErrorOf> {
    let params = engine.params();
    let begin = Moment::default();
    let commit = commit_deadline(task, begin, params);
    let reveal = reveal_deadline(begin, params);
    let live = overlay
        .live_tasks()?
        .entries
        .into_iter()
        .find(|entry: &LiveTask| entry.task == task.id);
    let validators_account = match &task.phase {
        Phase::Final { at, .. } => reward_at(engine, store, *at)?,
        _ => None,
    };
    let bytes = |wanted: bool, hash: &Hash| -> Result<Option<Blob>, ErrorOf> {
        if !wanted {
            return Ok(None);
        }
        blob(store, hash).map(Some)
    };
    Ok(TaskContext {
        head: engine.store().durable_head().height,
        first_draw: live.map(|entry| entry.due).unwrap_or_default(),
        drawn_in_vain: live.is_some_and(|entry| entry.look == Look::Retry),
        commit_window: (commit.height.get(), commit.time_ms),
        reveal_window: (reveal.height.get(), reveal.time_ms),
        validators_account,
        escrow_returned: match task.phase {
            Phase::Expired { .. } | Phase::Cancelled { .. } => {
                escrow(task.price_per_mgas, task.gas_limit, task.mode).unwrap_or(Amount::ZERO)
            }
            _ => Amount::ZERO,
        },
        input_bytes: bytes(include.input, &task.input)?,
        program_bytes: bytes(include.program, &task.program)?,
    })
}

fn reward_at(
    engine: &Engine,
    store: &View<'_>,
    height: Height,
) -> Result<Option<proofmill_chain::types::hash::AccountId>, ErrorOf> {
    let header = store.header(height)?;
    Ok(header
        .and_then(|header| engine.validators().by_key(&header.proposer))
        .map(|validator| validator.reward))
}

/// Stored bytes; nothing is stored for the empty string.
fn blob(store: &View<'_>, hash: &Hash) -> Result<Blob, ErrorOf> {
    let empty = Blob::default();
    if *hash == empty.hash() {
        return Ok(empty);
    }
    store.blob(hash)?.map(Blob::new).ok_or_else(|| {
        ErrorOf(Error::internal(format_args!(
            "the bytes of {hash} are missing"
        )))
    })
}

/// Why the registered workers do not fill the seats.
fn explain(survey: &Survey) -> String {
    let barred: u32 = survey.barred.iter().map(|(_, count)| count).sum();
    let eligible = u32::try_from(survey.eligible.len()).unwrap_or(u32::MAX);
    let mut text = format!(
        "; {} workers are registered, {eligible} of them eligible with {} operators",
        barred.saturating_add(eligible),
        survey.operators()
    );
    for (bar, count) in &survey.barred {
        let why = match bar {
            Bar::Inactive => "inactive or retiring",
            Bar::TooRecent => "registered too recently",
            Bar::Requester => "of the requester itself",
            Bar::Missed => "missed a seat of this task",
            Bar::Seated => "of an operator that has a seat",
            Bar::Gas => "with too small a gas limit",
            Bar::Memory => "with too little memory",
            Bar::Price => "asking for a higher price",
            Bar::Tags => "without a required tag",
            Bar::Reputation => "with too few accepted results",
            Bar::Collateral => "without free collateral for the bond",
        };
        text.push_str(&format!(", {count} {why}"));
    }
    text
}

/// `task_list`.
pub(super) fn list(engine: &Engine, filter: &TaskFilter) -> Result<TaskPage, ErrorOf> {
    let store = engine.store().view()?;
    let mut overlay = Overlay::new(&store);
    let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let live_only = filter.state.is_some_and(|state| {
        matches!(
            state,
            TaskState::Open | TaskState::Committing | TaskState::Revealing
        )
    });
    let mut source = if live_only {
        Source::live(overlay.live_tasks()?.entries, filter.before)
    } else {
        Source::index(filter.before)
    };
    let mut tasks = Vec::new();
    let mut last: Option<Position> = None;
    let mut scanned = 0_usize;
    while let Some((position, id)) = source.next(&store)? {
        if tasks.len() == limit || scanned == TASKS_SCANNED_MAX {
            let next = last.map(|(height, index)| TaskCursor { height, index });
            return Ok(TaskPage { tasks, next });
        }
        last = Some(position);
        scanned = scanned.saturating_add(1);
        let task = find(&mut overlay, &id)?;
        if matches(&task, filter) {
            tasks.push(TaskSummary::from(&task));
        }
    }
    Ok(TaskPage { tasks, next: None })
}

fn matches(task: &Task, filter: &TaskFilter) -> bool {
    let state = TaskState::from(&task.phase);
    filter.state.is_none_or(|wanted| wanted == state)
        && filter
            .requester
            .is_none_or(|wanted| wanted == task.requester)
        && filter
            .worker
            .is_none_or(|wanted| task.seats.iter().any(|seat| seat.worker == wanted))
}

/// Tasks newest first: from the list of live ones, or from the index page by page.
struct Source {
    ready: std::collections::VecDeque<(Position, Hash)>,
    cursor: Option<Position>,
    indexed: bool,
}

impl Source {
    fn live(entries: Vec<LiveTask>, before: Option<TaskCursor>) -> Self {
        let before = before.map(|cursor| (cursor.height, cursor.index));
        Self {
            ready: entries
                .into_iter()
                .rev()
                .map(|entry| ((entry.submitted_at, entry.index), entry.task))
                .filter(|(position, _)| before.is_none_or(|before| *position < before))
                .collect(),
            cursor: None,
            indexed: false,
        }
    }

    fn index(before: Option<TaskCursor>) -> Self {
        Self {
            ready: std::collections::VecDeque::new(),
            cursor: before.map(|cursor| (cursor.height, cursor.index)),
            indexed: true,
        }
    }

    fn next(&mut self, store: &View<'_>) -> Result<Option<(Position, Hash)>, ErrorOf> {
        if self.ready.is_empty() && self.indexed {
            self.ready = store.tasks_before(self.cursor, SCAN_STEP)?.into();
            self.cursor = self.ready.back().map(|(position, _)| *position);
        }
        Ok(self.ready.pop_front())
    }
}

/// `task_getResult`.
pub(super) fn result(engine: &Engine, id: &Hash) -> Result<TaskResult, ErrorOf> {
    let store = engine.store().view()?;
    let mut overlay = Overlay::new(&store);
    let task = find(&mut overlay, id)?;
    let state = task.phase.name();
    let claim = match &task.phase {
        Phase::Final { claim, .. } => *claim,
        Phase::Expired { .. } | Phase::Cancelled { .. } => {
            return Err(ErrorOf(
                Error::new(
                    Code::TaskWithoutResult,
                    format!("task {id} is {state} and has no result"),
                )
                .with("state", state),
            ));
        }
        _ => {
            return Err(ErrorOf(
                Error::new(
                    Code::TaskNotFinal,
                    format!("task {id} is {state}; it has no result yet"),
                )
                .with("state", state),
            ));
        }
    };
    let output = blob(&store, &claim.output_hash)?;
    TaskResult::of(task, output)
        .ok_or_else(|| ErrorOf(Error::internal("a final task has a result")))
}
