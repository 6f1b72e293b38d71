//! Who may compute a task, and the draw that nobody chooses (protocol §6.3, "Sampling").

use crate::state::StateError;
use crate::state::overlay::Overlay;
use crate::task::vacant_seats;
use crate::types::hash::{AccountId, Hash};
use crate::types::params::Params;
use crate::types::record::Look;
use crate::types::task::Task;
use crate::types::units::{Amount, Height};
use crate::types::worker::Worker;

/// Why a registered worker is not drawn for a task; the order is that of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// It is switched off or retiring.
    Inactive,
    /// It was registered too recently.
    TooRecent,
    /// It, or its operator, ordered the task.
    Requester,
    /// It missed a seat of this task before.
    Missed,
    /// Its operator holds a seat of this task.
    Seated,
    /// It takes smaller gas limits.
    Gas,
    /// It gives less memory.
    Memory,
    /// It asks for more.
    Price,
    /// It lacks a tag.
    Tags,
    /// It has too few accepted results.
    Reputation,
    /// Its free collateral does not cover the seat's bond.
    Collateral,
}

/// Collateral that a seat of the task locks: its part of the insured value, rounded up.
#[must_use]
pub fn seat_bond(task: &Task, params: &Params) -> Amount {
    let part = task
        .insured_value
        .get()
        .div_ceil(u64::from(task.mode.seats()).max(1));
    Amount::new(part).max(params.seat_bond_min)
}

/// What keeps a worker from being drawn for a task in block `height`.
#[must_use]
pub fn bar(worker: &Worker, task: &Task, params: &Params, height: Height) -> Option<Bar> {
    let terms = &worker.terms;
    // Workers of genesis have no moment before which they could have known a beacon.
    let recent = worker.registered_at > Height::ZERO
        && height.since(worker.registered_at) < params.worker_activation_blocks;
    let has_tags = task
        .requirements
        .tags
        .iter()
        .all(|tag| terms.tags.binary_search(tag).is_ok());
    let bars = [
        (Bar::Inactive, !terms.active || worker.retiring),
        (Bar::TooRecent, recent),
        (
            Bar::Requester,
            worker.operator == task.requester || worker.id == task.requester,
        ),
        (Bar::Missed, task.missed.contains(&worker.id)),
        (
            Bar::Seated,
            task.seats
                .iter()
                .any(|seat| seat.operator == worker.operator),
        ),
        (Bar::Gas, terms.gas_limit_max < task.gas_limit),
        (Bar::Memory, terms.memory_pages_max < task.memory_pages),
        (Bar::Price, terms.price_per_mgas > task.price_per_mgas),
        (Bar::Tags, !has_tags),
        (
            Bar::Reputation,
            worker.reputation.accepted < task.requirements.min_reputation,
        ),
        (
            Bar::Collateral,
            worker.free_collateral() < seat_bond(task, params),
        ),
    ];
    bars.into_iter()
        .find_map(|(bar, stands)| stands.then_some(bar))
}

/// Whether block `height`, the next one, may draw this worker for `task`: a draw of the task is due and
/// nothing keeps the worker from it.
///
/// # Errors
/// When the state cannot be read.
pub fn may_be_drawn(
    overlay: &mut Overlay<'_>,
    task: &Task,
    worker: AccountId,
    params: &Params,
    height: Height,
) -> Result<bool, StateError> {
    let is_free = match overlay.worker(worker)? {
        Some(worker) => bar(worker, task, params, height).is_none(),
        None => false,
    };
    if !is_free || vacant_seats(task) == 0 {
        return Ok(false);
    }
    let Some(live) = overlay.live_tasks_record()? else {
        return Ok(false);
    };
    let place = live
        .entries
        .binary_search_by_key(&(task.submitted_at, task.index), |entry| {
            (entry.submitted_at, entry.index)
        });
    let entry = place.ok().and_then(|place| live.entries.get(place));
    Ok(entry
        .is_some_and(|entry| entry.due <= height && matches!(entry.look, Look::Draw | Look::Retry)))
}

