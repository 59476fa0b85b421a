//! The messages, each named by who may say it.
//!
//! Order on the control socket: the host sends `Setup` first; the worker answers `Ready`
//! (or `CannotLock`, and leaves) and is silent there from then on. Order on the rings: the host sends `Run`; the worker
//! answers each that it claims, in that order, with any number of `Log` (and of a batch, an `Item` for
//! each task that it has run) and exactly one `Done`; and says nothing of those that were taken back (`ring::End::claim`).
//! An `Event` of no task may come at any time; one of a task, as a `Log` of it. So may an `Ask`, where the task
//! has something that it may ask for; its `Answer` comes on the control socket, where it does not wait behind
//! the inputs of what was sent meanwhile.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::directory::GuestDir;
use crate::doctor::{AttackOutcome, Probe};
use crate::error::{Frame, ModuleError, TrapCode};
use crate::limits::compile::CompileLimits;
use crate::module::{CodeKind, WantedEntry};
use crate::task::{Refusals, TaskId, TaskLimits};
use crate::walls::{SandboxReport, SandboxRequest};

/// A module's number within its pool; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ModuleId(pub(crate) u64);

/// A shared input's number within its pool; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ShareId(pub(crate) u64);

/// Host to worker, on the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorkerControl {
    /// First message. Comes with the rings' memfd, and with each directory's descriptor.
    Setup {
        build: u64,
        sandbox: SandboxRequest,
        pagemap_scan: bool,
        wasm_stack_bytes: u32,
        events: EventLevels,
        dirs: Vec<GuestDir>,
        /// For a throw-away worker of `doctor`, instead of tasks.
        probe: Option<Box<Probe>>,
    },
    /// Comes with two descriptors: the artifact and its description.
    Module { module: ModuleId, code: CodeKind },
    /// Comes with a descriptor for each: sealed files of so many bytes.
    Share { shares: Vec<(ShareId, u64)> },
    /// No task to come has these.
    Forget { modules: Vec<ModuleId>, shares: Vec<ShareId> },
    /// Stop this run, and only this one.
    Interrupt { run: u64 },
    /// Log where this run is at the moment, and go on.
    Sample { run: u64 },
    /// To a run's question of that number. One whose run has ended comes too late, and is dropped.
    Answer { run: u64, number: u64, reply: Reply },
}

/// What a running task may ask its host for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// So many bytes of its stdin, or fewer; 0 asks for none, but to be told once there are some. At most
    /// [`ASK_BYTES_MAX`](crate::limits::ASK_BYTES_MAX).
    Stdin { bytes_max: u32 },
}

/// What a task is told that has asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// At most as many as were asked for.
    Bytes(Chunk),
    /// There are no more, and will be none: nothing more is asked for.
    End,
    /// By a system call's number of the error, if it was one.
    Failed { os_error: Option<i32> },
}

/// Bytes that are copied at once, and not one by one as serde has it of a vector.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Chunk(pub(crate) Vec<u8>);

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Of what was received, no longer than that.
        <&[u8]>::deserialize(deserializer).map(|bytes| Chunk(bytes.to_vec()))
    }
}

/// Which of its own events a worker tells: 0 none, 1 errors, to 5 everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventLevels {
    /// Of the worker's own code.
    pub(crate) own: u8,
    /// Of the engine's, and whatever else is linked into it.
    pub(crate) engine: u8,
}

/// Worker to host, on the control socket. Never with descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorkerControl {
    Ready {
        build: u64,
        sandbox: SandboxReport,
    },
    /// Of a throw-away worker, what its attempt came to.
    Probed {
        outcome: AttackOutcome,
    },
    /// The sandbox cannot be put up as it was asked for; the worker leaves.
    CannotLock {
        build: u64,
        message: String,
    },
}

/// Host to worker, on the ring. The payload is the task's input (of a command: its stdin).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Once the claim allows it. `run` numbers what this worker is sent, from 1: a task that is
    /// run again has another.
    ///
    /// With `items`, a batch: tasks one after the other. The payload is their inputs, each preceded by
    /// its length as four bytes, little endian.
    Run {
        task: TaskId,
        run: u64,
        claim: u8,
        module: ModuleId,
        entry: Entry,
        limits: TaskLimits,
        items: Option<Items>,
        /// What the task shares with others; of a batch, each of its tasks.
        shares: Vec<ShareId>,
    },
}

