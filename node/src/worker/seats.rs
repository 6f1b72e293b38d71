//! What a node's answer says of a worker's seat.

use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::task::{Moment, Phase};
use proofmill_chain::types::units::Height;
use proofmill_rpc::api::TaskView;

use super::SeatId;

/// By what tasks are ordered before they are served: that whose seat is due first comes first.
pub(super) fn urgency(view: &TaskView, worker: &AccountId) -> (bool, u64, Height) {
    let own = view.progress.iter().find(|seat| seat.worker == *worker);
    rank(own.and_then(|seat| seat.due))
}

/// Of the two parts of a deadline the time decides: it depends on the order's gas, while the blocks of a
/// window are the same for all. What is not due comes last.
fn rank(due: Option<Moment>) -> (bool, u64, Height) {
    due.map_or((true, 0, Height::ZERO), |due| {
        (false, due.time_ms, due.height)
    })
}

/// Whether a node says with this that a worker does not hold a seat any more.
pub(super) fn is_lost(view: &TaskView, worker: &AccountId, seat: &SeatId) -> bool {
    let mut seats = view.task.seats.iter();
    let held = seats.any(|held| held.worker == *worker && held.draw == seat.1);
    view.task.phase.is_over() || !held
}

/// The block that ended a task; `None` as long as it goes on.
pub(super) const fn ended_at(view: &TaskView) -> Option<Height> {
    match &view.task.phase {
        Phase::Final { at, .. } | Phase::Expired { at, .. } | Phase::Cancelled { at } => Some(*at),
        Phase::Open | Phase::Committing { .. } | Phase::Revealing { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::task::Moment;
    use proofmill_chain::types::units::Height;

    use super::rank;

    #[test]
    fn the_seat_that_is_due_first_is_served_first() {
        let due = |height, time_ms| {
            Some(Moment {
                height: Height::new(height),
                time_ms,
            })
        };
        let mut seats = [None, due(3, 900), due(9, 500), due(2, 500), due(1, 7_000)];
        seats.sort_by_key(|due| rank(*due));
        let expected = [due(2, 500), due(9, 500), due(3, 900), due(1, 7_000), None];
        assert_eq!(seats, expected);
    }
}
