//! What the process needs of the system, checked before anything is opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest open files with which a node runs: the database alone keeps hundreds open.
pub const FILES_MIN: u64 = 1_024;
/// Open files that a node asks for when the system allows as many.
pub const FILES_WANTED: u64 = 65_536;

/// Why the process may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too few files may be open.
    #[error(
        "only {allowed} files may be open at once and a node needs {FILES_MIN}: \
         run `ulimit -n {FILES_MIN}` first, or raise LimitNOFILE of the service"
    )]
    Files {
        /// How many may be.
        allowed: u64,
    },
}

/// Raises the soft limit of open files as far as is useful and allowed; returns the limit.
///
/// # Errors
/// When fewer than [`FILES_MIN`] may be open.
pub fn raise_open_files() -> Result<u64, LimitError> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let goal = goal(current, limit.maximum.unwrap_or(u64::MAX));
    let raised = goal > current
        && setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(goal),
                maximum: limit.maximum,
            },
        )
        .is_ok();
    let allowed = if raised { goal } else { current };
    if allowed < FILES_MIN {
        return Err(LimitError::Files { allowed });
    }
    Ok(allowed)
}

/// The soft limit to have, never below the present one.
fn goal(current: u64, maximum: u64) -> u64 {
    current.max(FILES_WANTED.min(maximum))
}

#[cfg(test)]
mod tests {
    use super::{FILES_MIN, FILES_WANTED, LimitError, goal, raise_open_files};

    #[test]
    fn the_soft_limit_is_raised_no_further_than_allowed() {
        assert_eq!(goal(1_024, 4_096), 4_096);
        assert_eq!(goal(1_024, u64::MAX), FILES_WANTED);
        assert_eq!(goal(1 << 20, 1 << 20), 1 << 20, "and never lowered");
    }

    #[test]
    fn the_refusal_names_the_remedy() {
        let text = LimitError::Files { allowed: 256 }.to_string();
        assert!(
            text.contains("only 256") && text.contains("ulimit -n 1024"),
            "{text}"
        );
    }

    #[test]
    fn this_process_reaches_its_limit() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let maximum = limit.maximum.unwrap_or(u64::MAX);
        match raise_open_files() {
            Ok(allowed) => assert!(allowed >= FILES_WANTED.min(maximum)),
            Err(LimitError::Files { allowed }) => assert!(allowed < FILES_MIN),
        }
    }
}
