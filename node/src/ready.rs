//! Ready files: written whole or not at all, for whoever waits for a process.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Writes `value` as JSON to `path`, replacing what was there in one step.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("a ready file is plain JSON")?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    fs::write(&staged, text + "\n")
        .and_then(|()| fs::rename(&staged, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
