//! What survives and what is refused. Real databases in temporary folders.

mod crash;
mod damage;
mod moments;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proofmill_chain::codec;
use proofmill_chain::pipeline::{DecodedBlock, tree_after};
use proofmill_chain::state::memory::MemoryState;
use proofmill_chain::state::overlay::{RecordBytes, Write, WriteSet};
use proofmill_chain::state::reader::StateReader;
use proofmill_chain::tree::Patch;
use proofmill_chain::types::block::{Block, Certificate, CommitSignature, Header};
use proofmill_chain::types::genesis::{Genesis, GenesisAccount};
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Outcome, Receipt};
use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{
    Amount, Gas, Height, MachineVersion, Nonce, ProtocolVersion, Round, Weight,
};
use proofmill_chain::types::validator::Validator;
use tempfile::TempDir;

use super::restore::genesis_root;
use super::{CommitBatch, Store, StoreError};

fn account(number: u8) -> AccountId {
    proofmill_chain::crypto::sign::SecretKey::from_seed(&[number; 32]).public()
}

fn params() -> Params {
    Params {
        machine_version: MachineVersion::new(1),
        block_bytes_max: 1 << 20,
        block_transactions_max: 1000,
        block_attestations_max: 100,
        block_program_bytes_max: 1 << 20,
        base_fee: Amount::new(8),
        module_byte_price: Amount::new(0),
        assign_delay: 2,
        seats_per_block_max: 16,
        timeouts_per_block_max: 16,
        commit_window_blocks: 8,
        commit_window_ms: 1000,
        commit_gas_per_ms: 1000,
        commit_program_bytes_per_ms: 1_000,
        reveal_window_blocks: 8,
        reveal_window_ms: 1000,
        redraws_max: 2,
        block_ms_max: 10_000,
        wait_max: 100,
        worker_activation_blocks: 1,
        worker_collateral_min: Amount::new(1),
        seat_bond_min: Amount::new(1),
        workers_max: 100,
        tasks_live_max: 100,
        replicas_max: 9,
        task_gas_max: Gas::new(1 << 40),
        task_memory_pages_max: 1024,
        task_steps_max: 1000,
        step_gas_max: Gas::new(1 << 30),
        share_workers: 8800,
        share_audits: 500,
        share_validators: 400,
    }
}

fn genesis(chain: &str) -> Genesis {
    Genesis {
        chain_id: chain.into(),
        genesis_time_ms: 1_000,
        params: params(),
        validators: vec![Validator {
            key: account(1),
            beacon_key: account(2),
            reward: account(3),
            power: Weight::new(1),
        }],
        accounts: (10..60)
            .map(|number| GenesisAccount {
                id: account(number),
                balance: Amount::new(1_000),
            })
            .collect(),
        workers: Vec::new(),
    }
}

/// A block on top of the store's head, and what its execution would give.
struct Next {
    hash: Hash,
    block: DecodedBlock,
    certificate: Certificate,
    receipts: Vec<Receipt>,
    writes: Arc<WriteSet>,
    patch: Patch,
    blobs: Vec<Blob>,
}

fn transaction(sender: u8, action: Action) -> SignedTransaction {
    SignedTransaction {
        transaction: Transaction {
            chain: [0; 4],
            sender: account(sender),
            nonce: Nonce::ZERO,
            max_fee: Amount::new(100),
            tip: Amount::ZERO,
            expires_at: Height::new(9),
            sponsor: None,
            action,
        },
        signature: Signature::new([0; 64]),
        sponsor_signature: None,
    }
}

fn transfer(sender: u8, to: u8) -> SignedTransaction {
    let amount = Amount::new(1);
    let to = account(to);
    transaction(sender, Action::Transfer { to, amount })
}

fn task(sender: u8) -> SignedTransaction {
    let spec = TaskSpec {
        program: Hash::ZERO,
        input: Blob::new(vec![1, 2, 3]),
        gas_limit: Gas::new(1),
        memory_pages: 1,
        mode: Mode::Replicated { replicas: 1 },
        price_per_mgas: Amount::new(1),
        insured_value: Amount::ZERO,
        requirements: Requirements::default(),
        wait_max: 1,
    };
    transaction(sender, Action::SubmitTask(spec))
}

