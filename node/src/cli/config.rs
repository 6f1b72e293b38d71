//! `proofmill config`: what is in effect and where it comes from.

use clap::Subcommand;
use serde_json::json;

use crate::cli::{Global, out};
use crate::config::{Effective, Overrides, Source};

const EXAMPLES: &str = "\
Examples:
  proofmill config show --home node
  proofmill config show --home node --json";

/// Show a node's configuration
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every value in effect and where it comes from
    #[command(after_help = EXAMPLES)]
    Show(Box<Flags>),
}

/// A node's configuration on the command line: a flag for each key.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration (before environment and config.toml)")]
pub struct Flags {
    /// The node's name, for people
    #[arg(long, value_name = "NAME")]
    pub moniker: Option<String>,
    /// The chain's upgrades, VERSION@HEIGHT, separated by commas
    #[arg(long, value_name = "UPGRADES")]
    pub upgrades: Option<String>,
    /// Where the JSON-RPC server listens
    #[arg(long, value_name = "IP:PORT")]
    pub rpc_listen: Option<String>,
    /// Origins of web pages that may call it, separated by commas
    #[arg(long, value_name = "ORIGINS")]
    pub rpc_cors_origins: Option<String>,
    /// Names by which it may be called besides localhost and IP addresses, separated by commas
    #[arg(long, value_name = "NAMES")]
    pub rpc_hosts: Option<String>,
    /// Connections open at a time
    #[arg(long, value_name = "COUNT")]
    pub rpc_connections_max: Option<String>,
    /// Connections open at a time from one address
    #[arg(long, value_name = "COUNT")]
    pub rpc_connections_per_address_max: Option<String>,
    /// Requests at work or being answered at a time
    #[arg(long, value_name = "COUNT")]
    pub rpc_requests_max: Option<String>,
    /// Bytes of large answers that are made or being written
    #[arg(long, value_name = "BYTES")]
    pub rpc_answers_bytes_max: Option<String>,
    /// Where consensus listens
    #[arg(long, value_name = "MULTIADDR")]
    pub consensus_listen: Option<String>,
    /// Peers of consensus, separated by commas
    #[arg(long, value_name = "MULTIADDRS")]
    pub consensus_peers: Option<String>,
    /// Where gossip listens
    #[arg(long, value_name = "MULTIADDR")]
    pub gossip_listen: Option<String>,
    /// Peers of gossip, separated by commas
    #[arg(long, value_name = "MULTIADDRS")]
    pub gossip_peers: Option<String>,
    /// How long an empty block is held back, milliseconds
    #[arg(long, value_name = "MS")]
    pub block_idle_ms: Option<String>,
    /// What all caches together may take, MiB
    #[arg(long, value_name = "MIB")]
    pub memory_caches_mib: Option<String>,
    /// Count all money every so many blocks; 0 for never
    #[arg(long, visible_alias = "verify-supply", value_name = "BLOCKS")]
    pub supply_verify_every: Option<String>,
    /// What is logged: a level, or levels by module
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How a line of the log looks: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Close a log file larger than this, bytes
    #[arg(long, value_name = "BYTES")]
    pub log_bytes_max: Option<String>,
    /// How many closed log files are kept
    #[arg(long, value_name = "FILES")]
    pub log_files_max: Option<String>,
}

impl Flags {
    /// The values that were given.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        let given = [
            ("moniker", &self.moniker),
            ("upgrades", &self.upgrades),
            ("rpc.listen", &self.rpc_listen),
            ("rpc.cors_origins", &self.rpc_cors_origins),
            ("rpc.hosts", &self.rpc_hosts),
            ("rpc.connections_max", &self.rpc_connections_max),
            (
                "rpc.connections_per_address_max",
                &self.rpc_connections_per_address_max,
            ),
            ("rpc.requests_max", &self.rpc_requests_max),
            ("rpc.answers_bytes_max", &self.rpc_answers_bytes_max),
            ("consensus.listen", &self.consensus_listen),
            ("consensus.peers", &self.consensus_peers),
            ("gossip.listen", &self.gossip_listen),
            ("gossip.peers", &self.gossip_peers),
            ("block.idle_ms", &self.block_idle_ms),
            ("memory.caches_mib", &self.memory_caches_mib),
            ("supply.verify_every", &self.supply_verify_every),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
            ("log.bytes_max", &self.log_bytes_max),
            ("log.files_max", &self.log_files_max),
        ];
        for (key, value) in given {
            overrides.set(key, value.as_deref());
        }
        overrides
    }
}

/// Shows the configuration.
///
/// # Errors
/// When there is none, or it is refused.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let ConfigCommand::Show(flags) = args.command;
    let home = global.home()?;
    let environment = |name: &str| std::env::var(name).ok();
    let effective = Effective::load(&home, &flags.overrides(), environment)?;
    if global.json {
        return out::json(&json!({
            "home": home.path(),
            "settings": effective.settings,
        }));
    }
    let rows: Vec<_> = effective
        .settings
        .iter()
        .map(|setting| {
            let source = match setting.source {
                Source::Default => "default",
                Source::File => "config.toml",
                Source::Environment => "environment",
                Source::Flag => "flag",
            };
            vec![setting.key.into(), setting.value.to_string(), source.into()]
        })
        .collect();
    out::text(&out::table(&["KEY", "VALUE", "FROM"], &rows))
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::Flags;
    use crate::config::{Config, Effective, KEYS, Source};
    use crate::home::Home;

    #[test]
    fn every_key_has_a_flag_that_sets_it() {
        let command = Flags::augment_args(clap::Command::new("test"));
        let place = tempfile::tempdir().expect("a directory");
        let home = Home::new(place.path());
        std::fs::write(home.config(), Config::default().to_commented_toml()).expect("a file");
        let settings = Effective::load(&home, &Default::default(), |_| None);
        let settings = settings.expect("a configuration").settings;
        for (key, setting) in KEYS.iter().zip(settings) {
            let flag = format!("--{}", key.name.replace(['.', '_'], "-"));
            let value = match setting.value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                _ => String::new(),
            };
            let matches = command
                .clone()
                .try_get_matches_from(["test", &flag, &value])
                .unwrap_or_else(|error| panic!("{flag}: {error}"));
            let flags = <Flags as clap::FromArgMatches>::from_arg_matches(&matches);
            let flags = flags.expect("flags").overrides();
            let effective = Effective::load(&home, &flags, |_| None).expect("a configuration");
            for setting in effective.settings {
                let is_it = setting.key == key.name;
                assert_eq!(
                    setting.source == Source::Flag,
                    is_it,
                    "{flag}: {}",
                    setting.key
                );
            }
        }
    }
}
