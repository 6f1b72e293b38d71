//! What requests may use of the node: slots, places for calls that read or answer much, bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::answers::{Answers, Slot};
use crate::aside::Aside;
use crate::connections::{Await, Connections, Origin, Place};
use crate::error::{Code, Error};
use crate::limits::{
    ANSWER_BYTES_MAX, BODIES_BYTES_MAX, CLIENT_AWAITED_MIN, HTTP_BODY_MAX, LOOKUPS_MAX,
    ROOM_WAIT_MAX, SLOT_WAIT_MAX, SLOW_SOUGHT_EVERY, bulk_calls_max,
};
use crate::methods::Weight;
use crate::shares::{Held, Shares, Waiting};

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
    bodies: Arc<Shares>,
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

    /// A slot for a request, in its origin's turn. When there is none the slowest reader of an answer,
    /// of those that have to give, loses its own.
    pub(crate) async fn slot(
        &self,
        place: &Arc<Place>,
        deadline: Instant,
    ) -> Result<Arc<Slot>, Error> {
        place.received();
        let deadline = deadline.min(Instant::now() + SLOT_WAIT_MAX);
        let slot = self.slots.take(place.origin(), 1);
        match self.await_clients(Await::Reading, slot, deadline).await {
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
        let refused = || {
            let error = overloaded(
                "the node, or this address, has as many requests with large answers as it may",
            );
            error.with("most", self.requests_max.div_ceil(2))
        };
        // One of each origin waits, not more: meanwhile it holds a slot that others could use.
        let bulk = self.bulk_slots.take_alone(origin, 1).ok_or_else(refused)?;
        let until = deadline.min(Instant::now() + ROOM_WAIT_MAX);
        let bulk = self.await_clients(Await::Reading, bulk, until).await;
        let bulk = bulk.ok_or_else(refused)?;
        let share = self.answers.take(origin, ANSWER_BYTES_MAX);
        match self.await_clients(Await::Reading, share, deadline).await {
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

    /// Room for `bytes` more of a body, in its origin's turn. When there is none the slowest sender of a
    /// body, of those that have to give, loses its own.
    pub(crate) async fn body(&self, place: &Place, bytes: usize) -> Result<Held, Error> {
        // The node is awaited: its client has its time from when there is room.
        place.receiving();
        let deadline = Instant::now() + ROOM_WAIT_MAX;
        let share = self.bodies.take(place.origin(), bytes);
        let held = self.await_clients(Await::Body, share, deadline).await;
        place.receiving();
        held.ok_or_else(|| {
            let error = overloaded("the node, or this address, has as many large bodies as it may");
            error.with("most", BODIES_BYTES_MAX)
        })
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

    /// Waits until `deadline` for what clients hold; meanwhile those that are awaited for `what` too long
    /// lose it, if theirs is what has to come back.
    async fn await_clients(
        &self,
        what: Await,
        mut given: Waiting,
        deadline: Instant,
    ) -> Option<Held> {
        let mut patience = Duration::ZERO;
        loop {
            let until = deadline.min(Instant::now() + patience);
            if let Ok(held) = timeout_at(until, &mut given).await {
                return Some(held);
            }
            if Instant::now() >= deadline {
                return None;
            }
            patience = match self.cut_slowest(what, &given) {
                true => CLIENT_AWAITED_MIN,
                false => SLOW_SOUGHT_EVERY,
            };
        }
    }

    /// Cuts off the slowest client of those that must give before `waiting` is served; whether there
    /// is one.
    fn cut_slowest(&self, what: Await, waiting: &Waiting) -> bool {
        self.connections.may_seek(waiting.origin())
            && self.connections.cut_slowest(what, &waiting.givers())
    }
}

/// The node is busy; nothing was done.
fn overloaded(why: &str) -> Error {
    Error::new(Code::Overloaded, format!("{why}; try again"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::{
        ANSWER_BYTES_MAX, Answers, BODIES_BYTES_MAX, Budget, Error, HTTP_BODY_MAX, Instant, Weight,
    };
    use crate::aside::Aside;
    use crate::connections::{Admitted, Connections};
    use crate::limits::REQUEST_TIMEOUT;

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

    /// A request with a slot, whose answers may not be large yet.
    async fn small(budget: &Budget, of: &Admitted) -> Answers {
        let slot = budget.slot(of.place(), Instant::now()).await;
        Answers::new(slot.expect("a slot"))
    }

    #[tokio::test]
    async fn a_slot_for_large_answers_goes_to_who_holds_least_of_those_that_wait() {
        // Four slots for large answers, and bytes for more.
        let (connections, budget) = budget(8, 16);
        let (greedy, other, new) = (
            connect(&connections, 1),
            connect(&connections, 2),
            connect(&connections, 3),
        );
        let mut held = Vec::new();
        for of in [&greedy, &greedy, &greedy, &other] {
            held.push(large(&budget, of).await.expect("a slot"));
        }
        let mut first = small(&budget, &greedy).await;
        let mut second = small(&budget, &greedy).await;
        let mut third = small(&budget, &new).await;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let (first, second, third, ()) = tokio::join!(
            budget.enlarge(&mut first, deadline),
            budget.enlarge(&mut second, deadline),
            budget.enlarge(&mut third, deadline),
            // All the others wait by now, or are refused.
            async {
                drop(held.pop());
                assert_eq!(budget.bulk_slots.used(), 4, "it went to the new one");
                drop(held.pop());
            },
        );
        assert!(third.is_ok(), "it held nothing");
        assert!(first.is_ok(), "one of its own came back");
        assert!(second.is_err(), "one of its requests waited already");
    }

    #[tokio::test]
    async fn bodies_wait_for_room_in_turn() {
        let (connections, budget) = budget(8, 4);
        let (greedy, other, new) = (
            connect(&connections, 1),
            connect(&connections, 2),
            connect(&connections, 3),
        );
        let mut held = Vec::new();
        for of in [&greedy, &greedy, &greedy, &other] {
            let part = budget.body(of.place(), BODIES_BYTES_MAX / 4).await;
            held.push(part.expect("room"));
        }
        assert_eq!(budget.body_bytes(), BODIES_BYTES_MAX);
        let (first, second, ()) = tokio::join!(
            budget.body(greedy.place(), HTTP_BODY_MAX),
            budget.body(new.place(), HTTP_BODY_MAX),
            async {
                // What the other gives back is not for who has its share.
                drop(held.pop());
                assert_eq!(
                    budget.body_bytes(),
                    3 * BODIES_BYTES_MAX / 4 + HTTP_BODY_MAX
                );
                drop(held.pop());
            },
        );
        assert!(first.is_ok() && second.is_ok());
        drop((held, first, second));
        assert_eq!(budget.body_bytes(), 0);
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
