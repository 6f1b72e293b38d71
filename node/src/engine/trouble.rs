//! Why a node must stop, and how the rest of it hears of that.

use proofmill_chain::types::block::{header_version_under, version_of};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::listed;

use super::Engine;
use crate::upgrades::UpgradeNeeded;

/// Why the node must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It needs another release.
    #[error(transparent)]
    Upgrade(#[from] UpgradeNeeded),
    /// Its disk or its ledger.
    #[error("{0}")]
    Failed(String),
}

impl Engine {
    /// Resolves with the reason once this node must stop: it needs another release, or its own disk or
    /// ledger is in trouble.
    pub async fn trouble(&self) -> Trouble {
        let mut trouble = self.trouble.subscribe();
        match trouble.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(reason)) => reason.clone(),
            // The sender lives as long as the engine.
            _ => std::future::pending().await,
        }
    }

    /// Passes a result on; trouble of our own is announced.
    pub(super) fn watched<T, E: std::fmt::Display>(
        &self,
        result: Result<T, E>,
        is_ours: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        if let Err(error) = &result
            && is_ours(error)
        {
            self.stop_for(Trouble::Failed(error.to_string()));
        }
        result
    }

    /// Announces that the node must stop; the first reason stays.
    pub(super) fn stop_for(&self, trouble: Trouble) {
        self.trouble.send_if_modified(|announced| {
            let first = announced.is_none();
            announced.get_or_insert(trouble);
            first
        });
    }

    /// Whether the rules of the next height are known; when they are not, the node stops.
    ///
    /// # Errors
    /// With what is needed.
    pub fn check_next_rules(&self) -> Result<(), UpgradeNeeded> {
        let next = self.store.head().height.next();
        match self.schedule.at(next) {
            Ok(_) => Ok(()),
            Err(unknown) => {
                let needed = UpgradeNeeded::from(unknown);
                self.stop_for(needed.clone().into());
                Err(needed)
            }
        }
    }

    /// Looks at bytes that are invalid here although a certificate of the next height names their
    /// hash. When the header under that hash is of another version than ours, the node stops.
    pub fn certified_elsewhere(&self, height: Height, block: &Hash, bytes: &[u8]) {
        let Ok(rules) = self.schedule.at(height) else {
            return;
        };
        if version_of(bytes) == Some(rules.version()) {
            return;
        }
        let Some(certified) = header_version_under(block, bytes) else {
            return;
        };
        self.stop_for(Trouble::Upgrade(UpgradeNeeded::Certified {
            height,
            certified,
            ours: rules.version(),
            known: listed(self.schedule.known_versions()),
        }));
    }
}
