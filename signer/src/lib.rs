//! What a validator signs, and the guard that keeps it from contradicting itself.
//!
//! [`Signer`] is the only way to the consensus and beacon keys: the engine and the block builder
//! hold a signer, never a key. [`LocalSigner`] signs in this process; a remote signer implements
//! the same trait. Every request is whole, so that a signer can judge it without trusting its
//! caller.
//!
//! ```text
//! request ──▶ Record::decide ──▶ sign ──▶ Record::insert ──▶ GuardFile::write (synced) ──▶ signature
//!                  │                                                            leaves only here
//!                  ├─ same content ─────▶ the stored message
//!                  └─ other content ────▶ the stored vote, or a refusal
//! ```
//!
//! `record` is the decision logic: pure, without files or keys. `file` is the only module that
//! touches the disk. This crate knows neither the consensus engine nor the database.

mod file;
mod foreign;
mod local;
mod message;
mod record;
mod start;

pub use file::{GuardError, GuardFile, Step};
pub use foreign::{Foreign, Sighting};
pub use local::{LocalSigner, SignError, Signer};
pub use message::{
    Announcement, BeaconInput, Block, Message, PeerProof, Proposal, Signed, Vote,
    announcement_bytes, peer_proof_bytes, proposal_bytes, vote_bytes,
};
pub use record::{Decision, Position, ROUNDS_KEPT_MAX, Record, Refusal, Request, SignedTurn};
pub use start::{LoggedMessages, Plan, Reason, StartError, plan};
