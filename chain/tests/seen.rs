//! What a node remembers to have verified, and what it keeps of a block's bytes, change no verdict.

mod common;

use common::{World, bad_signature, both_ways, candidates, id, key, transfer};
use proofmill_chain::check::{BlockCheckError, TransactionError};
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::KeyError;
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, Context, DecodedBlock, SeenTransactions};
use proofmill_chain::types::block::{BLOCK_BYTES_MAX, Block};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::Round;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use proptest::sample::Index;

/// A world, and its next block of transfers to an account that exists and to one that does not.
fn world() -> (World, Block) {
    let mut world = World::new();
    world.idle(2);
    let list = [
        world.tx(&key("alice"), transfer(id("bob"), 5)),
        world.tx(&key("bob"), transfer(id("newcomer"), 7)),
    ];
    let built = world.build(Round::new(0), world.time_ms + 1_000, candidates(&list, &[]));
    assert_eq!(built.block.transactions.len(), 2);
    (world, built.block)
}

fn name(signed: &SignedTransaction) -> Hash {
    merkle::leaf_hash(&codec::encode(signed))
}

fn seen(transactions: &[SignedTransaction]) -> SeenTransactions {
    let seen = SeenTransactions::new(64, 0x9e37_79b9_7f4a_7c15);
    transactions
        .iter()
        .for_each(|signed| seen.insert(&name(signed)));
    seen
}

fn verdict(world: &World, block: &Block, seen: &SeenTransactions) -> Result<Hash, BlockError> {
    let context = Context {
        seen: Some(seen),
        ..world.context()
    };
    both_ways(&codec::encode(block), &context).map(|sealed| {
        assert_eq!(sealed.patch().root(), block.header.state_root);
        sealed.hash()
    })
}

#[test]
fn a_block_is_the_same_whatever_of_it_was_seen() {
    let (world, block) = world();
    let hash = world.validate(&block).expect("it is valid").hash();
    for known in [0..0, 0..1, 1..2, 0..2] {
        let seen = seen(&block.transactions[known.clone()]);
        assert_eq!(verdict(&world, &block, &seen), Ok(hash), "{known:?}");
    }
}

#[test]
fn another_signature_on_a_transaction_that_was_seen_is_verified() {
    let (world, block) = world();
    let seen_good = seen(&block.transactions);
    let forged = world.forge(|next| {
        *next = block.clone();
        next.transactions[0].signature = bad_signature();
    });
    let refused = BlockError::Signature {
        what: "transaction",
        index: 0,
        key: id("alice"),
    };
    assert_eq!(verdict(&world, &forged, &seen_good), Err(refused));
    // What was seen is not verified again, or all this would show nothing.
    let seen_forged = seen(&forged.transactions);
    assert!(verdict(&world, &forged, &seen_forged).is_ok());
}

#[test]
fn a_new_recipient_that_is_no_point_makes_a_block_invalid() {
    let (world, block) = world();
    // The smallest y that no point has.
    let mut bytes = [0; 32];
    bytes[0] = 2;
    let nowhere = AccountId::new(bytes);
    let bad = world.tx(&key("bob"), transfer(nowhere, 7));
    let forged = world.forge(|next| {
        *next = block.clone();
        next.transactions[1] = bad.clone();
    });
    let refused = BlockError::Check(BlockCheckError::Transaction {
        index: 1,
        error: TransactionError::Key {
            role: "recipient",
            key: nowhere,
            error: KeyError::NotCanonical,
        },
    });
    assert_eq!(verdict(&world, &forged, &seen(&[])), Err(refused));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_decoded_block_is_what_the_codec_decodes(
        at in any::<Index>(),
        byte in any::<u8>(),
        length in any::<Index>(),
        cut in any::<bool>(),
    ) {
        let (_, block) = world();
        let mut bytes = codec::encode(&block);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(length.index(bytes.len() + 1));
        }
        let decoded = DecodedBlock::decode(&bytes);
        let expected = codec::decode::<Block, BLOCK_BYTES_MAX>(&bytes);
        prop_assert_eq!(decoded.is_ok(), expected.is_ok());
        if let (Ok(decoded), Ok(expected)) = (decoded, expected) {
            prop_assert_eq!(decoded.block(), &expected);
            prop_assert_eq!(&decoded.bytes()[..], bytes.as_slice());
            let (header, body) = decoded.header_and_body();
            let encoded = codec::encode(&expected.header);
            prop_assert_eq!(header, encoded.as_slice());
            prop_assert_eq!(body.len(), bytes.len() - header.len());
        }
    }
}
