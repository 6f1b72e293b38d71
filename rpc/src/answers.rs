//! Answers on their way out: made in chunks, counted until their last byte is written.
//!
//! A request's slot pays for the first [`ANSWER_BYTES_SMALL`] bytes of its answers. For more it
//! needs a share of the budget for large answers, [`ANSWER_BYTES_MAX`] bytes at once, so that no
//! answer is stuck half made; what it does not use goes back when the answer is complete. Slot and
//! share are held by the chunks: each gives its part back when its last byte is with the system.

use std::convert::Infallible;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::connections::{Await, Origin, Place};
use crate::error::Error;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_BYTES_SMALL, CHUNK_BYTES};
use crate::shares::Held;

/// A result that can be written as JSON.
pub(crate) trait Writable: Send {
    fn write(&self, to: &mut Answers) -> serde_json::Result<()>;
}

impl<T: Serialize + Send> Writable for T {
    fn write(&self, to: &mut Answers) -> serde_json::Result<()> {
        serde_json::to_writer(to, self)
    }
}

/// Why an answer was not written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// There is no room for it.
    TooLarge,
    /// It cannot be written as JSON.
    Failed(serde_json::Error),
}

/// The right to be at work and to answer, held until the last byte of the answer is written.
pub(crate) struct Slot {
    place: Arc<Place>,
    _held: Held,
    /// One of the slots for requests with large answers, when it is one.
    bulk: OnceLock<Held>,
}

impl Slot {
    pub(crate) fn new(place: Arc<Place>, held: Held) -> Arc<Self> {
        place.begin_request();
        Arc::new(Self {
            place,
            _held: held,
            bulk: OnceLock::new(),
        })
    }

    /// Whom it is counted for.
    pub(crate) fn origin(&self) -> Origin {
        self.place.origin()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.place.end_request();
    }
}

/// The answers to one request, as far as they are written.
pub(crate) struct Answers {
    slot: Arc<Slot>,
    /// A share of the budget for large answers.
    share: Option<Held>,
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Whether a write was refused since the last mark.
    overflowed: bool,
}

impl Answers {
    pub(crate) const fn new(slot: Arc<Slot>) -> Self {
        Self {
            slot,
            share: None,
            full: Vec::new(),
            last: Vec::new(),
            overflowed: false,
        }
    }

    /// How many bytes are written.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * CHUNK_BYTES + self.last.len()
    }

    /// How many bytes may be written.
    pub(crate) const fn most(&self) -> usize {
        match self.share {
            Some(_) => ANSWER_BYTES_MAX,
            None => ANSWER_BYTES_SMALL,
        }
    }

    /// Whether it may grow to [`ANSWER_BYTES_MAX`].
    pub(crate) const fn is_large(&self) -> bool {
        self.share.is_some()
    }

    /// Lets it grow to [`ANSWER_BYTES_MAX`].
    pub(crate) fn enlarge(&mut self, bulk: Held, share: Held) {
        // An error means that the slot is a bulk one already, and then this permit goes back.
        let _ = self.slot.bulk.set(bulk);
        self.share = Some(share);
    }

    /// The slot that pays for it.
    pub(crate) const fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Writes a part of the frame around answers, for which there is always room.
    pub(crate) fn push(&mut self, text: &str) {
        self.append(text.as_bytes());
    }

    /// Writes the answer to a call that has this result.
    ///
    /// # Errors
    /// When it does not fit or cannot be written; then nothing of it is.
    pub(crate) fn result(&mut self, id: &RawValue, result: &dyn Writable) -> Result<(), Unwritten> {
        let mark = self.len();
        self.push(r#"{"jsonrpc":"2.0","result":"#);
        self.overflowed = false;
        if let Err(error) = result.write(self) {
            self.truncate(mark);
            return Err(match self.overflowed {
                true => Unwritten::TooLarge,
                false => Unwritten::Failed(error),
            });
        }
        self.end(id);
        Ok(())
    }

    /// Writes the answer to a call that failed, for which there is always room.
    pub(crate) fn error(&mut self, id: &RawValue, error: &Error) {
        let text = serde_json::to_string(error).expect("texts and numbers serialize");
        self.push(r#"{"jsonrpc":"2.0","error":"#);
        self.push(&text);
        self.end(id);
    }

    /// Takes back everything after the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        let (chunks, rest) = (length / CHUNK_BYTES, length % CHUNK_BYTES);
        if chunks < self.full.len() {
            self.full.truncate(chunks + 1);
            self.last = self.full.pop().unwrap_or_default();
        }
        self.last.truncate(rest);
    }

    /// The body of the response.
    pub(crate) fn into_body(mut self) -> Body {
        if !self.last.is_empty() {
            self.full.push(mem::take(&mut self.last));
        }
        let mut share = self.share.take();
        let slot = self.slot;
        slot.place.await_client(Await::Reading);
        let mut left = 0;
        let chunks = self.full.into_iter().map(|bytes| {
            left += bytes.len() as u64;
            let share = share.as_mut().and_then(|share| share.split(bytes.len()));
            Bytes::from_owner(Chunk {
                bytes,
                _share: share,
                _slot: Arc::clone(&slot),
            })
        });
        let chunks: Vec<_> = chunks.collect();
        Body::new(Outgoing {
            chunks: chunks.into_iter(),
            left,
        })
    }

    fn end(&mut self, id: &RawValue) {
        self.push(r#","id":"#);
        self.push(id.get());
        self.push("}");
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.last.len()));
            self.last.extend_from_slice(now);
            bytes = later;
            if self.last.len() == CHUNK_BYTES {
                self.full.push(mem::take(&mut self.last));
                self.last.reserve_exact(CHUNK_BYTES);
            }
        }
    }
}

impl io::Write for Answers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len() + bytes.len() > self.most() {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A piece of an answer, counted until it is dropped.
struct Chunk {
    bytes: Vec<u8>,
    _share: Option<Held>,
    _slot: Arc<Slot>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The chunks of an answer, which hyper takes one by one as it writes.
struct Outgoing {
    chunks: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.chunks.next();
        self.left -= next.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Poll::Ready(next.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
