//! The messages, each named by who may say it.
//!
//! Order on the control socket: the host sends `Setup` first; the worker answers `Ready` (or `CannotLock`, and leaves)
//! and is silent there from then on. Order on the rings: the host sends `Run`; the worker answers each that it claims,
//! in that order, with any number of `Log` (and of a batch, an `Item` for each task that it has run) and exactly one
//! `Done`; and says nothing of those that were taken back (`ring::End::claim`). An `Event` of no task may come at any
//! time, and one of a task whenever a `Log` of that task may. So may an `Ask`, if the task has something to ask for;
//! its `Reply` comes on the control socket, where it need not wait behind the inputs of what was sent meanwhile.

#[cfg(any(test, feature = "samples"))]
pub mod samples;

use std::fmt;

use postcard_schema::schema::{DataModelType, NamedType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::description::{CodeKind, WantedEntry};
use crate::limits::compile::{CompileLimit, CompileLimits, ExceededLimit};
use crate::limits::task::TaskLimits;
use crate::policy::{SandboxReport, SandboxRequest};
use crate::preopen::GuestDir;
use crate::probe::{AttackOutcome, Probe};
use crate::task::{Refusals, Subject, TaskId};
use crate::trap::{Frame, TrapCode};

/// A module's number within its pool; no number is used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, postcard_schema::Schema,
)]
pub struct ModuleId(pub u64);

/// A shared input's number within its pool; none is used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, postcard_schema::Schema,
)]
pub struct ShareId(pub u64);

/// Host to worker, on the control socket.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub enum ToWorkerControl {
    /// The first message. The rings' memfd and each directory's descriptor come with it.
    Setup {
        wire: u64,
        sandbox: SandboxRequest,
        pagemap_scan: bool,
        wasm_stack_bytes: u32,
        events: EventLevels,
        dirs: Vec<GuestDir>,
        /// A throw-away worker of `doctor` gets this instead of tasks.
        probe: Option<Box<Probe>>,
    },
    /// Comes with two descriptors: the artifact and its description.
    Module { module: ModuleId, code: CodeKind },
    /// Comes with a descriptor for each: sealed files of so many bytes.
    Share { shares: Vec<(ShareId, u64)> },
    /// The tasks to come have none of these.
    Forget { modules: Vec<ModuleId>, shares: Vec<ShareId> },
    /// Stop this run, and only this one.
    Interrupt { run: u64 },
    /// Stop this run once its thread has computed for this long since the run began. The host sends it for tasks that
    /// have run for a while, so that short ones cost nothing.
    Limit { run: u64, cpu_ns: u64 },
    /// Log where this run is at the moment, and go on.
    Sample { run: u64 },
    /// Replies to the run's question of that number. The worker drops a reply to a run that has ended.
    Reply { run: u64, number: u64, reply: Reply },
}

/// A running task asks its host for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Question {
    /// The task asks for at most this many bytes of its stdin, and at most for
    /// [`ASK_BYTES_MAX`](crate::limits::ASK_BYTES_MAX). 0 asks to be told once there are some.
    Stdin { bytes_max: u32 },
}

/// The host's reply to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Reply {
    /// The bytes are at most as many as were asked for.
    Bytes(Chunk),
    /// The stdin has ended, and the task must not ask again.
    End,
    /// Reading failed, with the number of the system's error if it was one.
    Failed { os_error: Option<i32> },
}

/// Bytes that are copied at once: serde would copy a vector one by one.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk(pub Vec<u8>);

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl postcard_schema::Schema for Chunk {
    const SCHEMA: &'static NamedType = &NamedType { name: "Chunk", ty: &DataModelType::ByteArray };
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The slice lies within what was received, so a false length cannot allocate more.
        <&[u8]>::deserialize(deserializer).map(|bytes| Chunk(bytes.to_vec()))
    }
}

/// Says which of its own events a worker tells: 0 none, 1 errors, to 5 everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct EventLevels {
    /// The level of the worker's own events.
    pub own: u8,
    /// The level of the engine's events, and of everything else that is linked into it.
    pub engine: u8,
}

