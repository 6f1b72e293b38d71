//! The guard's decisions against a model that remembers everything, and what must hold for every
//! sequence of requests, crashes in between included.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::finality::VoteKind;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::{
    Decision, GuardFile, LocalSigner, LoggedMessages, Message, Plan, Position, Proposal,
    ROUNDS_KEPT_MAX, Record, Refusal, SignError, Signer, Vote, plan, vote_bytes,
};
use proptest::prelude::*;
use support::{chain, empty, header, key, proposal, vote};

/// A request as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ask {
    height: u64,
    round: u32,
    position: Position,
    content: u8,
}

fn asks(rounds: u32) -> impl Strategy<Value = Vec<Ask>> {
    let position = prop_oneof![
        Just(Position::Header),
        Just(Position::Proposal),
        Just(Position::Prevote),
        Just(Position::Precommit),
    ];
    let ask = (1_u64..5, 0..rounds, position, 0_u8..3);
    let ask = ask.prop_map(|(height, round, position, content)| Ask {
        height,
        round,
        position,
        content,
    });
    prop::collection::vec(ask, 1..60)
}

/// The request of an [`Ask`], owned.
enum Owned {
    Header(Box<Header>),
    Proposal(Proposal),
    Vote(Vote),
}

impl Owned {
    fn of(ask: Ask) -> Self {
        let Ask {
            height,
            round,
            content,
            ..
        } = ask;
        match ask.position {
            Position::Header => Self::Header(Box::new(header(height, round, content))),
            Position::Proposal => Self::Proposal(proposal(height, round, content)),
            Position::Prevote => Self::Vote(vote(VoteKind::Prevote, height, round, content)),
            Position::Precommit => Self::Vote(vote(VoteKind::Precommit, height, round, content)),
        }
    }

    fn message(&self) -> Message<'_> {
        match self {
            Self::Header(header) => Message::Header(header),
            Self::Proposal(proposal) => Message::Proposal(proposal),
            Self::Vote(vote) => Message::Vote(vote),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Signed now.
    New,
    /// The content that was signed before.
    Old(u8),
    Refused,
}

/// Remembers every message ever signed and searches all of them.
#[derive(Default)]
struct Model(Vec<Ask>);

impl Model {
    fn answer(&mut self, ask: Ask) -> Answer {
        if self.0.iter().any(|old| old.height > ask.height) {
            return Answer::Refused;
        }
        let place = |ask: &Ask| (ask.height, ask.round, ask.position);
        if let Some(old) = self.0.iter().find(|old| place(old) == place(&ask)) {
            let may_repeat = match ask.position {
                Position::Header | Position::Proposal => false,
                Position::Prevote => true,
                Position::Precommit => old.content == 0,
            };
            return if old.content == ask.content || may_repeat {
                Answer::Old(old.content)
            } else {
                Answer::Refused
            };
        }
        if self.0.iter().any(|old| place(old) > place(&ask)) {
            return Answer::Refused;
        }
        self.0.push(ask);
        Answer::New
    }
}

fn content(block: Option<Hash>) -> u8 {
    (0..3)
        .find(|number| support::block(*number) == block)
        .expect("a block of the test")
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_model_that_remembers_everything(asks in asks(6)) {
        let mut model = Model::default();
        let mut record = empty(0);
        for ask in asks {
            let owned = Owned::of(ask);
            let message = owned.message();
            let answer = match record.decide(&message) {
                Decision::Sign => {
                    record = record.with(&message, Signature::new([1; 64]));
                    Answer::New
                }
                Decision::StoredHeader(_) => Answer::Old(ask.content),
                Decision::StoredProposal(stored) => {
                    prop_assert_eq!(stored.message, proposal(ask.height, ask.round, ask.content));
                    Answer::Old(ask.content)
                }
                Decision::StoredVote(stored) => Answer::Old(content(stored.message.block)),
                Decision::Refuse(_) => Answer::Refused,
                Decision::SignNil(_) => unreachable!("nothing binds"),
            };
            // The model's header and proposal of nil do not exist: content 0 is a block there.
            prop_assert_eq!(answer, model.answer(ask), "{:?}", ask);
        }
    }

    #[test]
    fn no_two_signatures_conflict_however_often_it_restarts(
        asks in asks(90),
        ends in prop::collection::vec(ends(), 60),
        floor in 0_u64..3,
    ) {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("guard");
        drop(GuardFile::create(&directory, &empty(floor)).expect("a guard"));
        let open = || LocalSigner::open(&directory, &chain(), key(), key()).expect("a guard");
        let mut signer = Some(open());
        let mut given: BTreeMap<(u64, u32, Position), Vec<u8>> = BTreeMap::new();
        for (ask, end) in asks.into_iter().zip(ends) {
            if end == End::Between {
                drop(signer.take());
                signer = Some(open());
            }
            let path = directory.join("signed");
            let old = matches!(end, End::Torn(_)).then(|| fs::read(&path).expect("the guard"));
            let signature = signed_by(signer.as_ref().expect("open"), ask);
            if let (End::Torn(sectors), Some(old)) = (end, old) {
                // The process ended before the signature left, the disk has some of the record.
                drop(signer.take());
                tear(&path, &old, sectors);
                signer = Some(open());
                continue;
            }
            match signature {
                Ok(signature) => {
                    prop_assert!(ask.height > floor);
                    // Deterministic signatures: two of one place are equal or conflict.
                    let key = (ask.height, ask.round, ask.position);
                    let bytes = signature.as_bytes().to_vec();
                    let first = given.entry(key).or_insert_with(|| bytes.clone());
                    prop_assert_eq!(&*first, &bytes, "{:?}", ask);
                }
                Err(error) => prop_assert!(matches!(error, SignError::Refused(_)), "{}", error),
            }
        }
    }
}

/// How the process ends at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It goes on.
    Not,
    /// Before the request.
    Between,
    /// While the record is written: the disk has the changed sectors whose bit is set.
    Torn(u32),
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        2 => Just(End::Not),
        1 => Just(End::Between),
        1 => any::<u32>().prop_map(End::Torn),
    ]
}

