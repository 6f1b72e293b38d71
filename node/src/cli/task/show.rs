//! Looking at tasks: one whole, or many.

use proofmill_chain::types::hash::Hash;
use proofmill_rpc::api::{Include, SeatStep, TaskFilter, TaskState, TaskView};

use crate::cli::amount::both;
use crate::cli::out;
use crate::cli::session::Session;
use crate::cli::task::report::{payments, why_without_result};

/// Shows a task.
pub(crate) fn show(session: &Session, task: &Hash, json: bool) -> anyhow::Result<()> {
    let view = session.client.task(task, Include::default())?;
    if json {
        return out::json(&view);
    }
    out::text(&text(session, &view))
}

fn text(session: &Session, view: &TaskView) -> String {
    let task = &view.task;
    let mut pairs = vec![
        ("task", task.id.to_string()),
        ("state", task.phase.name().to_owned()),
    ];
    if let Some(waiting) = &view.waiting {
        pairs.push(("waits", waiting.reason.clone()));
    }
    if task.phase.is_over()
        && let Some(why) = why_without_result(view)
    {
        pairs.push(("why", why));
    }
    pairs.extend([
        ("requester", session.name_of(&task.requester)),
        ("program", task.program.to_string()),
        ("input", task.input.to_string()),
        ("replicas", task.mode.seats().to_string()),
        ("gas limit", task.gas_limit.to_string()),
        ("memory", format!("{} pages of 64 KiB", task.memory_pages)),
        (
            "price",
            format!("{} grain per million gas and worker", task.price_per_mgas),
        ),
        ("insured", both(task.insured_value)),
        ("escrow", both(task.escrow)),
        ("submitted", format!("block {}", task.submitted_at)),
        ("draws", task.draws.to_string()),
    ]);
    if !task.requirements.tags.is_empty() || task.requirements.min_reputation > 0 {
        let tags = task.requirements.tags.join(", ");
        let least = task.requirements.min_reputation;
        pairs.push((
            "requires",
            format!("tags [{tags}], {least} accepted results"),
        ));
    }
    let mut text = out::pairs(&pairs);
    if !view.progress.is_empty() {
        let rows: Vec<_> = view
            .progress
            .iter()
            .map(|seat| {
                let step = match seat.step {
                    SeatStep::Computing => "computing",
                    SeatStep::Committed => "committed",
                    SeatStep::Revealed => "revealed",
                };
                let due = seat.due.map_or_else(String::new, |due| {
                    format!("block {} and {} ms", due.height, due.time_ms)
                });
                let worker = session.name_of(&seat.worker);
                vec![worker, seat.draw.to_string(), step.to_owned(), due]
            })
            .collect();
        text.push('\n');
        text.push_str(&out::table(
            &["WORKER", "DRAW", "STEP", "LATE AFTER"],
            &rows,
        ));
    }
    if !view.paid.is_empty() {
        text.push_str("\npaid\n");
        for (who, amount) in payments(&view.paid, session) {
            text.push_str(&format!("  {who}: {amount}\n"));
        }
    }
    text
}

/// Lists tasks.
pub(crate) fn list(
    session: &Session,
    state: Option<TaskState>,
    mine: Option<&str>,
    limit: u32,
    json: bool,
) -> anyhow::Result<()> {
    let filter = TaskFilter {
        state,
        requester: mine.map(|name| session.account(name)).transpose()?,
        worker: None,
        limit,
        before: None,
    };
    let page = session.client.tasks(&filter)?;
    if json {
        return out::json(&page);
    }
    if page.tasks.is_empty() {
        return out::text("no such tasks");
    }
    let rows: Vec<_> = page
        .tasks
        .iter()
        .map(|task| {
            let workers = task.workers.iter().map(|worker| session.name_of(worker));
            vec![
                task.task.to_string(),
                state_name(task.state).to_owned(),
                task.submitted_at.to_string(),
                session.name_of(&task.requester),
                task.replicas.to_string(),
                task.gas_limit.to_string(),
                task.price_per_mgas.to_string(),
                workers.collect::<Vec<_>>().join(","),
            ]
        })
        .collect();
    let headings = [
        "TASK",
        "STATE",
        "BLOCK",
        "REQUESTER",
        "REPLICAS",
        "GAS LIMIT",
        "PRICE",
        "WORKERS",
    ];
    out::text(&out::table(&headings, &rows))?;
    if page.next.is_some() {
        out::note(&format!(
            "there are more: --limit goes up to {}",
            proofmill_rpc::api::LIST_MAX
        ));
    }
    Ok(())
}

const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Open => "open",
        TaskState::Committing => "committing",
        TaskState::Revealing => "revealing",
        TaskState::Final => "final",
        TaskState::Expired => "expired",
        TaskState::Cancelled => "cancelled",
    }
}
