//! The leaves in the order of their keys.

use super::arena::Link;
use super::{LeafValue, Tree, bit};
use crate::types::hash::Hash;

impl Tree {
    /// The first `most` leaves from `from` on, by ascending key: fewer when there are no more.
    ///
    /// Takes time for the leaves it gives and the entries of the index between them, which are about
    /// as many unless the tree was much larger once.
    #[must_use]
    pub fn leaves_from(&self, from: &Hash, most: usize) -> Vec<(Hash, LeafValue)> {
        let mut links = Vec::new();
        let entries = self.index.from(from);
        // Below the entry of `from` there may be leaves before it.
        self.collect(entries[0], Some(from), most, &mut links);
        for pair in entries.windows(2) {
            if links.len() >= most {
                break;
            }
            // Entries under a leaf that ends above them all point to it.
            if pair[0].is_inner() || pair[0] != pair[1] {
                self.collect(pair[1], None, most, &mut links);
            }
        }
        // In a loop of its own, so that many loads are under way at a time.
        let leaves = links.into_iter().map(|link| {
            let leaf = self.arena.leaf(link.slot());
            (leaf.key, leaf.value(link))
        });
        leaves.collect()
    }

    /// Adds the leaves of a subtree at the index's depth, so many that there are `most`, without
    /// those before a key that belongs there.
    fn collect(&self, top: Link, from: Option<&Hash>, most: usize, links: &mut Vec<Link>) {
        // Each with whether leaves before `from` can be below, and its depth.
        let mut open = vec![(top, from.is_some(), self.index.depth() as usize)];
        while let Some((link, cut, depth)) = open.pop() {
            if links.len() >= most {
                return;
            }
            if link.is_inner() {
                let [left, right] = *self.arena.links(link.slot());
                let from_right = cut && from.is_some_and(|from| bit(from, depth));
                open.push((right, cut && from_right, depth + 1));
                if !from_right {
                    open.push((left, cut, depth + 1));
                }
            } else if link != Link::EMPTY {
                let before =
                    cut && from.is_some_and(|from| self.arena.leaf(link.slot()).key < *from);
                if !before {
                    links.push(link);
                }
            }
        }
    }
}
