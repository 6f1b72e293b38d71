//! Which configured peers are lost and when to dial them again. The clock is an argument.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::{REDIAL_DELAY_MAX, REDIAL_DELAY_MIN};

#[derive(Debug)]
enum State {
    /// To be dialled then.
    Due(Instant),
    /// Being dialled, or connected.
    Using(ConnectionId),
    /// It is ourselves: never dialled again.
    Ourselves,
}

#[derive(Debug)]
struct Target {
    address: Multiaddr,
    state: State,
    delay: Duration,
}

/// The configured peers.
#[derive(Debug)]
pub(super) struct Targets(Vec<Target>);

impl Targets {
    /// All to be dialled at once.
    pub(super) fn new(addresses: &[Multiaddr], now: Instant) -> Self {
        let target = |address: &Multiaddr| Target {
            address: address.clone(),
            state: State::Due(now),
            delay: REDIAL_DELAY_MIN,
        };
        Self(addresses.iter().map(target).collect())
    }

    /// When the next one is to be dialled.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0
            .iter()
            .filter_map(|target| match target.state {
                State::Due(at) => Some(at),
                State::Using(_) | State::Ourselves => None,
            })
            .min()
    }

    /// The addresses to be dialled by now, each with its place.
    pub(super) fn due(&self, now: Instant) -> Vec<(usize, Multiaddr)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, target)| matches!(target.state, State::Due(at) if at <= now))
            .map(|(place, target)| (place, target.address.clone()))
            .collect()
    }

    pub(super) fn dialling(&mut self, place: usize, connection: ConnectionId) {
        if let Some(target) = self.0.get_mut(place) {
            target.state = State::Using(connection);
        }
    }

    pub(super) fn connected(&mut self, connection: ConnectionId) {
        if let Some(target) = self.using(connection) {
            target.delay = REDIAL_DELAY_MIN;
        }
    }

    /// The dial failed or the connection was lost: the wait doubles each time.
    pub(super) fn lost(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(target) = self.using(connection) {
            target.state = State::Due(now + target.delay);
            target.delay = target.delay.saturating_mul(2).min(REDIAL_DELAY_MAX);
        }
    }

    pub(super) fn is_ourselves(&mut self, connection: ConnectionId) {
        if let Some(target) = self.using(connection) {
            target.state = State::Ourselves;
        }
    }

    fn using(&mut self, connection: ConnectionId) -> Option<&mut Target> {
        self.0
            .iter_mut()
            .find(|target| matches!(target.state, State::Using(used) if used == connection))
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::ConnectionId;
    use tokio::time::Instant;

    use super::Targets;
    use crate::gossip::{REDIAL_DELAY_MAX, REDIAL_DELAY_MIN};

    #[test]
    fn the_wait_doubles_up_to_its_most_and_starts_again_after_a_connection() {
        let mut now = Instant::now();
        let address = "/ip4/192.0.2.1/tcp/1".parse().expect("an address");
        let mut targets = Targets::new(&[address], now);
        let mut waits = Vec::new();
        for number in 0..10 {
            assert_eq!(targets.due(now).len(), 1);
            let connection = ConnectionId::new_unchecked(number);
            targets.dialling(0, connection);
            assert_eq!(targets.next_due(), None);
            targets.lost(connection, now);
            let due = targets.next_due().expect("it is due again");
            assert!(targets.due(now).is_empty());
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits[0], REDIAL_DELAY_MIN);
        assert_eq!(waits[1], REDIAL_DELAY_MIN * 2);
        assert_eq!(waits[9], REDIAL_DELAY_MAX);

        let connection = ConnectionId::new_unchecked(99);
        targets.dialling(0, connection);
        targets.connected(connection);
        targets.lost(connection, now);
        assert_eq!(targets.next_due(), Some(now + REDIAL_DELAY_MIN));

        targets.dialling(0, connection);
        targets.is_ourselves(connection);
        assert_eq!(targets.next_due(), None);
    }
}
