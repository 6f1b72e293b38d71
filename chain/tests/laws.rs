//! Laws of the encodings: a value survives its bytes and its text, and bytes that decode are the
//! only bytes of their value.

use proofmill_chain::codec::{decode, encode};
use proofmill_chain::merkle;
use proofmill_chain::types::block::{BLOCK_BYTES_MAX, Block, Certificate, CommitSignature, Header};
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::receipt::{Failure, Receipt};
use proofmill_chain::types::record::{RECORD_BYTES_MAX, Record};
use proofmill_chain::types::task::{
    ATTESTATION_BYTES_MAX, Attestation, AttestationMessage, Mode, Requirements, ResultClaim,
    ResultStatus, SignedAttestation, Statement, TaskSpec,
};
use proofmill_chain::types::transaction::{
    Action, SignedTransaction, TRANSACTION_BYTES_MAX, Transaction,
};
use proofmill_chain::types::units::{Amount, Gas, Height, Nonce, ProtocolVersion, Round};
use proofmill_chain::types::worker::WorkerTerms;
use proptest::array::uniform;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_oneof,
    proptest,
};
use proptest::sample::Index;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn hashes() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash::new)
}

fn accounts() -> impl Strategy<Value = AccountId> {
    any::<[u8; 32]>().prop_map(AccountId::new)
}

fn signatures() -> impl Strategy<Value = Signature> {
    uniform::<_, 64>(any::<u8>()).prop_map(Signature::new)
}

fn amounts() -> impl Strategy<Value = Amount> {
    any::<u64>().prop_map(Amount::new)
}

fn blobs() -> impl Strategy<Value = Blob> {
    vec(any::<u8>(), 0..200).prop_map(Blob::new)
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z0-9é]{0,12}", 0..4)
}

fn terms() -> impl Strategy<Value = WorkerTerms> {
    (amounts(), any::<u64>(), any::<u32>(), tags(), any::<bool>()).prop_map(
        |(price, gas, pages, tags, active)| WorkerTerms {
            price_per_mgas: price,
            gas_limit_max: Gas::new(gas),
            memory_pages_max: pages,
            tags,
            active,
        },
    )
}

fn specs() -> impl Strategy<Value = TaskSpec> {
    (
        (hashes(), blobs(), any::<u64>(), any::<u32>(), any::<u8>()),
        (amounts(), amounts(), tags(), any::<u32>(), any::<u64>()),
    )
        .prop_map(
            |((program, input, gas, pages, replicas), (price, insured, tags, reputation, wait))| {
                TaskSpec {
                    program,
                    input,
                    gas_limit: Gas::new(gas),
                    memory_pages: pages,
                    mode: Mode::Replicated { replicas },
                    price_per_mgas: price,
                    insured_value: insured,
                    requirements: Requirements {
                        tags,
                        min_reputation: reputation,
                    },
                    wait_max: wait,
                }
            },
        )
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        (accounts(), amounts()).prop_map(|(to, amount)| Action::Transfer { to, amount }),
        (accounts(), terms(), amounts(), signatures()).prop_map(
            |(worker, terms, collateral, consent)| Action::RegisterWorker {
                worker,
                terms,
                collateral,
                consent,
            }
        ),
        (accounts(), terms(), amounts()).prop_map(|(worker, terms, add_collateral)| {
            Action::UpdateWorker {
                worker,
                terms,
                add_collateral,
            }
        }),
        accounts().prop_map(|worker| Action::RetireWorker { worker }),
        blobs().prop_map(|module| Action::PublishProgram { module }),
        specs().prop_map(Action::SubmitTask),
        hashes().prop_map(|task| Action::CancelTask { task }),
    ]
}

fn transactions() -> impl Strategy<Value = SignedTransaction> {
    (
        (any::<[u8; 4]>(), accounts(), any::<u64>(), amounts()),
        (amounts(), any::<u64>(), option::of(accounts()), actions()),
        (signatures(), option::of(signatures())),
    )
        .prop_map(
            |(
                (chain, sender, nonce, max_fee),
                (tip, expires_at, sponsor, action),
                (signature, sponsor_signature),
            )| SignedTransaction {
                transaction: Transaction {
                    chain,
                    sender,
                    nonce: Nonce::new(nonce),
                    max_fee,
                    tip,
                    expires_at: Height::new(expires_at),
                    sponsor,
                    action,
                },
                signature,
                sponsor_signature,
            },
        )
}

fn statements() -> impl Strategy<Value = Statement> {
    let statuses = prop_oneof![
        Just(ResultStatus::Done),
        Just(ResultStatus::Trap),
        Just(ResultStatus::StepOutOfGas),
    ];
    prop_oneof![
        hashes().prop_map(|commitment| Statement::Commit { commitment }),
        (hashes(), hashes(), any::<u64>(), statuses, hashes()).prop_map(
            |(output_hash, trace_root, gas, status, salt)| Statement::Reveal {
                claim: ResultClaim {
                    output_hash,
                    trace_root,
                    gas: Gas::new(gas),
                    status,
                },
                salt,
            }
        ),
    ]
}

