//! How many modules are judged at once, and how many may wait for it.
//!
//! Judging a module takes up to tens of milliseconds. It happens on threads of its own, after everything
//! cheaper; a transaction whose module is being judged is in no pool.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use proofmill_chain::types::hash::AccountId;

/// Most transactions whose modules are being judged or wait for it.
pub const MODULES_WAITING_MAX: usize = 64;
/// Most modules that are judged at once.
pub const MODULES_JUDGED_MAX: usize = 2;

/// Why a module is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleBusy {
    /// One of the sender's is on the way.
    #[error("another module of {0} is being judged")]
    Sender(AccountId),
    /// Too many are on the way.
    #[error("{MODULES_WAITING_MAX} modules wait to be judged; try again later")]
    Full,
    /// The node stops.
    #[error("the node stops")]
    Stopping,
}

/// Hands out places among those that wait, and turns among those that are judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModuleGate(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    senders: BTreeSet<AccountId>,
    judged: usize,
    closed: bool,
}

/// A place; the sender may not have another one until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: ModuleGate,
    sender: AccountId,
}

impl ModuleGate {
    /// A place for a module of `sender`.
    pub(crate) fn enter(&self, sender: AccountId) -> Result<Ticket, ModuleBusy> {
        let mut state = self.state();
        if state.closed {
            return Err(ModuleBusy::Stopping);
        }
        if state.senders.contains(&sender) {
            return Err(ModuleBusy::Sender(sender));
        }
        if state.senders.len() >= MODULES_WAITING_MAX {
            return Err(ModuleBusy::Full);
        }
        state.senders.insert(sender);
        let gate = self.clone();
        Ok(Ticket { gate, sender })
    }

    /// Whether a module of the sender is on the way.
    pub(crate) fn holds(&self, sender: &AccountId) -> bool {
        self.state().senders.contains(sender)
    }

    /// Nobody gets a place or a turn any more.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left consistent data: each change is one call.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for a turn and runs `judge`. Blocking.
    pub(crate) fn judged<T>(&self, judge: impl FnOnce() -> T) -> Result<T, ModuleBusy> {
        let gate = &self.gate.0;
        let state = self.gate.state();
        let wait = |state: &mut State| !state.closed && state.judged >= MODULES_JUDGED_MAX;
        let mut state = gate
            .changed
            .wait_while(state, wait)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(ModuleBusy::Stopping);
        }
        state.judged += 1;
        drop(state);
        let turn = Turn(&self.gate);
        let verdict = judge();
        drop(turn);
        Ok(verdict)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.state().senders.remove(&self.sender);
    }
}

/// Ends a turn, whatever becomes of the judge.
struct Turn<'a>(&'a ModuleGate);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().judged -= 1;
        self.0.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use proofmill_chain::types::hash::AccountId;

    use super::{MODULES_JUDGED_MAX, MODULES_WAITING_MAX, ModuleBusy, ModuleGate};

    fn sender(number: usize) -> AccountId {
        AccountId::new([u8::try_from(number).expect("small"); 32])
    }

    #[test]
    fn each_sender_has_one_place_and_there_are_so_many() {
        let gate = ModuleGate::default();
        let mut tickets: Vec<_> = (0..MODULES_WAITING_MAX)
            .map(|number| gate.enter(sender(number)).expect("a place"))
            .collect();
        let again = gate.enter(sender(0)).expect_err("it has one");
        assert_eq!(again, ModuleBusy::Sender(sender(0)));
        let other = sender(MODULES_WAITING_MAX);
        assert_eq!(
            gate.enter(other).expect_err("all are taken"),
            ModuleBusy::Full
        );
        tickets.pop();
        assert!(!gate.holds(&sender(MODULES_WAITING_MAX - 1)));
        let ticket = gate.enter(other).expect("one is free");
        assert!(gate.holds(&other));
        gate.close();
        assert_eq!(ticket.judged(|| 1), Err(ModuleBusy::Stopping));
        drop((ticket, tickets));
        let closed = gate.enter(other).expect_err("it is closed");
        assert_eq!(closed, ModuleBusy::Stopping);
    }

    #[test]
    fn no_more_than_so_many_are_judged_at_once_and_closing_ends_the_wait() {
        let gate = ModuleGate::default();
        let (started, starts) = mpsc::channel();
        thread::scope(|scope| {
            let mut release = Vec::new();
            for number in 0..=MODULES_JUDGED_MAX {
                let ticket = gate.enter(sender(number)).expect("a place");
                let (go, wait) = mpsc::channel::<()>();
                release.push(go);
                let started = started.clone();
                scope.spawn(move || {
                    let judged = ticket.judged(|| {
                        started.send(true).expect("the test listens");
                        wait.recv().is_err()
                    });
                    if judged.is_err() {
                        started.send(false).expect("the test listens");
                    }
                });
            }
            for _ in 0..MODULES_JUDGED_MAX {
                assert_eq!(starts.recv(), Ok(true));
            }
            // The last one has no turn as long as the others judge, and gets none when the gate closes.
            gate.close();
            assert_eq!(starts.recv(), Ok(false));
            drop(release);
        });
    }
}
