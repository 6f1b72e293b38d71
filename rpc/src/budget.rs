//! What requests may use of the node: slots, places for calls that read or answer much, bytes.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::answers::{Answers, Slot};
use crate::aside::Aside;
use crate::connections::{Connections, Origin, Place};
use crate::error::{Code, Error};
use crate::limits::{
    ANSWER_BYTES_MAX, BODIES_BYTES_MAX, CLIENT_AWAITED_MIN, HTTP_BODY_MAX, LOOKUPS_MAX,
    SLOT_WAIT_MAX, bulk_calls_max,
};
use crate::methods::Weight;
use crate::shares::{Held, Shares};

/// The server's budgets. What is held goes back when what it was for is over, not when a handler is.
pub(crate) struct Budget {
    connections: Arc<Connections>,
    slots: Arc<Shares>,
    /// Slots that requests with large answers may have, so that others find one.
    bulk_slots: Arc<Shares>,
    bulk_calls: Arc<Shares>,
    lookups: Arc<Shares>,
    /// Bytes of large answers.
    answers: Arc<Shares>,
    /// Bytes of bodies that are not small.
    pub(crate) bodies: Arc<Shares>,
    /// Where calls with large answers are worked on.
    pub(crate) aside: Aside,
    requests_max: usize,
    answers_bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(
        connections: Arc<Connections>,
        requests_max: usize,
        answers_bytes_max: usize,
        aside: Aside,
    ) -> Self {
        let answers_bytes_max = answers_bytes_max.max(ANSWER_BYTES_MAX);
        Self {
            connections,
            slots: Shares::new(requests_max, 1),
            bulk_slots: Shares::new(requests_max.div_ceil(2), 1),
            bulk_calls: Shares::new(bulk_calls_max(), 1),
            lookups: Shares::new(LOOKUPS_MAX, 1),
            answers: Shares::new(answers_bytes_max, ANSWER_BYTES_MAX),
            bodies: Shares::new(BODIES_BYTES_MAX, HTTP_BODY_MAX),
            aside,
            requests_max,
            answers_bytes_max,
        }
    }

    /// A slot for a request, in its origin's turn. When none is free the slowest reader of an answer
    /// loses its own.
    pub(crate) async fn slot(
        &self,
        place: &Arc<Place>,
        deadline: Instant,
    ) -> Result<Arc<Slot>, Error> {
        place.received();
        let deadline = deadline.min(Instant::now() + SLOT_WAIT_MAX);
        let slot = self.slots.take(place.origin(), 1);
        match self.await_readers(slot, deadline).await {
            Some(held) => Ok(Slot::new(Arc::clone(place), held)),
            None => {
                let error = overloaded("the node, or this address, has as many requests as it may");
                Err(error.with("most", self.requests_max))
            }
        }
    }

    /// Room for a large answer. Waits for it until `deadline`, in its origin's turn.
    pub(crate) async fn enlarge(
        &self,
        answers: &mut Answers,
        deadline: Instant,
    ) -> Result<(), Error> {
        if answers.is_large() {
            return Ok(());
        }
        let origin = answers.slot().origin();
        // Refused at once: who waited here would hold a slot that others could use.
        let Some(bulk) = self.bulk_slots.try_take(origin, 1) else {
            self.connections.cut_slowest_reader();
            let error = overloaded(
                "the node, or this address, has as many requests with large answers as it may",
            );
            return Err(error.with("most", self.requests_max.div_ceil(2)));
        };
        let share = self.answers.take(origin, ANSWER_BYTES_MAX);
        match self.await_readers(share, deadline).await {
            Some(share) => {
                answers.enlarge(bulk, share);
                Ok(())
            }
            None => {
                let error = overloaded("too many large answers are on their way");
                Err(error.with("most", self.answers_bytes_max))
            }
        }
    }

