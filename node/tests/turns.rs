//! A block that was decided before the round in which it was built is not committed.

use std::sync::Arc;
use std::time::Duration;

use proofmill_chain::crypto::verify::BatchSecret;
use proofmill_chain::pipeline::SeenTransactions;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::upgrades::{RELEASED, Schedule};
use proofmill_node::bench::workload::{Pattern, Shape, Workload};
use proofmill_node::dev_keys;
use proofmill_node::engine::{Engine, EngineError, EngineParts};
use proofmill_node::store::Store;
use proofmill_signer::{GuardFile, LocalSigner, Record};

#[test]
fn a_block_is_committed_only_in_its_round_or_a_later_one() {
    let place = tempfile::tempdir().expect("a directory");
    let shape = Shape {
        pattern: Pattern::Uniform,
        accounts: 50,
        txs: 20,
    };
    let genesis = Workload::new(shape, &|_, _, _| {}).genesis().clone();
    let key = dev_keys::validator(0);
    let record = Record::new(genesis.hash(), key.public(), Height::ZERO);
    let guard = GuardFile::create(&place.path().join("guard"), &record).expect("a guard");
    let signer = LocalSigner::new(key.clone(), dev_keys::beacon(0), guard, record);
    let engine = Engine::new(EngineParts {
        store: Store::open(&place.path().join("engine"), &genesis).expect("a store"),
        schedule: Schedule::new(&genesis, &[], RELEASED).expect("a schedule"),
        genesis,
        validator: key.public(),
        signer: Some(Arc::new(signer)),
        secret: BatchSecret::new([1; 32]),
        keys_cached_max: 1_024,
        seen: SeenTransactions::new(64, 1),
        idle: Duration::from_secs(1),
        verify_supply_every: 1,
    });
    let engine = engine.expect("a genesis with validators");
    let height = Height::new(1);
    let own = (1..100).map(Round::new).find(|round| {
        engine.validators().proposer(height, *round).key == dev_keys::validator(0).public()
    });
    let own = own.expect("a turn in a hundred rounds");
    let (block, bytes) = engine.propose(own).expect("a block");
    let decided_in = |round| Certificate {
        height,
        round,
        block,
        signatures: Vec::new(),
    };
    for known in [false, true] {
        if known {
            engine.judge(&block, &bytes).expect("valid in itself");
        }
        let error = engine.apply(&decided_in(Round::new(0)), &bytes);
        let error = error.expect_err("decided before it was built");
        assert!(matches!(error, EngineError::Disagreement { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains(&format!("built in round {own}")), "{words}");
        assert_eq!(engine.store().durable_head().height, Height::ZERO);
    }
    engine.apply(&decided_in(own), &bytes).expect("in its turn");
    assert_eq!(engine.store().durable_head().height, height);
}
