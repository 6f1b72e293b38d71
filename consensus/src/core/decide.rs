//! Decisions: commit, then the next height when it is due.

use std::sync::Arc;

use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::units::Height;
use proofmill_chain::types::validator::ValidatorSet;

use super::api::{Answer, Command, Ticket};
use super::{Core, Work};

impl Core {
    pub(super) fn decided(&mut self, ticket: Ticket, certificate: Certificate) {
        let height = certificate.height;
        self.decided = self.decided.max(height);
        self.streams.prune(height);
        self.committing = Some(ticket);
        match self.proposals.block(height, &certificate.block) {
            Some(bytes) => self.order(Command::Commit { certificate, bytes }),
            None => {
                let block = certificate.block;
                let job = self.begin(Work::ReadDecided(certificate));
                self.order(Command::ReadBlock { job, height, block });
            }
        }
    }

    pub(super) fn decided_read(
        &mut self,
        certificate: Certificate,
        bytes: Result<Option<Arc<[u8]>>, String>,
    ) {
        let Certificate { height, block, .. } = certificate;
        match bytes {
            Ok(Some(bytes)) => self.order(Command::Commit { certificate, bytes }),
            Ok(None) => self.fail(format!(
                "block {block} was decided at height {height} and is not stored"
            )),
            Err(error) => self.fail(format!(
                "block {block}, decided at height {height}, cannot be read: {error}"
            )),
        }
    }

    pub(super) fn commit_ended(
        &mut self,
        height: Height,
        validators: Result<ValidatorSet, String>,
    ) {
        let validators = match validators {
            Ok(validators) => validators,
            Err(error) => {
                return self.fail(format!("height {height} cannot be committed: {error}"));
            }
        };
        self.committed = self.committed.max(height);
        self.clocks.retain(&validators);
        self.validators.retain(|known, _| *known >= height);
        self.waiting.check_turns(height.next(), &validators);
        self.validators.insert(height.next(), validators);
        self.proposals.prune(height);
        self.waiting.prune(height);
        self.announced.prune(height);
        self.offenders.prune(height);
        if let Some(ticket) = self.committing.take() {
            self.answer(ticket, Answer::Committed);
        }
        self.go_on();
        self.judge_synced_waiting();
        self.propose_wanted();
        self.judge_ready();
    }

    pub(super) fn finalized(&mut self, ticket: Ticket, height: Height) {
        self.finalized = Some((ticket, height));
        self.go_on();
    }

    /// Starts the next height: at once while catching up, else when the application says so or
    /// others have begun it.
    fn go_on(&mut self) {
        let Some((_, height)) = self.finalized else {
            return;
        };
        if self.committed < height {
            return;
        }
        if self.synced >= height || self.has_begun(height.next()) {
            self.start_next();
        } else if !self.pacing {
            self.pacing = true;
            let height = height.next();
            self.order(Command::AwaitNextHeight { height });
        }
    }

    /// Ends the wait for work if the next height has begun elsewhere.
    pub(super) fn start_if_begun(&mut self) {
        if self.pacing
            && let Some((_, height)) = self.finalized
            && self.has_begun(height.next())
        {
            self.start_next();
        }
    }

    fn has_begun(&self, height: Height) -> bool {
        let validators = self.validators.get(&height);
        validators.is_some_and(|set| self.announced.has_begun(height, set))
    }

    pub(super) fn next_height_due(&mut self, height: Height) {
        if self.pacing
            && self
                .finalized
                .is_some_and(|(_, last)| last.next() == height)
        {
            self.pacing = false;
            self.start_next();
        }
    }

    fn start_next(&mut self) {
        if std::mem::take(&mut self.pacing) {
            self.order(Command::StopWaiting);
        }
        let Some((ticket, last)) = self.finalized.take() else {
            return;
        };
        let height = last.next();
        match self.validators.get(&height).cloned() {
            Some(validators) => self.answer(ticket, Answer::Start { height, validators }),
            None => self.fail(format!("height {height} starts without its validators")),
        }
    }
}
