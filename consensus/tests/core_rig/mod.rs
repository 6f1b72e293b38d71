//! One core with an application in memory; whatever it orders is done at once.

#![allow(dead_code, reason = "each test takes the parts that it needs")]

use std::collections::BTreeSet;
use std::sync::Arc;

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::Turn;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::units::{Height, Round, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_consensus::core::{
    Announcement, Answer, BlockFacts, Command, Core, CoreConfig, Event, Loaded, Now, PartMessage,
    Peer, Proposed, Stored, SyncOutcome, Ticket, Verdict, announcement_bytes, parts_root, split,
};

/// The validators' powers; the rig's core is the last one.
pub(crate) const POWERS: [u64; 4] = [40, 30, 20, 10];
pub(crate) const ME: usize = 3;
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 20;
/// What the clock shows at the start.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

pub(crate) fn chain() -> Hash {
    Hash::of("test/genesis/v1", &[])
}

pub(crate) fn key(index: usize) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(index).expect("few") + 1; 32])
}

pub(crate) fn validators() -> ValidatorSet {
    let validators = POWERS.iter().enumerate().map(|(index, power)| Validator {
        key: key(index).public(),
        beacon_key: key(index).public(),
        reward: key(index).public(),
        power: Weight::new(*power),
    });
    ValidatorSet::new(validators.collect()).expect("a valid set")
}

/// Whose turn it is.
pub(crate) fn proposer(height: u64, round: u32) -> usize {
    let set = validators();
    let proposer = set.proposer(Height::new(height), Round::new(round)).key;
    (0..POWERS.len())
        .find(|index| key(*index).public() == proposer)
        .expect("of the set")
}

/// The first round from `from` on in which somebody else than this node proposes.
pub(crate) fn round_of_others(height: u64, from: u32) -> u32 {
    (from..from + 10)
        .find(|round| proposer(height, *round) != ME)
        .expect("three of four are others")
}

pub(crate) fn peer(tag: u8) -> Peer {
    Peer(Arc::new([tag; 34]))
}

/// A block: height, round, proposer, time, a body that the hash covers.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) height: u64,
    pub(crate) round: u32,
    pub(crate) proposer: usize,
    pub(crate) time_ms: u64,
    pub(crate) body: Vec<u8>,
}

impl Block {
    /// A block of the turn's proposer at the start's time.
    pub(crate) fn new(height: u64, round: u32) -> Self {
        Self {
            height,
            round,
            proposer: proposer(height, round),
            time_ms: START_MS,
            body: b"body".to_vec(),
        }
    }

    pub(crate) fn at(mut self, time_ms: u64) -> Self {
        self.time_ms = time_ms;
        self
    }

    pub(crate) fn bytes(&self) -> Arc<[u8]> {
        let mut bytes = self.height.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.round.to_le_bytes());
        bytes.extend_from_slice(key(self.proposer).public().as_bytes());
        bytes.extend_from_slice(&self.time_ms.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }

    pub(crate) fn hash(&self) -> Hash {
        Hash::of("test/block/v1", &[&self.bytes()])
    }

    /// Its announcement in a round, by that round's proposer.
    pub(crate) fn announced_in(&self, round: u32) -> (Announcement, Signature) {
        self.announced_by(proposer(self.height, round), round)
    }

    pub(crate) fn announced_by(&self, index: usize, round: u32) -> (Announcement, Signature) {
        let announcement = Announcement {
            height: Height::new(self.height),
            round: Round::new(round),
            pol_round: None,
            proposer: key(index).public(),
            block: self.hash(),
            size: u32::try_from(self.bytes().len()).expect("small"),
            parts: parts_root(&self.bytes()),
        };
        (announcement, sign(index, &announcement))
    }
}

/// A block of height 1 that somebody else built, with its round begun.
pub(crate) fn rig_and_block() -> (Rig, Block) {
    let mut rig = Rig::new();
    let round = round_of_others(1, 0);
    rig.start_round(1, round);
    (rig, Block::new(1, round))
}

pub(crate) fn sign(index: usize, announcement: &Announcement) -> Signature {
    key(index).sign(&announcement_bytes(&chain(), announcement))
}

