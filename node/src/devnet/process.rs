//! One child process: started in a process group of its own, watched, and stopped in time.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::home;

/// How much of a child's output is shown when it fails to start.
const TAIL_BYTES: usize = 2_000;

/// What to start.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Its name: `node0`, `worker2`.
    pub(super) name: String,
    /// The program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Where what it writes to its standard output and error goes.
    pub(super) output: PathBuf,
    /// Its own log.
    pub(super) log: PathBuf,
}

/// A started child.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) spec: Spec,
    pub(super) pid: u32,
    /// Within what it is asked to stop.
    stop: watch::Sender<Option<Duration>>,
    exited: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts a child; its name goes to `ended` when it ends.
    pub(super) fn start(spec: Spec, ended: mpsc::UnboundedSender<String>) -> io::Result<Self> {
        if let Some(directory) = spec.output.parent() {
            home::directory(directory).map_err(io::Error::other)?;
        }
        let output = File::create(&spec.output)?;
        let mut child = Command::new(&spec.program)
            .args(&spec.arguments)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in the terminal is for the devnet alone, which then stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let input = child.stdin.take();
        let (stop, stopping) = watch::channel(None);
        let (status, exited) = watch::channel(None);
        let name = spec.name.clone();
        tokio::spawn(async move {
            let outcome = watch_over(&mut child, stopping).await;
            // Held until now: its end asks the child to stop.
            drop(input);
            status.send_replace(Some(outcome));
            // Nobody listens any more when the devnet is ending.
            let _ = ended.send(name);
        });
        Ok(Self {
            spec,
            pid,
            stop,
            exited,
        })
    }

    /// How it ended; `None` while it runs.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        *self.exited.borrow()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> ExitStatus {
        let mut exited = self.exited.clone();
        match exited.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // Its task is gone only when the runtime ends.
            Err(_) => ExitStatus::default(),
        }
    }

    /// Asks it to stop, and kills it and its children when it has not after `within`.
    pub(super) async fn stop(&self, within: Duration) -> ExitStatus {
        self.stop.send_replace(Some(within));
        self.ended().await
    }

    /// The end of what it wrote.
    pub(super) fn tail(&self) -> String {
        tail(&self.spec.output)
    }
}

async fn watch_over(child: &mut Child, mut stop: watch::Receiver<Option<Duration>>) -> ExitStatus {
    let within = tokio::select! {
        status = child.wait() => return status.unwrap_or_default(),
        // An error means that who could ask is gone, and with it every wish to keep the child.
        asked = stop.wait_for(Option::is_some) => {
            asked.ok().and_then(|within| *within).unwrap_or_default()
        }
    };
    // It is not waited for yet, so that its id cannot be another's.
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, Signal::TERM);
    }
    tokio::select! {
        status = child.wait() => return status.unwrap_or_default(),
        () = tokio::time::sleep(within) => {}
    }
    if let Some(pid) = pid(child) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    child.wait().await.unwrap_or_default()
}

fn pid(child: &Child) -> Option<Pid> {
    child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
}

fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default())
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc;

    use super::{Process, Spec};

    /// Longer than a shell takes to stop.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn shell(place: &Path, script: &str) -> (Process, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let spec = Spec {
            name: "child".into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            output: place.join("logs/output.log"),
            log: place.join("logs/node.log"),
        };
        (Process::start(spec, sender).expect("started"), receiver)
    }

    async fn wait_for(path: &Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_childs_end_is_told_with_its_status_and_output() {
        let place = tempfile::tempdir().expect("a directory");
        let (child, mut ended) = shell(place.path(), "echo why >&2; exit 7");
        assert_eq!(ended.recv().await.as_deref(), Some("child"));
        assert_eq!(child.status().and_then(|status| status.code()), Some(7));
        assert_eq!(child.tail(), "why");
        // Stopping what has ended is answered at once.
        assert_eq!(child.stop(PATIENCE).await.code(), Some(7));
    }

    #[tokio::test]
    async fn a_child_is_asked_to_stop_and_may_do_so_in_order() {
        let place = tempfile::tempdir().expect("a directory");
        let up = place.path().join("up");
        let script = format!(
            "trap 'echo bye; exit 3' TERM; : > {}; read line",
            up.display()
        );
        let (child, _ended) = shell(place.path(), &script);
        wait_for(&up).await;
        assert_eq!(child.status(), None);
        assert_eq!(child.stop(PATIENCE).await.code(), Some(3));
        assert_eq!(child.tail(), "bye");
    }

    #[tokio::test]
    async fn a_deaf_child_is_killed_with_its_children() {
        let place = tempfile::tempdir().expect("a directory");
        let up = place.path().join("up");
        let script = format!(
            "trap '' TERM; sleep 1000 & echo $! > {0}.tmp; mv {0}.tmp {0}; wait; wait",
            up.display()
        );
        let (child, _ended) = shell(place.path(), &script);
        wait_for(&up).await;
        let grandchild = std::fs::read_to_string(&up).expect("a file");
        let grandchild: i32 = grandchild.trim().parse().expect("a number");
        let begun = Instant::now();
        let status = child.stop(Duration::from_millis(300)).await;
        assert_eq!(status.signal(), Some(9));
        assert!(begun.elapsed() >= Duration::from_millis(300));
        let stat = Path::new("/proc").join(grandchild.to_string()).join("stat");
        while let Ok(text) = std::fs::read_to_string(&stat) {
            if text.contains(") Z ") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
