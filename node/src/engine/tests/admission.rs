//! What a stranger sends costs this node little, and blocks stay full of what pays.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::BatchSecret;
use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::pipeline::SeenTransactions;
use proofmill_chain::types::block::{Block, Certificate, CommitSignature};
use proofmill_chain::types::genesis::{Genesis, GenesisAccount};
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::receipt::Failure;
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Mode, Requirements, SignedAttestation, Statement, TaskSpec,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Gas, Height, Nonce, Round};
use zeroize::Zeroizing;

use super::super::{AdmitError, Engine, EngineParts, Taken};
use crate::admission::admit_all;
use crate::gossip::{
    Acceptance, Gossip, GossipConfig, GossipHandle, Inbox, KEEP_ALIVE, Multiaddr, Topic,
};
use crate::store::Store;
use crate::{dev_keys, genesis_file};
use proofmill_chain::upgrades::{RELEASED, Schedule};
use proofmill_signer::{GuardFile, LocalSigner, Record};

/// What each account of the tests has.
const FUNDS: u64 = 1_000_000_000;

pub(super) fn account(number: u32) -> SecretKey {
    let seed = Hash::of("test/account", &[&number.to_le_bytes()]);
    SecretKey::from_seed(seed.as_bytes())
}

/// The development network's genesis with `accounts` more accounts.
pub(super) fn genesis(accounts: u32) -> Genesis {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis.json");
    let file = genesis_file::load(&path).expect("the project's genesis");
    let mut genesis = file.genesis;
    genesis
        .accounts
        .extend((0..accounts).map(|number| GenesisAccount {
            id: account(number).public(),
            balance: Amount::new(FUNDS),
        }));
    genesis
}

/// The engine of the validator that proposes the first block.
pub(super) fn engine(place: &Path, genesis: Genesis) -> Engine {
    let validators = genesis.validator_set().expect("a set");
    let proposer = validators.proposer(Height::new(1), Round::new(0)).key;
    let index = (0..dev_keys::INDEX_MAX)
        .find(|index| dev_keys::validator(*index).public() == proposer)
        .expect("validators have development keys");
    let key = dev_keys::validator(index);
    let record = Record::new(genesis.hash(), key.public(), Height::ZERO);
    let guard = GuardFile::create(&place.with_extension("guard"), &record).expect("a guard");
    let signer = LocalSigner::new(key.clone(), dev_keys::beacon(index), guard, record);
    let engine = Engine::new(EngineParts {
        store: Store::open(place, &genesis).expect("a store"),
        schedule: Schedule::new(&genesis, &[], RELEASED).expect("a schedule"),
        genesis,
        validator: key.public(),
        signer: Some(Arc::new(signer)),
        secret: BatchSecret::new([1; 32]),
        keys_cached_max: 1_024,
        seen: SeenTransactions::new(1 << 14, 1),
        idle: Duration::from_secs(1),
        verify_supply_every: 1,
    });
    engine.expect("a genesis with validators")
}

pub(super) fn transaction(
    engine: &Engine,
    key: &SecretKey,
    nonce: u64,
    tip: u64,
    action: Action,
) -> SignedTransaction {
    let transaction = Transaction {
        chain: engine.genesis_hash().prefix(),
        sender: key.public(),
        nonce: Nonce::new(nonce),
        max_fee: Amount::new(100_000_000),
        tip: Amount::new(tip),
        expires_at: Height::new(1_000),
        sponsor: None,
        action,
    };
    SignedTransaction {
        signature: key.sign(&transaction.sign_bytes(&engine.genesis_hash())),
        transaction,
        sponsor_signature: None,
    }
}

pub(super) fn transfer(
    engine: &Engine,
    key: &SecretKey,
    nonce: u64,
    tip: u64,
    amount: u64,
) -> SignedTransaction {
    let action = Action::Transfer {
        to: dev_keys::account(0).public(),
        amount: Amount::new(amount),
    };
    transaction(engine, key, nonce, tip, action)
}

fn cost(engine: &Engine, signed: &SignedTransaction) -> u64 {
    let weight = signed.transaction.weight(codec::encode(signed).len()).get();
    engine.params().base_fee.get() * weight + signed.transaction.tip.get()
}

pub(super) fn gossip(engine: &Engine, signed: &SignedTransaction) -> Acceptance {
    one(engine, Topic::Transactions, codec::encode(signed))
}

fn one(engine: &Engine, topic: Topic, bytes: Vec<u8>) -> Acceptance {
    let mut verdicts = engine.admit_gossip(vec![(topic, bytes)]);
    verdicts.pop().expect("a verdict on each message")
}

