//! The consensus log as it lies on the disk, read before an engine opens it.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use arc_malachitebft_core_consensus::Input;
use arc_malachitebft_core_types::NilOrVal;
use arc_malachitebft_engine::wal::decode_entry;
use arc_malachitebft_wal::Log;
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::LoggedMessages;

use crate::codec::WireCodec;
use crate::context::{Chain, round_of};
use crate::signing::kind_of;

/// What a log holds that matters before it is replayed.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// The messages under a key.
    pub(crate) messages: LoggedMessages,
    /// The blocks that the engine took for valid: it may decide on them when it replays the log.
    pub(crate) valid: Vec<Hash>,
}

/// The log of the engine that signs.
pub(crate) fn signing(home: &Path) -> PathBuf {
    home.join("consensus").join("wal")
}

/// The log of an engine that follows: it keeps nothing, and never the signing engine's.
pub(crate) fn following(home: &Path) -> PathBuf {
    home.join("follow").join("wal")
}

/// Removes a log; nothing is lost that is needed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Keeps a log that cannot be used beside its place, over an earlier one.
pub(crate) fn set_aside(path: &Path) -> io::Result<()> {
    match fs::rename(path, path.with_extension("set-aside")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The votes and proposals under `key`, and the valid blocks, in a log of `height`; `None` when there
/// is no log, or it is of another height.
///
/// # Errors
/// What makes the log unreadable.
pub(crate) fn read(path: &Path, height: Height, key: &AccountId) -> Result<Option<Logged>, String> {
    let text = |error: io::Error| error.to_string();
    if !path.try_exists().map_err(text)? {
        return Ok(None);
    }
    let mut log = Log::open(path).map_err(text)?;
    if log.sequence() != height.get() {
        return Ok(None);
    }
    let mut found = Logged::default();
    if log.is_empty() {
        return Ok(Some(found));
    }
    for entry in log.iter().map_err(text)? {
        let bytes = entry.map_err(text)?;
        match decode_entry::<Chain, _, _>(&WireCodec, Cursor::new(bytes)).map_err(text)? {
            Input::Vote(vote) if vote.voter.0 == *key => {
                let block = match vote.value {
                    NilOrVal::Nil => None,
                    NilOrVal::Val(hash) => Some(hash),
                };
                let round = round_of(vote.round);
                found
                    .messages
                    .votes
                    .push((kind_of(vote.kind), round, block));
            }
            Input::Proposal(proposal) if proposal.proposer.0 == *key => {
                let pol_round = proposal.pol_round.as_u32().map(Round::new);
                let round = round_of(proposal.round);
                let proposal = (round, pol_round, proposal.value.0);
                found.messages.proposals.push(proposal);
            }
            Input::ProposedValue(value, _) if value.validity.is_valid() => {
                found.valid.push(value.value.0);
            }
            _ => {}
        }
    }
    Ok(Some(found))
}
