//! What a dishonest validator does. It runs the honest node's engine and core without a guard, so
//! that it stays in step with the others, and lies in what it builds, signs, sends and serves.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_malachitebft_core_consensus::SignedConsensusMsg;
use arc_malachitebft_core_types::{NilOrVal, SignedMessage};
use bytes::Bytes;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use crate::block::{self, CHAIN, Plan};
use crate::context::{Chain, Proposal, Value, Vote};
use crate::keyed;
use crate::node::{Outside, To, Wire};
use crate::random::Random;
use crate::sync::Decided;
use proofmill_consensus::core::{
    Announcement, PART_BYTES, Part, PartMessage, ROUNDS_AHEAD_MAX, announcement_bytes, parts_root,
    split,
};

/// Announcements of others that are remembered.
const HEARD_MAX: usize = 16;
/// Altered copies of another's block that it sends at once.
const COPIES: u8 = 16;
/// How far in the future its blocks are dated, in milliseconds.
const FUTURES_MS: [u64; 6] = [400, 700, 2_000, 10_000, 600_000, 7_200_000];

/// A dishonest validator's state.
#[derive(Clone, Debug)]
pub(crate) struct Byzantine {
    nodes: usize,
    /// Whether it sends blocks of later heights and rounds all the time.
    floods: bool,
    /// Whether it only misbehaves now and then.
    rarely: u64,
    heard: VecDeque<Announcement>,
    /// The second block of a turn.
    second: Option<(Height, Round, Hash, Vec<usize>)>,
}

impl Byzantine {
    pub(crate) fn new(nodes: usize, random: &mut Random) -> Self {
        Self {
            nodes,
            floods: random.one_in(3),
            rarely: random.pick(&[1, 1, 2, 5]),
            heard: VecDeque::new(),
            second: None,
        }
    }

    /// Some of the nodes.
    fn some(&self, random: &mut Random) -> Vec<usize> {
        (0..self.nodes).filter(|_| random.one_in(2)).collect()
    }

    fn others(&self, some: &[usize]) -> Vec<usize> {
        (0..self.nodes)
            .filter(|node| !some.contains(node))
            .collect()
    }

    fn someone(&self, random: &mut Random) -> To {
        if random.one_in(2) {
            To::All
        } else {
            To::Only(self.some(random))
        }
    }

    /// A later round of the height that is its own turn.
    fn later_turn(
        me: &AccountId,
        validators: &ValidatorSet,
        height: Height,
        round: Round,
        random: &mut Random,
    ) -> Option<Round> {
        let turns = (1..=ROUNDS_AHEAD_MAX).map(|ahead| Round::new(round.get() + ahead));
        let mine: Vec<_> = turns
            .filter(|round| validators.proposer(height, *round).key == *me)
            .collect();
        (!mine.is_empty()).then(|| random.pick(&mine))
    }

    /// Hears the announcement of another's block and sends junk under its hash, in turns of its own.
    pub(crate) fn overhear(
        &mut self,
        key: &SecretKey,
        validators: &ValidatorSet,
        message: &PartMessage,
        out: &mut Outside<'_>,
    ) {
        let Part::Init(heard, ..) = &message.part else {
            return;
        };
        let me = key.public();
        if heard.proposer == me || self.heard.contains(heard) {
            return;
        }
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(*heard);
        if self.floods {
            Self::send_altered(message, heard, out);
        }
        if !out.random.one_in(2 * self.rarely) {
            return;
        }
        let before = Round::new(heard.round.get().saturating_sub(1));
        let turn = Self::later_turn(&me, validators, heard.height, before, out.random);
        let Some(round) = turn else { return };
        let junk = if out.random.one_in(2) {
            let junk = (0..64).map(|_| out.random.next().to_le_bytes()[0]);
            Arc::from(junk.collect::<Vec<_>>())
        } else {
            // A real block, but not the one that was announced.
            let plan = Plan {
                height: heard.height,
                round,
                proposer: me,
                parent: CHAIN,
                time_ms: 1,
                executes: true,
                salt: out.random.next(),
                padding: 0,
            };
            plan.seal().1
        };
        self.send_block(key, heard.height, round, heard.block, &junk, out);
    }

