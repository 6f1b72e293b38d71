//! The method table: names, parameters, results and documentation, and from them the dispatch.

use std::future::Future;
use std::pin::Pin;

use proofmill_chain::codec::{self, DecodeError};
use proofmill_chain::types::hash::{AccountId, Hash};
use proofmill_chain::types::params::Params;
use proofmill_chain::types::task::{ATTESTATION_BYTES_MAX, AttestationMessage};
use proofmill_chain::types::transaction::{SignedTransaction, TRANSACTION_BYTES_MAX};
use proofmill_chain::types::units::Height;
use serde_json::value::RawValue;

use crate::answers::Writable;
use crate::api::{
    AccountView, AttestationSent, BlockRef, BlockSummary, BlockView, Hex, Include, NodeHealth,
    NodeInfo, ReceiptView, TaskCursor, TaskFilter, TaskPage, TaskResult, TaskState, TaskView,
    TransactionSent, TransactionView, ValidatorsView, WorkerPage,
};
use crate::argument::{Argument, Arguments, Limit};
use crate::error::{Code, Error, shortened};
use crate::nearest::nearest;
use crate::port::Ports;

/// What a call gives: something to write as JSON, or an error.
pub(crate) type Answer = Result<Box<dyn Writable>, Error>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a call costs the node besides time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Little: a few records are read.
    Light,
    /// A whole block may be read, for an answer with a small part of it.
    Lookup,
    /// The answer may hold a whole block, a program, an input or an output.
    Bulk,
}

/// A call whose arguments are read.
pub(crate) struct Begun {
    pub(crate) weight: Weight,
    pub(crate) answering: Answering,
}

/// A parameter of a method.
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What is expected, as a noun phrase.
    pub kind: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its default as JSON; required when there is none.
    pub default: Option<fn() -> String>,
}

/// A method.
pub struct Method {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Its parameters, in the order of their positions.
    pub params: &'static [Param],
    /// The name of its result's type in [`api`](crate::api).
    pub result: &'static str,
    call: fn(Ports, Arguments) -> Result<Begun, Error>,
}

impl Method {
    /// The parameters' names in order, for messages: `(block, full)`.
    pub(crate) fn signature(&self) -> String {
        let names: Vec<_> = self.params.iter().map(|param| param.name).collect();
        match names.as_slice() {
            [] => "no parameters".into(),
            [one] => format!("one parameter ({one})"),
            many => format!("{} parameters ({})", many.len(), many.join(", ")),
        }
    }

    /// Reads the arguments and begins the call.
    pub(crate) fn begin(&self, ports: &Ports, params: Option<&RawValue>) -> Result<Begun, Error> {
        let arguments = Arguments::bind(self, params)?;
        (self.call)(ports.clone(), arguments)
    }
}

macro_rules! read_argument {
    ($arguments:ident, $param:ident) => {
        $arguments.required(stringify!($param))?
    };
    ($arguments:ident, $param:ident, $default:expr) => {
        $arguments.optional(stringify!($param), $default)?
    };
}

macro_rules! default_text {
    ($ty:ty) => {
        None
    };
    ($ty:ty, $default:expr) => {
        Some(|| {
            let default: $ty = $default;
            serde_json::to_string(&default).expect("a default is plain JSON")
        })
    };
}

macro_rules! weight {
    () => {
        Weight::Light
    };
    ($weight:expr) => {
        $weight
    };
}

macro_rules! methods {
    ($ports:ident; $(
        $doc:literal
        $name:ident($($param:ident: $ty:ty $(= $default:expr)?, $param_doc:literal;)*) -> $result:ident
            $(, $weight:expr;)? $call:block
    )+) => {
        /// Every method there is.
        pub static METHODS: &[Method] = &[$(Method {
            name: stringify!($name),
            doc: $doc,
            params: &[$(Param {
                name: stringify!($param),
                kind: <$ty as Argument>::KIND,
                doc: $param_doc,
                default: default_text!($ty $(, $default)?),
            },)*],
            result: stringify!($result),
            call: |$ports, arguments| {
                #[allow(unused_mut, unused_variables, reason = "some methods take nothing")]
                let mut arguments = arguments;
                $(let $param: $ty = read_argument!(arguments, $param $(, $default)?);)*
                let weight = weight!($($weight)?);
                let answering: Answering = Box::pin(async move {
                    let result: $result = $call;
                    Ok(Box::new(result) as Box<dyn Writable>)
                });
                Ok(Begun { weight, answering })
            },
        },)+];
    };
}

