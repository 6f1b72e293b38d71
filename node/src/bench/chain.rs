//! A real chain, block after block: each follows the one before, is signed by its proposer and has
//! the certificate of every validator.

use std::path::Path;

use proofmill_chain::build::{UnguardedKeys, build};
use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::{VoteKind, vote_sign_bytes};
use proofmill_chain::pipeline::{SealedBlock, validate};
use proofmill_chain::types::block::{Block, Certificate, CommitSignature};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};

use crate::bench::ledger::Ledger;
use crate::bench::seen::Seen;
use crate::bench::verifier::Keys;
use crate::bench::workload::{VALIDATORS, Workload};
use crate::bench::{BenchError, Watch, Work};
use crate::dev_keys;

/// Time between two blocks, milliseconds.
const BLOCK_MS: u64 = 1_000;

/// A block that the chain has not taken in yet.
pub struct Made {
    /// The block.
    pub block: Block,
    /// Its encoding.
    pub bytes: Vec<u8>,
    /// Its hash.
    pub hash: Hash,
    /// Why it is final.
    pub certificate: Certificate,
}

/// A chain that grows by blocks of one shape.
pub struct Chain {
    workload: Workload,
    ledger: Ledger,
    last: Option<Certificate>,
}

impl Chain {
    /// A workload's chain at its genesis, in an empty directory.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn start(place: &Path, workload: Workload, watch: Watch<'_>) -> Result<Self, BenchError> {
        watch(Work::State, 0, 1);
        let ledger = Ledger::open(place, workload.genesis())?;
        watch(Work::State, 1, 1);
        Ok(Self {
            workload,
            ledger,
            last: None,
        })
    }

    /// Its store and what its blocks are judged by.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What its blocks are made from.
    #[must_use]
    pub const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Makes the next block, with as many transactions as the shape says.
    ///
    /// # Errors
    /// [`BenchError::Fit`] when not all of them fit; otherwise when the state cannot be read.
    ///
    /// # Panics
    /// Never: the devnet's validators have development keys.
    pub fn make(&mut self) -> Result<Made, BenchError> {
        let head = self.ledger.head();
        let (height, round) = (head.height.next(), Round::new(0));
        let mut candidates = self.workload.candidates(height);
        candidates.certificate.clone_from(&self.last);
        let proposer = self.ledger.validators().proposer(height, round);
        let key = dev_key(dev_keys::validator, &proposer.key);
        let beacon = dev_key(dev_keys::beacon, &proposer.beacon_key);
        let time_ms = head.time_ms.saturating_add(BLOCK_MS);
        let built = self
            .ledger
            .with_context(&Keys::unseen(), &Seen::none(), |context| {
                let keys = UnguardedKeys {
                    consensus: &key,
                    beacon: &beacon,
                };
                build(context, round, time_ms, &keys, candidates)
            })?;
        let shape = self.workload.shape();
        if built.block.transactions.len() != shape.txs {
            return Err(BenchError::Fit {
                txs: shape.txs,
                pattern: shape.pattern,
                fit: built.block.transactions.len(),
                reason: built.refused.first().map_or_else(
                    || "the block is full".to_owned(),
                    |(id, reason)| format!("{id}: {reason}"),
                ),
            });
        }
        Ok(Made {
            bytes: codec::encode(&built.block),
            hash: built.hash,
            certificate: certify(self.ledger.genesis(), height, round, &built.hash),
            block: built.block,
        })
    }

    /// Commits a block that was made and found valid.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn take(
        &mut self,
        sealed: &SealedBlock,
        certificate: &Certificate,
    ) -> Result<(), BenchError> {
        self.ledger.commit(sealed, certificate)?;
        self.committed(sealed.block(), certificate);
        Ok(())
    }

    /// Goes on from a block that its ledger has committed.
    pub fn committed(&mut self, block: &Block, certificate: &Certificate) {
        self.workload.observe(block);
        self.last = Some(certificate.clone());
    }

    /// Makes the next block, verifies it as a node does and commits it.
    ///
    /// # Errors
    /// As [`Chain::make`] and [`Chain::take`].
    pub fn advance(&mut self) -> Result<(Made, SealedBlock), BenchError> {
        let made = self.make()?;
        let sealed = self
            .ledger
            .with_context(&Keys::unseen(), &Seen::none(), |context| {
                validate(&made.bytes, context)
            })?;
        self.take(&sealed, &made.certificate)?;
        Ok((made, sealed))
    }
}

