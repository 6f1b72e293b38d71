//! JSON-RPC 2.0 to the letter: the envelope, ids, batches, parameters and the specification's own
//! examples, over exact bytes.

mod common;

use common::{Running, call, key, post, start};
use serde_json::{Value, json};

/// Posts a body that must be answered with 200 and exactly this JSON, `data` of errors left out.
async fn answers(server: &Running, body: &str, expected: Value) {
    let reply = post(server.address, body).await;
    assert_eq!(reply.status, 200, "{body}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(without_text(reply.json()), expected, "{body}");
}

/// Leaves of every error only its code.
fn without_text(mut answer: Value) -> Value {
    let strip = |one: &mut Value| {
        if let Some(error) = one.get_mut("error") {
            *error = error["code"].clone();
        }
    };
    match &mut answer {
        Value::Array(list) => list.iter_mut().for_each(strip),
        one => strip(one),
    }
    answer
}

fn failed(id: impl Into<Value>, code: i64) -> Value {
    let id = id.into();
    json!({"jsonrpc": "2.0", "id": id, "error": code})
}

#[tokio::test]
async fn the_examples_of_the_specification_hold() {
    let server = start().await;
    let none = Value::Null;
    // "rpc call with invalid JSON"
    answers(
        &server,
        r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#,
        failed(none.clone(), -32700),
    )
    .await;
    // "rpc call of non-existent method"
    answers(
        &server,
        r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
        failed(json!("1"), -32601),
    )
    .await;
    // "rpc call with invalid Request object"
    answers(
        &server,
        r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#,
        failed(none.clone(), -32600),
    )
    .await;
    // "rpc call Batch, invalid JSON"
    answers(&server, r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method""#, failed(none.clone(), -32700)).await;
    // "rpc call with an empty Array"
    answers(&server, "[]", failed(none.clone(), -32600)).await;
    // "rpc call with an invalid Batch (but not empty)"
    answers(&server, "[1]", json!([failed(none.clone(), -32600)])).await;
    // "rpc call with invalid Batch"
    answers(
        &server,
        "[1,2,3]",
        json!([
            failed(none.clone(), -32600),
            failed(none.clone(), -32600),
            failed(none.clone(), -32600)
        ]),
    )
    .await;
    // "rpc call Batch", with methods of ours
    let account = key(12).public();
    let body = json!([
        {"jsonrpc": "2.0", "method": "account_get", "params": [account], "id": "1"},
        {"jsonrpc": "2.0", "method": "account_get", "params": [account]},
        {"jsonrpc": "2.0", "method": "account_get", "params": {"account": account}, "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "account_get", "params": [account], "id": 9}
    ]);
    let got = call(server.address, "account_get", &json!([account])).await["result"].clone();
    let good = |id: Value| json!({"jsonrpc": "2.0", "id": id, "result": got});
    let expected = json!([
        good(json!("1")),
        good(json!("2")),
        failed(none, -32600),
        failed(json!("5"), -32601),
        good(json!(9))
    ]);
    answers(&server, &body.to_string(), expected).await;
    // "rpc call Batch (all notifications)"
    let notify = json!({"jsonrpc": "2.0", "method": "node_info"});
    let reply = post(server.address, &json!([notify, notify]).to_string()).await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
}

#[tokio::test]
async fn positional_and_named_parameters_mean_the_same() {
    let server = start().await;
    let account = key(11).public();
    let by_position = call(server.address, "account_get", &json!([account])).await;
    let by_name = call(server.address, "account_get", &json!({"account": account})).await;
    assert_eq!(by_position, by_name);
    assert_eq!(by_name["result"]["balance"], "5000000000");
}

#[tokio::test]
async fn an_id_is_echoed_verbatim() {
    let server = start().await;
    for id in [
        "1",
        "0",
        "-7",
        "1.5",
        "1e3",
        "1.50",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        r#""""#,
        r#""a \"b\" \u00e9 é""#,
        "null",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"node_health"}}"#);
        let reply = post(server.address, &body).await;
        assert_eq!(reply.status, 200, "{id}");
        assert!(
            reply.body.ends_with(&format!(r#""id":{id}}}"#)),
            "{id}: {}",
            reply.body
        );
        assert_eq!(reply.json()["result"]["ready"], true);
    }
}

#[tokio::test]
async fn an_id_of_another_kind_is_an_invalid_request() {
    let server = start().await;
    for id in ["true", "false", "[]", "{}", "[1]"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"node_health"}}"#);
        answers(&server, &body, failed(Value::Null, -32600)).await;
    }
}

#[tokio::test]
async fn a_notification_is_performed_and_answered_with_nothing() {
    let server = start().await;
    let calls = || {
        server
            .ledger
            .account_calls
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    let account = key(11).public();
    for (params, performed) in [(json!([account]), 1), (json!([]), 1), (json!({"x": 1}), 1)] {
        let body = json!({"jsonrpc": "2.0", "method": "account_get", "params": params});
        let reply = post(server.address, &body.to_string()).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        assert_eq!(calls(), performed);
    }
    let unknown = r#"{"jsonrpc":"2.0","method":"nothing"}"#;
    assert_eq!(post(server.address, unknown).await.status, 204);
}

#[tokio::test]
async fn the_envelope_is_checked() {
    let server = start().await;
    for (body, id) in [
        (r#"{"id":1,"method":"node_info"}"#, json!(1)),
        (r#"{"jsonrpc":"1.0","id":1,"method":"node_info"}"#, json!(1)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"node_info"}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, json!(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"node_info","params":null}"#,
            json!(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"node_info","params":"x"}"#,
            json!(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"node_info","params":7}"#,
            json!(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"node_info","method":"node_info"}"#,
            json!(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"node_info"}"#,
            Value::Null,
        ),
        (r#"{}"#, Value::Null),
        ("7", Value::Null),
        (r#""text""#, Value::Null),
        ("null", Value::Null),
    ] {
        answers(&server, body, failed(id, -32600)).await;
    }
    let many: Vec<_> = (0..40).map(|n| format!(r#""m{n}":0"#)).collect();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"node_info",{}}}"#,
        many.join(",")
    );
    answers(&server, &body, failed(json!(1), -32600)).await;
    // Members that the specification does not know are not looked at.
    let body = r#" {"jsonrpc":"2.0","id":1,"method":"node_info","extra":[1]} "#;
    assert!(post(server.address, body).await.json()["result"].is_object());
}

#[tokio::test]
async fn malformed_json_is_answered_with_its_position() {
    let server = start().await;
    let reply = post(server.address, "{\"jsonrpc\":\"2.0\",\n  \"id\": nul}").await;
    assert_eq!(reply.code(), -32700);
    let message = reply.json()["error"]["message"]
        .as_str()
        .expect("text")
        .to_string();
    assert!(message.contains("line 2 column"), "{message}");
    for body in [
        "",
        " ",
        "{",
        "[",
        "{} {}",
        "[1,]",
        "{\"a\":1,}",
        "'x'",
        "nan",
        "\u{feff}{}",
    ] {
        answers(&server, body, failed(Value::Null, -32700)).await;
    }
    let headers = "content-type: application/json\r\n";
    let reply = common::post_with(server.address, headers, b"{\"a\": \"\xff\"}").await;
    assert_eq!(reply.code(), -32700);
    assert!(reply.body.contains("byte 7"), "{}", reply.body);
}

#[tokio::test]
async fn deep_nesting_is_refused_before_anything_recurses() {
    let server = start().await;
    let deep = "[".repeat(1_000_000);
    answers(&server, &deep, failed(Value::Null, -32700)).await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"node_info","params":{}1{}}}"#,
        "[".repeat(32),
        "]".repeat(32)
    );
    answers(&server, &deep, failed(Value::Null, -32700)).await;
    // Brackets in a text do not nest.
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":"\"{}","method":"node_health"}}"#,
        "[{".repeat(100)
    );
    assert!(post(server.address, &text).await.json()["result"].is_object());
}

