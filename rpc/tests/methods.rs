//! Every method by name and by position, the values of their answers, the errors of sending; and
//! `docs/rpc.md`, whose reference is generated from the table and from these very answers.

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::{Running, call, key, start};
use proofmill_chain::codec;
use proofmill_chain::types::units::{Height, Nonce};
use proofmill_rpc::api::{TaskContext, TaskView, WaitingFor};
use proofmill_rpc::error::{self, Code};
use proofmill_rpc::methods::{METHODS, Method};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_string(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory");
        text
    })
}

/// A good example of each method: its arguments by name, in the order of the positions.
fn examples(server: &Running) -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let ledger = &server.ledger;
    let final_task = json!(ledger.tasks[1].id);
    let worker = json!(key(21).public());
    vec![
        ("node_info", vec![]),
        ("node_health", vec![]),
        ("chain_getHead", vec![]),
        ("chain_getParams", vec![]),
        (
            "chain_getBlock",
            vec![("block", json!("head")), ("full", json!(false))],
        ),
        (
            "chain_getReceipt",
            vec![("transaction", json!(ledger.failed_id()))],
        ),
        ("account_get", vec![("account", json!(key(11).public()))]),
        (
            "tx_send",
            vec![(
                "transaction",
                json!(hex(&codec::encode(&ledger.next_transaction()))),
            )],
        ),
        ("tx_get", vec![("transaction", json!(ledger.transfer_id()))]),
        (
            "attestation_send",
            vec![(
                "attestation",
                json!(hex(&codec::encode(&ledger.attestation()))),
            )],
        ),
        (
            "task_get",
            vec![
                ("task", final_task.clone()),
                ("include_input", json!(true)),
                ("include_program", json!(false)),
            ],
        ),
        (
            "task_list",
            vec![
                ("state", json!("final")),
                ("requester", json!(key(11).public())),
                ("worker", worker),
                ("limit", json!(10)),
                ("before", Value::Null),
            ],
        ),
        ("task_getResult", vec![("task", final_task)]),
        (
            "worker_list",
            vec![("limit", json!(1)), ("before", Value::Null)],
        ),
        ("validator_list", vec![("height", json!("6"))]),
    ]
}

fn by_name(arguments: &[(&str, Value)]) -> Value {
    arguments
        .iter()
        .map(|(name, value)| ((*name).to_string(), value.clone()))
        .collect()
}

fn by_position(arguments: &[(&str, Value)]) -> Value {
    arguments.iter().map(|(_, value)| value.clone()).collect()
}

#[tokio::test]
async fn every_method_answers_by_name_and_by_position() {
    let server = start().await;
    let examples = examples(&server);
    let table: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    let covered: Vec<_> = examples.iter().map(|(name, _)| *name).collect();
    assert_eq!(covered, table);
    for ((name, arguments), method) in examples.iter().zip(METHODS) {
        let names: Vec<_> = arguments.iter().map(|(name, _)| *name).collect();
        let params: Vec<_> = method.params.iter().map(|param| param.name).collect();
        assert_eq!(names, params, "{name}");
        let named = call(server.address, name, &by_name(arguments)).await;
        let positioned = call(server.address, name, &by_position(arguments)).await;
        assert!(named["result"].is_object(), "{name}: {named}");
        if *name == "tx_send" {
            assert_eq!(named["result"]["status"], "pending");
            assert_eq!(positioned["result"]["status"], "known");
        } else {
            assert_eq!(named, positioned, "{name}");
        }
    }
}

#[tokio::test]
async fn a_block_is_found_by_every_name_of_it() {
    let server = start().await;
    let get = async |params: Value| call(server.address, "chain_getBlock", &params).await;
    let head = get(json!(["head"])).await;
    let block = &head["result"];
    assert_eq!(block["summary"]["height"], "5");
    assert_eq!(block["summary"]["transactions"], 2);
    assert_eq!(block["transactions"][0], json!(server.ledger.transfer_id()));
    assert_eq!(block["certificate"]["block"], block["summary"]["hash"]);
    for name in [json!("5"), json!(5), block["summary"]["hash"].clone()] {
        assert_eq!(get(json!([name])).await, head, "{name}");
    }
    let full = get(json!({"full": true, "block": 5})).await;
    let body = &full["result"]["transactions"][0]["body"]["transaction"];
    assert_eq!(body["action"]["transfer"]["amount"], "250");
    assert_eq!(
        get(json!(["9"])).await["error"]["code"],
        Code::NotFound.number()
    );
    let pruned = get(json!([1])).await;
    assert_eq!(
        pruned["error"]["data"],
        json!({"name": "PRUNED", "fault": "node"})
    );
}

#[tokio::test]
async fn a_receipt_says_why_a_transaction_failed() {
    let server = start().await;
    let get = async |id| call(server.address, "chain_getReceipt", &json!([id])).await;
    let applied = get(server.ledger.transfer_id()).await["result"].clone();
    assert_eq!(
        (&applied["result"], applied.get("failure")),
        (&json!("applied"), None)
    );
    let failed = get(server.ledger.failed_id()).await["result"].clone();
    assert_eq!(failed["result"], "failed");
    assert_eq!(failed["failure"]["code"], "insufficient_balance");
    assert_eq!(failed["failure"]["details"]["needed"], u64::MAX.to_string());
}

