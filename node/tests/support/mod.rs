//! Real processes for tests: started, awaited, asked over RPC, killed when dropped.

#![allow(dead_code, unused_imports, reason = "each test uses its part")]

mod devnet;
mod lines;
mod process;
mod view;

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use devnet::Devnet;
pub(crate) use lines::{Heard, SIGNATURES, signed};
pub(crate) use process::{Process, command, command_line, descendants, is_gone, run_to_end};
pub(crate) use view::{Node, agree_on};

/// How long anything that a node does may take. Far more than it takes: a test that waits this
/// long has found something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at another process.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something.
///
/// # Panics
/// When it took too long.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    looked_at_within(limit, look)
        .unwrap_or_else(|| panic!("not within {} s: {what}", limit.as_secs()))
}

/// Looks until there is something; `None` when it took too long.
pub(crate) fn looked_at_within<T>(
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The count that the environment names, or the usual one.
pub(crate) fn count_from_environment(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(count) => count,
            Err(_) => panic!("{name} is a count, not `{text}`"),
        },
        Err(_) => usual,
    }
}

/// Numbers that look random and come from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The seed that the environment names, or a new one; printed, so that a run can be repeated.
    pub(crate) fn from_environment() -> Self {
        let seed = match std::env::var("PROOFMILL_SEED") {
            Ok(text) => text.parse().expect("PROOFMILL_SEED is a 64-bit integer"),
            Err(_) => getrandom::u64().expect("random numbers"),
        };
        eprintln!("PROOFMILL_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A base for `--port` whose ports are free, below those that the system gives to outgoing
/// connections: a node that is started again finds its ports still free.
pub(crate) fn free_base(nodes: u16) -> u16 {
    let mut random = Random(getrandom::u64().expect("random numbers"));
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    within(PATIENCE, "free ports", || {
        let base = 12_000 + u16::try_from(random.below(18_000)).expect("small");
        (0..nodes)
            .flat_map(|node| [0, 100, 200].map(|above| base + above + node))
            .all(is_free)
            .then_some(base)
    })
}
