//! A change of the tree that is computed but not made: a speculative block's.
//!
//! A patch is made of parts: the crown, where many changes meet, and below it parts that one
//! thread each computed. Nodes of a part name each other by their place in it, and come before those
//! below them. A subtree in which one leaf gets another value and nothing else happens is not made
//! anew: of it there are the leaf and the hashes that change.

use super::arena::{Link, Pair, STEM, is_stem};
use super::hash::{leaf_hashes, value_hashes};
use super::index::Changed;
use super::value::{LeafValue, Lookup};
use super::{Tree, TreeError, bit};
use crate::crypto::sha256::{Engine, LANES};
use crate::types::hash::Hash;

/// No place in the tree yet. Among inner nodes it is no fork's.
pub(super) const NEW: u32 = u32::MAX;

/// New nodes for a [`Tree`], and which of its nodes they replace.
///
/// It belongs to the state of the tree it was computed from and to no other. It holds about half a
/// kilobyte for each key changed in a tree of a million.
#[derive(Clone)]
pub struct Patch {
    /// The stamp of the tree it was made from.
    pub(super) base: u64,
    pub(super) crown: Part,
    pub(super) parts: Vec<Part>,
    pub(super) len: usize,
}

/// The new nodes of one subtree.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) top: Half,
    /// The hash of the top.
    pub(super) hash: Hash,
    /// Whether it is another one than in the tree.
    pub(super) changed: bool,
    pub(super) nodes: Vec<Node>,
    /// The hashes of the halves of each node.
    pub(super) pairs: Vec<Pair>,
    pub(super) leaves: Vec<NewLeaf>,
    /// Subtrees where only a value changes.
    pub(super) rewrites: Vec<Rewrite>,
    /// The hashes that change in the forks of those, each with where.
    pub(super) turned: Vec<(Turn, Hash)>,
    /// Slots of the tree that are no longer needed.
    pub(super) inner_gone: Vec<u32>,
    pub(super) leaves_gone: Vec<u32>,
    /// How many leaves came and went.
    pub(super) came: usize,
    /// Entries of the index to look up again.
    pub(super) index: Vec<Changed>,
}

/// A subtree as a part refers to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// In the tree, unchanged.
    Base(Link),
    /// A node of the same part.
    Inner(u32),
    /// A leaf of the same part.
    Leaf(u32),
    /// A subtree of the tree, a node, in which a leaf has another value.
    Rewrite(u32),
    /// The top of another part, a node.
    Part(u32),
    /// The top of another part, a leaf.
    PartLeaf(u32),
}

/// An inner node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) halves: [Half; 2],
    /// The slot it replaces, or [`NEW`].
    pub(super) slot: u32,
    pub(super) place: Place,
    pub(super) depth: u16,
    pub(super) fate: Fate,
}

/// A subtree of the tree in which one leaf has another value and all else stays.
#[derive(Clone)]
pub(super) struct Rewrite {
    pub(super) top: Link,
    pub(super) leaf: NewLeaf,
}

/// A half of an inner node of the tree.
#[derive(Clone, Copy)]
pub(super) struct Turn(u32);

/// What becomes of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing below it changes, so far as is known: it does not count.
    Same,
    /// Something below it changes.
    Changed,
    /// It is part of the tree after the patch.
    Live,
}

/// A leaf whose value is new.
#[derive(Clone)]
pub(super) struct NewLeaf {
    pub(super) key: Hash,
    pub(super) value: LeafValue,
    /// The slot it replaces, or [`NEW`].
    pub(super) slot: u32,
    pub(super) place: Place,
}

/// Where a subtree hangs: a half of a node of the same part, or the top of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    pub(super) const TOP: Self = Self(u32::MAX);

    pub(super) fn new(node: usize, right: bool) -> Self {
        let node = u32::try_from(node).expect("a part has few nodes");
        Self(node << 1 | u32::from(right))
    }

    /// The node, and whether it is its right half. Not for the top.
    const fn node(self) -> (usize, bool) {
        ((self.0 >> 1) as usize, self.0 & 1 == 1)
    }
}

impl Turn {
    /// Of no node.
    pub(super) const NOWHERE: Self = Self::new(STEM, false);