fn dev_key(role: fn(u32) -> SecretKey, key: &AccountId) -> SecretKey {
    (0..VALIDATORS)
        .map(role)
        .find(|secret| secret.public() == *key)
        .expect("the devnet's validators have development keys")
}

/// The certificate of all validators.
fn certify(genesis: &Hash, height: Height, round: Round, block: &Hash) -> Certificate {
    let mut signatures: Vec<_> = (0..VALIDATORS)
        .map(|index| {
            let key = dev_keys::validator(index);
            let validator = key.public();
            let message = vote_sign_bytes(
                genesis,
                VoteKind::Precommit,
                height,
                round,
                Some(block),
                &validator,
            );
            CommitSignature {
                validator,
                signature: key.sign(&message),
            }
        })
        .collect();
    signatures.sort_by_key(|commit| commit.validator);
    Certificate {
        height,
        round,
        block: *block,
        signatures,
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::finality::verify_certificate;
    use proofmill_chain::types::receipt::Outcome;
    use proofmill_chain::types::task::Statement;

    use super::Chain;
    use crate::bench::workload::{Pattern, Shape, Workload};

    fn chain(
        pattern: Pattern,
        txs: usize,
        blocks: usize,
    ) -> Vec<proofmill_chain::pipeline::SealedBlock> {
        let place = tempfile::tempdir().expect("a directory");
        let shape = Shape {
            pattern,
            accounts: 300,
            txs,
        };
        let quiet = |_, _, _| {};
        let workload = Workload::new(shape, &quiet);
        let mut chain = Chain::start(place.path(), workload, &quiet).expect("a chain");
        (0..blocks)
            .map(|_| {
                let (made, sealed) = chain.advance().expect("a valid block");
                let ledger = chain.ledger();
                verify_certificate(
                    ledger.genesis(),
                    ledger.validators(),
                    made.block.header.height,
                    &made.hash,
                    &made.certificate,
                )
                .expect("every validator signed");
                assert_eq!(sealed.hash(), made.hash);
                sealed
            })
            .collect()
    }

    #[test]
    fn the_blocks_of_every_pattern_are_valid_and_every_transaction_is_applied() {
        for pattern in [
            Pattern::Uniform,
            Pattern::Zipf,
            Pattern::Mixed,
            Pattern::OneRecipient,
        ] {
            for sealed in chain(pattern, 60, 3) {
                let receipts = &sealed.effects().receipts;
                assert_eq!(receipts.len(), 60, "{pattern:?}");
                for receipt in receipts {
                    assert_eq!(receipt.outcome, Outcome::Applied, "{pattern:?}");
                }
            }
        }
    }

    #[test]
    fn mixed_blocks_hold_commitments_reveals_and_what_they_bring() {
        let blocks = chain(Pattern::Mixed, 400, 10);
        let count = |reveals: bool| {
            blocks
                .iter()
                .flat_map(|sealed| &sealed.block().attestations)
                .filter(|signed| {
                    matches!(signed.attestation.statement, Statement::Reveal { .. }) == reveals
                })
                .count()
        };
        // Two tasks a block, three seats each, drawn from the fourth block on.
        assert!(count(false) >= 30, "{} commitments", count(false));
        assert!(count(true) >= 24, "{} reveals", count(true));
        let outputs: usize = blocks
            .iter()
            .map(|sealed| sealed.block().outputs.len())
            .sum();
        assert_eq!(outputs * 3, count(true), "every output is carried once");
    }
}
