use std::fmt::Debug;

use arc_malachitebft_core_types::{
    NilOrVal, PolkaSignature, Round, RoundCertificate, RoundCertificateType, RoundSignature,
    SignedMessage, Validity, VoteType,
};
use arc_malachitebft_engine::util::streaming::{StreamContent, StreamId};
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_sync::{ValueRequest, ValueResponse};
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::context::{Address, Height, Proposal, Value, Vote};
use crate::core::{Announcement, PARTS_MAX};
use crate::undecided::UndecidedProposal;
use crate::wire::decided as decided_value;

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::new)
}

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 32]>().prop_map(|key| Address(AccountId::new(key)))
}

fn signature() -> impl Strategy<Value = Signature> {
    vec(any::<u8>(), 64).prop_map(|bytes| Signature::new(bytes.try_into().expect("64 bytes")))
}

fn height() -> impl Strategy<Value = Height> {
    any::<u64>().prop_map(|height| Height(units::Height::new(height)))
}

fn round() -> impl Strategy<Value = Round> {
    (0..=1_u32 << 24).prop_map(Round::new)
}

fn round_or_nil() -> impl Strategy<Value = Round> {
    prop_oneof![Just(Round::Nil), round()]
}

fn value() -> impl Strategy<Value = NilOrVal<Hash>> {
    prop_oneof![Just(NilOrVal::Nil), hash().prop_map(NilOrVal::Val)]
}

fn kind() -> impl Strategy<Value = VoteType> {
    prop_oneof![Just(VoteType::Prevote), Just(VoteType::Precommit)]
}

prop_compose! {
    fn vote()(
        kind in kind(),
        height in height(),
        round in round(),
        value in value(),
        voter in address(),
        signature in signature(),
    ) -> SignedMessage<Chain, Vote> {
        SignedMessage::new(Vote { kind, height, round, value, voter }, signature)
    }
}

prop_compose! {
    fn proposal()(
        height in height(),
        round in round(),
        value in hash(),
        pol_round in round_or_nil(),
        proposer in address(),
        signature in signature(),
    ) -> SignedMessage<Chain, Proposal> {
        let value = Value(value);
        SignedMessage::new(Proposal { height, round, value, pol_round, proposer }, signature)
    }
}

prop_compose! {
    fn polka()(
        height in height(),
        round in round(),
        value_id in hash(),
        votes in vec((address(), signature()), 0..20),
    ) -> PolkaCertificate<Chain> {
        let votes = votes.into_iter().map(|(voter, signed)| PolkaSignature::new(voter, signed));
        PolkaCertificate { height, round, value_id, polka_signatures: votes.collect() }
    }
}

prop_compose! {
    fn round_certificate()(
        height in height(),
        round in round(),
        skip in any::<bool>(),
        votes in vec((kind(), value(), address(), signature()), 0..20),
    ) -> RoundCertificate<Chain> {
        let cert_type = if skip {
            RoundCertificateType::Skip
        } else {
            RoundCertificateType::Precommit
        };
        let votes = votes
            .into_iter()
            .map(|(kind, value, voter, signed)| RoundSignature::new(kind, value, voter, signed));
        RoundCertificate { height, round, cert_type, round_signatures: votes.collect() }
    }
}

prop_compose! {
    fn part()(
        height in any::<u64>(),
        round in 0..=1_u32 << 24,
        pol_round in proptest::option::of(0..=1_u32 << 24),
        proposer in any::<[u8; 32]>(),
        block in hash(),
        (size, parts) in (any::<u32>(), hash()),
        signature in signature(),
        hashes in vec(hash(), 0..=PARTS_MAX),
        data in proptest::option::of(vec(any::<u8>(), 0..300)),
    ) -> Part {
        match data {
            Some(bytes) => Part::Data(bytes.into()),
            None => Part::Init(
                Announcement {
                    height: units::Height::new(height),
                    round: units::Round::new(round),
                    pol_round: pol_round.map(units::Round::new),
                    proposer: AccountId::new(proposer),
                    block,
                    size,
                    parts,
                },
                signature,
                hashes,
            ),
        }
    }
}

