//! What people meet on the command line: lost answers, orders that nobody can serve, files that
//! must not be published, and errors that programs can read. Real processes throughout.

#[path = "scenario_support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proofmill_node::dev_keys;
use serde_json::{Value, json};
use support::proxy::{self, Fault};
use support::{Devnet, Said, proofmill, run};

const TRANSFER: u64 = 1_000_000;

/// A fault for the first so many calls of a method, and how often the method was called.
fn first(
    method: &'static str,
    count: u32,
    fault: Fault,
) -> (impl FnMut(&str) -> Fault + Send + 'static, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let decide = move |body: &str| {
        if !body.contains(&format!("\"{method}\"")) {
            return Fault::None;
        }
        if counter.fetch_add(1, Ordering::SeqCst) < count {
            fault
        } else {
            Fault::None
        }
    };
    (decide, calls)
}

fn through(devnet: &Devnet, url: &str, words: &[&str]) -> Said {
    run(proofmill()
        .args(words)
        .arg("--home")
        .arg(&devnet.ready.home)
        .args(["--rpc", url]))
}

fn error_of(said: &Said) -> Value {
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let object: Value = serde_json::from_str(&said.out).expect("one JSON object");
    object["error"].clone()
}

/// A lost answer to `tx_send` never makes anybody pay twice, and is no error as long as the node
/// can be asked.
#[test]
fn a_transfer_whose_answer_is_lost_is_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 0);
    for (index, fault) in [
        Fault::Dropped,
        Fault::AnswerLost,
        Fault::AnswerHalved,
        Fault::GatewayTimeout,
    ]
    .into_iter()
    .enumerate()
    {
        let index = u32::try_from(index).expect("a small number");
        let to = format!("dev{index}");
        let before = devnet.dev_balance(index);
        let (decide, calls) = first("tx_send", 1, fault);
        let url = proxy::start(devnet.rpc(), decide);
        let said = through(
            &devnet,
            &url,
            &[
                "tx", "send", "--from", "dev9", "--to", &to, "--amount", "1000000",
            ],
        );
        let text = said.good();
        let gained = devnet.dev_balance(index).get() - before.get();
        assert_eq!(gained, TRANSFER, "{fault:?}: {text}");
        // Sent again only when the node never saw it.
        let sends = if matches!(fault, Fault::Dropped) {
            2
        } else {
            1
        };
        assert_eq!(calls.load(Ordering::SeqCst), sends, "{fault:?}");
    }
    devnet.stop();
}

/// The id is printed before the transaction leaves, so that it is known when nothing answers.
#[test]
fn the_id_is_known_even_when_no_answer_ever_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 0);
    let (decide, _) = first("tx_send", u32::MAX, Fault::Dropped);
    let url = proxy::start(devnet.rpc(), decide);
    let words = [
        "tx", "send", "--json", "--from", "dev9", "--to", "dev0", "--amount", "7",
    ];
    let said = through(&devnet, &url, &words);
    let error = error_of(&said);
    assert_eq!(error["name"], "OUTCOME_UNKNOWN", "{said:?}");
    let id = said
        .err
        .split_whitespace()
        .find(|word| word.starts_with("0x"))
        .expect("the id was printed")
        .trim_end_matches(',');
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains(id)),
        "{error}"
    );
    devnet.stop();
}

/// `--wait` and `task watch` outlast broken polls.
#[test]
fn waiting_outlasts_broken_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 0);
    for fault in [Fault::Dropped, Fault::AnswerHalved, Fault::GatewayTimeout] {
        let (decide, calls) = first("chain_getReceipt", 2, fault);
        let url = proxy::start(devnet.rpc(), decide);
        let words = [
            "tx", "send", "--from", "dev8", "--to", "dev0", "--amount", "3",
        ];
        through(&devnet, &url, &words).good();
        assert!(calls.load(Ordering::SeqCst) > 2, "{fault:?}");
    }
    devnet.stop();
}

fn example() -> String {
    format!("{}/../examples/digits", env!("CARGO_MANIFEST_DIR"))
}

