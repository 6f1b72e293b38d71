//! Blocks of transfers as somebody makes them who looks for a mistake: every grain is spent as soon
//! as it comes in, balances end at nothing or one grain short, fees are paid by who was paid for it.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::seeds::Random;
use super::{MAX_FEE, World, key, reward_of, transfer};
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::genesis::{Genesis, GenesisAccount};
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::{SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};

/// Accounts and their keys: some rich, some with a few fees, some that do not exist yet, and the
/// validators' reward accounts.
pub(crate) struct People {
    keys: BTreeMap<AccountId, SecretKey>,
    pub(crate) ids: Vec<AccountId>,
    /// How many of them genesis knows.
    funded: usize,
}

impl People {
    pub(crate) fn new(count: usize) -> Self {
        let names = (0..count).map(|n| format!("person-{n}"));
        let rewards = (0..4).map(|n| format!("reward-{n}"));
        let keys: Vec<_> = names.chain(rewards).map(|name| key(&name)).collect();
        Self {
            ids: keys.iter().map(SecretKey::public).collect(),
            keys: keys.into_iter().map(|key| (key.public(), key)).collect(),
            funded: count - count / 4,
        }
    }

    /// A chain on which three in four people have something.
    pub(crate) fn world(&self, random: &mut Random, change: impl FnOnce(&mut Genesis)) -> World {
        World::with(|genesis| {
            genesis.params.block_transactions_max = 5_000;
            for id in &self.ids[..self.funded] {
                let balance = match random.below(4) {
                    0 => random.below(3_000),
                    1 => random.below(12_000),
                    2 => 100_000 + random.below(100_000),
                    _ => 1_000_000_000,
                };
                genesis.accounts.push(GenesisAccount {
                    id: *id,
                    balance: Amount::new(balance),
                });
            }
            change(genesis);
        })
    }

    pub(crate) fn sign(&self, world: &World, transaction: Transaction) -> SignedTransaction {
        let sponsor = transaction.sponsor.map(|id| &self.keys[&id]);
        SignedTransaction {
            signature: self.keys[&transaction.sender].sign(&transaction.sign_bytes(&world.id)),
            sponsor_signature: sponsor
                .map(|key| key.sign(&transaction.sponsor_sign_bytes(&world.id))),
            transaction,
        }
    }
}

/// How much a transfer moves.
#[derive(Clone, Copy)]
pub(crate) enum Sum {
    Of(u64),
    /// What is left once the fee is paid, and some grains more, which fails unless there are none.
    AllAnd(u64),
    /// What is left, but for some grains.
    AllBut(u64),
    /// What two fees are.
    TwoFees,
}

