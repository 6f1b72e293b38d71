//! The open connections: how many, of whom, and which one goes when a place is needed.
//!
//! A connection either is the node's turn (a request is at work) or waits for its client: to send
//! the rest of a request or to take more of an answer. When places run out, the one that has waited
//! longest goes, if that is longer than [`CLIENT_AWAITED_MIN`]: clients that are slow on purpose
//! lose their places to those that are not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::CLIENT_AWAITED_MIN;

/// Whom a connection is counted for: an IPv4 address or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// Why a connection is refused: everyone who holds a place makes use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Of all connections.
    All { most: usize },
    /// Of those of its address.
    Address { most: usize },
}

/// All open connections of a server.
pub(crate) struct Connections {
    all_max: usize,
    per_address_max: usize,
    begun: Instant,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Place>>,
    of_origin: HashMap<Origin, usize>,
    /// No reader can be cut off before this, so that none is looked for at every refusal.
    reader_due: Duration,
}

impl Connections {
    pub(crate) fn new(all_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            per_address_max,
            begun: Instant::now(),
            table: Mutex::default(),
        })
    }

    /// A place for a connection from `address`.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Full> {
        self.admit_at(address, self.begun.elapsed())
    }

    /// Cuts off the client that has taken longest for a part of its answer; whether there is one.
    pub(crate) fn cut_slowest_reader(&self) -> bool {
        self.cut_slowest_reader_at(self.begun.elapsed())
    }

    /// Closes the connections on which no request is at work or being answered.
    pub(crate) fn close_idle(&self) {
        for place in self.lock().open.values() {
            if place.awaits() == Await::Request {
                place.cut.notify_one();
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().open.len()
    }

    fn admit_at(self: &Arc<Self>, address: IpAddr, now: Duration) -> Result<Admitted, Full> {
        let origin = Origin::of(address);
        let mut table = self.lock();
        let of_origin = table.of_origin.get(&origin).copied().unwrap_or(0);
        let same = |place: &Place| place.origin == origin;
        if of_origin >= self.per_address_max && table.make_room(same, now).is_err() {
            let most = self.per_address_max;
            return Err(Full::Address { most });
        }
        if table.open.len() >= self.all_max && table.make_room(|_| true, now).is_err() {
            return Err(Full::All { most: self.all_max });
        }
        let id = table.next;
        table.next += 1;
        let place = Arc::new(Place {
            origin,
            begun: self.begun,
            turn: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            cut: Notify::new(),
        });
        place.await_client_at(Await::Request, now);
        table.open.insert(id, Arc::clone(&place));
        *table.of_origin.entry(origin).or_default() += 1;
        Ok(Admitted {
            connections: Arc::clone(self),
            id,
            place,
        })
    }

    fn cut_slowest_reader_at(&self, now: Duration) -> bool {
        let mut table = self.lock();
        if now < table.reader_due {
            return false;
        }
        let made = table.make_room(Place::is_reading, now);
        if let Err(due) = made {
            table.reader_due = due;
        }
        made.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Cuts off the connection among `those` that has waited longest for its client; when none has
    /// waited long enough, says how soon one can have.
    fn make_room(&mut self, those: impl Fn(&Place) -> bool, now: Duration) -> Result<(), Duration> {
        let candidates = self.open.iter().filter(|(_, place)| those(place));
        let waited = candidates.filter_map(|(id, place)| Some((place.waiting_since()?, *id)));
        match waited.min() {
            Some((since, id)) if now.saturating_sub(since) >= CLIENT_AWAITED_MIN => {
                if let Some(place) = self.remove(id) {
                    place.cut.notify_one();
                }
                Ok(())
            }
            Some((since, _)) => Err(since + CLIENT_AWAITED_MIN),
            None => Err(now + CLIENT_AWAITED_MIN),
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Place>> {
        let place = self.open.remove(&id)?;
        if let Some(count) = self.of_origin.get_mut(&place.origin) {
            *count -= 1;
            if *count == 0 {
                self.of_origin.remove(&place.origin);
            }
        }
        Some(place)
    }
}

/// An open connection's place, given back when dropped.
pub(crate) struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    place: Arc<Place>,
}

impl Admitted {
    pub(crate) const fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Await {
    /// The node: a request is at work.
    Node,
    /// The client, to send a request.
    Request,
    /// The client, to read an answer.
    Reading,
}

/// A connection's state, as its task, its transport and its requests see it.
pub(crate) struct Place {
    origin: Origin,
    begun: Instant,
    /// Milliseconds since `begun`, times four, plus what is awaited.
    turn: AtomicU64,
    /// Requests at work or being answered: more than one when a client does not wait for answers.
    requests: AtomicUsize,
    cut: Notify,
}

impl Place {
    /// Whom it is counted for.
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    /// A request is complete and waits for a slot. Its client may lose its place all the same, but is
    /// awaited anew.
    pub(crate) fn received(&self) {
        if self.awaits() == Await::Request {
            self.await_client(Await::Request);
        }
    }

    /// A request is at work: from now on the node is awaited.
    pub(crate) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.turn.store(0, Ordering::Relaxed);
    }

    /// A request's answer is written, or there is none.
    pub(crate) fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.await_client(Await::Request);
        }
    }

    /// From now on the client is awaited, anew.
    pub(crate) fn await_client(&self, what: Await) {
        self.await_client_at(what, self.begun.elapsed());
    }

    fn await_client_at(&self, what: Await, now: Duration) {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> 2);
        let what = match what {
            Await::Node => 0,
            Await::Request => 1,
            Await::Reading => 2,
        };
        self.turn.store(ms << 2 | what, Ordering::Relaxed);
    }

    /// The client took a part of its answer.
    pub(crate) fn progressed(&self) {
        if self.is_reading() {
            self.await_client(Await::Reading);
        }
    }

    /// Resolves when the connection must go.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Whether its client has yet to read an answer.
    pub(crate) fn is_reading(&self) -> bool {
        self.awaits() == Await::Reading
    }

    fn awaits(&self) -> Await {
        match self.turn.load(Ordering::Relaxed) & 3 {
            0 => Await::Node,
            1 => Await::Request,
            _ => Await::Reading,
        }
    }

    /// Since when the client is awaited, counted from the server's start.
    fn waiting_since(&self) -> Option<Duration> {
        let turn = self.turn.load(Ordering::Relaxed);
        (turn & 3 != 0).then(|| Duration::from_millis(turn >> 2))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::IpAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::{Admitted, Await, Connections, Duration, Full, Origin};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
        let of = |text| Origin::of(address(text));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    /// Whether a connection was cut off.
    fn is_cut(admitted: &Admitted) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(admitted.place().cut()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn whoever_waited_longest_for_its_client_makes_room() {
        let connections = Connections::new(3, 2);
        let at =
            |text: &str, ms: u64| connections.admit_at(address(text), Duration::from_millis(ms));
        let first = at("192.0.2.1", 0).expect("room");
        let second = at("192.0.2.2", 10).expect("room");
        let third = at("192.0.2.2", 20).expect("room");
        // Nobody has waited long yet.
        assert_eq!(at("192.0.2.3", 999).err(), Some(Full::All { most: 3 }));
        // An address that is full loses a place of its own, though another has waited longer.
        second.place().begin_request();
        let fourth = at("192.0.2.2", 1_020).expect("room");
        assert!(is_cut(&third) && !is_cut(&first) && !is_cut(&second));
        assert_eq!(connections.count(), 3);
        fourth.place().begin_request();
        assert_eq!(
            at("192.0.2.2", 9_000).err(),
            Some(Full::Address { most: 2 })
        );
        // Another address takes the place of the first.
        let fifth = at("192.0.2.3", 9_000).expect("room");
        assert!(is_cut(&first));
        // Dropping a connection that was cut off gives nothing back twice.
        drop((first, third));
        assert_eq!(connections.count(), 3);
        drop((second, fourth, fifth));
        assert_eq!(connections.count(), 0);
        assert!(connections.lock().of_origin.is_empty());
    }

    #[test]
    fn only_a_reader_that_takes_nothing_is_slow() {
        let connections = Connections::new(3, 3);
        let of = || connections.admit(address("192.0.2.1")).expect("room");
        let (idle, slow, fast) = (of(), of(), of());
        let at = |admitted: &Admitted, ms| {
            let now = Duration::from_millis(ms);
            admitted.place().await_client_at(Await::Reading, now);
        };
        at(&slow, 0);
        at(&fast, 500);
        assert!(!connections.cut_slowest_reader_at(Duration::from_millis(999)));
        assert!(connections.cut_slowest_reader_at(Duration::from_millis(1_000)));
        assert!(is_cut(&slow) && !is_cut(&idle) && !is_cut(&fast));
        assert!(!connections.cut_slowest_reader_at(Duration::from_millis(1_000)));
    }
}
