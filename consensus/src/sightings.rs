//! The signed messages in what a network delivers, alone or in certificates.

use std::iter;

use arc_malachitebft_core_types::{NilOrVal, VoteType};
use arc_malachitebft_engine::network::NetworkEvent;
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_sync::Response;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::Round;
use proofmill_signer::Sighting;

use crate::context::{self, Chain, round_of};
use crate::signing::kind_of;

/// A message, whom it names as its signer, and the signature that it carries, not verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) key: AccountId,
    pub(crate) sighting: Sighting,
    pub(crate) signature: Signature,
}

fn block_of(value: &NilOrVal<Hash>) -> Option<Hash> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(hash) => Some(*hash),
    }
}

fn vote(
    kind: VoteType,
    height: context::Height,
    round: arc_malachitebft_core_types::Round,
    block: Option<Hash>,
) -> Sighting {
    Sighting::Vote {
        kind: kind_of(kind),
        height: height.0,
        round: round_of(round),
        block,
    }
}

fn seen(key: &context::Address, sighting: Sighting, signature: &Signature) -> Seen {
    Seen {
        key: key.0,
        sighting,
        signature: *signature,
    }
}

/// Messages that are taken from an event one by one: a stranger may put thousands into one.
pub(crate) type Sightings<'a> = Box<dyn Iterator<Item = Seen> + 'a>;

fn boxed<'a>(all: impl Iterator<Item = Seen> + 'a) -> Sightings<'a> {
    Box::new(all)
}

/// The votes and proposals of an event, and the peer that sent it; `None` when it has none.
pub(crate) fn sightings(event: &NetworkEvent<Chain>) -> Option<(PeerId, Sightings<'_>)> {
    let (peer, all) = match event {
        NetworkEvent::Vote(peer, signed) => {
            let block = block_of(&signed.value);
            let sighting = vote(signed.kind, signed.height, signed.round, block);
            let one = seen(&signed.voter, sighting, &signed.signature);
            (peer, boxed(iter::once(one)))
        }
        NetworkEvent::Proposal(peer, signed) => {
            let sighting = Sighting::Proposal {
                height: signed.height.0,
                round: round_of(signed.round),
                pol_round: signed.pol_round.as_u32().map(Round::new),
                block: signed.value.0,
            };
            let one = seen(&signed.proposer, sighting, &signed.signature);
            (peer, boxed(iter::once(one)))
        }
        NetworkEvent::PolkaCertificate(peer, polka) => {
            let block = Some(polka.value_id);
            let sighting = vote(VoteType::Prevote, polka.height, polka.round, block);
            let all = polka.polka_signatures.iter();
            let all = all.map(move |signed| seen(&signed.address, sighting, &signed.signature));
            (peer, boxed(all))
        }
        NetworkEvent::RoundCertificate(peer, round) => {
            let all = round.round_signatures.iter().map(move |signed| {
                let block = block_of(&signed.value_id);
                let sighting = vote(signed.vote_type, round.height, round.round, block);
                seen(&signed.address, sighting, &signed.signature)
            });
            (peer, boxed(all))
        }
        NetworkEvent::SyncResponse(_, peer, Some(Response::ValueResponse(response))) => {
            let all = response.values.iter().flat_map(|value| {
                let decided = &value.certificate;
                let block = Some(decided.value_id);
                let sighting = vote(VoteType::Precommit, decided.height, decided.round, block);
                let all = decided.commit_signatures.iter();
                all.map(move |signed| seen(&signed.address, sighting, &signed.signature))
            });
            (peer, boxed(all))
        }
        _ => return None,
    };
    Some((*peer, all))
}

/// Those messages of an event that name `key` as their signer, one of each height: a certificate is
/// of one height and names nobody twice, the blocks of an answer are of one height each, and whoever
/// relays the event knows that.
pub(crate) fn sightings_of(
    event: &NetworkEvent<Chain>,
    key: AccountId,
) -> Option<(PeerId, Sightings<'_>)> {
    let (peer, all) = sightings(event)?;
    let mut last = None;
    let first = all.filter(move |seen| {
        let (height, _) = seen.sighting.place();
        seen.key == key && last.replace(height) != Some(height)
    });
    Some((peer, boxed(first)))
}
