//! A small chain in memory: genesis, keys, and blocks that go the whole way.
//!
//! Every block that [`World::advance_at`] takes in was built, encoded, validated from its bytes,
//! applied, certified by every validator and followed by a check of the laws in [`World::check_laws`].

#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part"
)]

mod actions;
pub(crate) mod laws;
pub(crate) mod ledger;
pub(crate) mod naive;
pub(crate) mod plain;
pub(crate) mod raw_key;
pub(crate) mod seeds;
pub(crate) mod transfers;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proofmill_chain::build::{Built, Candidates, UnguardedKeys, build};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::{BatchSecret, Verifier};
use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::pipeline::{
    BlockError, Context, SealedBlock, check, decode, execute, seal, validate, verify,
};
use proofmill_chain::tree::{LeafValue, Tree};
use proofmill_chain::types::block::{Block, Certificate, CommitSignature};
use proofmill_chain::types::genesis::{Genesis, GenesisAccount, GenesisWorker};
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature, blob_hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Outcome, Receipt};
use proofmill_chain::types::task::{
    AttestationMessage, ExpiryReason, Mode, Phase, Requirements, ResultClaim, ResultStatus, Task,
    TaskSpec,
};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Gas, Height, MachineVersion, Nonce, Round, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_chain::types::worker::WorkerTerms;
use proofmill_chain::upgrades::{RELEASED, Schedule};

/// What the tests' transactions give at most: more than any fee here.
pub(crate) const MAX_FEE: u64 = 100_000_000;
/// What each funded account has.
pub(crate) const FUNDS: u64 = 1_000_000_000_000;
/// Collateral of each worker of genesis.
pub(crate) const COLLATERAL: u64 = 1_000_000;
/// Between blocks, unless a test says otherwise.
pub(crate) const STEP_MS: u64 = 1_000;
/// What the test machine says of a module that is none.
pub(crate) const NOT_A_PROGRAM: u16 = 7;

/// A block's whole way, with its execution beside its signatures as a node goes it, and one stage after
/// the other: the verdict is one.
pub(crate) fn both_ways(bytes: &[u8], context: &Context<'_>) -> Result<SealedBlock, BlockError> {
    let beside = validate(bytes, context);
    let staged = decode(bytes, context.rules)
        .and_then(|decoded| check(decoded, context))
        .and_then(|checked| verify(checked, context))
        .and_then(|verified| execute(verified, context))
        .and_then(|executed| seal(executed, context));
    let told = |sealed: &SealedBlock| {
        let patch = sealed.patch();
        (sealed.hash(), patch.root(), patch.len())
    };
    assert_eq!(
        beside.as_ref().map(told),
        staged.as_ref().map(told),
        "execution beside the signatures, and after them"
    );
    if let (Ok(beside), Ok(staged)) = (&beside, &staged) {
        assert_eq!(beside.effects(), staged.effects());
    }
    beside
}

/// Takes bytes that begin with `PM` for a program; the next two bytes are its pages.
#[derive(Clone, Copy)]
pub(crate) struct Magic;

impl Machine for Magic {
    fn judge(&self, _: MachineVersion, module: &[u8]) -> Result<ProgramFacts, u16> {
        match module {
            [b'P', b'M', least, most, ..] => Ok(ProgramFacts {
                memory_pages_min: u32::from(*least),
                memory_pages_max: u32::from(*most),
            }),
            _ => Err(NOT_A_PROGRAM),
        }
    }
}

pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(Hash::of("test-key", &[name.as_bytes()]).as_bytes())
}

pub(crate) fn id(name: &str) -> AccountId {
    key(name).public()
}

static KEYS: LazyLock<BTreeMap<AccountId, SecretKey>> = LazyLock::new(|| {
    let plain = ["alice", "bob", "carol", "poor", "stranger"].map(str::to_owned);
    let numbered = ["operator", "worker", "validator", "beacon", "reward"]
        .into_iter()
        .flat_map(|name| (0..12).map(move |n| format!("{name}-{n}")));
    plain
        .into_iter()
        .chain(numbered)
        .map(|name| (id(&name), key(&name)))
        .collect()
});

/// The secret of any key that [`key`] made under the tests' names.
pub(crate) fn key_of(id: &AccountId) -> &'static SecretKey {
    KEYS.get(id).expect("the tests know every key by name")
}

