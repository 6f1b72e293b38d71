//! What a seat has to compute, derived from the transaction that ordered it.
//!
//! A task's id is the id of its `submit_task` transaction, a hash of everything the requester
//! signed: program, input, gas and memory. So whatever the asked node answers, these are those of the task
//! named, or there is no job. The limits on steps are the chain's parameters: those that the genesis file
//! that the worker was given makes for the block of the order, or else those that all nodes that answer
//! tell alike.

use anyhow::{Context as _, Result, anyhow, bail};
use proofmill_chain::codec;
use proofmill_chain::crypto::verify::{Item, verify};
use proofmill_chain::task::check_order;
use proofmill_chain::types::hash::{Blob, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{OUTPUT_BYTES_MAX, TaskSpec};
use proofmill_chain::types::transaction::{Action, SignedTransaction, TRANSACTION_BYTES_MAX};
use proofmill_chain::types::units::Height;
use proofmill_chain::upgrades::Schedule;

use super::child::Job;

/// Most steps that a node is believed: a trace has a leaf for each, and the child has to hold them.
const TOLD_STEPS_MAX: u32 = 1 << 20;

/// The parameters by which a task is computed that was ordered in the block at this height: those that its
/// order was judged by, the same for all its workers, whenever they begin and whatever the head is.
///
/// # Errors
/// When this program does not know them, or the height is genesis', which orders nothing: then the node that
/// told it is at fault.
pub(super) fn params_at(schedule: &Schedule, ordered_at: Height) -> Result<Params> {
    if ordered_at == Height::ZERO {
        bail!(
            "the node says that the task was ordered in block 0, which is genesis and orders nothing"
        );
    }
    Ok(schedule.at(ordered_at)?.params().clone())
}

/// The parameters that one node tells, when `others` are what the other nodes tell.
///
/// # Errors
/// When another node tells others, or no chain can have them: some node is at fault.
pub(super) fn agreed(told: Params, others: &[Params]) -> Result<Params> {
    if others.iter().any(|other| *other != told) {
        bail!(
            "the nodes tell different parameters, and nothing is computed by any of them; \
             `worker run --genesis FILE` takes them from the chain's genesis file"
        );
    }
    if !(1..=TOLD_STEPS_MAX).contains(&told.task_steps_max) {
        bail!(
            "the node tells task_steps_max {}, from 1 to {TOLD_STEPS_MAX} is possible",
            told.task_steps_max
        );
    }
    Ok(told)
}

/// The order of `task` on the chain of `genesis`, from the encoding of its signed transaction.
///
/// # Errors
/// When the bytes are not a transaction, or another one, or its signature does not verify, or it
/// orders nothing: the node that gave them is at fault.
pub(super) fn order(encoding: &[u8], task: &Hash, genesis: &Hash) -> Result<TaskSpec> {
    let signed: SignedTransaction = codec::decode::<_, TRANSACTION_BYTES_MAX>(encoding)
        .context("the bytes of the order are not a transaction")?;
    let id = signed.transaction.id(genesis);
    if id != *task {
        bail!("the order of task {task} was asked for, the node gave transaction {id}");
    }
    let is_signed = verify(&Item {
        key: signed.transaction.sender.as_bytes(),
        message: &signed.transaction.sign_bytes(genesis),
        signature: signed.signature.as_bytes(),
    });
    if !is_signed {
        bail!("the signature of order {task} does not verify");
    }
    match signed.transaction.action {
        Action::SubmitTask(spec) => Ok(spec),
        other => bail!("transaction {task} is a {}, not an order", other.name()),
    }
}

/// The job that an order makes with its program's bytes.
///
/// # Errors
/// When the bytes are not the program that the order names, or the chain with these parameters takes no
/// such order: the node that gave them is at fault.
pub(super) fn job(spec: TaskSpec, program: Blob, params: &Params) -> Result<Job> {
    if program.hash() != spec.program {
        bail!(
            "the order names program {}, the node gave the bytes of {}",
            spec.program,
            program.hash()
        );
    }
    check_order(&spec, params)
        .map_err(|failure| anyhow!("the chain takes no such order: {failure}"))?;
    Ok(Job {
        program,
        input: spec.input,
        gas_limit: spec.gas_limit,
        memory_pages: spec.memory_pages,
        steps_max: params.task_steps_max,
        step_gas_max: params.step_gas_max,
        output_bytes_max: u32::try_from(OUTPUT_BYTES_MAX)
            .expect("the largest output is far below 4 GiB"),
    })
}

#[cfg(test)]
mod tests {
    use proofmill_chain::codec;
    use proofmill_chain::crypto::sign::SecretKey;
    use proofmill_chain::types::hash::{Blob, Hash, Signature};
    use proofmill_chain::types::params::Params;
    use proofmill_chain::types::task::{Mode, Requirements, TaskSpec};
    use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
    use proofmill_chain::types::units::{Amount, Gas, Height, Nonce, ProtocolVersion};
    use proofmill_chain::upgrades::{KnownVersion, Schedule, Upgrade};

    use super::{TOLD_STEPS_MAX, agreed, job, order, params_at};

    fn genesis() -> Hash {
        Hash::of("test genesis", &[])
    }

    fn program() -> Blob {
        Blob::new(b"\0asm the program".to_vec())
    }

    fn spec() -> TaskSpec {
        TaskSpec {
            program: program().hash(),
            input: Blob::new(b"the input".to_vec()),
            gas_limit: Gas::new(7),
            memory_pages: 3,
            mode: Mode::Replicated { replicas: 3 },
            price_per_mgas: Amount::new(10),
            insured_value: Amount::ZERO,
            requirements: Requirements::default(),
            wait_max: 9,
        }
    }

    fn signed(action: Action) -> SignedTransaction {
        let key = SecretKey::from_seed(&[1; 32]);
        let transaction = Transaction {
            chain: genesis().prefix(),
            sender: key.public(),
            nonce: Nonce::ZERO,
            max_fee: Amount::new(1),
            tip: Amount::ZERO,
            expires_at: Height::new(9),
            sponsor: None,
            action,
        };
        SignedTransaction {
            signature: key.sign(&transaction.sign_bytes(&genesis())),
            transaction,
            sponsor_signature: None,
        }
    }

    #[test]
    fn the_order_is_the_one_that_the_task_id_names() {
        let true_one = signed(Action::SubmitTask(spec()));
        let task = true_one.transaction.id(&genesis());
        let found = order(&codec::encode(&true_one), &task, &genesis()).expect("the order");
        assert_eq!(found, spec());

        // Another input under the task's name: the id does not fit.
        let mut false_spec = spec();
        false_spec.input = Blob::new(b"another input".to_vec());
        let false_one = signed(Action::SubmitTask(false_spec));
        let refused = order(&codec::encode(&false_one), &task, &genesis()).expect_err("another");
        assert!(
            refused.to_string().contains("the node gave transaction"),
            "{refused}"
        );

        let mut unsigned = true_one;
        unsigned.signature = Signature::new([0; 64]);
        let refused = order(&codec::encode(&unsigned), &task, &genesis()).expect_err("unsigned");
        assert!(refused.to_string().contains("does not verify"), "{refused}");

        let cancel = signed(Action::CancelTask { task });
        let id = cancel.transaction.id(&genesis());
        let refused = order(&codec::encode(&cancel), &id, &genesis()).expect_err("no order");
        assert!(refused.to_string().contains("not an order"), "{refused}");
        assert!(order(b"bytes", &task, &genesis()).is_err());
    }

    fn params() -> Params {
        let genesis = include_str!("../../../genesis.json");
        let genesis = crate::genesis_file::parse("genesis.json".as_ref(), genesis);
        genesis.expect("the devnet's genesis").genesis.params
    }

    #[test]
    fn a_task_is_computed_by_the_parameters_of_the_block_that_ordered_it() {
        let text = include_str!("../../../genesis.json");
        let genesis = crate::genesis_file::parse("genesis.json".as_ref(), text);
        let genesis = genesis.expect("the devnet's genesis").genesis;
        let known = [
            KnownVersion {
                version: ProtocolVersion::new(1),
                amend: |_| {},
            },
            KnownVersion {
                version: ProtocolVersion::new(2),
                amend: |params| params.step_gas_max = Gas::new(77),
            },
        ];
        let upgrade = Upgrade {
            version: ProtocolVersion::new(2),
            height: Height::new(10),
        };
        let schedule = Schedule::new(&genesis, &[upgrade], &known).expect("a schedule");
        let step_gas_max = |height| {
            let params = params_at(&schedule, Height::new(height)).expect("known rules");
            params.step_gas_max
        };
        assert_eq!(step_gas_max(9), genesis.params.step_gas_max);
        assert_eq!(step_gas_max(10), Gas::new(77));
        let refused = params_at(&schedule, Height::ZERO).expect_err("genesis");
        assert!(refused.to_string().contains("block 0"), "{refused}");
    }

    #[test]
    fn parameters_that_nodes_tell_differently_or_that_no_chain_has_are_not_believed() {
        let good = params();
        assert_eq!(agreed(good.clone(), &[]).expect("one word"), good);
        assert_eq!(
            agreed(good.clone(), &[good.clone(), good.clone()]).expect("alike"),
            good
        );
        let mut other = good.clone();
        other.step_gas_max = Gas::new(1);
        for (told, others) in [
            (other.clone(), vec![good.clone()]),
            (good.clone(), vec![good.clone(), other]),
        ] {
            let refused = agreed(told, &others).expect_err("they differ");
            assert!(refused.to_string().contains("--genesis"), "{refused}");
        }
        for steps in [0, TOLD_STEPS_MAX + 1] {
            let mut told = good.clone();
            told.task_steps_max = steps;
            let refused = agreed(told, &[]).expect_err("impossible");
            assert!(refused.to_string().contains("task_steps_max"), "{refused}");
        }
    }

    #[test]
    fn an_order_that_the_chain_would_refuse_makes_no_job() {
        let mut greedy = spec();
        greedy.gas_limit = params().task_gas_max.saturating_plus(1);
        let refused = job(greedy, program(), &params()).expect_err("too much gas");
        assert!(refused.to_string().contains("no such order"), "{refused}");
    }

    #[test]
    fn another_program_makes_no_job() {
        let params = params();
        let made = job(spec(), program(), &params).expect("the program");
        assert_eq!(made.input, spec().input);
        let other = Blob::new(b"\0asm another".to_vec());
        let refused = job(spec(), other, &params).expect_err("another program");
        assert!(
            refused.to_string().contains("the order names program"),
            "{refused}"
        );
    }
}