/// An order that no registered worker could take is refused with the condition that fails, and
/// nothing is paid.
#[test]
fn an_order_that_cannot_be_served_is_refused_before_it_is_paid() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 3);
    let before = devnet.dev_balance(4);
    for (flags, words) in [
        (&["--tag", "quantum"][..], "3 lack a required tag (quantum)"),
        (&["--price", "1"], "3 ask for at least"),
        (
            &["--replicas", "5"],
            "the task needs 5 workers of different operators, and 3 of 3",
        ),
        (
            &["--min-reputation", "4000000000"],
            "accepted results, the task requires 4000000000",
        ),
        (&["--insured", "900000mill"], "of collateral"),
    ] {
        let folder = example();
        let mut all = vec!["task", "submit", &folder, "--from", "dev4", "--json"];
        all.extend(flags);
        let said = devnet.ask(&all);
        let error = error_of(&said);
        assert_eq!(error["name"], "TOO_FEW_WORKERS", "{flags:?}: {said:?}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(words), "{flags:?}: {message}");
    }
    assert_eq!(devnet.dev_balance(4), before, "nothing was paid");
    // On request it is ordered all the same.
    let folder = example();
    let (task, _) = devnet.submit(&[&folder, "--tag", "quantum"]);
    assert!(!devnet.task(&task).task.phase.is_over());
    devnet.stop();
}

/// An order that the chain never takes, or that the account cannot pay, is refused before its program
/// is published and paid, whether workers are to be waited for or not.
#[test]
fn an_order_that_the_chain_never_takes_is_refused_before_its_program_is_paid() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 0);
    let before = devnet.dev_balance(5);
    let ways: [&[&str]; 2] = [&[], &["--wait-for-workers"]];
    let example = example();
    for (flags, name, words) in [
        (
            &["--memory-pages", "1"][..],
            "BAD_ORDER",
            "`memory_pages` is 1: at least 2",
        ),
        (
            &["--memory-pages", "5000"],
            "BAD_ORDER",
            "`memory_pages` is 5000: at most 4096",
        ),
        (
            &["--wait-max", "20000"],
            "BAD_ORDER",
            "`wait_max` is 20000: at most 10000",
        ),
        (
            &["--replicas", "12"],
            "BAD_ORDER",
            "`replicas` is 12: from 1 to 9",
        ),
        (
            &["--replicas", "0"],
            "BAD_ORDER",
            "`replicas` is 0: at least 1",
        ),
        (
            &["--gas-limit", "9000000000000"],
            "BAD_ORDER",
            "`gas_limit` is 9000000000000: at most 100000000000",
        ),
        (&["--tag", "GPU"], "BAD_ORDER", "`tags` is [GPU]"),
        (
            &["--price", "100000000mill"],
            "INSUFFICIENT_BALANCE",
            "needed",
        ),
    ] {
        for waits in ways {
            let order = ["task", "submit", &example, "--from", "dev5", "--json"];
            let said = devnet.ask(&[&order[..], flags, waits].concat());
            let error = error_of(&said);
            assert_eq!(error["name"], name, "{flags:?}: {said:?}");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(words), "{flags:?}: {message}");
            // Waiting would not help.
            assert!(!message.contains("--wait-for-workers"), "{message}");
            assert!(!said.err.contains("sending"), "{said:?}");
        }
    }
    assert_eq!(devnet.dev_balance(5), before, "nothing was paid");
    devnet.stop();
}

/// `--home` is a devnet's directory; the environment names the home of keys, in which it is `devnet`.
#[test]
fn a_devnet_is_found_by_its_directory_or_in_the_home_of_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("devnet");
    let devnet = Devnet::start(&home, 0);
    let status = |variable: &Path, flag: Option<&Path>| {
        let mut command = proofmill();
        command.args(["devnet", "status"]);
        command.env("PROOFMILL_HOME", variable);
        if let Some(flag) = flag {
            command.arg("--home").arg(flag);
        }
        run(&mut command)
    };
    status(folder.path(), None).good();
    // The flag counts as it stands, also where the variable says the same.
    status(&home, Some(home.as_path())).good();
    let within = home.join("devnet").display().to_string();
    status(&home, None).refused(&[
        &format!("no devnet runs in {within}"),
        "without it that is `devnet` in $PROOFMILL_HOME",
    ]);
    devnet.stop();
}

/// A manifest cannot publish files from outside its folder by accident.
#[test]
fn files_outside_the_folder_are_not_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let task = folder.path().join("task");
    fs::create_dir(&task).expect("made");
    let manifest = |input: &str| {
        let text = json!({
            "program": "p.wasm", "input": [input], "gas_limit": "1000", "memory_pages": 1,
            "replicas": 1, "price_per_mgas": "10", "wait_max": 10,
        });
        fs::write(task.join("task.json"), text.to_string()).expect("written");
    };
    fs::copy(format!("{}/digits.wasm", example()), task.join("p.wasm")).expect("copied");
    fs::write(folder.path().join("secret"), "secret").expect("written");
    for outside in ["/etc/hostname", "../secret"] {
        manifest(outside);
        // No node is asked: the address is one where nothing listens.
        let said = run(proofmill()
            .args(["task", "submit", "--rpc", "127.0.0.1:1", "--home"])
            .arg(folder.path())
            .arg(&task));
        said.refused(&["is outside", "--allow-outside"]);
    }
}

