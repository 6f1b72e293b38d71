//! One process of this crate's program, the leader of a process group of its own.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{PATIENCE, looked_at_within, within};

/// How much of a log is shown when a test fails.
const TAIL_BYTES: usize = 4_000;

/// A command of this crate's program, with none of the caller's settings.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proofmill"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROOFMILL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command that ends by itself, and returns how it ended and what it said.
///
/// # Panics
/// When it has not ended in time: it is killed, and what it said until then is shown.
#[track_caller]
pub(crate) fn run_to_end(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = all_of(child.stdout.take().expect("it is piped"));
    let stderr = all_of(child.stderr.take().expect("it is piped"));
    let ended = looked_at_within(PATIENCE, || {
        child.try_wait().expect("a child can be waited for")
    });
    if ended.is_none() {
        // The leader has not been waited for, so the group is still its own.
        kill_process_group(pid(child.id()), Signal::KILL).expect("a running group");
    }
    let status = child.wait().expect("a child can be waited for");
    let output = Output {
        status,
        stdout: stdout.join().expect("it only reads"),
        stderr: stderr.join().expect("it only reads"),
    };
    assert!(
        ended.is_some(),
        "{command:?} has not ended after {} s and said: {output:?}",
        PATIENCE.as_secs()
    );
    output
}

fn all_of(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// A process that is killed, with its group, when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    logs: Vec<PathBuf>,
}

impl Process {
    /// Starts `command`; what it writes goes to `output`. The ends of `output` and `logs` are shown
    /// when a test fails.
    pub(crate) fn start(name: &str, mut command: Command, output: &Path, logs: &[PathBuf]) -> Self {
        let file = File::create(output).expect("a file for the output");
        let child = command
            // Held open: its end asks a process with `--exit-with-parent` to stop.
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let logs = [output.to_path_buf()].into_iter().chain(logs.to_vec());
        Self {
            name: name.into(),
            child,
            logs: logs.collect(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for a file that it writes.
    pub(crate) fn file(&mut self, path: &Path, limit: Duration) -> String {
        let what = format!("{} writes {}", self.name, path.display());
        within(limit, &what, || {
            if let Some(status) = self.status() {
                panic!("{} ended ({status}) before it was ready", self.name);
            }
            fs::read_to_string(path).ok()
        })
    }

    /// Asks it to stop, by the signal for that, and waits for its end.
    pub(crate) fn terminate(&mut self, limit: Duration) -> ExitStatus {
        kill_process(pid(self.id()), Signal::TERM).expect("a running process");
        let what = format!("{} stops", self.name);
        within(limit, &what, || self.status())
    }

    /// Sends the signal that nothing survives to its group; does not wait.
    pub(crate) fn kill(&mut self) {
        if self.status().is_none() {
            kill_process_group(pid(self.id()), Signal::KILL).expect("a running group");
        }
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// The files whose ends are shown when a test fails.
    pub(crate) fn watch_logs(&mut self, logs: impl IntoIterator<Item = PathBuf>) {
        self.logs.extend(logs);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.status();
        if std::thread::panicking() {
            eprintln!("\n{}: {ended:?}", self.name);
            for log in &self.logs {
                eprintln!("--- {}\n{}", log.display(), tail(log));
            }
        }
        // A group may outlive its leader.
        let _ = kill_process_group(pid(self.id()), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A process id as the system calls take it.
pub(super) fn pid(id: u32) -> Pid {
    let id = i32::try_from(id).expect("a process id");
    Pid::from_raw(id).expect("a process id")
}

/// The arguments with which a process was started, the program left out.
pub(crate) fn command_line(id: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{id}/cmdline")).expect("a running process");
    let arguments = text.split(|byte| *byte == 0).skip(1);
    let mut arguments: Vec<_> = arguments
        .map(|argument| String::from_utf8(argument.to_vec()).expect("text"))
        .collect();
    assert_eq!(arguments.pop().as_deref(), Some(""), "it ends with a zero");
    arguments
}

/// State and parent of a process; `None` when there is none.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process has ended, whether or not its parent knows.
pub(crate) fn is_gone(id: u32) -> bool {
    state_and_parent(id).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// All processes that `id` started, and those that they started.
pub(crate) fn descendants(id: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").expect("the list of processes");
    let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = ids
        .filter_map(|id| Some((id, state_and_parent(id)?.1)))
        .collect();
    let mut found = vec![id];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    found.split_off(1)
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
