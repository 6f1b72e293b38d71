//! Laws of what a node may ask before a block: which attestation fits its task, what a transaction would
//! do, what it takes, and what a proposer makes of candidates in whatever order.

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use common::{STEP_MS, World, claim, id, key, key_of, nonce, salt, spec, terms, transfer};
use proofmill_chain::build::{
    Built, MISFITS_MAX, Offer, TransactionSource, UnguardedKeys, build_from,
};
use proofmill_chain::codec;
use proofmill_chain::execute::{Prepared, spends, try_transaction};
use proofmill_chain::pipeline::{VerifiedTransaction, judge};
use proofmill_chain::state::accounts::Slots;
use proofmill_chain::task::{self, Readiness, readiness};
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::receipt::Outcome;
use proofmill_chain::types::record::Program;
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Moment, Phase, ResultClaim, ResultStatus, Statement, Task,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Gas, Height, MachineVersion, Round};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

/// Everything that four workers might say in the first draws of a task.
fn statements(task: &Task) -> Vec<Attestation> {
    let failed = ResultClaim {
        status: ResultStatus::Trap,
        ..claim(b"", 7)
    };
    let claims = [
        claim(b"output", 5),
        claim(b"another", 5),
        claim(b"output", task.gas_limit.get() + 1),
        ResultClaim {
            output_hash: claim(b"output", 5).output_hash,
            ..failed
        },
        failed,
    ];
    let mut all = Vec::new();
    for (worker, draw) in (0..4).flat_map(|worker| (0..4).map(move |draw| (worker, draw))) {
        let worker = id(&format!("worker-{worker}"));
        for claim in claims {
            let salt = salt(&worker);
            let commitment = claim.commitment(&task.id, draw, &worker, &salt);
            for statement in [
                Statement::Commit { commitment },
                Statement::Reveal { claim, salt },
            ] {
                all.push(Attestation {
                    task: task.id,
                    draw,
                    worker,
                    statement,
                });
            }
        }
    }
    all
}

/// What fits is what is taken in, and what will never fit is never taken in.
fn check_readiness(
    world: &World,
    task: &Task,
    now: Moment,
    all: &[Attestation],
    never: &mut BTreeSet<usize>,
) -> Result<(), TestCaseError> {
    for (index, attestation) in all.iter().enumerate() {
        let readiness = readiness(task, attestation);
        let mut after = task.clone();
        let taken = task::attest(&mut after, attestation, now, &world.genesis.params);
        prop_assert_eq!(
            taken.is_ok(),
            readiness == Readiness::Now,
            "{:?}",
            attestation
        );
        if taken.is_err() {
            prop_assert_eq!(&after, task, "what is void changes nothing");
        }
        if never.contains(&index) {
            prop_assert_eq!(readiness, Readiness::Never, "{:?}", attestation);
        }
        // A peer is blamed for it, so it must be certain, however far behind this state is.
        if readiness == Readiness::Never {
            never.insert(index);
        }
    }
    Ok(())
}

/// One event in a task's life.
fn happen(
    world: &World,
    task: &mut Task,
    now: &mut Moment,
    all: &[Attestation],
    (kind, choice): (u8, u16),
) {
    let params = &world.genesis.params;
    match kind % 8 {
        0 | 1 => {
            let free: Vec<_> = (0..4)
                .map(|n| world.worker(id(&format!("worker-{}", (n + choice) % 4))))
                .filter(|worker| task.seats.iter().all(|seat| seat.worker != worker.id))
                .filter(|worker| !task.missed.contains(&worker.id))
                .take(task::vacant_seats(task))
                .collect();
            if !free.is_empty() && free.len() == task::vacant_seats(task) {
                task::seat(task, &free, Amount::new(1), *now);
            }
        }
        2 => {
            now.height = now.height.saturating_plus(u64::from(choice % 64));
            now.time_ms += u64::from(choice) * 16;
            task::tick(task, *now, params);
        }
        3 if choice % 16 == 0 && task.phase == Phase::Open => {
            task::cancel(task, now.height);
        }
        _ => {
            let fitting: Vec<_> = all
                .iter()
                .filter(|one| readiness(task, one) == Readiness::Now)
                .collect();
            if let Some(at) = usize::from(choice).checked_rem(fitting.len()) {
                task::attest(task, fitting[at], *now, params).expect("it fits");
            }
        }
    }
    now.height = now.height.next();
}

