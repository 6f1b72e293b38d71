//! Real processes meet an upgrade of the protocol: those that know it go on, those that do not stop
//! before it and say what they need.
//!
//! This program is two things, since a second release is needed and must not be reachable from the first:
//! with `NEXT_RELEASE` in its environment it is `proofmill` with a protocol version more, otherwise it
//! runs the tests below; their names, or parts of them, may be given as arguments.

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser as _;
use proofmill_chain::types::params::Params;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::{Amount, Height, ProtocolVersion};
use proofmill_chain::upgrades::{KnownVersion, RELEASED};
use proofmill_node::cli::Cli;
use proofmill_node::client::{Options, Wallet};
use proofmill_node::devnet::NodeReady;
use proofmill_node::exit::Exit;
use proofmill_node::store::Store;
use proofmill_node::{dev_keys, genesis_file, keys};
use proofmill_rpc::api::BlockRef;
use support::{Devnet, Node, PATIENCE, Process, agree_on, command, run_to_end, within};

/// Makes this program the next release.
const NEXT_RELEASE: &str = "NEXT_RELEASE";
/// What the next release knows: a version that changes one parameter.
const NEXT: &[KnownVersion] = &[
    RELEASED[0],
    KnownVersion {
        version: ProtocolVersion::new(2),
        amend: dearer,
    },
];
/// The base fee before and after.
const BASE_FEES: [Amount; 2] = [Amount::new(8), Amount::new(9)];
/// The first height of version 2.
const UPGRADE: Height = Height::new(12);
/// Blocks come fast.
const SETTINGS: [(&str, &str); 1] = [("PROOFMILL_BLOCK_IDLE_MS", "250")];

fn dearer(params: &mut Params) {
    params.base_fee = BASE_FEES[1];
}

fn main() -> ExitCode {
    if std::env::var_os(NEXT_RELEASE).is_some() {
        let mut cli = Cli::parse();
        cli.global.known = NEXT;
        return cli.execute();
    }
    let tests: [(&str, fn()); 2] = [
        (
            "those_that_know_an_upgrade_go_on_and_the_others_stop_before_it",
            those_that_know_an_upgrade_go_on_and_the_others_stop_before_it,
        ),
        (
            "a_devnet_says_that_its_nodes_stopped_before_an_upgrade",
            a_devnet_says_that_its_nodes_stopped_before_an_upgrade,
        ),
    ];
    run(&tests)
}

/// Runs the tests that the arguments name, one after the other.
fn run(tests: &[(&str, fn())]) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let mut failed = false;
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if arguments.iter().any(|word| word == "--list") {
            println_line(&format!("{name}: test"));
            continue;
        }
        let passed = std::thread::spawn(*test).join().is_ok();
        println_line(&format!(
            "test {name} ... {}",
            if passed { "ok" } else { "FAILED" }
        ));
        failed |= !passed;
    }
    if failed {
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}

fn println_line(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

/// A command of the next release.
fn next_command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROOFMILL_") {
            command.env_remove(name);
        }
    }
    command.env(NEXT_RELEASE, "1");
    command
}

fn those_that_know_an_upgrade_go_on_and_the_others_stop_before_it() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("devnet");
    let base = support::free_base(4).to_string();
    let upgrade = format!("2@{UPGRADE}");
    let arguments = ["--workers", "0", "--port", &base, "--upgrades", &upgrade];
    let devnet = Devnet::start_by(next_command(), &home, &arguments, &SETTINGS);
    let nodes = devnet.nodes();

    // One that has the list and one that does not, both of the release that is out.
    let genesis = home.join("node0/genesis.json");
    let listed = Follower::start(place.path(), "listed", &genesis, &home);
    let mut file = genesis_file::load(&genesis).expect("a genesis");
    assert_eq!(file.upgrades.len(), 1, "the devnet wrote the list");
    file.upgrades.clear();
    let bare = place.path().join("bare-genesis.json");
    fs::write(&bare, genesis_file::text(&file)).expect("a file");
    let unlisted = Follower::start(place.path(), "unlisted", &bare, &home);
    within(PATIENCE, "a node hears of another list", || {
        let told = |node: &Node| node.client.node_info().ok();
        let mut infos = nodes.iter().filter_map(told);
        infos
            .any(|info| info.peers_with_other_upgrades > 0)
            .then_some(())
            .or_else(|| unlisted.has_logged("another list of upgrades"))
    });

    listed
        .stops_before("from height 12 on the chain needs protocol version 2, this program knows 1");
    unlisted.stops_before("block 12 is certified and has protocol version 2");

    for node in &nodes {
        node.reaches(UPGRADE.saturating_plus(3));
    }
    for height in [UPGRADE.get() - 1, UPGRADE.get(), UPGRADE.get() + 3] {
        agree_on(&nodes, Height::new(height));
        let after = height >= UPGRADE.get();
        let block = nodes[0]
            .client
            .block(BlockRef::Height(Height::new(height)), false);
        let header = block.expect("a block").header;
        assert_eq!(header.version, ProtocolVersion::new(1 + u32::from(after)));
        assert_eq!(header.base_fee, BASE_FEES[usize::from(after)]);
    }
    let info = nodes[0].client.node_info().expect("an answer");
    assert_eq!(info.protocol_version, ProtocolVersion::new(2));
    a_transfer_costs_the_new_fee(&nodes);
    a_replay_passes_the_upgrade_too(&home.join("node1"));
}

