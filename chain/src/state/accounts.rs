//! The accounts that a list of transactions touches, read before the transactions take effect.
//!
//! Which accounts a transaction touches as sender, payer or recipient is written in the transaction,
//! so they are read in parallel, once each, and every transaction is told the places of its own:
//! applying a transfer then looks nothing up.

use core::borrow::Borrow;

use rayon::iter::ParallelIterator;
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::crypto::sha256::{Engine, Prefix};
use crate::state::overlay::decoded;
use crate::state::reader::StateReader;
use crate::state::{Place, StateError};
use crate::types::account::Account;
use crate::types::hash::{AccountId, Hash};
use crate::types::record::{ACCOUNT_TAG, Record, StateKey};
use crate::types::transaction::SignedTransaction;

/// Accounts that are read together on one thread.
const READS_PER_THREAD: usize = 256;

/// An account as the state has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Whose.
    pub id: AccountId,
    /// Its place in the state tree.
    pub tree_key: Hash,
    /// The record; `None` when the account does not exist.
    pub account: Option<Account>,
}

/// Where a transaction's accounts stand in [`Accounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The sender's.
    pub sender: Place,
    /// That of who pays the fee.
    pub payer: Place,
    /// A transfer's recipient's.
    pub recipient: Place,
}

/// The accounts of a list of transactions, by ascending id, and each transaction's places in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    pub(super) list: Vec<Loaded>,
    slots: Vec<Slots>,
}

/// What an account is to a transaction.
#[derive(Clone, Copy)]
enum Role {
    Sender,
    Sponsor,
    Recipient,
}

/// One mention of an account: the first bytes of its id, which decide most comparisons, and where it
/// is mentioned.
struct Mention {
    prefix: u64,
    transaction: u32,
    role: Role,
}

impl Accounts {
    /// Reads the accounts that these transactions mention.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn load<T: Borrow<SignedTransaction> + Sync>(
        reader: &dyn StateReader,
        transactions: &[T],
    ) -> Result<Self, StateError> {
        let mentions = sorted_mentions(transactions);
        let mut ids: Vec<AccountId> = Vec::with_capacity(mentions.len());
        let mut slots = vec![Slots::default(); transactions.len()];
        for mention in &mentions {
            let id = mention.id(transactions);
            if ids.last() != Some(&id) {
                ids.push(id);
            }
            let place = Place::at(ids.len().saturating_sub(1));
            if let Some(slots) = slots.get_mut(mention.transaction as usize) {
                match mention.role {
                    Role::Sender => slots.sender = place,
                    Role::Sponsor => slots.payer = place,
                    Role::Recipient => slots.recipient = place,
                }
            }
        }
        for slots in &mut slots {
            slots.payer = slots.payer.or(slots.sender);
        }
        let (tag, engine) = (Prefix::new(&[ACCOUNT_TAG.as_bytes()]), Engine::fastest());
        let list = ids
            .par_chunks(READS_PER_THREAD)
            .map(|ids| load(reader, ids, &tag, engine))
            .collect::<Result<Vec<_>, _>>()?;
        let list = list.concat();
        Ok(Self { list, slots })
    }

    /// The places of transaction `index`'s accounts.
    #[must_use]
    pub fn slots(&self, index: usize) -> Slots {
        self.slots.get(index).copied().unwrap_or_default()
    }

    /// The account at a place.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&Loaded> {
        self.list.get(place.index()?)
    }
}

/// Reads some accounts together.
fn load(
    reader: &dyn StateReader,
    ids: &[AccountId],
    tag: &Prefix,
    engine: Engine,
) -> Result<Vec<Loaded>, StateError> {
    let bytes: Vec<&[u8]> = ids.iter().map(|id| id.as_ref()).collect();
    let tree_keys = engine.hash_bodies(tag, &bytes);
    let found = reader.read_many(&tree_keys)?;
    let read = ids.iter().zip(tree_keys).zip(found);
    read.map(|((id, tree_key), found)| {
        let key = StateKey::Account(*id);
        let account = match decoded(key, found.as_deref())? {
            None => None,
            Some(Record::Account(account)) => Some(account),
            Some(_) => return Err(StateError::Missing(key)),
        };
        Ok(Loaded {
            id: *id,
            tree_key,
            account,
        })
    })
    .collect()
}

fn sorted_mentions<T: Borrow<SignedTransaction> + Sync>(transactions: &[T]) -> Vec<Mention> {
    let mut mentions = Vec::with_capacity(transactions.len().saturating_mul(2));
    for (index, signed) in (0_u32..).zip(transactions) {
        let mut mention = |id: &AccountId, role| {
            mentions.push(Mention {
                prefix: prefix(id),
                transaction: index,
                role,
            });
        };
        let transaction = &signed.borrow().transaction;
        mention(&transaction.sender, Role::Sender);
        if let Some(sponsor) = &transaction.sponsor {
            mention(sponsor, Role::Sponsor);
        }
        if let Some(to) = transaction.action.recipient() {
            mention(to, Role::Recipient);
        }
    }
    mentions.par_sort_unstable_by(|a, b| {
        a.prefix
            .cmp(&b.prefix)
            .then_with(|| a.id(transactions).cmp(&b.id(transactions)))
    });
    mentions
}

fn prefix(id: &AccountId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Mention {
    /// The account mentioned. Only mentions of these transactions are asked.
    fn id<T: Borrow<SignedTransaction>>(&self, transactions: &[T]) -> AccountId {
        let transaction = transactions
            .get(self.transaction as usize)
            .map(|signed| &signed.borrow().transaction);
        let id = transaction.and_then(|transaction| match self.role {
            Role::Sender => Some(transaction.sender),
            Role::Sponsor => transaction.sponsor,
            Role::Recipient => transaction.action.recipient().copied(),
        });
        id.unwrap_or(AccountId::new([0; AccountId::LEN]))
    }
}
