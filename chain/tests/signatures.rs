//! ZIP-215 against published vectors, against ed25519-zebra and, in batches, against itself.

use std::sync::LazyLock;

use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{
    Backend, BatchSecret, Item, KeyError, Verifier, admit_key, verify, verify_each,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest};
use serde::Deserialize;
use sha2::{Digest, Sha512};

/// A verifier for each backend that this processor supports, with few keys, so that some are known
/// and some are not.
static VERIFIERS: LazyLock<Vec<Verifier>> = LazyLock::new(|| verifiers([0x42; 32], 64));
/// The order of the group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn verifiers(secret: [u8; 32], keys_max: usize) -> Vec<Verifier> {
    let verifiers: Vec<_> = [Backend::Portable, Backend::Ifma]
        .into_iter()
        .filter_map(|backend| Verifier::with(BatchSecret::new(secret), backend, keys_max).ok())
        .collect();
    if verifiers.len() == 1 {
        eprintln!("SKIPPED for the backend avx512-ifma, which this processor lacks");
    }
    verifiers
}

/// The verdicts on a batch, which every backend must give.
fn verify_batch(items: &[Item<'_>]) -> Vec<bool> {
    same_verdicts(&VERIFIERS, items)
}

fn same_verdicts(verifiers: &[Verifier], items: &[Item<'_>]) -> Vec<bool> {
    let mut verdicts: Vec<_> = verifiers
        .iter()
        .map(|verifier| verifier.verify_batch(items))
        .collect();
    let verdict = verdicts.pop().expect("there is a verifier");
    for (verifier, other) in verifiers.iter().zip(&verdicts) {
        assert_eq!(other, &verdict, "{verifier:?} disagrees");
    }
    verdict
}

#[derive(Clone, Debug)]
struct Signed {
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Signed {
    fn item(&self) -> Item<'_> {
        Item {
            key: &self.key,
            message: &self.message,
            signature: &self.signature,
        }
    }

    /// The verdict of an independent implementation.
    fn oracle(&self) -> bool {
        ed25519_zebra::VerificationKey::try_from(self.key).is_ok_and(|key| {
            key.verify(
                &ed25519_zebra::Signature::from(self.signature),
                &self.message,
            )
            .is_ok()
        })
    }

    /// The one verdict that every way of checking must give.
    fn verdict(&self) -> bool {
        let verdict = verify(&self.item());
        assert_eq!(verdict, self.oracle(), "zebra disagrees on {self:?}");
        assert_eq!(
            verify_batch(&[self.item()]),
            [verdict],
            "a batch of one disagrees on {self:?}"
        );
        verdict
    }
}

fn items(signed: &[Signed]) -> Vec<Item<'_>> {
    signed.iter().map(Signed::item).collect()
}

fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).expect("the vector is hex of the right length");
    bytes
}

fn small_order() -> Vec<Signed> {
    include_str!("../vectors/zip215_small_order_196.txt")
        .lines()
        .map(|line| {
            let mut fields = line.split(' ');
            let mut next = || fields.next().expect("three fields of hex");
            Signed {
                key: fixed(next()),
                signature: fixed(next()),
                message: hex::decode(next()).expect("the message is hex"),
            }
        })
        .collect()
}

fn speccheck() -> Vec<Signed> {
    #[derive(Deserialize)]
    struct Case {
        message: String,
        pub_key: String,
        signature: String,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("../vectors/speccheck_cases.json"))
        .expect("the cases parse");
    cases
        .iter()
        .map(|case| Signed {
            key: fixed(&case.pub_key),
            message: hex::decode(&case.message).expect("the message is hex"),
            signature: fixed(&case.signature),
        })
        .collect()
}

#[test]
fn wycheproof_is_met_but_for_the_one_case_that_the_cofactor_accepts() {
    #[derive(Deserialize)]
    struct File {
        #[serde(rename = "testGroups")]
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        #[serde(rename = "publicKey")]
        key: Key,
        tests: Vec<Test>,
    }
    #[derive(Deserialize)]
    struct Key {
        pk: String,
    }
    #[derive(Deserialize)]
    struct Test {
        #[serde(rename = "tcId")]
        id: u32,
        msg: String,
        sig: String,
        result: String,
    }
    let file: File = serde_json::from_str(include_str!("../vectors/wycheproof_ed25519_test.json"))
        .expect("the tests parse");
    let (mut checked, mut shorter) = (0, 0);
    for group in &file.groups {
        for test in &group.tests {
            let expected = test.result == "valid" || test.id == 151;
            let signature = hex::decode(&test.sig).expect("the signature is hex");
            // Signatures of another length cannot be written in our types.
            let Ok(signature) = signature.try_into() else {
                assert!(!expected, "tcId {}", test.id);
                shorter += 1;
                continue;
            };
            let signed = Signed {
                key: fixed(&group.key.pk),
                message: hex::decode(&test.msg).expect("the message is hex"),
                signature,
            };
            assert_eq!(signed.verdict(), expected, "tcId {}", test.id);
            checked += 1;
        }
    }
    assert_eq!(checked + shorter, 151);
    assert!(checked > 130, "{checked} tests had a signature of 64 bytes");
}

