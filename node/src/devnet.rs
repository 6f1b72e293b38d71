//! A development network on this machine: every validator and worker a process of its own.
//!
//! ```text
//! lay out homes ─▶ choose ports ─▶ validators ready ─▶ workers ready ─▶ first block on all
//!                                                          │
//!                   summary ◀─ validators stop ◀─ workers stop ◀─ signal
//! ```
//! The devnet holds the standard input of each child open: when it ends, however it ends, the
//! children see the end of their input and stop too.

mod genesis;
mod head;
mod layout;
mod network;
mod ports;
mod process;
mod ready;
mod run;
mod status;

use std::path::PathBuf;

use proofmill_chain::upgrades::{KnownVersion, Upgrade};

pub use self::genesis::{BLOCK_PROGRAM_BYTES_MAX, CHAIN_ID, genesis};
pub use self::layout::LayoutError;
pub use self::ports::{NodePorts, PortError};
pub use self::ready::{AccountReady, FaucetReady, NodeReady, Ready, ValidatorReady, WorkerReady};
pub use self::run::{AllNeedUpgrade, Event, Summary, run};
pub use self::status::{Status, ValidatorStatus, WorkerStatus, status};

/// How many validators a development network has, unless told.
pub const VALIDATORS: u32 = 4;
/// How many workers a development network has, unless told.
pub const WORKERS: u32 = 3;
/// Most validators: each is a process.
pub const VALIDATORS_MAX: u32 = 16;
/// Most workers: each is a process.
pub const WORKERS_MAX: u32 = 32;
/// The first validator's RPC port, unless told.
pub const PORT: u16 = proofmill_rpc::DEVNET_PORT;

/// What is asked of a development network.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory.
    pub home: PathBuf,
    /// How many validators; when left out, as many as are laid out, or [`VALIDATORS`].
    pub validators: Option<u32>,
    /// How many workers; when left out, as many as are laid out, or [`WORKERS`].
    pub workers: Option<u32>,
    /// The first RPC port; 0 for any free ports.
    pub port: u16,
    /// A file to write when all is ready, beside the one in `home`.
    pub ready_file: Option<PathBuf>,
    /// Whether to begin anew.
    pub reset: bool,
    /// The upgrades that its genesis files get; when left out they stay as they are.
    pub upgrades: Option<Vec<Upgrade>>,
    /// The protocol versions that this program knows.
    pub known: &'static [KnownVersion],
}
