//! Reading a genesis file: what is misspelt is named, what is unsafe is refused.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use proofmill_chain::types::genesis::{
    DEVNET_PREFIX, Genesis, GenesisAccount, GenesisError, GenesisWorker,
};
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::params::Params;
use proofmill_chain::types::validator::Validator;
use proofmill_chain::upgrades::Upgrade;
use proofmill_rpc::nearest::nearest;
use serde::{Deserialize, Serialize};

use crate::dev_keys;

/// Largest genesis file, in bytes.
pub const GENESIS_BYTES_MAX: u64 = 64 << 20;

/// A genesis and, on a development network, the chain's upgrades, which are not part of the genesis hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisFile {
    /// What the chain starts from.
    pub genesis: Genesis,
    /// The upgrades, ascending; none on a chain that is not a development network.
    pub upgrades: Vec<Upgrade>,
}

impl From<Genesis> for GenesisFile {
    fn from(genesis: Genesis) -> Self {
        Self {
            genesis,
            upgrades: Vec::new(),
        }
    }
}

/// The fields of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    chain_id: String,
    genesis_time_ms: u64,
    params: Params,
    validators: Vec<Validator>,
    accounts: Vec<GenesisAccount>,
    workers: Vec<GenesisWorker>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    upgrades: Vec<Upgrade>,
}

impl From<Fields> for GenesisFile {
    fn from(fields: Fields) -> Self {
        Self {
            genesis: Genesis {
                chain_id: fields.chain_id,
                genesis_time_ms: fields.genesis_time_ms,
                params: fields.params,
                validators: fields.validators,
                accounts: fields.accounts,
                workers: fields.workers,
            },
            upgrades: fields.upgrades,
        }
    }
}

impl From<GenesisFile> for Fields {
    fn from(file: GenesisFile) -> Self {
        let GenesisFile { genesis, upgrades } = file;
        Self {
            chain_id: genesis.chain_id,
            genesis_time_ms: genesis.genesis_time_ms,
            params: genesis.params,
            validators: genesis.validators,
            accounts: genesis.accounts,
            workers: genesis.workers,
            upgrades,
        }
    }
}

/// Why a genesis file starts no chain.
#[derive(Debug, thiserror::Error)]
pub enum GenesisFileError {
    /// It cannot be read.
    #[error("cannot read the genesis file {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is too large.
    #[error("the genesis file {0} is larger than {GENESIS_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// It is not JSON, or not a genesis.
    #[error("{path}: {message}")]
    Malformed {
        /// Where.
        path: PathBuf,
        /// What is wrong, where in the file, and what was probably meant.
        message: String,
    },
    /// A well-known key on a chain that is not a devnet.
    #[error(
        "{path}: {key} ({place}) is a well-known development key; anybody can use it, so only a \
         chain whose chain_id begins with `{DEVNET_PREFIX}` may have it, not `{chain_id}`"
    )]
    DevKey {
        /// Where.
        path: PathBuf,
        /// The key.
        key: AccountId,
        /// Where in the file.
        place: String,
        /// The chain's name.
        chain_id: String,
    },
    /// Upgrades of a chain that takes them from its nodes' configuration.
    #[error(
        "{path}: `upgrades` may stand in the genesis file of a chain whose chain_id begins with \
         `{DEVNET_PREFIX}` only, not of `{chain_id}`: put them into the configuration (`upgrades`)"
    )]
    Upgrades {
        /// Where.
        path: PathBuf,
        /// The chain's name.
        chain_id: String,
    },
    /// A rule for genesis is broken.
    #[error("{path}: {error}")]
    Rule {
        /// Where.
        path: PathBuf,
        /// Which.
        error: GenesisError,
    },
}

