//! Repairs of the core undone from outside, to show that the simulation would find their absence.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input, ProposedValue};
use arc_malachitebft_core_types::{Validity, ValueOrigin};
use proofmill_chain::finality::Turn;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Round;
use proofmill_chain::types::validator::ValidatorSet;

use crate::block;
use crate::connector::Asked;
use crate::context::{self, Address, Value, round_or_nil};
use crate::node::{Later, Node, Outside};
use proofmill_consensus::UndecidedProposal;
use proofmill_consensus::core::{
    Announcement, BlockFacts, CLOCK_DRIFT_MS_MAX, Command, PART_BYTES, Part, PartMessage, Verdict,
};

/// How long one early block holds the connector.
const HOLD_MAX: u64 = 3_000_000;
/// Bodies remembered by the announcement that they came under.
const BODIES_MAX: usize = 256;

/// Which repairs are undone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undo {
    /// A proposed block from the future holds the answers to the engine.
    pub(crate) early_is_held: bool,
    /// A synced block from the future, by this node's clock, waits until it is due.
    pub(crate) certified_is_held: bool,
    /// A verdict on junk is kept under the hash that was announced for it.
    pub(crate) verdict_by_announcement: bool,
    /// The round in a block's header is not looked at.
    pub(crate) any_round: bool,
    /// The engine gets a value as soon as its block is found valid.
    pub(crate) value_is_early: bool,
    /// Whatever the engine asks for is signed.
    pub(crate) guard: bool,
    open: BTreeMap<(usize, Hash), Announcement>,
    bodies: BTreeMap<Hash, Announcement>,
}

fn name_of(bytes: &[u8]) -> Hash {
    Hash::of("simulation/body", &[bytes])
}

impl Undo {
    /// Remembers under which announcement a body comes. Only bodies of one part count.
    pub(crate) fn part(&mut self, from: usize, message: &PartMessage) {
        if !self.verdict_by_announcement {
            return;
        }
        if self.open.len() > BODIES_MAX {
            self.open.pop_first();
        }
        if self.bodies.len() > BODIES_MAX {
            self.bodies.pop_first();
        }
        match &message.part {
            Part::Init(announcement, ..) => {
                self.open.insert((from, message.stream), *announcement);
            }
            Part::Data(bytes) => {
                if let Some(announcement) = self.open.get(&(from, message.stream))
                    && announcement.size as usize <= PART_BYTES
                {
                    self.bodies.insert(name_of(bytes), *announcement);
                }
            }
        }
    }

    /// The facts that the core is given.
    pub(crate) fn facts(
        &self,
        facts: Result<BlockFacts, String>,
        bytes: &[u8],
        validators: &ValidatorSet,
    ) -> Result<BlockFacts, String> {
        if self.verdict_by_announcement
            && let Some(announcement) = self.bodies.get(&name_of(bytes))
            && facts.as_ref().map(|facts| facts.hash) != Ok(announcement.block)
        {
            return Ok(BlockFacts {
                hash: announcement.block,
                turn: Turn {
                    height: announcement.height,
                    round: announcement.round,
                    proposer: announcement.proposer,
                },
                time_ms: 0,
            });
        }
        facts.map(|mut facts| {
            if self.any_round {
                facts.turn.round = Round::default();
                let first = validators.proposer(facts.turn.height, facts.turn.round);
                facts.turn.proposer = first.key;
            }
            facts
        })
    }
}

impl Node {
    /// With repair 2 undone: how much longer the work on a block from the future has to wait.
    pub(crate) fn held_back(&mut self, command: &Command, out: &mut Outside<'_>) -> Option<u64> {
        let Command::Inspect { bytes, .. } = command else {
            return None;
        };
        if !self.undo.early_is_held && !self.undo.certified_is_held {
            return None;
        }
        let clock_ms = self.clock_ms(out.now);
        let due_ms = block::open(bytes).ok()?.time_ms;
        let due_ms = due_ms.saturating_sub(CLOCK_DRIFT_MS_MAX);
        let ahead = due_ms.checked_sub(clock_ms).filter(|ahead| *ahead > 0)? * 1000;
        let process = self.process.as_mut()?;
        let synced = process
            .tickets
            .values()
            .any(|(asked, _)| matches!(asked, Asked::Synced { .. }));
        if synced {
            let held = self.undo.certified_is_held;
            return held.then_some(ahead.min(500_000));
        }
        if !self.undo.early_is_held {
            return None;
        }
        let from = process.held_until.max(out.now);
        process.held_until = from + ahead.min(HOLD_MAX);
        out.later
            .push((process.held_until - out.now, Later::Unheld));
        None
    }

    /// With repair 3 undone: the engine has a value before the round of its block.
    pub(crate) fn hand_over_early(&mut self, bytes: &Arc<[u8]>) {
        if !self.undo.value_is_early {
            return;
        }
        let Ok(header) = block::open(bytes) else {
            return;
        };
        if self.judge(header.height, bytes) != Verdict::Valid {
            return;
        }
        self.disk.store(UndecidedProposal {
            height: header.height,
            round: header.round,
            pol_round: None,
            proposer: header.proposer,
            hash: header.hash(),
            bytes: Arc::clone(bytes),
            valid: true,
            signature: None,
        });
        let value = ProposedValue {
            height: context::Height(header.height),
            round: round_or_nil(Some(header.round)),
            valid_round: round_or_nil(None),
            proposer: Address(header.proposer),
            value: Value(header.hash()),
            validity: Validity::Valid,
        };
        if let Some(process) = &mut self.process {
            let value = Input::ProposedValue(value, ValueOrigin::Consensus);
            process.engine.input(value);
        }
    }
}