/// A look at all registered workers for one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Those that may be drawn, by ascending key.
    pub eligible: Vec<Worker>,
    /// How many the others are kept out by each bar, by ascending bar.
    pub barred: Vec<(Bar, u32)>,
}

impl Survey {
    /// How many distinct operators the eligible workers have: the most seats that can be filled.
    #[must_use]
    pub fn operators(&self) -> u32 {
        let mut operators: Vec<_> = self.eligible.iter().map(|worker| worker.operator).collect();
        operators.sort_unstable();
        operators.dedup();
        u32::try_from(operators.len()).unwrap_or(u32::MAX)
    }
}

/// Surveys the registered workers for `task`, as a draw in block `height` would.
///
/// # Errors
/// When the state cannot be read.
pub fn survey(
    overlay: &mut Overlay<'_>,
    task: &Task,
    params: &Params,
    height: Height,
) -> Result<Survey, StateError> {
    let mut eligible = Vec::new();
    let mut barred: std::collections::BTreeMap<Bar, u32> = std::collections::BTreeMap::new();
    for id in overlay.workers()?.ids {
        let Some(worker) = overlay.worker(id)? else {
            return Err(StateError::Missing(crate::types::record::StateKey::Worker(
                id,
            )));
        };
        match bar(worker, task, params, height) {
            None => eligible.push(worker.clone()),
            Some(bar) => {
                let count = barred.entry(bar).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    Ok(Survey {
        eligible,
        barred: barred.into_iter().collect(),
    })
}

/// The seed of a draw: `hash(beacon ‖ h0 ‖ index in block ‖ draw)`.
#[must_use]
pub fn seed(beacon: &Hash, task: &Task) -> Hash {
    Hash::of(
        "proofmill/assignment-seed/v1",
        &[
            beacon.as_bytes(),
            &task.submitted_at.get().to_le_bytes(),
            &task.index.to_le_bytes(),
            &[task.draws],
        ],
    )
}

/// Draws `count` workers without replacement, weighted by free collateral, one per operator.
///
/// Returns them in the order drawn, or `None` when there are fewer operators than seats.
/// `eligible` is by ascending key, so every node draws alike.
#[must_use]
pub fn sample(mut eligible: Vec<Worker>, count: usize, seed: &Hash) -> Option<Vec<Worker>> {
    let mut chosen: Vec<Worker> = Vec::with_capacity(count);
    while chosen.len() < count {
        let total = eligible
            .iter()
            .fold(0_u128, |sum, worker| sum.saturating_add(weight(worker)));
        let place = u64::try_from(chosen.len()).unwrap_or(u64::MAX);
        let mut at = point(seed, place).checked_rem(total)?;
        let index = eligible
            .iter()
            .position(|worker| match at.checked_sub(weight(worker)) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            })?;
        let worker = eligible.remove(index);
        eligible.retain(|other| other.operator != worker.operator);
        chosen.push(worker);
    }
    Some(chosen)
}

/// Free collateral, at least one grain so that a chain without collateral can draw too.
fn weight(worker: &Worker) -> u128 {
    u128::from(worker.free_collateral().get().max(1))
}

/// A 128-bit number of the draw; taken modulo a total below 2^64 its bias is below 2^-64.
fn point(seed: &Hash, place: u64) -> u128 {
    let hash = Hash::of(
        "proofmill/assignment-point/v1",
        &[seed.as_bytes(), &place.to_le_bytes()],
    );
    hash.as_bytes()
        .iter()
        .take(16)
        .fold(0, |number: u128, byte| (number << 8) | u128::from(*byte))
}

/// Whether `id` stands in the sorted list; the position to insert it when not.
pub(crate) fn place_of(ids: &[AccountId], id: &AccountId) -> Result<usize, usize> {
    ids.binary_search(id)
}
