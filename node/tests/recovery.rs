//! All validators are killed at once, again and again, at moments that nobody chose: what was final
//! stays final, and the chain goes on.
//!
//! `PROOFMILL_RECOVERY_ROUNDS` says how often (10), `PROOFMILL_SEED` repeats a run's moments.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Height};
use proofmill_node::client::{Options, Wallet};
use proofmill_node::dev_keys;
use support::{
    Devnet, Node, PATIENCE, Process, Random, command, command_line, count_from_environment, within,
};

/// Rounds, unless the environment says.
const ROUNDS: u64 = 10;
/// How many transfers of the sender may wait for a block.
const PENDING_MAX: u64 = 16;
/// A kill comes at most so much after the chain goes on.
const KILL_WITHIN_MS: u64 = 1_200;
/// A kill during a start comes at most so much after it.
const EARLY_KILL_WITHIN_MS: u64 = 700;
/// Every so many rounds on average the nodes are killed while they start, too.
const EARLY_EVERY: u64 = 3;

#[test]
fn what_is_final_survives_the_death_of_all_validators() {
    let rounds = count_from_environment("PROOFMILL_RECOVERY_ROUNDS", ROUNDS);
    let mut random = Random::from_environment();
    let place = tempfile::tempdir().expect("a directory");
    let mut network = Network::lay_out(place.path());
    let mut seen = Seen::default();
    let begun = Instant::now();

    network.start();
    network.become_ready();
    for round in 1..=rounds {
        // Only what comes after this is new.
        let goal = seen.last().saturating_plus(2);
        let sender =
            Sender::start(&network.nodes[usize::try_from(random.below(4)).expect("small")]);
        for node in &network.nodes {
            let head = node.reaches(goal);
            seen.note(node, head.height, head.hash);
        }
        let moment = Instant::now() + Duration::from_millis(random.below(KILL_WITHIN_MS));
        while Instant::now() < moment {
            seen.look(&network.nodes);
            thread::sleep(support::LOOK_EVERY);
        }
        network.kill_all();
        sender.make_no_more();

        let early = random.below(EARLY_EVERY) == 0;
        let pause = Duration::from_millis(random.below(EARLY_KILL_WITHIN_MS));
        if early {
            network.start();
            thread::sleep(pause);
            network.kill_all();
        }

        let started = Instant::now();
        network.start();
        network.become_ready();
        // Not before: a wallet asks a node that is away for its transaction until it is back.
        let sent = sender.stop();
        seen.was_on_disk(&network.opened());
        seen.is_kept(&network.nodes);
        eprintln!(
            "{:6.1} s  round {round}: killed at height {}, {sent} transfers taken{}; all is there \
             after {:.1} s",
            begun.elapsed().as_secs_f64(),
            seen.last(),
            if early {
                format!(", killed again {} ms into the start", pause.as_millis())
            } else {
                String::new()
            },
            started.elapsed().as_secs_f64()
        );
    }

    let goal = seen.last().saturating_plus(2);
    for node in &network.nodes {
        node.reaches(goal);
    }
    let told = |what: &str| eprintln!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
    told("two more heights");
    seen.is_whole(&network.nodes);
    told("every node has the whole chain");
    let sender = dev_keys::account(0).public();
    for node in &network.nodes {
        let account = node.client.account(&sender).expect("an account");
        assert!(account.nonce.get() > 0, "{}: transfers came in", node.name);
    }
    network.stop();
    told("all have stopped");
}

/// Four validators on fixed homes and addresses.
struct Network {
    arguments: Vec<Vec<String>>,
    ready_files: Vec<PathBuf>,
    logs: Vec<PathBuf>,
    outputs: PathBuf,
    nodes: Vec<Node>,
    processes: Vec<Process>,
}

impl Network {
    /// A devnet makes the homes and says how it starts its validators.
    fn lay_out(place: &Path) -> Self {
        let base = support::free_base(4).to_string();
        let home = place.join("devnet");
        let mut devnet = Devnet::start(&home, &["--workers", "0", "--port", &base], &[]);
        let validators = devnet.ready.validators.clone();
        assert_eq!(validators.len(), 4);
        let arguments = validators.iter().map(|node| command_line(node.pid));
        let network = Self {
            arguments: arguments.collect(),
            ready_files: validators
                .iter()
                .map(|node| node.home.join("ready.json"))
                .collect(),
            logs: validators.iter().map(|node| node.log.clone()).collect(),
            outputs: place.into(),
            nodes: devnet.nodes(),
            processes: Vec::new(),
        };
        assert!(devnet.terminate(PATIENCE).success());
        network
    }

    fn start(&mut self) {
        assert!(self.processes.is_empty());
        for (index, arguments) in self.arguments.iter().enumerate() {
            // Left by the process before, when it lived long enough.
            let _ = fs::remove_file(&self.ready_files[index]);
            let name = &self.nodes[index].name;
            let mut command = command();
            command.args(arguments).arg("--log-stderr");
            let output = self.output(name);
            let logs = [self.logs[index].clone()];
            let process = Process::start(name, command, &output, &logs);
            self.processes.push(process);
        }
    }

    fn become_ready(&mut self) {
        for (process, file) in self.processes.iter_mut().zip(&self.ready_files) {
            process.file(file, PATIENCE);
        }
    }

