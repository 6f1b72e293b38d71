//! The state tree: one hash for the whole state (protocol §4, "State commitment").
//!
//! A binary sparse Merkle tree over 256-bit keys. A subtree without leaves hashes to 32 zero
//! bytes, a subtree with one leaf is that leaf, any other is the hash of its two halves, split at
//! the next bit of the key. The shape depends on the keys alone, never on the order of updates.
//!
//! The tree is derived data: it lives in memory and holds hashes, not values. It is persistent:
//! an update shares every untouched node with the tree it came from, so a speculative block costs
//! what it touches and a clone costs nothing. The keys are hashes, so nobody places them freely;
//! whoever grinds two keys with a common prefix of n bits pays 2^(n/2) hashes and buys n nodes.
//!
//! ```
//! use proofmill_chain::tree::{Tree, value_hash};
//! use proofmill_chain::types::hash::Hash;
//!
//! let (here, there) = (Hash::of("a", &[]), Hash::of("b", &[]));
//! let tree = Tree::new().update(&[(here, Some(value_hash(b"value")))]);
//! assert!(tree.prove(&here).verify(&tree.root(), &here, Some(b"value")));
//! assert!(tree.prove(&there).verify(&tree.root(), &there, None));
//! ```

mod proof;

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use self::proof::{PROOF_BYTES_MAX, PROOF_SIBLINGS_MAX, Proof, ProofLeaf};
use crate::types::hash::Hash;

/// Sixteen bytes before a leaf's key and value: a leaf hashes 80 bytes and an inner node 64.
const LEAF_TAG: &[u8; 16] = b"proofmill/leaf/1";
/// Changes below one node that are worth a second thread.
const PARALLEL_CHANGES_MIN: usize = 128;

/// A key and the hash of its value, `None` to delete it.
pub type Change = (Hash, Option<Hash>);

/// The hash by which the tree knows a value: SHA-256 of its bytes.
#[must_use]
pub fn value_hash(value: &[u8]) -> Hash {
    Hash::new(Sha256::digest(value).into())
}

/// A state tree. Cloning it is free.
#[derive(Clone, Default)]
pub struct Tree {
    top: Link,
    len: usize,
}

/// A subtree.
#[derive(Clone, Default)]
enum Link {
    #[default]
    Empty,
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

struct Leaf {
    key: Hash,
    value: Hash,
    hash: Hash,
}

struct Inner {
    left: Link,
    right: Link,
    hash: Hash,
}

impl Tree {
    /// The tree of the empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The root: [`Hash::ZERO`] for the empty tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.top.hash()
    }

    /// How many keys have a value.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hash of a key's value.
    #[must_use]
    pub fn get(&self, key: &Hash) -> Option<Hash> {
        let mut link = &self.top;
        let mut depth = 0;
        loop {
            match link {
                Link::Empty => return None,
                Link::Leaf(leaf) => return (leaf.key == *key).then_some(leaf.value),
                Link::Inner(inner) => link = inner.half(bit(key, depth)),
            }
            depth += 1;
        }
    }

    /// The tree after changes; this one stays as it is.
    ///
    /// Changes that ascend by key are taken as they are. Others are sorted first, and of several
    /// to one key the last one counts. The result is the same on one thread and on many.
    ///
    /// # Panics
    /// Never: only leaves that are there are taken away.
    #[must_use]
    pub fn update(&self, changes: &[Change]) -> Self {
        let changes = ascending(changes);
        let (top, growth) = self.top.with(&changes, 0);
        let len = self
            .len
            .checked_add_signed(growth)
            .expect("no more leaves go than there are, and memory holds the rest");
        Self { top, len }
    }

    /// The proof of what a key has, be it a value or none.
    #[must_use]
    pub fn prove(&self, key: &Hash) -> Proof {
        let mut siblings = Vec::new();
        let mut link = &self.top;
        while let Link::Inner(inner) = link {
            let right = bit(key, siblings.len());
            siblings.push(inner.half(!right).hash());
            link = inner.half(right);
        }
        let leaf = match link {
            Link::Leaf(leaf) => Some(ProofLeaf {
                key: leaf.key,
                value: leaf.value,
            }),
            _ => None,
        };
        Proof { siblings, leaf }
    }
}

