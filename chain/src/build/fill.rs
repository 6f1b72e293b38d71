//! Filling a block with what fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MISFITS_MAX, REFUSED_MAX, TransactionSource};
use crate::codec;
use crate::execute::{Executor, Inadmissible, Outputs, Prepared};
use crate::pipeline::{Context, VerifiedTransaction, judge};
use crate::state::StateError;
use crate::state::accounts::{Accounts, Slots};
use crate::task::Void;
use crate::types::block::Block;
use crate::types::hash::{AccountId, Blob, Hash};
use crate::types::params::Params;
use crate::types::task::AttestationMessage;
use crate::types::transaction::SignedTransaction;
use crate::types::units::Nonce;

/// What still fits into the block.
#[derive(Clone, Copy)]
pub(super) struct Room {
    bytes: usize,
    transactions: usize,
    attestations: usize,
    program_bytes: usize,
}

impl Room {
    /// What fits into a block of nothing.
    pub(super) const fn all(params: &Params) -> Self {
        Self {
            bytes: params.block_bytes_max as usize,
            transactions: params.block_transactions_max as usize,
            attestations: params.block_attestations_max as usize,
            program_bytes: params.block_program_bytes_max as usize,
        }
    }

    /// What fits beside the parts of `block` that do not depend on the candidates.
    pub(super) fn of(context: &Context<'_>, block: &Block) -> Self {
        let all = Self::all(context.rules.params());
        Self {
            bytes: all.bytes.saturating_sub(codec::encode(block).len()),
            ..all
        }
    }

    /// What is left after a transaction.
    fn after(self, transaction: &VerifiedTransaction) -> Result<Self, Misfit> {
        let module = transaction.transaction().action.module();
        let left = |room: usize, taken, misfit| room.checked_sub(taken).ok_or(misfit);
        Ok(Self {
            program_bytes: left(
                self.program_bytes,
                module.map_or(0, Blob::len),
                Misfit::Module,
            )?,
            bytes: left(self.bytes, transaction.bytes(), Misfit::Bytes)?,
            transactions: left(self.transactions, 1, Misfit::Bytes)?,
            ..self
        })
    }
}

/// Why a candidate does not fit.
#[derive(Clone, Copy)]
enum Misfit {
    /// Its module does not, beside the modules that the block has. Nothing follows for what publishes none.
    Module,
    /// It is larger than what is left of the block.
    Bytes,
}

impl Misfit {
    /// What it counts towards [`MISFITS_MAX`].
    const fn counts(self) -> usize {
        match self {
            Self::Module => 0,
            Self::Bytes => 1,
        }
    }
}

/// A candidate among the first.
pub(super) struct Drawn {
    candidate: Arc<VerifiedTransaction>,
    /// Whether it fits beside those before it. One that does not keeps its turn: when the block takes others
    /// up, or those before it are refused, there may be room for it.
    fits: bool,
}

/// The first candidates: until those that fit fill an empty block. Their accounts can be read together,
/// which is several times faster than one by one.
pub(super) fn draw_block(mut room: Room, source: &mut dyn TransactionSource) -> Vec<Drawn> {
    let mut drawn = Vec::new();
    let mut misfits = 0_usize;
    while room.transactions > 0
        && misfits < MISFITS_MAX
        && let Some(candidate) = source.draw()
    {
        let after = room.after(&candidate);
        match after {
            Ok(left) => room = left,
            Err(misfit) => {
                misfits = misfits.saturating_add(misfit.counts());
                source.skip_sender(&candidate.transaction().sender);
            }
        }
        let fits = after.is_ok();
        drawn.push(Drawn { candidate, fits });
    }
    drawn
}

/// The transactions of those that fit, whose accounts are read together.
pub(super) fn signed(drawn: &[Drawn]) -> Vec<&SignedTransaction> {
    let fitting = drawn.iter().filter(|one| one.fits);
    fitting.map(|one| one.candidate.signed()).collect()
}

/// A sender of whom a candidate was refused.
#[derive(Clone, Copy)]
struct Stuck {
    /// The nonce that the sender's next transaction must have.
    expected: Nonce,
    /// The nonce of the candidate that was refused.
    refused: Nonce,
}

/// What became of the transactions.
#[derive(Default)]
pub(super) struct Filled {
    /// Hashes of the encodings of those in the block.
    pub(super) leaves: Vec<Hash>,
    /// Those refused, with the reason.
    pub(super) refused: Vec<(Hash, Inadmissible)>,
}

/// Includes what fits and may be included; candidates behind the first drawn replace what was refused.
pub(super) struct Filling<'b, 'a> {
    executor: &'b mut Executor<'a>,
    context: &'b Context<'b>,
    block: &'b mut Block,
    room: Room,
    filled: Filled,
    stuck: BTreeMap<AccountId, Stuck>,
}

