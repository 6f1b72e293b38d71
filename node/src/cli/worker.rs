//! `proofmill worker`: register a device, change or retire it, run it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::{Action, worker_consent_bytes};
use proofmill_chain::types::units::{Amount, Gas};
use proofmill_chain::types::worker::WorkerTerms;
use serde_json::json;

use crate::cli::amount::{self, both};
use crate::cli::sending::Sending;
use crate::cli::session::Session;
use crate::cli::{Global, NodeArgs, out};
use crate::config::Config;
use crate::exit::Exit;
use crate::home::write_atomically;
use crate::stop::{Rules, WORKER_STOP_WITHIN};
use crate::upgrades::Configured;
use crate::worker::child::{self, Sandbox};
use crate::worker::{KnownChain, Worker, WorkerConfig, self_test};
use crate::{genesis_file, keys, stop, telemetry};

/// CPU seconds after which a computing child is ended.
const CPU_SECONDS_MAX: u64 = 3_600;
/// Time after which a child that is still compiling is ended; the slowest module that the chain
/// admits takes a fraction of it.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(60);
/// Time after which a computing child is ended.
const WALL_TIME_MAX: Duration = Duration::from_secs(3_600);

/// Rent a device out: register it and run it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill worker register --operator dev1 --collateral 200mill
  proofmill worker run")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: WorkerCommand,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What to do with a worker.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Register this device's worker; its key is made when there is none
    #[command(after_help = "\
Examples:
  proofmill worker register --operator dev1 --collateral 200mill
  proofmill worker register --operator alice --collateral 500mill --price 4 --tags simd,europe")]
    Register(Register),
    /// Change what the worker offers, or add collateral
    #[command(after_help = "\
Examples:
  proofmill worker update --operator dev1 --price 8
  proofmill worker update --operator dev1 --inactive")]
    Update(Update),
    /// Withdraw the worker; its collateral returns when it holds no seat any more
    #[command(after_help = "\
Examples:
  proofmill worker retire --operator dev1")]
    Retire {
        /// The key that registered it
        #[arg(long, value_name = "NAME")]
        operator: String,
        /// The fee.
        #[command(flatten)]
        sending: Sending,
    },
    /// Compute tasks until stopped
    #[command(after_help = "\
Examples:
  proofmill worker run
  proofmill worker run --genesis genesis.json
  proofmill worker run --home /srv/worker --rpc http://127.0.0.1:26650/rpc --node http://127.0.0.1:26651/rpc")]
    Run {
        /// Further nodes to ask when the first does not answer
        #[arg(long = "node", value_name = "URL")]
        nodes: Vec<String>,
        /// The chain's genesis file: its parameters and its identity are taken from there, not from nodes
        #[arg(long, value_name = "FILE")]
        genesis: Option<PathBuf>,
        /// An upgrade of the chain, where its genesis file does not list them; may be repeated
        #[arg(long = "upgrade", value_name = "VERSION@HEIGHT", requires = "genesis")]
        upgrades: Vec<Configured>,
        /// Write this file once a node answers: the worker's account and process id, as JSON
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
        /// Stop when standard input ends
        #[arg(long, hide = true)]
        exit_with_parent: bool,
    },
    /// Run one job from standard input under hard limits; used by `worker run`
    #[command(
        hide = true,
        after_help = "\
Example:
  proofmill worker compute"
    )]
    Compute,
}

/// What a worker offers.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Offer")]
pub struct Offer {
    /// The least it asks, in grain per million gas
    #[arg(long, value_name = "GRAIN", default_value_t = 5)]
    pub price: u64,
    /// The largest gas limit it takes
    #[arg(long, value_name = "GAS", default_value_t = 100_000_000_000)]
    pub gas_limit_max: u64,
    /// The most memory it gives to a task, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory: u32,
    /// What it can do: lower-case words with hyphens
    #[arg(long, value_name = "TAG,TAG", value_delimiter = ',')]
    pub tags: Vec<String>,
}