impl core::fmt::Debug for Tree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tree of {} with root {}", self.len, self.root())
    }
}

impl Link {
    fn hash(&self) -> Hash {
        match self {
            Self::Empty => Hash::ZERO,
            Self::Leaf(leaf) => leaf.hash,
            Self::Inner(inner) => inner.hash,
        }
    }

    fn leaf(key: Hash, value: Hash) -> Self {
        let hash = leaf_hash(&key, &value);
        Self::Leaf(Arc::new(Leaf { key, value, hash }))
    }

    /// The subtree of two halves: no node for none, and none above a single leaf.
    fn join(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Empty, Self::Empty) => Self::Empty,
            (Self::Empty, Self::Leaf(leaf)) | (Self::Leaf(leaf), Self::Empty) => Self::Leaf(leaf),
            (left, right) => {
                let hash = inner_hash(&left.hash(), &right.hash());
                Self::Inner(Arc::new(Inner { left, right, hash }))
            }
        }
    }

    /// The subtree at `depth` after changes to it, which ascend by key, and by how many leaves it
    /// grew.
    ///
    /// The recursion ends above depth 256: two changes, or a change and a leaf, that have come so
    /// far together differ in a later bit, or they are of one key and end it here.
    fn with(&self, changes: &[Change], depth: usize) -> (Self, isize) {
        match (self, changes) {
            (_, []) => (self.clone(), 0),
            (Self::Empty, [(_, None)]) => (Self::Empty, 0),
            (Self::Empty, [(key, Some(value))]) => (Self::leaf(*key, *value), 1),
            (Self::Leaf(leaf), [(key, value)]) if leaf.key == *key => match value {
                Some(value) if leaf.value == *value => (self.clone(), 0),
                Some(value) => (Self::leaf(*key, *value), 0),
                None => (Self::Empty, -1),
            },
            (Self::Leaf(_), [(_, None)]) => (self.clone(), 0),
            (Self::Empty, _) => Self::split(&Self::Empty, &Self::Empty, changes, depth),
            (Self::Leaf(leaf), _) => {
                if bit(&leaf.key, depth) {
                    Self::split(&Self::Empty, self, changes, depth)
                } else {
                    Self::split(self, &Self::Empty, changes, depth)
                }
            }
            (Self::Inner(inner), _) => Self::split(&inner.left, &inner.right, changes, depth),
        }
    }

    fn split(left: &Self, right: &Self, changes: &[Change], depth: usize) -> (Self, isize) {
        let middle = changes.partition_point(|(key, _)| !bit(key, depth));
        let (to_left, to_right) = changes.split_at(middle);
        let below = depth + 1;
        let one_side = to_left.is_empty() || to_right.is_empty();
        let ((left, on_left), (right, on_right)) =
            if one_side || changes.len() < PARALLEL_CHANGES_MIN {
                (left.with(to_left, below), right.with(to_right, below))
            } else {
                rayon::join(|| left.with(to_left, below), || right.with(to_right, below))
            };
        (Self::join(left, right), on_left + on_right)
    }
}

impl Inner {
    const fn half(&self, right: bool) -> &Link {
        if right { &self.right } else { &self.left }
    }
}

/// The bit of a key that a node at `depth` splits by, the highest first; zero below the last.
fn bit(key: &Hash, depth: usize) -> bool {
    key.as_bytes()
        .get(depth / 8)
        .is_some_and(|byte| byte & (0x80 >> (depth % 8)) != 0)
}

fn leaf_hash(key: &Hash, value: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(LEAF_TAG);
    hasher.update(key);
    hasher.update(value);
    Hash::new(hasher.finalize().into())
}

fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(left);
    hasher.update(right);
    Hash::new(hasher.finalize().into())
}

fn ascending(changes: &[Change]) -> Cow<'_, [Change]> {
    if changes.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Cow::Borrowed(changes);
    }
    // The sort is stable: among equal keys the last change is the last given.
    let mut sorted = changes.to_vec();
    sorted.sort_by_key(|(key, _)| *key);
    let mut last: Vec<Change> = Vec::with_capacity(sorted.len());
    for change in sorted {
        match last.last_mut() {
            Some(before) if before.0 == change.0 => *before = change,
            _ => last.push(change),
        }
    }
    Cow::Owned(last)
}
