//! `proofmill query`: looking at the chain.

use std::str::FromStr;

use clap::Subcommand;
use proofmill_chain::types::hash::Hash;
use proofmill_chain::types::units::Height;
use proofmill_rpc::api::{
    BlockRef, BlockSummary, BlockTransaction, BlockView, ReceiptResult, ReceiptView,
    TransactionStatus, TransactionView,
};
use serde_json::json;

use crate::cli::amount::both;
use crate::cli::failure::{NOT_FOUND, Named};
use crate::cli::session::Session;
use crate::cli::{Global, NodeArgs, out};

/// Look at the chain
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill query head
  proofmill query account dev0
  proofmill query workers --json")]
pub struct Args {
    /// What to look at.
    #[command(subcommand)]
    pub command: QueryCommand,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// The last final block
    #[command(after_help = "Example:\n  proofmill query head")]
    Head,
    /// A block, by height or hash
    #[command(after_help = "\
Examples:
  proofmill query block 12
  proofmill query block head --full --json")]
    Block {
        /// Its height, its hash, or `head`
        #[arg(value_name = "HEIGHT|HASH", value_parser = parse_block)]
        block: BlockRef,
        /// Show the transactions whole, not only their ids
        #[arg(long)]
        full: bool,
    },
    /// An account's balance and nonce
    #[command(
        after_help = "Examples:\n  proofmill query account dev0\n  proofmill query account alice --json"
    )]
    Account {
        /// The account, or a key's name
        #[arg(value_name = "ACCOUNT|NAME")]
        account: String,
    },
    /// The validators that decide the next block
    #[command(after_help = "Example:\n  proofmill query validators")]
    Validators,
    /// The registered workers
    #[command(after_help = "Example:\n  proofmill query workers")]
    Workers,
    /// A transaction and what became of it
    #[command(after_help = "\
Example:
  proofmill query tx 0x5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02")]
    Tx {
        /// The transaction's id
        #[arg(value_name = "ID")]
        transaction: Hash,
    },
    /// The node itself
    #[command(after_help = "\
Examples:
  proofmill query node
  proofmill query node --rpc 127.0.0.1:26651")]
    Node,
}

fn parse_block(text: &str) -> Result<BlockRef, String> {
    if text == "head" {
        return Ok(BlockRef::Head);
    }
    if let Ok(height) = Height::from_str(text) {
        return Ok(BlockRef::Height(height));
    }
    text.parse().map(BlockRef::Hash).map_err(|_| {
        "a height, a block hash (0x and 64 hex digits) or `head` is expected".to_owned()
    })
}

/// Runs the command.
///
/// # Errors
/// When the node cannot be asked or has no such thing.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let session = Session::open(&args.node, global)?;
    let json = global.json;
    match args.command {
        QueryCommand::Head => {
            let head = session.client.head()?;
            if json {
                return out::json(&head);
            }
            out::text(&out::pairs(&summary(&session, &head)))
        }
        QueryCommand::Block { block, full } => {
            let block = session.client.block(block, full)?;
            if json {
                return out::json(&block);
            }
            out::text(&block_text(&session, &block)?)
        }
        QueryCommand::Account { account } => {
            let view = session.client.account(&session.account(&account)?)?;
            if json {
                return out::json(&view);
            }
            let name = session.name_of(&view.account);
            out::text(&out::pairs(&[
                ("account", view.account.to_string()),
                ("name", name),
                ("did", view.did),
                ("balance", both(view.balance)),
                ("nonce", view.nonce.to_string()),
                (
                    "pending",
                    view.next_nonce
                        .get()
                        .saturating_sub(view.nonce.get())
                        .to_string(),
                ),
            ]))
        }
        QueryCommand::Validators => validators(&session, json),
        QueryCommand::Workers => workers(&session, json),
        QueryCommand::Tx { transaction } => transaction_of(&session, &transaction, json),
        QueryCommand::Node => node(&session, json),
    }
}

