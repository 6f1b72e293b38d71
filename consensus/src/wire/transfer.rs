//! The plain forms of what is transferred: parts, stored values, proofs, statuses, decided blocks.

use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_core_types::{
    ExtendedCommitCertificate, ExtendedCommitSignature, ValidatorProof, Validity,
};
use arc_malachitebft_engine::util::streaming::{StreamContent, StreamId, StreamMessage};
use arc_malachitebft_peer::PeerId;
use arc_malachitebft_sync::{
    RawDecidedValue, Request, Response, Status, ValueRequest, ValueResponse,
};
use bytes::Bytes;
use proofmill_chain::types::block::{Certificate, CommitSignature};
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature};
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::VALIDATORS_MAX;
use serde::{Deserialize, Serialize};

use super::{WireError, at_most, bounded, bounded_or_nil, round};
use crate::context::{self, Address, Chain, Value, round_or_nil};
use crate::core::{Announcement, PARTS_MAX, Part};

/// Decided blocks in one answer.
pub(crate) const DECIDED_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
pub(crate) enum PartWire {
    Init(Announcement, Signature, Vec<Hash>),
    Data(Blob),
}

impl TryFrom<&Part> for PartWire {
    type Error = WireError;

    fn try_from(part: &Part) -> Result<Self, WireError> {
        Ok(match part {
            Part::Init(announcement, signature, hashes) => {
                Self::Init(*announcement, *signature, hashes.clone())
            }
            Part::Data(bytes) => Self::Data(Blob::new(bytes.to_vec())),
        })
    }
}

impl TryFrom<PartWire> for Part {
    type Error = WireError;

