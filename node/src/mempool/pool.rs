//! The pool of transactions: one queue of consecutive nonces per sender, several indexes over them.

mod queues;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use proofmill_chain::state::StateError;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::transaction::{SignedTransaction, TRANSACTION_BYTES_MAX};
use proofmill_chain::types::units::{Amount, Height, Nonce};

use super::entry::{Entry, Rate};
use super::{
    InsertError, MEMPOOL_BYTES_MAX, MEMPOOL_TRANSACTIONS_MAX, PER_SENDER_MAX,
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
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self {
            bytes_max: MEMPOOL_BYTES_MAX,
            transactions_max: MEMPOOL_TRANSACTIONS_MAX,
            per_sender_max: PER_SENDER_MAX,
        }
    }
}

/// How much a block has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Most bytes of encoded transactions.
    pub bytes_max: usize,
    /// Most transactions.
    pub count_max: usize,
    /// Most bytes of published program modules.
    pub program_bytes_max: usize,
}

/// Where a waiting transaction stands in its sender's queue.
type Slot = (AccountId, Nonce);

/// Transactions that wait for a block, each sender's in order of consecutive nonces.
///
/// Only fees are reserved: an action that its sender cannot pay for becomes a failed receipt and
/// is no reason to refuse a transaction.
#[derive(Clone, Debug)]
pub struct Mempool {
    genesis: Hash,
    base_fee: Amount,
    limits: MempoolLimits,
    /// Never an empty queue; nonces in a queue are consecutive.
    queues: BTreeMap<AccountId, VecDeque<Entry>>,
    by_id: BTreeMap<Hash, Slot>,
    by_expiry: BTreeSet<(Height, Hash)>,
    /// The last of each queue; among equals the youngest goes first.
    tails: BTreeSet<(Rate, Reverse<u64>, AccountId)>,
    /// What each payer pays for, by arrival.
    by_payer: BTreeMap<AccountId, BTreeMap<u64, Slot>>,
    reserved: BTreeMap<AccountId, Amount>,
    bytes: usize,
    sequence: u64,
}