fn next(store: &Store, mut transactions: Vec<SignedTransaction>) -> Next {
    let head = store.head();
    let height = head.height.next();
    for signed in &mut transactions {
        // No transaction comes twice.
        signed.transaction.nonce = Nonce::new(height.get());
    }
    let key = |name: &str| Hash::of(name, &[&height.get().to_le_bytes()]);
    let counter = Hash::of("counter", &[]);
    let read = |key: &Hash| -> Option<RecordBytes> {
        let found = store.read(key).expect("readable");
        found.map(|bytes| bytes.into_owned().into())
    };
    let old = read(&counter);
    let mut writes = vec![
        Write {
            key: key("made"),
            old: None,
            new: Some(vec![7; 40].into()),
        },
        Write {
            key: counter,
            old,
            new: Some(height.get().to_le_bytes().to_vec().into()),
        },
    ];
    // What the last block made goes again.
    let last = Hash::of("made", &[&head.height.get().to_le_bytes()]);
    if let Some(old) = read(&last) {
        let old = Some(old);
        writes.push(Write {
            key: last,
            old,
            new: None,
        });
    }
    writes.sort_by_key(|write| write.key);
    let writes = Arc::new(WriteSet { writes });
    let patch = tree_after(store.state().tree(), &writes);
    let header = Header {
        version: ProtocolVersion::new(1),
        chain: store.genesis().hash,
        height,
        round: Round::new(0),
        time_ms: head.time_ms + 1,
        parent: head.hash,
        proposer: account(1),
        transactions_root: Hash::ZERO,
        assignments_root: Hash::ZERO,
        attestations_root: Hash::ZERO,
        evidence_root: Hash::ZERO,
        receipts_root: Hash::ZERO,
        state_root: patch.root(),
        validators_hash: Hash::ZERO,
        next_validators_hash: Hash::ZERO,
        params_hash: Hash::ZERO,
        base_fee: Amount::new(8),
        beacon_output: VrfOutput::new([0; 64]),
        beacon_proof: VrfProof::new([0; 80]),
        last_certificate_hash: Hash::ZERO,
    };
    let hash = header.hash();
    let receipts = (0_u32..)
        .zip(&transactions)
        .map(|(index, signed)| Receipt {
            transaction: signed.transaction.id(&store.genesis().hash),
            height,
            index,
            payer: signed.transaction.payer(),
            fee: Amount::ZERO,
            tip: Amount::ZERO,
            outcome: Outcome::Applied,
        })
        .collect();
    Next {
        hash,
        certificate: Certificate {
            height,
            round: Round::new(1),
            block: hash,
            signatures: vec![CommitSignature {
                validator: account(1),
                signature: Signature::new([1; 64]),
            }],
        },
        block: decoded(&Block {
            header,
            proposer_signature: Signature::new([2; 64]),
            transactions,
            assignments: Vec::new(),
            attestations: Vec::new(),
            outputs: Vec::new(),
            last_certificate: None,
        }),
        receipts,
        writes,
        patch,
        blobs: vec![Blob::new(height.get().to_le_bytes().to_vec())],
    }
}

fn decoded(block: &Block) -> DecodedBlock {
    DecodedBlock::decode(&codec::encode(block)).expect("what is encoded decodes")
}

impl Next {
    fn batch(&self) -> CommitBatch<'_> {
        CommitBatch {
            hash: self.hash,
            block: &self.block,
            certificate: &self.certificate,
            receipts: &self.receipts,
            writes: &self.writes,
            patch: &self.patch,
            blobs: &self.blobs,
        }
    }
}

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, &genesis("devnet-store"))
}

/// A store of so many blocks with one transfer each.
fn store_of(path: &Path, blocks: u8) -> (Store, Vec<Next>) {
    let store = open(path).expect("it opens");
    let mut made = Vec::new();
    for number in 0..blocks {
        let block = next(&store, vec![transfer(10 + number, 99)]);
        store.commit(&block.batch()).expect("it is committed");
        made.push(block);
    }
    (store, made)
}

