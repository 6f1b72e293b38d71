//! The life of a process: it starts where it can and says in one line why where it cannot, it ends when it
//! is asked to, and a healthy one has no error to tell of.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use proofmill_node::devnet::Ready;
use proofmill_node::exit::Exit;
use proofmill_node::stop::STOP_WITHIN_MAX;
use rustix::process::{Pid, Signal, kill_process};
use support::{
    Devnet, PATIENCE, Process, Random, command, count_from_environment, free_base, run_to_end,
};

/// What one process may need beyond its time when the machine gives the processor to others.
const BUSY: Duration = Duration::from_secs(3);

/// What a new pipe holds (pipe(7)).
const PIPE_BYTES: usize = 64 << 10;

fn status(exit: Exit) -> Option<i32> {
    Some(exit.code().into())
}

/// A node on any ports.
fn start(home: &Path) -> Command {
    let mut start = command();
    start.args(["start", "--rpc-listen", "127.0.0.1:0"]);
    start.args(["--consensus-listen", "/ip4/127.0.0.1/tcp/0"]);
    start.args(["--gossip-listen", "/ip4/127.0.0.1/tcp/0"]);
    start.arg("--home").arg(home);
    start
}

fn init(home: &Path) {
    let made = run_to_end(command().args(["init", "--home"]).arg(home));
    assert!(made.status.success(), "{made:?}");
}

/// The same command under limits that a shell sets.
fn under(limits: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{limits}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Refused: this status, and one line of error with these words.
#[track_caller]
fn refused(said: &Output, exit: Exit, words: &[&str]) {
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), status(exit), "{}: {text}", said.status);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "one line, not: {text}");
    assert!(lines[0].starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

#[track_caller]
fn ends_in_time(process: &mut Process) -> (Duration, std::process::ExitStatus) {
    let asked = Instant::now();
    let ended = process.terminate(PATIENCE);
    let took = asked.elapsed();
    assert!(took < STOP_WITHIN_MAX + BUSY, "{took:?}: {ended}");
    (took, ended)
}

#[test]
fn a_node_ends_in_time_whenever_it_is_asked_while_it_starts() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("home");
    let accounts = count_from_environment("PROOFMILL_LIFE_ACCOUNTS", 100_000);
    let made = run_to_end(
        command()
            .args(["bench", "chain", "--blocks", "2", "--txs", "500"])
            .args(["--accounts", &accounts.to_string(), "--home"])
            .arg(&home),
    );
    assert!(made.status.success(), "{made:?}");
    let output = place.path().join("output");
    let ready_file = place.path().join("ready.json");
    let begin = |name| {
        let mut start = start(&home);
        start.arg("--ready-file").arg(&ready_file);
        Process::start(name, start, &output, &[home.join("logs/node.log")])
    };
    // How long a start takes here and now, to its end.
    let begun = Instant::now();
    let mut whole = begin("whole");
    whole.file(&ready_file, PATIENCE);
    let started = begun.elapsed();
    let (stopped, ended) = ends_in_time(&mut whole);
    assert!(ended.success(), "{ended}");
    fs::remove_file(&ready_file).expect("it was ready");
    println!("ready after {started:?}, stopped after {stopped:?}");

    let mut random = Random::from_environment();
    let rounds = count_from_environment("PROOFMILL_LIFE_ROUNDS", 8);
    let start_us = u64::try_from(started.as_micros()).expect("a short time");
    for round in 0..rounds {
        let after = Duration::from_micros(random.below(start_us * 5 / 4));
        let mut node = begin("cut");
        // The moment is the point, not something that is waited for.
        std::thread::sleep(after);
        let (took, ended) = ends_in_time(&mut node);
        println!("{round}: asked after {after:?}, ended after {took:?}: {ended}");
        // Before it listens for signals, a signal ends it as it ends any process.
        let unheard = ended.signal() == Some(Signal::TERM.as_raw());
        assert!(ended.success() || unheard, "{ended}");
        let _ = fs::remove_file(&ready_file);
    }
    // Nothing of that has hurt the data.
    let mut node = begin("again");
    node.file(&ready_file, PATIENCE);
    assert!(ends_in_time(&mut node).1.success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("home");
    init(&home);
    let ready_file = place.path().join("ready.json");
    let mut start = start(&home);
    start.arg("--ready-file").arg(&ready_file);
    let mut node = Process::start("node", start, &place.path().join("output"), &[]);
    node.file(&ready_file, PATIENCE);
    let pid = Pid::from_raw(i32::try_from(node.id()).expect("an id")).expect("an id");
    let asked = Instant::now();
    kill_process(pid, Signal::TERM).expect("it runs");
    // The second may come before the first was heard or after the node has ended; both are well.
    let _ = kill_process(pid, Signal::INT);
    let ended = node.wait();
    assert!(asked.elapsed() < STOP_WITHIN_MAX + BUSY);
    let interrupted = 128 + Signal::INT.as_raw();
    let terminated = 128 + Signal::TERM.as_raw();
    let code = ended.code().expect("it ended by itself");
    assert!([0, interrupted, terminated].contains(&code), "{ended}");
}

/// A process that is killed with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_whose_messages_nobody_reads_ends_in_time() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("home");
    init(&home);
    // A full pipe holds up whoever writes to it.
    let (unread, mut full) = std::io::pipe().expect("a pipe");
    full.write_all(&[b'\n'; PIPE_BYTES]).expect("it has room");
    let mut start = start(&home);
    start.arg("--log-stderr").stdin(Stdio::null());
    start.stdout(Stdio::null()).stderr(full);
    let mut node = Killed(start.spawn().expect("it starts"));
    let log = home.join("logs/node.log");
    support::within(PATIENCE, "it hears signals and writes", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("starting").then_some(())
    });
    let pid = Pid::from_raw(i32::try_from(node.0.id()).expect("an id")).expect("an id");
    kill_process(pid, Signal::TERM).expect("it runs");
    let ended = support::within(STOP_WITHIN_MAX + BUSY, "it ends", || {
        node.0.try_wait().expect("a child of this process")
    });
    assert_eq!(ended.code(), status(Exit::Late), "{ended}");
    drop(unread);
}

