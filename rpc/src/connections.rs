//! The open connections: how many, of whom, and which one goes when a place is needed.
//!
//! A connection either is the node's turn (a request is at work) or waits for its client: to send
//! the rest of a request or to take more of an answer. When places run out, the one that has waited
//! longest goes, if that is longer than [`CLIENT_AWAITED_MIN`]: clients that are slow on purpose
//! lose their places to those that are not.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::{CLIENT_AWAITED_MIN, SLOW_SOUGHT_EVERY};

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
    of_origin: HashMap<Origin, OfOrigin>,
}

/// What is known of an origin while it has a connection.
#[derive(Default)]
struct OfOrigin {
    open: usize,
    /// When a slow client was last looked for in its favour.
    sought: Option<Duration>,
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

    /// Whether a slow client may be looked for now in favour of `origin`: not more often than
    /// [`SLOW_SOUGHT_EVERY`], however much of it waits, and not when all its connections are gone.
    pub(crate) fn may_seek(&self, origin: Origin) -> bool {
        self.may_seek_at(origin, self.begun.elapsed())
    }

    /// Cuts off the client of one of `origins` that has been awaited longest for `what`, if that is
    /// too long; whether there is one.
    pub(crate) fn cut_slowest(&self, what: Await, origins: &BTreeSet<Origin>) -> bool {
        self.cut_slowest_at(what, origins, self.begun.elapsed())
    }

