//! Others' proposals: parts in, a judged block out.

use std::sync::Arc;
use std::time::Duration;

use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::finality::{TurnError, check_turn};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};

use super::api::{BlockFacts, Command, Peer, Timer, Verdict};
use super::part::{Announcement, Part, PartMessage, announcement_bytes};
use super::proposals::Turn;
use super::streams::{Slice, Whole};
use super::waiting::{Stage, WaitingBlock};
use super::{Core, Work};
use crate::undecided::UndecidedProposal;

/// A block whose time is further ahead of the local clock than this waits until it is due.
pub const CLOCK_DRIFT_MS_MAX: u64 = 500;
/// Heights beyond the next one whose blocks are collected already.
pub const HEIGHTS_AHEAD_MAX: u64 = 2;
/// Rounds beyond the current one whose blocks are collected already, as far as the engine looks.
pub const ROUNDS_AHEAD_MAX: u32 = 10;
/// Received blocks that are being inspected at once.
pub const INSPECTIONS_MAX: usize = 16;
/// Those that one validator announced: half, so that its blocks keep nobody else's out.
pub const INSPECTIONS_PER_VALIDATOR_MAX: usize = INSPECTIONS_MAX / 2;
/// Received blocks that are being judged at once; each judgement uses all threads.
pub const JUDGING_MAX: usize = 2;
/// The clock is read again at least this often while a block is early: it may have been set right.
const EARLY_RECHECK_MS_MAX: u64 = 500;

/// Why an announcement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Not needed, or not to be told apart from an honest one, whoever sends it.
    Dropped,
    /// Its sender is not heard at this height.
    Sender,
    /// No honest peer sends it.
    Offence(&'static str),
}

impl Core {
    pub(super) fn part_received(&mut self, from: &Peer, publisher: &Peer, message: PartMessage) {
        if !self.started {
            return;
        }
        let PartMessage {
            stream,
            sequence,
            part,
        } = message;
        match part {
            Part::Init(announcement, signature, hashes) => {
                let place = (stream, sequence);
                self.announcement_received(publisher, place, announcement, signature, hashes);
            }
            Part::Data(bytes) => self.slice_received(Slice {
                from: from.clone(),
                publisher: publisher.clone(),
                stream,
                sequence,
                bytes,
            }),
        }
    }

    fn announcement_received(
        &mut self,
        publisher: &Peer,
        place: (Hash, u64),
        announcement: Announcement,
        signature: Signature,
        hashes: Vec<Hash>,
    ) {
        let Announcement { height, .. } = announcement;
        match self.admit(publisher, place, &announcement, &signature, &hashes) {
            Ok(()) => {}
            Err(Refusal::Dropped) => return self.streams.ignore(announcement.stream()),
            // Others may send the same stream: nothing of it is touched.
            Err(Refusal::Sender) => return,
            Err(Refusal::Offence(reason)) => {
                return self.penalise(publisher, height, reason.to_owned());
            }
        }
        self.announced.record(&announcement, signature);
        self.start_if_begun();
        if self.announce_known(&announcement, signature) || self.is_inspected(&announcement) {
            self.streams.close(announcement.stream());
            return;
        }
        let (whole, faults) = self.streams.open(announcement, signature, hashes);
        for (publisher, error) in faults {
            self.penalise(&publisher, height, error.to_string());
        }
        if let Some(whole) = whole {
            self.inspect(whole);
        }
    }

    fn slice_received(&mut self, slice: Slice) {
        let height = self.streams.height(&slice.stream);
        let publisher = slice.publisher.clone();
        let refused = match height {
            Some(height) => self.offenders.contains(height, &publisher),
            None => self.offenders.knows(&publisher),
        };
        if refused {
            return;
        }
        match self.streams.insert(slice) {
            Ok(None) => {}
            Ok(Some(whole)) => self.inspect(whole),
            Err(error) => {
                if let Some(height) = height {
                    self.penalise(&publisher, height, error.to_string());
                }
            }
        }
    }

