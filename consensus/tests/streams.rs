//! Parts on their way: what makes a block, whose fault it is when they do not, and what gives way to what
//! when there is no room.

mod core_rig;

use core_rig::{
    BLOCK_BYTES_MAX, Block, ME, Rig, peer, proposer, rig_and_block, round_of_others, sign,
};
use proofmill_chain::types::hash::{Hash, Signature};
use proofmill_chain::types::units::Height;
use proofmill_consensus::core::{
    COLLECTED_BLOCKS_MAX, COLLECTED_PER_VALIDATOR_MAX, PART_BYTES, Part, PartMessage,
    UNCLAIMED_MAX, UNCLAIMED_PER_NEIGHBOUR_MAX, split,
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
fn parts_of_two_publishers_make_one_block() {
    let (mut rig, mut block) = rig_and_block();
    let (mut parts, last) = long_stream(&mut block);
    parts.extend(last);
    for (index, part) in parts.into_iter().enumerate() {
        let publisher = peer(u8::from(index % 2 == 1));
        rig.parts(&publisher, vec![part]);
    }
    assert!(rig.was_handed(&block, true) && rig.penalised.is_empty());
}

#[test]
fn what_is_no_part_of_its_announcement_is_its_publishers_fault() {
    let (mut rig, mut block) = rig_and_block();
    let (parts, last) = long_stream(&mut block);
    rig.parts(&peer(1), parts.clone());
    let held = rig.core.bytes_held();
    let altered_last = |change: &dyn Fn(&mut PartMessage)| {
        let mut part = last[0].clone();
        change(&mut part);
        part
    };
    let junk = [
        // The announcement in a stream that is not its own, and at a place that is not its own.
        PartMessage {
            stream: Hash::new([1; 32]),
            ..parts[0].clone()
        },
        PartMessage {
            sequence: 1,
            ..parts[0].clone()
        },
        // It with the hashes of other parts, or with one too few.
        with_hashes(&parts[0], |hashes| hashes[0] = Hash::ZERO),
        with_hashes(&parts[0], |hashes| hashes.truncate(5)),
        // A part outside of the block, one at another's place, one that is longer, one with other bytes.
        altered_last(&|part| part.sequence += 1),
        PartMessage {
            sequence: last[0].sequence,
            ..parts[1].clone()
        },
        altered_last(&|part| part.part = Part::Data(vec![5; 100].into())),
        altered_last(&|part| part.part = Part::Data(vec![6; LAST_BYTES].into())),
    ];
    for (part, tag) in junk.into_iter().zip(10..) {
        rig.parts(&peer(tag), vec![part]);
        let blamed = rig.penalised.last();
        assert_eq!(blamed, Some(&(peer(tag), Height::new(1))), "{tag}");
        assert_eq!(rig.core.bytes_held(), held, "{tag}");
    }
    rig.parts(&peer(1), last);
    assert!(rig.was_handed(&block, true) && rig.accused.is_empty());
}

#[test]
fn a_forged_signature_touches_no_stream() {
    let (mut rig, mut block) = rig_and_block();
    let (parts, last) = long_stream(&mut block);
    rig.parts(&peer(1), parts.clone());
    let mut forged = parts[0].clone();
    if let Part::Init(announcement, signature, _) = &mut forged.part {
        *signature = sign(ME, announcement);
    }
    rig.parts(&peer(2), vec![forged]);
    assert_eq!(rig.penalised, [(peer(2), Height::new(1))]);
    rig.parts(&peer(1), last);
    assert!(rig.was_handed(&block, true));
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
                part.stream = Hash::new([stream + 1; 32]);
                rig.parts(&peer(tag), vec![part]);
                let held = rig.core.bytes_held();
                let of_neighbours = (usize::from(tag) + 1) * UNCLAIMED_PER_NEIGHBOUR_MAX;
                assert!(held <= of_neighbours.min(UNCLAIMED_MAX) * PART_BYTES);
                assert!(held <= COLLECTED_BLOCKS_MAX * BLOCK_BYTES_MAX);
            }
        }
    }
    rig.propose(&peer(200), &block);
    assert!(rig.was_handed(&block, true));
}

/// Bytes of the last part of a long stream: a block has 52 without its body.
const LAST_BYTES: usize = 52;

/// A block of many parts in others' turn, its stream, and the last part of that.
fn long_stream(block: &mut Block) -> (Vec<PartMessage>, Vec<PartMessage>) {
    block.body = (0..=250).cycle().take(5 * PART_BYTES).collect();
    let (announcement, signature) = block.announced_in(block.round);
    let mut parts = split(&announcement, signature, &block.bytes());
    let last = parts.split_off(parts.len() - 1);
    (parts, last)
}

/// An announcement with another list of hashes.
fn with_hashes(init: &PartMessage, change: impl Fn(&mut Vec<Hash>)) -> PartMessage {
    let mut init = init.clone();
    if let Part::Init(_, _, hashes) = &mut init.part {
        change(hashes);
    }
    init
}

/// A valid announcement once more, with some junk.
fn altered(parts: &[PartMessage]) -> Vec<PartMessage> {
    let mut altered = parts[..2].to_vec();
    altered[1].part = Part::Data(vec![0; PART_BYTES].into());
    altered
}

