//! What proves a block: certificate, proposer, beacon and signatures, each refused when it does not.

mod common;

use common::{World, bad_signature, claim, id, key, nonce, terms, transfer};
use proofmill_chain::check::{BlockCheckError, TransactionError};
use proofmill_chain::crypto::verify::KeyError;
use proofmill_chain::crypto::vrf;
use proofmill_chain::execute::{ExecuteError, Inadmissible, beacon_message, next_beacon};
use proofmill_chain::finality::{CertificateError, verify_certificate};
use proofmill_chain::pipeline::{BlockError, VerifyError};
use proofmill_chain::types::block::{Block, Certificate};
use proofmill_chain::types::hash::{AccountId, Hash, VrfOutput};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Height, Round, Weight};

fn refused(world: &World, block: &Block) -> BlockError {
    world
        .validate(block)
        .map(|sealed| sealed.hash())
        .expect_err("the block is invalid")
}

/// A chain two blocks old.
fn world() -> World {
    let mut world = World::new();
    world.idle(2);
    world
}

#[test]
fn a_certificate_stands_in_every_block_but_the_first() {
    let first = World::new();
    let mut later = first.clone();
    later.idle(1);
    let unwanted = first.forge(|block| {
        block.last_certificate = Some(Certificate {
            height: Height::ZERO,
            round: Round::new(0),
            block: first.parent,
            signatures: Vec::new(),
        });
    });
    assert_eq!(refused(&first, &unwanted), BlockError::CertificatePresence);
    let missing = later.forge(|block| block.last_certificate = None);
    assert_eq!(refused(&later, &missing), BlockError::CertificatePresence);
}

#[test]
fn a_certificate_that_proves_nothing_says_why() {
    let world = world();
    let all = ["validator-0", "validator-1", "validator-2", "validator-3"];
    let change = |change: &dyn Fn(&mut Certificate)| {
        let mut certificate = world.certify(Round::new(0), &all);
        change(&mut certificate);
        certificate
    };
    let by = |names: &[&str]| world.certify(Round::new(0), names);
    let stranger = id("stranger");
    let first = change(&|_| {}).signatures[0].validator;
    let cases = [
        (
            change(&|c| c.height = Height::new(1)),
            CertificateError::Height {
                given: Height::new(1),
                expected: Height::new(2),
            },
        ),
        (
            change(&|c| c.block = Hash::ZERO),
            CertificateError::Block {
                given: Hash::ZERO,
                expected: world.parent,
            },
        ),
        (
            change(&|c| c.signatures.swap(0, 1)),
            CertificateError::Order,
        ),
        (
            change(&|c| c.signatures[1] = c.signatures[0]),
            CertificateError::Order,
        ),
        (
            by(&["validator-0", "validator-1", "validator-2", "stranger"]),
            CertificateError::Stranger(stranger),
        ),
        (
            change(&|c| c.signatures[0].signature = bad_signature()),
            CertificateError::Signature(first),
        ),
        // The precommits are of round 0.
        (
            change(&|c| c.round = Round::new(1)),
            CertificateError::Signature(first),
        ),
        (
            by(&["validator-0", "validator-2"]),
            CertificateError::Power {
                given: Weight::new(6),
                total: Weight::new(10),
            },
        ),
        (
            by(&[]),
            CertificateError::Power {
                given: Weight::ZERO,
                total: Weight::new(10),
            },
        ),
    ];
    for (certificate, error) in cases {
        assert_eq!(
            verify_certificate(
                &world.id,
                &world.validators,
                world.height,
                &world.parent,
                &certificate
            ),
            Err(error.clone())
        );
        let block = world.forge(|block| block.last_certificate = Some(certificate));
        assert_eq!(refused(&world, &block), BlockError::Certificate(error));
    }
    // Seven of ten are more than two thirds.
    let enough = by(&["validator-0", "validator-1"]);
    let block = world.forge(|block| block.last_certificate = Some(enough));
    assert!(world.validate(&block).is_ok());
}

#[test]
fn a_proposers_signature_or_beacon_that_does_not_verify_is_refused() {
    let world = world();
    let mut block = world.forge(|_| {});
    block.proposer_signature = bad_signature();
    assert_eq!(refused(&world, &block), BlockError::ProposerSignature);

    let proposer = world.proposer(Round::new(0)).clone();
    let height = world.height.next();
    let beacon = world.chain().beacon;
    let message = beacon_message(&world.id, &beacon, height);
    let forged = |key: &str, message: &[u8]| {
        let secret = common::key(key);
        world.forge(|block| {
            (block.header.beacon_proof, block.header.beacon_output) = vrf::prove(&secret, message);
        })
    };
    let later = beacon_message(&world.id, &beacon, height.next());
    let other_beacon = beacon_message(&world.id, &Hash::ZERO, height);
    let own = (0..4)
        .map(|n| format!("beacon-{n}"))
        .find(|name| id(name) == proposer.beacon_key)
        .expect("the proposer is one of four");
    for block in [
        forged("stranger", &message),
        forged(&own, &later),
        forged(&own, &other_beacon),
        world.forge(|block| block.header.beacon_output = VrfOutput::new([1; 64])),
    ] {
        assert_eq!(refused(&world, &block), BlockError::Beacon);
    }
    let block = forged(&own, &message);
    let sealed = world.validate(&block).expect("its own proof verifies");
    let mut after = world.clone();
    after.apply(&sealed);
    assert_eq!(
        after.chain().beacon,
        next_beacon(&beacon, &block.header.beacon_output)
    );
}

