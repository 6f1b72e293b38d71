//! Takes what peers bring, batch after batch, until gossip stops.
//!
//! One batch is examined at a time, so that a sender's transactions are taken in the order in which they
//! came; within it signatures are verified together on all threads. Modules are judged beside, one after the
//! other: nothing waits for their verdicts.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::engine::{Ahead, Engine};
use crate::gossip::{Acceptance, Inbox, Incoming};

/// Most messages that are examined together.
const BATCH_MAX: usize = 256;

/// Takes messages until gossip stops, and judges modules ahead of the blocks that bring them.
pub async fn admit_all(engine: Arc<Engine>, mut inbox: Inbox) {
    let (stop, stopped) = oneshot::channel();
    let judging = tokio::spawn(judge_ahead(Arc::clone(&engine), stopped));
    loop {
        let batch = inbox.next_batch(BATCH_MAX).await;
        // There is none when gossip has stopped.
        if batch.is_empty() {
            break;
        }
        let Some(verdicts) = admit(&engine, &batch).await else {
            break;
        };
        for (message, acceptance) in batch.into_iter().zip(verdicts) {
            message.answer(acceptance);
        }
    }
    drop(stop);
    // It died only if judging did, which the log says.
    let _ = judging.await;
}

/// Judges modules whenever there may be some, until `stopped`.
async fn judge_ahead(engine: Arc<Engine>, mut stopped: oneshot::Receiver<()>) {
    let mut ahead = Ahead::default();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            () = engine.modules_changed() => {}
        }
        let engine = Arc::clone(&engine);
        let judged = tokio::task::spawn_blocking(move || {
            ahead.judge(&engine);
            ahead
        });
        match judged.await {
            Ok(judged) => ahead = judged,
            // It panicked, or the node is going: blocks judge their modules themselves.
            Err(_) => return,
        }
    }
}

/// The verdicts on a batch; `None` when the node is going.
async fn admit(engine: &Arc<Engine>, batch: &[Incoming]) -> Option<Vec<Acceptance>> {
    let messages: Vec<_> = batch
        .iter()
        .map(|message| (message.topic, message.bytes.clone()))
        .collect();
    let engine = Arc::clone(engine);
    tokio::task::spawn_blocking(move || engine.admit_gossip(messages))
        .await
        .ok()
}
