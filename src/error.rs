//! What can go wrong, one type for each boundary.
//!
//! | boundary | type |
//! |---|---|
//! | starting a pool | [`BuildError`] |
//! | bringing a module in | [`ModuleError`] |
//! | handing a task over | [`SubmitError`] |
//! | a task that did not succeed | [`TaskFailure`], whose [`error`](TaskFailure::error) is a [`TaskError`] |
//! | a process that died | [`BrokenPool`], made from a [`Death`] |

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::task::{CommandOutput, TaskId, TaskReport};
use crate::text::Escaped;

/// Why a pool could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The program never called [`wasmpool::init()`](crate::init), so its workers would run `main` again.
    #[error(
        "wasmpool::init() was not called: make it the first line of main (in a test crate: \
         wasmpool::init_at_load!()), or name a worker with PoolBuilder::worker_program"
    )]
    InitMissing,
    /// A worker or compiler process reached the code that builds a pool.
    #[error(
        "this process is itself a wasmpool worker: wasmpool::init() must come before the code that builds a pool"
    )]
    NestedInit,
    /// The number of workers is zero or too large.
    #[error("cannot run with {workers} workers: choose 1 to {max}")]
    Workers {
        /// What was asked for.
        workers: usize,
        /// [`WORKERS_MAX`](crate::limits::WORKERS_MAX).
        max: usize,
    },
    /// A limit that cannot be.
    #[error("{setting} is {value}, but must be {must}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// What is possible.
        must: String,
    },
    /// The worker's executable cannot be opened.
    #[error("cannot open the worker program {}", path.display())]
    WorkerProgram {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a thread, a descriptor or memory.
    #[error("cannot set up the pool: {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a module cannot be used.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ModuleError {
    /// The file cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// More bytes than [`MODULE_BYTES_MAX`](crate::limits::MODULE_BYTES_MAX).
    #[error("the module has {bytes} bytes, more than the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Not WebAssembly, cut off, or not valid.
    #[error("not a valid wasm module: {message}")]
    Invalid {
        /// What is wrong, with the offset where it is known.
        message: String,
    },
    /// Valid, but in need of something that this pool does not offer.
    #[error("the module needs {feature}, which this pool does not offer: {message}")]
    Unsupported {
        /// The WebAssembly feature's name.
        feature: String,
        /// The validator's words.
        message: String,
    },
    /// Imports that no host function answers.
    #[error(
        "the module imports what this pool does not provide: {}; it provides wasi_snapshot_preview1 and \
         wasmpool (log, panic)", imports.join(", ")
    )]
    UnknownImports {
        /// `module.name` of each, with its type.
        imports: Vec<String>,
    },
    /// The custom section `wasmpool.tasks` or the exports break the byte ABI.
    #[error("the module does not keep to the byte ABI: {message}")]
    Abi {
        /// What is wrong.
        message: String,
    },
    /// Compilation hit a limit of the compiler process.
    #[error("compilation went over its limit of {limit}: {seen}")]
    CompileLimit {
        /// The limit.
        limit: String,
        /// What was seen.
        seen: String,
    },
    /// The compiler process died.
    #[error("the compiler process died: {death}")]
    CompilerDied {
        /// How.
        death: Death,
    },
    /// The compiler process could not be started or spoken to.
    #[error("cannot run the compiler process: {message}")]
    Compiler {
        /// What the system said.
        message: String,
    },
    /// The module has no task of that name.
    #[error("module {module} has no task `{name}`{}", known_tasks(known))]
    UnknownTask {
        /// The module's name.
        module: String,
        /// What was asked for.
        name: String,
        /// The tasks that exist.
        known: Vec<String>,
    },
    /// The caller's types and the module's schema disagree.
    #[error("task `{task}` of {module} has the {side} {declared}, but the caller's type is {asked}")]
    SchemaMismatch {
        /// The module's name.
        module: String,
        /// The task.
        task: String,
        /// `input` or `output`.
        side: String,
        /// What the module declares.
        declared: String,
        /// What the caller's type is.
        asked: String,
    },
    /// A typed handle was asked for a task that takes and returns plain bytes.
    #[error("task `{task}` of {module} takes and returns plain bytes: use Module::raw_task")]
    RawTask {
        /// The module's name.
        module: String,
        /// The task.
        task: String,
    },
    /// A command was asked of a module without `_start`.
    #[error("module {module} is not a WASI command: it does not export `_start`{}", known_tasks(known))]
    NotACommand {
        /// The module's name.
        module: String,
        /// The tasks that exist.
        known: Vec<String>,
    },
    /// The pool is shut down or broken.
    #[error("the pool takes no more modules: {message}")]
    Closed {
        /// Why.
        message: String,
    },
}

