//! The chain that is measured: its genesis, its accounts and what its blocks are made from.
//!
//! Everything follows from a [`Shape`] alone, so that two runs measure the same blocks. Only those
//! who sign need their keys, which come from an index.

mod draw;
mod mixed;

use clap::ValueEnum;
use proofmill_chain::build::Candidates;
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::block::Block;
use proofmill_chain::types::genesis::{Genesis, GenesisAccount};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce, SUPPLY_MAX};
use rayon::prelude::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

pub(crate) use self::draw::Random;
use self::draw::Zipf;
use self::mixed::Mixed;
use crate::bench::{Watch, Work};
use crate::devnet;

/// Validators of the chain: the devnet's, with its development keys.
pub const VALIDATORS: u32 = 4;
/// Balance of every account unless there are too many, in grain.
const BALANCE: u64 = 1_000_000_000_000;
/// The most that a transaction gives for its fee, in grain: a small part of a balance.
const MAX_FEE: u64 = 10_000_000;
/// For how many blocks a transaction is valid.
const LIFETIME: u64 = 1_000;
/// Accounts between two reports of progress.
const REPORT_EVERY: u64 = 4_096;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Transfers between random accounts
    Uniform,
    /// Transfers whose senders and recipients follow Zipf's law with exponent 1
    Zipf,
    /// Transfers, sponsored ones, programs, tasks, registrations of workers and attestations
    Mixed,
    /// Transfers from random accounts to one
    OneRecipient,
}

impl Pattern {
    /// Its name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
            Self::Mixed => "mixed",
            Self::OneRecipient => "one-recipient",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Who sends to whom.
    pub pattern: Pattern,
    /// How many accounts the state has.
    pub accounts: usize,
    /// How many transactions a block has.
    pub txs: usize,
}

impl Shape {
    /// Bytes that the transactions of a block take, at most.
    #[must_use]
    pub fn block_bytes_max(&self) -> usize {
        let plain = codec::encode(&sample(false)).len();
        match self.pattern {
            Pattern::Mixed => {
                let sponsored = codec::encode(&sample(true)).len();
                let kinds = mixed::Kinds::of(self.txs);
                kinds
                    .transfers
                    .saturating_mul(plain)
                    .saturating_add(kinds.sponsored.saturating_mul(sponsored))
                    .saturating_add(mixed::BYTES_MAX)
            }
            _ => self.txs.saturating_mul(plain),
        }
    }
}

/// A transfer as long as every other.
fn sample(sponsored: bool) -> SignedTransaction {
    let nobody = AccountId::new([0; 32]);
    let signature = Signature::new([0; 64]);
    SignedTransaction {
        transaction: Transaction {
            chain: [0; 4],
            sender: nobody,
            nonce: Nonce::ZERO,
            max_fee: Amount::ZERO,
            tip: Amount::ZERO,
            expires_at: Height::ZERO,
            sponsor: sponsored.then_some(nobody),
            action: Action::Transfer {
                to: nobody,
                amount: Amount::ZERO,
            },
        },
        signature,
        sponsor_signature: sponsored.then_some(signature),
    }
}

/// The key of account `index`.
#[must_use]
pub fn account_key(index: usize) -> SecretKey {
    let seed = Hash::of(
        "proofmill/bench-account/v1",
        &[&(index as u64).to_le_bytes()],
    );
    SecretKey::from_seed(seed.as_bytes())
}

/// A transaction that is to be signed.
struct Draft {
    sender: usize,
    nonce: u64,
    sponsor: Option<usize>,
    action: Action,
}

/// A chain's genesis and an endless supply of transactions for it.
pub struct Workload {
    shape: Shape,
    genesis: Genesis,
    hash: Hash,
    /// By account: how many of its transactions there are.
    nonces: Vec<u64>,
    random: Random,
    zipf: Option<Zipf>,
    mixed: Mixed,
}

