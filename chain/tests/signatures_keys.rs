//! Which keys are admitted, and what a verifier remembers of them without any effect on verdicts.

use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{
    Backend, BatchSecret, Item, KeyError, Verifier, VerifierError, admit_encoding, admit_key,
    verify_each,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

const SECRET: BatchSecret = BatchSecret::new([0x17; 32]);

/// A verifier for each backend that this processor supports.
fn verifiers(keys_max: usize) -> Vec<Verifier> {
    let verifiers: Vec<_> = [Backend::Portable, Backend::Ifma]
        .into_iter()
        .filter_map(|backend| Verifier::with(SECRET, backend, keys_max).ok())
        .collect();
    if verifiers.len() == 1 {
        eprintln!("SKIPPED for the backend avx512-ifma, which this processor lacks");
    }
    verifiers
}

/// The rule for keys as it reads: the encoding is what the point is compressed to.
fn by_compression(key: &[u8; 32]) -> Result<(), KeyError> {
    let point = CompressedEdwardsY(*key)
        .decompress()
        .filter(|point| point.compress().as_bytes() == key)
        .ok_or(KeyError::NotCanonical)?;
    if point.is_small_order() {
        return Err(KeyError::SmallOrder);
    }
    Ok(())
}

/// Encodings around every border: small numbers, numbers around the modulus, small orders with
/// both signs and as numbers above the modulus, points of mixed order.
fn edges() -> Vec<[u8; 32]> {
    let mut edges = Vec::new();
    for sign in [0, 0x80] {
        for low in 0..=255 {
            let mut least = [0; 32];
            least[0] = low;
            least[31] = sign;
            let mut greatest = [0xff; 32];
            greatest[0] = low;
            greatest[31] = 0x7f | sign;
            edges.extend([least, greatest]);
        }
    }
    for torsion in EIGHT_TORSION {
        for number in 0_u64..4 {
            let point = &Scalar::from(number) * ED25519_BASEPOINT_TABLE + torsion;
            let mut bytes = point.compress().to_bytes();
            edges.push(bytes);
            bytes[31] ^= 0x80;
            edges.push(bytes);
            bytes[0] ^= 1;
            edges.push(bytes);
        }
    }
    edges
}

#[test]
fn admission_is_the_rule_at_every_edge() {
    let edges = edges();
    let expected: Vec<_> = edges.iter().map(by_compression).collect();
    for verdict in [
        Ok(()),
        Err(KeyError::NotCanonical),
        Err(KeyError::SmallOrder),
    ] {
        assert!(expected.contains(&verdict), "{verdict:?}");
    }
    let borrowed: Vec<_> = edges.iter().collect();
    for (key, expected) in edges.iter().zip(&expected) {
        assert_eq!(admit_key(key), *expected, "{key:x?}");
        let is_point = CompressedEdwardsY(*key).decompress().is_some();
        assert!(
            admit_encoding(key) == *expected || !is_point,
            "the encoding tells all of {key:x?}"
        );
    }
    for keys_max in [0, 3, 10_000] {
        for verifier in verifiers(keys_max) {
            // Keys that are known for other reasons are admitted no sooner.
            verifier.warm(&borrowed[..700]);
            assert_eq!(verifier.admit_keys(&borrowed), expected, "{verifier:?}");
            assert_eq!(verifier.admit_keys(&borrowed), expected, "{verifier:?}");
        }
    }
}

#[test]
fn a_refused_encoding_is_a_refused_key() {
    for (at, bytes) in EIGHT_TORSION
        .iter()
        .map(|p| p.compress().to_bytes())
        .enumerate()
    {
        assert_eq!(admit_encoding(&bytes), Err(KeyError::SmallOrder), "{at}");
    }
    let mut minus_zero = [0; 32];
    minus_zero[0] = 1;
    minus_zero[31] = 0x80;
    assert_eq!(admit_encoding(&minus_zero), Err(KeyError::NotCanonical));
    // No point, which takes a square root to find out.
    let mut two = [0; 32];
    two[0] = 2;
    assert_eq!(admit_encoding(&two), Ok(()));
    assert_eq!(admit_key(&two), Err(KeyError::NotCanonical));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn admission_is_the_rule_for_any_bytes(keys in vec(any::<[u8; 32]>(), 0..40)) {
        let expected: Vec<_> = keys.iter().map(by_compression).collect();
        let each: Vec<_> = keys.iter().map(admit_key).collect();
        prop_assert_eq!(&each, &expected);
        let borrowed: Vec<_> = keys.iter().collect();
        for verifier in verifiers(20) {
            prop_assert_eq!(&verifier.admit_keys(&borrowed), &expected);
        }
    }
}

struct Signed {
    key: [u8; 32],
    message: [u8; 8],
    signature: [u8; 64],
}

fn signed(number: u64) -> Signed {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let secret = SecretKey::from_seed(&seed);
    let message = number.to_le_bytes();
    Signed {
        key: *secret.public().as_bytes(),
        message,
        signature: *secret.sign(&message).as_bytes(),
    }
}

fn items(signed: &[Signed]) -> Vec<Item<'_>> {
    signed
        .iter()
        .map(|signed| Item {
            key: &signed.key,
            message: &signed.message,
            signature: &signed.signature,
        })
        .collect()
}

