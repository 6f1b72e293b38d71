//! The four calls of consensus: propose, validate, commit, serve history.

use std::sync::Arc;

use async_trait::async_trait;
use proofmill_chain::finality::TurnError;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_consensus::{
    AppError, Application, BlockFacts, ProposedBlock, UndecidedProposal, Verdict,
};

use super::{Engine, clock_ms};

/// [`Engine`] as consensus sees it.
pub struct ConsensusPort(pub Arc<Engine>);

/// Runs blocking work of the engine off the asynchronous threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| AppError::new(format!("a task of the engine died: {error}")))
}

#[async_trait]
impl Application for ConsensusPort {
    fn chain(&self) -> Hash {
        self.0.genesis_hash()
    }

    fn clock_ms(&self) -> u64 {
        clock_ms()
    }

    fn head(&self) -> Height {
        self.0.store().head().height
    }

    fn validators(&self, height: Height) -> Option<ValidatorSet> {
        (height <= self.head().next()).then(|| self.0.validators().clone())
    }

    async fn propose(&self, height: Height, round: Round) -> Result<ProposedBlock, AppError> {
        let head = self.head();
        if height != head.next() {
            return Err(AppError::new(format!(
                "asked to propose height {height} on head {head}"
            )));
        }
        let engine = Arc::clone(&self.0);
        let (hash, bytes) = blocking(move || engine.propose(round))
            .await?
            .map_err(AppError::new)?;
        Ok(ProposedBlock {
            hash,
            bytes: bytes.into(),
        })
    }

    fn inspect(&self, bytes: &[u8]) -> Result<BlockFacts, String> {
        let (hash, header) = self.0.identify(bytes).map_err(|error| error.to_string())?;
        Ok(BlockFacts {
            hash,
            turn: header.turn(),
            time_ms: header.time_ms,
        })
    }

    async fn validate(
        &self,
        height: Height,
        round: Round,
        block: Hash,
        bytes: Arc<[u8]>,
    ) -> Verdict {
        let failed = |reason: String| Verdict::Failed { reason };
        if height != self.head().next() {
            let head = self.head();
            return failed(format!("height {height} does not follow head {head}"));
        }
        let engine = Arc::clone(&self.0);
        let judged = match blocking(move || engine.judge(&block, &bytes)).await {
            Ok(judged) => judged,
            Err(error) => return failed(error.to_string()),
        };
        let sealed = match judged {
            Ok(sealed) => sealed,
            Err(error) if error.is_ours() => return failed(error.to_string()),
            Err(error) => {
                return Verdict::Invalid {
                    reason: error.to_string(),
                };
            }
        };
        match self.0.check_turn(&sealed, round) {
            Ok(()) => Verdict::Valid,
            Err(error @ TurnError::Proposer { .. }) => Verdict::Invalid {
                reason: error.to_string(),
            },
            // The block is valid, only not in this round: that is no verdict on it.
            Err(error @ TurnError::LaterRound { .. }) => failed(error.to_string()),
        }
    }

    async fn commit(&self, certificate: Certificate, bytes: Arc<[u8]>) -> Result<(), AppError> {
        let engine = Arc::clone(&self.0);
        blocking(move || engine.apply(&certificate, &bytes))
            .await?
            .map_err(AppError::new)
    }

    fn certified_invalid(&self, height: Height, block: &Hash, bytes: &[u8]) {
        self.0.certified_elsewhere(height, block, bytes);
    }

    fn history_min(&self) -> Height {
        Height::new(1)
    }

    fn decided(&self, height: Height) -> Result<Option<(Certificate, Arc<[u8]>)>, AppError> {
        let view = self.0.store().view().map_err(AppError::new)?;
        let certificate = view.certificate(height).map_err(AppError::new)?;
        let bytes = view.block_bytes(height).map_err(AppError::new)?;
        Ok(certificate.zip(bytes.map(Into::into)))
    }

    fn store_undecided(&self, proposal: &UndecidedProposal) -> Result<(), AppError> {
        self.0
            .keep_undecided(
                proposal.height,
                proposal.round,
                &proposal.hash,
                &proposal.encode(),
            )
            .map_err(AppError::new)
    }

    fn undecided(&self, height: Height) -> Result<Vec<UndecidedProposal>, AppError> {
        self.0
            .store()
            .undecided(height)
            .map_err(AppError::new)?
            .into_iter()
            .map(|(_, _, bytes)| UndecidedProposal::decode(&bytes).map_err(AppError::new))
            .collect()
    }

    async fn next_height_due(&self) {
        self.0.next_height_due().await;
    }
}
