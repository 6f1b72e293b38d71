//! Tasks, seats and attestations (protocol §6.2 and §6.3).

use serde::{Deserialize, Serialize};

use crate::types::hash::{AccountId, Blob, Hash, Signature};
use crate::types::units::{Amount, Gas, Height, MachineVersion};

/// Largest inline input, in bytes.
pub const INPUT_BYTES_MAX: usize = 64 << 10;
/// Largest output, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Largest program module, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 1 << 20;
/// Largest encoded attestation with its output.
pub const ATTESTATION_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 1024;

/// How a result is made trustworthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// Several workers compute it apart from each other: commit, then reveal, all equal.
    Replicated {
        /// How many.
        replicas: u8,
    },
}

impl Mode {
    /// How many seats the task has.
    #[must_use]
    pub const fn seats(self) -> u8 {
        match self {
            Self::Replicated { replicas } => replicas,
        }
    }
}

/// What a worker must have to be drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Tags it must all have, sorted, without repetition.
    pub tags: Vec<String>,
    /// Accepted seats it must have behind it.
    pub min_reputation: u32,
}

/// An order, as submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Content address of a published program.
    pub program: Hash,
    /// Its input.
    pub input: Blob,
    /// The most gas one execution may use.
    pub gas_limit: Gas,
    /// The most memory it may have, in pages of 64 KiB.
    pub memory_pages: u32,
    /// How the result is made trustworthy.
    pub mode: Mode,
    /// What is paid, in grain per million gas and seat.
    pub price_per_mgas: Amount,
    /// What a wrong result would cost the requester; the seats' bonds sum to at least this.
    pub insured_value: Amount,
    /// What a worker must have to be drawn.
    pub requirements: Requirements,
    /// How many blocks the task may wait for workers.
    pub wait_max: u64,
}

/// A moment of the chain: both a height and protocol time, since windows need both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Block height.
    pub height: Height,
    /// Protocol time: milliseconds since genesis, growing by a bounded step per block.
    pub time_ms: u64,
}

/// How the machine ended, as the worker says (the values of protocol §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    /// The program finished and left an output.
    Done,
    /// The program trapped.
    Trap,
    /// The gas limit was reached.
    OutOfGas,
    /// The output lies outside the memory or is too long.
    BadOutput,
    /// More steps than the program may take.
    TooManySteps,
    /// A single step used more gas than a step may.
    StepOutOfGas,
}

impl ResultStatus {
    /// The byte that stands for it in a commitment.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// What a worker says the execution gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultClaim {
    /// Content address of the output bytes; of the empty string unless `status` is done.
    pub output_hash: Hash,
    /// Root over the checkpoints.
    pub trace_root: Hash,
    /// Gas used.
    pub gas: Gas,
    /// How it ended.
    pub status: ResultStatus,
}

impl ResultClaim {
    /// The commitment to this claim: a hash that binds task, draw, worker, claim and salt.
    #[must_use]
    pub fn commitment(&self, task: &Hash, draw: u8, worker: &AccountId, salt: &Hash) -> Hash {
        Hash::of(
            "proofmill/commitment/v1",
            &[
                task.as_bytes(),
                &[draw],
                worker.as_bytes(),
                self.output_hash.as_bytes(),
                self.trace_root.as_bytes(),
                &self.gas.get().to_le_bytes(),
                &[self.status.byte()],
                salt.as_bytes(),
            ],
        )
    }
}

/// What an attestation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Statement {
    /// The worker has the result and binds itself to it.
    Commit {
        /// [`ResultClaim::commitment`].
        commitment: Hash,
    },
    /// The worker opens its commitment.
    Reveal {
        /// The result.
        claim: ResultClaim,
        /// The salt of the commitment.
        salt: Hash,
    },
}

/// A worker's word on one of its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The task.
    pub task: Hash,
    /// The draw that gave the worker its seat.
    pub draw: u8,
    /// The worker.
    pub worker: AccountId,
    /// What it says.
    pub statement: Statement,
}

impl Attestation {
    /// What the worker signs.
    #[must_use]
    pub fn sign_bytes(&self, genesis: &Hash) -> Vec<u8> {
        let mut bytes = b"proofmill/attestation/v1".to_vec();
        bytes.extend_from_slice(genesis.as_bytes());
        crate::codec::encode_into(self, &mut bytes);
        bytes
    }