pub(crate) fn facts_of(bytes: &[u8]) -> Result<BlockFacts, String> {
    let array = |from: usize, to: usize| bytes.get(from..to).ok_or("not a block");
    let height = array(0, 8)?.try_into().expect("8 bytes");
    let round = array(8, 12)?.try_into().expect("4 bytes");
    let proposer = array(12, 44)?.try_into().expect("32 bytes");
    let time = array(44, 52)?.try_into().expect("8 bytes");
    Ok(BlockFacts {
        hash: Hash::of("test/block/v1", &[bytes]),
        turn: Turn {
            height: Height::new(u64::from_le_bytes(height)),
            round: Round::new(u32::from_le_bytes(round)),
            proposer: AccountId::new(proposer),
        },
        time_ms: u64::from_le_bytes(time),
    })
}

/// A core, its application and all that it has said.
pub(crate) struct Rig {
    pub(crate) core: Core,
    pub(crate) now: Now,
    tickets: u64,
    /// Blocks that the application calls invalid.
    pub(crate) invalid: BTreeSet<Hash>,
    pub(crate) judged: Vec<Hash>,
    pub(crate) stored: Vec<Hash>,
    pub(crate) handed: Vec<Proposed>,
    pub(crate) answers: Vec<(Ticket, Answer)>,
    pub(crate) penalised: Vec<(Peer, Height)>,
    pub(crate) accused: Vec<(AccountId, Height)>,
    /// Certified blocks that are invalid here, and why.
    pub(crate) disagreed: Vec<(Hash, String)>,
    /// Everything, in order.
    pub(crate) log: Vec<Command>,
    /// The wait of the timer that is set.
    pub(crate) timer_ms: Option<u64>,
    pub(crate) pacing: bool,
}

impl Rig {
    /// A core whose engine has started height 1, round 0.
    pub(crate) fn new() -> Self {
        Self::with_stored(Vec::new())
    }

    pub(crate) fn with_stored(stored: Vec<Stored>) -> Self {
        let mut rig = Self {
            core: Core::new(CoreConfig {
                chain: chain(),
                me: key(ME).public(),
                block_bytes_max: BLOCK_BYTES_MAX,
            }),
            now: Now {
                clock_ms: START_MS,
                uptime_ms: 0,
            },
            tickets: 0,
            invalid: BTreeSet::new(),
            judged: Vec::new(),
            stored: Vec::new(),
            handed: Vec::new(),
            answers: Vec::new(),
            penalised: Vec::new(),
            accused: Vec::new(),
            disagreed: Vec::new(),
            log: Vec::new(),
            timer_ms: None,
            pacing: false,
        };
        let ticket = rig.ticket();
        rig.take(Event::EngineReady { ticket });
        rig.take(Event::Loaded(Ok(Loaded {
            head: Height::ZERO,
            validators: validators(),
            stored,
        })));
        assert!(matches!(rig.answer(ticket), Answer::Start { .. }));
        rig.start_round(1, 0);
        rig
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The answer to a ticket, which it has got exactly once.
    pub(crate) fn answer(&self, ticket: Ticket) -> &Answer {
        let mut given = self.answers.iter().filter(|(given, _)| *given == ticket);
        let (_, answer) = given.next().expect("answered");
        assert!(given.next().is_none(), "answered twice");
        answer
    }

    pub(crate) fn is_answered(&self, ticket: Ticket) -> bool {
        self.answers.iter().any(|(given, _)| *given == ticket)
    }

    /// Hands an event in and does what the core orders, until it orders nothing more.
    pub(crate) fn take(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for command in self.core.handle(self.now, event) {
                self.log.push(command.clone());
                events.extend(self.result_of(command));
            }
        }
    }

