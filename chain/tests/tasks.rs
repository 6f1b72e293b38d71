//! The lives of tasks: how each ends, who is paid, and every attestation that is void.

mod common;

use common::{COLLATERAL, World, candidates, claim, expiry, id, key, reward_of, salt, terms};
use proofmill_chain::assign;
use proofmill_chain::build::Candidates;
use proofmill_chain::execute::ExecuteError;
use proofmill_chain::pipeline::BlockError;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::task::{Void, escrow};
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::task::{
    ExpiryReason, Mode, Phase, ResultClaim, ResultStatus, Settlement, Statement,
};
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Gas};
use proofmill_chain::types::worker::Reputation;

const OUTPUT: &[u8] = b"the output";

fn good() -> ResultClaim {
    claim(OUTPUT, 777_777)
}

#[test]
fn three_equal_results_end_the_task_and_the_escrow_is_split_to_the_grain() {
    let (mut world, spec) = World::with_program(|_| {});
    let alice = world.balance(id("alice"));
    let order = world.tx(&key("alice"), Action::SubmitTask(spec));
    let step = world.advance(candidates(&[order], &[]));
    let receipt = &step.receipts()[0];
    let task = receipt.transaction;
    // 1,000,003 grain × 1 Mgas × 3 seats.
    let escrow = 3_000_009;
    let paid = receipt.fee.get() + receipt.tip.get() + escrow;
    assert_eq!(world.balance(id("alice")), alice - paid);
    assert_eq!(world.task(task).escrow.get(), escrow);
    assert_eq!(
        step.sealed.effects().blobs,
        vec![Blob::new(b"input".to_vec())]
    );

    // h0 + 1 and h0 + 2: nothing is drawn before the beacon of h0 + assign_delay is final.
    world.idle(2);
    assert_eq!(world.task(task).phase, Phase::Open);
    let beacon = world.chain().beacon;
    let expected = {
        let mut overlay = Overlay::new(&world.state);
        let open = world.task(task);
        let height = world.height.next();
        let survey = assign::survey(&mut overlay, &open, &world.genesis.params, height)
            .expect("it is readable");
        assert_eq!(survey.operators(), 8);
        assign::sample(survey.eligible, 3, &assign::seed(&beacon, &open)).expect("there are eight")
    };
    let step = world.advance(Candidates::default());
    let drawn: Vec<_> = step.sealed.block().assignments.iter().collect();
    let seated = world.task(task);
    assert_eq!((seated.draws, seated.eligible_last), (1, 8));
    for (place, worker) in expected.iter().enumerate() {
        assert_eq!((drawn[place].task, drawn[place].draw), (task, 0));
        assert_eq!(drawn[place].worker, worker.id);
        assert_eq!(seated.seats[place].worker, worker.id);
        // A third of the insured 100,000, rounded up.
        assert_eq!(seated.seats[place].bond.get(), 33_334);
        assert_eq!(world.worker(worker.id).free_collateral().get(), 966_666);
    }

    let commits = world.commits(task, &good());
    world.advance(candidates(&[], &commits[..2]));
    assert_eq!(
        world.task(task).phase,
        Phase::Committing { vacant_since: None }
    );
    world.advance(candidates(&[], &commits[2..]));
    assert_eq!(world.task(task).phase.name(), "revealing");

    let reveals = world.reveals(task, &good(), OUTPUT);
    let step = world.advance(candidates(&[], &reveals[..1]));
    assert_eq!(
        step.sealed.block().outputs,
        vec![Blob::new(OUTPUT.to_vec())]
    );
    assert_eq!(step.sealed.effects().blobs, step.sealed.block().outputs);
    let reward = reward_of(&world);
    let before = world.clone();
    let step = world.advance(candidates(&[], &reveals[1..]));
    assert!(step.sealed.block().outputs.is_empty());

    // price = ⌊1,000,003 × 777,777 × 3 / 10^6⌋ = 2,333,337. Workers: ⌊⌊88%⌋ / 3⌋ each, validators
    // ⌊4%⌋, audits ⌊5%⌋ back to the requester with the unused rest, all else burned.
    let settlement = Settlement {
        gas: Gas::new(777_777),
        per_seat: Amount::new(684_445),
        validators: Amount::new(93_333),
        burned: Amount::new(70_003),
        refunded: Amount::new(783_338),
    };
    assert_eq!(3 * 684_445 + 93_333 + 70_003 + 783_338, escrow);
    let end = world.task(task);
    assert_eq!(
        end.phase,
        Phase::Final {
            at: world.height,
            claim: good(),
            settlement
        }
    );
    assert_eq!(end.escrow, Amount::ZERO);
    let gained = |who: AccountId| world.balance(who) - before.balance(who);
    assert_eq!(gained(id("alice")), 783_338);
    assert_eq!(gained(reward), 93_333);
    assert_eq!(
        world.chain().burned.get() - before.chain().burned.get(),
        70_003
    );
    for seat in &end.seats {
        assert_eq!(gained(seat.operator), 684_445);
        let worker = world.worker(seat.worker);
        assert_eq!((worker.locked, worker.seats), (Amount::ZERO, 0));
        assert_eq!(worker.collateral.get(), COLLATERAL);
        assert_eq!(
            worker.reputation,
            Reputation {
                accepted: 1,
                gas_served: Gas::new(777_777),
                ..Reputation::default()
            }
        );
    }
    assert!(world.live().entries.is_empty());
}