    /// A place among the calls of this weight; waits for one until `deadline`, in its origin's turn.
    pub(crate) async fn call(
        &self,
        origin: Origin,
        weight: Weight,
        deadline: Instant,
    ) -> Result<Option<Held>, Error> {
        let calls = match weight {
            Weight::Light => return Ok(None),
            Weight::Lookup => &self.lookups,
            Weight::Bulk => &self.bulk_calls,
        };
        match timeout_at(deadline, calls.take(origin, 1)).await {
            Ok(held) => Ok(Some(held)),
            Err(_) => Err(overloaded("too many calls that read blocks are at work")),
        }
    }

    /// Slots in use.
    pub(crate) fn slots_used(&self) -> usize {
        self.slots.used()
    }

    /// Bytes of large answers that are reserved or being written.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answers.used()
    }

    /// Bytes of bodies that are counted.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bodies.used()
    }

    /// Waits until `deadline` for something that readers hold; meanwhile those that take too little
    /// lose it.
    async fn await_readers<T>(
        &self,
        given: impl Future<Output = T>,
        deadline: Instant,
    ) -> Option<T> {
        let mut given = pin!(given);
        let mut patience = Duration::ZERO;
        loop {
            let until = deadline.min(Instant::now() + patience);
            match timeout_at(until, &mut given).await {
                Ok(given) => return Some(given),
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {
                    self.connections.cut_slowest_reader();
                    patience = CLIENT_AWAITED_MIN;
                }
            }
        }
    }
}

/// The node is busy; nothing was done.
pub(crate) fn overloaded(why: &str) -> Error {
    Error::new(Code::Overloaded, format!("{why}; try again"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::{ANSWER_BYTES_MAX, Answers, Budget, Error, Instant, Weight};
    use crate::aside::Aside;
    use crate::connections::{Admitted, Connections};

    fn budget(requests_max: usize, answers: usize) -> (Arc<Connections>, Budget) {
        let connections = Connections::new(256, 256);
        let aside = Aside::new(0, || ()).expect("no thread");
        let budget = Budget::new(
            Arc::clone(&connections),
            requests_max,
            answers * ANSWER_BYTES_MAX,
            aside,
        );
        (connections, budget)
    }

    fn connect(connections: &Arc<Connections>, last: u8) -> Admitted {
        let address = IpAddr::from([192, 0, 2, last]);
        connections.admit(address).expect("room")
    }

    /// Room for a large answer, if there is some now.
    async fn large(budget: &Budget, of: &Admitted) -> Result<Answers, Error> {
        let now = Instant::now();
        let mut answers = Answers::new(budget.slot(of.place(), now).await?);
        budget.enlarge(&mut answers, now).await?;
        Ok(answers)
    }

    #[tokio::test]
    async fn one_origin_leaves_room_for_the_large_answers_of_another() {
        let (connections, budget) = budget(64, 4);
        let (greedy, other) = (connect(&connections, 1), connect(&connections, 2));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(large(&budget, &greedy).await.expect("its share"));
        }
        assert!(large(&budget, &greedy).await.is_err());
        held.push(large(&budget, &other).await.expect("room is left"));
        assert_eq!(budget.answer_bytes(), 4 * ANSWER_BYTES_MAX);
        drop(held);
        assert_eq!((budget.answer_bytes(), budget.slots_used()), (0, 0));
    }

    #[tokio::test]
    async fn one_origin_leaves_slots_for_the_large_answers_of_another() {
        // Four slots for large answers, and bytes for more.
        let (connections, budget) = budget(8, 16);
        let (greedy, other) = (connect(&connections, 1), connect(&connections, 2));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(large(&budget, &greedy).await.expect("its share"));
        }
        assert!(large(&budget, &greedy).await.is_err());
        held.push(large(&budget, &other).await.expect("a slot is left"));
        assert!(large(&budget, &other).await.is_err());
    }

    #[tokio::test]
    async fn one_origin_leaves_lookups_to_another() {
        let (connections, budget) = budget(64, 4);
        let origins = [1, 2].map(|last| connect(&connections, last).place().origin());
        let lookup = async |of: usize| {
            let now = Instant::now();
            budget.call(origins[of], Weight::Lookup, now).await
        };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(lookup(0).await.expect("its share"));
        }
        assert!(lookup(0).await.is_err());
        held.push(lookup(1).await.expect("one is left"));
        assert!(lookup(1).await.is_err());
    }
}
