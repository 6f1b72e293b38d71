//! The commit point: everything a block leaves behind, in one synced write.

use std::sync::{Arc, PoisonError};

use proofmill_chain::codec;
use proofmill_chain::pipeline::{DecodedBlock, SealedBlock};
use proofmill_chain::state::overlay::{RecordBytes, WriteSet};
use proofmill_chain::tree::{INLINE_MAX, Patch};
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::receipt::{Outcome, Receipt};
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Height, Round};
use rocksdb::{WriteBatch, WriteOptions};

use super::checkpoint::{Checkpoint, Piece, Step, piece_leaves};
use super::keys::{self, Family};
use super::state::Stretch;
use super::transactions::Ids;
use super::view::{CERTIFICATE_BYTES_MAX, RECEIPTS_BYTES_MAX};
use super::{Head, Store, StoreError, diff};

/// A decided and executed block.
pub struct CommitBatch<'a> {
    /// The block's hash.
    pub hash: Hash,
    /// The block with its encoding.
    pub block: &'a DecodedBlock,
    /// Why it is final.
    pub certificate: &'a Certificate,
    /// What became of its transactions, in their order.
    pub receipts: &'a [Receipt],
    /// What it changes in the state.
    pub writes: &'a Arc<WriteSet>,
    /// What it changes in the state tree.
    pub patch: &'a Patch,
    /// Programs, inputs and outputs that it brought.
    pub blobs: &'a [Blob],
}

impl<'a> CommitBatch<'a> {
    /// A valid block with the certificate that decides it.
    #[must_use]
    pub fn of(sealed: &'a SealedBlock, certificate: &'a Certificate) -> Self {
        let effects = sealed.effects();
        Self {
            hash: sealed.hash(),
            block: sealed.decoded(),
            certificate,
            receipts: &effects.receipts,
            writes: &effects.writes,
            patch: sealed.patch(),
            blobs: &effects.blobs,
        }
    }

    const fn head(&self) -> Head {
        let header = &self.block.block().header;
        Head {
            height: header.height,
            hash: self.hash,
            time_ms: header.time_ms,
        }
    }
}

impl Store {
    /// Makes a block the head, durably: when this returns the block survives a crash.
    ///
    /// # Errors
    /// Those of [`Store::stage`], which leave everything as it was, and those of [`Store::persist`].
    pub fn commit(&self, commit: &CommitBatch<'_>) -> Result<(), StoreError> {
        self.stage(commit)?;
        self.persist(commit)
    }

    /// Makes a block the head in memory, so that the next can be verified. Nobody may be told of it
    /// before it is durable.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the block does not follow the head or its parts do not belong
    /// together; then nothing has changed.
    pub fn stage(&self, commit: &CommitBatch<'_>) -> Result<(), StoreError> {
        check_parts(commit)?;
        let mut current = self.current_mut();
        check_follows(commit, current.head)?;
        let applied = current.tree.apply(commit.patch);
        applied.map_err(|error| StoreError::Refused(error.to_string()))?;
        let head = commit.head();
        let durable = self.durable_head().height;
        let needed_after = self.viewers.oldest().map_or(durable, |at| at.min(durable));
        current.recent.forget(needed_after);
        current.recent.add(head.height, commit.writes);
        current.head = head;
        Ok(())
    }

    /// Makes a staged block durable with one synced write: when this returns the block survives a
    /// crash; when it fails nothing of the block is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the block does not follow the last durable one; otherwise when the
    /// disk fails. Memory is then ahead of the disk, which refuses further writes, and the node has to
    /// stop.
    pub fn persist(&self, commit: &CommitBatch<'_>) -> Result<(), StoreError> {
        let mut checkpoint = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        check_follows(commit, self.durable_head())?;
        let written = commit.head();
        if self.head().height < written.height {
            return Err(StoreError::Refused(format!(
                "block {} is not staged",
                written.height
            )));
        }
        let (batch, step) = self.batch(commit, &checkpoint)?;
        self.indexer.check()?;
        let ids = Arc::new(Ids::of(written.height, commit.receipts));
        // Found from now on, and told to nobody before the block is durable.
        Arc::make_mut(&mut self.durable_mut().waiting).push(ids);
        self.write_synced(batch)?;
        checkpoint.take(&step);
        let waiting = {
            let mut durable = self.durable_mut();
            durable.head = written;
            Arc::clone(&durable.waiting)
        };
        self.indexer.offer(waiting);
        Ok(())
    }

    /// Keeps a proposal until its height is decided, durably. A proposal for a height that is
    /// decided already is not kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn put_undecided(
        &self,
        height: Height,
        round: Round,
        block: &Hash,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        // A commit in between would leave the proposal behind for ever.
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if height <= self.durable_head().height {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.put_cf(
            self.column(Family::Undecided),
            keys::undecided_key(height, round, block),
            bytes,
        );
        self.write_synced(batch)
    }