impl<'b, 'a> Filling<'b, 'a> {
    pub(super) fn new(
        executor: &'b mut Executor<'a>,
        context: &'b Context<'b>,
        block: &'b mut Block,
        room: Room,
    ) -> Self {
        Self {
            executor,
            context,
            block,
            room,
            filled: Filled::default(),
            stuck: BTreeMap::new(),
        }
    }

    /// What became of the transactions.
    pub(super) fn end(self) -> Filled {
        self.filled
    }

    /// Includes attestations; returns those that are void.
    pub(super) fn attestations(
        &mut self,
        candidates: Vec<AttestationMessage>,
    ) -> Result<Vec<(Hash, Void)>, StateError> {
        /// Length prefix of an output in the block.
        const PREFIX: usize = 8;
        let mut void = Vec::new();
        let mut carried: BTreeMap<Hash, Blob> = BTreeMap::new();
        let mut outputs = Outputs::default();
        for AttestationMessage { signed, output } in candidates {
            let needed = codec::encode(&signed)
                .len()
                .saturating_add(output.len())
                .saturating_add(PREFIX);
            let Some(left) = self.room.attestations.checked_sub(1) else {
                break;
            };
            // A smaller one may fit.
            let Some(bytes) = self.room.bytes.checked_sub(needed) else {
                continue;
            };
            match self.executor.attestation(&signed, &mut outputs)? {
                Err(error) => void.push((signed.attestation.id(self.context.genesis), error)),
                Ok(()) => {
                    self.room.bytes = bytes;
                    self.room.attestations = left;
                    self.block.attestations.push(signed);
                    if !output.is_empty() {
                        carried.insert(output.hash(), output);
                    }
                }
            }
        }
        self.block.outputs = outputs
            .needed()
            .filter_map(|hash| carried.remove(hash))
            .collect();
        Ok(void)
    }

    /// Includes transactions: those drawn, of which the accounts of those that fit were read, then others of
    /// the source.
    pub(super) fn transactions(
        &mut self,
        drawn: Vec<Drawn>,
        accounts: &Accounts,
        source: &mut dyn TransactionSource,
    ) -> Result<(), StateError> {
        let (mut tried, mut misfits) = (0_usize, 0_usize);
        let (mut first, mut read) = (drawn.into_iter(), 0_usize);
        while self.room.transactions > 0 && tried < REFUSED_MAX && misfits < MISFITS_MAX {
            let (candidate, slots, skipped) = match first.next() {
                Some(Drawn {
                    candidate,
                    fits: true,
                }) => {
                    let slots = accounts.slots(read);
                    read = read.saturating_add(1);
                    (candidate, slots, false)
                }
                Some(Drawn {
                    candidate,
                    fits: false,
                }) => (candidate, Slots::default(), true),
                None => match source.draw() {
                    Some(candidate) => (candidate, Slots::default(), false),
                    None => break,
                },
            };
            let sender = candidate.transaction().sender;
            let received = candidate.transaction().nonce;
            // The sender's nonce has not moved since, so this one is refused without a try.
            if let Some(stuck) = self.stuck.get(&sender)
                && received > stuck.refused
            {
                let expected = stuck.expected;
                let reason = Inadmissible::Nonce { expected, received };
                self.filled.refused.push((candidate.id(), reason));
                continue;
            }
            let room = match self.room.after(&candidate) {
                Ok(room) => room,
                Err(misfit) => {
                    misfits = misfits.saturating_add(misfit.counts());
                    source.skip_sender(&sender);
                    continue;
                }
            };
            if skipped {
                source.resume_sender(&sender);
            }
            match self.include(&candidate, slots)? {
                Ok(()) => {
                    self.room = room;
                    self.stuck.remove(&sender);
                    self.filled.leaves.push(candidate.leaf());
                    self.block.transactions.push(candidate.signed().clone());
                }
                Err(reason) => {
                    tried = tried.saturating_add(1);
                    let expected = match reason {
                        Inadmissible::Nonce { expected, .. } => expected,
                        Inadmissible::Expired { .. }
                        | Inadmissible::FeeTooLow { .. }
                        | Inadmissible::PayerBalance { .. }
                        | Inadmissible::FeeOverflow => received,
                    };
                    // One from the past says nothing about those after it.
                    if received >= expected {
                        source.skip_sender(&sender);
                        let refused = received;
                        self.stuck.insert(sender, Stuck { expected, refused });
                    }
                    self.filled.refused.push((candidate.id(), reason));
                }
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        candidate: &VerifiedTransaction,
        slots: Slots,
    ) -> Result<Result<(), Inadmissible>, StateError> {
        let mut prepared = Prepared {
            signed: candidate.signed(),
            id: candidate.id(),
            bytes: candidate.bytes(),
            program: None,
            slots,
        };
        if candidate.transaction().action.module().is_some() {
            // A module is judged only for a sender who pays for it.
            if let Err(reason) = self.executor.admits(&prepared)? {
                return Ok(Err(reason));
            }
            prepared.program = judge(
                candidate.signed(),
                self.context.machine,
                self.context.rules.params().machine_version,
            );
        }
        self.executor.transaction(&prepared)
    }
}
