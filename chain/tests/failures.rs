//! Each way in which a transaction fails after its fee, and that nothing else happens then.

mod common;

use common::{COLLATERAL, FUNDS, NOT_A_PROGRAM, World, candidates, id, key, spec, terms, transfer};
use proofmill_chain::codec;
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::record::{Record, StateKey};
use proofmill_chain::types::task::{Mode, TaskSpec};
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Gas};

/// base_fee × (weight of a transfer + bytes) + tip.
fn cost_of_transfer(world: &World) -> u64 {
    let bytes = codec::encode(&world.tx(&key("alice"), transfer(id("bob"), 1))).len();
    8 * (100 + u64::try_from(bytes).expect("small")) + 3
}

#[test]
fn a_balance_that_does_not_cover_the_action_fails_after_the_fee() {
    let world = World::new();
    let signed = world.tx(&key("alice"), transfer(id("bob"), FUNDS));
    match world.failure(&signed) {
        Failure::InsufficientBalance { needed, available } => {
            assert_eq!(needed.get(), FUNDS);
            assert_eq!(available.get(), FUNDS - cost_of_transfer(&world));
        }
        other => panic!("{other:?}"),
    }
    // Everything else that spends.
    let poor = key("poor");
    let mut task = spec(Hash::ZERO);
    let (with_program, program) = World::with_program(|_| {});
    task.program = program.program;
    let spend = [
        (&world, world.register("poor", "worker-9", terms(), 20_000)),
        (&with_program, Action::SubmitTask(task)),
    ];
    for (world, action) in spend {
        let failure = world.failure(&world.tx(&poor, action));
        assert!(matches!(failure, Failure::InsufficientBalance { .. }));
    }
    let add = Action::UpdateWorker {
        worker: id("worker-0"),
        terms: terms(),
        add_collateral: Amount::new(FUNDS),
    };
    let failure = world.failure(&world.tx(&key("operator-0"), add));
    assert!(matches!(failure, Failure::InsufficientBalance { .. }));
}

#[test]
fn a_transfer_to_oneself_costs_the_fee_alone_and_needs_the_amount() {
    let mut world = World::new();
    let all = FUNDS - cost_of_transfer(&world);
    world.does("alice", transfer(id("alice"), all));
    assert_eq!(world.balance(id("alice")), all);
}

#[test]
fn every_failure_of_the_registry_is_told_and_changes_nothing() {
    let mut world = World::with(|genesis| genesis.params.workers_max = 9);
    let fails =
        |world: &World, sender: &str, action| world.failure(&world.tx(&key(sender), action));
    let retire = |worker: &str| Action::RetireWorker { worker: id(worker) };
    let update = |worker: &str| Action::UpdateWorker {
        worker: id(worker),
        terms: terms(),
        add_collateral: Amount::new(1),
    };
    let worker = id("worker-0");
    assert_eq!(
        fails(
            &world,
            "alice",
            world.register("alice", "worker-0", terms(), COLLATERAL)
        ),
        Failure::WorkerExists { worker }
    );
    assert_eq!(
        fails(
            &world,
            "alice",
            world.register("alice", "worker-9", terms(), 9_999)
        ),
        Failure::CollateralTooSmall {
            given: Amount::new(9_999),
            least: Amount::new(10_000)
        }
    );
    for action in [retire("worker-9"), update("worker-9")] {
        assert_eq!(
            fails(&world, "alice", action),
            Failure::WorkerUnknown {
                worker: id("worker-9")
            }
        );
    }
    for action in [retire("worker-0"), update("worker-0")] {
        assert_eq!(
            fails(&world, "alice", action),
            Failure::NotOperator { worker }
        );
    }
    let register = world.register("alice", "worker-9", terms(), 10_000);
    world.does("alice", register);
    assert_eq!(world.worker(id("worker-9")).registered_at, world.height);
    assert_eq!(
        fails(
            &world,
            "alice",
            world.register("alice", "worker-10", terms(), COLLATERAL)
        ),
        Failure::WorkersFull { most: 9 }
    );
}