#[test]
fn the_twelve_cases_of_speccheck_get_the_verdicts_of_zip_215() {
    let verdicts: Vec<_> = speccheck().iter().map(Signed::verdict).collect();
    let expected: Vec<_> = (0..12).map(|case| !(6..=8).contains(&case)).collect();
    assert_eq!(verdicts, expected);
}

#[test]
fn all_196_small_order_pairs_are_valid_and_none_of_their_keys_is_admitted() {
    let all = small_order();
    assert_eq!(all.len(), 196);
    for signed in &all {
        assert!(signed.verdict());
        assert!(admit_key(&signed.key).is_err());
    }
    assert_eq!(verify_batch(&items(&all)), [true; 196]);
}

#[test]
fn admission_tells_encodings_from_orders() {
    let honest = SecretKey::from_seed(&[1; 32]).public();
    assert_eq!(admit_key(honest.as_bytes()), Ok(()));
    let mut one = [0; 32];
    one[0] = 1;
    assert_eq!(admit_key(&one), Err(KeyError::SmallOrder));
    let mut above = [0xff; 32];
    above[0] = 0xee;
    above[31] = 0x7f;
    assert_eq!(admit_key(&above), Err(KeyError::NotCanonical));
    let mut two = [0; 32];
    two[0] = 2;
    assert_eq!(admit_key(&two), Err(KeyError::NotCanonical), "not a point");
}

/// An honest signature of a seed; few seeds, so that keys repeat.
fn honest(seed: u8, message: &[u8]) -> Signed {
    let secret = SecretKey::from_seed(&[seed % 5; 32]);
    Signed {
        key: *secret.public().as_bytes(),
        message: message.to_vec(),
        signature: *secret.sign(message).as_bytes(),
    }
}

/// A signature whose key and R carry points of small order: valid with the cofactor only.
fn mixed_order(seed: u8, message: &[u8], key_torsion: usize, r_torsion: usize) -> Signed {
    let (a, r) = (Scalar::from(u64::from(seed) + 2), Scalar::from(77_u64));
    let key = (&a * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[key_torsion % 8])
        .compress()
        .to_bytes();
    let r_bytes = (&r * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[r_torsion % 8])
        .compress()
        .to_bytes();
    let k = Sha512::new()
        .chain_update(r_bytes)
        .chain_update(key)
        .chain_update(message);
    let s = r + Scalar::from_bytes_mod_order_wide(&k.finalize().into()) * a;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r_bytes);
    signature[32..].copy_from_slice(s.as_bytes());
    Signed {
        key,
        message: message.to_vec(),
        signature,
    }
}

fn plus_order(mut signed: Signed) -> Signed {
    let mut carry = 0;
    for (byte, order) in signed.signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    signed
}

/// One signature of every kind, chosen by four numbers.
fn of_kind(kind: u8, seed: u8, at: usize, byte: u8) -> Signed {
    let message = [seed, byte];
    let flip = 1 << (byte % 8);
    match kind {
        0 => {
            let mut signed = honest(seed, &message);
            signed.message.push(byte);
            signed
        }
        1 => {
            let mut signed = honest(seed, &message);
            signed.signature[at % 64] ^= flip;
            signed
        }
        2 => {
            let mut signed = honest(seed, &message);
            signed.key[at % 32] ^= flip;
            signed
        }
        3 => plus_order(honest(seed, &message)),
        4 => small_order().swap_remove(at % 196),
        5 => {
            let mut signed = small_order().swap_remove(at % 196);
            signed.signature[32] = byte;
            signed
        }
        6 => mixed_order(seed, &message, at, at / 8),
        7 => {
            let mut signed = mixed_order(seed, &message, at, at / 8);
            signed.signature[32 + at % 31] ^= flip;
            signed
        }
        8 => speccheck().swap_remove(at % 12),
        9 => Signed {
            key: [byte; 32],
            message: message.to_vec(),
            signature: [seed; 64],
        },
        _ => honest(seed, &message),
    }
}

