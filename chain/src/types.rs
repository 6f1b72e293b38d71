//! The wire and ledger types.

pub mod account;
pub mod block;
pub mod genesis;
pub mod hash;
pub mod params;
pub mod receipt;
pub mod record;
pub mod task;
pub mod transaction;
pub mod units;
pub mod validator;
pub mod worker;
