//! Genesis: everything a chain starts from, and its identity (protocol §7).

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::check::{TransactionError, check_terms};
use crate::codec;
use crate::crypto::verify::KeyError;
use crate::state::StateError;
use crate::state::overlay::{Overlay, WriteSet};
use crate::state::reader::EmptyState;
use crate::types::account::Account;
use crate::types::hash::{AccountId, Hash};
use crate::types::params::{BASE_FEE_MIN, Params, SHARE_WHOLE};
use crate::types::record::{Chain, LiveTasks, Record, StateKey, Workers};
use crate::types::units::{Amount, Height, Nonce, SUPPLY_MAX};
use crate::types::validator::{Validator, ValidatorSet, ValidatorSetError};
use crate::types::worker::{Reputation, Worker, WorkerTerms};

/// Longest chain id, in bytes.
pub const CHAIN_ID_BYTES_MAX: usize = 32;
/// Encoded bytes of a block apart from its lists and its certificate's signatures, rounded up.
const BLOCK_FRAME_BYTES: u64 = 1024;
/// Encoded bytes of an assignment.
const ASSIGNMENT_BYTES: u64 = 65;
/// Encoded bytes of a signature in a certificate.
const COMMIT_SIGNATURE_BYTES: u64 = 96;
/// A chain whose id begins so may use the well-known development keys.
pub const DEVNET_PREFIX: &str = "devnet";

/// An account that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    /// Its key.
    pub id: AccountId,
    /// What it has.
    pub balance: Amount,
}

/// A worker that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisWorker {
    /// Its key.
    pub id: AccountId,
    /// Who is paid for its work and gets the collateral back.
    pub operator: AccountId,
    /// Its collateral, made by genesis.
    pub collateral: Amount,
    /// What it offers.
    pub terms: WorkerTerms,
}

/// What a chain starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The chain's name: lower-case letters, digits and hyphens.
    pub chain_id: String,
    /// Milliseconds since the Unix epoch; the first block is later.
    pub genesis_time_ms: u64,
    /// The parameters.
    pub params: Params,
    /// The validators.
    pub validators: Vec<Validator>,
    /// The accounts.
    pub accounts: Vec<GenesisAccount>,
    /// The workers.
    pub workers: Vec<GenesisWorker>,
}

