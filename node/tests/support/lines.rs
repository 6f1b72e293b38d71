//! A process's own log as an account of what it did and when.

use std::time::Duration;

/// Says that a signature of this process leaves for its peers.
const LEAVES: &str = "a signature leaves";
/// Says that this process heard a message under its key that it did not sign.
const HEARD: &str = "another process signs with this validator's key";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The log level at which a node says which signatures leave.
pub(crate) const SIGNATURES: &str = "info,proofmill_consensus::network=debug";

/// Whether a log names a signature of its process.
pub(crate) fn signed(log: &str) -> bool {
    log.lines().any(|line| line.contains(LEAVES))
}

/// What a validator that heard its twin says of its end.
#[derive(Debug)]
pub(crate) struct Heard {
    /// From the last signature that left to the foreign message; `None` when none left.
    pub(crate) signed_before: Option<Duration>,
    /// Signatures that left afterwards.
    pub(crate) signed_after: Vec<String>,
    /// From the foreign message to the last line.
    pub(crate) ended_after: Duration,
}

impl Heard {
    /// Reads a log; `None` when nothing foreign was heard.
    pub(crate) fn read(log: &str) -> Option<Self> {
        let lines: Vec<_> = log.lines().filter(|line| time(line).is_some()).collect();
        let heard = lines.iter().position(|line| line.contains(HEARD))?;
        let (before, after) = lines.split_at(heard);
        let leaves = |line: &&&str| line.contains(LEAVES);
        let at = |line: &str| time(line).expect("only such lines");
        let last = before.iter().rfind(leaves);
        Some(Self {
            signed_before: last.map(|last| since(at(last), at(after[0]))),
            signed_after: after
                .iter()
                .filter(leaves)
                .map(ToString::to_string)
                .collect(),
            ended_after: since(at(after[0]), at(after[after.len() - 1])),
        })
    }
}

/// The time between two times of day, the earlier one first.
fn since(earlier: Duration, later: Duration) -> Duration {
    match later.checked_sub(earlier) {
        Some(since) => since,
        None => later + DAY - earlier,
    }
}

/// The time of day that a line begins with, as in `2026-01-31T23:59:59.123456Z`.
fn time(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once('T')?;
    let (time, _) = rest.split_once('Z')?;
    let mut parts = time.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3_600 + minutes * 60) + Duration::from_secs_f64(seconds))
}
