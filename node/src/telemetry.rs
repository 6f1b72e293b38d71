//! The log: lines of `tracing` into files that are closed by size, and to the terminal.
//!
//! Lines are written by a thread of their own, so that a slow disk never holds up a block; when it
//! cannot keep up, lines are dropped. Dropping the [`Guard`] writes what is waiting.

mod quiet;

use std::io::{self, IsTerminal as _};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use proofmill_consensus::LOG_TARGET;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use self::quiet::Quiet;
use crate::cli::out;
use crate::config::{Log, LogFormat};
use crate::home;

/// Lines that may wait to be written.
pub const LINES_WAITING_MAX: usize = 16_384;

/// The log's file in the directory of log files; closed ones have `.1` and so on behind.
pub const FILE_NAME: &str = "node.log";
/// The same of a worker.
pub const WORKER_FILE_NAME: &str = "worker.log";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directory or the file cannot be written.
    #[error("cannot write the log {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is to be logged makes no sense.
    #[error("log.level `{level}`: {error}")]
    Level {
        /// The value.
        level: String,
        /// Why.
        error: String,
    },
    /// Somebody in this process logs already.
    #[error("the log is set up already")]
    Twice,
}

/// What keeps the log's thread. Here and not in [`Guard`], so that whoever ends the process at once can
/// have the last lines written.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Keeps the log open; what waits is written when it goes.
#[must_use = "lines that wait are lost when the guard goes too early"]
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        close();
    }
}

/// Writes the lines that wait and ends the log; takes a second at most.
pub fn close() {
    // Not held while the lines are written: a panic meanwhile logs, too.
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(writer);
}

/// From now on what the engine says about its own end is left out.
pub fn expect_end() {
    quiet::expect_end();
}

/// Begins to log into `file`, and to stderr when that is a terminal or `to_stderr` says so.
/// Panics are logged too, and named in one line on stderr with where the log is.
///
/// # Errors
/// When the file cannot be written, the level makes no sense, or there is a log already.
pub fn init(log: &Log, file: &Path, to_stderr: bool) -> Result<Guard, TelemetryError> {
    let (writer, thread) = file_writer(log, file)?;
    let stderr = (to_stderr || io::stderr().is_terminal())
        .then(|| layer(log.format, io::stderr, io::stderr().is_terminal()));
    let level = |error: String| TelemetryError::Level {
        level: log.level.clone(),
        error,
    };
    let filter = EnvFilter::builder()
        // The engine tells about every vote; that is left out unless `log.level` asks for it.
        .parse(format!("{LOG_TARGET}=warn,{}", log.level))
        .map_err(|error| level(error.to_string()))?;
    tracing_subscriber::registry()
        .with(vec![Some(layer(log.format, writer, false)), stderr])
        .with(Quiet::default())
        .with(filter)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    log_panics(file.to_path_buf());
    Ok(Guard(()))
}

fn file_writer(log: &Log, path: &Path) -> Result<(NonBlocking, WorkerGuard), TelemetryError> {
    let io_error = |error: io::Error| TelemetryError::Io {
        path: path.into(),
        error,
    };
    if let Some(directory) = path.parent() {
        home::directory(directory).map_err(|error| io_error(io::Error::other(error)))?;
    }
    // The rotating file says nothing when it cannot be opened: it is tried here first.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(io_error)?;
    let file = FileRotate::new(
        path,
        AppendCount::new(usize::try_from(log.files_max).unwrap_or(usize::MAX)),
        ContentLimit::BytesSurpassed(usize::try_from(log.bytes_max).unwrap_or(usize::MAX)),
        Compression::None,
        None,
    );
    Ok(NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("log")
        .finish(file))
}

fn layer<W>(format: LogFormat, writer: W, ansi: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}

/// From now on a panic is one line on stderr, without a backtrace.
pub fn tell_panics_in_a_line() {
    panic::set_hook(Box::new(|info| {
        out::note(&format!("error: {}", panicked(info)));
    }));
}

/// The same in a process with a log: the whole of it goes there, and the line says where.
fn log_panics(file: PathBuf) {
    panic::set_hook(Box::new(move |info| {
        let what = panicked(info);
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(thread = thread.name().unwrap_or("unnamed"), %backtrace, "{what}");
        } else {
            tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{what}");
        }
        out::note(&format!("error: {what}; the log is {}", file.display()));
    }));
}

/// What there is to say about a panic, in one line.
fn panicked(info: &panic::PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    let message = message.lines().collect::<Vec<_>>().join("; ");
    match info.location() {
        Some(place) => format!("the program has a fault: panicked at {place}: {message}"),
        None => format!("the program has a fault: panicked: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{file_writer, init};
    use crate::config::{Config, LogFormat};

    #[test]
    fn files_are_closed_by_size_and_only_so_many_are_kept() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("logs/node.log");
        let mut log = Config::default().log;
        log.bytes_max = 1_000;
        log.files_max = 2;
        let (mut writer, thread) = file_writer(&log, &path).expect("a log");
        let line = [b'x'; 99];
        for _ in 0..100 {
            writer.write_all(&line).expect("written");
        }
        drop(thread);
        let mut sizes = Vec::new();
        for entry in std::fs::read_dir(place.path().join("logs")).expect("a directory") {
            sizes.push(entry.expect("an entry").metadata().expect("metadata").len());
        }
        assert_eq!(sizes.len(), 3, "the open file and two closed ones");
        assert!(sizes.iter().all(|size| *size < 1_100), "{sizes:?}");
    }

    #[test]
    fn lines_and_panics_are_in_the_file_once_the_guard_is_gone() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("node.log");
        let mut log = Config::default().log;
        log.format = LogFormat::Json;
        let guard = init(&log, &path, false).expect("a log");
        tracing::info!(height = 7, "committed");
        tracing::debug!("not wanted");
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(panicked.is_err());
        drop(guard);
        let text = std::fs::read_to_string(&path).expect("a file");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect();
        assert_eq!(lines[0]["fields"]["height"], 7);
        let message = lines[1]["fields"]["message"].as_str().expect("a text");
        assert!(message.contains("telemetry.rs:"), "{message}");
        assert!(message.ends_with(": on purpose"), "{message}");
        assert_eq!(lines.len(), 2);
    }
}