#[test]
fn every_signature_in_a_block_is_verified() {
    let (mut world, spec) = World::with_program(|_| {});
    let task = world.drawn(&spec);
    let fine = world.tx(&key("alice"), transfer(id("bob"), 1));
    let mut sender = world.tx(&key("bob"), transfer(id("alice"), 1));
    sender.signature = bad_signature();
    let mut sponsor = world.tx_with(&key("bob"), transfer(id("alice"), 1), |t| {
        t.sponsor = Some(id("carol"));
    });
    sponsor.sponsor_signature = Some(bad_signature());
    let mut register = world.register("bob", "worker-9", terms(), 50_000);
    if let Action::RegisterWorker { consent, .. } = &mut register {
        *consent = bad_signature();
    }
    // A consent given to another operator.
    let Action::RegisterWorker { consent: other, .. } =
        world.register("alice", "worker-9", terms(), 50_000)
    else {
        panic!("a registration is expected");
    };
    let mut borrowed = register.clone();
    if let Action::RegisterWorker { consent, .. } = &mut borrowed {
        *consent = other;
    }
    // Signed for another chain: the signed bytes hold the whole genesis hash.
    let elsewhere = World::with(|genesis| genesis.chain_id = "devnet-other".to_owned());
    let mut replayed = world.tx(&key("bob"), transfer(id("alice"), 1));
    replayed.signature = elsewhere
        .sign(replayed.transaction.clone(), &key("bob"))
        .signature;
    let cases = [
        (sender, "transaction", id("bob")),
        (replayed, "transaction", id("bob")),
        (sponsor, "sponsored transaction", id("carol")),
        (
            world.tx(&key("bob"), register),
            "worker consent in transaction",
            id("worker-9"),
        ),
        (
            world.tx(&key("bob"), borrowed),
            "worker consent in transaction",
            id("worker-9"),
        ),
    ];
    for (bad, what, key) in cases {
        let alone = world.verified_beside(&fine, &bad);
        let block = world.forge(|block| block.transactions = vec![fine.clone(), bad]);
        let error = |index| BlockError::Signature { what, index, key };
        assert_eq!(refused(&world, &block), error(1));
        assert_eq!(alone, Err(VerifyError::Signature { what, key }));
    }
    let mut commit = world.commit(task, 0, &claim(b"output", 1)).signed;
    commit.signature = bad_signature();
    assert_eq!(
        refused(
            &world,
            &world.forge(|block| block.attestations = vec![commit])
        ),
        BlockError::Signature {
            what: "attestation",
            index: 0,
            key: commit.attestation.worker
        }
    );
    assert_eq!(world.verified_beside(&fine, &fine), Ok(()));
}

#[test]
fn of_all_that_is_wrong_the_signed_is_told_first_and_execution_last() {
    let world = world();
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let nowhere = AccountId::new(no_point);
    let late = world.tx_with(&key("alice"), transfer(id("bob"), 1), |t| {
        t.nonce = nonce(7)
    });
    let mut unsigned = world.tx(&key("carol"), transfer(id("bob"), 1));
    unsigned.signature = bad_signature();
    let mut list = [late, world.tx(&key("bob"), transfer(nowhere, 1)), unsigned];
    let forged =
        |list: &[SignedTransaction]| world.forge(|block| block.transactions = list.to_vec());

    let mut block = forged(&list);
    block.proposer_signature = bad_signature();
    assert_eq!(refused(&world, &block), BlockError::ProposerSignature);
    let signature = BlockError::Signature {
        what: "transaction",
        index: 2,
        key: id("carol"),
    };
    assert_eq!(refused(&world, &forged(&list)), signature);
    list[2] = world.tx(&key("carol"), transfer(id("bob"), 1));
    let recipient = BlockError::Check(BlockCheckError::Transaction {
        index: 1,
        error: TransactionError::Key {
            role: "recipient",
            key: nowhere,
            error: KeyError::NotCanonical,
        },
    });
    assert_eq!(refused(&world, &forged(&list)), recipient);
    list[1] = world.tx(&key("bob"), transfer(id("alice"), 1));
    let execution = BlockError::Execute(ExecuteError::Transaction {
        index: 0,
        error: Inadmissible::Nonce {
            expected: nonce(0),
            received: nonce(7),
        },
    });
    assert_eq!(refused(&world, &forged(&list)), execution);
    list[0] = world.tx(&key("alice"), transfer(id("bob"), 1));
    // Nothing is left but the roots, which were never made for these.
    assert!(matches!(
        refused(&world, &forged(&list)),
        BlockError::Seal { .. }
    ));
}