#[test]
fn an_escrow_rounds_up_and_refuses_what_64_bits_cannot_hold() {
    let three = Mode::Replicated { replicas: 3 };
    let of = |price, gas| escrow(Amount::new(price), Gas::new(gas), three);
    assert_eq!(of(1, 1), Some(Amount::new(1)));
    assert_eq!(of(1, 333_333), Some(Amount::new(1)));
    assert_eq!(of(1, 333_334), Some(Amount::new(2)));
    assert_eq!(of(u64::MAX / 3, 1_000_000), Some(Amount::new(u64::MAX)));
    assert_eq!(of(u64::MAX / 3 + 1, 1_000_000), None);
    assert_eq!(of(u64::MAX, u64::MAX), None);
}

#[test]
fn a_price_of_less_than_a_grain_is_burned_to_nothing_and_the_rest_returns() {
    let (mut world, mut spec) = World::with_program(|_| {});
    spec.price_per_mgas = Amount::new(1);
    let task = world.revealing(&spec, &claim(OUTPUT, 1));
    let before = world.balance(id("alice"));
    let reveals = world.reveals(task, &claim(OUTPUT, 1), OUTPUT);
    world.advance(candidates(&[], &reveals));
    let Phase::Final { settlement, .. } = world.task(task).phase else {
        panic!("the task has its result");
    };
    assert_eq!(
        (
            settlement.per_seat,
            settlement.validators,
            settlement.burned
        ),
        (Amount::ZERO, Amount::ZERO, Amount::ZERO)
    );
    assert_eq!(world.balance(id("alice")), before + 3);
}

#[test]
fn a_trap_is_a_payable_result_without_output() {
    let (mut world, spec) = World::with_program(|_| {});
    let trapped = ResultClaim {
        status: ResultStatus::Trap,
        ..claim(b"", 1_000_000)
    };
    let task = world.revealing(&spec, &trapped);
    let reveals = world.reveals(task, &trapped, b"");
    let step = world.advance(candidates(&[], &reveals));
    assert!(step.sealed.block().outputs.is_empty());
    let Phase::Final { settlement, .. } = world.task(task).phase else {
        panic!("the task has its result");
    };
    // The whole escrow but the audits' 5% (150,000 of 3,000,009).
    assert_eq!(settlement.refunded.get(), 150_000);
}

#[test]
fn commits_and_reveals_of_one_block_end_a_task_when_they_stand_in_order() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let mut all = world.commits(task, &good());
    all.extend(world.reveals(task, &good(), OUTPUT));
    world.advance(candidates(&[], &all));
    assert_eq!(world.task(task).phase.name(), "final");
}

#[test]
fn results_that_differ_refund_the_requester_and_nobody_is_slashed() {
    let different = [
        claim(b"another output", 777_777),
        claim(OUTPUT, 777_778),
        ResultClaim {
            trace_root: Hash::ZERO,
            ..good()
        },
        ResultClaim {
            status: ResultStatus::Trap,
            ..claim(b"", 777_777)
        },
    ];
    for odd in different {
        let (mut world, spec) = World::with_program(|_| {});
        let task = world.drawn(&spec);
        let claims = [good(), good(), odd];
        let commits: Vec<_> = (0..3).map(|n| world.commit(task, n, &claims[n])).collect();
        world.advance(candidates(&[], &commits));
        let bytes: &[u8] = match odd.status {
            ResultStatus::Trap => b"",
            _ if odd.output_hash != good().output_hash => b"another output",
            _ => OUTPUT,
        };
        let outputs = [OUTPUT, OUTPUT, bytes];
        let reveals: Vec<_> = (0..3)
            .map(|n| world.reveal(task, n, &claims[n], outputs[n]))
            .collect();
        let before = world.balance(id("alice"));
        world.advance(candidates(&[], &reveals));
        let end = world.task(task);
        assert_eq!(expiry(&end), Some(ExpiryReason::ResultsDiffer));
        assert_eq!(world.balance(id("alice")), before + 3_000_009);
        for seat in &end.seats {
            let worker = world.worker(seat.worker);
            assert_eq!(worker.free_collateral().get(), COLLATERAL);
            assert_eq!(worker.reputation.disputed, 1);
            assert_eq!(worker.reputation.accepted, 0);
        }
    }
}

