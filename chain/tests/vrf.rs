//! The beacon's function against RFC 9381 and against malleated proofs.

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::vrf::{prove, verify};
use proofmill_chain::types::hash::{AccountId, VrfOutput, VrfProof};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};
use serde::Deserialize;
use vrf_rfc9381::ec::edwards25519::EdVrfProof;
use vrf_rfc9381::ec::edwards25519::tai::EdVrfEdwards25519TaiPublicKey;
use vrf_rfc9381::{Proof, Verifier};

/// The order of the group, q = 2^252 + 27742317777372353535851937790883648493, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[derive(Deserialize)]
struct Vector {
    sk: String,
    pk: String,
    alpha: String,
    pi: String,
    beta: String,
}

struct Case {
    secret: SecretKey,
    key: AccountId,
    alpha: Vec<u8>,
    proof: VrfProof,
    output: VrfOutput,
}

fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).expect("the vector is hex of the right length");
    bytes
}

fn cases() -> Vec<Case> {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../vectors/rfc9381_ecvrf_tai.json"))
            .expect("the vectors parse");
    assert_eq!(vectors.len(), 3);
    vectors
        .iter()
        .map(|vector| Case {
            secret: SecretKey::from_seed(&fixed(&vector.sk)),
            key: AccountId::new(fixed(&vector.pk)),
            alpha: hex::decode(&vector.alpha).expect("alpha is hex"),
            proof: VrfProof::new(fixed(&vector.pi)),
            output: VrfOutput::new(fixed(&vector.beta)),
        })
        .collect()
}

fn plus_order(s: &mut [u8]) {
    let mut carry = 0;
    for (byte, order) in s.iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "s + q fits into 256 bits");
}

#[test]
fn the_examples_of_the_rfc_are_reproduced() {
    for case in cases() {
        assert_eq!(case.secret.public(), case.key);
        assert_eq!(
            prove(&case.secret, &case.alpha),
            (case.proof, case.output),
            "{}",
            case.key
        );
        assert_eq!(
            verify(&case.key, &case.alpha, &case.proof),
            Some(case.output)
        );
    }
}

#[test]
fn s_plus_the_group_order_is_refused_though_the_arithmetic_would_take_it() {
    for case in cases() {
        let mut bytes = *case.proof.as_bytes();
        plus_order(&mut bytes[48..]);
        let lenient = EdVrfEdwards25519TaiPublicKey::from_slice(case.key.as_bytes())
            .expect("the key is a point")
            .verify(
                &case.alpha,
                EdVrfProof::decode_pi(&bytes).expect("the proof has the right length"),
            );
        assert!(lenient.is_ok(), "this case proves nothing any more");
        assert_eq!(verify(&case.key, &case.alpha, &VrfProof::new(bytes)), None);
    }
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    for case in cases() {
        for bit in 0..640 {
            let mut bytes = *case.proof.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let forged = VrfProof::new(bytes);
            assert_eq!(verify(&case.key, &case.alpha, &forged), None, "bit {bit}");
        }
    }
}

#[test]
fn a_proof_holds_for_its_own_key_and_input_only() {
    let cases = cases();
    for (index, case) in cases.iter().enumerate() {
        for (other, wrong) in cases.iter().enumerate() {
            let expected = (index == other).then_some(case.output);
            assert_eq!(verify(&wrong.key, &wrong.alpha, &case.proof), expected);
            assert_eq!(verify(&wrong.key, &case.alpha, &case.proof), expected);
            assert_eq!(verify(&case.key, &wrong.alpha, &case.proof), expected);
        }
    }
}

#[test]
fn keys_of_small_order_and_other_encodings_are_refused() {
    let case = &cases()[0];
    let mut one = [0; 32];
    one[0] = 1;
    let mut above = [0xff; 32];
    above[0] = 0xee;
    above[31] = 0x7f;
    for key in [[0; 32], one, above] {
        let key = AccountId::new(key);
        assert_eq!(verify(&key, &case.alpha, &case.proof), None);
    }
}

proptest! {
    #[test]
    fn what_is_proved_verifies(seed in any::<[u8; 32]>(), alpha in vec(any::<u8>(), 0..100)) {
        let secret = SecretKey::from_seed(&seed);
        let (proof, output) = prove(&secret, &alpha);
        prop_assert_eq!(verify(&secret.public(), &alpha, &proof), Some(output));
        prop_assert_eq!(prove(&secret, &alpha), (proof, output));
    }
}
