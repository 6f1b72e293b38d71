//! The directory of a development network: a marker, a lock, and a home for each process.
//!
//! Everything in it follows from the numbers in the marker, which is written first; homes that are
//! missing are made, so that a lay-out that was cut short is finished by the next start.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::upgrades::{KnownVersion, Upgrade};
use serde::{Deserialize, Serialize};

use super::{VALIDATORS, VALIDATORS_MAX, WORKERS, WORKERS_MAX, genesis};
use crate::config::{Config, Supply};
use crate::genesis_file::GenesisFile;
use crate::home::{self, Home, HomeError, NodeKeys};
use crate::upgrades::{ScheduleError, schedule};
use crate::{dev_keys, genesis_file, keys};

const MARKER: &str = "devnet.json";
const MARKER_VERSION: u32 = 2;
const LOCK: &str = "lock";
const READY: &str = "ready.json";
/// A devnet sums up all its money every so many blocks.
const SUPPLY_VERIFY_EVERY: u64 = 10;

/// Why a directory cannot be a development network's.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Numbers out of range.
    #[error("{given} {what} were asked for: {least} to {most} are possible")]
    Count {
        /// Validators or workers.
        what: &'static str,
        /// How many.
        given: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// Something else lives there.
    #[error(
        "{0} is not empty and holds no devnet (no {MARKER} in it): choose another directory with \
         --home"
    )]
    NotOurs(PathBuf),
    /// Another devnet runs there.
    #[error(
        "a devnet runs in {0} already: look at it with `proofmill devnet status --home {0}`, \
         stop it, or choose another directory with --home"
    )]
    Busy(PathBuf),
    /// Laid out with other numbers.
    #[error(
        "the devnet in {home} has {laid_out} {what} and {asked} were asked for: leave --{what} \
         out to continue it, or begin anew with --reset"
    )]
    Different {
        /// Where.
        home: PathBuf,
        /// Validators or workers.
        what: &'static str,
        /// How many there are.
        laid_out: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// Laid out by a program with another layout.
    #[error(
        "the devnet in {home} has layout {laid_out}, this program makes layout {ours}: another \
         version made it; begin anew with --reset"
    )]
    OtherLayout {
        /// Where.
        home: PathBuf,
        /// The marker's.
        laid_out: u32,
        /// Ours.
        ours: u32,
    },
    /// The upgrades make no schedule.
    #[error("the devnet in {home}: {error}")]
    Upgrades {
        /// Where.
        home: PathBuf,
        /// Why not.
        error: ScheduleError,
    },
    /// Laid out by a program with another genesis.
    #[error(
        "the devnet in {home} has the genesis {laid_out} and this program makes {ours}: another \
         version made it; begin anew with --reset"
    )]
    OtherGenesis {
        /// Where.
        home: PathBuf,
        /// The marker's.
        laid_out: Hash,
        /// Ours.
        ours: Hash,
    },
    /// The marker cannot be read.
    #[error("{path} is damaged ({error}): begin anew with --reset")]
    Marker {
        /// Where.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// A home could not be made.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key could not be written.
    #[error(transparent)]
    Key(#[from] keys::KeyFileError),
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    version: u32,
    validators: u32,
    workers: u32,
    genesis_hash: Hash,
}

/// A laid out directory, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Layout {
    home: PathBuf,
    marker: Marker,
    genesis: Genesis,
    is_new: bool,
    _lock: File,
}

