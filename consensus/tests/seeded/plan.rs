//! What a seed makes of a run: the network, the dishonest, and what goes wrong when.

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::units::Weight;
use proofmill_chain::types::validator::{Validator, ValidatorSet};

use crate::disk::Damage;
use crate::random::Random;

const SECOND: u64 = 1_000_000;
const HOUR_MS: i64 = 3_600_000;

/// How messages travel.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Lost and doubled messages in a thousand.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Messages in a thousand that take twenty times as long.
    pub(crate) slow: u64,
    /// Microseconds on the way, at least and below.
    pub(crate) delay: (u64, u64),
}

impl Link {
    /// A network in which everything arrives.
    pub(crate) const GOOD: Self = Self {
        lost: 0,
        doubled: 10,
        slow: 0,
        delay: (1_000, 40_000),
    };
}

/// Something that goes wrong, or right again.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The node crashes after `fuse` more actions and starts again later, its home damaged.
    Crash {
        node: usize,
        fuse: u64,
        down: u64,
        damage: Damage,
    },
    /// A node's clock is ahead of the true time by so many milliseconds.
    Clock(usize, i64),
    /// Backups are taken of a node's home.
    BackUp(usize),
    /// No message crosses between the nodes that are named and the others.
    Split(Vec<usize>),
    Heal,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) keys: Vec<SecretKey>,
    pub(crate) validators: ValidatorSet,
    pub(crate) dishonest: Vec<usize>,
    pub(crate) clocks: Vec<i64>,
    pub(crate) link: Link,
    pub(crate) faults: Vec<(u64, Fault)>,
    /// From here on nothing goes wrong but what the dishonest do.
    pub(crate) calm_at: u64,
    pub(crate) padding: Vec<usize>,
    /// The longest wait for the next height, in microseconds.
    pub(crate) idle: u64,
}

fn keys(count: usize, random: &mut Random) -> Vec<SecretKey> {
    let mut seed = [0; 32];
    (0..count)
        .map(|_| {
            for chunk in seed.chunks_exact_mut(8) {
                chunk.copy_from_slice(&random.next().to_le_bytes());
            }
            SecretKey::from_seed(&seed)
        })
        .collect()
}

fn validators(keys: &[SecretKey], powers: &[u64]) -> ValidatorSet {
    let validators = keys.iter().zip(powers).map(|(key, power)| Validator {
        key: key.public(),
        beacon_key: AccountId::new([1; 32]),
        reward: AccountId::new([2; 32]),
        power: Weight::new(*power),
    });
    ValidatorSet::new(validators.collect()).expect("a few validators with some power")
}

/// Nodes with less than a third of the power, drawn at random, at most `most` of them.
fn minority(powers: &[u64], most: usize, random: &mut Random) -> Vec<usize> {
    let total: u64 = powers.iter().sum();
    let mut left: Vec<usize> = (0..powers.len()).collect();
    let mut chosen = Vec::new();
    let mut power = 0;
    while chosen.len() < most && !left.is_empty() {
        let node = left.swap_remove(random.index(left.len()));
        if 3 * (power + powers[node]) < total {
            power += powers[node];
            chosen.push(node);
        }
    }
    chosen
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let count = random.pick(&[4, 4, 7]);
        let keys = keys(count, random);
        let powers: Vec<u64> = if random.one_in(2) {
            vec![10; count]
        } else {
            (0..count).map(|_| random.between(5, 20)).collect()
        };
        // Dishonest nodes and nodes whose homes are damaged, less than a third together.
        let mut faulty = minority(&powers, 2, random);
        let dishonest_count = match random.below(4) {
            0 => 0,
            1 => faulty.len().min(1),
            _ => faulty.len(),
        };
        let fragile = faulty.split_off(dishonest_count);
        let dishonest = faulty;
        let clocks = (0..count)
            .map(|_| i64::try_from(random.below(300)).expect("small") - 150)
            .collect();
        let link = Link {
            lost: random.pick(&[0, 0, 10, 50, 200]),
            doubled: random.pick(&[0, 10, 100]),
            slow: random.pick(&[0, 10, 50]),
            delay: random.pick(&[(500, 5_000), (1_000, 40_000), (5_000, 150_000)]),
        };
        let calm_at = random.between(8, 25) * SECOND;
        let mut plan = Self {
            validators: validators(&keys, &powers),
            keys,
            dishonest,
            clocks,
            link,
            faults: Vec::new(),
            calm_at,
            padding: (0..count)
                .map(|_| random.pick(&[0, 0, 0, 500, 140_000]))
                .collect(),
            idle: random.pick(&[0, 50_000, 1_000_000]),
        };
        plan.add_crashes(&fragile, random);
        plan.add_splits(random);
        plan.add_clocks(&fragile, random);
        plan
    }

    fn moment(&self, random: &mut Random) -> u64 {
        random.below(self.calm_at)
    }

    fn add_crashes(&mut self, fragile: &[usize], random: &mut Random) {
        let count = self.keys.len();
        for node in fragile {
            for _ in 0..random.below(4) {
                let at = self.moment(random);
                self.faults.push((at, Fault::BackUp(*node)));
            }
        }
        let crash = |plan: &mut Self, at: u64, node: usize, random: &mut Random| {
            let damage = if fragile.contains(&node) {
                random.pick(&[
                    Damage::LogLost,
                    Damage::LogOld,
                    Damage::DatabaseLost,
                    Damage::DatabaseOld,
                    Damage::BothLost,
                    Damage::PowerLost,
                    Damage::None,
                ])
            } else {
                random.pick(&[Damage::None, Damage::None, Damage::PowerLost])
            };
            let down = random.pick(&[1_000, 200_000, 1_000_000, 5_000_000]);
            let fault = Fault::Crash {
                node,
                fuse: random.below(60),
                down,
                damage,
            };
            plan.faults.push((at, fault));
        };
        for _ in 0..random.below(10) {
            let at = self.moment(random);
            let node = if !fragile.is_empty() && random.one_in(2) {
                random.pick(fragile)
            } else {
                random.index(count)
            };
            crash(self, at, node, random);
        }
        if random.one_in(4) {
            let at = self.moment(random);
            for node in 0..count {
                crash(self, at, node, random);
            }
        }
    }

    fn add_splits(&mut self, random: &mut Random) {
        for _ in 0..random.below(3) {
            let at = self.moment(random);
            let side = (0..self.keys.len()).filter(|_| random.one_in(2)).collect();
            let end = at + random.between(1, 8) * SECOND;
            self.faults.push((at, Fault::Split(side)));
            self.faults.push((end.min(self.calm_at), Fault::Heal));
        }
    }

    /// Clocks that are far behind only slow their own node down; a clock that is far ahead makes
    /// its node faulty, so it has to be one of the few.
    fn add_clocks(&mut self, fragile: &[usize], random: &mut Random) {
        for _ in 0..random.below(3) {
            let node = random.index(self.keys.len());
            let wrong = if fragile.contains(&node) && random.one_in(2) {
                random.pick(&[3_000, 600_000, 2 * HOUR_MS])
            } else {
                random.pick(&[-3_000, -600_000, -2 * HOUR_MS])
            };
            let at = self.moment(random);
            let end = at + random.between(1, 20) * SECOND;
            let right = self.clocks[node];
            self.faults.push((at, Fault::Clock(node, wrong)));
            self.faults
                .push((end.min(self.calm_at), Fault::Clock(node, right)));
        }
    }
}