    /// What a process writes, from its start on.
    fn output(&self, name: &str) -> PathBuf {
        self.outputs.join(format!("{name}.output"))
    }

    /// The heads that the nodes found on their own disks, before they could ask each other.
    fn opened(&self) -> Vec<(Node, Height, Hash)> {
        let of = |node: &Node| {
            let what = format!("{} says what it opened", node.name);
            let (height, hash) = within(PATIENCE, &what, || {
                let text = fs::read_to_string(self.output(&node.name)).ok()?;
                let (_, line) = text.split_once("store opened height=")?;
                let (height, line) = line.split_once(" hash=")?;
                let (hash, _) = line.split_once(char::is_whitespace)?;
                Some((height.parse().ok()?, hash.parse().ok()?))
            });
            (node.clone(), height, hash)
        };
        self.nodes.iter().map(of).collect()
    }

    /// Kills all of them, none waiting for another's end.
    fn kill_all(&mut self) {
        for process in &mut self.processes {
            if let Some(status) = process.status() {
                panic!("{} ended by itself: {status}", process.name());
            }
        }
        for process in &mut self.processes {
            process.kill();
        }
        for process in &mut self.processes {
            process.wait();
        }
        self.processes.clear();
    }

    fn stop(&mut self) {
        for process in &mut self.processes {
            let status = process.terminate(PATIENCE);
            assert!(status.success(), "{}: {status}", process.name());
        }
    }
}

/// The final blocks that any node told of, and the highest that each told of.
#[derive(Debug, Default)]
struct Seen {
    blocks: BTreeMap<Height, Hash>,
    heads: BTreeMap<String, Height>,
}

impl Seen {
    /// The highest.
    fn last(&self) -> Height {
        let last = self.blocks.last_key_value();
        last.map_or(Height::ZERO, |(height, _)| *height)
    }

    /// Notes a final block; it must be the one that others told of.
    fn note(&mut self, node: &Node, height: Height, hash: Hash) {
        let known = *self.blocks.entry(height).or_insert(hash);
        assert_eq!(known, hash, "{} has another block {height}", node.name);
        let head = self.heads.entry(node.name.clone()).or_insert(height);
        *head = height.max(*head);
    }

    /// Notes every node's head.
    fn look(&mut self, nodes: &[Node]) {
        for node in nodes {
            let head = node.head();
            self.note(node, head.height, head.hash);
        }
    }

    /// Every node found at least the head that it told of before, and no other chain.
    fn was_on_disk(&mut self, opened: &[(Node, Height, Hash)]) {
        for (node, height, hash) in opened {
            let had = self.heads[&node.name];
            assert!(*height >= had, "{} had {had}, opened {height}", node.name);
            self.note(node, *height, *hash);
        }
    }

    /// Every node still has what it had, and, once it caught up, what the others had.
    fn is_kept(&self, nodes: &[Node]) {
        for node in nodes {
            let head = node.head().height;
            let had = self.heads[&node.name];
            assert!(head >= had, "{} had {had} and has {head}", node.name);
        }
        for node in nodes {
            node.reaches(self.last());
            for (height, hash) in &self.blocks {
                assert_eq!(node.block(*height).hash, *hash, "{}, {height}", node.name);
            }
        }
    }

    /// Every node has the same chain without a gap, with the blocks seen; transfers are in it.
    fn is_whole(&self, nodes: &[Node]) {
        let mut transfers = 0;
        let mut parent = None;
        for height in 1..=self.last().get() {
            let height = Height::new(height);
            let hash = support::agree_on(nodes, height);
            let block = nodes[0].block(height);
            assert!(parent.is_none_or(|parent| parent == block.parent));
            assert!(self.blocks.get(&height).is_none_or(|seen| *seen == hash));
            transfers += block.transactions;
            parent = Some(hash);
        }
        assert!(transfers > 0, "no transfer came into a block");
        eprintln!("{transfers} transfers in {} blocks", self.last());
    }
}

/// Sends transfers to one node, on a thread of its own, until it is told to stop.
struct Sender {
    shared: std::sync::Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    taken: AtomicU64,
}

impl Sender {
    fn start(node: &Node) -> Self {
        let client = node.client.clone();
        let genesis = client.node_info().expect("an answer").genesis_hash;
        let wallet = Wallet::new(client, genesis, dev_keys::account(0));
        let shared = std::sync::Arc::new(Shared::default());
        let its = std::sync::Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let action = Action::Transfer {
                to: dev_keys::account(1).public(),
                amount: Amount::new(1),
            };
            let stopped = || its.stop.load(Ordering::Relaxed);
            while !stopped() {
                // The node is killed under it: a refusal or silence is no fault here.
                if wallet.send(&action, &Options::default()).is_ok() {
                    its.taken.fetch_add(1, Ordering::Relaxed);
                }
                within(PATIENCE, "transfers come into blocks", || {
                    let account = wallet.client().account(&wallet.account()).ok();
                    let room = account.is_none_or(|account| {
                        account.next_nonce.get() - account.nonce.get() < PENDING_MAX
                    });
                    (stopped() || room).then_some(())
                });
            }
        });
        Self { shared, thread }
    }

    /// The transfer that is under way is the last.
    fn make_no_more(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end. Returns how many transfers the node took.
    fn stop(self) -> u64 {
        self.make_no_more();
        self.thread.join().expect("the sender");
        self.shared.taken.load(Ordering::Relaxed)
    }
}
