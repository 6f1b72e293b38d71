//! Which rules hold at which height (protocol §7).
//!
//! A chain begins with the rules of one protocol version and changes to others at the heights of its
//! list of upgrades. The list is not part of the genesis hash: it is known only long after genesis.
//! [`Schedule::at`] is the one function that says what holds at a height; a block can be judged or
//! built only with the [`Rules`] that it gives.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::types::genesis::{Genesis, GenesisError};
use crate::types::hash::Hash;
use crate::types::params::Params;
use crate::types::units::{Height, ProtocolVersion};

/// Most upgrades of a chain.
pub const UPGRADES_MAX: usize = 256;

/// From `height` on, blocks follow the rules of `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The version.
    pub version: ProtocolVersion,
    /// The first height with its rules.
    pub height: Height,
}

/// A protocol version that a program knows, and what it makes of the parameters of the version before.
#[derive(Clone, Copy, Debug)]
pub struct KnownVersion {
    /// The version.
    pub version: ProtocolVersion,
    /// Its change of the parameters.
    pub amend: fn(&mut Params),
}

/// The versions that this release knows, ascending. Genesis has the first.
pub const RELEASED: &[KnownVersion] = &[KnownVersion {
    version: ProtocolVersion::new(1),
    amend: |_| {},
}];

/// What holds at a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    version: ProtocolVersion,
    params: Params,
    params_hash: Hash,
}

impl Rules {
    fn new(version: ProtocolVersion, params: Params) -> Self {
        Self {
            version,
            params_hash: params.hash(),
            params,
        }
    }

    /// The protocol version.
    #[must_use]
    pub const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The parameters.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Their hash.
    #[must_use]
    pub const fn params_hash(&self) -> Hash {
        self.params_hash
    }
}

/// Why a height cannot be judged: this program does not know its rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "from height {height} on the chain needs protocol version {needed}, this program knows {known}",
    known = listed(known)
)]
pub struct UnknownVersion {
    /// The version.
    pub needed: ProtocolVersion,
    /// The first height that needs it.
    pub height: Height,
    /// The versions that this program knows.
    pub known: Vec<ProtocolVersion>,
}

/// Versions for people: `1, 2`.
#[must_use]
pub fn listed(versions: &[ProtocolVersion]) -> String {
    let texts: Vec<_> = versions.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Why a list of upgrades is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradesError {
    /// Too many.
    #[error("{0} upgrades, at most {UPGRADES_MAX}")]
    TooMany(usize),
    /// Neither the height nor the version may stay or fall.
    #[error(
        "upgrade to version {version} at height {height}: versions and heights ascend, and before it \
         is version {version_before}, since height {height_before}"
    )]
    Order {
        /// Its version.
        version: ProtocolVersion,
        /// Its height.
        height: Height,
        /// The version before.
        version_before: ProtocolVersion,
        /// Where that began; 0 is genesis.
        height_before: Height,
    },
    /// A version makes parameters that break a rule.
    #[error("parameters of version {version}: {error}")]
    Params {
        /// The version.
        version: ProtocolVersion,
        /// The rule.
        error: GenesisError,
    },
}

/// From `from` on; no rules when the version is unknown.
#[derive(Clone, Debug)]
struct Span {
    from: Height,
    version: ProtocolVersion,
    rules: Option<Rules>,
}

/// A chain's versions by height.
#[derive(Clone, Debug)]
pub struct Schedule {
    genesis: Rules,
    /// The upgrades, ascending.
    later: Vec<Span>,
    known: Vec<ProtocolVersion>,
    hash: Hash,
}

impl Schedule {
    /// The schedule of a chain with these upgrades, as far as a program with the `known` versions,
    /// ascending, can follow it. A list may name versions that are not known: the chain is followed up
    /// to them.
    ///
    /// # Errors
    /// When the list is too long or not ascending, or a known version makes impossible parameters.
    ///
    /// # Panics
    /// When no version is known.
    pub fn new(
        genesis: &Genesis,
        upgrades: &[Upgrade],
        known: &[KnownVersion],
    ) -> Result<Self, UpgradesError> {
        if upgrades.len() > UPGRADES_MAX {
            return Err(UpgradesError::TooMany(upgrades.len()));
        }
        let rules_of = |step: &KnownVersion, before: &Params| {
            let mut params = before.clone();
            (step.amend)(&mut params);
            genesis
                .check_params(&params)
                .map_err(|error| UpgradesError::Params {
                    version: step.version,
                    error,
                })?;
            Ok(Rules::new(step.version, params))
        };
        let first = known.first().expect("a program knows at least one version");
        let first = rules_of(first, &genesis.params)?;
        let mut later: Vec<Span> = Vec::with_capacity(upgrades.len());
        for Upgrade { version, height } in upgrades.iter().copied() {
            let (height_before, version_before, rules) = match later.last() {
                Some(span) => (span.from, span.version, span.rules.as_ref()),
                None => (Height::ZERO, first.version, Some(&first)),
            };
            if height <= height_before || version <= version_before {
                return Err(UpgradesError::Order {
                    version,
                    height,
                    version_before,
                    height_before,
                });
            }
            let step = known.iter().find(|step| step.version == version);
            let rules = rules.zip(step);
            let rules = rules
                .map(|(before, step)| rules_of(step, &before.params))
                .transpose()?;
            later.push(Span {
                from: height,
                version,
                rules,
            });
        }
        let list = codec::encode(&(first.version, upgrades));
        Ok(Self {
            hash: Hash::of("proofmill/upgrades/v1", &[&list]),
            genesis: first,
            later,
            known: known.iter().map(|step| step.version).collect(),
        })
    }

    /// The rules that hold at a height.
    ///
    /// # Errors
    /// When this program does not know them.
    pub fn at(&self, height: Height) -> Result<&Rules, UnknownVersion> {
        let reached = self.later.partition_point(|span| span.from <= height);
        let reached = self.later.get(..reached).unwrap_or_default();
        // What follows an unknown version cannot be known either.
        let unknown = reached.iter().find(|span| span.rules.is_none());
        if let Some(span) = unknown {
            return Err(UnknownVersion {
                needed: span.version,
                height: span.from,
                known: self.known.clone(),
            });
        }
        let rules = reached.last().and_then(|span| span.rules.as_ref());
        Ok(rules.unwrap_or(&self.genesis))
    }

    /// The newest known rules that hold at a height or before it.
    #[must_use]
    pub fn known_at(&self, height: Height) -> &Rules {
        self.known_rules()
            .take_while(|(from, _)| *from <= height)
            .last()
            .map_or(&self.genesis, |(_, rules)| rules)
    }

    /// The rules of a version, when this chain has it at some height and this program knows it.
    #[must_use]
    pub fn of_version(&self, version: ProtocolVersion) -> Option<&Rules> {
        self.known_rules()
            .map(|(_, rules)| rules)
            .find(|rules| rules.version() == version)
    }

    /// All rules that this program can follow on this chain, each with its first height; genesis has 0.
    pub fn known_rules(&self) -> impl Iterator<Item = (Height, &Rules)> {
        let later = self
            .later
            .iter()
            .map_while(|span| Some((span.from, span.rules.as_ref()?)));
        core::iter::once((Height::ZERO, &self.genesis)).chain(later)
    }

    /// The versions that this program knows, ascending.
    #[must_use]
    pub fn known_versions(&self) -> &[ProtocolVersion] {
        &self.known
    }

    /// Names the list of upgrades together with the first version: nodes with different hashes will
    /// part at some height.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }
}