#[tokio::test]
async fn a_batch_is_bounded_and_in_order() {
    let server = start().await;
    let one = |id: usize| json!({"jsonrpc": "2.0", "id": id, "method": "node_health"});
    let hundred: Vec<_> = (0..100).map(one).collect();
    let reply = post(server.address, &Value::from(hundred.clone()).to_string())
        .await
        .json();
    let ids: Vec<_> = reply
        .as_array()
        .expect("a batch")
        .iter()
        .map(|a| a["id"].as_u64())
        .collect();
    assert_eq!(ids, (0..100).map(Some).collect::<Vec<_>>());
    let more: Vec<_> = (0..101).map(one).collect();
    let reply = post(server.address, &Value::from(more).to_string())
        .await
        .json();
    assert_eq!(reply["error"]["code"], -32600);
    assert_eq!(reply["error"]["data"]["expected"], 100);
    assert_eq!(reply["error"]["data"]["received"], 101);
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_its_rule() {
    let server = start().await;
    let account = key(11).public().to_string();
    for (method, params, words) in [
        ("account_get", json!({}), "parameter `account` is missing"),
        ("account_get", json!([]), "parameter `account` is missing"),
        (
            "account_get",
            json!({"acount": account}),
            "unknown parameter `acount`: account_get takes one parameter (account)",
        ),
        (
            "account_get",
            json!([account, 1]),
            "account_get takes one parameter (account), 2 were given",
        ),
        (
            "node_info",
            json!([1]),
            "node_info takes no parameters, 1 were given",
        ),
        (
            "account_get",
            json!([7]),
            "parameter `account`: an account (bech32m, mill1…) is expected, got 7",
        ),
        (
            "account_get",
            json!([null]),
            "parameter `account`: an account",
        ),
        (
            "account_get",
            json!([account.replace("mill1", "bill1")]),
            "parameter `account`: an account",
        ),
        (
            "chain_getBlock",
            json!(["tail"]),
            "parameter `block`: a height",
        ),
        ("chain_getBlock", json!([-1]), "parameter `block`: a height"),
        (
            "chain_getBlock",
            json!([1.5]),
            "parameter `block`: a height",
        ),
        (
            "chain_getBlock",
            json!(["01"]),
            "parameter `block`: a height",
        ),
        (
            "chain_getBlock",
            json!(["head", "yes"]),
            "parameter `full`: true or false is expected",
        ),
        (
            "chain_getReceipt",
            json!(["0x12"]),
            "parameter `transaction`: a hash",
        ),
        ("tx_send", json!(["abcd"]), "parameter `transaction`: bytes"),
        (
            "tx_send",
            json!(["0xabc"]),
            "parameter `transaction`: bytes",
        ),
        (
            "task_list",
            json!({"limit": 0}),
            "parameter `limit`: a number from 1 to 200 is expected, got 0",
        ),
        (
            "task_list",
            json!({"limit": 201}),
            "parameter `limit`: a number from 1 to 200",
        ),
        (
            "task_list",
            json!({"limit": "5"}),
            "parameter `limit`: a number from 1 to 200",
        ),
        (
            "task_list",
            json!({"state": "lost"}),
            "parameter `state`: a state (open",
        ),
        (
            "task_list",
            json!({"state": {"open": null}}),
            "parameter `state`: a state (open",
        ),
        (
            "task_list",
            json!({"before": "1-+2"}),
            "parameter `before`: a cursor",
        ),
    ] {
        let error = call(server.address, method, &params).await["error"].clone();
        assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(words), "{method} {params}: {message}");
        assert_eq!(error["data"]["name"], "INVALID_PARAMS");
        assert_eq!(error["data"]["fault"], "caller");
    }
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"account_get","params":{{"account":"{account}","account":"{account}"}}}}"#
    );
    let reply = post(server.address, &body).await;
    assert_eq!(reply.code(), -32602);
    assert!(
        reply.body.contains("parameter `account` is given twice"),
        "{}",
        reply.body
    );
    // What is shown of a long text is short.
    let long = call(
        server.address,
        "account_get",
        &json!(["x".repeat(1_000_000)]),
    )
    .await;
    assert!(long.to_string().len() < 1_000);
}

