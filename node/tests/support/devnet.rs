//! A development network as a process with children.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use proofmill_node::devnet::Ready;
use rustix::process::{Signal, kill_process};

use super::process::pid;
use super::{Node, PATIENCE, Process, command, descendants};

/// A devnet that is killed, with all that it started, when it is dropped.
#[derive(Debug)]
pub(crate) struct Devnet {
    process: Process,
    /// What it said when it was ready.
    pub(crate) ready: Ready,
}

impl Devnet {
    /// Starts `proofmill devnet --home HOME` with these arguments and settings, and waits until it
    /// is ready.
    pub(crate) fn start(home: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_by(command(), home, arguments, settings)
    }

    /// The same with a command of another program.
    pub(crate) fn start_by(
        mut command: Command,
        home: &Path,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        fs::create_dir_all(home).expect("a directory");
        let beside = |name: &str| PathBuf::from(format!("{}.{name}", home.display()));
        let ready_file = beside("ready");
        command.arg("devnet").arg("--home").arg(home);
        command.arg("--ready-file").arg(&ready_file);
        command.args(arguments).envs(settings.iter().copied());
        assert!(!ready_file.exists(), "an earlier devnet removed its file");
        let process = Process::start("devnet", command, &beside("output"), &[]);
        // From here on a panic kills what was started.
        let mut starting = Starting(Some(process));
        let process = starting.0.as_mut().expect("it was started");
        let text = process.file(&ready_file, PATIENCE);
        let ready: Ready = serde_json::from_str(&text).expect("the ready file");
        let validators = ready.validators.iter().map(|node| node.log.clone());
        let workers = ready.workers.iter().map(|worker| worker.log.clone());
        process.watch_logs(validators.chain(workers));
        let process = starting.0.take().expect("it was started");
        Self { process, ready }
    }

    /// A validator.
    pub(crate) fn node(&self, index: usize) -> Node {
        let node = &self.ready.validators[index];
        Node::new(&node.name, &node.rpc)
    }

    /// All validators.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        (0..self.ready.validators.len())
            .map(|index| self.node(index))
            .collect()
    }

    /// Its own id and those of all processes that it started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = descendants(self.process.id());
        all.push(self.process.id());
        all
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.process.terminate(limit)
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// A devnet that is not ready yet.
struct Starting(Option<Process>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            end(process);
        }
    }
}

/// Kills a process that still runs, and all that it started: they are in groups of their own.
fn end(process: &mut Process) {
    if process.status().is_some() {
        return;
    }
    let children = descendants(process.id());
    process.kill();
    for child in children {
        let _ = kill_process(pid(child), Signal::KILL);
    }
}
