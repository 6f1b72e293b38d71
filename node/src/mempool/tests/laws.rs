//! What holds for the pool of transactions whatever is called.

use std::collections::{BTreeMap, BTreeSet};

use proofmill_chain::build::TransactionSource;
use proofmill_chain::codec;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Height, Nonce};
use proptest::prelude::{
    Strategy, any, prop, prop_assert, prop_assert_eq, prop_assert_ne, proptest,
};

use super::{RATES, State, fee, genesis, id, publish, transfer, verified};
use crate::mempool::{InsertError, Mempool, MempoolLimits};

#[derive(Clone, Debug)]
enum Call {
    Insert {
        sender: u8,
        nonce: u64,
        tip: u64,
        sponsor: bool,
        module: usize,
        expires_at: u64,
    },
    Commit {
        count: usize,
    },
    Impoverish {
        account: u8,
        balance: u64,
    },
}

fn call() -> impl Strategy<Value = Call> {
    let insert = (
        0..4_u8,
        0..6_u64,
        0..60_u64,
        any::<bool>(),
        0..900_usize,
        1..40_u64,
    );
    let insert =
        insert.prop_map(
            |(sender, nonce, tip, sponsor, module, expires_at)| Call::Insert {
                sender,
                nonce,
                tip,
                sponsor,
                module,
                expires_at,
            },
        );
    prop::strategy::Union::new_weighted(vec![
        (12, insert.boxed()),
        (
            1,
            (0..4_usize)
                .prop_map(|count| Call::Commit { count })
                .boxed(),
        ),
        (
            1,
            (0..5_u8, 0..60_000_u64)
                .prop_map(|(account, balance)| Call::Impoverish { account, balance })
                .boxed(),
        ),
    ])
}

proptest! {
    #[test]
    fn whatever_is_called_the_pool_keeps_its_bounds_and_its_order(
        calls in prop::collection::vec(call(), 1..120)
    ) {
        let limits = MempoolLimits {
            bytes_max: 4_000,
            transactions_max: 9,
            per_sender_max: 4,
            per_sender_bytes_max: 2_000,
        };
        let mut pool = Mempool::new(genesis(), RATES, limits);
        let state = State::default();
        for account in 0..5 {
            state.set(account, 60_000, 0);
        }
        let read = |account: &AccountId| state.read(account);
        let nonce_of = |account: &AccountId| read(account).expect("no fault").nonce;
        let mut height = 0;
        for call in calls {
            match call {
                Call::Insert { sender, nonce, tip, sponsor, module, expires_at } => {
                    let mut signed = publish(sender, module, tip);
                    let next = pool.next_nonce(&id(sender), nonce_of(&id(sender)));
                    // Mostly what fits, sometimes a replacement, a gap or the past.
                    signed.transaction.nonce = Nonce::new((next.get() + nonce).saturating_sub(3));
                    signed.transaction.sponsor = sponsor.then_some(id(4));
                    signed.transaction.expires_at = Height::new(expires_at);
                    let (count, bytes) = (pool.len(), pool.bytes());
                    let before = paid(&pool);
                    let size = codec::encode(&signed).len();
                    let look = pool
                        .preview()
                        .check(&signed.transaction, size, Height::new(height), read);
                    match pool.insert(verified(&signed), Height::new(height), read) {
                        Ok(id) => {
                            prop_assert_eq!(pool.get(&id), Some(&signed));
                            prop_assert_eq!(look, Ok(()));
                            check_evicted(&before, &paid(&pool), &signed)?;
                        }
                        Err(error) => {
                            prop_assert_eq!((pool.len(), pool.bytes()), (count, bytes));
                            // What a look cannot tell: the id, and whether enough can make room.
                            let unseen = matches!(error, InsertError::Known { .. } | InsertError::Full);
                            prop_assert!(unseen || look == Err(error));
                        }
                    }
                }
                Call::Commit { count } => {
                    let block: Vec<_> = all(&pool).into_iter().take(count).collect();
                    height += 1;
                    for signed in &block {
                        let sender = signed.transaction.sender;
                        let mut accounts = state.0.borrow_mut();
                        let account = accounts.entry(sender).or_default();
                        prop_assert_eq!(account.nonce, signed.transaction.nonce);
                        account.nonce = account.nonce.next().expect("small");
                    }
                    pool.committed(&block, Height::new(height), read).expect("no fault");
                }
                Call::Impoverish { account, balance } => {
                    let nonce = nonce_of(&id(account)).get();
                    state.set(account, balance, nonce);
                    let mut by_it = transfer(account, nonce, 0);
                    by_it.transaction.sender = id(account);
                    pool.committed(&[by_it], Height::new(height), read).expect("no fault");
                }
            }
            check(&pool, &state, limits, height)?;
        }
    }
}

