//! What the process needs of the system, checked before anything is opened.
//!
//! Each refusal is one line that names what was found, what is needed and how to get it. The threads are
//! tried out and not computed: what limits them (`ulimit -u`, control groups, the kernel) counts in too
//! many ways.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use rustix::fs::statvfs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewest open files with which a node runs: the database alone keeps hundreds open.
pub const FILES_MIN: u64 = 1_024;
/// Open files that a node asks for when the system allows as many.
pub const FILES_WANTED: u64 = 65_536;

/// A node stops while there is still this much room on a disk that it uses, in bytes: enough to write
/// what is under way and to close the database.
pub const DISK_FREE_STOP: u64 = 32 << 20;
/// A node starts only with this much, in bytes: what it writes while it opens and closes the database
/// must not bring it from here to where it stops.
pub const DISK_FREE_START: u64 = 128 << 20;

/// Threads that a node has besides one of each kind for each core, when there is work.
const NODE_THREADS: u64 = 32;
/// Threads of a node for each core: the runtime's and those that verify.
const NODE_THREADS_PER_CORE: u64 = 2;
/// Threads of a worker, its computing child included.
pub const WORKER_THREADS: u64 = 16;

/// Address space of a node without accounts and caches, in bytes: stacks, code, and what the allocator
/// reserves for each thread.
const NODE_ADDRESS_SPACE: u64 = 1_536 << 20;

const MIB: u64 = 1 << 20;

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
    /// Too few threads may run.
    #[error(
        "only {possible} further threads may run and {needed} are needed: raise `ulimit -u`, LimitNPROC \
         or TasksMax of the service, or pids.max of the control group"
    )]
    Threads {
        /// How many could be started.
        possible: u64,
        /// How many there must be.
        needed: u64,
    },
    /// Too little address space.
    #[error(
        "{} MiB of address space are left ({what}) and {} MiB are needed: run `ulimit -v unlimited` \
         first, raise LimitAS of the service, or lower memory.caches_mib", .left / MIB, .needed / MIB
    )]
    AddressSpace {
        /// What sets the limit.
        what: &'static str,
        /// What is left, bytes.
        left: u64,
        /// What must be, bytes.
        needed: u64,
    },
    /// Files may not grow.
    #[error(
        "files may have at most {} MiB (`ulimit -f`) and a node needs {} MiB: run `ulimit -f unlimited` \
         first, or raise LimitFSIZE of the service", .allowed / MIB, FILE_BYTES_MIN / MIB
    )]
    FileSize {
        /// The largest file, bytes.
        allowed: u64,
    },
    /// A disk is full, or nearly.
    #[error(
        "the file system of {path} has {} MiB left: a node starts with {} MiB and stops below {} MiB; \
         free some room there", .free / MIB, DISK_FREE_START / MIB, DISK_FREE_STOP / MIB
    )]
    Disk {
        /// The directory.
        path: String,
        /// What is left, bytes.
        free: u64,
    },
    /// The system does not tell.
    #[error("the room on the file system of {path} is unknown: {reason}")]
    Unknown {
        /// The directory.
        path: String,
        /// What the system says.
        reason: String,
    },
}

/// Largest file that must be possible: a table or a log of the database.
const FILE_BYTES_MIN: u64 = 4 << 30;

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

/// Threads that a node needs on this machine.
#[must_use]
pub fn node_threads() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    NODE_THREADS + NODE_THREADS_PER_CORE * cores as u64
}

/// Checks that so many threads can run beside those that do: starts them, and lets them end.
///
/// # Errors
/// When fewer can.
pub fn check_threads(needed: u64) -> Result<(), LimitError> {
    const STACK_BYTES: usize = 64 << 10;
    let mut started = Vec::new();
    // Each holds its place until all have started or one could not.
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..needed {
        let held = Arc::clone(&held);
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // An error: the sender is gone, which is what is waited for.
                let _ = held.lock().map(|held| held.recv());
            });
        match thread {
            Ok(thread) => started.push(thread),
            Err(_) => break,
        }
    }
    drop(hold);
    let possible = started.len() as u64;
    for thread in started {
        // It cannot panic, and would have been counted if it had.
        let _ = thread.join();
    }
    if possible < needed {
        return Err(LimitError::Threads { possible, needed });
    }
    Ok(())
}

/// Checks that a node with so much for its caches gets the address space that it needs, and that its
/// files may be large enough.
///
/// # Errors
/// When it does not, or they may not.
pub fn check_node_memory(caches: u64) -> Result<(), LimitError> {
    check_address_space(NODE_ADDRESS_SPACE.saturating_add(caches))?;
    match getrlimit(Resource::Fsize).current {
        Some(allowed) if allowed < FILE_BYTES_MIN => Err(LimitError::FileSize { allowed }),
        _ => Ok(()),
    }
}

