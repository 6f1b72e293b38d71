//! How the server holds up under greedy and slow clients: latency of other calls and memory.
//!
//! ```text
//! cargo bench -p proofmill-rpc --bench strain [-- --seconds 20 --rounds 3]
//! ```
//!
//! The server is a process of its own over a block of 4 MiB; so are its clients, which run at low
//! priority, as if they were on other machines. Each round measures ordinary calls (`node_health`
//! and `account_get`, every tenth on a new connection) first beside nobody, then beside each crowd:
//! - `greedy`: ten clients that send batches of 100 × `chain_getBlock` with all transactions;
//! - `slow`: 512 connections that send a head byte by byte and 512 that read an answer byte by byte;
//! - `both`;
//! - `one address`: 1,024 connections of one address, a byte each every 19 s.
#![allow(clippy::print_stdout, reason = "figures go to standard output")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Ledger, key, start_over};
use proofmill_rpc::http::Options;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Time between two ordinary calls.
const PROBE_PERIOD: Duration = Duration::from_millis(2);
/// An ordinary call without an answer after this long has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a crowd has to gather before it counts.
const GATHER: Duration = Duration::from_secs(3);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |flag: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match arguments.as_slice() {
        [role, ..] if role == "server" => runtime.block_on(serve()),
        [role, crowd, address, ..] if role == "crowd" => {
            let address = address.parse().expect("an address");
            runtime.block_on(gather(crowd, address));
        }
        _ => measure(&runtime, number("--seconds", 20), number("--rounds", 1)),
    }
}

/// The server's process: it says its address and ends with its standard input.
async fn serve() {
    let server = start_over(Ledger::with_full_block(), Options::default()).await;
    println!("{}", server.address);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.expect("no panic").ok();
}

fn measure(runtime: &tokio::runtime::Runtime, seconds: u64, rounds: u64) {
    let span = Duration::from_secs(seconds);
    println!(
        "crowd            calls  failed   p50 us   p99 us   max us  p99/idle  resident MiB (highest)"
    );
    for _ in 0..rounds {
        let mut idle_p99 = None;
        for crowd in ["idle", "greedy", "slow", "both", "one-address"] {
            let server = Process::start(&["server"], false);
            let mut line = String::new();
            let mut output = BufReader::new(server.output());
            output.read_line(&mut line).expect("the server's address");
            let address: SocketAddr = line.trim().parse().expect("an address");
            // The first calls warm the server up.
            runtime.block_on(probe(address, Duration::from_secs(1)));
            let others = (crowd != "idle")
                .then(|| Process::start(&["crowd", crowd, &address.to_string()], true));
            if others.is_some() {
                std::thread::sleep(GATHER);
            }
            let memory = Memory::watch(server.0.id());
            let mut seen = runtime.block_on(probe(address, span));
            let highest = memory.highest();
            seen.took_us.sort_unstable();
            let p99 = seen.percentile(99);
            let idle = *idle_p99.get_or_insert(p99);
            #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
            let ratio = p99 as f64 / idle as f64;
            println!(
                "{crowd:<14} {:>7} {:>7} {:>8} {p99:>8} {:>8} {ratio:>9.2}  {highest:>12}",
                seen.took_us.len(),
                seen.failed,
                seen.percentile(50),
                seen.percentile(100),
            );
            if let Some(others) = others {
                print!("{}", others.report());
            }
        }
    }
}

