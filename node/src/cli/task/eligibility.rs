//! Whether enough registered workers could be drawn for a task, by the chain's own rule
//! (protocol §6.3), and what keeps the others out.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::assign::{Bar, bar, seat_bond};
use proofmill_chain::task;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::record::Program;
use proofmill_chain::types::task::{Task, TaskSpec};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_chain::types::worker::Worker;
use proofmill_rpc::api::WorkerView;

use crate::cli::failure::{Named, TOO_FEW_WORKERS};
use crate::cli::session::Session;

/// Refuses an order for which too few of the registered workers could ever be drawn as they are
/// now. Workers that only have to wait (just registered, collateral locked in other seats) count.
pub(super) fn check(
    session: &Session,
    params: &Params,
    requester: AccountId,
    spec: &TaskSpec,
    program_bytes: usize,
    escrow: Amount,
) -> anyhow::Result<()> {
    let head = session.client.head()?.height;
    let program = Program {
        id: spec.program,
        publisher: requester,
        machine_version: params.machine_version,
        bytes: u32::try_from(program_bytes).unwrap_or(u32::MAX),
        memory_pages_min: 0,
        memory_pages_max: spec.memory_pages,
        published_at: head,
    };
    let task = task::open(
        Hash::ZERO,
        requester,
        spec,
        &program,
        escrow,
        head.next(),
        0,
    );
    let look = Eligibility::of(&session.client.all_workers()?, &task, params, head.next());
    if look.operators >= usize::from(task.mode.seats()) {
        return Ok(());
    }
    let message = format!(
        "{}; nothing was paid. --wait-for-workers orders it all the same",
        look.sentence(&task, params)
    );
    Err(Named::new(TOO_FEW_WORKERS, message).into())
}

/// What kept workers from a task that expired without them, as the registered workers are now.
pub(super) fn explain(session: &Session, task: &Task) -> anyhow::Result<String> {
    let params = session.client.params()?;
    let head = session.client.head()?.height;
    let look = Eligibility::of(&session.client.all_workers()?, task, &params, head);
    Ok(look.sentence(task, &params))
}

struct Eligibility {
    registered: usize,
    /// Distinct operators of the workers that could be drawn: one seat goes to each.
    operators: usize,
    barred: BTreeMap<Bar, Vec<Worker>>,
}

impl Eligibility {
    fn of(workers: &[WorkerView], task: &Task, params: &Params, height: Height) -> Self {
        let bond = seat_bond(task, params);
        let mut operators = BTreeSet::new();
        let mut barred: BTreeMap<Bar, Vec<Worker>> = BTreeMap::new();
        for WorkerView { worker, .. } in workers {
            match bar(worker, task, params, height) {
                None | Some(Bar::TooRecent) => drop(operators.insert(worker.operator)),
                // The bond is there, in seats that will be over.
                Some(Bar::Collateral) if worker.collateral >= bond => {
                    operators.insert(worker.operator);
                }
                Some(bar) => barred.entry(bar).or_default().push(worker.clone()),
            }
        }
        Self {
            registered: workers.len(),
            operators: operators.len(),
            barred,
        }
    }

    fn sentence(&self, task: &Task, params: &Params) -> String {
        let needed = task.mode.seats();
        let mut text = format!(
            "the task needs {needed} workers of different operators, and {} of {} registered could take it",
            self.operators, self.registered
        );
        let reasons: Vec<_> = self
            .barred
            .iter()
            .map(|(bar, workers)| reason(*bar, workers, task, params))
            .collect();
        if !reasons.is_empty() {
            text.push_str(": ");
            text.push_str(&reasons.join("; "));
        }
        text
    }
}

/// What keeps these workers out, with the value that would let the nearest of them in.
fn reason(bar: Bar, workers: &[Worker], task: &Task, params: &Params) -> String {
    let count = workers.len();
    let terms = workers.iter().map(|worker| &worker.terms);
    match bar {
        Bar::Inactive => format!("{count} are switched off or retiring"),
        Bar::TooRecent => format!("{count} were registered too recently"),
        Bar::Requester => format!("{count} belong to the requester"),
        Bar::Missed => format!("{count} missed a seat of this task"),
        Bar::Seated => format!("{count} belong to operators that hold a seat of this task"),
        Bar::Gas => format!(
            "{count} accept at most {} gas, the task's gas limit is {}",
            terms
                .map(|terms| terms.gas_limit_max)
                .max()
                .unwrap_or_default(),
            task.gas_limit
        ),
        Bar::Memory => format!(
            "{count} give at most {} pages of memory, the task needs {}",
            terms
                .map(|terms| terms.memory_pages_max)
                .max()
                .unwrap_or_default(),
            task.memory_pages
        ),
        Bar::Price => format!(
            "{count} ask for at least {} grain per million gas, the task offers {}",
            terms
                .map(|terms| terms.price_per_mgas)
                .min()
                .unwrap_or_default(),
            task.price_per_mgas
        ),
        Bar::Tags => format!(
            "{count} lack a required tag ({})",
            task.requirements.tags.join(", ")
        ),
        Bar::Reputation => format!(
            "{count} have at most {} accepted results, the task requires {}",
            workers
                .iter()
                .map(|worker| worker.reputation.accepted)
                .max()
                .unwrap_or_default(),
            task.requirements.min_reputation
        ),
        Bar::Collateral => format!(
            "{count} have less than {} of collateral, which the insured value makes each seat lock",
            seat_bond(task, params).in_mill()
        ),
    }
}