    fn result_of(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Answer { ticket, answer } => self.answers.push((ticket, answer)),
            Command::HandOver(proposed) => self.handed.push(proposed),
            Command::Inspect { job, bytes } => {
                let facts = facts_of(&bytes);
                return Some(Event::Inspected { job, facts });
            }
            Command::Judge {
                job, block, bytes, ..
            } => {
                assert_eq!(facts_of(&bytes).expect("inspected").hash, block);
                self.judged.push(block);
                let verdict = if self.invalid.contains(&block) {
                    Verdict::Invalid {
                        reason: "marked".into(),
                    }
                } else {
                    Verdict::Valid
                };
                return Some(Event::Judged { job, verdict });
            }
            Command::Store { job, proposal } => {
                let facts = facts_of(&proposal.bytes).expect("only blocks are stored");
                assert_eq!(facts.hash, proposal.hash, "stored under its own name");
                self.stored.push(proposal.hash);
                return Some(Event::Stored {
                    job,
                    result: Ok(()),
                });
            }
            Command::Build { height, round } => {
                let block = Block::new(height.get(), round.get()).at(self.now.clock_ms);
                return Some(Event::Built {
                    height,
                    round,
                    block: Ok((block.hash(), block.bytes())),
                });
            }
            Command::Sign { announcement } => {
                return Some(Event::Signed {
                    signature: Some(sign(ME, &announcement)),
                    announcement,
                });
            }
            Command::Commit { certificate, .. } => {
                return Some(Event::Committed {
                    height: certificate.height,
                    validators: Ok(validators()),
                });
            }
            Command::AwaitNextHeight { .. } => self.pacing = true,
            Command::StopWaiting => self.pacing = false,
            Command::SetTimer { after, .. } => {
                let after = u64::try_from(after.as_millis()).expect("short");
                self.timer_ms = Some(after);
            }
            Command::Penalise { peer, height, .. } => self.penalised.push((peer, height)),
            Command::Accuse {
                validator, height, ..
            } => self.accused.push((validator, height)),
            Command::Disagree { block, reason, .. } => self.disagreed.push((block, reason)),
            Command::Fail { reason } => panic!("the core failed: {reason}"),
            // The rig's core has started, and its blocks are in memory.
            Command::Load | Command::ReadBlock { .. } | Command::Publish { .. } => {}
        }
        None
    }

    /// Begins a round; gives what the engine gets at once.
    pub(crate) fn start_round(&mut self, height: u64, round: u32) -> Vec<Proposed> {
        let ticket = self.ticket();
        self.take(Event::RoundStarted {
            ticket,
            height: Height::new(height),
            round: Round::new(round),
        });
        let proposed = match self.answer(ticket) {
            Answer::Proposals(proposed) => proposed.clone(),
            other => panic!("{other:?}"),
        };
        self.handed.extend(proposed.iter().copied());
        proposed
    }

    pub(crate) fn parts(&mut self, publisher: &Peer, parts: Vec<PartMessage>) {
        self.parts_by(publisher, publisher, parts);
    }

    /// A neighbour delivers what a publisher has published.
    pub(crate) fn parts_by(&mut self, from: &Peer, publisher: &Peer, parts: Vec<PartMessage>) {
        for message in parts {
            self.take(Event::PartReceived {
                from: from.clone(),
                publisher: publisher.clone(),
                message,
            });
        }
    }

    /// A publisher streams some bytes under an announcement.
    pub(crate) fn stream(
        &mut self,
        publisher: &Peer,
        (announcement, signature): (Announcement, Signature),
        bytes: &[u8],
    ) {
        self.parts(publisher, split(&announcement, signature, bytes));
    }

    /// A publisher streams a block in the turn in which it was built.
    pub(crate) fn propose(&mut self, publisher: &Peer, block: &Block) {
        self.stream(publisher, block.announced_in(block.round), &block.bytes());
    }

    /// The engine decides a block that it has, and asks for the next height; gives that ticket.
    pub(crate) fn decide(&mut self, block: &Block, round: u32) -> Ticket {
        let ticket = self.ticket();
        self.take(Event::Decided {
            ticket,
            certificate: Certificate {
                height: Height::new(block.height),
                round: Round::new(round),
                block: block.hash(),
                signatures: Vec::new(),
            },
        });
        assert_eq!(*self.answer(ticket), Answer::Committed);
        let ticket = self.ticket();
        self.take(Event::Finalized {
            ticket,
            height: Height::new(block.height),
        });
        ticket
    }

    /// A synced block under its own certificate; gives the outcome.
    pub(crate) fn sync(&mut self, block: &Block, round: u32) -> SyncOutcome {
        self.sync_as(block, block.hash(), round)
    }

    /// A synced block under a certificate that names some hash; gives the outcome.
    pub(crate) fn sync_as(&mut self, block: &Block, certified: Hash, round: u32) -> SyncOutcome {
        let ticket = self.ticket();
        self.take(Event::SyncedValue {
            ticket,
            height: Height::new(block.height),
            round: Round::new(round),
            proposer: key(proposer(block.height, round)).public(),
            block: certified,
            bytes: block.bytes(),
        });
        match self.answer(ticket) {
            Answer::Synced(outcome) => *outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn was_handed(&self, block: &Block, valid: bool) -> bool {
        let mut handed = self.handed.iter();
        handed.any(|proposed| proposed.block == block.hash() && proposed.valid == valid)
    }
}
