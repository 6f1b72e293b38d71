//! Which block some bytes are, and in which rounds it may be decided.

mod common;

use common::{World, bad_signature, candidates, id, key, transfer};
use proofmill_chain::build::Candidates;
use proofmill_chain::codec;
use proofmill_chain::finality::{Turn, TurnError, check_turn};
use proofmill_chain::pipeline::{
    BlockError, DecodedBlock, IdentifiedBlock, identify, validate_identified,
};
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::units::{Amount, Round};

fn identified(world: &World, block: &Block) -> Result<IdentifiedBlock, BlockError> {
    let decoded = DecodedBlock::decode(&codec::encode(block)).expect("a block's encoding");
    identify(decoded, world.context().genesis, None)
}

/// A chain two blocks old, and the next block with two transfers.
fn world_and_block() -> (World, Block) {
    let mut world = World::new();
    world.idle(2);
    let transfers = [
        world.tx(&key("alice"), transfer(id("bob"), 1)),
        world.tx(&key("carol"), transfer(id("bob"), 2)),
    ];
    let candidates = candidates(&transfers, &[]);
    let block = world.build(Round::new(0), world.time_ms + 1_000, candidates);
    (world, block.block)
}

#[test]
fn a_block_is_identified_by_all_of_its_bytes() {
    let (world, block) = world_and_block();
    assert_eq!(block.transactions.len(), 2);
    let whole = identified(&world, &block).expect("its own bytes");
    assert_eq!(whole.hash(), block.header.hash());
    let sealed = validate_identified(whole, &world.context()).expect("valid");
    assert_eq!(sealed.hash(), block.header.hash());
    // Under the same header, so with the same hash, everything else is somebody else's.
    let changes: [fn(&mut Block); 7] = [
        |block| block.transactions.truncate(1),
        |block| block.transactions.swap(0, 1),
        |block| block.transactions[0].signature = bad_signature(),
        |block| block.outputs.push(Blob::new(vec![1])),
        |block| block.last_certificate = None,
        |block| {
            let certificate = block.last_certificate.as_mut().expect("the third block");
            certificate.signatures[0].signature = bad_signature();
        },
        |block| block.proposer_signature = bad_signature(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = block.clone();
        change(&mut changed);
        assert_ne!(changed, block, "change {index}");
        assert_eq!(changed.header.hash(), block.header.hash());
        identified(&world, &changed).expect_err("not the block's bytes");
    }
}

#[test]
fn a_block_that_breaks_a_rule_is_identified_all_the_same() {
    let (world, _) = world_and_block();
    // Signed and committed to by its header: the fault is the block's own.
    let invalid = world.forge(|block| block.header.base_fee = Amount::new(12_345));
    let invalid = identified(&world, &invalid).expect("its own bytes");
    let error = validate_identified(invalid, &world.context()).expect_err("invalid");
    assert!(matches!(error, BlockError::Header { .. }), "{error}");
}

#[test]
fn a_block_is_decided_in_its_round_or_later_and_built_by_that_rounds_proposer() {
    let world = World::new();
    let set = world.context().parent_validators;
    for built in [0, 1, 5] {
        let block = world.build(Round::new(built), world.time_ms + 1, Candidates::default());
        let turn = block.block.header.turn();
        for decided in 0..8 {
            let expected = if decided < built {
                Err(TurnError::LaterRound {
                    built: Round::new(built),
                    round: Round::new(decided),
                })
            } else {
                Ok(())
            };
            assert_eq!(check_turn(&turn, set, Round::new(decided)), expected);
        }
        let foreign = Turn {
            proposer: id("stranger"),
            ..turn
        };
        let error = check_turn(&foreign, set, Round::new(7)).expect_err("out of turn");
        assert!(matches!(error, TurnError::Proposer { given, .. } if given == id("stranger")));
    }
}
