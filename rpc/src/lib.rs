//! The JSON-RPC 2.0 front end: one method table, one catalogue of errors, and axum to carry them.
//!
//! The way of a request: `http` reads a bounded body, `request` takes it apart into calls,
//! [`methods`] finds the method and reads its parameters, and the node answers through [`port`].
//! This crate knows no database and no network of validators; it only knows the two traits.

pub mod api;
pub mod client;
pub mod error;
pub mod http;
pub mod methods;
pub mod port;

mod argument;
mod connection;
mod request;

/// RPC port of the first node of a development network; node `i` listens on this port plus `i`.
pub const DEVNET_PORT: u16 = 26_650;
