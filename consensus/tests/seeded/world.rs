//! A run: several nodes and the network between them in virtual time, on one thread.

use std::collections::BTreeMap;
use std::rc::Rc;

use arc_malachitebft_app_channel::app::metrics::Metrics;
use proofmill_chain::types::units::{Height, Round};

use crate::block::BLOCK_BYTES_MAX;
use crate::byzantine::Byzantine;
use crate::disk::{Damage, Disk};
use crate::node::{Ended, Later, Node, Outside, To, Wire};
use crate::observed::Observed;
use crate::plan::{Fault, Link, Plan};
use crate::random::Random;
use crate::undo::Undo;
use proofmill_consensus::core::{
    BLOCKS_IN_MEMORY_MAX, COLLECTED_BLOCKS_MAX, INSPECTIONS_MAX, SYNCED_MAX, WAITING_BLOCKS_MAX,
};

/// How long the nodes may take to go on once nothing goes wrong any more, in microseconds.
const CALM_MAX: u64 = 90_000_000;
/// Heights that every honest node must add in that time.
const CALM_HEIGHTS: u64 = 3;
/// How long a question of the engine may stay without an answer, in microseconds.
const ANSWER_MAX: u64 = 10_000_000;
/// Events of one run; more are a storm.
const EVENTS_MAX: u64 = 5_000_000;
/// Bytes of blocks that a core may hold.
const HELD_MAX: usize = BLOCK_BYTES_MAX
    * (COLLECTED_BLOCKS_MAX
        + INSPECTIONS_MAX
        + WAITING_BLOCKS_MAX
        + BLOCKS_IN_MEMORY_MAX
        + SYNCED_MAX);

#[expect(
    clippy::large_enum_variant,
    reason = "a run holds a few thousand of them"
)]
enum Happening {
    Arrive {
        from: usize,
        to: usize,
        wire: Wire,
    },
    Later {
        node: usize,
        incarnation: u64,
        later: Later,
    },
    Start(usize),
    Fault(Fault),
    Calm,
}

/// How a run ended.
pub(crate) struct Outcome {
    /// What went wrong.
    pub(crate) violation: Option<String>,
    pub(crate) trace: Vec<String>,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) heights: u64,
    pub(crate) events: u64,
    /// The highest round.
    pub(crate) rounds: Round,
}

struct World {
    now: u64,
    events: u64,
    numbered: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    random: Random,
    nodes: Vec<Node>,
    link: Link,
    side: Option<Vec<usize>>,
    /// What follows when the fuse of a node has burned.
    crashes: Vec<(u64, Damage)>,
    clocks: Vec<i64>,
    observed: Observed,
    /// From the calm on: the height to reach.
    goal: Option<Height>,
    calm_at: u64,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, undo: &Undo, traced: bool) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::new(&mut random);
    let mut world = World::new(plan, random, undo, traced);
    world.run();
    let heads = world.nodes.iter().map(|node| node.disk.head().get());
    Outcome {
        heights: heads.max().unwrap_or_default(),
        events: world.events,
        rounds: world.observed.rounds,
        trace: world.observed.trace(),
        counts: std::mem::take(&mut world.observed.counts),
        violation: world.observed.violation,
    }
}

impl World {
    fn new(plan: Plan, mut random: Random, undo: &Undo, traced: bool) -> Self {
        let count = plan.keys.len();
        let metrics = Rc::new(Metrics::new());
        let keys: Vec<_> = plan.keys.iter().map(|key| key.public()).collect();
        let honest: Vec<bool> = (0..count)
            .map(|node| !plan.dishonest.contains(&node))
            .collect();
        let mut observed = Observed::new(honest.clone(), keys.clone(), traced);
        observed.note(|| format!("{plan:?}"));
        let nodes = plan.keys.iter().enumerate().map(|(index, key)| Node {
            index,
            key: key.clone(),
            me: keys[index],
            validators: plan.validators.clone(),
            disk: Disk::new(keys[index]),
            clock_ahead_ms: plan.clocks[index],
            process: None,
            incarnation: 0,
            fuse: None,
            byzantine: (!honest[index]).then(|| Byzantine::new(count, &mut random)),
            undo: undo.clone(),
            padding: plan.padding[index],
            idle: plan.idle,
            metrics: Rc::clone(&metrics),
        });
        let nodes = nodes.collect();
        let mut world = Self {
            now: 0,
            events: 0,
            numbered: 0,
            queue: BTreeMap::new(),
            random,
            nodes,
            link: plan.link,
            side: None,
            crashes: vec![(0, Damage::None); count],
            clocks: plan.clocks,
            observed,
            goal: None,
            calm_at: plan.calm_at,
        };
        for node in 0..count {
            let at = world.random.below(500_000);
            world.schedule(at, Happening::Start(node));
        }
        for (at, fault) in plan.faults {
            world.schedule(at, Happening::Fault(fault));
        }
        world.schedule(plan.calm_at, Happening::Calm);
        world
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.numbered += 1;
        self.queue.insert((at, self.numbered), happening);
    }

    fn run(&mut self) {
        while let Some(((now, _), happening)) = self.queue.pop_first() {
            self.now = now;
            self.events += 1;
            if self.events > EVENTS_MAX {
                self.observed.violation("a storm of events".to_owned());
            }
            if now > self.calm_at + CALM_MAX {
                self.report_standstill();
            }
            if self.observed.violation.is_some() || self.reached() {
                return;
            }
            self.happen(happening);
        }
    }

