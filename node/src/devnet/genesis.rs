//! The genesis of a development network.

use proofmill_chain::types::genesis::{Genesis, GenesisAccount, GenesisWorker};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::units::{Amount, GRAIN_PER_MILL, Gas, Weight};
use proofmill_chain::types::validator::Validator;
use proofmill_chain::types::worker::WorkerTerms;

use crate::{dev_keys, machine};

/// The chain's name.
pub const CHAIN_ID: &str = "devnet-1";
/// 2026-01-01, before every block.
const GENESIS_TIME_MS: u64 = 1_767_225_600_000;
const VALIDATOR_POWER: u64 = 100;
const FAUCET_MILL: u64 = 100_000_000;
const ACCOUNT_MILL: u64 = 10_000;
const OPERATOR_MILL: u64 = 100;
const COLLATERAL_MILL: u64 = 1_000;
const WORKER_TAGS: [&str; 2] = ["cpu", "devnet"];

/// The genesis with so many validators and workers, from the development keys alone: the same
/// numbers always give the same chain.
///
/// Validators have equal power, so that any one of four may die; every worker has an operator of
/// its own, because an operator gets one seat of a task at most.
#[must_use]
pub fn genesis(validators: u32, workers: u32) -> Genesis {
    Genesis {
        chain_id: CHAIN_ID.into(),
        genesis_time_ms: GENESIS_TIME_MS,
        params: params(),
        validators: (0..validators).map(validator).collect(),
        accounts: accounts(workers),
        workers: (0..workers).map(worker).collect(),
    }
}

fn validator(index: u32) -> Validator {
    Validator {
        key: dev_keys::validator(index).public(),
        beacon_key: dev_keys::beacon(index).public(),
        reward: dev_keys::reward(index).public(),
        power: Weight::new(VALIDATOR_POWER),
    }
}

fn accounts(workers: u32) -> Vec<GenesisAccount> {
    let faucet = (dev_keys::faucet(), FAUCET_MILL);
    let accounts = (0..dev_keys::ACCOUNTS).map(|i| (dev_keys::account(i), ACCOUNT_MILL));
    // Operators pay the fees of changing or retiring their workers.
    let operators = (0..workers).map(|i| (dev_keys::operator(i), OPERATOR_MILL));
    std::iter::once(faucet)
        .chain(accounts)
        .chain(operators)
        .map(|(key, mill)| GenesisAccount {
            id: key.public(),
            balance: in_grain(mill),
        })
        .collect()
}

fn worker(index: u32) -> GenesisWorker {
    GenesisWorker {
        id: dev_keys::worker(index).public(),
        operator: dev_keys::operator(index).public(),
        collateral: in_grain(COLLATERAL_MILL),
        terms: WorkerTerms {
            price_per_mgas: Amount::new(5),
            gas_limit_max: Gas::new(100_000_000_000),
            memory_pages_max: 4_096,
            tags: WORKER_TAGS.map(String::from).into(),
            active: true,
        },
    }
}

/// Bytes of modules in a block: one of the largest, which two cores validate within 100 ms whatever it is.
pub const BLOCK_PROGRAM_BYTES_MAX: u32 = 1_048_576;

fn params() -> Params {
    Params {
        machine_version: machine::VERSION,
        block_bytes_max: 4_194_304,
        block_transactions_max: 20_000,
        block_attestations_max: 4_096,
        block_program_bytes_max: BLOCK_PROGRAM_BYTES_MAX,
        base_fee: Amount::new(8),
        module_byte_price: Amount::new(1_000),
        assign_delay: 2,
        seats_per_block_max: 64,
        timeouts_per_block_max: 64,
        commit_window_blocks: 8,
        commit_window_ms: 6_000,
        commit_gas_per_ms: 50_000,
        commit_program_bytes_per_ms: 50,
        reveal_window_blocks: 8,
        reveal_window_ms: 6_000,
        redraws_max: 2,
        block_ms_max: 3_000,
        wait_max: 10_000,
        worker_activation_blocks: 5,
        worker_collateral_min: in_grain(100),
        seat_bond_min: in_grain(1),
        workers_max: 1_024,
        tasks_live_max: 1_024,
        replicas_max: 9,
        task_gas_max: Gas::new(100_000_000_000),
        task_memory_pages_max: 4_096,
        task_steps_max: 65_536,
        step_gas_max: Gas::new(10_000_000_000),
        share_workers: 8_800,
        share_audits: 500,
        share_validators: 400,
    }
}

fn in_grain(mill: u64) -> Amount {
    Amount::new(mill * GRAIN_PER_MILL)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::genesis;
    use crate::{devnet, genesis_file};

    /// Set to write the file anew instead of comparing it.
    const REWRITE: &str = "PROOFMILL_REWRITE_GENESIS";

    #[test]
    fn the_committed_genesis_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis.json");
        let generated = genesis(devnet::VALIDATORS, devnet::WORKERS);
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&path, genesis_file::text(&generated.clone().into())).expect("written");
        }
        let committed = genesis_file::load(&path).expect("a genesis");
        assert_eq!(
            committed,
            generated.clone().into(),
            "set {REWRITE}=1 to write genesis.json anew"
        );
        let text = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(text, genesis_file::text(&generated.into()));
    }

    #[test]
    fn every_size_starts_a_chain_of_its_own() {
        let mut hashes = BTreeSet::new();
        for (validators, workers) in [(1, 0), (1, 1), (4, 3), (16, 9), (64, 64)] {
            let genesis = genesis(validators, workers);
            genesis.state().expect("a chain");
            hashes.insert(genesis.hash());
            let operators: BTreeSet<_> = genesis.workers.iter().map(|w| w.operator).collect();
            assert_eq!(operators.len(), genesis.workers.len());
        }
        assert_eq!(hashes.len(), 5);
    }

    #[test]
    fn any_one_of_four_validators_may_die() {
        let set = genesis(4, 0).validator_set().expect("a set");
        for dead in set.as_slice() {
            let rest = set.total_power().get() - dead.power.get();
            assert!(set.is_quorum(proofmill_chain::types::units::Weight::new(rest)));
        }
    }
}
