//! What is ordered: a manifest, or flags, and the files they name.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use proofmill_chain::types::hash::{Blob, blob_hash};
use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
use proofmill_chain::types::units::{Amount, Gas};

use crate::cli::amount;
use crate::cli::task::rules;
use crate::machine;
use crate::manifest::{self, Manifest};

const GAS_LIMIT_DEFAULT: u64 = 100_000_000;
const MEMORY_PAGES_DEFAULT: u32 = 16;
const REPLICAS_DEFAULT: u8 = 3;
const PRICE_DEFAULT: u64 = 10;
const WAIT_MAX_DEFAULT: u64 = 600;

/// What is ordered.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OrderArgs {
    /// The folder with task.json
    #[arg(value_name = "DIR", required_unless_present = "program", conflicts_with_all = ["program", "input"])]
    pub folder: Option<PathBuf>,
    /// The program, when there is no folder
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// A file of the input, when there is no folder; repeat it for more
    #[arg(long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// How many workers compute it [default: as in task.json, or 3]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// The most gas an execution may use [default: as in task.json, or 100000000]
    #[arg(long, value_name = "GAS")]
    pub gas_limit: Option<Gas>,
    /// What a million gas is worth to you, per worker [default: as in task.json, or 10 grain]
    #[arg(long, value_name = "AMOUNT", value_parser = amount::parse)]
    pub price: Option<Amount>,
    /// The program's memory, in pages of 64 KiB [default: as in task.json, or 16]
    #[arg(long, value_name = "PAGES")]
    pub memory_pages: Option<u32>,
    /// How many blocks the task may wait for workers [default: as in task.json, or 600]
    #[arg(long, value_name = "BLOCKS")]
    pub wait_max: Option<u64>,
    /// What a wrong result would cost you: the workers lock at least this together
    #[arg(long, value_name = "AMOUNT", default_value = "0", value_parser = amount::parse)]
    pub insured: Amount,
    /// A tag that every worker must have; repeat it for more
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Let task.json name files outside its folder: everything named is published
    #[arg(long)]
    pub allow_outside: bool,
    /// Accepted results that every worker must have behind it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_reputation: u32,
}

/// An order, ready to be sent.
pub(crate) struct Order {
    pub(crate) manifest: Manifest,
    pub(crate) program: Blob,
    pub(crate) spec: TaskSpec,
}

impl Order {
    /// Reads the manifest and every file it takes; refuses what no chain takes.
    pub(crate) fn read(args: &OrderArgs) -> anyhow::Result<Self> {
        let mut manifest = match (&args.folder, &args.program) {
            (Some(path), _) => {
                let loaded = Manifest::load(path);
                let (manifest, folder) =
                    loaded.with_context(|| format!("the manifest of {}", path.display()))?;
                manifest.in_folder(&folder, args.allow_outside)?
            }
            (None, Some(program)) => bare(program.clone(), args.input.clone()),
            (None, None) => bail!("name a folder with task.json, or a program with --program"),
        };
        if let Some(replicas) = args.replicas {
            manifest.replicas = replicas;
        }
        if let Some(gas_limit) = args.gas_limit {
            manifest.gas_limit = gas_limit;
        }
        if let Some(price) = args.price {
            manifest.price_per_mgas = price;
        }
        if let Some(pages) = args.memory_pages {
            manifest.memory_pages = pages;
        }
        if let Some(blocks) = args.wait_max {
            manifest.wait_max = blocks;
        }
        let program = manifest::read_program(&manifest.program)?;
        if !program.as_bytes().starts_with(b"\0asm") {
            bail!(
                "{} is not a WebAssembly module: it does not begin with \\0asm",
                manifest.program.display()
            );
        }
        // The chain would take the fee all the same.
        let facts = machine::check(program.as_bytes())
            .map_err(|error| anyhow!("{} is not a program: {error}", manifest.program.display()))?;
        let mut tags = args.tag.clone();
        tags.sort_unstable();
        tags.dedup();
        let spec = TaskSpec {
            program: blob_hash(program.as_bytes()),
            input: manifest::read_input(&manifest.input)?,
            gas_limit: manifest.gas_limit,
            memory_pages: manifest.memory_pages,
            mode: Mode::Replicated {
                replicas: manifest.replicas,
            },
            price_per_mgas: manifest.price_per_mgas,
            insured_value: args.insured,
            requirements: Requirements {
                tags,
                min_reputation: args.min_reputation,
            },
            wait_max: manifest.wait_max,
        };
        rules::check_form(&spec, &facts)?;
        Ok(Self {
            manifest,
            program,
            spec,
        })
    }
}

