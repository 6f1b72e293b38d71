//! An application in memory and a network of engines on loopback.

#![allow(dead_code, reason = "each test takes the parts that it needs")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::finality::{Turn, VoteKind, check_turn, verify_certificate};
use proofmill_chain::types::block::{self, Certificate};
use proofmill_chain::types::hash::{AccountId, Hash, Signature, VrfOutput, VrfProof};
use proofmill_chain::types::units::{Height, Round, Weight};
use proofmill_chain::types::validator::{Validator, ValidatorSet};
use proofmill_consensus::{
    AppError, Application, BlockFacts, DecidedBlock, EngineConfig, EngineHandle, EngineStatus,
    NetworkConfig, Observed, Observer, ProposedBlock, Revocable, Timeouts, UndecidedProposal,
    Verdict, peer_id,
};
use proofmill_signer::{
    Announcement, BeaconInput, GuardFile, LocalSigner, Message, PeerProof, Proposal, Record,
    Sighting, SignError, Signed, Signer, Vote, announcement_bytes, vote_bytes,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// No scenario takes longer than this, or it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

const OBSERVER_SEED: [u8; 32] = [0xee; 32];
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// What a block of these tests begins with.
struct Header {
    height: Height,
    parent: Hash,
    proposer: AccountId,
    round: Round,
    time_ms: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            height: Height::new(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)),
            parent: Hash::new(bytes.get(8..40)?.try_into().ok()?),
            proposer: AccountId::new(bytes.get(40..72)?.try_into().ok()?),
            round: Round::new(u32::from_le_bytes(bytes.get(72..76)?.try_into().ok()?)),
            time_ms: u64::from_le_bytes(bytes.get(76..84)?.try_into().ok()?),
        })
    }
}

/// What survives a restart.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) blocks: BTreeMap<Height, DecidedBlock>,
    pub(crate) undecided: BTreeMap<Height, Vec<Vec<u8>>>,
}

/// A chain whose blocks are a height, a parent, a proposer, a round, a time and padding.
pub(crate) struct App {
    pub(crate) me: AccountId,
    set: ValidatorSet,
    padding: usize,
    disk: Mutex<Disk>,
    head: watch::Sender<Height>,
    /// Proposals of this validator are called invalid.
    pub(crate) refused: Option<AccountId>,
    /// How far this machine's clock is off.
    pub(crate) clock_skew_ms: watch::Sender<i64>,
    /// A height that cannot be committed.
    pub(crate) broken_at: watch::Sender<Option<Height>>,
    /// Height, hash and bytes of a certified block that is invalid here.
    pub(crate) certified_invalid: watch::Sender<Option<(Height, Hash, Vec<u8>)>>,
    /// Heights up to this one are due at once, later ones never.
    pub(crate) work: watch::Sender<Height>,
}

impl App {
    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no test panics with the disk")
    }

    pub(crate) fn block(&self, height: u64) -> DecidedBlock {
        let blocks = &self.disk().blocks;
        blocks.get(&Height::new(height)).expect("committed").clone()
    }

    /// The last committed height.
    pub(crate) fn head_now(&self) -> u64 {
        self.head.borrow().get()
    }

    pub(crate) fn proposer(&self, height: u64) -> AccountId {
        let (_, bytes) = self.block(height);
        Header::read(&bytes).expect("a header").proposer
    }

    pub(crate) async fn reaches(&self, height: u64) {
        let mut head = self.head.subscribe();
        let reached = head.wait_for(|head| head.get() >= height);
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        let reached = reached.unwrap_or_else(|_| {
            let rounds: Vec<_> = self
                .disk()
                .blocks
                .values()
                .map(|b| b.0.round.get())
                .collect();
            panic!("height {height} is not reached, rounds up to the head: {rounds:?}")
        });
        reached.expect("the head outlives its watchers");
    }

    fn parent(&self) -> (Height, Hash) {
        let disk = self.disk();
        let last = disk.blocks.last_key_value();
        last.map_or(
            (Height::ZERO, self.chain()),
            |(height, (certificate, _))| (*height, certificate.block),
        )
    }
}

