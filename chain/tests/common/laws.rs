//! What holds after every block, and rejections with the proof that nothing else happened.

use std::collections::{BTreeMap, BTreeSet};

use super::{STEP_MS, World, candidates, key_of};
use proofmill_chain::build::Candidates;
use proofmill_chain::check::Roots;
use proofmill_chain::codec;
use proofmill_chain::execute::{ExecuteError, Inadmissible, sum_supply};
use proofmill_chain::merkle;
use proofmill_chain::pipeline::{BlockError, EncodedTransaction, VerifyError, verify_transactions};
use proofmill_chain::task::Void;
use proofmill_chain::tree::{LeafValue, Tree};
use proofmill_chain::types::block::{Block, Certificate, block_sign_bytes};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::receipt::{Failure, Outcome};
use proofmill_chain::types::record::{Record, StateKey, Workers};
use proofmill_chain::types::task::AttestationMessage;
use proofmill_chain::types::transaction::SignedTransaction;
use proofmill_chain::types::units::{Amount, Round};

impl World {
    /// What holds after every block, computed from the whole state.
    pub(crate) fn check_laws(&self) {
        sum_supply(self.state.values().map(Vec::as_slice)).expect("grain is neither made nor lost");
        let leaves: Vec<_> = self
            .state
            .iter()
            .map(|(key, value)| (*key, Some(LeafValue::of(value))))
            .collect();
        assert_eq!(Tree::new().update(&leaves).root(), self.tree.root());
        let mut live = Vec::new();
        let mut seats: BTreeMap<AccountId, (u64, u32)> = BTreeMap::new();
        let mut workers = BTreeMap::new();
        for bytes in self.state.values() {
            match Record::decode(bytes).expect("records decode") {
                Record::Task(task) if task.phase.is_over() => {
                    assert_eq!(task.escrow, Amount::ZERO, "{task:?}");
                }
                Record::Task(task) => {
                    let operators: BTreeSet<_> =
                        task.seats.iter().map(|seat| seat.operator).collect();
                    assert_eq!(operators.len(), task.seats.len(), "one seat per operator");
                    for seat in &task.seats {
                        let (locked, count) = seats.entry(seat.worker).or_default();
                        *locked += seat.bond.get();
                        *count += 1;
                    }
                    live.push((task.submitted_at, task.index, task.id));
                }
                Record::Worker(worker) => {
                    workers.insert(worker.id, worker);
                }
                _ => {}
            }
        }
        live.sort_unstable();
        let listed: Vec<_> = self
            .live()
            .entries
            .iter()
            .map(|entry| (entry.submitted_at, entry.index, entry.task))
            .collect();
        assert_eq!(
            listed, live,
            "the live list holds the unfinished tasks, oldest first"
        );
        let ids: Vec<_> = workers.keys().copied().collect();
        let Some(Record::Workers(Workers { ids: registered })) = self.record(StateKey::Workers)
        else {
            panic!("the list of workers exists");
        };
        assert_eq!(registered, ids);
        for worker in workers.values() {
            let held = seats.remove(&worker.id).unwrap_or_default();
            assert_eq!((worker.locked.get(), worker.seats), held, "{worker:?}");
            assert!(worker.locked <= worker.collateral);
            assert!(!worker.retiring || worker.seats > 0);
        }
        assert!(seats.is_empty(), "every seat's worker is registered");
    }

    /// The failure of a transaction in a block of its own. Beside its fee and tip the block does
    /// what the empty block at that moment does.
    pub(crate) fn failure(&self, signed: &SignedTransaction) -> Failure {
        let (mut loud, mut quiet) = (self.clone(), self.clone());
        let step = loud.advance(candidates(core::slice::from_ref(signed), &[]));
        quiet.advance(Candidates::default());
        let Outcome::Failed { failure } = step.outcome().clone() else {
            panic!("the transaction was applied");
        };
        let receipt = &step.receipts()[0];
        let payer = signed.transaction.payer();
        let reward = self.proposer(Round::new(0)).reward;
        assert_eq!(
            loud.balance(payer) + receipt.fee.get() + receipt.tip.get(),
            quiet.balance(payer)
        );
        assert_eq!(
            loud.balance(reward),
            quiet.balance(reward) + receipt.tip.get()
        );
        let mut chain = quiet.chain();
        chain.burned = Amount::new(chain.burned.get() + receipt.fee.get());
        assert_eq!(loud.chain(), chain);
        let sender = signed.transaction.sender;
        assert_eq!(
            loud.account(sender).nonce.get(),
            self.account(sender).nonce.get() + 1
        );
        for key in [
            StateKey::Account(payer),
            StateKey::Account(sender),
            StateKey::Account(reward),
            StateKey::Chain,
        ] {
            loud.state.remove(&key.tree_key());
            quiet.state.remove(&key.tree_key());
        }
        assert!(
            loud.state == quiet.state,
            "a failed action changed the state"
        );
        assert!(step.sealed.effects().blobs.is_empty());
        failure
    }

