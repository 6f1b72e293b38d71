//! Validators that sign through a guard, on real engines: refused signatures, lost logs, twins.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Network, PATIENCE};
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Height, Round};
use proofmill_consensus::{EngineError, Observed, ObservedKind};
use proofmill_signer::{
    Announcement, BeaconInput, Foreign, PeerProof, Proposal, Record, Refusal, Sighting, SignError,
    Signed, Signer, Vote,
};
use tokio::sync::mpsc;

const POWERS: [u64; 4] = [40, 30, 20, 10];
const ALL: [usize; 4] = [0, 1, 2, 3];
/// Tries, of two heights each, in which a machine of a tenth of the power has signed something.
const HEIGHTS_TO_SIGN_MAX: usize = 20;

/// A signer that refuses votes at even heights and all proposals.
struct Reluctant(Arc<dyn Signer>);

fn refusal() -> SignError {
    SignError::Refused(Refusal::Floor {
        asked: Height::ZERO,
        floor: Height::ZERO,
    })
}

impl Signer for Reluctant {
    fn key(&self) -> AccountId {
        self.0.key()
    }
    fn record(&self) -> Record {
        self.0.record()
    }
    fn bind(&self, lock: Option<(Round, Hash)>) {
        self.0.bind(lock);
    }
    fn recall(&self, sighting: &Sighting, signature: Signature) {
        self.0.recall(sighting, signature);
    }
    fn sign_header(&self, header: &Header) -> Result<Signature, SignError> {
        self.0.sign_header(header)
    }
    fn sign_proposal(&self, _: &Proposal) -> Result<Signed<Proposal>, SignError> {
        Err(refusal())
    }
    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        if vote.height.get().is_multiple_of(2) {
            return Err(refusal());
        }
        self.0.sign_vote(vote)
    }
    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        self.0.sign_announcement(announcement)
    }
    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        self.0.prove_peer(proof)
    }
    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        self.0.prove_beacon(input)
    }
    fn foreign(&self, sighting: &Sighting) -> Option<Foreign> {
        self.0.foreign(sighting)
    }
}

fn drain(observed: &mut mpsc::UnboundedReceiver<Observed>) -> Vec<Observed> {
    let mut all = Vec::new();
    while let Ok(one) = observed.try_recv() {
        all.push(one);
    }
    all
}

