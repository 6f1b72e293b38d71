//! The table of keys: name, documentation and rule.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use proofmill_rpc::nearest::nearest;
use toml::Value;

use super::ConfigError;
use crate::upgrades::Configured;

/// Longest moniker, in bytes.
pub(super) const MONIKER_BYTES_MAX: usize = 64;
/// Most peers or origins in a list.
pub(super) const LIST_MAX: usize = 256;
/// Smallest log file, in bytes.
pub(super) const LOG_BYTES_MIN: i64 = 64 << 10;
/// Most closed log files.
pub(super) const LOG_FILES_MAX: i64 = 1_000;
/// Longest time that an empty block is held back, milliseconds.
pub(super) const IDLE_MS_MAX: i64 = 60_000;

/// Least and most memory for caches, MiB.
pub(super) const CACHES_MIB_MIN: i64 = 32;
pub(super) const CACHES_MIB_MAX: i64 = 1 << 20;
/// Most connections to the JSON-RPC server that can be allowed.
const CONNECTIONS_MAX: i64 = 65_536;
/// Most requests at a time that can be allowed.
const REQUESTS_MAX: i64 = 4_096;
/// Smallest budget for large answers, in bytes: one of the largest size.
const ANSWERS_BYTES_MIN: i64 = 32 << 20;
/// Largest budget for large answers, in bytes.
const ANSWERS_BYTES_MAX: i64 = 16 << 30;

const _: () = assert!(ANSWERS_BYTES_MIN == proofmill_rpc::limits::ANSWER_BYTES_MAX as i64);

/// A key of the configuration.
pub struct Key {
    /// Its name, with the section: `rpc.listen`.
    pub name: &'static str,
    /// What it is for, and its unit.
    pub doc: &'static str,
    rule: fn(&Value) -> Result<(), String>,
}

/// Every key there is, in the order of the file.
pub const KEYS: &[Key] = &[
    Key {
        name: "moniker",
        doc: "The node's name, for people: at most 64 bytes.",
        rule: moniker,
    },
    Key {
        name: "upgrades",
        doc: "The chain's upgrades of the protocol, each \"VERSION@HEIGHT\": from HEIGHT on blocks follow\n\
              the rules of VERSION. All nodes of a chain need the same list. A development network\n\
              has it in its genesis file instead.",
        rule: |value| {
            each_is(
                value,
                |text| text.parse::<Configured>().is_ok(),
                "an upgrade, as \"2@1000000\"",
            )
        },
    },
    Key {
        name: "rpc.listen",
        doc: "Address and port of the JSON-RPC server. It has no authentication: keep it on the\n\
              loopback address, or put a proxy before it. Port 0 takes any free port.",
        rule: |value| {
            text_is(
                value,
                |text| text.parse::<SocketAddr>().is_ok(),
                "an address and a port, as \"127.0.0.1:26650\" or \"[::1]:26650\",",
            )
        },
    },
    Key {
        name: "rpc.cors_origins",
        doc: "Origins of web pages that may call the JSON-RPC server; [\"*\"] for all.",
        rule: |value| {
            each_is(
                value,
                origin,
                "an origin, as \"https://example.org\", or \"*\"",
            )
        },
    },
    Key {
        name: "rpc.hosts",
        doc: "Names by which the JSON-RPC server may be called besides localhost and IP addresses, as\n\
              [\"node.example.org\"]; [\"*\"] for all. A request for another host is refused: a page of\n\
              another site could send it.",
        rule: |value| {
            each_is(
                value,
                proofmill_rpc::is_host_name,
                "a host name in lower case without port, as \"node.example.org\", or \"*\"",
            )
        },
    },
    Key {
        name: "rpc.connections_max",
        doc: "Connections to the JSON-RPC server open at a time: 1 to 65536.",
        rule: |value| within(value, 1, CONNECTIONS_MAX),
    },
    Key {
        name: "rpc.connections_per_address_max",
        doc: "The same from one address (IPv6: one /64): 1 to 65536. Behind a proxy all connections\n\
              come from its address: give it as many as there may be in all.",
        rule: |value| within(value, 1, CONNECTIONS_MAX),
    },
    Key {
        name: "rpc.requests_max",
        doc: "Requests to the JSON-RPC server at work or being answered at a time: 2 to 4096.",
        rule: |value| within(value, 2, REQUESTS_MAX),
    },
    Key {
        name: "rpc.answers_bytes_max",
        doc: "Bytes of large answers of the JSON-RPC server that are made or being written: 33554432,\n\
              which is one answer of the largest size, to 17179869184.",
        rule: |value| within(value, ANSWERS_BYTES_MIN, ANSWERS_BYTES_MAX),
    },
    Key {
        name: "consensus.listen",
        doc: "Multiaddress on which other nodes reach consensus.",
        rule: |value| text_is(value, multiaddr, MULTIADDR),
    },
    Key {
        name: "consensus.peers",
        doc: "Multiaddresses of the nodes that consensus stays connected to.",
        rule: |value| each_is(value, multiaddr, MULTIADDR),
    },
    Key {
        name: "gossip.listen",
        doc: "Multiaddress on which transactions and attestations arrive from other nodes.",
        rule: |value| text_is(value, multiaddr, MULTIADDR),
    },
    Key {
        name: "gossip.peers",
        doc: "Multiaddresses of the nodes that transactions and attestations are exchanged with.",
        rule: |value| each_is(value, multiaddr, MULTIADDR),
    },
    Key {
        name: "block.idle_ms",
        doc: "When there is nothing to put into a block, the next one is held back so long,\n\
              milliseconds: at most 60000.",
        rule: |value| within(value, 0, IDLE_MS_MAX),
    },
    Key {
        name: "memory.caches_mib",
        doc: "What all caches together may take, MiB: at least 32. The state of the chain comes on top:\n\
              docs/operators.md says how much.",
        rule: |value| within(value, CACHES_MIB_MIN, CACHES_MIB_MAX),
    },
    Key {
        name: "supply.verify_every",
        doc: "All money of the chain is counted every so many blocks, and the node stops when the\n\
              sum is wrong; 0 for never.",
        rule: |value| within(value, 0, i64::MAX),
    },
    Key {
        name: "log.level",
        doc: "What is logged: error, warn, info, debug, trace or off; levels of modules may\n\
              follow, as \"info,proofmill_node::engine=debug\".",
        rule: level,
    },
    Key {
        name: "log.format",
        doc: "How a line of the log looks: text or json.",
        rule: |value| {
            text_is(
                value,
                |text| matches!(text, "text" | "json"),
                "\"text\" or \"json\"",
            )
        },
    },
    Key {
        name: "log.bytes_max",
        doc: "A log file larger than this is closed and a new one begun, bytes: at least 65536.",
        rule: |value| within(value, LOG_BYTES_MIN, i64::MAX),
    },
    Key {
        name: "log.files_max",
        doc: "How many closed log files are kept: 1 to 1000.",
        rule: |value| within(value, 1, LOG_FILES_MAX),
    },
];

