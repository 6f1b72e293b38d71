//! When the next height starts: at once when there is work, else after the idle interval.

use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::task::Readiness;
use proofmill_chain::types::record::Look;
use proofmill_chain::types::task::AttestationMessage;

use super::{Engine, locked};
use crate::mempool::AttestationPool;
use crate::store::StateGuard;

impl Engine {
    /// Returns when the next height should start.
    pub async fn next_height_due(&self) {
        let due = *locked(&self.last_commit) + self.idle;
        loop {
            let work = self.work.notified();
            tokio::pin!(work);
            // Registered before the look, so that work that comes in between is not missed.
            work.as_mut().enable();
            if self.has_work() {
                return;
            }
            tokio::select! {
                () = work => {}
                () = tokio::time::sleep_until(due.into()) => return,
            }
        }
    }

    /// Whether a block of the next height would do something that someone waits for.
    fn has_work(&self) -> bool {
        {
            let pools = self.pools();
            if !pools.transactions.is_empty() || pools.attestations.has_ready() {
                return true;
            }
        }
        let state = self.store.state();
        // Work that cannot be seen for a reading error shows up at the idle interval.
        Overlay::new(&state).live_tasks().is_ok_and(|live| {
            live.entries
                .iter()
                .any(|entry| matches!(entry.look, Look::Draw))
        })
    }

    /// Asks anew how ready each attestation is, and forgets those that no block can carry.
    pub(super) fn update_attestations(
        &self,
        state: &StateGuard<'_>,
        pool: &mut AttestationPool,
    ) -> Result<(), StateError> {
        let mut trouble = None;
        let head = state.head().height;
        // One for all: each task, and the list of live ones, is decoded once.
        let mut overlay = Overlay::new(state);
        pool.update(head, |message: &AttestationMessage| {
            self.readiness(&mut overlay, head, &message.signed.attestation)
                .unwrap_or_else(|error| {
                    trouble = Some(error);
                    Readiness::Later
                })
        });
        trouble.map_or(Ok(()), Err)
    }
}