/// Worker to host, on the control socket. No descriptors come with it.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub enum FromWorkerControl {
    Ready {
        wire: u64,
        sandbox: SandboxReport,
        /// It stops runs at the host's signal; otherwise it is to be sent messages.
        stops_by_signal: bool,
    },
    /// The result of a throw-away worker's attempt.
    Probed { outcome: AttackOutcome },
    /// The sandbox cannot be put up as it was asked for; the worker leaves.
    CannotLock { wire: u64, message: String },
}

/// Host to worker, on the ring. The payload is the task's input (of a command: its stdin).
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub enum ToWorker {
    /// Runs a task, once the claim allows it.
    Run(RunMessage),
}

/// One run of a task in one worker: what the host asks for, and what the worker runs. `run` numbers what this worker is
/// sent, from 1: a task that is run again has another number.
///
/// With a `slice` it is a batch of tasks that run one after the other. The payload is their inputs, each preceded by
/// its length as four bytes, little endian.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub struct RunMessage {
    pub task: TaskId,
    pub run: u64,
    pub claim: u8,
    pub module: ModuleId,
    pub callee: Callee,
    /// `None` if they are those of the run before, which the worker may have skipped.
    pub limits: Option<TaskLimits>,
    pub slice: Option<BatchSlice>,
    /// The inputs that the task shares with others; for a batch, those of each of its tasks.
    pub shares: Vec<ShareId>,
}

/// Says which tasks of a batch are to be run: so many, the first of them numbered `first` more than the batch
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct BatchSlice {
    pub first: u32,
    pub count: u32,
    /// The worker begins no further task of the batch once the frames of its answers to this run have come to more
    /// than this, and the rest goes back.
    pub answer_bytes_max: u64,
}

/// A task's index in its module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct TaskIndex(pub u32);

/// Says what to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Callee {
    /// This task of the module's description.
    Task(TaskIndex),
    /// `_start`, with these arguments and this environment.
    Command { args: Vec<String>, env: Vec<(String, String)>, stdin: CommandStdin },
}

/// Where a command's stdin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum CommandStdin {
    /// The stdin is the payload.
    Sent,
    /// The stdin is [asked for](Question::Stdin), and there is no payload.
    Asked,
}

/// Worker to host, on the ring.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub enum FromWorker {
    /// A log record or a line of output. No payload.
    Log { task: TaskId, record: LogRecord },
    /// The run has ended. A batch's `Done` means that no more of it is run for now: it has no payload, and its end is
    /// `Ok`, or `Interrupted` if the next of its tasks was.
    Done { task: TaskId, completion: Completion },
    /// The next task of a batch has ended, and not as [`Returned`](Self::Returned) says.
    Item { task: TaskId, completion: Completion },
    /// The worker itself reports something, perhaps about the task at hand. There is no payload.
    Event { task: Option<TaskId>, record: LogRecord },
    /// The task at hand asks for something, and waits. Its questions are numbered from 1, and each waits for
    /// the reply to the one before. It has no payload.
    Ask { task: TaskId, run: u64, number: u64, question: Question },
    /// The next task of a batch has returned: the payload is its output. Nobody asks what else it cost.
    Returned { task: TaskId, run_ns: u64 },
}

impl FromWorker {
    /// Returns what the message is about: the host believes it only while that is so.
    pub fn subject(&self) -> Subject {
        match self {
            FromWorker::Event { task: None, .. } => Subject::Worker,
            FromWorker::Event { task: Some(task), .. }
            | FromWorker::Log { task, .. }
            | FromWorker::Ask { task, .. }
            | FromWorker::Item { task, .. }
            | FromWorker::Returned { task, .. } => Subject::Task(*task),
            // This end is the batch's own.
            FromWorker::Done { task, .. } => Subject::Run(*task),
        }
    }
}

/// Says where a log record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum LogSource {
    /// The ABI's `log` import.
    Guest,
    /// A line of the guest's stdout.
    Stdout,
    /// A line of the guest's stderr.
    Stderr,
    /// The guest's stack, as the worker reports it when it is asked.
    Stack,
    /// The source of an `Event`, and of nothing else.
    Worker,
}