fn summary(session: &Session, block: &BlockSummary) -> Vec<(&'static str, String)> {
    vec![
        ("height", block.height.to_string()),
        ("hash", block.hash.to_string()),
        ("parent", block.parent.to_string()),
        ("time", out::time(block.time_ms)),
        ("proposer", session.name_of(&block.proposer)),
        ("round", block.round.to_string()),
        ("state root", block.state_root.to_string()),
        ("transactions", block.transactions.to_string()),
        ("attestations", block.attestations.to_string()),
        ("assignments", block.assignments.to_string()),
        ("base fee", format!("{} grain per weight", block.base_fee)),
        ("bytes", block.bytes.to_string()),
    ]
}

fn block_text(session: &Session, block: &BlockView) -> anyhow::Result<String> {
    let mut pairs = summary(session, &block.summary);
    let final_by = match &block.certificate {
        Some(certificate) => format!(
            "{} precommits in round {}",
            certificate.signatures.len(),
            certificate.round
        ),
        None => "the node has no certificate yet".into(),
    };
    pairs.push(("final by", final_by));
    let mut text = out::pairs(&pairs);
    let heading = |title: &str| format!("\n{title}\n");
    if !block.transactions.is_empty() {
        text.push_str(&heading("transactions"));
    }
    for transaction in &block.transactions {
        match transaction {
            BlockTransaction::Id(id) => text.push_str(&format!("  {id}\n")),
            BlockTransaction::Full { id, body } => {
                let sender = session.name_of(&body.transaction.sender);
                let action = body.transaction.action.name();
                text.push_str(&format!("  {id}  {action} of {sender}\n"));
                text.push_str(&format!("    {}\n", serde_json::to_string(body)?));
            }
        }
    }
    if !block.assignments.is_empty() {
        text.push_str(&heading("assignments"));
    }
    for seat in &block.assignments {
        let worker = session.name_of(&seat.worker);
        text.push_str(&format!(
            "  task {}  draw {}  {worker}\n",
            seat.task, seat.draw
        ));
    }
    if !block.attestations.is_empty() {
        text.push_str(&heading("attestations"));
    }
    for signed in &block.attestations {
        use proofmill_chain::types::task::Statement;
        let said = match signed.attestation.statement {
            Statement::Commit { .. } => "commits",
            Statement::Reveal { .. } => "reveals",
        };
        let worker = session.name_of(&signed.attestation.worker);
        text.push_str(&format!(
            "  task {}  {worker} {said}\n",
            signed.attestation.task
        ));
    }
    Ok(text)
}

fn validators(session: &Session, json: bool) -> anyhow::Result<()> {
    let view = session.client.validators(None)?;
    if json {
        return out::json(&view);
    }
    let rows: Vec<_> = view
        .validators
        .iter()
        .map(|view| {
            vec![
                session.name_of(&view.validator.key),
                view.validator.power.to_string(),
                format!("{}.{:02}%", view.share / 100, view.share % 100),
                session.name_of(&view.validator.reward),
                view.validator.key.to_string(),
            ]
        })
        .collect();
    let table = out::table(&["VALIDATOR", "POWER", "SHARE", "REWARD TO", "KEY"], &rows);
    out::text(&format!(
        "{table}\nthey decide block {}; more than two thirds of {} are needed",
        view.height, view.total_power
    ))
}

fn workers(session: &Session, json: bool) -> anyhow::Result<()> {
    let workers = session.client.all_workers()?;
    if json {
        return out::json(&json!({ "workers": workers }));
    }
    if workers.is_empty() {
        return out::text("no workers are registered");
    }
    let rows: Vec<_> = workers
        .iter()
        .map(|view| {
            let worker = &view.worker;
            let state = match (worker.retiring, worker.terms.active) {
                (true, _) => "retiring",
                (false, true) => "active",
                (false, false) => "paused",
            };
            vec![
                session.name_of(&worker.id),
                state.to_owned(),
                worker.seats.to_string(),
                worker.terms.price_per_mgas.to_string(),
                worker.terms.gas_limit_max.to_string(),
                worker.terms.memory_pages_max.to_string(),
                view.free_collateral.in_mill(),
                worker.reputation.accepted.to_string(),
                worker.reputation.disputed.to_string(),
                worker.reputation.missed.to_string(),
                session.name_of(&worker.operator),
                worker.terms.tags.join(","),
            ]
        })
        .collect();
    let headings = [
        "WORKER", "STATE", "SEATS", "PRICE", "GAS MAX", "PAGES", "FREE", "ACCEPTED", "DISPUTED",
        "MISSED", "OPERATOR", "TAGS",
    ];
    out::text(&out::table(&headings, &rows))
}

