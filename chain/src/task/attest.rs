//! What a worker may say about its seat, and when.

use super::{Effect, settle, vacant_seats};
use crate::types::hash::{Blob, Hash};
use crate::types::params::Params;
use crate::types::task::{
    Attestation, Moment, Phase, ResultClaim, ResultStatus, Seat, Statement, Task,
};
use crate::types::units::Gas;

/// Why an attestation is void; a block that carries it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// The task does not exist.
    #[error("the task is unknown")]
    TaskUnknown,
    /// The worker has no seat of that draw.
    #[error("the worker holds no seat of that draw")]
    NoSeat,
    /// The seat has committed.
    #[error("the seat has committed already")]
    CommittedAlready,
    /// Not the phase in which the statement may be made.
    #[error("the task is not {0}")]
    NotNow(&'static str),
    /// The seat has revealed.
    #[error("the seat has revealed already")]
    RevealedAlready,
    /// The claim is not what was committed to.
    #[error("the claim is not what the seat committed to")]
    NotCommitment,
    /// More gas than the task allows.
    #[error("claimed gas {given} is above the limit {most}")]
    GasAboveLimit {
        /// Claimed.
        given: Gas,
        /// The task's limit.
        most: Gas,
    },
    /// An output without success.
    #[error("a program that did not finish has no output")]
    OutputOfFailure,
}

/// Whether a block may carry an attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The next block may.
    Now,
    /// A later block may: the seat waits for others to commit, or may be drawn first.
    Later,
    /// This state cannot say: the seat may be of a draw that is not due in it. A node that is behind sees
    /// what is fresh like that, so it is no fault.
    Unseen,
    /// No block after this state will.
    Never,
}

/// Whether a block may carry an attestation on `task`, as it is before the block's own effects.
///
/// [`Readiness::Now`] is exactly what [`attest`] takes in. A commitment on a seat of the next draw is [`Readiness::Later`]; whether the
/// worker may be drawn is for [`may_be_drawn`](crate::assign::may_be_drawn) to say.
#[must_use]
pub fn readiness(task: &Task, attestation: &Attestation) -> Readiness {
    if check(task, attestation).is_ok() {
        return Readiness::Now;
    }
    if !matches!(task.phase, Phase::Open | Phase::Committing { .. }) {
        return Readiness::Never;
    }
    match seat(task, attestation).and_then(|place| task.seats.get(place)) {
        Some(seat) if awaits_others(task, seat, &attestation.statement) => Readiness::Later,
        Some(_) => Readiness::Never,
        // Draws go up: the seats of an earlier one are known, and lost seats stay lost.
        None if attestation.draw < task.draws => Readiness::Never,
        None if is_of_next_draw(task, attestation) => Readiness::Later,
        None => Readiness::Unseen,
    }
}

/// Whether the next draw of a task may make the seat of a commitment.
fn is_of_next_draw(task: &Task, attestation: &Attestation) -> bool {
    matches!(attestation.statement, Statement::Commit { .. })
        && attestation.draw == task.draws
        && vacant_seats(task) > 0
}

/// Whether a statement on a seat that cannot be made now can be made once all have committed.
fn awaits_others(task: &Task, seat: &Seat, statement: &Statement) -> bool {
    match statement {
        Statement::Commit { .. } => false,
        Statement::Reveal { claim, salt } => {
            check_claim(task, claim).is_ok()
                && (seat.commitment.is_none() || opens(task, seat, claim, salt))
        }
    }
}

/// Takes an attestation in.
///
/// # Errors
/// When the attestation is void: nothing has changed.
pub fn attest(
    task: &mut Task,
    attestation: &Attestation,
    now: Moment,
    params: &Params,
) -> Result<Vec<Effect>, Void> {
    let place = check(task, attestation)?;
    let full = task.seats.len() == usize::from(task.mode.seats());
    let seat = task.seats.get_mut(place).ok_or(Void::NoSeat)?;
    match &attestation.statement {
        Statement::Commit { commitment } => {
            seat.commitment = Some(*commitment);
            if full && task.seats.iter().all(|seat| seat.commitment.is_some()) {
                task.phase = Phase::Revealing { since: now };
            }
        }
        Statement::Reveal { claim, .. } => {
            seat.claim = Some(*claim);
            if task.seats.iter().all(|seat| seat.claim.is_some()) {
                return Ok(settle(task, now.height, params));
            }
        }
    }
    Ok(Vec::new())
}

/// The place of the seat that an attestation is about, if the attestation may be taken in now.
fn check(task: &Task, attestation: &Attestation) -> Result<usize, Void> {
    let place = seat(task, attestation).ok_or(Void::NoSeat)?;
    let seat = task.seats.get(place).ok_or(Void::NoSeat)?;
    match &attestation.statement {
        Statement::Commit { .. } => check_commit(task, seat)?,
        Statement::Reveal { claim, salt } => check_reveal(task, seat, claim, salt)?,
    }
    Ok(place)
}

fn seat(task: &Task, attestation: &Attestation) -> Option<usize> {
    task.seats
        .iter()
        .position(|seat| seat.worker == attestation.worker && seat.draw == attestation.draw)
}

fn check_commit(task: &Task, seat: &Seat) -> Result<(), Void> {
    // Rule: a commitment counts once, and only while its task is committing.
    if !matches!(task.phase, Phase::Committing { .. }) {
        return Err(Void::NotNow("committing"));
    }
    if seat.commitment.is_some() {
        return Err(Void::CommittedAlready);
    }
    Ok(())
}

fn check_reveal(task: &Task, seat: &Seat, claim: &ResultClaim, salt: &Hash) -> Result<(), Void> {
    // Rule: a reveal before every seat has committed is void.
    if !matches!(task.phase, Phase::Revealing { .. }) {
        return Err(Void::NotNow("revealing"));
    }
    check_claim(task, claim)?;
    if seat.claim.is_some() {
        return Err(Void::RevealedAlready);
    }
    if !opens(task, seat, claim, salt) {
        return Err(Void::NotCommitment);
    }
    Ok(())
}

fn check_claim(task: &Task, claim: &ResultClaim) -> Result<(), Void> {
    if claim.gas > task.gas_limit {
        return Err(Void::GasAboveLimit {
            given: claim.gas,
            most: task.gas_limit,
        });
    }
    // Rule: only a program that finished has an output.
    if claim.status != ResultStatus::Done && claim.output_hash != Blob::default().hash() {
        return Err(Void::OutputOfFailure);
    }
    Ok(())
}

/// Whether the seat committed to this claim.
fn opens(task: &Task, seat: &Seat, claim: &ResultClaim, salt: &Hash) -> bool {
    seat.commitment == Some(claim.commitment(&task.id, seat.draw, &seat.worker, salt))
}
