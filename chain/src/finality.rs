//! What makes a block final: votes, certificates and their verification (protocol §5).

use crate::crypto::verify::{Item, verify_each};
use crate::types::block::Certificate;
use crate::types::hash::{AccountId, Hash};
use crate::types::units::{Height, Round, Weight};
use crate::types::validator::ValidatorSet;

/// The two kinds of vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteKind {
    /// First vote of a round.
    Prevote,
    /// Second vote of a round; more than two thirds of them decide.
    Precommit,
}

/// What a validator signs as its vote; `block` is `None` for nil.
#[must_use]
pub fn vote_sign_bytes(
    chain: &Hash,
    kind: VoteKind,
    height: Height,
    round: Round,
    block: Option<&Hash>,
    voter: &AccountId,
) -> Vec<u8> {
    let mut bytes = b"proofmill/vote/v1".to_vec();
    bytes.extend_from_slice(chain.as_bytes());
    bytes.push(match kind {
        VoteKind::Prevote => 1,
        VoteKind::Precommit => 2,
    });
    bytes.extend_from_slice(&height.get().to_le_bytes());
    bytes.extend_from_slice(&round.get().to_le_bytes());
    match block {
        None => bytes.push(0),
        Some(hash) => {
            bytes.push(1);
            bytes.extend_from_slice(hash.as_bytes());
        }
    }
    bytes.extend_from_slice(voter.as_bytes());
    bytes
}

/// Whose turn a header claims: the round in which its block was built, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The block's height.
    pub height: Height,
    /// The round in which it was built.
    pub round: Round,
    /// Who built it.
    pub proposer: AccountId,
}

/// Why a header's turn is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// Built in a later round than the one in which it is proposed or was decided. Says nothing
    /// against the block: from its own round on it may be proposed.
    #[error("built in round {built}, proposed or decided in round {round}")]
    LaterRound {
        /// The round in the header.
        built: Round,
        /// The round in question.
        round: Round,
    },
    /// Not the proposer of that round: the block is never valid.
    #[error(
        "the proposer of height {height} and round {round} is {expected}, the header names {given}"
    )]
    Proposer {
        /// The height.
        height: Height,
        /// The round in the header.
        round: Round,
        /// Whom the header names.
        given: AccountId,
        /// Whose turn it was.
        expected: AccountId,
    },
}

/// The header-round rule, for a block that is proposed or was decided in `round`. Proposals,
/// commits, synced blocks and replay all call it.
///
/// # Errors
/// Each variant of [`TurnError`] names the part broken.
pub fn check_turn(turn: &Turn, validators: &ValidatorSet, round: Round) -> Result<(), TurnError> {
    // Rule: the proposer is the one of the height and of the round in which the block was built.
    let expected = validators.proposer(turn.height, turn.round).key;
    if turn.proposer != expected {
        return Err(TurnError::Proposer {
            height: turn.height,
            round: turn.round,
            given: turn.proposer,
            expected,
        });
    }
    // Rule: a block is proposed and decided no earlier than in the round in which it was built.
    if turn.round > round {
        return Err(TurnError::LaterRound {
            built: turn.round,
            round,
        });
    }
    Ok(())
}

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// For another height.
    #[error("certificate of height {given}, expected {expected}")]
    Height {
        /// What it is for.
        given: Height,
        /// What it should be for.
        expected: Height,
    },
    /// For another block.
    #[error("certificate of block {given}, expected {expected}")]
    Block {
        /// What it is for.
        given: Hash,
        /// What it should be for.
        expected: Hash,
    },
    /// The signatures do not ascend by key, or a validator stands twice.
    #[error("certificate's signatures are not in ascending order of keys")]
    Order,
    /// A signer outside the set.
    #[error("{0} is not a validator of that height")]
    Stranger(AccountId),
    /// A signature that does not verify.
    #[error("signature of {0} does not verify")]
    Signature(AccountId),
    /// Too little power.
    #[error("power {given} of {total} is not more than two thirds")]
    Power {
        /// What signed.
        given: Weight,
        /// The whole.
        total: Weight,
    },
}

/// Checks that `certificate` proves `block` final at `height` under `set`.
///
/// # Errors
/// Each variant of [`CertificateError`] names the rule broken.
pub fn verify_certificate(
    chain: &Hash,
    set: &ValidatorSet,
    height: Height,
    block: &Hash,
    certificate: &Certificate,
) -> Result<(), CertificateError> {
    if certificate.height != height {
        return Err(CertificateError::Height {
            given: certificate.height,
            expected: height,
        });
    }
    if certificate.block != *block {
        return Err(CertificateError::Block {
            given: certificate.block,
            expected: *block,
        });
    }
    let mut last: Option<AccountId> = None;
    let mut power = 0_u64;
    let mut messages = Vec::with_capacity(certificate.signatures.len());
    for commit in &certificate.signatures {
        if last.is_some_and(|key| key >= commit.validator) {
            return Err(CertificateError::Order);
        }
        last = Some(commit.validator);
        let validator = set
            .by_key(&commit.validator)
            .ok_or(CertificateError::Stranger(commit.validator))?;
        power = power.saturating_add(validator.power.get());
        messages.push(vote_sign_bytes(
            chain,
            VoteKind::Precommit,
            height,
            certificate.round,
            Some(block),
            &commit.validator,
        ));
    }
    if !set.is_quorum(Weight::new(power)) {
        return Err(CertificateError::Power {
            given: Weight::new(power),
            total: set.total_power(),
        });
    }
    let items: Vec<_> = certificate
        .signatures
        .iter()
        .zip(&messages)
        .map(|(commit, message)| Item {
            key: commit.validator.as_bytes(),
            message,
            signature: commit.signature.as_bytes(),
        })
        .collect();
    let bad = verify_each(&items)
        .into_iter()
        .position(|valid| !valid)
        .and_then(|index| certificate.signatures.get(index));
    match bad {
        Some(commit) => Err(CertificateError::Signature(commit.validator)),
        None => Ok(()),
    }
}
