//! Everything of Proofmill that has effects: disk, clock, sockets and processes.
//!
//! The `proofmill` program is a thin `main` over this library, so that tests and benchmarks can use
//! its parts.

pub mod admission;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod dev_keys;
pub mod devnet;
pub mod engine;
pub mod exit;
pub mod genesis_file;
pub mod gossip;
pub mod home;
pub mod keys;
pub mod limits;
pub mod machine;
pub mod manifest;
pub mod mempool;
pub mod query;
pub mod replay;
pub mod start;
pub mod stop;
pub mod store;
pub mod telemetry;
pub mod upgrades;
pub mod validator;
pub mod worker;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that the program was built from; `unknown` outside a git checkout.
pub const COMMIT: &str = env!("PROOFMILL_COMMIT");
