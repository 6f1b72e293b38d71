//! Ordering a task and taking it back.

use std::time::Instant;

use anyhow::{Context, bail};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, SUPPLY_MAX};
use proofmill_rpc::api::{LIST_MAX, ReceiptResult, ReceiptView, TaskFilter};
use serde_json::json;

use crate::cli::amount::both;
use crate::cli::sending::Sending;
use crate::cli::session::Session;
use crate::cli::task::eligibility;
use crate::cli::task::order::{Order, OrderArgs};
use crate::cli::task::report::{self, Report};
use crate::cli::task::rules;
use crate::cli::task::watch::Follow;
use crate::cli::{Global, NodeArgs, out};
use crate::client::{Error, Options, Wallet, spends};

/// The key that pays when nobody says which, on a devnet.
const FROM_DEFAULT: &str = "dev0";

/// An order.
#[derive(clap::Args, Clone, Debug)]
pub struct Submit {
    /// What is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
    /// The key that pays [default on a devnet: dev0]
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Follow the task and show its result
    #[arg(long)]
    pub wait: bool,
    /// Leave output.bin, result.json and result.txt in this folder; waits for the result
    #[arg(long, value_name = "DIR")]
    pub out: Option<std::path::PathBuf>,
    /// Order it even if too few registered workers could be drawn for it now
    #[arg(long)]
    pub wait_for_workers: bool,
    /// The fee.
    #[command(flatten)]
    pub sending: Sending,
}

/// Orders the task; follows it when that was asked for.
pub(crate) fn run(args: &Submit, node: &NodeArgs, global: &Global) -> anyhow::Result<()> {
    // Files first: what is wrong with them costs nothing.
    let order = Order::read(&args.order)?;
    let action = Action::SubmitTask(order.spec.clone());
    let escrow = spends(&action);
    if escrow.get() >= SUPPLY_MAX {
        bail!(
            "`price_per_mgas` {}, `gas_limit` {} and `replicas` {} make an escrow that no account can \
             hold: less than {SUPPLY_MAX} grain is possible; nothing was paid",
            order.spec.price_per_mgas,
            order.spec.gas_limit,
            order.spec.mode.seats()
        );
    }
    report::prepare(args.out.as_deref())?;
    let session = Session::open(node, global)?;
    // Then what the chain would refuse only once the program is published and paid.
    let params = session.client.params()?;
    rules::check_params(&order.spec, &params)?;
    let wallet = wallet(&session, args.from.as_deref())?;
    let options = args.sending.options(&session)?;
    // Made for its price alone: the account must have it before the program is paid.
    wallet.build(&action, &options)?;
    if !args.wait_for_workers {
        eligibility::check(
            &session,
            &params,
            wallet.account(),
            &order.spec,
            order.program.len(),
            escrow,
        )?;
    }
    let started = Instant::now();
    let published = publish(&session, &wallet, &order, &options)?;
    let sent = session.send(&wallet, &action, &options)?;
    let task = sent.transaction;
    let follow = args.wait || args.out.is_some();
    let follow = follow.then(|| Follow::start(&task));
    let receipt = session.client.wait_applied(&sent)?;
    let fees = [published.as_ref(), Some(&receipt)]
        .into_iter()
        .flatten()
        .fold(Amount::ZERO, |sum, receipt| {
            sum.saturating_plus(receipt.fee.get())
                .saturating_plus(receipt.tip.get())
        });
    if let Some(follow) = follow {
        follow.say(&format!(
            "submitted {task} in block {}, escrow {}",
            receipt.height,
            both(escrow)
        ));
        let over = follow.until_over(&session, &task)?;
        let report = Report::of(&session, over, Some(&order.manifest))?;
        return report
            .with_fees(fees)
            .with_elapsed(started.elapsed())
            .finish(&session, args.out.as_deref(), global.json);
    }
    if global.json {
        return out::json(&json!({
            "task": task,
            "program": order.spec.program,
            "escrow": escrow,
            "fees": fees,
            "receipt": receipt,
        }));
    }
    out::text(&format!(
        "{}\nfollow it with `proofmill task watch {task}`",
        out::pairs(&[
            ("task", task.to_string()),
            ("block", receipt.height.to_string()),
            ("escrow", both(escrow)),
            ("fees", both(fees)),
        ])
    ))
}

