//! Signatures and the beacon's verifiable random function.

pub mod sign;
pub mod verify;
pub mod vrf;
