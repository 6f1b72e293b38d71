//! The command line: what is the same for every command, and the list of commands.
//!
//! A command is a module with `Args` and `run`, and one line in the list below.

pub mod amount;
pub mod bench;
pub mod config;
pub mod devnet;
pub mod init;
pub mod keys;
pub mod query;
pub mod replay;
pub mod start;
pub mod task;
pub mod tx;
pub mod validator;
pub mod version;
pub mod worker;

mod failure;
mod interrupt;
pub(crate) mod out;
mod progress;
mod sending;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use proofmill_chain::upgrades::{KnownVersion, RELEASED};

use crate::exit::Exit;
use crate::home::Home;
use crate::telemetry;

/// Where a devnet's first node answers.
pub const RPC_DEFAULT: &str = "http://127.0.0.1:26650/rpc";

const EXAMPLES: &str = "\
Examples:
  proofmill task submit examples/genome-align --wait --out result
  proofmill tx send --from dev0 --to dev1 --amount 1.5mill
  proofmill query head
  proofmill query workers --json | jq .

Every command explains itself with --help.";

/// Proofmill: buy computation, take home a result together with its proof
#[derive(Debug, Parser)]
#[command(name = "proofmill", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Print one JSON object on standard output, also for an error; progress goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Where keys are kept [default: $PROOFMILL_HOME, or ~/.proofmill]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The protocol versions that this program knows. No flag sets them.
    #[arg(skip = RELEASED)]
    pub known: &'static [KnownVersion],
}

/// What every command takes that asks a node.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The node to ask; `http://` and `/rpc` may be left out
    #[arg(long, global = true, env = "PROOFMILL_RPC", default_value = RPC_DEFAULT, value_name = "URL")]
    pub rpc: String,
}

/// Names the home of every command that is not given `--home`.
const HOME_VARIABLE: &str = "PROOFMILL_HOME";

impl Global {
    /// The home that `--home` or else the environment names; an empty variable names none.
    #[must_use]
    pub fn named_home(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(HOME_VARIABLE).filter(|value| !value.is_empty());
        self.home.clone().or_else(|| variable().map(PathBuf::from))
    }

    /// The home that was asked for, or the user's.
    ///
    /// # Errors
    /// When neither is known.
    pub fn home(&self) -> anyhow::Result<Home> {
        let path = match self.named_home() {
            Some(path) => path,
            None => std::env::home_dir()
                .context("your home directory is unknown: say with --home where keys are kept")?
                .join(".proofmill"),
        };
        Ok(Home::new(path))
    }
}

macro_rules! commands {
    ($($doc:literal $name:ident = $module:ident;)+) => {
        /// What to do.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $(#[doc = $doc] $name($module::Args),)+
        }

        impl Cli {
            /// Does what was asked.
            ///
            /// # Errors
            /// With a message for people.
            pub fn run(self) -> anyhow::Result<()> {
                match self.command {
                    $(Command::$name(args) => $module::run(args, &self.global),)+
                }
            }
        }
    };
}

commands! {
    "Make a node's home" Init = init;
    "Run a node" Start = start;
    "Run a local network" Devnet = devnet;
    "Show a node's configuration" Config = config;
    "Show the version" Version = version;
    "Rent a device out" Worker = worker;
    "Make and show account keys" Keys = keys;
    "Send money" Tx = tx;
    "Order computations, follow them and fetch their results" Task = task;
    "Look at the chain" Query = query;
    "Look after a validator's signing guard" Validator = validator;
    "Verify a stored chain again" Replay = replay;
    "Measure how fast this machine verifies blocks" Bench = bench;
}

impl Cli {
    /// Does what was asked; prints what went wrong.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        telemetry::tell_panics_in_a_line();
        let global = self.global.clone();
        match self.run() {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads our output has read enough of it.
            Err(error) if out::is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                failure::report(&error, &global);
                Exit::of(&error).into()
            }
        }
    }

    /// Parses the command line of this process and runs the command. A command line that cannot be
    /// parsed exits with status 2; with `--json` its error is an object too.
    #[must_use]
    pub fn main() -> ExitCode {
        match Self::try_parse() {
            Ok(cli) => cli.execute(),
            Err(error) => failure::usage(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, RPC_DEFAULT};

    /// Every command, with the words that lead to it.
    fn commands() -> Vec<(Vec<String>, clap::Command)> {
        // Not wrapped, so that an example is one line.
        let mut root = Cli::command().term_width(0);
        root.build();
        let mut found = Vec::new();
        let mut open = vec![(vec!["proofmill".to_owned()], root)];
        while let Some((words, command)) = open.pop() {
            for sub in command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
            {
                let mut words = words.clone();
                words.push(sub.get_name().to_owned());
                open.push((words, sub.clone()));
            }
            found.push((words, command));
        }
        found
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(RPC_DEFAULT.contains(&proofmill_rpc::DEVNET_PORT.to_string()));
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let commands = commands();
        assert!(commands.len() > 20, "{} commands", commands.len());
        for (words, mut command) in commands {
            let line = words.join(" ");
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{line} says what it does");
            assert!(help.contains("Example"), "{line} has an example:\n{help}");
            let asked = Cli::try_parse_from(words.iter().map(String::as_str).chain(["--help"]));
            let kind = asked.expect_err("help is shown").kind();
            assert_eq!(kind, clap::error::ErrorKind::DisplayHelp, "{line}");
        }
    }

    /// Examples rot unless they are read.
    #[test]
    fn every_example_is_a_command_that_parses() {
        let mut examples = 0;
        for (words, command) in commands() {
            // As written: shown help is cut into lines of the terminal's width.
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            for line in help.lines().map(str::trim) {
                // Usage lines have placeholders, examples do not.
                if !line.starts_with("proofmill ") || line.contains(['<', '[']) {
                    continue;
                }
                let line = line.split(" |").next().unwrap_or(line);
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{words:?}: `{line}`: {:?}", parsed.err());
                examples += 1;
            }
        }
        assert!(examples >= 25, "{examples} examples");
    }
}
