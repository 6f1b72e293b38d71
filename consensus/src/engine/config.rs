//! The engine's own configuration, from ours.

use std::time::Duration;

use arc_malachitebft_app_channel::app::config::NodeConfig;
use arc_malachitebft_config::{ConsensusConfig, ValuePayload, ValueSyncConfig};
use proofmill_chain::types::block::BLOCK_BYTES_MAX;

use super::{EngineConfig, EngineError, NetworkConfig};
use crate::codec::RESPONSE_BYTES_MAX;

/// Connections from one address, each peer having up to five: few enough that no address takes the room of
/// all. A site with many nodes behind one address dials out.
const CONNECTIONS_PER_IP_MAX: usize = 16;
/// The same where only this machine can connect: a devnet has all its nodes on one address.
const CONNECTIONS_OF_MACHINE_MAX: usize = 64;
/// Peers that may dial this node. The network holds room for four times as many connections.
const INBOUND_PEERS_MAX: usize = 200;
/// A gossip message with a part of a block and its frame.
const GOSSIP_BYTES_MAX: u64 = 1 << 20;
/// What surrounds the blocks of an answer.
const FRAME_BYTES: u64 = 64 << 10;
/// How often peers tell each other their heights.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// A size in the configuration's own type, which the engine does not name for us.
fn size<T: Default + std::ops::Add<u64, Output = T>>(bytes: u64) -> T {
    T::default() + bytes
}

/// The engine's own configuration.
pub(crate) struct Node {
    moniker: String,
    consensus: ConsensusConfig,
    sync: ValueSyncConfig,
}

impl Node {
    pub(super) fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        if config.max_block_bytes == 0 || config.max_block_bytes > BLOCK_BYTES_MAX {
            let given = config.max_block_bytes;
            let reason =
                format!("blocks of {given} bytes, from 1 to {BLOCK_BYTES_MAX} are possible");
            return Err(EngineError::Config(reason));
        }
        node_of(&config.network)
    }
}

/// The configuration of a peer in the network.
pub(crate) fn node_of(config: &NetworkConfig) -> Result<Node, EngineError> {
    // The engine panics on an address without a transport that it knows.
    if !config.listen.contains("/tcp/") && !config.listen.contains("/quic-v1") {
        let reason = format!("`{}` names neither /tcp/ nor /quic-v1", config.listen);
        return Err(EngineError::Config(reason));
    }
    let bad = |text: &str, error: &dyn std::fmt::Display| {
        EngineError::Config(format!("`{text}` is not a multiaddress: {error}"))
    };
    let mut consensus = ConsensusConfig {
        value_payload: ValuePayload::ProposalAndParts,
        ..ConsensusConfig::default()
    };
    let p2p = &mut consensus.p2p;
    p2p.listen_addr = config
        .listen
        .parse()
        .map_err(|error| bad(&config.listen, &error))?;
    for peer in &config.persistent_peers {
        let address = peer.parse().map_err(|error| bad(peer, &error))?;
        p2p.persistent_peers.push(address);
    }
    p2p.discovery.enabled = false;
    p2p.discovery.num_inbound_peers = INBOUND_PEERS_MAX;
    p2p.discovery.max_connections_per_ip = connections_per_ip(&config.listen);
    p2p.pubsub_max_size = size(GOSSIP_BYTES_MAX);
    p2p.rpc_max_size = size(RESPONSE_BYTES_MAX as u64);
    let sync = ValueSyncConfig {
        status_update_interval: STATUS_INTERVAL,
        max_response_size: size(RESPONSE_BYTES_MAX as u64 - FRAME_BYTES),
        ..ValueSyncConfig::default()
    };
    Ok(Node {
        moniker: config.moniker.clone(),
        consensus,
        sync,
    })
}

fn connections_per_ip(listen: &str) -> usize {
    let is_of_machine = listen.starts_with("/ip4/127.") || listen.starts_with("/ip6/::1/");
    if is_of_machine {
        CONNECTIONS_OF_MACHINE_MAX
    } else {
        CONNECTIONS_PER_IP_MAX
    }
}

impl NodeConfig for Node {
    fn moniker(&self) -> &str {
        &self.moniker
    }

    fn consensus(&self) -> &ConsensusConfig {
        &self.consensus
    }

    fn consensus_mut(&mut self) -> &mut ConsensusConfig {
        &mut self.consensus
    }

    fn value_sync(&self) -> &ValueSyncConfig {
        &self.sync
    }

    fn value_sync_mut(&mut self) -> &mut ValueSyncConfig {
        &mut self.sync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_room_of_all() {
        let of = |listen: &str| {
            let config = NetworkConfig {
                listen: listen.to_owned(),
                persistent_peers: Vec::new(),
                network_seed: [1; 32],
                moniker: "test".to_owned(),
            };
            let node = node_of(&config).expect("an address");
            let discovery = &node.consensus.p2p.discovery;
            (
                discovery.max_connections_per_ip,
                discovery.num_inbound_peers,
            )
        };
        for listen in [
            "/ip4/0.0.0.0/tcp/26656",
            "/ip6/::/tcp/26656",
            "/ip4/10.0.0.1/tcp/1",
        ] {
            let (per_ip, inbound) = of(listen);
            assert!(12 * per_ip <= inbound, "{listen}: {per_ip} of {inbound}");
        }
        for listen in ["/ip4/127.0.0.1/tcp/26656", "/ip6/::1/tcp/26656"] {
            assert!(of(listen).0 >= 64, "{listen}");
        }
    }
}
