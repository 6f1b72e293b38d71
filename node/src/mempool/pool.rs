//! The pool of transactions: one queue of consecutive nonces per sender, several indexes over them.

mod candidates;
mod preview;
mod queue;
mod queues;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proofmill_chain::pipeline::VerifiedTransaction;
use proofmill_chain::state::StateError;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::FeeRates;
use proofmill_chain::types::transaction::{SignedTransaction, TRANSACTION_BYTES_MAX, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};

pub use self::candidates::PoolCandidates;
use self::preview::Ahead;
pub use self::preview::Preview;
use self::queue::Queue;
use super::entry::{Entry, Rank, Rate, Terms};
use super::{
    InsertError, MEMPOOL_BYTES_MAX, MEMPOOL_TRANSACTIONS_MAX, PER_SENDER_BYTES_MAX, PER_SENDER_MAX,
    REPLACEMENT_TIP_PERCENT,
};

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Most transactions.
    pub transactions_max: usize,
    /// Most transactions of one sender.
    pub per_sender_max: usize,
    /// Most bytes of one sender; the largest transaction must fit.
    pub per_sender_bytes_max: usize,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self {
            bytes_max: MEMPOOL_BYTES_MAX,
            transactions_max: MEMPOOL_TRANSACTIONS_MAX,
            per_sender_max: PER_SENDER_MAX,
            per_sender_bytes_max: PER_SENDER_BYTES_MAX,
        }
    }
}

/// Where a waiting transaction stands in its sender's queue.
type Slot = (AccountId, Nonce);

/// What pending transactions take from an account.
#[derive(Clone, Debug, Default)]
struct Charged {
    /// Those transactions, by arrival.
    slots: BTreeMap<u64, Slot>,
    /// What they take together, in grain.
    reserved: u128,
}

/// Transactions that wait for a block, each sender's in order of consecutive nonces.
///
/// What pending transactions take from an account is reserved: fees, tips, and what their actions spend.
/// An account never has pending transactions that together need more than its balance, so nearly every
/// pending transaction can be included.
#[derive(Clone, Debug)]
pub struct Mempool {
    genesis: Hash,
    rates: FeeRates,
    limits: MempoolLimits,
    /// Never an empty queue.
    queues: BTreeMap<AccountId, Queue>,
    by_id: BTreeMap<Hash, Slot>,
    by_expiry: BTreeSet<(Height, Hash)>,
    /// The last of each queue, by the least that its queue pays; among equals the youngest goes first.
    tails: BTreeSet<Rank>,
    /// The first of each queue, where it publishes a module.
    modules: BTreeSet<Rank>,
    /// What pending transactions take from whom.
    charged: BTreeMap<AccountId, Charged>,
    bytes: usize,
    sequence: u64,
}

impl Mempool {
    /// An empty pool for the chain with this genesis hash and base fee.
    #[must_use]
    pub const fn new(genesis: Hash, rates: FeeRates, limits: MempoolLimits) -> Self {
        Self {
            genesis,
            rates,
            limits,
            queues: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            tails: BTreeSet::new(),
            modules: BTreeSet::new(),
            charged: BTreeMap::new(),
            bytes: 0,
            sequence: 0,
        }
    }

    /// How many transactions wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Encoded bytes of all that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a transaction waits.
    #[must_use]
    pub fn contains(&self, id: &Hash) -> bool {
        self.by_id.contains_key(id)
    }

    /// A waiting transaction.
    #[must_use]
    pub fn get(&self, id: &Hash) -> Option<&SignedTransaction> {
        let (sender, nonce) = self.by_id.get(id)?;
        self.slot(sender, *nonce)
            .map(|entry| entry.transaction.signed())
    }

    /// The nonce that a sender's next transaction carries, given its nonce in the state.
    #[must_use]
    pub fn next_nonce(&self, sender: &AccountId, state_nonce: Nonce) -> Nonce {
        self.queues
            .get(sender)
            .and_then(Queue::back)
            .and_then(|entry| entry.nonce().next())
            .map_or(state_nonce, |next| next.max(state_nonce))
    }

