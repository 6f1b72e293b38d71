//! The compute protocol as a state machine: a task, an event, a moment → a task and its effects
//! (protocol §6.3). No account, no disk, no clock: what an event costs or pays is an [`Effect`].
//!
//! ```text
//!   Open ──draw──▶ Committing ──all committed──▶ Revealing ──all equal──▶ Final
//!     │               │  ▲ seat missed: redraw       │
//!     └─ Cancelled    └──┴────── Expired ◀───────────┘  (too late, or results differ)
//! ```

mod attest;

pub use self::attest::{Readiness, Void, attest, readiness};
use crate::types::hash::{AccountId, Hash};
use crate::types::params::{Params, SHARE_WHOLE};
use crate::types::receipt::Failure;
use crate::types::record::{Look, Program};
use crate::types::task::{ExpiryReason, Mode, Moment, Phase, Seat, Settlement, Task, TaskSpec};
use crate::types::units::{Amount, Gas, Height};
use crate::types::worker::Worker;

/// Gas that a price is for.
pub const GAS_PER_PRICE: u64 = 1_000_000;

/// What an event does outside the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A drawn worker locks collateral.
    Lock {
        /// The worker.
        worker: AccountId,
        /// How much.
        bond: Amount,
    },
    /// A worker's seat is over and its bond is free.
    Release {
        /// The worker.
        worker: AccountId,
        /// The bond.
        bond: Amount,
        /// How the seat ended.
        service: Service,
    },
    /// Grain leaves the escrow for an account.
    Pay {
        /// To whom.
        account: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Grain leaves the escrow for the proposer of the block.
    PayProposer(Amount),
    /// Grain leaves the escrow for nobody.
    Burn(Amount),
}

/// How a seat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Its result was accepted.
    Accepted(Gas),
    /// It was not committed or not revealed in time.
    Missed,
    /// The task's results differ.
    Disputed,
    /// The task ended through no doing of this seat.
    Dismissed,
}

/// Escrow for a task: the price of its gas limit for every seat, rounded up; `None` when that does
/// not fit into 64 bits.
#[must_use]
pub fn escrow(price_per_mgas: Amount, gas_limit: Gas, mode: Mode) -> Option<Amount> {
    let whole = u128::from(price_per_mgas.get())
        .checked_mul(u128::from(gas_limit.get()))?
        .checked_mul(u128::from(mode.seats()))?;
    let escrow = whole.div_ceil(u128::from(GAS_PER_PRICE));
    u64::try_from(escrow).ok().map(Amount::new)
}

/// A new task of a published program, as the block at `height` submits it.
#[must_use]
pub fn open(
    id: Hash,
    requester: AccountId,
    spec: &TaskSpec,
    program: &Program,
    escrow: Amount,
    height: Height,
    index: u32,
) -> Task {
    Task {
        id,
        requester,
        program: spec.program,
        machine_version: program.machine_version,
        module_bytes: program.bytes,
        input: spec.input.hash(),
        gas_limit: spec.gas_limit,
        memory_pages: spec.memory_pages,
        mode: spec.mode,
        price_per_mgas: spec.price_per_mgas,
        insured_value: spec.insured_value,
        requirements: spec.requirements.clone(),
        wait_until: height.saturating_plus(spec.wait_max),
        escrow,
        submitted_at: height,
        index,
        phase: Phase::Open,
        seats: Vec::new(),
        missed: Vec::new(),
        draws: 0,
        eligible_last: 0,
    }
}

/// How many seats wait for a worker.
#[must_use]
pub fn vacant_seats(task: &Task) -> usize {
    match task.phase {
        Phase::Open | Phase::Committing { .. } => {
            usize::from(task.mode.seats()).saturating_sub(task.seats.len())
        }
        _ => 0,
    }
}

/// Whether an order is within the chain's parameters, whatever its program and the state are.
///
/// # Errors
/// With what is too much: the requester's fault.
pub fn check_order(spec: &TaskSpec, params: &Params) -> Result<(), Failure> {
    if spec.gas_limit > params.task_gas_max {
        return Err(Failure::GasLimitTooLarge {
            given: spec.gas_limit,
            most: params.task_gas_max,
        });
    }
    if spec.memory_pages > params.task_memory_pages_max {
        return Err(Failure::MemoryTooLarge {
            given: spec.memory_pages,
            most: params.task_memory_pages_max,
        });
    }
    if spec.mode.seats() > params.replicas_max {
        return Err(Failure::Replicas {
            given: spec.mode.seats(),
            most: params.replicas_max,
        });
    }
    if spec.wait_max > params.wait_max {
        return Err(Failure::WaitTooLong {
            given: spec.wait_max,
            most: params.wait_max,
        });
    }
    Ok(())
}

/// Whether an order gives its program the memory that the program starts with.
///
/// # Errors
/// When it gives less: the requester's fault.
pub fn check_memory(spec: &TaskSpec, pages_min: u32) -> Result<(), Failure> {
    if spec.memory_pages < pages_min {
        return Err(Failure::MemoryTooSmall {
            needed: pages_min,
            given: spec.memory_pages,
        });
    }
    Ok(())
}

