//! The pool's rules, one test per rejection.

mod attestations;
mod laws;
mod room;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::build::TransactionSource;
use proofmill_chain::codec;
use proofmill_chain::pipeline::VerifiedTransaction;
use proofmill_chain::state::StateError;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature};
use proofmill_chain::types::params::FeeRates;
use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Gas, Height, Nonce, SUPPLY_MAX};
use proofmill_chain::types::worker::WorkerTerms;

use super::{InsertError, Mempool, MempoolLimits, PoolCandidates};

const BASE_FEE: Amount = Amount::new(8);
const RATES: FeeRates = FeeRates {
    base_fee: BASE_FEE,
    module_byte_price: Amount::ZERO,
};

fn genesis() -> Hash {
    Hash::of("test/genesis", &[])
}

fn id(number: u8) -> AccountId {
    AccountId::new([number; 32])
}

fn transfer(sender: u8, nonce: u64, tip: u64) -> SignedTransaction {
    SignedTransaction {
        transaction: Transaction {
            chain: genesis().prefix(),
            sender: id(sender),
            nonce: Nonce::new(nonce),
            max_fee: Amount::new(1_000_000_000),
            tip: Amount::new(tip),
            expires_at: Height::new(100),
            sponsor: None,
            action: Action::Transfer {
                to: id(0),
                amount: Amount::new(1),
            },
        },
        signature: Signature::new([sender; 64]),
        sponsor_signature: None,
    }
}

fn publish(sender: u8, bytes: usize, tip: u64) -> SignedTransaction {
    let mut signed = transfer(sender, 0, tip);
    signed.transaction.action = Action::PublishProgram {
        module: Blob::new(vec![7; bytes]),
    };
    signed
}

fn fee(signed: &SignedTransaction) -> u64 {
    let bytes = codec::encode(signed).len();
    BASE_FEE.get() * signed.transaction.weight(bytes).get()
}

/// Accounts of which everybody is rich and fresh unless it is said otherwise.
#[derive(Default)]
struct State(RefCell<BTreeMap<AccountId, Account>>);

impl State {
    fn set(&self, account: u8, balance: u64, nonce: u64) {
        let record = Account {
            balance: Amount::new(balance),
            nonce: Nonce::new(nonce),
        };
        self.0.borrow_mut().insert(id(account), record);
    }

    fn read(&self, account: &AccountId) -> Result<Account, StateError> {
        let rich = Account {
            balance: Amount::new(1 << 60),
            nonce: Nonce::ZERO,
        };
        Ok(self.0.borrow().get(account).copied().unwrap_or(rich))
    }
}

struct Fixture {
    pool: Mempool,
    state: State,
}

impl Fixture {
    fn new(limits: MempoolLimits) -> Self {
        Self {
            pool: Mempool::new(genesis(), RATES, limits),
            state: State::default(),
        }
    }

    fn insert(&mut self, signed: SignedTransaction) -> Result<Hash, InsertError> {
        let state = &self.state;
        let transaction = Arc::new(VerifiedTransaction::vouched(signed, &genesis()));
        self.pool
            .insert(transaction, Height::new(10), |account| state.read(account))
    }

    fn committed(&mut self, transactions: &[SignedTransaction], height: u64) -> Vec<Hash> {
        let state = &self.state;
        self.pool
            .committed(transactions, Height::new(height), |account| {
                state.read(account)
            })
            .expect("the state can be read")
    }

    fn selected(&self) -> Vec<(u8, u64)> {
        drained(self.pool.candidates())
    }
}

fn verified(signed: &SignedTransaction) -> Arc<VerifiedTransaction> {
    Arc::new(VerifiedTransaction::vouched(signed.clone(), &genesis()))
}

fn drained(mut candidates: PoolCandidates) -> Vec<(u8, u64)> {
    std::iter::from_fn(|| candidates.draw())
        .map(|one| name(one.signed()))
        .collect()
}

fn name(signed: &SignedTransaction) -> (u8, u64) {
    let transaction = &signed.transaction;
    (transaction.sender.as_bytes()[0], transaction.nonce.get())
}

fn fixture() -> Fixture {
    Fixture::new(MempoolLimits::default())
}

#[test]
fn the_best_tip_goes_first_and_each_sender_keeps_its_order() {
    let mut f = fixture();
    for (sender, nonce, tip) in [(1, 0, 1), (1, 1, 900), (2, 0, 500), (2, 1, 2), (3, 0, 500)] {
        f.insert(transfer(sender, nonce, tip)).expect("is taken");
    }
    // 1's second waits for its first; among equals the first to arrive.
    assert_eq!(f.selected(), [(2, 0), (3, 0), (2, 1), (1, 0), (1, 1)]);
}

