//! How a patch is computed.
//!
//! Changes go down the tree level by level, each node splitting those below it and beginning to
//! load them, and hashes come up the same way, side by side. So neither loads nor hashes of one
//! level wait for each other, which is worth more than a walk in depth that saves the lists. Where
//! at most [`PART_CHANGES_MAX`] changes are left the subtree is a part of its own, for another
//! thread; how the keys are spread does not matter. All of it depends on the changes alone, never
//! on the number of threads.

use core::ops::Range;
use std::borrow::Cow;

use rayon::prelude::{IntoParallelRefIterator, ParallelIterator, ParallelSliceMut};

use super::arena::{Kind, Link, Pair, is_stem};
use super::index::Changed;
use super::patch::{Fate, Half, NEW, Node, Part, Patch, Place};
use super::value::Change;
use super::{Tree, bit, walk};
use crate::crypto::sha256::Engine;
use crate::types::hash::Hash;

/// Most changes in a part that is not split further.
const PART_CHANGES_MAX: usize = 256;

/// A subtree with changes to it.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) link: Link,
    pub(super) depth: u16,
    pub(super) changes: Range<u32>,
    pub(super) place: Place,
}

/// A part while it is computed.
struct Builder<'a> {
    tree: &'a Tree,
    changes: &'a [Change],
    engine: Engine,
    part: Part,
    /// The first node of each level.
    levels: Vec<usize>,
    /// The changes below each node of the part.
    ranges: Vec<Range<u32>>,
    /// Whether subtrees with few changes are put off, to be parts of their own.
    crown: bool,
    put_off: Vec<Task>,
    /// Leaves of the next level with one change each.
    met: Vec<Task>,
    /// Nodes with one change each below, to be walked down by themselves, while they are put aside.
    single: Option<Vec<Task>>,
}

