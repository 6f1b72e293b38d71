//! Whether the node is alive: a probe through its locks and its disk, with a deadline.
//!
//! The probe runs on a thread of its own and never twice at a time: whoever asks while it runs waits
//! for the same one, so that a stuck node is not asked to death.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::store::Head;

/// A probe takes this long at most, or the node is stuck.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

type Probe = dyn Fn() -> Result<Head, String> + Send + Sync;

/// The node's pulse.
#[derive(Clone)]
pub struct Liveness {
    probe: Arc<Probe>,
    limit: Duration,
    running: Arc<AtomicBool>,
    ended: Arc<watch::Sender<Ended>>,
}

/// The probe that ended last.
struct Ended {
    count: u64,
    result: Result<Head, String>,
    /// The last head that a probe saw.
    head: Head,
}

/// Why a node is not alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// For people.
    pub reason: String,
    /// The last head that was seen.
    pub head: Head,
}

impl Liveness {
    /// The pulse of an engine: its pools, its newest state and its newest durable block.
    #[must_use]
    pub fn of(engine: &Arc<Engine>) -> Self {
        let head = engine.store().durable_head();
        let engine = Arc::clone(engine);
        let probe = move || {
            drop(engine.pools());
            let staged = engine.store().head();
            let head = engine.store().durable_head();
            engine.store().header(head.height).map_err(|error| {
                format!("the store cannot be read at {}: {error}", staged.height)
            })?;
            Ok(head)
        };
        Self::new(Arc::new(probe), head, PROBE_TIMEOUT)
    }

    fn new(probe: Arc<Probe>, head: Head, limit: Duration) -> Self {
        let ended = Ended {
            count: 0,
            result: Ok(head),
            head,
        };
        Self {
            probe,
            limit,
            running: Arc::default(),
            ended: Arc::new(watch::Sender::new(ended)),
        }
    }

    /// The durable head, if the node answers in time.
    ///
    /// # Errors
    /// When it does not, or its store cannot be read.
    pub async fn check(&self) -> Result<Head, Stuck> {
        let mut ended = self.ended.subscribe();
        let (before, head) = {
            let last = ended.borrow();
            (last.count, last.head)
        };
        if !self.running.swap(true, Ordering::SeqCst) {
            let this = self.clone();
            // A probe that panics leaves `running` set, and no later one ends in time.
            tokio::task::spawn_blocking(move || this.run());
        }
        match timeout(self.limit, ended.wait_for(|last| last.count > before)).await {
            Ok(Ok(last)) => {
                let head = last.head;
                last.result.clone().map_err(|reason| Stuck { reason, head })
            }
            Ok(Err(_)) | Err(_) => Err(Stuck {
                reason: format!(
                    "the store or the pools have not answered for {} ms",
                    self.limit.as_millis()
                ),
                head,
            }),
        }
    }

    fn run(&self) {
        let result = (self.probe)();
        self.running.store(false, Ordering::SeqCst);
        self.ended.send_modify(|last| {
            last.count += 1;
            last.head = *result.as_ref().unwrap_or(&last.head);
            last.result = result;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;

    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::Height;

    use super::{Head, Liveness};

    fn head(height: u64) -> Head {
        Head {
            height: Height::new(height),
            hash: Hash::ZERO,
            time_ms: height,
        }
    }

    #[tokio::test]
    async fn a_probe_that_does_not_end_is_noticed_and_not_repeated() {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let begun = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&begun);
        let probe = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let gate = gate.lock().expect("no panic");
            gate.recv().map_err(|error| error.to_string())?;
            Ok(head(7))
        };
        let limit = Duration::from_millis(100);
        let stuck = Liveness::new(Arc::new(probe), head(6), limit);
        for _ in 0..3 {
            let found = stuck.check().await.expect_err("it does not answer");
            assert_eq!(found.head, head(6));
            assert!(found.reason.contains("100 ms"), "{}", found.reason);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1, "one probe at a time");
        // It goes on: the probe that was under way ends, and so does another.
        let mut ended = stuck.ended.subscribe();
        open.send(()).expect("the probe waits");
        ended
            .wait_for(|last| last.count == 1)
            .await
            .expect("it ends");
        open.send(()).expect("the probe lives");
        assert_eq!(stuck.check().await, Ok(head(7)));
        // A store that cannot be read is not alive either.
        drop(open);
        let broken = stuck.check().await.expect_err("it cannot be read");
        assert_eq!(broken.head, head(7));
    }
}