#[test]
fn a_worker_ends_in_time_while_its_node_is_silent() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("worker");
    let made = run_to_end(command().args(["keys", "new", "op", "--home"]).arg(&home));
    assert!(made.status.success(), "{made:?}");
    fs::copy(
        home.join("keys/accounts/op.json"),
        home.join("keys/worker.json"),
    )
    .expect("a key");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let rpc = format!("http://{}/rpc", silent.local_addr().expect("an address"));
    let mut work = command();
    work.args(["worker", "run", "--rpc", &rpc, "--home"])
        .arg(&home);
    let mut worker = Process::start("worker", work, &place.path().join("output"), &[]);
    // The self-test has passed when it calls.
    let (call, _) = silent.accept().expect("a call");
    let (took, ended) = ends_in_time(&mut worker);
    println!("a worker in a call that is not answered: {took:?}, {ended}");
    assert!(ended.success(), "{ended}");
    drop(call);
}

#[test]
fn what_the_system_does_not_grant_is_named_with_what_is_needed() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("home");
    init(&home);
    let refuses = |limits: &str, words: &[&str]| {
        let said = run_to_end(&mut under(limits, &start(&home)));
        refused(&said, Exit::Resources, words);
    };
    refuses(
        "ulimit -n 256",
        &["only 256 files", "needs 1024", "ulimit -n 1024"],
    );
    for kib in [300_000, 500_000, 700_000] {
        let limit = format!("ulimit -v {kib}");
        refuses(
            &limit,
            &[
                "MiB of address space are left",
                "are needed",
                "ulimit -v unlimited",
            ],
        );
    }
    refuses("ulimit -f 1024", &["ulimit -f", "ulimit -f unlimited"]);
    // Nothing was made by then.
    assert!(!home.join("data/db").exists());

    let worker = place.path().join("worker");
    let made = run_to_end(command().args(["keys", "new", "op", "--home"]).arg(&worker));
    assert!(made.status.success(), "{made:?}");
    fs::copy(
        worker.join("keys/accounts/op.json"),
        worker.join("keys/worker.json"),
    )
    .expect("a key");
    for words in [
        &["worker", "run"][..],
        &[
            "worker",
            "register",
            "--operator",
            "op",
            "--collateral",
            "200mill",
        ],
    ] {
        let mut work = command();
        // Nobody listens there: the test comes before the first call.
        work.args(words)
            .args(["--rpc", "http://127.0.0.1:9/rpc", "--home"]);
        work.arg(&worker);
        let said = run_to_end(&mut under("ulimit -v 1500000", &work));
        let words = ["this host cannot run programs", "address space"];
        refused(&said, Exit::Resources, &words);
    }
}

/// The files that the database is made of. Others may still lie beside them: RocksDB deletes what it has
/// replaced when it finds the time, and does not look into it again.
fn live_files(database: &Path) -> BTreeSet<PathBuf> {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, database).expect("a database");
    let opened = rocksdb::DB::open_cf_for_read_only(&options, database, families, false);
    let tables = opened.expect("a database").live_files().expect("a list");
    let current = database.join("CURRENT");
    let manifest = fs::read_to_string(&current).expect("a name");
    tables
        .iter()
        .map(|table| database.join(table.name.trim_start_matches('/')))
        .chain([database.join(manifest.trim_end()), current])
        .collect()
}

