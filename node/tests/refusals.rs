//! Bad input, from anywhere: each is refused with words that help and the right code, the chain goes
//! on, and nobody loses anything. Everything runs in processes of its own.

mod scenario_support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proofmill_chain::codec;
use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::hash::{AccountId, Blob, Hash, Signature};
use proofmill_chain::types::task::ResultStatus;
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height, Nonce};
use proofmill_node::client::{Options, Wallet};
use proofmill_node::dev_keys;
use proofmill_node::exit::Exit;
use proofmill_rpc::api::{Role, TaskState};
use scenario_support::homes::{ANY_PORT, copy, damage, start};
use scenario_support::raw::{assert_error, assert_refused, post, signed, transfer};
use scenario_support::{Devnet, proofmill, run, until};

#[test]
fn bad_calls_and_transactions_are_refused_and_nothing_is_lost() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    let rpc = devnet.rpc();
    let key = dev_keys::account(0);
    // One good transfer first: the account's nonce is 1 afterwards.
    let wallet = Wallet::new(
        devnet.client.clone(),
        devnet.ready.genesis_hash,
        key.clone(),
    );
    let first = Action::Transfer {
        to: dev_keys::account(1).public(),
        amount: Amount::new(5),
    };
    let good = wallet
        .build(&first, &Options::default())
        .expect("a transfer");
    let sent = devnet.client.send_transaction(&good).expect("taken");
    until("it is included", || {
        let receipt = devnet.client.receipt_if_included(&sent.transaction);
        receipt.expect("an answer")
    });
    devnet.advance(1);
    let balances = || [0, 1, 9].map(|index| devnet.dev_balance(index));
    let (before, head) = (balances(), devnet.head());

    let (status, answer) = post(rpc, 10, b"{\"jsonrpc\"");
    assert_eq!(status, 200);
    assert_error(&answer, -32700, "PARSE_ERROR", &["malformed JSON"]);
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"chain_getHed"}"#;
    let (_, answer) = post(rpc, body.len(), body);
    let words = ["no method `chain_getHed`", "did you mean `chain_getHead`?"];
    assert_error(&answer, -32601, "METHOD_NOT_FOUND", &words);
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"account_get","params":{"acount":"x"}}"#;
    let (_, answer) = post(rpc, body.len(), body);
    assert_error(&answer, -32602, "INVALID_PARAMS", &["acount"]);
    let body = vec![b' '; (4 << 20) + 1];
    let (status, answer) = post(rpc, body.len(), &body);
    assert_eq!(status, 413);
    assert_error(
        &answer,
        -32600,
        "INVALID_REQUEST",
        &["more than 4194304 bytes"],
    );

    let change = |change: &dyn Fn(&mut Transaction)| {
        let mut transaction = transfer(&devnet, &key);
        change(&mut transaction);
        codec::encode(&signed(&devnet, &key, transaction))
    };
    let refused = |bytes: &[u8], code, name, words: &[&str]| {
        assert_refused(&devnet, bytes, code, name, words);
    };
    let whole = change(&|_| {});
    let (short, long) = (&whole[..whole.len() - 1], [&whole[..], &[0]].concat());
    let words = "do not encode a signed transaction";
    refused(short, -32010, "TX_MALFORMED", &[words]);
    let words = "1 bytes behind a signed transaction";
    refused(&long, -32010, "TX_MALFORMED", &[words]);
    let wrong_chain = change(&|t| t.chain = [1, 2, 3, 4]);
    refused(
        &wrong_chain,
        -32011,
        "TX_WRONG_CHAIN",
        &["chain 0x01020304, this is 0x"],
    );
    let mut forged = signed(&devnet, &key, transfer(&devnet, &key));
    forged.transaction.action = Action::Transfer {
        to: dev_keys::account(9).public(),
        amount: Amount::new(8),
    };
    refused(
        &codec::encode(&forged),
        -32012,
        "TX_BAD_SIGNATURE",
        &["the signature of mill1", "does not verify"],
    );
    // The neutral element: with it as key, R = B and s = 1 verify for every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut anybody = transfer(&devnet, &key);
    anybody.sender = AccountId::new(neutral);
    let mut signature = [0; 64];
    signature[..32].fill(0x66);
    signature[0] = 0x58;
    signature[32] = 1;
    let anybody = SignedTransaction {
        transaction: anybody,
        signature: Signature::new(signature),
        sponsor_signature: None,
    };
    refused(
        &codec::encode(&anybody),
        -32013,
        "TX_BAD_KEY",
        &["sender", "a point of small order"],
    );
    let low = change(&|t| t.nonce = Nonce::ZERO);
    refused(
        &low,
        -32014,
        "TX_NONCE_TOO_LOW",
        &["expected nonce 1, got 0"],
    );
    let gap = change(&|t| t.nonce = Nonce::new(9));
    refused(&gap, -32015, "TX_NONCE_GAP", &["expected nonce 1, got 9"]);
    let poor = SecretKey::from_seed(&[7; 32]);
    let poor = signed(&devnet, &poor, transfer(&devnet, &poor));
    refused(
        &codec::encode(&poor),
        -32016,
        "TX_INSUFFICIENT_BALANCE",
        &["0 are available"],
    );
    let dear = change(&|t| {
        t.action = Action::Transfer {
            to: dev_keys::account(9).public(),
            amount: Amount::new(u64::MAX),
        };
    });
    refused(
        &dear,
        -32016,
        "TX_INSUFFICIENT_BALANCE",
        &["takes 18446744073709551615 grain"],
    );
    let expired = change(&|t| t.expires_at = Height::new(1));
    refused(&expired, -32017, "TX_EXPIRED", &["expired at height 1"]);
    let cheap = change(&|t| t.max_fee = Amount::new(1));
    refused(&cheap, -32018, "TX_FEE_TOO_LOW", &["max_fee is 1"]);
    let nothing = change(&|t| {
        t.action = Action::Transfer {
            to: dev_keys::account(9).public(),
            amount: Amount::ZERO,
        };
    });
    refused(&nothing, -32019, "TX_REFUSED", &["amount"]);

    // What was included once is known, not performed again.
    let again = devnet.client.send_transaction(&good).expect("an answer");
    assert_eq!(again.transaction, sent.transaction);
    devnet.advance(2);
    assert!(devnet.head() > head);
    assert_eq!(balances(), before);
    // The transfer that all of them were made from is good.
    let sent = wallet.send(
        &Action::Transfer {
            to: dev_keys::account(9).public(),
            amount: Amount::new(7),
        },
        &Options::default(),
    );
    wallet
        .wait_included(&sent.expect("taken"))
        .expect("included");
    assert_eq!(devnet.dev_balance(9).get(), before[2].get() + 7);
    devnet.stop();
}

