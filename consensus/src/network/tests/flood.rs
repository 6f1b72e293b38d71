//! A flood of messages that name our key does not hide a true one, and takes a bounded room.

use arc_malachitebft_engine::network::NetworkEvent;
use arc_malachitebft_peer::PeerId;

use super::super::candidates::{Candidate, Candidates, WAITING_MAX, WAITING_PER_PEER_MAX};
use super::{heard, key, local, own, vote};
use crate::engine::EngineError;

fn peer(number: u16) -> PeerId {
    let [high, low] = number.to_be_bytes();
    PeerId::from_bytes(&[0, 2, high, low]).expect("a short identity")
}

/// A vote of a height under our key, signed or made up, as a peer delivers it.
fn delivered(from: PeerId, height: u64, signed: bool) -> Candidate {
    let NetworkEvent::Vote(_, vote) = heard(&vote(height, None), signed) else {
        unreachable!("a vote is heard");
    };
    let event = NetworkEvent::Vote(from, vote);
    Candidate::of(&event, key().public()).expect("it names our key")
}

/// Far more than may wait.
const FLOOD: u64 = 3 * WAITING_MAX as u64;

#[test]
fn a_true_message_behind_a_flood_of_made_up_ones_is_recognised() {
    let place = tempfile::tempdir().expect("a directory");
    for (flooders, true_from) in [(1, 0), (1, 7), (40, 7), (40, 100)] {
        let home = place.path().join(format!("{flooders}-{true_from}"));
        std::fs::create_dir(&home).expect("a directory");
        let own = own(local(&home));
        let mut candidates = Candidates::default();
        for number in 0..FLOOD {
            let from = u16::try_from(number % flooders).expect("few");
            candidates.push(delivered(peer(from), number + 1, false));
            assert!(candidates.waiting() <= WAITING_MAX);
        }
        candidates.push(delivered(peer(true_from), 5, true));
        let mut found = None;
        while let Some(candidate) = candidates.pop() {
            found = found.or_else(|| own.watch(&candidate));
        }
        assert!(matches!(found, Some(EngineError::Foreign { .. })));
        assert!(own.signer.is_revoked());
        assert_eq!(candidates.waiting(), 0);
    }
}

#[test]
fn a_flood_displaces_nothing_of_another_peer_and_does_not_make_it_wait() {
    let mut candidates = Candidates::default();
    let (flooder, honest) = (peer(1), peer(2));
    candidates.push(delivered(honest, 5, true));
    for height in 1..=FLOOD {
        candidates.push(delivered(flooder, height, false));
    }
    assert_eq!(candidates.waiting(), WAITING_PER_PEER_MAX + 1);
    let first = [candidates.pop(), candidates.pop()].map(|one| one.expect("both wait").peer);
    assert!(first.contains(&honest), "{first:?}");
}

#[test]
fn what_does_not_name_our_key_never_waits() {
    let other = proofmill_chain::crypto::sign::SecretKey::from_seed(&[2; 32]);
    let event = heard(&vote(5, None), true);
    assert!(Candidate::of(&event, other.public()).is_none());
}
