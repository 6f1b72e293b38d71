//! How the server holds up under greedy and slow clients: latency of other calls and memory.
//!
//! ```text
//! cargo bench -p proofmill-rpc --bench strain [-- --seconds 20 --rounds 3 --pin --crowds idle,both]
//! ```
//!
//! The server is a process of its own over a block of 4 MiB; so are its clients, which run at low
//! priority, as if they were on other machines. Each round measures ordinary calls (`node_health`
//! and `account_get`, every tenth on a new connection) first beside nobody, then beside each crowd:
//! - `greedy`: ten clients that send batches of 100 × `chain_getBlock` with all transactions;
//! - `slow`: 512 connections that send a head byte by byte and 512 that read an answer byte by byte;
//! - `both`;
//! - `one-address`: 1,024 connections of one address, a byte each every 19 s.
//!
//! The clients are on the machine of the server after all, and take time from it that clients
//! elsewhere would not. The same ordinary calls are therefore sent to a second server that nobody
//! else calls: its column `beside` is what the machine alone costs, and what `p99` has beyond it is
//! the server's own. `--pin` keeps the servers on the first two processors and everyone else off
//! them; it takes four.
#![allow(clippy::print_stdout, reason = "figures go to standard output")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Ledger, key, start_over};
use proofmill_rpc::http::Options;
use proofmill_rpc::limits::{
    ANSWER_BYTES_SMALL, ANSWERS_BYTES_MAX, BODIES_BYTES_MAX, CONNECTIONS_MAX, REQUESTS_MAX,
    bulk_calls_max,
};
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

/// The crowds, in the order of the table.
const CROWDS: [&str; 5] = ["idle", "greedy", "slow", "both", "one-address"];
/// The system's unit of processor time: so many are a second.
const TICKS_PER_SECOND: u64 = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1))
    };
    let number = |flag: &str, default: u64| {
        value(flag)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match arguments.as_slice() {
        [role, ..] if role == "server" => runtime.block_on(serve()),
        [role, crowd, address, ..] if role == "crowd" => {
            let address = address.parse().expect("an address");
            runtime.block_on(gather(crowd, address));
        }
        _ => {
            let chosen = value("--crowds").map_or_else(|| CROWDS.join(","), Clone::clone);
            let measure = Measure {
                runtime,
                span: Duration::from_secs(number("--seconds", 20)),
                pin: arguments.iter().any(|argument| argument == "--pin"),
            };
            let crowds: Vec<&str> = chosen.split(',').collect();
            measure.table(&crowds, number("--rounds", 1));
        }
    }
}

/// The server's process: it says its address and ends with its standard input.
async fn serve() {
    let options = Options {
        large_thread: lower_priority,
        ..Options::default()
    };
    let server = start_over(Ledger::with_full_block(), options).await;
    println!("{}", server.address);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.expect("no panic").ok();
}

/// What a node does with a system call, done with a program.
fn lower_priority() {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let thread = link.file_name().unwrap_or_default();
    let mut renice = Command::new("renice");
    let renice = renice.args(["-n", "10", "-p"]).arg(thread);
    renice.stdout(Stdio::null()).status().expect("renice");
}

/// How it is measured.
struct Measure {
    runtime: tokio::runtime::Runtime,
    span: Duration,
    pin: bool,
}

/// What was seen beside a crowd.
struct Row {
    attacked: Seen,
    /// Of the server that nobody else calls.
    beside: Seen,
    peak_mib: u64,
    server_cores: f64,
    crowd_cores: f64,
    met: String,
}

/// What the server's memory stays below by its limits, as `docs/rpc.md` says it: bodies are counted
/// four times for what is read out of them.
fn memory_bound_mib() -> usize {
    let answers = ANSWERS_BYTES_MAX + REQUESTS_MAX * ANSWER_BYTES_SMALL;
    let connections = CONNECTIONS_MAX * (32 << 10);
    let calls = bulk_calls_max() * (40 << 20);
    let found = REQUESTS_MAX * (2 << 20);
    (answers + 4 * BODIES_BYTES_MAX + connections + calls + found) >> 20
}

