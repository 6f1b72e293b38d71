//! What a task came to: printed, left in files, and the command's verdict.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::task::{ExpiryReason, Phase, ResultStatus};
use proofmill_chain::types::units::Amount;
use proofmill_rpc::api::{Include, Payment, ReceiptView, Role, TaskResult, TaskView};
use serde_json::{Value, json};

use crate::cli::amount::both;
use crate::cli::failure::{NO_RESULT, Named};
use crate::cli::out;
use crate::cli::session::Session;
use crate::cli::task::{ResultArgs, eligibility};
use crate::manifest::{Answer, Manifest};

/// The files that are left in a result's folder.
const FILES: [&str; 3] = ["output.bin", "result.json", "result.txt"];

/// The manifest that reads a result, when one was named.
pub(crate) fn manifest_of(args: &ResultArgs) -> anyhow::Result<Option<Manifest>> {
    let load = |path: &std::path::PathBuf| {
        let loaded = Manifest::load(path);
        loaded.with_context(|| format!("the manifest of {}", path.display()))
    };
    Ok(args
        .manifest
        .as_ref()
        .map(load)
        .transpose()?
        .map(|(manifest, _)| manifest))
}

/// Makes the folder for a result and checks that files can be written there, before anything is
/// paid for or waited for.
pub(crate) fn prepare(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in FILES {
        let path = folder.join(name);
        if path.exists() {
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    tempfile::tempfile_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(())
}

/// The task, which must be over.
pub(crate) fn over(session: &Session, task: &Hash) -> anyhow::Result<TaskView> {
    let view = session.client.task(task, Include::default())?;
    if !view.task.phase.is_over() {
        let reason = view.waiting.map(|waiting| format!(": {}", waiting.reason));
        bail!(
            "the task is {} and has no result yet{}; `proofmill task watch {task}` waits for it",
            view.task.phase.name(),
            reason.unwrap_or_default()
        );
    }
    Ok(view)
}

/// A task that is over, and its result when it has one.
pub(crate) struct Report {
    view: TaskView,
    result: Option<TaskResult>,
    answer: Option<Answer>,
    unreadable: Option<String>,
    receipt: ReceiptView,
    fees: Amount,
    elapsed: Option<Duration>,
    /// What kept workers from the task, when it expired for want of them.
    ineligible: Option<String>,
}

impl Report {
    /// Fetches and checks the result of a task that is over, and reads it.
    pub(crate) fn of(
        session: &Session,
        view: TaskView,
        manifest: Option<&Manifest>,
    ) -> anyhow::Result<Self> {
        let task = view.task.id;
        let result = match view.task.phase {
            Phase::Final { .. } => Some(session.client.task_result(&task)?),
            _ => None,
        };
        if let Some(result) = &result {
            let is_named = result.output.hash() == result.output_hash;
            let is_agreed = match &view.task.phase {
                Phase::Final { claim, .. } => claim.output_hash == result.output_hash,
                _ => false,
            };
            if !is_named || !is_agreed {
                bail!(
                    "the node's output is not the one that the workers agreed on ({}): ask another node",
                    result.output_hash
                );
            }
        }
        let done = result
            .as_ref()
            .filter(|result| result.status == ResultStatus::Done);
        let read = done
            .zip(manifest)
            .map(|(result, manifest)| manifest.decode(result.output.as_bytes()));
        let (answer, unreadable) = match read {
            None => (None, None),
            Some(Ok(answer)) => (Some(answer), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        // A task's id is the id of the transaction that submitted it.
        let receipt = session.client.receipt(&task)?;
        let ineligible = match view.task.phase {
            Phase::Expired {
                reason: ExpiryReason::NoWorkers,
                ..
            } => Some(eligibility::explain(session, &view.task)?),
            _ => None,
        };
        Ok(Self {
            ineligible,
            fees: receipt.fee.saturating_plus(receipt.tip.get()),
            view,
            result,
            answer,
            unreadable,
            receipt,
            elapsed: None,
        })
    }

    /// Counts these fees, where more than the submission's were paid.
    pub(crate) const fn with_fees(mut self, fees: Amount) -> Self {
        self.fees = fees;
        self
    }

    /// Tells how long it took.
    pub(crate) const fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = Some(elapsed);
        self
    }

    /// Leaves the files, prints the report, and fails when the task has no good result.
    pub(crate) fn finish(
        &self,
        session: &Session,
        folder: Option<&Path>,
        json: bool,
    ) -> anyhow::Result<()> {
        let text = self.text(session);
        let value = self.json(session);
        if let Some(folder) = folder {
            self.write(folder, &text, &value)?;
        }
        if json {
            out::json(&value)?;
        } else {
            out::text(&text)?;
            if let Some(folder) = folder {
                let folder = folder.display();
                out::note(&format!(
                    "output.bin, result.json and result.txt are in {folder}"
                ));
            }
        }
        match self.failure() {
            Some(failure) if json => Err(failure.printed().into()),
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    fn write(&self, folder: &Path, text: &str, value: &Value) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        let output = self
            .result
            .as_ref()
            .map_or(&[][..], |result| result.output.as_bytes());
        write("output.bin", output)?;
        let json = serde_json::to_string_pretty(value)?;
        write("result.json", format!("{json}\n").as_bytes())?;
        write("result.txt", text.as_bytes())
    }

    /// Why there is no good result; `None` when there is one.
    fn failure(&self) -> Option<Named> {
        let message = if let Some(why) = self.why() {
            why
        } else if let Some(bad) = self
            .result
            .as_ref()
            .and_then(|result| ended_badly(result.status))
        {
            format!("{bad}; the workers agree on that and are paid for the gas used")
        } else {
            let error = self.unreadable.as_ref()?;
            format!("the output is not what the manifest says: {error}")
        };
        Some(Named::new(NO_RESULT, message))
    }

    fn why(&self) -> Option<String> {
        let why = why_without_result(&self.view)?;
        Some(match &self.ineligible {
            Some(reasons) => format!("{why}. As the workers are now, {reasons}"),
            None => why,
        })
    }

    /// What the computation cost, without fees.
    fn computation(&self) -> Amount {
        self.view
            .paid
            .iter()
            .filter(|part| part.role != Role::Requester)
            .fold(Amount::ZERO, |sum, part| {
                sum.saturating_plus(part.amount.get())
            })
    }

    fn json(&self, session: &Session) -> Value {
        let task = &self.view.task;
        let computation = self.computation();
        let total = computation.saturating_plus(self.fees.get());
        let (output, derived) = self.answer.as_ref().map(Answer::to_json).unzip();
        let paid: Vec<_> = self
            .view
            .paid
            .iter()
            .map(|part| {
                json!({
                    "account": part.account,
                    "name": part.account.map(|account| session.name_of(&account)),
                    "role": part.role,
                    "amount": part.amount,
                })
            })
            .collect();
        let result = self.result.as_ref();
        json!({
            "task": task.id,
            "state": self.view.state,
            "reason": self.why(),
            "error": self.failure().map(|failure| failure.to_json()),
            "status": result.map(|result| result.status),
            "program": task.program,
            "input": task.input,
            "output": output,
            "derived": derived,
            "output_error": self.unreadable,
            "output_bytes": result.map(|result| result.output.len()),
            "output_hash": result.map(|result| result.output_hash),
            "trace_root": result.map(|result| result.trace_root),
            "gas": result.map(|result| result.gas),
            "gas_limit": task.gas_limit,
            "cost": {
                "computation": computation,
                "fees": self.fees,
                "total": total,
                "total_in_mill": total.in_mill(),
            },
            "paid": paid,
            "seats": result.map(|result| &result.seats),
            "submitted_at": task.submitted_at,
            "height": result.map(|result| result.height),
            "receipt": self.receipt,
            "elapsed_ms": self.elapsed.map(|elapsed| elapsed.as_millis()),
        })
    }

    fn text(&self, session: &Session) -> String {
        let task = &self.view.task;
        let mut pairs = vec![("task", task.id.to_string())];
        let state = match &self.result {
            Some(result) => format!(
                "{} in block {}, submitted in block {}",
                status_name(result.status),
                result.height,
                task.submitted_at
            ),
            None => self.why().unwrap_or_default(),
        };
        pairs.push(("state", state));
        if let Some(result) = &self.result {
            pairs.push(("gas", format!("{} of {}", result.gas, task.gas_limit)));
            let mut workers: Vec<_> = result
                .seats
                .iter()
                .map(|seat| session.name_of(&seat.worker))
                .collect();
            workers.sort_unstable();
            pairs.push(("workers", workers.join(", ")));
            pairs.push((
                "output",
                format!("{} bytes, {}", result.output.len(), result.output_hash),
            ));
        }
        let computation = self.computation();
        let total = computation.saturating_plus(self.fees.get());
        pairs.push((
            "cost",
            format!(
                "{}: {computation} for the computation, {} in fees",
                both(total),
                self.fees
            ),
        ));
        if let Some(elapsed) = self.elapsed {
            pairs.push(("elapsed", format!("{:.1} s", elapsed.as_secs_f64())));
        }
        let mut text = out::pairs(&pairs);
        if !self.view.paid.is_empty() {
            text.push_str("\npaid\n");
            text.push_str(&indented(&out::pairs(&payments(&self.view.paid, session))));
        }
        if let Some(answer) = self
            .answer
            .as_ref()
            .filter(|answer| !answer.fields.is_empty())
        {
            text.push_str("\nresult\n");
            let fields: Vec<_> = answer.to_text().collect();
            text.push_str(&indented(&out::pairs(&fields)));
        }
        text
    }
}

/// Who got what, for people.
pub(crate) fn payments(paid: &[Payment], session: &Session) -> Vec<(String, String)> {
    paid.iter()
        .map(|part| {
            let name = part.account.map(|account| session.name_of(&account));
            let who = match part.role {
                Role::Worker => "for computing",
                Role::Validators => "for validating",
                Role::Requester => "returned",
                Role::Burned => "burned",
            };
            let who = match name {
                Some(name) => format!("{name} ({who})"),
                None => who.to_owned(),
            };
            (who, both(part.amount))
        })
        .collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn status_name(status: ResultStatus) -> &'static str {
    ended_badly(status).unwrap_or("done")
}

fn ended_badly(status: ResultStatus) -> Option<&'static str> {
    Some(match status {
        ResultStatus::Done => return None,
        ResultStatus::Trap => "the program trapped",
        ResultStatus::OutOfGas => "the program reached the gas limit",
        ResultStatus::BadOutput => "the program's output lies outside its memory or is too long",
        ResultStatus::TooManySteps => "the program took more steps than it may",
        ResultStatus::StepOutOfGas => "a step of the program used more gas than a step may",
    })
}

/// Why a task that is over has no result; `None` when it has one.
pub(crate) fn why_without_result(view: &TaskView) -> Option<String> {
    let task = &view.task;
    match &task.phase {
        Phase::Expired { at, reason } => {
            let why = match reason {
                ExpiryReason::NoWorkers => format!(
                    "{} eligible workers were needed and the last draw found {}",
                    task.mode.seats(),
                    task.eligible_last
                ),
                ExpiryReason::NotCommitted => {
                    "the workers drawn gave no result in time, nor did those drawn in their place: they may be out of order, or the program needs longer than its --gas-limit allows for; order it again, and if it happens again, try a smaller input".into()
                }
                ExpiryReason::NotRevealed => "a worker did not reveal its result in time".into(),
                ExpiryReason::ResultsDiffer => "the workers' results differ".into(),
            };
            Some(format!(
                "the task expired in block {at}: {why}; the escrow went back"
            ))
        }
        Phase::Cancelled { at } => Some(format!(
            "the task was cancelled in block {at}; the escrow went back"
        )),
        Phase::Final { .. } => None,
        Phase::Open | Phase::Committing { .. } | Phase::Revealing { .. } => {
            Some(format!("the task is {}", task.phase.name()))
        }
    }
}
