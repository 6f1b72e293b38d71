//! The ledger of protocol §3 and §4 for blocks of transfers, written as it reads: a map of accounts
//! and one transaction after the other.
//!
//! Nothing of the chain's own execution, state or tree is used, so that a block whose roots come from
//! here is a second opinion.

use std::collections::BTreeMap;

use super::World;
use super::naive::{Model, naive_root};
use proofmill_chain::codec;
use proofmill_chain::execute::Inadmissible;
use proofmill_chain::types::block::Header;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::{Failure, Outcome, Receipt};
use proofmill_chain::types::record::{Chain, Record};
use proofmill_chain::types::transaction::{Action, SignedTransaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};

/// Balance and nonce.
pub(crate) type Account = (u128, u64);

#[derive(Clone)]
pub(crate) struct Ledger {
    genesis: Hash,
    params: Params,
    accounts: BTreeMap<AccountId, Account>,
    chain: Chain,
    /// Records that no transfer changes.
    others: Model,
    height: Height,
    income: u128,
    burned: u128,
    next_index: u32,
}

/// What a block of transfers does: its receipts and the ledger after it.
pub(crate) type Judged = Result<(Vec<Receipt>, Ledger), (usize, Vec<Inadmissible>)>;

fn key_of_account(id: &AccountId) -> Hash {
    Hash::of("proofmill/state/account/v1", &[id.as_bytes()])
}

fn grain(value: u128) -> Amount {
    Amount::new(u64::try_from(value).expect("sums of grain stay below the supply"))
}

impl Ledger {
    /// The ledger of a world's head; `ids` are all accounts that may be named from now on.
    pub(crate) fn of(world: &World, ids: &[AccountId]) -> Self {
        let mut others = world.state.clone();
        let rewards = world.validators.as_slice().iter().map(|v| v.reward);
        let accounts = ids
            .iter()
            .copied()
            .chain(rewards)
            .filter_map(|id| {
                let bytes = others.remove(&key_of_account(&id))?;
                let number = |at: usize| {
                    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
                };
                assert_eq!((&bytes[..4], bytes.len()), ([0; 4].as_slice(), 20));
                Some((id, (u128::from(number(4)), number(12))))
            })
            .collect();
        others.remove(&Hash::of("proofmill/state/chain/v1", &[b""]));
        Self {
            genesis: world.id,
            params: world.genesis.params.clone(),
            accounts,
            chain: world.chain(),
            others,
            height: world.height.next(),
            income: 0,
            burned: 0,
            next_index: 0,
        }
    }