impl Measure {
    fn table(&self, crowds: &[&str], rounds: u64) {
        println!(
            "memory stays below {} MiB by the limits",
            memory_bound_mib()
        );
        println!(
            "crowd          calls refused   cut  hung   p50 us   p99 us   max us p99/idle   beside p99 us p99/idle   peak MiB   cores: server clients"
        );
        for _ in 0..rounds {
            let mut idle = None;
            for crowd in crowds {
                let row = self.row(crowd);
                let (seen, beside) = (&row.attacked, &row.beside);
                let (p99, beside_p99) = (seen.percentile(99), beside.percentile(99));
                let (idle_p99, idle_beside) = *idle.get_or_insert((p99, beside_p99));
                #[allow(clippy::cast_precision_loss, reason = "ratios for people")]
                let ratio = |value: u64, idle: u64| value as f64 / idle.max(1) as f64;
                println!(
                    "{crowd:<12} {:>7} {:>7} {:>5} {:>5} {:>8} {p99:>8} {:>8} {:>8.2} {beside_p99:>15} {:>8.2} {:>10} {:>15.2} {:>7.2}",
                    seen.took_us.len(),
                    seen.refused,
                    seen.cut,
                    seen.hung,
                    seen.percentile(50),
                    seen.percentile(100),
                    ratio(p99, idle_p99),
                    ratio(beside_p99, idle_beside),
                    row.peak_mib,
                    row.server_cores,
                    row.crowd_cores,
                );
                print!("{}", row.met);
            }
        }
    }

    fn row(&self, crowd: &str) -> Row {
        let (server, address) = self.server();
        let (_beside, untouched) = self.server();
        let probes =
            |span| async move { tokio::join!(probe(address, span), probe(untouched, span)) };
        // The first calls warm the servers up.
        self.runtime.block_on(probes(Duration::from_secs(1)));
        let others = (crowd != "idle")
            .then(|| Process::start(&["crowd", crowd, &address.to_string()], true, self.pin));
        if others.is_some() {
            std::thread::sleep(GATHER);
        }
        let ticks = || [Some(&server), others.as_ref()].map(|of| of.map_or(0, Process::ticks));
        let (before, begun) = (ticks(), Instant::now());
        let (attacked, beside) = self.runtime.block_on(probes(self.span));
        let (after, took) = (ticks(), begun.elapsed());
        #[allow(clippy::cast_precision_loss, reason = "ratios for people")]
        let [server_cores, crowd_cores] = [0, 1].map(|of: usize| {
            (after[of] - before[of]) as f64 / TICKS_PER_SECOND as f64 / took.as_secs_f64()
        });
        Row {
            attacked: attacked.sorted(),
            beside: beside.sorted(),
            peak_mib: server.peak_mib(),
            server_cores,
            crowd_cores,
            met: others.map(Process::report).unwrap_or_default(),
        }
    }

    fn server(&self) -> (Process, SocketAddr) {
        let server = Process::start(&["server"], false, self.pin);
        let mut line = String::new();
        let mut output = BufReader::new(server.output());
        output.read_line(&mut line).expect("the server's address");
        let address = line.trim().parse().expect("an address");
        (server, address)
    }
}

/// A process of this program, killed when dropped.
struct Process(Child);

impl Process {
    /// A server, or a crowd at low priority.
    fn start(arguments: &[&str], crowd: bool, pin: bool) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if pin {
            let last = std::thread::available_parallelism().map_or(4, usize::from) - 1;
            let on = if crowd {
                format!("2-{last}")
            } else {
                "0-1".into()
            };
            words.extend(["taskset".into(), "-c".into(), on.into()]);
        }
        if crowd {
            words.extend(["nice", "-n", "15"].map(Into::into));
        }
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        let command = command.args(&words[1..]).args(arguments);
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

    /// The most memory it had resident.
    fn peak_mib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    }

    /// Processor time that it used, in ticks.
    fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // Behind the name, which may hold anything, user and system time are the 12th and 13th.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let times = fields.skip(11).take(2);
        times.filter_map(|field| field.parse::<u64>().ok()).sum()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// How ordinary calls went.
#[derive(Default)]
struct Seen {
    took_us: Vec<u64>,
    /// Answered with something else than a result.
    refused: u64,
    /// Not connected, or closed without an answer.
    cut: u64,
    /// Neither within [`PROBE_TIMEOUT`].
    hung: u64,
}

impl Seen {
    fn sorted(mut self) -> Self {
        self.took_us.sort_unstable();
        self
    }

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
            Ok(Some((kept, true))) => {
                connection = Some(kept);
                let us = asked.elapsed().as_micros();
                seen.took_us.push(u64::try_from(us).expect("seconds"));
            }
            Ok(Some((_, false))) => seen.refused += 1,
            Ok(None) => seen.cut += 1,
            Err(_) => seen.hung += 1,
        }
    }
    seen
}

/// One call: the connection, and whether the answer is a result; `None` when there is no answer.
/// A refusal need not carry the call's id, nor end the connection: only its length tells its end.
async fn ordinary(
    address: SocketAddr,
    connection: Option<TcpStream>,
    request: &str,
) -> Option<(TcpStream, bool)> {
    let mut stream = match connection {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.ok()?,
    };
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        let text = std::str::from_utf8(&answer).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() >= length.parse().ok()? {
            let good = body.contains(r#""result":"#);
            return Some((stream, good));
        }
    }
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
