//! What the process needs of the system, checked before anything is opened.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest open files with which a node runs: the database alone keeps hundreds open.
pub const FILES_MIN: u64 = 1_024;
/// Open files that a node asks for when the system allows as many.
pub const FILES_WANTED: u64 = 65_536;

/// A node stops while there is still this much room on its disk, in bytes: enough to write what is
/// under way and to close the database.
pub const DISK_FREE_MIN: u64 = 32 << 20;

/// Why the process may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The disk is full, or nearly.
    #[error(
        "the disk of {path} has {free} bytes left and a node stops below {DISK_FREE_MIN}: free some and start again"
    )]
    Disk {
        /// The directory.
        path: String,
        /// What is left.
        free: u64,
    },
    /// The system does not tell.
    #[error("the room on the disk of {path} is unknown: {reason}")]
    Unknown {
        /// The directory.
        path: String,
        /// What the system says.
        reason: String,
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

/// Checks that a directory's disk has room.
///
/// # Errors
/// When less than [`DISK_FREE_MIN`] is left for this user, or the system does not tell.
pub fn check_disk(directory: &Path) -> Result<(), LimitError> {
    let path = || directory.display().to_string();
    let disk = statvfs(directory).map_err(|error| LimitError::Unknown {
        path: path(),
        reason: error.to_string(),
    })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < DISK_FREE_MIN {
        return Err(LimitError::Disk { path: path(), free });
    }
    Ok(())
}

/// The soft limit to have, never below the present one.
fn goal(current: u64, maximum: u64) -> u64 {
    current.max(FILES_WANTED.min(maximum))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        DISK_FREE_MIN, FILES_MIN, FILES_WANTED, LimitError, check_disk, goal, raise_open_files,
    };

    #[test]
    fn a_disk_with_room_is_told_from_one_without() {
        // Nothing can be stored in /proc, and its file system says so.
        let refused = check_disk(Path::new("/proc")).expect_err("no room in /proc");
        assert!(matches!(refused, LimitError::Disk { free: 0, .. }));
        assert!(refused.to_string().contains(&DISK_FREE_MIN.to_string()));
        let gone = check_disk(Path::new("/no/such/place")).expect_err("no such place");
        assert!(matches!(gone, LimitError::Unknown { .. }));
        let here = tempfile::tempdir().expect("a directory");
        assert_eq!(check_disk(here.path()), Ok(()));
    }

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
            Err(other) => panic!("not about open files: {other}"),
        }
    }
}