    /// Closes the connections on which no request is at work or being answered.
    pub(crate) fn close_idle(&self) {
        for place in self.lock().open.values() {
            if place.has_no_request() {
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
        let of_origin = table.of_origin.get(&origin).map_or(0, |of| of.open);
        let same = |place: &Place| place.origin == origin;
        if of_origin >= self.per_address_max && !table.make_room(same, now) {
            let most = self.per_address_max;
            return Err(Full::Address { most });
        }
        if table.open.len() >= self.all_max && !table.make_room(|_| true, now) {
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
        table.of_origin.entry(origin).or_default().open += 1;
        Ok(Admitted {
            connections: Arc::clone(self),
            id,
            place,
        })
    }

    fn may_seek_at(&self, origin: Origin, now: Duration) -> bool {
        let mut table = self.lock();
        let Some(of) = table.of_origin.get_mut(&origin) else {
            return false;
        };
        let may = (of.sought).is_none_or(|last| now.saturating_sub(last) >= SLOW_SOUGHT_EVERY);
        if may {
            of.sought = Some(now);
        }
        may
    }

    fn cut_slowest_at(&self, what: Await, origins: &BTreeSet<Origin>, now: Duration) -> bool {
        let those = |place: &Place| place.awaits() == what && origins.contains(&place.origin);
        self.lock().make_room(those, now)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Cuts off the connection among `those` that has waited longest for its client, if one has
    /// waited long enough; whether one has.
    fn make_room(&mut self, those: impl Fn(&Place) -> bool, now: Duration) -> bool {
        let candidates = self.open.iter().filter(|(_, place)| those(place));
        let waited = candidates.filter_map(|(id, place)| Some((place.waiting_since()?, *id)));
        match waited.min() {
            Some((since, id)) if now.saturating_sub(since) >= CLIENT_AWAITED_MIN => {
                if let Some(place) = self.remove(id) {
                    place.cut.notify_one();
                }
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Place>> {
        let place = self.open.remove(&id)?;
        if let Some(of) = self.of_origin.get_mut(&place.origin) {
            of.open -= 1;
            if of.open == 0 {
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
    /// The client, to send more of a body that is counted.
    Body,
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

    /// A part of a body has come that is counted, or room for it: the client is awaited anew.
    pub(crate) fn receiving(&self) {
        if self.has_no_request() {
            self.await_client(Await::Body);
        }
    }

    /// A request is complete and waits for a slot, or is refused. Its client may lose its place all the
    /// same, but is awaited anew.
    pub(crate) fn received(&self) {
        if self.has_no_request() {
            self.await_client(Await::Request);
        }
    }

    /// Whether no request is at work or being answered.
    fn has_no_request(&self) -> bool {
        matches!(self.awaits(), Await::Request | Await::Body)
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
            Await::Body => 3,
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
            2 => Await::Reading,
            _ => Await::Body,
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

    use super::{
        Admitted, Await, BTreeSet, Connections, Duration, Full, Origin, SLOW_SOUGHT_EVERY,
    };

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
        let origins = BTreeSet::from([slow.place().origin()]);
        let cut =
            |ms| connections.cut_slowest_at(Await::Reading, &origins, Duration::from_millis(ms));
        assert!(!cut(999));
        assert!(cut(1_000));
        assert!(is_cut(&slow) && !is_cut(&idle) && !is_cut(&fast));
        assert!(!cut(1_000));
    }

    #[test]
    fn only_slow_clients_of_those_that_shall_give_are_cut_off() {
        let connections = Connections::new(4, 4);
        let of = |text: &str| connections.admit(address(text)).expect("room");
        let (stranger, own) = (of("192.0.2.1"), of("192.0.2.2"));
        let (reader, sender) = (of("192.0.2.3"), of("192.0.2.3"));
        let since = |admitted: &Admitted, what, ms| {
            let since = Duration::from_millis(ms);
            admitted.place().await_client_at(what, since);
        };
        since(&stranger, Await::Reading, 0);
        since(&own, Await::Reading, 500);
        since(&reader, Await::Reading, 0);
        since(&sender, Await::Body, 10);
        let cut = |what, of: &Admitted, ms| {
            let origins = BTreeSet::from([of.place().origin()]);
            connections.cut_slowest_at(what, &origins, Duration::from_millis(ms))
        };
        // The stranger is slow, but not asked to give.
        assert!(!cut(Await::Reading, &own, 1_499));
        assert!(cut(Await::Reading, &own, 1_500));
        assert!(is_cut(&own) && !is_cut(&stranger));
        // Who is slow to send holds no answer, and who is slow to read no body.
        assert!(cut(Await::Body, &sender, 1_500));
        assert!(is_cut(&sender) && !is_cut(&reader));
        assert!(!cut(Await::Body, &sender, 9_000));
        assert!(!is_cut(&reader) && !is_cut(&stranger));
    }

    #[test]
    fn slow_clients_are_sought_for_an_origin_now_and_then() {
        let connections = Connections::new(4, 4);
        let (one, other) = ("192.0.2.1", "192.0.2.2");
        let first = connections.admit(address(one)).expect("room");
        let second = connections.admit(address(other)).expect("room");
        let every = u64::try_from(SLOW_SOUGHT_EVERY.as_millis()).expect("short");
        let may = |text, ms| {
            connections.may_seek_at(Origin::of(address(text)), Duration::from_millis(ms))
        };
        assert!(may(one, 0) && !may(one, every - 1));
        assert!(may(other, 1), "it has its own time");
        assert!(may(one, every) && !may(one, every + 1));
        drop((first, second));
        assert!(!may(one, 9_000), "nobody is there to be served");
    }

    #[test]
    fn who_sends_a_body_is_awaited_anew_for_each_part() {
        let connections = Connections::new(1, 1);
        let admitted = connections.admit(address("192.0.2.1")).expect("room");
        let place = admitted.place();
        place.receiving();
        assert_eq!(place.awaits(), Await::Body);
        place.received();
        assert_eq!(place.awaits(), Await::Request);
        // While the node is awaited, or the client to read, a body counts for nothing.
        place.begin_request();
        place.receiving();
        assert_eq!(place.awaits(), Await::Node);
        place.await_client(Await::Reading);
        place.receiving();
        place.received();
        assert_eq!(place.awaits(), Await::Reading);
    }
}