#[test]
fn senders_that_empty_their_accounts_do_not_empty_blocks() {
    const SENDERS: u32 = 20;
    const EACH: u64 = 100;
    const HONEST: u32 = 100;
    let place = tempfile::tempdir().expect("a directory");
    let mut genesis = genesis(SENDERS + HONEST);
    genesis.params.block_transactions_max = SENDERS * u32::try_from(EACH).expect("small");
    let engine = engine(place.path(), genesis);
    for sender in 0..SENDERS {
        let key = account(sender);
        let tip = 5_000;
        let first = cost(&engine, &transfer(&engine, &key, 0, tip, 1));
        for nonce in 0..EACH {
            let amount = if nonce == 0 { FUNDS - first } else { 1 };
            gossip(&engine, &transfer(&engine, &key, nonce, tip, amount));
        }
    }
    for sender in SENDERS..SENDERS + HONEST {
        gossip(&engine, &transfer(&engine, &account(sender), 0, 1, 1));
    }
    let (_, bytes) = engine.propose(Round::new(0)).expect("a block");
    let block: Block = codec::decode::<_, { 4 << 20 }>(&bytes).expect("a block");
    assert_eq!(
        block.transactions.len(),
        (SENDERS + HONEST) as usize,
        "everybody's first transaction can be paid for"
    );
}

#[test]
fn attestations_for_tasks_that_do_not_exist_take_no_room() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), genesis(0));
    let key = dev_keys::worker(0);
    for number in 0..8_192_u64 {
        let attestation = Attestation {
            task: Hash::of("test/no-task", &[&number.to_le_bytes()]),
            draw: 0,
            worker: key.public(),
            statement: Statement::Commit {
                commitment: Hash::ZERO,
            },
        };
        let message = AttestationMessage {
            signed: SignedAttestation {
                signature: key.sign(&attestation.sign_bytes(&engine.genesis_hash())),
                attestation,
            },
            output: Blob::default(),
        };
        let verdict = one(&engine, Topic::Attestations, codec::encode(&message));
        assert_eq!(verdict, Acceptance::Ignore);
    }
    assert_eq!(engine.pools().attestations.len(), 0);
}

/// Prints how many transactions a second are admitted, in batches as gossip brings them.
#[test]
#[ignore = "a measurement"]
fn admission_throughput() {
    const SENDERS: u32 = 200;
    const EACH: u64 = 50;
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), genesis(SENDERS));
    let encoded: Vec<_> = (0..EACH)
        .flat_map(|nonce| (0..SENDERS).map(move |sender| (sender, nonce)))
        .map(|(sender, nonce)| codec::encode(&transfer(&engine, &account(sender), nonce, 1, 1)))
        .collect();
    let start = Instant::now();
    for batch in encoded.chunks(256) {
        let messages = batch
            .iter()
            .map(|bytes| (Topic::Transactions, bytes.clone()));
        let _ = engine.admit_gossip(messages.collect());
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(engine.pools().transactions.len(), encoded.len());
    println!(
        "valid: {:.0} transactions a second",
        encoded.len() as f64 / seconds
    );
    let strangers: Vec<_> = (0..10_000)
        .map(|number| codec::encode(&transfer(&engine, &account(1_000 + number), 0, 1, 1)))
        .collect();
    let start = Instant::now();
    for batch in strangers.chunks(256) {
        let messages = batch
            .iter()
            .map(|bytes| (Topic::Transactions, bytes.clone()));
        let _ = engine.admit_gossip(messages.collect());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "unfunded: {:.0} messages a second",
        strangers.len() as f64 / seconds
    );
}

/// A program.
pub(super) fn module() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.wasm"))
        .expect("the project's example")
}

/// The development network's genesis with one validator, which proposes and decides every block.
pub(super) fn alone(accounts: u32) -> Genesis {
    let mut genesis = genesis(accounts);
    genesis.validators.truncate(1);
    genesis
}

/// Proposes, decides and applies the next block.
pub(super) fn advance(engine: &Engine) -> Block {
    let (hash, bytes) = engine.propose(Round::new(0)).expect("a block");
    let key = dev_keys::validator(0);
    let height = engine.store().head().height.next();
    let message = vote_sign_bytes(
        &engine.genesis_hash(),
        VoteKind::Precommit,
        height,
        Round::new(0),
        Some(&hash),
        &key.public(),
    );
    let certificate = Certificate {
        height,
        round: Round::new(0),
        block: hash,
        signatures: vec![CommitSignature {
            validator: key.public(),
            signature: key.sign(&message),
        }],
    };
    engine.apply(&certificate, &bytes).expect("it is decided");
    codec::decode::<_, { 4 << 20 }>(&bytes).expect("a block")
}