impl Workload {
    /// The workload of a shape with at least two accounts.
    #[must_use]
    pub fn new(shape: Shape, watch: Watch<'_>) -> Self {
        let workers = match shape.pattern {
            Pattern::Mixed => mixed::WORKERS,
            _ => 0,
        };
        let mut genesis = devnet::genesis(VALIDATORS, workers);
        genesis.accounts = accounts(shape.accounts, watch);
        Self {
            shape,
            hash: genesis.hash(),
            genesis,
            nonces: vec![0; shape.accounts],
            random: Random::new(1),
            zipf: (shape.pattern == Pattern::Zipf).then(|| Zipf::new(shape.accounts)),
            mixed: Mixed::new(workers),
        }
    }

    /// What the chain starts from: the devnet's genesis with other accounts.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Its shape.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// What the block at `height` is to be made from. Every call goes on where the last one
    /// stopped: the block of the last call is expected to have had all of it.
    pub fn candidates(&mut self, height: Height) -> Candidates {
        let drafts = match self.shape.pattern {
            Pattern::Mixed => self.mixed_drafts(),
            _ => (0..self.shape.txs).map(|_| self.transfer()).collect(),
        };
        Candidates {
            transactions: self.sign(&drafts, height),
            attestations: self.mixed.attestations(&self.hash),
            certificate: None,
        }
    }

    /// Learns from a block of this chain which seats were drawn and which attestations stand.
    pub fn observe(&mut self, block: &Block) {
        self.mixed.observe(block);
    }

    fn id(&self, index: usize) -> AccountId {
        self.genesis.accounts[index].id
    }

    fn draft(&mut self, sender: usize, sponsor: Option<usize>, action: Action) -> Draft {
        let nonce = self.nonces[sender];
        self.nonces[sender] += 1;
        Draft {
            sender,
            nonce,
            sponsor,
            action,
        }
    }

    fn transfer(&mut self) -> Draft {
        let (from, to) = self.pair();
        let action = self.transfer_to(to);
        self.draft(from, None, action)
    }

    fn transfer_to(&mut self, to: usize) -> Action {
        Action::Transfer {
            to: self.id(to),
            amount: Amount::new(1 + self.random.below(1_000) as u64),
        }
    }

    /// A sender and another account.
    fn pair(&mut self) -> (usize, usize) {
        loop {
            let (from, to) = match (self.shape.pattern, &self.zipf) {
                (Pattern::Zipf, Some(zipf)) => {
                    (zipf.draw(&mut self.random), zipf.draw(&mut self.random))
                }
                (Pattern::OneRecipient, _) => (self.anybody(), 0),
                _ => (self.anybody(), self.anybody()),
            };
            if from != to {
                return (from, to);
            }
        }
    }

    fn anybody(&mut self) -> usize {
        self.random.below(self.shape.accounts)
    }

    fn sign(&self, drafts: &[Draft], height: Height) -> Vec<SignedTransaction> {
        drafts
            .par_iter()
            .map(|draft| {
                let transaction = Transaction {
                    chain: self.hash.prefix(),
                    sender: self.id(draft.sender),
                    nonce: Nonce::new(draft.nonce),
                    max_fee: Amount::new(MAX_FEE),
                    tip: Amount::new(1),
                    expires_at: height.saturating_plus(LIFETIME),
                    sponsor: draft.sponsor.map(|index| self.id(index)),
                    action: draft.action.clone(),
                };
                let sponsor_signature = draft.sponsor.map(|index| {
                    account_key(index).sign(&transaction.sponsor_sign_bytes(&self.hash))
                });
                SignedTransaction {
                    signature: account_key(draft.sender).sign(&transaction.sign_bytes(&self.hash)),
                    sponsor_signature,
                    transaction,
                }
            })
            .collect()
    }
}

fn accounts(count: usize, watch: Watch<'_>) -> Vec<GenesisAccount> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let total = count as u64;
    let balance = Amount::new(BALANCE.min(SUPPLY_MAX / 2 / total.max(1)));
    let made = AtomicU64::new(0);
    let accounts = (0..count)
        .into_par_iter()
        .map(|index| {
            let id = account_key(index).public();
            let made = made.fetch_add(1, Ordering::Relaxed) + 1;
            if made.is_multiple_of(REPORT_EVERY) {
                watch(Work::Accounts, made, total);
            }
            GenesisAccount { id, balance }
        })
        .collect();
    watch(Work::Accounts, total, total);
    accounts
}