fn messages() -> impl Strategy<Value = AttestationMessage> {
    (
        (hashes(), any::<u8>(), accounts(), statements()),
        signatures(),
        blobs(),
    )
        .prop_map(
            |((task, draw, worker, statement), signature, output)| AttestationMessage {
                signed: SignedAttestation {
                    attestation: Attestation {
                        task,
                        draw,
                        worker,
                        statement,
                    },
                    signature,
                },
                output,
            },
        )
}

fn certificates() -> impl Strategy<Value = Certificate> {
    let signed = (accounts(), signatures()).prop_map(|(validator, signature)| CommitSignature {
        validator,
        signature,
    });
    (any::<u64>(), any::<u32>(), hashes(), vec(signed, 0..5)).prop_map(
        |(height, round, block, signatures)| Certificate {
            height: Height::new(height),
            round: Round::new(round),
            block,
            signatures,
        },
    )
}

fn headers() -> impl Strategy<Value = Header> {
    (
        uniform::<_, 12>(hashes()),
        any::<[u64; 3]>(),
        any::<[u32; 2]>(),
        accounts(),
        uniform::<_, 64>(any::<u8>()),
        uniform::<_, 80>(any::<u8>()),
    )
        .prop_map(
            |(hashes, [height, time_ms, base_fee], [version, round], proposer, output, proof)| {
                let [
                    chain,
                    parent,
                    transactions_root,
                    assignments_root,
                    attestations_root,
                    evidence_root,
                    receipts_root,
                    state_root,
                    validators_hash,
                    next_validators_hash,
                    params_hash,
                    last_certificate_hash,
                ] = hashes;
                Header {
                    version: ProtocolVersion::new(version),
                    chain,
                    height: Height::new(height),
                    round: Round::new(round),
                    time_ms,
                    parent,
                    proposer,
                    transactions_root,
                    assignments_root,
                    attestations_root,
                    evidence_root,
                    receipts_root,
                    state_root,
                    validators_hash,
                    next_validators_hash,
                    params_hash,
                    base_fee: Amount::new(base_fee),
                    beacon_output: VrfOutput::new(output),
                    beacon_proof: VrfProof::new(proof),
                    last_certificate_hash,
                }
            },
        )
}

fn blocks() -> impl Strategy<Value = Block> {
    (
        headers(),
        signatures(),
        vec(transactions(), 0..5),
        vec(messages(), 0..4),
        vec(blobs(), 0..3),
        option::of(certificates()),
    )
        .prop_map(
            |(header, proposer_signature, transactions, messages, outputs, last_certificate)| {
                Block {
                    header,
                    proposer_signature,
                    transactions,
                    assignments: Vec::new(),
                    attestations: messages.iter().map(|message| message.signed).collect(),
                    outputs,
                    last_certificate,
                }
            },
        )
}

/// Damage to some bytes, mostly where lengths and tags are.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
    Repeat(Index, Index),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(2), Just(0xff), any::<u8>()];
    let one = prop_oneof![
        6 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ];
    vec(one, 0..4)
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match damage {
            Damage::Set(at, byte) => bytes[at.index(length)] = *byte,
            Damage::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(length))),
            Damage::Truncate(at) => bytes.truncate(at.index(length)),
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// Bytes that decode are the bytes of what they decode to.
fn canonical<T, const MOST: usize>(bytes: &[u8]) -> Result<bool, TestCaseError>
where
    T: Serialize + DeserializeOwned,
{
    let Ok(value) = decode::<T, MOST>(bytes) else {
        return Ok(false);
    };
    prop_assert_eq!(encode(&value), bytes);
    Ok(true)
}