pub(super) fn admitted(engine: &Engine, signed: SignedTransaction) -> Hash {
    match engine.admit_transaction(signed).expect("it is good") {
        Taken::New(id) => id,
        Taken::Known(id) => panic!("{id} is known"),
    }
}

fn order(program: Hash) -> Action {
    Action::SubmitTask(TaskSpec {
        program,
        input: Blob::default(),
        gas_limit: Gas::new(1_000_000),
        memory_pages: 4_096,
        mode: Mode::Replicated { replicas: 1 },
        price_per_mgas: Amount::new(1_000),
        insured_value: Amount::ZERO,
        requirements: Requirements::default(),
        wait_max: 100,
    })
}

fn commit(engine: &Engine, key: &SecretKey, task: Hash, draw: u8) -> Acceptance {
    let attestation = Attestation {
        task,
        draw,
        worker: key.public(),
        statement: Statement::Commit {
            commitment: Hash::ZERO,
        },
    };
    let message = AttestationMessage {
        signed: SignedAttestation {
            signature: key.sign(&attestation.sign_bytes(&engine.genesis_hash())),
            attestation,
        },
        output: Blob::default(),
    };
    one(engine, Topic::Attestations, codec::encode(&message))
}

#[test]
fn attestations_are_taken_for_seats_that_are_there_or_may_be_drawn_next() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), alone(0));
    let sender = dev_keys::account(0);
    let module = module();
    let program = Blob::new(module.clone()).hash();
    let publish = Action::PublishProgram {
        module: Blob::new(module),
    };
    admitted(
        &engine,
        transaction(&engine, &sender, 0, 0, publish.clone()),
    );
    assert_eq!(advance(&engine).transactions.len(), 1);
    // A second time it is refused before anybody looks into it.
    let again = engine.admit_transaction(transaction(&engine, &sender, 1, 0, publish));
    assert!(matches!(
        again,
        Err(AdmitError::WouldFail(Failure::ProgramExists { .. }))
    ));

    let task = admitted(&engine, transaction(&engine, &sender, 1, 0, order(program)));
    let workers: Vec<_> = (0..3).map(dev_keys::worker).collect();
    let pending = || engine.pools().attestations.len();
    assert_eq!(
        commit(&engine, &workers[0], task, 0),
        Acceptance::Ignore,
        "it is pending"
    );
    // The draw is due `assign_delay` blocks after the task's own and one more.
    advance(&engine);
    for _ in 0..engine.params().assign_delay {
        assert_eq!(
            commit(&engine, &workers[0], task, 0),
            Acceptance::Ignore,
            "no draw is due"
        );
        advance(&engine);
    }
    assert_eq!(
        commit(&engine, &workers[0], task, 1),
        Acceptance::Ignore,
        "no such draw yet"
    );
    let stranger = account(5);
    assert_eq!(
        commit(&engine, &stranger, task, 0),
        Acceptance::Ignore,
        "no worker yet"
    );
    for worker in &workers {
        assert_eq!(
            commit(&engine, worker, task, 0),
            Acceptance::Accept,
            "it may be drawn"
        );
    }
    assert_eq!(pending(), 3);
    // The block draws one worker and carries its commitment; the others were in vain.
    let block = advance(&engine);
    assert_eq!(block.assignments.len(), 1);
    assert_eq!(block.attestations.len(), 1);
    assert_eq!(pending(), 0);
    for worker in &workers {
        assert_eq!(
            commit(&engine, worker, task, 0),
            Acceptance::Useless,
            "the seat has spoken"
        );
    }
}

#[test]
fn a_burst_of_one_sender_is_taken_in_its_order_and_wrong_signatures_are_found_in_it() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), genesis(2));
    let mut burst: Vec<_> = (0..20)
        .map(|nonce| transfer(&engine, &account(0), nonce, 1, 1))
        .collect();
    let mut forged = transfer(&engine, &account(1), 0, 1, 1);
    forged.signature = burst[0].signature;
    burst.insert(7, forged);
    let mut nowhere = transfer(&engine, &dev_keys::account(1), 0, 1, 1);
    let mut no_point = [0; 32];
    no_point[0] = 2;
    nowhere.transaction.action = Action::Transfer {
        to: AccountId::new(no_point),
        amount: Amount::new(1),
    };
    nowhere.signature =
        dev_keys::account(1).sign(&nowhere.transaction.sign_bytes(&engine.genesis_hash()));
    burst.push(nowhere);
    let messages = burst
        .iter()
        .map(|signed| (Topic::Transactions, codec::encode(signed)));
    let verdicts = engine.admit_gossip(messages.collect());
    for (index, verdict) in verdicts.iter().enumerate() {
        let expected = match index {
            7 | 21 => Acceptance::Reject,
            _ => Acceptance::Accept,
        };
        assert_eq!(*verdict, expected, "{index}");
    }
    assert_eq!(engine.pools().transactions.len(), 20);
    let again = one(&engine, Topic::Transactions, codec::encode(&burst[3]));
    assert_eq!(again, Acceptance::Ignore, "it is known");
}

