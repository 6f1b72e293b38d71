//! The state tree: one hash for the whole state, and the short records themselves (protocol §4,
//! "State").
//!
//! A binary sparse Merkle tree over 256-bit keys. A subtree without leaves hashes to 32 zero
//! bytes, a subtree with one leaf is that leaf, any other is the hash of its two halves, split at
//! the next bit of the key. The shape depends on the keys alone, never on the order of updates.
//!
//! The tree is derived data and lives in memory, about 140 bytes per leaf. There is one of it: a
//! block's changes become a [`Patch`], which leaves the tree alone, and when the block is decided
//! the patch is applied in place. A leaf holds values of up to [`INLINE_MAX`] bytes itself, which
//! makes the tree the cache of all accounts; of longer values it holds the hash.
//!
//! The keys are hashes, so nobody places them freely; whoever grinds two keys with a common prefix
//! of n bits pays 2^(n/2) hashes and buys n nodes.
//!
//! ```
//! use proofmill_chain::tree::{LeafValue, Lookup, Tree};
//! use proofmill_chain::types::hash::Hash;
//!
//! let (here, there) = (Hash::of("a", &[]), Hash::of("b", &[]));
//! let mut tree = Tree::new();
//! let patch = tree.update(&[(here, Some(LeafValue::of(b"value")))]);
//! assert_eq!(patch.read(&tree, &here), Ok(Lookup::Inline(b"value")));
//! assert_eq!(tree.read(&here), Lookup::Absent);
//! tree.apply(&patch)?;
//! assert_eq!(tree.read(&here), Lookup::Inline(b"value"));
//! assert!(tree.prove(&here).verify(&tree.root(), &here, Some(b"value")));
//! assert!(tree.prove(&there).verify(&tree.root(), &there, None));
//! # Ok::<(), proofmill_chain::tree::TreeError>(())
//! ```

mod apply;
mod arena;
mod hash;
mod index;
mod patch;
mod prefetch;
mod proof;
mod scan;
mod slots;
mod update;
mod value;
mod walk;

use core::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use self::arena::{Arena, Kind, Link, is_stem};
pub use self::hash::value_hash;
use self::index::Index;
pub use self::patch::Patch;
pub use self::proof::{PROOF_BYTES_MAX, PROOF_SIBLINGS_MAX, Proof, ProofLeaf};
use self::slots::Slots;
pub use self::value::{Change, INLINE_MAX, LeafValue, Lookup};
use crate::crypto::sha256::Engine;
use crate::types::hash::Hash;

/// Keys that are read together on one thread.
const READ_TOGETHER: usize = 32;
/// Keys to read that are worth a second thread.
const READ_PER_THREAD_MIN: usize = 512;
/// Leaves that are built at once: the patch for them is about 20 MB.
const BUILD_LEAVES: usize = 1 << 16;

/// A state tree.
///
/// A clone copies all of it, and a patch for the one fits the other until that has changed.
#[derive(Clone)]
pub struct Tree {
    top: Link,
    root: Hash,
    len: usize,
    /// Names this state of this tree and its clones in this process: what a patch is for.
    stamp: u64,
    arena: Arena,
    slots: Slots,
    index: Index,
}

/// Why a patch does not fit a tree. Neither is anybody's fault but this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// It was made from another one.
    #[error("the patch was made from another tree, or the tree has changed since")]
    OtherBase,
    /// There are no more numbers for nodes.
    #[error("the tree has no numbers left for more nodes")]
    Full,
}

/// A stamp that no tree has. The empty tree's is 0.
fn next_stamp() -> u64 {
    static STAMP: AtomicU64 = AtomicU64::new(1);
    STAMP.fetch_add(1, Ordering::Relaxed)
}

impl Tree {
    /// The tree of the empty state.
    #[must_use]
    pub fn new() -> Self {
        Self {
            top: Link::EMPTY,
            root: Hash::ZERO,
            len: 0,
            stamp: 0,
            arena: Arena::new(),
            slots: Slots::default(),
            index: Index::new(),
        }
    }

    /// The tree of a whole state, computed on all threads.
    ///
    /// Fastest when the keys ascend. Of several values of one key the last one counts. A state
    /// that is too large to be held twice is built by updates of some ten thousand leaves.
    ///
    /// # Errors
    /// [`TreeError::Full`].
    pub fn from_leaves(leaves: &[(Hash, LeafValue)]) -> Result<Self, TreeError> {
        let mut tree = Self::new();
        for some in leaves.chunks(BUILD_LEAVES) {
            let changes: Vec<Change> = some
                .iter()
                .map(|(key, value)| (*key, Some(*value)))
                .collect();
            tree.apply(&tree.update(&changes))?;
        }
        Ok(tree)
    }

    /// The root (protocol §4): [`Hash::ZERO`] for the empty tree.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.root
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

