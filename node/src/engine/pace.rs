//! When the next height starts: at once when there is work, else after the idle interval.

use proofmill_chain::state::StateError;
use proofmill_chain::state::overlay::Overlay;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::record::Look;
use proofmill_chain::types::task::{Attestation, AttestationMessage, Phase, Statement, Task};

use super::{Engine, Pools, locked};
use crate::mempool::AttestationPool;

/// Whether an attestation belongs into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Into the next one.
    Now,
    /// Perhaps into a later one.
    Later,
    /// Never.
    Never,
}

/// How an attestation fits its task at the head.
pub(super) fn fit(task: Option<&Task>, attestation: &Attestation) -> Fit {
    // A task that is not here yet may be in a block that has not arrived.
    let Some(task) = task else { return Fit::Later };
    if task.phase.is_over() {
        return Fit::Never;
    }
    let seat = task
        .seats
        .iter()
        .find(|seat| seat.worker == attestation.worker && seat.draw == attestation.draw);
    let Some(seat) = seat else {
        return if attestation.draw < task.draws {
            Fit::Never
        } else {
            Fit::Later
        };
    };
    match (&attestation.statement, &task.phase) {
        (Statement::Commit { .. }, Phase::Committing { .. }) if seat.commitment.is_none() => {
            Fit::Now
        }
        (Statement::Commit { .. }, _) => Fit::Never,
        (Statement::Reveal { .. }, Phase::Revealing { .. }) if seat.claim.is_none() => Fit::Now,
        (Statement::Reveal { .. }, Phase::Revealing { .. }) => Fit::Never,
        (Statement::Reveal { .. }, _) => Fit::Later,
    }
}

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
        let waiting = {
            let Pools {
                transactions,
                attestations,
            } = &*self.pools();
            if !transactions.is_empty() {
                return true;
            }
            attestations
                .iter()
                .map(|message| message.signed.attestation)
                .collect::<Vec<_>>()
        };
        let mut overlay = Overlay::new(&self.store);
        // Work that cannot be seen for a reading error shows up at the idle interval.
        let draws = overlay.live_tasks().is_ok_and(|live| {
            live.entries
                .iter()
                .any(|entry| matches!(entry.look, Look::Draw))
        });
        draws
            || waiting.iter().any(|attestation| {
                overlay
                    .task(attestation.task)
                    .is_ok_and(|task| fit(task, attestation) == Fit::Now)
            })
    }

    /// Forgets the attestations that no block can hold any more.
    pub(super) fn prune_attestations(&self, pool: &mut AttestationPool) -> Result<(), StateError> {
        let mut overlay = Overlay::new(&self.store);
        let mut trouble = None;
        pool.prune(|message: &AttestationMessage| {
            let attestation = &message.signed.attestation;
            match overlay.task(attestation.task) {
                Ok(task) => fit(task, attestation) != Fit::Never,
                Err(error) => {
                    trouble = Some(error);
                    true
                }
            }
        });
        trouble.map_or(Ok(()), Err)
    }

    /// How an attestation fits the head.
    pub(super) fn fit_of(&self, attestation: &Attestation) -> Result<Fit, StateError> {
        let task: Hash = attestation.task;
        Ok(fit(Overlay::new(&self.store).task(task)?, attestation))
    }
}