fn transaction_of(session: &Session, id: &Hash, json: bool) -> anyhow::Result<()> {
    let view = session.client.transaction(id)?;
    let receipt = match view.status {
        TransactionStatus::Included => Some(session.client.receipt(id)?),
        TransactionStatus::Pending | TransactionStatus::Unknown => None,
    };
    if view.status == TransactionStatus::Unknown {
        return Err(Named::new(
            NOT_FOUND,
            format!("the node knows no transaction {id}: it never came, or it expired"),
        )
        .into());
    }
    if json {
        return out::json(&json!({ "transaction": view, "receipt": receipt }));
    }
    out::text(&transaction_text(session, &view, receipt.as_ref()))
}

fn transaction_text(
    session: &Session,
    view: &TransactionView,
    receipt: Option<&ReceiptView>,
) -> String {
    let mut pairs = vec![("transaction", view.transaction.to_string())];
    if let Some(body) = &view.body {
        let transaction = &body.transaction;
        pairs.push(("action", transaction.action.name().to_owned()));
        pairs.push(("sender", session.name_of(&transaction.sender)));
        pairs.push(("nonce", transaction.nonce.to_string()));
        pairs.push(("expires at", format!("block {}", transaction.expires_at)));
    }
    match receipt {
        None => pairs.push(("status", "pending: it waits for a block".into())),
        Some(receipt) => {
            let status = match (&receipt.result, &receipt.failure) {
                (ReceiptResult::Applied, _) => "applied".into(),
                (ReceiptResult::Failed, Some(failure)) => format!("failed: {}", failure.message),
                (ReceiptResult::Failed, None) => "failed".into(),
            };
            pairs.push(("status", status));
            let place = format!("{}, index {}", receipt.height, receipt.index);
            pairs.push(("block", place));
            pairs.push(("payer", session.name_of(&receipt.payer)));
            pairs.push(("fee", both(receipt.fee)));
            pairs.push(("tip", both(receipt.tip)));
        }
    }
    out::pairs(&pairs)
}

fn node(session: &Session, json: bool) -> anyhow::Result<()> {
    let health = session.client.node_health()?;
    let info = &session.info;
    if json {
        return out::json(&json!({ "info": info, "health": health }));
    }
    let state = if health.live && health.ready {
        "ready".to_owned()
    } else {
        let state = if health.live { "not ready" } else { "not live" };
        format!("{state}: {}", health.reasons.join("; "))
    };
    let validator = info.validator.as_ref();
    out::text(&out::pairs(&[
        (
            "node",
            format!("{} at {}", info.moniker, session.client.url()),
        ),
        ("version", format!("{} ({})", info.version, info.commit)),
        ("chain", info.chain_id.clone()),
        ("genesis", info.genesis_hash.to_string()),
        (
            "validator",
            validator.map_or("no".into(), |key| session.name_of(key)),
        ),
        (
            "head",
            format!("block {} {}", info.head.height, info.head.hash),
        ),
        ("head age", format!("{} ms", health.head_age_ms)),
        (
            "clock skew",
            health
                .clock_skew_ms
                .map_or("not known".into(), |skew| format!("{skew} ms")),
        ),
        ("peers", info.peers.to_string()),
        ("synced", if info.synced { "yes" } else { "no" }.into()),
        ("health", state),
    ]))
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::Hash;
    use proofmill_chain::types::units::Height;
    use proofmill_rpc::api::BlockRef;

    use super::parse_block;

    #[test]
    fn a_block_is_named_by_height_hash_or_head() {
        assert_eq!(parse_block("head"), Ok(BlockRef::Head));
        assert_eq!(parse_block("12"), Ok(BlockRef::Height(Height::new(12))));
        let hash = Hash::of("a block", &[]);
        assert_eq!(parse_block(&hash.to_string()), Ok(BlockRef::Hash(hash)));
        for bad in ["", "-1", "0x12", "tail"] {
            assert!(parse_block(bad).is_err(), "{bad}");
        }
    }
}
