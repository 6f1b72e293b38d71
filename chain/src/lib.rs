//! What every Proofmill node agrees on: types, verification, state, tasks and execution.
//!
//! This crate is pure. It does no I/O, reads no clock and draws no random numbers; time, storage
//! and the machine that judges programs are arguments. Equal inputs give equal outputs on every
//! node, whatever ran in parallel.

pub mod assign;
pub mod build;
pub mod check;
pub mod codec;
pub mod crypto;
pub mod execute;
pub mod finality;
pub mod machine;
pub mod merkle;
pub mod pipeline;
pub mod state;
pub mod task;
pub mod tree;
pub mod types;
pub mod upgrades;
