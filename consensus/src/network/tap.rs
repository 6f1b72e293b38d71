//! Watches what the peers send, in bounded memory.
//!
//! The network's port keeps 128 events for each subscriber, whose task moves them into a mailbox without
//! a bound. [`Tap`] works in that task instead: it updates what is known of the peers, which coalesces, and
//! compares addresses, which costs less than decoding the event did. Only what names our key waits for more,
//! in [`Candidates`]; the mailbox of [`Watch`] holds one message.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_malachitebft_engine::network::{Msg, NetworkEvent, NetworkRef, Subscriber};
use arc_malachitebft_engine::util::output_port::{OutputPort, OutputPortSubscriberTrait};
use arc_malachitebft_sync::{Request, Response, ValueResponse};
use async_trait::async_trait;
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::Height;
use proofmill_signer::{Sighting, Signer as _};
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;

use super::Shared;
use super::candidates::{Candidate, Candidates};
use crate::context::Chain;
use crate::engine::EngineError;
use crate::observer::bytes_of;
use crate::revocable::Revocable;
use crate::sightings::Seen;
use crate::signing::is_valid;

/// Whose messages are recognised.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) chain: Hash,
    pub(crate) signer: Arc<Revocable>,
    /// The height at which the key may have signed what its guard does not have.
    amnesic: Option<Height>,
}

/// Says that candidates wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake;

/// The candidates, and whether a [`Wake`] is under way: no second one is sent meanwhile.
#[derive(Debug, Default)]
struct Waiting {
    candidates: Candidates,
    is_awake: bool,
}

type SharedWaiting = Arc<Mutex<Waiting>>;

fn locked(waiting: &SharedWaiting) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes every event of the network at once. It does not hold the signer: whoever holds that holds the
/// guard as well, and a tap lives as long as the network's port.
#[derive(Clone)]
pub(super) struct Tap {
    key: Option<AccountId>,
    waiting: SharedWaiting,
    shared: Arc<Shared>,
    network: NetworkRef<Chain>,
    watch: ActorRef<Wake>,
}

impl Tap {
    pub(super) async fn start(
        own: Option<Own>,
        shared: Arc<Shared>,
        network: NetworkRef<Chain>,
    ) -> Result<Self, SpawnErr> {
        let key = own.as_ref().map(|own| own.signer.key());
        let waiting = SharedWaiting::default();
        let arguments = Watching {
            own,
            waiting: Arc::clone(&waiting),
            shared: Arc::clone(&shared),
        };
        let (watch, _) = Actor::spawn(None, Watch, arguments).await?;
        Ok(Self {
            key,
            waiting,
            shared,
            network,
            watch,
        })
    }

    /// The actor that verifies.
    pub(super) fn watch(&self) -> ActorRef<Wake> {
        self.watch.clone()
    }

    /// Takes an event in; gives what is to be sent to the actor, if anything.
    fn take_in(&self, event: &NetworkEvent<Chain>) -> Option<Wake> {
        self.note(event);
        let candidate = Candidate::of(event, self.key?)?;
        let mut waiting = locked(&self.waiting);
        waiting.candidates.push(candidate);
        let was_awake = std::mem::replace(&mut waiting.is_awake, true);
        (!was_awake).then_some(Wake)
    }

    /// What an event says of the peers, and the answer to a request that nobody else answers.
    fn note(&self, event: &NetworkEvent<Chain>) {
        let (shared, now) = (&self.shared, Instant::now());
        match event {
            NetworkEvent::PeerConnected(peer) => shared.peers(|peers| peers.connected(*peer, now)),
            NetworkEvent::PeerDisconnected(peer) => shared.peers(|peers| peers.disconnected(peer)),
            NetworkEvent::Status(peer, status) => {
                shared.peers(|peers| peers.reported(*peer, status.tip_height.0, now));
            }
            NetworkEvent::SyncResponse(_, peer, Some(Response::ValueResponse(response))) => {
                if let Some(last) = response.values.last() {
                    let last = last.certificate.height.0;
                    shared.peers(|peers| peers.sent(peer, last, now));
                }
            }
            // Only from here on does a message of ours reach it.
            NetworkEvent::PeerSubscribed(..) => {
                shared.joined.send_replace(());
            }
            NetworkEvent::SyncRequest(id, _, Request::ValueRequest(request))
                if !shared.is_serving.load(Ordering::Relaxed) =>
            {
                let nothing = ValueResponse::new(*request.range.start(), Vec::new());
                let nothing = Response::ValueResponse(nothing);
                // An error means that the network is stopping.
                self.network
                    .cast(Msg::OutgoingResponse(id.clone(), nothing))
                    .ok();
            }
            _ => {}
        }
    }
}

impl Subscriber<NetworkEvent<Chain>> for Tap {
    fn send(&self, event: NetworkEvent<Chain>) {
        if let Some(wake) = self.take_in(&event) {
            // An error means that this network is stopping.
            self.watch.cast(wake).ok();
        }
    }
}