fn known_tasks(known: &[String]) -> String {
    match known {
        [] => "; it has no tasks".into(),
        known => format!(
            "; it has {}",
            known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Why a task was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The input's `Serialize` failed.
    #[error("cannot encode the input of `{task}`: {message}")]
    Encode {
        /// The task.
        task: String,
        /// The codec's words.
        message: String,
    },
    /// More bytes than [`PoolBuilder::input_bytes_max`](crate::PoolBuilder::input_bytes_max).
    #[error("the input of `{task}` has {bytes} bytes, more than the limit of {max}")]
    InputTooLarge {
        /// The task.
        task: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// As many tasks wait as [`PoolBuilder::queue_tasks_max`](crate::PoolBuilder::queue_tasks_max) allows; from `try_submit` only.
    #[error("the queue is full: {max} tasks are waiting or running")]
    QueueFull {
        /// The limit.
        max: usize,
    },
    /// Fuel was asked for, but the module was not loaded metered.
    #[error("`{task}` is to run with fuel, but {module} was not loaded with ModuleOptions::metered")]
    NotMetered {
        /// The task.
        task: String,
        /// The module.
        module: String,
    },
    /// The module belongs to another pool.
    #[error("`{task}` belongs to a module that another pool loaded")]
    ForeignModule {
        /// The task.
        task: String,
    },
    /// `shutdown`, `terminate` or `kill` was called.
    #[error("cannot submit `{task}` after the pool was shut down")]
    ShutDown {
        /// The task.
        task: String,
    },
    /// A worker died; the pool takes no more tasks.
    #[error(transparent)]
    Broken(#[from] BrokenPool),
}

/// A trap's kind, by the specification's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TrapCode {
    /// The `unreachable` instruction.
    Unreachable,
    /// A load or store outside of its memory.
    MemoryOutOfBounds,
    /// An access outside of a table.
    TableOutOfBounds,
    /// The call stack ran out.
    StackOverflow,
    /// Integer division by zero.
    IntegerDivideByZero,
    /// Integer overflow.
    IntegerOverflow,
    /// A float that no integer can hold.
    InvalidConversionToInteger,
    /// `call_indirect` to an empty table entry.
    IndirectCallToNull,
    /// `call_indirect` to a function of another type.
    IndirectCallTypeMismatch,
    /// A null reference was used.
    NullReference,
    /// A failed `ref.cast`.
    CastFailure,
    /// An access outside of a GC array.
    ArrayOutOfBounds,
    /// An exception that nobody caught.
    UncaughtException,
    /// Any other; the message says which.
    Other,
}

impl fmt::Display for TrapCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrapCode::Unreachable => "unreachable executed",
            TrapCode::MemoryOutOfBounds => "out of bounds memory access",
            TrapCode::TableOutOfBounds => "out of bounds table access",
            TrapCode::StackOverflow => "call stack exhausted",
            TrapCode::IntegerDivideByZero => "integer divide by zero",
            TrapCode::IntegerOverflow => "integer overflow",
            TrapCode::InvalidConversionToInteger => "invalid conversion to integer",
            TrapCode::IndirectCallToNull => "indirect call to an empty table entry",
            TrapCode::IndirectCallTypeMismatch => "indirect call type mismatch",
            TrapCode::NullReference => "null reference",
            TrapCode::CastFailure => "cast failure",
            TrapCode::ArrayOutOfBounds => "out of bounds array access",
            TrapCode::UncaughtException => "uncaught exception",
            TrapCode::Other => "trap",
        })
    }
}

/// One frame of a wasm backtrace, innermost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frame {
    /// The function's name, demangled, where the module has names.
    pub function: Option<String>,
    /// The function's index in the module.
    pub function_index: u32,
    /// Byte offset in the wasm file.
    pub module_offset: Option<u64>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(name) => write!(f, "{}", Escaped(name))?,
            None => write!(f, "<function {}>", self.function_index)?,
        }
        match self.module_offset {
            Some(offset) => write!(f, " (0x{offset:x})"),
            None => Ok(()),
        }
    }
}