impl Offer {
    fn terms(&self, active: bool) -> WorkerTerms {
        /// Pages of 64 KiB in a MiB.
        const PAGES: u32 = 16;
        let mut tags = self.tags.clone();
        tags.sort();
        tags.dedup();
        WorkerTerms {
            price_per_mgas: Amount::new(self.price),
            gas_limit_max: Gas::new(self.gas_limit_max),
            memory_pages_max: self.memory.saturating_mul(PAGES),
            tags,
            active,
        }
    }
}

/// A registration.
#[derive(Debug, clap::Args)]
pub struct Register {
    /// The key that pays the collateral and is paid for the work
    #[arg(long, value_name = "NAME")]
    pub operator: String,
    /// What it puts up
    #[arg(long, value_name = "AMOUNT", value_parser = amount::parse)]
    pub collateral: Amount,
    /// The offer.
    #[command(flatten)]
    pub offer: Offer,
    /// The fee.
    #[command(flatten)]
    pub sending: Sending,
}

/// A change of the offer.
#[derive(Debug, clap::Args)]
pub struct Update {
    /// The key that registered it
    #[arg(long, value_name = "NAME")]
    pub operator: String,
    /// Collateral to add
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = amount::parse)]
    pub add_collateral: Amount,
    /// Take no more seats for now
    #[arg(long)]
    pub inactive: bool,
    /// The offer.
    #[command(flatten)]
    pub offer: Offer,
    /// The fee.
    #[command(flatten)]
    pub sending: Sending,
}

/// Runs the command.
///
/// # Errors
/// With a message for people.
pub fn run(args: Args, global: &Global) -> Result<()> {
    let node = &args.node;
    match args.command {
        WorkerCommand::Register(register) => self::register(&register, node, global),
        WorkerCommand::Update(update) => {
            let worker = worker_id(global)?;
            let action = Action::UpdateWorker {
                worker,
                terms: update.offer.terms(!update.inactive),
                add_collateral: update.add_collateral,
            };
            let session = Session::open(node, global)?;
            order(
                &session,
                &update.operator,
                &action,
                worker,
                &update.sending,
                global,
            )
        }
        WorkerCommand::Retire { operator, sending } => {
            let worker = worker_id(global)?;
            let action = Action::RetireWorker { worker };
            let session = Session::open(node, global)?;
            order(&session, &operator, &action, worker, &sending, global)
        }
        WorkerCommand::Run {
            nodes,
            genesis,
            upgrades,
            ready_file,
            exit_with_parent,
        } => {
            let mut urls = vec![node.rpc.clone()];
            urls.extend(nodes);
            let chain = genesis
                .map(|path| known_chain(&path, &upgrades, global))
                .transpose()?;
            work(urls, chain, ready_file, exit_with_parent, global)
        }
        WorkerCommand::Compute => child::serve(CPU_SECONDS_MAX),
    }
}

fn worker_id(global: &Global) -> Result<AccountId> {
    let path = global.home()?.worker_key();
    Ok(keys::read(&path)
        .context("the worker's key: `proofmill worker register` makes it")?
        .public())
}

fn register(args: &Register, node: &NodeArgs, global: &Global) -> Result<()> {
    // Before money is put up for a host that cannot compute.
    self_test::run(&sandbox()?)?;
    let home = global.home()?;
    let path = home.worker_key();
    let key = if path.exists() {
        keys::read(&path)?
    } else {
        let key = keys::generate()?;
        keys::write_new(&path, &key)?;
        key
    };
    let session = Session::open(node, global)?;
    let operator = session.key(&args.operator)?.public();
    let worker = key.public();
    let genesis = session.info.genesis_hash;
    let action = Action::RegisterWorker {
        worker,
        terms: args.offer.terms(true),
        collateral: args.collateral,
        consent: key.sign(&worker_consent_bytes(&genesis, &operator, &worker)),
    };
    order(
        &session,
        &args.operator,
        &action,
        worker,
        &args.sending,
        global,
    )
}

