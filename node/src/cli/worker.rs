//! `proofmill worker`: register a device, run it.
