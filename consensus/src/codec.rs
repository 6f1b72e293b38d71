//! The engine's codec: every message in the chain's wire encoding, within a limit of its own.

use arc_malachitebft_codec::{Codec, HasEncodedLen};
use arc_malachitebft_core_consensus::{LivenessMsg, ProposedValue, SignedConsensusMsg};
use arc_malachitebft_core_types::{PolkaCertificate, ValidatorProof};
use arc_malachitebft_engine::util::streaming::StreamMessage;
use arc_malachitebft_sync::{Request, Response, Status};
use bytes::Bytes;
use proofmill_chain::codec;
use proofmill_chain::types::block::BLOCK_BYTES_MAX;

use crate::context::Chain;
use crate::core::{PART_BYTES, Part};
use crate::wire::{
    ConsensusWire, LivenessWire, PartWire, PolkaWire, ProofWire, ProposedWire, RequestWire,
    ResponseWire, StatusWire, StreamWire, WireError,
};

/// A vote, a proposal, a status or a request.
const SMALL_BYTES_MAX: usize = 1 << 10;
/// A certificate of every validator's votes.
const VOTES_BYTES_MAX: usize = 128 << 10;
/// A part with its frame.
const PART_MESSAGE_BYTES_MAX: usize = PART_BYTES + (1 << 10);
/// An answer with decided blocks.
pub(crate) const RESPONSE_BYTES_MAX: usize = 2 * BLOCK_BYTES_MAX + (1 << 20);

/// Encodes and decodes everything that the engine sends or logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireCodec;

macro_rules! encoded_as {
    ($message:ty, $wire:ty, $most:expr) => {
        impl Codec<$message> for WireCodec {
            type Error = WireError;

            fn decode(&self, bytes: Bytes) -> Result<$message, WireError> {
                codec::decode::<$wire, { $most }>(&bytes)?.try_into()
            }

            fn encode(&self, message: &$message) -> Result<Bytes, WireError> {
                <$wire>::try_from(message).map(|wire| codec::encode(&wire).into())
            }
        }
    };
}

encoded_as!(SignedConsensusMsg<Chain>, ConsensusWire, SMALL_BYTES_MAX);
encoded_as!(LivenessMsg<Chain>, LivenessWire, VOTES_BYTES_MAX);
encoded_as!(PolkaCertificate<Chain>, PolkaWire, VOTES_BYTES_MAX);
encoded_as!(Part, PartWire, PART_MESSAGE_BYTES_MAX);
encoded_as!(StreamMessage<Part>, StreamWire, PART_MESSAGE_BYTES_MAX);
encoded_as!(ProposedValue<Chain>, ProposedWire, SMALL_BYTES_MAX);
encoded_as!(ValidatorProof<Chain>, ProofWire, SMALL_BYTES_MAX);
encoded_as!(Status<Chain>, StatusWire, SMALL_BYTES_MAX);
encoded_as!(Request<Chain>, RequestWire, SMALL_BYTES_MAX);
encoded_as!(Response<Chain>, ResponseWire, RESPONSE_BYTES_MAX);

impl HasEncodedLen<Response<Chain>> for WireCodec {
    fn encoded_len(&self, response: &Response<Chain>) -> Result<usize, WireError> {
        self.encode(response).map(|bytes| bytes.len())
    }
}

#[cfg(test)]
mod tests;
