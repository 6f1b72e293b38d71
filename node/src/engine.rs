//! The node's heart: the chain over the store, as consensus and the front end use it.
//!
//! ```text
//!   front end, gossip ──admit──▶ pools ──propose──▶ consensus ──validate, commit──▶ store
//! ```
//!
//! [`Engine`] owns the pools and the blocks that were found valid and wait for their decision.
//! Everything that changes the chain goes through [`Engine::apply`], one height after the other.

mod admit;
mod ahead;
pub mod application;
mod pace;
mod proposer;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proofmill_chain::build::{BuildError, Offer, Unsigned, build_from};
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::{Backend, BatchSecret, Verifier};
use proofmill_chain::execute::sum_supply;
use proofmill_chain::finality::{TurnError, check_turn};
use proofmill_chain::pipeline::{
    self, BlockError, Context, IdentifiedBlock, SealedBlock, SeenTransactions,
};
use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::block::{Certificate, Header, version_of};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_chain::upgrades::{Schedule, UnknownVersion};
use proofmill_signer::Signer;
use tokio::sync::{Notify, watch};

pub use self::admit::{AdmitError, Taken};
pub use self::ahead::{AHEAD_BLOCKS, AHEAD_EXPIRY_BLOCKS, AHEAD_MODULES_MAX, Ahead};
use self::proposer::AsProposer;
pub use self::trouble::Trouble;
use crate::gossip::GossipHandle;
use crate::machine::ComputeMachine;
use crate::mempool::{AttestationLimits, AttestationPool, Mempool, MempoolLimits};
use crate::store::{CommitBatch, Head, Store, StoreError};
use crate::upgrades::UpgradeNeeded;

/// Most valid blocks of one height kept until one is decided.
const SEALED_MAX: usize = 16;
/// Identified blocks kept until they are judged; others are identified once more.
const IDENTIFIED_MAX: usize = 4;

/// Our own trouble: what stops the node rather than let it do something wrong.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The signer declined: a lost turn, or trouble that the signer reports itself.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// The ledger's law is broken.
    #[error("supply check at height {height}: {reason}")]
    Supply {
        /// After which block.
        height: Height,
        /// How.
        reason: String,
    },
    /// The next height has rules that this program does not know.
    #[error(transparent)]
    Upgrade(#[from] UpgradeNeeded),
    /// A decided block is not valid here: this node and the others disagree.
    #[error("decided block {height} is not valid on this node: {reason}")]
    Disagreement {
        /// Which.
        height: Height,
        /// Why.
        reason: String,
    },
}

impl From<UnknownVersion> for EngineError {
    fn from(unknown: UnknownVersion) -> Self {
        Self::Upgrade(unknown.into())
    }
}

/// What an engine is made of.
pub struct EngineParts {
    /// What the chain starts from.
    pub genesis: Genesis,
    /// Which rules hold at which height.
    pub schedule: Schedule,
    /// The data directory.
    pub store: Store,
    /// Its consensus key.
    pub validator: AccountId,
    /// Signs for that key when it is a validator's.
    pub signer: Option<Arc<dyn Signer>>,
    /// The node's own secret for batch verification.
    pub secret: BatchSecret,
    /// Where it remembers the transactions that it has verified.
    pub seen: SeenTransactions,
    /// How many decompressed keys are kept.
    pub keys_cached_max: usize,
    /// How long a height may stay without a block when there is no work.
    pub idle: Duration,
    /// The whole state is summed up every so many blocks; 0 for never.
    pub verify_supply_every: u64,
}

impl From<BuildError> for EngineError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::State(error) => Self::State(error),
            BuildError::Unsigned(error) => Self::Unsigned(error),
        }
    }
}

/// The chain over its store.
pub struct Engine {
    genesis: Genesis,
    schedule: Schedule,
    genesis_hash: Hash,
    validators: ValidatorSet,
    store: Store,
    machine: ComputeMachine,
    validator: AccountId,
    signer: Option<Arc<dyn Signer>>,
    verifier: Verifier,
    /// Transactions that were verified when they were admitted.
    seen: SeenTransactions,
    idle: Duration,
    verify_supply_every: u64,
    pools: Mutex<Pools>,
    /// There may be modules to be judged ahead.
    modules: Notify,
    /// Valid blocks of the next height, by hash.
    sealed: Mutex<BTreeMap<Hash, Arc<SealedBlock>>>,
    /// Blocks that were identified and not judged yet, oldest first.
    identified: Mutex<VecDeque<IdentifiedBlock>>,
    head: watch::Sender<Head>,
    last_commit: Mutex<Instant>,
    work: Notify,
    gossip: OnceLock<GossipHandle>,
    trouble: watch::Sender<Option<Trouble>>,
}

