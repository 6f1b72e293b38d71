//! Nodes that lie to a worker: what one of them says alone ends no computation and changes no result.

mod scenario_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::task::ResultStatus;
use proofmill_node::devnet::WorkerReady;
use proofmill_rpc::api::TaskState;
use rustix::process::Signal;
use scenario_support::proxy::{self, Fault};
use scenario_support::{Devnet, computing, run_worker_with, signal, until};
use serde_json::{Value, json};

/// A program that computes, step after step, until its gas is used up.
const BUSY: &str = r#"(module
    (memory (export "memory") 1 1)
    (func (export "alloc") (param i32) (result i32) i32.const 1024)
    (func (export "init") (param i32 i32))
    (func (export "step") (result i32) (local $left i32)
      (local.set $left (i32.const 10000000))
      (loop $more
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $more (local.get $left)))
      i32.const 0)
    (func (export "out_ptr") (result i32) i32.const 0)
    (func (export "out_len") (result i32) i32.const 0))"#;
/// Gas for seconds, and for far longer than a test takes.
const SECONDS_OF_GAS: &str = "4000000000";
const MINUTES_OF_GAS: &str = "90000000000";

/// A network with one worker, which does not run, and files for a busy task.
struct Scene {
    place: tempfile::TempDir,
    devnet: Devnet,
    worker: WorkerReady,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let devnet = Devnet::start(&place.path().join("devnet"), 1);
        let worker = devnet.ready.workers[0].clone();
        signal(worker.pid, Signal::KILL);
        Self {
            place,
            devnet,
            worker,
        }
    }

    /// Orders the busy program once.
    fn order(&self, gas_limit: &str) -> Hash {
        let file = |name: &str, bytes: &[u8]| -> PathBuf {
            let path = self.place.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        };
        let program = file("busy.wasm", &wat::parse_str(BUSY).expect("a module"));
        let input = file("input", b"");
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let (program, input) = (text(&program), text(&input));
        let words = ["--program", &program, "--input", &input];
        let limits = ["--gas-limit", gas_limit, "--replicas", "1"];
        self.devnet.submit(&[words, limits].concat()).0
    }

    /// What the worker has logged.
    fn log(&self) -> String {
        let logs = std::fs::read_dir(self.worker.home.join("logs")).expect("logs");
        logs.flatten()
            .map(|file| std::fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }

    /// A node that, while `lying`, knows of no seat and says that every task is over.
    fn forgetful(&self, lying: &Arc<AtomicBool>) -> String {
        let lying = Arc::clone(lying);
        proxy::start(self.devnet.rpc(), move |body| {
            if !lying.load(Ordering::SeqCst) {
                Fault::None
            } else if body.contains("\"task_list\"") {
                Fault::Changed(no_tasks)
            } else if body.contains("\"task_get\"") {
                Fault::Changed(over)
            } else {
                Fault::None
            }
        })
    }
}

fn no_tasks(mut answer: Value) -> Value {
    answer["result"]["tasks"] = json!([]);
    answer
}

fn over(mut answer: Value) -> Value {
    answer["result"]["phase"] = json!({ "cancelled": { "at": "1" } });
    answer["result"]["state"] = json!("cancelled");
    answer["result"]["waiting"] = Value::Null;
    answer
}

fn overloaded(mut answer: Value) -> Value {
    let error = json!({ "code": -32031, "message": "too many requests", "data": {} });
    json!({ "jsonrpc": "2.0", "id": answer["id"].take(), "error": error })
}

/// A page without tasks before the first page.
fn empty_page(mut answer: Value) -> Value {
    answer["result"]["next"] = json!(format!("{}-{}", u64::MAX, u32::MAX));
    no_tasks(answer)
}

fn other_limits(mut answer: Value) -> Value {
    answer["result"]["step_gas_max"] = json!("1000");
    answer
}

#[test]
fn a_computation_goes_on_when_one_node_of_two_says_that_its_seat_is_lost() {
    let scene = Scene::new();
    let lying = Arc::new(AtomicBool::new(false));
    let liar = scene.forgetful(&lying);
    let nodes = ["--rpc", &liar, "--node", scene.devnet.rpc()];
    let mut worker = run_worker_with(&scene.worker, &nodes, scene.place.path());
    let task = scene.order(SECONDS_OF_GAS);
    let pid = worker.0.id();
    until("it computes", || computing(pid).first().copied());
    lying.store(true, Ordering::SeqCst);
    let view = scene.devnet.until_over(&task, TaskState::Final);
    assert!(view.task.missed.is_empty(), "{view:?}");
    let log = scene.log();
    assert!(log.contains("another one that it is not"), "{log}");
    assert!(worker.stop().success());
    scene.devnet.stop();
}

