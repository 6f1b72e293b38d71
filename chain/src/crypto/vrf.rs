//! ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381, suite 3): the proposer's part of the beacon.
//!
//! A key and an input have one output, which nobody can tell before the key's owner shows it and
//! everybody can check then. Verification is stricter than the crate that does the arithmetic:
//! that crate reduces s, so it takes s + q for s, and it takes any encoding of Gamma.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use vrf_rfc9381::ec::edwards25519::EdVrfProof;
use vrf_rfc9381::ec::edwards25519::tai::{
    EdVrfEdwards25519TaiPublicKey, EdVrfEdwards25519TaiSecretKey,
};
use vrf_rfc9381::{Ciphersuite, Proof, Prover, Verifier};

use crate::crypto::sign::SecretKey;
use crate::crypto::verify::admit_key;
use crate::types::hash::{AccountId, VrfOutput, VrfProof};

const SUITE: Ciphersuite = Ciphersuite::ECVRF_EDWARDS25519_SHA512_TAI;
const GAMMA_LEN: usize = 32;
const CHALLENGE_LEN: usize = 16;

/// The proof and the output for an input.
///
/// # Panics
/// When none of 255 hashes is a point on the curve, which has probability 2^-255.
#[must_use]
pub fn prove(secret: &SecretKey, alpha: &[u8]) -> (VrfProof, VrfOutput) {
    let proof = EdVrfEdwards25519TaiSecretKey::from_slice(&secret.seed())
        .and_then(|prover| prover.prove(alpha))
        .expect("a seed has 32 bytes, and half of all hashes are points");
    let output = proof
        .proof_to_hash(SUITE)
        .expect("hashing a point does not fail");
    let bytes = proof
        .encode_to_pi()
        .try_into()
        .expect("a proof of this suite has 80 bytes");
    (VrfProof::new(bytes), VrfOutput::new(output.into()))
}

/// The output that `proof` proves to be `key`'s for this input, `None` when it proves nothing.
#[must_use]
pub fn verify(key: &AccountId, alpha: &[u8], proof: &VrfProof) -> Option<VrfOutput> {
    admit_key(key.as_bytes()).ok()?;
    if !is_canonical(proof) {
        return None;
    }
    let verifier = EdVrfEdwards25519TaiPublicKey::from_slice(key.as_bytes()).ok()?;
    let proof = EdVrfProof::decode_pi(proof.as_bytes()).ok()?;
    let output = verifier.verify(alpha, proof).ok()?;
    Some(VrfOutput::new(output.into()))
}

/// Rule: s < q, and Gamma is the canonical encoding of a point (RFC 9381, section 5.4.4 and 8032,
/// section 5.1.3). Otherwise one proof would have several encodings.
fn is_canonical(proof: &VrfProof) -> bool {
    let (gamma, rest) = proof.as_bytes().split_at(GAMMA_LEN);
    let (_, s) = rest.split_at(CHALLENGE_LEN);
    let (Ok(gamma), Ok(s)) = (<[u8; 32]>::try_from(gamma), <[u8; 32]>::try_from(s)) else {
        return false;
    };
    bool::from(Scalar::from_canonical_bytes(s).is_some())
        && CompressedEdwardsY(gamma)
            .decompress()
            .is_some_and(|point| point.compress().as_bytes() == &gamma)
}

#[cfg(test)]
mod tests {
    use super::{is_canonical, prove};
    use crate::crypto::sign::SecretKey;
    use crate::types::hash::VrfProof;

    #[test]
    fn the_other_encoding_of_a_point_is_not_canonical() {
        let (proof, _) = prove(&SecretKey::from_seed(&[7; 32]), b"input");
        assert!(is_canonical(&proof));
        // y = 1 is the identity; so is y = p + 1, written with more than p.
        let mut bytes = *proof.as_bytes();
        bytes[..32].fill(0);
        bytes[0] = 1;
        assert!(is_canonical(&VrfProof::new(bytes)));
        bytes[..32].fill(0xff);
        bytes[0] = 0xee;
        bytes[31] = 0x7f;
        assert!(!is_canonical(&VrfProof::new(bytes)));
    }
}
