//! A validator's home is damaged, repaired as `docs/operators.md` says, and the network listened to:
//! no key signs two conflicting messages, and the chain goes on.
//!
//! `PROOFMILL_SIGNING_ROUNDS` says how many homes are damaged (7), `PROOFMILL_SIGNING_KILLS` how often
//! all validators are killed at once (2), both counted from round 0. `PROOFMILL_SEED` repeats a run, and
//! with it `PROOFMILL_SIGNING_FROM` goes on with a round of it: a round depends on its number and the
//! seed only. Each round says how it is begun again. A long run:
//!
//! ```text
//! PROOFMILL_SIGNING_ROUNDS=50 PROOFMILL_SIGNING_KILLS=200 \
//!     cargo test --release --locked --workspace --test signing -- --nocapture
//! ```

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::Height;
use proofmill_consensus::{NetworkConfig, Observed, ObservedKind, Observer, peer_id};
use proofmill_node::dev_keys;
use proofmill_node::stop::STOP_WITHIN_MAX;
use support::{
    Devnet, Heard, Node, PATIENCE, Process, Random, SIGNATURES, command, command_line,
    count_from_environment, signed, within,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Validators, of equal power.
const VALIDATORS: usize = 4;
/// Homes that are damaged: one of each kind.
const ROUNDS: u64 = 7;
/// How often all are killed at once.
const KILLS: u64 = 2;
/// A kill comes at most so much after the chain goes on: some heights.
const KILL_WITHIN_MS: u64 = 600;
/// How long an empty block is held back, milliseconds: a round waits for blocks more than for anything.
const IDLE_MS: &str = "100";
const OBSERVER_SEED: [u8; 32] = [0xee; 32];
const TWIN_SEED: [u8; 32] = [0xdd; 32];

#[test]
fn no_damage_and_no_repair_makes_a_validator_sign_twice() {
    let rounds = count_from_environment("PROOFMILL_SIGNING_ROUNDS", ROUNDS);
    let kills = count_from_environment("PROOFMILL_SIGNING_KILLS", KILLS);
    let from = count_from_environment("PROOFMILL_SIGNING_FROM", 0);
    let all = rounds + kills;
    assert!(
        from < all,
        "PROOFMILL_SIGNING_FROM: there are {all} rounds, from 0 on"
    );
    let seed = Random::from_environment().0;
    let place = tempfile::tempdir().expect("a directory");
    let mut network = Network::lay_out(place.path());
    for index in 0..VALIDATORS {
        network.start(index);
    }
    network.goes_on();
    for round in from..all {
        // Every round has its own numbers, so that a run can go on in the middle.
        let mut random = Random(seed ^ (round << 32));
        let begun = Instant::now();
        eprintln!("PROOFMILL_SEED={seed} PROOFMILL_SIGNING_FROM={round}");
        let damage = (round < rounds).then(|| Damage::ALL[(round % 7) as usize]);
        let what = match damage {
            Some(damage) => {
                network.damage(damage, &mut random);
                format!("{damage:?}")
            }
            None => {
                network.kill_all(&mut random);
                "all killed".to_owned()
            }
        };
        network.goes_on();
        network.wire.check();
        eprintln!(
            "round {round} of {all}: {what}, {:.1} s, head {}, {} signatures seen",
            begun.elapsed().as_secs_f64(),
            network.head(),
            network.wire.places.len()
        );
    }
    for process in network.processes.iter_mut().flatten() {
        assert!(process.terminate(PATIENCE).success(), "{}", process.name());
    }
    network.wire.check();
    let outputs = fs::read_dir(place.path()).expect("a directory");
    let mut logs = outputs.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    assert!(logs.any(|log| signed(&log)), "nodes say what they sign");
    assert!(
        network.wire.places.len() > 20,
        "the network was listened to"
    );
}

/// What happens to a home.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// `data/db` is lost.
    Database,
    /// `data/wal` is lost, cut, overwritten, or another validator's.
    Log,
    /// Both are lost.
    Both,
    /// `guard` is lost.
    Guard,
    /// The whole home is an older copy of itself.
    Restored,
    /// Two processes run with the same key.
    Twins,
    /// The home is moved.
    Moved,
}

impl Damage {
    const ALL: [Self; 7] = [
        Self::Database,
        Self::Log,
        Self::Both,
        Self::Guard,
        Self::Restored,
        Self::Twins,
        Self::Moved,
    ];
}

/// Four validators and a listening peer.
struct Network {
    place: PathBuf,
    homes: Vec<PathBuf>,
    arguments: Vec<Vec<String>>,
    nodes: Vec<Node>,
    processes: Vec<Option<Process>>,
    starts: usize,
    wire: Wire,
}

