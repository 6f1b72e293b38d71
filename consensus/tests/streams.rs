//! Parts on their way: what makes a block, whose fault it is when they do not, and what gives way to what
//! when there is no room.

mod core_rig;

use core_rig::{BLOCK_BYTES_MAX, Block, Rig, peer, rig_and_block, round_of_others, sign};
use proofmill_chain::types::hash::Signature;
use proofmill_chain::types::units::Height;
use proofmill_consensus::core::{
    COLLECTED_BLOCKS_MAX, COLLECTED_PER_VALIDATOR_MAX, PART_BYTES, Part, PartMessage, split,
};

#[test]
fn parts_in_any_order_make_the_block() {
    let (_, block) = rig_and_block();
    let without_body = block.bytes().len() - block.body.len();
    for length in [
        without_body + 1,
        PART_BYTES,
        PART_BYTES + 1,
        3 * PART_BYTES - 5,
    ] {
        for reversed in [false, true] {
            let (mut rig, mut block) = rig_and_block();
            block.body = (0..=250).cycle().take(length - without_body).collect();
            let (announcement, signature) = block.announced_in(block.round);
            let mut parts = split(&announcement, signature, &block.bytes());
            assert_eq!(parts.len(), 1 + length.div_ceil(PART_BYTES));
            if reversed {
                parts.reverse();
            }
            let last = parts.split_off(parts.len() - 1);
            rig.parts(&peer(1), parts);
            assert!(rig.judged.is_empty());
            rig.parts(&peer(1), last);
            assert!(rig.was_handed(&block, true));
            assert_eq!(rig.core.bytes_held(), block.bytes().len());
        }
    }
}

#[test]
fn parts_of_two_publishers_do_not_mix() {
    let (mut rig, mut block) = rig_and_block();
    block.body = vec![5; 2 * PART_BYTES];
    let (announcement, signature) = block.announced_in(block.round);
    for (index, part) in split(&announcement, signature, &block.bytes())
        .into_iter()
        .enumerate()
    {
        let from = peer(u8::from(index == 1));
        rig.parts(&from, vec![part]);
    }
    assert!(rig.judged.is_empty() && rig.penalised.is_empty());
}

#[test]
fn a_stream_that_contradicts_its_announcement_is_its_publishers_fault() {
    let (mut rig, mut block) = rig_and_block();
    block.body = vec![5; PART_BYTES];
    let (announcement, _) = block.announced_in(block.round);
    let mut shorter = announcement;
    shorter.size -= 1;
    let signature = sign(block.proposer, &shorter);
    rig.stream(&peer(1), (shorter, signature), &block.bytes());
    let mut foreign = split(&shorter, signature, &block.bytes());
    foreign[0].stream = announcement.stream();
    foreign.truncate(1);
    rig.parts(&peer(2), foreign);
    let height = Height::new(1);
    assert_eq!(rig.penalised, [(peer(1), height), (peer(2), height)]);
    assert!(rig.judged.is_empty());
    assert_eq!(rig.core.bytes_held(), 0);
}

#[test]
fn what_strangers_send_without_an_announcement_is_bounded() {
    let (mut rig, block) = rig_and_block();
    let mut whole = split(
        &block.announced_in(block.round).0,
        Signature::new([0; 64]),
        &vec![1; BLOCK_BYTES_MAX],
    );
    whole.remove(0);
    for tag in 0..100 {
        for stream in 0..5_u8 {
            for part in &whole {
                let mut part = part.clone();
                part.stream = proofmill_chain::types::hash::Hash::new([stream + 1; 32]);
                rig.parts(&peer(tag), vec![part]);
                let held = rig.core.bytes_held();
                assert!(held <= COLLECTED_BLOCKS_MAX * BLOCK_BYTES_MAX + PART_BYTES);
            }
        }
    }
    rig.propose(&peer(200), &block);
    assert!(rig.was_handed(&block, true));
}