impl Layout {
    /// Lays the directory out, or opens what is laid out.
    pub(super) fn open(
        home: &Path,
        validators: Option<u32>,
        workers: Option<u32>,
        reset: bool,
    ) -> Result<Self, LayoutError> {
        within("validators", validators, 1, VALIDATORS_MAX)?;
        within("workers", workers, 0, WORKERS_MAX)?;
        let path = home.join(MARKER);
        if !path.exists() && !is_vacant(home)? {
            return Err(LayoutError::NotOurs(home.into()));
        }
        home::directory(home)?;
        let home = &home.canonicalize().map_err(|error| io_error(home, error))?;
        let lock = lock(home)?.ok_or_else(|| LayoutError::Busy(home.clone()))?;
        if reset {
            clear(home)?;
        }
        let is_new = !path.exists();
        let marker = if is_new {
            let validators = validators.unwrap_or(VALIDATORS);
            let workers = workers.unwrap_or(WORKERS);
            let marker = Marker {
                version: MARKER_VERSION,
                validators,
                workers,
                genesis_hash: genesis(validators, workers).hash(),
            };
            write_marker(&path, &marker)?;
            marker
        } else {
            read_marker(&path)?
        };
        if marker.version != MARKER_VERSION {
            return Err(LayoutError::OtherLayout {
                home: home.clone(),
                laid_out: marker.version,
                ours: MARKER_VERSION,
            });
        }
        differs(home, "validators", marker.validators, validators)?;
        differs(home, "workers", marker.workers, workers)?;
        let genesis = genesis(marker.validators, marker.workers);
        let ours = genesis.hash();
        if marker.genesis_hash != ours {
            return Err(LayoutError::OtherGenesis {
                home: home.clone(),
                laid_out: marker.genesis_hash,
                ours,
            });
        }
        let layout = Self {
            home: home.clone(),
            marker,
            genesis,
            is_new,
            _lock: lock,
        };
        layout.make_homes()?;
        Ok(layout)
    }

    pub(super) fn path(&self) -> &Path {
        &self.home
    }

    pub(super) const fn validators(&self) -> u32 {
        self.marker.validators
    }

    pub(super) const fn workers(&self) -> u32 {
        self.marker.workers
    }

    pub(super) const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Whether this start laid it out.
    pub(super) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Writes the upgrades into the validators' genesis files.
    pub(super) fn set_upgrades(
        &self,
        upgrades: &[Upgrade],
        known: &[KnownVersion],
    ) -> Result<(), LayoutError> {
        let file = GenesisFile {
            genesis: self.genesis.clone(),
            upgrades: upgrades.to_vec(),
        };
        schedule(&file, &[], known).map_err(|error| LayoutError::Upgrades {
            home: self.home.clone(),
            error,
        })?;
        let text = genesis_file::text(&file);
        for index in 0..self.validators() {
            let path = self.node(index).genesis();
            home::write_atomically(&path, &text).map_err(|error| io_error(&path, error))?;
        }
        Ok(())
    }

    /// The home of a validator.
    pub(super) fn node(&self, index: u32) -> Home {
        Home::new(self.home.join(format!("node{index}")))
    }

    /// The home of a worker.
    pub(super) fn worker(&self, index: u32) -> Home {
        Home::new(self.home.join(format!("worker{index}")))
    }

    /// Where it says that all is ready.
    pub(super) fn ready_file(&self) -> PathBuf {
        ready_file(&self.home)
    }

    fn make_homes(&self) -> Result<(), LayoutError> {
        let genesis = genesis_file::text(&self.genesis.clone().into());
        for index in 0..self.validators() {
            let keys = NodeKeys {
                validator: dev_keys::validator(index),
                beacon: dev_keys::beacon(index),
                node: dev_keys::network(index),
            };
            let config = Config {
                moniker: format!("node{index}"),
                supply: Supply {
                    verify_every: SUPPLY_VERIFY_EVERY,
                },
                ..Config::default()
            };
            let home = self.node(index);
            if !home.path().exists() {
                home.create(
                    &keys,
                    &self.marker.genesis_hash,
                    &genesis,
                    &config.to_commented_toml(),
                )?;
            }
        }
        for index in 0..self.workers() {
            let home = self.worker(index);
            if !home.path().exists() {
                home.create_worker(&dev_keys::worker(index))?;
            }
        }
        let accounts = self.home.join("accounts");
        home::directory(&accounts)?;
        for (name, key) in dev_keys::accounts() {
            let path = accounts.join(format!("{name}.json"));
            if !path.exists() {
                keys::write_new(&path, &key)?;
            }
        }
        Ok(())
    }
}

