//! Every limit of the server, and what whoever reaches it is told.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Ledger, Reply, Running, key, post, reply_of, start, start_over, start_with};
use proofmill_rpc::http::Options;
use proofmill_rpc::limits::{
    ANSWER_BYTES_MAX, BODIES_BYTES_MAX, HEAD_BYTES_MAX, HTTP_BODY_MAX, ID_BYTES_MAX, LOOKUPS_MAX,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const HEALTH: &str = r#"{"jsonrpc":"2.0","id":1,"method":"node_health"}"#;
const JSON: &str = "content-type: application/json\r\n";
/// Anything that must happen has happened by then, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call that waits at the ledger's gate.
fn waiting() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "account_get", "params": [key(77).public()]})
        .to_string()
}

fn block() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "chain_getBlock", "params": ["head", true]})
}

fn request(body: &str) -> String {
    format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A connection from an address of this machine.
async fn connect_from(last: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a size");
    let from = Ipv4Addr::new(127, 0, 0, last);
    socket.bind((from, 0).into()).expect("a loopback address");
    socket.connect(address).await.expect("connects")
}

/// All that a connection gives until it ends, whichever way.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // An error is an end as well.
    let _ = ended.expect("the connection ends");
    bytes
}

/// Waits until `holds`.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Calls again and again until the reply has this status.
async fn call_until(server: &Running, from: u8, status: u16) -> Reply {
    let once = async || {
        let mut stream = connect_from(from, server.address).await;
        let request = request(HEALTH).replace("\r\nhost", "\r\nconnection: close\r\nhost");
        stream.write_all(request.as_bytes()).await.ok();
        reply_of(&rest(stream).await)
    };
    let repeated = async {
        loop {
            match once().await {
                Some(reply) if reply.status == status => return reply,
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, repeated)
        .await
        .expect("the status in time")
}

#[tokio::test]
async fn a_head_has_a_time_and_an_idle_connection_too() {
    let server = start_with(Options {
        head_timeout: Duration::from_millis(300),
        ..Options::default()
    })
    .await;
    let mut slow = connect_from(1, server.address).await;
    slow.write_all(b"POST /rpc HTTP/1.1\r\nhos")
        .await
        .expect("sent");
    let reply = reply_of(&rest(slow).await).expect("an answer");
    assert_eq!((reply.status, reply.code()), (408, -32034));
    // A byte now and then does not help.
    let mut dripping = connect_from(1, server.address).await;
    let drip = async {
        while dripping.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, drip).await.expect("it is cut off");
    // Silence is ended silently, before a request and after one.
    let silent = connect_from(1, server.address).await;
    assert!(rest(silent).await.is_empty());
    let mut kept = connect_from(1, server.address).await;
    kept.write_all(request(HEALTH).as_bytes())
        .await
        .expect("sent");
    let reply = reply_of(&rest(kept).await).expect("an answer");
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_head_has_a_largest_size() {
    let server = start().await;
    let header = format!("x: {}\r\n{JSON}", "y".repeat(2 * HEAD_BYTES_MAX));
    let mut stream = connect_from(1, server.address).await;
    let head = format!("POST /rpc HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
    stream.write_all(head.as_bytes()).await.ok();
    let answer = rest(stream).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    assert_eq!(post(server.address, HEALTH).await.status, 200);
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let server = start_with(Options {
        connections_per_address_max: 2,
        ..Options::default()
    })
    .await;
    let address = server.address;
    let at_work = [(); 2].map(|()| tokio::spawn(async move { post(address, &waiting()).await }));
    server.ledger.waits.notified().await;
    until("both at work", || server.usage.requests() == 2).await;
    let refused = call_until(&server, 1, 429).await;
    assert_eq!(refused.code(), -32036);
    assert_eq!(refused.json()["error"]["data"]["most"], 2);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(call_until(&server, 2, 200).await.status, 200);
    for call in at_work {
        // One waits for the gate, the other may not be there yet: each opening lets one pass.
        server.ledger.gate.notify_one();
        let opened = async {
            let mut call = call;
            while timeout(Duration::from_millis(50), &mut call).await.is_err() {
                server.ledger.gate.notify_one();
            }
        };
        timeout(PATIENCE, opened).await.expect("the calls end");
    }
    call_until(&server, 1, 200).await;
}

#[tokio::test]
async fn connections_have_a_largest_number() {
    let server = start_with(Options {
        connections_max: 1,
        ..Options::default()
    })
    .await;
    let address = server.address;
    let first = tokio::spawn(async move { post(address, &waiting()).await });
    server.ledger.waits.notified().await;
    let refused = call_until(&server, 2, 503).await;
    assert_eq!(refused.code(), -32036);
    assert_eq!(refused.header("retry-after"), Some("1"));
    server.ledger.gate.notify_one();
    assert_eq!(first.await.expect("no panic").status, 200);
    call_until(&server, 2, 200).await;
}

#[tokio::test]
async fn connections_that_only_sit_make_room_for_others() {
    let server = start_with(Options {
        connections_max: 16,
        connections_per_address_max: 8,
        ..Options::default()
    })
    .await;
    // The node is full of heads that do not end, from three addresses.
    let mut slow = Vec::new();
    for from in [2, 3, 4].iter().cycle().take(16) {
        let mut stream = connect_from(*from, server.address).await;
        stream
            .write_all(b"POST /rpc HTTP/1.1\r\n")
            .await
            .expect("sent");
        slow.push(stream);
    }
    until("all are in", || server.usage.connections() == 16).await;
    // One of their addresses calls, and another.
    call_until(&server, 2, 200).await;
    call_until(&server, 5, 200).await;
    assert!(server.usage.connections() <= 16);
}

#[tokio::test]
async fn an_id_has_a_largest_size() {
    let server = start().await;
    let call = |length: usize| {
        json!({"jsonrpc": "2.0", "id": "x".repeat(length), "method": "node_health"}).to_string()
    };
    let reply = post(server.address, &call(ID_BYTES_MAX - 2)).await;
    assert_eq!(reply.json()["result"]["live"], true);
    let reply = post(server.address, &call(ID_BYTES_MAX)).await;
    assert_eq!((reply.status, reply.code()), (200, -32600));
    assert_eq!(reply.json()["error"]["data"]["expected"], ID_BYTES_MAX);
    assert_eq!(reply.json()["id"], Value::Null);
}

#[tokio::test]
async fn the_answers_to_a_batch_have_a_largest_size() {
    let server = start_over(Ledger::with_full_block(), Options::default()).await;
    let one = post(server.address, &block().to_string()).await;
    assert!(one.json()["result"].is_object());
    let fit = ANSWER_BYTES_MAX / one.body.len();
    assert!(fit >= 1, "a full block is answered");
    let mut calls = vec![block(); 99];
    calls.push(serde_json::from_str(HEALTH).expect("JSON"));
    let reply = post(server.address, &json!(calls).to_string()).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.body.len() < ANSWER_BYTES_MAX + (100 << 10),
        "{}",
        reply.body.len()
    );
    let answers = reply.json();
    let answers = answers.as_array().expect("an array");
    assert_eq!(answers.len(), 100);
    for (place, answer) in answers.iter().enumerate() {
        let error = &answer["error"];
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!(answer["result"].is_object(), place < fit, "{place}");
        if place >= fit {
            assert_eq!(error["data"]["name"], "ANSWER_TOO_LARGE");
            assert_eq!(error["data"]["most"], ANSWER_BYTES_MAX);
            assert_eq!(
                message.starts_with("not performed"),
                place > fit,
                "{place}: {message}"
            );
        }
    }
    // Notifications are counted as well: what they would be answered costs as much.
    let mut calls = vec![json!({"jsonrpc": "2.0", "method": "node_health"}); 99];
    calls.push(block());
    let reply = post(server.address, &json!(calls).to_string()).await;
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1));
    until("everything is given back", || {
        server.usage.answer_bytes() == 0
    })
    .await;
    until("so are the slots", || server.usage.requests() == 0).await;
}

/// Asks for a full block and does not read the answer.
async fn ask_and_wait(from: u8, address: SocketAddr) -> TcpStream {
    let mut stream = connect_from(from, address).await;
    let request = request(&block().to_string());
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn slow_readers_count_until_they_are_cut_off() {
    let options = Options {
        head_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(2),
        answers_bytes_max: 2 * ANSWER_BYTES_MAX,
        ..Options::default()
    };
    let server = start_over(Ledger::with_full_block(), options).await;
    let mut readers = Vec::new();
    for turn in 0..40 {
        readers.push(ask_and_wait(turn % 8 + 2, server.address).await);
    }
    until("answers wait to be read", || {
        server.usage.answer_bytes() > 0
    })
    .await;
    // Whatever they hold, others are served, and it stays within the budget.
    for _ in 0..20 {
        assert!(server.usage.answer_bytes() <= 2 * ANSWER_BYTES_MAX);
        assert_eq!(post(server.address, HEALTH).await.status, 200);
    }
    // A block as well: those that do not read are cut off.
    let reply = timeout(PATIENCE, post(server.address, &block().to_string())).await;
    let reply = reply.expect("an answer");
    assert!(matches!(reply.status, 200 | 503), "{}", reply.status);
    until("all are cut off", || server.usage.requests() == 0).await;
    assert_eq!(server.usage.answer_bytes(), 0);
    for reader in readers {
        let read = rest(reader).await;
        assert!(
            read.len() < 4 << 20,
            "cut off before the end: {}",
            read.len()
        );
    }
    let reply = post(server.address, &block().to_string()).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn requests_with_large_answers_leave_slots_to_others() {
    let options = Options {
        requests_max: 2,
        ..Options::default()
    };
    let server = start_over(Ledger::with_full_block(), options).await;
    let _reader = ask_and_wait(2, server.address).await;
    until("its answer waits", || server.usage.requests() == 1).await;
    until("its answer waits", || server.usage.answer_bytes() > 0).await;
    let refused = post(server.address, &block().to_string()).await;
    if refused.status == 503 {
        assert_eq!(refused.code(), -32031);
        assert_eq!(refused.json()["id"], 1, "a call that was read keeps its id");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    call_until(&server, 1, 200).await;
    // The reader has its second; then its slot is another's.
    let served = async { while post(server.address, &block().to_string()).await.status != 200 {} };
    timeout(PATIENCE, served).await.expect("the block");
}

#[tokio::test]
async fn hanging_up_does_not_free_a_slot() {
    let server = start_with(Options {
        requests_max: 1,
        ..Options::default()
    })
    .await;
    let mut gone = connect_from(2, server.address).await;
    gone.write_all(request(&waiting()).as_bytes())
        .await
        .expect("sent");
    server.ledger.waits.notified().await;
    drop(gone);
    until("the connection is closed", || {
        server.usage.connections() == 0
    })
    .await;
    let refused = post(server.address, HEALTH).await;
    assert_eq!((refused.status, refused.code()), (503, -32031));
    server.ledger.gate.notify_one();
    until("the call has ended", || server.usage.requests() == 0).await;
    assert_eq!(post(server.address, HEALTH).await.status, 200);
}

/// Sends a call from an address of this machine and gives the reply.
async fn post_from(from: u8, address: SocketAddr, body: &[u8]) -> Reply {
    let mut stream = connect_from(from, address).await;
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{JSON}content-length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses may close before it has read everything.
    stream.write_all(head.as_bytes()).await.ok();
    stream.write_all(body).await.ok();
    reply_of(&rest(stream).await).expect("an answer")
}

#[tokio::test]
async fn one_address_cannot_hold_every_slot() {
    let options = Options {
        requests_max: 4,
        ..Options::default()
    };
    let server = start_with(options).await;
    let address = server.address;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        calls.spawn(async move { post_from(2, address, waiting().as_bytes()).await });
    }
    // The first reply is a refusal: the address holds all that it can.
    let refused = calls.join_next().await.expect("a call").expect("no panic");
    assert_eq!((refused.status, refused.code()), (503, -32031));
    assert_eq!(server.usage.requests(), 3);
    for from in [1, 3] {
        let reply = post_from(from, address, HEALTH.as_bytes()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    // However many of its calls wait, a slot that is given back is for one that holds less.
    calls.spawn(async move { post_from(3, address, waiting().as_bytes()).await });
    until("another address has the last slot", || {
        server.usage.requests() == 4
    })
    .await;
}

/// A body of the largest size, all but its last byte.
async fn send_most_of_a_body(from: u8, address: SocketAddr) -> TcpStream {
    let mut stream = connect_from(from, address).await;
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: {HTTP_BODY_MAX}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let part = vec![b' '; HTTP_BODY_MAX - 1];
    stream.write_all(&part).await.expect("sent");
    stream
}

#[tokio::test]
async fn bodies_have_a_budget_and_who_is_slow_to_send_gives_way() {
    let server = start().await;
    let address = server.address;
    let (bodies, of_one) = (BODIES_BYTES_MAX / HTTP_BODY_MAX, 6);
    let room = |bodies: usize| bodies * (HTTP_BODY_MAX - (64 << 10));
    let mut senders = Vec::new();
    for _ in 0..of_one {
        senders.push(send_most_of_a_body(2, address).await);
    }
    until("its share is used up", || {
        server.usage.body_bytes() > room(of_one)
    })
    .await;
    let mut body = HEALTH.as_bytes().to_vec();
    body.resize(HTTP_BODY_MAX, b' ');
    assert_eq!(post_from(1, address, &body).await.status, 200);
    for _ in of_one..bodies {
        senders.push(send_most_of_a_body(3, address).await);
    }
    until("the budget is used up", || {
        server.usage.body_bytes() > room(bodies)
    })
    .await;
    // Small bodies need none of it.
    for from in [1, 2] {
        let reply = post_from(from, address, HEALTH.as_bytes()).await;
        assert_eq!(reply.status, 200);
    }
    let mut ended = JoinSet::new();
    for sender in senders {
        ended.spawn(rest(sender));
    }
    // Who has nothing waits in turn; once the others were awaited for long enough, one makes room.
    let served = async {
        loop {
            let reply = post_from(1, address, &body).await;
            match reply.status {
                200 => return,
                status => assert_eq!((status, reply.code()), (503, -32031)),
            }
        }
    };
    timeout(PATIENCE, served).await.expect("its turn");
    let first = ended.join_next().await.expect("one").expect("no panic");
    assert!(first.is_empty(), "it was cut off; its time was not over");
    drop(ended);
    until("the budget is free", || server.usage.body_bytes() == 0).await;
    assert_eq!(post_from(2, address, &body).await.status, 200);
}

#[tokio::test]
async fn a_lookup_that_waits_for_room_keeps_nobody_from_theirs() {
    let options = Options {
        answers_bytes_max: ANSWER_BYTES_MAX,
        ..Options::default()
    };
    let server = start_over(Ledger::with_program(), options).await;
    let address = server.address;
    // All room for large answers is a batch's, which waits at the gate.
    let gate: Value = serde_json::from_str(&waiting()).expect("JSON");
    let batch = json!([block(), gate]).to_string();
    let mut calls = JoinSet::new();
    calls.spawn(async move { post_from(2, address, batch.as_bytes()).await });
    server.ledger.waits.notified().await;
    assert_eq!(server.usage.answer_bytes(), ANSWER_BYTES_MAX);
    let call = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
    };
    let large = call("tx_get", json!([server.ledger.transfer_id()]));
    for from in (3..).take(LOOKUPS_MAX) {
        let large = large.clone();
        calls.spawn(async move { post_from(from, address, large.as_bytes()).await });
    }
    // They have read what they looked for, and their answers are too large for their slots.
    until("as many lookups as may be have ended", || {
        server.ledger.transaction_calls.load(Ordering::SeqCst) == LOOKUPS_MAX as u64
    })
    .await;
    let head = post_from(1, address, call("chain_getHead", json!([])).as_bytes()).await;
    assert_eq!(head.status, 200, "{head:?}");
    until("they wait for room all the while", || {
        server.usage.requests() == 1 + LOOKUPS_MAX
    })
    .await;
    server.ledger.gate.notify_one();
}
