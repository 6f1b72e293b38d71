//! Changes that are the only one below a node, and of nothing but a leaf's value.
//!
//! That is what most of a block is in a large state: below the levels where the paths to its
//! accounts meet, each path is walked down by itself, and nothing on it changes but one hash in
//! every fork. So no new nodes are made of it: paths are walked side by side, down to their leaves
//! and up again, and what they leave behind is a list of hashes to be written into the tree.

use core::cmp::Reverse;

use super::Tree;
use super::arena::{Kind, Link, is_stem};
use super::index::first_bits;
use super::patch::{Half, NewLeaf, Part, Rewrite, Turn};
use super::update::Task;
use super::value::{Change, LeafValue};
use crate::crypto::sha256::{Engine, LANES};
use crate::types::hash::Hash;

/// Paths that are walked side by side.
const TOGETHER: usize = 32;
/// Most inner nodes on a path; whoever grinds keys for a longer one gets the general way.
const TURNS_MAX: usize = 32;
/// Deepest beginning of a path: its turns are then among a key's first 64 bits.
pub(super) const DEPTH_MAX: u16 = 32;

/// A path from a subtree's top to the leaf that a key leads to.
struct Walk<'a> {
    /// The key's bits from here on, the next one first.
    bits: u64,
    /// Where it is.
    link: Link,
    /// How many turns it has taken.
    len: usize,
    turns: [Turn; TURNS_MAX],
    /// Of each turn, the hash of the half that it left.
    left: [&'a Hash; TURNS_MAX],
}

/// What is at the end of a path.
enum End {
    /// The key's leaf, which gets this other value of the same sort.
    Value(LeafValue),
    /// Nothing that the change would change.
    Same,
    /// A leaf to be made, split, removed or linked anew; or the end was not reached.
    Other,
}

/// Makes those of some changes, each the only one in its subtree, that give another value of the
/// same sort to a leaf that there is. Gives the other subtrees back, but not those where all stays
/// as it is.
pub(super) fn rewrite(
    tree: &Tree,
    changes: &[Change],
    engine: Engine,
    part: &mut Part,
    tasks: &[Task],
) -> Vec<Task> {
    let mut others = Vec::new();
    let mut walks = [const { Walk::NOWHERE }; TOGETHER];
    for tasks in tasks.chunks(TOGETHER) {
        let change = |at: usize| &changes[tasks[at].changes.start as usize];
        for (at, (task, walk)) in tasks.iter().zip(&mut walks).enumerate() {
            walk.begin(task, &change(at).0);
        }
        let mut under_way: Vec<usize> = (0..tasks.len()).collect();
        while !under_way.is_empty() {
            under_way.retain(|at| walks[*at].step(tree));
        }
        let mut found = Vec::with_capacity(TOGETHER);
        for at in 0..tasks.len() {
            match walks[at].end(tree, change(at)) {
                End::Value(value) => found.push((at, value)),
                End::Same => {}
                End::Other => others.push(tasks[at].clone()),
            }
        }
        // The longest first: those that are still climbing are then the first ones.
        found.sort_unstable_by_key(|(at, _)| Reverse(walks[*at].len));
        let first = part.rewrites.len();
        part.rewrites.extend(found.iter().map(|(at, value)| {
            let (task, slot) = (&tasks[*at], walks[*at].link.slot());
            Rewrite {
                top: task.link,
                leaf: NewLeaf::new(change(*at).0, *value, slot, task.place),
            }
        }));
        let walks: Vec<&Walk<'_>> = found.iter().map(|(at, _)| &walks[*at]).collect();
        let mut hashes = NewLeaf::hash_each(engine, &part.rewrites[first..], |made| &made.leaf);
        climb(engine, &walks, &mut hashes, &mut part.turned);
        for (at, hash) in (first..).zip(hashes) {
            let place = part.rewrites[at].leaf.place;
            let at = u32::try_from(at).expect("a part has few changes");
            part.hang(place, Half::Rewrite(at), hash);
        }
    }
    others
}

impl<'a> Walk<'a> {
    const NOWHERE: Self = Self {
        bits: 0,
        link: Link::EMPTY,
        len: 0,
        turns: [Turn::NOWHERE; TURNS_MAX],
        left: [&Hash::ZERO; TURNS_MAX],
    };

    fn begin(&mut self, task: &Task, key: &Hash) {
        self.bits = first_bits(key) << task.depth;
        self.link = task.link;
        self.len = 0;
    }

    /// Goes one node down; says whether there is another one to pass.
    #[inline]
    fn step(&mut self, tree: &'a Tree) -> bool {
        let slot = self.link.slot();
        let right = self.bits >> 63 == 1;
        let (links, left) = tree.arena.links_and_hash(slot, !right);
        self.bits <<= 1;
        self.turns[self.len] = Turn::new(slot, right);
        self.left[self.len] = left;
        self.len += 1;
        self.link = links[usize::from(right)];
        if self.link.is_inner() {
            tree.arena.prefetch_inner(self.link.slot());
            return self.len < TURNS_MAX;
        }
        if self.link.kind() == Kind::Leaf {
            tree.arena.prefetch_leaf(self.link.slot());
        }
        false
    }

    fn end(&self, tree: &Tree, (key, value): &Change) -> End {
        if self.link.kind() != Kind::Leaf {
            let is_nothing = self.link == Link::EMPTY && value.is_none();
            return if is_nothing { End::Same } else { End::Other };
        }
        let leaf = tree.arena.leaf(self.link.slot());
        match value {
            Some(value) if leaf.key == *key => {
                let old = leaf.value(self.link);
                if old == *value {
                    End::Same
                } else if old.is_inline() == value.is_inline() {
                    End::Value(*value)
                } else {
                    End::Other
                }
            }
            None if leaf.key != *key => End::Same,
            _ => End::Other,
        }
    }
}

/// Brings the hashes at the ends of paths up to the tops, side by side, given the longest path first.
fn climb(engine: Engine, walks: &[&Walk<'_>], hashes: &mut [Hash], turned: &mut Vec<(Turn, Hash)>) {
    let longest = walks.first().map_or(0, |walk| walk.len);
    for back in 1..=longest {
        let climbing = walks.partition_point(|walk| walk.len >= back);
        let (groups, rest) = walks[..climbing].as_chunks::<LANES>();
        let (to_groups, to_rest) = hashes[..climbing].as_chunks_mut::<LANES>();
        for (walks, hashes) in groups.iter().zip(to_groups) {
            *hashes = climbed(engine, *walks, *hashes, back, turned);
        }
        for (walk, hash) in rest.iter().zip(to_rest) {
            [*hash] = climbed(engine, [*walk], [*hash], back, turned);
        }
    }
}

/// The hashes of the nodes that stand so many turns before the paths' ends.
fn climbed<const N: usize>(
    engine: Engine,
    walks: [&Walk<'_>; N],
    hashes: [Hash; N],
    back: usize,
    turned: &mut Vec<(Turn, Hash)>,
) -> [Hash; N] {
    let mut pairs = [[&Hash::ZERO; 2]; N];
    for ((walk, hash), pair) in walks.into_iter().zip(&hashes).zip(&mut pairs) {
        let at = walk.len - back;
        let turn = walk.turns[at];
        *pair = [walk.left[at]; 2];
        pair[usize::from(turn.right())] = hash;
        if !is_stem(turn.slot()) {
            turned.push((turn, *hash));
        }
    }
    engine.hash_pairs(pairs)
}
