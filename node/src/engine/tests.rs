//! What the engine says is done, is on the disk.

mod admission;
mod modules;

use std::path::Path;
use std::time::Duration;

use proofmill_chain::crypto::verify::BatchSecret;
use proofmill_chain::pipeline::{SeenTransactions, validate};
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::{RELEASED, Schedule};

use super::{Engine, EngineParts};
use crate::bench::chain::{Chain, Made};
use crate::bench::workload::{Pattern, Shape, Workload};
use crate::dev_keys;
use crate::store::{CommitBatch, Store};

/// A chain of the bench's, which makes blocks, and an engine at the same genesis.
fn chain_and_engine(place: &Path) -> (Chain, Engine) {
    let shape = Shape {
        pattern: Pattern::Uniform,
        accounts: 50,
        txs: 20,
    };
    let quiet = |_, _, _| {};
    let workload = Workload::new(shape, &quiet);
    let genesis = workload.genesis().clone();
    let chain = Chain::start(&place.join("chain"), workload, &quiet).expect("a chain");
    let engine = Engine::new(EngineParts {
        store: Store::open(&place.join("engine"), &genesis).expect("a store"),
        schedule: Schedule::new(&genesis, &[], RELEASED).expect("a schedule"),
        genesis,
        validator: dev_keys::validator(0).public(),
        signer: None,
        secret: BatchSecret::new([1; 32]),
        keys_cached_max: 1_024,
        seen: SeenTransactions::new(64, 1),
        idle: Duration::from_secs(1),
        verify_supply_every: 1,
    });
    (chain, engine.expect("a genesis with validators"))
}

fn made(chain: &mut Chain) -> Made {
    chain.advance().expect("a valid block").0
}

#[test]
fn a_block_that_was_applied_is_durable_and_applying_it_again_does_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut chain, engine) = chain_and_engine(place.path());
    for height in 1..=3 {
        let made = made(&mut chain);
        for _ in 0..2 {
            engine
                .apply(&made.certificate, &made.bytes)
                .expect("it is decided");
            assert_eq!(engine.store().durable_head().height, Height::new(height));
            assert_eq!(engine.store().durable_head().hash, made.hash);
            assert_eq!(engine.store().head(), engine.store().durable_head());
        }
    }
}

#[test]
fn a_block_that_was_staged_and_not_written_does_not_pass_for_applied() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut chain, engine) = chain_and_engine(place.path());
    let made = made(&mut chain);
    let sealed = engine
        .with_context(|context| validate(&made.bytes, context))
        .expect("the rules are known")
        .expect("a valid block");
    // What a disk that fails in the middle of a commit leaves behind.
    engine
        .store()
        .stage(&CommitBatch::of(&sealed, &made.certificate))
        .expect("it follows genesis");
    engine
        .apply(&made.certificate, &made.bytes)
        .expect_err("it is not on the disk");
    assert_eq!(engine.store().durable_head(), engine.store().genesis());
}