impl Mempool {
    /// An empty pool for the chain with this genesis hash and base fee.
    #[must_use]
    pub const fn new(genesis: Hash, base_fee: Amount, limits: MempoolLimits) -> Self {
        Self {
            genesis,
            base_fee,
            limits,
            queues: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            tails: BTreeSet::new(),
            by_payer: BTreeMap::new(),
            reserved: BTreeMap::new(),
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
        self.slot(sender, *nonce).map(|entry| &entry.signed)
    }

    /// The nonce that a sender's next transaction carries, given its nonce in the state.
    #[must_use]
    pub fn next_nonce(&self, sender: &AccountId, state_nonce: Nonce) -> Nonce {
        self.queues
            .get(sender)
            .and_then(VecDeque::back)
            .and_then(|entry| entry.nonce().next())
            .map_or(state_nonce, |next| next.max(state_nonce))
    }

    /// Takes a transaction whose signatures are valid; gives its id.
    ///
    /// `height` is the last block's and `account` reads the state after it. When the pool is full
    /// the transactions with the lowest tip per weight make room.
    ///
    /// # Errors
    /// Each variant of [`InsertError`] names the rule; the pool is then as before.
    pub fn insert(
        &mut self,
        signed: SignedTransaction,
        height: Height,
        account: impl Fn(&AccountId) -> Result<Account, StateError>,
    ) -> Result<Hash, InsertError> {
        let entry = self.check_alone(signed, height)?;
        let id = entry.id;
        let state_nonce = account(&entry.sender())?.nonce;
        let replaced = self.check_nonce(&entry, state_nonce)?;
        self.check_balance(&entry, replaced, account(&entry.payer())?.balance)?;
        match replaced.map(|old| old.bytes) {
            Some(bytes) => {
                let grows = entry.bytes.saturating_sub(bytes);
                self.make_room(&entry, 0, grows)?;
                self.replace(entry);
            }
            None => {
                self.make_room(&entry, 1, entry.bytes)?;
                self.push(entry);
            }
        }
        self.sequence = self.sequence.saturating_add(1);
        Ok(id)
    }

    /// What a block with this much room takes: the best tip per weight first, each sender's in
    /// order of nonces. When a transaction does not fit, its sender's later ones stay too.
    #[must_use]
    pub fn select(&self, room: Selection) -> Vec<SignedTransaction> {
        let mut fronts: BinaryHeap<_> = self
            .queues
            .iter()
            .filter_map(|(sender, queue)| {
                let front = queue.front()?;
                Some((front.rate, Reverse(front.sequence), *sender, 0_usize))
            })
            .collect();
        let mut left = room;
        let mut selected = Vec::new();
        while let Some((_, _, sender, at)) = fronts.pop() {
            if selected.len() >= room.count_max {
                break;
            }
            let Some(queue) = self.queues.get(&sender) else {
                continue;
            };
            let Some(entry) = queue.get(at) else {
                continue;
            };
            let (Some(bytes), Some(program_bytes)) = (
                left.bytes_max.checked_sub(entry.bytes),
                left.program_bytes_max.checked_sub(entry.program_bytes),
            ) else {
                continue;
            };
            left.bytes_max = bytes;
            left.program_bytes_max = program_bytes;
            selected.push(entry.signed.clone());
            if let Some(next) = queue.get(at + 1) {
                fronts.push((next.rate, Reverse(next.sequence), sender, at + 1));
            }
        }
        selected
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
            |id: &&AccountId| self.queues.contains_key(*id) || self.by_payer.contains_key(*id);
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
            while self.reserved_of(&id) > state.balance {
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

    /// Prices the waiting transactions by another base fee. One that no longer gives enough goes, and with
    /// it the later ones of its sender; gives their ids.
    pub fn set_base_fee(&mut self, base_fee: Amount) -> Vec<Hash> {
        if base_fee == self.base_fee {
            return Vec::new();
        }
        let before = std::mem::replace(self, Self::new(self.genesis, base_fee, self.limits));
        self.sequence = before.sequence;
        let mut dropped = Vec::new();
        for queue in before.queues.into_values() {
            let mut queue = queue.into_iter();
            for entry in queue.by_ref() {
                let max_fee = entry.signed.transaction.max_fee;
                let priced = Entry::new(entry.signed, &self.genesis, base_fee, entry.sequence);
                match priced.filter(|priced| priced.cost <= max_fee) {
                    Some(priced) => self.push(priced),
                    None => {
                        dropped.push(entry.id);
                        break;
                    }
                }
            }
            dropped.extend(queue.map(|entry| entry.id));
        }
        dropped
    }

    fn check_alone(&self, signed: SignedTransaction, height: Height) -> Result<Entry, InsertError> {
        let (max_fee, expires_at) = (signed.transaction.max_fee, signed.transaction.expires_at);
        let entry = Entry::new(signed, &self.genesis, self.base_fee, self.sequence).ok_or(
            InsertError::FeeTooLow {
                needed: Amount::new(u64::MAX),
                max_fee,
            },
        )?;
        if self.by_id.contains_key(&entry.id) {
            return Err(InsertError::Known { id: entry.id });
        }
        if entry.bytes > TRANSACTION_BYTES_MAX {
            return Err(InsertError::TooLarge {
                given: entry.bytes,
                most: TRANSACTION_BYTES_MAX,
            });
        }
        // The next block is the first that may include it.
        if expires_at <= height {
            return Err(InsertError::Expired { expires_at, height });
        }
        if entry.cost > max_fee {
            return Err(InsertError::FeeTooLow {
                needed: entry.cost,
                max_fee,
            });
        }
        Ok(entry)
    }

    /// The waiting transaction that this one replaces, if any.
    fn check_nonce(
        &self,
        entry: &Entry,
        state_nonce: Nonce,
    ) -> Result<Option<&Entry>, InsertError> {
        let received = entry.nonce();
        let expected = self.next_nonce(&entry.sender(), state_nonce);
        if received < state_nonce {
            return Err(InsertError::NonceTooLow { expected, received });
        }
        if received > expected {
            return Err(InsertError::NonceGap { expected, received });
        }
        if received < expected {
            let Some(old) = self.slot(&entry.sender(), received) else {
                // The state is ahead of the pool's queue and a later call drops that queue.
                return Err(InsertError::NonceTooLow { expected, received });
            };
            let least = u128::from(old.tip().get()) * u128::from(100 + REPLACEMENT_TIP_PERCENT);
            let needed = u64::try_from(least.div_ceil(100))
                .unwrap_or(u64::MAX)
                .max(old.tip().get().saturating_add(1));
            if entry.tip().get() < needed {
                return Err(InsertError::ReplacementTipTooLow {
                    needed: Amount::new(needed),
                    given: entry.tip(),
                });
            }
            return Ok(Some(old));
        }
        let waiting = self.queues.get(&entry.sender()).map_or(0, VecDeque::len);
        if waiting >= self.limits.per_sender_max {
            return Err(InsertError::SenderFull {
                most: self.limits.per_sender_max,
            });
        }
        Ok(None)
    }

    fn check_balance(
        &self,
        entry: &Entry,
        replaced: Option<&Entry>,
        balance: Amount,
    ) -> Result<(), InsertError> {
        let payer = entry.payer();
        let freed = replaced
            .filter(|old| old.payer() == payer)
            .map_or(Amount::ZERO, |old| old.cost);
        let taken = self.reserved_of(&payer).get().saturating_sub(freed.get());
        let available = Amount::new(balance.get().saturating_sub(taken));
        if entry.cost > available {
            return Err(InsertError::InsufficientBalance {
                payer,
                needed: entry.cost,
                available,
            });
        }
        Ok(())
    }

    /// Drops the worst tails of other senders until `count` more transactions and `bytes` more
    /// bytes fit; drops nothing when that would cost transactions that pay no less than `entry`.
    fn make_room(&mut self, entry: &Entry, count: usize, bytes: usize) -> Result<(), InsertError> {
        let mut victims = Vec::new();
        while self.len() + count > self.limits.transactions_max
            || self.bytes + bytes > self.limits.bytes_max
        {
            let sender = entry.sender();
            let worst = self.tails.iter().find(|(_, _, tail)| *tail != sender);
            let victim = match worst {
                Some((rate, _, tail)) if *rate < entry.rate => *tail,
                _ => {
                    for victim in victims.into_iter().rev() {
                        self.push(victim);
                    }
                    return Err(InsertError::Full);
                }
            };
            victims.extend(self.pop_back(&victim));
        }
        Ok(())
    }

    fn reserved_of(&self, payer: &AccountId) -> Amount {
        self.reserved.get(payer).copied().unwrap_or_default()
    }

    fn youngest_of(&self, payer: &AccountId) -> Option<Slot> {
        let (_, slot) = self.by_payer.get(payer)?.last_key_value()?;
        Some(*slot)
    }

    /// Removes a sender's transactions below the state's nonce; gives their ids.
    fn pass(&mut self, sender: &AccountId, nonce: Nonce) -> Vec<Hash> {
        let mut gone = Vec::new();
        while let Some(front) = self.queues.get(sender).and_then(VecDeque::front) {
            if front.nonce() >= nonce {
                break;
            }
            gone.extend(self.pop_front(sender).map(|entry| entry.id));
        }
        gone
    }

    /// Removes a sender's transactions from a nonce on.
    fn cut(&mut self, sender: &AccountId, nonce: Nonce, dropped: &mut Vec<Hash>) {
        while let Some(back) = self.queues.get(sender).and_then(VecDeque::back) {
            if back.nonce() < nonce {
                break;
            }
            dropped.extend(self.pop_back(sender).map(|entry| entry.id));
        }
    }
}
