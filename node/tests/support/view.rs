//! What a node says over RPC.

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_node::client::Client;
use proofmill_rpc::api::{BlockRef, BlockSummary};

use super::{PATIENCE, within};

/// A node that may be asked.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its RPC server.
    pub(crate) client: Client,
}

impl Node {
    /// The node at `url`.
    pub(crate) fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.into(),
            client: Client::new(url).expect("an address"),
        }
    }

    /// Its last final block; `None` while it does not answer.
    pub(crate) fn try_head(&self) -> Option<BlockSummary> {
        self.client.head().ok()
    }

    /// Its last final block.
    pub(crate) fn head(&self) -> BlockSummary {
        let head = self.client.head();
        head.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Its block at a height.
    pub(crate) fn block(&self, height: Height) -> BlockSummary {
        let block = self.client.block(BlockRef::Height(height), false);
        let block = block.unwrap_or_else(|error| panic!("{}, block {height}: {error}", self.name));
        assert_eq!(block.summary.height, height, "{}", self.name);
        block.summary
    }

    /// Waits until it has a final block of this height.
    pub(crate) fn reaches(&self, height: Height) -> BlockSummary {
        let what = format!("{} reaches height {height}", self.name);
        within(PATIENCE, &what, || {
            self.try_head().filter(|head| head.height >= height)
        })
    }
}

/// The hash of the block at a height, once all nodes have one: the same everywhere.
pub(crate) fn agree_on(nodes: &[Node], height: Height) -> Hash {
    let blocks: Vec<_> = nodes
        .iter()
        .map(|node| {
            node.reaches(height);
            node.block(height)
        })
        .collect();
    for (node, block) in nodes.iter().zip(&blocks) {
        assert_eq!(*block, blocks[0], "{} at height {height}", node.name);
    }
    blocks[0].hash
}