fn refused(path: &Path) -> StoreError {
    match open(path) {
        Ok(_) => panic!("a directory that should be refused was opened"),
        Err(error) => error,
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_new_store_is_genesis() {
    let folder = folder();
    let store = open(&folder.path().join("deep/data")).expect("it opens");
    let genesis = genesis("devnet-store");
    assert_eq!(store.head(), store.genesis());
    assert_eq!(store.head().hash, genesis.hash());
    assert_eq!(store.head().time_ms, 1_000);
    let writes = genesis.state().expect("a state");
    assert_eq!(store.state().tree().root(), genesis_root(&writes));
    let mut scanned = Vec::new();
    store
        .scan_state(|key, value| scanned.push((key, value.to_vec())))
        .expect("readable");
    let expected: Vec<_> = writes
        .writes
        .iter()
        .map(|write| {
            (
                write.key,
                write.new.as_ref().expect("genesis makes").to_vec(),
            )
        })
        .collect();
    assert_eq!(scanned, expected);
    assert_eq!(store.block(Height::new(1)), Ok(None));
}

#[test]
fn everything_is_there_after_opening_again() {
    let folder = folder();
    let (store, mut made) = store_of(folder.path(), 3);
    let block = next(&store, vec![transfer(20, 21), task(22)]);
    store.commit(&block.batch()).expect("it is committed");
    made.push(block);
    store.put_meta("name", b"value").expect("it is kept");
    let root = store.state().tree().root();
    drop(store);
    let store = open(folder.path()).expect("it opens again");
    assert_eq!(store.head().height, Height::new(4));
    assert_eq!(store.head().hash, made[3].hash);
    assert_eq!(store.state().tree().root(), root);
    for made in &made {
        let height = made.block.block().header.height;
        assert_eq!(store.block(height), Ok(Some(made.block.block().clone())));
        let bytes = made.block.bytes().to_vec();
        assert_eq!(store.block_bytes(height), Ok(Some(bytes)));
        let header = made.block.block().header.clone();
        assert_eq!(store.header(height), Ok(Some(header)));
        let certificate = made.certificate.clone();
        assert_eq!(store.certificate(height), Ok(Some(certificate)));
        assert_eq!(store.receipts(height), Ok(Some(made.receipts.clone())));
        assert_eq!(store.height_of(&made.hash), Ok(Some(height)));
        let blob = &made.blobs[0];
        let kept = Some(blob.as_bytes().to_vec());
        assert_eq!(store.blob(&blob.hash()), Ok(kept));
        for receipt in &made.receipts {
            let at = Some((height, receipt.index));
            assert_eq!(store.transaction_at(&receipt.transaction), Ok(at));
        }
    }
    assert_eq!(store.meta("name"), Ok(Some(b"value".to_vec())));
    assert_eq!(store.meta("schema"), Ok(None));
    let made_last = Hash::of("made", &[&4_u64.to_le_bytes()]);
    assert_eq!(store.read(&made_last), Ok(Some(vec![7; 40].into())));
    let gone = Hash::of("made", &[&3_u64.to_le_bytes()]);
    assert_eq!(store.read(&gone), Ok(None));
}

#[test]
fn histories_come_newest_first_and_page_by_page() {
    let folder = folder();
    let store = open(folder.path()).expect("it opens");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let block = next(&store, vec![task(10), transfer(11, 10), task(12)]);
        ids.push(block.receipts[0].transaction);
        let mut batch = block.batch();
        let mut receipts = block.receipts.clone();
        receipts[2].outcome = Outcome::Failed {
            failure: proofmill_chain::types::receipt::Failure::CostOverflow,
        };
        batch.receipts = &receipts;
        store.commit(&batch).expect("it is committed");
    }
    let at = |height, index| (Height::new(height), index);
    // A task that was refused is none.
    let tasks = store.tasks_before(None, 2).expect("readable");
    assert_eq!(tasks, [(at(3, 0), ids[2]), (at(2, 0), ids[1])]);
    let tasks = store.tasks_before(Some(at(2, 0)), 2).expect("readable");
    assert_eq!(tasks, [(at(1, 0), ids[0])]);
}

#[test]
fn blocks_are_staged_ahead_of_the_disk_and_become_durable_in_order() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 1);
    let durable = store.head();
    let one = next(&store, vec![transfer(20, 21)]);
    store.stage(&one.batch()).expect("it follows");
    let two = next(&store, Vec::new());
    store
        .stage(&two.batch())
        .expect("it follows what is staged");
    assert_eq!(store.head().hash, two.hash);
    assert_eq!(store.durable_head(), durable);
    // Nobody who asks the disk is told, and memory has the records that the disk lacks.
    assert_eq!(
        store
            .view()
            .expect("readable")
            .head()
            .expect("readable")
            .hash,
        made[0].hash
    );
    assert_eq!(store.block(Height::new(2)), Ok(None));
    let long = |height: u64| Hash::of("made", &[&height.to_le_bytes()]);
    let record = Some(vec![7; 40].into());
    assert_eq!(store.read(&long(3)), Ok(record.clone()));
    assert_eq!(store.read(&long(2)), Ok(None));
    let early = store.persist(&two.batch()).expect_err("the other is first");
    assert!(matches!(early, StoreError::Refused(_)), "{early}");
    store.persist(&one.batch()).expect("it is written");
    assert_eq!(store.durable_head().hash, one.hash);
    store.persist(&two.batch()).expect("it is written");
    assert_eq!(store.durable_head(), store.head());
    assert_eq!(store.read(&long(3)), Ok(record));
    let never_staged = next(&store, Vec::new());
    let error = store
        .persist(&never_staged.batch())
        .expect_err("not staged");
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    drop(store);
    assert_eq!(open(folder.path()).expect("it opens").head().hash, two.hash);
}