methods! { ports;
    "What the node is, and where its chain stands."
    node_info() -> NodeInfo { ports.query.node_info().await? }

    "Whether the node works and should be asked anything. Answers even when it is not ready."
    node_health() -> NodeHealth { ports.query.node_health().await? }

    "The last final block."
    chain_getHead() -> BlockSummary, Weight::Lookup; { ports.query.head().await? }

    "The chain's parameters."
    chain_getParams() -> Params { ports.query.params().await? }

    "A final block, and the certificate that makes it final."
    chain_getBlock(
        block: BlockRef, "Which block.";
        full: bool = false, "Whether transactions come whole, not as ids.";
    ) -> BlockView, Weight::Bulk; { ports.query.block(block, full).await? }

    "What became of a transaction in its block."
    chain_getReceipt(
        transaction: Hash, "The transaction's id.";
    ) -> ReceiptView, Weight::Lookup; { ports.query.receipt(transaction).await? }

    "An account. One that was never credited has nothing and nonce 0."
    account_get(
        account: AccountId, "The account.";
    ) -> AccountView { ports.query.account(account).await? }

    "Sends a signed transaction. Sending one again is answered `known`, not refused."
    tx_send(
        transaction: Hex, "The wire encoding of the signed transaction.";
    ) -> TransactionSent {
        ports.submit.submit_transaction(transaction_of(&transaction)?).await?
    }

    "A transaction, and where it is: `pending`, `included` or `unknown`."
    tx_get(
        transaction: Hash, "The transaction's id.";
    ) -> TransactionView, Weight::Lookup; { ports.query.transaction(transaction).await? }

    "Sends a worker's attestation."
    attestation_send(
        attestation: Hex, "The wire encoding of the attestation message.";
    ) -> AttestationSent {
        ports.submit.submit_attestation(attestation_of(&attestation)?).await?
    }

    "A task: its order, what it waits for, how far each seat is and, once it is over, who was paid."
    task_get(
        task: Hash, "The task: the id of the transaction that submitted it.";
        include_input: bool = false, "Whether the input's bytes come along.";
        include_program: bool = false, "Whether the program's bytes come along.";
    ) -> TaskView, if include_input || include_program { Weight::Bulk } else { Weight::Light }; {
        let include = Include { input: include_input, program: include_program };
        ports.query.task(task, include).await?
    }

    "Tasks, newest first."
    task_list(
        state: Option<TaskState> = None, "Only tasks in this state.";
        requester: Option<AccountId> = None, "Only tasks of this requester.";
        worker: Option<AccountId> = None, "Only tasks in which this worker has a seat.";
        limit: Limit = Limit::DEFAULT, "Most tasks to answer with.";
        before: Option<TaskCursor> = None, "Only tasks older than this place.";
    ) -> TaskPage {
        let filter = TaskFilter { state, requester, worker, limit: limit.0, before };
        ports.query.tasks(filter).await?
    }

    "The result of a final task, with what every worker committed to and revealed."
    task_getResult(
        task: Hash, "The task.";
    ) -> TaskResult, Weight::Bulk; { ports.query.task_result(task).await? }

    "Registered workers, by descending key."
    worker_list(
        limit: Limit = Limit::DEFAULT, "Most workers to answer with.";
        before: Option<AccountId> = None, "Only workers with a lower key.";
    ) -> WorkerPage { ports.query.workers(limit.0, before).await? }

    "The validators that decide a height, with their power and share."
    validator_list(
        height: Option<Height> = None, "The height; the next one when left out.";
    ) -> ValidatorsView { ports.query.validators(height).await? }
}

/// The method of a name; when there is none, the error names the nearest.
pub(crate) fn find(name: &str) -> Result<&'static Method, Error> {
    if let Some(method) = METHODS.iter().find(|method| method.name == name) {
        return Ok(method);
    }
    let name = shortened(name);
    let error = |message: String| Error::new(Code::MethodNotFound, message);
    Err(
        match nearest(&name, METHODS.iter().map(|method| method.name)) {
            Some(near) => error(format!("no method `{name}`; did you mean `{near}`?"))
                .with("received", name)
                .with("nearest", near),
            None => error(format!("no method `{name}`")).with("received", name),
        },
    )
}

fn transaction_of(bytes: &Hex) -> Result<SignedTransaction, Error> {
    codec::decode::<_, TRANSACTION_BYTES_MAX>(&bytes.0)
        .map_err(|error| undecoded(Code::TxMalformed, &error, "a signed transaction"))
}

fn attestation_of(bytes: &Hex) -> Result<AttestationMessage, Error> {
    codec::decode::<_, ATTESTATION_BYTES_MAX>(&bytes.0)
        .map_err(|error| undecoded(Code::AttestationRefused, &error, "an attestation"))
}

fn undecoded(code: Code, error: &DecodeError, what: &str) -> Error {
    match error {
        DecodeError::TooLong { given, most } => {
            Error::new(code, format!("{given} bytes, {what} has at most {most}"))
                .with("expected", *most)
                .with("received", *given)
        }
        DecodeError::Malformed(_) => Error::new(code, format!("the bytes do not encode {what}")),
        DecodeError::Trailing(bytes) => {
            Error::new(code, format!("{bytes} bytes behind {what}")).with("received", *bytes)
        }
    }
}
