//! `proofmill replay`: a stored chain, verified again.

use anyhow::Context as _;
use serde_json::json;

use crate::cli::progress::Progress;
use crate::cli::{Global, out};
use crate::config::{Config, Overrides};
use crate::replay::{Range, Replayed, replay};
use crate::{genesis_file, limits, upgrades};

const EXAMPLES: &str = "\
Examples:
  proofmill replay --home node
  proofmill replay --home node --from 100 --to 200 --json";

/// Verify a stored chain again, block by block, from its genesis
///
/// Every block is decoded, checked, verified and executed on a state that grows from genesis in
/// memory; its certificate and its hash are verified too. The home is only read; a node may be
/// running in it, and blocks that it commits meanwhile are not seen. The first block that cannot be
/// read or breaks a rule ends the replay with an error that names its height.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The first height to count; the blocks before it are verified too, since the state comes from
    /// them, but not counted [default: 1]
    #[arg(long, value_name = "HEIGHT")]
    pub from: Option<u64>,
    /// The last height [default: the head]
    #[arg(long, value_name = "HEIGHT")]
    pub to: Option<u64>,
}

/// Replays the chain of a home.
///
/// # Errors
/// When the home has no chain, or a block of it cannot be read or is not valid.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    global
        .home
        .as_ref()
        .context("say with --home which node's chain to replay")?;
    limits::raise_open_files()?;
    let home = global.home()?;
    let file = genesis_file::load(&home.genesis())?;
    let config = Config::load(&home, &Overrides::default())?;
    let schedule = upgrades::schedule(&file, &config.upgrades, global.known)?;
    let genesis = file.genesis;
    let range = Range {
        from: args.from,
        to: args.to,
    };
    let mut bar: Option<Progress> = None;
    let done = replay(
        &home.database(),
        &genesis,
        &schedule,
        range,
        &mut |height, to, _| {
            bar.get_or_insert_with(|| Progress::start("blocks", to.get()))
                .at(height.get());
        },
    );
    drop(bar);
    let done = done?;
    if global.json {
        let mut object = serde_json::to_value(&done)?;
        object["home"] = json!(home.path());
        object["chain_id"] = json!(genesis.chain_id);
        object["genesis_hash"] = json!(genesis.hash());
        return out::json(&object);
    }
    out::text(&text(&genesis.chain_id, &done))
}

fn text(chain: &str, done: &Replayed) -> String {
    let mut pairs = vec![
        ("chain", chain.to_owned()),
        (
            "blocks",
            format!("{} ({} to {})", done.blocks, done.from, done.to),
        ),
    ];
    if done.blocks_before > 0 {
        let before = format!(
            "{} (1 to {}), verified too, for the state, and not counted",
            done.blocks_before, done.blocks_before
        );
        pairs.push(("before", before));
    }
    pairs.extend([
        ("transactions", done.transactions.to_string()),
        ("attestations", done.attestations.to_string()),
        ("bytes", done.bytes.to_string()),
        ("time", format!("{:.2} s", done.seconds)),
        (
            "speed",
            format!(
                "{:.1} blocks/s, {:.0} transactions/s",
                done.blocks_per_s, done.tx_per_s
            ),
        ),
        ("last block", done.hash.to_string()),
        ("state root", done.state_root.to_string()),
    ]);
    let mut text = out::pairs(&pairs);
    text.push_str("every block is valid and final\n");
    text
}