#[test]
fn a_sender_who_is_skipped_is_not_offered_again() {
    let mut f = fixture();
    for (sender, nonce, tip) in [(1, 0, 9), (1, 1, 9), (1, 2, 9), (2, 0, 5), (2, 1, 900)] {
        f.insert(transfer(sender, nonce, tip)).expect("is taken");
    }
    let mut candidates = f.pool.candidates();
    let first = candidates.draw().expect("there are five");
    assert_eq!(name(first.signed()), (1, 0));
    candidates.skip_sender(&id(1));
    // What comes in meanwhile does not change what is offered.
    f.insert(transfer(3, 0, 900)).expect("is taken");
    assert_eq!(drained(candidates), [(2, 0), (2, 1)]);
    assert_eq!(f.pool.len(), 6);
}

#[test]
fn what_is_known_is_refused_whatever_its_signature() {
    let mut f = fixture();
    let id = f.insert(transfer(1, 0, 5)).expect("is taken");
    let mut again = transfer(1, 0, 5);
    again.signature = Signature::new([9; 64]);
    assert_eq!(f.insert(again), Err(InsertError::Known { id }));
    assert!(f.pool.contains(&id));
    assert_eq!(f.pool.get(&id), Some(&transfer(1, 0, 5)));
}

#[test]
fn nonces_are_consecutive() {
    let mut f = fixture();
    f.state.set(1, 1 << 60, 5);
    let gap = |expected, received| InsertError::NonceGap {
        expected: Nonce::new(expected),
        received: Nonce::new(received),
    };
    let low = |expected, received| InsertError::NonceTooLow {
        expected: Nonce::new(expected),
        received: Nonce::new(received),
    };
    assert_eq!(f.insert(transfer(1, 6, 1)), Err(gap(5, 6)));
    assert_eq!(f.insert(transfer(1, 4, 1)), Err(low(5, 4)));
    f.insert(transfer(1, 5, 1)).expect("is taken");
    assert_eq!(f.insert(transfer(1, 7, 1)), Err(gap(6, 7)));
    f.insert(transfer(1, 6, 1)).expect("is taken");
    assert_eq!(f.insert(transfer(1, 4, 1)), Err(low(7, 4)));
    assert_eq!(f.pool.next_nonce(&id(1), Nonce::new(5)), Nonce::new(7));
    assert_eq!(f.pool.next_nonce(&id(2), Nonce::new(3)), Nonce::new(3));
}

#[test]
fn an_expired_transaction_is_refused() {
    let mut f = fixture();
    let mut signed = transfer(1, 0, 1);
    signed.transaction.expires_at = Height::new(10);
    let refused = InsertError::Expired {
        expires_at: Height::new(10),
        height: Height::new(10),
    };
    assert_eq!(f.insert(signed.clone()), Err(refused));
    signed.transaction.expires_at = Height::new(11);
    f.insert(signed).expect("the next block may include it");
}

#[test]
fn max_fee_must_cover_fee_and_tip() {
    let mut f = fixture();
    let mut signed = transfer(1, 0, 3);
    let needed = fee(&signed) + 3;
    signed.transaction.max_fee = Amount::new(needed - 1);
    let refused = InsertError::FeeTooLow {
        needed: Amount::new(needed),
        max_fee: Amount::new(needed - 1),
    };
    assert_eq!(f.insert(signed.clone()), Err(refused));
    signed.transaction.max_fee = Amount::new(needed);
    f.insert(signed).expect("is taken");
    let overflow = f.insert(transfer(2, 0, u64::MAX));
    assert!(matches!(overflow, Err(InsertError::FeeTooLow { .. })));
}

#[test]
fn an_account_pays_for_everything_that_is_pending() {
    let mut f = fixture();
    let cost = fee(&transfer(1, 0, 3)) + 3 + 1;
    f.state.set(1, cost * 2 + 1, 0);
    f.insert(transfer(1, 0, 3)).expect("is taken");
    f.insert(transfer(1, 1, 3)).expect("is taken");
    let refused = |account, needed, available| InsertError::InsufficientBalance {
        account: id(account),
        needed: Amount::new(needed),
        available: Amount::new(available),
    };
    assert_eq!(f.insert(transfer(1, 2, 3)), Err(refused(1, cost, 1)));

    // A sponsor pays fees in the senders' place, for all of them together; what they send is their own.
    let sponsored = |sender| {
        let mut signed = transfer(sender, 0, 3);
        signed.transaction.sponsor = Some(id(9));
        signed.sponsor_signature = Some(Signature::new([9; 64]));
        signed
    };
    let cost = fee(&sponsored(2)) + 3;
    f.state.set(2, 1, 0);
    f.state.set(3, 1, 0);
    f.state.set(4, 0, 0);
    f.state.set(9, cost, 0);
    assert_eq!(f.insert(sponsored(4)), Err(refused(4, 1, 0)));
    f.insert(sponsored(2)).expect("is taken");
    assert_eq!(f.insert(sponsored(3)), Err(refused(9, cost, 0)));
}

