//! What of a node survives a crash, and what damage does to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::Height;
use proofmill_signer::Record;

use crate::block::{self, CHAIN};
use crate::engine::Log;
use crate::guard;
use crate::random::Random;
use crate::sync::Decided;
use proofmill_consensus::UndecidedProposal;

/// How a home is damaged while its node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The process is killed.
    None,
    /// The machine stops: what was not flushed may be lost.
    PowerLost,
    /// The consensus log is gone.
    LogLost,
    /// The consensus log is an older copy.
    LogOld,
    /// The database is gone.
    DatabaseLost,
    /// The database is an older copy.
    DatabaseOld,
    /// Database and log are gone.
    BothLost,
}

#[derive(Clone, Debug, Default)]
struct Database {
    decided: BTreeMap<Height, Decided>,
    undecided: BTreeMap<Height, Vec<UndecidedProposal>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    database: Database,
    database_copy: Database,
    pub(crate) log: Log,
    log_copy: Log,
    pub(crate) guard: Record,
}

impl Disk {
    pub(crate) fn new(key: AccountId) -> Self {
        Self {
            database: Database::default(),
            database_copy: Database::default(),
            log: Log::default(),
            log_copy: Log::default(),
            guard: guard::new_record(key),
        }
    }

    pub(crate) fn head(&self) -> Height {
        let last = self.database.decided.last_key_value();
        last.map_or(Height::ZERO, |(height, _)| *height)
    }

    /// Hash and time of the head; genesis has the chain's hash.
    pub(crate) fn parent(&self) -> (Hash, u64) {
        let last = self.database.decided.last_key_value();
        last.map_or((CHAIN, 0), |(_, (certificate, bytes))| {
            let header = block::open(bytes).expect("only whole blocks are committed");
            (certificate.block, header.time_ms)
        })
    }

    pub(crate) fn decided(&self, height: Height) -> Option<&Decided> {
        self.database.decided.get(&height)
    }

    pub(crate) fn undecided(&self, height: Height) -> &[UndecidedProposal] {
        let stored = self.database.undecided.get(&height);
        stored.map_or(&[], Vec::as_slice)
    }

    pub(crate) fn store(&mut self, proposal: UndecidedProposal) {
        let stored = self.database.undecided.entry(proposal.height).or_default();
        let place = (proposal.round, proposal.proposer, proposal.hash);
        stored.retain(|old| (old.round, old.proposer, old.hash) != place);
        stored.push(proposal);
    }

    pub(crate) fn block(&self, height: Height, hash: &Hash) -> Option<Arc<[u8]>> {
        let stored = self.undecided(height).iter();
        let mut found = stored.filter(|proposal| proposal.hash == *hash);
        found.next().map(|proposal| Arc::clone(&proposal.bytes))
    }

    pub(crate) fn commit(&mut self, decided: Decided) {
        let height = decided.0.height;
        if height > self.head() {
            self.database.decided.insert(height, decided);
        }
        self.database.undecided.retain(|of, _| *of > height);
    }

    /// Copies what a restored backup will bring back.
    pub(crate) fn back_up(&mut self) {
        self.database_copy = self.database.clone();
        self.log_copy = self.log.clone();
    }

    /// What is left of the log when the power fails: what was flushed, and perhaps some of what was
    /// not. A process that is killed loses nothing of what it has written.
    fn lose_power(&mut self, random: &mut Random) {
        let unflushed = self.log.entries.len() - self.log.flushed;
        let kept = self.log.flushed + random.index(unflushed + 1);
        self.log.entries.truncate(kept);
        self.log.flush();
    }

    pub(crate) fn damage(&mut self, damage: Damage, random: &mut Random) {
        match damage {
            Damage::None => {}
            Damage::PowerLost => self.lose_power(random),
            Damage::LogLost => self.log = Log::default(),
            Damage::LogOld => self.log = self.log_copy.clone(),
            Damage::DatabaseLost => self.database = Database::default(),
            Damage::DatabaseOld => self.database = self.database_copy.clone(),
            Damage::BothLost => {
                self.log = Log::default();
                self.database = Database::default();
            }
        }
    }
}