#[tokio::test]
async fn a_sent_transaction_is_pending_then_counted() {
    let server = start().await;
    let transaction = server.ledger.next_transaction();
    let id = json!(transaction.transaction.id(&server.ledger.genesis));
    let get = async || call(server.address, "tx_get", &json!([id])).await["result"].clone();
    assert_eq!(get().await, json!({"transaction": id, "status": "unknown"}));
    let sent = call(
        server.address,
        "tx_send",
        &json!([hex(&codec::encode(&transaction))]),
    )
    .await;
    assert_eq!(
        sent["result"],
        json!({"transaction": id, "status": "pending"})
    );
    assert_eq!(get().await["status"], "pending");
    let account = call(server.address, "account_get", &json!([key(11).public()])).await;
    assert_eq!(account["result"]["nonce"], "2");
    assert_eq!(account["result"]["next_nonce"], "3");
    let included = call(
        server.address,
        "tx_get",
        &json!([server.ledger.transfer_id()]),
    )
    .await;
    assert_eq!(included["result"]["status"], "included");
    assert_eq!(included["result"]["height"], "5");
}

#[tokio::test]
async fn bytes_that_are_no_transaction_are_refused_with_the_reason() {
    let server = start().await;
    let good = codec::encode(&server.ledger.next_transaction());
    let send = async |bytes: &[u8]| {
        call(server.address, "tx_send", &json!([hex(bytes)])).await["error"].clone()
    };
    let malformed = Code::TxMalformed.number();
    let error = send(&[]).await;
    assert_eq!(error["code"], malformed);
    assert_eq!(
        error["message"],
        "the bytes do not encode a signed transaction"
    );
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(
        send(&longer).await["message"],
        "1 bytes behind a signed transaction"
    );
    let error = send(&vec![0; 1_100_000]).await;
    assert_eq!(
        (&error["code"], &error["data"]["received"]),
        (&json!(malformed), &json!(1_100_000))
    );
    let mut forged = good;
    let last = forged.len() - 2;
    forged[last] ^= 1;
    assert_eq!(send(&forged).await["code"], Code::TxBadSignature.number());
    let mut early = server.ledger.next_transaction();
    early.transaction.nonce = Nonce::new(9);
    early.signature = key(11).sign(&early.transaction.sign_bytes(&server.ledger.genesis));
    let error = send(&codec::encode(&early)).await;
    assert_eq!(error["code"], Code::TxNonceGap.number());
    let data = json!({"name": "TX_NONCE_GAP", "fault": "caller", "expected": "2", "received": "9"});
    assert_eq!(error["data"], data);
    let attestation = call(server.address, "attestation_send", &json!(["0x00"])).await;
    assert_eq!(
        attestation["error"]["code"],
        Code::AttestationRefused.number()
    );
}

#[tokio::test]
async fn a_task_says_what_it_waits_for_and_who_was_paid() {
    let server = start().await;
    let [open, finished] = [0, 1].map(|index| server.ledger.tasks[index].id);
    let get =
        async |params: Value| call(server.address, "task_get", &params).await["result"].clone();
    let task = get(json!([open])).await;
    assert_eq!(task["state"], "open");
    assert_eq!(task["waiting"]["for"], "draw");
    assert_eq!(task["waiting"]["need"], 2);
    assert_eq!((&task["paid"], task.get("input_bytes")), (&json!([]), None));
    let task = get(json!([finished, true, true])).await;
    assert_eq!(
        (&task["state"], &task["waiting"]),
        (&json!("final"), &Value::Null)
    );
    assert_eq!(task["input_bytes"], hex(b"six times seven"));
    assert_eq!(task["program_bytes"], hex(b"\0asm"));
    assert_eq!(task["progress"][0]["step"], "revealed");
    let paid: Vec<_> = task["paid"].as_array().expect("a list").iter().collect();
    let roles: Vec<_> = paid.iter().map(|part| part["role"].as_str()).collect();
    let expected = ["worker", "worker", "validators", "requester", "burned"].map(Some);
    assert_eq!(roles, expected);
    let grain = |part: &&Value| part["amount"].as_str()?.parse::<u64>().ok();
    assert_eq!(paid.iter().filter_map(grain).sum::<u64>(), 2_000);
    let result = call(server.address, "task_getResult", &json!([finished])).await;
    assert_eq!(result["result"]["output"], hex(b"42"));
    let early = call(server.address, "task_getResult", &json!([open])).await;
    assert_eq!(early["error"]["code"], Code::TaskNotFinal.number());
    assert_eq!(early["error"]["data"]["state"], "open");
}

