//! The rules of the pool of attestations.

use proofmill_chain::codec;
use proofmill_chain::task::Readiness::{Later, Never, Now, Unseen};
use proofmill_chain::types::hash::{Blob, Hash, Signature};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, ResultClaim, ResultStatus, SignedAttestation, Statement,
};
use proofmill_chain::types::units::{Gas, Height};

use super::{genesis, id};
use crate::mempool::{
    ATTESTATIONS_EARLY_BLOCKS, ATTESTATIONS_EARLY_PER_WORKER, AttestationError, AttestationLimits,
    AttestationPool,
};

const HEAD: Height = Height::new(7);

fn attestation(worker: u8, draw: u8, reveal: bool, output: usize) -> AttestationMessage {
    let statement = if reveal {
        Statement::Reveal {
            claim: ResultClaim {
                output_hash: Hash::ZERO,
                trace_root: Hash::ZERO,
                gas: Gas::new(1),
                status: ResultStatus::Done,
            },
            salt: Hash::ZERO,
        }
    } else {
        Statement::Commit {
            commitment: Hash::ZERO,
        }
    };
    AttestationMessage {
        signed: SignedAttestation {
            attestation: Attestation {
                task: Hash::of("test/task", &[]),
                draw,
                worker: id(worker),
                statement,
            },
            signature: Signature::new([worker; 64]),
        },
        output: Blob::new(vec![0; output]),
    }
}

#[test]
fn a_seat_speaks_once_in_each_phase() {
    let mut pool = AttestationPool::new(genesis(), AttestationLimits::default());
    let first = pool
        .insert(attestation(1, 0, false, 0), Now, HEAD)
        .expect("is taken");
    let known = Err(AttestationError::Known { id: first });
    assert_eq!(pool.insert(attestation(1, 0, false, 0), Now, HEAD), known);
    let mut other = attestation(1, 0, false, 0);
    other.signed.attestation.statement = Statement::Commit {
        commitment: Hash::of("another", &[]),
    };
    let taken = Err(AttestationError::SeatTaken { waiting: first });
    assert_eq!(pool.insert(other.clone(), Now, HEAD), taken);
    pool.insert(attestation(1, 0, true, 5), Now, HEAD)
        .expect("is taken");
    pool.insert(attestation(1, 1, false, 0), Now, HEAD)
        .expect("is taken");
    pool.insert(attestation(2, 0, false, 0), Now, HEAD)
        .expect("is taken");
    assert_eq!(pool.len(), 4);
    assert!(pool.contains(&first));
    assert_eq!(pool.get(&first), Some(&attestation(1, 0, false, 0)));

    // What is pruned makes room for another statement.
    pool.update(HEAD, |message| {
        if message.signed.attestation.worker == id(1) {
            Never
        } else {
            Now
        }
    });
    assert_eq!(pool.len(), 1);
    assert_eq!(pool.get(&first), None);
    pool.insert(other, Now, HEAD).expect("is taken");
}

#[test]
fn the_pool_of_attestations_keeps_its_bounds() {
    let size = |output| codec::encode(&attestation(1, 0, true, output)).len();
    let limits = AttestationLimits {
        bytes_max: size(100) + size(0),
        count_max: 2,
    };
    let mut pool = AttestationPool::new(genesis(), limits);
    pool.insert(attestation(1, 0, true, 100), Now, HEAD)
        .expect("is taken");
    let full = Err(AttestationError::Full);
    assert_eq!(pool.insert(attestation(2, 0, true, 1), Now, HEAD), full);
    pool.insert(attestation(2, 0, true, 0), Now, HEAD)
        .expect("is taken");
    assert_eq!(pool.bytes(), limits.bytes_max);
    assert_eq!(pool.insert(attestation(3, 0, false, 0), Now, HEAD), full);

    let workers = |messages: Vec<AttestationMessage>| -> Vec<u8> {
        let worker = |message: &AttestationMessage| message.signed.attestation.worker;
        messages
            .iter()
            .map(|message| worker(message).as_bytes()[0])
            .collect()
    };
    assert_eq!(workers(pool.select(usize::MAX, 9)), [1, 2]);
    assert_eq!(workers(pool.select(usize::MAX, 1)), [1]);
    assert_eq!(workers(pool.select(size(100) - 1, 9)), [2]);
    assert_eq!(pool.iter().count(), 2);
    pool.update(HEAD, |_| Never);
    assert!(pool.is_empty());
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn early_attestations_take_no_room_from_those_that_a_block_can_carry() {
    let mut pool = AttestationPool::new(genesis(), AttestationLimits::default());
    let of = |task: &str, worker, reveal, output| {
        let mut message = attestation(worker, 0, reveal, output);
        message.signed.attestation.task = Hash::of(task, &[]);
        message
    };
    for worker in 1..=20 {
        let early = of("never committed", worker, true, 60_000);
        pool.insert(early, Later, HEAD).expect("is taken");
    }
    let follows = of("committing", 30, true, 100);
    pool.insert(follows.clone(), Later, HEAD).expect("is taken");
    let commitment = of("committing", 31, false, 0);
    pool.insert(commitment.clone(), Now, HEAD)
        .expect("is taken");
    // The first to arrive are early and fill the room; no block could carry one of them.
    assert_eq!(pool.select(1_000_000, 20), [commitment, follows]);
}

#[test]
fn a_worker_has_few_early_attestations_and_they_do_not_stay() {
    let mut pool = AttestationPool::new(genesis(), AttestationLimits::default());
    assert_eq!(
        pool.insert(attestation(1, 0, false, 0), Never, HEAD),
        Err(AttestationError::NoSeat)
    );
    assert_eq!(
        pool.insert(attestation(1, 0, false, 0), Unseen, HEAD),
        Err(AttestationError::Unseen)
    );
    let most = ATTESTATIONS_EARLY_PER_WORKER;
    for draw in 0..u8::try_from(most).expect("few") {
        let early = attestation(1, draw, false, 0);
        pool.insert(early, Later, HEAD).expect("is taken");
    }
    let full = Err(AttestationError::WorkerFull { most });
    assert_eq!(pool.insert(attestation(1, 99, false, 0), Later, HEAD), full);
    assert!(!pool.has_ready());
    // Its seats, and other workers, are not concerned.
    pool.insert(attestation(1, 99, false, 0), Now, HEAD)
        .expect("is taken");
    pool.insert(attestation(2, 0, false, 0), Later, HEAD)
        .expect("is taken");
    assert!(pool.has_ready());

    // Seats of the first two draws are there.
    let drawn = |message: &AttestationMessage| match message.signed.attestation.draw {
        0 | 1 => Now,
        _ => Later,
    };
    let last = HEAD.saturating_plus(ATTESTATIONS_EARLY_BLOCKS);
    pool.update(HEAD.saturating_plus(ATTESTATIONS_EARLY_BLOCKS - 1), drawn);
    assert_eq!(pool.len(), most + 2);
    // The worker has room again.
    pool.insert(attestation(1, 100, false, 0), Later, last)
        .expect("is taken");
    pool.update(last, drawn);
    let mut left: Vec<_> = pool
        .iter()
        .map(|message| {
            let attestation = &message.signed.attestation;
            (attestation.worker, attestation.draw)
        })
        .collect();
    left.sort_unstable();
    let mut expected = vec![(id(1), 0), (id(1), 1), (id(1), 100), (id(2), 0)];
    expected.sort_unstable();
    assert_eq!(left, expected);
}
