//! History: served to those who lag, and taken from others when we do.
//!
//! The engine verifies a synced block's certificate before the block comes here, and compares the
//! certificate's hash with the one that the application finds.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arc_malachitebft_app_channel::Reply;
use arc_malachitebft_core_types as malachite;
use arc_malachitebft_engine::host::SyncedValueOutcome;
use arc_malachitebft_sync::RawDecidedValue;
use bytes::Bytes;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Height;

use super::propose::previous;
use super::{Adapter, answer, lock, raise};
use crate::application::{Application, Verdict};
use crate::context::{self, Chain, round_of};
use crate::undecided::UndecidedProposal;
use crate::wire::{DECIDED_MAX, extended};

impl Adapter {
    pub(super) async fn history_min(self: Arc<Self>, reply: Reply<context::Height>) {
        if let Some(height) = self.blocking(|app| app.history_min()).await {
            answer(reply, context::Height(height));
        }
    }

    /// Answers with committed blocks, in order, up to the first that is missing.
    pub(super) async fn decided_values(
        self: Arc<Self>,
        range: RangeInclusive<context::Height>,
        reply: Reply<Vec<RawDecidedValue<Chain>>>,
    ) {
        let bytes_max = 2 * self.block_bytes_max;
        let read = move |app: &dyn Application| read_decided(app, &range, bytes_max);
        if let Some(values) = self.blocking(read).await {
            answer(reply, values);
        }
    }

    /// Judges a block that a peer says was decided.
    pub(super) async fn synced_value(
        self: Arc<Self>,
        height: Height,
        round: malachite::Round,
        proposer: AccountId,
        bytes: Bytes,
        reply: Reply<SyncedValueOutcome<Chain>>,
    ) {
        let outcome = self.judge_synced(height, round, proposer, &bytes).await;
        answer(reply, outcome);
    }

    async fn judge_synced(
        &self,
        height: Height,
        round: malachite::Round,
        proposer: AccountId,
        bytes: &[u8],
    ) -> SyncedValueOutcome<Chain> {
        if bytes.is_empty() || bytes.len() > self.block_bytes_max {
            return SyncedValueOutcome::PeerFault;
        }
        if !self.until_committed(previous(height)).await {
            return SyncedValueOutcome::LocalTransientError;
        }
        let round = round_of(round);
        let bytes: Arc<[u8]> = bytes.into();
        let hash = match self.app.validate(height, round, Arc::clone(&bytes)).await {
            Verdict::Valid { hash } => hash,
            Verdict::Invalid { reason } => {
                tracing::warn!(%height, reason, "a synced block is invalid");
                return SyncedValueOutcome::PeerFault;
            }
            Verdict::Failed { reason } => {
                tracing::error!(%height, reason, "a synced block could not be judged");
                return SyncedValueOutcome::LocalTransientError;
            }
        };
        // Stored like any proposal: the engine logs the value and may decide on it after a crash.
        let proposal = UndecidedProposal {
            height,
            round,
            pol_round: None,
            proposer,
            hash,
            bytes,
            valid: true,
            signature: None,
        };
        if self.store(proposal).await.is_none() {
            return SyncedValueOutcome::LocalTransientError;
        }
        raise(&self.synced, height);
        let mut proposals = lock(&self.proposals);
        let known = proposals.proposed(height, round, &proposer, &hash);
        let Some(value) = known.map(|known| known.value(height)) else {
            return SyncedValueOutcome::LocalTransientError;
        };
        proposals.delivered(&value);
        SyncedValueOutcome::Verdict(value)
    }
}

fn read_decided(
    app: &dyn Application,
    range: &RangeInclusive<context::Height>,
    bytes_max: usize,
) -> Vec<RawDecidedValue<Chain>> {
    let mut values = Vec::new();
    let mut size = 0_usize;
    let mut height = range.start().0;
    while height <= range.end().0 && values.len() < DECIDED_MAX {
        match app.decided(height) {
            Ok(Some((certificate, bytes))) => {
                size = size.saturating_add(bytes.len());
                if size > bytes_max && !values.is_empty() {
                    break;
                }
                let bytes = Bytes::copy_from_slice(&bytes);
                values.push(RawDecidedValue::new(bytes, extended(&certificate)));
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%height, %error, "a committed block cannot be read");
                break;
            }
        }
        height = height.next();
    }
    values
}
