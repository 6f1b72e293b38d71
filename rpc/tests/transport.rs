//! HTTP to the letter: routes, statuses, limits, time-outs, origins, start and stop.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Ledger, call, exchange, get, key, post, post_with, start, start_with};
use proofmill_rpc::http::{HTTP_BODY_MAX, Options, Server, StartError};
use proofmill_rpc::port::Ports;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEALTH: &str = r#"{"jsonrpc":"2.0","id":1,"method":"node_health"}"#;
const JSON: &str = "content-type: application/json\r\n";

/// A call that waits at the ledger's gate.
fn waiting() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "account_get", "params": [key(77).public()]})
        .to_string()
}

#[tokio::test]
async fn only_post_calls() {
    let server = start().await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let bytes =
            format!("{method} /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let reply = exchange(server.address, bytes.as_bytes()).await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("POST"));
        assert_eq!(reply.code(), -32600);
    }
    assert_eq!(get(server.address, "/nothing").await.status, 404);
    assert_eq!(get(server.address, "/").await.code(), -32600);
}

#[tokio::test]
async fn the_content_type_is_json() {
    let server = start().await;
    for (header, status) in [
        ("", 415),
        ("content-type: text/plain\r\n", 415),
        ("content-type: application/x-www-form-urlencoded\r\n", 415),
        ("content-type: application/json-seq\r\n", 415),
        ("content-type: application/json\r\n", 200),
        ("content-type: Application/JSON; charset=utf-8\r\n", 200),
    ] {
        let reply = post_with(server.address, header, HEALTH.as_bytes()).await;
        assert_eq!(reply.status, status, "{header}");
    }
    assert_eq!(post_with(server.address, "", b"{}").await.code(), -32600);
}

#[tokio::test]
async fn a_body_has_a_largest_size() {
    let server = start().await;
    // The largest body is read, blanks and all.
    let mut body = HEALTH.as_bytes().to_vec();
    body.resize(HTTP_BODY_MAX, b' ');
    assert_eq!(post_with(server.address, JSON, &body).await.status, 200);
    body.push(b' ');
    let reply = post_with(server.address, JSON, &body).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.code(), -32600);
    assert_eq!(reply.json()["error"]["data"]["expected"], HTTP_BODY_MAX);
    // The same without an announced length.
    let mut chunked = b"POST /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(exchange(server.address, &chunked).await.status, 413);
    // A client that asks first is refused before it sends.
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{JSON}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        1_u64 << 40
    );
    assert_eq!(exchange(server.address, head.as_bytes()).await.status, 413);
}

