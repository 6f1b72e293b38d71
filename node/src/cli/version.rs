//! `proofmill version`: which program this is, and what it agrees with others about.

use serde::Serialize;

use crate::cli::{Global, out};
use crate::{COMMIT, VERSION, devnet, genesis_file, keys};
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::ProtocolVersion;

const EXAMPLES: &str = "\
Examples:
  proofmill version
  proofmill version --home node --json";

/// Show the program's version, its commit and what it speaks
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    devnet_genesis_hash: Hash,
    #[serde(skip_serializing_if = "Option::is_none")]
    home_genesis_hash: Option<Hash>,
    protocols: Protocols,
}

#[derive(Serialize)]
struct Protocols {
    chain: Vec<ProtocolVersion>,
    machine: u32,
    json_rpc: &'static str,
    key_file: u32,
}

/// Shows the version.
///
/// # Errors
/// When `--home` or the environment names a home whose genesis is refused.
pub fn run(_: Args, global: &Global) -> anyhow::Result<()> {
    let home_genesis_hash = match global.named_home() {
        Some(_) => {
            let path = global.home()?.genesis();
            // A home for account keys alone has no genesis.
            path.exists()
                .then(|| genesis_file::load(&path))
                .transpose()?
                .map(|file| file.genesis.hash())
        }
        None => None,
    };
    let version = Version {
        version: VERSION,
        commit: COMMIT,
        devnet_genesis_hash: devnet::genesis(devnet::VALIDATORS, devnet::WORKERS).hash(),
        home_genesis_hash,
        protocols: Protocols {
            chain: global.known.iter().map(|known| known.version).collect(),
            machine: proofmill_compute::MACHINE_VERSION,
            json_rpc: "2.0",
            key_file: keys::VERSION,
        },
    };
    if global.json {
        return out::json(&version);
    }
    let mut lines = vec![
        ("proofmill", version.version.to_owned()),
        ("commit", version.commit.to_owned()),
        ("devnet genesis", version.devnet_genesis_hash.to_string()),
    ];
    if let Some(hash) = version.home_genesis_hash {
        lines.push(("home genesis", hash.to_string()));
    }
    let protocols = &version.protocols;
    let chain: Vec<_> = protocols.chain.iter().map(ToString::to_string).collect();
    lines.extend([
        ("chain protocol", chain.join(", ")),
        ("machine", protocols.machine.to_string()),
        ("JSON-RPC", protocols.json_rpc.to_owned()),
        ("key file", protocols.key_file.to_string()),
    ]);
    out::text(&out::pairs(&lines))
}