    fn try_from(wire: PartWire) -> Result<Self, WireError> {
        Ok(match wire {
            PartWire::Init(announcement, signature, hashes) => {
                at_most("parts", hashes.len(), PARTS_MAX)?;
                bounded(announcement.round)?;
                bounded_or_nil(announcement.pol_round)?;
                Self::Init(announcement, signature, hashes)
            }
            PartWire::Data(bytes) => Self::Data(Bytes::from(bytes.into_bytes())),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StreamWire {
    stream: Hash,
    sequence: u64,
    part: Option<PartWire>,
}

impl TryFrom<&StreamMessage<Part>> for StreamWire {
    type Error = WireError;

    fn try_from(message: &StreamMessage<Part>) -> Result<Self, WireError> {
        let id = message.stream_id.to_bytes();
        let id: [u8; 32] = id
            .as_ref()
            .try_into()
            .map_err(|_| WireError::StreamId(id.len()))?;
        Ok(Self {
            stream: Hash::new(id),
            sequence: message.sequence,
            part: message
                .content
                .as_data()
                .map(TryInto::try_into)
                .transpose()?,
        })
    }
}

impl TryFrom<StreamWire> for StreamMessage<Part> {
    type Error = WireError;

    fn try_from(wire: StreamWire) -> Result<Self, WireError> {
        let id = StreamId::new(Bytes::copy_from_slice(wire.stream.as_bytes()));
        let content = match wire.part {
            None => StreamContent::Fin,
            Some(part) => StreamContent::Data(part.try_into()?),
        };
        Ok(Self::new(id, wire.sequence, content))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProposedWire {
    height: Height,
    round: Round,
    valid_round: Option<Round>,
    proposer: AccountId,
    block: Hash,
    valid: bool,
}

impl TryFrom<&ProposedValue<Chain>> for ProposedWire {
    type Error = WireError;

    fn try_from(value: &ProposedValue<Chain>) -> Result<Self, WireError> {
        Ok(Self {
            height: value.height.0,
            round: round(value.round)?,
            valid_round: value.valid_round.as_u32().map(Round::new),
            proposer: value.proposer.0,
            block: value.value.0,
            valid: value.validity.is_valid(),
        })
    }
}

impl TryFrom<ProposedWire> for ProposedValue<Chain> {
    type Error = WireError;

    fn try_from(wire: ProposedWire) -> Result<Self, WireError> {
        Ok(Self {
            height: context::Height(wire.height),
            round: bounded(wire.round)?,
            valid_round: bounded_or_nil(wire.valid_round)?,
            proposer: Address(wire.proposer),
            value: Value(wire.block),
            validity: Validity::from_bool(wire.valid),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProofWire {
    key: AccountId,
    peer: Blob,
    signature: Signature,
}

impl TryFrom<&ValidatorProof<Chain>> for ProofWire {
    type Error = WireError;

    fn try_from(proof: &ValidatorProof<Chain>) -> Result<Self, WireError> {
        let key = proof.public_key.as_slice().try_into();
        let key = key.map_err(|_| WireError::Key(proof.public_key.len()))?;
        Ok(Self {
            key: AccountId::new(key),
            peer: Blob::new(proof.peer_id.clone()),
            signature: proof.signature,
        })
    }
}

impl TryFrom<ProofWire> for ValidatorProof<Chain> {
    type Error = WireError;

    fn try_from(wire: ProofWire) -> Result<Self, WireError> {
        let peer = wire.peer.into_bytes();
        Ok(Self::new(
            wire.key.as_bytes().to_vec(),
            peer,
            wire.signature,
        ))
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StatusWire {
    peer: Blob,
    tip: Height,
    history_min: Height,
}

impl TryFrom<&Status<Chain>> for StatusWire {
    type Error = WireError;

    fn try_from(status: &Status<Chain>) -> Result<Self, WireError> {
        Ok(Self {
            peer: Blob::new(status.peer_id.to_bytes()),
            tip: status.tip_height.0,
            history_min: status.history_min_height.0,
        })
    }
}

impl TryFrom<StatusWire> for Status<Chain> {
    type Error = WireError;

    fn try_from(wire: StatusWire) -> Result<Self, WireError> {
        let peer = PeerId::from_bytes(wire.peer.as_bytes()).map_err(|_| WireError::Peer)?;
        Ok(Self {
            peer_id: peer,
            tip_height: context::Height(wire.tip),
            history_min_height: context::Height(wire.history_min),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RequestWire {
    first: Height,
    last: Height,
}

impl TryFrom<&Request<Chain>> for RequestWire {
    type Error = WireError;

    fn try_from(request: &Request<Chain>) -> Result<Self, WireError> {
        let Request::ValueRequest(request) = request;
        Ok(Self {
            first: request.range.start().0,
            last: request.range.end().0,
        })
    }
}

impl TryFrom<RequestWire> for Request<Chain> {
    type Error = WireError;

    fn try_from(wire: RequestWire) -> Result<Self, WireError> {
        let range = context::Height(wire.first)..=context::Height(wire.last);
        Ok(Self::ValueRequest(ValueRequest::new(range)))
    }
}

#[derive(Serialize, Deserialize)]
struct DecidedWire {
    certificate: Certificate,
    block: Blob,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ResponseWire {
    first: Height,
    decided: Vec<DecidedWire>,
}

impl TryFrom<&Response<Chain>> for ResponseWire {
    type Error = WireError;

    fn try_from(response: &Response<Chain>) -> Result<Self, WireError> {
        let Response::ValueResponse(response) = response;
        let decided = response.values.iter().map(|value| {
            Ok(DecidedWire {
                certificate: certificate_of(&value.certificate)?,
                block: Blob::new(
                    certified(&value.value_bytes)
                        .map_or_else(Vec::new, |(_, block)| block.to_vec()),
                ),
            })
        });
        Ok(Self {
            first: response.start_height.0,
            decided: decided.collect::<Result<_, WireError>>()?,
        })
    }
}

impl TryFrom<ResponseWire> for Response<Chain> {
    type Error = WireError;

    fn try_from(wire: ResponseWire) -> Result<Self, WireError> {
        at_most("decided blocks", wire.decided.len(), DECIDED_MAX)?;
        let mut values = Vec::with_capacity(wire.decided.len());
        for decided in wire.decided {
            let signatures = decided.certificate.signatures.len();
            at_most("signatures", signatures, VALIDATORS_MAX)?;
            bounded(decided.certificate.round)?;
            values.push(self::decided(
                &decided.certificate,
                decided.block.as_bytes(),
            ));
        }
        let first = context::Height(wire.first);
        Ok(Self::ValueResponse(ValueResponse::new(first, values)))
    }
}

/// A decided block as the engine carries it: the hash that its certificate names, then its bytes. The
/// engine verifies the certificate but gives the application the bytes alone; with the hash before them
/// the application knows what was certified. On the wire the hash stands in the certificate only.
pub(crate) fn decided(certificate: &Certificate, block: &[u8]) -> RawDecidedValue<Chain> {
    let bytes = [certificate.block.as_bytes(), block].concat();
    RawDecidedValue::new(Bytes::from(bytes), extended(certificate))
}

/// The certified hash and the bytes that [`decided`] put together.
pub(crate) fn certified(bytes: &[u8]) -> Option<(Hash, &[u8])> {
    let (hash, block) = bytes.split_first_chunk()?;
    Some((Hash::new(*hash), block))
}

/// The engine's form of a certificate, without extensions.
pub(crate) fn extended(certificate: &Certificate) -> ExtendedCommitCertificate<Chain> {
    let signatures = certificate.signatures.iter();
    ExtendedCommitCertificate {
        height: context::Height(certificate.height),
        round: round_or_nil(Some(certificate.round)),
        value_id: certificate.block,
        commit_signatures: signatures
            .map(|signed| {
                ExtendedCommitSignature::new(Address(signed.validator), signed.signature, None)
            })
            .collect(),
    }
}

fn certificate_of(
    certificate: &ExtendedCommitCertificate<Chain>,
) -> Result<Certificate, WireError> {
    let signatures = certificate.commit_signatures.iter();
    Ok(Certificate {
        height: certificate.height.0,
        round: round(certificate.round)?,
        block: certificate.value_id,
        signatures: signatures
            .map(|signed| match signed.extension {
                None => Ok(CommitSignature {
                    validator: signed.address.0,
                    signature: signed.signature,
                }),
                Some(_) => Err(WireError::Extension),
            })
            .collect::<Result<_, _>>()?,
    })
}
