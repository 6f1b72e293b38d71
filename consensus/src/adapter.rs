//! The shell around the core: engine messages become events, commands become calls.
//!
//! ```text
//! engine ──AppMsg──▶ event ─┐                ┌─▶ reply, hand-over ──▶ engine
//! tasks ───result──▶ event ─┴─▶ Core ─command┴─▶ task of its own ───▶ Application, network
//! ```
//!
//! All that is decided is decided by [`Core`]. The engine's connector hands out one message at a
//! time for the kinds that it awaits, so a part of a block is answered at once with nothing, and a
//! judged value goes straight to the engine's consensus actor, with the message that the
//! connector would send.

mod execute;
mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_malachitebft_app_channel::app::types::LocallyProposedValue;
use arc_malachitebft_app_channel::{AppMsg, NetworkMsg, Reply};
use arc_malachitebft_core_consensus::ProposedValue;
use arc_malachitebft_core_types::{HeightParams, LinearTimeouts};
use arc_malachitebft_engine::consensus::ConsensusRef;
use arc_malachitebft_engine::host::{Next, SyncedValueOutcome};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::units::{Height, Round};
use proofmill_signer::Signer as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::application::Application;
use crate::context::{self, Chain};
use crate::core::{Core, CoreConfig, Event, Now, Ticket, Timer};
use crate::engine::EngineError;
use crate::network::Own;
use crate::revocable::Revocable;
use crate::signing::FOLLOWER;

/// How often the distance to the other validators' clocks is worked out anew.
const CLOCKS_INTERVAL: Duration = Duration::from_secs(1);

/// What the shell works with.
pub(crate) struct AdapterParts {
    pub(crate) app: Arc<dyn Application>,
    pub(crate) chain: Hash,
    /// Signs announcements; an engine without one never proposes.
    pub(crate) signer: Option<Arc<Revocable>>,
    /// Whose signatures in certificates are compared with the guard, also while an engine only follows,
    /// and where a foreign one is reported.
    pub(crate) own: Option<(Own, watch::Sender<Option<EngineError>>)>,
    pub(crate) timeouts: LinearTimeouts,
    pub(crate) block_bytes_max: usize,
    pub(crate) network: mpsc::Sender<NetworkMsg<Chain>>,
    /// The engine's consensus actor.
    pub(crate) consensus: ConsensusRef<Chain>,
}

impl AdapterParts {
    fn me(&self) -> AccountId {
        let signer = self.signer.as_ref();
        signer.map_or(FOLLOWER.0, |signer| signer.key())
    }
}

/// What others may learn of the adapter and tell it.
pub(crate) struct Adapter {
    parts: AdapterParts,
    position: watch::Sender<(Height, Round)>,
    clocks_ahead_ms: watch::Sender<Option<i64>>,
    closing: watch::Sender<bool>,
    fatal: watch::Sender<Option<String>>,
}

/// How each kind of request is answered.
enum Pending {
    Ready(Reply<(context::Height, HeightParams<Chain>)>),
    Round(Reply<Vec<ProposedValue<Chain>>>),
    Value(Reply<LocallyProposedValue<Chain>>),
    Committed(Reply<()>),
    Next(Reply<Next<Chain>>),
    Synced(Reply<SyncedValueOutcome<Chain>>, Certified),
}

/// A block that a peer sent beside a certificate, which the engine verified.
#[derive(Clone)]
struct Certified {
    height: Height,
    /// The hash that the certificate names.
    block: Hash,
    /// What the peer says has that hash.
    bytes: Arc<[u8]>,
}

/// The loop's own state.
struct Serving {
    core: Core,
    started: Instant,
    pending: BTreeMap<Ticket, Pending>,
    tickets_given: u64,
    /// Work under way; each task returns the event that its result is.
    tasks: JoinSet<Option<Event>>,
    /// Waits, which may be ended at any moment.
    pacing: Option<AbortHandle>,
    timers: BTreeMap<Timer, AbortHandle>,
}