pub(crate) fn params() -> Params {
    Params {
        machine_version: MachineVersion::new(1),
        block_bytes_max: 2 << 20,
        block_transactions_max: 1_000,
        block_attestations_max: 1_000,
        block_program_bytes_max: 1 << 20,
        base_fee: Amount::new(8),
        module_byte_price: Amount::new(0),
        assign_delay: 2,
        seats_per_block_max: 20,
        timeouts_per_block_max: 20,
        commit_window_blocks: 5,
        commit_window_ms: 10_000,
        commit_gas_per_ms: 1_000_000,
        commit_program_bytes_per_ms: 1_000,
        reveal_window_blocks: 8,
        reveal_window_ms: 10_000,
        redraws_max: 2,
        block_ms_max: 2_000,
        wait_max: 100,
        worker_activation_blocks: 3,
        worker_collateral_min: Amount::new(10_000),
        seat_bond_min: Amount::new(1_000),
        workers_max: 12,
        tasks_live_max: 16,
        replicas_max: 5,
        task_gas_max: Gas::new(1_000_000_000),
        task_memory_pages_max: 256,
        task_steps_max: 1_000,
        step_gas_max: Gas::new(1_000_000_000),
        share_workers: 8_800,
        share_audits: 500,
        share_validators: 400,
    }
}

pub(crate) fn terms() -> WorkerTerms {
    WorkerTerms {
        price_per_mgas: Amount::new(1),
        gas_limit_max: Gas::new(1_000_000_000),
        memory_pages_max: 256,
        tags: vec!["cpu".to_owned()],
        active: true,
    }
}

/// Four validators of power 4, 3, 2, 1; three rich accounts, a poor one, eight operators with a
/// worker each.
pub(crate) fn genesis() -> Genesis {
    let account = |name: &str, balance| GenesisAccount {
        id: id(name),
        balance: Amount::new(balance),
    };
    let mut accounts: Vec<_> = ["alice", "bob", "carol"]
        .map(|name| account(name, FUNDS))
        .into();
    accounts.push(account("poor", 20_000));
    accounts.extend((0..8).map(|n| account(&format!("operator-{n}"), 10_000_000)));
    Genesis {
        chain_id: "devnet-test".to_owned(),
        genesis_time_ms: 1_700_000_000_000,
        params: params(),
        validators: (0..4_u8)
            .map(|n| Validator {
                key: id(&format!("validator-{n}")),
                beacon_key: id(&format!("beacon-{n}")),
                reward: id(&format!("reward-{n}")),
                power: Weight::new(u64::from(4 - n)),
            })
            .collect(),
        accounts,
        workers: (0..8)
            .map(|n| GenesisWorker {
                id: id(&format!("worker-{n}")),
                operator: id(&format!("operator-{n}")),
                collateral: Amount::new(COLLATERAL),
                terms: terms(),
            })
            .collect(),
    }
}

/// A chain and its head.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) genesis: Genesis,
    pub(crate) schedule: Schedule,
    pub(crate) id: Hash,
    pub(crate) state: BTreeMap<Hash, Vec<u8>>,
    pub(crate) tree: Tree,
    pub(crate) height: Height,
    pub(crate) time_ms: u64,
    pub(crate) parent: Hash,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) validators: ValidatorSet,
    pub(crate) verifier: Arc<Verifier>,
}

/// A block that was taken in.
pub(crate) struct Step {
    pub(crate) built: Built,
    pub(crate) sealed: SealedBlock,
}

impl Step {
    pub(crate) fn receipts(&self) -> &[Receipt] {
        &self.sealed.effects().receipts
    }

    /// The outcome of the block's only transaction.
    pub(crate) fn outcome(&self) -> &Outcome {
        let [receipt] = self.receipts() else {
            panic!("one receipt is expected, got {:?}", self.receipts());
        };
        &receipt.outcome
    }
}

