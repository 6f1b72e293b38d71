//! The header's place in the chain: what its parent demands of it.

use super::{BlockError, Context};
use crate::state::overlay::Overlay;
use crate::types::block::{Block, Certificate};
use crate::types::hash::{AccountId, Hash};
use crate::types::units::Height;

/// Checks the header against the parent's state; returns the proposer's reward account and beacon
/// key, and the parent's beacon.
pub(super) fn check(
    block: &Block,
    context: &Context<'_>,
) -> Result<(AccountId, AccountId, Hash), BlockError> {
    let header = &block.header;
    let mut overlay = Overlay::new(context.state);
    let chain = overlay.chain()?;
    let validators = overlay.validators()?;
    let height = context.parent_height.next();
    let proposer = validators.proposer(height, header.round);
    let certificate_hash = block
        .last_certificate
        .as_ref()
        .map_or(Hash::ZERO, Certificate::hash);
    let validators_hash = validators.hash();
    let rules = context.rules;
    let fields: [(&'static str, String, String); 11] = [
        field("version", &header.version, &rules.version()),
        field("chain", &header.chain, context.genesis),
        field("height", &header.height, &height),
        field("parent", &header.parent, context.parent),
        field("proposer", &header.proposer, &proposer.key),
        field("validators_hash", &header.validators_hash, &validators_hash),
        field(
            "next_validators_hash",
            &header.next_validators_hash,
            &validators_hash,
        ),
        field("params_hash", &header.params_hash, &rules.params_hash()),
        field("base_fee", &header.base_fee, &rules.params().base_fee),
        field(
            "last_certificate_hash",
            &header.last_certificate_hash,
            &certificate_hash,
        ),
        (
            "time_ms",
            (header.time_ms > chain.time_ms).to_string(),
            true.to_string(),
        ),
    ];
    for (field, given, expected) in fields {
        if given != expected {
            return Err(match field {
                "time_ms" => BlockError::Header {
                    field,
                    given: header.time_ms.to_string(),
                    expected: format!("more than the parent's {}", chain.time_ms),
                },
                _ => BlockError::Header {
                    field,
                    given,
                    expected,
                },
            });
        }
    }
    if block.last_certificate.is_none() != (context.parent_height == Height::ZERO) {
        return Err(BlockError::CertificatePresence);
    }
    Ok((proposer.reward, proposer.beacon_key, chain.beacon))
}

fn field<T: core::fmt::Display>(
    name: &'static str,
    given: &T,
    expected: &T,
) -> (&'static str, String, String) {
    (name, given.to_string(), expected.to_string())
}
