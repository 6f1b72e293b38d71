//! How a patch becomes the tree: its nodes are written over those they replace.

use super::arena::{Leaf, Link};
use super::patch::{Fate, Half, NEW, Part, Patch, Rewrite};
use super::{Tree, TreeError};

/// New leaves of a part that are worth a run of slots in the order of their keys.
const RUN_MIN: usize = 16;

/// The slots of a part's leaves and nodes; what becomes no part of the tree keeps [`NEW`].
struct PartSlots {
    leaves: Vec<u32>,
    nodes: Vec<u32>,
}

/// Makes a patch's nodes those of the tree.
pub(super) fn apply(tree: &mut Tree, patch: &Patch) -> Result<(), TreeError> {
    patch.check_base(tree)?;
    let most = |count: fn(&Part) -> usize| patch.parts().map(count).sum::<usize>();
    let nodes = most(|part| part.nodes.len()).max(most(|part| part.leaves.len()));
    if nodes > tree.slots.room() {
        return Err(TreeError::Full);
    }
    for part in patch.parts() {
        tree.slots.give_back_inner(&part.inner_gone);
        tree.slots.give_back_leaves(&part.leaves_gone);
    }
    let mut tops: Vec<Link> = Vec::with_capacity(patch.parts.len() + 1);
    let mut changed = Vec::new();
    for part in patch.parts() {
        let slots = choose_slots(tree, part);
        tops.push(write(tree, part, &slots, &tops));
        changed.extend_from_slice(&part.index);
    }
    tree.top = tops.pop().expect("the crown's top was pushed last");
    tree.root = patch.root();
    tree.len = patch.len();
    tree.stamp = super::next_stamp();
    tree.index.refresh(&tree.arena, tree.top, changed);
    tree.index.grow(&tree.arena, tree.len);
    Ok(())
}

/// Finds slots for what is new, and begins to load the others.
fn choose_slots(tree: &mut Tree, part: &Part) -> PartSlots {
    let mut new_leaves = 0;
    let leaves = part.leaves.iter().map(|leaf| {
        tree.arena.prefetch_leaf(leaf.slot);
        new_leaves += usize::from(leaf.slot == NEW);
        leaf.slot
    });
    let leaves = leaves.collect();
    let nodes = part.nodes.iter().map(|node| {
        tree.arena.prefetch_inner(node.slot);
        node.slot
    });
    let nodes = nodes.collect();
    for (turn, _) in &part.turned {
        tree.arena.prefetch_pair(turn.slot());
    }
    for rewrite in &part.rewrites {
        tree.arena.prefetch_leaf(rewrite.leaf.slot);
    }
    let mut slots = PartSlots { leaves, nodes };
    if new_leaves >= RUN_MIN && tree.slots.begin_run() {
        choose_in_order(tree, part, &mut slots);
    } else {
        for slot in &mut slots.leaves {
            if *slot == NEW {
                *slot = tree.slots.leaves.take();
                tree.arena.grow(*slot);
            }
        }
        for (node, slot) in part.nodes.iter().zip(&mut slots.nodes) {
            if *slot == NEW && node.fate == Fate::Live {
                *slot = tree.slots.take_inner(!node.is_fork());
                tree.arena.grow(*slot);
            }
        }
    }
    slots
}

/// Gives slots out in the order of the keys, a fork's between those of its halves: then the lowest
/// forks of a subtree and its leaves have the same numbers, and are in the same page.
fn choose_in_order(tree: &mut Tree, part: &Part, slots: &mut PartSlots) {
    // Each with whether its left half is done.
    let mut open = vec![(part.top, false)];
    while let Some((half, left_done)) = open.pop() {
        match half {
            Half::Leaf(at) => {
                let slot = &mut slots.leaves[at as usize];
                if *slot == NEW {
                    *slot = tree.slots.leaves.take_next();
                    tree.arena.grow(*slot);
                }
            }
            Half::Inner(at) if !left_done => {
                let [left, right] = part.nodes[at as usize].halves;
                open.extend([(right, false), (half, true), (left, false)]);
            }
            Half::Inner(at) => {
                let slot = &mut slots.nodes[at as usize];
                if *slot == NEW {
                    *slot = if part.nodes[at as usize].is_fork() {
                        tree.slots.forks.take_next()
                    } else {
                        tree.slots.take_inner(true)
                    };
                    tree.arena.grow(*slot);
                }
            }
            Half::Base(_) | Half::Rewrite(_) | Half::Part(_) | Half::PartLeaf(_) => {}
        }
    }
}

/// Writes a part to its slots, given the links to the tops of the parts before it, and gives the
/// link to its top.
fn write(tree: &mut Tree, part: &Part, slots: &PartSlots, tops: &[Link]) -> Link {
    for (leaf, slot) in part.leaves.iter().zip(&slots.leaves) {
        tree.arena.put_leaf(*slot, Leaf::new(leaf.key, &leaf.value));
    }
    for Rewrite { leaf, .. } in &part.rewrites {
        tree.arena
            .put_leaf(leaf.slot, Leaf::new(leaf.key, &leaf.value));
    }
    for (turn, hash) in &part.turned {
        tree.arena.put_hash(turn.slot(), turn.right(), hash);
    }
    let link = |half| match half {
        Half::Base(link) => link,
        Half::Rewrite(at) => part.rewrites[at as usize].top,
        Half::Inner(at) => Link::inner(slots.nodes[at as usize]),
        Half::Leaf(at) => Link::leaf(
            slots.leaves[at as usize],
            part.leaves[at as usize].value.is_inline(),
        ),
        Half::Part(at) | Half::PartLeaf(at) => tops[at as usize],
    };
    for ((node, pair), slot) in part.nodes.iter().zip(&part.pairs).zip(&slots.nodes) {
        if node.fate == Fate::Live {
            tree.arena.put_inner(*slot, node.halves.map(link), pair);
        }
    }
    link(part.top)
}