    /// Checks an announcement, the cheap rules first, the signature last.
    fn admit(
        &self,
        publisher: &Peer,
        (stream, sequence): (Hash, u64),
        announcement: &Announcement,
        signature: &Signature,
        hashes: &[Hash],
    ) -> Result<(), Refusal> {
        let Announcement {
            height,
            round,
            proposer,
            size,
            ..
        } = *announcement;
        if height <= self.decided || height.since(self.decided) > 1 + HEIGHTS_AHEAD_MAX {
            return Err(Refusal::Dropped);
        }
        if self.offenders.contains(height, publisher) {
            return Err(Refusal::Sender);
        }
        if size == 0 || size as usize > self.config.block_bytes_max {
            return Err(Refusal::Offence(
                "announced a block of a size that none has",
            ));
        }
        if sequence != 0 || announcement.stream() != stream {
            return Err(Refusal::Offence("announced a block in a foreign stream"));
        }
        if !announcement.lists(hashes) {
            return Err(Refusal::Offence("listed other parts than are announced"));
        }
        let begun = self.round_of(height).get();
        if round.get() > begun.saturating_add(ROUNDS_AHEAD_MAX) {
            return Err(Refusal::Dropped);
        }
        let turn_known = self.validators.contains_key(&height);
        if !self.may_propose(height, round, &proposer) {
            return Err(Refusal::Dropped);
        }
        if self.announced.is_refuted(announcement) {
            return Err(Refusal::Dropped);
        }
        if self.announced.contains(announcement, signature) {
            return Ok(());
        }
        if !self.announced.has_room(announcement, turn_known) {
            return Err(Refusal::Dropped);
        }
        if self.is_signed(announcement, signature) {
            Ok(())
        } else {
            Err(Refusal::Offence("forged an announcement"))
        }
    }

    /// Whether an announcement carries its proposer's signature.
    pub(super) fn is_signed(&self, announcement: &Announcement, signature: &Signature) -> bool {
        let message = announcement_bytes(&self.config.chain, announcement);
        verify(&Item {
            key: announcement.proposer.as_bytes(),
            message: &message,
            signature: signature.as_bytes(),
        })
    }

    /// Whether it is the proposer's turn; as long as the height's validators are unknown, whether
    /// it is one of the latest validators.
    fn may_propose(&self, height: Height, round: Round, proposer: &AccountId) -> bool {
        match self.validators.get(&height) {
            Some(set) => set.proposer(height, round).key == *proposer,
            None => self.is_validator(height, proposer),
        }
    }

    /// Whether it is a validator of the height, or of the latest height whose validators are known.
    fn is_validator(&self, height: Height, key: &AccountId) -> bool {
        let latest = || self.validators.last_key_value().map(|(_, set)| set);
        let set = self.validators.get(&height).or_else(latest);
        set.is_some_and(|set| set.by_key(key).is_some())
    }

    /// Takes note of an announcement whose block is here already; whether it is.
    fn announce_known(&mut self, announcement: &Announcement, signature: Signature) -> bool {
        let height = announcement.height;
        if self.waiting.announce(announcement, signature) {
            return true;
        }
        let Some(judgement) = self.proposals.judgement(height, &announcement.block) else {
            return false;
        };
        let built = judgement.built;
        // A turn before the block was built is no turn of this block; see `check_turn`.
        if built <= announcement.round {
            let turn = Turn::new(announcement, Some(signature));
            self.proposals.proposed(height, turn);
            self.hand_over();
        }
        true
    }

    fn penalise(&mut self, peer: &Peer, height: Height, reason: String) {
        if self.offenders.record(height, peer) {
            self.order(Command::Penalise {
                peer: peer.clone(),
                height,
                reason,
            });
        }
    }

    /// Records that what a validator announced is not what it signed for, which nobody else can bring
    /// about.
    fn refute(&mut self, announcement: &Announcement, reason: String) {
        self.announced.refute(announcement);
        self.order(Command::Accuse {
            validator: announcement.proposer,
            height: announcement.height,
            reason,
        });
    }

