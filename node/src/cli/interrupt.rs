//! Ctrl-C while something is waited for: the wait ends, what was ordered goes on.

use std::thread;

use indicatif::ProgressBar;

use crate::cli::out;

/// The exit code of a command that was interrupted: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// From now on Ctrl-C clears the bar, prints `farewell` and ends the process.
pub(crate) fn say_on_ctrl_c(bar: ProgressBar, farewell: String) {
    on_ctrl_c(move || {
        bar.finish_and_clear();
        out::note(&farewell);
    });
}

/// From now on Ctrl-C does `last` and ends the process.
pub(crate) fn on_ctrl_c(last: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Without a runtime Ctrl-C ends the process as it always does, only without a word.
        let heard = runtime.and_then(|runtime| runtime.block_on(tokio::signal::ctrl_c()));
        if heard.is_ok() {
            last();
            std::process::exit(INTERRUPTED);
        }
    });
}