/// How a task failed. The worker that ran it goes on, except where a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A wasm trap.
    #[error("trap: {}{}", trap_words(*code, message), Backtrace(backtrace))]
    Trap {
        /// Its kind.
        code: TrapCode,
        /// The engine's words.
        message: String,
        /// Where, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The guest panicked (a Rust guest with the SDK).
    #[error("panicked at {}: {}{}", Escaped(location), Escaped(message), Backtrace(backtrace))]
    Panic {
        /// The panic's message.
        message: String,
        /// `file:line:column` in the guest's source.
        location: String,
        /// Where, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The task returned its own error.
    #[error("{}", Escaped(message))]
    Guest {
        /// The error's text.
        message: String,
    },
    /// The guest could not decode its input.
    #[error("the guest cannot decode its input: {}", Escaped(message))]
    InputDecode {
        /// The guest's words.
        message: String,
    },
    /// The caller's type cannot decode the output.
    #[error("cannot decode the task's output: {message}")]
    OutputDecode {
        /// The codec's words.
        message: String,
    },
    /// The task ran into its deadline and was interrupted; if it did not heed the
    /// interrupt in time, its worker was killed and replaced.
    #[error("timed out after {limit:?}{}", if *killed { " (its worker had to be killed)" } else { "" })]
    Timeout {
        /// The task's timeout.
        limit: Duration,
        /// Whether the worker had to be killed.
        killed: bool,
    },
    /// The task was refused memory or table space, and then failed.
    #[error("out of memory: {requested} bytes asked for, the limit is {limit}{}", Backtrace(backtrace))]
    Memory {
        /// The limit in bytes.
        limit: u64,
        /// The total that was asked for.
        requested: u64,
        /// Where, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The task used up its fuel.
    #[error("out of fuel: the limit is {limit}{}", Backtrace(backtrace))]
    Fuel {
        /// The limit.
        limit: u64,
        /// Where, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The output is larger than allowed.
    #[error("the output is too large: {bytes} bytes or more, the limit is {limit}")]
    OutputTooLarge {
        /// The limit.
        limit: u64,
        /// What was seen.
        bytes: u64,
    },
    /// The guest exited: a command with a code other than 0, or a task with any code.
    #[error("exited with code {}{}", output.exit_code, StderrTail(&output.stderr))]
    Exit {
        /// Exit code, and what was written until then.
        output: CommandOutput,
    },
    /// The guest returned a pointer and length that are not inside its memory.
    #[error("the guest returned pointer {pointer} and length {len}, but its memory has {memory_bytes} bytes")]
    BadPointer {
        /// The pointer.
        pointer: u32,
        /// The length.
        len: u32,
        /// The memory's size.
        memory_bytes: u64,
    },
    /// The guest's envelope is empty or has an unknown status byte.
    #[error("the guest broke the byte ABI: {message}")]
    Abi {
        /// What is wrong.
        message: String,
    },
    /// The module could not be loaded or instantiated in the worker.
    #[error("cannot instantiate the module: {message}")]
    Instantiate {
        /// The engine's words.
        message: String,
    },
    /// The task was stopped by [`TaskFuture::abort`](crate::TaskFuture::abort).
    #[error("aborted{}", if *killed { " (its worker had to be killed)" } else { "" })]
    Aborted {
        /// Whether the worker had to be killed.
        killed: bool,
    },
    /// The future was cancelled before the task ran.
    #[error("cancelled")]
    Cancelled,
    /// A worker died, and the pool with it.
    #[error(transparent)]
    Broken(#[from] BrokenPool),
}

fn trap_words(code: TrapCode, message: &str) -> String {
    if code == TrapCode::Other { message.to_string() } else { code.to_string() }
}

struct Backtrace<'a>(&'a [Frame]);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, frame) in self.0.iter().enumerate() {
            write!(f, "\n    {index}: {frame}")?;
        }
        Ok(())
    }
}

struct StderrTail<'a>(&'a [u8]);

impl fmt::Display for StderrTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0[self.0.len().saturating_sub(400)..]);
        match text.trim() {
            "" => Ok(()),
            text => write!(f, "; stderr ends: {}", Escaped(text)),
        }
    }
}

/// A task that did not succeed: what happened, and to which task. Cheap to clone.
#[derive(Clone)]
pub struct TaskFailure(Arc<FailureParts>);

#[derive(Debug)]
struct FailureParts {
    error: TaskError,
    task: TaskId,
    name: Arc<str>,
    module: Arc<str>,
    label: Option<String>,
    report: TaskReport,
}

impl TaskFailure {
    pub(crate) fn new(
        error: TaskError,
        task: TaskId,
        name: Arc<str>,
        module: Arc<str>,
        label: Option<String>,
        report: TaskReport,
    ) -> Self {
        TaskFailure(Arc::new(FailureParts { error, task, name, module, label, report }))
    }

    /// What happened.
    pub fn error(&self) -> &TaskError {
        &self.0.error
    }

    /// The task's id.
    pub fn task_id(&self) -> TaskId {
        self.0.task
    }

    /// The task's name in its module, `_start` for a command.
    pub fn task_name(&self) -> &str {
        &self.0.name
    }

    /// The module's name and the start of its digest.
    pub fn module(&self) -> &str {
        &self.0.module
    }

