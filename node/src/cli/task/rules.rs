//! The chain's rules for an order, asked here before anything is sent. A node judges an order only once its
//! program is published, and that is paid by then.

use proofmill_chain::check::{TransactionError, check_spec};
use proofmill_chain::machine::ProgramFacts;
use proofmill_chain::task;
use proofmill_chain::types::params::Params;
use proofmill_chain::types::receipt::Failure;
use proofmill_chain::types::task::TaskSpec;

use crate::cli::failure::{BAD_ORDER, Named};

/// Refuses an order that no chain takes, or that gives its program too little memory.
pub(super) fn check_form(spec: &TaskSpec, program: &ProgramFacts) -> anyhow::Result<()> {
    check_spec(spec).map_err(|error| match error {
        TransactionError::Field { field, rule } => broken(spec, field, rule),
        other => refused(&other.to_string()),
    })?;
    task::check_memory(spec, program.memory_pages_min).map_err(|failure| explain(spec, &failure))
}

/// Refuses an order that a chain with these parameters never takes.
pub(super) fn check_params(spec: &TaskSpec, params: &Params) -> anyhow::Result<()> {
    task::check_order(spec, params).map_err(|failure| explain(spec, &failure))
}

fn explain(spec: &TaskSpec, failure: &Failure) -> anyhow::Error {
    let (field, rule) = match failure {
        Failure::GasLimitTooLarge { most, .. } => ("gas_limit", format!("at most {most}")),
        Failure::MemoryTooLarge { most, .. } => ("memory_pages", format!("at most {most}")),
        Failure::MemoryTooSmall { needed, .. } => (
            "memory_pages",
            format!("at least {needed}, with which the program starts"),
        ),
        Failure::Replicas { most, .. } => ("replicas", format!("from 1 to {most}")),
        Failure::WaitTooLong { most, .. } => ("wait_max", format!("at most {most}")),
        other => return refused(&other.to_string()),
    };
    broken(spec, field, &rule)
}

fn broken(spec: &TaskSpec, field: &str, rule: &str) -> anyhow::Error {
    // As the manifest names it: without the part of the order that it stands in.
    let field = field.rsplit('.').next().unwrap_or(field);
    let value = match field {
        "input" => format!("{} bytes long", spec.input.len()),
        "gas_limit" => spec.gas_limit.to_string(),
        "memory_pages" => spec.memory_pages.to_string(),
        "replicas" => spec.mode.seats().to_string(),
        "price_per_mgas" => spec.price_per_mgas.to_string(),
        "wait_max" => spec.wait_max.to_string(),
        "tags" => format!("[{}]", spec.requirements.tags.join(", ")),
        _ => "out of its range".to_owned(),
    };
    refused(&format!("`{field}` is {value}: {rule}"))
}

fn refused(why: &str) -> anyhow::Error {
    Named::new(BAD_ORDER, format!("{why}; nothing was paid")).into()
}

#[cfg(test)]
mod tests {
    use proofmill_chain::types::hash::{Blob, Hash};
    use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
    use proofmill_chain::types::units::{Amount, Gas};

    use super::check_params;
    use crate::devnet;

    fn spec() -> TaskSpec {
        TaskSpec {
            program: Hash::ZERO,
            input: Blob::default(),
            gas_limit: Gas::new(1),
            memory_pages: 1,
            mode: Mode::Replicated { replicas: 3 },
            price_per_mgas: Amount::new(1),
            insured_value: Amount::ZERO,
            requirements: Requirements::default(),
            wait_max: 1,
        }
    }

    #[test]
    fn what_is_above_the_chains_limits_is_named_with_value_and_rule() {
        let params = devnet::genesis(1, 1).params;
        check_params(&spec(), &params).expect("an order");
        type Change = fn(&mut TaskSpec);
        let cases: [(Change, &str); 4] = [
            (
                |spec| spec.mode = Mode::Replicated { replicas: 12 },
                "`replicas` is 12: from 1 to 9",
            ),
            (
                |spec| spec.wait_max = 20_000,
                "`wait_max` is 20000: at most 10000",
            ),
            (
                |spec| spec.memory_pages = 5_000,
                "`memory_pages` is 5000: at most 4096",
            ),
            (
                |spec| spec.gas_limit = Gas::new(200_000_000_000),
                "`gas_limit` is 200000000000: at most 100000000000",
            ),
        ];
        for (change, words) in cases {
            let mut spec = spec();
            change(&mut spec);
            let refused = check_params(&spec, &params).expect_err(words).to_string();
            assert_eq!(refused, format!("{words}; nothing was paid"));
        }
    }
}
