//! A running node: store, engine, gossip, consensus and front end, started and stopped in order.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt as _;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use proofmill_chain::crypto::verify::BatchSecret;
use proofmill_chain::pipeline::{SEEN_MAX, SeenTransactions};
use proofmill_chain::types::genesis::DEVNET_PREFIX;
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::KnownVersion;
use proofmill_consensus::{
    EngineConfig, EngineHandle, EngineStatus, NetworkConfig, Revocable, Timeouts,
};
use proofmill_rpc::http::{Options, Server};
use proofmill_rpc::port::Ports;
use proofmill_signer::Signer;
use serde::Serialize;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::admission::admit_all;
use crate::config::Config;
use crate::engine::application::ConsensusPort;
use crate::engine::{Engine, EngineParts, Trouble};
use crate::exit::Exit;
use crate::gossip::{Gossip, GossipConfig, KEEP_ALIVE};
use crate::home::{Home, write_atomically};
use crate::query::NodePort;
use crate::store::{History, OpenOptions, Store, StoreError};
use crate::validator::Role;
use crate::{genesis_file, keys, limits, stop, upgrades};

/// How long a round waits for its proposal: a block of the largest size is built, sent and judged
/// within it on two busy cores.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a validator without peers waits before it takes itself for caught up.
const ALONE_WAIT: Duration = Duration::from_secs(10);

/// How often the room on the disks is looked at.
const DISK_LOOK: Duration = Duration::from_secs(1);

/// How long a node that is asked to stop waits for its database, which is being opened, to be closed
/// again.
const OPEN_STOP_WITHIN: Duration = Duration::from_millis(1_500);
/// How much nicer than the rest the threads are that make large answers for clients of the JSON-RPC
/// server: a tenth of the weight, so that they live on what consensus and small calls leave.
const LARGE_ANSWERS_NICE: i32 = 10;

/// What a ready file says.
#[derive(Serialize)]
struct Ready {
    rpc: String,
    gossip: String,
    consensus: String,
    pid: u32,
}

