//! Key files: one ed25519 seed each, readable by its owner alone.
//!
//! A file is JSON with the members `version`, `public` (the account) and `seed` (`0x` and hex). It
//! is created with mode 0600 and never overwritten; a file that others may read is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Hash};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The version of the format.
pub const VERSION: u32 = 1;
/// Longest key file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 4096;
/// Longest name of a key.
pub const NAME_LEN_MAX: usize = 32;

const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no key file {}", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It exists and is not overwritten.
    #[error("the key file {} exists already and is never overwritten", .path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Others than its owner may use it.
    #[error("the key file {path} has mode {mode:04o}: others may use it; run `chmod 600 {path}`", path = .path.display())]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key file.
    #[error("{} is not a key file: {reason}", .path.display())]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system refused.
    #[error("the key file {}: {error}", .path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The system has no randomness.
    #[error("the system gave no random bytes for a new key: {0}")]
    Random(String),
}

/// The text is not a key's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a key's name: a lower-case letter, then at most 31 lower-case letters, digits, hyphens and underscores; not an account (mill1…)"
)]
pub struct NameError {
    /// What was given.
    pub name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    public: AccountId,
    seed: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// A new key from the system's randomness.
///
/// # Errors
/// When the system has none.
pub fn generate() -> Result<SecretKey, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| KeyFileError::Random(error.to_string()))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Whether `name` may name a key.
///
/// # Errors
/// When it may not: names become parts of paths and stand where accounts may stand.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let mut bytes = name.bytes();
    let worded = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        });
    if worded && name.len() <= NAME_LEN_MAX && !name.starts_with("mill1") {
        Ok(())
    } else {
        let name = name.chars().take(80).collect();
        Err(NameError { name })
    }
}

/// Writes a key into a new file; the folders above it are made when they are missing.
///
/// # Errors
/// When the file exists or cannot be written; then nothing is left behind.
pub fn write_new(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let failed = |error: io::Error| {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists { path },
            _ => KeyFileError::Io { path, error },
        }
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(folder)
            .map_err(|error| KeyFileError::Io {
                path: folder.to_owned(),
                error,
            })?;
    }
    let text = text_of(key);
    // create_new is O_EXCL: of two that make the same file at once, one fails.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a key is worse than none; that it cannot be removed either changes nothing.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// Reads a key.
///
/// # Errors
/// When there is no such file, when others may read or write it, or when it is not a key file.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |error: io::Error| {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing { path },
            _ => KeyFileError::Io { path, error },
        }
    };
    let file = File::open(path).map_err(io)?;
    // The mode of the open file, not of whatever the path names a moment later.
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        let path = path.to_owned();
        return Err(KeyFileError::Exposed { path, mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(io)?;
    parse(&text).map_err(|reason| KeyFileError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

fn text_of(key: &SecretKey) -> Zeroizing<String> {
    let file = KeyFile {
        version: VERSION,
        public: key.public(),
        seed: Hash::new(*Zeroizing::new(key.seed())).to_string(),
    };
    let mut text = serde_json::to_string_pretty(&file).expect("three strings and numbers are JSON");
    text.push('\n');
    Zeroizing::new(text)
}

fn parse(text: &str) -> Result<SecretKey, String> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    let file: KeyFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!(
            "its version is {}, this program reads {VERSION}",
            file.version
        ));
    }
    // The error of `parse` would repeat the seed.
    let seed: Hash = file
        .seed
        .parse()
        .map_err(|_| "its seed is not 0x and 64 hex digits".to_owned())?;
    let key = SecretKey::from_seed(seed.as_bytes());
    if key.public() != file.public {
        return Err(format!(
            "its seed gives the account {}, it says {}",
            key.public(),
            file.public
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{KeyFileError, check_name, generate, read, write_new};

    #[test]
    fn a_key_file_is_its_owners_alone_and_gives_the_key_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/accounts/alice.json");
        let key = generate().expect("randomness");
        write_new(&path, &key).expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let parent = path.parent().expect("a folder");
        let mode = fs::metadata(parent).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(read(&path).expect("read").seed(), key.seed());
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.json");
        let first = generate().expect("randomness");
        write_new(&path, &first).expect("written");
        let again = write_new(&path, &generate().expect("randomness"));
        assert!(matches!(again, Err(KeyFileError::Exists { .. })));
        assert_eq!(read(&path).expect("read").seed(), first.seed());
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.json");
        write_new(&path, &generate().expect("randomness")).expect("written");
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            let refused = read(&path).expect_err("others may use it").to_string();
            assert!(refused.contains(&format!("{mode:04o}")), "{refused}");
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("changed");
        read(&path).expect("its owner alone reads it");
    }

    #[test]
    fn what_is_not_a_key_file_is_refused_without_a_word_of_the_seed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alice.json");
        assert!(matches!(read(&path), Err(KeyFileError::Missing { .. })));
        write_new(&path, &generate().expect("randomness")).expect("written");
        let good = fs::read_to_string(&path).expect("text");
        let other = generate().expect("randomness").public().to_string();
        let mine = read(&path).expect("read").public().to_string();
        // An account's text may have the two characters too, though never behind a quote.
        let seed = good.split("\"0x").nth(1).expect("a seed").to_owned();
        let secret = seed.split('"').next().expect("its digits");
        for (bad, word) in [
            (good.replace("\"version\": 1", "\"version\": 2"), "version"),
            (good.replace(&mine, &other), "its seed gives the account"),
            (good.replace("\"seed\"", "\"sed\""), "unknown field `sed`"),
            (good.replace("\"0x", "\"0y"), "64 hex digits"),
            ("x".repeat(5000), "longer than"),
        ] {
            fs::write(&path, bad).expect("written");
            let refused = read(&path).expect_err("malformed").to_string();
            assert!(refused.contains(word), "{refused}");
            assert!(!refused.contains(secret), "{refused}");
        }
    }

    #[test]
    fn names_are_short_words_that_cannot_leave_the_folder() {
        for good in ["alice", "a", "my-key_2", &"a".repeat(32)] {
            check_name(good).expect(good);
        }
        for bad in [
            "",
            "../alice",
            "a/b",
            "a.json",
            "Alice",
            "1a",
            "-a",
            "a b",
            "mill1qq",
            "ä",
            &"a".repeat(33),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