/// The patch that makes changes to a tree.
pub(super) fn update(tree: &Tree, changes: &[Change], engine: Engine) -> Patch {
    let changes = ascending(changes);
    let count = u32::try_from(changes.len()).expect("changes fit into memory");
    let new = |top, hash, crown| Builder {
        tree,
        changes: &changes,
        engine,
        levels: Vec::new(),
        part: Part::new(top, hash),
        ranges: Vec::new(),
        crown,
        put_off: Vec::new(),
        met: Vec::new(),
        single: Some(Vec::new()),
    };
    let mut crown = new(tree.top, tree.root, true);
    if count > 0 {
        crown.descend(Task {
            link: tree.top,
            depth: 0,
            changes: 0..count,
            place: Place::TOP,
        });
    }
    let tasks = core::mem::take(&mut crown.put_off);
    let parts: Vec<Part> = tasks
        .par_iter()
        .map(|task| {
            let hash = crown.part.hash_at(task.place);
            let mut builder = new(task.link, hash, false);
            builder.reserve(task.changes.len());
            builder.descend(Task {
                place: Place::TOP,
                changes: task.changes.clone(),
                ..*task
            });
            builder.ascend();
            builder.part
        })
        .collect();
    for ((at, place), part) in (0_u32..)
        .zip(tasks.iter().map(|task| task.place))
        .zip(&parts)
    {
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

impl Builder<'_> {
    /// Makes room for as many nodes as evenly spread changes touch, and some more, since keys are
    /// spread by chance.
    fn reserve(&mut self, changes: usize) {
        let leaves_each = self.tree.len / self.changes.len().max(1);
        let turns = changes * (leaves_each.checked_ilog2().unwrap_or(0) as usize + 1);
        self.part.turned.reserve_exact(turns);
        let nodes = changes * 2;
        self.part.nodes.reserve_exact(nodes);
        self.part.pairs.reserve_exact(nodes);
        self.ranges.reserve_exact(nodes);
    }

    /// Begins with a subtree that has changes: a node is opened, a leaf is met.
    fn start(&mut self, task: Task) {
        if self.crown && task.changes.len() <= PART_CHANGES_MAX {
            self.put_off.push(task);
            return;
        }
        if task.changes.len() == 1 {
            match task.link.kind() {
                Kind::Empty => {
                    self.settle_empty(&task);
                    return;
                }
                Kind::Leaf => {
                    self.tree.arena.prefetch_leaf(task.link.slot());
                    self.met.push(task);
                    return;
                }
                Kind::Inner => {
                    if let Some(single) = &mut self.single
                        && task.depth <= walk::DEPTH_MAX
                    {
                        self.tree.arena.prefetch_inner(task.link.slot());
                        single.push(task);
                        return;
                    }
                }
            }
        }
        self.open(task);
    }

    /// Opens a node where a subtree is, to be filled by [`Self::load`].
    fn open(&mut self, task: Task) {
        let is_inner = task.link.is_inner();
        if is_inner {
            self.tree.arena.prefetch_inner(task.link.slot());
        }
        self.part.nodes.push(Node {
            halves: [Half::Base(task.link), Half::EMPTY],
            slot: if is_inner { task.link.slot() } else { NEW },
            place: task.place,
            depth: task.depth,
            fate: Fate::Same,
        });
        self.ranges.push(task.changes);
    }

    /// Takes the changes down to the leaves, level by level.
    ///
    /// It ends above depth 256: two changes, or a change and a leaf, that have come so far
    /// together differ in a later bit, or they are of one key.
    fn descend(&mut self, top: Task) {
        self.go_down([top]);
        let single = self.single.take().unwrap_or_default();
        let others = walk::rewrite(
            self.tree,
            self.changes,
            self.engine,
            &mut self.part,
            &single,
        );
        self.go_down(others);
    }

    /// Takes the changes of some subtrees down, level by level.
    fn go_down(&mut self, tops: impl IntoIterator<Item = Task>) {
        let end = self.part.nodes.len();
        let mut level = end..end;
        for top in tops {
            self.start(top);
        }
        loop {
            self.settle_met();
            level = level.end..self.part.nodes.len();
            if level.is_empty() {
                return;
            }
            self.levels.push(level.start);
            for at in level.clone() {
                self.load(at);
                self.split(at);
            }
        }
    }

    /// Gets the halves of the next node, and the hashes of what stays as it is.
    fn load(&mut self, at: usize) {
        debug_assert_eq!(at, self.part.pairs.len());
        let node = &mut self.part.nodes[at];
        let mut pair = Pair::ZERO;
        if node.slot != NEW {
            node.halves = self.tree.arena.links(node.slot).map(Half::Base);
            if !is_stem(node.slot) {
                pair = *self.tree.arena.pair(node.slot);
            }
        } else if let Half::Base(link) = node.halves[0]
            && link != Link::EMPTY
        {
            // It is split for a leaf that was here: that leaf's hash is the one from above.
            let right = bit(
                &self.tree.arena.leaf(link.slot()).key,
                usize::from(node.depth),
            );
            if right {
                node.halves.swap(0, 1);
            }
            let place = node.place;
            pair.set(right, &self.part.hash_at(place));
        }
        self.part.pairs.push(pair);
    }

    /// Begins with those halves of a node that have changes.
    fn split(&mut self, at: usize) {
        let Node { halves, depth, .. } = self.part.nodes[at];
        let Range { start, end } = self.ranges[at];
        let middle = self.middle(start, end, usize::from(depth));
        for (right, changes) in [(false, start..middle), (true, middle..end)] {
            if let Half::Base(link) = halves[usize::from(right)]
                && !changes.is_empty()
            {
                self.start(Task {
                    link,
                    depth: depth + 1,
                    changes,
                    place: Place::new(at, right),
                });
            }
        }
    }

    /// Makes the only change to an empty subtree.
    fn settle_empty(&mut self, task: &Task) {
        if let (key, Some(value)) = &self.changes[task.changes.start as usize] {
            self.part.add_leaf(task.place, NEW, *key, *value);
            self.index(key, task.depth);
        }
    }

    /// Makes the only changes to leaves that were met.
    fn settle_met(&mut self) {
        let met = core::mem::take(&mut self.met);
        let same: Vec<(bool, bool)> = met
            .iter()
            .map(|task| {
                let leaf = self.tree.arena.leaf(task.link.slot());
                let (key, value) = &self.changes[task.changes.start as usize];
                (leaf.key == *key, Some(leaf.value(task.link)) == *value)
            })
            .collect();
        for (task, (same_key, same_value)) in met.into_iter().zip(same) {
            let (key, value) = &self.changes[task.changes.start as usize];
            let (link, place) = (task.link, task.place);
            match value {
                Some(_) if !same_key => self.open(task),
                Some(_) if same_value => {}
                Some(value) => {
                    self.part.add_leaf(place, link.slot(), *key, *value);
                    if link.is_inline() != value.is_inline() {
                        self.index(key, task.depth);
                    }
                }
                None if same_key => {
                    self.part.remove_leaf(place, link.slot());
                    self.index(key, task.depth);
                }
                None => {}
            }
        }
    }

    /// Brings the hashes up to the top.
    fn ascend(&mut self) {
        self.part.hash_leaves(self.engine);
        let mut live = Vec::new();
        let mut end = self.part.nodes.len();
        for start in core::mem::take(&mut self.levels).into_iter().rev() {
            live.clear();
            for at in start..end {
                if self.part.settle_node(at, self.tree) {
                    let (key, _) = &self.changes[self.ranges[at].start as usize];
                    self.index(key, self.part.nodes[at].depth);
                }
                if self.part.nodes[at].fate == Fate::Live {
                    live.push(u32::try_from(at).expect("a part has few nodes"));
                }
            }
            self.part.hash_nodes(&live, self.engine);
            end = start;
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

#[cfg(test)]
mod tests {
    use super::update;
    use crate::crypto::sha256::Engine;
    use crate::tree::{Change, LeafValue, Tree};
    use crate::types::hash::Hash;

    /// Changes of a round: most keys come again in a later one, with another value or without.
    fn changes(round: usize, count: usize) -> Vec<Change> {
        (0..count)
            .map(|at| {
                let number = (at * 7919 + round * 31) % 3000;
                let value = vec![7; (at + round) % 80];
                let is_kept = !(at + round).is_multiple_of(5);
                (
                    Hash::of("key", &[&number.to_le_bytes()]),
                    is_kept.then(|| LeafValue::of(&value)),
                )
            })
            .collect()
    }

    #[test]
    fn roots_do_not_depend_on_the_engine() {
        for count in [1, 2, 3, 5, 17, 100, 2000] {
            let mut trees: Vec<_> = Engine::each()
                .into_iter()
                .map(|engine| (engine, Tree::new()))
                .collect();
            for round in 0..8 {
                let changes = changes(round, count);
                let mut roots = Vec::new();
                for (engine, tree) in &mut trees {
                    let patch = update(tree, &changes, *engine);
                    tree.apply(&patch).expect("it was made from this tree");
                    roots.push(tree.root());
                }
                assert!(
                    roots.iter().all(|root| *root == roots[0]),
                    "{count}, {round}"
                );
            }
        }
    }
}
