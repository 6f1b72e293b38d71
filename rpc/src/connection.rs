//! One connection: its transport, which notices a client that does not read, and its task.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::connections::{Admitted, Place};
use crate::error::{Code, Error};
use crate::limits::{CHUNK_BYTES, HEAD_BYTES_MAX, HEAD_TIMEOUT, WRITE_TIMEOUT};
use crate::request;

/// How long a client that is refused may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The time-outs of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) head: Duration,
    pub(crate) write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: HEAD_TIMEOUT,
            write: WRITE_TIMEOUT,
        }
    }
}

/// Serves a connection until either side ends it, its place is needed or the server shuts down.
pub(crate) async fn serve(
    stream: TcpStream,
    admitted: Admitted,
    router: Router,
    timeouts: Timeouts,
    mut closing: watch::Receiver<bool>,
) {
    let place = Arc::clone(admitted.place());
    let service = TowerToHyperService::new(router);
    let service = service_fn({
        let place = Arc::clone(&place);
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&place));
            Box::pin(service.call(request))
        }
    });
    // An error means that the option is not had here; answers are only slower then.
    let _ = stream.set_nodelay(true);
    let transport = Transport::new(stream, Arc::clone(&place), timeouts.write);
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .writev(true)
        .serve_connection(TokioIo::new(transport), service);
    // An error means that the server is gone, and then it closes as well.
    let mut is_closing = pin!(async move { drop(closing.wait_for(|closing| *closing).await) });
    let mut told = false;
    let served = loop {
        tokio::select! {
            served = poll_fn(|context| connection.poll_without_shutdown(context)) => break Some(served),
            () = place.cut() => break None,
            () = &mut is_closing, if !told => {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut transport = io.into_inner();
    match served {
        Some(Ok(())) => transport.close().await,
        Some(Err(error)) if error.is_timeout() && !read_buf.is_empty() => {
            let seconds = timeouts.head.as_secs_f32();
            let error = Error::new(
                Code::RequestTimeout,
                format!("the head of the request was not complete within {seconds} s"),
            );
            refuse(transport.stream, StatusCode::REQUEST_TIMEOUT, &error).await;
        }
        Some(Err(_)) => {}
        // A client that does not read what is left of an answer keeps the system from forgetting it.
        None if place.is_reading() => transport.abort(),
        None => transport.close().await,
    }
}

/// Writes a refusal, if the client takes it, and closes the connection.
pub(crate) async fn refuse(mut stream: TcpStream, status: StatusCode, error: &Error) {
    let body = request::refusal(error);
    let again = match status {
        StatusCode::REQUEST_TIMEOUT => "",
        _ => "retry-after: 1\r\n",
    };
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{again}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        // What the client sent is read: closing over it would take the refusal from the client.
        let mut sent = [0; 1024];
        let mut left = HEAD_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut sent).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // Whatever it says, the connection closes.
    let _ = timeout(REFUSAL_TIMEOUT, said).await;
}

/// A stream that fails when its client takes less than [`CHUNK_BYTES`] of an answer, or the rest of
/// it, in the time for writing.
struct Transport {
    stream: TcpStream,
    place: Arc<Place>,
    limit: Duration,
    /// While something could not be written at once.
    stalled: bool,
    taken: usize,
    timer: Pin<Box<Sleep>>,
}

impl Transport {
    fn new(stream: TcpStream, place: Arc<Place>, limit: Duration) -> Self {
        Self {
            stream,
            place,
            limit,
            stalled: false,
            taken: 0,
            timer: Box::pin(sleep(limit)),
        }
    }

    fn watched(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.taken += bytes;
            if self.taken >= CHUNK_BYTES {
                self.progressed();
            }
        }
        if written.is_ready() {
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.progressed();
        }
        match self.timer.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.abort();
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn progressed(&mut self) {
        self.taken = 0;
        self.place.progressed();
        if self.stalled {
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
    }

    /// Lets the system forget what the client did not take.
    fn abort(&self) {
        // An error means that the stream is closed already.
        let _ = self.stream.set_zero_linger();
    }

    async fn close(&mut self) {
        // An error means that the client was faster.
        let _ = self.stream.shutdown().await;
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    /// Called when everything handed over is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stalled = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