/// A process of this program, killed when dropped.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str], low: bool) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = match low {
            false => Command::new(program),
            true => {
                let mut nice = Command::new("nice");
                nice.args(["-n", "15"]).arg(program);
                nice
            }
        };
        let command = command.args(arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("a process"))
    }

    /// What it writes.
    fn output(&self) -> impl Read + use<> {
        let fd = self.0.stdout.as_ref().expect("it is piped");
        std::os::fd::AsFd::as_fd(fd)
            .try_clone_to_owned()
            .map(std::fs::File::from)
            .expect("a file descriptor")
    }

    /// Tells it to end and returns what it has to say.
    fn report(mut self) -> String {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.output().read_to_string(&mut text).ok();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Watches a process's resident memory.
struct Memory {
    done: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<u64>,
}

impl Memory {
    fn watch(pid: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let watching = std::thread::spawn(move || {
            let mut highest = 0;
            while !ended.load(Ordering::Relaxed) {
                highest = highest.max(resident_mib(pid));
                std::thread::sleep(Duration::from_millis(20));
            }
            highest
        });
        Self { done, watching }
    }

    fn highest(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.watching.join().expect("no panic")
    }
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// How ordinary calls went.
#[derive(Default)]
struct Seen {
    took_us: Vec<u64>,
    failed: u64,
}

impl Seen {
    fn percentile(&self, percent: usize) -> u64 {
        let at = (self.took_us.len() * percent / 100).min(self.took_us.len().saturating_sub(1));
        self.took_us.get(at).copied().unwrap_or(0)
    }
}

async fn probe(address: SocketAddr, span: Duration) -> Seen {
    let health = json!({"jsonrpc": "2.0", "id": 1, "method": "node_health"}).to_string();
    let account = key(11).public();
    let account = json!({"jsonrpc": "2.0", "id": 2, "method": "account_get", "params": [account]})
        .to_string();
    let requests = [request(address, &health), request(address, &account)];
    let mut seen = Seen::default();
    let mut connection: Option<TcpStream> = None;
    let begun = Instant::now();
    for turn in 0_usize.. {
        if begun.elapsed() > span {
            break;
        }
        sleep(PROBE_PERIOD).await;
        if turn % 10 == 0 {
            connection = None;
        }
        let asked = Instant::now();
        let call = ordinary(address, connection.take(), &requests[turn % 2]);
        match timeout(PROBE_TIMEOUT, call).await {
            Ok(Some(kept)) => {
                connection = Some(kept);
                let us = asked.elapsed().as_micros();
                seen.took_us.push(u64::try_from(us).expect("seconds"));
            }
            _ => seen.failed += 1,
        }
    }
    seen
}

/// One call; `None` unless it has a result.
async fn ordinary(
    address: SocketAddr,
    connection: Option<TcpStream>,
    request: &str,
) -> Option<TcpStream> {
    let mut stream = match connection {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.ok()?,
    };
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\"id\":1}") && !answer.ends_with(b"\"id\":2}") {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    let answer = String::from_utf8(answer).ok()?;
    answer.contains(r#""result":"#).then_some(stream)
}

fn request(address: SocketAddr, body: &str) -> String {
    format!(
        "POST /rpc HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a crowd met with.
#[derive(Default)]
struct Met {
    answers: AtomicU64,
    bytes: AtomicU64,
    largest: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

/// The process of a crowd: it ends with its standard input and then says what it met with.
async fn gather(crowd: &str, address: SocketAddr) {
    let met = Arc::new(Met::default());
    if matches!(crowd, "greedy" | "both") {
        for from in 0..10 {
            let from = Ipv4Addr::new(127, 0, 1, from + 1);
            tokio::spawn(greedy(from, address, Arc::clone(&met)));
        }
    }
    if matches!(crowd, "slow" | "both") {
        for from in 0..512_u16 {
            let [_, last] = (from % 128).to_be_bytes();
            let heads = Ipv4Addr::new(127, 0, 2, last + 1);
            tokio::spawn(slow_head(
                heads,
                address,
                Duration::from_secs(1),
                Arc::clone(&met),
            ));
            let readers = Ipv4Addr::new(127, 0, 3, last + 1);
            tokio::spawn(slow_reader(readers, address, Arc::clone(&met)));
        }
    }
    if crowd == "one-address" {
        for _ in 0..1_024 {
            let from = Ipv4Addr::new(127, 0, 4, 1);
            tokio::spawn(slow_head(
                from,
                address,
                Duration::from_secs(19),
                Arc::clone(&met),
            ));
        }
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.expect("no panic").ok();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut text = String::new();
    writeln!(
        text,
        "               {} answers read, {} MiB, largest {} MiB; {} times refused, {} times cut off",
        of(&met.answers),
        of(&met.bytes) >> 20,
        of(&met.largest) >> 20,
        of(&met.refused),
        of(&met.cut)
    )
    .expect("a string takes everything");
    print!("{text}");
    std::io::stdout().flush().ok();
    std::process::exit(0);
}

/// A connection from an address of this machine.
async fn connect(from: Ipv4Addr, to: SocketAddr, buffer: Option<u32>) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).expect("a size");
    }
    socket.bind((from, 0).into()).expect("a loopback address");
    socket.connect(to).await.ok()
}

/// Asks for a hundred blocks at once and reads the answer as fast as it can, over and over.
async fn greedy(from: Ipv4Addr, address: SocketAddr, met: Arc<Met>) {
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "chain_getBlock", "params": ["head", true]});
    let body = json!(vec![call; 100]).to_string();
    let bytes = request(address, &body).replace("\r\nhost", "\r\nconnection: close\r\nhost");
    let mut buffer = vec![0; 1 << 20];
    loop {
        let Some(mut stream) = connect(from, address, None).await else {
            met.cut.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        stream.write_all(bytes.as_bytes()).await.ok();
        let mut length = 0;
        let mut good = false;
        let ended = loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break length > 0,
                Ok(read) => {
                    good |= length == 0 && buffer.starts_with(b"HTTP/1.1 200");
                    length += read as u64;
                }
                Err(_) => break false,
            }
        };
        let counter = match (ended, good) {
            (true, true) => &met.answers,
            (true, false) => &met.refused,
            (false, _) => &met.cut,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        met.bytes.fetch_add(length, Ordering::Relaxed);
        met.largest.fetch_max(length, Ordering::Relaxed);
        if !good {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sends the head of a request one byte at a time and begins anew when it is cut off.
async fn slow_head(from: Ipv4Addr, address: SocketAddr, pause: Duration, met: Arc<Met>) {
    let head = request(address, "{}");
    loop {
        if let Some(mut stream) = connect(from, address, None).await {
            let mut answer = [0; 64];
            for byte in head.bytes().take(60) {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                match timeout(pause, stream.read(&mut answer)).await {
                    Err(_) => {}
                    Ok(Ok(read)) if read > 0 => {
                        met.refused.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Ok(_) => {
                        met.cut.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Asks for a block and reads the answer one byte at a time; begins anew when it is cut off.
async fn slow_reader(from: Ipv4Addr, address: SocketAddr, met: Arc<Met>) {
    let body =
        json!({"jsonrpc": "2.0", "id": 1, "method": "chain_getBlock", "params": ["head", true]});
    let request = request(address, &body.to_string());
    loop {
        if let Some(mut stream) = connect(from, address, Some(4_096)).await {
            stream.write_all(request.as_bytes()).await.ok();
            let mut begun = Vec::new();
            while stream.read_u8().await.map(|byte| begun.push(byte)).is_ok() {
                if begun.len() == 12 && !begun.ends_with(b"200") {
                    met.refused.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                if begun.len() > 12 {
                    sleep(Duration::from_millis(500)).await;
                }
            }
            if begun.len() != 12 {
                met.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}