#[test]
fn what_an_action_spends_is_reserved() {
    let register = |collateral| Action::RegisterWorker {
        worker: id(7),
        terms: worker_terms(),
        collateral: Amount::new(collateral),
        consent: Signature::new([7; 64]),
    };
    let update = |add| Action::UpdateWorker {
        worker: id(7),
        terms: worker_terms(),
        add_collateral: Amount::new(add),
    };
    let submit = |price| {
        Action::SubmitTask(TaskSpec {
            program: Hash::ZERO,
            input: Blob::default(),
            gas_limit: Gas::new(1_500_000),
            memory_pages: 1,
            mode: Mode::Replicated { replicas: 2 },
            price_per_mgas: Amount::new(price),
            insured_value: Amount::ZERO,
            requirements: Requirements::default(),
            wait_max: 1,
        })
    };
    let actions = [(register(900), 900), (update(800), 800), (submit(300), 900)];
    for (action, spent) in actions {
        let mut f = fixture();
        let mut signed = transfer(1, 0, 3);
        signed.transaction.action = action;
        let needed = fee(&signed) + 3 + spent;
        f.state.set(1, needed - 1, 0);
        let refused = InsertError::InsufficientBalance {
            account: id(1),
            needed: Amount::new(needed),
            available: Amount::new(needed - 1),
        };
        assert_eq!(f.insert(signed.clone()), Err(refused));
        f.state.set(1, needed, 0);
        f.insert(signed).expect("is taken");
    }
    // An escrow beyond 64 bits is beyond every balance.
    let mut f = fixture();
    let mut signed = transfer(1, 0, 3);
    signed.transaction.action = submit(u64::MAX);
    f.state.set(1, SUPPLY_MAX - 1, 0);
    let refused = f.insert(signed);
    assert!(matches!(
        refused,
        Err(InsertError::InsufficientBalance { .. })
    ));
}

#[test]
fn transactions_that_are_looked_at_together_count_for_each_other() {
    let mut f = Fixture::new(MempoolLimits {
        per_sender_max: 3,
        ..MempoolLimits::default()
    });
    f.insert(transfer(1, 0, 3)).expect("is taken");
    let cost = fee(&transfer(1, 0, 3)) + 3 + 1;
    f.state.set(1, cost * 3, 0);
    let state = &f.state;
    let mut preview = f.pool.preview();
    let mut look = |signed: &SignedTransaction| {
        let bytes = codec::encode(signed).len();
        let account = |account: &AccountId| state.read(account);
        preview.check(&signed.transaction, bytes, Height::new(10), account)
    };
    let gap = look(&transfer(1, 2, 3));
    assert!(matches!(gap, Err(InsertError::NonceGap { .. })));
    assert_eq!(look(&transfer(1, 1, 3)), Ok(()));
    assert_eq!(look(&transfer(1, 2, 3)), Ok(()));
    assert_eq!(
        look(&transfer(1, 3, 3)),
        Err(InsertError::SenderFull { most: 3 })
    );
    assert_eq!(look(&transfer(2, 0, 3)), Ok(()));
    f.state.set(3, cost, 0);
    let mut preview = f.pool.preview();
    let mut look = |signed: &SignedTransaction| {
        let bytes = codec::encode(signed).len();
        let account = |account: &AccountId| f.state.read(account);
        preview.check(&signed.transaction, bytes, Height::new(10), account)
    };
    assert_eq!(look(&transfer(3, 0, 3)), Ok(()));
    let poor = look(&transfer(3, 1, 3));
    assert!(matches!(poor, Err(InsertError::InsufficientBalance { .. })));
    assert_eq!(f.pool.len(), 1);
}

fn worker_terms() -> WorkerTerms {
    WorkerTerms {
        price_per_mgas: Amount::new(1),
        gas_limit_max: Gas::new(1),
        memory_pages_max: 1,
        tags: Vec::new(),
        active: true,
    }
}

