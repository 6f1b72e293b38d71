//! The engine's vocabulary in the chain's types: newtypes around them, nothing more.

use core::fmt;

use arc_malachitebft_core_types as malachite;
use malachite::{LinearTimeouts, NilOrVal, SignedExtension, VoteType, VotingPower};
use proofmill_chain::types::hash::{AccountId, Hash, Signature};
use proofmill_chain::types::{units, validator};

use crate::core::Part;

/// The types and rules by which the engine runs this chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain;

/// A validator's address: its consensus key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(pub(crate) AccountId);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite::Address for Address {}

/// A height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Height(pub(crate) units::Height);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite::Height for Height {
    const ZERO: Self = Self(units::Height::ZERO);
    const INITIAL: Self = Self(units::Height::new(1));

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0.saturating_plus(n))
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        let value = self.0.get().checked_sub(n)?;
        Some(Self(units::Height::new(value)))
    }

    fn as_u64(&self) -> u64 {
        self.0.get()
    }
}

/// What is decided: a block's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value(pub(crate) Hash);

impl malachite::Value for Value {
    type Id = Hash;

    fn id(&self) -> Hash {
        self.0
    }
}

/// A validator of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validator {
    address: Address,
    power: VotingPower,
}

impl malachite::Validator<Chain> for Validator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &AccountId {
        &self.address.0
    }

    fn voting_power(&self) -> VotingPower {
        self.power
    }
}

/// A validator set of the chain, in the chain's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValidatorSet {
    set: validator::ValidatorSet,
    validators: Vec<Validator>,
}

impl ValidatorSet {
    pub(crate) fn new(set: validator::ValidatorSet) -> Self {
        let validators = set
            .as_slice()
            .iter()
            .map(|validator| Validator {
                address: Address(validator.key),
                power: validator.power.get(),
            })
            .collect();
        Self { set, validators }
    }
}

impl malachite::ValidatorSet<Chain> for ValidatorSet {
    fn count(&self) -> usize {
        self.validators.len()
    }

    fn total_voting_power(&self) -> VotingPower {
        self.set.total_power().get()
    }

    fn get_by_address(&self, address: &Address) -> Option<&Validator> {
        self.validators.iter().find(|v| v.address == *address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.validators.get(index)
    }
}

/// The message that proposes a block's hash; its bytes come as parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) height: Height,
    pub(crate) round: malachite::Round,
    pub(crate) value: Value,
    pub(crate) pol_round: malachite::Round,
    pub(crate) proposer: Address,
}

impl malachite::Proposal<Chain> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> malachite::Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> malachite::Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Address {
        &self.proposer
    }
}

/// A vote. There are no vote extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) kind: VoteType,
    pub(crate) height: Height,
    pub(crate) round: malachite::Round,
    pub(crate) value: NilOrVal<Hash>,
    pub(crate) voter: Address,
}

impl malachite::Vote<Chain> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> malachite::Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Hash> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Hash> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.voter
    }

    fn extension(&self) -> Option<&SignedExtension<Chain>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Chain>> {
        None
    }

    fn extend(self, _: SignedExtension<Chain>) -> Self {
        self
    }
}

impl malachite::ProposalPart<Chain> for Part {
    fn is_first(&self) -> bool {
        matches!(self, Self::Init(..))
    }

    fn is_last(&self) -> bool {
        // The announcement says how many parts there are, and they come in any order. The engine
        // does not ask.
        false
    }
}

/// ed25519 under the chain's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ed25519;

impl malachite::SigningScheme for Ed25519 {
    type DecodingError = core::array::TryFromSliceError;
    type Signature = Signature;
    type PublicKey = AccountId;
    type PrivateKey = proofmill_chain::crypto::sign::SecretKey;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, Self::DecodingError> {
        bytes.try_into().map(Signature::new)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.as_bytes().to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<AccountId, Self::DecodingError> {
        bytes.try_into().map(AccountId::new)
    }

    fn encode_public_key(public_key: &AccountId) -> Vec<u8> {
        public_key.as_bytes().to_vec()
    }
}

/// The chain's round of an engine's round; the engine's nil round counts as the first.
pub(crate) fn round_of(round: malachite::Round) -> units::Round {
    units::Round::new(round.as_u32().unwrap_or_default())
}

/// The engine's round of an optional round of the chain.
pub(crate) fn round_or_nil(round: Option<units::Round>) -> malachite::Round {
    malachite::Round::from(round.map(units::Round::get))
}

impl malachite::Context for Chain {
    type Address = Address;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = ValidatorSet;
    type Timeouts = LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(
        &self,
        validator_set: &'a ValidatorSet,
        height: Height,
        round: malachite::Round,
    ) -> &'a Validator {
        let key = validator_set.set.proposer(height.0, round_of(round)).key;
        validator_set
            .validators
            .iter()
            .find(|validator| validator.address.0 == key)
            .expect("the proposer is drawn from the same set")
    }

    fn new_proposal(
        &self,
        height: Height,
        round: malachite::Round,
        value: Value,
        pol_round: malachite::Round,
        address: Address,
    ) -> Proposal {
        Proposal {
            height,
            round,
            value,
            pol_round,
            proposer: address,
        }
    }

    fn new_prevote(
        &self,
        height: Height,
        round: malachite::Round,
        value_id: NilOrVal<Hash>,
        address: Address,
    ) -> Vote {
        Vote {
            kind: VoteType::Prevote,
            height,
            round,
            value: value_id,
            voter: address,
        }
    }

    fn new_precommit(
        &self,
        height: Height,
        round: malachite::Round,
        value_id: NilOrVal<Hash>,
        address: Address,
    ) -> Vote {
        Vote {
            kind: VoteType::Precommit,
            ..self.new_prevote(height, round, value_id, address)
        }
    }
}