impl Adapter {
    pub(crate) fn new(parts: AdapterParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            position: watch::Sender::new((Height::ZERO, Round::default())),
            clocks_ahead_ms: watch::Sender::new(None),
            closing: watch::Sender::new(false),
            fatal: watch::Sender::new(None),
        })
    }

    /// The height and round in which consensus is.
    pub(crate) fn position(&self) -> watch::Receiver<(Height, Round)> {
        self.position.subscribe()
    }

    /// How far the other validators' clocks are ahead of ours, milliseconds.
    pub(crate) fn clocks_ahead_ms(&self) -> watch::Receiver<Option<i64>> {
        self.clocks_ahead_ms.subscribe()
    }

    /// Says that the engine must never go on, and why.
    fn fail(&self, reason: String) {
        fail(&self.fatal, reason);
    }

    /// Resolves with the reason of the first failure.
    pub(crate) async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        let reason = fatal.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_default()
    }

    /// Makes [`Self::run`] return once the work under way is done.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Serves the engine until its channel closes or the adapter is closed. When it returns, no call
    /// of the application is under way.
    pub(crate) async fn run(self: Arc<Self>, mut messages: mpsc::Receiver<AppMsg<Chain>>) {
        let mut closing = self.closing.subscribe();
        let mut clocks = tokio::time::interval(CLOCKS_INTERVAL);
        let mut serving = Serving {
            core: Core::new(CoreConfig {
                chain: self.parts.chain,
                me: self.parts.me(),
                block_bytes_max: self.parts.block_bytes_max,
            }),
            started: Instant::now(),
            pending: BTreeMap::new(),
            tickets_given: 0,
            tasks: JoinSet::new(),
            pacing: None,
            timers: BTreeMap::new(),
        };
        loop {
            tokio::select! {
                // An error means that the adapter is gone.
                _ = closing.wait_for(|closing| *closing) => break,
                message = messages.recv() => match message {
                    Some(message) => self.take_message(&mut serving, message),
                    None => break,
                },
                Some(ended) = serving.tasks.join_next(), if !serving.tasks.is_empty() => {
                    self.take_result(&mut serving, ended);
                }
                _ = clocks.tick() => self.publish_clocks(&serving),
            }
        }
        serving.stop_waits();
        while serving.tasks.join_next().await.is_some() {}
    }

    fn take_result(&self, serving: &mut Serving, ended: Result<Option<Event>, JoinError>) {
        match ended {
            Ok(Some(event)) => self.take_event(serving, event),
            Ok(None) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(format!("a task of the application panicked: {error}")),
        }
    }

    fn take_event(&self, serving: &mut Serving, event: Event) {
        let now = serving.now(self.parts.app.as_ref());
        for command in serving.core.handle(now, event) {
            self.execute(serving, command);
        }
        let position = serving.core.position();
        self.position.send_if_modified(|known| {
            let moved = *known != position;
            *known = position;
            moved
        });
    }

    fn publish_clocks(&self, serving: &Serving) {
        let now = serving.now(self.parts.app.as_ref());
        let ahead = serving.core.clocks_ahead_ms(now);
        self.clocks_ahead_ms.send_replace(ahead);
    }
}

/// Says that an engine must never go on, and why; the first reason stays.
fn fail(fatal: &watch::Sender<Option<String>>, reason: String) {
    tracing::error!(%reason, "consensus cannot go on");
    fatal.send_if_modified(|fatal| {
        let first = fatal.is_none();
        fatal.get_or_insert(reason);
        first
    });
}

impl Serving {
    /// Both clocks, read now.
    fn now(&self, app: &dyn Application) -> Now {
        let uptime = self.started.elapsed().as_millis();
        Now {
            clock_ms: app.clock_ms(),
            uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
        }
    }

    fn ticket(&mut self, pending: Pending) -> Ticket {
        self.tickets_given += 1;
        let ticket = Ticket(self.tickets_given);
        self.pending.insert(ticket, pending);
        ticket
    }

    fn stop_waits(&mut self) {
        let timers = std::mem::take(&mut self.timers).into_values();
        timers
            .chain(self.pacing.take())
            .for_each(|wait| wait.abort());
    }
}
