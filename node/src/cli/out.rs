//! Printing: results to standard output, everything else to standard error.
//!
//! Rust's `println!` panics when the reader has gone away (`proofmill … | head`); these functions
//! return the error, and the command ends quietly.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

/// Prints a text and ends its line.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.trim_end_matches('\n').as_bytes())?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

/// Prints a value as JSON.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    text(&serde_json::to_string_pretty(value)?)
}

/// A block's time for people: UTC, with milliseconds, and the number itself.
pub(crate) fn time(time_ms: u64) -> String {
    let utc = UNIX_EPOCH
        .checked_add(Duration::from_millis(time_ms))
        // The year 9999 is the last that RFC 3339 can express.
        .filter(|_| time_ms < 253_402_300_800_000)
        .map(|time| humantime::format_rfc3339_millis(time).to_string());
    match utc {
        Some(utc) => format!("{utc} ({time_ms} ms since 1970)"),
        None => format!("{time_ms} ms since 1970"),
    }
}

/// Prints a line for people to standard error.
pub(crate) fn note(line: &str) {
    // When even that cannot be written there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether printing failed because the reader has gone away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Names and values, one pair a line, the values below each other.
pub(crate) fn pairs<N: AsRef<str>>(pairs: &[(N, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| width(name.as_ref())).max();
    let width = width.unwrap_or_default();
    pairs
        .iter()
        .map(|(name, value)| format!("{:width$}  {value}\n", name.as_ref()))
        .collect()
}

/// A table with a line of headings.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<_> = headings.iter().map(|heading| width(heading)).collect();
    for row in rows {
        for (most, cell) in widths.iter_mut().zip(row) {
            *most = width(cell).max(*most);
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::{is_broken_pipe, pairs, table, time};

    #[test]
    fn a_time_is_shown_in_utc_as_long_as_it_has_a_date() {
        assert_eq!(
            time(1_764_331_200_123),
            "2025-11-28T12:00:00.123Z (1764331200123 ms since 1970)"
        );
        assert_eq!(time(u64::MAX), format!("{} ms since 1970", u64::MAX));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [
            vec!["…".to_owned(), "1".to_owned()],
            vec!["long".into(), "22".into()],
        ];
        assert_eq!(table(&["A", "B"], &rows), "A     B\n…     1\nlong  22\n");
        let lines = [("a", "1".to_owned()), ("bcd", "2".to_owned())];
        assert_eq!(pairs(&lines), "a    1\nbcd  2\n");
    }

    #[test]
    fn a_reader_that_went_away_is_recognised_behind_context() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(
            &anyhow::Error::from(pipe).context("printing")
        ));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