fn survives<T, const MOST: usize>(value: &T) -> Result<Vec<u8>, TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug,
{
    let bytes = encode(value);
    prop_assert_eq!(
        &decode::<T, MOST>(&bytes).expect("its own bytes decode"),
        value
    );
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transactions_survive_their_bytes_and_damaged_ones_are_canonical(
        value in transactions(),
        damages in damages(),
    ) {
        let bytes = survives::<_, TRANSACTION_BYTES_MAX>(&value)?;
        canonical::<SignedTransaction, TRANSACTION_BYTES_MAX>(&damaged(bytes, &damages))?;
    }

    #[test]
    fn attestations_survive_their_bytes_and_damaged_ones_are_canonical(
        value in messages(),
        damages in damages(),
    ) {
        let bytes = survives::<_, ATTESTATION_BYTES_MAX>(&value)?;
        canonical::<AttestationMessage, ATTESTATION_BYTES_MAX>(&damaged(bytes, &damages))?;
    }

    #[test]
    fn certificates_survive_their_bytes_and_damaged_ones_are_canonical(
        value in certificates(),
        damages in damages(),
    ) {
        let bytes = survives::<_, BLOCK_BYTES_MAX>(&value)?;
        canonical::<Certificate, BLOCK_BYTES_MAX>(&damaged(bytes, &damages))?;
    }

    #[test]
    fn random_bytes_that_decode_as_anything_are_canonical(
        tag in 0_u8..32,
        tail in vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..260),
    ) {
        // Enums begin with a tag of four bytes; the rest meets it half way.
        let bytes = [vec![tag, 0, 0, 0], tail].concat();
        canonical::<Action, TRANSACTION_BYTES_MAX>(&bytes)?;
        canonical::<Statement, 4096>(&bytes)?;
        canonical::<Failure, 4096>(&bytes)?;
        canonical::<Receipt, 4096>(&bytes)?;
        canonical::<Record, RECORD_BYTES_MAX>(&bytes)?;
        canonical::<Genesis, BLOCK_BYTES_MAX>(&bytes)?;
        canonical::<merkle::Proof, 4096>(&bytes)?;
    }

    #[test]
    fn texts_parse_back(
        account in accounts(),
        hash in hashes(),
        signature in signatures(),
        amount in amounts(),
        blob in blobs(),
    ) {
        prop_assert_eq!(account.to_string().parse::<AccountId>(), Ok(account));
        prop_assert!(account.to_string().starts_with("mill1"));
        prop_assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
        prop_assert_eq!(signature.to_string().parse::<Signature>(), Ok(signature));
        prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        let all = (account, hash, signature, amount, blob);
        let json = serde_json::to_string(&all).expect("the values have a JSON form");
        prop_assert_eq!(
            serde_json::from_str::<(AccountId, Hash, Signature, Amount, Blob)>(&json)
                .expect("the JSON form parses"),
            all
        );
    }

    #[test]
    fn transactions_survive_their_json(value in transactions()) {
        let json = serde_json::to_string(&value).expect("a transaction has a JSON form");
        prop_assert_eq!(
            serde_json::from_str::<SignedTransaction>(&json).expect("the JSON form parses"),
            value
        );
    }

    #[test]
    fn one_changed_character_of_an_account_is_noticed(
        account in accounts(),
        at in any::<Index>(),
        other in "[ac-hj-np-z02-9]",
    ) {
        let mut text = account.to_string();
        let at = at.index(text.len());
        let changed = text[at..=at] != *other;
        text.replace_range(at..=at, &other);
        prop_assert_eq!(text.parse::<AccountId>().is_err(), changed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn blocks_survive_their_bytes_and_damaged_ones_are_canonical(
        value in blocks(),
        damages in damages(),
    ) {
        let bytes = survives::<_, BLOCK_BYTES_MAX>(&value)?;
        canonical::<Block, BLOCK_BYTES_MAX>(&damaged(bytes, &damages))?;
    }
}

#[test]
fn flipping_a_byte_of_a_hash_field_still_decodes() {
    // Shows that the law above is not satisfied by refusing every damaged value.
    let bytes = encode(&Statement::Commit {
        commitment: Hash::ZERO,
    });
    let mut decoded = 0;
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        if canonical::<Statement, 64>(&other).expect("the law holds") {
            decoded += 1;
        }
    }
    assert_eq!(decoded, Hash::LEN);
}

#[test]
fn amounts_in_json_are_canonical_decimal_strings() {
    let parse = |text| serde_json::from_str::<Amount>(text).ok();
    assert_eq!(
        parse("\"18446744073709551615\""),
        Some(Amount::new(u64::MAX))
    );
    assert_eq!(parse("\"0\""), Some(Amount::ZERO));
    for text in [
        "1",
        "\"\"",
        "\"01\"",
        "\"+1\"",
        "\"-1\"",
        "\" 1\"",
        "\"1.0\"",
        "\"1e3\"",
        "\"0x1\"",
        "\"18446744073709551616\"",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn a_claimed_length_beyond_the_bytes_is_refused_without_room_for_it() {
    for claimed in [u64::MAX, 1 << 62, 1 << 40, 1 << 24] {
        let bytes = [&claimed.to_le_bytes()[..], &[0; 64]].concat();
        assert!(decode::<Blob, 4096>(&bytes).is_err());
        assert!(decode::<Vec<Hash>, 4096>(&bytes).is_err());
        assert!(decode::<Vec<SignedTransaction>, BLOCK_BYTES_MAX>(&bytes).is_err());
        assert!(decode::<Vec<String>, 4096>(&bytes).is_err());
    }
}