#[test]
fn a_worker_is_registered_updated_and_retired_with_its_collateral() {
    let mut world = World::new();
    let register = world.register("alice", "worker-9", terms(), 50_000);
    world.does("alice", register);
    let mut dearer = terms();
    dearer.price_per_mgas = Amount::new(5);
    world.does(
        "alice",
        Action::UpdateWorker {
            worker: id("worker-9"),
            terms: dearer.clone(),
            add_collateral: Amount::new(7),
        },
    );
    let worker = world.worker(id("worker-9"));
    assert_eq!((worker.collateral.get(), worker.terms), (50_007, dearer));
    let before = world.balance(id("alice"));
    let retire = Action::RetireWorker {
        worker: id("worker-9"),
    };
    let signed = world.tx(&key("alice"), retire);
    let step = world.advance(candidates(&[signed], &[]));
    let receipt = &step.receipts()[0];
    let paid = receipt.fee.get() + receipt.tip.get();
    assert_eq!(world.balance(id("alice")), before - paid + 50_007);
    assert_eq!(world.record(StateKey::Worker(id("worker-9"))), None);
    // The key may come back, in the very block in which it leaves too.
    let register = world.register("alice", "worker-9", terms(), 10_000);
    world.does("alice", register.clone());
    let leave = world.tx(
        &key("alice"),
        Action::RetireWorker {
            worker: id("worker-9"),
        },
    );
    let again = world.tx_with(&key("alice"), register, |t| {
        t.nonce = t.nonce.next().expect("small");
    });
    let step = world.advance(candidates(&[leave, again], &[]));
    assert!(
        step.receipts()
            .iter()
            .all(|r| r.outcome == Outcome::Applied)
    );
    assert_eq!(world.worker(id("worker-9")).registered_at, world.height);
}

#[test]
fn a_program_is_published_once_and_only_if_the_machine_takes_it() {
    let mut world = World::new();
    let module = Blob::new(b"PM\x02\x04".to_vec());
    let program = module.hash();
    let publish = |bytes: &[u8]| Action::PublishProgram {
        module: Blob::new(bytes.to_vec()),
    };
    let refused = world.tx(&key("alice"), publish(b"no program"));
    assert_eq!(
        world.failure(&refused),
        Failure::ProgramRefused {
            rule: NOT_A_PROGRAM
        }
    );
    let signed = world.tx(&key("alice"), publish(module.as_bytes()));
    let step = world.advance(candidates(&[signed], &[]));
    assert_eq!(step.sealed.effects().blobs, vec![module.clone()]);
    match world.record(StateKey::Program(program)) {
        Some(Record::Program(record)) => {
            assert_eq!((record.memory_pages_min, record.memory_pages_max), (2, 4));
            assert_eq!((record.publisher, record.bytes), (id("alice"), 4));
        }
        other => panic!("{other:?}"),
    }
    let again = world.tx(&key("bob"), publish(module.as_bytes()));
    assert_eq!(world.failure(&again), Failure::ProgramExists { program });
}

#[test]
fn a_module_costs_its_bytes_whether_it_is_a_program_or_not() {
    const PRICE: u64 = 50;
    let mut world = World::with(|genesis| genesis.params.module_byte_price = Amount::new(PRICE));
    for bytes in [b"PM\x02\x04 and more".as_slice(), b"no program"] {
        let module = Blob::new(bytes.to_vec());
        let signed = world.tx(&key("alice"), Action::PublishProgram { module });
        let weight = signed
            .transaction
            .weight(proofmill_chain::codec::encode(&signed).len());
        let (burned, balance) = (world.chain().burned, world.balance(id("alice")));
        let step = world.advance(candidates(&[signed], &[]));
        let fee = step.receipts()[0].fee.get();
        assert_eq!(fee, 8 * weight.get() + PRICE * bytes.len() as u64);
        assert_eq!(world.chain().burned.get() - burned.get(), fee);
        assert!(balance - world.balance(id("alice")) >= fee);
    }
}