pub(crate) fn hash_of(bytes: &[u8]) -> Hash {
    Hash::of("test/block/v1", &[bytes])
}

#[async_trait]
impl Application for App {
    fn chain(&self) -> Hash {
        Hash::of("test/genesis/v1", &[])
    }

    fn head(&self) -> Height {
        *self.head.borrow()
    }

    fn validators(&self, height: Height) -> Option<ValidatorSet> {
        (height <= self.head().next()).then(|| self.set.clone())
    }

    async fn propose(&self, height: Height, round: Round) -> Result<ProposedBlock, AppError> {
        let (head, parent) = self.parent();
        assert_eq!(height, head.next(), "asked to build on the head only");
        let stored = self.undecided(height)?;
        let mine = |p: &UndecidedProposal| p.round == round && p.proposer == self.me;
        assert!(!stored.iter().any(mine), "asked twice for one round");
        let mut bytes = height.get().to_le_bytes().to_vec();
        bytes.extend_from_slice(parent.as_bytes());
        bytes.extend_from_slice(self.me.as_bytes());
        bytes.extend_from_slice(&round.get().to_le_bytes());
        bytes.extend_from_slice(&self.clock_ms().to_le_bytes());
        bytes.resize(bytes.len() + self.padding, 7);
        let hash = hash_of(&bytes);
        let bytes = bytes.into();
        Ok(ProposedBlock { hash, bytes })
    }

