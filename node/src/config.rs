//! A node's configuration: flags before environment before `config.toml` before defaults.
//!
//! One table names every key with its documentation and its rule; the file that `init` writes,
//! the environment's variables, the suggestions for misspelt keys and `config show` come from it.

mod caches;
mod keys;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use libp2p::Multiaddr;
use proofmill_rpc::limits;
use proofmill_rpc::nearest::nearest;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use self::caches::Caches;
pub use self::keys::{KEYS, Key};
use crate::home::Home;
use crate::upgrades::Configured;

/// Everything that an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The node's name for people.
    pub moniker: String,
    /// The chain's upgrades; a development network has them in its genesis file.
    pub upgrades: Vec<Configured>,
    /// The JSON-RPC server.
    pub rpc: Rpc,
    /// The network of consensus.
    pub consensus: Consensus,
    /// The network of transactions and attestations.
    pub gossip: Gossip,
    /// Building blocks.
    pub block: Block,
    /// Memory.
    pub memory: Memory,
    /// Watching the supply.
    pub supply: Supply,
    /// The log.
    pub log: Log,
}

/// The JSON-RPC server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rpc {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Origins of web pages that may call it; `*` for all.
    pub cors_origins: Vec<String>,
    /// Names by which it may be called besides `localhost` and IP addresses; `*` for all.
    pub hosts: Vec<String>,
    /// Connections open at a time.
    pub connections_max: u64,
    /// Connections open at a time from one address.
    pub connections_per_address_max: u64,
    /// Requests at work or being answered at a time.
    pub requests_max: u64,
    /// Bytes of large answers that are made or being written.
    pub answers_bytes_max: u64,
}

/// The network of consensus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consensus {
    /// Where it listens.
    pub listen: Multiaddr,
    /// Peers to stay connected to.
    pub peers: Vec<Multiaddr>,
}

/// The network of transactions and attestations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossip {
    /// Where it listens.
    pub listen: Multiaddr,
    /// Peers to stay connected to.
    pub peers: Vec<Multiaddr>,
}

/// Building blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// How long an empty block is held back, milliseconds.
    pub idle_ms: u64,
}

/// Memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What all caches together may take, MiB.
    pub caches_mib: u64,
}

impl Memory {
    /// What all caches together may take.
    #[must_use]
    pub fn caches(&self) -> Caches {
        Caches::of_mib(self.caches_mib)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { caches_mib: 256 }
    }
}

/// Watching the supply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// All money is counted every so many blocks; 0 for never.
    pub verify_every: u64,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// What is logged: a level, or levels by module.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// A file is closed when it is larger than this, bytes.
    pub bytes_max: u64,
    /// How many closed files are kept.
    pub files_max: u64,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let listen = |port: u16| {
            Multiaddr::empty()
                .with(libp2p::multiaddr::Protocol::Ip4([127, 0, 0, 1].into()))
                .with(libp2p::multiaddr::Protocol::Tcp(port))
        };
        Self {
            moniker: "node".into(),
            upgrades: Vec::new(),
            rpc: Rpc {
                listen: SocketAddr::from(([127, 0, 0, 1], 26_650)),
                cors_origins: Vec::new(),
                hosts: Vec::new(),
                connections_max: limits::CONNECTIONS_MAX as u64,
                connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX as u64,
                requests_max: limits::REQUESTS_MAX as u64,
                answers_bytes_max: limits::ANSWERS_BYTES_MAX as u64,
            },
            consensus: Consensus {
                listen: listen(26_750),
                peers: Vec::new(),
            },
            gossip: Gossip {
                listen: listen(26_850),
                peers: Vec::new(),
            },
            block: Block { idle_ms: 1_000 },
            memory: Memory::default(),
            supply: Supply { verify_every: 0 },
            log: Log {
                level: "info".into(),
                format: LogFormat::Text,
                bytes_max: 16 << 20,
                files_max: 5,
            },
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nobody chose it.
    Default,
    /// `config.toml`.
    File,
    /// An environment variable.
    Environment,
    /// A flag of the command line.
    Flag,
}

/// A value in effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key, as `rpc.listen`.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// Where it comes from.
    pub source: Source,
}

/// Values given on the command line, as text: key, then value. Lists are separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(Vec<(&'static str, String)>);