/// Why a genesis starts no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// The chain id is empty, too long or has other characters.
    #[error(
        "chain_id `{0}`: 1 to {CHAIN_ID_BYTES_MAX} lower-case letters, digits and hyphens are expected"
    )]
    ChainId(String),
    /// The validators do not make a set.
    #[error("validators: {0}")]
    Validators(#[from] ValidatorSetError),
    /// An account or worker stands twice.
    #[error("{0} stands twice")]
    Twice(AccountId),
    /// A key that may not be admitted.
    #[error("key {key}: {error}")]
    Key {
        /// The key.
        key: AccountId,
        /// Why not.
        error: KeyError,
    },
    /// A worker's terms break a rule that a registration would have to keep.
    #[error("worker {worker}: {error}")]
    WorkerTerms {
        /// The worker.
        worker: AccountId,
        /// Which.
        error: TransactionError,
    },
    /// Too much money.
    #[error("the supply reaches 2^63 grain")]
    Supply,
    /// The state could not be laid out; a bug of ours.
    #[error(transparent)]
    State(#[from] StateError),
    /// A parameter outside its range.
    #[error("params.{name} is {value}: {rule}")]
    Param {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
}

impl Genesis {
    /// The chain's identity: a hash of everything above.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of("proofmill/genesis/v1", &[&codec::encode(self)])
    }

    /// Whether the well-known development keys are allowed.
    #[must_use]
    pub fn is_devnet(&self) -> bool {
        self.chain_id.starts_with(DEVNET_PREFIX)
    }

    /// The chain's name as CAIP-2: `proofmill:<chain>`.
    #[must_use]
    pub fn caip2(&self) -> String {
        format!("proofmill:{}", self.chain_id)
    }

    /// The validator set.
    ///
    /// # Errors
    /// When the validators do not make a set.
    pub fn validator_set(&self) -> Result<ValidatorSet, GenesisError> {
        Ok(ValidatorSet::new(self.validators.clone())?)
    }

    /// The state before the first block, as writes onto nothing.
    ///
    /// # Errors
    /// When any rule for genesis is broken; see [`GenesisError`].
    pub fn state(&self) -> Result<WriteSet, GenesisError> {
        self.check()?;
        let mut supply = 0_u64;
        let mut add = |amount: Amount| {
            supply = supply
                .checked_add(amount.get())
                .filter(|sum| *sum < SUPPLY_MAX)
                .ok_or(GenesisError::Supply)?;
            Ok::<(), GenesisError>(())
        };
        let mut records = Vec::new();
        for account in &self.accounts {
            add(account.balance)?;
            records.push((
                StateKey::Account(account.id),
                Record::Account(Account {
                    balance: account.balance,
                    nonce: Nonce::ZERO,
                }),
            ));
        }
        let mut ids = Vec::new();
        for worker in &self.workers {
            add(worker.collateral)?;
            ids.push(worker.id);
            records.push((
                StateKey::Worker(worker.id),
                Record::Worker(Worker {
                    id: worker.id,
                    operator: worker.operator,
                    terms: worker.terms.clone(),
                    collateral: worker.collateral,
                    locked: Amount::ZERO,
                    seats: 0,
                    registered_at: Height::ZERO,
                    retiring: false,
                    reputation: Reputation::default(),
                }),
            ));
        }
        ids.sort_unstable();
        records.push((StateKey::Workers, Record::Workers(Workers { ids })));
        records.push((StateKey::LiveTasks, Record::LiveTasks(LiveTasks::default())));
        records.push((
            StateKey::Validators,
            Record::Validators(self.validator_set()?),
        ));
        records.push((
            StateKey::Chain,
            Record::Chain(Chain {
                height: Height::ZERO,
                time_ms: self.genesis_time_ms,
                protocol_ms: 0,
                beacon: Hash::of("proofmill/beacon/genesis/v1", &[self.hash().as_bytes()]),
                genesis_supply: Amount::new(supply),
                burned: Amount::ZERO,
                rewarded: Amount::ZERO,
            }),
        ));
        let mut overlay = Overlay::new(&EmptyState);
        for (key, record) in records {
            overlay.put(key, record)?;
        }
        Ok(overlay.into_writes()?.0)
    }

    fn check(&self) -> Result<(), GenesisError> {
        let named = !self.chain_id.is_empty()
            && self.chain_id.len() <= CHAIN_ID_BYTES_MAX
            && self
                .chain_id
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !named {
            return Err(GenesisError::ChainId(self.chain_id.clone()));
        }
        self.check_params(&self.params)?;
        for worker in &self.workers {
            let refused = |error| GenesisError::WorkerTerms {
                worker: worker.id,
                error,
            };
            check_terms(&worker.terms).map_err(refused)?;
        }
        unique(self.accounts.iter().map(|account| account.id))?;
        unique(self.workers.iter().map(|worker| worker.id))?;
        let keys = self
            .accounts
            .iter()
            .map(|account| account.id)
            .chain(self.workers.iter().flat_map(|w| [w.id, w.operator]))
            .chain(
                self.validators
                    .iter()
                    .flat_map(|v| [v.key, v.beacon_key, v.reward]),
            );
        // Thousands of accounts are common here, and each key costs some microseconds.
        let keys: Vec<_> = keys.collect();
        let refused = keys.par_iter().find_map_first(|key| {
            let error = crate::crypto::verify::admit_key(key.as_bytes()).err()?;
            Some(GenesisError::Key { key: *key, error })
        });
        if let Some(error) = refused {
            return Err(error);
        }
        Ok(())
    }

    /// Checks parameters that this chain has from the start or after an upgrade.
    pub(crate) fn check_params(&self, p: &Params) -> Result<(), GenesisError> {
        let refuse = |name, value, rule| Err(GenesisError::Param { name, value, rule });
        if p.base_fee.get() < BASE_FEE_MIN {
            return refuse("base_fee", p.base_fee.get(), "at least 8");
        }
        let shares = [p.share_workers, p.share_audits, p.share_validators]
            .iter()
            .fold(0, |sum: u64, share| sum.saturating_add(u64::from(*share)));
        if shares > SHARE_WHOLE {
            return refuse("share_*", shares, "at most 10000 together");
        }
        let most = crate::types::block::BLOCK_BYTES_MAX as u64;
        if u64::from(p.block_bytes_max) > most {
            return refuse(
                "block_bytes_max",
                p.block_bytes_max.into(),
                "at most 4194304",
            );
        }
        // Rule (protocol §4): no state of the chain may make a valid next block impossible. What a
        // proposer cannot leave out, the draws and the parent's certificate, must always fit.
        let signatures = (self.validators.len() as u64).saturating_mul(COMMIT_SIGNATURE_BYTES);
        let forced = u64::from(p.seats_per_block_max)
            .saturating_mul(ASSIGNMENT_BYTES)
            .saturating_add(signatures)
            .saturating_add(BLOCK_FRAME_BYTES);
        if u64::from(p.block_bytes_max) < forced {
            return refuse(
                "block_bytes_max",
                p.block_bytes_max.into(),
                "at least 1024 + 96 per validator + 65 per seat of seats_per_block_max",
            );
        }
        let positive = [
            ("block_transactions_max", p.block_transactions_max.into()),
            ("block_attestations_max", p.block_attestations_max.into()),
            ("assign_delay", p.assign_delay),
            ("seats_per_block_max", p.seats_per_block_max.into()),
            ("timeouts_per_block_max", p.timeouts_per_block_max.into()),
            ("commit_window_blocks", p.commit_window_blocks),
            ("commit_gas_per_ms", p.commit_gas_per_ms),
            ("commit_program_bytes_per_ms", p.commit_program_bytes_per_ms),
            ("reveal_window_blocks", p.reveal_window_blocks),
            ("block_ms_max", p.block_ms_max),
            ("replicas_max", p.replicas_max.into()),
            ("task_steps_max", p.task_steps_max.into()),
        ];
        for (name, value) in positive {
            if value == 0 {
                return refuse(name, 0, "at least 1");
            }
        }
        if p.seats_per_block_max < u32::from(p.replicas_max) {
            return refuse(
                "seats_per_block_max",
                p.seats_per_block_max.into(),
                "at least replicas_max, or a task could never be drawn",
            );
        }
        // A record holds 32 bytes per worker and 56 per task and stays below RECORD_BYTES_MAX.
        if p.workers_max > 16_384 {
            return refuse("workers_max", p.workers_max.into(), "at most 16384");
        }
        if self.workers.len() > p.workers_max as usize {
            return refuse(
                "workers_max",
                p.workers_max.into(),
                "at least as many as there are workers in genesis",
            );
        }
        if p.tasks_live_max > 16_384 {
            return refuse("tasks_live_max", p.tasks_live_max.into(), "at most 16384");
        }
        Ok(())
    }
}

fn unique(ids: impl Iterator<Item = AccountId>) -> Result<(), GenesisError> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if let [a, b] = pair
            && a == b
        {
            return Err(GenesisError::Twice(*a));
        }
    }
    Ok(())
}
