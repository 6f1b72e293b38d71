//! What every command that sends a transaction takes.

use clap::Args;
use proofmill_chain::types::units::Amount;

use crate::cli::amount;
use crate::cli::session::Session;
use crate::client::{EXPIRES_IN, Options};

/// How the transaction is paid for and how long it stays good.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Fee")]
pub struct Sending {
    /// What the proposer gets for including it
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = amount::parse)]
    pub tip: Amount,
    /// The most for fee and tip together [default: what the chain asks]
    #[arg(long, value_name = "AMOUNT", value_parser = amount::parse)]
    pub max_fee: Option<Amount>,
    /// In how many blocks from now it may be included
    #[arg(long, value_name = "BLOCKS", default_value_t = EXPIRES_IN)]
    pub expires_in: u64,
    /// The key that pays the fee in the sender's place
    #[arg(long, value_name = "NAME")]
    pub sponsor: Option<String>,
}

impl Sending {
    /// The wallet's options.
    pub(crate) fn options(&self, session: &Session) -> anyhow::Result<Options> {
        let sponsor = self.sponsor.as_deref();
        Ok(Options {
            tip: self.tip,
            max_fee: self.max_fee,
            expires_in: self.expires_in,
            sponsor: sponsor.map(|name| session.key(name)).transpose()?,
        })
    }
}