/// A program whose `step` is `step`; what it leaves in the global `$out` is its output.
fn program(step: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 1 4096)
            (global $out (mut i32) (i32.const 0))
            (func (export "alloc") (param i32) (result i32) i32.const 1024)
            (func (export "init") (param i32 i32))
            (func (export "step") (result i32) {step})
            (func (export "out_ptr") (result i32) i32.const 0)
            (func (export "out_len") (result i32) i32.const 4))"#
    );
    wat::parse_str(text).expect("a module")
}

/// Takes a page more, and writes to it, until it is refused; the output is how many it got.
const GREEDY: &str = "(local $old i32)
    loop $more
      (local.set $old (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $old) (i32.const -1))
        (then
          (i32.store (i32.mul (local.get $old) (i32.const 65536)) (i32.const 7))
          (br $more)))
    end
    (i32.store (i32.const 0) (memory.size))
    i32.const 1";

#[test]
fn modules_that_are_no_programs_are_refused_by_the_command_line_before_they_cost_anything() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    let before = devnet.dev_balance(2);
    let path = place.path().join("module.wasm");
    let order = |module: Vec<u8>, words: &[&str]| {
        fs::write(&path, module).expect("a file");
        let path = path.to_str().expect("a text");
        devnet
            .ask(&["task", "submit", "--program", path, "--from", "dev2"])
            .refused(words);
    };
    let module = |text: &str| wat::parse_str(text).expect("a module");
    order(b"not a module".to_vec(), &["not a WebAssembly module"]);
    order(b"\0asm but not one".to_vec(), &["module is not valid"]);
    order(
        module(
            r#"(module (import "env" "clock" (func (result i64))) (memory (export "memory") 1 2))"#,
        ),
        &["module imports `env.clock`: a program has no imports"],
    );
    order(without_step(), &["module.wasm", "export `step` is missing"]);
    order(
        module(r#"(module (memory (export "memory") 1))"#),
        &["memory has no declared maximum"],
    );
    order(
        module(r#"(module (memory (export "memory") 1 2) (func $f) (start $f))"#),
        &["is a start function"],
    );
    order(vec![0; (1 << 20) + 1], &["module.wasm", "1048576"]);
    devnet.advance(2);
    assert_eq!(devnet.dev_balance(2), before);
    devnet.stop();
}

#[test]
fn a_module_that_is_no_program_is_paid_for_on_the_chain_and_then_known() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 0);
    let key = dev_keys::account(2);
    let before = devnet.dev_balance(2);
    let publish = |module: Vec<u8>| {
        let mut transaction = transfer(&devnet, &key);
        transaction.max_fee = Amount::new(100_000_000);
        transaction.action = Action::PublishProgram {
            module: Blob::new(module),
        };
        signed(&devnet, &key, transaction)
    };
    let sent = devnet.client.send_transaction(&publish(without_step()));
    let sent = sent.expect("nobody has judged it").transaction;
    let receipt = until("it is included", || {
        let receipt = devnet.client.receipt_if_included(&sent);
        receipt.expect("an answer")
    });
    let failure = receipt.failure.expect("it failed");
    assert_eq!(failure.code, "program_refused");
    let paid = before.checked_sub(devnet.dev_balance(2));
    assert_eq!(paid, Some(receipt.fee));
    let again = codec::encode(&publish(without_step()));
    let words = ["export `step` is missing"];
    assert_refused(&devnet, &again, -32019, "TX_REFUSED", &words);
    let long = codec::encode(&publish(vec![0; (1 << 20) + 1]));
    let words = ["module: longer than the chain takes (a module 1 MiB"];
    assert_refused(&devnet, &long, -32019, "TX_REFUSED", &words);
    devnet.advance(2);
    assert_eq!(before.checked_sub(devnet.dev_balance(2)), paid);
    devnet.stop();
}

