//! Workers that fall silent, die or are missing: a task ends as the protocol says, and nobody's
//! money is lost. Everything runs in processes of its own.

mod scenario_support;

use std::path::Path;
use std::time::Instant;

use proofmill_chain::types::units::Amount;
use proofmill_node::devnet::WorkerReady;
use proofmill_rpc::api::{Role, SeatStep, TaskState};
use rustix::process::Signal;
use scenario_support::proxy::{self, Fault};
use scenario_support::{Devnet, Running, run_worker_with, signal, until};

const GENOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/genome-align");
/// The devnet's commit window for this order: 6 s, and a millisecond for each 50,000 gas.
const GAS_LIMIT: &str = "60000000";
const COMMIT_WINDOW_MS: u64 = 6_000 + 60_000_000 / 50_000;
const SEATS: usize = 3;

fn order(devnet: &Devnet) -> proofmill_chain::types::hash::Hash {
    devnet.submit(&[GENOME, "--gas-limit", GAS_LIMIT]).0
}

/// The alignment that the examples' table names.
#[track_caller]
fn assert_right_answer(devnet: &Devnet, task: &proofmill_chain::types::hash::Hash) {
    let task = task.to_string();
    let words = ["task", "result", &task, "--manifest", GENOME, "--json"];
    let result = devnet.ask(&words).json();
    assert_eq!(result["output"]["score"], 941, "{result}");
    assert_eq!(result["output"]["matches"], 1283, "{result}");
    assert_eq!(result["output"]["columns"], 1625, "{result}");
}

#[test]
fn a_silent_workers_seat_is_drawn_again_and_the_task_finishes() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 4);
    let silent = devnet.ready.workers[0].clone();
    signal(silent.pid, Signal::STOP);
    // Three of four are drawn: one time in four the silent one is not among them.
    let task = (0..30)
        .find_map(|_| {
            let task = order(&devnet);
            let drawn = devnet.until_task(&task, "workers are drawn", |view| {
                view.task.draws > 0 && !view.task.seats.is_empty()
            });
            let seats = drawn.task.seats;
            assert_eq!(seats.len(), SEATS);
            let is_drawn = seats.iter().any(|seat| seat.worker == silent.account);
            if !is_drawn {
                devnet.until_over(&task, TaskState::Final);
            }
            is_drawn.then_some(task)
        })
        .expect("it is drawn");
    let begun = Instant::now();
    let view = devnet.until_over(&task, TaskState::Final);
    println!(
        "the seat was drawn again and the task final after {:?}",
        begun.elapsed()
    );
    assert_eq!(view.task.missed, [silent.account]);
    assert_eq!(view.task.draws, 2);
    assert_eq!(view.task.seats.len(), SEATS);
    assert!(
        view.task
            .seats
            .iter()
            .all(|seat| seat.worker != silent.account && seat.claim.is_some())
    );
    let (first, second): (Vec<_>, Vec<_>) = view.task.seats.iter().partition(|s| s.draw == 0);
    assert_eq!((first.len(), second.len()), (2, 1));
    let waited = second[0].drawn.time_ms - first[0].drawn.time_ms;
    assert!(
        waited >= COMMIT_WINDOW_MS,
        "the seat was drawn again after {waited} ms"
    );
    assert_right_answer(&devnet, &task);
    let shown = devnet.ask(&["task", "show", &task.to_string(), "--json"]);
    assert_eq!(
        shown.json()["missed"],
        serde_json::json!([silent.account.to_string()])
    );
    let record = devnet.client.worker(&silent.account).expect("an answer");
    let record = record.expect("it stays registered").worker;
    assert_eq!(record.reputation.missed, 1);
    assert_eq!(record.locked, Amount::ZERO, "its bond is free again");
    let paid: Vec<_> = view
        .paid
        .iter()
        .filter(|part| part.role == Role::Worker)
        .collect();
    assert_eq!(paid.len(), SEATS);
    assert!(
        paid.iter()
            .all(|part| part.account != Some(record.operator))
    );

    // Back again, it works: four of four seats need it.
    signal(silent.pid, Signal::CONT);
    let (task, _) = devnet.submit(&[GENOME, "--replicas", "4"]);
    let view = devnet.until_over(&task, TaskState::Final);
    assert!(view.task.missed.is_empty());
    assert_right_answer(&devnet, &task);
    devnet.stop();
}

fn run_worker(worker: &WorkerReady, rpc: &str, place: &Path) -> Running {
    run_worker_with(worker, &["--rpc", rpc], place)
}

