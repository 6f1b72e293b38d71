//! What a node does from the moment on at which another process is heard to sign with its key.

mod flood;
mod idle;
mod parts;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use arc_malachitebft_core_types::{
    ExtendedCommitCertificate, ExtendedCommitSignature, NilOrVal, Round as EngineRound,
    RoundCertificate, RoundCertificateType, RoundSignature, SignedMessage, VoteType,
};
use arc_malachitebft_engine::network::NetworkEvent;
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_signing::Signer as _;
use arc_malachitebft_sync::{OutboundRequestId, RawDecidedValue, Response, ValueResponse};
use bytes::Bytes;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::{Certificate, CommitSignature, Header};
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{
    Announcement, BeaconInput, GuardFile, LocalSigner, PeerProof, Proposal, Record, Sighting,
    SignError, Signed, Signer, Vote, vote_bytes,
};
use tokio::sync::watch as channels;

use super::Own;
use super::candidates::Candidate;
use crate::context::{self, Address, Chain};
use crate::engine::EngineError;
use crate::revocable::Revocable;
use crate::signing::{EngineSigner, UNSIGNED};

const CHAIN: Hash = Hash::new([7; 32]);

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn vote(height: u64, block: Option<Hash>) -> Vote {
    Vote {
        kind: VoteKind::Prevote,
        height: Height::new(height),
        round: Round::new(0),
        block,
    }
}

fn engines(vote: &Vote) -> context::Vote {
    context::Vote {
        kind: VoteType::Prevote,
        height: context::Height(vote.height),
        round: EngineRound::new(vote.round.get()),
        value: vote.block.map_or(NilOrVal::Nil, NilOrVal::Val),
        voter: Address(key().public()),
    }
}

fn peer() -> PeerId {
    PeerId::from_bytes(&[0, 2, 7, 7]).expect("a short identity")
}

/// Our signature of a vote, or one that is made up.
fn signature(vote: &Vote, signed: bool) -> Signature {
    if signed {
        key().sign(&vote_bytes(&CHAIN, &key().public(), vote))
    } else {
        Signature::new([9; 64])
    }
}

/// A vote under our key, as a peer delivers it.
fn heard(vote: &Vote, signed: bool) -> NetworkEvent<Chain> {
    let signed = SignedMessage::new(engines(vote), signature(vote, signed));
    NetworkEvent::Vote(peer(), signed)
}

/// A certificate of nil prevotes of height 5, by the keys and with the signatures given.
fn certified(votes: impl IntoIterator<Item = (AccountId, Signature)>) -> NetworkEvent<Chain> {
    let votes = votes.into_iter().map(|(key, signature)| {
        RoundSignature::new(VoteType::Prevote, NilOrVal::Nil, Address(key), signature)
    });
    let certificate = RoundCertificate {
        height: context::Height(Height::new(5)),
        round: EngineRound::new(0),
        cert_type: RoundCertificateType::Skip,
        round_signatures: votes.collect(),
    };
    NetworkEvent::RoundCertificate(peer(), certificate)
}

/// An answer with a block of each height, whose certificate has our precommit, signed or made up.
fn answer(blocks: impl IntoIterator<Item = (u64, bool)>) -> NetworkEvent<Chain> {
    let values = blocks.into_iter().map(|(height, signed)| {
        let block = Hash::new([3; 32]);
        let vote = Vote {
            kind: VoteKind::Precommit,
            ..vote(height, Some(block))
        };
        let signature = signature(&vote, signed);
        let ours = ExtendedCommitSignature::new(Address(key().public()), signature, None);
        let certificate = ExtendedCommitCertificate {
            height: context::Height(vote.height),
            round: EngineRound::new(0),
            value_id: block,
            commit_signatures: vec![ours],
        };
        RawDecidedValue::new(Bytes::new(), certificate)
    });
    let values: Vec<_> = values.collect();
    let start = values.first().expect("a block").certificate.height;
    let answer = Response::ValueResponse(ValueResponse::new(start, values));
    NetworkEvent::SyncResponse(OutboundRequestId::new("1"), peer(), Some(answer))
}