#[tokio::test]
async fn an_unknown_method_is_named_and_the_nearest_suggested() {
    let server = start().await;
    for (given, near) in [
        ("task_gte", Some("task_get")),
        ("Chain_GetBlock", Some("chain_getBlock")),
        ("chain_get_head", Some("chain_getHead")),
        ("validators_list", Some("validator_list")),
        ("eth_blockNumber", None),
        ("", None),
    ] {
        let error = call(server.address, given, &json!([])).await["error"].clone();
        assert_eq!(error["code"], -32601);
        let message = error["message"].as_str().expect("text");
        assert!(
            message.contains(&format!("no method `{given}`")),
            "{message}"
        );
        assert_eq!(
            error["data"].get("nearest").and_then(Value::as_str),
            near,
            "{given}"
        );
    }
    let long = "m".repeat(1_000_000);
    let error = call(server.address, &long, &json!([])).await;
    assert!(error.to_string().len() < 1_000);
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let server = start().await;
    let calls = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "account_get", "params": [key(66).public()]},
        {"jsonrpc": "2.0", "id": 2, "method": "account_get", "params": [key(11).public()]},
    ]);
    let answers = post(server.address, &calls.to_string()).await.json();
    assert_eq!(answers[0]["error"]["code"], -32603);
    assert_eq!(answers[0]["error"]["data"]["fault"], "node");
    assert!(!answers.to_string().contains("the account that panics"));
    assert_eq!(answers[1]["result"]["nonce"], "2");
    assert_eq!(common::get(server.address, "/livez").await.status, 200);
}

#[tokio::test]
async fn an_internal_error_keeps_its_reason_for_the_log() {
    let server = start().await;
    let answer = call(server.address, "account_get", &json!([key(88).public()])).await;
    assert_eq!(answer["error"]["code"], -32603);
    assert!(!answer.to_string().contains("fire"));
}