/// What waits for a block.
pub(crate) struct Pools {
    pub(crate) transactions: Mempool,
    pub(crate) attestations: AttestationPool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a lock was held left consistent data: every change under these locks is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of this machine, milliseconds since the Unix epoch.
#[must_use]
pub fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Engine {
    /// Puts an engine together.
    ///
    /// # Errors
    /// When the genesis has no valid validator set.
    ///
    /// # Panics
    /// Never: the verifier's backend is one that this processor has.
    pub fn new(parts: EngineParts) -> Result<Self, EngineError> {
        let validators = parts
            .genesis
            .validator_set()
            .map_err(|error| EngineError::Store(StoreError::Genesis(error)))?;
        let genesis_hash = parts.genesis.hash();
        let next = parts.store.head().height.next();
        let rates = parts.schedule.known_at(next).params().fee_rates();
        let verifier = Verifier::with(parts.secret, Backend::detect(), parts.keys_cached_max)
            .expect("the backend was detected");
        let pools = Pools {
            transactions: Mempool::new(genesis_hash, rates, MempoolLimits::default()),
            attestations: AttestationPool::new(genesis_hash, AttestationLimits::default()),
        };
        Ok(Self {
            genesis_hash,
            validators,
            head: watch::Sender::new(parts.store.head()),
            genesis: parts.genesis,
            schedule: parts.schedule,
            store: parts.store,
            machine: ComputeMachine::default(),
            validator: parts.validator,
            signer: parts.signer,
            seen: parts.seen,
            verifier,
            idle: parts.idle,
            verify_supply_every: parts.verify_supply_every,
            pools: Mutex::new(pools),
            modules: Notify::new(),
            sealed: Mutex::default(),
            identified: Mutex::default(),
            last_commit: Mutex::new(Instant::now()),
            work: Notify::new(),
            gossip: OnceLock::new(),
            trouble: watch::Sender::new(None),
        })
    }

    /// Says where admitted transactions and attestations are passed on.
    pub fn attach_gossip(&self, gossip: GossipHandle) {
        // A second handle is ignored: there is one gossip per node.
        let _ = self.gossip.set(gossip);
    }

    /// The gossip, once attached.
    #[must_use]
    pub fn gossip(&self) -> Option<&GossipHandle> {
        self.gossip.get()
    }

    /// What the chain starts from.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Genesis hash.
    #[must_use]
    pub const fn genesis_hash(&self) -> Hash {
        self.genesis_hash
    }

    /// How long a height may stay without a block when there is no work.
    #[must_use]
    pub const fn idle(&self) -> Duration {
        self.idle
    }

    /// Which rules hold at which height.
    #[must_use]
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The largest block under any of the rules that this program can follow.
    #[must_use]
    pub fn block_bytes_max(&self) -> usize {
        let sizes = self.schedule.known_rules();
        let sizes = sizes.map(|(_, rules)| rules.params().block_bytes_max as usize);
        sizes.max().unwrap_or_default()
    }

    /// The parameters of the next height, or the last ones that this program knows.
    #[must_use]
    pub fn params(&self) -> &Params {
        // Not by the store's head: whoever holds the state may ask, and its lock must not be taken twice.
        self.params_after(self.head.borrow().height)
    }

    /// The parameters of the height after `head`, or the last ones that this program knows.
    fn params_after(&self, head: Height) -> &Params {
        self.schedule.known_at(head.next()).params()
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &ComputeMachine {
        &self.machine
    }

    /// This validator's consensus key.
    #[must_use]
    pub const fn validator(&self) -> AccountId {
        self.validator
    }

    /// The validators of any height: genesis fixes them.
    #[must_use]
    pub const fn validators(&self) -> &ValidatorSet {
        &self.validators
    }

    /// The last committed block, and every later one.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Who also holds the state takes the state's lock first.
    pub(crate) fn pools(&self) -> MutexGuard<'_, Pools> {
        locked(&self.pools)
    }

    /// Runs `judge` with what a block of the next height is judged against.
    fn with_context<T>(&self, judge: impl FnOnce(&Context<'_>) -> T) -> Result<T, UnknownVersion> {
        let state = self.store.state();
        let head = state.head();
        let rules = self.schedule.at(head.height.next())?;
        Ok(judge(&Context {
            genesis: &self.genesis_hash,
            rules,
            parent_height: head.height,
            parent: &head.hash,
            parent_validators: &self.validators,
            state: &state,
            tree: state.tree(),
            machine: &self.machine,
            verifier: &self.verifier,
            seen: Some(&self.seen),
        }))
    }

    /// Finds out which block some bytes are, and keeps it until it is judged. Blocking.
    ///
    /// # Errors
    /// Why they are no block's bytes: the fault of whoever sent them.
    pub fn identify(&self, bytes: &[u8]) -> Result<(Hash, Header), BlockError> {
        // A block of the height after the next may have another version; whether it has its height's is
        // judged with its parent.
        let next = self.store.head().height.next();
        let named = version_of(bytes).and_then(|version| self.schedule.of_version(version));
        let rules = named.unwrap_or_else(|| self.schedule.known_at(next));
        let decoded = pipeline::decode(bytes, rules)?;
        let identified = pipeline::identify(decoded, &self.genesis_hash, Some(&self.seen))?;
        let named = (identified.hash(), identified.block().header.clone());
        let mut kept = locked(&self.identified);
        if kept.len() == IDENTIFIED_MAX {
            kept.pop_front();
        }
        kept.push_back(identified);
        Ok(named)
    }

    fn take_identified(&self, block: &Hash) -> Option<IdentifiedBlock> {
        let mut kept = locked(&self.identified);
        let at = kept.iter().position(|kept| kept.hash() == *block)?;
        kept.remove(at)
    }

    /// Judges a block of the next height, whose hash is known to be `block`, and keeps it when it is
    /// valid. Blocking.
    ///
    /// # Errors
    /// The rule it breaks, or our own trouble.
    pub fn judge(&self, block: &Hash, bytes: &[u8]) -> Result<Arc<SealedBlock>, BlockError> {
        let identified = self.take_identified(block);
        let judged = self
            .with_context(|context| match identified {
                Some(identified) => pipeline::validate_identified(identified, context),
                None => pipeline::validate(bytes, context),
            })
            .map_err(BlockError::from)
            .flatten();
        let sealed = Arc::new(self.watched(judged, BlockError::is_ours)?);
        let mut kept = locked(&self.sealed);
        if kept.len() < SEALED_MAX {
            kept.insert(sealed.hash(), Arc::clone(&sealed));
        }
        Ok(sealed)
    }

    /// The header-round rule, for a block that is proposed or was decided in `round`.
    ///
    /// # Errors
    /// When the block was not built by the proposer of its round, or was built later.
    pub fn check_turn(&self, sealed: &SealedBlock, round: Round) -> Result<(), TurnError> {
        check_turn(&sealed.block().header.turn(), &self.validators, round)
    }

    /// Builds this validator's block for a round of the next height. Blocking.
    ///
    /// # Errors
    /// When the store or the state cannot be read, or the signer refuses the header.
    pub fn propose(&self, round: Round) -> Result<(Hash, Vec<u8>), EngineError> {
        let ours = |error: &EngineError| !matches!(error, EngineError::Unsigned(_));
        self.watched(self.build(round), ours)
    }

    fn build(&self, round: Round) -> Result<(Hash, Vec<u8>), EngineError> {
        let head = self.store.head();
        let params = self.params_after(head.height);
        let certificate = match head.height {
            Height::ZERO => None,
            height => self.store.certificate(height)?,
        };
        let (mut transactions, attestations) = {
            let pools = self.pools();
            let attestations = pools.attestations.select(
                params.block_bytes_max as usize,
                params.block_attestations_max as usize,
            );
            (pools.transactions.candidates(), attestations)
        };
        let offer = Offer {
            transactions: &mut transactions,
            attestations,
            certificate,
        };
        let broken = OnceLock::new();
        let built = self.with_context(|context| {
            build_from(
                context,
                round,
                clock_ms(),
                &AsProposer {
                    signer: self.signer.as_deref(),
                    broken: &broken,
                },
                offer,
            )
        });
        // Without a signer that can keep what it signs a validator must stop, not fall silent.
        if let Some(reason) = broken.into_inner() {
            self.stop_for(Trouble::Failed(format!("the signer: {reason}")));
        }
        let built = built??;
        for (id, reason) in &built.refused {
            tracing::debug!(%id, %reason, "a waiting transaction does not fit the head");
        }
        for (id, reason) in &built.void {
            tracing::debug!(%id, %reason, "a waiting attestation does not fit the head");
        }
        Ok((built.hash, codec::encode(&built.block)))
    }

    /// Keeps a proposal until its height is decided. Blocking; durable when it returns.
    ///
    /// # Errors
    /// When the disk fails; that stops the node.
    pub fn keep_undecided(
        &self,
        height: Height,
        round: Round,
        block: &Hash,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let kept = self.store.put_undecided(height, round, block, bytes);
        self.watched(kept, |_| true)
    }

    /// Makes a decided block the head. Blocking; durable when it returns.
    ///
    /// # Errors
    /// Every error is fatal: the node must stop. [`EngineError::Upgrade`] says that the block is
    /// committed and the next one needs another release.
    pub fn apply(&self, certificate: &Certificate, bytes: &[u8]) -> Result<(), EngineError> {
        // What is only staged is not done: a write that failed must not pass for one that was made.
        if certificate.height <= self.store.durable_head().height {
            return Ok(());
        }
        let head = self.store.head();
        let known = locked(&self.sealed).remove(&certificate.block);
        let sealed = match known.filter(|sealed| sealed.block().header.parent == head.hash) {
            Some(sealed) => sealed,
            None => self
                .with_context(|context| pipeline::validate(bytes, context))?
                .map(Arc::new)
                .map_err(|error| match error {
                    BlockError::Ours(error) => EngineError::State(error),
                    error => EngineError::Disagreement {
                        height: certificate.height,
                        reason: error.to_string(),
                    },
                })?,
        };
        if sealed.hash() != certificate.block {
            return Err(EngineError::Disagreement {
                height: certificate.height,
                reason: format!(
                    "the bytes are block {}, the certificate is for {}",
                    sealed.hash(),
                    certificate.block
                ),
            });
        }
        self.check_turn(&sealed, certificate.round)
            .map_err(|error| EngineError::Disagreement {
                height: certificate.height,
                reason: error.to_string(),
            })?;
        self.commit(&sealed, certificate)?;
        self.after_commit(&sealed)?;
        Ok(self.check_next_rules()?)
    }

    fn commit(&self, sealed: &SealedBlock, certificate: &Certificate) -> Result<(), EngineError> {
        self.store.commit(&CommitBatch::of(sealed, certificate))?;
        let block = sealed.block();
        tracing::info!(
            height = %block.header.height,
            hash = %sealed.hash().short(),
            round = %certificate.round,
            transactions = block.transactions.len(),
            attestations = block.attestations.len(),
            assignments = block.assignments.len(),
            "block committed"
        );
        Ok(())
    }

    fn after_commit(&self, sealed: &SealedBlock) -> Result<(), EngineError> {
        let head = self.store.head();
        locked(&self.sealed).clear();
        locked(&self.identified).clear();
        let every = self.verify_supply_every;
        if every > 0 && head.height.get().is_multiple_of(every) {
            self.verify_supply(head.height)?;
        }
        {
            let rates = self.params_after(head.height).fee_rates();
            let state = self.store.state();
            let mut pools = self.pools();
            let mut dropped = pools.transactions.set_rates(rates);
            let gone =
                pools
                    .transactions
                    .committed(&sealed.block().transactions, head.height, |id| {
                        Overlay::new(&state).account(*id)
                    })?;
            dropped.extend(gone);
            for id in dropped {
                tracing::debug!(%id, "a waiting transaction can no longer be included");
            }
            self.update_attestations(&state, &mut pools.attestations)?;
        }
        *locked(&self.last_commit) = Instant::now();
        self.head.send_replace(head);
        self.work.notify_waiters();
        self.modules.notify_one();
        Ok(())
    }

    /// Sums the whole state up and compares it with what genesis, burns and rewards account for.
    fn verify_supply(&self, height: Height) -> Result<(), EngineError> {
        let mut records = Vec::new();
        self.store
            .scan_state(|_, bytes| records.push(bytes.to_vec()))?;
        let held =
            sum_supply(records.iter().map(Vec::as_slice)).map_err(|error| EngineError::Supply {
                height,
                reason: error.to_string(),
            })?;
        tracing::debug!(%height, held, "the supply adds up");
        Ok(())
    }
}
