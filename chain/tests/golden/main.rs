//! The bytes of every wire type, pinned by hex files under `vectors/wire`.
//!
//! `PROOFMILL_WRITE_GOLDEN=1` writes the files anew; a commit that changes one says so in its
//! title, for it changes the protocol.

mod samples;

use std::fs;
use std::path::PathBuf;

use proofmill_chain::codec::{DecodeError, decode, encode};
use proofmill_chain::types::block::BLOCK_BYTES_MAX;
use proofmill_chain::types::hash::Blob;
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::record::RECORD_BYTES_MAX;
use proofmill_chain::types::task::{ATTESTATION_BYTES_MAX, AttestationMessage};
use proofmill_chain::types::transaction::{Action, TRANSACTION_BYTES_MAX};
use proofmill_chain::types::units::Amount;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::samples::{
    STATUSES, account, actions, block, certificate, commit, failures, genesis, hash, header,
    params, phases, receipt, records, reveal, transaction, validator_set,
};

type Decoder = Box<dyn Fn(&[u8]) -> Result<(bool, Vec<u8>), DecodeError>>;

/// A fixed value under the name of its file.
struct Golden {
    name: String,
    bytes: Vec<u8>,
    /// Whether bytes decode to the value, and what they encode to again.
    decode: Decoder,
}

fn golden<T, const MOST: usize>(name: &str, value: T) -> Golden
where
    T: Serialize + DeserializeOwned + PartialEq + 'static,
{
    Golden {
        name: name.to_owned(),
        bytes: encode(&value),
        decode: Box::new(move |bytes| {
            let decoded: T = decode::<T, MOST>(bytes)?;
            Ok((decoded == value, encode(&decoded)))
        }),
    }
}

fn all() -> Vec<Golden> {
    const BLOCK: usize = BLOCK_BYTES_MAX;
    const ATTESTATION: usize = ATTESTATION_BYTES_MAX;
    let mut all: Vec<_> = actions()
        .into_iter()
        .map(|action| {
            let name = format!("transaction_{}", action.name());
            golden::<_, TRANSACTION_BYTES_MAX>(&name, transaction(action, None))
        })
        .collect();
    all.extend(
        records()
            .into_iter()
            .map(|(name, record)| golden::<_, RECORD_BYTES_MAX>(&format!("record_{name}"), record)),
    );
    let failure = Failure::InsufficientBalance {
        needed: Amount::new(2),
        available: Amount::new(1),
    };
    let failed = Outcome::Failed { failure };
    let message = |signed, output: &[u8]| AttestationMessage {
        signed,
        output: Blob::new(output.to_vec()),
    };
    all.extend([
        golden::<_, TRANSACTION_BYTES_MAX>(
            "transaction_sponsored",
            transaction(Action::CancelTask { task: hash(0x22) }, Some(account(0x04))),
        ),
        golden::<_, BLOCK>("header", header()),
        golden::<_, BLOCK>("certificate", certificate()),
        golden::<_, BLOCK>("block", block()),
        golden::<_, ATTESTATION>("attestation_commit", commit()),
        golden::<_, ATTESTATION>("attestation_reveal", reveal()),
        golden::<_, ATTESTATION>("attestation_message_commit", message(commit(), b"")),
        golden::<_, ATTESTATION>("attestation_message_reveal", message(reveal(), b"output")),
        golden::<_, BLOCK>("receipt_applied", receipt(Outcome::Applied)),
        golden::<_, BLOCK>("receipt_failed", receipt(failed)),
        golden::<_, BLOCK>("failures", failures()),
        golden::<_, BLOCK>("phases", phases()),
        golden::<_, BLOCK>("statuses", STATUSES.to_vec()),
        golden::<_, BLOCK>("params", params()),
        golden::<_, BLOCK>("genesis", genesis()),
        golden::<_, BLOCK>("validator_set", validator_set()),
    ]);
    all
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", "wire"]
        .iter()
        .collect()
}

/// Thirty-two bytes a line.
fn text(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| hex::encode(line) + "\n")
        .collect()
}

#[test]
fn every_wire_type_has_the_bytes_it_always_had() {
    let write = std::env::var_os("PROOFMILL_WRITE_GOLDEN").is_some_and(|value| value == "1");
    let mut names = Vec::new();
    for golden in all() {
        let path = folder().join(format!("{}.hex", golden.name));
        if write {
            fs::create_dir_all(folder()).expect("the folder can be made");
            fs::write(&path, text(&golden.bytes)).expect("the file can be written");
        }
        let pinned =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            text(&golden.bytes),
            pinned,
            "the encoding of {} has changed, and with it the protocol",
            golden.name
        );
        names.push(format!("{}.hex", golden.name));
    }
    let mut files: Vec<_> = fs::read_dir(folder())
        .expect("the folder exists")
        .map(|entry| {
            entry
                .expect("the folder can be read")
                .file_name()
                .into_string()
        })
        .map(|name| name.expect("the files have plain names"))
        .collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "a file without a value, or a value twice");
}

#[test]
fn pinned_bytes_decode_to_the_value_and_encode_to_themselves() {
    for golden in all() {
        let (same, again) = (golden.decode)(&golden.bytes).expect("its own bytes decode");
        assert!(same, "{}", golden.name);
        assert_eq!(again, golden.bytes, "{}", golden.name);
    }
}

#[test]
fn no_shorter_and_no_longer_bytes_decode() {
    for golden in all() {
        for length in 0..golden.bytes.len() {
            let prefix = &golden.bytes[..length];
            assert!(
                matches!((golden.decode)(prefix), Err(DecodeError::Malformed(_))),
                "{} bytes of {}",
                length,
                golden.name
            );
        }
        let mut longer = golden.bytes.clone();
        longer.push(0);
        assert_eq!(
            (golden.decode)(&longer),
            Err(DecodeError::Trailing(1)),
            "{}",
            golden.name
        );
    }
}

#[test]
fn the_samples_have_every_variant() {
    // A variant added to an enum gives the next number of its tag; the last sample's must be the
    // last one that decodes.
    fn variants<T: Serialize + DeserializeOwned>(samples: &[T]) {
        for (tag, sample) in (0_u32..).zip(samples) {
            assert!(encode(sample).starts_with(&tag.to_le_bytes()));
        }
        let past = u32::try_from(samples.len()).expect("an enum is small");
        let mut bytes = past.to_le_bytes().to_vec();
        bytes.resize(4096, 0);
        let Err(DecodeError::Malformed(error)) = decode::<T, 4096>(&bytes) else {
            panic!("a variant {past} exists and has no sample");
        };
        assert!(error.contains("variant"), "{error}");
    }
    variants(&actions());
    variants(&failures());
    variants(&STATUSES);
    let records: Vec<_> = records().into_iter().map(|(_, record)| record).collect();
    variants(&records);
}
