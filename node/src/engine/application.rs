//! The four calls of consensus: propose, validate, commit, serve history.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proofmill_chain::types::block::Certificate;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::{Height, Round};
use proofmill_chain::types::validator::ValidatorSet;
use proofmill_consensus::{AppError, Application, ProposedBlock, UndecidedProposal, Verdict};

use super::{CLOCK_DRIFT_MAX, Engine, clock_ms};

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

    async fn validate(&self, height: Height, round: Round, bytes: Arc<[u8]>) -> Verdict {
        if height != self.head().next() {
            return Verdict::Failed {
                reason: format!("height {height} does not follow head {}", self.head()),
            };
        }
        let engine = Arc::clone(&self.0);
        let judged = match blocking(move || engine.judge(&bytes)).await {
            Ok(judged) => judged,
            Err(error) => {
                return Verdict::Failed {
                    reason: error.to_string(),
                };
            }
        };
        let sealed = match judged {
            Ok(sealed) => sealed,
            Err(error) if error.is_ours() => {
                return Verdict::Failed {
                    reason: error.to_string(),
                };
            }
            Err(error) => {
                tracing::warn!(%height, %round, %error, "an invalid block was proposed");
                return Verdict::Invalid {
                    reason: error.to_string(),
                };
            }
        };
        let header = &sealed.block().header;
        // Rule: a block says the round in which it was first built, never a later one.
        if header.round > round {
            return Verdict::Invalid {
                reason: format!("built in round {}, proposed in round {round}", header.round),
            };
        }
        wait_until_due(header.time_ms).await;
        Verdict::Valid {
            hash: sealed.hash(),
        }
    }

    async fn commit(&self, certificate: Certificate, bytes: Arc<[u8]>) -> Result<(), AppError> {
        let engine = Arc::clone(&self.0);
        blocking(move || engine.apply(&certificate, &bytes))
            .await?
            .map_err(AppError::new)
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

/// Holds a proposal whose time is too far ahead of our clock; such a block is early, not invalid.
async fn wait_until_due(time_ms: u64) {
    let drift = u64::try_from(CLOCK_DRIFT_MAX.as_millis()).unwrap_or(u64::MAX);
    let ahead = time_ms.saturating_sub(clock_ms().saturating_add(drift));
    if ahead > 0 {
        tracing::warn!(
            ahead_ms = ahead,
            "a proposal is ahead of this clock; it is held"
        );
        tokio::time::sleep(Duration::from_millis(ahead)).await;
    }
}