/// A block under way: what was put into it, and the ledger as it stands after that.
pub(crate) struct Draft<'a> {
    pub(crate) world: &'a World,
    pub(crate) people: &'a People,
    pub(crate) random: &'a mut Random,
    pub(crate) ledger: Ledger,
    pub(crate) list: Vec<SignedTransaction>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(world: &'a World, people: &'a People, random: &'a mut Random) -> Self {
        Self {
            ledger: Ledger::of(world, &people.ids),
            list: Vec::new(),
            world,
            people,
            random,
        }
    }

    pub(crate) fn anyone(&mut self) -> AccountId {
        self.random.pick(&self.people.ids)
    }

    /// Puts a transfer into the block if it may stand there; says whether.
    pub(crate) fn push(
        &mut self,
        from: AccountId,
        to: AccountId,
        sum: Sum,
        sponsor: Option<AccountId>,
    ) -> bool {
        let sponsor = sponsor.filter(|sponsor| *sponsor != from);
        let mut transaction = Transaction {
            chain: self.world.id.prefix(),
            sender: from,
            nonce: Nonce::new(self.ledger.account(&from).1),
            max_fee: Amount::new(MAX_FEE),
            tip: Amount::new(self.random.below(4)),
            expires_at: Height::new(self.world.height.get() + 1 + self.random.below(2)),
            sponsor,
            action: transfer(to, 1),
        };
        let probe = self.people.sign(self.world, transaction.clone());
        let fee = u64::try_from(self.ledger.fee(&probe)).expect("it is small");
        let cost = fee + transaction.tip.get();
        let paid = if sponsor.is_none() { cost } else { 0 };
        let left = self.ledger.balance(&from).saturating_sub(paid);
        let amount = match sum {
            Sum::Of(amount) => amount,
            Sum::AllAnd(more) => left + more,
            Sum::AllBut(less) => left.saturating_sub(less),
            Sum::TwoFees => 2 * fee,
        };
        transaction.action = transfer(to, amount.max(1));
        // To the grain, every other time.
        if self.random.one_in(2) {
            transaction.max_fee = Amount::new(cost);
        }
        let signed = self.people.sign(self.world, transaction);
        let admitted = self.ledger.transact(&signed).is_ok();
        if admitted {
            self.list.push(signed);
        }
        admitted
    }

    /// One of the patterns that a mistake in the order or the bookkeeping of effects would show in.
    pub(crate) fn scenario(&mut self) {
        let [a, b, c, d] = [(); 4].map(|()| self.anyone());
        let reward = reward_of(self.world);
        let small = Sum::Of(1 + self.random.below(3_000));
        match self.random.below(12) {
            // What comes in goes out to the last grain, along a chain that may meet itself.
            0 | 1 => {
                let mut from = a;
                for _ in 0..2 + self.random.below(8) {
                    let to = self.anyone();
                    let short = self.random.below(3);
                    self.push(from, to, Sum::AllBut(short), None);
                    from = to;
                }
            }
            // One grain more than there is, then exactly what there is.
            2 => {
                self.push(a, b, Sum::AllAnd(1), None);
                self.push(a, b, Sum::AllAnd(0), None);
                self.push(b, a, Sum::AllAnd(0), None);
            }
            // A sponsor that has what the one it sponsors gave it.
            3 => {
                self.push(a, b, Sum::TwoFees, None);
                self.push(a, c, Sum::AllBut(1), Some(b));
                self.push(a, d, Sum::AllAnd(0), Some(b));
            }
            // A sponsor that empties itself first, and one that is the recipient.
            4 => {
                self.push(b, c, Sum::AllBut(1), None);
                self.push(a, d, small, Some(b));
                self.push(a, c, small, Some(c));
                self.push(c, a, Sum::AllAnd(0), Some(a));
            }
            // Many to one, which passes it on.
            5 => {
                for _ in 0..6 {
                    let from = self.anyone();
                    self.push(from, a, small, None);
                }
                self.push(a, b, Sum::AllAnd(0), None);
            }
            // One to many, itself among them.
            6 => {
                for to in [b, a, c, a, b, d] {
                    self.push(a, to, small, None);
                }
            }
            // To oneself: all, and one grain more.
            7 => {
                self.push(a, a, Sum::AllAnd(0), None);
                self.push(a, a, Sum::AllAnd(1), None);
                self.push(a, a, small, Some(b));
            }
            // The account that the block's income goes to.
            8 => {
                self.push(a, reward, small, None);
                self.push(reward, b, Sum::AllAnd(0), None);
                self.push(reward, b, Sum::AllAnd(1), Some(a));
                self.push(a, b, small, Some(reward));
            }
            // Emptied and filled again.
            9 => {
                self.push(a, b, Sum::AllAnd(0), None);
                self.push(b, a, Sum::AllAnd(0), None);
                self.push(a, b, small, None);
            }
            10 => {
                let amount = self.random.pick(&[u64::MAX, 1 << 63, 1_000_000_000_001]);
                self.push(a, b, Sum::Of(amount), None);
                self.push(a, a, Sum::Of(amount), Some(c));
            }
            _ => {
                self.push(a, b, small, Some(c));
                self.push(b, a, small, None);
            }
        }
    }

    /// Breaks the block, or does not: something is added, changed, moved or left out.
    pub(crate) fn spoil(&mut self) {
        if self.list.is_empty() {
            return;
        }
        let at = self.random.index(self.list.len());
        let kind = self.random.below(10);
        let [other, poor] = [(); 2].map(|()| self.anyone());
        let mut victim = self.list[at].transaction.clone();
        let cost = self.ledger.fee(&self.list[at]) + u128::from(victim.tip.get());
        let cost = u64::try_from(cost).expect("it is small");
        match kind {
            // Again, signatures and all.
            0 => {
                let later = at + self.random.index(self.list.len() - at) + 1;
                self.list.insert(later, self.list[at].clone());
                return;
            }
            1 => drop(self.list.remove(at)),
            2 => {
                let with = self.random.index(self.list.len());
                self.list.swap(at, with);
            }
            3 => victim.nonce = Nonce::new(victim.nonce.get() + 1),
            4 => victim.nonce = Nonce::new(victim.nonce.get().wrapping_sub(1)),
            5 => victim.expires_at = self.world.height,
            6 => {
                victim.tip = Amount::new(victim.tip.get().min(cost - 1));
                victim.max_fee = Amount::new(cost - 1);
            }
            7 => {
                victim.max_fee = Amount::new(u64::MAX);
                victim.tip = Amount::new(self.random.pick(&[u64::MAX, 1 << 63, 1 << 40]));
            }
            8 => {
                victim.sponsor = Some(poor).filter(|poor| *poor != victim.sender);
            }
            // Broken in two ways at once.
            _ => {
                victim.nonce = Nonce::new(u64::MAX);
                victim.expires_at = Height::ZERO;
            }
        }
        if kind > 2 {
            self.list[at] = self.people.sign(self.world, victim);
        }
        // Sometimes another one further on, which must not be the one that is named.
        if self.random.one_in(3) {
            let last = self.list.len().saturating_sub(1);
            if let Some(signed) = self.list.get(last) {
                let mut second = signed.transaction.clone();
                second.nonce = Nonce::new(77_777);
                second.action = transfer(other, 5);
                let second = self.people.sign(self.world, second);
                self.list.push(second);
            }
        }
    }
}
