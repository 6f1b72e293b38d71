//! Lines of the engine that a healthy start and stop would log as errors, and repeated ones.
//!
//! The engine speaks of its network as if every peer had to be up at all times, and of its own orderly
//! end as if its actors had died. What is left out is named here by where it comes from and how it
//! begins; anything else passes. Lines that say that the log of consensus is in trouble pass at any time.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use proofmill_consensus::LOG_TARGET;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Peers that are dialled may come up this much later than this node.
const START: Duration = Duration::from_secs(60);
/// Lines that begin alike which pass within a [`WINDOW`].
const ALIKE_MAX: u32 = 5;
/// How long lines that begin alike are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How much of its beginning makes a line like another.
const BEGINNING_CHARS: usize = 40;
/// Beginnings that are counted; beyond, the engine is so noisy that all of it is bounded together.
const BEGINNINGS_MAX: usize = 256;

/// Beginnings of lines that a peer which is not up yet makes: a connection refused is no error of ours,
/// and what is published without anybody to hear it is sent again.
const WHILE_STARTING: &[&str] = &[
    "Error dialing peer: ",
    "Error publishing message: NoPeersSubscribedToTopic",
    "Error broadcasting message: NoPeersSubscribedToTopic",
];

/// Beginnings of lines that never tell anything: a ticker outlives its actor by one tick, whoever ended that
/// says why.
const AT_ANY_TIME: &[&str] = &["Failed to send tick message"];

/// Beginnings of lines that tell only that parts of the engine end one after the other: a channel whose
/// other side is gone, an actor that stopped, a connection that was closed.
const WHILE_STOPPING: &[&str] = &[
    "Actor terminated",
    "Actor has died",
    "Actor dropped reply channel",
    "Connection closed with",
    "Error publishing message: ",
    "Error broadcasting message: ",
    "Error dialing peer: ",
    "Error replying",
    "Error sending",
    "Failed to forward",
    "Failed to obtain network dump",
    "Failed to reply",
    "Failed to send message to subscriber",
    "Failed to send request",
    // The flush itself is done: nobody waits for the answer any more.
    "Failed to send WAL flush reply",
    "Inbound connection",
    "Last connection to peer",
    "Non-established connection",
    "Outbound connection",
    "Removing active connection",
    "Resetting bootstrap node",
];

static STOPPING: AtomicBool = AtomicBool::new(false);

/// From now on what the engine says about its own end is left out.
pub(super) fn expect_end() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// A layer that decides which of the engine's warnings and errors are logged.
pub(super) struct Quiet {
    begun: Instant,
    seen: Mutex<BTreeMap<String, Alike>>,
}

/// Lines that begin alike.
struct Alike {
    since: Instant,
    passed: u32,
    left_out: u32,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// It passes, and so many like it did not.
    PassAfter(u32),
    LeaveOut,
}

impl Default for Quiet {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            seen: Mutex::default(),
        }
    }
}

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || !metadata.target().starts_with(LOG_TARGET) {
            return true;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let stopping = STOPPING.load(Ordering::Relaxed);
        match self.judge(&message.0, stopping, Instant::now()) {
            Verdict::Pass => true,
            Verdict::PassAfter(count) => {
                tracing::warn!(count, "lines like the next one were left out");
                true
            }
            Verdict::LeaveOut => false,
        }
    }
}

impl Quiet {
    fn judge(&self, message: &str, stopping: bool, now: Instant) -> Verdict {
        let begins = |all: &[&str]| all.iter().any(|begin| message.starts_with(begin));
        let starting = now.saturating_duration_since(self.begun) < START;
        if begins(AT_ANY_TIME)
            || (starting && begins(WHILE_STARTING))
            || (stopping && begins(WHILE_STOPPING))
        {
            return Verdict::LeaveOut;
        }
        let mut beginning: String = message.chars().take(BEGINNING_CHARS).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= BEGINNINGS_MAX && !seen.contains_key(&beginning) {
            seen.retain(|_, alike| now.saturating_duration_since(alike.since) < WINDOW);
            if seen.len() >= BEGINNINGS_MAX {
                beginning.clear();
            }
        }
        let alike = seen.entry(beginning).or_insert(Alike {
            since: now,
            passed: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(alike.since) >= WINDOW {
            let left_out = alike.left_out;
            *alike = Alike {
                since: now,
                passed: 1,
                left_out: 0,
            };
            return match left_out {
                0 => Verdict::Pass,
                left_out => Verdict::PassAfter(left_out),
            };
        }
        if alike.passed < ALIKE_MAX {
            alike.passed += 1;
            return Verdict::Pass;
        }
        alike.left_out = alike.left_out.saturating_add(1);
        Verdict::LeaveOut
    }
}

/// An event's message.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // A string takes whatever is written.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ALIKE_MAX, BEGINNINGS_MAX, Quiet, START, Verdict, WINDOW};

    const DIALLING: &str = "Error dialing peer: Failed to negotiate transport protocol(s)";

    #[test]
    fn a_peer_that_is_not_up_yet_is_no_error_and_later_one_a_minute_is_told() {
        let quiet = Quiet::default();
        let at = |seconds| quiet.begun + Duration::from_secs(seconds);
        assert_eq!(quiet.judge(DIALLING, false, at(1)), Verdict::LeaveOut);
        let late = quiet.begun + START;
        let verdicts = (0..100).map(|_| quiet.judge(DIALLING, false, late));
        let passed = verdicts.filter(|verdict| *verdict == Verdict::Pass).count();
        assert_eq!(passed, ALIKE_MAX as usize);
        let next = quiet.judge(DIALLING, false, late + WINDOW);
        assert_eq!(next, Verdict::PassAfter(100 - ALIKE_MAX));
    }

    #[test]
    fn what_an_end_sounds_like_is_left_out_only_while_stopping_and_trouble_never() {
        let quiet = Quiet::default();
        let now = Instant::now();
        let died = "Actor terminated \u{2014} stopping Node to trigger orchestrator restart";
        assert_eq!(quiet.judge(died, false, now), Verdict::Pass);
        assert_eq!(quiet.judge(died, true, now), Verdict::LeaveOut);
        let reply = "Failed to send WAL flush reply";
        assert_eq!(quiet.judge(reply, false, now), Verdict::Pass);
        assert_eq!(quiet.judge(reply, true, now), Verdict::LeaveOut);
        let tick = "Failed to send tick message: Messaging failed";
        assert_eq!(quiet.judge(tick, false, now), Verdict::LeaveOut);
        for trouble in [
            "ATTENTION: Failed to append entry to WAL: no space",
            "Safety-critical failure detected",
            "WAL thread panicked: x",
        ] {
            assert_eq!(quiet.judge(trouble, true, now), Verdict::Pass, "{trouble}");
        }
    }

    #[test]
    fn many_kinds_of_lines_are_bounded_together() {
        let quiet = Quiet::default();
        let now = quiet.begun + START;
        let mut passed = 0;
        for number in 0..10 * BEGINNINGS_MAX {
            let line = format!("{number} is a line like no other");
            passed += usize::from(quiet.judge(&line, false, now) == Verdict::Pass);
        }
        assert!(passed <= BEGINNINGS_MAX + ALIKE_MAX as usize, "{passed}");
    }
}
