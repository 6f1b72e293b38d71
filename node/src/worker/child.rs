//! Running a stranger's program in a child process with hard limits on memory and CPU time.
//!
//! The parent writes a [`Job`] to the child's standard input and reads an answer from its output.
//! Limits protect this host only: a child that breaks one gives no result, never a verdict.

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use proofmill_chain::codec;
use proofmill_chain::types::hash::{Blob, Hash, blob_hash};
use proofmill_chain::types::task::{
    INPUT_BYTES_MAX, OUTPUT_BYTES_MAX, PROGRAM_BYTES_MAX, ResultClaim, ResultStatus,
};
use proofmill_chain::types::units::Gas;
use proofmill_compute::fast::Wasmtime;
use proofmill_compute::{Machine as _, ModuleLimits, Program, RunLimits, Status};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

/// Address space of the child.
pub const CHILD_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Largest encoded job.
const JOB_BYTES_MAX: usize = PROGRAM_BYTES_MAX + INPUT_BYTES_MAX + 1024;
/// Largest encoded answer.
const ANSWER_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 4096;

/// A computation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The module.
    pub program: Blob,
    /// Its input.
    pub input: Blob,
    /// Gas of the whole run.
    pub gas_limit: Gas,
    /// Pages of memory.
    pub memory_pages: u32,
    /// Steps.
    pub steps_max: u32,
    /// Gas of one step.
    pub step_gas_max: Gas,
    /// Bytes of output.
    pub output_bytes_max: u32,
}

/// What the child answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    Done { claim: ResultClaim, output: Blob },
    Failed(String),
}

/// What the child sends once the program is compiled, before its answer.
const COMPILED: u8 = b'C';

/// What a running computation can hear.
enum Heard {
    Compiled,
    Answered(std::io::Result<Vec<u8>>),
    Cancelled,
}

/// A computation ended because nobody needs its result any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the computation was cancelled: its seat is lost")]
pub struct Cancelled;

/// Ends a computation whose result nobody needs any more.
#[derive(Clone)]
pub struct Cancel(Sender<Heard>);

impl Cancel {
    /// Ends it: the child is killed. One that has ended already is not affected.
    pub fn cancel(&self) {
        // Nobody listens when the computation is over.
        let _ = self.0.send(Heard::Cancelled);
    }
}

/// A computation that is about to run; its [`Cancel`] may be used from any thread, at any time.
pub struct Run {
    sandbox: Sandbox,
    sender: Sender<Heard>,
    heard: Receiver<Heard>,
}

/// How children are made.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The program to start.
    pub executable: PathBuf,
    /// Arguments that make it run [`serve`].
    pub arguments: Vec<OsString>,
    /// The longest that compiling the program may take.
    pub compile_time_max: Duration,
    /// The longest that a computation may take, compiling included.
    pub wall_time_max: Duration,
}

impl Sandbox {
    /// Runs a job that nobody cancels.
    ///
    /// # Errors
    /// As [`Run::run`].
    pub fn run(&self, job: &Job) -> Result<(ResultClaim, Blob)> {
        self.prepare().0.run(job)
    }

    /// A computation that can be cancelled.
    #[must_use]
    pub fn prepare(&self) -> (Run, Cancel) {
        let (sender, heard) = channel();
        let cancel = Cancel(sender.clone());
        let run = Run {
            sandbox: self.clone(),
            sender,
            heard,
        };
        (run, cancel)
    }
}

impl Run {
    /// Runs a job in a child and returns its result.
    ///
    /// # Errors
    /// When the child cannot be started, breaks a limit of this host, or says that it failed, and
    /// when the computation is cancelled.
    pub fn run(self, job: &Job) -> Result<(ResultClaim, Blob)> {
        let mut child = Command::new(&self.sandbox.executable)
            .args(&self.sandbox.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.sandbox.executable.display()))?;
        let answer = self.converse(&mut child, job);
        // Whatever it answered, it is not needed any more; one that has ended cannot be killed.
        let _ = child.kill();
        let status = child
            .wait()
            .context("the computing child cannot be awaited")?;
        match answer {
            Ok(Answer::Done { claim, output }) => Ok((claim, output)),
            Ok(Answer::Failed(reason)) => bail!("the machine failed: {reason}"),
            Err(error) if error.is::<Cancelled>() => Err(error),
            Err(error) => Err(error.context(format!("the computing child ended with {status}"))),
        }
    }

    fn converse(&self, child: &mut Child, job: &Job) -> Result<Answer> {
        let mut stdin = child.stdin.take().context("the child has an input")?;
        let mut stdout = child.stdout.take().context("the child has an output")?;
        stdin
            .write_all(&codec::encode(job))
            .context("the child does not take its job")?;
        drop(stdin);
        let sender = self.sender.clone();
        std::thread::Builder::new()
            .name("answer".to_owned())
            .spawn(move || listen(&mut stdout, &sender))
            .context("no thread for the child's answer")?;
        let bytes = self.until_answered()?;
        codec::decode::<Answer, ANSWER_BYTES_MAX>(&bytes)
            .map_err(|error| anyhow!("the child gave no answer: {error}"))
    }

    fn until_answered(&self) -> Result<Vec<u8>> {
        let begun = Instant::now();
        let mut most = self
            .sandbox
            .compile_time_max
            .min(self.sandbox.wall_time_max);
        let mut what = "the program was not compiled";
        loop {
            let left = most.saturating_sub(begun.elapsed());
            match self.heard.recv_timeout(left) {
                Ok(Heard::Compiled) => {
                    most = self.sandbox.wall_time_max;
                    what = "no result came";
                }
                Ok(Heard::Answered(read)) => {
                    return read.context("the child's answer cannot be read");
                }
                Ok(Heard::Cancelled) => return Err(Cancelled.into()),
                Err(RecvTimeoutError::Timeout) => bail!("{what} within {} s", most.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the reader of the answer died"),
            }
        }
    }
}

