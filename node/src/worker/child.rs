//! Running a stranger's program in a child process with hard limits on memory and CPU time.
//!
//! The parent writes a [`Job`] to the child's standard input and reads an answer from its output.
//! Limits protect this host only: a child that breaks one gives no result, never a verdict.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

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

/// How children are made.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The program to start.
    pub executable: PathBuf,
    /// Arguments that make it run [`serve`].
    pub arguments: Vec<OsString>,
    /// The longest that a computation may take.
    pub wall_time_max: Duration,
}

impl Sandbox {
    /// Runs a job in a child and gives its result.
    ///
    /// # Errors
    /// When the child cannot be started, breaks a limit of this host, or says that it failed.
    pub fn run(&self, job: &Job) -> Result<(ResultClaim, Blob)> {
        let mut child = Command::new(&self.executable)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.executable.display()))?;
        let answer = self.converse(&mut child, job);
        // Whatever it answered, it is not needed any more; one that has ended cannot be killed.
        let _ = child.kill();
        let status = child
            .wait()
            .context("the computing child cannot be awaited")?;
        match answer {
            Ok(Answer::Done { claim, output }) => Ok((claim, output)),
            Ok(Answer::Failed(reason)) => bail!("the machine failed: {reason}"),
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
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("answer".to_owned())
            .spawn(move || {
                let mut bytes = Vec::new();
                let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
                let read = stdout.by_ref().take(limit).read_to_end(&mut bytes);
                // Nobody listens after the time limit.
                let _ = sender.send(read.map(|_| bytes));
            })
            .context("no thread for the child's answer")?;
        let bytes = match receiver.recv_timeout(self.wall_time_max) {
            Ok(read) => read.context("the child's answer cannot be read")?,
            Err(RecvTimeoutError::Timeout) => {
                bail!("no result within {} s", self.wall_time_max.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the reader of the answer died"),
        };
        codec::decode::<Answer, ANSWER_BYTES_MAX>(&bytes)
            .map_err(|error| anyhow!("the child gave no answer: {error}"))
    }
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
    // The parent, which reads nothing else of us, is told why there are no limits.
    let answer = match restricted.and_then(|()| compute(&job)) {
        Ok((claim, output)) => Answer::Done { claim, output },
        Err(error) => Answer::Failed(format!("{error:#}")),
    };
    let mut stdout = std::io::stdout();
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

/// Runs a job in this process.
///
/// # Errors
/// When the module is not a program or this host fails; never for what the program does.
pub fn compute(job: &Job) -> Result<(ResultClaim, Blob)> {
    let program = Program::load(job.program.as_bytes(), &ModuleLimits::default())?;
    let limits = RunLimits {
        gas_limit: job.gas_limit.get(),
        memory_pages: job.memory_pages,
        steps_max: job.steps_max,
        step_gas_max: job.step_gas_max.get(),
        output_bytes_max: job.output_bytes_max,
    };
    let outcome = Wasmtime::new()?.run(&program, job.input.as_bytes(), &limits, &mut |_, _| {})?;
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
