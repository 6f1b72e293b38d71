//! A chain of the bench, written into a home: something to replay.

use proofmill_chain::types::units::Height;
use proofmill_signer::{GuardFile, Record};
use serde::Serialize;

use crate::bench::chain::Chain;
use crate::bench::workload::{Shape, Workload};
use crate::bench::{BLOCKS_MAX, BenchError, Watch, Work, check_shape, within};
use crate::config::Config;
use crate::dev_keys;
use crate::genesis_file::{self, GENESIS_BYTES_MAX};
use crate::home::{Home, HomeError, NodeKeys, is_vacant};

/// Bytes that an account takes in a genesis file, at least.
const ACCOUNT_BYTES_MIN: usize = 100;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The last block.
    pub height: Height,
    /// Transactions of all blocks.
    pub transactions: u64,
    /// Encoded bytes of all blocks.
    pub bytes: u64,
}

/// Makes the home of a node of the bench's chain and fills it with blocks, each verified before it
/// is committed.
///
/// # Errors
/// When a number is out of range, the directory is not empty, or the disk fails.
pub fn export(
    home: Home,
    shape: Shape,
    blocks: usize,
    watch: Watch<'_>,
) -> Result<Exported, BenchError> {
    check_shape(&shape)?;
    within("blocks", blocks, 1, BLOCKS_MAX)?;
    // Before the keys are made, and exactly afterwards.
    check_genesis(
        shape.accounts,
        shape.accounts.saturating_mul(ACCOUNT_BYTES_MIN),
    )?;
    if !is_vacant(home.path())? {
        return Err(HomeError::NotEmpty(home.path().into()).into());
    }
    let workload = Workload::new(shape, watch);
    let genesis = genesis_file::text(&workload.genesis().clone().into());
    check_genesis(shape.accounts, genesis.len())?;
    let keys = NodeKeys {
        validator: dev_keys::validator(0),
        beacon: dev_keys::beacon(0),
        node: dev_keys::network(0),
    };
    let config = Config {
        moniker: "bench".into(),
        ..Config::default()
    };
    let chain_hash = workload.genesis().hash();
    let home = home.create(&keys, &chain_hash, &genesis, &config.to_commented_toml())?;
    drop(genesis);
    // The key signs the certificates of all these blocks.
    let signed = Height::new(blocks as u64);
    let record = Record::new(chain_hash, keys.validator.public(), signed);
    GuardFile::replace(&home.guard(), &record).map_err(HomeError::from)?;
    let mut chain = Chain::start(&home.database(), workload, watch)?;
    let total = blocks as u64;
    let mut exported = Exported {
        height: Height::ZERO,
        transactions: 0,
        bytes: 0,
    };
    watch(Work::Blocks, 0, total);
    for done in 1..=total {
        let (made, _) = chain.advance()?;
        exported.height = made.block.header.height;
        exported.transactions += made.block.transactions.len() as u64;
        exported.bytes += made.bytes.len() as u64;
        watch(Work::Blocks, done, total);
    }
    Ok(exported)
}

fn check_genesis(accounts: usize, bytes: usize) -> Result<(), BenchError> {
    if bytes as u64 <= GENESIS_BYTES_MAX {
        return Ok(());
    }
    Err(BenchError::Argument {
        flag: "accounts",
        given: accounts.to_string(),
        rule: format!(
            "their genesis file takes {bytes} bytes or more, and no more than {GENESIS_BYTES_MAX} \
             are read"
        ),
    })
}
