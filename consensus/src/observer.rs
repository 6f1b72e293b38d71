//! Listens to a network's signed messages without taking part in it.

use arc_malachitebft_app_channel::NetworkIdentity;
use arc_malachitebft_app_channel::app::config::NodeConfig as _;
use arc_malachitebft_app_channel::app::metrics::SharedRegistry;
use arc_malachitebft_app_channel::spawn::spawn_network_actor;
use arc_malachitebft_engine::network::{Msg, NetworkEvent, NetworkRef, Status};
use async_trait::async_trait;
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::Height;
use proofmill_signer::{Proposal, Sighting, Vote, proposal_bytes, vote_bytes};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use crate::codec::WireCodec;
use crate::context::{self, Chain};
use crate::core::{Part, announcement_bytes};
use crate::engine::{EngineError, NetworkConfig, keypair, node_of};
use crate::sightings::{Seen, sightings};
use crate::signing::is_valid;

/// The kinds of message that a validator signs for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObservedKind {
    /// The announcement of a block's parts.
    Announcement,
    /// A proposal.
    Proposal,
    /// A prevote.
    Prevote,
    /// A precommit.
    Precommit,
}

/// A message that some peer delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its kind.
    pub kind: ObservedKind,
    /// The key that it names as its signer.
    pub key: AccountId,
    /// Its height.
    pub height: u64,
    /// Its round.
    pub round: u32,
    /// The block or nil.
    pub block: Option<Hash>,
    /// Whether its signature is that key's.
    pub is_signed: bool,
}

/// A listening peer.
pub struct Observer {
    network: NetworkRef<Chain>,
    listening: ActorRef<Event>,
}

impl Observer {
    /// Listens on an address, dials peers, and passes on what they deliver of the chain whose genesis
    /// hash is `chain`.
    ///
    /// # Errors
    /// When the configuration cannot be used or nothing can listen on the address.
    pub async fn start(
        config: &NetworkConfig,
        chain: Hash,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Observed>), EngineError> {
        let start = |error: &dyn std::fmt::Display| EngineError::Start(error.to_string());
        let node = node_of(config)?;
        let (network, _) = spawn_network_actor(
            NetworkIdentity::new(config.moniker.clone(), keypair(&config.network_seed), None),
            node.consensus(),
            node.value_sync(),
            &SharedRegistry::global().with_moniker(&config.moniker),
            WireCodec,
        )
        .await
        .map_err(|error| start(&error))?;
        let (sender, observed) = mpsc::unbounded_channel();
        let heard = Heard {
            chain,
            sender,
            network: network.clone(),
            highest: 0,
        };
        let (listening, _) = Actor::spawn(None, Listening, heard)
            .await
            .map_err(|error| start(&error))?;
        network
            .cast(Msg::Subscribe(Box::new(listening.clone())))
            .map_err(|error| start(&error))?;
        Ok((Self { network, listening }, observed))
    }

    /// Stops to listen.
    pub async fn stop(self) {
        self.listening.stop(None);
        // Whatever it does, it has no state to lose.
        let _ = self.network.stop_and_wait(None, None).await;
    }
}

/// An event of the network, as a listening actor gets it.
#[derive(Debug)]
pub(crate) struct Event(pub(crate) NetworkEvent<Chain>);

impl From<NetworkEvent<Chain>> for Event {
    fn from(event: NetworkEvent<Chain>) -> Self {
        Self(event)
    }
}

struct Listening;

struct Heard {
    chain: Hash,
    sender: mpsc::UnboundedSender<Observed>,
    network: NetworkRef<Chain>,
    /// The highest height at which a key signed.
    highest: u64,
}

impl Heard {
    fn pass_on(&mut self, observed: Observed) {
        if observed.is_signed {
            self.highest = self.highest.max(observed.height);
        }
        // An error means that nobody listens any more.
        self.sender.send(observed).ok();
    }

    /// Tells a peer that has come which height somebody has committed, as every peer does: a validator
    /// waits for that before it signs. It has no blocks to offer.
    fn report(&self) {
        if let Some(committed) = self.highest.checked_sub(1) {
            let (tip, next) = (Height::new(committed), Height::new(self.highest));
            let status = Status::new(context::Height(tip), context::Height(next));
            // An error means that the network is stopping.
            self.network.cast(Msg::BroadcastStatus(status)).ok();
        }
    }
}

#[async_trait]
impl Actor for Listening {
    type Msg = Event;
    type State = Heard;
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _: ActorRef<Event>,
        heard: Heard,
    ) -> Result<Heard, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(
        &self,
        _: ActorRef<Event>,
        Event(event): Event,
        heard: &mut Heard,
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, NetworkEvent::PeerSubscribed(..)) {
            heard.report();
        }
        let chain = heard.chain;
        if let NetworkEvent::ProposalPart(_, _, message) = &event
            && let Some(Part::Init(announcement, signature, _)) = message.content.as_data()
        {
            let bytes = announcement_bytes(&chain, announcement);
            let observed = Observed {
                kind: ObservedKind::Announcement,
                key: announcement.proposer,
                height: announcement.height.get(),
                round: announcement.round.get(),
                block: Some(announcement.block),
                is_signed: is_valid(&announcement.proposer, &bytes, signature),
            };
            heard.pass_on(observed);
        }
        for seen in sightings(&event).into_iter().flat_map(|(_, seen)| seen) {
            heard.pass_on(observed(&chain, &seen));
        }
        Ok(())
    }
}

/// The bytes that the signature of a message under `key` covers.
pub(crate) fn bytes_of(chain: &Hash, key: &AccountId, sighting: &Sighting) -> Vec<u8> {
    match *sighting {
        Sighting::Proposal {
            height,
            round,
            pol_round,
            block,
        } => {
            let proposal = Proposal {
                height,
                round,
                pol_round,
                block,
            };
            proposal_bytes(chain, key, &proposal)
        }
        Sighting::Vote {
            kind,
            height,
            round,
            block,
        } => {
            let vote = Vote {
                kind,
                height,
                round,
                block,
            };
            vote_bytes(chain, key, &vote)
        }
    }
}

fn observed(chain: &Hash, seen: &Seen) -> Observed {
    let Seen {
        key,
        sighting,
        signature,
    } = seen;
    let (kind, height, round, block) = match *sighting {
        Sighting::Proposal {
            height,
            round,
            block,
            ..
        } => (ObservedKind::Proposal, height, round, Some(block)),
        Sighting::Vote {
            kind,
            height,
            round,
            block,
        } => {
            let kind = match kind {
                VoteKind::Prevote => ObservedKind::Prevote,
                VoteKind::Precommit => ObservedKind::Precommit,
            };
            (kind, height, round, block)
        }
    };
    Observed {
        kind,
        key: *key,
        height: height.get(),
        round: round.get(),
        block,
        is_signed: is_signed(chain, key, sighting, signature),
    }
}

fn is_signed(chain: &Hash, key: &AccountId, sighting: &Sighting, signature: &Signature) -> bool {
    is_valid(key, &bytes_of(chain, key, sighting), signature)
}
