//! Laws of execution over random chains: what is built is valid everywhere alike, grain is
//! conserved, roots are those of the flat state, and a block's hash stands for one content.

mod common;

use common::seeds::POOLS;
use common::{
    STEP_MS, World, both_ways, candidates, claim, id, key, nonce, plain, spec, terms, transfer,
};
use proofmill_chain::assign::{Bar, bar, may_be_drawn};
use proofmill_chain::build::Candidates;
use proofmill_chain::codec;
use proofmill_chain::pipeline::{BlockError, SealedBlock};
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::receipt::Outcome;
use proofmill_chain::types::record::Record;
use proofmill_chain::types::task::{
    AttestationMessage, Mode, Phase, ResultClaim, ResultStatus, Statement, Task,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Gas, Height, Round};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

/// A kind of candidate and three choices.
type Op = (u8, u8, u8, u16);
/// The candidates of a block, how far its clock moves on, and its round.
type Step = (Vec<Op>, u32, u8);

const PEOPLE: [&str; 6] = [
    "alice",
    "bob",
    "poor",
    "stranger",
    "operator-0",
    "operator-1",
];

fn pick<T>(list: &[T], choice: u8) -> Option<&T> {
    list.get(usize::from(choice).checked_rem(list.len())?)
}

fn tasks(world: &World) -> Vec<Task> {
    let mut tasks: Vec<_> = world
        .state
        .values()
        .filter_map(|bytes| match Record::decode(bytes) {
            Ok(Record::Task(task)) => Some(*task),
            _ => None,
        })
        .collect();
    tasks.sort_by_key(|task| (task.phase.is_over(), task.submitted_at, task.index));
    tasks
}

/// What a seat's worker says. In every fourth task workers differ; some choices are of the moment,
/// so that a reveal seldom is not what was committed to.
fn some_claim(task: &Task, place: usize, choice: u16) -> (ResultClaim, &'static [u8]) {
    let [first, ..] = *task.id.as_bytes();
    match choice % 32 {
        0 => (claim(b"same", 500_001), b"same"),
        1 => (
            ResultClaim {
                status: ResultStatus::Trap,
                ..claim(b"", 500_000)
            },
            b"",
        ),
        _ if first.is_multiple_of(4) && place == 0 => (claim(b"another", 500_000), b"another"),
        _ => (claim(b"same", 500_000), b"same"),
    }
}

/// What an operation puts before the builder; many of these are inadmissible, fail or are void.
fn put(
    world: &World,
    program: Hash,
    (kind, a, b, c): Op,
    nonces: &mut [u64; PEOPLE.len()],
    list: &mut (Vec<SignedTransaction>, Vec<AttestationMessage>),
) {
    let who = usize::from(a) % PEOPLE.len();
    let sender = PEOPLE[who];
    let worker = format!("worker-{}", b % 12);
    let known = tasks(world);
    let action = match kind % 20 {
        0 | 1 => transfer(id(PEOPLE[usize::from(b) % PEOPLE.len()]), 1 + u64::from(c)),
        // All that is left after a fee without a tip, about; or far too much.
        2 if c % 2 == 0 => {
            let left = world
                .balance(id(sender))
                .saturating_sub(2_700 + u64::from(c % 64));
            transfer(id(PEOPLE[usize::from(b) % PEOPLE.len()]), left.max(1))
        }
        2 => transfer(id("carol"), u64::from(c) << 30 | 1),
        3 => world.register(sender, &worker, terms(), u64::from(c) * 4),
        4 => Action::UpdateWorker {
            worker: id(&worker),
            terms: terms(),
            add_collateral: Amount::new(u64::from(c)),
        },
        5 if c % 4 == 0 => Action::RetireWorker {
            worker: id(&worker),
        },
        6 => Action::PublishProgram {
            module: Blob::new(vec![b'P', b'M' + u8::from(c % 3 == 0), b % 20, 16]),
        },
        5 | 7 | 8 => {
            let mut order = spec(if c % 11 == 0 { Hash::ZERO } else { program });
            order.mode = Mode::Replicated {
                replicas: 1 + b % 6,
            };
            order.wait_max = 1 + u64::from(c % 40);
            order.insured_value = Amount::new(u64::from(c) * 64);
            order.price_per_mgas = Amount::new(1 + u64::from(c) * 1_001);
            order.gas_limit = Gas::new(500_000 + u64::from(b));
            if b % 7 == 0 {
                order.requirements.tags = vec!["gpu".to_owned()];
            }
            Action::SubmitTask(order)
        }
        9 => Action::CancelTask {
            task: pick(&known, b).map_or(Hash::ZERO, |task| task.id),
        },
        // The rest attest: whatever the task's phase asks for next, or something void.
        _ => {
            if let Some(task) = pick(&known, a) {
                attest(world, task, b, c, &mut list.1);
            }
            return;
        }
    };
    let signed = world.tx_with(&key(sender), action, |t| {
        t.nonce = nonce(nonces[who] + u64::from(c % 13 == 0));
        t.tip = Amount::new(u64::from(b));
        if c % 17 == 0 {
            t.expires_at = Height::new(u64::from(b) / 4);
        }
        if c % 19 == 0 {
            t.max_fee = Amount::new(9_000);
        }
        if b % 5 == 0 {
            t.sponsor = Some(id("carol"));
        }
    });
    nonces[who] += u64::from(!c.is_multiple_of(13));
    list.0.push(signed);
}