    /// Bytes of memory held, among them slots that are free and space to grow.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.arena.bytes() + self.slots.bytes() + self.index.bytes()
    }

    /// What a key has: a short value itself, of a longer one the hash.
    #[must_use]
    pub fn read(&self, key: &Hash) -> Lookup<'_> {
        let (link, depth) = self.index.find(key);
        self.read_below(link, depth, key)
    }

    /// What each of some keys has, in their order; on all threads when there are many.
    ///
    /// Keys are looked up together, level by level, so that many loads are under way at a time:
    /// several times faster than one [`Self::read`] after another.
    #[must_use]
    pub fn read_many(&self, keys: &[Hash]) -> Vec<Lookup<'_>> {
        let mut found = vec![Lookup::Absent; keys.len()];
        keys.par_chunks(READ_TOGETHER)
            .with_min_len(READ_PER_THREAD_MIN / READ_TOGETHER)
            .zip(found.par_chunks_mut(READ_TOGETHER))
            .for_each(|(keys, found)| self.read_together(keys, found));
        found
    }

    /// SHA-256 of a key's value (protocol §4), `None` when it has none.
    #[must_use]
    pub fn get(&self, key: &Hash) -> Option<Hash> {
        self.read(key).hash()
    }

    /// The patch that makes changes; the tree stays as it is.
    ///
    /// Changes that ascend by key are taken as they are. Others are sorted first, and of several
    /// to one key the last one counts. The result is the same on one thread and on many.
    #[must_use]
    pub fn update(&self, changes: &[Change]) -> Patch {
        update::update(self, changes, Engine::fastest())
    }

    /// Makes a patch's changes, in time that the patch decides and not the tree, but for the shortcut
    /// of reads, which is made anew whenever the number of leaves has doubled.
    ///
    /// # Errors
    /// [`TreeError::OtherBase`] when the patch was made from another tree or this one has changed
    /// since, [`TreeError::Full`]. The tree is then as it was.
    pub fn apply(&mut self, patch: &Patch) -> Result<(), TreeError> {
        apply::apply(self, patch)
    }

    /// The proof of what a key has, be it a value or none.
    #[must_use]
    pub fn prove(&self, key: &Hash) -> Proof {
        let mut siblings = Vec::new();
        let mut link = self.top;
        while link.is_inner() {
            let right = bit(key, siblings.len());
            let halves = self.arena.links(link.slot());
            siblings.push(if is_stem(link.slot()) {
                self.inner_hash(halves[usize::from(!right)])
            } else {
                *self.arena.pair(link.slot()).get(!right)
            });
            link = halves[usize::from(right)];
        }
        let leaf = (link.kind() == Kind::Leaf).then(|| {
            let leaf = self.arena.leaf(link.slot());
            ProofLeaf {
                key: leaf.key,
                value: leaf.value(link).hash(),
            }
        });
        Proof { siblings, leaf }
    }

    /// Reads at most [`READ_TOGETHER`] keys.
    fn read_together<'a>(&'a self, keys: &[Hash], found: &mut [Lookup<'a>]) {
        let mut links = [Link::EMPTY; READ_TOGETHER];
        for key in keys {
            self.index.prefetch(key);
        }
        for (link, key) in links.iter_mut().zip(keys) {
            *link = self.index.find(key).0;
            self.prefetch(*link);
        }
        let mut depth = self.index.depth() as usize;
        loop {
            let mut deeper = false;
            for (link, key) in links.iter_mut().zip(keys) {
                if link.is_inner() {
                    *link = self.arena.links(link.slot())[usize::from(bit(key, depth))];
                    self.prefetch(*link);
                    deeper |= link.is_inner();
                }
            }
            depth += 1;
            if !deeper {
                break;
            }
        }
        for ((link, key), found) in links.iter().zip(keys).zip(found) {
            *found = self.read_below(*link, depth, key);
        }
    }

    /// Begins to load what a walk down needs next.
    fn prefetch(&self, link: Link) {
        match link.kind() {
            Kind::Empty => {}
            Kind::Inner => self.arena.prefetch_links(link.slot()),
            Kind::Leaf => self.arena.prefetch_leaf(link.slot()),
        }
    }

    /// The hash of an inner node, or of the empty subtree: computed, for only its parent holds it,
    /// and holds none if it is a stem.
    fn inner_hash(&self, link: Link) -> Hash {
        // Down the stems to the fork that they end at, and up again.
        let mut stems = Vec::new();
        let mut at = link;
        while at.is_inner() {
            let halves = self.arena.links(at.slot());
            if !is_stem(at.slot()) {
                let fork = hash::inner_hash(self.arena.pair(at.slot()).halves());
                return stems.iter().rev().fold(fork, |below, right| {
                    hash::inner_hash(if *right {
                        [&Hash::ZERO, &below]
                    } else {
                        [&below, &Hash::ZERO]
                    })
                });
            }
            let right = halves[0] == Link::EMPTY;
            stems.push(right);
            at = halves[usize::from(right)];
        }
        Hash::ZERO
    }

    /// What a key has, given the subtree at a depth that has it if any has.
    fn read_below(&self, mut link: Link, mut depth: usize, key: &Hash) -> Lookup<'_> {
        while link.is_inner() {
            link = self.arena.links(link.slot())[usize::from(bit(key, depth))];
            depth += 1;
        }
        if link == Link::EMPTY {
            return Lookup::Absent;
        }
        let leaf = self.arena.leaf(link.slot());
        if leaf.key == *key {
            leaf.lookup(link)
        } else {
            Lookup::Absent
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Tree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tree of {} with root {}", self.len, self.root)
    }
}

/// The bit of a key that a node at `depth` splits by, the highest first; zero below the last.
fn bit(key: &Hash, depth: usize) -> bool {
    key.as_bytes()
        .get(depth / 8)
        .is_some_and(|byte| byte & (0x80 >> (depth % 8)) != 0)
}
