//! Reports that are kept in a home, so that a later run can be laid beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bench::BenchError;
use crate::bench::report::Report;
use crate::home::{Home, write_atomically};

/// Longest name of a report.
const NAME_LEN_MAX: usize = 64;

/// How a stage or a total differs from a baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Which.
    pub name: String,
    /// Its median now less the baseline's, in per cent of the baseline's.
    pub percent: f64,
}

/// Stores a report under a name; one of that name is replaced.
///
/// # Errors
/// When the name is not one, or the file cannot be written.
pub fn save(home: &Home, name: &str, report: &Report) -> Result<PathBuf, BenchError> {
    let path = path_of(home, "save", name)?;
    let failed = |error| BenchError::Io {
        path: path.clone(),
        error,
    };
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    fs::create_dir_all(home.bench()).map_err(failed)?;
    write_atomically(&path, &(text + "\n")).map_err(failed)?;
    Ok(path)
}

/// Reads the report of a name.
///
/// # Errors
/// When there is none, which tells those there are, or when it cannot be read.
pub fn load(home: &Home, name: &str) -> Result<Report, BenchError> {
    let path = path_of(home, "baseline", name)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BenchError::NoBaseline {
                name: name.to_owned(),
                known: names(&home.bench()),
                place: home.bench(),
            });
        }
        Err(error) => return Err(BenchError::Io { path, error }),
    };
    serde_json::from_str(&text).map_err(|error| BenchError::BadBaseline { path, error })
}

/// Checks a name before anything is measured.
///
/// # Errors
/// When it is not one; `flag` is what the error names.
pub fn check_name(flag: &'static str, name: &str) -> Result<(), BenchError> {
    let worded = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if worded && !name.starts_with('.') && (1..=NAME_LEN_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(BenchError::Argument {
        flag,
        given: name.to_owned(),
        rule: format!(
            "a name is 1 to {NAME_LEN_MAX} letters, digits, hyphens, underscores and dots, and does \
             not begin with a dot"
        ),
    })
}

/// How each stage and each total of a report differs from a baseline's.
#[must_use]
pub fn changes(report: &Report, baseline: &Report) -> Vec<Change> {
    report
        .stages_and_totals()
        .filter_map(|line| {
            let mut before = baseline.stages_and_totals();
            let before = before.find(|of| of.name == line.name)?.us_per_tx_median;
            if before <= 0.0 {
                return None;
            }
            Some(Change {
                name: line.name.clone(),
                percent: (line.us_per_tx_median / before - 1.0) * 100.0,
            })
        })
        .collect()
}

/// What the baseline was measured with that this run was not, in words.
#[must_use]
pub fn differences(report: &Report, baseline: &Report) -> Vec<String> {
    let told = |report: &Report| {
        [
            ("processor", report.processor.clone()),
            ("backend", report.backend.clone()),
            ("threads", report.threads.to_string()),
            ("accounts", report.accounts.to_string()),
            ("txs", report.txs.to_string()),
            ("pattern", report.pattern.name().to_owned()),
            ("seen", report.seen.to_string()),
        ]
    };
    told(report)
        .into_iter()
        .zip(told(baseline))
        .filter(|((_, now), (_, before))| now != before)
        .map(|((what, now), (_, before))| format!("{what} {before} there, {now} here"))
        .collect()
}

fn path_of(home: &Home, flag: &'static str, name: &str) -> Result<PathBuf, BenchError> {
    check_name(flag, name)?;
    Ok(home.bench().join(format!("{name}.json")))
}

fn names(place: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(place)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        })
        .collect();
    names.sort_unstable();
    names
}
