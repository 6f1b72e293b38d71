//! How a command's error is reported: a line for people, or with `--json` an object.
//!
//! ```text
//! {"error": {"code": -32010, "name": "TX_NONCE_GAP", "message": "...", "data": {...}}}
//! ```
//!
//! `code` is the node's JSON-RPC error code when the node refused, else this command's exit status.
//! Accounts in a message are followed by the name of their key when it is known here.

use std::process::ExitCode;

use proofmill_rpc::client::ClientError;
use serde_json::{Value, json};

use crate::cli::session::names_at_hand;
use crate::cli::{Global, out};
use crate::client;
use crate::exit::Exit;
use crate::keys::KeyFileError;
use crate::manifest::ManifestError;

/// The name of an error that has none of its own.
const UNNAMED: &str = "FAILED";

/// The node does not know what was asked for.
pub(crate) const NOT_FOUND: &str = "NOT_FOUND";
/// The chain never takes such an order.
pub(crate) const BAD_ORDER: &str = "BAD_ORDER";
/// Too few workers could be drawn for a task.
pub(crate) const TOO_FEW_WORKERS: &str = "TOO_FEW_WORKERS";
/// The task is over and has no good result.
pub(crate) const NO_RESULT: &str = "NO_RESULT";

/// An error of the command line with a name for programs.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Named {
    name: &'static str,
    message: String,
    /// Whether the command has printed its JSON object, which then contains this error.
    printed: bool,
}

impl Named {
    pub(crate) const fn new(name: &'static str, message: String) -> Self {
        Self {
            name,
            message,
            printed: false,
        }
    }

    /// The error, which is a member of an object that was printed already.
    pub(crate) fn printed(mut self) -> Self {
        self.printed = true;
        self
    }

    /// The member `error` of an object.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "code": Exit::Failure.code(), "name": self.name, "message": self.message })
    }
}

/// Reports an error of a command.
pub(crate) fn report(error: &anyhow::Error, global: &Global) {
    let message = with_names(&with_causes(error), global);
    if !global.json {
        return out::note(&format!("error: {message}"));
    }
    if error
        .downcast_ref::<Named>()
        .is_some_and(|named| named.printed)
    {
        return;
    }
    let object = json!({ "error": object(error, &message) });
    if out::json(&object).is_err() {
        out::note(&format!("error: {message}"));
    }
}

/// Reports a command line that cannot be parsed, or prints the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let as_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && as_json {
        let message = error.render().to_string();
        let message = message.trim().trim_start_matches("error: ");
        let object = json!({
            "error": { "code": Exit::Usage.code(), "name": "USAGE", "message": message },
        });
        if out::json(&object).is_ok() {
            return Exit::Usage.into();
        }
    }
    // When it cannot be printed there is nobody to tell.
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn object(error: &anyhow::Error, message: &str) -> Value {
    let refused = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<client::Error>() {
            Some(client::Error::Call(ClientError::Rpc(refused))) => Some(refused),
            _ => None,
        });
    match refused {
        Some(refused) => json!({
            "code": refused.code,
            "name": name(error),
            "message": message,
            "data": refused.data,
        }),
        None => json!({ "code": Exit::of(error).code(), "name": name(error), "message": message }),
    }
}

fn name(error: &anyhow::Error) -> String {
    let named = error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<client::Error>() {
            Some(error.name())
        } else if let Some(error) = cause.downcast_ref::<Named>() {
            Some(error.name)
        } else if cause.is::<ManifestError>() {
            Some("MANIFEST")
        } else if cause.is::<KeyFileError>() {
            Some("KEY_FILE")
        } else {
            None
        }
    });
    named
        .filter(|name| !name.is_empty())
        .unwrap_or(UNNAMED)
        .to_owned()
}

/// An error and its causes in one sentence; what has been said is not repeated.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The text with the name of its key put before each account that has one here.
fn with_names(text: &str, global: &Global) -> String {
    if !text.contains("mill1") {
        return text.to_owned();
    }
    let Ok(home) = global.home() else {
        return text.to_owned();
    };
    let mut text = text.to_owned();
    for (account, name) in names_at_hand(&home) {
        let account = account.to_string();
        text = text.replace(&account, &format!("{name} ({account})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Named, name, object, with_causes, with_names};
    use crate::cli::Global;
    use crate::dev_keys;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(with_causes(&error), "cannot write: disk full");
        let error = anyhow::anyhow!("disk full").context("cannot write");
        assert_eq!(with_causes(&error), "cannot write: disk full");
    }

    #[test]
    fn an_error_has_a_code_a_name_and_a_message() {
        let error = anyhow::Error::from(Named::new("NOT_FOUND", "no such task".into()));
        let object = object(&error.context("looking"), "looking: no such task");
        assert_eq!(object["code"], 1);
        assert_eq!(object["name"], "NOT_FOUND");
        assert_eq!(object["message"], "looking: no such task");
        assert_eq!(name(&anyhow::anyhow!("anything")), "FAILED");
    }

    #[test]
    fn accounts_are_shown_with_the_names_of_their_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let global = Global {
            json: false,
            home: Some(folder.path().to_owned()),
            known: proofmill_chain::upgrades::RELEASED,
        };
        let account = dev_keys::account(3).public();
        let text = with_names(&format!("{account} has nothing"), &global);
        assert_eq!(text, format!("dev3 ({account}) has nothing"));
        assert_eq!(with_names("nothing", &global), "nothing");
    }
}
