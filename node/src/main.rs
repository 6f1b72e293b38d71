//! The `proofmill` command.

use std::process::ExitCode;

use proofmill_node::cli::Cli;

fn main() -> ExitCode {
    Cli::main()
}
