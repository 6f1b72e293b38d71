//! Our own proposals: the start, a value to propose, parts to send once more.

use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_app_channel::app::types::LocallyProposedValue;
use arc_malachitebft_app_channel::{NetworkMsg, Reply};
use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_core_types::{self as malachite, HeightParams};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use super::{Adapter, answer, lock};
use crate::context::{self, Chain, Value, round_of, round_or_nil};
use crate::proposals::Known;
use crate::signing::announcement_bytes;
use crate::stream::{Announcement, split};
use crate::undecided::UndecidedProposal;

/// How long a new round waits for blocks that came early and are being judged.
const EARLY_WAIT: Duration = Duration::from_secs(1);

impl Adapter {
    /// Where to start: the height after the head, with what was seen of it before a crash.
    pub(super) async fn ready(
        self: Arc<Self>,
        reply: Reply<(context::Height, HeightParams<Chain>)>,
    ) {
        let Some(head) = self.blocking(|app| app.head()).await else {
            return;
        };
        let height = head.next();
        let Some(stored) = self.blocking(move |app| app.undecided(height)).await else {
            return;
        };
        match stored {
            Ok(stored) => {
                let mut proposals = lock(&self.proposals);
                for proposal in &stored {
                    proposals.record(proposal);
                }
            }
            Err(error) => {
                let reason = format!("proposals of height {height} cannot be read: {error}");
                return self.fail(reason);
            }
        }
        if self.prepare(head).await.is_none() {
            return;
        }
        self.decided.send_replace(head);
        self.committed.send_replace(head);
        if let Some(params) = self.params(height) {
            tracing::info!(%height, "consensus starts");
            answer(reply, (context::Height(height), params));
        }
    }

    /// Answers with the proposals of the height that the engine has not got.
    pub(super) async fn started_round(
        self: Arc<Self>,
        height: Height,
        reply: Reply<Vec<ProposedValue<Chain>>>,
    ) {
        let mut judging = self.judging.subscribe();
        let early = judging.wait_for(|count| *count == 0);
        if tokio::time::timeout(EARLY_WAIT, early).await.is_err() {
            tracing::debug!(%height, "early blocks are still being judged");
        }
        let values = lock(&self.proposals).deliver(height);
        answer(reply, values);
    }

    /// Answers with the block to propose, then sends its parts.
    pub(super) async fn propose(
        self: Arc<Self>,
        height: Height,
        round: Round,
        reply: Reply<LocallyProposedValue<Chain>>,
    ) {
        if !self.until_committed(previous(height)).await {
            return;
        }
        let stored = lock(&self.proposals).made_by(height, round, &self.me);
        let known = match stored {
            Some(known) => known,
            None => match self.build(height, round).await {
                Some(known) => known,
                None => return,
            },
        };
        let value = LocallyProposedValue::new(
            context::Height(height),
            round_or_nil(Some(round)),
            Value(known.hash),
        );
        answer(reply, value);
        self.publish(height, &known).await;
    }

    async fn build(&self, height: Height, round: Round) -> Option<Known> {
        let block = match self.app.propose(height, round).await {
            Ok(block) => block,
            Err(error) => {
                tracing::error!(%height, %round, %error, "no block could be built");
                return None;
            }
        };
        if block.bytes.is_empty() || block.bytes.len() > self.block_bytes_max {
            let size = block.bytes.len();
            tracing::error!(%height, size, "the block built is empty or too large");
            return None;
        }
        let announcement = announce(height, round, None, self.me, block.hash, &block.bytes)?;
        let proposal = UndecidedProposal {
            height,
            round,
            pol_round: None,
            proposer: self.me,
            hash: block.hash,
            bytes: block.bytes,
            valid: true,
            signature: Some(self.sign(&announcement)),
        };
        // Stored before it is shown to anybody: after a crash the same round gets the same block.
        self.store(proposal).await?;
        lock(&self.proposals).made_by(height, round, &self.me)
    }

    /// Stores a proposal durably, then remembers it.
    pub(super) async fn store(&self, proposal: UndecidedProposal) -> Option<()> {
        let (stored, proposal) = self
            .blocking(move |app| (app.store_undecided(&proposal), proposal))
            .await?;
        if let Err(error) = stored {
            let height = proposal.height;
            tracing::error!(%height, %error, "a proposal could not be stored");
            return None;
        }
        lock(&self.proposals).record(&proposal);
        Some(())
    }

    /// Sends the parts of a proposal again: our own anew, another's under its own signature.
    pub(super) async fn restream(
        self: Arc<Self>,
        height: Height,
        round: malachite::Round,
        valid_round: malachite::Round,
        proposer: AccountId,
        hash: Hash,
    ) {
        let round = round_of(round);
        let pol_round = valid_round.as_u32().map(Round::new);
        let found = lock(&self.proposals).proposed(height, round, &proposer, &hash);
        if let Some(known) = found {
            return self.publish(height, &known).await;
        }
        if proposer != self.me {
            tracing::warn!(%height, %round, %proposer, "a proposal to send again is not known");
            return;
        }
        let Some(bytes) = self.block(height, hash).await else {
            return;
        };
        let announcement = announce(height, round, pol_round, self.me, hash, &bytes);
        if let Some(announcement) = announcement {
            let signature = self.sign(&announcement);
            lock(&self.proposals).repeat(height, &announcement, true, signature);
            self.send(&announcement, signature, &bytes).await;
        }
    }

    async fn publish(&self, height: Height, known: &Known) {
        let Some(bytes) = self.block(height, known.hash).await else {
            return;
        };
        let announcement = announce(
            height,
            known.round,
            known.pol_round,
            known.proposer,
            known.hash,
            &bytes,
        );
        if let (Some(announcement), Some(signature)) = (announcement, known.signature) {
            self.send(&announcement, signature, &bytes).await;
        }
    }

    async fn send(&self, announcement: &Announcement, signature: Signature, bytes: &[u8]) {
        for message in split(announcement, signature, bytes) {
            let part = NetworkMsg::PublishProposalPart(message);
            if self.network.send(part).await.is_err() {
                return;
            }
        }
    }

    fn sign(&self, announcement: &Announcement) -> Signature {
        self.key
            .sign(&announcement_bytes(&self.chain, announcement))
    }

    /// The bytes of a block that was stored.
    pub(super) async fn block(&self, height: Height, hash: Hash) -> Option<Arc<[u8]>> {
        let cached = lock(&self.proposals).block(height, &hash);
        if cached.is_some() {
            return cached;
        }
        match self.blocking(move |app| app.undecided(height)).await? {
            Ok(stored) => {
                let found = stored.into_iter().find(|proposal| proposal.hash == hash);
                found.map(|proposal| proposal.bytes)
            }
            Err(error) => {
                tracing::error!(%height, %error, "stored proposals cannot be read");
                None
            }
        }
    }
}

/// The height before one that is never genesis.
pub(super) fn previous(height: Height) -> Height {
    height.previous().unwrap_or_default()
}

fn announce(
    height: Height,
    round: Round,
    pol_round: Option<Round>,
    proposer: AccountId,
    block: Hash,
    bytes: &[u8],
) -> Option<Announcement> {
    let size = u32::try_from(bytes.len()).ok()?;
    Some(Announcement {
        height,
        round,
        pol_round,
        proposer,
        block,
        size,
    })
}
