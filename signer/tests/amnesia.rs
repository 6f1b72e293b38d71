//! A key that signs again at a height at which it may have signed already: everything that knew what is lost.

mod support;

use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::hash::Signature;
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{
    Decision, GuardFile, LoggedMessages, Message, Plan, Proposal, ROUNDS_KEPT_MAX, Record, Refusal,
    Sighting, Signed, Vote, plan,
};
use support::{chain, empty, hash, header, key, proposal, vote};

const OPEN: u64 = 9;
const OLD: Signature = Signature::new([1; 64]);
const NEW: Signature = Signature::new([2; 64]);

fn amnesic(known: Option<&Record>) -> Record {
    Record::amnesic(chain(), key().public(), Height::new(OPEN - 1), known)
}

fn sighted(vote: &Vote) -> Sighting {
    Sighting::Vote {
        kind: vote.kind,
        height: vote.height,
        round: vote.round,
        block: vote.block,
    }
}

fn proposed(proposal: &Proposal) -> Sighting {
    Sighting::Proposal {
        height: proposal.height,
        round: proposal.round,
        pol_round: proposal.pol_round,
        block: proposal.block,
    }
}

fn prevote(height: u64, round: u32, number: u8) -> Vote {
    vote(VoteKind::Prevote, height, round, number)
}

fn precommit(height: u64, round: u32, number: u8) -> Vote {
    vote(VoteKind::Precommit, height, round, number)
}

#[test]
fn messages_of_the_open_height_are_not_foreign_and_those_above_are() {
    let record = amnesic(None);
    for round in [0, 7] {
        assert_eq!(record.foreign(&sighted(&prevote(OPEN, round, 1))), None);
        assert_eq!(record.foreign(&proposed(&proposal(OPEN, round, 1))), None);
        assert!(
            record
                .foreign(&sighted(&prevote(OPEN + 1, round, 1)))
                .is_some()
        );
    }
    assert_eq!(record.foreign(&sighted(&prevote(OPEN - 1, 0, 1))), None);
    // An empty guard without that excuse takes the same message for another process's.
    let usual = empty(OPEN - 1);
    assert!(usual.foreign(&sighted(&prevote(OPEN, 0, 1))).is_some());
}

#[test]
fn nothing_is_signed_against_what_comes_back() {
    let record = amnesic(None);
    let record = record.recalling(&sighted(&prevote(OPEN, 3, 1)), OLD);
    let record = record.expect("it is new");
    let record = record.recalling(&sighted(&precommit(OPEN, 3, 1)), OLD);
    let record = record.expect("it is new");
    let record = record.recalling(&proposed(&proposal(OPEN, 4, 1)), OLD);
    let record = record.expect("it is new");

    let asked = prevote(OPEN, 3, 2);
    let stored = Decision::StoredVote(Signed {
        message: prevote(OPEN, 3, 1),
        signature: OLD,
    });
    assert_eq!(record.decide(&Message::Vote(&asked)), stored);
    for asked in [precommit(OPEN, 3, 2), precommit(OPEN, 3, 0)] {
        let refused = record.decide(&Message::Vote(&asked));
        assert!(
            matches!(refused, Decision::Refuse(Refusal::Taken { .. })),
            "{refused:?}"
        );
    }
    let refused = record.decide(&Message::Proposal(&proposal(OPEN, 4, 2)));
    assert!(
        matches!(refused, Decision::Refuse(Refusal::Taken { .. })),
        "{refused:?}"
    );
    let stored = record.decide(&Message::Proposal(&proposal(OPEN, 4, 1)));
    assert!(matches!(stored, Decision::StoredProposal(_)), "{stored:?}");

    // Earlier rounds and other blocks elsewhere are signed: the chain must be able to go on.
    for asked in [
        prevote(OPEN, 0, 2),
        prevote(OPEN, 5, 2),
        precommit(OPEN, 2, 2),
    ] {
        assert_eq!(record.decide(&Message::Vote(&asked)), Decision::Sign);
    }
    assert_eq!(record.bound(), None);
}

