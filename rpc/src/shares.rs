//! Units of something scarce, shared among the origins that ask for them.
//!
//! No origin holds more than its share ([`most_of_one`]), so that whatever a single address does, others
//! find something left. Of the origins that wait, the one that holds least is served first, and among
//! equals the one that was served, or came, longest ago: who asks for much waits for who asks for little.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::connections::Origin;
use crate::limits::ORIGIN_LEAVES_ONE_IN;

/// The most that one origin may hold of `total` units: all but a part, but for a single unit, which can
/// only be shared by turns.
pub(crate) fn most_of_one(total: usize) -> usize {
    let left = (total / ORIGIN_LEAVES_ONE_IN).max(1);
    total.saturating_sub(left).max(1)
}

/// Units that are held by origins or free.
pub(crate) struct Shares {
    total: usize,
    of_one_max: usize,
    table: Mutex<Table>,
}

struct Table {
    free: usize,
    /// Counts what happens; orders the origins.
    turn: u64,
    origins: HashMap<Origin, OfOrigin>,
    /// Those that wait and may hold more: by what they hold, and since when they were not served.
    ready: BTreeSet<(usize, u64, Origin)>,
}

/// What an origin holds and waits for. It is kept only while there is something.
struct OfOrigin {
    held: usize,
    /// When it was last served, or came.
    turn: u64,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    id: u64,
    units: usize,
    given: oneshot::Sender<Held>,
}