/// Reads and checks a genesis file.
///
/// # Errors
/// Each variant of [`GenesisFileError`].
pub fn load(path: &Path) -> Result<GenesisFile, GenesisFileError> {
    let io_error = |error| GenesisFileError::Io {
        path: path.into(),
        error,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(GENESIS_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(io_error)?;
    if text.len() as u64 > GENESIS_BYTES_MAX {
        return Err(GenesisFileError::TooLarge(path.into()));
    }
    parse(path, &text)
}

/// Checks the text of a genesis file; `path` is what errors name.
///
/// # Errors
/// As [`load`], except that nothing is read.
pub fn parse(path: &Path, text: &str) -> Result<GenesisFile, GenesisFileError> {
    let fields: Fields =
        serde_json::from_str(text).map_err(|error| GenesisFileError::Malformed {
            path: path.into(),
            message: explained(&error.to_string()),
        })?;
    let GenesisFile { genesis, upgrades } = fields.into();
    if !genesis.is_devnet() && !upgrades.is_empty() {
        return Err(GenesisFileError::Upgrades {
            path: path.into(),
            chain_id: genesis.chain_id,
        });
    }
    if !genesis.is_devnet()
        && let Some((key, place)) = dev_key(&genesis)
    {
        return Err(GenesisFileError::DevKey {
            path: path.into(),
            key,
            place,
            chain_id: genesis.chain_id,
        });
    }
    genesis.state().map_err(|error| GenesisFileError::Rule {
        path: path.into(),
        error,
    })?;
    Ok(GenesisFile { genesis, upgrades })
}

/// The text of a genesis file: what [`load`] reads.
///
/// # Panics
/// Never: a genesis is made of strings, numbers and lists.
#[must_use]
pub fn text(file: &GenesisFile) -> String {
    let mut text = serde_json::to_string_pretty(&Fields::from(file.clone()))
        .expect("a genesis has only values that JSON can express");
    text.push('\n');
    text
}

fn dev_key(genesis: &Genesis) -> Option<(AccountId, String)> {
    let validators = genesis.validators.iter().enumerate().flat_map(|(i, v)| {
        [
            (v.key, format!("validators[{i}].key")),
            (v.beacon_key, format!("validators[{i}].beacon_key")),
            (v.reward, format!("validators[{i}].reward")),
        ]
    });
    let accounts = genesis.accounts.iter().enumerate();
    let accounts = accounts.map(|(i, account)| (account.id, format!("accounts[{i}].id")));
    let workers = genesis.workers.iter().enumerate().flat_map(|(i, worker)| {
        [
            (worker.id, format!("workers[{i}].id")),
            (worker.operator, format!("workers[{i}].operator")),
        ]
    });
    validators
        .chain(accounts)
        .chain(workers)
        .find(|(key, _)| dev_keys::is_dev_key(key))
}

/// serde's message, with the field that was probably meant in place of the list of all fields.
fn explained(message: &str) -> String {
    let Some((before, list)) = message.split_once(", expected ") else {
        return message.into();
    };
    let Some(unknown) = before
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.strip_suffix('`'))
    else {
        return message.into();
    };
    let (list, place) = list.rsplit_once(" at ").unwrap_or((list, "unknown place"));
    let fields = list.split('`').skip(1).step_by(2);
    match nearest(unknown, fields) {
        Some(near) => format!("unknown field `{unknown}` at {place}: did you mean `{near}`?"),
        None => format!("unknown field `{unknown}` at {place}; known here: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{GenesisFileError, load, parse, text};
    use crate::devnet;

    fn refusal(text: &str) -> String {
        parse(Path::new("genesis.json"), text)
            .expect_err("a refusal")
            .to_string()
    }

    #[test]
    fn a_genesis_is_read_as_it_was_written() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("genesis.json");
        let genesis = devnet::genesis(2, 1);
        std::fs::write(&path, text(&genesis.clone().into())).expect("a file");
        let read = load(&path).expect("a genesis").genesis;
        assert_eq!(read, genesis);
        assert_eq!(read.hash(), genesis.hash());
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_nearest() {
        let whole = text(&devnet::genesis(1, 1).into());
        let message = refusal(&whole.replace("\"base_fee\"", "\"basefee\""));
        assert!(message.contains("unknown field `basefee`"), "{message}");
        assert!(message.contains("did you mean `base_fee`?"), "{message}");
        assert!(message.contains("line "), "{message}");
        let message = refusal(&whole.replace("\"chain_id\"", "\"quux\""));
        assert!(
            message.contains("known here") && message.contains("`chain_id`"),
            "{message}"
        );
    }

    #[test]
    fn development_keys_are_refused_on_a_public_chain() {
        let mut genesis = devnet::genesis(1, 1);
        genesis.chain_id = "mainnet-1".into();
        let refused = parse(Path::new("g"), &text(&genesis.into()));
        assert!(
            matches!(&refused, Err(GenesisFileError::DevKey { .. })),
            "{refused:?}"
        );
        let message = refused.expect_err("a refusal").to_string();
        assert!(
            message.contains("validators[0].key") && message.contains("mainnet-1"),
            "{message}"
        );
    }

    #[test]
    fn a_broken_rule_is_named() {
        let mut genesis = devnet::genesis(1, 1);
        genesis.validators.clear();
        assert!(refusal(&text(&genesis.into())).contains("0 validators"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = load(Path::new("no/such/genesis.json")).expect_err("a refusal");
        assert!(message.to_string().contains("no/such/genesis.json"));
    }
}