#[test]
fn the_first_message_of_a_place_stays_and_only_so_many_rounds_are_recalled() {
    let signed = amnesic(None).with(&Message::Vote(&prevote(OPEN, 0, 1)), NEW);
    assert_eq!(signed.recalling(&sighted(&prevote(OPEN, 0, 2)), OLD), None);
    let mut record = signed;
    let rounds = u32::try_from(ROUNDS_KEPT_MAX).expect("small");
    for round in 1..=rounds {
        let sighting = sighted(&prevote(OPEN, 1000 + round, 1));
        record = record.recalling(&sighting, OLD).expect("it has room");
        assert_eq!(record.recalling(&sighting, OLD), None);
    }
    assert_eq!(
        record.recalling(&sighted(&prevote(OPEN, 2000, 1)), OLD),
        None
    );
    assert!(
        record
            .recalling(&sighted(&precommit(OPEN, 1001, 1)), OLD)
            .is_some()
    );
    assert_eq!(
        record.recalling(&sighted(&prevote(OPEN + 1, 0, 1)), OLD),
        None
    );
    // What comes back takes no room from what is signed.
    let again = record.decide(&Message::Vote(&prevote(OPEN, 0, 2)));
    assert!(matches!(again, Decision::StoredVote(vote) if vote.signature == NEW));
}

#[test]
fn what_an_old_guard_knows_is_recalled_and_all_is_over_at_the_next_height() {
    let old = empty(0);
    let old = old.with(&Message::Header(&header(OPEN, 2, 1)), OLD);
    let old = old.with(&Message::Vote(&precommit(OPEN, 2, 1)), OLD);
    let record = amnesic(Some(&old));
    let stored = record.decide(&Message::Header(&header(OPEN, 2, 1)));
    assert_eq!(stored, Decision::StoredHeader(OLD));
    let refused = record.decide(&Message::Header(&header(OPEN, 2, 2)));
    assert!(
        matches!(refused, Decision::Refuse(Refusal::Taken { .. })),
        "{refused:?}"
    );
    let refused = record.decide(&Message::Vote(&precommit(OPEN, 2, 2)));
    assert!(
        matches!(refused, Decision::Refuse(Refusal::Taken { .. })),
        "{refused:?}"
    );
    assert_eq!(
        record.decide(&Message::Vote(&prevote(OPEN, 0, 2))),
        Decision::Sign
    );
    // A second repair at the same height forgets nothing.
    let second = record.with(&Message::Vote(&prevote(OPEN, 0, 2)), NEW);
    let third = amnesic(Some(&second));
    assert_eq!(third.recalled().len(), 2);

    let next = second.with(&Message::Vote(&prevote(OPEN + 1, 0, 1)), NEW);
    assert_eq!(next.amnesic_height(), None);
    assert!(next.recalled().is_empty());
    let twin = sighted(&prevote(OPEN + 1, 0, 2));
    assert!(next.foreign(&twin).is_some());
    // A guard of another height has nothing to say about this one.
    assert!(amnesic(Some(&next)).recalled().is_empty());
}

#[test]
fn a_log_with_what_came_back_is_no_sign_of_an_old_copy() {
    let record = amnesic(None);
    let record = record.recalling(&sighted(&prevote(OPEN, 3, 1)), OLD);
    let record = record.expect("it is new");
    let record = record.with(&Message::Vote(&prevote(OPEN, 0, 1)), NEW);
    let log = LoggedMessages {
        proposals: vec![(Round::new(4), None, hash(1))],
        votes: vec![
            (VoteKind::Prevote, Round::new(0), Some(hash(1))),
            (VoteKind::Prevote, Round::new(3), Some(hash(1))),
        ],
    };
    let next = Height::new(OPEN);
    let plan = plan(&record, next, Ok(Some(log))).expect("no old copy");
    assert_eq!(plan, Plan::Continue { lock: None });
}

#[test]
fn the_file_keeps_it_all() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    let mut known = empty(0);
    let rounds = u32::try_from(ROUNDS_KEPT_MAX).expect("small");
    for round in 0..rounds {
        known = known.with(&Message::Header(&header(OPEN, round, 1)), OLD);
        known = known.with(&Message::Proposal(&proposal(OPEN, round, 1)), OLD);
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            known = known.with(&Message::Vote(&vote(kind, OPEN, round, 1)), OLD);
        }
    }
    let mut full = amnesic(Some(&known));
    for round in rounds..2 * rounds {
        full = full.with(&Message::Header(&header(OPEN, round, 1)), NEW);
        full = full.with(&Message::Vote(&prevote(OPEN, round, 1)), NEW);
    }
    assert_eq!(
        (full.turns().len(), full.recalled().len()),
        (ROUNDS_KEPT_MAX, ROUNDS_KEPT_MAX)
    );
    let mut guard = GuardFile::create(&directory, &amnesic(None)).expect("a guard");
    guard.write(&full).expect("it has room");
    drop(guard);
    let (_, read) = GuardFile::open(&directory, &chain(), &key().public()).expect("a record");
    assert_eq!(read, full);
}
