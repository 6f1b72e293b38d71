//! The JSON-RPC 2.0 front end: one method table, one catalogue of errors, and axum to carry them.
//!
//! The way of a request: `http` accepts a connection if `connections` has a place, `routes` checks
//! the host and reads a bounded body, `work` takes it apart into calls (`request`), [`methods`] finds
//! each method and reads its parameters, the node answers through [`port`], and `answers` carries
//! the answer away in chunks that are counted (`budget`) until they are written. What is scarce is
//! shared among the addresses that ask for it (`shares`), and what takes long is worked on `aside`.
//! This crate knows no database and no network of validators; it only knows the two traits.

pub mod api;
pub mod client;
pub mod error;
pub mod http;
pub mod limits;
pub mod methods;
pub mod nearest;
pub mod port;

mod answers;
mod argument;
mod aside;
mod budget;
mod connection;
mod connections;
mod host;
mod request;
mod routes;
mod shares;
mod work;

pub use host::is_name as is_host_name;

/// RPC port of the first node of a development network; node `i` listens on this port plus `i`.
pub const DEVNET_PORT: u16 = 26_650;
