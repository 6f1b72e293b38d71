//! Each way in which a block's own content is invalid, and that its fault is told from ours.

mod common;

use common::laws::reroot;
use common::{Magic, STEP_MS, World, both_ways, candidates, claim, id, key, key_of, transfer};
use proofmill_chain::build::Candidates;
use proofmill_chain::check::{
    AttestationError, BlockCheckError, TransactionError, check_attestation,
};
use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::execute::{ExecuteError, SupplyError, check_supply_change, sum_supply};
use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::pipeline::{BlockError, Context, judge_all};
use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::{Write, WriteSet};
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::types::block::{Assignment, Block, Header};
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::record::{Record, StateKey};
use proofmill_chain::types::task::OUTPUT_BYTES_MAX;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Height, MachineVersion, Round};

fn refused(world: &World, block: &Block) -> BlockError {
    world
        .validate(block)
        .map(|sealed| sealed.hash())
        .expect_err("the block is invalid")
}

/// A chain two blocks old.
fn world() -> World {
    let mut world = World::new();
    world.idle(2);
    world
}

#[test]
fn what_is_no_block_is_refused_before_anything_else() {
    let world = World::with(|genesis| genesis.params.block_bytes_max = 40_000);
    let block = world.forge(|_| {});
    let bytes = codec::encode(&block);
    let of = |bytes: &[u8]| both_ways(bytes, &world.context()).map(|sealed| sealed.hash());
    assert!(of(&bytes).is_ok());
    assert!(matches!(
        of(&bytes[..bytes.len() - 1]),
        Err(BlockError::Decode(DecodeError::Malformed(_)))
    ));
    assert_eq!(
        of(&[bytes.as_slice(), &[0]].concat()),
        Err(BlockError::Decode(DecodeError::Trailing(1)))
    );
    assert_eq!(
        of(&[&bytes[..4], &[0; 39_997]].concat()),
        Err(BlockError::Decode(DecodeError::TooLong {
            given: 40_001,
            most: 40_000
        }))
    );
}

#[test]
fn more_of_anything_than_the_parameters_allow_is_refused() {
    let mut world = World::with(|genesis| {
        genesis.params.block_transactions_max = 2;
        genesis.params.block_attestations_max = 2;
        genesis.params.block_program_bytes_max = 50;
    });
    let signed = world.tx(&key("alice"), transfer(id("bob"), 1));
    let too_many = |block: &Block| match refused(&world, block) {
        BlockError::Check(BlockCheckError::TooMany { what, given, most }) => (what, given, most),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        too_many(&world.forge(|block| block.transactions = vec![signed; 3])),
        ("transactions", 3, 2)
    );
    let commit = proofmill_chain::types::task::Statement::Commit {
        commitment: Hash::ZERO,
    };
    let attestation = world.attest(id("worker-0"), Hash::ZERO, 0, commit, b"");
    assert_eq!(
        too_many(&world.forge(|block| block.attestations = vec![attestation.signed; 3])),
        ("attestations", 3, 2)
    );
    let module = Blob::new(b"PM\x01\x02".repeat(8));
    let publish = world.tx(&key("alice"), Action::PublishProgram { module });
    assert_eq!(
        too_many(&world.forge(|block| block.transactions = vec![publish; 2])),
        ("bytes of programs", 64, 50)
    );
    // The builder keeps to all of them.
    let publish = |name: &str, tag: u8| {
        let mut bytes = b"PM\x01\x02".repeat(8);
        bytes.push(tag);
        let module = Blob::new(bytes);
        world.tx(&key(name), Action::PublishProgram { module })
    };
    let many = [
        publish("alice", 1),
        publish("bob", 2),
        world.tx(&key("carol"), transfer(id("bob"), 1)),
        world.tx(&key("poor"), transfer(id("bob"), 1)),
    ];
    let step = world.advance(candidates(&many, &[]));
    assert_eq!(
        step.sealed.block().transactions,
        vec![many[0].clone(), many[2].clone()]
    );
}