/// The manifest of a program that has none.
const fn bare(program: PathBuf, input: Vec<PathBuf>) -> Manifest {
    Manifest {
        program,
        input,
        gas_limit: Gas::new(GAS_LIMIT_DEFAULT),
        memory_pages: MEMORY_PAGES_DEFAULT,
        replicas: REPLICAS_DEFAULT,
        price_per_mgas: Amount::new(PRICE_DEFAULT),
        wait_max: WAIT_MAX_DEFAULT,
        output: Vec::new(),
        derived: Vec::new(),
        description: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::task::Mode;
    use proofmill_chain::types::units::{Amount, Gas};

    use super::{Order, OrderArgs};

    fn example() -> OrderArgs {
        OrderArgs {
            folder: Some(format!("{}/../examples/digits", env!("CARGO_MANIFEST_DIR")).into()),
            ..OrderArgs::default()
        }
    }

    #[test]
    fn flags_change_what_the_manifest_says() {
        let order = Order::read(&example()).expect("the example");
        assert_eq!(order.spec.gas_limit, Gas::new(20_000_000));
        assert_eq!(order.spec.mode, Mode::Replicated { replicas: 3 });
        assert_eq!(order.spec.program, order.program.hash());
        assert!(!order.spec.input.is_empty());
        let changed = Order::read(&OrderArgs {
            replicas: Some(5),
            price: Some(Amount::new(7)),
            tag: vec!["b".into(), "a".into(), "b".into()],
            ..example()
        });
        let spec = changed.expect("the example").spec;
        assert_eq!(spec.mode, Mode::Replicated { replicas: 5 });
        assert_eq!(spec.price_per_mgas, Amount::new(7));
        assert_eq!(spec.requirements.tags, ["a", "b"]);
        assert_eq!(spec.memory_pages, 2);
    }

    #[test]
    fn an_order_that_no_chain_takes_is_refused_with_field_value_and_rule() {
        let changed = |change: &dyn Fn(&mut OrderArgs)| {
            let mut args = example();
            change(&mut args);
            args
        };
        for (args, words) in [
            (
                changed(&|args| args.memory_pages = Some(1)),
                "`memory_pages` is 1: at least 2, with which the program starts",
            ),
            (
                changed(&|args| args.memory_pages = Some(0)),
                "`memory_pages` is 0: at least 1",
            ),
            (
                changed(&|args| args.replicas = Some(0)),
                "`replicas` is 0: at least 1",
            ),
            (
                changed(&|args| args.wait_max = Some(0)),
                "`wait_max` is 0: at least 1",
            ),
            (
                changed(&|args| args.gas_limit = Some(Gas::ZERO)),
                "`gas_limit` is 0: at least 1",
            ),
            (
                changed(&|args| args.price = Some(Amount::ZERO)),
                "`price_per_mgas` is 0: at least one grain",
            ),
            (
                changed(&|args| args.tag = vec!["GPU".into()]),
                "`tags` is [GPU]: each tag 1 to 32 lower-case letters",
            ),
        ] {
            let refused = Order::read(&args).err().expect(words).to_string();
            assert!(refused.contains(words), "{refused}");
            assert!(refused.ends_with("; nothing was paid"), "{refused}");
        }
    }

    #[test]
    fn a_program_alone_is_an_order_and_must_be_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.wasm");
        let args = OrderArgs {
            program: Some(path.clone()),
            ..OrderArgs::default()
        };
        let folder = example().folder.expect("the example's");
        std::fs::copy(folder.join("digits.wasm"), &path).expect("copied");
        let order = Order::read(&args).expect("an order");
        assert!(order.spec.input.is_empty() && order.spec.wait_max > 0);
        for (bytes, word) in [
            (b"#!/bin/sh".as_slice(), "not a WebAssembly module"),
            // A module that exports nothing.
            (b"\0asm\x01\0\0\0", "p.wasm is not a program: "),
        ] {
            std::fs::write(&path, bytes).expect("written");
            let refused = Order::read(&args).err().expect("no program").to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
