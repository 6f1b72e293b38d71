//! The mixed pattern: everything that a block can hold, in the proportions of a busy chain.
//!
//! ```text
//! block h: program published, tasks submitted ─▶ h+3: seats drawn ─▶ h+4: committed ─▶ h+5: revealed
//! ```
//! What was drawn and committed is learnt from the blocks, as a worker learns it.

use std::collections::BTreeMap;

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, Mode, Requirements, ResultClaim, ResultStatus,
    SignedAttestation, Statement, TaskSpec,
};
use proofmill_chain::types::transaction::{Action, worker_consent_bytes};
use proofmill_chain::types::units::{Amount, GRAIN_PER_MILL, Gas};
use proofmill_chain::types::worker::WorkerTerms;

use super::{Draft, Workload};
use crate::dev_keys;

/// Workers that the chain starts with, each with an operator of its own.
pub(super) const WORKERS: u32 = 16;
/// Bytes of a block for everything but transfers: a program, tasks, registrations, attestations
/// and the outputs that they bring.
pub(super) const BYTES_MAX: usize = 64 << 10;
/// Fewer transactions than this are transfers alone.
const TXS_MIN: usize = 20;
/// No more workers are registered than this: the chain takes 1,024.
const REGISTERED_MAX: u64 = 900;
/// A guest program; a section that the machine passes over makes every copy another program.
const MODULE: &[u8] = include_bytes!("../../../../examples/genome-align/genome-align.wasm");
const REPLICAS: u8 = 3;
const INPUT_BYTES: usize = 64;
const GAS_USED: u64 = 500_000;
const PRICE: Amount = Amount::new(1_000);
const COLLATERAL: Amount = Amount::new(100 * GRAIN_PER_MILL);

/// How many of each kind stand in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) programs: usize,
    pub(super) tasks: usize,
    pub(super) registrations: usize,
    pub(super) sponsored: usize,
    pub(super) transfers: usize,
}

impl Kinds {
    pub(super) fn of(txs: usize) -> Self {
        let (programs, tasks, registrations) = if txs < TXS_MIN {
            (0, 0, 0)
        } else {
            (1, (txs / 200).clamp(1, 16), (txs / 1_000).clamp(1, 4))
        };
        let rest = txs - programs - tasks - registrations;
        let sponsored = rest * 15 / 100;
        Self {
            programs,
            tasks,
            registrations,
            sponsored,
            transfers: rest - sponsored,
        }
    }
}

/// A seat that was drawn.
#[derive(Clone, Copy, Debug)]
struct Place {
    task: Hash,
    draw: u8,
    worker: AccountId,
}

/// What the pattern remembers between blocks.
pub(super) struct Mixed {
    workers: BTreeMap<AccountId, SecretKey>,
    registered: u64,
    published: u64,
    program: Hash,
    to_commit: Vec<Place>,
    to_reveal: Vec<Place>,
}

impl Mixed {
    pub(super) fn new(workers: u32) -> Self {
        let workers = (0..workers).map(dev_keys::worker);
        Self {
            workers: workers.map(|key| (key.public(), key)).collect(),
            registered: 0,
            published: 0,
            program: Hash::ZERO,
            to_commit: Vec::new(),
            to_reveal: Vec::new(),
        }
    }

    pub(super) fn observe(&mut self, block: &Block) {
        self.to_commit = block
            .assignments
            .iter()
            .map(|seat| Place {
                task: seat.task,
                draw: seat.draw,
                worker: seat.worker,
            })
            .collect();
        // All seats of a task are drawn in one block and commit in one: then they may reveal.
        self.to_reveal = block
            .attestations
            .iter()
            .map(|signed| signed.attestation)
            .filter(|said| matches!(said.statement, Statement::Commit { .. }))
            .map(|said| Place {
                task: said.task,
                draw: said.draw,
                worker: said.worker,
            })
            .collect();
    }

    /// Commitments of the seats that the last block drew, and reveals of those that it holds.
    pub(super) fn attestations(&self, genesis: &Hash) -> Vec<AttestationMessage> {
        let commits = self.to_commit.iter().map(|place| {
            let (claim, _) = result_of(&place.task);
            let salt = salt_of(place);
            let commitment = claim.commitment(&place.task, place.draw, &place.worker, &salt);
            (place, Statement::Commit { commitment }, Blob::default())
        });
        let reveals = self.to_reveal.iter().map(|place| {
            let (claim, output) = result_of(&place.task);
            let salt = salt_of(place);
            (place, Statement::Reveal { claim, salt }, output)
        });
        commits
            .chain(reveals)
            .filter_map(|(place, statement, output)| {
                let key = self.workers.get(&place.worker)?;
                let attestation = Attestation {
                    task: place.task,
                    draw: place.draw,
                    worker: place.worker,
                    statement,
                };
                let signature = key.sign(&attestation.sign_bytes(genesis));
                Some(AttestationMessage {
                    signed: SignedAttestation {
                        attestation,
                        signature,
                    },
                    output,
                })
            })
            .collect()
    }

