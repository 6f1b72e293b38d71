//! How long a worker waits between looks, and how often it complains.

use std::time::Duration;

/// Longest pause while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The pause grows while looks fail and is short again after one that succeeds.
pub(super) struct Pace {
    usual: Duration,
    pause: Duration,
    failing: bool,
}

impl Pace {
    pub(super) const fn new(usual: Duration) -> Self {
        Self {
            usual,
            pause: usual,
            failing: false,
        }
    }

    pub(super) const fn pause(&self) -> Duration {
        self.pause
    }

    pub(super) fn succeeded(&mut self) {
        if self.failing {
            tracing::info!("a node answers again");
        }
        self.failing = false;
        self.pause = self.usual;
    }

    pub(super) fn failed(&mut self, error: &anyhow::Error) {
        if !self.failing {
            tracing::warn!("no progress, trying on: {error:#}");
        }
        self.failing = true;
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
    }
}