/// One record on its way to the host's `tracing` subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct LogRecord {
    pub source: LogSource,
    /// 1 error to 5 trace.
    pub level: u8,
    pub target: String,
    pub message: String,
    /// The text of a JSON object, or empty.
    pub fields: String,
}

/// A message is moved from hand to hand on its way, and up to this size that takes a few instructions.
const _: () = assert!(size_of::<FromWorker>() <= 128);

/// Says how a run ended, and what it cost. The frame's payload belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Completion {
    pub end: RunEnd,
    pub cost: Cost,
    /// A command's payload, whatever its end, is what it wrote to stdout, so many bytes, and then to stderr.
    pub stdout_bytes: u64,
}

/// The guest trapped. It is in a box, since it is rare and large, and most ends are neither.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Trapped {
    pub code: TrapCode,
    pub message: String,
    pub backtrace: Vec<Frame>,
}

/// The guest panicked, and said so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Panicked {
    pub message: String,
    pub location: String,
    pub backtrace: Vec<Frame>,
}

/// Says how a run ended, as the worker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum RunEnd {
    /// The payload is the output.
    Ok,
    /// The command exited, or a task called `proc_exit`. The payload of a task is the end of its stderr.
    Exited {
        code: i32,
    },
    /// The payload is the error's text.
    Guest,
    /// The payload is the error, of the type that the task's description has for it.
    GuestData,
    /// The payload is the error in parts: [`OwnError`](crate::guest::own_error::OwnError).
    GuestParts,
    /// The payload is the guest's words.
    InputDecode,
    /// The worker has no memory for the input, and has not begun.
    InputTooLarge {
        bytes: u64,
    },
    /// The payload of a task is the end of its stderr.
    Trap(Box<Trapped>),
    Panic(Box<Panicked>),
    /// The host's own interrupt was heeded.
    Interrupted,
    /// The memory or table that the task needs to begin is over the limit.
    Memory {
        requested: u64,
        backtrace: Vec<Frame>,
    },
    Table {
        requested: u64,
        backtrace: Vec<Frame>,
    },
    Fuel {
        backtrace: Vec<Frame>,
    },
    OutputTooLarge {
        bytes: u64,
    },
    LogsTooLarge {
        bytes: u64,
    },
    BadPointer {
        pointer: u32,
        len: u32,
        memory_bytes: u64,
    },
    Abi {
        message: String,
    },
    Instantiate {
        message: String,
    },
}

/// Holds what the task cost, as the worker measured it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Cost {
    pub run_ns: u64,
    pub cpu_ns: u64,
    pub peak_memory_bytes: u64,
    pub fuel_used: Option<u64>,
    pub log_bytes_dropped: u64,
    pub refusals: Refusals,
}

/// The work that the compiler is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, postcard_schema::Schema)]
pub enum CompileWork {
    /// Write machine code and description. If `entry` is given, the module must have it.
    Compile { entry: Option<WantedEntry> },
    /// Write an outline instead of the description, and no machine code.
    Outline,
}

/// Host to compiler. Comes with three descriptors: the wasm, and two empty files for the
/// artifact and its description.
#[derive(Debug, Serialize, Deserialize, postcard_schema::Schema)]
pub struct CompileRequest {
    pub wire: u64,
    pub work: CompileWork,
    pub code: CodeKind,
    pub sandbox: SandboxRequest,
    pub limits: CompileLimits,
    pub threads: u32,
}

/// Says why the compiler did not compile a module: all that a compiler can say of it, as the variants of the same
/// names of `ModuleError`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum CompileError {
    Invalid {
        message: String,
    },
    Unsupported {
        feature: String,
        message: String,
    },
    UnknownImports {
        imports: Vec<String>,
    },
    Abi {
        message: String,
    },
    CompileLimit {
        kind: CompileLimit,
        limit: u64,
        seen: u64,
        function: Option<u32>,
        offset: Option<u64>,
        others: Vec<ExceededLimit>,
    },
    Compiler {
        message: String,
    },
    UnknownTask {
        module: String,
        name: String,
        known: Vec<String>,
    },
    NotACommand {
        module: String,
        known: Vec<String>,
    },
}

/// Compiler to host; then the compiler exits. Both files are complete if it is `Ok`.
pub type CompileReply = Result<(), CompileError>;