    pub(super) const fn new(slot: u32, right: bool) -> Self {
        Self(slot << 1 | right as u32)
    }

    /// The node's slot.
    pub(super) const fn slot(self) -> u32 {
        self.0 >> 1
    }

    /// Whether it is the right half.
    pub(super) const fn right(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Half {
    pub(super) const EMPTY: Self = Self::Base(Link::EMPTY);

    /// Whether it is an inner node; a leaf, or nothing, may take its parent's place.
    const fn is_inner(self) -> bool {
        match self {
            Self::Base(link) => link.is_inner(),
            Self::Inner(_) | Self::Part(_) | Self::Rewrite(_) => true,
            Self::Leaf(_) | Self::PartLeaf(_) => false,
        }
    }
}

impl Node {
    /// Whether neither half is empty.
    pub(super) fn is_fork(&self) -> bool {
        !self.halves.contains(&Half::EMPTY)
    }
}

impl Patch {
    /// The root after the patch (protocol §4); [`Hash::ZERO`] when no key is left.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.crown.hash
    }

    /// How many keys have a value after the patch.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a value after the patch.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a key has after the patch, given the tree that the patch was made from.
    ///
    /// # Errors
    /// [`TreeError::OtherBase`] when it was made from another tree or from another state of it.
    pub fn read<'a>(&'a self, tree: &'a Tree, key: &Hash) -> Result<Lookup<'a>, TreeError> {
        self.check_base(tree)?;
        let mut part = &self.crown;
        let mut half = part.top;
        let mut depth = 0;
        loop {
            half = match half {
                Half::Base(link) => return Ok(tree.read_below(link, depth, key)),
                Half::Inner(at) => {
                    let node = &part.nodes[at as usize];
                    let right = bit(key, depth);
                    depth += 1;
                    node.halves[usize::from(right)]
                }
                Half::Leaf(at) => {
                    let leaf = &part.leaves[at as usize];
                    return Ok(if leaf.key == *key {
                        leaf.value.lookup()
                    } else {
                        Lookup::Absent
                    });
                }
                Half::Rewrite(at) => {
                    let Rewrite { top, leaf } = &part.rewrites[at as usize];
                    return Ok(if leaf.key == *key {
                        leaf.value.lookup()
                    } else {
                        tree.read_below(*top, depth, key)
                    });
                }
                Half::Part(at) | Half::PartLeaf(at) => {
                    part = &self.parts[at as usize];
                    part.top
                }
            };
        }
    }

    pub(super) fn check_base(&self, tree: &Tree) -> Result<(), TreeError> {
        if self.base == tree.stamp {
            Ok(())
        } else {
            Err(TreeError::OtherBase)
        }
    }

    /// The parts, the crown last: nodes refer to parts before their own.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().chain([&self.crown])
    }
}

impl core::fmt::Debug for Patch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Patch to {} with root {}", self.len, self.root())
    }
}

impl Part {
    /// A part without changes.
    pub(super) fn new(top: Link, hash: Hash) -> Self {
        Self {
            top: Half::Base(top),
            hash,
            changed: false,
            nodes: Vec::new(),
            pairs: Vec::new(),
            leaves: Vec::new(),
            rewrites: Vec::new(),
            turned: Vec::new(),
            inner_gone: Vec::new(),
            leaves_gone: Vec::new(),
            came: 0,
            index: Vec::new(),
        }
    }

    /// Hangs a changed subtree into its place.
    pub(super) fn hang(&mut self, place: Place, half: Half, hash: Hash) {
        if place == Place::TOP {
            self.top = half;
            self.hash = hash;
            self.changed = true;
            return;
        }
        let (at, right) = place.node();
        let node = &mut self.nodes[at];
        node.halves[usize::from(right)] = half;
        node.fate = Fate::Changed;
        self.pairs[at].set(right, &hash);
    }

    /// The hash of what hangs in a place, so far as it is known.
    pub(super) fn hash_at(&self, place: Place) -> Hash {
        if place == Place::TOP {
            return self.hash;
        }
        let (at, right) = place.node();
        *self.pairs[at].get(right)
    }