#[test]
fn a_worker_killed_between_commit_and_reveal_reveals_after_its_restart() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 3);
    let [frozen, victim, _] = &devnet.ready.workers[..] else {
        panic!("three workers");
    };
    // All three are drawn, and as long as one has not committed nobody reveals.
    signal(frozen.pid, Signal::STOP);
    let task = order(&devnet);
    let commitment = until("the victim has committed", || {
        let view = devnet.task(&task);
        view.task
            .seats
            .iter()
            .find(|seat| seat.worker == victim.account)
            .and_then(|seat| seat.commitment)
    });
    let view = devnet.task(&task);
    assert_eq!(view.state, TaskState::Committing);
    signal(victim.pid, Signal::KILL);
    let begun = Instant::now();
    let log = devnet.ready.home.with_extension("log");
    until("the network tells of the death", || {
        let told = std::fs::read_to_string(&log).unwrap_or_default();
        told.contains(&format!("{} died (signal: 9", victim.name))
            .then_some(())
    });
    signal(frozen.pid, Signal::CONT);
    let view = devnet.until_task(&task, "all have committed", |view| {
        view.state == TaskState::Revealing
    });
    let seat = |view: &proofmill_rpc::api::TaskView| {
        let seats = view.task.seats.iter().zip(&view.progress);
        seats
            .filter(|(seat, _)| seat.worker == victim.account)
            .map(|(seat, progress)| (seat.clone(), progress.step))
            .next()
            .expect("the victim keeps its seat")
    };
    assert_eq!(
        seat(&view).1,
        SeatStep::Committed,
        "it cannot have revealed"
    );
    let mut restarted = run_worker(victim, devnet.rpc(), place.path());
    let view = devnet.until_over(&task, TaskState::Final);
    println!("final {:?} after the kill", begun.elapsed());
    let (seat, step) = seat(&view);
    assert_eq!(step, SeatStep::Revealed);
    assert_eq!(
        seat.commitment,
        Some(commitment),
        "it revealed what it had committed to"
    );
    assert!(seat.claim.is_some());
    assert_eq!((view.task.draws, view.task.missed.len()), (1, 0));
    assert_right_answer(&devnet, &task);
    assert!(restarted.stop().success());
    devnet.stop();
}

#[test]
fn a_task_without_workers_says_why_it_waits_and_expires_with_its_escrow_back() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    let before = devnet.dev_balance(0);
    let (task, fees) = devnet.submit(&[GENOME, "--wait-max", "6"]);
    let id = task.to_string();
    let waiting = devnet.task(&task);
    assert_eq!(waiting.state, TaskState::Open);
    let escrow = waiting.task.escrow;
    assert!(escrow > Amount::ZERO);
    assert_eq!(
        devnet.dev_balance(0).get(),
        before.get() - fees.get() - escrow.get()
    );
    let shown = until("the task says why it waits", || {
        let shown = devnet.ask(&["task", "show", &id]).good();
        shown
            .contains("eligible workers are needed")
            .then_some(shown)
    });
    for words in [
        "3 eligible workers are needed, the last draw found 0",
        "0 workers are registered, 0 of them eligible",
        "expires after block",
    ] {
        assert!(shown.contains(words), "`{words}` is missing in {shown}");
    }
    let view = devnet.until_over(&task, TaskState::Expired);
    assert_eq!(view.task.escrow, Amount::ZERO);
    assert_eq!(devnet.dev_balance(0).get(), before.get() - fees.get());
    devnet.ask(&["task", "result", &id]).refused(&[
        "expired",
        "3 eligible workers were needed and the last draw found 0",
        "the escrow went back",
    ]);
    devnet.stop();
}

#[test]
fn an_open_task_is_cancelled_by_its_requester_alone_and_the_escrow_comes_back() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    let (before, other) = (devnet.dev_balance(0), devnet.dev_balance(1));
    let (task, fees) = devnet.submit(&[GENOME]);
    let id = task.to_string();
    assert!(devnet.dev_balance(0).get() < before.get() - fees.get());
    devnet
        .ask(&["task", "cancel", &id, "--from", "dev1"])
        .refused(&["belongs to another requester", "-32019"]);
    assert_eq!(devnet.dev_balance(1), other, "a refusal costs nothing");
    assert_eq!(devnet.task(&task).state, TaskState::Open);
    devnet
        .ask(&["task", "cancel", &id, "--from", "dev0", "--json"])
        .json();
    let view = devnet.until_over(&task, TaskState::Cancelled);
    assert_eq!(view.task.escrow, Amount::ZERO);
    // Cancelling weighs 200 and its bytes, eight grain each: less than the escrow was.
    let after = devnet.dev_balance(0).get();
    let cancelling = before.get() - fees.get() - after;
    assert!(
        cancelling > 200 * 8 && cancelling < 1_000 * 8,
        "{cancelling}"
    );
    devnet
        .ask(&["task", "cancel", &id, "--from", "dev0"])
        .refused(&[
            "is not open any more",
            "only a task that waits for its workers can be taken back",
        ]);
    assert_eq!(devnet.dev_balance(0).get(), after);
    devnet.stop();
}