impl OutputPortSubscriberTrait<NetworkEvent<Chain>> for Tap {
    fn subscribe_to_port(&self, port: &OutputPort<NetworkEvent<Chain>>) {
        let tap = self.clone();
        port.subscribe(self.watch(), move |event| tap.take_in(&event));
    }
}

/// Has the engines end; the first reason stays.
pub(crate) fn report(foreign: &watch::Sender<Option<EngineError>>, error: EngineError) {
    foreign.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(error);
        first
    });
}

/// Verifies the candidates, one per message that it gets.
struct Watch;

struct Watching {
    own: Option<Own>,
    waiting: SharedWaiting,
    shared: Arc<Shared>,
}

#[async_trait]
impl Actor for Watch {
    type Msg = Wake;
    type State = Watching;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Wake>,
        state: Self::State,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        wake: Wake,
        watching: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let candidate = {
            let mut waiting = locked(&watching.waiting);
            let candidate = waiting.candidates.pop();
            waiting.is_awake = candidate.is_some();
            candidate
        };
        let Some(candidate) = candidate else {
            return Ok(());
        };
        let foreign = watching.own.as_ref().and_then(|own| own.watch(&candidate));
        if let Some(error) = foreign {
            tracing::error!("{error}");
            report(&watching.shared.foreign, error);
        }
        if let Some(own) = &watching.own
            && let Some(seen) = own.recalls(&candidate)
        {
            let signer = Arc::clone(&own.signer);
            let recall = move || signer.recall(&seen.sighting, seen.signature);
            // It writes the guard. An error means that the runtime is ending.
            tokio::task::spawn_blocking(recall).await.ok();
        }
        // A message of its own for each, so that a stop comes in between.
        // An error means that this actor is stopping.
        myself.cast(wake).ok();
        Ok(())
    }
}

impl Own {
    /// The messages of the signer's key.
    pub(crate) fn new(chain: Hash, signer: Arc<Revocable>) -> Self {
        let amnesic = signer.record().amnesic_height();
        Self {
            chain,
            signer,
            amnesic,
        }
    }

    /// Revokes the signer when a candidate has a message of another process that uses its key; gives what
    /// is to be said then, once.
    pub(super) fn watch(&self, candidate: &Candidate) -> Option<EngineError> {
        if self.signer.is_revoked() {
            return None;
        }
        let what = self.foreign(candidate)?;
        // Before anybody is told: the engines that sign take a while to end.
        self.signer.revoke(format_args!(
            "another process signs with this validator's key: {what}"
        ));
        Some(EngineError::Foreign {
            peer: candidate.peer.to_string(),
            what,
        })
    }

    /// Revokes the signer when a certificate has our key's signature and the guard does not; gives what is
    /// to be said then, once.
    pub(crate) fn compare(&self, certificate: &Certificate) -> Option<EngineError> {
        let me = self.signer.key();
        let mut signatures = certificate.signatures.iter();
        let ours = signatures.find(|signed| signed.validator == me)?;
        let sighting = Sighting::Vote {
            kind: VoteKind::Precommit,
            height: certificate.height,
            round: certificate.round,
            block: Some(certificate.block),
        };
        let what = self.signer.foreign(&sighting)?;
        let bytes = bytes_of(&self.chain, &me, &sighting);
        if self.signer.is_revoked() || !is_valid(&me, &bytes, &ours.signature) {
            return None;
        }
        self.signer.revoke(format_args!(
            "another process signs with this validator's key: {what}"
        ));
        Some(EngineError::OldGuard(format!(
            "the certificate of a committed block has a {what} that it does not hold"
        )))
    }

    /// A message that this key signed at its amnesic height, before its guard was lost, and that the signer
    /// does not know yet.
    pub(super) fn recalls(&self, candidate: &Candidate) -> Option<Seen> {
        let amnesic = self.amnesic?;
        let mut mine = candidate.seen.iter();
        let seen = mine.find(|seen| seen.sighting.place().0 == amnesic)?;
        let record = self.signer.record();
        record.recalling(&seen.sighting, seen.signature)?;
        let me = self.signer.key();
        let bytes = bytes_of(&self.chain, &me, &seen.sighting);
        is_valid(&me, &bytes, &seen.signature).then(|| {
            tracing::warn!(
                "peer {} brings back what this key signed before its guard was lost: {}",
                candidate.peer,
                seen.sighting
            );
            *seen
        })
    }

    /// The first message that is not ours, when its signature is.
    ///
    /// One signature is verified, however many the candidate has: with one that is none, a certificate is
    /// worthless as a whole, and so are the blocks that an answer has above such a certificate.
    fn foreign(&self, candidate: &Candidate) -> Option<String> {
        let me = self.signer.key();
        let (seen, foreign) = candidate.seen.iter().find_map(|seen| {
            let foreign = self.signer.foreign(&seen.sighting)?;
            Some((seen, foreign))
        })?;
        // Only what verifies: nobody else can stop this node with a message.
        let bytes = bytes_of(&self.chain, &me, &seen.sighting);
        is_valid(&me, &bytes, &seen.signature).then(|| foreign.to_string())
    }
}
