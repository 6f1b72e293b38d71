//! How far long work is: a bar on a terminal, a line for every quarter elsewhere; always on
//! standard error.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::out;

const TEMPLATE: &str = "{msg:12} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";

/// How far one piece of work is. It may be told from several threads.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    quarters_told: Mutex<u64>,
}

impl Progress {
    /// Begins to show `what`, `total` steps of it.
    pub(crate) fn start(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_message(what);
            // The template is a constant; without it the bar has indicatif's own looks.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            bar
        });
        let progress = Self {
            what,
            total,
            bar,
            quarters_told: Mutex::new(0),
        };
        if progress.bar.is_none() {
            out::note(&format!("{what}: {total}"));
        }
        progress
    }

    /// Says that so many steps are done.
    pub(crate) fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            // Threads may tell out of order; a bar does not go back.
            if done > bar.position() {
                bar.set_position(done);
            }
            return;
        }
        let quarters = (done * 4).checked_div(self.total).unwrap_or_default();
        let Ok(mut told) = self.quarters_told.lock() else {
            return;
        };
        if quarters > *told {
            *told = quarters;
            out::note(&format!("{}: {done} of {}", self.what, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
