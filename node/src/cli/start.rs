//! `proofmill start`: a node, from its home to its end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::Global;
use crate::cli::config::Flags;
use crate::config::Config;
use crate::exit::Exit;
use crate::stop::{NODE_STOP_WITHIN, Rules};
use crate::{COMMIT, VERSION, limits, start, stop, telemetry};

const EXAMPLES: &str = "\
Examples:
  proofmill start --home node
  proofmill start --home node --rpc-listen 127.0.0.1:26660 --log-level debug --log-stderr";

/// How long work that does not stop by itself may hold up the end.
const LAST_WORK: Duration = Duration::from_secs(3);

/// Run a node
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write this file when the node answers: its addresses and process id, as JSON
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Log to standard error too, even when it is no terminal
    #[arg(long)]
    pub log_stderr: bool,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
    /// The configuration's flags.
    #[command(flatten)]
    pub config: Box<Flags>,
}

/// Runs a node until it is asked to stop.
///
/// # Errors
/// When the system's limits are too low, the configuration is refused, or the node fails.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let open_files = limits::raise_open_files()?;
    let home = global.home()?;
    let config = Config::load(&home, &args.config.overrides())?;
    // Memory before threads, which reserve some.
    limits::check_node_memory(config.memory.caches().total())?;
    limits::check_threads(limits::node_threads())?;
    // Heard from here on, whatever the process does.
    let stop = stop::requested(Rules {
        exit_with_parent: args.exit_with_parent,
        within: NODE_STOP_WITHIN,
        late: Exit::Late,
    })
    .context("cannot listen for signals")?;
    let log = home.logs().join(telemetry::FILE_NAME);
    let _guard = telemetry::init(&config.log, &log, args.log_stderr)?;
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        home = %home.path().display(),
        open_files,
        "starting"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(start::run(
        home,
        config,
        global.known,
        args.ready_file,
        stop,
    ));
    runtime.shutdown_timeout(LAST_WORK);
    match &outcome {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!("stopped: {error:#}"),
    }
    outcome
}