/// Another input: the JSON encoding and the wire encoding of an order, each with its last byte of
/// input changed.
fn another_input(mut answer: serde_json::Value) -> serde_json::Value {
    use proofmill_chain::codec;
    use proofmill_chain::types::transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX};

    let Some(text) = answer["result"]["encoding"].as_str() else {
        return answer;
    };
    let bytes = hex::decode(text.trim_start_matches("0x")).expect("hex");
    let mut signed: SignedTransaction =
        codec::decode::<_, TRANSACTION_BYTES_MAX>(&bytes).expect("a transaction");
    if let Action::SubmitTask(spec) = &mut signed.transaction.action {
        let mut input = spec.input.as_bytes().to_vec();
        input.reverse();
        spec.input = proofmill_chain::types::hash::Blob::new(input);
    }
    let bytes = codec::encode(&signed);
    answer["result"]["encoding"] = format!("0x{}", hex::encode(bytes)).into();
    answer
}

/// Another program under the order's name.
fn another_program(mut answer: serde_json::Value) -> serde_json::Value {
    if answer["result"]["program_bytes"].is_string() {
        answer["result"]["program_bytes"] = "0x0061736d01000000".into();
    }
    answer
}

/// A node that gives another input or another program is found out by the task's id; the worker asks
/// the next node, and the answer is the right one.
#[test]
fn a_worker_behind_a_lying_node_computes_the_order_that_was_signed() {
    for (lie, method) in [
        (
            another_input as fn(serde_json::Value) -> serde_json::Value,
            "tx_get",
        ),
        (another_program, "task_get"),
    ] {
        let place = tempfile::tempdir().expect("a directory");
        let devnet = Devnet::start(&place.path().join("devnet"), 3);
        let victim = &devnet.ready.workers[0];
        signal(victim.pid, Signal::KILL);
        let liar = proxy::start(devnet.rpc(), move |body| {
            if body.contains(&format!("\"{method}\"")) {
                Fault::Changed(lie)
            } else {
                Fault::None
            }
        });
        let nodes = ["--rpc", &liar, "--node", devnet.rpc()];
        let mut worker = until("the journal is free", || {
            Some(run_worker_with(victim, &nodes, place.path()))
        });
        let task = order(&devnet);
        let view = devnet.until_over(&task, TaskState::Final);
        assert!(view.task.missed.is_empty(), "{method}: {view:?}");
        assert_right_answer(&devnet, &task);
        let log = victim.home.join("logs");
        let told = std::fs::read_dir(&log)
            .expect("logs")
            .flatten()
            .any(|file| {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                text.contains("answers are false")
            });
        assert!(told, "{method}: the worker noticed");
        assert!(worker.stop().success());
        devnet.stop();
    }
}

/// A node that stands still does not cost a worker its seat as long as another one goes on.
#[test]
fn a_worker_leaves_a_node_that_lags() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 3);
    let victim = &devnet.ready.workers[0];
    devnet.advance(1);
    signal(victim.pid, Signal::KILL);
    // Its head stays where it was, and it knows no task.
    let lagging = proxy::start(devnet.rpc(), |body| {
        if body.contains("\"node_info\"") {
            Fault::Changed(|mut answer| {
                answer["result"]["head"]["height"] = "1".into();
                answer
            })
        } else if body.contains("\"task_list\"") {
            Fault::Changed(|mut answer| {
                answer["result"]["tasks"] = serde_json::json!([]);
                answer
            })
        } else {
            Fault::None
        }
    });
    devnet.advance(4);
    let nodes = ["--rpc", &lagging, "--node", devnet.rpc()];
    let mut worker = run_worker_with(victim, &nodes, place.path());
    let task = order(&devnet);
    let view = devnet.until_over(&task, TaskState::Final);
    assert!(view.task.missed.is_empty(), "{view:?}");
    assert!(worker.stop().success());
    devnet.stop();
}