    fn honest(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.byzantine.is_none())
    }

    fn reached(&self) -> bool {
        let Some(goal) = self.goal else { return false };
        self.honest().all(|node| node.disk.head() >= goal)
    }

    fn report_standstill(&mut self) {
        let goal = self.goal.unwrap_or_default();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let position = node.process.as_ref();
                let position = position.map(|process| process.engine.position());
                format!("{} at {} in {position:?}", node.index, node.disk.head())
            })
            .collect();
        let seconds = CALM_MAX / 1_000_000;
        self.observed.violation(format!(
            "height {goal} is not reached by all within {seconds} s: {}",
            nodes.join(", ")
        ));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { from, to, wire } => {
                self.visit(to, |node, out| node.arrive(from, wire, out));
            }
            Happening::Later {
                node,
                incarnation,
                later,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.visit(node, |node, out| node.later(later, out));
                }
            }
            Happening::Start(node) => {
                if self.nodes[node].process.is_none() {
                    self.visit(node, Node::start);
                }
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Calm => self.calm(),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Crash {
                node,
                fuse,
                down,
                damage,
            } => {
                self.nodes[node].fuse = Some(fuse);
                self.crashes[node] = (down, damage);
            }
            Fault::Clock(node, ahead_ms) => self.nodes[node].clock_ahead_ms = ahead_ms,
            Fault::BackUp(node) => self.nodes[node].disk.back_up(),
            Fault::Split(side) => self.side = Some(side),
            Fault::Heal => self.side = None,
        }
    }

    fn calm(&mut self) {
        self.link = Link::GOOD;
        self.side = None;
        for (node, clock) in self.nodes.iter_mut().zip(&self.clocks) {
            node.fuse = None;
            node.clock_ahead_ms = *clock;
        }
        let highest = self.honest().map(|node| node.disk.head()).max();
        let goal = highest.unwrap_or_default().saturating_plus(CALM_HEIGHTS);
        self.observed
            .note(|| format!("calm; the goal is height {goal}"));
        self.goal = Some(goal);
    }

    /// Lets a node live through one event.
    fn visit(
        &mut self,
        index: usize,
        event: impl FnOnce(&mut Node, &mut Outside<'_>) -> Option<Ended>,
    ) {
        self.observed.at(self.now, index);
        let mut out = Outside {
            now: self.now,
            random: &mut self.random,
            sends: Vec::new(),
            later: Vec::new(),
            observed: &mut self.observed,
        };
        let node = &mut self.nodes[index];
        let ended = event(node, &mut out);
        let Outside { sends, later, .. } = out;
        if ended.is_none() {
            self.check(index);
        }
        for (to, wire) in sends {
            self.send(index, &to, &wire);
        }
        let incarnation = self.nodes[index].incarnation;
        for (delay, later) in later {
            let happening = Happening::Later {
                node: index,
                incarnation,
                later,
            };
            self.schedule(self.now + delay, happening);
        }
        if let Some(ended) = ended {
            self.end(index, ended);
        }
    }

    fn end(&mut self, index: usize, ended: Ended) {
        let node = &mut self.nodes[index];
        let (down, damage) = match ended {
            Ended::Crashed => self.crashes[index],
            Ended::Restarts => (20_000, Damage::None),
        };
        self.observed
            .note(|| format!("{ended:?} {damage:?} for {down}"));
        self.observed.count(match (ended, damage) {
            (Ended::Restarts, _) => "restarts in order to sign",
            (Ended::Crashed, Damage::None) => "kills",
            (Ended::Crashed, _) => "kills with damage",
        });
        node.crash();
        node.incarnation += 1;
        node.disk.damage(damage, &mut self.random);
        self.schedule(self.now + down + 1, Happening::Start(index));
    }

    /// What holds of a node after every event.
    fn check(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(process) = &node.process else { return };
        if node.byzantine.is_some() {
            return;
        }
        let held = process.core.bytes_held();
        if held > HELD_MAX {
            let what = format!("node {index} holds {held} bytes of blocks, at most {HELD_MAX}");
            self.observed.violation(what);
        }
        if let Some((what, since)) = process.oldest_question()
            && self.now - since > ANSWER_MAX
        {
            let seconds = (self.now - since) / 1_000_000;
            let what = format!("node {index}: the engine waits {seconds} s for {what}");
            self.observed.violation(what);
        }
    }

    fn send(&mut self, from: usize, to: &To, wire: &Wire) {
        for node in 0..self.nodes.len() {
            let addressed = match to {
                To::All => true,
                To::Only(some) => some.contains(&node),
            };
            if node == from || !addressed {
                continue;
            }
            if let Some(side) = &self.side
                && side.contains(&from) != side.contains(&node)
            {
                continue;
            }
            if self.random.permille(self.link.lost) {
                continue;
            }
            let copies = 1 + u64::from(self.random.permille(self.link.doubled));
            for _ in 0..copies {
                let (least, most) = self.link.delay;
                let mut delay = self.random.between(least, most);
                if self.random.permille(self.link.slow) {
                    delay *= 20;
                }
                let happening = Happening::Arrive {
                    from,
                    to: node,
                    wire: wire.clone(),
                };
                self.schedule(self.now + delay, happening);
            }
        }
    }
}
