//! Deadlines, draws, and what a task's effects do to workers and accounts.

use crate::assign;
use crate::execute::Executor;
use crate::state::StateError;
use crate::task::{self, Effect, Service};
use crate::types::block::Assignment;
use crate::types::hash::{AccountId, Hash};
use crate::types::record::{LiveTask, Look, Record, StateKey};
use crate::types::task::{Phase, Task};
use crate::types::worker::Worker;

impl Executor<'_> {
    /// Looks at the tasks that are due, oldest first, and applies the deadlines that have passed.
    pub(super) fn apply_deadlines(&mut self) -> Result<(), StateError> {
        for entry in self.due(self.context.params.timeouts_per_block_max) {
            let mut task = self.task(entry.task)?;
            let seats_before = task.seats.len();
            let effects = task::tick(&mut task, self.now, self.context.params);
            let vacated = task.seats.len() < seats_before;
            let draws_now = !vacated && task::vacant_seats(&task) > 0;
            if effects.is_empty() && draws_now {
                continue;
            }
            self.apply_effects(effects)?;
            self.store_task(task, vacated)?;
        }
        Ok(())
    }

    /// Draws workers for the tasks that wait for some, oldest first, within the block's budget.
    pub(super) fn draw_seats(&mut self) -> Result<(), StateError> {
        let mut budget = self.context.params.seats_per_block_max as usize;
        for entry in self.due(self.context.params.timeouts_per_block_max) {
            if !matches!(entry.look, Look::Draw | Look::Retry) {
                continue;
            }
            let mut task = self.task(entry.task)?;
            let vacant = task::vacant_seats(&task);
            if vacant == 0 {
                continue;
            }
            // Rule: what does not fit into a block's budget waits; the oldest goes first.
            let Some(rest) = budget.checked_sub(vacant) else {
                break;
            };
            if self.draw(&mut task, vacant)? {
                budget = rest;
            } else {
                let effects = task::give_up(&mut task, self.now.height);
                self.apply_effects(effects)?;
            }
            self.store_task(task, false)?;
        }
        Ok(())
    }

    fn draw(&mut self, task: &mut Task, vacant: usize) -> Result<bool, StateError> {
        let params = self.context.params;
        let survey = assign::survey(&mut self.overlay, task, params, self.context.height)?;
        task.eligible_last = survey.operators();
        let seed = assign::seed(&self.beacon, task);
        let Some(workers) = assign::sample(survey.eligible, vacant, &seed) else {
            return Ok(false);
        };
        let draw = task.draws;
        let bond = assign::seat_bond(task, params);
        let effects = task::seat(task, &workers, bond, self.now);
        self.apply_effects(effects)?;
        self.effects
            .assignments
            .extend(workers.iter().map(|worker| Assignment {
                task: task.id,
                draw,
                worker: worker.id,
            }));
        Ok(true)
    }

    fn due(&self, most: u32) -> Vec<LiveTask> {
        self.live
            .entries
            .iter()
            .filter(|entry| entry.due <= self.now.height)
            .take(most as usize)
            .copied()
            .collect()
    }

    pub(super) fn task(&mut self, id: Hash) -> Result<Task, StateError> {
        self.overlay
            .task(id)?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Task(id)))
    }

    /// Writes a task back and keeps its place in the list of live tasks.
    pub(super) fn store_task(&mut self, task: Task, vacated: bool) -> Result<(), StateError> {
        let place = self
            .live
            .entries
            .binary_search_by_key(&(task.submitted_at, task.index), |entry| {
                (entry.submitted_at, entry.index)
            });
        match (
            place,
            task::next_look(&task, self.now, self.context.params, vacated),
        ) {
            (Ok(place), Some((due, look))) => {
                if let Some(entry) = self.live.entries.get_mut(place) {
                    entry.due = due;
                    entry.look = look;
                }
            }
            (Ok(place), None) => {
                self.live.entries.remove(place);
            }
            (Err(place), Some((due, look))) => self.live.entries.insert(
                place,
                LiveTask {
                    submitted_at: task.submitted_at,
                    index: task.index,
                    task: task.id,
                    due,
                    look,
                },
            ),
            (Err(_), None) => {}
        }
        self.overlay
            .put(StateKey::Task(task.id), Record::Task(Box::new(task)))
    }

    pub(super) fn apply_effects(&mut self, effects: Vec<Effect>) -> Result<(), StateError> {
        for effect in effects {
            match effect {
                Effect::Lock { worker, bond } => {
                    let mut record = self.worker(worker)?;
                    record.locked = record.locked.checked_add(bond).ok_or_else(|| {
                        StateError::Law(format!("locked collateral of {worker} overflows"))
                    })?;
                    record.seats = record.seats.saturating_add(1);
                    self.overlay
                        .put(StateKey::Worker(worker), Record::Worker(record))?;
                }
                Effect::Release {
                    worker,
                    bond,
                    service,
                } => {
                    let mut record = self.worker(worker)?;
                    record.locked = record.locked.checked_sub(bond).ok_or_else(|| {
                        StateError::Law(format!("{worker} releases more than it has locked"))
                    })?;
                    record.seats = record.seats.saturating_sub(1);
                    remember(&mut record, service);
                    self.store_worker(record)?;
                }
                Effect::Pay { account, amount } => self.credit(account, amount)?,
                Effect::PayProposer(amount) => self.earn(amount)?,
                Effect::Burn(amount) => self.burn(amount)?,
            }
        }
        Ok(())
    }

    pub(super) fn worker(&mut self, id: AccountId) -> Result<Worker, StateError> {
        self.overlay
            .worker(id)?
            .cloned()
            .ok_or(StateError::Missing(StateKey::Worker(id)))
    }

    /// Writes a worker back; one that retires and holds no seat leaves with its collateral.
    pub(super) fn store_worker(&mut self, worker: Worker) -> Result<(), StateError> {
        if !(worker.retiring && worker.seats == 0) {
            return self
                .overlay
                .put(StateKey::Worker(worker.id), Record::Worker(worker));
        }
        self.credit(worker.operator, worker.collateral)?;
        let mut workers = self.overlay.workers()?;
        if let Ok(place) = assign::place_of(&workers.ids, &worker.id) {
            workers.ids.remove(place);
        }
        self.overlay
            .put(StateKey::Workers, Record::Workers(workers))?;
        self.overlay.remove(StateKey::Worker(worker.id))
    }
}

const fn remember(worker: &mut Worker, service: Service) {
    let reputation = &mut worker.reputation;
    match service {
        Service::Accepted(gas) => {
            reputation.accepted = reputation.accepted.saturating_add(1);
            reputation.gas_served = reputation.gas_served.saturating_plus(gas.get());
        }
        Service::Missed => reputation.missed = reputation.missed.saturating_add(1),
        Service::Disputed => reputation.disputed = reputation.disputed.saturating_add(1),
        Service::Dismissed => {}
    }
}

/// Whether the task still waits for its first workers.
pub(super) const fn is_open(task: &Task) -> bool {
    matches!(task.phase, Phase::Open)
}