/// Passes on what the child says. Nobody listens after a time limit or a cancellation.
fn listen(stdout: &mut impl Read, sender: &Sender<Heard>) {
    let mut first = [0];
    match stdout.read_exact(&mut first) {
        Ok(()) if first == [COMPILED] => drop(sender.send(Heard::Compiled)),
        // An answer without compiling: the child failed before.
        Ok(()) => {}
        Err(error) => return drop(sender.send(Heard::Answered(Err(error)))),
    }
    let mut bytes = match first {
        [COMPILED] => Vec::new(),
        [other] => vec![other],
    };
    let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    let read = stdout.take(limit).read_to_end(&mut bytes);
    drop(sender.send(Heard::Answered(read.map(|_| bytes))));
}

/// The child's side: takes a job from standard input, runs it under hard limits, answers.
///
/// # Errors
/// When the limits cannot be set, the job cannot be read or the answer cannot be written.
pub fn serve(cpu_seconds_max: u64) -> Result<()> {
    let restricted = restrict(cpu_seconds_max);
    let mut bytes = Vec::new();
    let most = u64::try_from(JOB_BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    std::io::stdin()
        .take(most)
        .read_to_end(&mut bytes)
        .context("no job came")?;
    let job: Job = codec::decode::<_, JOB_BYTES_MAX>(&bytes)?;
    let mut stdout = std::io::stdout();
    let mut compiled = || {
        // A parent that has gone away kills this process; that the byte is lost does not matter.
        let _ = stdout.write_all(&[COMPILED]).and_then(|()| stdout.flush());
    };
    // The parent, which reads nothing else of us, is told why there are no limits.
    let answer = match restricted.and_then(|()| compute(&job, &mut compiled)) {
        Ok((claim, output)) => Answer::Done { claim, output },
        Err(error) => Answer::Failed(format!("{error:#}")),
    };
    stdout.write_all(&codec::encode(&answer))?;
    stdout.flush().context("the answer cannot be written")
}

fn restrict(cpu_seconds_max: u64) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("parent death signal")?;
    limit(Resource::As, CHILD_MEMORY_BYTES_MAX)?;
    limit(Resource::Cpu, cpu_seconds_max)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)
}

fn limit(resource: Resource, most: u64) -> Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit)
        .with_context(|| format!("the limit {resource:?} cannot be set to {most}"))
}

/// Runs a job in this process; calls `compiled` once the program is compiled.
///
/// # Errors
/// When the module is not a program or this host fails; never for what the program does.
pub fn compute(job: &Job, compiled: &mut dyn FnMut()) -> Result<(ResultClaim, Blob)> {
    let program = Program::load(job.program.as_bytes(), &ModuleLimits::default())?;
    let limits = RunLimits {
        gas_limit: job.gas_limit.get(),
        memory_pages: job.memory_pages,
        steps_max: job.steps_max,
        step_gas_max: job.step_gas_max.get(),
        output_bytes_max: job.output_bytes_max,
    };
    let machine = Wasmtime::new()?;
    machine.compile(&program)?;
    compiled();
    let outcome = machine.run(&program, job.input.as_bytes(), &limits, &mut |_, _| {})?;
    let status = match outcome.status {
        Status::Done => ResultStatus::Done,
        Status::Trap => ResultStatus::Trap,
        Status::OutOfGas => ResultStatus::OutOfGas,
        Status::BadOutput => ResultStatus::BadOutput,
        Status::TooManySteps => ResultStatus::TooManySteps,
        Status::StepGas => ResultStatus::StepOutOfGas,
    };
    let claim = ResultClaim {
        output_hash: blob_hash(&outcome.output),
        trace_root: Hash::new(outcome.trace_root),
        gas: Gas::new(outcome.gas_used),
        status,
    };
    Ok((claim, Blob::new(outcome.output)))
}
