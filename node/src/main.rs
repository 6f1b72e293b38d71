//! The `proofmill` command.

use std::process::ExitCode;

use clap::Parser;
use proofmill_node::allocator::keep_freed_memory;
use proofmill_node::cli::Cli;

fn main() -> ExitCode {
    keep_freed_memory();
    Cli::parse().execute()
}