    /// The caller's label.
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
    }

    /// The worker that ran it, if one did.
    pub fn worker_pid(&self) -> Option<u32> {
        self.0.report.worker_pid
    }

    /// What it cost until then.
    pub fn report(&self) -> &TaskReport {
        &self.0.report
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        write!(f, "task {}", parts.task)?;
        if let Some(label) = &parts.label {
            write!(f, " ({})", Escaped(label))?;
        }
        write!(f, ", `{}` of {}", Escaped(&parts.name), Escaped(&parts.module))?;
        if let Some(pid) = parts.report.worker_pid {
            write!(f, ", in worker {pid}")?;
        }
        write!(f, ": {}", parts.error)
    }
}

impl fmt::Debug for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TaskFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.error)
    }
}

/// What a process was doing when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// Being started, up to its first word.
    Start,
    /// Waiting for a task.
    Idle,
    /// Running a task.
    Running,
    /// Compiling a module.
    Compiling,
    /// Leaving, as the pool had asked.
    Shutdown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Start => "while it started",
            Phase::Idle => "while it was idle",
            Phase::Running => "while it ran a task",
            Phase::Compiling => "while it compiled",
            Phase::Shutdown => "while it shut down",
        })
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeathCause {
    /// It exited by itself.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
    /// It said something that the protocol does not allow, and was killed for it.
    ProtocolViolation(String),
    /// It did not say its first word in time, and was killed.
    StartTimeout(Duration),
    /// It never came to be.
    SpawnFailed(String),
    /// The embedder asked for it: `terminate` or `kill`.
    Killed,
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeathCause::Exited(code) => write!(f, "exited with code {code}"),
            DeathCause::Signaled(signal) => write!(f, "was ended by {}", signal_name(*signal)),
            DeathCause::ProtocolViolation(what) => {
                write!(f, "broke the protocol and was killed: {}", Escaped(what))
            }
            DeathCause::StartTimeout(limit) => {
                write!(f, "was not ready within {limit:?} and was killed; does it call wasmpool::init()?")
            }
            DeathCause::SpawnFailed(what) => write!(f, "could not be started: {what}"),
            DeathCause::Killed => f.write_str("was killed at the caller's request"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let hint = match signal {
        4 => "SIGILL",
        6 => "SIGABRT: an abort or a failed allocation",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL: perhaps the kernel's out-of-memory killer",
        11 => "SIGSEGV: a crash of the process itself, not of a task",
        15 => "SIGTERM",
        24 => "SIGXCPU: a CPU limit",
        25 => "SIGXFSZ: a file size limit",
        31 => "SIGSYS: a system call outside of the sandbox's policy",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({hint})")
}

/// The end of a worker or compiler process, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Death {
    /// The process; 0 if it never came to be.
    pub pid: u32,
    /// How it ended.
    pub cause: DeathCause,
    /// What it was doing.
    pub phase: Phase,
    /// The end of what it wrote to stderr, at most [`STDERR_TAIL_BYTES`](crate::limits::STDERR_TAIL_BYTES).
    pub stderr_tail: String,
}

impl Death {
    pub(crate) fn new(pid: u32, cause: DeathCause, phase: Phase, stderr_tail: String) -> Self {
        Death { pid, cause, phase, stderr_tail }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} {} {}", self.pid, self.cause, self.phase)?;
        match self.stderr_tail.trim() {
            "" => Ok(()),
            tail => write!(f, "; its stderr ends: {}", Escaped(tail)),
        }
    }
}

/// A worker died unexpectedly, and the pool with it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenPool(Arc<BrokenParts>);

#[derive(Debug, PartialEq, Eq)]
struct BrokenParts {
    death: Death,
    tasks_in_flight: Vec<TaskId>,
}

impl BrokenPool {
    pub(crate) fn new(death: Death, tasks_in_flight: Vec<TaskId>) -> Self {
        BrokenPool(Arc::new(BrokenParts { death, tasks_in_flight }))
    }

    /// The worker that died.
    pub fn pid(&self) -> u32 {
        self.0.death.pid
    }

    /// How, in which phase, and its last words.
    pub fn death(&self) -> &Death {
        &self.0.death
    }

    /// The signal that ended the worker, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.death.cause {
            DeathCause::Signaled(signal) => Some(signal),
            _ => None,
        }
    }

    /// The worker's exit code, if it exited by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self.0.death.cause {
            DeathCause::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The tasks that this worker had been handed.
    pub fn tasks_in_flight(&self) -> &[TaskId] {
        &self.0.tasks_in_flight
    }
}

impl fmt::Display for BrokenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool is broken: worker {}", self.0.death)?;
        match self.tasks_in_flight() {
            [] => Ok(()),
            ids => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "; tasks in flight there: {}", ids.join(", "))
            }
        }
    }
}

impl std::error::Error for BrokenPool {}