#[test]
fn a_computation_is_killed_when_its_seat_is_lost() {
    let scene = Scene::new();
    let lying = Arc::new(AtomicBool::new(false));
    let (first, second) = (scene.forgetful(&lying), scene.forgetful(&lying));
    scene.order(MINUTES_OF_GAS);
    // Two nodes are believed at once, one alone after a while.
    let both = ["--rpc", &first, "--node", &second];
    for (ended, nodes) in [(1, &both[..]), (2, &both[..2])] {
        lying.store(false, Ordering::SeqCst);
        let mut worker = run_worker_with(&scene.worker, nodes, scene.place.path());
        let pid = worker.0.id();
        until("it computes", || computing(pid).first().copied());
        lying.store(true, Ordering::SeqCst);
        until("the computation is ended", || {
            (scene.log().matches("its computation ends").count() == ended).then_some(())
        });
        until("its process is gone", || {
            computing(pid).is_empty().then_some(())
        });
        assert!(worker.stop().success());
    }
    scene.devnet.stop();
}

/// A node that is ready and refuses for its load is left for the next.
#[test]
fn a_worker_leaves_a_node_that_is_overloaded() {
    let scene = Scene::new();
    let busy = proxy::start(scene.devnet.rpc(), |body| {
        if body.contains("\"node_") {
            Fault::None
        } else {
            Fault::Changed(overloaded)
        }
    });
    let nodes = ["--rpc", &busy, "--node", scene.devnet.rpc()];
    let mut worker = run_worker_with(&scene.worker, &nodes, scene.place.path());
    let task = scene.order(SECONDS_OF_GAS);
    let view = scene.devnet.until_over(&task, TaskState::Final);
    assert!(view.task.missed.is_empty(), "{view:?}");
    assert!(worker.stop().success());
    scene.devnet.stop();
}

#[test]
fn a_seat_on_a_later_page_of_the_list_is_served() {
    let scene = Scene::new();
    let paging = proxy::start(scene.devnet.rpc(), |body| {
        if body.contains("\"task_list\"") && !body.contains("\"before\":\"") {
            Fault::Changed(empty_page)
        } else {
            Fault::None
        }
    });
    let nodes = ["--rpc", &paging];
    let mut worker = run_worker_with(&scene.worker, &nodes, scene.place.path());
    let task = scene.order(SECONDS_OF_GAS);
    let view = scene.devnet.until_over(&task, TaskState::Final);
    assert!(view.task.missed.is_empty(), "{view:?}");
    assert!(worker.stop().success());
    scene.devnet.stop();
}

/// The limits on steps come out of the genesis file, and are asked for only where there is none.
#[test]
fn a_worker_with_the_genesis_file_believes_no_node_s_parameters() {
    let scene = Scene::new();
    let liar = proxy::start(scene.devnet.rpc(), |body| {
        if body.contains("\"chain_getParams\"") {
            Fault::Changed(other_limits)
        } else {
            Fault::None
        }
    });
    let task = scene.order(SECONDS_OF_GAS);
    // Two that disagree are not believed.
    let nodes = ["--rpc", &liar, "--node", scene.devnet.rpc()];
    let mut worker = run_worker_with(&scene.worker, &nodes, scene.place.path());
    until("the worker notices", || {
        let log = scene.log();
        log.contains("the nodes tell different parameters")
            .then_some(())
    });
    assert!(worker.stop().success());
    let genesis = scene.devnet.node().join("genesis.json");
    let genesis = genesis.to_str().expect("a path in UTF-8");
    let nodes = ["--rpc", &liar, "--genesis", genesis];
    let mut worker = run_worker_with(&scene.worker, &nodes, scene.place.path());
    let view = scene.devnet.until_over(&task, TaskState::Final);
    let claim = view.task.seats[0].claim.expect("a result");
    assert_eq!(
        claim.status,
        ResultStatus::OutOfGas,
        "not the lie's limit on a step"
    );
    assert!(worker.stop().success());
    scene.devnet.stop();
}