    /// Keeps something under a name of the node's own, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn put_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.column(Family::Meta), keys::user_meta(name), bytes);
        self.write_synced(batch)
    }

    pub(super) fn write_synced(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    fn batch(
        &self,
        commit: &CommitBatch<'_>,
        checkpoint: &Checkpoint,
    ) -> Result<(WriteBatch, Step), StoreError> {
        let header = &commit.block.block().header;
        let key = keys::height_key(header.height);
        let (header_bytes, body) = commit.block.header_and_body();
        let certificate = codec::encode(commit.certificate);
        let receipts = codec::encode(&commit.receipts);
        bounded("certificate", certificate.len(), CERTIFICATE_BYTES_MAX)?;
        bounded("receipts", receipts.len(), RECEIPTS_BYTES_MAX)?;

        let mut batch = WriteBatch::default();
        batch.put_cf(self.column(Family::Header), key, header_bytes);
        batch.put_cf(self.column(Family::Body), key, body);
        batch.put_cf(self.column(Family::Certificate), key, &certificate);
        batch.put_cf(self.column(Family::Receipts), key, &receipts);
        batch.put_cf(self.column(Family::Meta), keys::META_HEAD, key);
        batch.put_cf(self.column(Family::Diff), key, diff::encode(commit.writes));
        self.add_long_records(&mut batch, commit.writes);
        let step = self.add_piece(&mut batch, commit, checkpoint)?;
        self.add_index(&mut batch, commit);
        for blob in commit.blobs {
            let hash = blob.hash();
            batch.put_cf(self.column(Family::Blob), hash, blob.as_bytes());
        }
        for (round, block, _) in self.latest().undecided(header.height)? {
            let key = keys::undecided_key(header.height, round, &block);
            batch.delete_cf(self.column(Family::Undecided), key);
        }
        Ok((batch, step))
    }

    pub(super) fn add_long_records(&self, batch: &mut WriteBatch, writes: &WriteSet) {
        let is_long = |bytes: &&RecordBytes| bytes.len() > INLINE_MAX;
        let state = self.column(Family::State);
        for write in &writes.writes {
            if let Some(bytes) = write.new.as_ref().filter(is_long) {
                batch.put_cf(state, write.key, bytes);
            } else if write.old.as_ref().is_some_and(|old| is_long(&old)) {
                batch.delete_cf(state, write.key);
            }
        }
    }

    /// Adds the next piece of the state, as it is after the block, and removes what it replaces.
    fn add_piece(
        &self,
        batch: &mut WriteBatch,
        commit: &CommitBatch<'_>,
        checkpoint: &Checkpoint,
    ) -> Result<Step, StoreError> {
        let height = commit.head().height;
        let from = checkpoint.next();
        let most = piece_leaves(commit.writes.writes.len());
        let Stretch { leaves, until } = self.current().stretch_at(height, &from, most);
        let step = checkpoint.plan(height, 0, from, until)?;
        let piece = Piece {
            from,
            until,
            leaves,
        };
        let pieces = self.column(Family::Checkpoint);
        batch.put_cf(pieces, keys::piece_key(height, 0), piece.encode());
        for key in &step.pieces_gone {
            batch.delete_cf(pieces, key);
        }
        for height in &step.diffs_gone {
            batch.delete_cf(self.column(Family::Diff), keys::height_key(*height));
        }
        Ok(step)
    }

    fn add_index(&self, batch: &mut WriteBatch, commit: &CommitBatch<'_>) {
        let index = self.column(Family::Index);
        let height = commit.block.block().header.height;
        let at = keys::height_key(height);
        batch.put_cf(index, keys::block_index(&commit.hash), at);
        let pairs = commit
            .block
            .block()
            .transactions
            .iter()
            .zip(commit.receipts);
        for (number, (signed, receipt)) in (0_u32..).zip(pairs) {
            let position = (height, number);
            let submits = matches!(signed.transaction.action, Action::SubmitTask(_));
            if submits && receipt.outcome == Outcome::Applied {
                batch.put_cf(
                    index,
                    keys::under(keys::tasks_prefix(), position),
                    receipt.transaction,
                );
            }
        }
    }
}

/// Checks that a block comes right after `head`.
fn check_follows(commit: &CommitBatch<'_>, head: Head) -> Result<(), StoreError> {
    let header = &commit.block.block().header;
    if header.height != head.height.next() {
        return Err(StoreError::Refused(format!(
            "block {} does not follow block {}",
            header.height, head.height
        )));
    }
    if header.parent != head.hash {
        return Err(StoreError::Refused(format!(
            "parent is {}, the head is {}",
            header.parent, head.hash
        )));
    }
    Ok(())
}

/// Checks that a block's parts belong together.
fn check_parts(commit: &CommitBatch<'_>) -> Result<(), StoreError> {
    let refuse = |what: String| Err(StoreError::Refused(what));
    let block = commit.block.block();
    let header = &block.header;
    if header.hash() != commit.hash {
        return refuse(format!(
            "hash is {}, {} was given",
            header.hash(),
            commit.hash
        ));
    }
    let certificate = commit.certificate;
    if certificate.height != header.height || certificate.block != commit.hash {
        return refuse(format!(
            "the certificate is for block {} at {}",
            certificate.block, certificate.height
        ));
    }
    if commit.receipts.len() != block.transactions.len() {
        return refuse(format!(
            "{} receipts for {} transactions",
            commit.receipts.len(),
            block.transactions.len()
        ));
    }
    if commit.patch.root() != header.state_root {
        return refuse(format!(
            "the tree's root is {}, the header's {}",
            commit.patch.root(),
            header.state_root
        ));
    }
    Ok(())
}

fn bounded(what: &str, given: usize, most: usize) -> Result<(), StoreError> {
    if given > most {
        return Err(StoreError::Refused(format!(
            "{what} of {given} bytes, at most {most} can be read back"
        )));
    }
    Ok(())
}