#[tokio::test]
async fn health_has_its_own_routes() {
    let server = start().await;
    assert_eq!(get(server.address, "/livez").await.status, 200);
    let ready = get(server.address, "/readyz").await;
    assert_eq!(
        (ready.status, ready.json()["ready"].clone()),
        (200, json!(true))
    );
    server.ledger.ready.store(false, Ordering::SeqCst);
    assert_eq!(get(server.address, "/livez").await.status, 200);
    let ready = get(server.address, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reasons"][0], "catching up: 12 blocks behind");
    // A node that is stuck says so, or says nothing: neither is alive.
    server.ledger.live.store(false, Ordering::SeqCst);
    assert_eq!(get(server.address, "/livez").await.status, 503);
    server.ledger.silent.store(true, Ordering::SeqCst);
    let silent = get(server.address, "/livez").await;
    assert_eq!((silent.status, silent.code()), (503, -32032));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("connects");
    let request = |close: &str, body: &str| {
        format!(
            "POST /rpc HTTP/1.1\r\nhost: localhost\r\n{JSON}{close}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    // Pipelined: an answered call, a notification, a call that closes.
    let notify = r#"{"jsonrpc":"2.0","method":"node_health"}"#;
    let all =
        request("", HEALTH) + &request("", notify) + &request("connection: close\r\n", HEALTH);
    stream.write_all(all.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let statuses: Vec<_> = answer.matches("HTTP/1.1 2").collect();
    assert_eq!(statuses.len(), 3, "{answer}");
    assert_eq!(answer.matches("204 No Content").count(), 1);
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered() {
    let server = start_with(Options {
        request_timeout: Duration::from_millis(300),
        ..Options::default()
    })
    .await;
    let reply = post(server.address, &waiting()).await;
    assert_eq!((reply.status, reply.code()), (200, -32032));
    assert!(reply.body.contains("no answer within 300 ms"));
    // A body that never comes whole is answered too.
    let head =
        format!("POST /rpc HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 10\r\n\r\n{{");
    let reply = exchange(server.address, head.as_bytes()).await;
    assert_eq!((reply.status, reply.code()), (408, -32034));
    // One that was announced as too long is refused for its length, even if it never comes.
    let announced = HTTP_BODY_MAX + 1;
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {announced}\r\n\r\n{{"
    );
    let reply = exchange(server.address, head.as_bytes()).await;
    assert_eq!((reply.status, reply.code()), (413, -32600));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_turned_away() {
    let server = start_with(Options {
        requests_max: 1,
        ..Options::default()
    })
    .await;
    let first = tokio::spawn(async move { post(server.address, &waiting()).await });
    server.ledger.waits.notified().await;
    let turned_away = post(server.address, HEALTH).await;
    assert_eq!((turned_away.status, turned_away.code()), (503, -32031));
    assert_eq!(turned_away.header("retry-after"), Some("1"));
    // Health is answered under load.
    assert_eq!(get(server.address, "/livez").await.status, 200);
    server.ledger.gate.notify_one();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(post(server.address, HEALTH).await.status, 200);
}

#[tokio::test]
async fn shutdown_lets_requests_at_work_end() {
    let server = start().await;
    let address = server.address;
    let at_work = tokio::spawn(async move { post(address, &waiting()).await });
    server.ledger.waits.notified().await;
    // An idle connection does not hold the server up.
    let _idle = TcpStream::connect(address).await.expect("connects");
    server.stop.send(()).expect("the server runs");
    server.ledger.gate.notify_one();
    assert_eq!(at_work.await.expect("no panic").status, 200);
    server.served.await.expect("no panic").expect("a clean end");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn origins_are_refused_unless_allowed() {
    let preflight = |address: SocketAddr, origin: &str| {
        let bytes = format!(
            "OPTIONS /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n"
        );
        async move { exchange(address, bytes.as_bytes()).await }
    };
    const ALLOWED: &str = "access-control-allow-origin";
    let closed = start().await;
    let reply = preflight(closed.address, "https://example.org").await;
    assert_eq!(reply.header(ALLOWED), None);
    let open = start_with(Options {
        allowed_origins: vec!["https://example.org".into()],
        ..Options::default()
    })
    .await;
    let reply = preflight(open.address, "https://example.org").await;
    assert_eq!(
        (reply.status, reply.header(ALLOWED)),
        (200, Some("https://example.org"))
    );
    let reply = preflight(open.address, "https://example.net").await;
    assert_eq!(reply.header(ALLOWED), None);
    let any = start_with(Options {
        allowed_origins: vec!["*".into()],
        ..Options::default()
    })
    .await;
    let reply = preflight(any.address, "https://example.net").await;
    assert_eq!(reply.header(ALLOWED), Some("*"));
}

#[tokio::test]
async fn a_host_that_is_not_the_nodes_is_refused() {
    let ask = |address: SocketAddr, head: &str| {
        let bytes = format!(
            "{head}\r\nconnection: close\r\n{JSON}content-length: {}\r\n\r\n{HEALTH}",
            HEALTH.len()
        );
        async move { exchange(address, bytes.as_bytes()).await }
    };
    let server = start_with(Options {
        allowed_origins: vec!["*".into()],
        allowed_hosts: vec!["node.example.org".into()],
        ..Options::default()
    })
    .await;
    for good in [
        "localhost",
        "127.0.0.1:26650",
        "[::1]",
        "node.example.org:80",
    ] {
        let reply = ask(
            server.address,
            &format!("POST /rpc HTTP/1.1\r\nhost: {good}"),
        )
        .await;
        assert_eq!(reply.status, 200, "{good}");
    }
    let reply = ask(
        server.address,
        "POST /rpc HTTP/1.1\r\nhost: evil.example:26650",
    )
    .await;
    assert_eq!((reply.status, reply.code()), (403, -32035));
    assert_eq!(
        reply.json()["error"]["data"]["received"],
        "evil.example:26650"
    );
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let reply = ask(
        server.address,
        "POST http://evil.example/rpc HTTP/1.1\r\nhost: localhost",
    )
    .await;
    assert_eq!((reply.status, reply.code()), (403, -32035));
    // Neither the other routes nor a preflight are answered.
    for head in [
        "GET /livez HTTP/1.1",
        "GET /readyz HTTP/1.1",
        "OPTIONS /rpc HTTP/1.1",
    ] {
        let reply = ask(server.address, &format!("{head}\r\nhost: evil.example")).await;
        assert_eq!((reply.status, reply.code()), (403, -32035), "{head}");
    }
    for head in [
        "POST /rpc HTTP/1.1\r\nx: y",
        "POST /rpc HTTP/1.1\r\nhost: a\r\nhost: localhost",
    ] {
        let reply = ask(server.address, head).await;
        assert_eq!((reply.status, reply.code()), (400, -32600), "{head}");
    }
}

async fn bind(address: SocketAddr, options: Options) -> Result<Server, StartError> {
    let ledger = Arc::new(Ledger::new());
    let ports = Ports {
        query: ledger.clone(),
        submit: ledger,
    };
    Server::bind(address, ports, options).await
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let server = start().await;
    let error = bind(server.address, Options::default())
        .await
        .err()
        .expect("in use");
    assert!(matches!(error, StartError::InUse { address } if address == server.address));
    assert!(error.to_string().contains("the port is in use"), "{error}");
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = bind(elsewhere, Options::default())
        .await
        .err()
        .expect("not ours");
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_host_stops_the_start() {
    for host in ["", "https://example.org", "example.org:80", "Example.org"] {
        let options = Options {
            allowed_hosts: vec![host.into()],
            ..Options::default()
        };
        let error = bind(SocketAddr::from(([127, 0, 0, 1], 0)), options)
            .await
            .err();
        assert!(matches!(error, Some(StartError::Host { .. })), "{host}");
    }
}

#[tokio::test]
async fn a_wrong_origin_stops_the_start() {
    for origin in ["", "example.org", "https://", "https://a/b", "https://a\n"] {
        let options = Options {
            allowed_origins: vec![origin.into()],
            ..Options::default()
        };
        let error = bind(SocketAddr::from(([127, 0, 0, 1], 0)), options)
            .await
            .err();
        assert!(matches!(error, Some(StartError::Origin { .. })), "{origin}");
    }
}

#[tokio::test]
async fn a_running_server_names_its_port() {
    let server = start().await;
    assert_ne!(server.address.port(), 0);
    let answer = call(server.address, "node_info", &json!({})).await;
    assert_eq!(answer["result"]["moniker"], "node-0");
}
