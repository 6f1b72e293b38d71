//! The exit statuses of `proofmill`: one table, which `docs/operators.md` repeats.

use std::process::ExitCode;

use proofmill_consensus::EngineError;

use crate::devnet::AllNeedUpgrade;
use crate::limits::LimitError;
use crate::replay::ReplayError;
use crate::store::StoreError;
use crate::upgrades::UpgradeNeeded;
use crate::validator::ValidatorError;
use crate::worker::self_test::SelfTestError;

/// Why the process ended, as its exit status says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped because somebody asked.
    Success = 0,
    /// An error that has no status of its own.
    Failure = 1,
    /// A command line that cannot be understood.
    Usage = 2,
    /// The chain needs a newer version of the program.
    Upgrade = 3,
    /// The data directory is damaged, another chain's, or of another version.
    Data = 4,
    /// The system grants too little: open files, threads, memory, room on a disk.
    Resources = 5,
    /// The signing guard forbids to go on.
    Guard = 6,
    /// Asked to stop, and not stopped in order in time. Nothing that was acknowledged is lost.
    Late = 7,
}

impl Exit {
    /// All of them, ascending.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Upgrade,
        Self::Data,
        Self::Resources,
        Self::Guard,
        Self::Late,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status of a process that ends with this error: that of the first cause that has one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(Self::of_cause)
            .unwrap_or(Self::Failure)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if cause.is::<LimitError>() {
            return Some(Self::Resources);
        }
        let replay = cause.downcast_ref();
        if cause.is::<UpgradeNeeded>()
            || cause.is::<AllNeedUpgrade>()
            || matches!(replay, Some(ReplayError::Upgrade(_)))
        {
            return Some(Self::Upgrade);
        }
        match cause.downcast_ref() {
            Some(SelfTestError::Limits(_) | SelfTestError::Cannot(_)) => {
                return Some(Self::Resources);
            }
            Some(SelfTestError::Wrong { .. }) => return Some(Self::Failure),
            None => {}
        }
        if is_guard(cause) {
            return Some(Self::Guard);
        }
        match cause.downcast_ref::<StoreError>()? {
            StoreError::Corrupt { .. }
            | StoreError::OtherGenesis { .. }
            | StoreError::OtherSchema { .. } => Some(Self::Data),
            StoreError::NoSpace(_) => Some(Self::Resources),
            _ => None,
        }
    }
}

/// Whether the signing guard forbids to go on.
fn is_guard(cause: &(dyn std::error::Error + 'static)) -> bool {
    let validator = cause.downcast_ref::<ValidatorError>();
    let engine = cause.downcast_ref::<EngineError>();
    validator.is_some_and(ValidatorError::is_guard)
        || matches!(
            engine,
            Some(EngineError::Foreign { .. } | EngineError::Guard(_) | EngineError::OldGuard(_))
        )
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::Exit;
    use crate::limits::LimitError;
    use crate::store::StoreError;

    #[test]
    fn a_cause_below_contexts_decides_the_status() {
        let few = LimitError::Files { allowed: 3 };
        let error = Err::<(), _>(few).context("starting").expect_err("refused");
        assert_eq!(Exit::of(&error), Exit::Resources);
        let damaged = anyhow::Error::new(StoreError::corrupt("x")).context("opening");
        assert_eq!(Exit::of(&damaged), Exit::Data);
        assert_eq!(Exit::of(&anyhow::anyhow!("other")), Exit::Failure);
    }

    #[test]
    fn every_status_is_documented() {
        let manual = include_str!("../../docs/operators.md");
        for exit in Exit::ALL {
            let row = format!("| {} |", exit.code());
            assert!(manual.contains(&row), "{exit:?} is not in the manual");
        }
    }
}
