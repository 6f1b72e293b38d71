//! `proofmill devnet`: a network of nodes and workers on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use crate::cli::{Global, RPC_DEFAULT, out};
use crate::devnet::{
    Event, NodePorts, Options, PORT, Ready, Status, Summary, run as run_devnet, status,
};
use crate::upgrades::Configured;

const EXAMPLES: &str = "\
Examples:
  proofmill devnet
  proofmill devnet --validators 1 --workers 3 --port 0
  proofmill devnet --reset
  proofmill devnet status";

/// Run a development network: validators and workers as processes of this machine
///
/// Its directory is --home. Without it, that is `devnet` in the home of keys: $PROOFMILL_HOME/devnet,
/// or ~/.proofmill/devnet. Started again, it goes on where it stopped. Its keys are known to everybody.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<DevnetCommand>,
    /// How many validators [default: as laid out, or 4]
    #[arg(long, value_name = "N")]
    pub validators: Option<u32>,
    /// How many workers [default: as laid out, or 3]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// The first validator's RPC port; the others follow, consensus 100 and gossip 200 above.
    /// 0 takes any free ports
    #[arg(long, value_name = "BASE", default_value_t = PORT)]
    pub port: u16,
    /// Write this file when all is ready: what runs where, as JSON
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Remove the devnet in the directory and begin anew
    #[arg(long)]
    pub reset: bool,
    /// Upgrades of the protocol, VERSION@HEIGHT, separated by commas [default: as laid out]
    #[arg(long, value_name = "UPGRADES", value_delimiter = ',')]
    pub upgrades: Option<Vec<Configured>>,
}

/// What to do with a development network.
#[derive(Debug, Subcommand)]
pub enum DevnetCommand {
    /// Ask every process of a running devnet how it is
    ///
    /// It is looked for where `proofmill devnet` with the same --home and $PROOFMILL_HOME runs it.
    #[command(after_help = "\
Examples:
  proofmill devnet status
  proofmill devnet status --home net
  proofmill devnet status --json")]
    Status,
}

/// Runs a development network, or tells how it is.
///
/// # Errors
/// When it cannot start, or does not run.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let home = home(global)?;
    if let Some(DevnetCommand::Status) = args.command {
        let status = status(&home)?;
        return if global.json {
            out::json(&status)
        } else {
            out::text(&status_text(&status))
        };
    }
    let options = Options {
        home,
        validators: args.validators,
        workers: args.workers,
        port: args.port,
        ready_file: args.ready_file,
        reset: args.reset,
        upgrades: args
            .upgrades
            .map(|list| list.into_iter().map(|upgrade| upgrade.0).collect()),
        known: global.known,
    };
    run_devnet(&options, &mut |event| {
        match event {
            Event::Progress(line) | Event::Died(line) => out::note(&line),
            Event::Ready { ready, .. } if global.json => out::json(&ready)?,
            Event::Ready {
                ready,
                ports,
                after,
            } => out::text(&ready_text(&ready, &ports, after))?,
            Event::Stopped(summary) => out::note(&summary_text(&summary)),
        }
        Ok(())
    })
}

/// `--home`; without it, `devnet` in the home that the environment names, or in the user's: those keep
/// keys, and `--reset` removes all that is in a devnet's directory.
fn home(global: &Global) -> anyhow::Result<PathBuf> {
    match &global.home {
        Some(home) => Ok(home.clone()),
        None => Ok(global.home()?.path().join("devnet")),
    }
}