/// What an action by alice might be, and whether it is sponsored.
fn action(world: &World, program: Hash, kind: u8, amount: u64) -> Action {
    let worker = format!("worker-{}", amount % 12);
    match kind % 7 {
        0 => transfer(id("bob"), 1 + amount),
        1 => world.register("alice", &worker, terms(), amount),
        2 => Action::UpdateWorker {
            worker: id(&worker),
            terms: terms(),
            add_collateral: Amount::new(amount),
        },
        3 => Action::RetireWorker {
            worker: id(&worker),
        },
        4 => Action::PublishProgram {
            module: proofmill_chain::types::hash::Blob::new(vec![b'P', b'M', 9, 16]),
        },
        5 => {
            let mut order = spec(program);
            order.price_per_mgas = Amount::new(1 + amount);
            order.gas_limit = Gas::new(1 + amount % 1_000_000);
            Action::SubmitTask(order)
        }
        _ => Action::CancelTask { task: Hash::ZERO },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_attestation_that_fits_is_taken_in_and_one_that_never_will_is_not(
        replicas in 1_u8..=3,
        events in vec((any::<u8>(), any::<u16>()), 1..40),
    ) {
        let world = World::new();
        let mut order = spec(Hash::ZERO);
        order.mode = proofmill_chain::types::task::Mode::Replicated { replicas };
        let mut now = Moment { height: Height::new(9), time_ms: 9_000 };
        let program = Program {
            id: order.program,
            publisher: id("carol"),
            machine_version: MachineVersion::new(1),
            bytes: 4,
            memory_pages_min: 1,
            memory_pages_max: 16,
            published_at: Height::new(1),
        };
        let mut task = task::open(
            Hash::of("task", &[]), id("alice"), &order, &program, Amount::new(9), now.height, 0,
        );
        let all = statements(&task);
        let mut never = BTreeSet::new();
        check_readiness(&world, &task, now, &all, &mut never)?;
        for event in events {
            happen(&world, &mut task, &mut now, &all, event);
            check_readiness(&world, &task, now, &all, &mut never)?;
        }
    }

    #[test]
    fn a_transaction_does_in_a_quiet_block_what_it_was_tried_to_do_and_takes_no_more_than_it_says(
        kind in any::<u8>(), exponent in 0_u32..43, low in any::<u8>(), sponsored in any::<bool>(),
    ) {
        let (mut world, order) = World::with_program(|_| {});
        let amount = (1_u64 << exponent) | u64::from(low);
        let action = action(&world, order.program, kind, amount);
        let spent = spends(&action).get();
        let signed = world.tx_with(&key("alice"), action, |t| {
            t.sponsor = sponsored.then(|| id("carol"));
        });
        let bytes = codec::encode(&signed).len();
        let prepared = Prepared {
            signed: &signed,
            id: signed.transaction.id(&world.id),
            bytes,
            program: judge(&signed, &common::Magic, MachineVersion::new(1)),
            slots: Slots::default(),
        };
        let params = &world.genesis.params;
        let tried = try_transaction(&world.state, &world.id, params, &prepared)
            .expect("readable")
            .expect("alice and carol can pay");
        let before = world.balance(id("alice"));
        let step = world.advance(common::candidates(&[signed], &[]));
        let receipt = &step.receipts()[0];
        prop_assert_eq!(&receipt.outcome, &tried);
        let fee = if sponsored { 0 } else { receipt.fee.get() + receipt.tip.get() };
        let after = world.balance(id("alice"));
        prop_assert!(before - after <= fee + spent, "{before} {after} {fee} {spent}");
        if tried == Outcome::Applied {
            // Nothing here gives anything back.
            prop_assert_eq!(before - after, fee + spent);
        }
    }

    #[test]
    fn what_is_built_from_a_source_is_valid_and_leaves_no_room_that_a_candidate_could_use(
        drafts in vec((0_u8..4, 0_u64..4, any::<u8>()), 0..60), room in 1_u32..12,
    ) {
        let world = World::with(|genesis| genesis.params.block_transactions_max = room);
        let senders = ["alice", "bob", "carol", "poor"];
        let mut nonces = [0_u64; 4];
        let mut list = Vec::new();
        for (sender, jump, big) in drafts {
            let at = usize::from(sender);
            // Each sender's nonces ascend, now and then with a gap; poor soon cannot pay.
            nonces[at] += u64::from(jump == 3);
            let amount = if big < 40 { 9_000 } else { 1 };
            list.push(world.tx_with(&key(senders[at]), transfer(id("dave"), amount), |t| {
                t.nonce = nonce(nonces[at]);
            }));
            nonces[at] += 1;
        }
        let mut source = Queue::new(&world, &list);
        let built = from(&world, &mut source);
        let again = from(&world, &mut Queue::new(&world, &list));
        prop_assert_eq!(&built.block, &again.block);
        let sealed = world.validate(&built.block).expect("what is built is valid");
        prop_assert_eq!(sealed.hash(), built.hash);
        let included = &built.block.transactions;
        prop_assert!(included.len() <= room as usize);
        if included.len() < room as usize {
            // The source ran dry: nothing is left that would go behind what is included.
            let mut after = world.clone();
            after.apply(&sealed);
            after.genesis.params.block_transactions_max = 20_000;
            let rest: Vec<_> = list.iter().filter(|one| !included.contains(one)).cloned().collect();
            let more = after.build(Round::new(0), after.time_ms + STEP_MS, common::candidates(&rest, &[]));
            prop_assert_eq!(more.block.transactions.len(), 0);
        }
    }
}

/// A list as a pool offers it: a sender who is skipped is not offered again.
struct Queue {
    left: VecDeque<Arc<VerifiedTransaction>>,
    skipped: Vec<Arc<VerifiedTransaction>>,
    drawn: usize,
}

impl Queue {
    fn new(world: &World, list: &[SignedTransaction]) -> Self {
        let verified = |signed: &SignedTransaction| {
            Arc::new(VerifiedTransaction::vouched(signed.clone(), &world.id))
        };
        Self {
            left: list.iter().map(verified).collect(),
            skipped: Vec::new(),
            drawn: 0,
        }
    }
}

impl TransactionSource for Queue {
    fn draw(&mut self) -> Option<Arc<VerifiedTransaction>> {
        self.drawn += 1;
        self.left.pop_front()
    }

    fn skip_sender(&mut self, sender: &AccountId) {
        let mut left = VecDeque::new();
        for one in std::mem::take(&mut self.left) {
            if one.transaction().sender == *sender {
                self.skipped.push(one);
            } else {
                left.push_back(one);
            }
        }
        self.left = left;
    }

    fn resume_sender(&mut self, sender: &AccountId) {
        let of_sender = |one: &Arc<VerifiedTransaction>| one.transaction().sender == *sender;
        let skipped = std::mem::take(&mut self.skipped).into_iter();
        let (resumed, skipped): (Vec<_>, Vec<_>) = skipped.partition(of_sender);
        self.skipped = skipped;
        for one in resumed.into_iter().rev() {
            self.left.push_front(one);
        }
    }
}

fn from(world: &World, source: &mut dyn TransactionSource) -> Built {
    beside(world, &[], source)
}

fn beside(
    world: &World,
    attestations: &[AttestationMessage],
    source: &mut dyn TransactionSource,
) -> Built {
    let proposer = world.proposer(Round::new(0));
    let offer = Offer {
        transactions: source,
        attestations: attestations.to_vec(),
        certificate: world.certificate.clone(),
    };
    build_from(
        &world.context(),
        Round::new(0),
        world.time_ms + STEP_MS,
        &UnguardedKeys {
            consensus: key_of(&proposer.key),
            beacon: key_of(&proposer.beacon_key),
        },
        offer,
    )
    .expect("the state is readable and lawful")
}

#[test]
fn follow_ups_of_an_emptied_account_cost_the_block_no_room_and_the_builder_no_draws() {
    const EACH: u64 = 1_000;
    let world = World::with(|genesis| genesis.params.block_transactions_max = 100);
    let mut list: Vec<_> = (0..EACH)
        .map(|number| {
            let amount = if number == 0 { 15_000 } else { 1 };
            world.tx_with(&key("poor"), transfer(id("alice"), amount), |t| {
                t.nonce = nonce(number);
            })
        })
        .collect();
    list.extend((0..99).map(|number| {
        world.tx_with(&key("bob"), transfer(id("alice"), 1), |t| {
            t.nonce = nonce(number);
        })
    }));
    let mut source = Queue::new(&world, &list);
    let built = from(&world, &mut source);
    assert_eq!(built.block.transactions.len(), 100);
    // A block's worth is drawn beforehand, and one for each place that a follow-up leaves empty.
    assert!(source.drawn <= 200, "{} draws", source.drawn);
    assert!(world.validate(&built.block).is_ok());
}

#[test]
fn modules_that_do_not_fit_leave_the_room_for_everything_else() {
    const MODULES: usize = 2 * MISFITS_MAX + 50;
    let world = World::with(|genesis| genesis.params.block_transactions_max = 100);
    let publish = |name: &str, bytes| publish(&world, name, bytes);
    let room = world.genesis.params.block_program_bytes_max as usize;
    // One fills what a block has for modules; each of the others is another sender's.
    let mut list = vec![publish("alice", room)];
    list.extend((0..MODULES).map(|number| publish(&format!("publisher-{number}"), 1)));
    list.push(world.tx(&key("bob"), transfer(id("carol"), 1)));
    let mut source = Queue::new(&world, &list);
    let built = from(&world, &mut source);
    assert_eq!(senders(&built), [id("alice"), id("bob")]);
    assert!(world.validate(&built.block).is_ok());
}

fn publish(world: &World, name: &str, bytes: usize) -> SignedTransaction {
    let module = Blob::new(vec![0; bytes]);
    world.tx(&key(name), Action::PublishProgram { module })
}

fn senders(built: &Built) -> Vec<AccountId> {
    let transactions = built.block.transactions.iter();
    transactions.map(|one| one.transaction.sender).collect()
}

#[test]
fn a_module_that_is_refused_leaves_its_room_to_a_smaller_one_and_what_follows_that() {
    let world = World::new();
    let room = world.genesis.params.block_program_bytes_max as usize;
    let follows = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
        t.nonce = nonce(1);
    });
    let list = [
        // It cannot pay.
        publish(&world, "poor", room),
        publish(&world, "alice", 100),
        follows,
        world.tx(&key("bob"), transfer(id("carol"), 1)),
    ];
    let built = from(&world, &mut Queue::new(&world, &list));
    assert_eq!(senders(&built), [id("alice"), id("bob"), id("alice")]);
    assert!(world.validate(&built.block).is_ok());
}