prop_compose! {
    fn certificate()(
        height in any::<u64>(),
        round in 0..=1_u32 << 24,
        block in hash(),
        votes in vec((address(), signature()), 0..20),
    ) -> Certificate {
        let mut signatures: Vec<_> = votes
            .into_iter()
            .map(|(voter, signature)| CommitSignature { validator: voter.0, signature })
            .collect();
        signatures.sort_unstable_by_key(|signed| signed.validator);
        Certificate {
            height: units::Height::new(height),
            round: units::Round::new(round),
            block,
            signatures,
        }
    }
}

fn survives<T: Debug + PartialEq>(message: &T) -> Result<(), TestCaseError>
where
    WireCodec: Codec<T, Error = WireError>,
{
    let bytes = WireCodec.encode(message).expect("encodes");
    let decoded: T = WireCodec.decode(bytes.clone()).expect("decodes");
    prop_assert_eq!(&decoded, message);
    let mut longer = bytes.to_vec();
    longer.push(0);
    prop_assert!(WireCodec.decode(longer.into()).is_err());
    prop_assert!(WireCodec.decode(bytes.slice(..bytes.len() - 1)).is_err());
    Ok(())
}

/// What decodes must encode to the same bytes; nothing may panic.
fn is_safe<T>(bytes: &Bytes) -> Result<(), TestCaseError>
where
    WireCodec: Codec<T, Error = WireError>,
{
    if let Ok(message) = Codec::<T>::decode(&WireCodec, bytes.clone()) {
        prop_assert_eq!(&WireCodec.encode(&message).expect("it decoded"), bytes);
    }
    Ok(())
}

fn all_are_safe(bytes: &Bytes) -> Result<(), TestCaseError> {
    is_safe::<SignedConsensusMsg<Chain>>(bytes)?;
    is_safe::<LivenessMsg<Chain>>(bytes)?;
    is_safe::<PolkaCertificate<Chain>>(bytes)?;
    is_safe::<Part>(bytes)?;
    is_safe::<StreamMessage<Part>>(bytes)?;
    is_safe::<ProposedValue<Chain>>(bytes)?;
    is_safe::<ValidatorProof<Chain>>(bytes)?;
    is_safe::<Status<Chain>>(bytes)?;
    is_safe::<Request<Chain>>(bytes)?;
    is_safe::<Response<Chain>>(bytes)?;
    if let Ok(proposal) = UndecidedProposal::decode(bytes) {
        prop_assert_eq!(proposal.encode(), bytes.to_vec());
    }
    Ok(())
}