#[test]
fn every_failure_of_an_order_is_told_and_changes_nothing() {
    let (mut world, good) = World::with_program(|genesis| genesis.params.tasks_live_max = 2);
    let fails = |world: &World, change: &dyn Fn(&mut TaskSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        world.failure(&world.tx(&key("alice"), Action::SubmitTask(spec)))
    };
    let unknown = Hash::of("no program", &[]);
    let gas = Gas::new(1_000_000_001);
    type Change<'a> = &'a dyn Fn(&mut TaskSpec);
    let cases: [(Change<'_>, Failure); 7] = [
        (
            &|s| s.program = unknown,
            Failure::ProgramUnknown { program: unknown },
        ),
        (
            &|s| s.gas_limit = gas,
            Failure::GasLimitTooLarge {
                given: gas,
                most: Gas::new(1_000_000_000),
            },
        ),
        (
            &|s| s.memory_pages = 257,
            Failure::MemoryTooLarge {
                given: 257,
                most: 256,
            },
        ),
        (
            &|s| s.mode = Mode::Replicated { replicas: 6 },
            Failure::Replicas { given: 6, most: 5 },
        ),
        (
            &|s| s.wait_max = 101,
            Failure::WaitTooLong {
                given: 101,
                most: 100,
            },
        ),
        (
            &|s| {
                s.price_per_mgas = Amount::new(u64::MAX);
                s.gas_limit = Gas::new(1_000_000_000);
            },
            Failure::CostOverflow,
        ),
        (
            &|s| s.price_per_mgas = Amount::new(u64::MAX / 4),
            Failure::InsufficientBalance {
                needed: Amount::new(u64::MAX / 4 * 3),
                available: Amount::ZERO,
            },
        ),
    ];
    for (change, expected) in cases {
        let failure = fails(&world, change);
        match (&failure, &expected) {
            (
                Failure::InsufficientBalance { needed: given, .. },
                Failure::InsufficientBalance { needed, .. },
            ) => assert_eq!(given, needed),
            _ => assert_eq!(failure, expected),
        }
    }
    // The program starts with more pages than the task gives.
    let module = Blob::new(b"PM\x08\x10".to_vec());
    let large = module.hash();
    world.does("carol", Action::PublishProgram { module });
    assert_eq!(
        fails(&world, &|s| {
            s.program = large;
            s.memory_pages = 7;
        }),
        Failure::MemoryTooSmall {
            needed: 8,
            given: 7
        }
    );
    world.order(&good);
    world.order(&good);
    assert_eq!(fails(&world, &|_| {}), Failure::TasksFull { most: 2 });
}

#[test]
fn a_task_is_taken_back_by_its_requester_alone_and_only_while_open() {
    let (mut world, spec) = World::with_program(|_| {});
    let fails = |world: &World, sender: &str, task| {
        world.failure(&world.tx(&key(sender), Action::CancelTask { task }))
    };
    let unknown = Hash::of("no task", &[]);
    assert_eq!(
        fails(&world, "alice", unknown),
        Failure::TaskUnknown { task: unknown }
    );
    let task = world.order(&spec);
    assert_eq!(fails(&world, "bob", task), Failure::NotRequester { task });
    let before = world.balance(id("alice"));
    let cancel = world.tx(&key("alice"), Action::CancelTask { task });
    let step = world.advance(candidates(&[cancel], &[]));
    let receipt = &step.receipts()[0];
    let paid = receipt.fee.get() + receipt.tip.get();
    assert_eq!(world.balance(id("alice")), before - paid + 3_000_009);
    assert_eq!(world.task(task).phase.name(), "cancelled");
    assert_eq!(fails(&world, "alice", task), Failure::TaskNotOpen { task });
    // A cancelled task is never drawn.
    world.idle(10);
    assert_eq!(world.task(task).phase.name(), "cancelled");
    // Not after the draw; in the block of the draw the draw comes first.
    let task = world.order(&spec);
    world.idle(2);
    assert_eq!(world.task(task).phase.name(), "open");
    assert_eq!(fails(&world, "alice", task), Failure::TaskNotOpen { task });
    world.idle(1);
    assert_eq!(world.task(task).phase.name(), "committing");
    assert_eq!(fails(&world, "alice", task), Failure::TaskNotOpen { task });
}
