//! Every limit of the server, by name. What an operator may change is a field of
//! [`Options`](crate::http::Options); the rest is fixed.
//!
//! Memory is bounded by three sums: received bodies ([`BODIES_BYTES_MAX`], and [`BODY_BYTES_SMALL`]
//! for every connection), answers until their last byte is written ([`ANSWERS_BYTES_MAX`], and
//! [`ANSWER_BYTES_SMALL`] for every request), and what the calls at work hold, of which
//! those that read whole blocks or carry programs are counted ([`LOOKUPS_MAX`], [`bulk_calls_max`]).
//! What a lookup found, at most a transaction, is its slot's until it is written.

use std::thread::available_parallelism;
use std::time::Duration;

/// Connections open at a time, by default.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections open at a time from one address (IPv6: one /64), by default.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// One in so many slots, places for large answers, lookups and bytes of bodies and large answers is out of
/// reach of any single origin (an address, or an IPv6 /64), so that one address cannot use up
/// anything. A quarter: a lone client can use most of the node, and others find a quarter of it unused.
pub const ORIGIN_LEAVES_ONE_IN: usize = 4;
/// A connection whose client has been awaited for this long may be closed in favour of a new one.
pub const CLIENT_AWAITED_MIN: Duration = Duration::from_secs(1);
/// So often a slow client is looked for in favour of an origin that waits for what it holds. Looking goes
/// through all connections, so it is not done for each request; the time is short beside that of those
/// that wait ([`ROOM_WAIT_MAX`]).
pub const SLOW_SOUGHT_EVERY: Duration = Duration::from_millis(250);
/// Refusals of connections being written at a time; beyond that connections close without a word.
pub const REFUSALS_MAX: usize = 64;

/// A request's head must be complete so long after the connection opened or the previous answer
/// ended. It bounds the idle time of a kept connection too; clients should keep theirs for less.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// A request's body must be complete so long after its head.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's body.
pub const HTTP_BODY_MAX: usize = 4 << 20;
/// A larger body is read up to here and thrown away, so that its sender sees why it was refused.
pub const BODY_BYTES_DRAINED_MAX: usize = 16 << 20;
/// Bytes of a body that are not counted against [`BODIES_BYTES_MAX`].
pub const BODY_BYTES_SMALL: usize = 16 << 10;
/// A larger body gets room as it arrives, and one in so many bytes more, so that it is not copied for
/// every piece: what is announced and not sent takes nothing from others.
pub const BODY_SPARE_ONE_IN: usize = 4;
/// Bytes of all bodies that are received or at work.
pub const BODIES_BYTES_MAX: usize = 32 << 20;
/// Bytes of a call's id, which is written into its answer.
pub const ID_BYTES_MAX: usize = 1_024;

/// Requests at work or being answered at a time, by default.
pub const REQUESTS_MAX: usize = 64;
/// A request waits so long for a slot, in its origin's turn: bursts pass in less. It is not more than
/// [`CLIENT_AWAITED_MIN`], so that its connection is not closed meanwhile for the node's slowness.
pub const SLOT_WAIT_MAX: Duration = CLIENT_AWAITED_MIN;
/// A request waits so long for one of the slots for large answers, and a body for room for its next
/// piece, in their origin's turn. As long as for any slot, for the same reason; and who waits
/// holds a slot, or the bytes that it has.
pub const ROOM_WAIT_MAX: Duration = SLOT_WAIT_MAX;
/// Time from a request's last byte to its answer, by default.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls at work at a time that read a whole block and answer with a part of it.
pub const LOOKUPS_MAX: usize = 4;

/// Bytes of one request's answers: a full block of the largest size fits.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Bytes of one request's answers that need no share of [`ANSWERS_BYTES_MAX`].
pub const ANSWER_BYTES_SMALL: usize = 512 << 10;
/// A call does not begin with less room than this for its answer: what sends something is answered
/// in less, so that nothing is sent whose answer finds no room.
pub const CALL_ANSWER_MIN: usize = 4 << 10;
/// Bytes of all larger answers that are made or being written, by default.
pub const ANSWERS_BYTES_MAX: usize = 128 << 20;
/// An answer is made and written in pieces of this size.
pub const CHUNK_BYTES: usize = 64 << 10;
/// A client that takes an answer must take [`CHUNK_BYTES`] in this time, or the rest.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the system buffers of a connection, in each direction.
pub const SOCKET_BUFFER_BYTES: u32 = 128 << 10;

/// Health must be known within this time.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests at work may go on after the signal to shut down.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Calls at work at a time that answer with whole blocks, programs, inputs or outputs, by default:
/// a quarter of the processors, at least one and at most four, so that others find one free.
#[must_use]
pub fn bulk_calls_max() -> usize {
    let processors = available_parallelism().map_or(1, usize::from);
    (processors / 4).clamp(1, 4)
}