impl Network {
    fn lay_out(place: &Path) -> Self {
        let base = support::free_base(4);
        let listen = support::free_base(1);
        let home = place.join("devnet");
        let port = base.to_string();
        let mut devnet = Devnet::start(&home, &["--workers", "0", "--port", &port], &[]);
        let validators = devnet.ready.validators.clone();
        let observer = format!(
            "/ip4/127.0.0.1/tcp/{listen}/p2p/{}",
            peer_id(&OBSERVER_SEED)
        );
        let arguments = validators.iter().map(|node| {
            let mut arguments = command_line(node.pid);
            let at = arguments
                .iter()
                .position(|flag| flag == "--consensus-peers");
            let peers = &mut arguments[at.expect("a devnet names the peers") + 1];
            *peers = format!("{peers},{observer}");
            let more = ["--block-idle-ms", IDLE_MS, "--log-level", SIGNATURES];
            arguments.extend(more.map(str::to_owned));
            arguments
        });
        let arguments = arguments.collect();
        let nodes = devnet.nodes();
        let genesis = devnet.ready.genesis_hash;
        assert!(devnet.terminate(PATIENCE).success());
        let peers = (0..VALIDATORS).map(|index| {
            let index = u32::try_from(index).expect("small");
            let peer = peer_id(&dev_keys::network(index).seed());
            let port = u32::from(base) + 100 + index;
            format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        });
        Self {
            place: place.into(),
            homes: validators.iter().map(|node| node.home.clone()).collect(),
            arguments,
            nodes,
            processes: (0..VALIDATORS).map(|_| None).collect(),
            starts: 0,
            wire: Wire::listen(listen, peers.collect(), genesis),
        }
    }

    fn start(&mut self, index: usize) {
        let arguments = self.arguments[index].clone();
        let process = self.spawn(&format!("node{index}"), &arguments);
        self.processes[index] = Some(process);
    }

    fn spawn(&mut self, name: &str, arguments: &[String]) -> Process {
        self.starts += 1;
        let mut command = command();
        command.args(arguments).arg("--log-stderr");
        let output = self.place.join(format!("{name}.{}.output", self.starts));
        Process::start(name, command, &output, &[])
    }

    /// What the node's present process has written.
    fn said(&self, name: &str) -> String {
        let path = self.place.join(format!("{name}.{}.output", self.starts));
        fs::read_to_string(path).unwrap_or_default()
    }

    fn kill(&mut self, index: usize) {
        let process = self.processes[index].as_mut().expect("it runs");
        if let Some(status) = process.status() {
            panic!("{} ended by itself: {status}", process.name());
        }
        process.kill();
        process.wait();
        self.processes[index] = None;
    }

    /// The highest head of those that answer.
    fn head(&self) -> Height {
        let heads = self.nodes.iter().filter_map(Node::try_head);
        heads.map(|head| head.height).max().unwrap_or_default()
    }

    /// Every node gets two more blocks.
    fn goes_on(&self) {
        let goal = within(PATIENCE, "a node answers", || {
            (self.head() > Height::ZERO).then(|| self.head().saturating_plus(2))
        });
        support::agree_on(&self.nodes, goal);
    }

    fn kill_all(&mut self, random: &mut Random) {
        thread::sleep(Duration::from_millis(random.below(KILL_WITHIN_MS)));
        for process in self.processes.iter_mut().flatten() {
            process.kill();
        }
        for index in 0..VALIDATORS {
            self.kill_ended(index);
            self.start(index);
        }
    }

    fn kill_ended(&mut self, index: usize) {
        if let Some(mut process) = self.processes[index].take() {
            process.wait();
        }
    }

    /// Damages the home of one validator and repairs it.
    fn damage(&mut self, damage: Damage, random: &mut Random) {
        let victim = usize::try_from(random.below(4)).expect("small");
        let copy = self.place.join("copy");
        if matches!(damage, Damage::Restored) {
            self.kill(victim);
            copy_directory(&self.homes[victim], &copy);
            self.start(victim);
            self.goes_on();
        }
        thread::sleep(Duration::from_millis(random.below(KILL_WITHIN_MS)));
        // Every second time the height stands still first: the victim signs round after round.
        let other = (victim + 1) % VALIDATORS;
        let third = (victim + 2) % VALIDATORS;
        let stalled = random.below(2) == 0;
        if stalled {
            self.kill(other);
            self.kill(third);
            thread::sleep(Duration::from_millis(2 * random.below(KILL_WITHIN_MS)));
        }
        self.kill(victim);
        let home = self.homes[victim].clone();
        match damage {
            Damage::Database => away(&home.join("data/db")),
            Damage::Log => self.damage_log(victim, random),
            Damage::Both => away(&home.join("data")),
            Damage::Guard => away(&home.join("guard")),
            Damage::Restored => {
                fs::remove_dir_all(&home).expect("the home");
                fs::rename(&copy, &home).expect("the copy");
            }
            Damage::Twins => copy_directory(&home, &copy),
            Damage::Moved => self.move_home(victim),
        }
        match damage {
            Damage::Guard => self.start_without_guard(victim),
            Damage::Restored => self.start_old_copy(victim, stalled.then_some((other, third))),
            Damage::Twins => {
                if stalled {
                    self.start(other);
                    self.start(third);
                }
                self.start_twins(victim, &copy);
            }
            _ => self.start(victim),
        }
        if stalled {
            for index in [other, third] {
                if self.processes[index].is_none() {
                    self.start(index);
                }
            }
        }
    }

