//! A small ledger in memory behind the real server, and raw HTTP to talk to it.
#![allow(dead_code, reason = "each test file uses a part")]

mod ledger;
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use proofmill_rpc::http::{Options, Server, Usage};
use proofmill_rpc::port::Ports;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use ledger::Ledger;
pub(crate) use sample::key;

/// A running server.
pub(crate) struct Running {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) address: SocketAddr,
    pub(crate) usage: Usage,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
}

/// Starts a server on a free port.
pub(crate) async fn start_with(options: Options) -> Running {
    start_over(Ledger::new(), options).await
}

/// Starts a server over a ledger on a free port.
pub(crate) async fn start_over(ledger: Ledger, options: Options) -> Running {
    let ledger = Arc::new(ledger);
    let ports = Ports {
        query: ledger.clone(),
        submit: ledger.clone(),
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(any, ports, options).await.expect("a port");
    let address = server.address();
    let usage = server.usage();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve(async move {
        stopped.await.ok();
    }));
    Running {
        ledger,
        address,
        usage,
        stop,
        served,
    }
}

pub(crate) async fn start() -> Running {
    start_with(Options::default()).await
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the error it carries.
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().expect("an error")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends exact bytes and reads until the server closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("the request is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    reply_of(&answer).expect("a head and a status")
}

/// The reply in these bytes, if they are one.
pub(crate) fn reply_of(bytes: &[u8]) -> Option<Reply> {
    let answer = std::str::from_utf8(bytes).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Reply {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.into(),
        body: body.into(),
    })
}

/// Posts a body with these additional header lines, each with its line end.
pub(crate) async fn post_with(address: SocketAddr, headers: &str, body: &[u8]) -> Reply {
    let mut bytes = format!(
        "POST /rpc HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    exchange(address, &bytes).await
}

pub(crate) async fn post(address: SocketAddr, body: &str) -> Reply {
    post_with(
        address,
        "content-type: application/json\r\n",
        body.as_bytes(),
    )
    .await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

/// Calls a method and gives its whole answer.
pub(crate) async fn call(address: SocketAddr, method: &str, params: &Value) -> Value {
    let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let reply = post(address, &body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}
