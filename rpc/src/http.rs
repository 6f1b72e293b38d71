//! The HTTP server: `POST /rpc`, `GET /livez`, `GET /readyz`.
//!
//! Everything from outside is bounded (see [`limits`](crate::limits)): connections, the time of a
//! head, a body, a call and a write, and the bytes of bodies and answers. A refusal on the level of
//! HTTP carries a JSON-RPC error too, so that a client needs one way of reading answers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::StatusCode;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::aside::Aside;
use crate::budget::Budget;
use crate::connection::{self, Timeouts};
use crate::connections::{Connections, Full};
use crate::error::{Code, Error};
use crate::host;
use crate::limits::{
    ANSWERS_BYTES_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, HEAD_TIMEOUT, REFUSALS_MAX,
    REQUEST_TIMEOUT, REQUESTS_MAX, SHUTDOWN_GRACE, SOCKET_BUFFER_BYTES, WRITE_TIMEOUT,
    bulk_calls_max,
};
use crate::port::Ports;
use crate::routes;

pub use crate::limits::HTTP_BODY_MAX;
pub use crate::request::{BATCH_MAX, DEPTH_MAX};

/// Connections that the system holds before they are accepted.
const BACKLOG: u32 = 1_024;
/// How long nothing is accepted after the system could not: it has too few file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Web origins whose pages may call, as `https://example.org`; `*` for any. None by default.
    pub allowed_origins: Vec<String>,
    /// Names that the `Host` header may have besides `localhost` and IP addresses; `*` for any.
    pub allowed_hosts: Vec<String>,
    /// Connections open at a time.
    pub connections_max: usize,
    /// Connections open at a time from one address (IPv6: one /64).
    pub connections_per_address_max: usize,
    /// Requests at work or being answered at a time.
    pub requests_max: usize,
    /// Bytes of large answers that are made or being written; at least one answer of the largest
    /// size.
    pub answers_bytes_max: usize,
    /// Time for a request's head, and between requests.
    pub head_timeout: Duration,
    /// Time from a request's last byte to its answer.
    pub request_timeout: Duration,
    /// Time in which a client must take a part of its answer.
    pub write_timeout: Duration,
    /// Called first by each thread that makes large answers, to lower its priority. Nothing by
    /// default: this crate does not know how.
    pub large_thread: fn(),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            requests_max: REQUESTS_MAX,
            answers_bytes_max: ANSWERS_BYTES_MAX,
            head_timeout: HEAD_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            large_thread: || (),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the port.
    #[error("cannot listen on {address}: the port is in use; stop what uses it or choose another")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread for large answers: {reason}")]
    Thread {
        /// What the system says.
        reason: io::Error,
    },
    /// An allowed origin is not one.
    #[error(
        "`{origin}` is not a web origin: `https://host`, `http://host:port` or `*` is expected"
    )]
    Origin {
        /// What was given.
        origin: String,
    },
    /// An allowed host is not a name.
    #[error("`{host}` is not a host name: `node.example.org`, without port, or `*` is expected")]
    Host {
        /// What was given.
        host: String,
    },
}

/// What clients use of a server at a moment.
#[derive(Clone)]
pub struct Usage {
    connections: Arc<Connections>,
    budget: Arc<Budget>,
}

impl Usage {
    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Requests at work or being answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.budget.slots_used()
    }

    /// Bytes of large answers that are reserved, made or being written.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        self.budget.answer_bytes()
    }

    /// Bytes of bodies that are not small, received or at work.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.budget.body_bytes()
    }
}

/// A server that has its port and waits to serve.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    timeouts: Timeouts,
    usage: Usage,
}

impl Server {
    /// Takes the port; port 0 is a free one, named by [`Server::address`].
    ///
    /// # Errors
    /// When the port cannot be had or an option is wrong; see [`StartError`].
    #[allow(
        clippy::unused_async,
        reason = "it needs the runtime, and says so in this way"
    )]
    pub async fn bind(
        address: SocketAddr,
        ports: Ports,
        options: Options,
    ) -> Result<Self, StartError> {
        if let Some(host) = options
            .allowed_hosts
            .iter()
            .find(|name| !host::is_name(name))
        {
            return Err(StartError::Host { host: host.clone() });
        }
        let (all, per_address) = (options.connections_max, options.connections_per_address_max);
        let connections = Connections::new(all, per_address);
        let aside = Aside::new(bulk_calls_max(), options.large_thread)
            .map_err(|reason| StartError::Thread { reason })?;
        let budget = Arc::new(Budget::new(
            Arc::clone(&connections),
            options.requests_max,
            options.answers_bytes_max,
            aside,
        ));
        let router = routes::router(ports, Arc::clone(&budget), &options)?;
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::AddrInUse => StartError::InUse { address },
            _ => StartError::Listen { address, reason },
        };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            router,
            timeouts: Timeouts {
                head: options.head_timeout,
                write: options.write_timeout,
            },
            usage: Usage {
                connections,
                budget,
            },
        })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients use of it, also while it serves.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage.clone()
    }

    /// Serves until `shutdown` resolves; then takes no new connections and gives requests at work
    /// [`SHUTDOWN_GRACE`] to end.
    ///
    /// # Errors
    /// Never at present: what the system refuses is tried again.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (close, closing) = watch::channel(false);
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let connections = Arc::clone(&self.usage.connections);
        let mut tasks = JoinSet::new();
        let mut shutdown = Box::pin(shutdown);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = accept(&self.listener) => accepted,
                Some(_) = tasks.join_next() => continue,
                () = &mut shutdown => break,
            };
            match connections.admit(peer.ip()) {
                Ok(admitted) => {
                    let (router, closing) = (self.router.clone(), closing.clone());
                    let timeouts = self.timeouts;
                    tasks.spawn(connection::serve(
                        stream, admitted, router, timeouts, closing,
                    ));
                }
                // Without a permit the connection closes without a word.
                Err(full) => {
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        tasks.spawn(async move {
                            let (status, error) = full_error(full);
                            connection::refuse(stream, status, &error).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
        drop(self.listener);
        close.send_replace(true);
        connections.close_idle();
        let ended = async { while tasks.join_next().await.is_some() {} };
        // What has not ended by then is dropped with the set.
        let _ = timeout(SHUTDOWN_GRACE, ended).await;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Connections inherit these: without them the system would buffer megabytes of each.
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection. A client that is gone already is passed over; when the system has no file
/// descriptor left, others must close first.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn full_error(full: Full) -> (StatusCode, Error) {
    let (status, whose, most) = match full {
        Full::All { most } => (StatusCode::SERVICE_UNAVAILABLE, "the node", most),
        Full::Address { most } => (StatusCode::TOO_MANY_REQUESTS, "this address", most),
    };
    let message = format!("{whose} has {most} connections open already and all are in use");
    let error = Error::new(Code::TooManyConnections, message);
    (status, error.with("most", most))
}
