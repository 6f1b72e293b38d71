//! Accounts that were read beforehand are the same accounts: reads, undo and writes do not tell which
//! were, or whether anybody knew their places.

mod common;

use std::collections::BTreeMap;

use common::{World, id, key, transfer};
use proofmill_chain::codec;
use proofmill_chain::state::accounts::Accounts;
use proofmill_chain::state::overlay::{Overlay, SupplyChange, WriteSet};
use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::record::{Record, StateKey};
use proofmill_chain::types::units::{Amount, Nonce};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

const NAMES: [&str; 5] = ["alice", "bob", "carol", "poor", "stranger"];

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Put(usize, u64),
    PutByKey(usize, u64),
    Remove(usize),
    Keep,
    Revert,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..NAMES.len();
    let step = prop_oneof![
        who.clone().prop_map(Step::Read),
        (who.clone(), 0_u64..3).prop_map(|(who, balance)| Step::Put(who, balance)),
        (who.clone(), 0_u64..3).prop_map(|(who, balance)| Step::PutByKey(who, balance)),
        who.prop_map(Step::Remove),
        (0..1).prop_map(|_| Step::Keep),
        (0..1).prop_map(|_| Step::Revert),
    ];
    vec(step, 0..40)
}

fn account(balance: u64) -> Account {
    Account {
        balance: Amount::new(balance),
        nonce: Nonce::ZERO,
    }
}

/// The first two exist.
fn state() -> BTreeMap<Hash, Vec<u8>> {
    (0_u64..2)
        .map(|index| {
            let who = id(NAMES[usize::try_from(index).expect("small")]);
            let record = Record::Account(account(index));
            (StateKey::Account(who).tree_key(), codec::encode(&record))
        })
        .collect()
}

fn run(
    mut overlay: Overlay<'_>,
    accounts: &Accounts,
    steps: &[Step],
) -> (Vec<Account>, WriteSet, SupplyChange) {
    // The first transaction is alice's to bob.
    let slots = accounts.slots(0);
    let place = |who: usize| match who {
        0 => slots.sender,
        1 => slots.recipient,
        _ => Default::default(),
    };
    let of = |who: usize| -> AccountId { id(NAMES[who]) };
    let mut read = Vec::new();
    for step in steps {
        match *step {
            Step::Read(who) => {
                read.push(overlay.account_at(of(who), place(who)).expect("readable"));
                read.push(overlay.account(of(who)).expect("readable"));
            }
            Step::Put(who, balance) => overlay
                .put_account(of(who), place(who), account(balance))
                .expect("readable"),
            Step::PutByKey(who, balance) => overlay
                .put(
                    StateKey::Account(of(who)),
                    Record::Account(account(balance)),
                )
                .expect("readable"),
            Step::Remove(who) => overlay
                .remove(StateKey::Account(of(who)))
                .expect("readable"),
            Step::Keep => overlay.keep(),
            Step::Revert => overlay.revert(),
        }
    }
    let (writes, change) = overlay.into_writes().expect("lawful");
    (read, writes, change)
}

proptest! {
    #[test]
    fn accounts_read_beforehand_are_the_same_accounts(
        steps in steps(),
        known in vec(any::<bool>(), NAMES.len()),
    ) {
        let world = World::new();
        let state = state();
        let mut transactions = vec![world.tx(&key("alice"), transfer(id("bob"), 1))];
        for (name, known) in NAMES.iter().zip(known) {
            if known {
                transactions.push(world.tx(&key(name), transfer(id("carol"), 1)));
            }
        }
        let accounts = Accounts::load(&state, &transactions).expect("readable");
        let plain = run(Overlay::new(&state), &Accounts::default(), &steps);
        let loaded = run(Overlay::with_accounts(&state, &accounts), &accounts, &steps);
        prop_assert_eq!(&loaded, &plain);
        let (_, writes, change) = loaded;
        let held = |bytes: &Option<_>| -> i128 {
            let Some(bytes) = bytes else { return 0 };
            let bytes: &proofmill_chain::state::overlay::RecordBytes = bytes;
            let record = Record::decode(bytes).expect("a record");
            i128::from(record.holds().get())
        };
        let changed: i128 = writes
            .writes
            .iter()
            .map(|write| held(&write.new) - held(&write.old))
            .sum();
        prop_assert_eq!(change, SupplyChange { held: changed, accounted: 0 });
    }
}
