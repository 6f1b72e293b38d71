//! Each way in which a genesis starts no chain, or validators make no set.

mod common;

use common::{World, genesis, id};
use proofmill_chain::crypto::verify::KeyError;
use proofmill_chain::types::genesis::{Genesis, GenesisAccount, GenesisError};
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::{Amount, SUPPLY_MAX, Weight};
use proofmill_chain::types::validator::{
    POWER_MAX, VALIDATORS_MAX, Validator, ValidatorSet, ValidatorSetError,
};

fn refused(change: impl FnOnce(&mut Genesis)) -> GenesisError {
    let mut genesis = genesis();
    change(&mut genesis);
    genesis.state().expect_err("this genesis starts no chain")
}

#[test]
fn a_chain_id_is_short_and_of_lower_case_letters_digits_and_hyphens() {
    for name in ["", "Devnet", "dev net", "devnet_1", "ünet", &"a".repeat(33)] {
        assert_eq!(
            refused(|g| g.chain_id = name.to_owned()),
            GenesisError::ChainId(name.to_owned())
        );
    }
    let mut longest = genesis();
    longest.chain_id = "a".repeat(32);
    assert!(longest.state().is_ok());
}

#[test]
fn an_account_or_worker_stands_once() {
    let twice = |g: &mut Genesis| g.accounts.push(g.accounts[0].clone());
    assert_eq!(refused(twice), GenesisError::Twice(id("alice")));
    let twice = |g: &mut Genesis| g.workers.push(g.workers[0].clone());
    assert_eq!(refused(twice), GenesisError::Twice(id("worker-0")));
}

#[test]
fn every_key_in_a_genesis_is_admitted() {
    let key = AccountId::new([0; 32]);
    let changes: [fn(&mut Genesis, AccountId); 6] = [
        |g, key| g.accounts[0].id = key,
        |g, key| g.workers[0].id = key,
        |g, key| g.workers[0].operator = key,
        |g, key| g.validators[0].key = key,
        |g, key| g.validators[0].beacon_key = key,
        |g, key| g.validators[0].reward = key,
    ];
    for change in changes {
        assert_eq!(
            refused(|g| change(g, key)),
            GenesisError::Key {
                key,
                error: KeyError::SmallOrder
            }
        );
    }
}

#[test]
fn the_supply_stays_below_two_to_the_63() {
    let with = |balance: u64| {
        let mut genesis = genesis();
        genesis.workers.clear();
        genesis.accounts = vec![
            GenesisAccount {
                id: id("alice"),
                balance: Amount::new(balance),
            },
            GenesisAccount {
                id: id("bob"),
                balance: Amount::new(SUPPLY_MAX / 2),
            },
        ];
        genesis.state()
    };
    assert!(with(SUPPLY_MAX / 2 - 1).is_ok());
    assert_eq!(with(SUPPLY_MAX / 2), Err(GenesisError::Supply));
    assert_eq!(with(u64::MAX), Err(GenesisError::Supply));
    // Collateral counts.
    let collateral = |g: &mut Genesis| g.workers[0].collateral = Amount::new(SUPPLY_MAX - 1);
    assert_eq!(refused(collateral), GenesisError::Supply);
}

