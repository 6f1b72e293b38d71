//! Parts of blocks take the same way out as everything else that is signed.

use std::sync::Arc;

use arc_malachitebft_app_channel::NetworkMsg;
use arc_malachitebft_engine::network::{Msg, Status};
use arc_malachitebft_engine::util::streaming::{StreamContent, StreamId, StreamMessage};
use async_trait::async_trait;
use bytes::Bytes;
use proofmill_chain::types::units::Height;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use super::super::outgoing;
use super::{local, own};
use crate::context::{self, Chain};
use crate::core::Part;

/// A network that only keeps what it is given.
struct Kept;

#[async_trait]
impl Actor for Kept {
    type Msg = Msg<Chain>;
    type State = mpsc::UnboundedSender<Msg<Chain>>;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Msg<Chain>>,
        kept: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(kept)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg<Chain>>,
        message: Msg<Chain>,
        kept: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        kept.send(message).ok();
        Ok(())
    }
}

fn part(sequence: u64) -> NetworkMsg<Chain> {
    let data = Part::Data(Bytes::new());
    let stream = StreamId::new(Bytes::new());
    let message = StreamMessage::new(stream, sequence, StreamContent::Data(data));
    NetworkMsg::PublishProposalPart(message)
}

#[tokio::test]
async fn no_part_leaves_once_the_signer_is_revoked() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    let (sender, mut kept) = mpsc::unbounded_channel();
    let (network, _) = Actor::spawn(None, Kept, sender).await.expect("an actor");
    let built = outgoing(network.clone(), Some(Arc::clone(&own.signer))).await;
    let (engine, publish) = built.expect("an actor");
    publish.send(part(0)).await.expect("it is taken");
    let first = kept.recv().await.expect("it leaves");
    assert!(matches!(first, Msg::PublishProposalPart(_)), "a part");

    own.signer.revoke("a test");
    // A part is taken when the one before it has gone on: at the end the first has.
    for sequence in 1..=3 {
        publish.send(part(sequence)).await.expect("it is taken");
    }
    let height = context::Height(Height::new(1));
    let status = Msg::BroadcastStatus(Status::new(height, height));
    engine.cast(status).expect("the actor runs");
    let next = kept.recv().await.expect("it leaves");
    assert!(matches!(next, Msg::BroadcastStatus(_)), "not signed");
    engine.stop(None);
    network.stop(None);
}