/// A transaction is admitted, included and paid for under the changed parameter.
fn a_transfer_costs_the_new_fee(nodes: &[Node]) {
    let entry = &nodes[0].client;
    let genesis = entry.node_info().expect("an answer").genesis_hash;
    let wallet = Wallet::new(entry.clone(), genesis, dev_keys::account(1));
    let to = keys::generate().expect("a key").public();
    let amount = Amount::new(5);
    let sent = wallet.send(&Action::Transfer { to, amount }, &Options::default());
    let receipt = wallet
        .wait_included(&sent.expect("it is taken"))
        .expect("an applied transfer");
    assert_eq!(receipt.fee.get() % BASE_FEES[1].get(), 0);
    // Base weight and encoded bytes of a transfer without a sponsor.
    assert_eq!(
        receipt.fee.get() / BASE_FEES[1].get(),
        100 + 178,
        "{receipt:?}"
    );
}

/// A stored chain of two versions is verified by who knows both, and by nobody else.
fn a_replay_passes_the_upgrade_too(home: &Path) {
    let replay = |mut command: Command| run_to_end(command.args(["replay", "--home"]).arg(home));
    let output = replay(next_command());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let output = replay(command());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("from height 12 on the chain needs protocol version 2"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(Exit::Upgrade.code().into()));
}

/// A node of the release that is out, which follows a devnet.
struct Follower {
    process: Process,
    home: PathBuf,
    output: PathBuf,
    command: Vec<String>,
}

impl Follower {
    fn start(place: &Path, name: &str, genesis: &Path, devnet: &Path) -> Self {
        let home = place.join(name);
        let made = run_to_end(
            command()
                .args(["init", "--moniker", name, "--genesis"])
                .arg(genesis)
                .arg("--home")
                .arg(&home),
        );
        assert!(made.status.success(), "{made:?}");
        let peers = (0..4).map(|index| {
            let path = devnet.join(format!("node{index}/ready.json"));
            let text = fs::read_to_string(path).expect("a ready file");
            serde_json::from_str::<NodeReady>(&text).expect("a ready file")
        });
        let (consensus, gossip): (Vec<_>, Vec<_>) =
            peers.map(|ready| (ready.consensus, ready.gossip)).unzip();
        let any = "/ip4/127.0.0.1/tcp/0";
        let arguments = [
            "start",
            "--home",
            &home.display().to_string(),
            "--rpc-listen",
            "127.0.0.1:0",
            "--consensus-listen",
            any,
            "--gossip-listen",
            any,
            "--consensus-peers",
            &consensus.join(","),
            "--gossip-peers",
            &gossip.join(","),
        ]
        .map(str::to_owned);
        let output = place.join(format!("{name}.output"));
        let mut start = command();
        start.args(&arguments);
        Self {
            process: Process::start(name, start, &output, &[home.join("logs/node.log")]),
            home,
            output,
            command: arguments.into(),
        }
    }

    fn has_logged(&self, words: &str) -> Option<()> {
        let log = fs::read_to_string(self.home.join("logs/node.log")).ok()?;
        log.contains(words).then_some(())
    }

    /// It ends with the status for this, says why, and has every block before the upgrade and none of
    /// it; started again it does the same at once or when it sees that block again.
    fn stops_before(mut self, words: &str) {
        for start in 0..2 {
            let what = format!("{} stops before the upgrade", self.process.name());
            let status = within(PATIENCE, &what, || self.process.status());
            let said = fs::read_to_string(&self.output).expect("its output");
            assert_eq!(
                status.code(),
                Some(i32::from(Exit::Upgrade.code())),
                "{said}"
            );
            let last = said.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("error: ") && last.contains(words),
                "{said}"
            );
            let genesis = genesis_file::load(&self.home.join("genesis.json"));
            let genesis = genesis.expect("a genesis").genesis;
            let store = Store::open(&self.home.join("data/db"), &genesis).expect("a store");
            assert_eq!(Some(store.head().height), UPGRADE.previous());
            drop(store);
            if start == 0 {
                let mut again = command();
                again.args(&self.command);
                let log = self.home.join("logs/node.log");
                self.process = Process::start("again", again, &self.output, &[log]);
            }
        }
    }
}

fn a_devnet_says_that_its_nodes_stopped_before_an_upgrade() {
    let place = tempfile::tempdir().expect("a directory");
    let output = place.path().join("output");
    let base = support::free_base(1).to_string();
    let mut devnet = command();
    devnet
        .args(["devnet", "--validators", "1", "--workers", "0"])
        .args(["--port", &base, "--upgrades", "2@30", "--home"])
        .arg(place.path().join("devnet"))
        .envs(SETTINGS);
    let mut process = Process::start("devnet", devnet, &output, &[]);
    let status = within(PATIENCE, "the devnet ends", || process.status());
    let said = fs::read_to_string(&output).expect("its output");
    assert_eq!(status.code(), Some(Exit::Upgrade.code().into()), "{said}");
    let begin = "node0 stopped before an upgrade (exit status: 3)";
    let line = said.lines().find(|line| line.starts_with(begin));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    let reason = "from height 30 on the chain needs protocol version 2, this program knows 1";
    assert!(line.contains(reason), "{line}");
    assert!(said.contains("every validator stopped"), "{said}");
}