pub(crate) fn candidates(
    transactions: &[SignedTransaction],
    attestations: &[AttestationMessage],
) -> Candidates {
    Candidates {
        transactions: transactions.to_vec(),
        attestations: attestations.to_vec(),
        certificate: None,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The chain of the tests' genesis after `change`.
    pub(crate) fn with(change: impl FnOnce(&mut Genesis)) -> Self {
        let mut genesis = genesis();
        change(&mut genesis);
        let writes = genesis.state().expect("the tests' genesis is valid").writes;
        let leaves: Vec<_> = writes
            .iter()
            .map(|write| (write.key, write.new.as_deref().map(LeafValue::of)))
            .collect();
        let mut tree = Tree::new();
        tree.apply(&tree.update(&leaves))
            .expect("the patch is the tree's");
        let schedule = Schedule::new(&genesis, &[], RELEASED).expect("a schedule");
        let world = Self {
            schedule,
            id: genesis.hash(),
            state: writes
                .into_iter()
                .map(|write| (write.key, write.new.expect("genesis only creates").to_vec()))
                .collect(),
            tree,
            height: Height::ZERO,
            time_ms: genesis.genesis_time_ms,
            parent: genesis.hash(),
            certificate: None,
            validators: genesis.validator_set().expect("they make a set"),
            verifier: Arc::new(Verifier::new(BatchSecret::new([9; 32]))),
            genesis,
        };
        world.check_laws();
        world
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            genesis: &self.id,
            rules: self
                .schedule
                .at(self.height.next())
                .expect("the rules are known"),
            parent_height: self.height,
            parent: &self.parent,
            parent_validators: &self.validators,
            state: &self.state,
            tree: &self.tree,
            machine: &Magic,
            verifier: &self.verifier,
            seen: None,
        }
    }

    pub(crate) fn proposer(&self, round: Round) -> &Validator {
        self.validators.proposer(self.height.next(), round)
    }

    pub(crate) fn build(&self, round: Round, time_ms: u64, mut candidates: Candidates) -> Built {
        candidates.certificate.clone_from(&self.certificate);
        let proposer = self.proposer(round);
        build(
            &self.context(),
            round,
            time_ms,
            &UnguardedKeys {
                consensus: key_of(&proposer.key),
                beacon: key_of(&proposer.beacon_key),
            },
            candidates,
        )
        .expect("the state is readable and lawful")
    }

    pub(crate) fn validate(&self, block: &Block) -> Result<SealedBlock, BlockError> {
        both_ways(&codec::encode(block), &self.context())
    }

    /// Takes in the block that the right proposer builds from the candidates.
    pub(crate) fn advance_at(&mut self, time_ms: u64, candidates: Candidates) -> Step {
        let built = self.build(Round::new(0), time_ms, candidates);
        let sealed = self.validate(&built.block).expect("what is built is valid");
        assert_eq!(sealed.hash(), built.hash);
        assert_eq!(sealed.block(), &built.block);
        self.apply(&sealed);
        Step { built, sealed }
    }

    pub(crate) fn advance(&mut self, candidates: Candidates) -> Step {
        self.advance_at(self.time_ms + STEP_MS, candidates)
    }

    /// Takes in empty blocks.
    pub(crate) fn idle(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.advance(Candidates::default());
        }
    }

    pub(crate) fn apply(&mut self, sealed: &SealedBlock) {
        for write in &sealed.effects().writes.writes {
            assert_eq!(
                self.state.get(&write.key).map(Vec::as_slice),
                write.old.as_deref()
            );
            match &write.new {
                Some(bytes) => self.state.insert(write.key, bytes.to_vec()),
                None => self.state.remove(&write.key),
            };
        }
        let header = &sealed.block().header;
        self.tree
            .apply(sealed.patch())
            .expect("the block was sealed on this tree");
        self.height = header.height;
        self.time_ms = header.time_ms;
        self.parent = sealed.hash();
        self.certificate = Some(self.certify(
            header.round,
            &["validator-0", "validator-1", "validator-2", "validator-3"],
        ));
        self.check_laws();
    }

    /// A certificate of the head by the named validators.
    pub(crate) fn certify(&self, round: Round, names: &[&str]) -> Certificate {
        let mut signatures: Vec<_> = names
            .iter()
            .map(|name| {
                let key = key(name);
                let validator = key.public();
                let message = vote_sign_bytes(
                    &self.id,
                    VoteKind::Precommit,
                    self.height,
                    round,
                    Some(&self.parent),
                    &validator,
                );
                CommitSignature {
                    validator,
                    signature: key.sign(&message),
                }
            })
            .collect();
        signatures.sort_by_key(|commit| commit.validator);
        Certificate {
            height: self.height,
            round,
            block: self.parent,
            signatures,
        }
    }
}

pub(crate) fn spec(program: Hash) -> TaskSpec {
    TaskSpec {
        program,
        input: Blob::new(b"input".to_vec()),
        gas_limit: Gas::new(1_000_000),
        memory_pages: 16,
        mode: Mode::Replicated { replicas: 3 },
        price_per_mgas: Amount::new(1_000_003),
        insured_value: Amount::new(100_000),
        requirements: Requirements::default(),
        wait_max: 50,
    }
}

pub(crate) fn claim(output: &[u8], gas: u64) -> ResultClaim {
    ResultClaim {
        output_hash: blob_hash(output),
        trace_root: Hash::of("test-trace", &[output]),
        gas: Gas::new(gas),
        status: ResultStatus::Done,
    }
}

pub(crate) fn salt(worker: &AccountId) -> Hash {
    Hash::of("test-salt", &[worker.as_bytes()])
}

pub(crate) fn transfer(to: AccountId, amount: u64) -> Action {
    Action::Transfer {
        to,
        amount: Amount::new(amount),
    }
}

pub(crate) fn nonce(value: u64) -> Nonce {
    Nonce::new(value)
}

/// A signature that verifies under no key here.
pub(crate) fn bad_signature() -> Signature {
    key("stranger").sign(b"something else")
}

pub(crate) fn expiry(task: &Task) -> Option<ExpiryReason> {
    match task.phase {
        Phase::Expired { reason, .. } => Some(reason),
        _ => None,
    }
}

/// The account that gets the next block's tips and shares.
pub(crate) fn reward_of(world: &World) -> AccountId {
    world.proposer(Round::new(0)).reward
}