    fn damage_log(&self, victim: usize, random: &mut Random) {
        let log = |index: usize| self.homes[index].join("data/wal/consensus/wal");
        let bytes = fs::read(log(victim)).expect("the log");
        let path = log(victim);
        match random.below(5) {
            0 => fs::remove_file(path),
            1 => fs::write(path, &bytes[..bytes.len() / 2]),
            2 => fs::write(path, vec![0; bytes.len()]),
            3 => fs::write(path, b"this is no log at all"),
            _ => fs::copy(log((victim + 1) % VALIDATORS), path).map(drop),
        }
        .expect("the log is damaged");
    }

    fn move_home(&mut self, victim: usize) {
        let home = self.homes[victim].clone();
        let moved = self.place.join(format!("moved{}", self.starts));
        fs::rename(&home, &moved).expect("moved");
        for argument in &mut self.arguments[victim] {
            *argument =
                argument.replace(home.to_str().expect("text"), moved.to_str().expect("text"));
        }
        self.homes[victim] = moved;
    }

    /// A node without its guard refuses to start and says what to do; then that is done.
    fn start_without_guard(&mut self, victim: usize) {
        self.start(victim);
        let status = self.ends(victim);
        assert!(!status, "it must not start");
        let said = self.said(&format!("node{victim}"));
        assert!(said.contains("guard/signed is missing"), "{said}");
        assert!(
            said.contains("proofmill validator guard init --home"),
            "{said}"
        );
        self.wire.check();
        self.init_guard(victim);
        self.start(victim);
    }

    /// `proofmill validator guard init`, with the highest head of the network plus 1.
    fn init_guard(&self, victim: usize) {
        let mut head = self.head();
        // With the network down the nodes cannot be asked: what was listened to knows the height.
        head = head.max(Height::new(self.wire.highest()));
        let above = head.next().to_string();
        let mut init = command();
        init.args(["validator", "guard", "init", "--above", &above, "--home"]);
        let done = init.arg(&self.homes[victim]).output().expect("it runs");
        assert!(done.status.success(), "{done:?}");
    }

    /// An old copy catches up, meets its own later signatures and stops, unless there are none.
    fn start_old_copy(&mut self, victim: usize, down: Option<(usize, usize)>) {
        self.start(victim);
        if let Some((other, third)) = down {
            self.start(other);
            self.start(third);
        }
        let goal = self.head().saturating_plus(2);
        let ended = within(PATIENCE, "the old copy stops or catches up", || {
            let process = self.processes[victim].as_mut().expect("started");
            let ended = process.status().is_some();
            let head = self.nodes[victim].try_head();
            (ended || head.is_some_and(|head| head.height >= goal)).then_some(ended)
        });
        if ended {
            self.processes[victim] = None;
            self.wire.check();
            self.init_guard(victim);
            self.start(victim);
        }
    }

