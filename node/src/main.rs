//! The `proofmill` command.

use std::process::ExitCode;

use clap::Parser;
use proofmill_node::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute()
}