#[test]
fn what_comes_behind_a_forged_transaction_is_neither_lost_nor_blamed() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = engine(place.path(), genesis(2));
    let key = account(0);
    let real: Vec<_> = (0..4)
        .map(|nonce| transfer(&engine, &key, nonce, 1, 1))
        .collect();
    // Each would take all that the account has, and the nonce of the first.
    let forged = |tip| {
        let mut forged = transfer(&engine, &key, 0, tip, 1);
        let amount = FUNDS - cost(&engine, &forged);
        forged = transfer(&engine, &key, 0, tip, amount);
        forged.signature = real[0].signature;
        forged
    };
    let poor = account(1);
    let left = FUNDS - cost(&engine, &transfer(&engine, &poor, 0, 1, 1));
    let mut burst = vec![forged(2), forged(3)];
    burst.extend(real);
    // These two are their sender's, and it can pay for one.
    burst.extend([
        transfer(&engine, &poor, 0, 1, left),
        transfer(&engine, &poor, 1, 1, 1),
    ]);
    let messages = burst
        .iter()
        .map(|signed| (Topic::Transactions, codec::encode(signed)));
    let verdicts = engine.admit_gossip(messages.collect());
    let mut expected = vec![Acceptance::Reject; 2];
    expected.extend([Acceptance::Accept; 5]);
    expected.push(Acceptance::Useless);
    assert_eq!(verdicts, expected);
    assert_eq!(engine.pools().transactions.len(), 5);
}

/// A node of the gossip network with a seed of its own, which dials `peers`.
fn gossiping(engine: &Engine, seed: u8, peers: &[Multiaddr]) -> (GossipHandle, Inbox) {
    let config = GossipConfig {
        listen: "/ip4/127.0.0.1/tcp/0".parse().expect("an address"),
        peers: peers.to_vec(),
        seed: Zeroizing::new([seed; 32]),
        genesis: engine.genesis_hash(),
        upgrades: engine.schedule().hash(),
        keep_alive: KEEP_ALIVE,
    };
    Gossip::start(&config).expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_peer_starves_no_other_and_what_follows_a_module_is_not_lost() {
    const FLOOD: u32 = 2_000;
    const BURST: u64 = 50;
    let place = tempfile::tempdir().expect("a directory");
    let engine = Arc::new(engine(place.path(), alone(2)));
    let (node, inbox) = gossiping(&engine, 1, &[]);
    let address = node.listen_addr().await.expect("it listens");
    let (flooding, _flooding) = gossiping(&engine, 2, std::slice::from_ref(&address));
    let (honest, _honest) = gossiping(&engine, 3, &[address]);
    let mut peers = node.watch_peers();
    peers
        .wait_for(|peers| peers.iter().filter(|peer| peer.subscribed).count() == 2)
        .await
        .expect("it runs");
    for number in 0..FLOOD {
        let unfunded = transfer(&engine, &account(1_000 + number), 0, 1, 1);
        let sent = flooding.publish(Topic::Transactions, codec::encode(&unfunded));
        sent.expect("is sent");
    }
    let publish = Action::PublishProgram {
        module: Blob::new(module()),
    };
    let mut burst = vec![
        transaction(&engine, &account(1), 0, 1, publish),
        transfer(&engine, &account(1), 1, 1, 1),
        transfer(&engine, &account(1), 2, 1, 1),
    ];
    burst.extend((0..BURST).map(|nonce| transfer(&engine, &account(0), nonce, 1, 1)));
    let expected = burst.len();
    for signed in burst {
        let sent = honest.publish(Topic::Transactions, codec::encode(&signed));
        sent.expect("is sent");
    }
    let admitting = tokio::spawn(admit_all(Arc::clone(&engine), inbox));
    let all_in = async {
        loop {
            let work = engine.work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            if engine.pools().transactions.len() == expected {
                return;
            }
            work.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all_in)
        .await
        .expect("everything honest is admitted");
    for gossip in [&flooding, &honest, &node] {
        gossip.stop().await;
    }
    admitting.await.expect("it ends with gossip");
    let counts = node.counts();
    assert_eq!(counts.rejected, 0, "nothing was invalid");
}