fn ready_text(ready: &Ready, ports: &[NodePorts], after: Duration) -> String {
    let within = |path: &Path| {
        let short = path.strip_prefix(&ready.home).unwrap_or(path);
        short.display().to_string()
    };
    let validators: Vec<_> = ready
        .validators
        .iter()
        .zip(ports)
        .map(|(node, ports)| {
            vec![
                node.name.clone(),
                node.rpc.clone(),
                ports.consensus.to_string(),
                ports.gossip.to_string(),
                node.pid.to_string(),
                within(&node.log),
            ]
        })
        .collect();
    let workers: Vec<_> = ready
        .workers
        .iter()
        .map(|worker| {
            let (account, pid) = (worker.account.to_string(), worker.pid.to_string());
            vec![worker.name.clone(), account, pid, within(&worker.log)]
        })
        .collect();
    let mut accounts = vec![vec!["faucet".into(), ready.faucet.account.to_string()]];
    for account in &ready.accounts {
        accounts.push(vec![account.name.clone(), account.account.to_string()]);
    }
    let headings = ["VALIDATOR", "RPC", "CONSENSUS", "GOSSIP", "PID", "LOG"];
    let mut text = format!(
        "{} ({}) in {}\n\n{}",
        ready.chain_id,
        ready.genesis_hash.short(),
        ready.home.display(),
        out::table(&headings, &validators),
    );
    if !workers.is_empty() {
        text.push('\n');
        text.push_str(&out::table(&["WORKER", "ACCOUNT", "PID", "LOG"], &workers));
    }
    text.push('\n');
    text.push_str(&out::table(&["NAME", "ACCOUNT"], &accounts));
    text.push_str(&format!(
        "\nready after {:.1} s; Ctrl-C stops all. Try:\n  proofmill tx send --from dev0 --to dev1 \
         --amount 1.5mill{}\n",
        after.as_secs_f64(),
        rpc_flag(ready),
    ));
    text
}

/// The flag by which the command line finds this devnet; nothing when it does so by itself.
fn rpc_flag(ready: &Ready) -> String {
    match ready.validators.first() {
        Some(node) if !RPC_DEFAULT.starts_with(&node.rpc) => format!(" --rpc {}", node.rpc),
        _ => String::new(),
    }
}

fn status_text(status: &Status) -> String {
    let validators: Vec<_> = status
        .validators
        .iter()
        .map(|node| {
            let height = node
                .height
                .map_or_else(|| "-".into(), |height| height.to_string());
            let state = node.error.clone().unwrap_or_else(|| "answers".into());
            vec![
                node.name.clone(),
                node.rpc.clone(),
                node.pid.to_string(),
                height,
                state,
            ]
        })
        .collect();
    let workers: Vec<_> = status
        .workers
        .iter()
        .map(|worker| {
            let state = if worker.running { "runs" } else { "is gone" };
            let (account, pid) = (worker.account.to_string(), worker.pid.to_string());
            vec![worker.name.clone(), account, pid, state.into()]
        })
        .collect();
    let mut text = format!(
        "{} ({}), process {}\n\n{}",
        status.chain_id,
        status.genesis_hash.short(),
        status.pid,
        out::table(&["VALIDATOR", "RPC", "PID", "HEIGHT", "STATE"], &validators),
    );
    if !workers.is_empty() {
        text.push('\n');
        text.push_str(&out::table(
            &["WORKER", "ACCOUNT", "PID", "STATE"],
            &workers,
        ));
    }
    text
}

fn summary_text(summary: &Summary) -> String {
    let height = match summary.height {
        Some(height) => format!(" at height {height}"),
        None => String::new(),
    };
    let mut text = format!(
        "stopped after {} s{height}; the same command goes on from {}",
        summary.ran.as_secs(),
        summary.home.display()
    );
    if !summary.killed.is_empty() {
        text.push_str(&format!(
            "\nkilled, not stopped: {}",
            summary.killed.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::Cli;
    use crate::devnet::{VALIDATORS, WORKERS};

    #[test]
    fn the_help_names_the_defaults() {
        let mut root = Cli::command();
        root.build();
        let devnet = root.find_subcommand_mut("devnet").expect("the command");
        let help = devnet.render_long_help().to_string();
        assert!(
            help.contains(&format!("as laid out, or {VALIDATORS}")),
            "{help}"
        );
        assert!(
            help.contains(&format!("as laid out, or {WORKERS}")),
            "{help}"
        );
    }
}