/// When a seat drawn at `drawn` must have committed; both parts must have passed.
#[must_use]
pub fn commit_deadline(task: &Task, drawn: Moment, params: &Params) -> Moment {
    let gas_ms = task
        .gas_limit
        .get()
        .checked_div(params.commit_gas_per_ms)
        .unwrap_or_default();
    let compile_ms = u64::from(task.module_bytes)
        .checked_div(params.commit_program_bytes_per_ms)
        .unwrap_or_default();
    Moment {
        height: drawn.height.saturating_plus(params.commit_window_blocks),
        time_ms: drawn
            .time_ms
            .saturating_add(params.commit_window_ms)
            .saturating_add(gas_ms)
            .saturating_add(compile_ms),
    }
}

/// When every seat must have revealed; both parts must have passed.
#[must_use]
pub fn reveal_deadline(since: Moment, params: &Params) -> Moment {
    Moment {
        height: since.height.saturating_plus(params.reveal_window_blocks),
        time_ms: since.time_ms.saturating_add(params.reveal_window_ms),
    }
}

fn has_passed(deadline: Moment, now: Moment) -> bool {
    now.height >= deadline.height && now.time_ms >= deadline.time_ms
}

/// Gives drawn workers their seats.
pub fn seat(task: &mut Task, workers: &[Worker], bond: Amount, now: Moment) -> Vec<Effect> {
    let mut effects = Vec::with_capacity(workers.len());
    for worker in workers {
        task.seats.push(Seat {
            worker: worker.id,
            operator: worker.operator,
            draw: task.draws,
            bond,
            drawn: now,
            commitment: None,
            claim: None,
        });
        effects.push(Effect::Lock {
            worker: worker.id,
            bond,
        });
    }
    task.draws = task.draws.saturating_add(1);
    task.phase = Phase::Committing { vacant_since: None };
    effects
}

/// Every seat has revealed: equal results are accepted and paid, different ones refund.
fn settle(task: &mut Task, height: Height, params: &Params) -> Vec<Effect> {
    let mut claims = task.seats.iter().filter_map(|seat| seat.claim);
    let Some(claim) = claims.next() else {
        return expire(task, height, ExpiryReason::NotRevealed);
    };
    if claims.any(|other| other != claim) {
        return expire(task, height, ExpiryReason::ResultsDiffer);
    }
    let settlement = shares(task, claim.gas, params);
    let mut effects = Vec::with_capacity(task.seats.len().saturating_mul(2).saturating_add(3));
    for seat in &task.seats {
        effects.push(Effect::Release {
            worker: seat.worker,
            bond: seat.bond,
            service: Service::Accepted(claim.gas),
        });
        effects.push(Effect::Pay {
            account: seat.operator,
            amount: settlement.per_seat,
        });
    }
    effects.push(Effect::PayProposer(settlement.validators));
    effects.push(Effect::Burn(settlement.burned));
    effects.push(Effect::Pay {
        account: task.requester,
        amount: settlement.refunded,
    });
    task.escrow = Amount::ZERO;
    task.phase = Phase::Final {
        at: height,
        claim,
        settlement,
    };
    effects
}

/// Splits the escrow (protocol §6.3, "Pay"): shares round down, the burn takes the remainder of
/// the price, the requester gets the unused rest and the audit reserve, as there are no audits.
#[must_use]
pub fn shares(task: &Task, gas: Gas, params: &Params) -> Settlement {
    let seats = u128::from(task.mode.seats());
    let price = u128::from(task.price_per_mgas.get())
        .saturating_mul(u128::from(gas.get()))
        .saturating_mul(seats)
        .checked_div(u128::from(GAS_PER_PRICE))
        .unwrap_or_default()
        .min(u128::from(task.escrow.get()));
    let share = |parts: u32| {
        price
            .saturating_mul(u128::from(parts))
            .checked_div(u128::from(SHARE_WHOLE))
            .unwrap_or_default()
    };
    let per_seat = share(params.share_workers)
        .checked_div(seats)
        .unwrap_or_default();
    let validators = share(params.share_validators);
    let audits = share(params.share_audits);
    let burned = price
        .saturating_sub(per_seat.saturating_mul(seats))
        .saturating_sub(validators)
        .saturating_sub(audits);
    let refunded = u128::from(task.escrow.get())
        .saturating_sub(price)
        .saturating_add(audits);
    let amount = |value: u128| Amount::new(u64::try_from(value).unwrap_or(u64::MAX));
    Settlement {
        gas,
        per_seat: amount(per_seat),
        validators: amount(validators),
        burned: amount(burned),
        refunded: amount(refunded),
    }
}