    /// The announcements whose blocks are being inspected.
    fn inspected_now(&self) -> impl Iterator<Item = &Announcement> {
        self.jobs.values().filter_map(|work| match work {
            Work::InspectProposal { announcement, .. } => Some(announcement),
            _ => None,
        })
    }

    fn is_inspected(&self, announcement: &Announcement) -> bool {
        self.inspected_now()
            .any(|inspected| inspected == announcement)
    }

    /// Has a whole block inspected, unless too many are.
    fn inspect(&mut self, whole: Whole) {
        let Whole {
            announcement,
            signature,
            bytes,
        } = whole;
        let Announcement {
            height,
            round,
            proposer,
            ..
        } = announcement;
        // Whose turn it is may have become known since the announcement came.
        if !self.may_propose(height, round, &proposer)
            || self.announce_known(&announcement, signature)
        {
            return;
        }
        let of_validator = self.inspected_now();
        let of_validator = of_validator.filter(|of| of.proposer == proposer).count();
        if self.inspected_now().count() >= INSPECTIONS_MAX
            || of_validator >= INSPECTIONS_PER_VALIDATOR_MAX
        {
            return;
        }
        let job = self.begin(Work::InspectProposal {
            announcement,
            signature,
            bytes: Arc::clone(&bytes),
        });
        self.order(Command::Inspect { job, bytes });
    }

    pub(super) fn proposal_inspected(
        &mut self,
        announcement: Announcement,
        signature: Signature,
        bytes: Arc<[u8]>,
        facts: Result<BlockFacts, String>,
    ) {
        let height = announcement.height;
        if height <= self.committed {
            return;
        }
        // Hash first: what does not have the announced hash says nothing about it. The announcement
        // commits to these very bytes, so whatever is wrong with them is its proposer's fault.
        let facts = match facts {
            Ok(facts) if facts.hash == announcement.block => facts,
            Ok(facts) => {
                let reason = format!("announced block {} as {}", facts.hash, announcement.block);
                return self.refute(&announcement, reason);
            }
            Err(reason) => return self.refute(&announcement, reason),
        };
        if facts.turn.height != height {
            let reason = format!("announced a block of height {}", facts.turn.height);
            return self.refute(&announcement, reason);
        }
        match self.check_turn(&facts, announcement.round) {
            Ok(()) => {}
            // What the header says condemns the block under its own hash.
            Err(error @ TurnError::Proposer { .. }) => {
                self.proposals.judged(&facts, Err(error.to_string()));
                let turn = Turn::new(&announcement, Some(signature));
                self.proposals.proposed(height, turn);
                return self.hand_over();
            }
            // The block may be proposed later on, but not in this turn.
            Err(error @ TurnError::LaterRound { .. }) => {
                return self.refute(&announcement, error.to_string());
            }
        }
        if !self.is_validator(height, &facts.turn.proposer) {
            return;
        }
        if facts.turn.round == announcement.round
            && facts.turn.proposer == announcement.proposer
            && facts.turn.proposer != self.config.me
        {
            let proposer = facts.turn.proposer;
            self.clocks.record(proposer, facts.time_ms, self.now);
        }
        if self.announce_known(&announcement, signature) {
            return;
        }
        self.waiting.insert(WaitingBlock {
            facts,
            bytes,
            stage: Stage::Waiting {
                not_before: Round::default(),
            },
            announcements: vec![(announcement, signature)],
        });
        self.judge_ready();
    }

    /// Applies the header-round rule, as soon as the height's validators are known.
    fn check_turn(&self, facts: &BlockFacts, round: Round) -> Result<(), TurnError> {
        let validators = self.validators.get(&facts.turn.height);
        validators.map_or(Ok(()), |set| check_turn(&facts.turn, set, round))
    }