#[test]
fn a_replacement_pays_a_tenth_more() {
    let mut f = fixture();
    let old = f.insert(transfer(1, 0, 100)).expect("is taken");
    f.insert(transfer(1, 1, 1)).expect("is taken");
    let refused = InsertError::ReplacementTipTooLow {
        needed: Amount::new(110),
        given: Amount::new(109),
    };
    assert_eq!(f.insert(transfer(1, 0, 109)), Err(refused));
    // Its balance needs to cover the replacement, not both.
    let (first, second) = (transfer(1, 0, 110), transfer(1, 1, 1));
    f.state
        .set(1, fee(&first) + 110 + 1 + fee(&second) + 1 + 1, 0);
    let new = f.insert(first).expect("is taken");
    assert!(!f.pool.contains(&old));
    assert!(f.pool.contains(&new));
    assert_eq!(f.selected(), [(1, 0), (1, 1)]);
    f.insert(transfer(2, 0, 0)).expect("is taken");
    let refused = InsertError::ReplacementTipTooLow {
        needed: Amount::new(1),
        given: Amount::ZERO,
    };
    let mut other = transfer(2, 0, 0);
    other.transaction.max_fee = Amount::new(999_999_999);
    assert_eq!(f.insert(other), Err(refused));
}

#[test]
fn a_module_is_replaced_by_itself_for_as_long_and_a_transfer_by_anything() {
    let mut f = fixture();
    let waiting = f.insert(publish(1, 100, 10)).expect("is taken");
    let stays = Err(InsertError::ModuleStays {
        waiting,
        expires_at: Height::new(100),
    });
    assert_eq!(f.insert(publish(1, 101, 1_000)), stays);
    assert_eq!(f.insert(transfer(1, 0, 1_000)), stays);
    let mut sooner = publish(1, 100, 1_000);
    sooner.transaction.expires_at = Height::new(99);
    assert_eq!(f.insert(sooner), stays);
    let cheap = f.insert(publish(1, 100, 10));
    assert_eq!(cheap, Err(InsertError::Known { id: waiting }));
    f.insert(publish(1, 100, 11)).expect("it pays more");
    let firsts = |f: &Fixture| {
        f.pool
            .modules_ahead(usize::MAX, usize::MAX, Height::ZERO)
            .len()
    };
    assert_eq!((f.pool.len(), firsts(&f)), (1, 1));
    f.insert(transfer(2, 0, 10)).expect("is taken");
    f.insert(publish(2, 100, 11)).expect("it pays more");
    assert_eq!((f.pool.len(), firsts(&f)), (2, 2));
}

#[test]
fn a_sender_has_so_many_and_no_more() {
    let mut f = Fixture::new(MempoolLimits {
        per_sender_max: 2,
        ..MempoolLimits::default()
    });
    f.insert(transfer(1, 0, 1)).expect("is taken");
    f.insert(transfer(1, 1, 1)).expect("is taken");
    let refused = Err(InsertError::SenderFull { most: 2 });
    assert_eq!(f.insert(transfer(1, 2, 1)), refused);
    f.insert(transfer(2, 0, 1)).expect("is taken");
}

#[test]
fn a_full_pool_gives_up_the_lowest_tips_and_only_for_higher_ones() {
    let mut f = Fixture::new(MempoolLimits {
        transactions_max: 3,
        ..MempoolLimits::default()
    });
    f.insert(transfer(1, 0, 50)).expect("is taken");
    f.insert(transfer(2, 0, 1)).expect("is taken");
    f.insert(transfer(2, 1, 40)).expect("is taken");
    assert_eq!(f.insert(transfer(3, 0, 1)), Err(InsertError::Full));
    assert_eq!(f.pool.len(), 3);
    // 2's first has the lowest tip, and its second, which waits for it, goes before it.
    f.insert(transfer(3, 0, 40)).expect("is taken");
    assert_eq!(f.selected(), [(1, 0), (3, 0), (2, 0)]);
    f.insert(transfer(4, 0, 2)).expect("is taken");
    assert_eq!(f.selected(), [(1, 0), (3, 0), (4, 0)]);
    // Nobody's own transactions make room for its next one.
    let mut g = Fixture::new(MempoolLimits {
        transactions_max: 1,
        ..MempoolLimits::default()
    });
    g.insert(transfer(1, 0, 1)).expect("is taken");
    assert_eq!(g.insert(transfer(1, 1, 9)), Err(InsertError::Full));
}

