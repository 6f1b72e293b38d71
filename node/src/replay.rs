//! A stored chain, verified again from its first block.
//!
//! ```text
//! stored bytes ─decode, check, verify, execute, seal─▶ block ─certificate─▶ index ─▶ scratch state
//! ```
//! Nothing is taken from the stored state: it grows from genesis in memory, block by block. The
//! stored chain is only read, and of its blocks no more than one is held.

use std::path::Path;
use std::time::{Duration, Instant};

use proofmill_chain::crypto::verify::{BatchSecret, Verifier};
use proofmill_chain::finality::{CertificateError, TurnError, check_turn, verify_certificate};
use proofmill_chain::pipeline::{BlockError, Context, SealedBlock, validate};
use proofmill_chain::state::memory::MemoryState;
use proofmill_chain::tree::TreeError;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_chain::upgrades::{Schedule, UnknownVersion};
use serde::Serialize;

use crate::machine::ComputeMachine;
use crate::store::{History, StoreError};

/// Which blocks are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first; 1 when left out. Those before it are verified and not counted.
    pub from: Option<u64>,
    /// The last; the head when left out.
    pub to: Option<u64>,
}

/// Why a chain does not replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A height that is none.
    #[error("--{flag} {given}: {rule}")]
    Range {
        /// Which.
        flag: &'static str,
        /// Its value.
        given: u64,
        /// What it must be.
        rule: String,
    },
    /// There is nothing to replay.
    #[error("the chain is at its genesis: it has no block to replay")]
    Empty,
    /// The data directory cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block or what belongs to it cannot be read.
    #[error("block {height}: {error}")]
    Unreadable {
        /// Which.
        height: Height,
        /// Why.
        error: StoreError,
    },
    /// A block breaks a rule.
    #[error("block {height} is not valid: {error}")]
    Invalid {
        /// Which.
        height: Height,
        /// Which rule.
        error: BlockError,
    },
    /// A block's certificate proves nothing.
    #[error("block {height} is not final: {error}")]
    NotFinal {
        /// Which.
        height: Height,
        /// Why.
        error: CertificateError,
    },
    /// A block was decided out of its turn.
    #[error("block {height} was decided out of turn: {error}")]
    Turn {
        /// Which.
        height: Height,
        /// Which rule.
        error: TurnError,
    },
    /// The block is not the one that the index names.
    #[error("block {height} has the hash {computed}, which the index does not know at that height")]
    Index {
        /// Which.
        height: Height,
        /// Its hash.
        computed: Hash,
    },
    /// A block follows rules that this program does not know.
    #[error(transparent)]
    Upgrade(#[from] UnknownVersion),
    /// The state does not fit into memory's tree.
    #[error("the state tree: {0}")]
    Tree(#[from] TreeError),
    /// The system has no randomness.
    #[error("the system gave no random numbers: {0}")]
    Random(String),
}

/// What was replayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// The first counted height.
    pub from: Height,
    /// The last.
    pub to: Height,
    /// Blocks verified before the first counted one.
    pub blocks_before: u64,
    /// Blocks counted.
    pub blocks: u64,
    /// Their transactions.
    pub transactions: u64,
    /// Their attestations.
    pub attestations: u64,
    /// Their encoded bytes.
    pub bytes: u64,
    /// How long they took, seconds.
    pub seconds: f64,
    /// Blocks per second.
    pub blocks_per_s: f64,
    /// Transactions per second.
    pub tx_per_s: f64,
    /// Hash of the last block.
    pub hash: Hash,
    /// State root after it, computed here.
    pub state_root: Hash,
}

/// How far a replay is: the height done, the last one, and whether the counted part has begun.
pub type Progress<'a> = &'a mut dyn FnMut(Height, Height, bool);

/// Replays the chain of a data directory.
///
/// # Errors
/// The first block that cannot be read, is not valid or not final, by its height.
pub fn replay(
    database: &Path,
    genesis: &Genesis,
    schedule: &Schedule,
    range: Range,
    progress: Progress<'_>,
) -> Result<Replayed, ReplayError> {
    let history = History::open(database, genesis)?;
    let (from, to) = range.within(history.head()?)?;
    let mut scratch = Scratch::new(genesis, schedule)?;
    let mut done = Replayed {
        from,
        to,
        blocks_before: from.get() - 1,
        blocks: 0,
        transactions: 0,
        attestations: 0,
        bytes: 0,
        seconds: 0.0,
        blocks_per_s: 0.0,
        tx_per_s: 0.0,
        hash: Hash::ZERO,
        state_root: Hash::ZERO,
    };
    let mut took = Duration::ZERO;
    for height in (1..=to.get()).map(Height::new) {
        let counted = height >= from;
        let start = Instant::now();
        let (sealed, bytes) = scratch.verify(&history, height)?;
        scratch.apply(&sealed)?;
        if counted {
            took += start.elapsed();
            done.blocks += 1;
            done.transactions += sealed.block().transactions.len() as u64;
            done.attestations += sealed.block().attestations.len() as u64;
            done.bytes += bytes as u64;
        }
        progress(height, to, counted);
    }
    done.seconds = took.as_secs_f64();
    done.blocks_per_s = done.blocks as f64 / done.seconds;
    done.tx_per_s = done.transactions as f64 / done.seconds;
    done.hash = scratch.parent;
    done.state_root = scratch.state.tree().root();
    Ok(done)
}

