//! What the node gives the engine: the four calls of consensus and its memory.

use std::sync::Arc;

use async_trait::async_trait;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use crate::core::{BlockFacts, Verdict};
use crate::undecided::UndecidedProposal;

/// Why the application could not do what it was asked: our own trouble, never a peer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AppError(String);

impl AppError {
    /// An error that says `reason`.
    #[must_use]
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// A block that this node proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedBlock {
    /// Hash of its header: what consensus decides.
    pub hash: Hash,
    /// The whole block.
    pub bytes: Arc<[u8]>,
}

/// A committed block: why it is final, and its bytes.
pub type DecidedBlock = (Certificate, Arc<[u8]>);

/// What the node gives the engine.
///
/// Every call may be slow: each runs off the engine's message loop, the plain ones on a thread
/// that may block, the `async` ones in a task (long computations inside them belong on such a
/// thread too). Heights are committed in order, and a block is judged or built only when its
/// parent is committed.
#[async_trait]
pub trait Application: Send + Sync + 'static {
    /// Genesis hash, which every signature covers.
    fn chain(&self) -> Hash;

    /// The machine's clock, milliseconds since the Unix epoch.
    fn clock_ms(&self) -> u64;

    /// Last committed height; 0 is genesis.
    fn head(&self) -> Height;

    /// The validators of a height, known for every height up to head + 1.
    fn validators(&self, height: Height) -> Option<ValidatorSet>;

    /// Builds a block for a height and round on top of the head. Called only when nothing is
    /// stored for that height and round by this node.
    ///
    /// # Errors
    /// When no block can be built; the round then passes without our proposal.
    async fn propose(&self, height: Height, round: Round) -> Result<ProposedBlock, AppError>;

    /// Finds out which block the bytes are: exactly those that the returned hash names, all of them
    /// committed to by the hash or, like the builder's signature, verified against it. Needs no state
    /// and may be asked of any height.
    ///
    /// # Errors
    /// Why they are no block's bytes: the fault of whoever sent them.
    fn inspect(&self, bytes: &[u8]) -> Result<BlockFacts, String>;

    /// Judges a block, which [`Self::inspect`] found to have the hash `block`, fully against the
    /// head. `round` is the one in which it is proposed or was
    /// decided; a block first built in an earlier round may be proposed again. The local clock has
    /// no say: the caller has applied [`crate::CLOCK_DRIFT_MS_MAX`] where it applies.
    async fn validate(
        &self,
        height: Height,
        round: Round,
        block: Hash,
        bytes: Arc<[u8]>,
    ) -> Verdict;

    /// Makes a block final; durable when it returns. For a height already committed it does
    /// nothing. Undecided proposals up to this height may be forgotten afterwards.
    ///
    /// # Errors
    /// Any error stops the engine for good: a node that cannot commit must not vote.
    async fn commit(&self, certificate: Certificate, bytes: Arc<[u8]>) -> Result<(), AppError>;

    /// Hears of bytes that are no valid block here although a certificate by the validators of the height
    /// names `block` as its hash. `bytes` are what a peer says has that hash; they may be anything. When
    /// they have it, consensus ends next, so that this call can say more of the reason.
    fn certified_invalid(&self, height: Height, block: &Hash, bytes: &[u8]);

    /// The first height whose block can be served to others.
    fn history_min(&self) -> Height;

    /// A committed block with its certificate, `None` when there is none of that height.
    ///
    /// # Errors
    /// When it cannot be read; the peer that asked gets what comes before it.
    fn decided(&self, height: Height) -> Result<Option<DecidedBlock>, AppError>;

    /// Stores a proposal so that it survives a crash; durable when it returns.
    ///
    /// # Errors
    /// When it cannot be stored; the proposal is then treated as never received.
    fn store_undecided(&self, proposal: &UndecidedProposal) -> Result<(), AppError>;

    /// The proposals stored for a height that is not committed.
    ///
    /// # Errors
    /// When they cannot be read; the engine stops, because it could contradict itself without.
    fn undecided(&self, height: Height) -> Result<Vec<UndecidedProposal>, AppError>;

    /// Returns when the next height should start: at once when there is work, else after the idle
    /// interval. It is dropped early when others show that the next height has begun, and not asked
    /// at all while the node catches up.
    async fn next_height_due(&self);
}
