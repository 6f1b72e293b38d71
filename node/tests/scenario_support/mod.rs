//! A development network of real processes, and the `proofmill` program run against it.

#![allow(dead_code, reason = "each test takes the parts that it needs")]

pub(crate) mod homes;
pub(crate) mod proxy;
pub(crate) mod raw;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_node::client::Client;
use proofmill_node::dev_keys;
use proofmill_node::devnet::{Ready, WorkerReady};
use proofmill_node::exit::Exit;
use proofmill_rpc::api::{Include, TaskState, TaskView};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until there is something, for [`PATIENCE`] at most.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A command of the program under test. No variable of the caller's environment changes what it
/// does.
pub(crate) fn proofmill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proofmill"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROOFMILL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What a command that must succeed printed.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.out
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.good()).expect("one JSON object")
    }

    /// Refused with exit status 1 and each of these words in one error line.
    #[track_caller]
    pub(crate) fn refused(self, words: &[&str]) {
        self.refused_as(Exit::Failure, words);
    }

    /// The same with another exit status.
    #[track_caller]
    pub(crate) fn refused_as(self, exit: Exit, words: &[&str]) {
        assert_eq!(self.status.code(), Some(exit.code().into()), "{self:?}");
        let line = self.err.lines().last().unwrap_or_default();
        assert!(line.starts_with("error: "), "{self:?}");
        for word in words {
            assert!(line.contains(word), "`{word}` is missing in: {line}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// Runs a command to its end; one that does not end by itself is killed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    let mut running = Running(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    );
    // What commands print fits into a pipe.
    until("a command ends", || running.0.try_wait().expect("a child"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    if let (Some(from_out), Some(from_err)) = (&mut running.0.stdout, &mut running.0.stderr) {
        from_out.read_to_end(&mut out).expect("a readable pipe");
        from_err.read_to_end(&mut err).expect("a readable pipe");
    }
    let text = |bytes| String::from_utf8(bytes).expect("commands write UTF-8");
    Said {
        status: running.0.wait().expect("a child"),
        out: text(out),
        err: text(err),
    }
}

/// A child process that does not outlive the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        signal(self.0.id(), Signal::TERM);
        until("a process stops", || self.0.try_wait().expect("a child"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a network's worker beside it, with other nodes to ask.
#[track_caller]
pub(crate) fn run_worker_with(worker: &WorkerReady, nodes: &[&str], place: &Path) -> Running {
    let ready_file = place.join("worker.ready.json");
    // Of an earlier run, if there was one.
    let _ = fs::remove_file(&ready_file);
    let log = File::create(place.join("worker.log")).expect("a file");
    let running = Running::start(
        proofmill()
            .args(["worker", "run"])
            .args(nodes)
            .arg("--home")
            .arg(&worker.home)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(Stdio::null())
            .stderr(log),
    );
    until("the worker is ready", || ready_file.exists().then_some(()));
    running
}

/// The processes in which `parent` computes.
pub(crate) fn computing(parent: u32) -> Vec<u32> {
    let parents = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.is_some_and(|found| found.trim() == parent.to_string())
    };
    let processes = fs::read_dir("/proc").expect("the kernel's list of processes");
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parents(*pid))
        .collect()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("a process of this test");
}

/// A network that runs, and ends with the test.
pub(crate) struct Devnet {
    pub(crate) ready: Ready,
    pub(crate) client: Client,
    process: Running,
}

impl Devnet {
    /// Starts one in `home`, or goes on with the one there.
    #[track_caller]
    pub(crate) fn start(home: &Path, workers: u32) -> Self {
        let ready_file = home.with_extension("ready.json");
        let log = File::create(home.with_extension("log")).expect("a file");
        let mut process = Running::start(
            proofmill()
                .args(["devnet", "--validators", "1", "--port", "0", "--workers"])
                .arg(workers.to_string())
                .arg("--home")
                .arg(home)
                .arg("--ready-file")
                .arg(&ready_file)
                .stdout(Stdio::null())
                .stderr(log),
        );
        let text = until("the network is ready", || {
            let ended = process.0.try_wait().expect("a child");
            let log = fs::read_to_string(home.with_extension("log")).unwrap_or_default();
            assert!(ended.is_none(), "{log}");
            fs::read_to_string(&ready_file).ok()
        });
        let ready: Ready = serde_json::from_str(&text).expect("a ready file");
        let client = Client::new(&ready.validators[0].rpc).expect("an address");
        Self {
            ready,
            client,
            process,
        }
    }

    /// Stops every process in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let status = self.process.stop();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn rpc(&self) -> &str {
        &self.ready.validators[0].rpc
    }

    /// The home of the only validator.
    pub(crate) fn node(&self) -> PathBuf {
        self.ready.validators[0].home.clone()
    }

    /// A command that asks this network.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> Said {
        run(proofmill()
            .args(words)
            .arg("--home")
            .arg(&self.ready.home)
            .args(["--rpc", self.rpc()]))
    }

    pub(crate) fn head(&self) -> Height {
        self.client.head().expect("a head").height
    }

    /// Waits for so many more blocks.
    #[track_caller]
    pub(crate) fn advance(&self, blocks: u64) {
        let from = self.head();
        until("the chain goes on", || {
            (self.head() >= from.saturating_plus(blocks)).then_some(())
        });
    }

    pub(crate) fn balance(&self, account: &AccountId) -> Amount {
        self.client.account(account).expect("an account").balance
    }

    /// The balance of `dev<index>`.
    pub(crate) fn dev_balance(&self, index: u32) -> Amount {
        self.balance(&dev_keys::account(index).public())
    }

    pub(crate) fn task(&self, task: &Hash) -> TaskView {
        self.client.task(task, Include::default()).expect("a task")
    }

    /// Waits until a task is what it should be.
    #[track_caller]
    pub(crate) fn until_task(
        &self,
        task: &Hash,
        what: &str,
        is_so: impl Fn(&TaskView) -> bool,
    ) -> TaskView {
        until(what, || {
            let view = self.task(task);
            is_so(&view).then_some(view)
        })
    }

    /// Waits until a task is over, in `state`.
    #[track_caller]
    pub(crate) fn until_over(&self, task: &Hash, state: TaskState) -> TaskView {
        let view = self.until_task(task, "the task is over", |view| view.task.phase.is_over());
        assert_eq!(view.state, state, "{view:?}");
        view
    }

    /// Orders a task; gives its id and the fees paid.
    #[track_caller]
    pub(crate) fn submit(&self, words: &[&str]) -> (Hash, Amount) {
        // A test may order what its network cannot serve yet.
        let mut all = vec!["task", "submit", "--json", "--wait-for-workers"];
        all.extend(words);
        let said = self.ask(&all).json();
        let text = |name: &str| said[name].as_str().expect("a text").to_owned();
        let fees = text("fees").parse().expect("a number");
        (text("task").parse().expect("a hash"), Amount::new(fees))
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // A frozen process sees neither signals nor the end of its input.
        for worker in &self.ready.workers {
            if let Some(pid) = i32::try_from(worker.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        if std::thread::panicking() {
            let log = self.ready.home.with_extension("log");
            eprintln!("{}", fs::read_to_string(log).unwrap_or_default());
        }
    }
}
