//! What the adapter's core decides: verdicts, early and certified blocks, rounds and pacing.

mod core_rig;

use core_rig::{
    BLOCK_BYTES_MAX, Block, ME, POWERS, Rig, START_MS, facts_of, key, peer, proposer,
    rig_and_block, round_of_others, sign,
};
use proofmill_chain::types::units::{Height, Round};
use proofmill_consensus::UndecidedProposal;
use proofmill_consensus::core::{
    ANNOUNCEMENTS_PER_TURN_MAX, Announcement, Answer, CLOCK_DRIFT_MS_MAX, Command, Event, Stored,
    SyncOutcome, Timer, WAITING_BLOCKS_MAX, WAITING_PER_VALIDATOR_MAX, parts_root, split,
};

#[test]
fn junk_under_an_honest_hash_says_nothing_of_the_block() {
    let (mut rig, block) = rig_and_block();
    let announced = block.announced_in(block.round);
    let undecodable = vec![7; 20];
    let mut other = block.clone();
    other.body = b"ydob".to_vec();
    let mut shorter = announced;
    shorter.0.size = 20;
    shorter.0.parts = parts_root(&undecodable);
    shorter.1 = sign(block.proposer, &shorter.0);
    // Bytes of another block under the honest announcement are their sender's fault.
    rig.stream(&peer(1), announced, &other.bytes());
    let height = Height::new(1);
    assert_eq!(rig.penalised, [(peer(1), height)]);
    assert!(rig.accused.is_empty());
    // Bytes that are no block and were announced as they are, are the proposer's fault, once.
    rig.stream(&peer(2), shorter, &undecodable);
    rig.stream(&peer(4), shorter, &undecodable);
    assert_eq!(rig.penalised.len(), 1);
    let proposer = key(block.proposer).public();
    assert_eq!(rig.accused, [(proposer, height)]);
    let inspected = |command: &&Command| matches!(command, Command::Inspect { .. });
    assert_eq!(rig.log.iter().filter(inspected).count(), 1);
    assert!(rig.handed.is_empty() && rig.judged.is_empty() && rig.stored.is_empty());
    // The sender is not heard again at this height, the block's own proposer is.
    rig.stream(&peer(1), announced, &block.bytes());
    assert!(rig.judged.is_empty());
    rig.stream(&peer(3), announced, &block.bytes());
    assert!(rig.was_handed(&block, true), "{:?}", rig.handed);
    // The block that is decided is committed with its own bytes.
    rig.decide(&block, block.round);
    let committed = rig.log.iter().find_map(|command| match command {
        Command::Commit { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    assert_eq!(committed, Some(block.bytes()));
}

#[test]
fn what_is_sent_again_carries_the_signature_that_belongs_to_it() {
    let round = round_of_others(1, 1);
    let block = Block::new(1, round);
    let plain = block.announced_in(round);
    let again = |change: &dyn Fn(&mut Announcement)| {
        let (mut announcement, _) = plain;
        change(&mut announcement);
        (announcement, sign(block.proposer, &announcement))
    };
    // One block twice in a round, and once with a size that it does not have.
    let locked = again(&|announcement| announcement.pol_round = Some(Round::default()));
    let longer = again(&|announcement| announcement.size += 1);
    for [first, second] in [
        [plain, locked],
        [locked, plain],
        [plain, longer],
        [longer, plain],
    ] {
        let mut rig = Rig::new();
        rig.start_round(1, round);
        rig.stream(&peer(1), first, &block.bytes());
        rig.stream(&peer(2), plain, &block.bytes());
        rig.stream(&peer(3), second, &block.bytes());
        rig.take(Event::RestreamWanted {
            height: Height::new(1),
            round: Round::new(round),
            pol_round: None,
            proposer: plain.0.proposer,
            block: block.hash(),
        });
        let sent = rig.log.iter().filter_map(|command| match command {
            Command::Publish {
                announcement,
                signature,
                ..
            } => Some((*announcement, *signature)),
            _ => None,
        });
        let sent: Vec<_> = sent.collect();
        assert_eq!(sent.len(), 1, "{first:?} {second:?}");
        for (announcement, signature) in sent {
            assert_eq!(signature, sign(block.proposer, &announcement));
        }
    }
}

#[test]
fn an_invalid_block_is_voted_against_once_its_bytes_are_known() {
    let (mut rig, block) = rig_and_block();
    rig.invalid.insert(block.hash());
    rig.propose(&peer(1), &block);
    assert!(rig.was_handed(&block, false));
    assert!(rig.stored.is_empty(), "an invalid block costs no disk");
    // Proposed again in a later round, it needs no bytes.
    let round = round_of_others(1, block.round + 1);
    rig.start_round(1, round);
    let (announcement, signature) = block.announced_in(round);
    let mut parts = split(&announcement, signature, &block.bytes());
    parts.truncate(1);
    rig.parts(&peer(2), parts);
    let again = rig.handed.last().expect("handed over");
    assert_eq!((again.round, again.valid), (Round::new(round), false));
    assert_eq!(rig.judged.len(), 1);
}

#[test]
fn a_block_from_the_future_waits_for_its_time_and_nothing_waits_for_it() {
    let (mut rig, block) = rig_and_block();
    let block = block.at(START_MS + CLOCK_DRIFT_MS_MAX + 100);
    rig.propose(&peer(1), &block);
    assert!(rig.judged.is_empty() && rig.stored.is_empty() && rig.handed.is_empty());
    assert_eq!(rig.timer_ms, Some(100));
    // Requests are answered meanwhile.
    assert!(rig.start_round(1, block.round + 1).is_empty());
    rig.now.clock_ms += 100;
    rig.take(Event::TimerElapsed(Timer::EarlyBlocks));
    assert!(rig.was_handed(&block, true));
}

#[test]
fn a_clock_that_is_set_right_is_seen_within_half_a_second() {
    let (mut rig, block) = rig_and_block();
    let two_hours = 2 * 3_600_000;
    let block = block.at(START_MS + two_hours);
    rig.propose(&peer(1), &block);
    assert!(rig.timer_ms.is_some_and(|wait| wait <= 500));
    rig.take(Event::TimerElapsed(Timer::EarlyBlocks));
    assert!(rig.handed.is_empty());
    rig.now.clock_ms += two_hours;
    rig.take(Event::TimerElapsed(Timer::EarlyBlocks));
    assert!(rig.was_handed(&block, true));
}

#[test]
fn a_certified_block_is_never_held_for_the_clock() {
    let mut rig = Rig::new();
    for height in 1..=3 {
        let block = Block::new(height, 0).at(START_MS + 600_000 + height);
        let outcome = rig.sync(&block, 0);
        assert!(matches!(outcome, SyncOutcome::Valid(_)), "{outcome:?}");
        let ticket = rig.decide(&block, 0);
        // Nor does the next height wait while the node catches up.
        assert!(matches!(rig.answer(ticket), Answer::Start { .. }));
        rig.start_round(height + 1, 0);
    }
}

#[test]
fn early_blocks_of_one_validator_are_few_and_displace_nobody_elses() {
    let mut rig = Rig::new();
    rig.start_round(1, 0);
    let in_an_hour = START_MS + 3_600_000;
    let honest_round = round_of_others(1, 0);
    let honest = Block::new(1, honest_round).at(START_MS + CLOCK_DRIFT_MS_MAX + 1);
    rig.propose(&peer(1), &honest);
    let mut tried = 0;
    for round in 0..=10 {
        let builder = proposer(1, round);
        if builder == honest.proposer || builder == ME {
            continue;
        }
        for body in 0..50_u8 {
            let mut block = Block::new(1, round).at(in_an_hour);
            block.body = vec![body; 300_000];
            rig.propose(&peer(10 + body), &block);
            tried += 1;
        }
    }
    assert!(tried >= 200, "{tried}");
    let most = (POWERS.len() * WAITING_PER_VALIDATOR_MAX).min(WAITING_BLOCKS_MAX);
    assert!(rig.core.bytes_held() <= most * BLOCK_BYTES_MAX);
    assert!(rig.judged.is_empty() && rig.stored.is_empty());
    rig.now.clock_ms += 1;
    rig.start_round(1, honest_round);
    assert!(rig.was_handed(&honest, true));
    // What is early when its height is decided is forgotten.
    rig.decide(&honest, honest_round);
    assert_eq!(rig.core.bytes_held(), 0);
    rig.now.clock_ms = in_an_hour;
    rig.take(Event::TimerElapsed(Timer::EarlyBlocks));
    assert_eq!(rig.judged, [honest.hash()]);
}

#[test]
fn a_block_reaches_the_engine_only_when_its_round_has_begun() {
    let mut rig = Rig::new();
    let round = round_of_others(1, 5);
    let block = Block::new(1, round);
    rig.propose(&peer(1), &block);
    for before in 0..round {
        assert!(rig.start_round(1, before).is_empty());
        assert!(rig.handed.is_empty(), "handed over in round {before}");
    }
    rig.start_round(1, round);
    assert!(rig.was_handed(&block, true));
}

#[test]
fn a_block_proposed_before_its_round_is_refused_there_and_valid_in_its_own() {
    let mut rig = Rig::new();
    let early = round_of_others(1, 0);
    let own = round_of_others(1, early + 1);
    rig.start_round(1, early);
    let block = Block::new(1, own);
    rig.stream(&peer(1), block.announced_in(early), &block.bytes());
    let announcer = key(proposer(1, early)).public();
    assert_eq!(rig.accused, [(announcer, Height::new(1))]);
    assert!(rig.penalised.is_empty());
    assert!(rig.handed.is_empty() && rig.judged.is_empty());
    rig.start_round(1, own);
    rig.propose(&peer(2), &block);
    assert!(rig.was_handed(&block, true));
    // Known now, it is still no proposal of the earlier round.
    let handed = rig.handed.len();
    let (announcement, signature) = block.announced_in(early);
    let mut parts = split(&announcement, signature, &block.bytes());
    parts.truncate(1);
    rig.parts(&peer(3), parts);
    assert_eq!(rig.handed.len(), handed);
}

#[test]
fn a_waiting_block_is_not_condemned_by_who_announces_it_too_early() {
    let mut rig = Rig::new();
    let early = round_of_others(1, 0);
    let own = round_of_others(1, early + 1);
    let block = Block::new(1, own);
    rig.propose(&peer(1), &block);
    // It waits for its round when the proposer of an earlier one claims it.
    rig.stream(&peer(2), block.announced_in(early), &block.bytes());
    for round in 0..own {
        rig.start_round(1, round);
        assert!(rig.handed.is_empty(), "{:?}", rig.handed);
    }
    rig.start_round(1, own);
    assert!(rig.was_handed(&block, true));
}

#[test]
fn a_block_of_the_next_height_is_judged_when_its_parent_is_committed() {
    let (mut rig, parent) = rig_and_block();
    let round = round_of_others(2, 0);
    let block = Block::new(2, round);
    rig.propose(&peer(1), &block);
    // Nobody's turn but a validator's: it is found out when the height's validators are known.
    let bystander = (0..POWERS.len()).find(|index| ![block.proposer, ME].contains(index));
    let mut foreign = Block::new(2, round);
    foreign.proposer = bystander.expect("four validators");
    rig.stream(
        &peer(2),
        foreign.announced_by(foreign.proposer, round),
        &foreign.bytes(),
    );
    assert!(rig.judged.is_empty());
    rig.propose(&peer(3), &parent);
    rig.decide(&parent, parent.round);
    rig.start_round(2, round);
    assert!(rig.was_handed(&block, true));
    assert_eq!(rig.judged, [parent.hash(), block.hash()]);
    assert!(
        !rig.handed
            .iter()
            .any(|proposed| proposed.block == foreign.hash())
    );
}

#[test]
fn bytes_that_are_not_the_certified_block_are_neither_executed_nor_stored() {
    let mut rig = Rig::new();
    let certified = Block::new(1, 0);
    let mut other = certified.clone();
    other.body = b"ydob".to_vec();
    let outcome = rig.sync_as(&other, certified.hash(), 0);
    assert_eq!(outcome, SyncOutcome::PeerFault);
    assert!(rig.judged.is_empty() && rig.stored.is_empty() && rig.disagreed.is_empty());
    // Also when the other block is known and valid.
    let round = round_of_others(1, 0);
    let mut known = Block::new(1, round);
    known.body = b"known".to_vec();
    rig.start_round(1, round);
    rig.propose(&peer(1), &known);
    let outcome = rig.sync_as(&known, certified.hash(), round);
    assert_eq!(outcome, SyncOutcome::PeerFault);
    assert!(matches!(rig.sync(&certified, 0), SyncOutcome::Valid(_)));
}

#[test]
fn a_certified_block_that_is_invalid_here_is_no_peers_fault() {
    // Found out when it comes, or before, as a proposal.
    for proposed in [false, true] {
        let (mut rig, block) = rig_and_block();
        rig.invalid.insert(block.hash());
        if proposed {
            rig.propose(&peer(1), &block);
            assert!(rig.was_handed(&block, false));
        }
        assert_eq!(rig.sync(&block, block.round), SyncOutcome::OurFault);
        assert_eq!(rig.disagreed, [(block.hash(), "marked".to_owned())]);
        assert!(rig.stored.is_empty() && rig.penalised.is_empty());
        assert_eq!(rig.judged.len(), 1);
    }
}

#[test]
fn a_certified_block_against_the_rule_of_its_headers_turn_is_no_peers_fault() {
    let mut rig = Rig::new();
    let later = Block::new(1, 5);
    assert_eq!(rig.sync(&later, 0), SyncOutcome::OurFault);
    let mut foreign = Block::new(1, 0);
    foreign.proposer = (foreign.proposer + 1) % POWERS.len();
    assert_eq!(rig.sync(&foreign, 0), SyncOutcome::OurFault);
    let blocks: Vec<_> = rig.disagreed.iter().map(|(block, _)| *block).collect();
    assert_eq!(blocks, [later.hash(), foreign.hash()]);
    assert!(rig.judged.is_empty());
    assert!(matches!(rig.sync(&later, 5), SyncOutcome::Valid(_)));
}

#[test]
fn a_header_that_names_a_foreign_proposer_is_invalid_under_its_own_hash() {
    let (mut rig, mut block) = rig_and_block();
    block.proposer = (block.proposer + 1) % POWERS.len();
    rig.stream(&peer(1), block.announced_in(block.round), &block.bytes());
    assert!(rig.was_handed(&block, false));
    assert!(rig.judged.is_empty());
}

#[test]
fn nothing_is_collected_before_turn_and_signature_are_checked() {
    let (mut rig, block) = rig_and_block();
    let bystander = (0..POWERS.len()).find(|index| *index != block.proposer);
    let bystander = bystander.expect("four validators");
    // Out of turn, and forged.
    let out_of_turn = block.announced_by(bystander, block.round);
    rig.stream(&peer(1), out_of_turn, &block.bytes());
    let (announcement, _) = block.announced_in(block.round);
    let forged = (announcement, sign(bystander, &announcement));
    rig.stream(&peer(2), forged, &block.bytes());
    assert_eq!(rig.penalised, [(peer(2), Height::new(1))]);
    assert!(rig.judged.is_empty());
    assert_eq!(rig.core.bytes_held(), 0);
    // More announcements in one turn than prove a fault are not collected either.
    for body in 0..10 {
        let mut block = block.clone();
        block.body = vec![body; 10];
        rig.propose(&peer(3), &block);
    }
    assert_eq!(rig.judged.len(), ANNOUNCEMENTS_PER_TURN_MAX);
}

/// A rig that waits for work before height 2.
fn waiting_rig() -> (Rig, proofmill_consensus::core::Ticket) {
    let (mut rig, block) = rig_and_block();
    rig.propose(&peer(1), &block);
    let ticket = rig.decide(&block, block.round);
    assert!(rig.pacing && !rig.is_answered(ticket));
    (rig, ticket)
}

/// Announces a block of a turn without its bytes.
fn announce(rig: &mut Rig, height: u64, index: usize, round: u32) {
    let block = Block::new(height, round);
    let (announcement, signature) = block.announced_by(index, round);
    let mut parts = split(&announcement, signature, &block.bytes());
    parts.truncate(1);
    rig.parts(&peer(9), parts);
}

#[test]
fn the_round_0_proposer_of_the_next_height_ends_the_wait() {
    let (mut rig, ticket) = waiting_rig();
    announce(&mut rig, 2, proposer(2, 0), 0);
    assert!(matches!(rig.answer(ticket), Answer::Start { .. }));
    assert!(!rig.pacing);
}

#[test]
fn one_validator_with_later_turns_does_not_end_the_wait() {
    // The smallest validator but us, in all of its later turns and two heights ahead.
    let (mut rig, ticket) = waiting_rig();
    let lone = 2;
    let mut turns = 0;
    for round in 1..=10 {
        if proposer(2, round) == lone {
            announce(&mut rig, 2, lone, round);
            turns += 1;
        }
    }
    announce(&mut rig, 3, lone, 0);
    announce(&mut rig, 4, lone, 0);
    assert!(turns > 0, "it has turns");
    assert!(!rig.is_answered(ticket), "20 of 100 ended the wait");
    // With a second one it is more than a third.
    announce(&mut rig, 3, 1, 0);
    assert!(matches!(rig.answer(ticket), Answer::Start { .. }));
}

#[test]
fn our_own_block_is_stored_before_it_is_shown() {
    let mut rig = Rig::new();
    let round = (0..1_000).find(|round| proposer(1, *round) == ME);
    let round = round.expect("we have a turn");
    rig.start_round(1, round);
    let ticket = rig.ticket();
    rig.log.clear();
    rig.take(Event::ValueWanted {
        ticket,
        height: Height::new(1),
        round: Round::new(round),
    });
    let steps: Vec<_> = rig
        .log
        .iter()
        .map(|command| match command {
            Command::Build { .. } => "build",
            Command::Sign { .. } => "sign",
            Command::Store { .. } => "store",
            Command::Answer { .. } => "answer",
            Command::Publish { .. } => "publish",
            _ => "other",
        })
        .collect();
    assert_eq!(steps, ["build", "sign", "store", "answer", "publish"]);
    // Asked once more, it gives the same block.
    let Answer::Value { block, .. } = *rig.answer(ticket) else {
        panic!("no value");
    };
    let ticket = rig.ticket();
    rig.now.clock_ms += 1_000;
    rig.take(Event::ValueWanted {
        ticket,
        height: Height::new(1),
        round: Round::new(round),
    });
    assert!(matches!(rig.answer(ticket), Answer::Value { block: again, .. } if *again == block));
}

#[test]
fn bytes_stored_under_a_foreign_name_are_not_believed_after_a_restart() {
    let round = round_of_others(1, 0);
    let block = Block::new(1, round);
    let mut other = block.clone();
    other.body = b"ydob".to_vec();
    let (announcement, signature) = block.announced_in(round);
    let stored = |bytes: std::sync::Arc<[u8]>, valid| Stored {
        facts: facts_of(&bytes),
        proposal: UndecidedProposal {
            height: announcement.height,
            round: announcement.round,
            pol_round: None,
            proposer: announcement.proposer,
            hash: announcement.block,
            bytes,
            valid,
            signature: Some(signature),
        },
    };
    let mut rig = Rig::with_stored(vec![stored(other.bytes(), false)]);
    assert!(rig.start_round(1, round).is_empty());
    rig.propose(&peer(1), &block);
    assert!(rig.was_handed(&block, true));
    // The block's own bytes are.
    let mut rig = Rig::with_stored(vec![stored(block.bytes(), true)]);
    let given = rig.start_round(1, round).pop();
    assert!(round == 0 || given.is_some_and(|proposed| proposed.valid));
    rig.decide(&block, round);
}

#[test]
fn the_validators_clocks_are_known_by_their_new_blocks() {
    let mut rig = Rig::new();
    let hour = 3_600_000_i64;
    rig.now.clock_ms = START_MS - 3_600_000;
    let mut builders = std::collections::BTreeSet::new();
    for round in 0..=10 {
        let builder = proposer(1, round);
        if builder == ME || !builders.insert(builder) {
            continue;
        }
        rig.now.clock_ms += 1_000;
        rig.now.uptime_ms += 1_000;
        let time = rig.now.clock_ms + 3_600_000 - 40;
        rig.propose(&peer(1), &Block::new(1, round).at(time));
    }
    assert_eq!(builders.len(), 3, "every other validator has a turn");
    assert_eq!(rig.core.clocks_ahead_ms(rig.now), Some(hour - 40));
    // One validator alone does not tell, and a clock set right is right at once.
    assert_eq!(Rig::new().core.clocks_ahead_ms(rig.now), None);
    rig.now.clock_ms += 3_600_000;
    assert_eq!(rig.core.clocks_ahead_ms(rig.now), Some(-40));
}