/// No key signed two different messages of one kind, height and round.
fn assert_no_conflict(observed: &[Observed]) {
    let mut places = BTreeMap::new();
    for one in observed.iter().filter(|one| one.is_signed) {
        let place = (one.key, one.kind, one.height, one.round);
        let first = *places.entry(place).or_insert(one.block);
        assert_eq!(first, one.block, "{one:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_signatures_end_nothing_and_are_never_published() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    network.wrap(2, |signer| Arc::new(Reluctant(signer)));
    let (observer, mut observed) = network.observe().await;
    network.start_all().await;
    network.reach(&ALL, 14).await;
    network.assert_agreement(&ALL, 14);
    assert!(network.engine(2).status().signs, "it runs and signs");
    let observed = drain(&mut observed);
    let reluctant = network.apps[2].me;
    let theirs = || observed.iter().filter(|one| one.key == reluctant);
    assert!(observed.len() > 100, "{} messages", observed.len());
    assert!(
        observed
            .iter()
            .filter(|one| one.kind != ObservedKind::Announcement)
            .all(|one| one.is_signed),
        "nothing without a signature is published"
    );
    assert!(theirs().any(|one| one.kind == ObservedKind::Prevote));
    let refused = |one: &&Observed| {
        one.kind == ObservedKind::Proposal
            || (one.kind != ObservedKind::Announcement && one.height.is_multiple_of(2))
    };
    assert_eq!(theirs().find(refused), None);
    network.stop_all().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_whose_log_is_lost_follows_and_then_signs_again() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    let (observer, mut observed) = network.observe().await;
    network.start_all().await;
    network.reach(&ALL, 4).await;
    // Without the first two no height is decided.
    network.stop(0).await;
    network.stop(1).await;
    let open = network.lose_log(1);
    network.start(1).await;
    network.until(1, |status| status.peers >= 1).await;
    assert!(!network.engine(1).status().signs, "it follows");
    network.start(0).await;
    network.reach(&ALL, open + 2).await;
    network.until(1, |status| status.signs).await;
    let head = network.apps[1].head_now();
    network.reach(&ALL, head + 3).await;
    network.assert_agreement(&ALL, head + 3);
    let observed = drain(&mut observed);
    assert_no_conflict(&observed);
    let me = network.apps[1].me;
    let again = |one: &Observed| one.key == me && one.height > head && one.is_signed;
    assert!(observed.iter().any(again), "it signs again");
    network.stop_all().await;
    observer.stop().await;
}

/// The fourth machine signs at a height, cannot commit it, and stops with all of it in its log; then the
/// others stop as well. Gives that height.
async fn stop_before_commit(network: &mut Network) -> Height {
    network.start_all().await;
    loop {
        network.until(3, |status| status.signs).await;
        let open = Height::new(network.apps[3].head_now() + 3);
        network.apps[3].broken_at.send_replace(Some(open));
        let stopped = tokio::time::timeout(PATIENCE, network.engine(3).stopped()).await;
        let error = stopped.expect("in time").expect_err("by itself");
        assert!(error.to_string().contains("cannot be committed"), "{error}");
        let has_signed = network.record(3).height() == open;
        network.stop(3).await;
        network.apps[3].broken_at.send_replace(None);
        if has_signed {
            network.stop_all().await;
            let [log, aside] = network.logs(3);
            assert!(log.exists() && !aside.exists());
            return open;
        }
        // The others decided without it.
        network.start(3).await;
    }
}

/// Alone, the fourth machine sets its log aside; with the others it follows and then signs again.
async fn follows_and_signs_again(network: &mut Network, open: Height) {
    // Nobody shows a higher height, so that it does not follow for that reason.
    network.start(3).await;
    let [_, aside] = network.logs(3);
    network.until(3, |_| aside.exists()).await;
    for index in [0, 1, 2] {
        network.start(index).await;
    }
    network.reach(&[3], open.get()).await;
    network.until(3, |status| status.signs).await;
    // The others have the power to decide a height before its vote is asked for.
    for _ in 0..HEIGHTS_TO_SIGN_MAX {
        let head = network.apps[3].head_now();
        network.reach(&ALL, head + 2).await;
        network.assert_agreement(&ALL, head + 2);
        if network.record(3).height() > open {
            return;
        }
    }
    panic!("it does not sign again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_names_a_block_which_the_database_lost_is_set_aside() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    let (observer, mut observed) = network.observe().await;
    let open = stop_before_commit(&mut network).await;
    let lost = network.apps[3].disk().undecided.remove(&open);
    assert!(lost.is_some_and(|lost| !lost.is_empty()));
    follows_and_signs_again(&mut network, open).await;
    assert_no_conflict(&drain(&mut observed));
    network.stop_all().await;
    observer.stop().await;
}

/// A signer that answers with nil votes, as a guard does that is bound to another block.
struct Bound(Arc<dyn Signer>);

impl Signer for Bound {
    fn key(&self) -> AccountId {
        self.0.key()
    }
    fn record(&self) -> Record {
        self.0.record()
    }
    fn bind(&self, lock: Option<(Round, Hash)>) {
        self.0.bind(lock);
    }
    fn recall(&self, sighting: &Sighting, signature: Signature) {
        self.0.recall(sighting, signature);
    }
    fn sign_header(&self, header: &Header) -> Result<Signature, SignError> {
        self.0.sign_header(header)
    }
    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError> {
        self.0.sign_proposal(proposal)
    }
    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        let block = None;
        self.0.sign_vote(&Vote { block, ..*vote })
    }
    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        self.0.sign_announcement(announcement)
    }
    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        self.0.prove_peer(proof)
    }
    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        self.0.prove_beacon(input)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_contradicts_the_guards_answers_is_set_aside() {
    let mut network = Network::new(&POWERS, 1000, |_, _| {});
    network.wrap(3, |signer| Arc::new(Bound(signer)));
    let (observer, mut observed) = network.observe().await;
    let open = stop_before_commit(&mut network).await;
    // Replayed, the log makes votes for the block in whose place it has nil votes.
    network.unwrap(3);
    follows_and_signs_again(&mut network, open).await;
    assert_no_conflict(&drain(&mut observed));
    network.stop_all().await;
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_is_heard_and_the_node_stops_with_the_peers_name() {
    let mut network = Network::new(&[40, 30, 20, 10, 0], 1000, |_, _| {});
    for index in ALL {
        network.start(index).await;
    }
    network.reach(&ALL, 3).await;
    // The fifth machine gets the fourth's key and a guard that knows nothing of it.
    network.make_twin(4, 3);
    network.start(4).await;
    let first = network.engine(3).stopped();
    let second = network.engine(4).stopped();
    let stopped = async {
        tokio::select! {
            stopped = first => stopped,
            stopped = second => stopped,
        }
    };
    let stopped = tokio::time::timeout(PATIENCE, stopped).await;
    let error = stopped
        .expect("one of the two stops")
        .expect_err("by itself");
    let EngineError::Foreign { peer, what } = &error else {
        panic!("{error}");
    };
    assert!(peer.starts_with("12D3Koo"), "{peer}");
    assert!(what.contains("of height"), "{what}");
    assert!(error.to_string().contains("another process signs"));
    // The others go on.
    let head = network.apps[0].head_now();
    network.reach(&[0, 1, 2], head + 3).await;
    network.stop_all().await;
}
