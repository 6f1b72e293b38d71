//! How a patch is computed.
//!
//! Changes go down the tree level by level, each node splitting those below it, and hashes come
//! up the same way. So neither loads nor hashes of one level wait for each other, which is worth
//! more than a walk in depth that saves the lists. Where at most [`PART_CHANGES_MAX`] changes are
//! left the subtree is a part of its own, for another thread; how the keys are spread does not
//! matter. All of it depends on the changes alone, never on the number of threads.

use core::ops::Range;
use std::borrow::Cow;

use rayon::prelude::{IntoParallelIterator, ParallelIterator, ParallelSliceMut};

use super::arena::{Kind, Link};
use super::index::Changed;
use super::patch::{Fate, Half, NEW, Node, Part, Patch, Place};
use super::value::Change;
use super::{Tree, bit, is_fork};
use crate::types::hash::Hash;

/// Most changes in a part that is not split further.
const PART_CHANGES_MAX: usize = 256;

/// A subtree with changes to it.
struct Task {
    link: Link,
    hash: Hash,
    depth: u16,
    changes: Range<u32>,
    place: Place,
}

/// A part while it is computed.
struct Builder<'a> {
    tree: &'a Tree,
    changes: &'a [Change],
    part: Part,
    /// The changes below each node of the part.
    ranges: Vec<Range<u32>>,
    /// Whether subtrees with few changes are put off, to be parts of their own.
    crown: bool,
    put_off: Vec<Task>,
}

/// The patch that makes changes to a tree.
pub(super) fn update(tree: &Tree, changes: &[Change]) -> Patch {
    let changes = ascending(changes);
    let count = u32::try_from(changes.len()).expect("changes fit into memory");
    let mut crown = Builder::new(tree, &changes, tree.top, tree.root, true);
    crown.start(Task {
        link: tree.top,
        hash: tree.root,
        depth: 0,
        changes: 0..count,
        place: Place::TOP,
    });
    crown.descend();
    let tasks = core::mem::take(&mut crown.put_off);
    let places: Vec<Place> = tasks.iter().map(|task| task.place).collect();
    let parts: Vec<Part> = tasks
        .into_par_iter()
        .map(|task| {
            let mut builder = Builder::new(tree, &changes, task.link, task.hash, false);
            builder.start(Task {
                place: Place::TOP,
                ..task
            });
            builder.descend();
            builder.ascend();
            builder.part
        })
        .collect();
    for ((at, place), part) in (0_u32..).zip(places).zip(&parts) {
        if part.changed {
            let half = match part.top {
                Half::Leaf(_) => Half::PartLeaf(at),
                Half::Base(_) => part.top,
                _ => Half::Part(at),
            };
            crown.part.hang(place, half, part.hash);
        }
    }
    crown.ascend();
    let crown = crown.part;
    let (came, gone) = parts
        .iter()
        .chain([&crown])
        .fold((0, 0), |(came, gone), part| {
            (came + part.came, gone + part.leaves_gone.len())
        });
    Patch {
        base: tree.stamp,
        len: tree.len + came - gone,
        crown,
        parts,
    }
}

impl<'a> Builder<'a> {
    fn new(tree: &'a Tree, changes: &'a [Change], top: Link, hash: Hash, crown: bool) -> Self {
        Self {
            tree,
            changes,
            part: Part::new(top, hash),
            ranges: Vec::new(),
            crown,
            put_off: Vec::new(),
        }
    }

