//! Takes what peers bring, batch after batch, until gossip stops.
//!
//! One batch is judged at a time, so that a sender's transactions are judged in the order in which they
//! came; within it signatures are verified together on all threads. Modules are judged beside, and what
//! follows one of the same sender is kept until its verdict is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::types::hash::AccountId;
use tokio::sync::mpsc;

use crate::engine::{Engine, GossipVerdict, MODULES_WAITING_MAX};
use crate::gossip::{Acceptance, Inbox, Incoming};

/// Most messages that are judged together.
const BATCH_MAX: usize = 256;
/// Most messages of one sender that are kept behind its module.
const BEHIND_MAX: usize = 16;

/// Messages that follow a transaction whose module is being judged.
type Behind = BTreeMap<AccountId, Vec<Incoming>>;

/// Judges messages until gossip stops.
pub async fn admit_all(engine: Arc<Engine>, mut inbox: Inbox) {
    // Each module that is being judged reports once.
    let (judged, mut reports) = mpsc::channel::<AccountId>(MODULES_WAITING_MAX);
    let mut behind = Behind::new();
    loop {
        let batch = tokio::select! {
            batch = inbox.next_batch(BATCH_MAX) => batch,
            Some(sender) = reports.recv() => behind.remove(&sender).unwrap_or_default(),
        };
        if batch.is_empty() {
            if inbox.is_closed() {
                break;
            }
            continue;
        }
        let Some(verdicts) = judge(&engine, &batch).await else {
            break;
        };
        for (message, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                GossipVerdict::Done(acceptance) => message.answer(acceptance),
                GossipVerdict::Behind(sender) => {
                    let kept = behind.entry(sender).or_default();
                    if kept.len() < BEHIND_MAX {
                        kept.push(message);
                    } else {
                        message.answer(Acceptance::Ignore);
                    }
                }
                GossipVerdict::Module(pending) => {
                    let (engine, judged) = (Arc::clone(&engine), judged.clone());
                    tokio::spawn(async move {
                        let sender = pending.sender();
                        let work = move || engine.admit_module(pending);
                        let acceptance = tokio::task::spawn_blocking(work).await;
                        message.answer(acceptance.unwrap_or(Acceptance::Ignore));
                        // The loop is gone when the node stops.
                        let _ = judged.send(sender).await;
                    });
                }
            }
        }
    }
    engine.stop_admission();
}

/// The verdicts on a batch; `None` when the node is going.
async fn judge(engine: &Arc<Engine>, batch: &[Incoming]) -> Option<Vec<GossipVerdict>> {
    let messages: Vec<_> = batch
        .iter()
        .map(|message| (message.topic, message.bytes.clone()))
        .collect();
    let engine = Arc::clone(engine);
    tokio::task::spawn_blocking(move || engine.admit_gossip(messages))
        .await
        .ok()
}
