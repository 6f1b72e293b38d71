//! What each action does. Each checks everything first and changes things after.

use crate::assign;
use crate::execute::tasks::is_open;
use crate::execute::{Executor, Prepared};
use crate::state::{Place, StateError};
use crate::task;
use crate::types::hash::{AccountId, Blob, Hash};
use crate::types::receipt::Failure;
use crate::types::record::{Program, Record, StateKey};
use crate::types::task::TaskSpec;
use crate::types::transaction::Action;
use crate::types::units::Amount;
use crate::types::worker::{Reputation, Worker, WorkerTerms};

type Applied = Result<Result<(), Failure>, StateError>;

/// Returns the failure of a rule as the action's outcome.
macro_rules! rule {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(failure) => return Ok(Err(failure)),
        }
    };
}

impl Executor<'_> {
    pub(super) fn apply_action(&mut self, prepared: &Prepared<'_>, index: u32) -> Applied {
        let sender = prepared.signed.transaction.sender;
        let slots = prepared.slots;
        match &prepared.signed.transaction.action {
            Action::Transfer { to, amount } => {
                rule!(self.spend_at(sender, slots.sender, *amount)?);
                self.credit_at(*to, slots.recipient, *amount)?;
                Ok(Ok(()))
            }
            Action::RegisterWorker {
                worker,
                terms,
                collateral,
                ..
            } => self.register(sender, *worker, terms, *collateral),
            Action::UpdateWorker {
                worker,
                terms,
                add_collateral,
            } => self.update(sender, *worker, terms, *add_collateral),
            Action::RetireWorker { worker } => self.retire(sender, *worker),
            Action::PublishProgram { module } => self.publish(sender, module, prepared),
            Action::SubmitTask(spec) => self.submit(sender, spec, prepared.id, index),
            Action::CancelTask { task } => self.cancel(sender, *task),
        }
    }

    fn spend(&mut self, from: AccountId, amount: Amount) -> Applied {
        self.spend_at(from, Place::UNKNOWN, amount)
    }

    fn spend_at(&mut self, from: AccountId, place: Place, amount: Amount) -> Applied {
        let mut account = self.overlay.account_at(from, place)?;
        let Some(balance) = account.balance.checked_sub(amount) else {
            return Ok(Err(Failure::InsufficientBalance {
                needed: amount,
                available: account.balance,
            }));
        };
        account.balance = balance;
        self.overlay.put_account(from, place, account)?;
        Ok(Ok(()))
    }

    fn register(
        &mut self,
        operator: AccountId,
        id: AccountId,
        terms: &WorkerTerms,
        collateral: Amount,
    ) -> Applied {
        let params = self.context.params;
        if self.overlay.worker(id)?.is_some() {
            return Ok(Err(Failure::WorkerExists { worker: id }));
        }
        if collateral < params.worker_collateral_min {
            return Ok(Err(Failure::CollateralTooSmall {
                given: collateral,
                least: params.worker_collateral_min,
            }));
        }
        let mut workers = self.overlay.workers()?;
        if workers.ids.len() >= params.workers_max as usize {
            return Ok(Err(Failure::WorkersFull {
                most: params.workers_max,
            }));
        }
        rule!(self.spend(operator, collateral)?);
        if let Err(place) = assign::place_of(&workers.ids, &id) {
            workers.ids.insert(place, id);
        }
        self.overlay
            .put(StateKey::Workers, Record::Workers(workers))?;
        self.overlay.put(
            StateKey::Worker(id),
            Record::Worker(Worker {
                id,
                operator,
                terms: terms.clone(),
                collateral,
                locked: Amount::ZERO,
                seats: 0,
                registered_at: self.context.height,
                retiring: false,
                reputation: Reputation::default(),
            }),
        )?;
        Ok(Ok(()))
    }

    /// The worker, if `sender` operates it and it is not leaving.
    fn operated(
        &mut self,
        sender: AccountId,
        id: AccountId,
    ) -> Result<Result<Worker, Failure>, StateError> {
        let Some(worker) = self.overlay.worker(id)? else {
            return Ok(Err(Failure::WorkerUnknown { worker: id }));
        };
        if worker.operator != sender {
            return Ok(Err(Failure::NotOperator { worker: id }));
        }
        if worker.retiring {
            return Ok(Err(Failure::WorkerRetiring { worker: id }));
        }
        Ok(Ok(worker.clone()))
    }

    fn update(
        &mut self,
        sender: AccountId,
        id: AccountId,
        terms: &WorkerTerms,
        add: Amount,
    ) -> Applied {
        let mut worker = rule!(self.operated(sender, id)?);
        rule!(self.spend(sender, add)?);
        worker.collateral = worker
            .collateral
            .checked_add(add)
            .ok_or_else(|| StateError::Law(format!("collateral of {id} overflows")))?;
        worker.terms = terms.clone();
        self.overlay
            .put(StateKey::Worker(id), Record::Worker(worker))?;
        Ok(Ok(()))
    }

    fn retire(&mut self, sender: AccountId, id: AccountId) -> Applied {
        let mut worker = rule!(self.operated(sender, id)?);
        worker.retiring = true;
        self.store_worker(worker)?;
        Ok(Ok(()))
    }

    fn publish(&mut self, sender: AccountId, module: &Blob, prepared: &Prepared<'_>) -> Applied {
        let id = module.hash();
        if self.overlay.program(id)?.is_some() {
            return Ok(Err(Failure::ProgramExists { program: id }));
        }
        let verdict = prepared.program.ok_or_else(|| {
            StateError::Law("a module reached execution without a verdict".to_owned())
        })?;
        let facts = rule!(verdict.map_err(|rule| Failure::ProgramRefused { rule }));
        self.overlay.put(
            StateKey::Program(id),
            Record::Program(Program {
                id,
                publisher: sender,
                machine_version: self.context.params.machine_version,
                bytes: u32::try_from(module.len()).unwrap_or(u32::MAX),
                memory_pages_min: facts.memory_pages_min,
                memory_pages_max: facts.memory_pages_max,
                published_at: self.context.height,
            }),
        )?;
        self.effects.blobs.push(module.clone());
        Ok(Ok(()))
    }

    fn submit(&mut self, sender: AccountId, spec: &TaskSpec, id: Hash, index: u32) -> Applied {
        let program = match self.overlay.program(spec.program)? {
            Some(program) => *program,
            None => {
                return Ok(Err(Failure::ProgramUnknown {
                    program: spec.program,
                }));
            }
        };
        rule!(self.check_limits(spec, &program));
        let Some(escrow) = task::escrow(spec.price_per_mgas, spec.gas_limit, spec.mode) else {
            return Ok(Err(Failure::CostOverflow));
        };
        rule!(self.spend(sender, escrow)?);
        let task = task::open(
            id,
            sender,
            spec,
            &program,
            escrow,
            self.context.height,
            index,
        );
        self.store_task(task, true)?;
        if !spec.input.is_empty() {
            self.effects.blobs.push(spec.input.clone());
        }
        Ok(Ok(()))
    }

    fn check_limits(&self, spec: &TaskSpec, program: &Program) -> Result<(), Failure> {
        let params = self.context.params;
        if self.live.entries.len() >= params.tasks_live_max as usize {
            return Err(Failure::TasksFull {
                most: params.tasks_live_max,
            });
        }
        task::check_order(spec, params)?;
        task::check_memory(spec, program.memory_pages_min)
    }

    fn cancel(&mut self, sender: AccountId, id: Hash) -> Applied {
        let Some(task) = self.overlay.task(id)? else {
            return Ok(Err(Failure::TaskUnknown { task: id }));
        };
        let mut task = task.clone();
        if task.requester != sender {
            return Ok(Err(Failure::NotRequester { task: id }));
        }
        // Rule: cancel only while Open.
        if !is_open(&task) {
            return Ok(Err(Failure::TaskNotOpen { task: id }));
        }
        let effects = task::cancel(&mut task, self.context.height);
        self.apply_effects(effects)?;
        self.store_task(task, false)?;
        Ok(Ok(()))
    }
}