    /// A look at what [`Self::insert`] would take.
    #[must_use]
    pub fn preview(&self) -> Preview<'_> {
        Preview {
            pool: self,
            ahead: Ahead::default(),
        }
    }

    /// A look at transactions of which some may be forged: earlier ones let their sender follow itself up, and
    /// take no nonce, room or money from anybody.
    #[must_use]
    pub fn preview_tentative(&self) -> Preview<'_> {
        Preview {
            pool: self,
            ahead: Ahead::tentative(),
        }
    }

    /// Takes a transaction; gives its id.
    ///
    /// `height` is the last block's and `account` reads the state after it. When the pool is full
    /// the transactions with the lowest tip per weight make room; none counts for more than one of its sender
    /// that it waits for.
    ///
    /// # Errors
    /// Each variant of [`InsertError`] names the rule; the pool is then as before.
    pub fn insert(
        &mut self,
        transaction: Arc<VerifiedTransaction>,
        height: Height,
        account: impl Fn(&AccountId) -> Result<Account, StateError>,
    ) -> Result<Hash, InsertError> {
        let id = transaction.id();
        if self.by_id.contains_key(&id) {
            return Err(InsertError::Known { id });
        }
        let terms = self.terms(transaction.transaction(), transaction.bytes())?;
        let ahead = Ahead::default();
        let replaced =
            self.check_terms(&terms, transaction.transaction(), height, account, &ahead)?;
        let replaces = replaced.is_some();
        let (count, grows) = growth(&terms, replaced);
        self.make_room(&terms, count, grows)?;
        let entry = Entry {
            transaction,
            terms,
            sequence: self.sequence,
        };
        if replaces {
            self.replace(entry);
        } else {
            self.push(entry);
        }
        self.sequence = self.sequence.saturating_add(1);
        Ok(id)
    }

    /// What the pool has for a block: the best tip per weight first, each sender's by nonce.
    #[must_use]
    pub fn candidates(&self) -> PoolCandidates {
        PoolCandidates::new(self.queues.iter().map(|(sender, queue)| {
            let entries = queue.entries().map(|entry| {
                (
                    entry.terms.rate,
                    entry.sequence,
                    Arc::clone(&entry.transaction),
                )
            });
            (*sender, entries.collect())
        }))
    }

    /// The modules that the next block would take, by what they pay for their room: of the best `most` those
    /// that fit into `bytes_max` together and may be included until `expires_from` at least. A module behind
    /// another transaction of its sender is not among them; that one may be slow to be included.
    #[must_use]
    pub fn modules_ahead(
        &self,
        bytes_max: usize,
        most: usize,
        expires_from: Height,
    ) -> Vec<Arc<VerifiedTransaction>> {
        let mut left = bytes_max;
        let first = |(_, _, sender): &Rank| self.queues.get(sender).and_then(Queue::front);
        let best = self.modules.iter().rev().take(most).filter_map(first);
        best.filter(|entry| entry.terms.expires_at >= expires_from)
            .filter(|entry| {
                let action = &entry.transaction.transaction().action;
                let rest = action
                    .module()
                    .and_then(|module| left.checked_sub(module.len()));
                left = rest.unwrap_or(left);
                rest.is_some()
            })
            .map(|entry| Arc::clone(&entry.transaction))
            .collect()
    }

    /// Brings the pool up to a new block: what it included goes, and so does what expired, lost
    /// its nonce or is not paid for any more. Gives the ids of those that went without being
    /// included.
    ///
    /// # Errors
    /// When the state cannot be read; the pool is then consistent but not wholly up to date.
    pub fn committed(
        &mut self,
        transactions: &[SignedTransaction],
        height: Height,
        account: impl Fn(&AccountId) -> Result<Account, StateError>,
    ) -> Result<Vec<Hash>, StateError> {
        let mut dropped = Vec::new();
        let mut touched = BTreeSet::new();
        for signed in transactions {
            touched.insert(signed.transaction.sender);
            touched.insert(signed.transaction.payer());
        }
        let waiting =
            |id: &&AccountId| self.queues.contains_key(*id) || self.charged.contains_key(*id);
        let touched: BTreeSet<_> = touched.iter().filter(waiting).copied().collect();
        let included: BTreeSet<_> = transactions
            .iter()
            .filter(|signed| touched.contains(&signed.transaction.sender))
            .map(|signed| signed.transaction.id(&self.genesis))
            .collect();
        for id in touched {
            let state = account(&id)?;
            for gone in self.pass(&id, state.nonce) {
                if !included.contains(&gone) {
                    dropped.push(gone);
                }
            }
            while self.reserved_of(&id) > u128::from(state.balance.get()) {
                let Some((sender, nonce)) = self.youngest_of(&id) else {
                    break;
                };
                self.cut(&sender, nonce, &mut dropped);
            }
        }
        while let Some((expires_at, id)) = self.by_expiry.first().copied() {
            if expires_at > height {
                break;
            }
            match self.by_id.get(&id).copied() {
                Some((sender, nonce)) => self.cut(&sender, nonce, &mut dropped),
                None => {
                    self.by_expiry.remove(&(expires_at, id));
                }
            }
        }
        Ok(dropped)
    }

    /// Prices the waiting transactions by other rates. One that no longer gives enough goes, and with
    /// it the later ones of its sender; gives their ids.
    pub fn set_rates(&mut self, rates: FeeRates) -> Vec<Hash> {
        if rates == self.rates {
            return Vec::new();
        }
        let before = std::mem::replace(self, Self::new(self.genesis, rates, self.limits));
        self.sequence = before.sequence;
        let mut dropped = Vec::new();
        for queue in before.queues.into_values() {
            let mut queue = queue.into_entries();
            for entry in queue.by_ref() {
                let transaction = &entry.transaction.signed().transaction;
                let terms = Terms::of(transaction, entry.terms.bytes, rates);
                match terms.filter(|terms| terms.cost <= terms.max_fee) {
                    Some(terms) => self.push(Entry { terms, ..entry }),
                    None => {
                        dropped.push(entry.id());
                        break;
                    }
                }
            }
            dropped.extend(queue.map(|entry| entry.id()));
        }
        dropped
    }

    fn terms(&self, transaction: &Transaction, bytes: usize) -> Result<Terms, InsertError> {
        Terms::of(transaction, bytes, self.rates).ok_or(InsertError::FeeTooLow {
            needed: Amount::new(u64::MAX),
            max_fee: transaction.max_fee,
        })
    }

    /// Every rule but that of room; gives the pending transaction that would be replaced.
    fn check_terms(
        &self,
        terms: &Terms,
        transaction: &Transaction,
        height: Height,
        account: impl Fn(&AccountId) -> Result<Account, StateError>,
        ahead: &Ahead,
    ) -> Result<Option<&Entry>, InsertError> {
        if terms.bytes > TRANSACTION_BYTES_MAX {
            return Err(InsertError::TooLarge {
                given: terms.bytes,
                most: TRANSACTION_BYTES_MAX,
            });
        }
        // The next block is the first that may include it.
        if terms.expires_at <= height {
            return Err(InsertError::Expired {
                expires_at: terms.expires_at,
                height,
            });
        }
        if terms.cost > terms.max_fee {
            return Err(InsertError::FeeTooLow {
                needed: terms.cost,
                max_fee: terms.max_fee,
            });
        }
        let nonce = account(&terms.sender)?.nonce;
        let replaced = self.check_nonce(terms, transaction, nonce, ahead)?;
        self.check_sender_bytes(terms, replaced, ahead)?;
        for (charged, needed) in terms.charges() {
            let balance = account(&charged)?.balance;
            let taken = self.reserved_of(&charged) + ahead.reserved_of(&charged);
            check_balance(charged, needed, taken, replaced, balance)?;
        }
        Ok(replaced)
    }

    /// The waiting transaction that this one replaces, if any.
    fn check_nonce(
        &self,
        terms: &Terms,
        transaction: &Transaction,
        state_nonce: Nonce,
        ahead: &Ahead,
    ) -> Result<Option<&Entry>, InsertError> {
        let received = terms.nonce;
        let waiting = self.next_nonce(&terms.sender, state_nonce);
        let expected = ahead
            .next_nonce(&terms.sender)
            .map_or(waiting, |next| next.max(waiting));
        if received < state_nonce {
            return Err(InsertError::NonceTooLow { expected, received });
        }
        if received > expected {
            return Err(InsertError::NonceGap { expected, received });
        }
        // One that may be forged takes no place.
        let taken = if ahead.tentative { waiting } else { expected };
        if received < taken {
            let Some(old) = self.slot(&terms.sender, received) else {
                // The state is ahead of the pool's queue and a later call drops that queue.
                return Err(InsertError::NonceTooLow { expected, received });
            };
            check_module_stays(old, transaction)?;
            let least = u128::from(old.terms.tip.get()) * u128::from(100 + REPLACEMENT_TIP_PERCENT);
            let needed = u64::try_from(least.div_ceil(100))
                .unwrap_or(u64::MAX)
                .max(old.terms.tip.get().saturating_add(1));
            if terms.tip.get() < needed {
                return Err(InsertError::ReplacementTipTooLow {
                    needed: Amount::new(needed),
                    given: terms.tip,
                });
            }
            return Ok(Some(old));
        }
        let count = self.queues.get(&terms.sender).map_or(0, Queue::len);
        if count + ahead.count_of(&terms.sender) >= self.limits.per_sender_max {
            return Err(InsertError::SenderFull {
                most: self.limits.per_sender_max,
            });
        }
        Ok(None)
    }

    fn check_sender_bytes(
        &self,
        terms: &Terms,
        replaced: Option<&Entry>,
        ahead: &Ahead,
    ) -> Result<(), InsertError> {
        let waiting = self.queues.get(&terms.sender).map_or(0, Queue::bytes);
        let (_, grows) = growth(terms, replaced);
        let given = waiting + ahead.bytes_of(&terms.sender) + grows;
        let most = self.limits.per_sender_bytes_max;
        if given > most {
            return Err(InsertError::SenderBytes { given, most });
        }
        Ok(())
    }

    /// Whether so much more would be too much.
    fn overflows(&self, count: usize, bytes: usize) -> bool {
        self.len() + count > self.limits.transactions_max
            || self.bytes + bytes > self.limits.bytes_max
    }

    /// What room for a transaction pays: no more than the least of those that it waits for.
    fn rate_of(&self, terms: &Terms) -> Rate {
        let queue = self.queues.get(&terms.sender);
        let before = queue.and_then(|queue| queue.lowest_before(terms.nonce));
        before.map_or(terms.rate, |lowest| lowest.min(terms.rate))
    }

    /// The sender whose last transaction is the first to make room for one of `sender` that pays this rate.
    fn worst_below(&self, sender: &AccountId, rate: Rate) -> Option<AccountId> {
        let (lowest, _, worst) = self.tails.iter().find(|(_, _, tail)| tail != sender)?;
        (*lowest < rate).then_some(*worst)
    }

    /// Drops the worst tails of other senders until `count` more transactions and `bytes` more
    /// bytes fit; drops nothing when that would cost transactions that pay no less.
    fn make_room(&mut self, terms: &Terms, count: usize, bytes: usize) -> Result<(), InsertError> {
        let mut victims = Vec::new();
        let rate = self.rate_of(terms);
        while self.overflows(count, bytes) {
            let Some(victim) = self.worst_below(&terms.sender, rate) else {
                for victim in victims.into_iter().rev() {
                    self.push(victim);
                }
                return Err(InsertError::Full);
            };
            victims.extend(self.pop_back(&victim));
        }
        Ok(())
    }

    /// What pending transactions take from an account, in grain.
    fn reserved_of(&self, account: &AccountId) -> u128 {
        self.charged
            .get(account)
            .map_or(0, |charged| charged.reserved)
    }

    fn youngest_of(&self, account: &AccountId) -> Option<Slot> {
        let (_, slot) = self.charged.get(account)?.slots.last_key_value()?;
        Some(*slot)
    }

    /// Removes a sender's transactions below the state's nonce; gives their ids.
    fn pass(&mut self, sender: &AccountId, nonce: Nonce) -> Vec<Hash> {
        let mut gone = Vec::new();
        while let Some(front) = self.queues.get(sender).and_then(Queue::front) {
            if front.nonce() >= nonce {
                break;
            }
            gone.extend(self.pop_front(sender).map(|entry| entry.id()));
        }
        gone
    }

    /// Removes a sender's transactions from a nonce on.
    fn cut(&mut self, sender: &AccountId, nonce: Nonce, dropped: &mut Vec<Hash>) {
        while let Some(back) = self.queues.get(sender).and_then(Queue::back) {
            if back.nonce() < nonce {
                break;
            }
            dropped.extend(self.pop_back(sender).map(|entry| entry.id()));
        }
    }
}