impl Range {
    fn within(&self, head: Height) -> Result<(Height, Height), ReplayError> {
        let refuse = |flag, given, rule| Err(ReplayError::Range { flag, given, rule });
        if head == Height::ZERO {
            return Err(ReplayError::Empty);
        }
        let to = self.to.unwrap_or_else(|| head.get());
        if to == 0 || to > head.get() {
            return refuse("to", to, format!("the chain has blocks 1 to {head}"));
        }
        let from = self.from.unwrap_or(1);
        if from == 0 || from > to {
            return refuse("from", from, format!("1 to {to} are possible"));
        }
        Ok((Height::new(from), Height::new(to)))
    }
}

/// The chain as it grows again.
struct Scratch<'a> {
    genesis: Hash,
    schedule: &'a Schedule,
    validators: ValidatorSet,
    machine: ComputeMachine,
    verifier: Verifier,
    state: MemoryState,
    height: Height,
    parent: Hash,
}

impl<'a> Scratch<'a> {
    fn new(genesis: &Genesis, schedule: &'a Schedule) -> Result<Self, ReplayError> {
        let writes = genesis.state().map_err(StoreError::from)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| ReplayError::Random(error.to_string()))?;
        Ok(Self {
            genesis: genesis.hash(),
            schedule,
            validators: genesis.validator_set().map_err(StoreError::from)?,
            machine: ComputeMachine::default(),
            verifier: Verifier::new(BatchSecret::new(secret)),
            state: MemoryState::genesis(&writes)?,
            height: Height::ZERO,
            parent: genesis.hash(),
        })
    }

    /// The stored block of the next height, found valid and final, and its length.
    fn verify(
        &self,
        history: &History,
        height: Height,
    ) -> Result<(SealedBlock, usize), ReplayError> {
        let unreadable = |error| ReplayError::Unreadable { height, error };
        let bytes = history.block_bytes(height).map_err(unreadable)?;
        let certificate = history.certificate(height).map_err(unreadable)?;
        let sealed = validate(&bytes, &self.context()?)
            .map_err(|error| ReplayError::Invalid { height, error })?;
        let computed = sealed.hash();
        verify_certificate(
            &self.genesis,
            &self.validators,
            height,
            &computed,
            &certificate,
        )
        .map_err(|error| ReplayError::NotFinal { height, error })?;
        let turn = sealed.block().header.turn();
        check_turn(&turn, &self.validators, certificate.round)
            .map_err(|error| ReplayError::Turn { height, error })?;
        if history.height_of(&computed).map_err(unreadable)? != Some(height) {
            return Err(ReplayError::Index { height, computed });
        }
        Ok((sealed, bytes.len()))
    }

    fn context(&self) -> Result<Context<'_>, UnknownVersion> {
        Ok(Context {
            genesis: &self.genesis,
            rules: self.schedule.at(self.height.next())?,
            parent_height: self.height,
            parent: &self.parent,
            parent_validators: &self.validators,
            state: &self.state,
            tree: self.state.tree(),
            machine: &self.machine,
            verifier: &self.verifier,
            seen: None,
        })
    }

    fn apply(&mut self, sealed: &SealedBlock) -> Result<(), TreeError> {
        self.state.apply(&sealed.effects().writes, sealed.patch())?;
        self.height = sealed.block().header.height;
        self.parent = sealed.hash();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::units::Height;

    use super::{Range, ReplayError};

    #[test]
    fn a_range_lies_within_the_chain_or_is_told_what_does() {
        let of = |from, to| Range { from, to }.within(Height::new(9));
        let heights = |from, to| (Height::new(from), Height::new(to));
        assert_eq!(of(None, None).expect("all"), heights(1, 9));
        assert_eq!(of(Some(3), None).expect("a part"), heights(3, 9));
        assert_eq!(of(Some(3), Some(3)).expect("one block"), heights(3, 3));
        for (from, to, words) in [
            (Some(0), None, "--from 0: 1 to 9 are possible"),
            (Some(10), None, "--from 10: 1 to 9 are possible"),
            (Some(5), Some(4), "--from 5: 1 to 4 are possible"),
            (None, Some(10), "--to 10: the chain has blocks 1 to 9"),
            (None, Some(0), "--to 0: the chain has blocks 1 to 9"),
        ] {
            assert_eq!(of(from, to).expect_err("no such range").to_string(), words);
        }
        let empty = Range::default().within(Height::ZERO);
        assert!(matches!(empty, Err(ReplayError::Empty)));
    }
}