const MULTIADDR: &str = "a multiaddress, as \"/ip4/127.0.0.1/tcp/26750\"";

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        match self.name {
            "log.level" => "PROOFMILL_LOG".into(),
            name => format!("PROOFMILL_{}", name.replace('.', "_").to_uppercase()),
        }
    }

    /// The value that a text stands for, in the type of the default.
    pub(super) fn parse(
        &self,
        text: &str,
        default: &Value,
        origin: &str,
    ) -> Result<Value, ConfigError> {
        match default {
            Value::Integer(_) => match text.parse() {
                Ok(number) => Ok(Value::Integer(number)),
                Err(_) => Err(self.refused(text, origin, "an integer is expected")),
            },
            Value::Array(_) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Ok(Value::Array(items.map(Value::from).collect()))
            }
            _ => Ok(Value::from(text)),
        }
    }

    /// Whether a value has the default's type and obeys the key's rule.
    pub(super) fn check(
        &self,
        value: &Value,
        default: &Value,
        origin: &str,
    ) -> Result<(), ConfigError> {
        if !value.same_type(default) {
            let rule = format!(
                "{} is expected, not {}",
                with_article(default.type_str()),
                with_article(value.type_str())
            );
            return Err(self.refused(&value.to_string(), origin, &rule));
        }
        (self.rule)(value).map_err(|rule| self.refused(&value.to_string(), origin, &rule))
    }

    fn refused(&self, value: &str, origin: &str, rule: &str) -> ConfigError {
        ConfigError::Value {
            key: self.name,
            value: value.chars().take(200).collect(),
            origin: origin.into(),
            rule: rule.into(),
        }
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn text_is(value: &Value, rule: impl Fn(&str) -> bool, expected: &str) -> Result<(), String> {
    if rule(text_of(value)) {
        Ok(())
    } else {
        Err(format!("{expected} is expected"))
    }
}

fn each_is(value: &Value, rule: impl Fn(&str) -> bool, expected: &str) -> Result<(), String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.len() > LIST_MAX {
        return Err(format!(
            "at most {LIST_MAX} entries are expected, not {}",
            items.len()
        ));
    }
    for item in items {
        if !item.as_str().is_some_and(&rule) {
            return Err(format!("{item} is not {expected}"));
        }
    }
    Ok(())
}

fn within(value: &Value, least: i64, most: i64) -> Result<(), String> {
    let number = value.as_integer().unwrap_or_default();
    if number < least {
        return Err(format!("at least {least} is expected"));
    }
    if number > most {
        return Err(format!("at most {most} is expected"));
    }
    Ok(())
}

fn moniker(value: &Value) -> Result<(), String> {
    let text = text_of(value);
    if text.is_empty() || text.len() > MONIKER_BYTES_MAX || text.contains(char::is_control) {
        return Err(format!(
            "1 to {MONIKER_BYTES_MAX} bytes without control characters are expected"
        ));
    }
    Ok(())
}

fn multiaddr(text: &str) -> bool {
    !text.is_empty() && text.parse::<Multiaddr>().is_ok()
}

fn origin(text: &str) -> bool {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
}

/// A directive without `=` must be a level: the filter would take any other word for a module and
/// log nothing else.
fn level(value: &Value) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for directive in text_of(value).split(',').map(str::trim) {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        if LEVELS.contains(&level.to_lowercase().as_str()) {
            continue;
        }
        let known = LEVELS.join(", ");
        return Err(match nearest(level, LEVELS) {
            Some(near) => format!("`{level}` is no level: did you mean `{near}`?"),
            None => format!("`{level}` is no level; levels are {known}"),
        });
    }
    tracing_subscriber::EnvFilter::builder()
        .parse(text_of(value))
        .map(drop)
        .map_err(|error| error.to_string())
}
