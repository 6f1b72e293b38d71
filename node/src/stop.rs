//! What asks a process to stop: SIGTERM, SIGINT, SIGHUP, or the end of the process that started it.
//!
//! The first request asks. The process ends at once when a second signal comes, or when it has not
//! stopped in order within its time: a thread of its own sees to that, whatever the others do. That thread
//! writes nothing itself: a terminal or pipe that nobody reads may hold up whoever writes to it.
//! Ending at once loses nothing that was acknowledged, since each such write is synced.

use std::ffi::c_int;
use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use futures::future::select_all;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cli::out;
use crate::exit::Exit;
use crate::telemetry;

/// Within this long of a request every process of ours has ended.
pub const STOP_WITHIN_MAX: Duration = Duration::from_secs(5);
/// A node's time to stop in order: consensus, network and database.
pub const NODE_STOP_WITHIN: Duration = Duration::from_secs(3);
/// A worker's: it has nothing to close, but a call to a silent node may be under way.
pub const WORKER_STOP_WITHIN: Duration = Duration::from_millis(500);
/// A devnet's, with all its processes.
pub const DEVNET_STOP_WITHIN: Duration = Duration::from_millis(4_800);

/// What a process that stops waits for.
static AWAITED: Mutex<&str> = Mutex::new("its start");

/// Notes what the process waits for from now on, for the line of an end that comes late.
pub fn awaits(part: &'static str) {
    *AWAITED.lock().unwrap_or_else(PoisonError::into_inner) = part;
}

fn awaited() -> &'static str {
    *AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process when it has not ended within `within`, whatever its parts do: with the exit status
/// `late` and a line that names the part that has not stopped. That line has half of what is left of
/// [`STOP_WITHIN_MAX`].
///
/// # Errors
/// When the system refuses to start a thread.
pub fn end_within(within: Duration, late: Exit) -> io::Result<()> {
    std::thread::Builder::new()
        .name("deadline".into())
        .spawn(move || keep_deadline(within, late))?;
    Ok(())
}

fn keep_deadline(within: Duration, late: Exit) {
    std::thread::sleep(within);
    let (tell, told) = std_mpsc::channel();
    let telling = std::thread::Builder::new().spawn(move || {
        tell_late(within, late);
        // Nobody listens only when the process ends already.
        let _ = tell.send(());
    });
    // Without the thread there is no line.
    drop(telling);
    let _ = told.recv_timeout(STOP_WITHIN_MAX.saturating_sub(within) / 2);
    end(late.code().into());
}

/// What is to be done about requests.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Standard input is a pipe whose other end the parent holds: its end, however the parent died,
    /// counts as a request.
    pub exit_with_parent: bool,
    /// How long the process may take to stop in order.
    pub within: Duration,
    /// Its exit status when it takes longer.
    pub late: Exit,
}

/// Turns `true` when the process is asked to stop, and ends the process when it takes too long.
/// Needs no runtime and outlives any.
///
/// # Errors
/// When the system refuses to announce signals or to start a thread.
pub fn requested(rules: Rules) -> io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    let signals = {
        let _in_runtime = runtime.enter();
        let listening = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?)));
        listening.collect::<io::Result<Vec<_>>>()?
    };
    let (gone, parent) = mpsc::channel(1);
    if rules.exit_with_parent {
        std::thread::Builder::new()
            .name("parent".into())
            .spawn(move || {
                let mut buffer = [0; 256];
                let mut input = io::stdin().lock();
                while !matches!(input.read(&mut buffer), Ok(0) | Err(_)) {}
                // Nobody listens only when the process ends already.
                let _ = gone.blocking_send(());
            })?;
    } else {
        // The parent of such a process may come and go.
        drop(gone);
    }
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || listen(&runtime, signals, parent, &sender, rules))?;
    Ok(receiver)
}

fn listen(
    runtime: &Runtime,
    mut signals: Vec<(SignalKind, Signal)>,
    mut parent: mpsc::Receiver<()>,
    stop: &watch::Sender<bool>,
    rules: Rules,
) {
    runtime.block_on(async {
        let kind = tokio::select! {
            kind = next(&mut signals) => Some(kind),
            Some(()) = parent.recv() => None,
        };
        // Before anything is written, which may take for ever.
        let is_bounded = end_within(rules.within, rules.late).is_ok();
        telemetry::expect_end();
        stop.send_replace(true);
        match kind {
            Some(kind) => tracing::info!(signal = kind.as_raw_value(), "asked to stop"),
            None => tracing::info!("the parent process is gone: stopping"),
        }
        tokio::select! {
            kind = next(&mut signals) => {
                tracing::warn!("asked to stop a second time: stopping at once");
                let code = 128 + kind.as_raw_value();
                telemetry::close();
                end(code);
            }
            // Without a thread of its own for the deadline, this one keeps it.
            () = tokio::time::sleep(rules.within), if !is_bounded => {
                tell_late(rules.within, rules.late);
                end(rules.late.code().into());
            }
        }
    });
}

/// The next signal of any kind.
async fn next(signals: &mut [(SignalKind, Signal)]) -> SignalKind {
    let each = signals.iter_mut().map(|(kind, signal)| {
        Box::pin(async move {
            match signal.recv().await {
                Some(()) => *kind,
                // The runtime that delivers it is gone, and with it this thread.
                None => std::future::pending().await,
            }
        })
    });
    select_all(each).await.0
}

fn tell_late(within: Duration, late: Exit) {
    if late != Exit::Success {
        let line = format!(
            "not stopped in order within {} ms, waiting for {}: ending now; nothing that was acknowledged \
             is lost",
            within.as_millis(),
            awaited()
        );
        tracing::warn!("{line}");
        out::note(&line);
    }
    telemetry::close();
}

/// Ends the process at once, after the lines of its log are written. For when a thread is at work that
/// cannot be interrupted, as RocksDB is while it opens a database: an ordinary exit would take apart what
/// that thread uses, or wait for it.
pub fn leave(exit: Exit) -> ! {
    telemetry::close();
    end(exit.code().into())
}

fn end(status: c_int) -> ! {
    _exit(status)
}

#[allow(
    unsafe_code,
    reason = "the standard library offers no exit without exit handlers; POSIX's `_exit` takes any \
              number, touches no memory and does not return"
)]
unsafe extern "C" {
    safe fn _exit(status: c_int) -> !;
}

/// Waits until `stop` is true.
pub async fn wait(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left to ask.
        std::future::pending::<()>().await;
    }
}