    /// Why a transaction may not be included: the builder leaves it out and builds what it would
    /// have built without it, and a block that carries it all the same is invalid for that reason.
    pub(crate) fn inadmissible(&self, signed: &SignedTransaction) -> Inadmissible {
        let time_ms = self.time_ms + STEP_MS;
        let list = core::slice::from_ref(signed);
        let built = self.build(Round::new(0), time_ms, candidates(list, &[]));
        let empty = self.build(Round::new(0), time_ms, Candidates::default());
        assert_eq!(built.block, empty.block);
        let [(id, error)] = built.refused.as_slice() else {
            panic!("one refusal is expected, got {:?}", built.refused);
        };
        assert_eq!(*id, signed.transaction.id(&self.id));
        let forged = self.forge(|block| block.transactions = list.to_vec());
        assert_eq!(
            self.validate(&forged).map(|sealed| sealed.hash()),
            Err(BlockError::Execute(ExecuteError::Transaction {
                index: 0,
                error: error.clone()
            }))
        );
        error.clone()
    }

    /// Why an attestation is void, in the way of [`World::inadmissible`].
    pub(crate) fn void(&self, message: &AttestationMessage) -> Void {
        let time_ms = self.time_ms + STEP_MS;
        let list = core::slice::from_ref(message);
        let built = self.build(Round::new(0), time_ms, candidates(&[], list));
        let empty = self.build(Round::new(0), time_ms, Candidates::default());
        assert_eq!(built.block, empty.block);
        let [(_, void)] = built.void.as_slice() else {
            panic!("one void attestation is expected, got {:?}", built.void);
        };
        let forged = self.forge(|block| block.attestations = vec![message.signed]);
        assert_eq!(
            self.validate(&forged).map(|sealed| sealed.hash()),
            Err(BlockError::Execute(ExecuteError::Attestation {
                index: 0,
                void: *void
            }))
        );
        *void
    }

    /// A mempool's verdict on a transaction that is verified together with a good one.
    pub(crate) fn verified_beside(
        &self,
        good: &SignedTransaction,
        signed: &SignedTransaction,
    ) -> Result<(), VerifyError> {
        let checked = [good, signed, good].map(|signed| {
            let encoded = EncodedTransaction::of(signed.clone());
            encoded.check(&self.id).expect("only signatures are wrong")
        });
        let mut verdicts = verify_transactions(checked.into(), &self.id, &self.verifier, None);
        let beside = verdicts.swap_remove(1).map(|(verified, encoding)| {
            assert_eq!(verified.id(), signed.transaction.id(&self.id));
            assert_eq!(encoding, codec::encode(signed));
            assert_eq!(verified.bytes(), encoding.len());
            assert_eq!(verified.leaf(), merkle::leaf_hash(&encoding));
        });
        assert!(verdicts.iter().all(Result::is_ok));
        beside
    }

    /// The next empty block after `change`, with the roots of its lists and its proposer's
    /// signature made anew: what a hostile proposer can sign.
    pub(crate) fn forge(&self, change: impl FnOnce(&mut Block)) -> Block {
        let time_ms = self.time_ms + STEP_MS;
        let mut block = self
            .build(Round::new(0), time_ms, Candidates::default())
            .block;
        change(&mut block);
        reroot(&mut block);
        self.resign(&mut block);
        block
    }

    pub(crate) fn resign(&self, block: &mut Block) {
        let signer = key_of(&self.proposer(block.header.round).key);
        block.proposer_signature = signer.sign(&block_sign_bytes(&block.header.hash()));
    }
}

/// Makes the header commit to the lists that the block carries.
pub(crate) fn reroot(block: &mut Block) {
    let roots = Roots::of(block);
    block.header.transactions_root = roots.transactions;
    block.header.assignments_root = roots.assignments;
    block.header.attestations_root = roots.attestations;
    block.header.last_certificate_hash = block
        .last_certificate
        .as_ref()
        .map_or(Hash::ZERO, Certificate::hash);
}
