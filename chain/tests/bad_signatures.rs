//! Wherever wrong signatures stand in a batch or a block, exactly they are named: at the ends, at the
//! borders of chunks, several in one chunk and in many, on every backend and any number of threads.

mod common;

use std::sync::LazyLock;

use common::seeds::{POOLS, Random, each_seed};
use common::{World, bad_signature, both_ways, candidates, claim, id, key, nonce, terms, transfer};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{BATCH_CHUNK_MAX, Backend, BatchSecret, Item, Verifier};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, Context, SeenTransactions, VerifyError};
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::{AccountId, Signature};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::Round;

fn verifiers() -> Vec<Verifier> {
    [Backend::Portable, Backend::Ifma]
        .into_iter()
        .filter_map(|backend| {
            let verifier = Verifier::with(BatchSecret::new([0x61; 32]), backend, 500);
            if verifier.is_err() {
                eprintln!("SKIPPED for the backend {backend}, which this processor lacks");
            }
            verifier.ok()
        })
        .collect()
}

static VERIFIERS: LazyLock<Vec<Verifier>> = LazyLock::new(verifiers);

struct Signed {
    key: AccountId,
    message: [u8; 8],
    good: Signature,
    bad: Signature,
}

/// Five thousand signatures under 1,700 keys, each with a wrong one beside it: another s, another R,
/// an s that is not canonical, an R that is no point, a signature of another message.
static SIGNED: LazyLock<Vec<Signed>> = LazyLock::new(|| {
    (0..5_000_u64)
        .map(|number| {
            let mut seed = [0x33; 32];
            seed[..8].copy_from_slice(&(number % 1_700).to_le_bytes());
            let secret = SecretKey::from_seed(&seed);
            let message = number.to_le_bytes();
            let good = secret.sign(&message);
            let mut bad = *good.as_bytes();
            match number % 5 {
                0 => bad[32] ^= 1,
                1 => bad[0] ^= 1,
                2 => bad[63] |= 0x20,
                3 => bad[..32].copy_from_slice(&[2; 32]),
                _ => bad = *secret.sign(b"another").as_bytes(),
            }
            Signed {
                key: secret.public(),
                message,
                good,
                bad: Signature::new(bad),
            }
        })
        .collect()
});

/// Every backend names exactly these as wrong in a batch of `size`.
fn check(size: usize, wrong: &[usize]) {
    let items: Vec<_> = SIGNED[..size]
        .iter()
        .enumerate()
        .map(|(at, signed)| Item {
            key: signed.key.as_bytes(),
            message: &signed.message,
            signature: if wrong.contains(&at) {
                signed.bad.as_bytes()
            } else {
                signed.good.as_bytes()
            },
        })
        .collect();
    for verifier in VERIFIERS.iter() {
        let verdicts = verifier.verify_batch(&items);
        assert_eq!(verdicts.len(), size);
        let named: Vec<_> = (0..size).filter(|at| !verdicts[*at]).collect();
        let mut wrong: Vec<_> = wrong.to_vec();
        wrong.sort_unstable();
        wrong.dedup();
        assert_eq!(named, wrong, "{verifier:?}, {size} signatures");
    }
}

/// Where a batch that is cut into so many equal chunks has its borders.
fn borders(size: usize, chunks: usize) -> Vec<usize> {
    let length = size.div_ceil(chunks).max(1);
    (1..chunks)
        .map(|chunk| chunk * length)
        .filter(|border| *border < size)
        .collect()
}

#[test]
fn in_a_small_batch_the_first_the_last_and_those_at_any_border_are_named() {
    each_seed(1, |random| {
        for size in 1..=300 {
            let chunks = 2 + random.index(10);
            let at_borders: Vec<_> = borders(size, chunks)
                .into_iter()
                .flat_map(|border| [border - 1, border])
                .collect();
            let some = || vec![0, size - 1];
            let wrong = match (size % 6, at_borders.is_empty()) {
                (0, _) => vec![0],
                (1, _) => vec![size - 1],
                (2, _) | (_, true) => some(),
                (3, _) => at_borders,
                (4, _) => vec![random.pick(&at_borders)],
                _ => (0..4).map(|_| random.index(size)).collect(),
            };
            random
                .pick(&[&POOLS[0], &POOLS[1], &POOLS[2], &POOLS[3]])
                .install(|| check(size, &wrong));
        }
    });
}

