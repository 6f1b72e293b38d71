//! Every stop of an engine is bounded.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::{EngineError, Outcome};

/// Within this long of its beginning the end of an engine is over, for whatever reason it ends and
/// whatever its parts do.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Says when an engine begins to end, and why.
#[derive(Clone)]
pub(super) struct Ending(watch::Sender<Outcome>);

impl Default for Ending {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Ending {
    /// From here on the engine only ends; the first reason stays.
    pub(super) fn begin(&self, reason: Result<(), EngineError>) {
        self.0.send_if_modified(|ending| {
            let first = ending.is_none();
            ending.get_or_insert(reason);
            first
        });
    }

    /// Resolves with the reason once the engine begins to end.
    pub(super) async fn begun(&self) -> Result<(), EngineError> {
        let mut ending = self.0.subscribe();
        // The sender lives as long as `self`.
        let begun = ending.wait_for(Option::is_some).await;
        match begun.ok().and_then(|reason| reason.clone()) {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

/// How a running engine ended: its own result, or why it began to end when that takes longer than
/// `within`.
pub(super) async fn outcome_in_time(
    mut running: JoinHandle<Result<(), EngineError>>,
    ending: &Ending,
    mut stopping: watch::Receiver<bool>,
    within: Duration,
) -> Result<(), EngineError> {
    let late = async {
        let reason = tokio::select! {
            reason = ending.begun() => reason,
            // An error means that the handle was dropped, which stops the engine as well.
            _ = stopping.wait_for(|stop| *stop) => Ok(()),
        };
        tokio::time::sleep(within).await;
        reason
    };
    tokio::select! {
        ended = &mut running => {
            let died = |error: JoinError| Err(EngineError::Fatal(format!("its task died: {error}")));
            ended.unwrap_or_else(died)
        }
        reason = late => {
            running.abort();
            tracing::error!(
                "the engine has not stopped in order within {} ms: the process must end",
                within.as_millis()
            );
            reason
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::{Ending, EngineError, STOP_WITHIN, outcome_in_time};

    fn fatal() -> EngineError {
        EngineError::Fatal("a test".to_owned())
    }

    #[tokio::test]
    async fn an_engine_that_does_not_end_has_ended_all_the_same() {
        for asked in [false, true] {
            let running = tokio::spawn(std::future::pending());
            let ending = Ending::default();
            let (stop, stopping) = watch::channel(asked);
            if !asked {
                ending.begin(Err(fatal()));
                ending.begin(Ok(()));
            }
            let outcome = outcome_in_time(running, &ending, stopping, Duration::ZERO).await;
            assert_eq!(outcome, if asked { Ok(()) } else { Err(fatal()) });
            drop(stop);
        }
    }

    #[tokio::test]
    async fn an_engine_that_ends_gives_its_own_result() {
        let ending = Ending::default();
        ending.begin(Ok(()));
        let (_stop, stopping) = watch::channel(true);
        let running = tokio::spawn(async { Err(fatal()) });
        let outcome = outcome_in_time(running, &ending, stopping, STOP_WITHIN).await;
        assert_eq!(outcome, Err(fatal()));
    }
}