/// A program but for one export.
fn without_step() -> Vec<u8> {
    let mut module = program("i32.const 1");
    let at = module
        .windows(4)
        .position(|four| four == b"step")
        .expect("its export");
    module[at..at + 4].copy_from_slice(b"stop");
    module
}

#[test]
fn programs_that_never_end_or_take_all_memory_have_the_same_outcome_everywhere_and_are_paid() {
    let place = tempfile::tempdir().expect("a directory");
    let devnet = Devnet::start(&place.path().join("devnet"), 3);
    let submit = |name: &str, step: &str, more: &[&str]| -> Hash {
        let path = place.path().join(name);
        fs::write(&path, program(step)).expect("a file");
        let path = path.to_str().expect("a text");
        let mut words = vec!["--program", path, "--gas-limit", "20000000"];
        words.extend(more);
        devnet.submit(&words).0
    };
    let head = devnet.head();
    let in_step = submit(
        "loop.wasm",
        "loop $for_ever br $for_ever end unreachable",
        &[],
    );
    let in_steps = submit("steps.wasm", "i32.const 0", &["--memory-pages", "1"]);
    let memory = submit("memory.wasm", GREEDY, &["--memory-pages", "100"]);
    let trap = submit("trap.wasm", "unreachable", &[]);

    let status = |task: &Hash| {
        let view = devnet.until_over(task, TaskState::Final);
        let result = devnet.client.task_result(task).expect("a result");
        assert_eq!(view.task.seats.len(), 3);
        assert!(
            view.task
                .seats
                .windows(2)
                .all(|two| two[0].claim == two[1].claim),
            "every worker has the same outcome: {view:?}"
        );
        let paid = view.paid.iter().filter(|part| part.role == Role::Worker);
        let paid: Vec<_> = paid.map(|part| part.amount.get()).collect();
        assert!(view.task.missed.is_empty());
        (result.status, result.gas.get(), result.output, paid)
    };
    let (ended, gas, output, paid) = status(&in_step);
    assert_eq!(ended, ResultStatus::OutOfGas);
    assert_eq!(
        (gas, output.len()),
        (20_000_000, 0),
        "all of the gas is paid for"
    );
    // 88% of ten grain for each of 20 million gas.
    assert_eq!(paid, [176; 3]);
    let (ended, _, output, paid) = status(&in_steps);
    assert_eq!(ended, ResultStatus::OutOfGas);
    assert_eq!(output.len(), 0);
    assert!(paid.iter().all(|amount| *amount > 0), "{paid:?}");
    let (ended, _, output, paid) = status(&memory);
    assert_eq!(ended, ResultStatus::Done);
    assert!(paid.iter().all(|amount| *amount > 0), "{paid:?}");
    assert_eq!(
        output.as_bytes(),
        100_u32.to_le_bytes(),
        "not a page more than ordered"
    );
    assert_eq!(status(&trap).0, ResultStatus::Trap);
    devnet
        .ask(&["task", "result", &in_step.to_string()])
        .refused(&["gas", "are paid for the gas used"]);

    // The same workers go on.
    let good = submit(
        "good.wasm",
        "(i32.store (i32.const 0) (i32.const 5)) i32.const 1",
        &[],
    );
    let (ended, _, output, _) = status(&good);
    assert_eq!(ended, ResultStatus::Done);
    assert_eq!(output.as_bytes(), 5_u32.to_le_bytes());
    assert!(devnet.head() > head);
    devnet.stop();
}

