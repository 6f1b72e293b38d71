//! The bench's one place that knows how the store gives out its state and takes a block in.

use std::path::Path;

use proofmill_chain::pipeline::{Context, SealedBlock, tree_after};
use proofmill_chain::state::overlay::WriteSet;
use proofmill_chain::tree::Patch;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_chain::upgrades::{RELEASED, Rules, Schedule};

use crate::bench::seen::Seen;
use crate::bench::verifier::Keys;
use crate::machine::ComputeMachine;
use crate::store::{CommitBatch, Head, Store, StoreError};

/// A chain's store with what its blocks are judged by.
pub struct Ledger {
    store: Store,
    genesis: Hash,
    rules: Rules,
    validators: ValidatorSet,
    machine: ComputeMachine,
}

impl Ledger {
    /// Opens a directory, or makes a chain that is at its genesis in an empty one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(path, genesis)?,
            genesis: genesis.hash(),
            rules: genesis_rules(genesis)?,
            validators: genesis.validator_set()?,
            machine: ComputeMachine::default(),
        })
    }

    /// The last committed block.
    #[must_use]
    pub fn head(&self) -> Head {
        self.store.head()
    }

    /// Genesis hash.
    #[must_use]
    pub const fn genesis(&self) -> &Hash {
        &self.genesis
    }

    /// The validators of every height.
    #[must_use]
    pub const fn validators(&self) -> &ValidatorSet {
        &self.validators
    }

    /// Runs `judge` with what the next block is judged against.
    pub fn with_context<T>(
        &self,
        keys: &Keys,
        seen: &Seen,
        judge: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        let state = self.store.state();
        let head = state.head();
        judge(&Context {
            genesis: &self.genesis,
            rules: &self.rules,
            parent_height: head.height,
            parent: &head.hash,
            parent_validators: &self.validators,
            state: &state,
            tree: state.tree(),
            machine: &self.machine,
            verifier: keys.verifier(),
            seen: seen.transactions(),
        })
    }

    /// Makes a block the head in memory.
    ///
    /// # Errors
    /// As [`Store::stage`].
    pub fn stage(&self, sealed: &SealedBlock, certificate: &Certificate) -> Result<(), StoreError> {
        self.store.stage(&CommitBatch::of(sealed, certificate))
    }

    /// Makes a staged block durable.
    ///
    /// # Errors
    /// As [`Store::persist`].
    pub fn persist(
        &self,
        sealed: &SealedBlock,
        certificate: &Certificate,
    ) -> Result<(), StoreError> {
        self.store.persist(&CommitBatch::of(sealed, certificate))
    }

    /// Commits a block durably, as the node does.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit(
        &self,
        sealed: &SealedBlock,
        certificate: &Certificate,
    ) -> Result<(), StoreError> {
        self.store.commit(&CommitBatch::of(sealed, certificate))
    }
}

/// The rules of a chain without upgrades.
fn genesis_rules(genesis: &Genesis) -> Result<Rules, StoreError> {
    let schedule = Schedule::new(genesis, &[], RELEASED)?;
    Ok(schedule.known_at(Height::ZERO).clone())
}

/// What a block's writes change in the state tree, with the new root. Dropping it is no part of
/// making it.
#[must_use]
pub fn patch_of(context: &Context<'_>, writes: &WriteSet) -> Patch {
    tree_after(context.tree, writes)
}