fn local(place: &std::path::Path) -> Arc<dyn Signer> {
    local_of(place, &Record::new(CHAIN, key().public(), Height::ZERO))
}

fn local_of(place: &std::path::Path, record: &Record) -> Arc<dyn Signer> {
    let directory = place.join("guard");
    GuardFile::create(&directory, record).expect("a guard");
    let signer = LocalSigner::open(&directory, &CHAIN, key(), key());
    Arc::new(signer.expect("the guard opens"))
}

fn own(signer: Arc<dyn Signer>) -> Own {
    Own::new(CHAIN, Arc::new(Revocable::new(signer)))
}

/// What an event brings about once its turn has come.
fn watch(own: &Own, event: &NetworkEvent<Chain>) -> Option<EngineError> {
    own.watch(&Candidate::of(event, own.signer.key())?)
}

#[tokio::test]
async fn from_the_first_foreign_message_on_nothing_is_signed() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    let engine = EngineSigner {
        signer: Arc::<Revocable>::clone(&own.signer),
        broken: channels::Sender::new(None),
    };
    let first = vote(1, None);
    let ours = own.signer.sign_vote(&first).expect("nobody else signs");
    // Our own vote, and one whose signature is made up.
    assert_eq!(watch(&own, &heard(&first, true)), None);
    assert_eq!(watch(&own, &heard(&vote(5, None), false)), None);
    assert!(!own.signer.is_revoked());
    let error = watch(&own, &heard(&vote(5, None), true));
    assert!(
        matches!(error, Some(EngineError::Foreign { .. })),
        "{error:?}"
    );
    assert!(own.signer.is_revoked());
    // It is said once.
    assert_eq!(watch(&own, &heard(&vote(5, None), true)), None);
    // Not even what was signed before is given out again.
    for asked in [first, vote(2, None)] {
        let refused = own.signer.sign_vote(&asked);
        assert!(
            matches!(refused, Err(SignError::Unavailable(_))),
            "{refused:?}"
        );
        let unsigned = engine.sign_vote(engines(&asked)).await.expect("no error");
        assert_eq!(unsigned.signature, UNSIGNED);
    }
    assert_eq!(own.signer.record().height(), ours.message.height);
}

#[test]
fn in_a_certificate_the_first_signature_under_our_key_is_the_only_one_looked_at() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    let (me, other) = (key().public(), SecretKey::from_seed(&[2; 32]).public());
    let [made_up, foreign] = [false, true].map(|signed| signature(&vote(5, None), signed));
    // Such a certificate is valid for nobody, so no honest peer sends it.
    let flood = std::iter::repeat_n((me, made_up), 511).chain([(me, foreign)]);
    assert_eq!(watch(&own, &certified(flood)), None);
    assert!(!own.signer.is_revoked());
    let honest = [(other, made_up), (me, foreign)];
    assert!(watch(&own, &certified(honest)).is_some());
}

