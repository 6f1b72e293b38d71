//! Modules are judged ahead: before a block brings them, so that it need not wait for their verdicts.
//!
//! A transaction with a module is in the pool like any other, whatever the verdict will be: in a block it
//! pays for its module, and its receipt says when that is no program. Nothing is decided here, so what is
//! not judged ahead is judged by the block that brings it, at the price of its time. What is judged ahead and never paid for
//! is bounded twice: only what the pool would give to the next block is judged, the best tip per weight
//! first and each sender's first transaction alone, and no more than some blocks' worth while the head
//! stays (`docs/decisions/0017-price-and-window-of-a-module.md`).

use std::collections::BTreeSet;

use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;

use super::Engine;

/// Most modules that are judged ahead while the head stays, in what a block may publish: one that is outbid
/// after it was judged leaves as much for those that take its place, and nobody gets more.
pub const AHEAD_BLOCKS: usize = 2;
/// Most modules that are considered for the next block. A verdict costs something however small the module is.
pub const AHEAD_MODULES_MAX: usize = 256;
/// A module that may be included in fewer blocks than this is not judged ahead: it may well expire unpaid.
pub const AHEAD_EXPIRY_BLOCKS: u64 = 5;

/// What was judged ahead of the next block.
#[derive(Debug, Default)]
pub struct Ahead {
    /// The last block; `None` before anything was judged.
    head: Option<Height>,
    /// Bytes of modules that may still be judged while it is the last.
    bytes: usize,
    /// Modules that may still be judged while it is the last.
    modules: usize,
    /// Transactions among those that the pool would give, whose modules are judged.
    judged: BTreeSet<Hash>,
}

impl Ahead {
    /// Judges what the pool would give to the next block, as far as it is not judged yet. Blocking.
    pub fn judge(&mut self, engine: &Engine) {
        let head = engine.store.head().height;
        let params = engine.params_after(head);
        let bytes_max = params.block_program_bytes_max as usize;
        if self.head != Some(head) {
            self.head = Some(head);
            self.bytes = bytes_max.saturating_mul(AHEAD_BLOCKS);
            self.modules = AHEAD_MODULES_MAX.saturating_mul(AHEAD_BLOCKS);
        }
        let next = engine.pools().transactions.modules_ahead(
            bytes_max,
            AHEAD_MODULES_MAX,
            head.saturating_plus(AHEAD_EXPIRY_BLOCKS),
        );
        let ids: BTreeSet<_> = next.iter().map(|one| one.id()).collect();
        self.judged.retain(|id| ids.contains(id));
        for transaction in next {
            let Some(module) = transaction.transaction().action.module() else {
                continue;
            };
            if self.judged.contains(&transaction.id()) {
                continue;
            }
            // A verdict that is kept costs nothing: another transaction may bring the same module, for a higher
            // tip or after a block that judged it.
            let version = params.machine_version;
            if engine.machine.kept(version, module.hash()).is_some() {
                self.judged.insert(transaction.id());
                continue;
            }
            let (Some(bytes), Some(modules)) = (
                self.bytes.checked_sub(module.len()),
                self.modules.checked_sub(1),
            ) else {
                break;
            };
            (self.bytes, self.modules) = (bytes, modules);
            // Good or bad: it is the block that says so, and then the verdict is there.
            let _ = engine.machine.explain(version, module.as_bytes());
            self.judged.insert(transaction.id());
        }
    }
}

impl Engine {
    /// Resolves when there may be something to judge ahead: a module came in, or the head moved. For one
    /// listener.
    pub async fn modules_changed(&self) {
        self.modules.notified().await;
    }
}