/// Whatever the heights are: a full block leaves a draw to the next, and a vain draw pauses.
#[tokio::test]
async fn an_open_task_waits_for_workers_only_once_a_draw_was_tried() {
    let server = start().await;
    let open = &server.ledger.tasks[0];
    for (drawn_in_vain, first_draw, expected, words) in [
        (false, 9, WaitingFor::Draw, "block 9 at the earliest"),
        (false, 7, WaitingFor::Draw, "block 7 at the earliest"),
        (false, 5, WaitingFor::Draw, "block 7 at the earliest"),
        (true, 7, WaitingFor::Workers, "the last draw found 0;"),
        (true, 9, WaitingFor::Workers, "the last draw found 0;"),
    ] {
        let context = TaskContext {
            head: Height::new(6),
            first_draw: Height::new(first_draw),
            drawn_in_vain,
            ..TaskContext::default()
        };
        let waiting = TaskView::of(open.clone(), context).waiting.expect("open");
        assert_eq!(waiting.what, expected, "{drawn_in_vain} {first_draw}");
        assert!(waiting.reason.contains(words), "{}", waiting.reason);
    }
}

#[tokio::test]
async fn lists_go_on_where_they_stopped() {
    let server = start().await;
    for (method, items, total) in [("task_list", "tasks", 2), ("worker_list", "workers", 3)] {
        let whole = call(server.address, method, &json!({})).await["result"].clone();
        assert_eq!(whole["next"], Value::Null);
        let mut seen = Vec::new();
        let mut before = Value::Null;
        for _ in 0..total {
            let params = json!({"limit": 1, "before": before});
            let page = call(server.address, method, &params).await["result"].clone();
            seen.push(page[items][0].clone());
            before = page["next"].clone();
        }
        assert_eq!(Value::from(seen), whole[items], "{method}");
        assert_eq!(before, Value::Null);
    }
    let open = call(server.address, "task_list", &json!(["open"])).await;
    assert_eq!(
        open["result"]["tasks"][0]["task"],
        json!(server.ledger.tasks[0].id)
    );
    let set = call(server.address, "validator_list", &json!([])).await["result"].clone();
    assert_eq!(
        (&set["height"], &set["validators"][0]["share"]),
        (&json!("6"), &json!(6_666))
    );
}

#[test]
fn codes_are_distinct_and_in_their_ranges() {
    let mut numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), Code::ALL.len());
    for number in numbers {
        let standard = [-32700, -32600, -32601, -32602, -32603].contains(&number);
        assert!(standard || (-32099..=-32000).contains(&number), "{number}");
    }
}

/// `docs/rpc.md` up to date? `PROOFMILL_WRITE_DOCS=1` writes it anew.
#[tokio::test]
async fn the_documentation_is_what_the_server_does() {
    let server = start().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rpc.md");
    let text = std::fs::read_to_string(&path).expect("docs/rpc.md");
    let mut methods = String::new();
    for ((_, arguments), method) in examples(&server).into_iter().zip(METHODS) {
        let answer = call(server.address, method.name, &by_name(&arguments)).await;
        methods.push_str(&section(method, &by_name(&arguments), &answer["result"]));
    }
    let fresh = replaced(&text, "methods", &methods);
    let fresh = replaced(&fresh, "errors", &error::markdown());
    if std::env::var_os("PROOFMILL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &fresh).expect("docs/rpc.md can be written");
        return;
    }
    assert!(
        fresh == text,
        "docs/rpc.md is out of date: run this test with PROOFMILL_WRITE_DOCS=1"
    );
    for name in METHODS.iter().map(|method| method.name) {
        assert!(text.contains(&format!("### {name}\n")), "{name}");
    }
    for code in Code::ALL {
        assert!(text.contains(&format!("| {} | `{}` |", code.number(), code.name())));
    }
}

/// A method's section: what it does, its parameters, a call and its answer.
fn section(method: &Method, params: &Value, result: &Value) -> String {
    let mut text = format!("### {}\n\n{}\n\n", method.name, method.doc);
    if method.params.is_empty() {
        text.push_str("No parameters.\n\n");
    } else {
        text.push_str("| parameter | expected | default | |\n|---|---|---|---|\n");
    }
    for param in method.params {
        let default = match param.default {
            None => "required".into(),
            Some(default) => format!("`{}`", default()),
        };
        let line = format!(
            "| `{}` | {} | {default} | {} |",
            param.name, param.kind, param.doc
        );
        text.push_str(&line);
        text.push('\n');
    }
    if !method.params.is_empty() {
        text.push('\n');
    }
    let pretty = |value| shortened(&serde_json::to_string_pretty(value).expect("JSON"));
    let request = json!({"method": method.name, "params": params});
    let call = shortened(&request.to_string());
    let result = pretty(result);
    write!(text, "```json\n{call}\n```\n\n```json\n{result}\n```\n\n").expect("memory");
    text
}

/// Hex texts longer than a hash, with their middle left out.
fn shortened(text: &str) -> String {
    let cut = |piece: &str| match piece.starts_with("0x") && piece.len() > 66 {
        true => format!("{}…{}", &piece[..34], &piece[piece.len() - 8..]),
        false => piece.to_string(),
    };
    text.split('"').map(cut).collect::<Vec<_>>().join("\"")
}

/// `text` with the part between a pair of marks replaced.
fn replaced(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: generated -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the mark that begins");
    let (_, after) = rest.split_once(&end).expect("the mark that ends");
    format!("{before}{begin}\n{part}{end}{after}")
}
