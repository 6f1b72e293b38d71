//! The client against a real server, and against servers that are none.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Running, key, start, start_with};
use proofmill_rpc::api::{
    AccountView, BlockView, NodeInfo, TaskPage, TaskResult, TaskView, TransactionView,
    ValidatorsView, WorkerPage,
};
use proofmill_rpc::client::{CALL_TIMEOUT, Client, ClientError};
use proofmill_rpc::http::Options;
use serde_json::{Value, json};

/// Runs a blocking piece of test beside the server.
async fn blocking<T: Send + 'static>(
    server: &Running,
    timeout: Duration,
    test: impl FnOnce(&Client) -> T + Send + 'static,
) -> T {
    let url = format!("http://{}", server.address);
    let client = Client::new(&url, timeout).expect("an address");
    assert_eq!(client.url(), format!("{url}/rpc"));
    let task = tokio::task::spawn_blocking(move || test(&client));
    task.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_reads_back_as_its_type() {
    let server = start().await;
    let account = key(11).public();
    let [open, finished] = [0, 1].map(|index| server.ledger.tasks[index].id);
    let transfer = server.ledger.transfer_id();
    let expected = server.ledger.block.clone();
    blocking(&server, CALL_TIMEOUT, move |client| {
        let info: NodeInfo = client.call("node_info", &json!([])).expect("info");
        assert_eq!(info.chain_id, "proofmill:devnet-1");
        let read: AccountView = client.call("account_get", &(account,)).expect("account");
        assert_eq!((read.account, read.balance.get()), (account, 5_000_000_000));
        for full in [false, true] {
            let block: BlockView = client
                .call("chain_getBlock", &("head", full))
                .expect("block");
            assert_eq!(block.header, expected.header);
        }
        let sent: TransactionView = client.call("tx_get", &(transfer,)).expect("transaction");
        assert_eq!(sent.body.as_ref(), expected.transactions.first());
        for task in [open, finished] {
            let view: TaskView = client.call("task_get", &(task, true, true)).expect("task");
            assert_eq!(view.task.id, task);
        }
        let result: TaskResult = client.call("task_getResult", &(finished,)).expect("result");
        assert_eq!(result.output.as_bytes(), b"42");
        let _: TaskPage = client
            .call("task_list", &json!({"limit": 1}))
            .expect("tasks");
        let _: WorkerPage = client.call("worker_list", &json!([])).expect("workers");
        let _: ValidatorsView = client
            .call("validator_list", &json!([]))
            .expect("validators");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_node_comes_whole() {
    let server = start().await;
    let task = server.ledger.tasks[0].id;
    let error = blocking(&server, CALL_TIMEOUT, move |client| {
        client.call::<_, Value>("task_getResult", &(task,)).err()
    })
    .await
    .expect("an error");
    assert_eq!(error.to_string(), "the task is open (-32002)");
    let rpc = error.rpc().expect("the node's");
    assert_eq!((rpc.code, rpc.name()), (-32002, "TASK_NOT_FINAL"));
    assert_eq!(rpc.data["state"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_transport_is_an_error_of_the_node_too() {
    let server = start_with(Options {
        requests_max: 0,
        ..Options::default()
    })
    .await;
    let error = blocking(&server, CALL_TIMEOUT, |client| {
        client.call::<_, Value>("node_info", &json!([])).err()
    })
    .await;
    let error = error.expect("an error");
    assert_eq!(error.rpc().map(|rpc| rpc.name()), Some("OVERLOADED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_a_time_out() {
    let server = start().await;
    let waits = key(77).public();
    let error = blocking(&server, Duration::from_millis(300), move |client| {
        client.call::<_, Value>("account_get", &(waits,)).err()
    })
    .await;
    let error = error.expect("an error");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(
        error.to_string().contains("did not answer within 300 ms"),
        "{error}"
    );
}

#[test]
fn nobody_there_is_said_plainly() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let client = Client::new(&format!("http://{address}/rpc"), CALL_TIMEOUT).expect("an address");
    let error = client
        .call::<_, Value>("node_info", &json!([]))
        .expect_err("nobody");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("cannot connect to http://127.0.0.1:"),
        "{error}"
    );
}

#[test]
fn an_address_must_be_one() {
    for url in [
        "",
        "localhost",
        "127.0.0.1:26650",
        "ftp://host/rpc",
        "http://",
        "http:///rpc",
    ] {
        let error = Client::new(url, CALL_TIMEOUT).expect_err("not an address");
        assert!(matches!(error, ClientError::Url { .. }), "{url}: {error}");
    }
}

/// A server that reads one request and answers with these bytes.
fn answering(answer: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}/rpc", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut read = Vec::new();
        let mut piece = [0; 4096];
        while !read.ends_with(b"}") {
            let count = stream.read(&mut piece).expect("a request");
            read.extend_from_slice(&piece[..count]);
        }
        stream.write_all(answer.as_bytes()).expect("sent");
    });
    (url, thread)
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn error_of(answer: String) -> ClientError {
    let (url, thread) = answering(answer);
    let client = Client::new(&url, CALL_TIMEOUT).expect("an address");
    let error = client
        .call::<_, AccountView>("account_get", &json!([]))
        .expect_err("bad");
    thread.join().expect("no panic");
    error
}

#[test]
fn what_is_not_a_node_is_told_apart() {
    let error = error_of(http("502 Bad Gateway", "<html>no upstream</html>"));
    assert!(
        matches!(&error, ClientError::Http { status: 502, body, .. } if body.contains("no upstream")),
        "{error}"
    );
    for body in [
        "<html>hello</html>",
        "",
        "[]",
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"account":"x"}}"#,
    ] {
        let error = error_of(http("200 OK", body));
        assert!(
            matches!(error, ClientError::Malformed { .. }),
            "{body}: {error}"
        );
    }
    let error = error_of(String::new());
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
    let error = error_of("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".into());
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
}
