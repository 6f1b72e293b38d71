//! Which connections have fallen silent.

use std::collections::BTreeMap;

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::KeepAlive;

/// When each connection was last heard of.
#[derive(Debug)]
pub(super) struct Silence {
    rules: KeepAlive,
    heard: BTreeMap<ConnectionId, Instant>,
    looked: Instant,
}

impl Silence {
    pub(super) fn new(rules: KeepAlive, now: Instant) -> Self {
        Self {
            rules,
            heard: BTreeMap::new(),
            looked: now,
        }
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, connection: ConnectionId, now: Instant) {
        self.heard.insert(connection, now);
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        self.heard.remove(&connection);
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Instant {
        self.looked + self.rules.interval
    }

    /// The connections that have been silent for too long, each told once. When this look comes late, this
    /// process did not run, and the silence was its own: all begin anew.
    pub(super) fn look(&mut self, now: Instant) -> Vec<ConnectionId> {
        let late = now.saturating_duration_since(self.next_look());
        self.looked = now;
        if late >= self.rules.silent_max / 2 {
            self.heard.values_mut().for_each(|heard| *heard = now);
            return Vec::new();
        }
        let is_silent =
            |heard: Instant| now.saturating_duration_since(heard) > self.rules.silent_max;
        let silent = self.heard.iter().filter(|(_, heard)| is_silent(**heard));
        let silent: Vec<_> = silent.map(|(connection, _)| *connection).collect();
        for connection in &silent {
            self.heard.remove(connection);
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::swarm::ConnectionId;
    use tokio::time::Instant;

    use super::{KeepAlive, Silence};

    const RULES: KeepAlive = KeepAlive {
        interval: Duration::from_secs(3),
        silent_max: Duration::from_secs(10),
    };

    fn of(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn a_connection_is_silent_once_nothing_was_heard_for_so_long() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut silence = Silence::new(RULES, begun);
        silence.heard(of(1), at(0));
        silence.heard(of(2), at(0));
        for second in (3..=9).step_by(3) {
            assert_eq!(silence.next_look(), at(second));
            silence.heard(of(2), at(second));
            assert!(silence.look(at(second)).is_empty());
        }
        assert_eq!(silence.look(at(12)), [of(1)]);
        assert!(silence.look(at(15)).is_empty(), "told once");
        silence.closed(of(2));
        assert!(silence.look(at(18)).is_empty() && silence.look(at(21)).is_empty());
    }

    #[test]
    fn a_process_that_did_not_run_blames_nobody() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut silence = Silence::new(RULES, begun);
        silence.heard(of(1), at(0));
        assert!(silence.look(at(100)).is_empty());
        assert!(silence.look(at(103)).is_empty());
        assert!(silence.look(at(106)).is_empty());
        assert!(silence.look(at(109)).is_empty());
        assert_eq!(silence.look(at(112)), [of(1)]);
    }
}