#[test]
fn every_single_place_of_a_batch_is_found() {
    for size in [1, 2, 3, 4, 5, 8, 31, 32, 33, 64, 65] {
        for place in 0..size {
            POOLS[place % POOLS.len()].install(|| check(size, &[place]));
        }
    }
}

#[test]
fn in_a_large_batch_the_bad_of_one_chunk_and_of_many_are_named() {
    let most = BATCH_CHUNK_MAX;
    let mut random = Random::new(7);
    for (turn, size) in [
        1_000,
        most,
        most + 1,
        2 * most - 1,
        2 * most + 1,
        3_000,
        5_000,
    ]
    .into_iter()
    .enumerate()
    {
        let inside = random.index(size - 40);
        let cases = [
            vec![0],
            vec![size - 1],
            // One on each side of every border, for each number of chunks that there may be.
            (1..=8)
                .flat_map(|chunks| borders(size, chunks))
                .flat_map(|border| [border - 1, border])
                .collect(),
            // Neighbours in one chunk; the ends and one inside.
            (inside..inside + 40).step_by(3).collect(),
            vec![0, inside, size - 1],
        ];
        for (case, wrong) in cases.iter().enumerate() {
            POOLS[(turn + case) % POOLS.len()].install(|| check(size, wrong));
        }
    }
}

#[test]
fn a_batch_in_which_all_or_all_but_one_are_wrong_is_told_apart() {
    // On one thread the fourth is one chunk, the largest that there is.
    for size in [1, 4, 33, BATCH_CHUNK_MAX, BATCH_CHUNK_MAX + 76] {
        let all: Vec<_> = (0..size).collect();
        let but = |good: usize| all.iter().copied().filter(|at| *at != good).collect();
        let cases: [Vec<_>; 5] = [
            all.clone(),
            Vec::new(),
            but(0),
            but(size / 2),
            but(size - 1),
        ];
        for wrong in cases {
            POOLS[0].install(|| check(size, &wrong));
        }
    }
}

/// Three hundred transactions of three senders, some of them sponsored, with a registration.
fn world() -> (World, Block) {
    let mut world = World::new();
    world.idle(1);
    let senders = ["alice", "bob", "carol"];
    let list: Vec<_> = (0..300_u64)
        .map(|number| {
            let who = usize::try_from(number % 3).expect("small");
            let action = match number {
                297 => world.register(senders[who], "worker-9", terms(), 50_000),
                _ => transfer(id("bob"), 1 + number),
            };
            world.tx_with(&key(senders[who]), action, |t| {
                t.nonce = nonce(number / 3);
                t.sponsor = (number % 10 == 9).then(|| id("operator-0"));
            })
        })
        .collect();
    let built = world.build(Round::new(0), world.time_ms + 1_000, candidates(&list, &[]));
    assert_eq!(built.block.transactions, list);
    (world, built.block)
}

/// The one verdict of all pools and backends.
fn verdict(world: &World, block: &Block, seen: Option<&SeenTransactions>) -> Option<BlockError> {
    let bytes = codec::encode(block);
    let mut errors = Vec::new();
    for verifier in VERIFIERS.iter() {
        for pool in POOLS.iter() {
            let context = Context {
                verifier,
                seen,
                ..world.context()
            };
            errors.push(pool.install(|| both_ways(&bytes, &context).err()));
        }
    }
    let first = errors.swap_remove(0);
    assert!(errors.iter().all(|error| *error == first), "{errors:?}");
    first
}

/// The block with these signatures made wrong; its proposer signs it all the same.
fn with_wrong(world: &World, block: &Block, wrong: impl FnOnce(&mut Block)) -> Block {
    world.forge(|next| {
        *next = block.clone();
        wrong(next);
    })
}

#[test]
fn a_block_names_the_first_of_its_wrong_signatures() {
    let (world, block) = world();
    assert_eq!(verdict(&world, &block, None), None);
    for places in [
        &[0][..],
        &[299],
        &[255, 256],
        &[256, 255, 298],
        &[149, 150],
        &[31, 32, 63, 64],
        &[299, 0],
    ] {
        let forged = with_wrong(&world, &block, |next| {
            for place in places {
                next.transactions[*place].signature = bad_signature();
            }
        });
        let index = places.iter().copied().min().expect("there are some");
        let key = block.transactions[index].transaction.sender;
        let what = "transaction";
        let expected = BlockError::Signature { what, index, key };
        assert_eq!(verdict(&world, &forged, None), Some(expected));
    }
}

