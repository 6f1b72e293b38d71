//! The engine's own configuration, from ours.

use std::time::Duration;

use arc_malachitebft_app_channel::app::config::NodeConfig;
use arc_malachitebft_config::{ConsensusConfig, ValuePayload, ValueSyncConfig};
use proofmill_chain::types::block::BLOCK_BYTES_MAX;

use super::{EngineConfig, EngineError, NetworkConfig};
use crate::codec::RESPONSE_BYTES_MAX;

/// Room for connections from one address: a devnet has all its nodes on one.
const CONNECTIONS_PER_IP_MAX: usize = 64;
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
    p2p.discovery.max_connections_per_ip = CONNECTIONS_PER_IP_MAX;
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