/// Where a devnet says that all is ready.
pub(super) fn ready_file(home: &Path) -> PathBuf {
    home.join(READY)
}

/// Whether a devnet runs in this directory.
pub(super) fn is_running(home: &Path) -> Result<bool, LayoutError> {
    Ok(home.join(LOCK).exists() && lock(home)?.is_none())
}

/// The lock, `None` when another process holds it. The system frees it however its holder ends.
fn lock(home: &Path) -> Result<Option<File>, LayoutError> {
    let path = home.join(LOCK);
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| io_error(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
    }
}

/// A start that was cut short between lock and marker leaves the lock alone.
fn is_vacant(home: &Path) -> Result<bool, LayoutError> {
    if home::is_vacant(home)? {
        return Ok(true);
    }
    if !home.is_dir() {
        return Ok(false);
    }
    let entries = fs::read_dir(home).map_err(|error| io_error(home, error))?;
    let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    Ok(names.all(|name| name.is_ok_and(|name| name == LOCK)))
}

/// Removes everything but the lock, which is held, and the marker last: until then the directory
/// is known to be a devnet's.
fn clear(home: &Path) -> Result<(), LayoutError> {
    let marker = home.join(MARKER);
    let entries = fs::read_dir(home).map_err(|error| io_error(home, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io_error(home, error))?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == MARKER || name == LOCK {
            continue;
        }
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|error| io_error(&path, error))?;
    }
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&marker, error)),
        _ => Ok(()),
    }
}

fn read_marker(path: &Path) -> Result<Marker, LayoutError> {
    let text = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
    serde_json::from_str(&text).map_err(|error| LayoutError::Marker {
        path: path.into(),
        error,
    })
}

fn write_marker(path: &Path, marker: &Marker) -> Result<(), LayoutError> {
    let mut text = serde_json::to_string_pretty(marker).expect("numbers and a hash are JSON");
    text.push('\n');
    home::write_atomically(path, &text).map_err(|error| io_error(path, error))
}

fn within(
    what: &'static str,
    given: Option<u32>,
    least: u32,
    most: u32,
) -> Result<(), LayoutError> {
    match given {
        Some(given) if !(least..=most).contains(&given) => Err(LayoutError::Count {
            what,
            given,
            least,
            most,
        }),
        _ => Ok(()),
    }
}

fn differs(
    home: &Path,
    what: &'static str,
    laid_out: u32,
    asked: Option<u32>,
) -> Result<(), LayoutError> {
    match asked {
        Some(asked) if asked != laid_out => Err(LayoutError::Different {
            home: home.into(),
            what,
            laid_out,
            asked,
        }),
        _ => Ok(()),
    }
}