#[test]
fn what_was_seen_does_not_shift_the_place_that_is_named() {
    let (world, block) = world();
    let name = |signed: &SignedTransaction| merkle::leaf_hash(&codec::encode(signed));
    for (place, known) in [(299, 0..299), (100, 0..100), (100, 101..300), (7, 3..290)] {
        let forged = with_wrong(&world, &block, |next| {
            next.transactions[place].signature = bad_signature();
        });
        let seen = SeenTransactions::new(1_000, 0x9e37_79b9_7f4a_7c15);
        // The good ones: that of the wrong place has another name.
        for signed in &block.transactions[known] {
            seen.insert(&name(signed));
        }
        let expected = BlockError::Signature {
            what: "transaction",
            index: place,
            key: block.transactions[place].transaction.sender,
        };
        assert_eq!(verdict(&world, &forged, Some(&seen)), Some(expected));
    }
}

#[test]
fn the_senders_signature_the_sponsors_and_the_workers_are_told_apart() {
    let (world, block) = world();
    let sponsored = 9;
    let senders_own = block.transactions[sponsored].signature;
    type Wrong<'a> = &'a dyn Fn(&mut SignedTransaction);
    let cases: [(usize, &str, AccountId, Wrong<'_>); 4] = [
        (
            sponsored,
            "sponsored transaction",
            id("operator-0"),
            &|signed| signed.sponsor_signature = Some(bad_signature()),
        ),
        // What the sender signed is not what the sponsor must sign.
        (
            sponsored,
            "sponsored transaction",
            id("operator-0"),
            &|signed| signed.sponsor_signature = Some(senders_own),
        ),
        // Both are wrong: the sender's is named.
        (sponsored, "transaction", id("alice"), &|signed| {
            signed.signature = bad_signature();
            signed.sponsor_signature = Some(bad_signature());
        }),
        (
            297,
            "worker consent in transaction",
            id("worker-9"),
            &|signed| {
                let Action::RegisterWorker { consent, .. } = &mut signed.transaction.action else {
                    panic!("it registers");
                };
                *consent = bad_signature();
                *signed = world.sign(signed.transaction.clone(), &key("alice"));
            },
        ),
    ];
    for (index, what, key, wrong) in cases {
        let forged = with_wrong(&world, &block, |next| {
            wrong(&mut next.transactions[index]);
            // A later one does not come first.
            next.transactions[299].signature = bad_signature();
        });
        let error = |index| Some(BlockError::Signature { what, index, key });
        assert_eq!(verdict(&world, &forged, None), error(index));
        let alone = world.verified_beside(&block.transactions[0], &forged.transactions[index]);
        assert_eq!(
            alone,
            Err(VerifyError::Signature { what, key }),
            "as a mempool sees it"
        );
    }
}

#[test]
fn of_many_attestations_the_wrong_one_is_named_and_transactions_come_first() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let commits = world.commits(task, &claim(b"output", 1));
    let transactions = [world.tx(&key("alice"), transfer(id("bob"), 1))];
    let built = world.build(
        Round::new(0),
        world.time_ms + 1_000,
        candidates(&transactions, &commits),
    );
    let block = built.block;
    assert_eq!(block.attestations.len(), 3);
    assert_eq!(verdict(&world, &block, None), None);
    for index in 0..3 {
        let forged = with_wrong(&world, &block, |next| {
            for signed in &mut next.attestations[index..] {
                signed.signature = bad_signature();
            }
        });
        let expected = BlockError::Signature {
            what: "attestation",
            index,
            key: block.attestations[index].attestation.worker,
        };
        assert_eq!(verdict(&world, &forged, None), Some(expected));
        let forged = with_wrong(&world, &forged, |next| {
            next.transactions[0].signature = bad_signature();
        });
        let expected = BlockError::Signature {
            what: "transaction",
            index: 0,
            key: id("alice"),
        };
        assert_eq!(verdict(&world, &forged, None), Some(expected));
    }
}