    /// An account; one that nobody has credited has nothing.
    pub(crate) fn account(&self, id: &AccountId) -> Account {
        self.accounts.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn balance(&self, id: &AccountId) -> u64 {
        grain(self.account(id).0).get()
    }

    /// What a transaction costs without its tip: base fee × (base weight + encoded bytes).
    pub(crate) fn fee(&self, signed: &SignedTransaction) -> u128 {
        let weight = 100 + codec::encode(signed).len();
        u128::from(self.params.base_fee.get()) * u128::try_from(weight).expect("it is small")
    }

    /// Every rule that keeps a transaction out of a block now.
    fn broken(&self, signed: &SignedTransaction, payer: &AccountId) -> Vec<Inadmissible> {
        let transaction = &signed.transaction;
        let (_, nonce) = self.account(&transaction.sender);
        let (available, _) = self.account(payer);
        let needed = self.fee(signed) + u128::from(transaction.tip.get());
        let mut broken = Vec::new();
        if transaction.nonce.get() != nonce {
            broken.push(Inadmissible::Nonce {
                expected: Nonce::new(nonce),
                received: transaction.nonce,
            });
        }
        if transaction.expires_at < self.height {
            broken.push(Inadmissible::Expired {
                expires_at: transaction.expires_at,
                height: self.height,
            });
        }
        if needed > u128::from(u64::MAX) {
            broken.push(Inadmissible::FeeOverflow);
            return broken;
        }
        if needed > u128::from(transaction.max_fee.get()) {
            broken.push(Inadmissible::FeeTooLow {
                needed: grain(needed),
                max_fee: transaction.max_fee,
            });
        }
        if needed > available {
            broken.push(Inadmissible::PayerBalance {
                needed: grain(needed),
                available: grain(available),
            });
        }
        broken
    }

    /// Applies a transfer; gives its receipt or every reason why it may not stand here.
    pub(crate) fn transact(
        &mut self,
        signed: &SignedTransaction,
    ) -> Result<Receipt, Vec<Inadmissible>> {
        let transaction = &signed.transaction;
        let Action::Transfer { to, amount } = &transaction.action else {
            panic!("this ledger knows transfers alone");
        };
        let payer = transaction.sponsor.unwrap_or(transaction.sender);
        let broken = self.broken(signed, &payer);
        if !broken.is_empty() {
            return Err(broken);
        }
        let (fee, tip) = (self.fee(signed), u128::from(transaction.tip.get()));
        self.accounts.entry(payer).or_default().0 -= fee + tip;
        self.accounts.entry(transaction.sender).or_default().1 += 1;
        self.burned += fee;
        self.income += tip;
        let amount = u128::from(amount.get());
        let (available, _) = self.account(&transaction.sender);
        let outcome = if amount <= available {
            self.accounts.entry(transaction.sender).or_default().0 -= amount;
            self.accounts.entry(*to).or_default().0 += amount;
            Outcome::Applied
        } else {
            Outcome::Failed {
                failure: Failure::InsufficientBalance {
                    needed: grain(amount),
                    available: grain(available),
                },
            }
        };
        let index = self.next_index;
        self.next_index += 1;
        Ok(Receipt {
            transaction: transaction.id(&self.genesis),
            height: self.height,
            index,
            payer,
            fee: grain(fee),
            tip: transaction.tip,
            outcome,
        })
    }

    /// The block that carries this header and these transfers.
    pub(crate) fn judge(
        &self,
        header: &Header,
        reward: AccountId,
        list: &[SignedTransaction],
    ) -> Judged {
        let mut next = self.clone();
        let mut receipts = Vec::new();
        for (index, signed) in list.iter().enumerate() {
            receipts.push(next.transact(signed).map_err(|broken| (index, broken))?);
        }
        next.end(header, reward);
        Ok((receipts, next))
    }

    /// The proposer's income comes last; then the chain's own figures move on.
    pub(crate) fn end(&mut self, header: &Header, reward: AccountId) {
        if self.income > 0 {
            self.accounts.entry(reward).or_default().0 += self.income;
        }
        let chain = &mut self.chain;
        let step = (header.time_ms - chain.time_ms).min(self.params.block_ms_max);
        chain.protocol_ms += step;
        chain.time_ms = header.time_ms;
        chain.height = header.height;
        chain.beacon = Hash::of(
            "proofmill/beacon/v1",
            &[chain.beacon.as_bytes(), header.beacon_output.as_bytes()],
        );
        chain.burned = grain(u128::from(chain.burned.get()) + self.burned);
        self.height = self.height.next();
        (self.income, self.burned, self.next_index) = (0, 0, 0);
    }

    /// The whole state by tree key.
    pub(crate) fn state(&self) -> Model {
        let mut state = self.others.clone();
        for (id, (balance, nonce)) in &self.accounts {
            let mut bytes = vec![0; 4];
            bytes.extend(grain(*balance).get().to_le_bytes());
            bytes.extend(nonce.to_le_bytes());
            state.insert(key_of_account(id), bytes);
        }
        let chain = codec::encode(&Record::Chain(self.chain.clone()));
        state.insert(Hash::of("proofmill/state/chain/v1", &[b""]), chain);
        state
    }

    pub(crate) fn root(&self) -> Hash {
        naive_root(&self.state())
    }

    /// Grain in all accounts.
    pub(crate) fn held(&self) -> u128 {
        self.accounts.values().map(|(balance, _)| balance).sum()
    }

    pub(crate) fn burned(&self) -> u64 {
        self.chain.burned.get()
    }
}