#[test]
fn damage_is_told_in_one_line_with_path_and_remedy() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("chain");
    let made = run_to_end(
        command()
            .args(["bench", "chain", "--blocks", "20", "--txs", "50"])
            .args(["--accounts", "200", "--home"])
            .arg(&home),
    );
    assert!(made.status.success(), "{made:?}");
    // A start writes what is in the log into tables.
    let ready_file = place.path().join("ready.json");
    let mut once = start(&home);
    once.arg("--ready-file").arg(&ready_file);
    let mut once = Process::start("once", once, &place.path().join("output"), &[]);
    once.file(&ready_file, PATIENCE);
    assert!(ends_in_time(&mut once).1.success());
    let database = home.join("data/db");
    let whole: Vec<_> = fs::read_dir(&database)
        .expect("a database")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("a file")))
        .collect();
    let restore = || {
        fs::remove_dir_all(&database).expect("a directory");
        fs::create_dir(&database).expect("a directory");
        for (path, bytes) in &whole {
            fs::write(path, bytes).expect("written");
        }
    };
    let path = database.display().to_string();
    let refuses = |what: &str| {
        println!("{what}");
        let said = run_to_end(&mut start(&home));
        refused(
            &said,
            Exit::Data,
            &[&path, "is damaged", "move the database directory away"],
        );
    };
    let is = |path: &Path, like: &str| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains(like))
    };
    let live = live_files(&database);
    for like in ["CURRENT", "MANIFEST", ".sst"] {
        for (file, bytes) in whole.iter().filter(|(file, _)| is(file, like)) {
            if !live.contains(file) {
                continue;
            }
            for (what, damaged) in [
                ("cut in half", bytes[..bytes.len() / 2].to_vec()),
                ("garbage", vec![0x5a; bytes.len()]),
                ("empty", Vec::new()),
            ] {
                fs::write(file, damaged).expect("written");
                refuses(&format!("{} {what}", file.display()));
                restore();
            }
        }
    }
    for like in ["CURRENT", "MANIFEST", ".sst"] {
        assert!(live.iter().any(|file| is(file, like)), "{live:?}");
    }
}

#[test]
fn a_devnet_starts_again_after_a_start_that_failed_and_logs_no_error() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("devnet");
    let base = free_base(4);
    let port = base.to_string();
    // The gossip port of the last validator.
    let taken = TcpListener::bind(("127.0.0.1", base + 203)).expect("a free port");
    let failed = run_to_end(
        command()
            .args(["devnet", "--workers", "1", "--port", &port, "--home"])
            .arg(&home),
    );
    assert_eq!(failed.status.code(), status(Exit::Failure), "{failed:?}");
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(text.contains("is in use"), "{text}");
    drop(taken);

    let mut devnet = Devnet::start(&home, &["--port", &port], &[]);
    let ready: Ready = devnet.ready.clone();
    let node = devnet.node(0);
    node.reaches(node.head().height.next());
    let asked = Instant::now();
    let ended = devnet.terminate(PATIENCE);
    println!("a devnet stopped after {:?}", asked.elapsed());
    assert!(ended.success(), "{ended}");
    assert!(asked.elapsed() < STOP_WITHIN_MAX + BUSY);
    let logs = ready.validators.iter().map(|node| &node.log);
    for log in logs.chain(ready.workers.iter().map(|worker| &worker.log)) {
        let text = fs::read_to_string(log).expect("a log");
        assert!(text.contains("asked to stop"), "{text}");
        for line in text.lines() {
            for word in ["ERROR", "panicked", "backtrace", "stack"] {
                assert!(!line.contains(word), "{}: {line}", log.display());
            }
        }
    }
    for node in &ready.validators {
        let output = fs::read_to_string(node.home.join("logs/output.log")).expect("a file");
        assert_eq!(output, "", "{}", node.name);
    }
}

#[test]
fn a_devnet_that_is_asked_to_stop_while_it_starts_ends_in_time_with_its_processes() {
    let place = tempfile::tempdir().expect("a directory");
    let mut random = Random::from_environment();
    for round in 0..count_from_environment("PROOFMILL_LIFE_ROUNDS", 4) {
        let home = place.path().join(format!("devnet{round}"));
        let mut devnet = command();
        devnet
            .args(["devnet", "--port", "0", "--workers", "1", "--home"])
            .arg(&home);
        let output = place.path().join("output");
        let mut devnet = Process::start("devnet", devnet, &output, &[]);
        let after = Duration::from_millis(random.below(3_000));
        std::thread::sleep(after);
        let children = support::descendants(devnet.id());
        let (took, ended) = ends_in_time(&mut devnet);
        println!("{round}: asked after {after:?}, ended after {took:?}: {ended}");
        let unheard = ended.signal() == Some(Signal::TERM.as_raw());
        assert!(ended.success() || unheard, "{ended}");
        support::within(STOP_WITHIN_MAX + BUSY, "its processes are gone", || {
            children
                .iter()
                .all(|child| support::is_gone(*child))
                .then_some(())
        });
    }
}