#[test]
fn every_parameter_outside_its_range_is_named() {
    type Change = fn(&mut Genesis);
    let changes: [(&str, Change); 20] = [
        ("base_fee", |g| g.params.base_fee = Amount::new(7)),
        ("share_*", |g| g.params.share_audits = 801),
        ("block_bytes_max", |g| {
            g.params.block_bytes_max = (4 << 20) + 1;
        }),
        ("block_bytes_max", |g| g.params.block_bytes_max = 0),
        ("block_transactions_max", |g| {
            g.params.block_transactions_max = 0;
        }),
        ("block_attestations_max", |g| {
            g.params.block_attestations_max = 0;
        }),
        ("assign_delay", |g| g.params.assign_delay = 0),
        ("seats_per_block_max", |g| g.params.seats_per_block_max = 0),
        ("timeouts_per_block_max", |g| {
            g.params.timeouts_per_block_max = 0;
        }),
        ("commit_window_blocks", |g| {
            g.params.commit_window_blocks = 0;
        }),
        ("commit_gas_per_ms", |g| g.params.commit_gas_per_ms = 0),
        ("commit_program_bytes_per_ms", |g| {
            g.params.commit_program_bytes_per_ms = 0;
        }),
        ("reveal_window_blocks", |g| {
            g.params.reveal_window_blocks = 0;
        }),
        ("block_ms_max", |g| g.params.block_ms_max = 0),
        ("replicas_max", |g| g.params.replicas_max = 0),
        ("task_steps_max", |g| g.params.task_steps_max = 0),
        ("seats_per_block_max", |g| g.params.seats_per_block_max = 4),
        ("workers_max", |g| g.params.workers_max = 16_385),
        ("workers_max", |g| g.params.workers_max = 7),
        ("tasks_live_max", |g| g.params.tasks_live_max = 16_385),
    ];
    for (expected, change) in changes {
        match refused(change) {
            GenesisError::Param { name, .. } => assert_eq!(name, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_genesis_whose_full_draw_does_not_fit_into_a_block_starts_no_chain() {
    // No state of the chain may make a valid next block impossible: an assignment has 65 bytes.
    for change in [
        (|g: &mut Genesis| g.params.block_bytes_max = 1) as fn(&mut Genesis),
        |g| g.params.seats_per_block_max = 100_000,
    ] {
        assert!(matches!(
            refused(change),
            GenesisError::Param {
                name: "block_bytes_max",
                ..
            }
        ));
    }
}

fn validator(name: &str, power: u64) -> Validator {
    Validator {
        key: id(name),
        beacon_key: id("beacon-0"),
        reward: id("reward-0"),
        power: Weight::new(power),
    }
}

#[test]
fn validators_that_make_no_set_are_refused_with_the_reason() {
    let none = ValidatorSetError::Count(0);
    assert_eq!(
        refused(|g| g.validators.clear()),
        GenesisError::Validators(none)
    );
    let many: Vec<_> = (0..=VALIDATORS_MAX)
        .map(|n| Validator {
            key: AccountId::new([u8::try_from(n % 256).expect("a byte"); 32]),
            ..validator("validator-0", 1)
        })
        .collect();
    assert_eq!(
        ValidatorSet::new(many),
        Err(ValidatorSetError::Count(VALIDATORS_MAX + 1))
    );
    let one = validator("validator-0", 1);
    let two = validator("validator-1", 1);
    assert_eq!(
        ValidatorSet::new(vec![one.clone(), two.clone(), one.clone()]),
        Err(ValidatorSetError::Twice(one.key))
    );
    assert_eq!(
        ValidatorSet::new(vec![one, validator("validator-1", 0)]),
        Err(ValidatorSetError::NoPower(two.key))
    );
    for powers in [(POWER_MAX - 1, 1), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
        let set = vec![
            validator("validator-0", powers.0),
            validator("validator-1", powers.1),
        ];
        assert_eq!(ValidatorSet::new(set), Err(ValidatorSetError::Power));
    }
    let largest = ValidatorSet::new(vec![validator("validator-0", POWER_MAX - 1)]);
    assert_eq!(
        largest.map(|set| set.total_power()),
        Ok(Weight::new(POWER_MAX - 1))
    );
}

#[test]
fn a_set_is_the_same_in_whatever_order_its_validators_came() {
    let mut reversed = genesis().validators;
    reversed.reverse();
    assert_eq!(
        ValidatorSet::new(reversed).map(|set| set.hash()),
        ValidatorSet::new(genesis().validators).map(|set| set.hash())
    );
}

#[test]
fn a_quorum_is_more_than_two_thirds() {
    for (total, enough) in [(3, 3), (4, 3), (6, 5), (7, 5), (9, 7), (10, 7)] {
        let validators = (0..total).map(|n| validator(&format!("validator-{n}"), 1));
        let set = ValidatorSet::new(validators.collect()).expect("they make a set");
        assert!(set.is_quorum(Weight::new(enough)));
        assert!(!set.is_quorum(Weight::new(enough - 1)));
    }
}

#[test]
fn every_field_of_a_genesis_is_in_the_chains_identity() {
    let changes: [fn(&mut Genesis); 6] = [
        |g| g.chain_id.push('x'),
        |g| g.genesis_time_ms += 1,
        |g| g.params.wait_max += 1,
        |g| g.validators[0].power = Weight::new(5),
        |g| g.accounts[0].balance = Amount::new(1),
        |g| g.workers[0].terms.active = false,
    ];
    let mut hashes = vec![World::new().id];
    for change in changes {
        let mut genesis = genesis();
        change(&mut genesis);
        hashes.push(genesis.hash());
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 7);
}