/// A place for results that cannot be written is noticed before anything is paid.
#[test]
fn a_result_that_could_not_be_kept_is_not_ordered() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let below = file.join("result");
    let said = run(proofmill()
        .args([
            "task",
            "submit",
            &example(),
            "--rpc",
            "127.0.0.1:1",
            "--out",
        ])
        .arg(&below)
        .arg("--home")
        .arg(folder.path()));
    said.refused(&["cannot make", "result"]);
    // Root may write everywhere; everybody else is told.
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).expect("made");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).expect("set");
    if tempfile::tempfile_in(&locked).is_err() {
        let said = run(proofmill()
            .args([
                "task",
                "submit",
                &example(),
                "--rpc",
                "127.0.0.1:1",
                "--out",
            ])
            .arg(&locked)
            .arg("--home")
            .arg(folder.path()));
        said.refused(&["cannot write to"]);
    }
}

/// With `--json` every failure is an object with code and name, and exit statuses do not depend on
/// the format.
#[test]
fn errors_can_be_read_by_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 0);
    let unknown = format!("0x{}", "ab".repeat(32));
    devnet
        .ask(&["query", "tx", &unknown])
        .refused(&["knows no transaction", &unknown]);
    let error = error_of(&devnet.ask(&["query", "tx", &unknown, "--json"]));
    assert_eq!(error["name"], "NOT_FOUND", "{error}");
    let error = error_of(&devnet.ask(&["query", "block", "999999", "--json"]));
    assert!(
        error["code"].as_i64().is_some_and(|code| code < -32_000),
        "{error}"
    );
    assert_eq!(error["name"], "NOT_FOUND", "{error}");
    let words = ["tx", "send", "--from", "dev0", "--to", "dev1", "--amount"];
    let too_much = [&words[..], &["900000000mill"]].concat();
    devnet.ask(&too_much).refused(&["dev0 (mill1", "needed"]);
    let error = error_of(&devnet.ask(&[&too_much[..], &["--json"]].concat()));
    assert_eq!(error["name"], "INSUFFICIENT_BALANCE", "{error}");
    let misused = devnet.ask(&["query", "nothing", "--json"]);
    assert_eq!(misused.status.code(), Some(2), "{misused:?}");
    let object: Value = serde_json::from_str(&misused.out).expect("one JSON object");
    assert_eq!(object["error"]["name"], "USAGE", "{object}");
    let head = devnet.ask(&["query", "head"]).good();
    assert!(
        head.contains("Z (") && head.contains("ms since 1970"),
        "{head}"
    );
    let error = error_of(&run(proofmill()
        .args(["query", "head", "--json", "--rpc", "127.0.0.1:1", "--home"])
        .arg(folder.path())));
    assert_eq!(error["name"], "CONNECT", "{error}");
    devnet.stop();
}

/// `--rpc` is offered by the commands that ask a node, and by no other.
#[test]
fn only_commands_that_ask_a_node_offer_an_address() {
    for command in ["start", "init", "devnet", "keys", "config", "replay"] {
        let help = run(proofmill().args([command, "--help"])).good();
        assert!(!help.contains("--rpc <"), "{command}: {help}");
    }
    for command in ["tx", "task", "query", "worker"] {
        let help = run(proofmill().args([command, "--help"])).good();
        assert!(help.contains("--rpc <URL>"), "{command}: {help}");
    }
}

/// A worker takes the addresses that its help allows.
#[test]
fn a_worker_takes_an_address_without_a_scheme() {
    let folder = tempfile::tempdir().expect("a folder");
    let devnet = Devnet::start(&folder.path().join("net"), 1);
    let address = devnet
        .rpc()
        .trim_start_matches("http://")
        .trim_end_matches("/rpc");
    let home = folder.path().join("worker");
    let key = dev_keys::worker(9);
    proofmill_node::keys::write_new(
        &proofmill_node::home::Home::new(home.clone()).worker_key(),
        &key,
    )
    .expect("written");
    let ready = folder.path().join("ready.json");
    let mut worker = support::Running::start(
        proofmill()
            .args(["worker", "run", "--rpc", address, "--ready-file"])
            .arg(&ready)
            .arg("--home")
            .arg(&home),
    );
    support::until("the worker is ready", || {
        let ended = worker.0.try_wait().expect("a child");
        assert!(ended.is_none(), "the worker ended: {ended:?}");
        ready.exists().then_some(())
    });
    assert!(worker.stop().success());
    devnet.stop();
}