/// Runs a node until `stop` turns true or something fatal happens.
///
/// # Errors
/// When the node cannot start, or stops by itself.
pub async fn run(
    home: Home,
    config: Config,
    known: &'static [KnownVersion],
    ready_file: Option<PathBuf>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    limits::check_disks(&places(&home), limits::DISK_FREE_START)?;
    let Some((engine, signer)) = open_engine(&home, &config, known, &mut stop).await? else {
        return Ok(());
    };
    engine.check_next_rules()?;
    announce_upgrades(&engine);
    let network_seed = keys::read(&home.node_key()).context("node key")?.seed();
    let (gossip, inbox) = Gossip::start(&GossipConfig {
        listen: config.gossip.listen.clone(),
        peers: config.gossip.peers.clone(),
        seed: Zeroizing::new(network_seed),
        genesis: engine.genesis_hash(),
        upgrades: engine.schedule().hash(),
        keep_alive: KEEP_ALIVE,
    })
    .context("gossip")?;
    engine.attach_gossip(gossip.clone());
    let gossip_address = gossip
        .listen_addr()
        .await
        .context("gossip stopped before it listened")?;
    let admitting = tokio::spawn(admit_all(Arc::clone(&engine), inbox));

    let consensus: Arc<OnceLock<EngineHandle>> = Arc::default();
    let server = bind_front_end(&config, &engine, &consensus).await?;
    let rpc_address = server.address();
    let (close_rpc, mut rpc_closing) = watch::channel(false);
    let mut serving = tokio::spawn(server.serve(async move {
        // An error means that the node is gone, and then the front end closes as well.
        let _ = rpc_closing.wait_for(|closing| *closing).await;
    }));

    let consensus_address = with_port(&config.consensus.listen)
        .with_context(|| format!("no free port for {}", config.consensus.listen))?;
    let starting = EngineHandle::start(
        EngineConfig {
            home: home.wal(),
            network: NetworkConfig {
                listen: consensus_address.to_string(),
                persistent_peers: config
                    .consensus
                    .peers
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                network_seed,
                moniker: config.moniker.clone(),
            },
            signer,
            alone_wait: alone_wait(&engine, &config),
            timeouts: Timeouts {
                propose: PROPOSE_TIMEOUT,
                ..Timeouts::default()
            },
            max_block_bytes: engine.block_bytes_max(),
        },
        Arc::new(ConsensusPort(Arc::clone(&engine))),
    );
    let started = tokio::select! {
        started = starting => started.context("consensus")?,
        // What has started ends with the runtime.
        () = stop::wait(&mut stop) => return Ok(()),
    };
    let handle = consensus.get_or_init(|| started);
    let peer = proofmill_consensus::peer_id(&network_seed);
    tracing::info!(rpc = %rpc_address, gossip = %gossip_address, "node started");
    if let Some(path) = ready_file {
        let ready = Ready {
            rpc: format!("http://{rpc_address}/rpc"),
            gossip: gossip_address.to_string(),
            consensus: format!("{consensus_address}/p2p/{peer}"),
            pid: std::process::id(),
        };
        let text = serde_json::to_string_pretty(&ready).context("a ready file is plain JSON")?;
        write_atomically(&path, &(text + "\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }

    let outcome = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {
            tracing::info!("stopping");
            Ok(())
        }
        reason = engine.trouble() => Err(stopped_by(reason)),
        full = disk_full(&home) => Err(anyhow::Error::new(full)),
        ended = handle.ending() => match ended {
            Ok(()) => bail_with("consensus ended without being asked to"),
            Err(error) => Err(engine.trouble().now_or_never().map_or_else(|| error.into(), stopped_by)),
        },
        served = &mut serving => match served {
            Ok(Ok(())) => bail_with("the front end ended without being asked to"),
            Ok(Err(error)) => Err(anyhow::Error::new(error).context("the front end failed")),
            Err(error) => Err(anyhow::Error::new(error).context("the front end died")),
        },
    };
    // Nobody has asked, so nobody else bounds this end.
    if let Err(error) = &outcome
        && let Err(refused) = stop::end_within(stop::NODE_STOP_WITHIN, Exit::of(error))
    {
        tracing::warn!(%refused, "no thread that bounds the end");
    }
    // Clients first, then the votes, then the network; the store closes when the last user goes.
    close_rpc.send_replace(true);
    stop::awaits("consensus");
    handle.stop().await;
    stop::awaits("gossip");
    gossip.stop().await;
    stop::awaits("the JSON-RPC server");
    if !serving.is_finished() {
        // The server bounds its own shutdown; whatever it answers, the node is going.
        let _ = serving.await;
    }
    stop::awaits("the admission of transactions");
    let _ = admitting.await;
    stop::awaits("the database");
    match &outcome {
        Ok(()) => tracing::info!(height = %engine.store().head().height, "stopped"),
        Err(error) => tracing::error!("the node stops: {error:#}"),
    }
    outcome
}

/// The files of another version may fail in many ways; that it is another version says more.
fn other_layout_or(database: &Path, error: anyhow::Error) -> anyhow::Error {
    History::other_layout(database).map_or(error, anyhow::Error::new)
}

/// Names the upgrades that are still to come, and warns of one that this program does not know.
fn announce_upgrades(engine: &Engine) {
    let next = engine.store().head().height.next();
    let schedule = engine.schedule();
    let rules = schedule.known_at(next);
    tracing::info!(version = %rules.version(), upgrades = %schedule.hash(), "protocol");
    for (height, later) in schedule.known_rules().filter(|(from, _)| *from > next) {
        tracing::info!(%height, version = %later.version(), "an upgrade is to come");
    }
    if let Err(unknown) = schedule.at(Height::new(u64::MAX)) {
        tracing::warn!("{unknown}: the node will stop before it");
    }
}

/// The error of a node that must stop, with its type: it decides the exit status.
fn stopped_by(trouble: Trouble) -> anyhow::Error {
    match trouble {
        Trouble::Upgrade(needed) => anyhow::Error::new(needed),
        Trouble::Failed(reason) => anyhow::anyhow!(reason),
    }
}

/// Resolves when the disk is nearly full: the node stops while it can still close everything.
async fn disk_full(home: &Home) -> limits::LimitError {
    loop {
        tokio::time::sleep(DISK_LOOK).await;
        if let Err(error) = limits::check_disks(&places(home), limits::DISK_FREE_STOP) {
            return error;
        }
    }
}

/// What a node writes to, each perhaps on a file system of its own.
fn places(home: &Home) -> [PathBuf; 3] {
    [home.path().to_path_buf(), home.database(), home.wal()]
}

fn bail_with(what: &str) -> Result<()> {
    bail!("{what}")
}

/// A validator of a devnet that is configured to be alone does not wait for others.
fn alone_wait(engine: &Engine, config: &Config) -> Duration {
    let devnet = engine.genesis().chain_id.starts_with(DEVNET_PREFIX);
    if devnet && config.consensus.peers.is_empty() {
        Duration::ZERO
    } else {
        ALONE_WAIT
    }
}

/// What a node runs on, and what signs for it when it is a validator.
type Opened = (Arc<Engine>, Option<Arc<Revocable>>);

/// Opens the store and puts the engine together, over the signer with which consensus signs as well;
/// `None` when the node is asked to stop meanwhile.
async fn open_engine(
    home: &Home,
    config: &Config,
    known: &'static [KnownVersion],
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Opened>> {
    let at = home.clone();
    let (genesis_path, database) = (home.genesis(), home.database());
    let listed = config.upgrades.clone();
    let caches = config.memory.caches();
    let idle = Duration::from_millis(config.block.idle_ms);
    let verify_supply_every = config.supply.verify_every;
    let secret = random()?;
    let seen = SeenTransactions::new(SEEN_MAX, u64::from_le_bytes(random()?));
    let asked = stop.clone();
    let mut opening = tokio::task::spawn_blocking(move || -> Result<Opened> {
        let file = genesis_file::load(&genesis_path)
            .map_err(|error| other_layout_or(&database, error.into()))?;
        let schedule = upgrades::schedule(&file, &listed, known)?;
        let genesis = file.genesis;
        let options = OpenOptions {
            caches,
            stopped: &|| *asked.borrow(),
        };
        let store = Store::open_with(&database, &genesis, &options)?;
        let head = store.head();
        tracing::info!(height = %head.height, hash = %head.hash, "store opened");
        let role = Role::open(&at, &genesis)?;
        role.check_against(&at, &store)?;
        let signer = role.signer.map(Revocable::new).map(Arc::new);
        let engine = Engine::new(EngineParts {
            genesis,
            schedule,
            store,
            validator: role.validator,
            signer: signer.clone().map(|signer| -> Arc<dyn Signer> { signer }),
            secret: BatchSecret::new(secret),
            keys_cached_max: caches.keys(),
            seen,
            idle,
            verify_supply_every,
        })?;
        Ok((Arc::new(engine), signer))
    });
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = stop::wait(stop) => match tokio::time::timeout(OPEN_STOP_WITHIN, opening).await {
            Ok(opened) => opened,
            Err(_) => {
                tracing::info!("stopped while the store was being opened, which a kill survives");
                stop::leave(Exit::Success);
            }
        },
    };
    match opened.context("opening the store died")? {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::Stopped)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The address with a port that is free now in the place of port 0: the engine does not tell which one
/// the system gave it.
fn with_port(address: &Multiaddr) -> std::io::Result<Multiaddr> {
    let mut host = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let mut chosen = Multiaddr::empty();
    for part in address {
        chosen.push(match part {
            Protocol::Tcp(0) => {
                let listener = std::net::TcpListener::bind((host, 0))?;
                Protocol::Tcp(listener.local_addr()?.port())
            }
            Protocol::Ip4(ip) => {
                host = ip.into();
                part
            }
            Protocol::Ip6(ip) => {
                host = ip.into();
                part
            }
            other => other,
        });
    }
    Ok(chosen)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system gave no random numbers")?;
    Ok(bytes)
}

async fn bind_front_end(
    config: &Config,
    engine: &Arc<Engine>,
    consensus: &Arc<OnceLock<EngineHandle>>,
) -> Result<Server> {
    let of = Arc::clone(consensus);
    let at = Arc::clone(engine);
    let status = move || {
        of.get().map_or_else(
            || EngineStatus {
                height: at.store().head().height,
                round: proofmill_chain::types::units::Round::new(0),
                peers: 0,
                clocks_ahead_ms: None,
                signs: false,
            },
            EngineHandle::status,
        )
    };
    let (engine, moniker) = (Arc::clone(engine), config.moniker.clone());
    let port = Arc::new(NodePort::new(engine, moniker, Arc::new(status)));
    let ports = Ports {
        query: port.clone(),
        submit: port,
    };
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let options = Options {
        allowed_origins: config.rpc.cors_origins.clone(),
        allowed_hosts: config.rpc.hosts.clone(),
        connections_max: count(config.rpc.connections_max),
        connections_per_address_max: count(config.rpc.connections_per_address_max),
        requests_max: count(config.rpc.requests_max),
        answers_bytes_max: count(config.rpc.answers_bytes_max),
        large_thread: || {
            // An error means that large answers compete with everything else.
            let _ = rustix::process::nice(LARGE_ANSWERS_NICE);
        },
        ..Options::default()
    };
    Ok(Server::bind(config.rpc.listen, ports, options).await?)
}

#[cfg(test)]
mod tests {
    use libp2p::Multiaddr;
    use libp2p::multiaddr::Protocol;

    use super::with_port;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn port_zero_becomes_a_port_and_others_stay() {
        let kept = address("/ip4/127.0.0.1/tcp/26750");
        assert_eq!(with_port(&kept).expect("nothing to find"), kept);
        for free in ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"] {
            let found = with_port(&address(free)).expect("a port is free");
            let ports = |part| matches!(part, Protocol::Tcp(port) if port > 0);
            assert_eq!(found.iter().filter(|part| ports(part.clone())).count(), 1);
        }
    }
}