fn io_error(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Io {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::{LOCK, Layout, LayoutError, MARKER, is_running};
    use crate::config::Config;
    use crate::{dev_keys, genesis_file, keys};

    #[test]
    fn homes_are_laid_out_once_and_opened_again() {
        let place = tempfile::tempdir().expect("a directory");
        let home = place.path().join("a/devnet");
        let layout = Layout::open(&home, Some(2), Some(1), false).expect("a layout");
        assert!(layout.is_new());
        let genesis = genesis_file::load(&layout.node(1).genesis())
            .expect("a genesis")
            .genesis;
        assert_eq!(&genesis, layout.genesis());
        let config = Config::load(&layout.node(1), &Default::default()).expect("a configuration");
        assert_eq!(config.moniker, "node1");
        let key = keys::read(&layout.worker(0).worker_key()).expect("a key");
        assert_eq!(key.public(), dev_keys::worker(0).public());
        let key = keys::read(&layout.path().join("accounts/faucet.json")).expect("a key");
        assert_eq!(key.public(), dev_keys::faucet().public());
        drop(layout);
        // A home that is missing is made again.
        std::fs::remove_dir_all(home.join("worker0")).expect("removed");
        let layout = Layout::open(&home, None, None, false).expect("a layout");
        assert!(!layout.is_new());
        assert_eq!((layout.validators(), layout.workers()), (2, 1));
        assert!(layout.worker(0).worker_key().exists());
    }

    #[test]
    fn other_numbers_are_refused_by_name() {
        let place = tempfile::tempdir().expect("a directory");
        drop(Layout::open(place.path(), Some(1), Some(0), false).expect("a layout"));
        let refused = Layout::open(place.path(), Some(2), None, false).expect_err("a refusal");
        let message = refused.to_string();
        assert!(
            message.contains("has 1 validators and 2 were asked for"),
            "{message}"
        );
        assert!(message.contains("--reset"), "{message}");
        let refused = Layout::open(place.path(), None, Some(3), false).expect_err("a refusal");
        assert!(matches!(
            refused,
            LayoutError::Different {
                what: "workers",
                ..
            }
        ));
        let refused = Layout::open(place.path(), Some(0), None, false).expect_err("a refusal");
        assert!(matches!(refused, LayoutError::Count { .. }));
    }

    #[test]
    fn a_second_devnet_in_the_same_directory_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let first = Layout::open(place.path(), Some(1), Some(0), false).expect("a layout");
        assert!(is_running(place.path()).expect("known"));
        for reset in [false, true] {
            let refused = Layout::open(place.path(), None, None, reset);
            assert!(matches!(refused, Err(LayoutError::Busy(_))));
        }
        assert!(first.node(0).config().exists());
        drop(first);
        assert!(!is_running(place.path()).expect("known"));
    }

    #[test]
    fn reset_begins_anew_and_touches_nothing_of_others() {
        let place = tempfile::tempdir().expect("a directory");
        let home = place.path().join("devnet");
        drop(Layout::open(&home, Some(1), Some(0), false).expect("a layout"));
        std::fs::write(home.join("node0/data"), "old").expect("a file");
        let layout = Layout::open(&home, Some(2), Some(0), true).expect("a layout");
        assert!(layout.is_new() && !home.join("node0/data").exists());
        assert_eq!(layout.validators(), 2);
        let others = place.path().join("others");
        std::fs::create_dir(&others).expect("a directory");
        std::fs::write(others.join("mine"), "x").expect("a file");
        let refused = Layout::open(&others, None, None, true);
        assert!(matches!(refused, Err(LayoutError::NotOurs(_))));
        assert!(others.join("mine").exists() && !others.join(LOCK).exists());
    }

    #[test]
    fn a_devnet_of_another_version_is_refused_with_the_way_out() {
        let place = tempfile::tempdir().expect("a directory");
        drop(Layout::open(place.path(), Some(1), Some(0), false).expect("a layout"));
        let path = place.path().join(MARKER);
        let text = std::fs::read_to_string(&path).expect("a marker");
        let old = text.replace("\"version\": 2", "\"version\": 1");
        assert_ne!(old, text);
        std::fs::write(&path, old).expect("a file");
        let refused = Layout::open(place.path(), None, None, false).expect_err("a refusal");
        let message = refused.to_string();
        let home = place.path().display().to_string();
        for words in [home.as_str(), "layout 1", "layout 2", "--reset"] {
            assert!(message.contains(words), "{message}");
        }
        Layout::open(place.path(), None, None, true).expect("reset is the way out");
    }

    #[test]
    fn a_layout_cut_short_is_finished() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join(LOCK), "").expect("a file");
        let layout = Layout::open(place.path(), Some(1), Some(0), false).expect("a layout");
        drop(layout);
        std::fs::write(place.path().join(MARKER), "{").expect("a file");
        let damaged = Layout::open(place.path(), None, None, false).expect_err("a refusal");
        assert!(damaged.to_string().contains("--reset"));
        Layout::open(place.path(), None, None, true).expect("reset goes on");
    }
}