#[test]
fn a_module_that_does_not_fit_beside_attestations_leaves_its_room_to_a_smaller_one() {
    const OUTPUT: usize = 40_000;
    const MODULE: usize = 40_000;
    let (mut world, spec) = World::with_program(|genesis| {
        genesis.params.block_bytes_max = 64 << 10;
        genesis.params.block_program_bytes_max = u32::try_from(MODULE).expect("small");
    });
    let output = vec![7; OUTPUT];
    let claimed = claim(&output, 500_000);
    let task = world.revealing(&spec, &claimed);
    let list = [
        publish(&world, "alice", MODULE),
        publish(&world, "bob", 100),
    ];
    let reveals = [world.reveal(task, 0, &claimed, &output)];
    // Without the attestation the large one is taken.
    let built = from(&world, &mut Queue::new(&world, &list));
    assert_eq!(senders(&built), [id("alice")]);
    let built = beside(&world, &reveals, &mut Queue::new(&world, &list));
    assert_eq!(built.block.attestations, [reveals[0].signed]);
    assert_eq!(senders(&built), [id("bob")]);
    assert!(world.validate(&built.block).is_ok());
}

#[test]
fn an_attestation_that_does_not_fit_leaves_the_room_for_smaller_ones() {
    let (mut world, spec) = World::with_program(|_| {});
    let claimed = claim(b"output", 500_000);
    let task = world.revealing(&spec, &claimed);
    let room = world.genesis.params.block_bytes_max as usize;
    let list = [
        world.reveal(task, 0, &claimed, &vec![0; room]),
        world.reveal(task, 1, &claimed, b"output"),
    ];
    let built = world.build(
        Round::new(0),
        world.time_ms + STEP_MS,
        common::candidates(&[], &list),
    );
    assert_eq!(built.block.attestations, [list[1].signed]);
    assert!(world.validate(&built.block).is_ok());
}