/// By how many transactions and bytes the pool grows.
fn growth(terms: &Terms, replaced: Option<&Entry>) -> (usize, usize) {
    match replaced {
        Some(old) => (0, terms.bytes.saturating_sub(old.terms.bytes)),
        None => (1, terms.bytes),
    }
}

/// A module is judged for the fee that it pays in a block. So it stays until it is in one or expires: others
/// in its place, or the same for a shorter time, would be judged for nothing.
fn check_module_stays(old: &Entry, new: &Transaction) -> Result<(), InsertError> {
    let expires_at = old.terms.expires_at;
    let module = old.transaction.transaction().action.module();
    if module.is_none() || (new.action.module() == module && new.expires_at >= expires_at) {
        return Ok(());
    }
    Err(InsertError::ModuleStays {
        waiting: old.id(),
        expires_at,
    })
}

fn check_balance(
    account: AccountId,
    needed: Amount,
    taken: u128,
    replaced: Option<&Entry>,
    balance: Amount,
) -> Result<(), InsertError> {
    let freed = replaced.map_or(Amount::ZERO, |old| old.terms.charge_of(&account));
    let taken = taken.saturating_sub(u128::from(freed.get()));
    let left = u128::from(balance.get()).saturating_sub(taken);
    let available = u64::try_from(left).map_or(balance, Amount::new);
    if needed > available {
        return Err(InsertError::InsufficientBalance {
            account,
            needed,
            available,
        });
    }
    Ok(())
}