fn attest(world: &World, task: &Task, b: u8, c: u16, list: &mut Vec<AttestationMessage>) {
    let seats = task.seats.len();
    if seats == 0 {
        let commitment = Hash::ZERO;
        let statement = Statement::Commit { commitment };
        list.push(world.attest(id("worker-0"), task.id, 0, statement, b""));
        return;
    }
    let commits = matches!(task.phase, Phase::Committing { .. }) == !c.is_multiple_of(29);
    // One seat speaks, or everybody does.
    let one = usize::from(b) % seats;
    let speakers = if b.is_multiple_of(2) {
        0..seats
    } else {
        one..one + 1
    };
    for place in speakers {
        let (result, output) = some_claim(task, place, c);
        list.push(if commits {
            world.commit(task.id, place, &result)
        } else {
            world.reveal(task.id, place, &result, output)
        });
    }
}

/// A block that carries all candidates as they are, the inadmissible and the void too: every number
/// of threads refuses it for what execution without the pipeline stops at.
fn check_refusal(world: &World, list: &Candidates) -> Result<(), TestCaseError> {
    let block = world.forge(|block| {
        block.transactions.clone_from(&list.transactions);
        let signed = list.attestations.iter().map(|message| message.signed);
        block.attestations = signed.collect();
    });
    let bytes = codec::encode(&block);
    let alone = plain::execute(world, &block).map_err(BlockError::Execute);
    for pool in POOLS.iter() {
        let verdict = pool.install(|| both_ways(&bytes, &world.context()));
        match (verdict.map(|sealed| sealed.hash()), &alone) {
            (verdict, Err(error)) => prop_assert_eq!(verdict.as_ref(), Err(error)),
            // Its roots are not made for its contents.
            (Err(BlockError::Seal { .. }), Ok(_)) => {}
            (verdict, Ok(_)) => prop_assert!(verdict.is_ok(), "{:?}", verdict),
        }
    }
    Ok(())
}

/// Builds, validates on every pool, each with a copy of its own, and compares everything.
fn check_step(
    world: &mut World,
    round: Round,
    time_ms: u64,
    list: Candidates,
) -> Result<SealedBlock, TestCaseError> {
    check_refusal(world, &list)?;
    let given = list.transactions.len();
    let built = world.build(round, time_ms, list);
    prop_assert_eq!(
        built.block.transactions.len() + built.refused.len(),
        given,
        "there is room for all"
    );
    let bytes = codec::encode(&built.block);
    let mut sealed = Vec::new();
    // Each pool works on a copy of its own.
    for pool in POOLS.iter() {
        let copy = world.clone();
        sealed.push(pool.install(|| both_ways(&bytes, &copy.context())));
    }
    let first = sealed.remove(0).expect("what is built is valid");
    prop_assert_eq!(first.hash(), built.hash);
    prop_assert_eq!(first.block(), &built.block);
    prop_assert_eq!(first.patch().root(), built.block.header.state_root);
    for other in sealed {
        let other = other.expect("on every number of threads");
        prop_assert_eq!(first.effects(), other.effects());
        prop_assert_eq!(first.patch().root(), other.patch().root());
    }
    let alone = plain::execute(world, &built.block);
    prop_assert_eq!(alone.as_ref(), Ok(first.effects()));
    let writes = &first.effects().writes;
    proofmill_chain::execute::check_supply_change(writes).expect("grain is conserved");
    prop_assert!(writes.writes.is_sorted_by(|a, b| a.key < b.key));
    prop_assert!(writes.writes.iter().all(|write| write.old != write.new));
    check_draws(world, &first)?;
    // Taking it in checks the supply and the tree's root over the whole state.
    world.apply(&first);
    Ok(first)
}

