//! A small blocking client for this front end: the command line and workers use it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::shortened;

/// Largest answer that is read, in bytes: a full block of the largest size fits.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longest time a call may take, unless told.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// An error that the node answered with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RpcError {
    /// The number, as in the catalogue.
    pub code: i64,
    /// The message for people.
    pub message: String,
    /// The values that matter: `name`, `fault` and others.
    #[serde(default)]
    pub data: Value,
}

impl RpcError {
    /// The error's name in the catalogue, as `TX_NONCE_GAP`; empty when the server has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.data
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("`{url}` is not a node's address: http://host:port/rpc is expected")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nothing answers there.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// The node's address.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// The answer did not come in time; whether the call was performed is unknown.
    #[error("{url} did not answer within {} ms", .after.as_millis())]
    Timeout {
        /// The node's address.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke; whether the call was performed is unknown.
    #[error("the connection to {url} broke: {reason}")]
    Broken {
        /// The node's address.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// An HTTP status without a JSON-RPC error: probably not a node.
    #[error("{url} answered with HTTP status {status}: {body}")]
    Http {
        /// The node's address.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The node refused the call.
    #[error("{} ({})", .0.message, .0.code)]
    Rpc(RpcError),
    /// The answer is not what the method answers with.
    #[error("{url} gave an answer to {method} that cannot be read: {reason}")]
    Malformed {
        /// The node's address.
        url: String,
        /// The method called.
        method: String,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// The node's own error, when it is one.
    #[must_use]
    pub const fn rpc(&self) -> Option<&RpcError> {
        match self {
            Self::Rpc(error) => Some(error),
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Request<'a, P: ?Sized> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a P,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default)]
    jsonrpc: String,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// The address with `http://` before it when it names no scheme, as people type `127.0.0.1:26650`.
#[must_use]
pub fn with_scheme(url: &str) -> String {
    if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    }
}

/// A client of one node. Connections are kept and used again.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    timeout: Duration,
    next_id: AtomicU64,
}

impl Client {
    /// A client of the node at `url`, as `http://127.0.0.1:26650/rpc`; the path `/rpc` may be left
    /// out. Proxies of the environment are not used.
    ///
    /// # Errors
    /// When `url` is not an address.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, ClientError> {
        let bad = || ClientError::Url { url: url.into() };
        let uri: axum::http::Uri = url.parse().map_err(|_| bad())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || uri.host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        let url = match uri.path() {
            "" | "/" => format!("{}/rpc", url.trim_end_matches('/')),
            _ => url.into(),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url,
            timeout,
            next_id: AtomicU64::new(1),
        })
    }

    /// The node's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Calls `method`. `params` is an object (by name) or an array or tuple (by position); `[]`
    /// when there are none.
    ///
    /// # Errors
    /// Each variant of [`ClientError`] says how far the call came.
    pub fn call<P, R>(&self, method: &str, params: &P) -> Result<R, ClientError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let malformed = |reason: String| ClientError::Malformed {
            url: self.url.clone(),
            method: method.into(),
            reason,
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = serde_json::to_vec(&Request {
            jsonrpc: "2.0",
            id,
            method,
            params,
        })
        .map_err(|error| malformed(format!("the parameters are not JSON: {error}")))?;
        let (status, body) = self.exchange(&request)?;
        let response: Response<'_> = match serde_json::from_slice(&body) {
            Ok(response) => response,
            Err(error) if status == 200 && error.is_eof() && !body.is_empty() => {
                return Err(ClientError::Broken {
                    url: self.url.clone(),
                    reason: format!("the answer ends after {} bytes", body.len()),
                });
            }
            Err(error) if status == 200 => return Err(malformed(error.to_string())),
            Err(_) => return Err(self.http(status, &body)),
        };
        if let Some(error) = response.error {
            return Err(ClientError::Rpc(error));
        }
        if status != 200 {
            return Err(self.http(status, &body));
        }
        if response.jsonrpc != "2.0" {
            return Err(malformed("it is not JSON-RPC 2.0".into()));
        }
        if response.id.map(RawValue::get) != Some(id.to_string().as_str()) {
            return Err(malformed("it answers another call".into()));
        }
        let result = response
            .result
            .ok_or_else(|| malformed("it has neither result nor error".into()))?;
        serde_json::from_str(result.get()).map_err(|error| malformed(error.to_string()))
    }

    fn exchange(&self, request: &[u8]) -> Result<(u16, Vec<u8>), ClientError> {
        let sent = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(request);
        let mut response = sent.map_err(|error| self.failed(error))?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.failed(error))?;
        Ok((status, body))
    }

    fn http(&self, status: u16, body: &[u8]) -> ClientError {
        ClientError::Http {
            url: self.url.clone(),
            status,
            body: shortened(&String::from_utf8_lossy(body)),
        }
    }

    fn failed(&self, error: ureq::Error) -> ClientError {
        use std::io::ErrorKind;
        let url = self.url.clone();
        let after = self.timeout;
        let reason = error.to_string();
        match error {
            ureq::Error::Timeout(_) => ClientError::Timeout { url, after },
            ureq::Error::Io(io) => match io.kind() {
                ErrorKind::TimedOut => ClientError::Timeout { url, after },
                ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable => ClientError::Connect {
                    url,
                    reason: io.to_string(),
                },
                _ => ClientError::Broken {
                    url,
                    reason: io.to_string(),
                },
            },
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_) => ClientError::Connect { url, reason },
            ureq::Error::BadUri(_) => ClientError::Url { url },
            _ => ClientError::Broken { url, reason },
        }
    }
}
