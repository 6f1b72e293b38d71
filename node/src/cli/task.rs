//! `proofmill task`: ordering computations, following them, fetching results.

mod eligibility;
mod order;
mod report;
mod rules;
mod show;
mod submit;
mod watch;

use std::path::PathBuf;

use clap::Subcommand;
use proofmill_chain::types::hash::Hash;
use proofmill_rpc::api::TaskState;

use crate::cli::sending::Sending;
use crate::cli::session::Session;
use crate::cli::{Global, NodeArgs};

/// Order computations, follow them and fetch their results
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill task submit examples/genome-align --wait --out result
  proofmill task list --mine dev0
  proofmill task list --state open")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: TaskCommand,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Order a computation
    #[command(after_help = "\
Examples:
  proofmill task submit examples/genome-align --wait --out result
  proofmill task submit examples/digits --from alice --replicas 5 --price 20
  proofmill task submit --program sum.wasm --input data.bin --gas-limit 1000000 --wait

A folder's task.json says program, input, limits and price, and how to read the output; flags
change what it says. The program is published when the chain does not have it yet.")]
    Submit(Box<submit::Submit>),
    /// Follow a task until it is over, then show its result
    #[command(after_help = "\
Example:
  proofmill task watch 0x5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02")]
    Watch {
        /// The task
        #[arg(value_name = "ID")]
        task: Hash,
        /// Where the result goes.
        #[command(flatten)]
        result: ResultArgs,
    },
    /// Show a task: what it asks, what it waits for, how far each worker is
    #[command(after_help = "\
Example:
  proofmill task show 0x5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02")]
    Show {
        /// The task
        #[arg(value_name = "ID")]
        task: Hash,
    },
    /// Show the result of a final task
    #[command(after_help = "\
Example:
  proofmill task result 0x5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02 --manifest examples/digits --out result")]
    Result {
        /// The task
        #[arg(value_name = "ID")]
        task: Hash,
        /// Where the result goes.
        #[command(flatten)]
        result: ResultArgs,
    },
    /// List tasks, newest first
    #[command(after_help = "\
Examples:
  proofmill task list
  proofmill task list --state final --mine dev0 --limit 5")]
    List {
        /// Only tasks in this state: open, committing, revealing, final, expired or cancelled
        #[arg(long, value_parser = parse_state)]
        state: Option<TaskState>,
        /// Only tasks that this account ordered: an account or a key's name
        #[arg(long, value_name = "ACCOUNT|NAME")]
        mine: Option<String>,
        /// Most tasks to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// Take back a task that no worker has been drawn for
    #[command(after_help = "\
Example:
  proofmill task cancel 0x5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02 --from alice")]
    Cancel {
        /// The task
        #[arg(value_name = "ID")]
        task: Hash,
        /// The key that ordered it
        #[arg(long, value_name = "NAME")]
        from: String,
        /// The fee.
        #[command(flatten)]
        sending: Sending,
    },
}

/// How a result is read and where it goes.
#[derive(clap::Args, Clone, Debug)]
pub struct ResultArgs {
    /// Leave output.bin, result.json and result.txt in this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The folder whose task.json says how to read the output
    #[arg(long, value_name = "DIR")]
    pub manifest: Option<PathBuf>,
}

fn parse_state(text: &str) -> Result<TaskState, String> {
    serde_json::from_value(serde_json::Value::String(text.into())).map_err(|_| {
        "open, committing, revealing, final, expired or cancelled is expected".to_owned()
    })
}

/// Runs the command.
///
/// # Errors
/// With a message for people; also when a task ended without a good result.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let json = global.json;
    match args.command {
        TaskCommand::Submit(order) => submit::run(&order, &args.node, global),
        TaskCommand::Watch { task, result } => {
            let manifest = report::manifest_of(&result)?;
            report::prepare(result.out.as_deref())?;
            let session = Session::open(&args.node, global)?;
            let over = watch::Follow::start(&task).until_over(&session, &task)?;
            let report = report::Report::of(&session, over, manifest.as_ref())?;
            report.finish(&session, result.out.as_deref(), json)
        }
        TaskCommand::Result { task, result } => {
            let manifest = report::manifest_of(&result)?;
            report::prepare(result.out.as_deref())?;
            let session = Session::open(&args.node, global)?;
            let over = report::over(&session, &task)?;
            let report = report::Report::of(&session, over, manifest.as_ref())?;
            report.finish(&session, result.out.as_deref(), json)
        }
        TaskCommand::Show { task } => show::show(&Session::open(&args.node, global)?, &task, json),
        TaskCommand::List { state, mine, limit } => {
            let session = Session::open(&args.node, global)?;
            show::list(&session, state, mine.as_deref(), limit, json)
        }
        TaskCommand::Cancel {
            task,
            from,
            sending,
        } => submit::cancel(
            &Session::open(&args.node, global)?,
            task,
            &from,
            &sending,
            json,
        ),
    }
}