/// Ends a task without a result: the escrow goes back, every bond is free.
fn expire(task: &mut Task, height: Height, reason: ExpiryReason) -> Vec<Effect> {
    let mut effects: Vec<_> = task
        .seats
        .iter()
        .map(|seat| Effect::Release {
            worker: seat.worker,
            bond: seat.bond,
            service: match reason {
                ExpiryReason::ResultsDiffer => Service::Disputed,
                ExpiryReason::NotRevealed if seat.claim.is_none() => Service::Missed,
                _ => Service::Dismissed,
            },
        })
        .collect();
    effects.push(Effect::Pay {
        account: task.requester,
        amount: task.escrow,
    });
    task.escrow = Amount::ZERO;
    task.phase = Phase::Expired { at: height, reason };
    effects
}

/// Takes an open task back.
pub fn cancel(task: &mut Task, height: Height) -> Vec<Effect> {
    let effects = vec![Effect::Pay {
        account: task.requester,
        amount: task.escrow,
    }];
    task.escrow = Amount::ZERO;
    task.phase = Phase::Cancelled { at: height };
    effects
}

/// Ends an open task that has waited long enough, after a draw found too few workers for it.
///
/// Rule (protocol §4): what does not fit into a block's budget waits with its window stopped. So a
/// wait is over only where a draw was tried in vain, never because nobody came round to trying.
pub fn give_up(task: &mut Task, height: Height) -> Vec<Effect> {
    if task.phase == Phase::Open && height > task.wait_until {
        expire(task, height, ExpiryReason::NoWorkers)
    } else {
        Vec::new()
    }
}

/// Applies every deadline that has passed.
pub fn tick(task: &mut Task, now: Moment, params: &Params) -> Vec<Effect> {
    match task.phase {
        Phase::Committing { vacant_since } => {
            let stale = vacant_since
                .is_some_and(|since| has_passed(commit_deadline(task, since, params), now));
            if stale {
                return expire(task, now.height, ExpiryReason::NotCommitted);
            }
            miss_late_seats(task, now, params)
        }
        Phase::Revealing { since } if has_passed(reveal_deadline(since, params), now) => {
            expire(task, now.height, ExpiryReason::NotRevealed)
        }
        _ => Vec::new(),
    }
}

/// Vacates the seats whose commit window is over; without a redraw left the task expires.
fn miss_late_seats(task: &mut Task, now: Moment, params: &Params) -> Vec<Effect> {
    let late = |task: &Task, seat: &Seat| {
        seat.commitment.is_none() && has_passed(commit_deadline(task, seat.drawn, params), now)
    };
    let (missed, kept): (Vec<_>, Vec<_>) = task
        .seats
        .clone()
        .into_iter()
        .partition(|seat| late(task, seat));
    if missed.is_empty() {
        return Vec::new();
    }
    let mut effects: Vec<_> = missed
        .iter()
        .map(|seat| Effect::Release {
            worker: seat.worker,
            bond: seat.bond,
            service: Service::Missed,
        })
        .collect();
    task.missed.extend(missed.iter().map(|seat| seat.worker));
    task.seats = kept;
    // Rule: missing seats are drawn again at most `redraws_max` times.
    if task.draws > params.redraws_max {
        effects.extend(expire(task, now.height, ExpiryReason::NotCommitted));
    } else {
        task.phase = Phase::Committing {
            vacant_since: Some(now),
        };
    }
    effects
}

/// When the task must be looked at next, after the block at `now`, and what for.
///
/// `vacated` says that seats became vacant in this very block. `None` when the task is over.
#[must_use]
pub fn next_look(
    task: &Task,
    now: Moment,
    params: &Params,
    vacated: bool,
) -> Option<(Height, Look)> {
    let later = |deadline: Moment| deadline.height.max(now.height.next());
    match task.phase {
        Phase::Open | Phase::Committing { .. } if vacated => Some((
            // Rule: seats are drawn after the beacon of `assign_delay` blocks later is final.
            now.height
                .saturating_plus(params.assign_delay)
                .saturating_plus(1),
            Look::Draw,
        )),
        Phase::Open => Some((retry_at(task, now.height), Look::Retry)),
        Phase::Committing {
            vacant_since: Some(_),
        } => Some((now.height.next(), Look::Retry)),
        Phase::Committing { vacant_since: None } => task
            .seats
            .iter()
            .filter(|seat| seat.commitment.is_none())
            .map(|seat| later(commit_deadline(task, seat.drawn, params)))
            .min()
            .map(|due| (due, Look::Deadline)),
        Phase::Revealing { since } => Some((later(reveal_deadline(since, params)), Look::Deadline)),
        Phase::Final { .. } | Phase::Expired { .. } | Phase::Cancelled { .. } => None,
    }
}

/// A waiting task tries again after a while that grows with its wait, and at its end.
fn retry_at(task: &Task, height: Height) -> Height {
    const PAUSE_MAX: u64 = 16;
    let waited = height.since(task.submitted_at);
    let pause = (waited >> 2).clamp(1, PAUSE_MAX);
    let end = task.wait_until.next().max(height.next());
    height.saturating_plus(pause).min(end)
}
