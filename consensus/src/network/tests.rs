//! What a node does from the moment on at which another process is heard to sign with its key.

mod idle;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use arc_malachitebft_core_types::{NilOrVal, Round as EngineRound, SignedMessage, VoteType};
use arc_malachitebft_engine::network::NetworkEvent;
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_signing::Signer as _;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{
    Announcement, BeaconInput, GuardFile, LocalSigner, PeerProof, Proposal, Record, SignError,
    Signed, Signer, Vote, vote_bytes,
};
use tokio::sync::watch;

use super::Own;
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

/// A vote under our key, as a peer delivers it.
fn heard(vote: &Vote, signed: bool) -> NetworkEvent<Chain> {
    let signature = if signed {
        key().sign(&vote_bytes(&CHAIN, &key().public(), vote))
    } else {
        Signature::new([9; 64])
    };
    let peer = PeerId::from_bytes(&[0, 2, 7, 7]).expect("a short identity");
    NetworkEvent::Vote(peer, SignedMessage::new(engines(vote), signature))
}

fn local(place: &std::path::Path) -> Arc<dyn Signer> {
    let directory = place.join("guard");
    let record = Record::new(CHAIN, key().public(), Height::ZERO);
    GuardFile::create(&directory, &record).expect("a guard");
    let signer = LocalSigner::open(&directory, &CHAIN, key(), key());
    Arc::new(signer.expect("the guard opens"))
}

fn own(signer: Arc<dyn Signer>) -> Own {
    Own {
        chain: CHAIN,
        signer: Arc::new(Revocable::new(signer)),
    }
}

#[tokio::test]
async fn from_the_first_foreign_message_on_nothing_is_signed() {
    let place = tempfile::tempdir().expect("a directory");
    let own = own(local(place.path()));
    let engine = EngineSigner {
        signer: Arc::<Revocable>::clone(&own.signer),
        broken: watch::Sender::new(None),
    };
    let first = vote(1, None);
    let ours = own.signer.sign_vote(&first).expect("nobody else signs");
    // Our own vote, and one whose signature is made up.
    assert_eq!(own.watch(&heard(&first, true)), None);
    assert_eq!(own.watch(&heard(&vote(5, None), false)), None);
    assert!(!own.signer.is_revoked());
    let error = own.watch(&heard(&vote(5, None), true));
    assert!(
        matches!(error, Some(EngineError::Foreign { .. })),
        "{error:?}"
    );
    assert!(own.signer.is_revoked());
    // It is said once.
    assert_eq!(own.watch(&heard(&vote(5, None), true)), None);
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
    assert!(own.watch(&heard(&vote(5, None), true)).is_some());
    go_on.send(()).expect("it waits");
    let refused = signing.join().expect("no panic");
    assert!(
        matches!(refused, Err(SignError::Unavailable(_))),
        "{refused:?}"
    );
}
