//! The parts of Proofmill's node that have effects: disk, memory pool and network.

pub mod gossip;
pub mod mempool;
pub mod store;