impl Shares {
    /// Shares of `total` units. An origin may always hold `one_max`, the most that is asked for at once.
    pub(crate) fn new(total: usize, one_max: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            of_one_max: most_of_one(total).max(one_max),
            table: Mutex::new(Table {
                free: total,
                turn: 0,
                origins: HashMap::new(),
                ready: BTreeSet::new(),
            }),
        })
    }

    /// Units in use.
    pub(crate) fn used(&self) -> usize {
        self.total - self.lock().free
    }

    /// Takes `units` when the origin's turn has come.
    pub(crate) fn take(self: &Arc<Self>, origin: Origin, units: usize) -> Waiting {
        let mut table = self.lock();
        let (id, given) = table.line_up(origin, units, self.of_one_max);
        drop(table);
        self.serve();
        self.waiting(origin, id, given)
    }

    /// The same for an origin of which nothing else waits; `None` when something does.
    pub(crate) fn take_alone(self: &Arc<Self>, origin: Origin, units: usize) -> Option<Waiting> {
        let mut table = self.lock();
        if !table.of(origin).waiting.is_empty() {
            return None;
        }
        let (id, given) = table.line_up(origin, units, self.of_one_max);
        drop(table);
        self.serve();
        Some(self.waiting(origin, id, given))
    }

    /// Whose units must come back before `origin`, which waits, is served: its own and, if not its
    /// share but the total is used up, those of the origins that hold more.
    fn givers(&self, origin: Origin) -> BTreeSet<Origin> {
        let mut givers = BTreeSet::from([origin]);
        let table = self.lock();
        if let Some(of) = table.origins.get(&origin)
            && table.ready.contains(&(of.held, of.turn, origin))
        {
            let more = (table.origins.iter()).filter(|(_, other)| other.held > of.held);
            givers.extend(more.map(|(origin, _)| *origin));
        }
        drop(table);
        givers
    }

    /// Gives what is free to those whose turn it is.
    fn serve(self: &Arc<Self>) {
        let mut given = Vec::new();
        let mut table = self.lock();
        while let Some((origin, waiter)) = table.next_served(self.of_one_max) {
            given.push((waiter.given, self.held(origin, waiter.units)));
        }
        drop(table);
        for (waiter, held) in given {
            // Who no longer waits gives it back here.
            drop(waiter.send(held));
        }
    }

    fn give_back(self: &Arc<Self>, origin: Origin, units: usize) {
        let mut table = self.lock();
        table.leave(origin);
        table.free += units;
        table.of(origin).held -= units;
        table.enter(origin, self.of_one_max);
        drop(table);
        self.serve();
    }

    fn give_up(self: &Arc<Self>, origin: Origin, id: u64) {
        let mut table = self.lock();
        table.leave(origin);
        table.of(origin).waiting.retain(|waiter| waiter.id != id);
        table.enter(origin, self.of_one_max);
        drop(table);
        self.serve();
    }

    fn held(self: &Arc<Self>, origin: Origin, units: usize) -> Held {
        Held {
            shares: Arc::clone(self),
            origin,
            units,
        }
    }

    fn waiting(
        self: &Arc<Self>,
        origin: Origin,
        id: u64,
        given: oneshot::Receiver<Held>,
    ) -> Waiting {
        Waiting {
            shares: Arc::clone(self),
            origin,
            id,
            given,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    const fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn of(&mut self, origin: Origin) -> &mut OfOrigin {
        let turn = self.turn;
        self.origins.entry(origin).or_insert_with(|| OfOrigin {
            held: 0,
            turn,
            waiting: VecDeque::new(),
        })
    }

    /// Puts a request behind those of its origin.
    fn line_up(
        &mut self,
        origin: Origin,
        units: usize,
        of_one_max: usize,
    ) -> (u64, oneshot::Receiver<Held>) {
        let (sender, given) = oneshot::channel();
        self.leave(origin);
        let id = self.next_turn();
        self.of(origin).waiting.push_back(Waiter {
            id,
            units,
            given: sender,
        });
        self.enter(origin, of_one_max);
        (id, given)
    }

    /// Takes an origin out of the order, before what orders it changes.
    fn leave(&mut self, origin: Origin) {
        if let Some(of) = self.origins.get(&origin) {
            self.ready.remove(&(of.held, of.turn, origin));
        }
    }

    /// Puts an origin into the order if it waits and may hold more, and forgets it if it has nothing.
    fn enter(&mut self, origin: Origin, of_one_max: usize) {
        let Some(of) = self.origins.get(&origin) else {
            return;
        };
        match of.waiting.front() {
            Some(next) if of.held + next.units <= of_one_max => {
                self.ready.insert((of.held, of.turn, origin));
            }
            None if of.held == 0 => {
                self.origins.remove(&origin);
            }
            _ => {}
        }
    }

    /// Serves whose turn it is, if there is enough for it. Nobody else is served before.
    fn next_served(&mut self, of_one_max: usize) -> Option<(Origin, Waiter)> {
        let (_, _, origin) = *self.ready.first()?;
        let units = self.origins.get(&origin)?.waiting.front()?.units;
        if units > self.free {
            return None;
        }
        self.leave(origin);
        self.hand_out(origin, units);
        let waiter = self.of(origin).waiting.pop_front();
        self.enter(origin, of_one_max);
        Some((origin, waiter?))
    }

    fn hand_out(&mut self, origin: Origin, units: usize) {
        let turn = self.next_turn();
        self.free -= units;
        let of = self.of(origin);
        of.held += units;
        of.turn = turn;
    }
}

/// Units that are held until this is dropped.
pub(crate) struct Held {
    shares: Arc<Shares>,
    origin: Origin,
    units: usize,
}

impl Held {
    pub(crate) const fn units(&self) -> usize {
        self.units
    }

    /// Takes `units` off, to be given back apart.
    pub(crate) fn split(&mut self, units: usize) -> Option<Self> {
        self.units = self.units.checked_sub(units)?;
        Some(self.shares.held(self.origin, units))
    }

    /// Takes the units of another of the same origin.
    pub(crate) fn merge(&mut self, mut other: Self) {
        debug_assert!(self.origin == other.origin && Arc::ptr_eq(&self.shares, &other.shares));
        self.units += std::mem::take(&mut other.units);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.units > 0 {
            self.shares.give_back(self.origin, self.units);
        }
    }
}

/// A place in the order of those that wait, given up when dropped.
pub(crate) struct Waiting {
    shares: Arc<Shares>,
    origin: Origin,
    id: u64,
    given: oneshot::Receiver<Held>,
}

impl Waiting {
    /// Who waits.
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    /// Whose units must come back before it is served.
    pub(crate) fn givers(&self) -> BTreeSet<Origin> {
        self.shares.givers(self.origin)
    }
}

impl Future for Waiting {
    type Output = Held;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Held> {
        // The sender is dropped unsent only with its place in the order, by this object's drop.
        match Pin::new(&mut self.given).poll(context) {
            Poll::Ready(Ok(held)) => Poll::Ready(held),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.given.is_terminated() {
            self.given.close();
            self.shares.give_up(self.origin, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::IpAddr;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{BTreeSet, Held, Origin, Shares, Waiting, most_of_one};

    fn origin(last: u8) -> Origin {
        Origin::of(IpAddr::from([192, 0, 2, last]))
    }

    /// What a waiting request has been given by now.
    fn given(waiting: &mut Waiting) -> Option<Held> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(held) => Some(held),
            Poll::Pending => None,
        }
    }

    /// What a request is given at once, if it is; it does not wait.
    fn at_once(shares: &Arc<Shares>, origin: Origin, units: usize) -> Option<Held> {
        given(&mut shares.take(origin, units))
    }

    #[test]
    fn one_origin_leaves_something_of_everything_that_can_be_divided() {
        let parts = [1, 2, 3, 4, 32, 64].map(most_of_one);
        assert_eq!(parts, [1, 1, 2, 3, 24, 48]);
    }

    #[test]
    fn an_origin_holds_no_more_than_its_share_however_long_it_waits() {
        let shares = Shares::new(4, 1);
        let mut greedy: Vec<_> = (0..10).map(|_| shares.take(origin(1), 1)).collect();
        let mut held: Vec<_> = greedy.iter_mut().filter_map(given).collect();
        assert_eq!((held.len(), shares.used()), (3, 3));
        assert!(at_once(&shares, origin(1), 1).is_none());
        // What is left is for another, at once, though ten wait.
        let mut other = shares.take(origin(2), 1);
        let other = given(&mut other).expect("its share");
        assert_eq!(shares.used(), 4);
        // What the first gives back it may take again.
        drop(held.pop());
        held.extend(greedy.iter_mut().skip(3).filter_map(given));
        assert_eq!((held.len(), shares.used()), (3, 4));
        drop((held, other, greedy));
        assert_eq!(shares.used(), 0);
        assert!(shares.lock().origins.is_empty() && shares.lock().ready.is_empty());
    }

    #[test]
    fn who_holds_least_is_served_first_and_equals_by_turns() {
        let shares = Shares::new(1, 1);
        let first = at_once(&shares, origin(9), 1).expect("free");
        let asks = [1, 1, 1, 2, 2, 3].map(|last| (last, shares.take(origin(last), 1)));
        let mut asks = Vec::from(asks);
        drop(first);
        let mut order = Vec::new();
        // What is given goes back at once, and then it is the next one's turn.
        while let Some(at) = (asks.iter_mut()).position(|(_, waiting)| given(waiting).is_some()) {
            order.push(asks.remove(at).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
    }

    #[test]
    fn who_holds_more_waits_for_who_holds_less() {
        let shares = Shares::new(4, 1);
        let mut held: Vec<_> = (0..3)
            .filter_map(|_| at_once(&shares, origin(1), 1))
            .collect();
        held.extend(at_once(&shares, origin(2), 1));
        assert_eq!(held.len(), 4);
        let mut again = shares.take(origin(1), 1);
        let mut second = shares.take(origin(2), 1);
        let mut third = shares.take(origin(3), 1);
        // Origin 1 frees a unit and asked first; but it still holds two.
        held.remove(0);
        assert!(given(&mut again).is_none() && given(&mut second).is_none());
        let third = given(&mut third).expect("it holds nothing");
        // Now both hold one, and it is the turn of the one that was served longest ago.
        held.remove(0);
        assert!(given(&mut second).is_none() && given(&mut again).is_some());
        drop(third);
    }

    #[test]
    fn who_asks_for_much_is_not_passed_over() {
        let shares = Shares::new(8, 6);
        let small = at_once(&shares, origin(1), 3).expect("free");
        let mut large = shares.take(origin(2), 6);
        assert!(given(&mut large).is_none());
        // Three are free, but they are kept for the large one.
        assert!(at_once(&shares, origin(3), 1).is_none());
        let mut later = shares.take(origin(3), 1);
        assert!(given(&mut later).is_none());
        drop(small);
        let large = given(&mut large).expect("its turn");
        assert!(given(&mut later).is_some());
        drop(large);
        assert_eq!(shares.used(), 0);
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let shares = Shares::new(2, 2);
        let all = at_once(&shares, origin(1), 2).expect("free");
        let large = shares.take(origin(2), 2);
        let mut small = shares.take(origin(3), 1);
        let given_unseen = shares.take(origin(4), 1);
        drop(all);
        // The large one has it, unseen; dropped, it goes on to those behind.
        assert!(given(&mut small).is_none());
        drop(large);
        let small = given(&mut small).expect("its turn");
        drop((small, given_unseen));
        assert_eq!(shares.used(), 0);
        assert!(shares.lock().origins.is_empty() && shares.lock().ready.is_empty());
    }

    #[test]
    fn of_an_origin_that_waits_alone_nothing_else_waits() {
        let shares = Shares::new(2, 1);
        let first = shares.take_alone(origin(1), 1);
        let first = given(&mut first.expect("nothing waits")).expect("free");
        let mut second = shares.take_alone(origin(1), 1).expect("nothing waits");
        assert!(given(&mut second).is_none(), "its share is used up");
        assert!(shares.take_alone(origin(1), 1).is_none());
        let other = shares.take_alone(origin(2), 1);
        let other = given(&mut other.expect("it is another")).expect("free");
        let mut third = shares.take_alone(origin(3), 1).expect("it is another");
        assert!(given(&mut third).is_none());
        // It waits in turn, before those that hold something.
        drop(other);
        assert!(given(&mut third).is_some() && given(&mut second).is_none());
        drop(second);
        drop(shares.take_alone(origin(1), 1).expect("nothing waits"));
        drop((first, third));
        assert_eq!(shares.used(), 0);
        assert!(shares.lock().origins.is_empty() && shares.lock().ready.is_empty());
    }

    #[test]
    fn at_its_share_an_origin_waits_for_itself_and_otherwise_for_who_holds_more() {
        let shares = Shares::new(4, 1);
        let mut held: Vec<_> = (0..2)
            .filter_map(|_| at_once(&shares, origin(2), 1))
            .collect();
        held.extend(at_once(&shares, origin(1), 1));
        held.extend(at_once(&shares, origin(3), 1));
        let of = |list: &[u8]| -> BTreeSet<_> { list.iter().map(|last| origin(*last)).collect() };
        let ask = |last: u8| shares.take(origin(last), 1).givers();
        // All is used up.
        assert_eq!(ask(4), of(&[1, 2, 3, 4]));
        assert_eq!(ask(1), of(&[1, 2]));
        assert_eq!(ask(2), of(&[2]));
        // Something is free, but not for who has its share.
        held.remove(2);
        held.remove(2);
        held.extend(at_once(&shares, origin(2), 1));
        assert_eq!((held.len(), shares.used()), (3, 3));
        assert_eq!(ask(2), of(&[2]));
        // Nor when another has the rest, even more than it.
        let shares = Shares::new(8, 8);
        let most = at_once(&shares, origin(1), 6).expect("free");
        let less = at_once(&shares, origin(2), 1).expect("free");
        let waiting = shares.take(origin(2), 8);
        assert_eq!(waiting.givers(), of(&[2]));
        drop((most, less, waiting));
        assert_eq!(shares.used(), 0);
    }

    #[test]
    fn parts_are_given_back_one_by_one() {
        let shares = Shares::new(8, 8);
        let mut held = at_once(&shares, origin(1), 6).expect("free");
        let part = held.split(2).expect("enough");
        assert!(held.split(5).is_none());
        assert_eq!((held.units(), part.units(), shares.used()), (4, 2, 6));
        drop(held);
        assert_eq!(shares.used(), 2);
        let mut held = at_once(&shares, origin(1), 3).expect("free");
        held.merge(part);
        assert_eq!((held.units(), shares.used()), (5, 5));
        drop(held);
        assert_eq!((shares.used(), Arc::strong_count(&shares)), (0, 1));
    }
}
