//! Which upgrades a node's chain has, and why a node stops before one.
//!
//! A development network's list is in its genesis file, any other chain's in the configuration
//! (`upgrades`), so that it can be extended while the chain lives.

use std::fmt;
use std::str::FromStr;

use proofmill_chain::types::units::{Height, MachineVersion, ProtocolVersion};
use proofmill_chain::upgrades::{KnownVersion, Schedule, UnknownVersion, Upgrade, UpgradesError};
use serde::{Deserialize, Serialize};

use crate::genesis_file::GenesisFile;
use crate::machine;

/// An upgrade in the configuration: `VERSION@HEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Configured(pub Upgrade);

/// Not `VERSION@HEIGHT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not VERSION@HEIGHT, as 2@1000000")]
pub struct NoUpgrade(String);

impl FromStr for Configured {
    type Err = NoUpgrade;

    fn from_str(text: &str) -> Result<Self, NoUpgrade> {
        text.split_once('@')
            .and_then(|(version, height)| {
                Some(Self(Upgrade {
                    version: ProtocolVersion::new(version.trim().parse().ok()?),
                    height: Height::new(height.trim().parse().ok()?),
                }))
            })
            .ok_or_else(|| NoUpgrade(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Configured {
    type Error = NoUpgrade;

    fn try_from(text: String) -> Result<Self, NoUpgrade> {
        text.parse()
    }
}

impl From<Configured> for String {
    fn from(configured: Configured) -> Self {
        configured.to_string()
    }
}

impl fmt::Display for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.version, self.0.height)
    }
}

/// Why a chain cannot be followed at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The list is refused.
    #[error(transparent)]
    List(#[from] UpgradesError),
    /// A development network's list is in its genesis file.
    #[error(
        "`upgrades` in the configuration: chain {0} is a development network, whose upgrades are in \
         its genesis file; remove them from the configuration"
    )]
    Configured(String),
    /// The machine is of another version.
    #[error(
        "from height {height} on the chain needs machine version {needed}, this program has {ours}"
    )]
    Machine {
        /// From where on; 0 is genesis.
        height: Height,
        /// What the parameters name.
        needed: MachineVersion,
        /// Ours.
        ours: MachineVersion,
    },
}

/// The schedule of a chain, as far as a program that knows these versions can follow it.
///
/// # Errors
/// When the list is refused, comes from the wrong place, or needs a machine that this program lacks.
pub fn schedule(
    file: &GenesisFile,
    configured: &[Configured],
    known: &[KnownVersion],
) -> Result<Schedule, ScheduleError> {
    let list = if file.genesis.is_devnet() {
        if !configured.is_empty() {
            return Err(ScheduleError::Configured(file.genesis.chain_id.clone()));
        }
        file.upgrades.clone()
    } else {
        configured.iter().map(|upgrade| upgrade.0).collect()
    };
    let schedule = Schedule::new(&file.genesis, &list, known)?;
    for (height, rules) in schedule.known_rules() {
        let needed = rules.params().machine_version;
        if needed != machine::VERSION {
            return Err(ScheduleError::Machine {
                height,
                needed,
                ours: machine::VERSION,
            });
        }
    }
    Ok(schedule)
}

/// Why a node stops before a height: it needs another program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeNeeded {
    /// The list of upgrades says so.
    #[error("{0}: install a release that knows it and start again")]
    Listed(#[from] UnknownVersion),
    /// More than two thirds of the validators' power decided a block of another version.
    #[error(
        "block {height} is certified and has protocol version {certified}; on this node height \
         {height} has version {ours} by its list of upgrades, and it knows {known}: install the \
         release, or the list of upgrades, that the other nodes have, and start again"
    )]
    Certified {
        /// The block's height.
        height: Height,
        /// Its version.
        certified: ProtocolVersion,
        /// The version of that height here.
        ours: ProtocolVersion,
        /// The versions that this program knows.
        known: String,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proofmill_chain::types::units::{Height, MachineVersion, ProtocolVersion};
    use proofmill_chain::upgrades::{RELEASED, Upgrade};

    use super::{Configured, ScheduleError, schedule};
    use crate::devnet;
    use crate::genesis_file::{self, GenesisFile};

    const UPGRADE: Upgrade = Upgrade {
        version: ProtocolVersion::new(2),
        height: Height::new(20),
    };

    #[test]
    fn a_configured_upgrade_is_version_at_height() {
        let parsed: Configured = "2@20".parse().expect("an upgrade");
        assert_eq!(parsed, Configured(UPGRADE));
        assert_eq!(parsed.to_string(), "2@20");
        for text in ["", "2", "@", "2@", "@20", "2@-1", "x@20", "2@20@30"] {
            let error = text.parse::<Configured>().expect_err("a refusal");
            assert!(error.to_string().contains("VERSION@HEIGHT"), "{error}");
        }
    }

    #[test]
    fn a_devnets_list_is_in_its_genesis_file_and_any_others_in_the_configuration() {
        let mut file = GenesisFile {
            genesis: devnet::genesis(1, 0),
            upgrades: vec![UPGRADE],
        };
        let configured = [Configured(UPGRADE)];
        let stops_at = |file: &GenesisFile, configured: &[Configured]| {
            let schedule = schedule(file, configured, RELEASED).expect("a schedule");
            schedule.at(Height::new(19)).expect("known");
            let unknown = schedule.at(Height::new(20));
            unknown.expect_err("not known").height
        };
        assert_eq!(stops_at(&file, &[]), Height::new(20));
        let refused = schedule(&file, &configured, RELEASED);
        assert!(matches!(refused, Err(ScheduleError::Configured(_))));
        // A file of another chain with a list is refused when it is read.
        file.genesis.chain_id = "public-1".into();
        file.upgrades.clear();
        assert_eq!(stops_at(&file, &configured), Height::new(20));
    }

    #[test]
    fn a_genesis_file_keeps_its_list_and_its_hash() {
        let file = GenesisFile {
            genesis: devnet::genesis(1, 0),
            upgrades: vec![UPGRADE],
        };
        let text = genesis_file::text(&file);
        let read = genesis_file::parse(Path::new("genesis.json"), &text).expect("a genesis");
        assert_eq!(read, file);
        assert_eq!(read.genesis.hash(), devnet::genesis(1, 0).hash());
        let public = text.replace("\"devnet-1\"", "\"public-1\"");
        let refused = genesis_file::parse(Path::new("genesis.json"), &public);
        let message = refused.expect_err("a refusal").to_string();
        assert!(message.contains("upgrades"), "{message}");
    }

    #[test]
    fn a_machine_that_this_program_lacks_is_named() {
        let mut file = GenesisFile::from(devnet::genesis(1, 0));
        file.genesis.params.machine_version = MachineVersion::new(9);
        let error = schedule(&file, &[], RELEASED).expect_err("a refusal");
        assert_eq!(
            error.to_string(),
            "from height 0 on the chain needs machine version 9, this program has 1"
        );
    }
}