/// Takes back the changes of a guard's file in all sectors but some.
fn tear(path: &Path, old: &[u8], kept: u32) {
    const SECTOR: usize = 512;
    let mut torn = fs::read(path).expect("the guard");
    let sectors = torn.chunks_mut(SECTOR).zip(old.chunks(SECTOR));
    let changed = sectors.filter(|(new, old)| new != old);
    for (number, (new, old)) in changed.enumerate() {
        if kept.rotate_right(u32::try_from(number).expect("small")) & 1 == 0 {
            new.copy_from_slice(old);
        }
    }
    fs::write(path, torn).expect("written");
}

/// The signer's answer, its signature verified when it is a vote's.
fn signed_by(signer: &LocalSigner, ask: Ask) -> Result<Signature, SignError> {
    match Owned::of(ask) {
        Owned::Header(header) => signer.sign_header(&header),
        Owned::Proposal(proposal) => signer.sign_proposal(&proposal).map(|s| s.signature),
        Owned::Vote(vote) => signer.sign_vote(&vote).map(|signed| {
            let message = vote_bytes(&chain(), &signer.key(), &signed.message);
            assert!(verify(&Item {
                key: signer.key().as_bytes(),
                message: &message,
                signature: signed.signature.as_bytes(),
            }));
            signed.signature
        }),
    }
}

