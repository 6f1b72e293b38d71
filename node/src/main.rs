//! The `proofmill` command.

fn main() {}