fn wallet(session: &Session, from: Option<&str>) -> anyhow::Result<Wallet> {
    match from {
        Some(name) => session.wallet(name),
        None if session.is_devnet() => session.wallet(FROM_DEFAULT),
        None => bail!(
            "say with --from which key pays: {} is no devnet, so there is none that everybody has",
            session.info.chain_id
        ),
    }
}

/// Publishes the program unless the chain has it; returns the receipt when a fee was paid.
fn publish(
    session: &Session,
    wallet: &Wallet,
    order: &Order,
    options: &Options,
) -> anyhow::Result<Option<ReceiptView>> {
    let program = order.spec.program;
    // A task of the program proves that the program is there. Where there is none among the
    // newest, the node refuses to publish it again.
    let newest = session.client.tasks(&TaskFilter {
        state: None,
        requester: None,
        worker: None,
        limit: LIST_MAX,
        before: None,
    })?;
    if newest.tasks.iter().any(|task| task.program == program) {
        return Ok(None);
    }
    let module = order.program.clone();
    let sent = match session.send(wallet, &Action::PublishProgram { module }, options) {
        Err(error) if error.foreseen() == "program_exists" => return Ok(None),
        sent => sent?,
    };
    let receipt = session.client.wait_receipt(&sent)?;
    match (&receipt.result, &receipt.failure) {
        (ReceiptResult::Applied, _) => {
            out::note(&format!(
                "published program {program} ({} bytes) in block {}",
                order.program.len(),
                receipt.height
            ));
        }
        (ReceiptResult::Failed, Some(failure)) if failure.code == "program_exists" => {}
        (ReceiptResult::Failed, failure) => {
            let why = failure
                .as_ref()
                .map_or("", |failure| failure.message.as_str());
            bail!(
                "the chain refused the program {}: {why}",
                order.manifest.program.display()
            );
        }
    }
    Ok(Some(receipt))
}

/// An error of taking a task back, with the rule where it is too late: the node foresees that, or the
/// task was drawn before the block came.
fn with_hint(error: Error) -> anyhow::Error {
    let code = match &error {
        Error::Failed { failure, .. } => failure.code.as_str(),
        _ => error.foreseen(),
    };
    if code != "task_not_open" {
        return error.into();
    }
    let message = format!("{error}; only a task that waits for its workers can be taken back");
    anyhow::Error::from(error).context(message)
}

/// Takes a task back.
pub(crate) fn cancel(
    session: &Session,
    task: Hash,
    from: &str,
    sending: &Sending,
    json: bool,
) -> anyhow::Result<()> {
    let wallet = session.wallet(from)?;
    let options = sending.options(session)?;
    let sent = session
        .send(&wallet, &Action::CancelTask { task }, &options)
        .map_err(with_hint)?;
    let receipt = session.client.wait_applied(&sent).map_err(with_hint)?;
    let view = session.client.task(&task, Default::default());
    let returned = view.context("the task that was cancelled")?.paid;
    let returned = returned.iter().fold(Amount::ZERO, |sum, part| {
        sum.saturating_plus(part.amount.get())
    });
    if json {
        let state = "cancelled";
        return out::json(
            &json!({ "task": task, "state": state, "returned": returned, "receipt": receipt }),
        );
    }
    out::text(&out::pairs(&[
        ("task", task.to_string()),
        ("state", "cancelled".to_owned()),
        ("block", receipt.height.to_string()),
        ("returned", both(returned)),
        ("fee", both(receipt.fee.saturating_plus(receipt.tip.get()))),
    ]))
}
