//! What no honest client sends: bodies and transactions as raw bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use proofmill_chain::crypto::sign::SecretKey;
use proofmill_chain::types::transaction::{Action, SignedTransaction, Transaction};
use proofmill_chain::types::units::{Amount, Height};
use proofmill_node::dev_keys;
use serde_json::{Value, json};

use super::{Devnet, PATIENCE};

/// Sends a body as it is; gives the status and the answer.
#[track_caller]
pub(crate) fn post(rpc: &str, announced: usize, body: &[u8]) -> (u16, Value) {
    let address = rpc
        .trim_start_matches("http://")
        .trim_end_matches("/rpc")
        .to_owned();
    let mut stream = TcpStream::connect(&address).expect("the node listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {announced}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(body).expect("a body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = serde_json::from_str(body).expect("JSON");
    (status.expect("a status"), body)
}

#[track_caller]
pub(crate) fn assert_error(answer: &Value, code: i64, name: &str, words: &[&str]) {
    let error = &answer["error"];
    assert_eq!(error["code"], code, "{answer}");
    assert_eq!(error["data"]["name"], name, "{answer}");
    let message = error["message"].as_str().expect("a message");
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
}

/// Sends bytes as a transaction; they must be refused.
#[track_caller]
pub(crate) fn assert_refused(devnet: &Devnet, bytes: &[u8], code: i64, name: &str, words: &[&str]) {
    let body = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tx_send",
        "params": { "transaction": format!("0x{}", hex::encode(bytes)) },
    })
    .to_string();
    let (status, answer) = post(devnet.rpc(), body.len(), body.as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_error(&answer, code, name, words);
}

/// A transfer that would be good, for changing one thing.
pub(crate) fn transfer(devnet: &Devnet, key: &SecretKey) -> Transaction {
    let info = devnet.client.node_info().expect("an answer");
    let sender = key.public();
    Transaction {
        chain: info.genesis_hash.prefix(),
        sender,
        nonce: devnet
            .client
            .account(&sender)
            .expect("an account")
            .next_nonce,
        max_fee: Amount::new(1_000_000),
        tip: Amount::ZERO,
        expires_at: Height::new(1_000_000),
        sponsor: None,
        action: Action::Transfer {
            to: dev_keys::account(9).public(),
            amount: Amount::new(7),
        },
    }
}

pub(crate) fn signed(
    devnet: &Devnet,
    key: &SecretKey,
    transaction: Transaction,
) -> SignedTransaction {
    let genesis = devnet.ready.genesis_hash;
    SignedTransaction {
        signature: key.sign(&transaction.sign_bytes(&genesis)),
        transaction,
        sponsor_signature: None,
    }
}