    /// Sends altered copies of another's block under its own announcement.
    fn send_altered(init: &PartMessage, heard: &Announcement, out: &mut Outside<'_>) {
        let length = PART_BYTES.min(heard.size as usize);
        for copy in 0..COPIES {
            out.sends.push((To::All, Wire::Part(init.clone())));
            let junk = PartMessage {
                stream: init.stream,
                sequence: 1,
                part: Part::Data(Bytes::from(vec![copy; length])),
            };
            out.sends.push((To::All, Wire::Part(junk)));
        }
    }

    fn send_block(
        &self,
        key: &SecretKey,
        height: Height,
        round: Round,
        block: Hash,
        bytes: &[u8],
        out: &mut Outside<'_>,
    ) {
        let to = self.someone(out.random);
        let announcement = Announcement {
            height,
            round,
            pol_round: None,
            proposer: key.public(),
            block,
            size: u32::try_from(bytes.len()).expect("a short block"),
            parts: parts_root(bytes),
        };
        let signature = key.sign(&announcement_bytes(&CHAIN, &announcement));
        for part in split(&announcement, signature, bytes) {
            out.sends.push((to.clone(), Wire::Part(part)));
        }
    }

    /// Spoils the block that it is about to build.
    pub(crate) fn build(&self, plan: &mut Plan, validators: &ValidatorSet, random: &mut Random) {
        if !random.one_in(self.rarely) {
            return;
        }
        match random.below(9) {
            0 | 1 => plan.time_ms += random.pick(&FUTURES_MS),
            2..=4 => {
                let (me, height) = (plan.proposer, plan.height);
                let later = Self::later_turn(&me, validators, height, plan.round, random);
                plan.round = later.unwrap_or(Round::new(plan.round.get() + 3));
            }
            5 => plan.executes = false,
            6 => plan.parent = Hash::new([9; 32]),
            _ => {}
        }
    }

    /// Sends the block of its turn, or some of it, or two.
    pub(crate) fn publish_block(
        &mut self,
        key: &SecretKey,
        announcement: &Announcement,
        signature: Signature,
        bytes: &Arc<[u8]>,
        out: &mut Outside<'_>,
    ) {
        let Announcement {
            height,
            round,
            block,
            ..
        } = *announcement;
        let header = block::open(bytes).ok();
        let header = header.filter(|header| header.proposer == key.public());
        if let Some(header) = &header
            && header.round > round
            && !out.random.one_in(4)
        {
            // Sent for the later round, proposed in this one.
            return self.send_block(key, height, header.round, block, bytes, out);
        }
        let mut parts = split(announcement, signature, bytes);
        let mut to = To::All;
        let choice = if out.random.one_in(self.rarely) {
            out.random.below(8)
        } else {
            7
        };
        match (choice, header) {
            (0, _) => drop(parts.pop()),
            (1, _) => drop(parts.remove(0)),
            (2, _) => to = To::Only(self.some(out.random)),
            (3 | 4, Some(header)) => {
                let plan = Plan {
                    height,
                    round: header.round,
                    proposer: header.proposer,
                    parent: header.parent,
                    time_ms: header.time_ms,
                    executes: true,
                    salt: out.random.next(),
                    padding: 0,
                };
                let (second, body) = plan.seal();
                let some = self.some(out.random);
                to = To::Only(self.others(&some));
                self.second = Some((height, round, second, some));
                self.send_block(key, height, round, second, &body, out);
            }
            (5, _) => {
                let junk: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
                self.send_block(key, height, round, block, &junk, out);
            }
            _ => {}
        }
        let sends = parts.into_iter().map(|part| (to.clone(), Wire::Part(part)));
        out.sends.extend(sends);
    }