    /// A copy of the home runs beside it; at least one of the two stops, and names the reason.
    fn start_twins(&mut self, victim: usize, copy: &Path) {
        let name = format!("twin{victim}");
        let key = proofmill_chain::crypto::sign::SecretKey::from_seed(&TWIN_SEED);
        fs::remove_file(copy.join("keys/node.json")).expect("the peer's key");
        proofmill_node::keys::write_new(&copy.join("keys/node.json"), &key).expect("a key");
        let _ = fs::remove_file(copy.join("ready.json"));
        let home = self.homes[victim].to_str().expect("text").to_owned();
        let mut arguments = self.arguments[victim].clone();
        for argument in &mut arguments {
            *argument = argument.replace(&home, copy.to_str().expect("text"));
        }
        for (flag, value) in [
            ("--rpc-listen", "127.0.0.1:0"),
            ("--consensus-listen", "/ip4/127.0.0.1/tcp/0"),
            ("--gossip-listen", "/ip4/127.0.0.1/tcp/0"),
        ] {
            let at = arguments.iter().position(|argument| argument == flag);
            arguments[at.expect("a devnet names the addresses") + 1] = value.into();
        }
        let validator = dev_keys::validator(u32::try_from(victim).expect("small")).public();
        self.wire.check();
        self.wire.twins.push(validator);
        self.start(victim);
        let said_by_first = self
            .place
            .join(format!("node{victim}.{}.output", self.starts));
        let mut twin = self.spawn(&name, &arguments);
        let said_by_twin = self.place.join(format!("{name}.{}.output", self.starts));
        let first = self.processes[victim].as_mut().expect("started");
        within(PATIENCE, "one of the twins stops", || {
            (first.status().is_some() || twin.status().is_some()).then_some(())
        });
        let ended = [first.status().is_some(), twin.status().is_some()];
        for process in [first, &mut twin] {
            process.kill();
            process.wait();
        }
        self.processes[victim] = None;
        for (said, _) in [said_by_first, said_by_twin]
            .iter()
            .zip(ended)
            .filter(|(_, ended)| *ended)
        {
            stopped_signing(said);
        }
        fs::remove_dir_all(copy).expect("the copy");
        self.wire.twins.clear();
        self.wire.forget(validator);
        self.init_guard(victim);
        self.start(victim);
    }

    /// Waits for the end of a process; whether it succeeded.
    fn ends(&mut self, index: usize) -> bool {
        let process = self.processes[index].as_mut().expect("it runs");
        let status = within(PATIENCE, "it ends by itself", || process.status());
        self.processes[index] = None;
        status.success()
    }
}

/// A process that has ended did so because it heard its twin, and signed nothing more.
fn stopped_signing(log: &Path) {
    let said = fs::read_to_string(log).expect("what it said");
    let Some(heard) = Heard::read(&said) else {
        panic!("it stopped for another reason: {said}");
    };
    eprintln!(
        "{}: last signature {:.3?} s before it heard its twin, end {:.3} s after",
        log.file_stem().expect("a name").display(),
        heard.signed_before.as_ref().map(Duration::as_secs_f64),
        heard.ended_after.as_secs_f64(),
    );
    assert!(
        heard.signed_after.is_empty(),
        "signed after it heard its twin: {heard:?}"
    );
    assert!(heard.ended_after <= STOP_WITHIN_MAX, "{heard:?}");
}

fn away(path: &Path) {
    fs::remove_dir_all(path).expect("it is there");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry").path();
        let to = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_directory(&entry, &to);
        } else {
            fs::copy(&entry, &to).expect("a copy");
        }
    }
}

type Place = (AccountId, ObservedKind, u64, u32);

/// What goes over the wire: a peer that all validators are connected to.
struct Wire {
    _runtime: Runtime,
    _observer: Observer,
    observed: mpsc::UnboundedReceiver<Observed>,
    /// The first block of every place, nil included.
    places: BTreeMap<Place, Option<Hash>>,
    /// Keys that two processes use at present.
    twins: Vec<AccountId>,
}

impl Wire {
    fn listen(port: u16, persistent_peers: Vec<String>, chain: Hash) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let config = NetworkConfig {
            listen: format!("/ip4/127.0.0.1/tcp/{port}"),
            persistent_peers,
            network_seed: OBSERVER_SEED,
            moniker: "observer".to_owned(),
        };
        let started = runtime.block_on(Observer::start(&config, chain));
        let (observer, observed) = started.expect("it listens");
        Self {
            _runtime: runtime,
            _observer: observer,
            observed,
            places: BTreeMap::new(),
            twins: Vec::new(),
        }
    }

    /// Takes in what was seen; two different blocks in one place are a fault.
    fn check(&mut self) {
        while let Ok(one) = self.observed.try_recv() {
            if !one.is_signed || self.twins.contains(&one.key) {
                continue;
            }
            let place = (one.key, one.kind, one.height, one.round);
            let first = *self.places.entry(place).or_insert(one.block);
            assert_eq!(first, one.block, "two signatures: {one:?}");
        }
    }

    /// Drops what a key signed while two processes used it.
    fn forget(&mut self, key: AccountId) {
        while let Ok(one) = self.observed.try_recv() {
            if one.key != key && one.is_signed {
                let place = (one.key, one.kind, one.height, one.round);
                let first = *self.places.entry(place).or_insert(one.block);
                assert_eq!(first, one.block, "two signatures: {one:?}");
            }
        }
    }

    /// The highest height seen.
    fn highest(&self) -> u64 {
        let heights = self.places.keys().map(|(_, _, height, _)| *height);
        heights.max().unwrap_or_default()
    }
}
