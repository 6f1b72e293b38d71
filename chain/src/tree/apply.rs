//! How a patch becomes the tree: its nodes are written over those they replace.

use super::arena::{Leaf, Link};
use super::patch::{Fate, Half, NEW, Part, Patch};
use super::{Tree, TreeError};

/// Makes a patch's nodes those of the tree.
pub(super) fn apply(tree: &mut Tree, patch: &Patch) -> Result<(), TreeError> {
    patch.check_base(tree)?;
    let most = |count: fn(&Part) -> usize| patch.parts().map(count).sum::<usize>();
    if most(|part| part.nodes.len()) > tree.inner_slots.room()
        || most(|part| part.leaves.len()) > tree.leaf_slots.room()
    {
        return Err(TreeError::Full);
    }
    for part in patch.parts() {
        tree.inner_slots.give_back(&part.inner_gone);
        tree.leaf_slots.give_back(&part.leaves_gone);
    }
    let mut tops: Vec<Link> = Vec::with_capacity(patch.parts.len() + 1);
    let mut changed = Vec::new();
    for part in patch.parts() {
        let leaves = write_leaves(tree, part);
        let top = write_nodes(tree, part, &leaves, &tops);
        tops.push(top);
        changed.extend_from_slice(&part.index);
    }
    tree.top = tops.pop().expect("the crown's top was pushed last");
    tree.root = patch.root();
    tree.len = patch.len();
    tree.stamp = super::next_stamp();
    tree.index.refresh(&tree.links, tree.top, changed);
    tree.index.grow(&tree.links, tree.len);
    Ok(())
}

/// Writes a part's leaves and gives the links to them.
fn write_leaves(tree: &mut Tree, part: &Part) -> Vec<Link> {
    for leaf in &part.leaves {
        tree.leaves.prefetch(leaf.slot);
    }
    part.leaves
        .iter()
        .map(|leaf| {
            let slot = match leaf.slot {
                NEW => tree.leaf_slots.take(),
                slot => slot,
            };
            tree.leaves.put(slot, Leaf::new(leaf.key, &leaf.value));
            Link::leaf(slot, leaf.value.is_inline())
        })
        .collect()
}

/// Writes a part's inner nodes, given the links to its leaves and to the tops of the parts before
/// it, and gives the link to its top.
fn write_nodes(tree: &mut Tree, part: &Part, leaves: &[Link], tops: &[Link]) -> Link {
    // New slots ascend with the depth, like the nodes: a walk down goes through memory one way.
    let mut slots = Vec::with_capacity(part.nodes.len());
    for node in &part.nodes {
        let slot = match node.slot {
            NEW if node.fate == Fate::Live => tree.inner_slots.take(node.is_fork()),
            slot => slot,
        };
        tree.links.prefetch(slot);
        tree.pairs.prefetch(slot);
        slots.push(slot);
    }
    let link = |half| match half {
        Half::Base(link) => link,
        Half::Inner(at) => Link::inner(slots[at as usize]),
        Half::Leaf(at) => leaves[at as usize],
        Half::Part(at) | Half::PartLeaf(at) => tops[at as usize],
    };
    for ((node, pair), slot) in part.nodes.iter().zip(&part.pairs).zip(&slots) {
        if node.fate != Fate::Live {
            continue;
        }
        if node.is_fork() {
            tree.pairs.put(*slot, *pair);
        }
        let [left, right] = node.halves;
        tree.links.put(*slot, [link(left), link(right)]);
    }
    link(part.top)
}