proptest! {
    #[test]
    fn votes_and_proposals_survive(vote in vote(), proposal in proposal()) {
        survives(&SignedConsensusMsg::Vote(vote.clone()))?;
        survives(&SignedConsensusMsg::Proposal(proposal))?;
        survives(&LivenessMsg::Vote(vote))?;
    }

    #[test]
    fn certificates_survive(polka in polka(), round in round_certificate()) {
        survives(&polka)?;
        survives(&LivenessMsg::PolkaCertificate(polka))?;
        survives(&LivenessMsg::SkipRoundCertificate(round))?;
    }

    #[test]
    fn parts_survive(part in part(), stream in any::<[u8; 32]>(), sequence in any::<u64>()) {
        survives(&part)?;
        let stream = StreamId::new(Bytes::copy_from_slice(&stream));
        survives(&StreamMessage::new(stream.clone(), sequence, StreamContent::Data(part)))?;
        survives(&StreamMessage::<Part>::new(stream, sequence, StreamContent::Fin))?;
    }

    #[test]
    fn stored_values_survive(
        proposal in proposal(),
        valid in any::<bool>(),
        bytes in vec(any::<u8>(), 1..300),
    ) {
        survives(&ProposedValue::<Chain> {
            height: proposal.height,
            round: proposal.round,
            valid_round: proposal.pol_round,
            proposer: proposal.proposer,
            value: proposal.value,
            validity: Validity::from_bool(valid),
        })?;
        let undecided = UndecidedProposal {
            height: proposal.height.0,
            round: units::Round::new(proposal.round.as_u32().expect("defined")),
            pol_round: proposal.pol_round.as_u32().map(units::Round::new),
            proposer: proposal.proposer.0,
            hash: proposal.value.0,
            bytes: bytes.into(),
            valid,
            signature: valid.then_some(proposal.signature),
        };
        prop_assert_eq!(UndecidedProposal::decode(&undecided.encode()), Ok(undecided));
    }

    #[test]
    fn sync_messages_survive(
        key in any::<[u8; 32]>(),
        signature in signature(),
        first in height(),
        last in height(),
        decided in vec((certificate(), vec(any::<u8>(), 0..300)), 0..5),
    ) {
        let mut peer = vec![0x12, 32];
        peer.extend(key);
        survives(&ValidatorProof::new(key.to_vec(), peer.clone(), signature))?;
        let peer_id = PeerId::from_bytes(&peer).expect("a SHA-256 multihash");
        survives(&Status::<Chain> { peer_id, tip_height: last, history_min_height: first })?;
        survives(&Request::<Chain>::ValueRequest(ValueRequest::new(first..=last)))?;
        let values = decided
            .iter()
            .map(|(certificate, block)| {
                decided_value(certificate, block)
            })
            .collect();
        let response = Response::<Chain>::ValueResponse(ValueResponse::new(first, values));
        survives(&response)?;
        let length = WireCodec.encoded_len(&response).expect("encodes");
        prop_assert_eq!(length, WireCodec.encode(&response).expect("encodes").len());
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        all_are_safe(&bytes.into())?;
    }

    #[test]
    fn damaged_messages_never_panic(
        polka in polka(),
        part in part(),
        certificate in certificate(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let value = decided_value(&certificate, b"block");
        let first = Height(certificate.height);
        let response = ValueResponse::new(first, vec![value]);
        let messages = [
            WireCodec.encode(&LivenessMsg::PolkaCertificate(polka)),
            WireCodec.encode(&part),
            WireCodec.encode(&Response::<Chain>::ValueResponse(response)),
        ];
        for message in messages {
            let mut bytes = message.expect("encodes").to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            all_are_safe(&bytes.into())?;
        }
    }
}

#[test]
fn more_signatures_than_validators_are_refused() {
    let signed = PolkaSignature::new(Address(AccountId::new([1; 32])), Signature::new([2; 64]));
    let polka = PolkaCertificate::<Chain> {
        height: Height::default(),
        round: Round::ZERO,
        value_id: Hash::ZERO,
        polka_signatures: vec![signed; 257],
    };
    let bytes = WireCodec.encode(&polka).expect("encodes");
    let refused = Codec::<PolkaCertificate<Chain>>::decode(&WireCodec, bytes);
    assert!(matches!(
        refused,
        Err(WireError::TooMany { given: 257, .. })
    ));
}

#[test]
fn more_parts_than_a_block_has_are_refused() {
    let init = |count| {
        let announcement = Announcement {
            height: units::Height::new(1),
            round: units::Round::new(u32::MAX >> 8),
            pol_round: Some(units::Round::new(0)),
            proposer: AccountId::new([1; 32]),
            block: Hash::ZERO,
            size: u32::MAX,
            parts: Hash::ZERO,
        };
        let part = Part::Init(
            announcement,
            Signature::new([2; 64]),
            vec![Hash::ZERO; count],
        );
        WireCodec.encode(&part).expect("encodes")
    };
    let most = init(PARTS_MAX);
    assert!(most.len() <= 1_300, "{} bytes", most.len());
    assert!(Codec::<Part>::decode(&WireCodec, most).is_ok());
    let refused = Codec::<Part>::decode(&WireCodec, init(PARTS_MAX + 1));
    assert!(matches!(refused, Err(WireError::TooMany { given: 33, .. })));
}

#[test]
fn a_round_that_cannot_be_is_refused() {
    let vote = Vote {
        kind: VoteType::Prevote,
        height: Height::default(),
        round: Round::new(u32::MAX),
        value: NilOrVal::Nil,
        voter: Address(AccountId::new([1; 32])),
    };
    let vote = SignedMessage::new(vote, Signature::new([2; 64]));
    let bytes = WireCodec
        .encode(&SignedConsensusMsg::Vote(vote))
        .expect("encodes");
    let refused = Codec::<SignedConsensusMsg<Chain>>::decode(&WireCodec, bytes);
    assert_eq!(refused, Err(WireError::Round(u32::MAX)));
}