/// Judges a module only while another thread judges a second one.
struct TwoAtOnce {
    inside: std::sync::Mutex<usize>,
    met: std::sync::Condvar,
}

impl Machine for TwoAtOnce {
    fn judge(&self, version: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16> {
        let mut inside = self.inside.lock().expect("no thread panicked");
        *inside += 1;
        self.met.notify_all();
        let deadline = std::time::Duration::from_secs(60);
        let (inside, _) = self
            .met
            .wait_timeout_while(inside, deadline, |inside| *inside < 2)
            .expect("no thread panicked");
        if *inside < 2 {
            return Err(u16::MAX);
        }
        Magic.judge(version, module)
    }
}

#[test]
fn modules_of_one_block_are_judged_at_the_same_time_and_in_their_order() {
    let world = world();
    let version = world.genesis.params.machine_version;
    let publish = |name: &str, bytes: &[u8]| {
        let module = Blob::new(bytes.to_vec());
        world.tx(&key(name), Action::PublishProgram { module })
    };
    let mut transactions = vec![world.tx(&key("carol"), transfer(id("bob"), 1)); 400];
    transactions[100] = publish("alice", b"PM\x01\x02");
    transactions[101] = publish("bob", b"no program");
    let machine = TwoAtOnce {
        inside: std::sync::Mutex::new(0),
        met: std::sync::Condvar::new(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let verdicts = pool
        .expect("two threads")
        .install(|| judge_all(&transactions, &machine, version));
    let mut expected = vec![None; 400];
    expected[100] = Some(Magic.judge(version, b"PM\x01\x02"));
    expected[101] = Some(Magic.judge(version, b"no program"));
    assert_eq!(verdicts, expected);
}

#[test]
fn a_root_that_is_not_its_lists_is_refused() {
    let world = world();
    type Change = fn(&mut Header);
    let changes: [(&str, Change); 4] = [
        ("transactions", |h| h.transactions_root = Hash::of("x", &[])),
        ("assignments", |h| h.assignments_root = Hash::of("x", &[])),
        ("attestations", |h| h.attestations_root = Hash::of("x", &[])),
        ("evidence", |h| h.evidence_root = Hash::of("x", &[])),
    ];
    for (name, change) in changes {
        let mut block = world.forge(|_| {});
        change(&mut block.header);
        world.resign(&mut block);
        assert_eq!(
            refused(&world, &block),
            BlockError::Check(BlockCheckError::Root(name))
        );
    }
}

#[test]
fn outputs_ascend_and_each_has_some_bytes_and_not_too_many() {
    let world = world();
    let mut two = vec![Blob::new(b"a".to_vec()), Blob::new(b"b".to_vec())];
    two.sort_by_key(Blob::hash);
    let descending = vec![two[1].clone(), two[0].clone()];
    let twice = vec![two[0].clone(), two[0].clone()];
    let long = vec![Blob::new(vec![0; OUTPUT_BYTES_MAX + 1])];
    for outputs in [descending, twice, vec![Blob::default()], long] {
        assert_eq!(
            refused(&world, &world.forge(|block| block.outputs = outputs)),
            BlockError::Check(BlockCheckError::Outputs)
        );
    }
    for outputs in [two, vec![Blob::new(vec![0; OUTPUT_BYTES_MAX])]] {
        assert_eq!(
            refused(&world, &world.forge(|block| block.outputs = outputs)),
            BlockError::Execute(ExecuteError::Outputs)
        );
    }
}

#[test]
fn a_transaction_that_is_never_valid_is_named_by_its_place() {
    let world = world();
    let fine = world.tx(&key("alice"), transfer(id("bob"), 1));
    let never = world.tx(&key("bob"), transfer(id("alice"), 0));
    assert_eq!(
        refused(
            &world,
            &world.forge(|block| block.transactions = vec![fine, never])
        ),
        BlockError::Check(BlockCheckError::Transaction {
            index: 1,
            error: TransactionError::Field {
                field: "amount",
                rule: "at least one grain"
            }
        })
    );
}

#[test]
fn every_header_field_that_the_parent_decides_is_compared() {
    let world = world();
    type Change = fn(&mut Header);
    let other = Hash::of("other", &[]);
    assert_ne!(world.parent, other);
    let changes: [(&str, Change); 11] = [
        ("chain", |h| h.chain = Hash::of("other", &[])),
        ("height", |h| h.height = Height::new(2)),
        ("height", |h| h.height = Height::new(4)),
        ("parent", |h| h.parent = Hash::of("other", &[])),
        ("validators_hash", |h| h.validators_hash = Hash::ZERO),
        ("next_validators_hash", |h| {
            h.next_validators_hash = Hash::ZERO;
        }),
        ("params_hash", |h| h.params_hash = Hash::ZERO),
        ("base_fee", |h| h.base_fee = Amount::new(9)),
        ("last_certificate_hash", |h| {
            h.last_certificate_hash = Hash::ZERO;
        }),
        ("time_ms", |h| h.time_ms -= STEP_MS),
        ("time_ms", |h| h.time_ms = 0),
    ];
    for (name, change) in changes {
        let mut block = world.forge(|_| {});
        change(&mut block.header);
        world.resign(&mut block);
        match refused(&world, &block) {
            BlockError::Header { field, .. } => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_block_is_its_proposers_of_its_round_and_of_nobody_else() {
    let world = world();
    let height = world.height.next();
    let right = world.proposer(Round::new(0)).clone();
    for validator in world.validators.as_slice() {
        if *validator == right {
            continue;
        }
        let mut block = world.forge(|block| block.header.proposer = validator.key);
        block.proposer_signature = key_of(&validator.key).sign(
            &proofmill_chain::types::block::block_sign_bytes(&block.header.hash()),
        );
        assert!(matches!(
            refused(&world, &block),
            BlockError::Header {
                field: "proposer",
                ..
            }
        ));
    }
    for round in 1..6 {
        let round = Round::new(round);
        let built = world.build(round, world.time_ms + 1, Candidates::default());
        let proposer = world.validators.proposer(height, round).key;
        assert_eq!(built.block.header.proposer, proposer);
        assert!(world.validate(&built.block).is_ok());
    }
}

#[test]
fn time_has_no_upper_bound_in_validity_and_grows_by_one_at_least() {
    let mut world = world();
    let ahead = world.time_ms + 1_000_000_000_000;
    world.advance_at(ahead, Candidates::default());
    // A clock that lags behind the chain.
    let step = world.advance_at(0, Candidates::default());
    assert_eq!(step.sealed.block().header.time_ms, ahead + 1);
}

#[test]
fn roots_that_execution_does_not_give_are_refused() {
    let (mut world, spec) = World::with_program(|_| {});
    world.order(&spec);
    world.idle(2);
    // This block draws three seats. Its proposer may neither add, nor drop, nor move one.
    let kind = |block: &Block| match refused(&world, block) {
        BlockError::Seal { what, .. } => what,
        other => panic!("{other:?}"),
    };
    let good = world.forge(|_| {});
    assert_eq!(good.assignments.len(), 3);
    assert!(world.validate(&good).is_ok());
    let with =
        |change: &dyn Fn(&mut Vec<Assignment>)| world.forge(|block| change(&mut block.assignments));
    for block in [
        with(&Vec::clear),
        with(&|list| list.truncate(2)),
        with(&|list| list.swap(0, 1)),
        with(&|list| list.push(list[0])),
        with(&|list| list[0].worker = id("stranger")),
        with(&|list| list[0].draw = 1),
    ] {
        assert_eq!(kind(&block), "assignments");
    }
    for (what, change) in [
        (
            "receipts",
            (|h: &mut Header| h.receipts_root = Hash::of("x", &[])) as fn(&mut Header),
        ),
        ("state", |h| h.state_root = Hash::of("x", &[])),
    ] {
        let mut block = good.clone();
        change(&mut block.header);
        reroot(&mut block);
        world.resign(&mut block);
        assert_eq!(kind(&block), what);
    }
}

/// A store that fails.
struct Broken;

impl StateReader for Broken {
    fn read(&self, _: &Hash) -> Result<Option<std::borrow::Cow<'_, [u8]>>, StateError> {
        Err(StateError::Unreadable("no disk".to_owned()))
    }
}

#[test]
fn our_own_trouble_is_never_called_the_blocks_fault() {
    let world = world();
    let bytes = codec::encode(&world.forge(|_| {}));
    let chain = StateKey::Chain.tree_key();
    let mut damaged = world.state.clone();
    damaged.insert(chain, vec![1, 2, 3]);
    let mut missing = world.state.clone();
    missing.remove(&chain);
    let mut swapped = world.state.clone();
    let workers = swapped[&StateKey::Workers.tree_key()].clone();
    swapped.insert(chain, workers);
    let readers: [&dyn StateReader; 4] = [&Broken, &damaged, &missing, &swapped];
    for state in readers {
        let context = Context {
            state,
            machine: &Magic,
            ..world.context()
        };
        let error = both_ways(&bytes, &context)
            .map(|sealed| sealed.hash())
            .expect_err("nothing can be said of it");
        assert!(error.is_ours(), "{error:?}");
    }
    assert!(!refused(&world, &world.forge(|b| b.last_certificate = None)).is_ours());
}

#[test]
fn an_attestation_message_brings_exactly_the_output_that_it_names() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.revealing(&spec, &claim(b"output", 1));
    let good = world.reveal(task, 0, &claim(b"output", 1), b"output");
    assert_eq!(check_attestation(&good), Ok(()));
    for output in [b"".as_slice(), b"outpuT"] {
        let mut bad = good.clone();
        bad.output = Blob::new(output.to_vec());
        assert_eq!(check_attestation(&bad), Err(AttestationError::Output));
    }
    let given = OUTPUT_BYTES_MAX + 1;
    let mut long = good;
    long.output = Blob::new(vec![0; given]);
    assert_eq!(
        check_attestation(&long),
        Err(AttestationError::OutputTooLong {
            given,
            most: OUTPUT_BYTES_MAX
        })
    );
    let mut commit = world.commit(task, 0, &claim(b"output", 1));
    assert_eq!(check_attestation(&commit), Ok(()));
    commit.output = Blob::new(b"x".to_vec());
    assert_eq!(check_attestation(&commit), Err(AttestationError::Output));
}

#[test]
fn grain_out_of_nothing_breaks_the_ledgers_law() {
    let mut world = world();
    let signed = world.tx(&key("alice"), transfer(id("bob"), 1));
    let step = world.advance(candidates(&[signed], &[]));
    let writes = &step.sealed.effects().writes;
    assert_eq!(check_supply_change(writes), Ok(()));
    let account = StateKey::Account(id("bob"));
    let mut more = world.account(id("bob"));
    more.balance = more.balance.checked_plus(1).expect("small");
    let forged = WriteSet {
        writes: vec![Write {
            key: account.tree_key(),
            old: world
                .state
                .get(&account.tree_key())
                .cloned()
                .map(Into::into),
            new: Some(codec::encode(&Record::Account(more)).into()),
        }],
    };
    assert_eq!(
        check_supply_change(&forged),
        Err(SupplyError::Change {
            held: 1,
            accounted: 0
        })
    );
    let sum = |world: &World| sum_supply(world.state.values().map(Vec::as_slice));
    let held = sum(&world).expect("the law holds");
    let mut rich = world.clone();
    rich.state
        .insert(account.tree_key(), codec::encode(&Record::Account(more)));
    assert_eq!(
        sum(&rich),
        Err(SupplyError::Whole {
            held: held + 1,
            expected: held
        })
    );
    let mut headless = world.clone();
    headless.state.remove(&StateKey::Chain.tree_key());
    assert_eq!(sum(&headless), Err(SupplyError::NoChain));
    let mut damaged = world;
    damaged.state.insert(Hash::ZERO, vec![0xff]);
    assert!(matches!(sum(&damaged), Err(SupplyError::Damaged(_))));
}