    fn clock_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let real = since.expect("after 1970").as_millis();
        let real = u64::try_from(real).expect("before the year 500000000");
        real.saturating_add_signed(*self.clock_skew_ms.borrow())
    }

    fn inspect(&self, bytes: &[u8]) -> Result<BlockFacts, String> {
        let header = Header::read(bytes).ok_or("no header")?;
        Ok(BlockFacts {
            hash: hash_of(bytes),
            turn: Turn {
                height: header.height,
                round: header.round,
                proposer: header.proposer,
            },
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
        let (head, parent) = self.parent();
        let invalid = |reason: &str| Verdict::Invalid {
            reason: reason.to_owned(),
        };
        assert_eq!(hash_of(&bytes), block, "judged under its own hash");
        let header = Header::read(&bytes).expect("inspected before");
        assert!(header.round <= round, "judged in its round or later");
        if height != head.next() || header.height != height {
            return invalid("not the next height");
        }
        if header.parent != parent {
            return invalid("not on the head");
        }
        if self.refused == Some(header.proposer) {
            return invalid("refused proposer");
        }
        Verdict::Valid
    }

    fn certified_invalid(&self, height: Height, block: &Hash, bytes: &[u8]) {
        let heard = (height, *block, bytes.to_vec());
        self.certified_invalid.send_replace(Some(heard));
    }

    async fn commit(&self, certificate: Certificate, bytes: Arc<[u8]>) -> Result<(), AppError> {
        let height = certificate.height;
        if *self.broken_at.borrow() == Some(height) {
            return Err(AppError::new("disk full"));
        }
        assert_eq!(height, self.head().next(), "committed in order");
        let block = hash_of(&bytes);
        verify_certificate(&self.chain(), &self.set, height, &block, &certificate)
            .expect("the certificate verifies without the engine");
        let facts = self.inspect(&bytes).expect("a header");
        check_turn(&facts.turn, &self.set, certificate.round).expect("decided in its turn");
        let mut disk = self.disk();
        disk.blocks.insert(height, (certificate, bytes));
        disk.undecided.retain(|stored, _| *stored > height);
        drop(disk);
        self.head.send_replace(height);
        Ok(())
    }

    fn history_min(&self) -> Height {
        Height::new(1)
    }

    fn decided(&self, height: Height) -> Result<Option<DecidedBlock>, AppError> {
        Ok(self.disk().blocks.get(&height).cloned())
    }

    fn store_undecided(&self, proposal: &UndecidedProposal) -> Result<(), AppError> {
        let mut disk = self.disk();
        let stored = disk.undecided.entry(proposal.height).or_default();
        stored.push(proposal.encode());
        Ok(())
    }

    fn undecided(&self, height: Height) -> Result<Vec<UndecidedProposal>, AppError> {
        let disk = self.disk();
        let stored = disk.undecided.get(&height).into_iter().flatten();
        stored
            .map(|bytes| UndecidedProposal::decode(bytes).map_err(AppError::new))
            .collect()
    }

    async fn next_height_due(&self) {
        let next = self.head().next();
        let mut work = self.work.subscribe();
        work.wait_for(|work| *work >= next)
            .await
            .expect("the application outlives its watchers");
    }
}

/// Signs announcements of blocks without headers, as the blocks of these tests are: the guard
/// announces a block only after its header.
struct Headerless {
    signer: LocalSigner,
    key: SecretKey,
}

impl Signer for Headerless {
    fn key(&self) -> AccountId {
        self.signer.key()
    }
    fn record(&self) -> Record {
        self.signer.record()
    }
    fn bind(&self, lock: Option<(Round, Hash)>) {
        self.signer.bind(lock);
    }
    fn recall(&self, sighting: &Sighting, signature: Signature) {
        self.signer.recall(sighting, signature);
    }
    fn sign_header(&self, header: &block::Header) -> Result<Signature, SignError> {
        self.signer.sign_header(header)
    }
    fn sign_proposal(&self, proposal: &Proposal) -> Result<Signed<Proposal>, SignError> {
        self.signer.sign_proposal(proposal)
    }
    fn sign_vote(&self, vote: &Vote) -> Result<Signed<Vote>, SignError> {
        self.signer.sign_vote(vote)
    }
    fn sign_announcement(&self, announcement: &Announcement) -> Result<Signature, SignError> {
        let bytes = announcement_bytes(&self.record().chain(), announcement);
        Ok(self.key.sign(&bytes))
    }
    fn prove_peer(&self, proof: &PeerProof) -> Result<Signature, SignError> {
        self.signer.prove_peer(proof)
    }
    fn prove_beacon(&self, input: &BeaconInput) -> Result<(VrfProof, VrfOutput), SignError> {
        self.signer.prove_beacon(input)
    }
}

/// Machines that may run an engine each: the validators first, then others.
pub(crate) struct Network {
    homes: Vec<TempDir>,
    keys: Vec<SecretKey>,
    ports: Vec<u16>,
    pub(crate) apps: Vec<Arc<App>>,
    engines: Vec<Option<EngineHandle>>,
    signers: Vec<Option<Arc<dyn Signer>>>,
    wrappers: BTreeMap<usize, Wrapper>,
    observer_port: u16,
}

/// Puts another signer in front of a machine's.
type Wrapper = fn(Arc<dyn Signer>) -> Arc<dyn Signer>;

fn seed(index: usize) -> [u8; 32] {
    [u8::try_from(index).expect("few machines") + 1; 32]
}

impl Network {
    /// As many machines as powers; those without power follow. `adjust` may change applications.
    pub(crate) fn new(powers: &[u64], padding: usize, adjust: impl Fn(usize, &mut App)) -> Self {
        let keys: Vec<_> = (0..powers.len())
            .map(|index| SecretKey::from_seed(&seed(index)))
            .collect();
        let validators = keys.iter().zip(powers).filter(|(_, power)| **power > 0);
        let validators = validators.map(|(key, power)| Validator {
            key: key.public(),
            beacon_key: key.public(),
            reward: key.public(),
            power: Weight::new(*power),
        });
        let set = ValidatorSet::new(validators.collect()).expect("a valid set");
        // Held together until all are known, so that no port is given twice.
        let listeners: Vec<_> = (0..=powers.len())
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let mut ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound").port())
            .collect();
        let observer_port = ports.pop().expect("one more than machines");
        let apps = keys.iter().enumerate().map(|(index, key)| {
            let mut app = App {
                me: key.public(),
                set: set.clone(),
                padding,
                disk: Mutex::default(),
                head: watch::Sender::new(Height::ZERO),
                refused: None,
                clock_skew_ms: watch::Sender::new(0),
                broken_at: watch::Sender::new(None),
                certified_invalid: watch::Sender::new(None),
                work: watch::Sender::new(Height::new(u64::MAX)),
            };
            adjust(index, &mut app);
            Arc::new(app)
        });
        Self {
            apps: apps.collect(),
            homes: powers
                .iter()
                .map(|_| TempDir::new().expect("a directory"))
                .collect(),
            keys,
            ports,
            engines: powers.iter().map(|_| None).collect(),
            signers: powers.iter().map(|_| None).collect(),
            wrappers: BTreeMap::new(),
            observer_port,
        }
    }

    /// The signer of a validator, over the guard in its home; `None` for those that follow.
    fn signer(&self, index: usize) -> Option<Arc<dyn Signer>> {
        let key = &self.keys[index];
        let app = &self.apps[index];
        app.set.by_key(&key.public())?;
        let guard = self.homes[index].path().join("guard");
        if !guard.exists() {
            let record = Record::new(app.chain(), key.public(), Height::ZERO);
            GuardFile::create(&guard, &record).expect("a guard");
        }
        let signer = LocalSigner::open(&guard, &app.chain(), key.clone(), key.clone());
        let signer: Arc<dyn Signer> = Arc::new(Headerless {
            signer: signer.expect("the guard opens"),
            key: key.clone(),
        });
        Some(match self.wrappers.get(&index) {
            Some(wrapper) => wrapper(signer),
            None => signer,
        })
    }

    /// Puts another signer in front of a machine's, from its next start on.
    pub(crate) fn wrap(&mut self, index: usize, wrapper: Wrapper) {
        self.wrappers.insert(index, wrapper);
    }

    /// A peer that listens to all machines.
    pub(crate) async fn observe(&self) -> (Observer, mpsc::UnboundedReceiver<Observed>) {
        let address = |port| format!("/ip4/127.0.0.1/tcp/{port}");
        let config = NetworkConfig {
            listen: address(self.observer_port),
            persistent_peers: (0..self.ports.len())
                .map(|peer| format!("{}/p2p/{}", address(self.ports[peer]), peer_id(&seed(peer))))
                .collect(),
            network_seed: OBSERVER_SEED,
            moniker: "observer".to_owned(),
        };
        let started = Observer::start(&config, self.apps[0].chain()).await;
        started.expect("the observer listens")
    }

    /// Waits until a machine's engine shows something.
    pub(crate) async fn until(&self, index: usize, is_so: impl Fn(EngineStatus) -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        let shown = async {
            while !is_so(self.engine(index).status()) {
                looks.tick().await;
            }
        };
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        shown.unwrap_or_else(|_| panic!("{:?}", self.engine(index).status()));
    }

    /// What a validator's guard holds.
    pub(crate) fn record(&self, index: usize) -> Record {
        self.signers[index].as_ref().expect("a validator").record()
    }

    /// Where a machine's consensus log is, and where it is kept when it is set aside.
    pub(crate) fn logs(&self, index: usize) -> [PathBuf; 2] {
        let consensus = self.homes[index].path().join("consensus");
        ["wal", "wal.set-aside"].map(|name| consensus.join(name))
    }

    /// Takes a machine's signer from behind its wrapper, from its next start on.
    pub(crate) fn unwrap(&mut self, index: usize) {
        self.wrappers.remove(&index);
    }

    /// Removes the consensus log of a machine that has stopped, and lets its guard hold two votes of
    /// the open height that no log has; gives that height.
    pub(crate) fn lose_log(&self, index: usize) -> u64 {
        let home = self.homes[index].path();
        let (key, chain) = (&self.keys[index], self.apps[index].chain());
        std::fs::remove_file(home.join("consensus/wal")).expect("there is a log");
        let opened = GuardFile::open(&home.join("guard"), &chain, &key.public());
        let (mut file, mut record) = opened.expect("the guard opens");
        let open = self.apps[index].head().next();
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            let vote = Vote {
                kind,
                height: open,
                round: Round::new(1),
                block: None,
            };
            let signature = key.sign(&vote_bytes(&chain, &key.public(), &vote));
            record = record.with(&Message::Vote(&vote), signature);
        }
        file.write(&record).expect("written");
        open.get()
    }

    /// Gives a machine another's key, with a guard of its own.
    pub(crate) fn make_twin(&mut self, index: usize, of: usize) {
        self.keys[index] = self.keys[of].clone();
    }

    pub(crate) async fn start(&mut self, index: usize) {
        let peers = (0..self.ports.len()).filter(|peer| *peer != index);
        let address = |peer: usize| format!("/ip4/127.0.0.1/tcp/{}", self.ports[peer]);
        let signer = self.signer(index);
        let config = EngineConfig {
            home: PathBuf::from(self.homes[index].path()),
            network: NetworkConfig {
                listen: address(index),
                persistent_peers: peers
                    .map(|peer| format!("{}/p2p/{}", address(peer), peer_id(&seed(peer))))
                    .collect(),
                network_seed: seed(index),
                moniker: format!("node-{index}"),
            },
            signer: signer.clone().map(Revocable::new).map(Arc::new),
            alone_wait: Duration::ZERO,
            timeouts: Timeouts::default(),
            max_block_bytes: MAX_BLOCK_BYTES,
        };
        self.signers[index] = signer;
        let app: Arc<dyn Application> = Arc::<App>::clone(&self.apps[index]);
        let engine = EngineHandle::start(config, app).await;
        self.engines[index] = Some(engine.expect("the engine starts"));
    }

    pub(crate) async fn start_all(&mut self) {
        for index in 0..self.apps.len() {
            self.start(index).await;
        }
    }

    pub(crate) fn engine(&self, index: usize) -> &EngineHandle {
        self.engines[index].as_ref().expect("started")
    }

    pub(crate) async fn stop(&mut self, index: usize) {
        let engine = self.engines[index].take().expect("started");
        // The guard is held as long as a signer lives.
        self.signers[index] = None;
        let stopped = tokio::time::timeout(PATIENCE, engine.stop()).await;
        stopped.expect("the engine stops");
    }

    pub(crate) async fn stop_all(&mut self) {
        for index in 0..self.apps.len() {
            if self.engines[index].is_some() {
                self.stop(index).await;
            }
        }
    }

    pub(crate) async fn reach(&self, machines: &[usize], height: u64) {
        for index in machines {
            self.apps[*index].reaches(height).await;
        }
    }

    /// Waits until what a machine knows of the validators' clocks is as it should be.
    pub(crate) async fn clocks_ahead_ms(&self, index: usize, is: impl Fn(i64) -> bool) -> i64 {
        let known = async {
            loop {
                let ahead = self.engine(index).status().clocks_ahead_ms;
                if let Some(ahead) = ahead.filter(|ahead| is(*ahead)) {
                    return ahead;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let known = tokio::time::timeout(PATIENCE, known).await;
        known.expect("the validators' clocks become known")
    }

    /// All machines committed the same blocks up to a height.
    pub(crate) fn assert_agreement(&self, machines: &[usize], height: u64) {
        for height in 1..=height {
            let hashes: Vec<_> = machines
                .iter()
                .map(|index| hash_of(&self.apps[*index].block(height).1))
                .collect();
            assert!(
                hashes.windows(2).all(|pair| pair[0] == pair[1]),
                "machines disagree at height {height}: {hashes:?}"
            );
        }
    }
}