impl Overrides {
    /// Adds a value, when there is one.
    pub fn set(&mut self, key: &'static str, value: Option<&str>) {
        self.0.extend(value.map(|value| (key, value.to_owned())));
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no file.
    #[error("{0} does not exist: `proofmill init --home DIR` makes a node's home")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {message}")]
    Syntax {
        /// Where.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A key that means nothing.
    #[error("{path}: unknown key `{key}`{}", did_you_mean(*.near))]
    Unknown {
        /// Where.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that was probably meant.
        near: Option<&'static str>,
    },
    /// A value that cannot be.
    #[error("{key} is {value} ({origin}): {rule}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Where it was given.
        origin: String,
        /// What is expected.
        rule: String,
    },
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(
        || "; `proofmill config show` lists all keys".into(),
        |near| format!(": did you mean `{near}`?"),
    )
}

impl Config {
    /// The configuration of a home, with what the command line and the environment say.
    ///
    /// # Errors
    /// When the file is missing or malformed, a key is unknown or a value cannot be.
    pub fn load(home: &Home, overrides: &Overrides) -> Result<Self, ConfigError> {
        let environment = |name: &str| std::env::var(name).ok();
        Ok(Effective::load(home, overrides, environment)?.config)
    }

    /// Whether every value obeys its key's rule.
    ///
    /// # Errors
    /// With the first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let values = flat(self);
        for key in KEYS {
            if let Some(value) = values.get(key.name) {
                key.check(value, value, "given")?;
            }
        }
        Ok(())
    }

    /// The text of a `config.toml` with these values, every key with a comment.
    #[must_use]
    pub fn to_commented_toml(&self) -> String {
        let mut text = String::from(
            "# Configuration of a Proofmill node.\n\
             # Flags of `proofmill start` come first, then environment variables, then this file.\n",
        );
        let values = flat(self);
        let mut section = "";
        for key in KEYS {
            let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if table != section {
                text.push_str(&format!("\n[{table}]\n"));
                section = table;
            } else {
                text.push('\n');
            }
            for line in key.doc.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            if let Some(value) = values.get(key.name) {
                text.push_str(&format!("{name} = {value}\n"));
            }
        }
        text
    }
}

/// A configuration that knows where each value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// The same, with their sources, in the order of [`KEYS`].
    pub settings: Vec<Setting>,
}

impl Effective {
    /// As [`Config::load`]; `environment` gives the value of a variable.
    ///
    /// # Errors
    /// As [`Config::load`].
    ///
    /// # Panics
    /// Never: the table of keys has the configuration's fields, by test.
    pub fn load(
        home: &Home,
        overrides: &Overrides,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let path = home.config();
        let file = read(&path)?;
        let defaults = flat(&Config::default());
        let mut settings = Vec::with_capacity(KEYS.len());
        let mut values = Table::new();
        for key in KEYS {
            let default = defaults
                .get(key.name)
                .expect("the table of keys has the configuration's fields");
            let flag = overrides.0.iter().rev().find(|(name, _)| *name == key.name);
            let (value, source, origin) = if let Some((_, text)) = flag {
                let flag = format!("flag --{}", key.name.replace(['.', '_'], "-"));
                (key.parse(text, default, &flag)?, Source::Flag, flag)
            } else if let Some(text) = environment(&key.variable()) {
                let variable = format!("environment {}", key.variable());
                let value = key.parse(&text, default, &variable)?;
                (value, Source::Environment, variable)
            } else if let Some(value) = file.get(key.name) {
                (value.clone(), Source::File, path.display().to_string())
            } else {
                (default.clone(), Source::Default, "default".into())
            };
            key.check(&value, default, &origin)?;
            insert(&mut values, key.name, value.clone());
            settings.push(Setting {
                key: key.name,
                value,
                source,
            });
        }
        let config = values
            .try_into()
            .expect("every value was checked against its key's rule");
        Ok(Self { config, settings })
    }
}

/// The file's leaves by dotted key, each of them known.
fn read(path: &std::path::Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(path.into()),
        _ => ConfigError::Io {
            path: path.into(),
            error,
        },
    })?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.into(),
            message: error.to_string().trim_end().into(),
        })?;
    let mut leaves = Table::new();
    flatten("", table, &mut leaves);
    for key in leaves.keys() {
        if !KEYS.iter().any(|known| known.name == key) {
            return Err(ConfigError::Unknown {
                path: path.into(),
                key: key.clone(),
                near: nearest(key, KEYS.iter().map(|known| known.name)),
            });
        }
    }
    Ok(leaves)
}

fn flatten(prefix: &str, table: Table, leaves: &mut Table) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(table) => flatten(&key, table, leaves),
            value => {
                leaves.insert(key, value);
            }
        }
    }
}

/// Puts a value at its dotted key; keys have one dot at most.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((section, name)) => {
            let section = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(name.into(), value);
            }
        }
    }
}

/// A configuration's values by dotted key.
fn flat(config: &Config) -> Table {
    let table = Table::try_from(config).expect("a configuration has only values that TOML has");
    let mut leaves = Table::new();
    flatten("", table, &mut leaves);
    leaves
}
