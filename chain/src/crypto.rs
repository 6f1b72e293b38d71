//! Signatures, the beacon's verifiable random function, and hashes of many messages.

pub(crate) mod sha256;
pub mod sign;
pub mod verify;
pub mod vrf;
