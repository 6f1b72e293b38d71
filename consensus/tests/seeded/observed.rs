//! What must hold, checked when it happens, and the trace of a run.

use std::collections::BTreeMap;

use arc_malachitebft_core_consensus::SignedConsensusMsg;
use arc_malachitebft_core_types::{NilOrVal, VoteType};
use proofmill_chain::finality::check_turn;
use proofmill_chain::types::block::{Certificate, Header};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;

use crate::block;
use crate::context::{Chain, round_of};

/// The kinds of message that one key signs once for a height and round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Header,
    Proposal,
    Prevote,
    Precommit,
}

type Place = (usize, Height, Round, Kind);

pub(crate) struct Observed {
    honest: Vec<bool>,
    keys: Vec<AccountId>,
    signed: BTreeMap<Place, (Option<Hash>, Option<u32>)>,
    decided: BTreeMap<Height, Hash>,
    pub(crate) violation: Option<String>,
    /// The lines of the trace, when there is one.
    trace: Option<Vec<String>>,
    at: (u64, usize),
    /// The highest round that began anywhere.
    pub(crate) rounds: Round,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Observed {
    pub(crate) const fn new(honest: Vec<bool>, keys: Vec<AccountId>, traced: bool) -> Self {
        Self {
            honest,
            keys,
            signed: BTreeMap::new(),
            decided: BTreeMap::new(),
            violation: None,
            trace: if traced { Some(Vec::new()) } else { None },
            at: (0, 0),
            rounds: Round::new(0),
            counts: BTreeMap::new(),
        }
    }

    /// Says to which node and when the next event happens.
    pub(crate) const fn at(&mut self, now: u64, node: usize) {
        self.at = (now, node);
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (now, node) = self.at;
            let (s, us) = (now / 1_000_000, now % 1_000_000);
            trace.push(format!("{s:3}.{us:06} node {node}: {}", line()));
        }
    }

    pub(crate) fn trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Records the first thing that must not happen.
    pub(crate) fn violation(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// Counts something that a run is meant to bring about.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn round(&mut self, round: Round) {
        self.rounds = self.rounds.max(round);
    }

    /// An honest node blames only dishonest ones.
    pub(crate) fn penalised(&mut self, by: usize, peer: usize, reason: &str) {
        self.count("offences seen");
        self.note(|| format!("penalises {peer}: {reason}"));
        if self.honest[by] && self.honest[peer] {
            self.violation(format!("node {by} penalises honest node {peer}: {reason}"));
        }
    }

    /// An honest node accuses only dishonest validators.
    pub(crate) fn accused(&mut self, by: usize, validator: &AccountId, reason: &str) {
        self.count("proposers accused");
        self.note(|| format!("accuses {validator}: {reason}"));
        let mut validators = self.keys.iter().zip(&self.honest);
        let honest = validators.any(|(key, honest)| key == validator && *honest);
        if self.honest[by] && honest {
            self.violation(format!(
                "node {by} accuses honest validator {validator}: {reason}"
            ));
        }
    }

    fn once(&mut self, place: Place, content: (Option<Hash>, Option<u32>)) {
        let (node, height, round, kind) = place;
        if !self.honest[node] {
            return;
        }
        let first = *self.signed.entry(place).or_insert(content);
        if first != content {
            self.violation(format!(
                "node {node} signs two {kind:?} messages at {height}/{round}: {first:?} and {content:?}"
            ));
        }
    }

    /// A vote or proposal leaves a node.
    pub(crate) fn signed(&mut self, node: usize, message: &SignedConsensusMsg<Chain>) {
        let (height, round) = (message.height().0, round_of(message.round()));
        match message {
            SignedConsensusMsg::Vote(vote) => {
                let kind = match vote.message.kind {
                    VoteType::Prevote => Kind::Prevote,
                    VoteType::Precommit => Kind::Precommit,
                };
                let block = match vote.message.value {
                    NilOrVal::Nil => None,
                    NilOrVal::Val(hash) => Some(hash),
                };
                self.note(|| format!("votes {kind:?} {height}/{round} {block:?}"));
                self.once((node, height, round, kind), (block, None));
            }
            SignedConsensusMsg::Proposal(proposal) => {
                let proposal = &proposal.message;
                // At late rounds a node also sends others' proposals again.
                if proposal.proposer.0 != self.keys[node] {
                    return;
                }
                let block = Some(proposal.value.0);
                let pol_round = proposal.pol_round.as_u32();
                self.note(|| format!("proposes {height}/{round} {block:?} {pol_round:?}"));
                self.once((node, height, round, Kind::Proposal), (block, pol_round));
            }
        }
    }

    /// A node sends a block that it built.
    pub(crate) fn header(&mut self, node: usize, header: &Header) {
        let place = (node, header.height, header.round, Kind::Header);
        self.once(place, (Some(header.hash()), None));
    }

    /// A node commits.
    pub(crate) fn decided(
        &mut self,
        node: usize,
        certificate: &Certificate,
        bytes: &[u8],
        validators: &ValidatorSet,
    ) {
        let Certificate {
            height,
            round,
            block,
            ..
        } = *certificate;
        self.note(|| format!("commits {height}/{round} {block}"));
        if !self.honest[node] {
            return;
        }
        let first = *self.decided.entry(height).or_insert(block);
        if first != block {
            self.violation(format!(
                "node {node} decides {block} at height {height}, another decided {first}"
            ));
        }
        match block::open(bytes) {
            Ok(header) if header.hash() != block => {
                self.violation(format!(
                    "node {node} commits other bytes than {block} at height {height}"
                ));
            }
            Ok(header) => {
                if let Err(error) = check_turn(&header.turn(), validators, round) {
                    self.violation(format!(
                        "node {node} commits height {height} against the rule of the header's round: {error}"
                    ));
                }
            }
            Err(error) => self.violation(format!(
                "node {node} commits junk at height {height}: {error}"
            )),
        }
    }
}
