//! Following a task: one line of progress on a terminal, one line per change elsewhere.

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_rpc::api::{Include, SeatStep, TaskState, TaskView, WaitingFor};

use crate::cli::session::Session;
use crate::cli::{interrupt, out};
use crate::client::{LOOK_EVERY, Patience};

const TURN_EVERY: Duration = Duration::from_millis(120);

/// The line that tells how far a task is.
pub(crate) struct Follow {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Follow {
    /// Shows the line; Ctrl-C ends it and says how to go on.
    pub(crate) fn start(task: &Hash) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        bar.enable_steady_tick(TURN_EVERY);
        bar.set_message("waiting for the block");
        interrupt::say_on_ctrl_c(
            bar.clone(),
            format!("the task goes on without you: `proofmill task watch {task}` follows it again"),
        );
        Self { bar, is_terminal }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| out::note(line));
    }

    /// Waits until a task is over; takes the line away and returns the task.
    pub(crate) fn until_over(self, session: &Session, task: &Hash) -> anyhow::Result<TaskView> {
        let mut patience = Patience::default();
        let mut told = Told::default();
        loop {
            let answer = session.client.task(task, Include::default());
            match patience.bear(answer)? {
                None => self.update("the node does not answer; trying again", false),
                Some(view) => {
                    for (line, is_new) in told.lines(&view, |id| session.name_of(id)) {
                        self.update(&line, is_new);
                    }
                    if view.task.phase.is_over() {
                        return Ok(view);
                    }
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn update(&self, line: &str, is_new: bool) {
        if self.is_terminal {
            self.bar.set_message(line.to_owned());
        } else if is_new {
            out::note(line);
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What has been told already, so that a change is told once.
#[derive(Default)]
struct Told {
    drawn: Vec<AccountId>,
    stage: Option<(TaskState, Option<WaitingFor>, u32, u32)>,
}

impl Told {
    /// The lines to show now, each with whether it tells a change.
    fn lines(
        &mut self,
        view: &TaskView,
        name: impl Fn(&AccountId) -> String,
    ) -> Vec<(String, bool)> {
        let names = |ids: &[AccountId]| {
            let mut names: Vec<_> = ids.iter().map(&name).collect();
            names.sort_unstable();
            names.join(", ")
        };
        let mut lines = Vec::new();
        let mut drawn: Vec<_> = view.task.seats.iter().map(|seat| seat.worker).collect();
        drawn.sort_unstable();
        if !drawn.is_empty() && drawn != self.drawn {
            lines.push((format!("drawn: {}", names(&drawn)), true));
            self.drawn = drawn;
        }
        let have = view.waiting.as_ref().map_or(0, |waiting| waiting.have);
        let need = view.waiting.as_ref().map_or(0, |waiting| waiting.need);
        let late = |step: SeatStep| {
            let seats = view.progress.iter().filter(|seat| seat.step == step);
            names(&seats.map(|seat| seat.worker).collect::<Vec<_>>())
        };
        let line = match (view.state, &view.waiting) {
            (TaskState::Open, Some(waiting)) => format!("open: {}", waiting.reason),
            (TaskState::Committing, Some(waiting)) if self.drawn.len() < need as usize => {
                format!("committing: {}", waiting.reason)
            }
            (TaskState::Committing, _) => {
                let late = late(SeatStep::Computing);
                format!("committed {have}/{need}: {late} computing")
            }
            (TaskState::Revealing, _) => {
                format!(
                    "revealed {have}/{need}: waiting for {}",
                    late(SeatStep::Committed)
                )
            }
            (TaskState::Final, _) => "final".to_owned(),
            (TaskState::Expired, _) => "expired".to_owned(),
            (TaskState::Cancelled, _) => "cancelled".to_owned(),
            (TaskState::Open, None) => "open".to_owned(),
        };
        let what = view.waiting.as_ref().map(|waiting| waiting.what);
        let stage = Some((view.state, what, have, need));
        // The reason of an open task names the head: its text alone is no change.
        lines.push((line, self.stage != stage));
        self.stage = stage;
        lines
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::crypto::sign::SecretKey;
    use proofmill_chain::types::hash::{AccountId, Hash};
    use proofmill_chain::types::task::{
        Mode, Moment, Phase, Requirements, ResultClaim, ResultStatus, Seat, Task,
    };
    use proofmill_chain::types::units::{Amount, Gas, Height, MachineVersion};
    use proofmill_rpc::api::{TaskContext, TaskView};

    use super::Told;

    fn worker(index: u8) -> AccountId {
        SecretKey::from_seed(&[index; 32]).public()
    }

    fn task(phase: Phase, seats: Vec<Seat>) -> Task {
        let hash = Hash::of("test", &[]);
        Task {
            id: hash,
            requester: worker(9),
            program: hash,
            module_bytes: 4,
            machine_version: MachineVersion::new(1),
            input: hash,
            gas_limit: Gas::new(1),
            memory_pages: 1,
            mode: Mode::Replicated { replicas: 2 },
            price_per_mgas: Amount::new(1),
            insured_value: Amount::ZERO,
            requirements: Requirements::default(),
            wait_until: Height::new(100),
            escrow: Amount::new(2),
            submitted_at: Height::new(3),
            index: 0,
            phase,
            seats,
            missed: Vec::new(),
            draws: 0,
            eligible_last: 1,
        }
    }

    fn seat(index: u8, committed: bool, revealed: bool) -> Seat {
        let hash = Hash::of("claim", &[]);
        let claim = ResultClaim {
            output_hash: hash,
            trace_root: hash,
            gas: Gas::new(1),
            status: ResultStatus::Done,
        };
        Seat {
            worker: worker(index),
            operator: worker(index),
            draw: index,
            bond: Amount::new(1),
            drawn: Moment::default(),
            commitment: committed.then_some(hash),
            claim: revealed.then_some(claim),
        }
    }

    fn view(task: Task, head: u64) -> TaskView {
        let context = TaskContext {
            head: Height::new(head),
            first_draw: Height::new(6),
            drawn_in_vain: head > 6,
            ..TaskContext::default()
        };
        TaskView::of(task, context)
    }

    /// The lines of a pipe: those that tell a change.
    fn told(told: &mut Told, view: &TaskView) -> Vec<String> {
        let name = |id: &AccountId| {
            let index = (0..10).find(|index| worker(*index) == *id);
            format!("worker{}", index.expect("a worker of this test"))
        };
        let lines = told.lines(view, name).into_iter();
        lines
            .filter(|(_, is_new)| *is_new)
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn every_change_is_told_once() {
        let mut memory = Told::default();
        let mut lines = |task: Task, head| told(&mut memory, &view(task, head));
        let open = lines(task(Phase::Open, vec![]), 3);
        assert_eq!(open.len(), 1);
        assert!(
            open[0].starts_with("open: its workers are drawn in block 6"),
            "{open:?}"
        );
        let waits = lines(task(Phase::Open, vec![]), 4);
        assert_eq!(waits, [""; 0], "only the head moved");
        let next = lines(task(Phase::Open, vec![]), 6);
        assert_eq!(next, [""; 0], "no draw was tried: the next block does");
        let scarce = lines(task(Phase::Open, vec![]), 7);
        assert!(
            scarce[0].contains("2 eligible workers are needed"),
            "{scarce:?}"
        );
        let committing = || Phase::Committing { vacant_since: None };
        let drawn = lines(
            task(
                committing(),
                vec![seat(1, false, false), seat(2, false, false)],
            ),
            8,
        );
        assert_eq!(drawn.len(), 2);
        assert_eq!(drawn[0], "drawn: worker1, worker2");
        let one = || vec![seat(1, true, false), seat(2, false, false)];
        let committed = lines(task(committing(), one()), 9);
        assert_eq!(committed, ["committed 1/2: worker2 computing"]);
        assert_eq!(lines(task(committing(), one()), 10), [""; 0]);
        let since = Moment::default();
        let revealing = vec![seat(1, true, false), seat(2, true, true)];
        let revealed = lines(task(Phase::Revealing { since }, revealing), 11);
        assert_eq!(revealed, ["revealed 1/2: waiting for worker1"]);
        let at = Height::new(12);
        assert_eq!(
            lines(task(Phase::Cancelled { at }, vec![]), 12),
            ["cancelled"]
        );
    }

    #[test]
    fn a_seat_that_is_drawn_again_is_told() {
        let mut memory = Told::default();
        let committing = |seats| task(Phase::Committing { vacant_since: None }, seats);
        let mut lines = |task: Task| told(&mut memory, &view(task, 9));
        lines(committing(vec![
            seat(1, true, false),
            seat(2, false, false),
        ]));
        let vacant = lines(committing(vec![seat(1, true, false)]));
        assert_eq!(vacant[0], "drawn: worker1");
        let again = lines(committing(vec![
            seat(1, true, false),
            seat(3, false, false),
        ]));
        assert!(again[0].contains("worker3"), "{again:?}");
    }
}