#[test]
fn a_large_transaction_that_does_not_pay_for_all_its_room_leaves_the_pool_as_it_was() {
    let one = codec::encode(&transfer(1, 0, 0)).len();
    let mut f = Fixture::new(MempoolLimits {
        bytes_max: one * 4,
        ..MempoolLimits::default()
    });
    for (sender, tip) in [(1, 1), (2, 2), (3, 3), (4, 1000)] {
        f.insert(transfer(sender, 0, tip)).expect("is taken");
    }
    let before = f.selected();
    let bytes = f.pool.bytes();
    assert_eq!(f.insert(publish(5, one * 3, 5000)), Err(InsertError::Full));
    assert_eq!(f.selected(), before);
    assert_eq!(f.pool.bytes(), bytes);
    f.insert(publish(5, one * 2, 1_000_000)).expect("is taken");
    assert_eq!(f.selected(), [(5, 0), (4, 0)]);
}

#[test]
fn a_block_takes_out_what_it_included_and_what_it_made_useless() {
    let mut f = fixture();
    f.insert(transfer(1, 0, 9)).expect("is taken");
    let replaced = f.insert(transfer(2, 0, 9)).expect("is taken");
    f.insert(transfer(2, 1, 9)).expect("is taken");
    let poor = f.insert(transfer(3, 1 - 1, 9)).expect("is taken");
    let poor_next = f.insert(transfer(3, 1, 9)).expect("is taken");
    let mut brief = transfer(4, 0, 9);
    brief.transaction.expires_at = Height::new(11);
    let brief = f.insert(brief).expect("is taken");
    let after_brief = f.insert(transfer(4, 1, 9)).expect("is taken");

    // 2 had another transaction with the same nonce included, 3 was emptied as a sponsor.
    let mut sponsored = transfer(8, 0, 1);
    sponsored.transaction.sponsor = Some(id(3));
    let block = [transfer(1, 0, 9), transfer(2, 0, 8), sponsored];
    f.state.set(1, 1 << 60, 1);
    f.state.set(2, 1 << 60, 1);
    f.state.set(3, fee(&transfer(3, 0, 9)) + 9 + 1, 0);
    let mut dropped = f.committed(&block, 11);
    dropped.sort_unstable();
    let mut expected = vec![replaced, poor_next, brief, after_brief];
    expected.sort_unstable();
    assert_eq!(dropped, expected);
    assert!(f.pool.contains(&poor));
    assert_eq!(f.selected(), [(2, 1), (3, 0)]);
    assert_eq!(f.pool.next_nonce(&id(1), Nonce::new(1)), Nonce::new(1));
}

#[test]
fn another_base_fee_prices_what_waits_anew() {
    let mut pool = Mempool::new(genesis(), RATES, MempoolLimits::default());
    let account = |_: &AccountId| {
        Ok(Account {
            balance: Amount::new(1_000_000),
            nonce: Nonce::ZERO,
        })
    };
    let with_max_fee = |sender, nonce, max_fee| {
        let mut signed = transfer(sender, nonce, 0);
        signed.transaction.max_fee = Amount::new(max_fee);
        verified(&signed)
    };
    let weight = {
        let signed = transfer(1, 0, 0);
        let bytes = codec::encode(&signed).len();
        signed.transaction.weight(bytes).get()
    };
    // Sender 1 gives enough for the new fee, sender 2 only until its second transaction.
    let mut insert = |signed| {
        let height = Height::new(1);
        pool.insert(signed, height, account).expect("it is taken")
    };
    let kept = [
        insert(with_max_fee(1, 0, 9 * weight)),
        insert(with_max_fee(2, 0, 9 * weight)),
    ];
    let gone = [
        insert(with_max_fee(2, 1, 8 * weight)),
        insert(with_max_fee(2, 2, 9 * weight)),
    ];
    assert!(pool.set_rates(RATES).is_empty());
    let bytes = pool.bytes();
    assert_eq!(
        pool.set_rates(FeeRates {
            base_fee: Amount::new(9),
            ..RATES
        }),
        gone
    );
    assert_eq!((pool.len(), pool.bytes()), (2, bytes / 2));
    assert!(kept.iter().all(|id| pool.contains(id)));
    assert_eq!(pool.next_nonce(&id(2), Nonce::ZERO), Nonce::new(1));
    assert_eq!(drained(pool.candidates()).len(), 2);
    let refused = pool.insert(with_max_fee(2, 1, 8 * weight), Height::new(1), account);
    let needed = Amount::new(9 * weight);
    assert!(
        matches!(&refused, Err(InsertError::FeeTooLow { needed: told, .. }) if *told == needed),
        "{refused:?}"
    );
}
