//! What tests read from a state and put into blocks.

use super::{KEYS, MAX_FEE, World, candidates, id, key, key_of, salt, spec};
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::account::Account;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::{AccountId, Blob, Hash};
use proofmill_chain::types::receipt::Outcome;
use proofmill_chain::types::record::{Chain, LiveTasks, Record, StateKey};
use proofmill_chain::types::task::{
    Attestation, AttestationMessage, ResultClaim, SignedAttestation, Statement, Task, TaskSpec,
};
use proofmill_chain::types::transaction::{
    Action, SignedTransaction, Transaction, worker_consent_bytes,
};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_chain::types::worker::{Worker, WorkerTerms};

impl World {
    pub(crate) fn record(&self, key: StateKey) -> Option<Record> {
        self.state
            .get(&key.tree_key())
            .map(|bytes| Record::decode(bytes).expect("records decode"))
    }

    pub(crate) fn account(&self, id: AccountId) -> Account {
        match self.record(StateKey::Account(id)) {
            Some(Record::Account(account)) => account,
            None => Account::default(),
            other => panic!("{other:?} is no account"),
        }
    }

    pub(crate) fn balance(&self, id: AccountId) -> u64 {
        self.account(id).balance.get()
    }

    pub(crate) fn worker(&self, id: AccountId) -> Worker {
        match self.record(StateKey::Worker(id)) {
            Some(Record::Worker(worker)) => worker,
            other => panic!("{other:?} is no worker"),
        }
    }

    pub(crate) fn task(&self, id: Hash) -> Task {
        match self.record(StateKey::Task(id)) {
            Some(Record::Task(task)) => *task,
            other => panic!("{other:?} is no task"),
        }
    }

    pub(crate) fn chain(&self) -> Chain {
        match self.record(StateKey::Chain) {
            Some(Record::Chain(chain)) => chain,
            other => panic!("{other:?} is not the chain's record"),
        }
    }

    pub(crate) fn live(&self) -> LiveTasks {
        match self.record(StateKey::LiveTasks) {
            Some(Record::LiveTasks(live)) => live,
            other => panic!("{other:?} is not the list of live tasks"),
        }
    }

    // Transactions.

    pub(crate) fn tx(&self, sender: &SecretKey, action: Action) -> SignedTransaction {
        self.tx_with(sender, action, |_| {})
    }

    /// A transaction with its sender's next nonce, signed after `change`.
    pub(crate) fn tx_with(
        &self,
        sender: &SecretKey,
        action: Action,
        change: impl FnOnce(&mut Transaction),
    ) -> SignedTransaction {
        let mut transaction = Transaction {
            chain: self.id.prefix(),
            sender: sender.public(),
            nonce: self.account(sender.public()).nonce,
            max_fee: Amount::new(MAX_FEE),
            tip: Amount::new(3),
            expires_at: Height::new(1_000_000),
            sponsor: None,
            action,
        };
        change(&mut transaction);
        self.sign(transaction, sender)
    }

    pub(crate) fn sign(&self, transaction: Transaction, sender: &SecretKey) -> SignedTransaction {
        let sponsor_signature = transaction
            .sponsor
            .and_then(|sponsor| KEYS.get(&sponsor))
            .map(|key| key.sign(&transaction.sponsor_sign_bytes(&self.id)));
        SignedTransaction {
            signature: sender.sign(&transaction.sign_bytes(&self.id)),
            sponsor_signature,
            transaction,
        }
    }

    pub(crate) fn register(
        &self,
        operator: &str,
        worker: &str,
        terms: WorkerTerms,
        collateral: u64,
    ) -> Action {
        let consent = worker_consent_bytes(&self.id, &id(operator), &id(worker));
        Action::RegisterWorker {
            worker: id(worker),
            terms,
            collateral: Amount::new(collateral),
            consent: key(worker).sign(&consent),
        }
    }

    /// Takes in a block with this transaction alone, which must be applied; returns its id.
    pub(crate) fn does(&mut self, sender: &str, action: Action) -> Hash {
        let signed = self.tx(&key(sender), action);
        let step = self.advance(candidates(&[signed], &[]));
        assert_eq!(step.outcome(), &Outcome::Applied);
        step.receipts()[0].transaction
    }

    // Tasks.

    pub(crate) fn publish(&mut self) -> Hash {
        let module = Blob::new(b"PM\x01\x10 a program".to_vec());
        let program = module.hash();
        self.does("carol", Action::PublishProgram { module });
        program
    }

    /// A chain with a program, and an order for it that three workers can serve.
    pub(crate) fn with_program(change: impl FnOnce(&mut Genesis)) -> (Self, TaskSpec) {
        let mut world = Self::with(change);
        let program = world.publish();
        (world, spec(program))
    }

    pub(crate) fn order(&mut self, spec: &TaskSpec) -> Hash {
        self.does("alice", Action::SubmitTask(spec.clone()))
    }

    /// Orders the task and goes on to the block that draws its workers.
    pub(crate) fn drawn(&mut self, spec: &TaskSpec) -> Hash {
        let id = self.order(spec);
        self.idle(self.genesis.params.assign_delay + 1);
        assert_eq!(self.task(id).phase.name(), "committing");
        id
    }

    /// A task whose every seat has committed to the claim.
    pub(crate) fn revealing(&mut self, spec: &TaskSpec, claim: &ResultClaim) -> Hash {
        let id = self.drawn(spec);
        let commits = self.commits(id, claim);
        self.advance(candidates(&[], &commits));
        assert_eq!(self.task(id).phase.name(), "revealing");
        id
    }

    pub(crate) fn attest(
        &self,
        worker: AccountId,
        task: Hash,
        draw: u8,
        statement: Statement,
        output: &[u8],
    ) -> AttestationMessage {
        let attestation = Attestation {
            task,
            draw,
            worker,
            statement,
        };
        AttestationMessage {
            signed: SignedAttestation {
                attestation,
                signature: key_of(&worker).sign(&attestation.sign_bytes(&self.id)),
            },
            output: Blob::new(output.to_vec()),
        }
    }

    /// The commitment of seat `place`.
    pub(crate) fn commit(&self, id: Hash, place: usize, claim: &ResultClaim) -> AttestationMessage {
        let seat = &self.task(id).seats[place];
        let commitment = claim.commitment(&id, seat.draw, &seat.worker, &salt(&seat.worker));
        self.attest(
            seat.worker,
            id,
            seat.draw,
            Statement::Commit { commitment },
            b"",
        )
    }

    /// Seat `place` opens its commitment and brings these output bytes.
    pub(crate) fn reveal(
        &self,
        id: Hash,
        place: usize,
        claim: &ResultClaim,
        output: &[u8],
    ) -> AttestationMessage {
        let seat = &self.task(id).seats[place];
        let statement = Statement::Reveal {
            claim: *claim,
            salt: salt(&seat.worker),
        };
        self.attest(seat.worker, id, seat.draw, statement, output)
    }

    /// The commitments of every seat that has none.
    pub(crate) fn commits(&self, id: Hash, claim: &ResultClaim) -> Vec<AttestationMessage> {
        let open = |place: &usize| self.task(id).seats[*place].commitment.is_none();
        (0..self.task(id).seats.len())
            .filter(open)
            .map(|place| self.commit(id, place, claim))
            .collect()
    }

    pub(crate) fn reveals(
        &self,
        id: Hash,
        claim: &ResultClaim,
        output: &[u8],
    ) -> Vec<AttestationMessage> {
        (0..self.task(id).seats.len())
            .map(|place| self.reveal(id, place, claim, output))
            .collect()
    }
}