fn refusal(record: &Record, message: &Message<'_>) -> Refusal {
    match record.decide(message) {
        Decision::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn signed(messages: &[Ask]) -> Record {
    let mut record = empty(0);
    for ask in messages {
        let owned = Owned::of(*ask);
        record = record.with(&owned.message(), Signature::new([1; 64]));
    }
    record
}

const fn ask(height: u64, round: u32, position: Position, content: u8) -> Ask {
    Ask {
        height,
        round,
        position,
        content,
    }
}

#[test]
fn a_header_is_refused_once_its_proposal_would_be() {
    for last in [Position::Proposal, Position::Prevote, Position::Precommit] {
        let record = signed(&[ask(4, 1, last, 1)]);
        let refused = refusal(&record, &Message::Header(&header(4, 1, 2)));
        let expected = Refusal::Order {
            asked: Position::Header,
            asked_round: Round::new(1),
            last,
            last_round: Round::new(1),
        };
        assert_eq!(refused, expected);
    }
}

#[test]
fn each_refusal_names_what_stands_against_it() {
    let record = signed(&[ask(4, 1, Position::Precommit, 1)]);
    let (four, one) = (Height::new(4), Round::new(1));
    let other = vote(VoteKind::Precommit, 4, 1, 2);
    let taken = Refusal::Taken {
        position: Position::Precommit,
        height: four,
        round: one,
    };
    assert_eq!(refusal(&record, &Message::Vote(&other)), taken);
    let low = vote(VoteKind::Prevote, 3, 0, 1);
    let past = Refusal::PastHeight {
        asked: Height::new(3),
        height: four,
    };
    assert_eq!(refusal(&record, &Message::Vote(&low)), past);
    let floor = Refusal::Floor {
        asked: four,
        floor: Height::new(9),
    };
    assert_eq!(refusal(&empty(9), &Message::Vote(&other)), floor);
}

#[test]
fn a_lost_block_precommit_turns_later_votes_for_other_blocks_into_nil() {
    let record = signed(&[ask(4, 1, Position::Precommit, 1)]);
    let lock = record.lock();
    assert_eq!(lock, Some((Round::new(1), support::hash(1))));
    let bound = record.bound_by(lock.expect("a lock"));
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        let decide = |number| bound.decide(&Message::Vote(&vote(kind, 4, 2, number)));
        assert_eq!(decide(2), Decision::SignNil(vote(kind, 4, 2, 0)));
        assert_eq!(decide(1), Decision::Sign);
        assert_eq!(decide(0), Decision::Sign);
        let unbound = record.decide(&Message::Vote(&vote(kind, 4, 2, 2)));
        assert_eq!(unbound, Decision::Sign);
    }
    // It ends with the height.
    let above = vote(VoteKind::Prevote, 5, 0, 2);
    let next = bound.with(&Message::Vote(&above), Signature::new([1; 64]));
    assert_eq!(next.bound(), None);
}

/// The log loses the precommit, the network brings it back into the log without the lock, and the
/// process is killed again.
#[test]
fn a_lost_lock_binds_however_its_precommit_gets_into_the_log() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("guard");
    drop(GuardFile::create(&directory, &empty(0)).expect("a guard"));
    let open = || LocalSigner::open(&directory, &chain(), key(), key()).expect("a guard");
    let (prevote, precommit) = (
        vote(VoteKind::Prevote, 4, 0, 1),
        vote(VoteKind::Precommit, 4, 0, 1),
    );
    let signer = open();
    for vote in [prevote, precommit] {
        signer.sign_vote(&vote).expect("signed");
    }
    drop(signer);
    let (zero, four) = (Round::new(0), Height::new(4));
    let mut log = LoggedMessages {
        proposals: Vec::new(),
        votes: vec![(VoteKind::Prevote, zero, prevote.block)],
    };
    let lock = Some((zero, support::hash(1)));
    for start in 0..3 {
        let signer = open();
        let found = plan(&signer.record(), four, Ok(Some(log.clone()))).expect("a plan");
        assert_eq!(found, Plan::Continue { lock }, "start {start}");
        signer.bind(lock);
        log.votes.push((VoteKind::Precommit, zero, precommit.block));
        drop(signer);
    }
    let signer = open();
    // Whoever starts it without a word about the lock.
    signer.bind(None);
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        let signed = signer.sign_vote(&vote(kind, 4, 2, 2)).expect("signed");
        assert_eq!(signed.message, vote(kind, 4, 2, 0));
    }
    let later = vote(VoteKind::Prevote, 5, 0, 2);
    let signed = signer.sign_vote(&later).expect("signed");
    assert_eq!(signed.message, later);
}

#[test]
fn announcements_are_for_our_own_blocks_only() {
    let built = header(4, 0, 1);
    let record = empty(0).with(&Message::Header(&built), Signature::new([1; 64]));
    let record = record.with(
        &Message::Proposal(&proposal(4, 1, 2)),
        Signature::new([1; 64]),
    );
    let announce = |height, block| proofmill_signer::Announcement {
        height: Height::new(height),
        round: Round::new(1),
        pol_round: None,
        proposer: key().public(),
        block,
        size: 10,
        parts: support::hash(3),
    };
    record
        .may_announce(&announce(4, built.hash()))
        .expect("its header is signed");
    record
        .may_announce(&announce(4, support::hash(2)))
        .expect("its proposal is signed");
    for bad in [
        announce(4, support::hash(1)),
        announce(5, built.hash()),
        announce(3, built.hash()),
    ] {
        let refused = record.may_announce(&bad).expect_err("not ours");
        assert!(matches!(refused, Refusal::NotOurs { .. }), "{refused}");
    }
}

#[test]
fn old_rounds_are_forgotten_and_stay_unsigned() {
    let mut record = empty(0);
    let rounds = u32::try_from(ROUNDS_KEPT_MAX).expect("small") + 10;
    for round in 0..rounds {
        let vote = vote(VoteKind::Precommit, 1, round, 0);
        record = record.with(&Message::Vote(&vote), Signature::new([1; 64]));
    }
    assert_eq!(record.turns().len(), ROUNDS_KEPT_MAX);
    let refused = refusal(&record, &Message::Vote(&vote(VoteKind::Prevote, 1, 3, 1)));
    assert!(matches!(refused, Refusal::Order { .. }), "{refused}");
}