#[test]
fn what_was_staged_and_not_written_is_not_there_after_opening_again() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 2);
    let block = next(&store, vec![transfer(20, 21)]);
    store.stage(&block.batch()).expect("it follows");
    drop(store);
    let store = open(folder.path()).expect("it opens");
    assert_eq!(store.head().hash, made[1].hash);
    store
        .commit(&block.batch())
        .expect_err("the patch is of another tree");
    let again = next(&store, vec![transfer(20, 21)]);
    store.commit(&again.batch()).expect("it follows");
}

#[test]
fn proposals_are_kept_until_their_height_is_decided() {
    let folder = folder();
    let (store, _) = store_of(folder.path(), 1);
    let (a, b) = (Hash::of("a", &[]), Hash::of("b", &[]));
    let keep = |height, round, block: &Hash, bytes: &[u8]| {
        store
            .put_undecided(Height::new(height), Round::new(round), block, bytes)
            .expect("it is kept");
    };
    keep(2, 0, &a, b"2/0/a");
    keep(2, 1, &b, b"2/1/b");
    keep(3, 0, &a, b"3/0/a");
    keep(1, 0, &a, b"decided already");
    assert_eq!(store.undecided(Height::new(1)), Ok(Vec::new()));
    let two = vec![
        (Round::new(0), a, b"2/0/a".to_vec()),
        (Round::new(1), b, b"2/1/b".to_vec()),
    ];
    assert_eq!(store.undecided(Height::new(2)), Ok(two));
    drop(store);
    let store = open(folder.path()).expect("it opens again");
    let one = store.undecided_at(Height::new(2), Round::new(1), &b);
    assert_eq!(one, Ok(Some(b"2/1/b".to_vec())));
    let block = next(&store, Vec::new());
    store.commit(&block.batch()).expect("it is committed");
    assert_eq!(store.undecided(Height::new(2)), Ok(Vec::new()));
    assert_eq!(
        store.undecided(Height::new(3)).map(|kept| kept.len()),
        Ok(1)
    );
}

#[test]
fn a_commit_that_does_not_follow_is_refused_and_leaves_nothing() {
    let folder = folder();
    let (store, made) = store_of(folder.path(), 2);
    let head = store.head();
    let root = store.state().tree().root();
    let good = next(&store, vec![transfer(20, 21)]);
    let other_tree = MemoryState::default();
    let other_patch = tree_after(other_tree.tree(), &good.writes);
    let mut other_certificate = good.certificate.clone();
    other_certificate.block = Hash::ZERO;
    let mut other_parent = good.block.block().clone();
    other_parent.header.parent = Hash::ZERO;
    let other_parent = decoded(&other_parent);
    let mut wrong = vec![made[1].batch(), good.batch(), good.batch(), good.batch()];
    wrong[1].patch = &other_patch;
    wrong[2].certificate = &other_certificate;
    wrong[3].receipts = &[];
    wrong.push(CommitBatch {
        block: &other_parent,
        hash: other_parent.block().header.hash(),
        ..good.batch()
    });
    wrong.push(CommitBatch {
        hash: Hash::ZERO,
        ..good.batch()
    });
    for batch in wrong {
        let error = store.commit(&batch).expect_err("it does not follow");
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        assert_eq!(store.head(), head);
        assert_eq!(store.state().tree().root(), root);
        assert_eq!(store.block(Height::new(3)), Ok(None));
    }
    store.commit(&good.batch()).expect("the good one follows");
}

#[test]
fn another_chains_directory_is_refused() {
    let folder = folder();
    drop(open(folder.path()).expect("it opens"));
    let other = genesis("devnet-other");
    let error = Store::open(folder.path(), &other).err().expect("another");
    let expected = StoreError::OtherGenesis {
        path: folder.path().into(),
        found: genesis("devnet-store").hash(),
        expected: other.hash(),
    };
    assert_eq!(error, expected);
    let text = error.to_string();
    assert!(text.contains(&other.hash().to_string()));
    assert!(text.contains(&genesis("devnet-store").hash().to_string()));
}

#[test]
fn a_directory_in_use_is_refused() {
    let folder = folder();
    let store = open(folder.path()).expect("it opens");
    let error = refused(folder.path());
    let path = PathBuf::from(folder.path());
    assert_eq!(error, StoreError::Locked { path });
    assert!(error.to_string().contains("already in use"));
    drop(store);
    open(folder.path()).expect("it is free again");
}
