//! What the process's allocator does with memory that is freed.
//!
//! The way of a block needs tens of megabytes and frees them when the block is durable. By itself the
//! C library then returns most of them to the system, and the next block waits for every page to come
//! back, filled with zeros: 6% of its time (`docs/decisions/0014-freed-memory.md`).
#![allow(
    unsafe_code,
    reason = "the C library is told through a foreign function"
)]

/// Most freed memory at the end of a heap that the process keeps, bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES_MAX: libc::c_int = 256 << 20;
/// Size from which a value has pages of its own, which return to the system when it is freed, bytes:
/// as large as the C library ever makes it by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES_BYTES_MIN: libc::c_int = 32 << 20;

/// What an operator may say about it in the environment, which then holds: see `mallopt(3)`.
const VARIABLES: [&str; 3] = [
    "GLIBC_TUNABLES",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
];

/// Has the process keep freed memory for the next block, unless the environment has a say in it. To be
/// called first. Returns whether it does; with another C library than glibc it does not.
pub fn keep_freed_memory() -> bool {
    if VARIABLES
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return false;
    }
    tell()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn tell() -> bool {
    let settings = [
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES_MIN),
    ];
    // SAFETY: the function takes two numbers, may be called on any thread, and refuses what it does
    // not know.
    settings
        .into_iter()
        .all(|(which, bytes)| unsafe { libc::mallopt(which, bytes) } == 1)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn tell() -> bool {
    false
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #[test]
    fn the_c_library_takes_what_it_is_told() {
        assert!(super::tell());
    }
}
