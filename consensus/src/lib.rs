//! The adapter between the chain and the Malachite BFT engine, and the only crate that names it.
//!
//! Consensus knows no transaction: a block is opaque bytes and a hash. The node gives an
//! [`Application`] that builds, judges and commits blocks; [`EngineHandle::start`] runs the engine
//! over it. Votes and certificates are the chain's own (`proofmill_chain::finality`), so whatever
//! this crate decides can be verified without it.
//!
//! What the engine agrees on is the block's hash. The bytes travel beside it: cut into parts when
//! a block is proposed, whole when a peer that lags asks for decided blocks.
//!
//! ```text
//! engine ──AppMsg──▶ adapter ──event──▶ core ──command──▶ adapter ──one task each──▶ Application
//!        ◀─reply, value─                                     (propose, inspect, validate, commit, history)
//! ```

mod adapter;
mod application;
mod caught_up;
mod codec;
mod context;
#[doc(hidden)]
pub mod core;
mod engine;
mod network;
mod observer;
mod own_log;
mod revocable;
mod sightings;
mod signing;
mod undecided;
mod wire;

pub use application::{AppError, Application, DecidedBlock, ProposedBlock};
pub use core::{BlockFacts, CLOCK_DRIFT_MS_MAX, Verdict};
pub use engine::{
    EngineConfig, EngineError, EngineHandle, EngineStatus, LOG_TARGET, NetworkConfig, STOP_WITHIN,
    Timeouts, peer_id,
};
pub use observer::{Observed, ObservedKind, Observer};
pub use revocable::Revocable;
pub use undecided::UndecidedProposal;