    /// A name for the attestation, the same whatever its signature.
    #[must_use]
    pub fn id(&self, genesis: &Hash) -> Hash {
        Hash::of("proofmill/attestation-id/v1", &[&self.sign_bytes(genesis)])
    }
}

/// An attestation with its signature, as it stands in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedAttestation {
    /// What is signed.
    pub attestation: Attestation,
    /// The worker's signature over [`Attestation::sign_bytes`].
    pub signature: Signature,
}

/// An attestation on its way to a proposer; a reveal brings its output bytes along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationMessage {
    /// The attestation.
    pub signed: SignedAttestation,
    /// The output that a reveal's hash names; empty for a commit.
    pub output: Blob,
}

/// A worker's place in a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The worker.
    pub worker: AccountId,
    /// Who is paid for it.
    pub operator: AccountId,
    /// Which draw gave it the seat, from 0.
    pub draw: u8,
    /// Collateral that the seat locks.
    pub bond: Amount,
    /// When it was drawn.
    pub drawn: Moment,
    /// Its commitment.
    pub commitment: Option<Hash>,
    /// Its opened result.
    pub claim: Option<ResultClaim>,
}

/// Why a task ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryReason {
    /// Not enough eligible workers came in time.
    NoWorkers,
    /// Seats stayed uncommitted after every redraw.
    NotCommitted,
    /// A committed seat did not reveal.
    NotRevealed,
    /// The revealed results differ.
    ResultsDiffer,
}

/// Who got what when a task ended with a result. The parts sum to the escrow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Metered gas of one execution, which all seats agree on.
    pub gas: Gas,
    /// To each seat's operator.
    pub per_seat: Amount,
    /// To the proposer of the block that settled it, for the validators.
    pub validators: Amount,
    /// Destroyed.
    pub burned: Amount,
    /// Back to the requester: the unused part and the unspent audit reserve.
    pub refunded: Amount,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its workers.
    Open,
    /// Its workers compute and commit.
    Committing {
        /// Since when seats have been vacant, when some are.
        vacant_since: Option<Moment>,
    },
    /// All seats have committed; its workers open their results.
    Revealing {
        /// Since when.
        since: Moment,
    },
    /// It has its result.
    Final {
        /// Where.
        at: Height,
        /// The agreed result.
        claim: ResultClaim,
        /// Who got what.
        settlement: Settlement,
    },
    /// It ended without a result; the escrow went back.
    Expired {
        /// Where.
        at: Height,
        /// Why.
        reason: ExpiryReason,
    },
    /// The requester took it back.
    Cancelled {
        /// Where.
        at: Height,
    },
}

impl Phase {
    /// The phase's name, as in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Committing { .. } => "committing",
            Self::Revealing { .. } => "revealing",
            Self::Final { .. } => "final",
            Self::Expired { .. } => "expired",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Final { .. } | Self::Expired { .. } | Self::Cancelled { .. }
        )
    }
}

/// What the state keeps of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The id of the transaction that submitted it.
    pub id: Hash,
    /// Who ordered and paid.
    pub requester: AccountId,
    /// The program.
    pub program: Hash,
    /// Version of the machine that runs it: its program's.
    pub machine_version: MachineVersion,
    /// Length of the program in bytes.
    pub module_bytes: u32,
    /// Content address of the input.
    pub input: Hash,
    /// The most gas one execution may use.
    pub gas_limit: Gas,
    /// The most memory, in pages of 64 KiB.
    pub memory_pages: u32,
    /// How the result is made trustworthy.
    pub mode: Mode,
    /// Pay in grain per million gas and seat.
    pub price_per_mgas: Amount,
    /// What the seats' bonds sum to at least.
    pub insured_value: Amount,
    /// Who may be drawn.
    pub requirements: Requirements,
    /// The last height at which it waits for its first workers; the first draw after it that finds
    /// too few ends the task.
    pub wait_until: Height,
    /// What it holds; zero when it is over.
    pub escrow: Amount,
    /// The block that submitted it.
    pub submitted_at: Height,
    /// Its transaction's index in that block.
    pub index: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Its workers.
    pub seats: Vec<Seat>,
    /// Workers that lost a seat by not committing; they are not drawn again.
    pub missed: Vec<AccountId>,
    /// How many draws have been made.
    pub draws: u8,
    /// How many eligible operators the last attempt to draw found.
    pub eligible_last: u32,
}
