//! How a running development network is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::Height;
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;

use super::ready::Ready;
use super::{head, layout};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A development network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The chain's name.
    pub chain_id: String,
    /// The chain's identity.
    pub genesis_hash: Hash,
    /// The devnet's own process.
    pub pid: u32,
    /// The highest final block.
    pub height: Option<Height>,
    /// The validators.
    pub validators: Vec<ValidatorStatus>,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValidatorStatus {
    /// Its name.
    pub name: String,
    /// Where its JSON-RPC server answers.
    pub rpc: String,
    /// Its process.
    pub pid: u32,
    /// Its last final block.
    pub height: Option<Height>,
    /// That block's hash.
    pub hash: Option<Hash>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Its key.
    pub account: AccountId,
    /// Its process.
    pub pid: u32,
    /// Whether the process runs.
    pub running: bool,
}

/// Asks the development network in `home`.
///
/// # Errors
/// When none runs there, or it is not ready yet.
pub fn status(home: &Path) -> anyhow::Result<Status> {
    if !layout::is_running(home)? {
        bail!(
            "no devnet runs in {0}: start one with `proofmill devnet --home {0}`, or name the directory \
             of one with --home; without it that is `devnet` in $PROOFMILL_HOME or ~/.proofmill",
            home.display()
        );
    }
    let path = layout::ready_file(home);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("the devnet in {} is not ready yet", home.display()))?;
    let ready: Ready =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let validators: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = ready
            .validators
            .iter()
            .map(|node| (node, scope.spawn(|| head::ask(&node.rpc, PATIENCE))))
            .collect();
        let answered = asked.into_iter().map(|(node, answer)| {
            let head = answer
                .join()
                .unwrap_or_else(|_| Err("asking it failed".into()));
            ValidatorStatus {
                name: node.name.clone(),
                rpc: node.rpc.clone(),
                pid: node.pid,
                height: head.as_ref().ok().map(|head| head::height(head.as_ref())),
                hash: head
                    .as_ref()
                    .ok()
                    .and_then(|head| Some(head.as_ref()?.hash)),
                error: node.ended.clone().or(head.err()),
            }
        });
        answered.collect()
    });
    let workers = ready.workers.into_iter().map(|worker| WorkerStatus {
        name: worker.name,
        account: worker.account,
        pid: worker.pid,
        running: is_running(worker.pid),
    });
    Ok(Status {
        chain_id: ready.chain_id,
        genesis_hash: ready.genesis_hash,
        pid: ready.pid,
        height: validators.iter().filter_map(|node| node.height).max(),
        workers: workers.collect(),
        validators,
    })
}

fn is_running(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn no_devnet_is_answered_with_how_to_start_one() {
        let place = tempfile::tempdir().expect("a directory");
        let message = status(place.path()).expect_err("a refusal").to_string();
        assert!(message.contains("proofmill devnet --home"), "{message}");
    }
}