#[test]
fn a_missing_reveal_refunds_and_is_remembered_of_the_silent_seat_alone() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.revealing(&spec, &good());
    let reveals = world.reveals(task, &good(), OUTPUT);
    world.advance(candidates(&[], &reveals[..2]));
    let before = world.balance(id("alice"));
    world.idle(8);
    assert_eq!(world.task(task).phase.name(), "revealing");
    world.idle(1);
    let end = world.task(task);
    assert_eq!(expiry(&end), Some(ExpiryReason::NotRevealed));
    assert_eq!(world.balance(id("alice")), before + 3_000_009);
    let missed: Vec<_> = end
        .seats
        .iter()
        .map(|seat| world.worker(seat.worker).reputation.missed)
        .collect();
    assert_eq!(missed, [0, 0, 1]);
    assert_eq!(
        world.void(&world.reveal(task, 2, &good(), OUTPUT)),
        Void::NotNow("revealing")
    );
}

#[test]
fn every_void_attestation_is_refused_and_changes_nothing() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let seats = world.task(task).seats;
    let first = seats[0].worker;
    let commitment = Hash::of("any", &[]);
    let commit_of = |worker, task, draw| {
        world.attest(worker, task, draw, Statement::Commit { commitment }, b"")
    };
    assert_eq!(
        world.void(&commit_of(first, Hash::of("no task", &[]), 0)),
        Void::TaskUnknown
    );
    assert_eq!(
        world.void(&commit_of(id("stranger"), task, 0)),
        Void::NoSeat
    );
    assert_eq!(world.void(&commit_of(first, task, 1)), Void::NoSeat);
    let unseated = (0..8)
        .map(|n| id(&format!("worker-{n}")))
        .find(|id| seats.iter().all(|seat| seat.worker != *id))
        .expect("three of eight have seats");
    assert_eq!(world.void(&commit_of(unseated, task, 0)), Void::NoSeat);

    // Early: nobody has committed, then all but one have.
    assert_eq!(
        world.void(&world.reveal(task, 0, &good(), OUTPUT)),
        Void::NotNow("revealing")
    );
    let commits = world.commits(task, &good());
    world.advance(candidates(&[], &commits[..2]));
    assert_eq!(
        world.void(&world.reveal(task, 0, &good(), OUTPUT)),
        Void::NotNow("revealing")
    );
    assert_eq!(world.void(&commits[0]), Void::CommittedAlready);
    let change_of_mind = world.commit(task, 0, &claim(b"other", 1));
    assert_eq!(world.void(&change_of_mind), Void::CommittedAlready);

    world.advance(candidates(&[], &commits[2..]));
    assert_eq!(world.void(&commits[0]), Void::NotNow("committing"));
    let salted = Statement::Reveal {
        claim: good(),
        salt: salt(&seats[1].worker),
    };
    let wrong = [
        world.attest(first, task, 0, salted, OUTPUT),
        world.reveal(task, 0, &claim(OUTPUT, 777_776), OUTPUT),
        world.reveal(task, 0, &claim(b"other", 777_777), b"other"),
        world.reveal(
            task,
            0,
            &ResultClaim {
                trace_root: Hash::ZERO,
                ..good()
            },
            OUTPUT,
        ),
        world.reveal(
            task,
            0,
            &ResultClaim {
                status: ResultStatus::OutOfGas,
                ..claim(b"", 777_777)
            },
            b"",
        ),
    ];
    for message in wrong {
        assert_eq!(world.void(&message), Void::NotCommitment);
    }
    assert_eq!(
        world.void(&world.reveal(task, 0, &claim(OUTPUT, 1_000_001), OUTPUT)),
        Void::GasAboveLimit {
            given: Gas::new(1_000_001),
            most: Gas::new(1_000_000)
        }
    );
    let failed = ResultClaim {
        status: ResultStatus::Trap,
        ..good()
    };
    assert_eq!(
        world.void(&world.reveal(task, 0, &failed, OUTPUT)),
        Void::OutputOfFailure
    );
    let stranger = world.attest(unseated, task, 0, salted, OUTPUT);
    assert_eq!(world.void(&stranger), Void::NoSeat);

    let reveals = world.reveals(task, &good(), OUTPUT);
    world.advance(candidates(&[], &reveals[..2]));
    assert_eq!(world.void(&reveals[0]), Void::RevealedAlready);
    world.advance(candidates(&[], &reveals[2..]));
    assert_eq!(world.void(&reveals[0]), Void::NotNow("revealing"));
    assert_eq!(world.void(&commits[0]), Void::NotNow("committing"));
}

