//! `proofmill validator`: what an operator does about a validator's signing guard.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use proofmill_chain::types::genesis::Genesis;
use proofmill_chain::types::units::Height;
use proofmill_signer::{GuardFile, Record};
use serde_json::json;

use crate::cli::{Global, out};
use crate::genesis_file;
use crate::home::Home;
use crate::store::History;
use crate::validator::Keys;

/// Look after a validator's signing guard
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill validator guard show --home node
  proofmill validator guard init --home node --above 123457")]
pub struct Args {
    /// What to look after.
    #[command(subcommand)]
    pub command: ValidatorCommand,
}

/// What to look after.
#[derive(Debug, Subcommand)]
pub enum ValidatorCommand {
    /// The file that keeps a validator from signing two conflicting messages
    #[command(after_help = "\
Example:
  proofmill validator guard show --home node")]
    Guard {
        /// What to do.
        #[command(subcommand)]
        command: GuardCommand,
    },
}

/// What to do with the guard.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Show what the guard holds
    #[command(after_help = "Example:\n  proofmill validator guard show --home node")]
    Show,
    /// Make a guard that never signs at or below a height
    #[command(after_help = "\
Example:
  proofmill validator guard init --home node --above 123457

Only when the guard is lost, and with every process of this key stopped. Ask several nodes for their
heads (proofmill query head --rpc URL); take the highest and add 1. A height that is too low lets the
validator sign against its own past.")]
    Init {
        /// The highest height that any node of the network has certified, plus 1
        #[arg(long, value_name = "HEIGHT")]
        above: u64,
        /// Sign at the open height again: only when more than a third of the power has lost its
        /// consensus logs and all validators are stopped; HEIGHT is then the last certified height
        #[arg(long)]
        all_logs_lost: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// When the home's files cannot be used, or the height is too low.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let home = global.home()?;
    let ValidatorCommand::Guard { command } = args.command;
    match command {
        GuardCommand::Show => {
            let record = GuardFile::peek(&home.guard())?;
            print(&home, &record, global.json)
        }
        GuardCommand::Init {
            above,
            all_logs_lost,
        } => {
            let record = init(&home, Height::new(above), all_logs_lost)?;
            print(&home, &record, global.json)
        }
    }
}

fn init(home: &Home, above: Height, all_logs_lost: bool) -> anyhow::Result<Record> {
    let genesis = genesis_file::load(&home.genesis())?.genesis;
    let key = Keys::read(home)?.consensus.public();
    if let Some(head) = stored_head(home, &genesis)? {
        let least = if all_logs_lost { head } else { head.next() };
        if above < least {
            bail!(
                "--above {above}: {} holds block {head}, so the height is at least {least}",
                home.database().display()
            );
        }
    }
    // What an old guard still knows counts, if it is this key's.
    let old = GuardFile::peek(&home.guard()).ok();
    let old = old.filter(|old| (old.key(), old.chain()) == (key, genesis.hash()));
    if let Some(old) = &old {
        // Protection is given up at the open height at most, and that is no lower than the guard's.
        let open = u64::from(all_logs_lost);
        let least = Height::new(old.height().get().saturating_sub(open));
        if above < least {
            bail!(
                "--above {above}: the guard that is there has signed at height {}, so the height is at \
                 least {least}",
                old.height()
            );
        }
    }
    let record = if all_logs_lost {
        Record::amnesic(genesis.hash(), key, above, old.as_ref())
    } else {
        Record::new(genesis.hash(), key, above)
    };
    GuardFile::replace(&home.guard(), &record)?;
    Ok(record)
}

/// The last block in the home's database; `None` when there is no database, or none that can be read.
fn stored_head(home: &Home, genesis: &Genesis) -> anyhow::Result<Option<Height>> {
    if !home.database().join("CURRENT").exists() {
        return Ok(None);
    }
    match History::open(&home.database(), genesis).and_then(|history| history.head()) {
        Ok(head) => Ok(Some(head)),
        Err(error) => {
            out::note(&format!(
                "the database cannot be read ({error}): its height is not compared"
            ));
            Ok(None)
        }
    }
}

fn print(home: &Home, record: &Record, json: bool) -> anyhow::Result<()> {
    let path = home.guard();
    let last = record.last();
    if json {
        return out::json(&json!({
            "path": path,
            "key": record.key(),
            "chain": record.chain(),
            "floor": record.floor(),
            "height": record.height(),
            "rounds": record.turns().len(),
            "amnesic_height": record.amnesic_height(),
            "recalled_rounds": record.recalled().len(),
            "last": last.map(|(round, position)| json!({
                "round": round.get(),
                "message": position.to_string(),
            })),
        }));
    }
    let last = last.map_or_else(
        || "nothing".to_owned(),
        |(round, position)| format!("{position} of round {round}"),
    );
    let mut pairs = vec![
        ("guard", path.display().to_string()),
        ("key", record.key().to_string()),
        ("chain", record.chain().to_string()),
        ("signs above", record.floor().to_string()),
        ("height", record.height().to_string()),
        ("last signed", last),
    ];
    if let Some(height) = record.amnesic_height() {
        let rounds = record.recalled().len();
        let what = format!("what was signed at height {height}, but for {rounds} rounds");
        pairs.push(("not known", what));
    }
    out::text(&out::pairs(&pairs)).context("cannot print")
}