#[test]
fn sixteen_altered_copies_through_the_same_neighbour_do_not_keep_the_block_out() {
    // Each with the announcement first, or the junk first.
    for reversed in [false, true] {
        let (mut rig, mut block) = rig_and_block();
        let (parts, last) = long_stream(&mut block);
        let (neighbour, publisher) = (peer(1), peer(2));
        let mut copies: Vec<(u8, PartMessage)> = Vec::new();
        for key in 10..26 {
            let altered = altered(&parts);
            copies.extend(altered.into_iter().map(|part| (key, part)));
        }
        if reversed {
            copies.sort_by_key(|(_, part)| std::cmp::Reverse(part.sequence));
        }
        for (key, part) in copies {
            rig.parts_by(&neighbour, &peer(key), vec![part]);
        }
        let blamed: Vec<_> = (10..26).map(|key| (peer(key), Height::new(1))).collect();
        assert_eq!(rig.penalised, blamed, "reversed: {reversed}");
        assert_eq!(rig.core.bytes_held(), 0, "junk is not kept");
        rig.parts_by(&neighbour, &publisher, parts);
        rig.parts_by(&neighbour, &publisher, last);
        assert!(rig.was_handed(&block, true), "reversed: {reversed}");
    }
}

#[test]
fn altered_copies_in_the_middle_of_a_stream_displace_nothing() {
    // All through one neighbour, or each through a connection of its own.
    for relayed in [true, false] {
        let (mut rig, mut block) = rig_and_block();
        let (parts, last) = long_stream(&mut block);
        let (neighbour, publisher) = (peer(1), peer(2));
        rig.parts_by(&neighbour, &publisher, parts.clone());
        let held = rig.core.bytes_held();
        for key in 10..210 {
            let from = if relayed {
                neighbour.clone()
            } else {
                peer(key)
            };
            let mut junk = altered(&parts);
            junk[1].sequence = last[0].sequence;
            rig.parts_by(&from, &peer(key), junk);
            assert_eq!(rig.core.bytes_held(), held);
        }
        rig.parts_by(&neighbour, &publisher, last);
        assert!(rig.was_handed(&block, true), "relayed: {relayed}");
    }
}

#[test]
fn a_neighbours_early_parts_displace_no_other_neighbours() {
    let (mut rig, mut block) = rig_and_block();
    let (mut parts, last) = long_stream(&mut block);
    let rest = parts.split_off(1);
    rig.parts_by(&peer(1), &peer(2), rest);
    rig.parts_by(&peer(1), &peer(2), last);
    for key in 10..210 {
        let junk = PartMessage {
            stream: Hash::new([key; 32]),
            sequence: 1,
            part: Part::Data(vec![0; PART_BYTES].into()),
        };
        rig.parts_by(&peer(9), &peer(key), vec![junk]);
    }
    rig.parts_by(&peer(1), &peer(2), parts);
    assert!(rig.was_handed(&block, true));
}

#[test]
fn an_offender_does_not_drop_the_early_parts_of_others() {
    let (mut rig, mut block) = rig_and_block();
    let (parts, last) = long_stream(&mut block);
    let init = parts[0].clone();
    let offence = with_hashes(&init, |hashes| hashes[0] = Hash::ZERO);
    rig.parts(&peer(3), vec![offence]);
    assert_eq!(rig.penalised, [(peer(3), Height::new(1))]);
    rig.parts(&peer(1), parts[1..].to_vec());
    // Its announcement is the true one, and refused because of who sends it.
    rig.parts(&peer(3), vec![init.clone()]);
    rig.parts(&peer(1), last);
    rig.parts(&peer(1), vec![init]);
    assert!(rig.was_handed(&block, true));
}

#[test]
fn one_validators_streams_take_half_of_the_room_and_its_nearest_turn_stays() {
    let mut rig = Rig::new();
    let mut nearest = None;
    let mut begun = 0;
    for round in (0..=10).filter(|round| proposer(1, *round) == 0) {
        for tag in [1, 2] {
            let mut block = Block::new(1, round);
            block.body = vec![tag; BLOCK_BYTES_MAX - 200];
            let (announcement, signature) = block.announced_in(round);
            let mut whole = split(&announcement, signature, &block.bytes());
            let last = whole.split_off(whole.len() - 1);
            rig.parts(&peer(tag), whole);
            nearest.get_or_insert((block, last));
            begun += 1;
            let held = rig.core.bytes_held();
            assert!(
                held <= COLLECTED_PER_VALIDATOR_MAX * BLOCK_BYTES_MAX,
                "{held}"
            );
        }
    }
    assert!(begun > COLLECTED_PER_VALIDATOR_MAX, "{begun}");
    assert!(rig.core.bytes_held() > (COLLECTED_PER_VALIDATOR_MAX - 1) * BLOCK_BYTES_MAX);
    let (block, last) = nearest.expect("it has turns");
    rig.parts(&peer(1), last);
    rig.start_round(1, block.round);
    assert!(rig.was_handed(&block, true));
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