#[test]
fn an_attestation_twice_in_a_block_makes_it_invalid_and_is_built_once() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let commit = world.commit(task, 0, &good());
    let twice = world.forge(|block| block.attestations = vec![commit.signed, commit.signed]);
    assert_eq!(
        world.validate(&twice).map(|sealed| sealed.hash()),
        Err(BlockError::Execute(ExecuteError::Attestation {
            index: 1,
            void: Void::CommittedAlready
        }))
    );
    let step = world.advance(candidates(&[], &[commit.clone(), commit.clone()]));
    assert_eq!(step.sealed.block().attestations, vec![commit.signed]);
    assert_eq!(step.built.void.len(), 1);
}

#[test]
fn outputs_ride_exactly_with_the_first_reveal_that_names_them() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.revealing(&spec, &good());
    let reveals = world.reveals(task, &good(), OUTPUT);
    let output = Blob::new(OUTPUT.to_vec());
    let other = Blob::new(b"another output".to_vec());
    let mut both = vec![output.clone(), other.clone()];
    both.sort_by_key(Blob::hash);
    let refused = Err(BlockError::Execute(ExecuteError::Outputs));
    let outcome = |world: &World, reveal: usize, outputs: &[Blob]| {
        let block = world.forge(|block| {
            block.attestations = vec![reveals[reveal].signed];
            block.outputs = outputs.to_vec();
        });
        world.validate(&block).map(|sealed| sealed.hash())
    };
    // Missing, wrong, one too many.
    for outputs in [vec![], vec![other], both] {
        assert_eq!(outcome(&world, 0, &outputs), refused);
    }
    // With what it names it gets as far as the roots, which only the builder knows.
    let right = [output];
    assert!(matches!(
        outcome(&world, 0, &right),
        Err(BlockError::Seal { .. })
    ));
    let orphan = world.forge(|block| block.outputs = right.to_vec());
    assert_eq!(world.validate(&orphan).map(|s| s.hash()), refused);

    let step = world.advance(candidates(&[], &reveals[..1]));
    assert_eq!(step.sealed.block().outputs, right.to_vec());
    // The second needs none, and may not bring it again.
    assert_eq!(outcome(&world, 1, &right), refused);
    let step = world.advance(candidates(&[], &reveals[1..2]));
    assert!(step.sealed.block().outputs.is_empty());
}

#[test]
fn an_output_that_two_tasks_name_rides_once_in_a_block() {
    let (mut world, spec) = World::with_program(|_| {});
    let one = world.revealing(&spec, &good());
    let two = world.revealing(&spec, &good());
    assert_eq!(world.task(one).phase.name(), "revealing");
    let mut reveals = world.reveals(one, &good(), OUTPUT);
    reveals.extend(world.reveals(two, &good(), OUTPUT));
    let step = world.advance(candidates(&[], &reveals));
    assert_eq!(
        step.sealed.block().outputs,
        vec![Blob::new(OUTPUT.to_vec())]
    );
    assert_eq!(world.task(one).phase.name(), "final");
    assert_eq!(world.task(two).phase.name(), "final");
}

#[test]
fn a_worker_that_retires_with_seats_leaves_after_the_last_with_all_its_collateral() {
    // Everybody has a seat in both tasks.
    let (mut world, spec) = World::with_program(|genesis| genesis.workers.truncate(3));
    let one = world.drawn(&spec);
    let two = world.drawn(&spec);
    let (worker, operator) = (id("worker-0"), id("operator-0"));
    assert_eq!(world.worker(worker).seats, 2);
    world.does("operator-0", Action::RetireWorker { worker });
    assert!(world.worker(worker).retiring);
    for action in [
        Action::RetireWorker { worker },
        Action::UpdateWorker {
            worker,
            terms: terms(),
            add_collateral: Amount::new(1),
        },
    ] {
        assert_eq!(
            world.failure(&world.tx(&key("operator-0"), action)),
            proofmill_chain::types::receipt::Failure::WorkerRetiring { worker }
        );
    }
    for (task, last) in [(one, false), (two, true)] {
        let mut all = world.commits(task, &good());
        all.extend(world.reveals(task, &good(), OUTPUT));
        let before = world.balance(operator);
        world.advance(candidates(&[], &all));
        assert_eq!(world.task(task).phase.name(), "final");
        let gained = world.balance(operator) - before;
        let registered = world
            .record(proofmill_chain::types::record::StateKey::Worker(worker))
            .is_some();
        assert_eq!(registered, !last);
        assert_eq!(gained, 684_445 + if last { COLLATERAL } else { 0 });
    }
}