/// A block of many parts in others' turn, its stream, and the last part of that.
fn long_stream(block: &mut Block) -> (Vec<PartMessage>, Vec<PartMessage>) {
    block.body = vec![5; 5 * PART_BYTES];
    let (announcement, signature) = block.announced_in(block.round);
    let mut parts = split(&announcement, signature, &block.bytes());
    let last = parts.split_off(parts.len() - 1);
    (parts, last)
}

/// A valid announcement once more, under a key that was made up for it, with some junk.
fn replayed(parts: &[PartMessage]) -> Vec<PartMessage> {
    let mut replayed = parts[..2].to_vec();
    if let Part::Data { bytes, .. } = &mut replayed[1].part {
        *bytes = vec![0; PART_BYTES].into();
    }
    replayed
}

#[test]
fn a_replayed_announcement_displaces_no_stream_that_came_before() {
    // All through one neighbour, or each through a connection of its own.
    for relayed in [true, false] {
        let (mut rig, mut block) = rig_and_block();
        let (parts, last) = long_stream(&mut block);
        let (neighbour, publisher) = (peer(1), peer(2));
        rig.parts_by(&neighbour, &publisher, parts.clone());
        for key in 10..210 {
            let from = if relayed {
                neighbour.clone()
            } else {
                peer(key)
            };
            rig.parts_by(&from, &peer(key), replayed(&parts));
        }
        rig.parts_by(&neighbour, &publisher, last);
        assert!(rig.was_handed(&block, true), "relayed: {relayed}");
    }
}

#[test]
fn a_neighbours_replays_displace_no_other_neighbours_stream() {
    let (mut rig, mut block) = rig_and_block();
    let (mut parts, last) = long_stream(&mut block);
    let flood = |rig: &mut Rig, keys: std::ops::Range<u8>, parts: &[PartMessage]| {
        for key in keys {
            rig.parts_by(&peer(9), &peer(key), replayed(parts));
        }
    };
    // It is there before the honest stream begins, and in the middle of it.
    flood(&mut rig, 10..100, &parts);
    let rest = parts.split_off(1);
    rig.parts_by(&peer(1), &peer(2), parts.clone());
    parts.extend(rest.clone());
    flood(&mut rig, 100..210, &parts);
    rig.parts_by(&peer(1), &peer(2), rest);
    rig.parts_by(&peer(1), &peer(2), last);
    assert!(rig.was_handed(&block, true));
}

#[test]
fn one_validators_streams_take_half_of_the_room_at_most() {
    let (mut rig, mut block) = rig_and_block();
    block.body = vec![5; BLOCK_BYTES_MAX - 200];
    let (announcement, signature) = block.announced_in(block.round);
    let mut whole = split(&announcement, signature, &block.bytes());
    whole.pop();
    for key in 10..60 {
        rig.parts_by(&peer(key), &peer(key), whole.clone());
        let held = rig.core.bytes_held();
        assert!(
            held <= COLLECTED_PER_VALIDATOR_MAX * BLOCK_BYTES_MAX,
            "{held}"
        );
    }
    assert!(rig.core.bytes_held() > (COLLECTED_PER_VALIDATOR_MAX - 1) * BLOCK_BYTES_MAX);
}

#[test]
fn what_is_collected_is_forgotten_when_heights_are_committed() {
    let mut rig = Rig::new();
    let mut junk = split(
        &Block::new(1, 0).announced_in(0).0,
        Signature::new([0; 64]),
        &vec![1; PART_BYTES],
    );
    junk.remove(0);
    // Its announcement never comes.
    rig.parts(&peer(7), junk);
    assert_eq!(rig.core.bytes_held(), PART_BYTES);
    for height in 1..=2 {
        let round = round_of_others(height, 0);
        rig.start_round(height, round);
        let block = Block::new(height, round);
        rig.propose(&peer(1), &block);
        rig.decide(&block, round);
    }
    assert_eq!(rig.core.bytes_held(), 0);
}