/// Mostly honest signatures, so that most chunks are wrong in few places.
fn signatures(most: usize) -> impl Strategy<Value = Vec<Signed>> {
    (
        vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..=most),
        vec((any::<usize>(), 0_u8..11), 0..6),
    )
        .prop_map(|(drawn, planted)| {
            let mut all: Vec<_> = drawn
                .iter()
                .map(|(seed, at, byte)| of_kind(u8::MAX, *seed, *at, *byte))
                .collect();
            for (place, kind) in planted {
                let place = place % all.len();
                let (seed, at, byte) = drawn[place];
                all[place] = of_kind(kind, seed, at, byte);
            }
            all
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_kind_of_signature_gets_zebras_verdict(
        kind in 0_u8..11,
        seed in any::<u8>(),
        at in any::<usize>(),
        byte in any::<u8>(),
    ) {
        of_kind(kind, seed, at, byte).verdict();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn batches_give_the_verdicts_of_singles_in_any_order_under_any_secret(
        signed in signatures(300),
        turn in any::<usize>(),
        secret in any::<[u8; 32]>(),
    ) {
        let expected: Vec<_> = signed.iter().map(Signed::oracle).collect();
        let mut items = items(&signed);
        prop_assert_eq!(&verify_each(&items), &expected);
        prop_assert_eq!(&same_verdicts(&verifiers(secret, 16), &items), &expected);

        let turn = turn % items.len();
        let mut turned = expected;
        items.rotate_left(turn);
        turned.rotate_left(turn);
        prop_assert_eq!(&verify_batch(&items), &turned);
        items.reverse();
        turned.reverse();
        prop_assert_eq!(&verify_batch(&items), &turned);
    }
}

#[test]
fn batches_of_every_size_are_valid_and_find_the_one_wrong_signature() {
    let all: Vec<_> = (0..=255_u8)
        .chain(0..=44)
        .enumerate()
        .map(|(at, seed)| honest(seed, &at.to_le_bytes()))
        .collect();
    for size in 0..=300 {
        let mut signed = all[..size].to_vec();
        assert_eq!(
            verify_batch(&items(&signed)),
            vec![true; size],
            "{size} signatures"
        );
        if size == 0 {
            continue;
        }
        let place = (size / 3 * 7919) % size;
        signed[place].signature[40] ^= 1;
        let mut expected = vec![true; size];
        expected[place] = false;
        assert_eq!(verify_batch(&items(&signed)), expected);
    }
}

#[test]
fn batches_of_every_size_find_every_wrong_signature_among_good_ones() {
    let all: Vec<_> = (0..300_usize)
        .map(|at| {
            let [seed, byte, ..] = (at * 7919).to_le_bytes();
            // Two in three are honest; the others are of all kinds in turn.
            let [kind, ..] = (at / 3 % 10).to_le_bytes();
            let kind = if at % 3 == 1 { kind } else { u8::MAX };
            of_kind(kind, seed, at * 31, byte)
        })
        .collect();
    let expected: Vec<_> = all.iter().map(Signed::oracle).collect();
    assert!(expected.contains(&false) && expected.contains(&true));
    for size in 1..=300 {
        assert_eq!(
            verify_batch(&items(&all[..size])),
            expected[..size],
            "{size} signatures"
        );
    }
}

#[test]
fn verdicts_do_not_depend_on_the_number_of_threads() {
    let signed: Vec<_> = (0..2500_usize)
        .map(|at| {
            let [byte, seed, ..] = at.to_le_bytes();
            let kind = if at % 400 == 399 { seed } else { u8::MAX };
            of_kind(kind, byte, at, byte)
        })
        .collect();
    let items = items(&signed);
    let expected = verify_each(&items);
    assert!(expected.contains(&false) && expected.contains(&true));
    for threads in [1, 2, 5] {
        let verdicts = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads start")
            .install(|| verify_batch(&items));
        assert_eq!(verdicts, expected, "{threads} threads");
    }
}

#[test]
fn errors_that_cancel_each_other_do_not_pass() {
    // s of one raised and s of the other lowered: the sum without coefficients would hold.
    let mut pair = [honest(1, b"one"), honest(2, b"two")];
    let shift = Scalar::from(12_345_u64);
    for (signed, shift) in pair.iter_mut().zip([shift, -shift]) {
        let mut s = [0; 32];
        s.copy_from_slice(&signed.signature[32..]);
        let s = Scalar::from_bytes_mod_order(s) + shift;
        signed.signature[32..].copy_from_slice(s.as_bytes());
    }
    assert_eq!(verify_batch(&items(&pair)), [false, false]);
}

proptest! {
    #[test]
    fn what_is_signed_verifies(seed in any::<[u8; 32]>(), message in vec(any::<u8>(), 0..200)) {
        let secret = SecretKey::from_seed(&seed);
        let signed = Signed {
            key: *secret.public().as_bytes(),
            signature: *secret.sign(&message).as_bytes(),
            message,
        };
        prop_assert!(signed.verdict());
    }
}
