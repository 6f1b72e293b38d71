//! What the benchmarks share: real chains in memory and real signed blocks.

use std::collections::BTreeMap;

use proofmill_chain::build::{Candidates, build};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::crypto::verify::BatchSecret;
use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::machine::{Machine, ProgramFacts};
use proofmill_chain::pipeline::{Context, tree_after};
use proofmill_chain::tree::Tree;
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_chain::types::genesis::{Genesis, GenesisAccount};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce, Round};
use proofmill_chain::types::validator::ValidatorSet;
use rayon::prelude::*;

/// Balance of every account, in grain.
const BALANCE: u64 = 1_000_000_000_000;

/// A machine that no bench asks: blocks of transfers publish nothing.
pub struct NoPrograms;

impl Machine for NoPrograms {
    fn judge(&self, _: &[u8]) -> Result<ProgramFacts, u16> {
        Err(0)
    }
}

/// A chain right after genesis, with the keys of everybody.
pub struct World {
    /// What it starts from: the devnet's genesis with other accounts.
    pub genesis: Genesis,
    /// Its hash.
    pub hash: Hash,
    /// The state, by tree key.
    pub state: BTreeMap<Hash, Vec<u8>>,
    /// The tree over it.
    pub tree: Tree,
    /// The validators.
    pub validators: ValidatorSet,
    /// The accounts' keys.
    pub accounts: Vec<SecretKey>,
    secret: BatchSecret,
}

/// The key of account `index`.
fn account(index: usize) -> SecretKey {
    let seed = Hash::of("proofmill/bench-account/v1", &[&index.to_le_bytes()]);
    SecretKey::from_seed(seed.as_bytes())
}

impl World {
    /// A chain with so many funded accounts.
    ///
    /// # Panics
    /// When the devnet's genesis is not valid, which its own tests exclude.
    #[must_use]
    pub fn new(accounts: usize) -> Self {
        let mut genesis = proofmill_node::devnet::genesis(4, 3);
        let keys: Vec<_> = (0..accounts).into_par_iter().map(account).collect();
        genesis.accounts = keys
            .iter()
            .map(|key| GenesisAccount {
                id: key.public(),
                balance: Amount::new(BALANCE),
            })
            .collect();
        let writes = genesis.state().expect("the bench's genesis is valid");
        let validators = genesis.validator_set().expect("four validators are a set");
        let state: BTreeMap<_, _> = writes
            .writes
            .iter()
            .filter_map(|write| Some((write.key, write.new.clone()?)))
            .collect();
        Self {
            hash: genesis.hash(),
            tree: tree_after(&Tree::new(), &writes),
            state,
            validators,
            genesis,
            accounts: keys,
            secret: BatchSecret::new([7; 32]),
        }
    }

    /// What the first block is judged against.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context {
            genesis: &self.hash,
            params: &self.genesis.params,
            parent_height: Height::ZERO,
            parent: &self.hash,
            parent_validators: &self.validators,
            state: &self.state,
            tree: &self.tree,
            machine: &NoPrograms,
            secret: &self.secret,
        }
    }

    /// So many transfers, each from its own account to another one.
    ///
    /// # Panics
    /// When there are fewer accounts than transfers.
    #[must_use]
    pub fn transfers(&self, count: usize) -> Vec<SignedTransaction> {
        assert!(count <= self.accounts.len(), "one account per transfer");
        let fee = self
            .genesis
            .params
            .base_fee
            .checked_mul(1_000)
            .expect("a fee fits");
        (0..count)
            .into_par_iter()
            .map(|index| {
                let key = &self.accounts[index];
                let to = &self.accounts[(index * 7 + 1) % self.accounts.len()];
                let transaction = Transaction {
                    chain: self.hash.prefix(),
                    sender: key.public(),
                    nonce: Nonce::ZERO,
                    max_fee: fee,
                    tip: Amount::new(1),
                    expires_at: Height::new(1_000),
                    sponsor: None,
                    action: Action::Transfer {
                        to: to.public(),
                        amount: Amount::new(1 + index as u64),
                    },
                };
                let signature = key.sign(&transaction.sign_bytes(&self.hash));
                SignedTransaction {
                    transaction,
                    signature,
                    sponsor_signature: None,
                }
            })
            .collect()
    }

    /// The encoded first block with so many transfers, and its hash.
    ///
    /// # Panics
    /// When not all transfers fit, which would make a bench measure something else.
    #[must_use]
    pub fn block(&self, count: usize) -> (Vec<u8>, Hash) {
        let context = self.context();
        let proposer = self.validators.proposer(Height::new(1), Round::new(0));
        let of = |role: fn(u32) -> SecretKey, key| {
            (0..4)
                .map(role)
                .find(|secret| secret.public() == key)
                .expect("the devnet's validators have development keys")
        };
        let key = of(proofmill_node::dev_keys::validator, proposer.key);
        let beacon = of(proofmill_node::dev_keys::beacon, proposer.beacon_key);
        let built = build(
            &context,
            Round::new(0),
            self.genesis.genesis_time_ms + 1_000,
            &key,
            &beacon,
            Candidates {
                transactions: self.transfers(count),
                ..Candidates::default()
            },
        )
        .expect("the state is in memory");
        assert_eq!(built.block.transactions.len(), count, "every transfer fits");
        (codec::encode(&built.block), built.hash)
    }

    /// The certificate of all validators for the first block.
    ///
    /// # Panics
    /// Never: the devnet's validators have development keys.
    #[must_use]
    pub fn certificate(&self, block: Hash) -> Certificate {
        let height = Height::new(1);
        let round = Round::new(0);
        let mut signatures: Vec<_> = (0..4)
            .map(|index| {
                let key = proofmill_node::dev_keys::validator(index);
                let voter = key.public();
                let bytes = vote_sign_bytes(
                    &self.hash,
                    VoteKind::Precommit,
                    height,
                    round,
                    Some(&block),
                    &voter,
                );
                CommitSignature {
                    validator: voter,
                    signature: key.sign(&bytes),
                }
            })
            .collect();
        signatures.sort_by_key(|commit| commit.validator);
        Certificate {
            height,
            round,
            block,
            signatures,
        }
    }

    /// Batch secret of the benches.
    #[must_use]
    pub const fn secret(&self) -> &BatchSecret {
        &self.secret
    }
}