    pub(super) fn add_leaf(&mut self, place: Place, slot: u32, key: Hash, value: LeafValue) {
        self.came += usize::from(slot == NEW);
        self.leaves.push(NewLeaf::new(key, value, slot, place));
    }

    pub(super) fn remove_leaf(&mut self, place: Place, slot: u32) {
        self.leaves_gone.push(slot);
        self.hang(place, Half::EMPTY, Hash::ZERO);
    }

    /// Hashes the new leaves.
    pub(super) fn hash_leaves(&mut self, engine: Engine) {
        let hashes = NewLeaf::hash_each(engine, &self.leaves, |leaf| leaf);
        for (at, hash) in (0_u32..).zip(hashes) {
            self.hang(self.leaves[at as usize].place, Half::Leaf(at), hash);
        }
    }

    /// Settles what becomes of a node whose halves are done: it is to be hashed, or its only leaf
    /// takes its place, or nothing has changed.
    ///
    /// Returns whether the link to its place is another one than in the tree.
    pub(super) fn settle_node(&mut self, at: usize, tree: &Tree) -> bool {
        let node = &mut self.nodes[at];
        if node.fate == Fate::Same {
            return false;
        }
        let place = node.place;
        let old = node.slot;
        let is_fork = node.is_fork();
        let only = match node.halves {
            [Half::EMPTY, right] if !right.is_inner() => Some(true),
            [left, Half::EMPTY] if !left.is_inner() => Some(false),
            _ => None,
        };
        if old != NEW && (only.is_some() || is_fork == is_stem(old)) {
            self.inner_gone.push(old);
            node.slot = NEW;
        }
        let is_new = node.slot == NEW;
        if let Some(right) = only {
            let half = node.halves[usize::from(right)];
            self.hang(place, half, *self.pairs[at].get(right));
            return true;
        }
        if is_fork && old != NEW && is_stem(old) {
            // What hung below a stem may have stayed as it is, and the stem has no hash of it.
            for (half, right) in node.halves.iter().zip([false, true]) {
                if let Half::Base(link) = half
                    && link.is_inner()
                {
                    self.pairs[at].set(right, &tree.inner_hash(*link));
                }
            }
        }
        node.fate = Fate::Live;
        is_new
    }

    /// Hashes some nodes of one level.
    pub(super) fn hash_nodes(&mut self, nodes: &[u32], engine: Engine) {
        let (groups, rest) = nodes.as_chunks::<LANES>();
        for group in groups {
            self.hash_together(*group, engine);
        }
        for at in rest {
            self.hash_together([*at], engine);
        }
    }

    fn hash_together<const N: usize>(&mut self, nodes: [u32; N], engine: Engine) {
        let hashes = engine.hash_pairs(nodes.map(|at| self.pairs[at as usize].halves()));
        for (at, hash) in nodes.into_iter().zip(hashes) {
            self.hang(self.nodes[at as usize].place, Half::Inner(at), hash);
        }
    }
}

impl NewLeaf {
    pub(super) const fn new(key: Hash, value: LeafValue, slot: u32, place: Place) -> Self {
        Self {
            key,
            value,
            slot,
            place,
        }
    }

    /// The hashes of the leaves in some things, in their order.
    pub(super) fn hash_each<T>(engine: Engine, of: &[T], leaf: impl Fn(&T) -> &Self) -> Vec<Hash> {
        let mut hashes = Vec::with_capacity(of.len());
        let (groups, rest) = of.as_chunks::<LANES>();
        for group in groups {
            hashes.extend(Self::hashes(engine, group.each_ref().map(&leaf)));
        }
        for one in rest {
            hashes.extend(Self::hashes(engine, [leaf(one)]));
        }
        hashes
    }

    fn hashes<const N: usize>(engine: Engine, leaves: [&Self; N]) -> [Hash; N] {
        let values = value_hashes(engine, leaves.map(|leaf| &leaf.value));
        let mut pairs = leaves.map(|leaf| (&leaf.key, &leaf.key));
        for (pair, value) in pairs.iter_mut().zip(&values) {
            pair.1 = value;
        }
        leaf_hashes(engine, pairs)
    }
}
