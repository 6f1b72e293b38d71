//! Decisions: commit, then the next height when it is due.

use std::sync::Arc;

use arc_malachitebft_app_channel::Reply;
use arc_malachitebft_core_types::CommitCertificate;
use arc_malachitebft_engine::host::Next;
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_chain::types::units::Height;

use super::{Adapter, answer, lock, raise};
use crate::context::{self, Chain, round_of};

impl Adapter {
    /// Makes the decided block final. Whatever goes wrong here ends consensus.
    pub(super) async fn commit(
        self: Arc<Self>,
        certificate: CommitCertificate<Chain>,
        reply: Reply<()>,
    ) {
        let certificate = certificate_of(&certificate);
        let height = certificate.height;
        let Some(bytes) = self.block(height, certificate.block).await else {
            let block = certificate.block;
            let reason = format!("block {block} was decided at height {height} and is not stored");
            return self.fail(reason);
        };
        if let Err(error) = self.app.commit(certificate, bytes).await {
            return self.fail(format!("height {height} cannot be committed: {error}"));
        }
        if self.prepare(height).await.is_none() {
            return;
        }
        lock(&self.proposals).prune(height);
        raise(&self.committed, height);
        self.judge_early(height.next());
        answer(reply, ());
    }

    /// Starts the next height: at once while catching up, else when the application says so or
    /// a validator has begun it.
    pub(super) async fn next(self: Arc<Self>, height: Height, reply: Reply<Next<Chain>>) {
        if !self.until_committed(height).await {
            return;
        }
        if *self.synced.borrow() < height {
            let mut announced = self.announced.subscribe();
            tokio::select! {
                () = self.app.next_height_due() => {}
                _ = announced.wait_for(|seen| *seen > height) => {}
                () = self.closed() => return,
            }
        }
        let height = height.next();
        if let Some(params) = self.params(height) {
            answer(reply, Next::Start(context::Height(height), params));
        }
    }
}

/// The chain's form of a certificate: by ascending key, each validator once.
fn certificate_of(certificate: &CommitCertificate<Chain>) -> Certificate {
    let mut signatures: Vec<_> = certificate
        .commit_signatures
        .iter()
        .map(|signed| CommitSignature {
            validator: signed.address.0,
            signature: signed.signature,
        })
        .collect();
    signatures.sort_unstable_by_key(|signed| signed.validator);
    signatures.dedup_by_key(|signed| signed.validator);
    Certificate {
        height: certificate.height.0,
        round: round_of(certificate.round),
        block: certificate.value_id,
        signatures,
    }
}