#[test]
fn verdicts_are_the_same_whatever_is_remembered() {
    let mut all: Vec<_> = (0..600).map(signed).collect();
    for (at, signed) in all.iter_mut().enumerate() {
        match at % 50 {
            17 => signed.signature[40] ^= 4,
            23 => signed.key[3] ^= 1,
            31 => signed.signature[2] ^= 1,
            _ => {}
        }
    }
    let items = items(&all);
    let expected = verify_each(&items);
    assert!(expected.contains(&false) && expected.contains(&true));
    for keys_max in [0, 1, 5, 64, 300, 100_000] {
        for verifier in verifiers(keys_max) {
            for _ in 0..3 {
                assert_eq!(verifier.verify_batch(&items), expected, "{keys_max} keys");
            }
            for part in items.chunks(37) {
                let expected = verify_each(part);
                assert_eq!(verifier.verify_batch(part), expected, "{keys_max} keys");
            }
        }
    }
}

#[test]
fn a_verifier_is_shared_by_threads() {
    use rayon::prelude::*;
    let all: Vec<_> = (0..300).map(signed).collect();
    let items = items(&all);
    for verifier in verifiers(100) {
        let good = (0..64_usize).into_par_iter().all(|turn| {
            let part = &items[turn * 3..turn * 3 + 100];
            verifier.verify_batch(part) == [true; 100]
        });
        assert!(good, "{verifier:?}");
    }
}

#[test]
fn only_keys_that_signed_or_were_admitted_become_known() {
    let (admitted, stranger) = (signed(33), signed(34));
    let mut batch: Vec<_> = (0..8).map(signed).collect();
    batch[1].signature[50] ^= 1;
    let expected = [true, false, true, true, true, true, true, true];
    let small_order = EIGHT_TORSION[1].compress().to_bytes();
    for verifier in verifiers(1000) {
        assert_eq!(verifier.verify_batch(&items(&batch)), expected);
        let verdicts = verifier.admit_keys(&[&admitted.key, &small_order]);
        assert_eq!(verdicts, [Ok(()), Err(KeyError::SmallOrder)]);
        let known = [&batch[0], &batch[1], &admitted, &stranger];
        let known = known.map(|signed| verifier.knows(&signed.key));
        assert_eq!(known, [true, false, true, false], "{verifier:?}");
        assert!(!verifier.knows(&small_order));
        verifier.warm(&[&stranger.key]);
        assert!(verifier.knows(&stranger.key));
    }
}

#[test]
fn a_backend_that_the_processor_lacks_is_refused_and_never_detected() {
    assert!(Backend::Portable.is_supported());
    assert!(Backend::detect().is_supported());
    assert_eq!(Verifier::new(SECRET).backend(), Backend::detect());
    for backend in [Backend::Portable, Backend::Ifma] {
        let verifier = Verifier::with(SECRET, backend, 10);
        if backend.is_supported() {
            assert_eq!(verifier.map(|verifier| verifier.backend()), Ok(backend));
        } else {
            assert_eq!(verifier.err(), Some(VerifierError::Unsupported(backend)));
        }
    }
    assert_eq!(Backend::Portable.to_string(), "portable");
    assert_eq!(
        VerifierError::Unsupported(Backend::Ifma).to_string(),
        "this processor does not support avx512-ifma"
    );
}
