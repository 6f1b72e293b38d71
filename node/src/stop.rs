//! What asks a process to stop: SIGTERM, SIGINT, SIGHUP, or the end of the process that started it.
//!
//! The first request asks; a second signal ends the process at once.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A process whose parent is gone ends itself after this long, whatever it is doing.
pub const PARENT_GONE_GRACE: Duration = Duration::from_secs(10);

/// Turns `true` when the process is asked to stop. Must be called within a tokio runtime.
///
/// With `exit_with_parent`, standard input is a pipe whose other end the parent holds: its end,
/// however the parent died, counts as a request.
///
/// # Errors
/// When the system refuses to announce signals or to start a thread.
pub fn requested(exit_with_parent: bool) -> io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let sender = Arc::new(sender);
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    for kind in kinds {
        let mut signals = signal(kind)?;
        let sender = Arc::clone(&sender);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send_replace(true) {
                    tracing::warn!("asked to stop a second time: stopping at once");
                    std::process::exit(128 + kind.as_raw_value());
                }
                tracing::info!(signal = kind.as_raw_value(), "asked to stop");
            }
        });
    }
    if exit_with_parent {
        // Not tokio's stdin: a read that never returns would hold up the runtime's end.
        std::thread::Builder::new()
            .name("parent".into())
            .spawn(move || {
                let mut buffer = [0; 256];
                let mut input = io::stdin().lock();
                while !matches!(input.read(&mut buffer), Ok(0) | Err(_)) {}
                tracing::info!("the parent process is gone: stopping");
                sender.send_replace(true);
                std::thread::sleep(PARENT_GONE_GRACE);
                std::process::exit(1);
            })?;
    }
    Ok(receiver)
}

/// Waits until `stop` is true.
pub async fn wait(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left to ask.
        std::future::pending::<()>().await;
    }
}