fn all(pool: &Mempool) -> Vec<SignedTransaction> {
    let mut candidates = pool.candidates();
    std::iter::from_fn(|| candidates.draw())
        .map(|one| one.signed().clone())
        .collect()
}

/// What each pending transaction pays for its room: no more than one of its sender that it waits for.
fn paid(pool: &Mempool) -> BTreeMap<(AccountId, Nonce), u128> {
    let mut lowest: BTreeMap<AccountId, u128> = BTreeMap::new();
    let mut paid = BTreeMap::new();
    for signed in all(pool) {
        let transaction = &signed.transaction;
        let weight = transaction.weight(codec::encode(&signed).len()).get();
        let rate = (u128::from(transaction.tip.get()) << 32) / u128::from(weight);
        let lowest = lowest.entry(transaction.sender).or_insert(rate);
        *lowest = rate.min(*lowest);
        paid.insert((transaction.sender, transaction.nonce), *lowest);
    }
    paid
}

/// What made room for `new` pays less for it than `new` does, and no more than what the others that stay do.
fn check_evicted(
    before: &BTreeMap<(AccountId, Nonce), u128>,
    after: &BTreeMap<(AccountId, Nonce), u128>,
    new: &SignedTransaction,
) -> Result<(), proptest::test_runner::TestCaseError> {
    let sender = new.transaction.sender;
    let pays = after[&(sender, new.transaction.nonce)];
    let gone = before.iter().filter(|(slot, _)| !after.contains_key(slot));
    for (slot, rate) in gone {
        prop_assert_ne!(slot.0, sender, "nobody pushes itself out");
        prop_assert!(*rate < pays, "{rate} made room for {pays}");
        for ((other, _), stays) in after {
            prop_assert!(
                *other == sender || rate <= stays,
                "{stays} stays, {rate} went"
            );
        }
    }
    Ok(())
}

fn check(
    pool: &Mempool,
    state: &State,
    limits: MempoolLimits,
    height: u64,
) -> Result<(), proptest::test_runner::TestCaseError> {
    let all = all(pool);
    // Everything that is pending is offered, so counts and bytes are those of what is there.
    prop_assert_eq!(all.len(), pool.len());
    let bytes: usize = all.iter().map(|signed| codec::encode(signed).len()).sum();
    prop_assert_eq!(bytes, pool.bytes());
    prop_assert!(bytes <= limits.bytes_max);
    prop_assert!(all.len() <= limits.transactions_max);
    let mut next: BTreeMap<AccountId, u64> = BTreeMap::new();
    let mut costs: BTreeMap<AccountId, u64> = BTreeMap::new();
    let mut counts: BTreeMap<AccountId, usize> = BTreeMap::new();
    let mut sizes: BTreeMap<AccountId, usize> = BTreeMap::new();
    for signed in &all {
        let transaction = &signed.transaction;
        let account = state.read(&transaction.sender).expect("no fault");
        let expected = next
            .entry(transaction.sender)
            .or_insert(account.nonce.get());
        prop_assert_eq!(transaction.nonce.get(), *expected);
        *expected += 1;
        *counts.entry(transaction.sender).or_default() += 1;
        *sizes.entry(transaction.sender).or_default() += codec::encode(signed).len();
        *costs.entry(transaction.payer()).or_default() += fee(signed) + transaction.tip.get();
        prop_assert!(transaction.expires_at > Height::new(height));
        prop_assert!(pool.contains(&transaction.id(&genesis())));
    }
    // Everything here publishes a module, so each sender's first is one that may be judged ahead.
    let mut seen = BTreeSet::new();
    let firsts: Vec<_> = all
        .iter()
        .filter(|signed| seen.insert(signed.transaction.sender))
        .map(|signed| signed.transaction.id(&genesis()))
        .collect();
    let ahead = pool.modules_ahead(usize::MAX, usize::MAX, Height::ZERO);
    let ahead: Vec<_> = ahead.iter().map(|one| one.id()).collect();
    prop_assert_eq!(ahead, firsts);
    prop_assert!(counts.values().all(|count| *count <= limits.per_sender_max));
    prop_assert!(
        sizes
            .values()
            .all(|size| *size <= limits.per_sender_bytes_max)
    );
    for (payer, cost) in costs {
        prop_assert!(cost <= state.read(&payer).expect("no fault").balance.get());
    }
    Ok(())
}