#[test]
fn a_directory_in_use_a_taken_port_and_a_stranger_s_directory_are_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("devnet");
    let devnet = Devnet::start(&home, 0);
    start(&devnet.node(), ANY_PORT).refused(&["data/db", "already in use by another process"]);
    run(proofmill()
        .args(["devnet", "--port", "0", "--home"])
        .arg(&home))
    .refused(&["a devnet runs in", "choose another directory"]);
    run(proofmill()
        .args(["devnet", "--reset", "--port", "0", "--home"])
        .arg(&home))
    .refused(&["a devnet runs in"]);
    devnet.advance(2);

    // A directory that is no devnet keeps what is in it.
    let strange = place.path().join("strange");
    fs::create_dir(&strange).expect("a directory");
    fs::write(strange.join("mine"), "precious").expect("a file");
    run(proofmill()
        .args(["devnet", "--reset", "--port", "0", "--home"])
        .arg(&strange))
    .refused(&["holds no devnet", "choose another directory"]);
    let left: Vec<_> = fs::read_dir(&strange).expect("a directory").collect();
    assert_eq!(left.len(), 1);
    assert_eq!(
        fs::read_to_string(strange.join("mine")).expect("a file"),
        "precious"
    );

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_at = taken.local_addr().expect("an address").to_string();
    let new = place.path().join("new");
    run(proofmill().args(["init", "--home"]).arg(&new)).good();
    start(&new, &taken_at).refused(&[&taken_at, "the port is in use", "choose another"]);
    devnet.stop();
}

#[test]
fn a_damaged_or_foreign_home_is_refused_with_what_to_do_and_the_good_one_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("devnet");
    let devnet = Devnet::start(&home, 0);
    devnet.advance(2);
    let node = devnet.node();
    devnet.stop();
    let mut copies = 0;
    let mut copy_of = |node: &Path| -> PathBuf {
        copies += 1;
        let to = place.path().join(format!("copy{copies}"));
        copy(node, &to);
        to
    };

    let misspelt = copy_of(&node);
    let config = fs::read_to_string(misspelt.join("config.toml")).expect("a configuration");
    fs::write(
        misspelt.join("config.toml"),
        config.replace("[rpc]", "[rpc]\nlisen = \"x\""),
    )
    .expect("written");
    start(&misspelt, ANY_PORT).refused(&[
        "config.toml",
        "unknown key `rpc.lisen`: did you mean `rpc.listen`?",
    ]);

    let foreign = copy_of(&node);
    let genesis = fs::read_to_string(foreign.join("genesis.json")).expect("a genesis");
    fs::write(
        foreign.join("genesis.json"),
        genesis.replace("devnet-1", "devnet-2"),
    )
    .expect("written");
    start(&foreign, ANY_PORT).refused_as(
        Exit::Data,
        &[
            "belongs to the chain with genesis 0x",
            "choose another directory",
        ],
    );

    let exposed = copy_of(&node);
    let key = exposed.join("keys/validator.json");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("a mode");
    start(&exposed, ANY_PORT).refused(&[
        "validator.json has mode 0640",
        "others may use it",
        "run `chmod 600",
    ]);

    let advice = ["data/db is damaged", "fetches the chain from its peers"];
    let damaged = copy_of(&node);
    assert_eq!(damage(&damaged, |name| name.starts_with("MANIFEST")), 1);
    start(&damaged, ANY_PORT).refused_as(Exit::Data, &advice);
    let damaged = copy_of(&node);
    assert_eq!(damage(&damaged, |name| name.ends_with(".log")), 1);
    start(&damaged, ANY_PORT).refused_as(Exit::Data, &advice);
    // A refusal changes nothing: asked again, it is refused again.
    start(&damaged, ANY_PORT).refused_as(Exit::Data, &advice);

    // The home that was copied is whole: the chain goes on. Its restart writes the log into tables.
    let devnet = Devnet::start(&home, 0);
    assert!(devnet.head() >= Height::new(2));
    devnet.advance(1);
    let head = devnet.head();
    devnet.stop();
    let damaged = copy_of(&node);
    assert!(
        damage(&damaged, |name| name.ends_with(".sst")) > 0,
        "there are tables"
    );
    start(&damaged, ANY_PORT).refused_as(Exit::Data, &advice);
    let devnet = Devnet::start(&home, 0);
    assert!(devnet.head() >= head);
    devnet.stop();
}
