//! A whole network of real processes on this machine: four validators and three workers agree,
//! transfer, compute, survive the loss of one, stop and go on.

mod support;

#[path = "../../examples/native/reference.rs"]
mod reference;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::task::ResultStatus;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Height};
use proofmill_node::client::{Options, Wallet};
use proofmill_node::{dev_keys, keys};
use proofmill_rpc::api::{BlockRef, Include, ReceiptResult, Role, TaskState};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use support::{Devnet, Node, PATIENCE, Process, agree_on, command, command_line, is_gone, within};

/// How long a devnet may take to end everything.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// So many heights are compared at least.
const HEIGHTS_MIN: u64 = 10;
/// How many transfers are sent.
const TRANSFERS: u64 = 20;
/// All money is counted after every block, and the nodes say so.
const SETTINGS: [(&str, &str); 2] = [
    ("PROOFMILL_SUPPLY_VERIFY_EVERY", "1"),
    ("PROOFMILL_LOG", "info,proofmill_node::engine=debug"),
];
/// What a node logs when the money adds up.
const SUPPLY_LINE: &str = "the supply adds up";
/// Which validator is lost: a worker asks it first.
const LOST: usize = 1;

#[test]
fn a_network_agrees_computes_and_survives() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("devnet");
    let base = support::free_base(4).to_string();
    let begun = Instant::now();
    let told = |what: &str| eprintln!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());

    let mut devnet = Devnet::start(&home, &["--port", &base], &SETTINGS);
    assert_eq!(devnet.ready.validators.len(), 4);
    assert_eq!(devnet.ready.workers.len(), 3);
    told("the devnet is ready");

    transfers_are_seen_on_all_nodes(&devnet.nodes());
    told("transfers are seen on all nodes");

    for example in ["genome-align", "digits"] {
        let order = Ordering::start(&devnet.node(0), example, 0, place.path()).wait();
        let took = Instant::now();
        order.is_paid_everywhere(&devnet.nodes());
        told(&format!(
            "{example} is computed and paid (looked at in {:.1} s)",
            took.elapsed().as_secs_f64()
        ));
    }

    let height = all_blocks_are_the_same(&devnet.nodes());
    told(&format!("all blocks up to {height} are the same"));

    let mut restarted = a_lost_validator_comes_back(&devnet, place.path(), &told);
    for node in &devnet.ready.validators {
        let log = fs::read_to_string(&node.log).expect("a log");
        assert!(log.contains(SUPPLY_LINE), "{} counts money", node.name);
    }

    // The devnet did not start this one.
    assert!(restarted.terminate(STOPS_WITHIN).success());
    let (old, hash) = {
        let head = devnet.node(0).head();
        (head.height, head.hash)
    };
    everything_stops(&mut devnet, &told);
    drop(devnet);

    let base = support::free_base(4).to_string();
    let mut devnet = Devnet::start(&home, &["--port", &base], &SETTINGS);
    for node in devnet.nodes() {
        assert!(node.head().height >= old, "{} lost blocks", node.name);
        assert_eq!(node.block(old).hash, hash, "{} at {old}", node.name);
    }
    for node in devnet.nodes() {
        node.reaches(old.next().next());
    }
    told("the second devnet goes on");
    everything_stops(&mut devnet, &told);
}

/// Transfers that one node is given have the same effect everywhere.
fn transfers_are_seen_on_all_nodes(nodes: &[Node]) {
    let entry = &nodes[0].client;
    let genesis = entry.node_info().expect("an answer").genesis_hash;
    let wallet = Wallet::new(entry.clone(), genesis, dev_keys::account(1));
    let to = keys::generate().expect("a key").public();
    let before = entry.account(&wallet.account()).expect("an account");
    let sent: Vec<_> = (1..=TRANSFERS)
        .map(|amount| {
            let amount = Amount::new(amount);
            let sent = wallet.send(&Action::Transfer { to, amount }, &Options::default());
            sent.expect("a transfer that is taken")
        })
        .collect();
    let mut fees = 0;
    let mut last = Height::ZERO;
    for sent in &sent {
        let receipt = wallet.wait_included(sent).expect("an applied transfer");
        assert_eq!(receipt.payer, wallet.account());
        fees += receipt.fee.get() + receipt.tip.get();
        last = last.max(receipt.height);
        for node in nodes {
            node.reaches(receipt.height);
            let there = node.client.receipt(&sent.transaction);
            assert_eq!(there.expect("a receipt"), receipt, "{}", node.name);
        }
    }
    assert!(fees > 0);
    agree_on(nodes, last);
    let given: u64 = (1..=TRANSFERS).sum();
    for node in nodes {
        let of = |account: &AccountId| node.client.account(account).expect("an account");
        let (sender, receiver) = (of(&wallet.account()), of(&to));
        assert_eq!(receiver.balance.get(), given, "{}", node.name);
        let left = before.balance.get() - given - fees;
        assert_eq!(sender.balance.get(), left, "{}", node.name);
        assert_eq!(sender.nonce.get(), before.nonce.get() + TRANSFERS);
    }
}

