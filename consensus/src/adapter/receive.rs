//! Others' proposals: parts in, a judged block out.

use std::sync::Arc;
use std::time::Duration;

use arc_malachitebft_app_channel::Reply;
use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_engine::util::streaming::StreamMessage;
use arc_malachitebft_peer::PeerId;
use proofmill_chain::types::hash::Signature;
use proofmill_chain::types::units::Height;
use tokio::sync::oneshot;

use super::propose::previous;
use super::{Adapter, answer, lock, raise};
use crate::application::Verdict;
use crate::context::Chain;
use crate::signing::{announcement_bytes, is_valid};
use crate::stream::{Announcement, Part, Streams, Whole, stream_of};
use crate::undecided::UndecidedProposal;

/// Heights beyond the next one whose blocks are collected already.
const HEIGHTS_AHEAD_MAX: u64 = 2;
/// Rounds beyond the current one whose blocks are collected already, as far as the engine looks.
const ROUNDS_AHEAD_MAX: u32 = 10;
/// Whole blocks kept for heights that cannot be judged yet.
const EARLY_MAX: usize = 4;
/// How long the engine waits for a judgement; a later one is handed over with the next round.
const JUDGE_WAIT: Duration = Duration::from_secs(3);

/// What to do with an announced block.
enum Admission {
    Collect,
    /// Judged before, in another round: no bytes are needed.
    Judged(bool),
    Refuse(&'static str),
}

impl Adapter {
    /// Takes a part; answers with the proposal when it is whole and judged.
    pub(super) fn receive(
        self: Arc<Self>,
        streams: &mut Streams,
        publisher: PeerId,
        message: StreamMessage<Part>,
        reply: Reply<Option<ProposedValue<Chain>>>,
    ) {
        if let Some(Part::Init(announcement, signature)) = message.content.as_data()
            && let Ok(stream) = stream_of(&message)
        {
            let value = match self.admit(announcement, signature) {
                Admission::Collect => None,
                Admission::Judged(valid) => {
                    let height = announcement.height;
                    let mut proposals = lock(&self.proposals);
                    Some(Some(proposals.repeat(
                        height,
                        announcement,
                        valid,
                        *signature,
                    )))
                }
                Admission::Refuse(reason) => {
                    tracing::debug!(%publisher, ?announcement, reason, "block refused");
                    Some(None)
                }
            };
            if let Some(value) = value {
                streams.close((publisher, stream));
                answer(reply, value);
                return;
            }
        }
        match streams.insert(publisher, message) {
            Ok(None) => answer(reply, None),
            Ok(Some(whole)) => self.whole(whole, reply),
            Err(error) => {
                tracing::debug!(%publisher, %error, "part refused");
                answer(reply, None);
            }
        }
    }

    fn admit(&self, announcement: &Announcement, signature: &Signature) -> Admission {
        let Announcement {
            height,
            round,
            proposer,
            block,
            size,
            ..
        } = *announcement;
        if size == 0 || size as usize > self.block_bytes_max {
            return Admission::Refuse("size");
        }
        let decided = *self.decided.borrow();
        if height <= decided {
            return Admission::Refuse("height is decided");
        }
        if height.since(decided) > 1 + HEIGHTS_AHEAD_MAX {
            return Admission::Refuse("height is far ahead");
        }
        let (at, current) = *self.position.borrow();
        let current = if at == height { current.get() } else { 0 };
        if round.get() > current.saturating_add(ROUNDS_AHEAD_MAX) {
            return Admission::Refuse("round is far ahead");
        }
        if !self.may_propose(announcement) {
            return Admission::Refuse("not the proposer");
        }
        let message = announcement_bytes(&self.chain, announcement);
        if !is_valid(&proposer, &message, signature) {
            return Admission::Refuse("signature");
        }
        raise(&self.announced, height);
        let proposals = lock(&self.proposals);
        if !proposals.has_room(height, round, &proposer, &block) {
            return Admission::Refuse("too many blocks in one round");
        }
        match proposals.verdict(height, &block) {
            Some(valid) => Admission::Judged(valid),
            None => Admission::Collect,
        }
    }

    /// Whether it is the proposer's turn; as long as the height's validators are unknown, whether
    /// it is one of the latest validators.
    fn may_propose(&self, announcement: &Announcement) -> bool {
        let sets = lock(&self.sets);
        match sets.get(&announcement.height) {
            Some(set) => {
                let expected = set.proposer(announcement.height, announcement.round);
                expected.key == announcement.proposer
            }
            None => sets
                .last_key_value()
                .is_some_and(|(_, set)| set.by_key(&announcement.proposer).is_some()),
        }
    }

    fn whole(self: &Arc<Self>, whole: Whole, reply: Reply<Option<ProposedValue<Chain>>>) {
        let decided = *self.decided.borrow();
        if whole.announcement.height > decided.next() {
            // Judging it would wait for a decision that reaches us only after this answer.
            let mut early = lock(&self.early);
            if early.len() == EARLY_MAX {
                early.remove(0);
            }
            early.push(whole);
            answer(reply, None);
            return;
        }
        let (judged, judgement) = oneshot::channel();
        let this = Arc::clone(self);
        self.spawn(async move {
            let value = this.judge(whole).await;
            answer(judged, value);
        });
        let this = Arc::clone(self);
        self.spawn(async move {
            let value = tokio::time::timeout(JUDGE_WAIT, judgement).await;
            let value = value.ok().and_then(Result::ok).flatten();
            if let Some(value) = &value {
                lock(&this.proposals).delivered(value);
            }
            answer(reply, value);
        });
    }

    /// Judges the early blocks of a height whose parent is now committed.
    pub(super) fn judge_early(self: &Arc<Self>, height: Height) {
        let mut early = lock(&self.early);
        early.retain(|whole| whole.announcement.height >= height);
        let (now, later) = early
            .drain(..)
            .partition(|whole| whole.announcement.height == height);
        *early = later;
        drop(early);
        let now: Vec<Whole> = now;
        for whole in now {
            self.judging.send_modify(|count| *count += 1);
            let this = Arc::clone(self);
            self.spawn(async move {
                this.judge(whole).await;
                this.judging.send_modify(|count| *count -= 1);
            });
        }
    }

    /// Judges a block on top of its committed parent and stores it with the verdict.
    async fn judge(&self, whole: Whole) -> Option<ProposedValue<Chain>> {
        let Whole {
            announcement,
            signature,
            bytes,
        } = whole;
        let height = announcement.height;
        let round = announcement.round;
        if !self.until_committed(previous(height)).await || *self.committed.borrow() >= height {
            return None;
        }
        // Exact now, as the parent is committed.
        if !self.may_propose(&announcement) {
            return None;
        }
        let valid = match self.app.validate(height, round, Arc::clone(&bytes)).await {
            Verdict::Valid { hash } => hash == announcement.block,
            Verdict::Invalid { reason } => {
                let proposer = announcement.proposer;
                tracing::warn!(%height, %round, %proposer, reason, "invalid block");
                false
            }
            Verdict::Failed { reason } => {
                tracing::error!(%height, %round, reason, "a block could not be judged");
                return None;
            }
        };
        self.store(UndecidedProposal {
            height,
            round,
            pol_round: announcement.pol_round,
            proposer: announcement.proposer,
            hash: announcement.block,
            bytes,
            valid,
            signature: Some(signature),
        })
        .await?;
        lock(&self.proposals)
            .proposed(height, round, &announcement.proposer, &announcement.block)
            .map(|known| known.value(height))
    }
}
