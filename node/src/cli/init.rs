//! `proofmill init`: a home for a new node.

use std::path::PathBuf;

use anyhow::Context as _;
use libp2p::identity::Keypair;
use serde_json::json;

use crate::cli::{Global, out};
use crate::config::Config;
use crate::home::{Home, NodeKeys};
use crate::{devnet, genesis_file, keys};

const EXAMPLES: &str = "\
Examples:
  proofmill init --home node --genesis genesis.json --moniker paris
  proofmill init --home node";

/// Make the home of a new node: keys, config.toml and genesis
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The chain's genesis file; the development network's when left out
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// The node's name, for people
    #[arg(long, value_name = "NAME", default_value = "node")]
    pub moniker: String,
}

/// Makes a home.
///
/// # Errors
/// When the directory is not empty, the genesis is refused, or something cannot be written.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let home = global
        .home
        .clone()
        .context("say with --home which directory becomes the node's home")?;
    let file = match &args.genesis {
        Some(path) => genesis_file::load(path)?,
        None => devnet::genesis(devnet::VALIDATORS, devnet::WORKERS).into(),
    };
    let config = Config {
        moniker: args.moniker,
        ..Config::default()
    };
    config.check()?;
    let node_keys = NodeKeys {
        validator: keys::generate()?,
        beacon: keys::generate()?,
        node: keys::generate()?,
    };
    let text = genesis_file::text(&file);
    let genesis = &file.genesis;
    let home = Home::new(home).create(
        &node_keys,
        &genesis.hash(),
        &text,
        &config.to_commented_toml(),
    )?;
    let validator = node_keys.validator.public();
    let beacon = node_keys.beacon.public();
    let peer = Keypair::ed25519_from_bytes(node_keys.node.seed())
        .context("the node's key makes no peer id")?
        .public()
        .to_peer_id();
    if global.json {
        return out::json(&json!({
            "home": home.path(),
            "chain_id": genesis.chain_id,
            "genesis_hash": genesis.hash(),
            "validator_key": validator,
            "beacon_key": beacon,
            "peer_id": peer.to_string(),
        }));
    }
    let place = home.path().display();
    let lines = [
        ("home", place.to_string()),
        (
            "chain",
            format!("{} ({})", genesis.chain_id, genesis.hash()),
        ),
        ("validator key", validator.to_string()),
        ("beacon key", beacon.to_string()),
        ("peer id", peer.to_string()),
    ];
    out::text(&format!(
        "{}
Next:
  1. Put the addresses of other nodes into {config} (consensus.peers, gossip.peers).
  2. proofmill start --home {place}
     follows the chain. It votes once the genesis names its validator key and beacon key.
  3. Keep a copy of {keys}: a lost validator key is lost for ever.
     Never let two nodes run with the same validator key.",
        out::pairs(&lines),
        config = home.config().display(),
        keys = home.path().join("keys").display(),
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;
    use crate::config::{Config, Overrides};
    use crate::home::Home;
    use crate::{genesis_file, keys};

    fn proofmill(arguments: &[&str]) -> anyhow::Result<()> {
        let words = std::iter::once("proofmill").chain(arguments.iter().copied());
        Cli::try_parse_from(words).expect("a command").run()
    }

    #[test]
    fn init_makes_a_home_that_a_node_can_start_from() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("home");
        let home = path.to_str().expect("a text");
        proofmill(&["init", "--home", home, "--moniker", "paris"]).expect("a home");
        let home = Home::new(&path);
        let config = Config::load(&home, &Overrides::default()).expect("a configuration");
        assert_eq!(config.moniker, "paris");
        genesis_file::load(&home.genesis()).expect("a genesis");
        for key in [home.validator_key(), home.beacon_key(), home.node_key()] {
            keys::read(&key).expect("a key");
        }
    }

    #[test]
    fn init_refuses_a_directory_that_is_not_empty() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("mine"), "x").expect("a file");
        let home = place.path().to_str().expect("a text");
        let message = proofmill(&["init", "--home", home]).expect_err("a refusal");
        assert!(message.to_string().contains("is not empty"), "{message}");
        assert_eq!(
            std::fs::read_dir(place.path())
                .expect("a directory")
                .count(),
            1
        );
    }

    #[test]
    fn init_refuses_a_bad_genesis_or_name_before_it_writes() {
        let place = tempfile::tempdir().expect("a directory");
        let bad = place.path().join("bad.json");
        std::fs::write(&bad, "{}").expect("a file");
        let path = place.path().join("home");
        let home = path.to_str().expect("a text");
        let bad = bad.to_str().expect("a text");
        proofmill(&["init", "--home", home, "--genesis", bad]).expect_err("a refusal");
        proofmill(&["init", "--home", home, "--moniker", ""]).expect_err("a refusal");
        assert!(!path.exists());
    }
}
