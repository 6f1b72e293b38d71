//! How a validator starts, and which messages under its key are another process's.

mod support;

use proofmill_chain::finality::VoteKind::{Precommit, Prevote};
use proofmill_chain::types::hash::Signature;
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{LoggedMessages, Message, Plan, Reason, Record, Sighting, plan};
use support::{block, empty, hash, header, proposal, vote};

/// Proposal, prevote and precommit for block 1 in round 0, then a nil prevote in round 1.
fn record() -> Record {
    let signature = Signature::new([1; 64]);
    let mut record = empty(2).with(&Message::Proposal(&proposal(7, 0, 1)), signature);
    for vote in [
        vote(Prevote, 7, 0, 1),
        vote(Precommit, 7, 0, 1),
        vote(Prevote, 7, 1, 0),
    ] {
        record = record.with(&Message::Vote(&vote), signature);
    }
    record
}

fn log() -> LoggedMessages {
    let zero = Round::new(0);
    LoggedMessages {
        proposals: vec![(zero, None, hash(1))],
        votes: vec![
            (Prevote, zero, block(1)),
            (Precommit, zero, block(1)),
            (Prevote, Round::new(1), None),
        ],
    }
}

fn at(next: u64, log: LoggedMessages) -> Plan {
    plan(&record(), Height::new(next), Ok(Some(log))).expect("a plan")
}

#[test]
fn a_whole_log_or_one_that_lacks_the_newest_goes_on() {
    assert_eq!(at(7, log()), Plan::Continue { lock: None });
    let mut short = log();
    short.votes.pop();
    assert_eq!(at(7, short), Plan::Continue { lock: None });
}

#[test]
fn a_block_precommit_that_the_log_lacks_binds() {
    let signature = Signature::new([1; 64]);
    let precommit = vote(Precommit, 7, 1, 1);
    let record = record().with(&Message::Vote(&precommit), signature);
    let found = plan(&record, Height::new(7), Ok(Some(log()))).expect("a plan");
    let lock = Some((Round::new(1), hash(1)));
    assert_eq!(found, Plan::Continue { lock });
}

/// A kill kept a message out of the log, the replay did not log it either, and later ones are there.
#[test]
fn a_gap_before_a_logged_message_goes_on() {
    let mut no_prevote = log();
    no_prevote.votes.remove(0);
    assert_eq!(at(7, no_prevote), Plan::Continue { lock: None });
    let mut no_precommit = log();
    no_precommit.votes.remove(1);
    let lock = Some((Round::new(0), hash(1)));
    assert_eq!(at(7, no_precommit), Plan::Continue { lock });
}

/// The engine signs a proposal and both votes of a round before it flushes its log.
#[test]
fn a_burst_of_one_round_that_a_power_cut_took_goes_on_and_its_precommit_binds() {
    let signature = Signature::new([1; 64]);
    let mut record = record().with(&Message::Proposal(&proposal(7, 2, 2)), signature);
    for vote in [vote(Prevote, 7, 2, 2), vote(Precommit, 7, 2, 2)] {
        record = record.with(&Message::Vote(&vote), signature);
    }
    let found = plan(&record, Height::new(7), Ok(Some(log()))).expect("a plan");
    let lock = Some((Round::new(2), hash(2)));
    assert_eq!(found, Plan::Continue { lock });
}

#[test]
fn a_log_that_lacks_more_is_not_trusted() {
    let until = Height::new(7);
    let follow = |reason| Plan::Follow { until, reason };
    let mut short = log();
    short.votes.truncate(1);
    assert_eq!(at(7, short), follow(Reason::LogShort { missing: 2 }));
    let none = LoggedMessages::default();
    assert_eq!(at(7, none), follow(Reason::LogShort { missing: 4 }));
    let found = plan(&record(), until, Ok(None)).expect("a plan");
    assert_eq!(found, follow(Reason::LogMissing));
    let damaged = plan(&record(), until, Err("CRC".to_owned())).expect("a plan");
    assert_eq!(damaged, follow(Reason::LogDamaged("CRC".to_owned())));
}

#[test]
fn a_height_above_the_guards_needs_no_log() {
    for log in [Ok(None), Err("garbage".to_owned())] {
        let found = plan(&record(), Height::new(8), log).expect("a plan");
        assert_eq!(found, Plan::Begin);
    }
}

#[test]
fn a_damaged_log_is_not_opened_when_only_a_header_is_signed() {
    let header = header(7, 0, 1);
    let record = empty(2).with(&Message::Header(&header), Signature::new([1; 64]));
    let at = |log| plan(&record, Height::new(7), log).expect("a plan");
    assert_eq!(at(Err("CRC".to_owned())), Plan::Begin);
    let goes_on = Plan::Continue { lock: None };
    assert_eq!(at(Ok(Some(LoggedMessages::default()))), goes_on);
    assert_eq!(at(Ok(None)), goes_on);
}

#[test]
fn a_database_behind_the_guard_catches_up_first() {
    for next in [1, 3, 6] {
        let found = plan(&record(), Height::new(next), Ok(None)).expect("a plan");
        let until = Height::new(7);
        let reason = Reason::Behind;
        assert_eq!(found, Plan::Follow { until, reason });
    }
    // A guard made anew signs above its floor only.
    let found = plan(&empty(9), Height::new(9), Ok(None)).expect("a plan");
    assert!(matches!(found, Plan::Follow { .. }), "{found:?}");
    let found = plan(&empty(9), Height::new(10), Ok(None)).expect("a plan");
    assert_eq!(found, Plan::Begin);
}

#[test]
fn a_log_with_more_than_the_guard_shows_an_old_guard() {
    let mut more = log();
    more.votes.push((Precommit, Round::new(1), None));
    let error = plan(&record(), Height::new(7), Ok(Some(more))).expect_err("an old guard");
    assert_eq!(error.round, Round::new(1));
    let error = plan(&record(), Height::new(8), Ok(Some(log()))).expect_err("an old guard");
    assert_eq!(error.height, Height::new(8));
}

#[test]
fn messages_under_our_key_that_we_did_not_sign_are_foreign() {
    let record = record();
    let seen = |kind, height, round, number| Sighting::Vote {
        kind,
        height: Height::new(height),
        round: Round::new(round),
        block: block(number),
    };
    for ours in [
        seen(Prevote, 7, 0, 1),
        seen(Precommit, 7, 0, 1),
        seen(Prevote, 7, 1, 0),
        // Below the guard's height nothing is recorded.
        seen(Prevote, 6, 0, 2),
    ] {
        assert_eq!(record.foreign(&ours), None, "{ours:?}");
    }
    for theirs in [
        seen(Prevote, 7, 0, 2),
        seen(Prevote, 7, 0, 0),
        seen(Precommit, 7, 1, 0),
        seen(Prevote, 7, 2, 1),
        seen(Prevote, 8, 0, 1),
    ] {
        assert!(record.foreign(&theirs).is_some(), "{theirs:?}");
    }
    let proposed = |number, pol_round| Sighting::Proposal {
        height: Height::new(7),
        round: Round::new(0),
        pol_round,
        block: hash(number),
    };
    assert_eq!(record.foreign(&proposed(1, None)), None);
    assert!(record.foreign(&proposed(2, None)).is_some());
    assert!(record.foreign(&proposed(1, Some(Round::new(0)))).is_some());
    // At the floor of a new guard our lost messages may still be about.
    assert_eq!(empty(7).foreign(&seen(Prevote, 7, 0, 1)), None);
    assert!(empty(7).foreign(&seen(Prevote, 8, 0, 1)).is_some());
}