/// Checks that so much address space is left to this process.
///
/// # Errors
/// When less is.
pub fn check_address_space(needed: u64) -> Result<(), LimitError> {
    let used = used_pages();
    for (resource, what, pages) in [
        (Resource::As, "`ulimit -v`", used.total),
        (Resource::Data, "`ulimit -d`", used.data),
    ] {
        let Some(limit) = getrlimit(resource).current else {
            continue;
        };
        let used = pages.saturating_mul(rustix::param::page_size() as u64);
        let left = limit.saturating_sub(used);
        if left < needed {
            return Err(LimitError::AddressSpace { what, left, needed });
        }
    }
    Ok(())
}

/// Pages of this process.
#[derive(Default)]
struct Pages {
    total: u64,
    data: u64,
}

/// What this process has mapped; nothing where the system does not tell.
fn used_pages() -> Pages {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    let mut number = |at| numbers.nth(at).flatten().unwrap_or_default();
    // size, resident, shared, text, lib, data
    Pages {
        total: number(0),
        data: number(4),
    }
}

/// Checks that each of these places has room on its file system. A place that does not exist yet has that
/// of the directory it will be made in.
///
/// # Errors
/// When less than `least` is left for this user in one of them, or the system does not tell.
pub fn check_disks(places: &[PathBuf], least: u64) -> Result<(), LimitError> {
    places.iter().try_for_each(|place| check_disk(place, least))
}

fn check_disk(place: &Path, least: u64) -> Result<(), LimitError> {
    let path = || place.display().to_string();
    let there = place
        .ancestors()
        .find(|directory| directory.exists())
        .unwrap_or(place);
    let disk = statvfs(there).map_err(|error| LimitError::Unknown {
        path: path(),
        reason: error.to_string(),
    })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < least {
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
    use std::path::PathBuf;

    use super::{
        DISK_FREE_START, DISK_FREE_STOP, FILES_MIN, FILES_WANTED, LimitError, check_address_space,
        check_disks, check_threads, goal, raise_open_files,
    };

    #[test]
    fn a_disk_with_room_is_told_from_one_without() {
        // Nothing can be stored in /proc, and its file system says so.
        let full = PathBuf::from("/proc");
        let here = tempfile::tempdir().expect("a directory");
        let here = here.path().to_path_buf();
        assert_eq!(check_disks(std::slice::from_ref(&here), 1), Ok(()));
        // Not there yet: its file system is that of the directory it will be in.
        let later = here.join("data/db");
        assert_eq!(check_disks(&[here.clone(), later], 1), Ok(()));
        let refused = check_disks(&[here, full.join("data/db")], 1).expect_err("no room in /proc");
        assert!(matches!(refused, LimitError::Disk { free: 0, .. }));
        let text = refused.to_string();
        for words in ["/proc/data/db", "has 0 MiB left", "128 MiB", "32 MiB"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_node_that_just_started_is_far_from_where_it_stops() {
        // Opening and closing a database writes a few MiB.
        const { assert!(DISK_FREE_START >= DISK_FREE_STOP + (64 << 20)) };
    }

    #[test]
    fn the_soft_limit_is_raised_no_further_than_allowed() {
        assert_eq!(goal(1_024, 4_096), 4_096);
        assert_eq!(goal(1_024, u64::MAX), FILES_WANTED);
        assert_eq!(goal(1 << 20, 1 << 20), 1 << 20, "and never lowered");
    }

    #[test]
    fn each_refusal_names_what_was_found_what_is_needed_and_the_remedy() {
        let cases = [
            (
                LimitError::Files { allowed: 256 },
                ["only 256", "1024", "ulimit -n 1024"],
            ),
            (
                LimitError::Threads {
                    possible: 3,
                    needed: 36,
                },
                ["only 3", "36 are needed", "ulimit -u"],
            ),
            (
                LimitError::AddressSpace {
                    what: "`ulimit -v`",
                    left: 100 << 20,
                    needed: 2 << 30,
                },
                ["100 MiB", "2048 MiB", "ulimit -v unlimited"],
            ),
            (
                LimitError::FileSize { allowed: 1 << 20 },
                ["1 MiB", "4096 MiB", "ulimit -f unlimited"],
            ),
        ];
        for (error, words) in cases {
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "{text}");
            }
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn threads_are_tried_out_and_address_space_is_there() {
        assert_eq!(check_threads(8), Ok(()));
        assert_eq!(check_address_space(1), Ok(()));
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