#[test]
fn in_an_answer_one_signature_is_verified_that_the_guard_does_not_have() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    // The blocks above a certificate that is none are worthless.
    let flood = (1..64).map(|height| (height, false)).chain([(64, true)]);
    assert_eq!(watch(&own, &answer(flood)), None);
    assert!(!own.signer.is_revoked());
    // What the guard knows of is no reason not to look further.
    own.signer.sign_vote(&vote(3, None)).expect("signed");
    let behind = [(1, true), (2, true), (4, true)];
    let error = watch(&own, &answer(behind));
    let Some(EngineError::Foreign { what, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(what.contains("height 4"), "{what}");
}

#[test]
fn what_a_key_signed_before_its_guard_was_lost_stops_nothing_and_is_signed_again() {
    let place = tempfile::tempdir().expect("a directory");
    let record = Record::amnesic(CHAIN, key().public(), Height::new(4), None);
    let own = own(local_of(place.path(), &record));
    let block = Some(Hash::new([5; 32]));
    let old = vote(5, block);
    let heard_old = heard(&old, true);
    let recalls = |event: &NetworkEvent<Chain>| {
        own.recalls(&Candidate::of(event, own.signer.key()).expect("it names us"))
    };
    assert!(watch(&own, &heard_old).is_none());
    assert!(recalls(&heard(&old, false)).is_none(), "no signature");
    assert!(recalls(&heard(&vote(6, block), true)).is_none());
    let seen = recalls(&heard_old).expect("the key's own");
    own.signer.recall(&seen.sighting, seen.signature);
    assert!(recalls(&heard_old).is_none(), "known by now");
    // Whatever the engine wants there, the old vote is what it gets.
    let signed = own.signer.sign_vote(&vote(5, None)).expect("the old vote");
    assert_eq!((signed.message, signed.signature), (old, seen.signature));
    // Above that height another process is what it always was.
    assert!(watch(&own, &heard(&vote(6, block), true)).is_some());
}

/// A signer whose vote takes until it is told to go on.
struct Slow {
    signer: Arc<dyn Signer>,
    begun: Sender<()>,
    goes_on: std::sync::Mutex<Receiver<()>>,
}

impl Signer for Slow {
    fn key(&self) -> AccountId {
        self.signer.key()
    }
    fn record(&self) -> Record {
        self.signer.record()
    }
    fn bind(&self, lock: Option<(Round, Hash)>) {
        self.signer.bind(lock);
    }
    fn recall(&self, sighting: &Sighting, signature: Signature) {
        self.signer.recall(sighting, signature);
    }
    fn sign_header(&self, header: &Header) -> Result<Signature, SignError> {
        self.signer.sign_header(header)
    }
    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError> {
        self.signer.sign_proposal(proposal)
    }
    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        self.begun.send(()).expect("the test listens");
        let goes_on = self.goes_on.lock().expect("no panic");
        goes_on.recv().expect("the test goes on");
        self.signer.sign_vote(vote)
    }
    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        self.signer.sign_announcement(announcement)
    }
    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        self.signer.prove_peer(proof)
    }
    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        self.signer.prove_beacon(input)
    }
}

#[test]
fn what_is_being_signed_when_a_foreign_message_comes_is_not_given_out() {
    let place = tempfile::tempdir().expect("a directory");
    let (begun, has_begun) = channel();
    let (go_on, goes_on) = channel();
    let own = own(Arc::new(Slow {
        signer: local(place.path()),
        begun,
        goes_on: std::sync::Mutex::new(goes_on),
    }));
    let signer = Arc::clone(&own.signer);
    let signing = std::thread::spawn(move || signer.sign_vote(&vote(1, None)));
    has_begun.recv().expect("it is being signed");
    assert!(watch(&own, &heard(&vote(5, None), true)).is_some());
    go_on.send(()).expect("it waits");
    let refused = signing.join().expect("no panic");
    assert!(
        matches!(refused, Err(SignError::Unavailable(_))),
        "{refused:?}"
    );
}

/// The certificate of a height, with our precommit, signed or made up.
fn certificate(height: u64, signed: bool) -> Certificate {
    let block = Hash::new([3; 32]);
    let precommit = Vote {
        kind: VoteKind::Precommit,
        ..vote(height, Some(block))
    };
    Certificate {
        height: precommit.height,
        round: precommit.round,
        block,
        signatures: vec![CommitSignature {
            validator: key().public(),
            signature: signature(&precommit, signed),
        }],
    }
}

#[test]
fn a_committed_certificate_is_compared_with_the_guard() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    let precommit = Vote {
        kind: VoteKind::Precommit,
        ..vote(3, Some(Hash::new([3; 32])))
    };
    own.signer.sign_vote(&precommit).expect("nobody else signs");
    // Below the guard, our own, and one whose signature is made up.
    for (height, signed) in [(2, true), (3, true), (4, false)] {
        assert_eq!(own.compare(&certificate(height, signed)), None);
    }
    assert!(own.signer.sign_vote(&vote(4, None)).is_ok());
    let error = own.compare(&certificate(5, true));
    assert!(matches!(error, Some(EngineError::OldGuard(_))), "{error:?}");
    // The height after it has not begun, and nothing is signed there.
    assert!(own.signer.sign_vote(&vote(6, None)).is_err());
}