/// Sends an operator's transaction and shows what became of the worker.
fn order(
    session: &Session,
    operator: &str,
    action: &Action,
    worker: AccountId,
    sending: &Sending,
    global: &Global,
) -> Result<()> {
    let wallet = session.wallet(operator)?;
    let sent = session.send(&wallet, action, &sending.options(session)?)?;
    let receipt = session.client.wait_applied(&sent)?;
    let found = session.client.worker(&worker)?;
    if global.json {
        return out::json(&json!({ "worker": worker, "receipt": receipt, "state": found }));
    }
    let mut lines = vec![
        ("worker", worker.to_string()),
        ("operator", session.name_of(&wallet.account())),
        ("block", receipt.height.to_string()),
    ];
    if let Some(view) = found {
        lines.push(("collateral", both(view.worker.collateral)));
        lines.push((
            "offer",
            format!(
                "{} grain per million gas, {} gas, {} pages of memory",
                view.worker.terms.price_per_mgas,
                view.worker.terms.gas_limit_max,
                view.worker.terms.memory_pages_max
            ),
        ));
    } else {
        lines.push(("state", "not registered".to_owned()));
    }
    out::text(&out::pairs(&lines))
}

/// The chain of a genesis file.
fn known_chain(path: &Path, upgrades: &[Configured], global: &Global) -> Result<KnownChain> {
    let file = genesis_file::load(path)?;
    Ok(KnownChain {
        genesis: file.genesis.hash(),
        schedule: crate::upgrades::schedule(&file, upgrades, global.known)?,
    })
}

fn work(
    nodes: Vec<String>,
    chain: Option<KnownChain>,
    ready_file: Option<PathBuf>,
    exit_with_parent: bool,
    global: &Global,
) -> Result<()> {
    let home = global.home()?;
    let key = keys::read(&home.worker_key())
        .context("the worker's key: `proofmill worker register` makes it")?;
    let _log = telemetry::init(
        &Config::default().log,
        &home.logs().join(telemetry::WORKER_FILE_NAME),
        false,
    )?;
    let id = key.public();
    let config = WorkerConfig {
        key,
        nodes,
        journal: home.worker(),
        sandbox: sandbox()?,
        chain,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no threads for signals")?;
    let asked = Arc::new(AtomicBool::new(false));
    let stopper = Arc::new(OnceLock::new());
    {
        let mut stop = stop::requested(Rules {
            exit_with_parent,
            within: WORKER_STOP_WITHIN,
            // Nothing is to be closed: what was committed to is in the journal, synced.
            late: Exit::Success,
        })?;
        let (asked, stopper) = (Arc::clone(&asked), Arc::clone(&stopper));
        runtime.spawn(async move {
            stop::wait(&mut stop).await;
            asked.store(true, Ordering::SeqCst);
            if let Some(stopper) = stopper.get() {
                crate::worker::Stopper::stop(stopper);
            }
        });
    }
    let started = Worker::start(config, &|| asked.load(Ordering::SeqCst));
    if asked.load(Ordering::SeqCst) {
        return Ok(());
    }
    let (worker, handle) = started?;
    // Set once, here: the cell was empty.
    let handle = stopper.get_or_init(|| handle);
    if asked.load(Ordering::SeqCst) {
        handle.stop();
    }
    if let Some(path) = ready_file {
        let ready = json!({ "worker": id, "pid": std::process::id() });
        write_atomically(&path, &format!("{ready:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    worker.run()
}

/// How this program runs computations.
fn sandbox() -> Result<Sandbox> {
    Ok(Sandbox {
        executable: executable()?,
        arguments: vec!["worker".into(), "compute".into()],
        compile_time_max: COMPILE_TIME_MAX,
        wall_time_max: WALL_TIME_MAX,
    })
}

/// This program's file; the kernel names a replaced one with a suffix that is not part of its name.
fn executable() -> Result<PathBuf> {
    let path = PathBuf::from("/proc/self/exe");
    if path.exists() {
        // Still the very file that runs, whatever has been put in its place.
        return Ok(path);
    }
    let path = std::env::current_exe().context("this program's own file is unknown")?;
    if !path.exists() {
        bail!("{} is gone; start the worker again", path.display());
    }
    Ok(path)
}