    /// Judges the waiting blocks whose parent is committed, whose round has begun and whose time has
    /// come, and sets the timer for those whose time has not.
    pub(super) fn judge_ready(&mut self) {
        let height = self.committed.next();
        let round = self.round_of(height);
        let mut recheck_ms: Option<u64> = None;
        for facts in self.waiting.ready(height, round) {
            // Known only now, if the block came before its parent was committed.
            if let Err(error @ TurnError::Proposer { .. }) = self.check_turn(&facts, round) {
                self.refuse_waiting(height, &facts.hash, error.to_string());
                continue;
            }
            let due_ms = facts.time_ms.saturating_sub(CLOCK_DRIFT_MS_MAX);
            let ahead_ms = due_ms.saturating_sub(self.now.clock_ms);
            if ahead_ms > 0 {
                let after = ahead_ms.min(EARLY_RECHECK_MS_MAX);
                recheck_ms = Some(recheck_ms.map_or(after, |earlier| earlier.min(after)));
                continue;
            }
            if self.waiting.judging() < JUDGING_MAX {
                self.judge_waiting(height, round, facts.hash);
            }
        }
        if let Some(after_ms) = recheck_ms {
            self.order(Command::SetTimer {
                timer: Timer::EarlyBlocks,
                after: Duration::from_millis(after_ms),
            });
        }
    }

    /// Records that a waiting block is invalid, and why.
    fn refuse_waiting(&mut self, height: Height, block: &Hash, reason: String) {
        if let Some(waiting) = self.waiting.remove(height, block) {
            self.proposals.judged(&waiting.facts, Err(reason));
            self.record_turns(height, &waiting);
            self.hand_over();
        }
    }

    fn judge_waiting(&mut self, height: Height, round: Round, block: Hash) {
        let Some(waiting) = self.waiting.get_mut(height, &block) else {
            return;
        };
        waiting.stage = Stage::Judging;
        let bytes = Arc::clone(&waiting.bytes);
        let job = self.begin(Work::JudgeProposal { height, block });
        self.order(Command::Judge {
            job,
            height,
            round,
            block,
            bytes,
        });
    }

    pub(super) fn proposal_judged(&mut self, height: Height, block: &Hash, verdict: &Verdict) {
        let round = self.round_of(height);
        let Some(waiting) = self.waiting.get_mut(height, block) else {
            return self.judge_ready();
        };
        match verdict {
            Verdict::Valid => {
                waiting.stage = Stage::Storing;
                let (announcement, signature) = waiting.announcements[0];
                let proposal = UndecidedProposal {
                    height,
                    round: announcement.round,
                    pol_round: announcement.pol_round,
                    proposer: announcement.proposer,
                    hash: *block,
                    bytes: Arc::clone(&waiting.bytes),
                    valid: true,
                    signature: Some(signature),
                };
                let block = *block;
                let job = self.begin(Work::StoreProposal { height, block });
                self.order(Command::Store { job, proposal });
            }
            Verdict::Invalid { reason } => self.refuse_waiting(height, block, reason.clone()),
            Verdict::Failed { .. } => {
                let not_before = Round::new(round.get().saturating_add(1));
                waiting.stage = Stage::Waiting { not_before };
            }
        }
        self.judge_ready();
    }

    pub(super) fn proposal_stored(&mut self, height: Height, block: &Hash, stored: bool) {
        let round = self.round_of(height);
        if !stored {
            if let Some(waiting) = self.waiting.get_mut(height, block) {
                let not_before = Round::new(round.get().saturating_add(1));
                waiting.stage = Stage::Waiting { not_before };
            }
            return;
        }
        if let Some(waiting) = self.waiting.remove(height, block) {
            self.proposals.judged(&waiting.facts, Ok(()));
            let bytes = Arc::clone(&waiting.bytes);
            self.proposals.keep(height, *block, bytes);
            self.record_turns(height, &waiting);
            self.hand_over();
        }
    }

    /// Records the turns in which a judged block was announced.
    fn record_turns(&mut self, height: Height, waiting: &WaitingBlock) {
        let built = waiting.facts.turn.round;
        for (announcement, signature) in &waiting.announcements {
            // A turn before the block was built is no turn of this block; see `check_turn`.
            if built <= announcement.round {
                let turn = Turn::new(announcement, Some(*signature));
                self.proposals.proposed(height, turn);
            }
        }
    }
}