/// An order given by the command line, and what it said.
struct Order {
    example: &'static str,
    from: u32,
    task: Hash,
    said: Value,
    output: Vec<u8>,
}

/// The command line ordering an example and waiting for its result.
struct Ordering {
    example: &'static str,
    from: u32,
    child: Option<Child>,
    out: PathBuf,
}

impl Drop for Ordering {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ordering {
    /// `dev<from>` orders the example.
    fn start(node: &Node, example: &'static str, from: u32, place: &Path) -> Self {
        let out = place.join(format!("{example}-{from}"));
        let mut command = command();
        command.args(["task", "submit"]).arg(folder(example));
        command.args(["--wait", "--json", "--rpc", node.client.url()]);
        command.arg("--home").arg(place.join("client"));
        command.arg("--out").arg(&out);
        command.args(["--from", &format!("dev{from}")]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command line");
        Self {
            example,
            from,
            child: Some(child),
            out,
        }
    }

    fn wait(mut self) -> Order {
        let child = self.child.take().expect("it was started");
        let output = child.wait_with_output().expect("its output");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", self.example);
        let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let task = said["task"].as_str().expect("a task");
        Order {
            example: self.example,
            from: self.from,
            task: task.parse().expect("an id"),
            output: fs::read(self.out.join("output.bin")).expect("the output"),
            said,
        }
    }
}

impl Order {
    /// The result is the native one on every node, and its escrow is paid out to the last grain.
    fn is_paid_everywhere(&self, nodes: &[Node]) {
        let expected = expected(self.example);
        assert_eq!(self.output, expected, "what the command line left");
        assert_eq!(self.said["state"], "final");
        let height: Height = self.said["height"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a height");
        let block = agree_on(nodes, height);
        let escrow = escrow_of(self.example);
        let mut results = Vec::new();
        for node in nodes {
            let client = &node.client;
            let result = client.task_result(&self.task).expect("a result");
            let view = client
                .task(&self.task, Include::default())
                .expect("the task");
            let receipt = client.receipt(&self.task).expect("a receipt");
            assert_eq!(receipt.result, ReceiptResult::Applied);
            assert_eq!(result.output.as_bytes(), expected, "{}", node.name);
            assert_eq!(result.status, ResultStatus::Done);
            assert_eq!(result.height, height);
            assert_eq!(view.state, TaskState::Final);

            let parts = &result.settlement;
            let seats = u64::try_from(result.seats.len()).expect("a few");
            assert_eq!(seats, 3);
            let paid = parts.per_seat.get() * seats
                + parts.validators.get()
                + parts.refunded.get()
                + parts.burned.get();
            assert_eq!(paid, escrow, "{}", node.name);
            assert!(parts.per_seat.get() > 0);
            let paid: u64 = view.paid.iter().map(|payment| payment.amount.get()).sum();
            assert_eq!(paid, escrow, "{}", node.name);

            let is_operator = |account: Option<AccountId>| {
                (0..3).any(|index| account == Some(dev_keys::operator(index).public()))
            };
            let mut operators = Vec::new();
            for payment in &view.paid {
                match payment.role {
                    Role::Worker => {
                        assert!(is_operator(payment.account));
                        operators.push(payment.account);
                    }
                    Role::Validators => {
                        let block = client.block(BlockRef::Hash(block), false);
                        let proposer = block.expect("the block").summary.proposer;
                        let set = client.validators(Some(height)).expect("the validators");
                        let of = set.validators.iter();
                        let mut of = of.filter(|view| view.validator.key == proposer);
                        let reward = of.next().map(|view| view.validator.reward);
                        assert_eq!(payment.account, reward, "who settled it is paid");
                    }
                    Role::Requester => {
                        assert_eq!(payment.account, Some(dev_keys::account(self.from).public()));
                    }
                    Role::Burned => assert_eq!(payment.account, None),
                }
            }
            operators.sort_unstable();
            operators.dedup();
            assert_eq!(operators.len(), 3, "three different operators");
            results.push((result, view.paid, receipt));
        }
        assert!(results.iter().all(|result| *result == results[0]));
    }
}

fn folder(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example)
}

fn manifest(example: &str) -> Value {
    let text = fs::read_to_string(folder(example).join("task.json")).expect("a manifest");
    serde_json::from_str(&text).expect("JSON")
}

/// What the order of an example costs at most: price × gas limit × replicas, rounded up.
fn escrow_of(example: &str) -> u64 {
    let manifest = manifest(example);
    let number = |key: &str| -> u64 {
        let value = manifest[key].as_str().expect("a number");
        value.parse().expect("a number")
    };
    let replicas = manifest["replicas"].as_u64().expect("a number");
    (number("price_per_mgas") * number("gas_limit") * replicas).div_ceil(1_000_000)
}

/// The input of an example: the files that its manifest names, one after the other.
fn input(example: &str) -> Vec<u8> {
    let manifest = manifest(example);
    let files = manifest["input"].as_array().expect("a list of files");
    files
        .iter()
        .flat_map(|file| {
            let file = file.as_str().expect("a file's name");
            fs::read(folder(example).join(file)).expect("an input file")
        })
        .collect()
}

/// What the example computes, natively.
fn expected(example: &str) -> Vec<u8> {
    match example {
        "genome-align" => reference::genome_align(&input(example)),
        "digits" => reference::digits(&input(example)),
        _ => panic!("no such example"),
    }
}

/// Every node gives the same block at every height so far. Returns the last one.
fn all_blocks_are_the_same(nodes: &[Node]) -> Height {
    let last = nodes[0].reaches(Height::new(HEIGHTS_MIN)).height;
    let mut parent = None;
    for height in 1..=last.get() {
        let hash = agree_on(nodes, Height::new(height));
        let block = nodes[0].block(Height::new(height));
        if let Some(parent) = parent {
            assert_eq!(block.parent, parent, "the parent of {height}");
        }
        parent = Some(hash);
    }
    last
}

/// A validator is killed while tasks run: the others finish them, and it catches up when it is
/// started again. Returns its new process.
fn a_lost_validator_comes_back(devnet: &Devnet, place: &Path, told: &dyn Fn(&str)) -> Process {
    let lost = &devnet.ready.validators[LOST];
    let arguments = command_line(lost.pid);
    let others: Vec<_> = (0..4)
        .filter(|index| *index != LOST)
        .map(|index| devnet.node(index))
        .collect();
    let known = others[0].client.tasks(&every()).expect("tasks").tasks.len();
    let orders = [("genome-align", 2), ("digits", 3)]
        .map(|(example, from)| Ordering::start(&others[0], example, from, place));
    // Both are in a block, at most one of them is over.
    within(PATIENCE, "tasks run", || {
        let tasks = others[0].client.tasks(&every()).expect("tasks").tasks;
        let running = tasks.iter().filter(|task| task.state != TaskState::Final);
        (tasks.len() == known + 2 && running.count() > 0).then_some(())
    });
    let pid = i32::try_from(lost.pid).ok().and_then(Pid::from_raw);
    kill_process_group(pid.expect("a process id"), Signal::KILL).expect("a running node");
    within(PATIENCE, "it is gone", || is_gone(lost.pid).then_some(()));
    let crash = others[0].head().height;
    told(&format!("{} is killed at height {crash}", lost.name));

    for order in orders.map(Ordering::wait) {
        assert_eq!(order.output, expected(order.example));
        order.is_paid_everywhere(&others);
    }
    // Four heights: with one of four gone, it was its turn to propose at least once.
    let beyond = (0..4).fold(crash, |height, _| height.next());
    agree_on(&others, beyond);
    told("the tasks are finished and the chain goes on");

    let ready_file = lost.home.join("ready.json");
    fs::remove_file(&ready_file).expect("what the killed one left");
    let mut command = command();
    command.args(arguments).envs(SETTINGS);
    let output = place.join("restarted.output");
    let logs = [lost.log.clone()];
    let mut process = Process::start(&lost.name, command, &output, &logs);
    process.file(&ready_file, PATIENCE);
    let goal = others[0].head().height.next().next();
    let all = devnet.nodes();
    agree_on(&all, goal);
    for height in crash.get()..goal.get() {
        agree_on(&all, Height::new(height));
    }
    within(PATIENCE, "it says that it is synced", || {
        let info = all[LOST].client.node_info().expect("an answer");
        info.synced.then_some(())
    });
    told(&format!("{} is back and has block {goal}", lost.name));
    process
}

fn every() -> proofmill_rpc::api::TaskFilter {
    proofmill_rpc::api::TaskFilter {
        state: None,
        requester: None,
        worker: None,
        limit: 100,
        before: None,
    }
}

/// A devnet that is asked to stop ends well, and nothing that it started is left.
fn everything_stops(devnet: &mut Devnet, told: &dyn Fn(&str)) {
    let processes = devnet.processes();
    assert!(processes.len() >= 7, "{processes:?}");
    let asked = Instant::now();
    let status = devnet.terminate(STOPS_WITHIN);
    assert_eq!(status.code(), Some(0), "{status}");
    let left = STOPS_WITHIN.saturating_sub(asked.elapsed());
    within(left, "every process is gone", || {
        processes.iter().all(|id| is_gone(*id)).then_some(())
    });
    told(&format!(
        "all {} processes are gone after {:.1} s",
        processes.len(),
        asked.elapsed().as_secs_f64()
    ));
}