    fn module(&mut self) -> Action {
        self.published += 1;
        let mut module = MODULE.to_vec();
        // A custom section: id 0, its length, the name "n", eight bytes.
        module.extend_from_slice(&[0, 10, 1, b'n']);
        module.extend_from_slice(&self.published.to_le_bytes());
        let module = Blob::new(module);
        self.program = module.hash();
        Action::PublishProgram { module }
    }

    fn task(&self, number: u64) -> Action {
        let mut input = vec![0; INPUT_BYTES];
        input[..8].copy_from_slice(&number.to_le_bytes());
        Action::SubmitTask(TaskSpec {
            program: self.program,
            input: Blob::new(input),
            gas_limit: Gas::new(2 * GAS_USED),
            memory_pages: 256,
            mode: Mode::Replicated { replicas: REPLICAS },
            price_per_mgas: PRICE,
            insured_value: Amount::new(1),
            requirements: Requirements::default(),
            wait_max: 50,
        })
    }

    /// The registration of one more worker by `operator`.
    fn registration(&mut self, genesis: &Hash, operator: &AccountId) -> Action {
        let index = self.registered.to_le_bytes();
        self.registered += 1;
        let seed = Hash::of("proofmill/bench-worker/v1", &[&index]);
        let key = SecretKey::from_seed(seed.as_bytes());
        let worker = key.public();
        let consent = key.sign(&worker_consent_bytes(genesis, operator, &worker));
        self.workers.insert(worker, key);
        Action::RegisterWorker {
            worker,
            terms: WorkerTerms {
                price_per_mgas: Amount::new(5),
                gas_limit_max: Gas::new(1_000_000_000),
                memory_pages_max: 1_024,
                tags: vec!["bench".into(), "cpu".into()],
                active: true,
            },
            collateral: COLLATERAL,
            consent,
        }
    }
}

impl Workload {
    pub(super) fn mixed_drafts(&mut self) -> Vec<Draft> {
        let kinds = Kinds::of(self.shape.txs);
        let mut drafts = Vec::with_capacity(self.shape.txs);
        for _ in 0..kinds.programs {
            let (sender, action) = (self.anybody(), self.mixed.module());
            drafts.push(self.draft(sender, None, action));
        }
        for _ in 0..kinds.tasks {
            let (sender, number) = (self.anybody(), self.random.next());
            let action = self.mixed.task(number);
            drafts.push(self.draft(sender, None, action));
        }
        for _ in 0..kinds.registrations {
            let sender = self.anybody();
            let operator = self.id(sender);
            let action = if self.mixed.registered < REGISTERED_MAX {
                self.mixed.registration(&self.hash, &operator)
            } else {
                let to = self.anybody();
                self.transfer_to(to)
            };
            drafts.push(self.draft(sender, None, action));
        }
        for _ in 0..kinds.sponsored {
            let (sender, sponsor) = self.pair();
            let to = self.anybody();
            let action = self.transfer_to(to);
            drafts.push(self.draft(sender, Some(sponsor), action));
        }
        for _ in 0..kinds.transfers {
            let draft = self.transfer();
            drafts.push(draft);
        }
        drafts
    }
}

/// What every worker finds for a task, and its output.
fn result_of(task: &Hash) -> (ResultClaim, Blob) {
    let output = Blob::new(task.as_bytes().to_vec());
    let claim = ResultClaim {
        output_hash: output.hash(),
        trace_root: Hash::of("proofmill/bench-trace/v1", &[task.as_bytes()]),
        gas: Gas::new(GAS_USED),
        status: ResultStatus::Done,
    };
    (claim, output)
}

fn salt_of(place: &Place) -> Hash {
    Hash::of(
        "proofmill/bench-salt/v1",
        &[place.task.as_bytes(), place.worker.as_bytes()],
    )
}

#[cfg(test)]
mod tests {
    use super::{Kinds, TXS_MIN};

    #[test]
    fn the_kinds_of_a_block_are_all_its_transactions() {
        for txs in (0..3_000).chain([10_000, 20_000]) {
            let kinds = Kinds::of(txs);
            let Kinds {
                programs,
                tasks,
                registrations,
                sponsored,
                transfers,
            } = kinds;
            assert_eq!(
                programs + tasks + registrations + sponsored + transfers,
                txs
            );
            assert_eq!(tasks > 0, txs >= TXS_MIN);
        }
    }
}
