//! One catalogue of errors: every code that a caller can see, and whose fault it is.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// Who has to change something for the call to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the same call will fail again.
    Caller,
    /// The node, or its load: the same call may succeed later or elsewhere.
    Node,
}

impl Fault {
    /// The fault as it stands in an error's data.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Node => "node",
        }
    }
}

macro_rules! catalogue {
    ($($variant:ident = $number:literal, $name:literal, $fault:ident, $meaning:literal;)+) => {
        /// What went wrong, as a number and a name that never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number in the answer's `error.code`.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The name in the answer's `error.data.name`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

catalogue! {
    ParseError = -32700, "PARSE_ERROR", Caller, "The body is not JSON, or is nested too deeply.";
    InvalidRequest = -32600, "INVALID_REQUEST", Caller, "The JSON is not a JSON-RPC 2.0 request, or breaks a rule of the transport.";
    MethodNotFound = -32601, "METHOD_NOT_FOUND", Caller, "There is no method of this name.";
    InvalidParams = -32602, "INVALID_PARAMS", Caller, "A parameter is unknown, missing, given twice or not of its kind.";
    Internal = -32603, "INTERNAL", Node, "The node failed at something that should not fail; its log says more.";
    NotFound = -32001, "NOT_FOUND", Caller, "The chain has no such block, transaction, receipt or task.";
    TaskNotFinal = -32002, "TASK_NOT_FINAL", Caller, "The task is still under way; its state is in the data.";
    TaskWithoutResult = -32003, "TASK_WITHOUT_RESULT", Caller, "The task expired or was cancelled and will never have a result.";
    Pruned = -32004, "PRUNED", Node, "This node no longer keeps what was asked for.";
    TxMalformed = -32010, "TX_MALFORMED", Caller, "The bytes are not a signed transaction.";
    TxWrongChain = -32011, "TX_WRONG_CHAIN", Caller, "The transaction was made for another chain.";
    TxBadSignature = -32012, "TX_BAD_SIGNATURE", Caller, "A signature does not verify, is missing or is one too many.";
    TxBadKey = -32013, "TX_BAD_KEY", Caller, "A key is not the canonical encoding of a point, or has small order.";
    TxNonceTooLow = -32014, "TX_NONCE_TOO_LOW", Caller, "A transaction with this nonce is in the chain already.";
    TxNonceGap = -32015, "TX_NONCE_GAP", Caller, "Transactions of the sender with lower nonces are missing.";
    TxInsufficientBalance = -32016, "TX_INSUFFICIENT_BALANCE", Caller, "The balance does not cover the fee or what the action spends.";
    TxExpired = -32017, "TX_EXPIRED", Caller, "The last height at which the transaction may be included has passed.";
    TxFeeTooLow = -32018, "TX_FEE_TOO_LOW", Caller, "The most the transaction pays is less than its fee.";
    TxRefused = -32019, "TX_REFUSED", Caller, "The transaction breaks another rule, which the message names.";
    MempoolFull = -32020, "MEMPOOL_FULL", Node, "The node holds as many pending transactions as it may, or as it may of this sender.";
    AttestationRefused = -32021, "ATTESTATION_REFUSED", Caller, "The attestation is malformed, not signed by its worker, or does not fit its task.";
    NotReady = -32030, "NOT_READY", Node, "The node is starting or catching up.";
    Overloaded = -32031, "OVERLOADED", Node, "The node serves as many requests, or as large ones, as it may; nothing was done. Try again.";
    Timeout = -32032, "TIMEOUT", Node, "The answer did not come in time; whether a sent transaction was taken is unknown.";
    AnswerTooLarge = -32033, "ANSWER_TOO_LARGE", Caller, "The answers to one request would be too large. This call has no answer and those after it in the batch were not performed: ask for less, or in more requests.";
    RequestTimeout = -32034, "REQUEST_TIMEOUT", Caller, "The request did not arrive in time.";
    HostNotAllowed = -32035, "HOST_NOT_ALLOWED", Caller, "The Host header names a host for which this node does not answer; its operator may allow it.";
    TooManyConnections = -32036, "TOO_MANY_CONNECTIONS", Node, "As many connections are open as may be, in all or from one address, and none of them is idle.";
}

/// An error on its way to the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    code: Code,
    message: String,
    details: Map<String, Value>,
}

impl Error {
    /// An error with a message for people: lower case, with the values that matter.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Map::new(),
        }
    }

    /// Adds a member to the error's data, for programs: `expected`, `received` and the like.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    /// Something that should not fail did: the caller learns only that, the log learns what.
    #[must_use]
    pub fn internal(what: impl fmt::Display) -> Self {
        tracing::error!(%what, "a call failed");
        Self::new(
            Code::Internal,
            "the node failed to answer; its log says why",
        )
    }

    /// The same error with a longer message.
    pub(crate) fn prefixed(&self, prefix: &str) -> Self {
        Self {
            message: format!("{prefix}{}", self.message),
            ..self.clone()
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error's data: `name` and `fault`, then what was added.
    #[must_use]
    pub fn data(&self) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("name".into(), self.code.name().into());
        data.insert("fault".into(), self.code.fault().name().into());
        data.extend(self.details.clone());
        data
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("Error", 3)?;
        object.serialize_field("code", &self.code.number())?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("data", &self.data())?;
        object.end()
    }
}

/// The catalogue as a Markdown table, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| code | name | fault | meaning |\n|---|---|---|---|\n");
    for code in Code::ALL {
        text.push_str(&format!(
            "| {} | `{}` | {} | {} |\n",
            code.number(),
            code.name(),
            code.fault().name(),
            code.meaning()
        ));
    }
    text
}

/// A text from outside, short enough to be put into a message.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}
