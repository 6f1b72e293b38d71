//! A request at work: its calls one after the other, their answers written as they come.
//!
//! Work goes on when its client is gone, until the call at work has ended, and holds its slot as
//! long: a client that hangs up gains nothing. No call begins after the deadline, or after an
//! answer for which there was no room.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::ser::Error as Failure;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::answers::{Answers, Slot, Unwritten, Writable};
use crate::budget::Budget;
use crate::error::{Code, Error};
use crate::limits::CALL_ANSWER_MIN;
use crate::methods::{self, Weight};
use crate::port::Ports;
use crate::request::{self, Call};

/// What came of a request.
pub(crate) struct Done {
    /// Its answers; empty when nobody asked for any.
    pub(crate) answers: Answers,
    /// Why its only call was not performed, when the node was too busy for it.
    pub(crate) overloaded: bool,
}

/// A request at work.
pub(crate) struct Work {
    pub(crate) ports: Ports,
    pub(crate) budget: Arc<Budget>,
    pub(crate) limit: std::time::Duration,
    pub(crate) deadline: Instant,
}

/// Performs what `body` asks for and hands the answers to `done`.
pub(crate) async fn perform(work: Work, body: &[u8], slot: Arc<Slot>, done: oneshot::Sender<Done>) {
    let mut batch = Batch {
        work,
        answers: Answers::new(slot),
        stopped: None,
    };
    let mut overloaded = false;
    match request::parse(body) {
        Err(error) => batch.answers.error(RawValue::NULL, &error),
        Ok(request::Body::One(raw)) => {
            overloaded = batch.answer(raw).await == Some(Code::Overloaded);
        }
        Ok(request::Body::Batch(calls)) => {
            for raw in calls {
                if done.is_closed() {
                    return;
                }
                batch.answer_next(raw).await;
            }
            if batch.answers.len() > 0 {
                batch.answers.push("]");
            }
        }
    }
    // An error means that the client is gone.
    let _ = done.send(Done {
        answers: batch.answers,
        overloaded,
    });
}

struct Batch {
    work: Work,
    answers: Answers,
    /// Why no further call is performed.
    stopped: Option<Error>,
}

impl Batch {
    /// Answers a call of a batch.
    async fn answer_next(&mut self, raw: &RawValue) {
        let before = self.answers.len();
        self.answers.push(if before == 0 { "[" } else { "," });
        let begun = self.answers.len();
        self.answer(raw).await;
        if self.answers.len() == begun {
            self.answers.truncate(before);
        }
    }

    /// Answers a call; a notification is performed and not answered. Returns the error's code.
    async fn answer(&mut self, raw: &RawValue) -> Option<Code> {
        let call = match request::call(raw) {
            Ok(call) => call,
            Err(not) => {
                self.answers.error(not.id, &not.error);
                return Some(not.error.code());
            }
        };
        let before = self.answers.len();
        let performed = match &self.stopped {
            Some(error) => Err(error.clone()),
            None => self.perform(&call).await,
        };
        let error = performed.err();
        match (call.id, &error) {
            (None, _) => self.answers.truncate(before),
            (Some(id), Some(error)) => self.answers.error(id, error),
            (Some(_), None) => {}
        }
        error.map(|error| error.code())
    }

    /// Performs a call and writes its result.
    async fn perform(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let deadline = self.work.deadline;
        if Instant::now() >= deadline {
            return Err(self.stop(&late(self.work.limit)));
        }
        let method = methods::find(&call.method)?;
        let begun = method.begin(&self.work.ports, call.params)?;
        let full = self.answers.len() + CALL_ANSWER_MIN > self.answers.most();
        if full && self.answers.is_large() {
            return Err(self.stop(&too_large(&self.answers)));
        }
        if full || begun.weight == Weight::Bulk {
            self.work
                .budget
                .enlarge(&mut self.answers, deadline)
                .await?;
        }
        let held = (self.work.budget)
            .call(self.answers.slot().origin(), begun.weight, deadline)
            .await?;
        let (weight, slot) = (begun.weight, Arc::clone(self.answers.slot()));
        let answering = async move { (begun.answering.await, held, slot) };
        let (result, held, _) = match timeout_at(deadline, self.apart(weight, answering)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Err(Error::internal(format!("{}: {error}", method.name))),
            Err(_) => {
                let late = late(self.work.limit);
                self.stop(&late);
                return Err(late);
            }
        };
        // A lookup is over: neither writing nor waiting for room may keep others from theirs.
        let held = held.filter(|_| weight == Weight::Bulk);
        let result = result?;
        let id = call.id.unwrap_or(RawValue::NULL);
        let written = if weight == Weight::Bulk {
            self.write_aside(id, result).await?
        } else {
            match self.answers.result(id, &*result) {
                Err(Unwritten::TooLarge) if !self.answers.is_large() => {
                    self.work
                        .budget
                        .enlarge(&mut self.answers, deadline)
                        .await?;
                    self.write_aside(id, result).await?
                }
                written => written,
            }
        };
        drop(held);
        written.map_err(|unwritten| match unwritten {
            Unwritten::Failed(error) => Error::internal(format!("{}: {error}", method.name)),
            Unwritten::TooLarge => {
                let error = too_large(&self.answers);
                self.stop(&error);
                error
            }
        })
    }

    /// Runs a call apart from this task: a panic costs one answer, and whatever becomes of the client,
    /// the call counts until it has ended.
    async fn apart<T: Send + 'static>(
        &self,
        weight: Weight,
        answering: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        match weight {
            Weight::Bulk => self.work.budget.aside.run_future(answering).await,
            Weight::Light | Weight::Lookup => {
                let ended = tokio::spawn(answering).await;
                ended.map_err(Error::internal)
            }
        }
    }

    /// Writes a large result on a thread that may be busy for a while.
    async fn write_aside(
        &mut self,
        id: &RawValue,
        result: Box<dyn Writable>,
    ) -> Result<Result<(), Unwritten>, Error> {
        let fresh = Answers::new(Arc::clone(self.answers.slot()));
        let mut answers = std::mem::replace(&mut self.answers, fresh);
        let id = id.to_owned();
        let writing = self.work.budget.aside.run(move || {
            let before = answers.len();
            let write = || answers.result(&id, &*result);
            let written = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| {
                answers.truncate(before);
                Err(Unwritten::Failed(Failure::custom("writing it panicked")))
            });
            (answers, written)
        });
        let (answers, written) = writing.await?;
        self.answers = answers;
        Ok(written)
    }

    /// Performs no further call; returns what is said of it.
    fn stop(&mut self, error: &Error) -> Error {
        let error = error.prefixed("not performed: ");
        self.stopped = Some(error.clone());
        error
    }
}

fn too_large(answers: &Answers) -> Error {
    let (most, before) = (answers.most(), answers.len());
    Error::new(
        Code::AnswerTooLarge,
        format!("the answers to a request have at most {most} bytes, those before had {before}"),
    )
    .with("most", most)
    .with("before", before)
}

fn late(limit: std::time::Duration) -> Error {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Error::new(Code::Timeout, format!("no answer within {limit_ms} ms")).with("limit_ms", limit_ms)
}
