//! The JSON types of parameters and answers.
//!
//! Heights, amounts, gas, nonces and powers are decimal strings; times in milliseconds, rounds,
//! indexes, counts and lengths are numbers below 2^53. Hashes, signatures and bytes are `0x` and
//! hex digits, accounts are bech32m.

mod block;
mod node;
mod task;
mod transaction;

pub use block::{BlockRef, BlockSummary, BlockTransaction, BlockView};
pub use node::{
    AccountView, HeadView, NodeHealth, NodeInfo, ValidatorView, ValidatorsView, WorkerPage,
    WorkerView,
};
pub use task::{
    CursorError, Include, Payment, Role, SeatProgress, SeatStep, TaskContext, TaskCursor,
    TaskFilter, TaskPage, TaskResult, TaskState, TaskSummary, TaskView, Waiting, WaitingFor,
};
pub use transaction::{
    AttestationSent, FailureView, Hex, ReceiptResult, ReceiptView, SendStatus, TransactionSent,
    TransactionStatus, TransactionView,
};

/// Most items that a list answers with.
pub const LIST_MAX: u32 = 200;
/// Items that a list answers with unless told.
pub const LIST_DEFAULT: u32 = 50;