/// Whoever a block draws could be told from its parent's state, unless the block's own deadlines set
/// collateral free.
fn check_draws(world: &World, sealed: &SealedBlock) -> Result<(), TestCaseError> {
    let (params, next) = (&world.genesis.params, world.height.next());
    for drawn in &sealed.effects().assignments {
        let task = world.task(drawn.task);
        let mut overlay = Overlay::new(&world.state);
        let foreseen = may_be_drawn(&mut overlay, &task, drawn.worker, params, next);
        let barred = bar(&world.worker(drawn.worker), &task, params, next);
        prop_assert!(foreseen == Ok(true) || barred == Some(Bar::Collateral));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_put_before_the_builder_its_block_is_valid_and_lawful_everywhere_alike(
        steps in vec(
            (vec(any::<Op>(), 0..24), 0_u32..4_000, any::<u8>()),
            1..32,
        )
    ) {
        let (mut world, order) = World::with_program(|genesis| {
            genesis.params.seats_per_block_max = 6;
            genesis.params.timeouts_per_block_max = 3;
            genesis.params.tasks_live_max = 8;
        });
        let mut counts = [0_usize; 4];
        for (ops, ahead, round) in steps {
            let step: Step = (ops, ahead, round);
            let mut nonces = PEOPLE.map(|name| world.account(id(name)).nonce.get());
            let mut list = (Vec::new(), Vec::new());
            for op in step.0 {
                put(&world, order.program, op, &mut nonces, &mut list);
            }
            let time_ms = world.time_ms + u64::from(step.1);
            let round = Round::new(u32::from(step.2 % 4));
            let sealed = check_step(&mut world, round, time_ms, candidates(&list.0, &list.1))?;
            let applied = |receipt: &&proofmill_chain::types::receipt::Receipt| {
                receipt.outcome == Outcome::Applied
            };
            counts[0] += sealed.effects().receipts.iter().filter(applied).count();
            counts[1] += sealed.block().transactions.len();
            counts[2] += sealed.block().attestations.len();
            counts[3] += sealed.block().assignments.len();
        }
        prop_assert!(counts[0] <= counts[1]);
        // Every task comes to its end when the chain goes on without anybody.
        for _ in 0..150 {
            if world.live().entries.is_empty() {
                break;
            }
            world.advance(Candidates::default());
        }
        prop_assert!(world.live().entries.is_empty(), "{:?}", world.live());
    }
}

/// A block with something of everything.
fn rich() -> (World, Vec<u8>) {
    let (mut world, order) = World::with_program(|_| {});
    let result = claim(b"an output", 5);
    let first = world.revealing(&order, &result);
    world.order(&order);
    world.idle(2);
    let register = world.register("bob", "worker-9", terms(), 50_000);
    let sponsored = world.tx_with(&key("alice"), transfer(id("carol"), 5), |t| {
        t.sponsor = Some(id("bob"));
    });
    let transactions = [
        sponsored,
        world.tx(&key("bob"), register),
        world.tx(&key("carol"), Action::SubmitTask(order)),
        world.tx(&key("poor"), transfer(id("bob"), 1_000_000)),
    ];
    let reveals = world.reveals(first, &result, b"an output");
    let built = world.build(
        Round::new(0),
        world.time_ms + STEP_MS,
        candidates(&transactions, &reveals[..2]),
    );
    let block = &built.block;
    assert_eq!(
        (
            block.transactions.len(),
            block.attestations.len(),
            block.assignments.len(),
            block.outputs.len(),
            block.last_certificate.is_some()
        ),
        (4, 2, 3, 1, true)
    );
    let bytes = codec::encode(block);
    assert!(both_ways(&bytes, &world.context()).is_ok());
    (world, bytes)
}

#[test]
fn a_block_with_any_byte_changed_is_never_accepted() {
    let (world, bytes) = rich();
    for at in 0..bytes.len() {
        // A bit of the byte that depends on the place, and the whole byte.
        for mask in [1 << (at % 8), 0xff] {
            let mut mutated = bytes.clone();
            mutated[at] ^= mask;
            let error = both_ways(&mutated, &world.context())
                .map(|sealed| sealed.hash())
                .expect_err("a changed block is invalid");
            assert!(!error.is_ours(), "byte {at} ^ {mask:#x}: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_block_cut_or_spliced_anywhere_is_never_accepted(
        cut in any::<proptest::sample::Index>(),
        from in any::<proptest::sample::Index>(),
        noise in vec(any::<u8>(), 1..40),
    ) {
        let (world, bytes) = rich();
        let cut = cut.index(bytes.len());
        let from = from.index(bytes.len());
        let mut noisy = bytes.clone();
        noisy.splice(cut..(cut + noise.len()).min(bytes.len()), noise.iter().copied());
        let inserted = [&bytes[..cut], noise.as_slice(), &bytes[cut..]].concat();
        let moved = [&bytes[..cut], &bytes[from..]].concat();
        for mutated in [bytes[..cut].to_vec(), inserted, moved, noisy] {
            if mutated != bytes {
                prop_assert!(both_ways(&mutated, &world.context()).is_err());
            }
        }
    }
}
