//! What requests may use of the node: slots, places for calls that read or answer much, bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::answers::{Answers, Slot};
use crate::connections::{Connections, Place};
use crate::error::{Code, Error};
use crate::limits::{
    ANSWER_BYTES_MAX, BODIES_BYTES_MAX, CLIENT_AWAITED_MIN, LOOKUPS_MAX, bulk_calls_max,
};
use crate::methods::Weight;

/// The server's budgets. Each permit goes back when what it was for is over, not when a handler is.
pub(crate) struct Budget {
    connections: Arc<Connections>,
    slots: Arc<Semaphore>,
    /// Slots that requests with large answers may have, so that others find one.
    bulk_slots: Arc<Semaphore>,
    bulk_calls: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// Bytes of large answers.
    answers: Arc<Semaphore>,
    /// Bytes of bodies that are not small.
    pub(crate) bodies: Arc<Semaphore>,
    requests_max: usize,
    answers_bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(
        connections: Arc<Connections>,
        requests_max: usize,
        answers_bytes_max: usize,
    ) -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        Self {
            connections,
            slots: of(requests_max),
            bulk_slots: of(requests_max.div_ceil(2)),
            bulk_calls: of(bulk_calls_max()),
            lookups: of(LOOKUPS_MAX),
            answers: of(answers_bytes_max.max(ANSWER_BYTES_MAX)),
            bodies: of(BODIES_BYTES_MAX),
            requests_max,
            answers_bytes_max: answers_bytes_max.max(ANSWER_BYTES_MAX),
        }
    }

    /// A slot for a request. When none is free the slowest reader of an answer loses its own.
    pub(crate) async fn slot(&self, place: &Arc<Place>) -> Result<Arc<Slot>, Error> {
        let slots = || Arc::clone(&self.slots);
        let held = match slots().try_acquire_owned() {
            Ok(held) => Some(held),
            Err(_) if self.connections.cut_slowest_reader() => {
                let freed = timeout(CLIENT_AWAITED_MIN, slots().acquire_owned()).await;
                freed.ok().and_then(Result::ok)
            }
            Err(_) => None,
        };
        let held = held.ok_or_else(|| {
            overloaded("the node serves as many requests as it may").with("most", self.requests_max)
        })?;
        Ok(Slot::new(Arc::clone(place), held))
    }

    /// Room for a large answer. Waits for it until `deadline`; meanwhile readers that take too
    /// little lose theirs.
    pub(crate) async fn enlarge(
        &self,
        answers: &mut Answers,
        deadline: Instant,
    ) -> Result<(), Error> {
        if answers.is_large() {
            return Ok(());
        }
        // Refused at once: who waited here would hold a slot that others could use.
        let Ok(bulk) = Arc::clone(&self.bulk_slots).try_acquire_owned() else {
            self.connections.cut_slowest_reader();
            let error = overloaded("the node serves as many requests with large answers as it may");
            return Err(error.with("most", self.requests_max.div_ceil(2)));
        };
        let bytes = u32::try_from(ANSWER_BYTES_MAX).expect("32 MiB");
        let mut share = Box::pin(Arc::clone(&self.answers).acquire_many_owned(bytes));
        let mut patience = Duration::ZERO;
        loop {
            let until = deadline.min(Instant::now() + patience);
            match timeout_at(until, &mut share).await {
                Ok(Ok(share)) => {
                    answers.enlarge(bulk, share);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Error::internal("the budget for answers is closed")),
                Err(_) if Instant::now() >= deadline => {
                    let error = overloaded("too many large answers are on their way");
                    return Err(error.with("most", self.answers_bytes_max));
                }
                Err(_) => {
                    self.connections.cut_slowest_reader();
                    patience = CLIENT_AWAITED_MIN;
                }
            }
        }
    }

    /// A place among the calls of this weight; waits for one until `deadline`.
    pub(crate) async fn call(
        &self,
        weight: Weight,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let calls = match weight {
            Weight::Light => return Ok(None),
            Weight::Lookup => &self.lookups,
            Weight::Bulk => &self.bulk_calls,
        };
        match timeout_at(deadline, Arc::clone(calls).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) => Err(Error::internal("the places for calls are closed")),
            Err(_) => Err(overloaded("too many calls that read blocks are at work")),
        }
    }

    /// Slots in use.
    pub(crate) fn slots_used(&self) -> usize {
        self.requests_max - self.slots.available_permits()
    }

    /// Bytes of large answers that are reserved or being written.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answers_bytes_max - self.answers.available_permits()
    }

    /// Bytes of bodies that are counted.
    pub(crate) fn body_bytes(&self) -> usize {
        BODIES_BYTES_MAX - self.bodies.available_permits()
    }
}

/// The node is busy; nothing was done.
pub(crate) fn overloaded(why: &str) -> Error {
    Error::new(Code::Overloaded, format!("{why}; try again"))
}
