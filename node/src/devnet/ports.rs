//! The ports of a development network: a fixed plan from a base, or any that are free.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Consensus listens this far above the RPC port.
const CONSENSUS: u16 = 100;
/// Gossip listens this far above the RPC port.
const GOSSIP: u16 = 200;

/// The ports of one validator, all on the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// JSON-RPC.
    pub rpc: u16,
    /// Consensus.
    pub consensus: u16,
    /// Gossip.
    pub gossip: u16,
}

/// Why ports cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The plan leaves the range of ports.
    #[error("--port {base} is too high: {count} validators need ports up to {last}")]
    TooHigh {
        /// The base.
        base: u16,
        /// How many validators.
        count: u32,
        /// The last port needed.
        last: u32,
    },
    /// A port is in use.
    #[error(
        "port {port}, which {who} needs, is in use: stop what listens there, or choose other ports \
         with --port BASE (0 takes any that are free)"
    )]
    InUse {
        /// The port.
        port: u16,
        /// Who needs it and for what.
        who: String,
    },
    /// The system refused.
    #[error("port {port} on 127.0.0.1: {error}")]
    Io {
        /// The port; 0 for any.
        port: u16,
        /// Why.
        error: io::Error,
    },
}

impl NodePorts {
    fn each(self) -> [(u16, &'static str); 3] {
        [
            (self.rpc, "RPC"),
            (self.consensus, "consensus"),
            (self.gossip, "gossip"),
        ]
    }

    /// Refuses when one of them cannot be listened on.
    pub(super) fn check(self, index: u32) -> Result<(), PortError> {
        for (port, what) in self.each() {
            listen(port).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => PortError::InUse {
                    port,
                    who: format!("node{index}'s {what}"),
                },
                _ => PortError::Io { port, error },
            })?;
        }
        Ok(())
    }
}

/// The plan from a base port: RPC at `base`, consensus 100 and gossip 200 above, validator `i` at
/// `i` more. Each port is tried.
pub(super) fn fixed(base: u16, count: u32) -> Result<Vec<NodePorts>, PortError> {
    let last = u32::from(base) + u32::from(GOSSIP) + count.saturating_sub(1);
    if last > u32::from(u16::MAX) {
        return Err(PortError::TooHigh { base, count, last });
    }
    let mut all = Vec::new();
    for (index, rpc) in (0..count).zip(base..) {
        let ports = NodePorts {
            rpc,
            consensus: rpc + CONSENSUS,
            gossip: rpc + GOSSIP,
        };
        ports.check(index)?;
        all.push(ports);
    }
    Ok(all)
}

/// Ports that are free now. Nobody holds them: what binds one in between makes a start fail.
pub(super) fn free(count: u32) -> Result<Vec<NodePorts>, PortError> {
    let io_error = |error| PortError::Io { port: 0, error };
    let mut held = Vec::new();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut one = || {
            let listener = listen(0)?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        all.push(NodePorts {
            rpc: one().map_err(io_error)?,
            consensus: one().map_err(io_error)?,
            gossip: one().map_err(io_error)?,
        });
    }
    Ok(all)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{NodePorts, PortError, fixed, free, listen};

    #[test]
    fn free_ports_are_distinct() {
        let all = free(5).expect("ports");
        let distinct: BTreeSet<_> = all.iter().flat_map(|ports| ports.each()).collect();
        let ports: BTreeSet<_> = distinct.iter().map(|(port, _)| port).collect();
        assert_eq!(ports.len(), 15);
    }

    #[test]
    fn a_port_in_use_is_named_with_who_needs_it_and_the_flag() {
        let taken = listen(0).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let others = free(1).expect("ports")[0];
        let ports = NodePorts {
            consensus: port,
            ..others
        };
        let message = ports.check(2).expect_err("a refusal").to_string();
        assert!(message.contains(&port.to_string()), "{message}");
        assert!(
            message.contains("node2's consensus") && message.contains("--port"),
            "{message}"
        );
    }

    #[test]
    fn a_plan_beyond_the_last_port_is_refused() {
        let refused = fixed(65_400, 4).expect_err("a refusal");
        assert!(
            matches!(refused, PortError::TooHigh { last: 65_603, .. }),
            "{refused}"
        );
    }
}
