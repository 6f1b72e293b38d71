//! Attestations in a block, and the output bytes that must ride with them.

use std::collections::BTreeSet;

use crate::execute::Executor;
use crate::state::StateError;
use crate::task::{self, Void};
use crate::types::hash::{Blob, Hash};
use crate::types::task::{SignedAttestation, Statement, Task};

/// Which output bytes a block must carry: those of each output that a reveal is the first of its
/// task to name. An output without bytes is never carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    needed: BTreeSet<Hash>,
}

impl Outputs {
    /// The hashes needed, ascending.
    pub fn needed(&self) -> impl Iterator<Item = &Hash> {
        self.needed.iter()
    }

    /// Whether `outputs` are exactly those needed, in ascending order of hash.
    #[must_use]
    pub fn match_exactly(&self, outputs: &[Blob]) -> bool {
        self.needed
            .iter()
            .copied()
            .eq(outputs.iter().map(Blob::hash))
    }

    /// Whether applying this statement to `task` would name an output for the first time.
    #[must_use]
    pub fn first_named(task: &Task, statement: &Statement) -> Option<Hash> {
        let Statement::Reveal { claim, .. } = statement else {
            return None;
        };
        let named = task
            .seats
            .iter()
            .filter_map(|seat| seat.claim)
            .any(|other| other.output_hash == claim.output_hash);
        let empty = claim.output_hash == Blob::default().hash();
        (!named && !empty).then_some(claim.output_hash)
    }
}

impl Executor<'_> {
    pub(super) fn apply_attestation(
        &mut self,
        signed: &SignedAttestation,
        outputs: &mut Outputs,
    ) -> Result<Result<(), Void>, StateError> {
        let attestation = &signed.attestation;
        let Some(task) = self.overlay.task(attestation.task)? else {
            return Ok(Err(Void::TaskUnknown));
        };
        let mut task = task.clone();
        let first = Outputs::first_named(&task, &attestation.statement);
        match task::attest(&mut task, attestation, self.now, self.context.params) {
            Err(void) => Ok(Err(void)),
            Ok(effects) => {
                outputs.needed.extend(first);
                self.apply_effects(effects)?;
                self.store_attested(task)?;
                self.overlay.keep();
                Ok(Ok(()))
            }
        }
    }

    /// Writes the task back. A vacancy keeps the look that it waits for.
    fn store_attested(&mut self, task: Task) -> Result<(), StateError> {
        if task::vacant_seats(&task) > 0 {
            let id = task.id;
            return self.overlay.put(
                crate::types::record::StateKey::Task(id),
                crate::types::record::Record::Task(Box::new(task)),
            );
        }
        self.store_task(task, false)
    }
}
