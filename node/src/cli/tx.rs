//! `proofmill tx`: transfers, and money for development.

use anyhow::bail;
use clap::Subcommand;
use proofmill_chain::types::hash::AccountId;
use proofmill_chain::types::transaction::Action;
use proofmill_chain::types::units::Amount;
use serde_json::json;

use crate::cli::amount::{self, both};
use crate::cli::sending::Sending;
use crate::cli::session::Session;
use crate::cli::{Global, NodeArgs, out};
use crate::client::{Options, Wallet};
use crate::dev_keys;

/// Send money
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  proofmill tx send --from alice --to bob --amount 1.5mill
  proofmill tx faucet --to alice")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: TxCommand,
    /// The node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What to send.
#[derive(Debug, Subcommand)]
pub enum TxCommand {
    /// Send an amount to an account and wait until it is there
    #[command(after_help = "\
Examples:
  proofmill tx send --from dev0 --to dev1 --amount 1.5mill
  proofmill tx send --from alice --to bob --amount 1500000000 --tip 100 --sponsor dev0")]
    Send(Send),
    /// Get money on a devnet
    #[command(after_help = "\
Examples:
  proofmill tx faucet --to alice
  proofmill tx faucet --to alice --amount 5mill")]
    Faucet {
        /// Who gets it: an account or a key's name
        #[arg(long, value_name = "ACCOUNT|NAME")]
        to: String,
        /// How much
        #[arg(long, value_name = "AMOUNT", default_value = "100mill", value_parser = amount::parse)]
        amount: Amount,
    },
}

/// A transfer.
#[derive(Debug, clap::Args)]
pub struct Send {
    /// The key that pays: a name of `proofmill keys list`, or dev0 to dev9 on a devnet
    #[arg(long, value_name = "NAME")]
    pub from: String,
    /// Who gets it: an account or a key's name
    #[arg(long, value_name = "ACCOUNT|NAME")]
    pub to: String,
    /// How much: 1.5mill, or grain as 1500000000
    #[arg(long, value_name = "AMOUNT", value_parser = amount::parse)]
    pub amount: Amount,
    /// Do not wait for the block
    #[arg(long)]
    pub no_wait: bool,
    /// The fee.
    #[command(flatten)]
    pub sending: Sending,
}

/// Runs the command.
///
/// # Errors
/// With a message for people.
pub fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let session = Session::open(&args.node, global)?;
    match args.command {
        TxCommand::Send(send) => {
            let wallet = session.wallet(&send.from)?;
            let to = session.account(&send.to)?;
            let options = send.sending.options(&session)?;
            transfer(
                &session,
                &wallet,
                (to, send.amount),
                &options,
                !send.no_wait,
                global.json,
            )
        }
        TxCommand::Faucet { to, amount } => {
            if !session.is_devnet() {
                bail!(
                    "{} is no devnet: only a devnet has a faucet, here money comes from other accounts",
                    session.info.chain_id
                );
            }
            let genesis = session.info.genesis_hash;
            let wallet = Wallet::new(session.client.clone(), genesis, dev_keys::faucet());
            let to = session.account(&to)?;
            let options = Options::default();
            transfer(&session, &wallet, (to, amount), &options, true, global.json)
        }
    }
}

fn transfer(
    session: &Session,
    wallet: &Wallet,
    (to, amount): (AccountId, Amount),
    options: &Options,
    wait: bool,
    json: bool,
) -> anyhow::Result<()> {
    if amount == Amount::ZERO {
        bail!("an amount of nothing: a transfer moves at least one grain");
    }
    let sent = session.send(wallet, &Action::Transfer { to, amount }, options)?;
    let transaction = sent.transaction;
    let mut lines = vec![
        ("transaction", transaction.to_string()),
        ("from", session.name_of(&wallet.account())),
        ("to", session.name_of(&to)),
        ("amount", both(amount)),
    ];
    let mut value = json!({
        "transaction": transaction,
        "from": wallet.account(),
        "to": to,
        "amount": amount,
        "expires_at": sent.expires_at,
    });
    if wait {
        let receipt = session.client.wait_applied(&sent)?;
        let cost = receipt.fee.saturating_plus(receipt.tip.get());
        lines.push(("fee", both(cost)));
        lines.push(("block", receipt.height.to_string()));
        value["receipt"] = serde_json::to_value(&receipt)?;
    } else {
        lines.push((
            "sent",
            format!(
                "follow it with `proofmill query tx {transaction}`; it expires at block {}",
                sent.expires_at
            ),
        ));
    }
    if json {
        out::json(&value)
    } else {
        out::text(&out::pairs(&lines))
    }
}
