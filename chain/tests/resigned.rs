//! One transaction under many valid signatures: it counts once, and each signature is looked at.

mod common;

use common::raw_key::RawKey;
use common::{FUNDS, STEP_MS, World, both_ways, candidates, id, key, nonce, transfer};
use curve25519_dalek::scalar::Scalar;
use proofmill_chain::codec;
use proofmill_chain::execute::{ExecuteError, Inadmissible};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, Context, SeenTransactions};
use proofmill_chain::types::genesis::GenesisAccount;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::transaction::{SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Round};

/// A world in which a key that signs in many ways has grain, and its transfer to bob.
fn many_signatures() -> (World, RawKey, Transaction) {
    let signer = RawKey::new(Scalar::from(0x5eed_5eed_u64));
    let mut world = World::with(|genesis| {
        genesis.accounts.push(GenesisAccount {
            id: signer.id,
            balance: Amount::new(FUNDS),
        });
    });
    world.idle(1);
    let transaction = Transaction {
        chain: world.id.prefix(),
        sender: signer.id,
        nonce: nonce(0),
        max_fee: Amount::new(1 << 20),
        tip: Amount::new(1),
        expires_at: Height::new(100),
        sponsor: None,
        action: transfer(id("bob"), 5),
    };
    (world, signer, transaction)
}

fn built_hash(world: &World, list: &[SignedTransaction]) -> (Hash, Hash, Hash) {
    let time_ms = world.time_ms + STEP_MS;
    let built = world.build(Round::new(0), time_ms, candidates(list, &[]));
    assert_eq!(built.block.transactions, list);
    let header = &world
        .validate(&built.block)
        .expect("it is valid")
        .block()
        .header
        .clone();
    (built.hash, header.state_root, header.receipts_root)
}

#[test]
fn a_transaction_stands_in_a_block_once_whatever_its_signatures_are() {
    let (mut world, signer, transaction) = many_signatures();
    let [first, second] = [0, 1].map(|salt| signer.signed(transaction.clone(), &world.id, salt));
    assert_ne!(first.signature, second.signature);
    // Either is good, and does the same.
    let (hash, state, receipts) = built_hash(&world, core::slice::from_ref(&first));
    let (other_hash, other_state, other_receipts) =
        built_hash(&world, core::slice::from_ref(&second));
    assert_eq!((state, receipts), (other_state, other_receipts));
    assert_ne!(hash, other_hash);
    // Both, or one twice, are too many.
    let between = world.tx(&key("alice"), transfer(signer.id, 1));
    let again = Inadmissible::Nonce {
        expected: nonce(1),
        received: nonce(0),
    };
    for later in [&first, &second] {
        let list = vec![first.clone(), between.clone(), later.clone()];
        let block = world.forge(|block| block.transactions = list.clone());
        assert_eq!(
            world.validate(&block).map(|sealed| sealed.hash()),
            Err(BlockError::Execute(ExecuteError::Transaction {
                index: 2,
                error: again.clone()
            }))
        );
        let time_ms = world.time_ms + STEP_MS;
        let built = world.build(Round::new(0), time_ms, candidates(&list, &[]));
        assert_eq!(built.block.transactions, list[..2]);
        let id = first.transaction.id(&world.id);
        assert_eq!(built.refused, vec![(id, again.clone())]);
    }
    // Nor does it come again in a later block.
    world.advance(candidates(&[first], &[]));
    assert_eq!(world.inadmissible(&second), again);
}

#[test]
fn what_was_seen_vouches_for_no_other_signature_of_the_same_transaction() {
    let (world, signer, transaction) = many_signatures();
    let good = signer.signed(transaction, &world.id, 0);
    let seen = SeenTransactions::new(64, 0x9e37_79b9_7f4a_7c15);
    seen.insert(&merkle::leaf_hash(&codec::encode(&good)));
    let context = Context {
        seen: Some(&seen),
        ..world.context()
    };
    // The same signature with the group's order added to s, with R negated, and with a sign set.
    let mut plus_order = *good.signature.as_bytes();
    let order = (Scalar::ZERO - Scalar::ONE).to_bytes();
    let mut carry = 1;
    for (byte, add) in plus_order[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    let mut negated = *good.signature.as_bytes();
    negated[31] ^= 0x80;
    let mut high = *good.signature.as_bytes();
    high[63] |= 0x80;
    for bytes in [plus_order, negated, high] {
        let mut bad = good.clone();
        bad.signature = Signature::new(bytes);
        let built = world.build(
            Round::new(0),
            world.time_ms + STEP_MS,
            candidates(core::slice::from_ref(&bad), &[]),
        );
        assert_eq!(built.block.transactions, [bad]);
        let key: AccountId = signer.id;
        assert_eq!(
            both_ways(&codec::encode(&built.block), &context).map(|sealed| sealed.hash()),
            Err(BlockError::Signature {
                what: "transaction",
                index: 0,
                key
            })
        );
    }
    let built = world.build(
        Round::new(0),
        world.time_ms + STEP_MS,
        candidates(core::slice::from_ref(&good), &[]),
    );
    assert!(both_ways(&codec::encode(&built.block), &context).is_ok());
}