/// Which tasks of a batch are to be run: so many, the first of them numbered `first` more than the
/// batch itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Items {
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// The worker begins none of them any more once its answers to this run are more than so many bytes, as
    /// frames: the rest goes back.
    pub(crate) answer_bytes_max: u64,
}

/// Where in its module's description a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskIndex(pub(crate) u32);

/// What to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A task of the module's description.
    Task(TaskIndex),
    /// `_start`, with these arguments and this environment.
    Command { args: Vec<String>, env: Vec<(String, String)>, stdin: CommandStdin },
}

/// Where a command's stdin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandStdin {
    /// It is the payload.
    Sent,
    /// It is [asked for](Question::Stdin). There is no payload.
    Asked,
}

/// Worker to host, on the ring.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// A log record or a line of output. No payload.
    Log { task: TaskId, record: LogRecord },
    /// The task has ended. The payload belongs to the verdict; of a command, whatever its verdict, it is
    /// what was written to stdout, of so many bytes, and then to stderr. For a batch, no more of it
    /// is run for now: without payload, its verdict is `Ok`, or `Interrupted` if the next of its tasks was.
    Done { task: TaskId, verdict: Verdict, cost: Cost, stdout_bytes: u64 },
    /// The next task of a batch has ended. The payload belongs to the verdict.
    Item { task: TaskId, verdict: Verdict, cost: Cost },
    /// What the worker itself has to say, perhaps of the task at hand. No payload.
    Event { task: Option<TaskId>, record: LogRecord },
    /// The task at hand asks for something, and waits. Its questions are numbered from 1, and each waits for the
    /// answer to the one before. No payload.
    Ask { task: TaskId, run: u64, number: u64, question: Question },
}

/// Where a log record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogSource {
    /// The ABI's `log` import.
    Guest,
    /// A line of the guest's stdout.
    Stdout,
    /// A line of the guest's stderr.
    Stderr,
    /// Where the guest is, by the worker's word: it was asked.
    Stack,
    /// Of an `Event`, and of nothing else.
    Worker,
}

/// One record on its way to the host's `tracing` subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) source: LogSource,
    /// 1 error to 5 trace.
    pub(crate) level: u8,
    pub(crate) target: String,
    pub(crate) message: String,
    /// The text of a JSON object, or empty.
    pub(crate) fields: String,
}

/// How a task ended, as the worker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The payload is the output.
    Ok,
    /// The command exited, or a task called `proc_exit`.
    Exited {
        code: i32,
    },
    /// The payload is the error's text.
    Guest,
    /// The payload is the guest's words.
    InputDecode,
    /// The worker has no memory for the input, and has not begun.
    InputTooLarge {
        bytes: u64,
    },
    Trap {
        code: TrapCode,
        message: String,
        backtrace: Vec<Frame>,
    },
    Panic {
        message: String,
        location: String,
        backtrace: Vec<Frame>,
    },
    /// The host's own interrupt was heeded.
    Interrupted,
    /// The memory, or the table, without which the task cannot begin is over the limit.
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

/// What the task cost, as the worker measured it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) run_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) peak_memory_bytes: u64,
    pub(crate) fuel_used: Option<u64>,
    pub(crate) log_bytes_dropped: u64,
    /// Rare, and large.
    pub(crate) refusals: Option<Box<Refusals>>,
}

/// The compiler's work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum CompileWork {
    /// Machine code and description; if this is to be run of the module, it must be there.
    Compile { entry: Option<WantedEntry> },
    /// An outline in place of the description, and no machine code.
    Outline,
}

/// Host to compiler. Comes with three descriptors: the wasm, and two empty files for the
/// artifact and its description.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CompileRequest {
    pub(crate) build: u64,
    pub(crate) work: CompileWork,
    pub(crate) code: CodeKind,
    pub(crate) sandbox: SandboxRequest,
    pub(crate) limits: CompileLimits,
    pub(crate) threads: u32,
}

/// Compiler to host; then the compiler exits. Both files are complete if it is `Ok`.
pub(crate) type CompileReply = Result<(), ModuleError>;