    /// Begins with a subtree: a node is opened, a leaf is settled.
    fn start(&mut self, task: Task) {
        if task.changes.is_empty() {
            return;
        }
        if self.crown && task.changes.len() <= PART_CHANGES_MAX {
            self.put_off.push(task);
            return;
        }
        let Task {
            link,
            hash,
            depth,
            changes,
            place,
        } = task;
        if let [(key, value)] = &self.changes[changes.start as usize..changes.end as usize] {
            match (link.kind(), value) {
                (Kind::Empty, None) => return,
                (Kind::Empty, Some(value)) => {
                    self.part.add_leaf(place, NEW, *key, *value);
                    self.index(key, depth);
                    return;
                }
                (Kind::Leaf, value) => {
                    let leaf = self.tree.leaves.get(link.slot());
                    match value {
                        Some(value) if leaf.key == *key => {
                            if leaf.value(link) != *value {
                                self.part.add_leaf(place, link.slot(), *key, *value);
                                if link.is_inline() != value.is_inline() {
                                    self.index(key, depth);
                                }
                            }
                            return;
                        }
                        None => {
                            if leaf.key == *key {
                                self.part.remove_leaf(place, link.slot());
                                self.index(key, depth);
                            }
                            return;
                        }
                        Some(_) => {}
                    }
                }
                (Kind::Inner, _) => {}
            }
        }
        let mut node = Node {
            hashes: [Hash::ZERO; 2],
            halves: [Half::EMPTY; 2],
            slot: NEW,
            place,
            depth,
            was_fork: false,
            fate: Fate::Same,
        };
        match link.kind() {
            Kind::Empty => {}
            Kind::Leaf => {
                let side = usize::from(bit(
                    &self.tree.leaves.get(link.slot()).key,
                    usize::from(depth),
                ));
                node.halves[side] = Half::Base(link);
                node.hashes[side] = hash;
            }
            Kind::Inner => {
                node.slot = link.slot();
                let halves = self.tree.links.get(node.slot);
                node.halves = halves.map(Half::Base);
                node.was_fork = is_fork(halves);
                if node.was_fork {
                    node.hashes = self.tree.pairs.get(node.slot).0;
                }
            }
        }
        self.part.nodes.push(node);
        self.ranges.push(changes);
    }

    /// Takes the changes down to the leaves.
    ///
    /// It ends above depth 256: two changes, or a change and a leaf, that have come so far
    /// together differ in a later bit, or they are of one key.
    fn descend(&mut self) {
        let mut at = 0;
        while let Some(node) = self.part.nodes.get(at) {
            let (halves, hashes, depth) = (node.halves, node.hashes, node.depth);
            let Range { start, end } = self.ranges[at];
            let middle = self.middle(start, end, usize::from(depth));
            for (right, changes) in [(false, start..middle), (true, middle..end)] {
                if let Half::Base(link) = halves[usize::from(right)] {
                    self.start(Task {
                        link,
                        hash: hashes[usize::from(right)],
                        depth: depth + 1,
                        changes,
                        place: Place::new(at, right),
                    });
                }
            }
            at += 1;
        }
    }

    /// Brings the hashes up to the top.
    fn ascend(&mut self) {
        self.part.hash_leaves();
        for at in (0..self.part.nodes.len()).rev() {
            if self.part.finish_node(at, self.tree) {
                let (key, _) = &self.changes[self.ranges[at].start as usize];
                self.index(key, self.part.nodes[at].depth);
            }
        }
    }

    /// Where the changes of the right half begin.
    fn middle(&self, start: u32, end: u32, depth: usize) -> u32 {
        let changes = &self.changes[start as usize..end as usize];
        let left = changes.partition_point(|(key, _)| !bit(key, depth));
        start + u32::try_from(left).expect("it is at most end - start")
    }

    /// Notes that a link has changed, if the index has it.
    fn index(&mut self, key: &Hash, depth: u16) {
        let depth = u32::from(depth);
        if depth <= self.tree.index.depth() {
            self.part.index.push(Changed::new(key, depth));
        }
    }
}

/// The changes by ascending key, each key once.
fn ascending(changes: &[Change]) -> Cow<'_, [Change]> {
    if changes.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Cow::Borrowed(changes);
    }
    // The sort is stable: among equal keys the last change is the last given.
    let mut sorted = changes.to_vec();
    sorted.par_sort_by_key(|(key, _)| *key);
    let mut last: Vec<Change> = Vec::with_capacity(sorted.len());
    for change in sorted {
        match last.last_mut() {
            Some(before) if before.0 == change.0 => *before = change,
            _ => last.push(change),
        }
    }
    Cow::Owned(last)
}
