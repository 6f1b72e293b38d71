//! The `Host` header: a node answers for names that are its own.
//!
//! A page of another site can have its name point to this machine and then reads the answers as
//! its own ("DNS rebinding"); only the header tells such a request from a good one. It takes a name
//! to do so: a request to an IP address was meant for that address, so every address is good.

use std::net::IpAddr;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Request, Version};

use crate::error::{Code, Error, shortened};

/// Whether a text can be allowed: a host name in lower case without a port, or `*` for all.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |label: &str| {
        let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    text == "*" || (text.len() <= 253 && text.split('.').all(plain))
}

/// The names that a node answers for.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    any: bool,
    names: Vec<String>,
}

impl Hosts {
    /// `localhost`, every IP address and these.
    pub(crate) fn new(names: &[String]) -> Self {
        Self {
            any: names.iter().any(|name| name == "*"),
            names: names.to_vec(),
        }
    }

    /// Checks the host that a request names.
    ///
    /// # Errors
    /// When there is none, more than one, or one that is not allowed.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Error> {
        let mut given = request.headers().get_all(HOST).iter();
        let (first, second) = (given.next(), given.next());
        if second.is_some() {
            return Err(Error::new(
                Code::InvalidRequest,
                "the header host is given twice",
            ));
        }
        if first.is_none() && request.version() >= Version::HTTP_11 {
            return Err(Error::new(
                Code::InvalidRequest,
                "the header host is missing",
            ));
        }
        // A target may name a host as well, and servers disagree about which counts.
        let target = request
            .uri()
            .authority()
            .map(|target| target.as_str().as_bytes());
        let header = first.map(|host| host.as_bytes());
        for text in header.into_iter().chain(target) {
            let host = Authority::try_from(text).ok();
            let host = host.as_ref().map(Authority::host);
            if !host.is_some_and(|host| self.allow(host)) {
                let host = shortened(&String::from_utf8_lossy(text));
                let message = format!(
                    "this node does not answer for the host `{host}`: use its address, or allow the name with `rpc.hosts`"
                );
                return Err(Error::new(Code::HostNotAllowed, message).with("received", host));
            }
        }
        Ok(())
    }

    fn allow(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_address = bare.unwrap_or(host).parse::<IpAddr>().is_ok();
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_local = host == "localhost" || host.ends_with(".localhost");
        self.any || is_address || is_local || self.names.contains(&host)
    }
}

#[cfg(test)]
mod tests {
    use super::{HOST, Hosts, Request, Version, is_name};

    fn refused(hosts: &Hosts, target: &str, given: &[&str]) -> Option<i32> {
        let mut request = Request::post(target);
        for host in given {
            request = request.header(HOST, *host);
        }
        let request = request.body(()).expect("a request");
        hosts
            .check(&request)
            .err()
            .map(|error| error.code().number())
    }

    #[test]
    fn local_names_addresses_and_allowed_names_are_answered() {
        let hosts = Hosts::new(&["node.example.org".to_owned()]);
        for host in [
            "localhost",
            "LocalHost:26650",
            "localhost.",
            "node0.localhost",
            "127.0.0.1:26650",
            "192.0.2.7",
            "[::1]:26650",
            "[2001:db8::1]",
            "node.example.org",
            "NODE.example.org.:443",
        ] {
            assert_eq!(refused(&hosts, "/rpc", &[host]), None, "{host}");
        }
        for host in [
            "example.org",
            "evil.node.example.org",
            "node.example.org.evil.net",
            "localhost.evil.net",
            "127.0.0.1.evil.net",
            "evil.net:26650",
            "localhost:1@evil.net",
            "",
            "a b",
        ] {
            assert_eq!(refused(&hosts, "/rpc", &[host]), Some(-32035), "{host}");
        }
        let any = Hosts::new(&["*".to_owned()]);
        assert_eq!(refused(&any, "/rpc", &["evil.net"]), None);
    }

    #[test]
    fn a_host_is_named_once_and_the_target_counts_too() {
        let hosts = Hosts::new(&[]);
        assert_eq!(refused(&hosts, "/rpc", &[]), Some(-32600));
        assert_eq!(
            refused(&hosts, "/rpc", &["localhost", "localhost"]),
            Some(-32600)
        );
        assert_eq!(
            refused(&hosts, "http://evil.net/rpc", &["localhost"]),
            Some(-32035)
        );
        assert_eq!(
            refused(&hosts, "http://127.0.0.1/rpc", &["localhost"]),
            None
        );
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        assert!(hosts.check(&old).is_ok(), "HTTP/1.0 has no such header");
    }

    #[test]
    fn what_may_be_allowed_is_a_name() {
        for name in ["*", "node", "node-1.example.org", "_x.y"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "", "Node", "a b", "a..b", ".a", "http://a", "a:1", "a/b", "*.a",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