    /// Sends its vote or proposal, or another one, or two.
    pub(crate) fn publish(
        &self,
        me: &AccountId,
        message: SignedConsensusMsg<Chain>,
        out: &mut Outside<'_>,
    ) {
        let other = match &message {
            SignedConsensusMsg::Vote(vote) if vote.message.voter.0 == *me => {
                let vote = self.other_vote(vote.message, out.random);
                let signature = keyed::sign(me, &keyed::vote_bytes(&vote));
                SignedConsensusMsg::Vote(SignedMessage::new(vote, signature))
            }
            SignedConsensusMsg::Proposal(proposal) if proposal.message.proposer.0 == *me => {
                let proposal = proposal.message;
                let Some((height, round, block, some)) = &self.second else {
                    out.sends.push((To::All, Wire::Consensus(message)));
                    return;
                };
                if (proposal.height.0, proposal.round.as_u32()) != (*height, Some(round.get())) {
                    out.sends.push((To::All, Wire::Consensus(message)));
                    return;
                }
                let second = Proposal {
                    value: Value(*block),
                    ..proposal
                };
                let signature = keyed::sign(me, &keyed::proposal_bytes(&second));
                let second = SignedConsensusMsg::Proposal(SignedMessage::new(second, signature));
                let rest = self.others(some);
                out.sends
                    .push((To::Only(some.clone()), Wire::Consensus(second)));
                out.sends.push((To::Only(rest), Wire::Consensus(message)));
                return;
            }
            _ => {
                out.sends.push((To::All, Wire::Consensus(message)));
                return;
            }
        };
        let choice = if out.random.one_in(self.rarely) {
            out.random.below(6)
        } else {
            5
        };
        match choice {
            0 => {
                let some = self.some(out.random);
                let rest = self.others(&some);
                out.sends.push((To::Only(some), Wire::Consensus(other)));
                out.sends.push((To::Only(rest), Wire::Consensus(message)));
            }
            1 => {}
            2 => {
                out.sends.push((To::All, Wire::Consensus(other)));
                out.sends.push((To::All, Wire::Consensus(message)));
            }
            _ => out.sends.push((To::All, Wire::Consensus(message))),
        }
    }

    fn other_vote(&self, vote: Vote, random: &mut Random) -> Vote {
        let blocks: Vec<Hash> = self
            .heard
            .iter()
            .filter(|heard| heard.height == vote.height.0)
            .map(|heard| heard.block)
            .collect();
        let value = match vote.value {
            NilOrVal::Nil if !blocks.is_empty() => NilOrVal::Val(random.pick(&blocks)),
            NilOrVal::Nil => NilOrVal::Val(Hash::new([3; 32])),
            NilOrVal::Val(_) => NilOrVal::Nil,
        };
        Vote { value, ..vote }
    }

    /// Spoils decided blocks that a peer has asked for.
    pub(crate) fn serve(&self, values: &mut Vec<Decided>, random: &mut Random) {
        match random.below(6) {
            0 => values.clear(),
            1 => {
                if let Some((_, bytes)) = values.last_mut() {
                    *bytes = Arc::from([7_u8; 40]);
                }
            }
            2 => {
                if let Some((certificate, _)) = values.first_mut() {
                    certificate.signatures.pop();
                }
            }
            _ => {}
        }
    }

    /// Sends blocks of later heights and rounds, most of them from the future.
    pub(crate) fn flood(
        &self,
        key: &SecretKey,
        validators: &ValidatorSet,
        head: Height,
        clock_ms: u64,
        out: &mut Outside<'_>,
    ) {
        if !self.floods {
            return;
        }
        for _ in 0..4 {
            let height = head.saturating_plus(out.random.between(1, 4));
            let start = Round::new(u32::try_from(out.random.below(4)).expect("below four"));
            let me = key.public();
            let turn = Self::later_turn(&me, validators, height, start, out.random);
            let Some(round) = turn else { continue };
            let plan = Plan {
                height,
                round,
                proposer: me,
                parent: CHAIN,
                time_ms: clock_ms + out.random.pick(&FUTURES_MS),
                executes: true,
                salt: out.random.next(),
                padding: out.random.pick(&[0, 0, 20_000]),
            };
            let (block, bytes) = plan.seal();
            self.send_block(key, height, round, block, &bytes, out);
        }
        // A stream that never ends.
        let stream = Hash::of("simulation/flood", &[&out.random.next().to_le_bytes()]);
        let bytes = Bytes::from_static(&[1; 1000]);
        let part = PartMessage {
            stream,
            sequence: 1 + out.random.below(2),
            part: Part::Data(bytes),
        };
        out.sends.push((To::All, Wire::Part(part)));
    }
}
