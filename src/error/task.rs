//! A task that did not succeed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{BrokenPool, Death};
use crate::report::{CommandOutput, PartialOutput, TaskReport};
use proto::limits::STDERR_WORDS_BYTES_MAX;
use proto::schema::TypeSchema;
use proto::shortage::Shortage;
use proto::task::TaskId;
use proto::text::{Name, Words, truncated};
use proto::trap::{Frame, TrapCode};

/// The way in which a task failed. The worker that ran it goes on, except where a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A wasm trap.
    #[error("trap: {}{}{}", Words(trap_words(*code, message)), StderrTail(stderr.as_bytes()), Backtrace(backtrace))]
    Trap {
        /// Its kind.
        code: TrapCode,
        /// The engine's words.
        message: String,
        /// The backtrace, innermost frame first.
        backtrace: Vec<Frame>,
        /// The end of what the task wrote to stderr, where the runtimes of some languages say what went wrong. Of a
        /// command it is empty: [`TaskFailure::output`] has all that it wrote.
        stderr: String,
    },
    /// The guest panicked, and said so by an SDK.
    #[error("panicked{}: {}{}", At(location), Words(message), Backtrace(backtrace))]
    Panic {
        /// The panic's message.
        message: String,
        /// `file:line:column` in the guest's source, as far as its language knows them; else empty.
        location: String,
        /// The backtrace, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The task returned its own error.
    #[error("{}{}", Words(message), Causes(chain))]
    Guest {
        /// The error's text, or its data in words.
        message: String,
        /// The texts of its causes, the nearest first, where the guest tells them apart.
        chain: Vec<String>,
        /// The error itself, if its type is known: a component's function that returns `result<T, E>` gives an `E`, and so
        /// does a task of a Rust guest whose `E` is marked with `#[wasmpool_guest::error]`.
        data: Option<ErrorData>,
    },
    /// The guest could not decode its input.
    #[error("the guest cannot decode its input: {}", Words(message))]
    InputDecode {
        /// The guest's words.
        message: String,
    },
    /// The worker had no memory for the input, and did not begin the task. Its memory is
    /// [`PoolBuilder::worker_memory_bytes_max`](crate::PoolBuilder::worker_memory_bytes_max).
    #[error(
        "the worker has no memory for an input of {bytes} bytes: \
         `worker_memory_bytes_max` of its pool is too small for it"
    )]
    InputTooLarge {
        /// The input's size.
        bytes: u64,
    },
    /// The caller's type cannot decode the output.
    #[error("cannot decode the task's output: {}", Words(message))]
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
    /// The task used more CPU time than it may ([`TaskOptions::cpu_time`](crate::TaskOptions::cpu_time)), and
    /// was interrupted as at a timeout. Its [report](crate::task::TaskReport::cpu) says how much it had used.
    #[error("used more CPU time than its limit of {limit:?}{}", if *killed { " (its worker had to be killed)" } else { "" })]
    CpuTime {
        /// The limit.
        limit: Duration,
        /// Whether the worker had to be killed.
        killed: bool,
    },
    /// The task was refused memory that it cannot do without: what its module begins with, room for its
    /// input, or for an object of the engine's garbage collector. A guest whose `memory.grow` is refused is
    /// told so and goes on: if it then traps, the error is [`Trap`](Self::Trap), and its report lists [the
    /// refusals](TaskReport::refusals).
    #[error("out of memory: {requested} bytes asked for, the limit is {limit}{}", Backtrace(backtrace))]
    Memory {
        /// The limit in bytes.
        limit: u64,
        /// The total that was asked for.
        requested: u64,
        /// The backtrace, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The task's module begins with a table of more entries than a worker has room for
    /// ([`TABLE_ELEMENTS_MAX`](proto::limits::TABLE_ELEMENTS_MAX)).
    #[error(
        "out of table space: a table of {requested} entries asked for, the limit is {limit}{}",
        Backtrace(backtrace)
    )]
    Table {
        /// The limit in entries.
        limit: u64,
        /// The entries that were asked for.
        requested: u64,
        /// The backtrace, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The task used up its fuel.
    #[error("out of fuel: the limit is {limit}{}", Backtrace(backtrace))]
    Fuel {
        /// The limit.
        limit: u64,
        /// The backtrace, innermost frame first.
        backtrace: Vec<Frame>,
    },
    /// The output is larger than allowed.
    #[error("the output is too large: {bytes} bytes or more, the limit is {limit}")]
    OutputTooLarge {
        /// The limit.
        limit: u64,
        /// The size that was seen.
        bytes: u64,
    },
    /// The task logged more than allowed, and was told to fail then.
    #[error("the logs are too large: {bytes} bytes or more, the limit is {limit}")]
    LogsTooLarge {
        /// The limit.
        limit: u64,
        /// The size that was seen.
        bytes: u64,
    },
    /// The guest exited: a command with a code other than 0, or a task with any code.
    #[error("exited with code {}{}", output.exit_code.cast_unsigned(), StderrTail(&output.stderr))]
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
    #[error("the guest broke the byte ABI: {}", Words(message))]
    Abi {
        /// A description of the defect.
        message: String,
    },
    /// The module could not be loaded or instantiated in the worker.
    #[error("cannot instantiate the module: {}", Words(message))]
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
    /// This process was forked from the one whose pool has the task, and only that one has its result.
    #[error("its pool is of another process, from which this one was forked: only that one has its result")]
    OtherProcess,
    /// The worker that ran it died, and was replaced ([`OnWorkerDeath::Replace`](crate::pool::OnWorkerDeath::Replace)).
    #[error("the worker that ran it died: {0}")]
    WorkerDied(Death),
    /// A worker died, and the pool with it.
    #[error(transparent)]
    Broken(#[from] BrokenPool),
    /// The task never began: there is no worker, and none could be started for
    /// [`NO_WORKER_AFTER`](proto::limits::NO_WORKER_AFTER), because something was short. The pool is not
    /// broken: tasks that come later are a new try.
    #[error("there is no worker, and none can be started: {0}")]
    NoWorker(Shortage),
}

impl TaskError {
    /// Returns the error's name for programs to branch on, as the command's JSON has it. Names are never changed.
    pub fn kind(&self) -> &'static str {
        match self {
            TaskError::Trap { .. } => "trap",
            TaskError::Panic { .. } => "panic",
            TaskError::Guest { .. } => "guest",
            TaskError::InputDecode { .. } => "input_decode",
            // The pool uses the same words when it refuses the input before it is sent.
            TaskError::InputTooLarge { .. } => "input_too_large",
            TaskError::OutputDecode { .. } => "output_decode",
            TaskError::Timeout { .. } => "timeout",
            TaskError::CpuTime { .. } => "cpu_time",
            TaskError::Memory { .. } => "memory",
            TaskError::Table { .. } => "table",
            TaskError::Fuel { .. } => "fuel",
            TaskError::WorkerDied(_) => "worker_died",
            TaskError::LogsTooLarge { .. } => "logs_too_large",
            TaskError::OutputTooLarge { .. } => "output_too_large",
            TaskError::Exit { .. } => "exit",
            TaskError::BadPointer { .. } => "bad_pointer",
            TaskError::Abi { .. } => "abi",
            TaskError::Instantiate { .. } => "instantiate",
            TaskError::Aborted { .. } => "aborted",
            TaskError::Cancelled => "cancelled",
            TaskError::OtherProcess => "other_process",
            TaskError::Broken(_) => "broken_pool",
            TaskError::NoWorker(_) => "no_worker",
        }
    }
}

/// A task's own error, of a type that its module describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorData {
    schema: Arc<TypeSchema>,
    bytes: Vec<u8>,
}

impl ErrorData {
    pub(crate) fn new(schema: Arc<TypeSchema>, bytes: Vec<u8>) -> ErrorData {
        ErrorData { schema, bytes }
    }

    /// Returns its type.
    pub fn schema(&self) -> &TypeSchema {
        &self.schema
    }

    /// Returns the value as postcard, by its type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the value, if `E` is its type: names of types do not count, those of fields and cases do.
    pub fn get<E: DeserializeOwned + postcard_schema::Schema>(&self) -> Option<E> {
        let is_its_type = self.schema.is_compatible(&TypeSchema::of::<E>());
        is_its_type.then(|| postcard::from_bytes(&self.bytes).ok()).flatten()
    }
}

/// Shows where a panic was, if the guest said that.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " at {}", Name(self.0)) }
    }
}

fn trap_words(code: TrapCode, message: &str) -> String {
    if code == TrapCode::Other { message.to_string() } else { code.to_string() }
}

struct Backtrace<'a>(&'a [Frame]);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut index = 0;
        for frame in self.0 {
            match frame.left_out {
                0 => {}
                1 => write!(f, "\n    (1 frame of the panic's own is left out)")?,
                many => write!(f, "\n    ({many} frames of the panic's own are left out)")?,
            }
            index += u64::from(frame.left_out);
            write!(f, "\n    {index}: {frame}")?;
            index += 1;
            match frame.left_out_behind {
                0 => {}
                1 => write!(f, "\n    (1 frame of the library's, which called it, is left out)")?,
                many => write!(f, "\n    ({many} frames of the library's, which called it, are left out)")?,
            }
        }
        Ok(())
    }
}

/// Causes follow on one line, as `anyhow` has it.
struct Causes<'a>(&'a [String]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|cause| write!(f, ": {}", Words(cause)))
    }
}

struct StderrTail<'a>(&'a [u8]);

impl fmt::Display for StderrTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0[self.0.len().saturating_sub(STDERR_WORDS_BYTES_MAX)..]);
        let text = text.trim();
        if let Some(place) = panic_of_go(text) {
            return write!(f, "; stderr has: {}", Words(truncated(&text[place..], STDERR_SHOWN_BYTES)));
        }
        let start = text.len().saturating_sub(STDERR_SHOWN_BYTES);
        let start = (start..text.len()).find(|start| text.is_char_boundary(*start)).unwrap_or(text.len());
        match &text[start..] {
            "" => Ok(()),
            text => write!(f, "; stderr ends: {}", Words(text)),
        }
    }
}

/// Bytes of stderr that an error shows.
const STDERR_SHOWN_BYTES: usize = 400;

/// Returns where the message of a panic begins that a program in Go has written: what it wrote last is a stack, which may be
/// long.
fn panic_of_go(text: &str) -> Option<usize> {
    let lines = text.split_inclusive('\n').scan(0, |end, line| {
        let start = *end;
        *end += line.len();
        Some((start, line))
    });
    let begins = |line: &str| line.starts_with("panic: ") || line.starts_with("fatal error: ");
    let is_go = text.contains("\ngoroutine ") || text.contains("\nruntime stack:");
    let (place, _) = lines.filter(|(_, line)| begins(line)).last().filter(|_| is_go)?;
    Some(place)
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
    output: Option<PartialOutput>,
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
        TaskFailure(Arc::new(FailureParts { error, task, name, module, label, report, output: None }))
    }

    /// Adds what the command wrote. Nobody else may hold the failure yet.
    pub(crate) fn with_output(mut self, output: Option<PartialOutput>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.output = output;
        }
        self
    }

    /// Returns the name of its [`error`](Self::error), for programs to branch on: [`TaskError::kind`].
    pub fn kind(&self) -> &'static str {
        self.0.error.kind()
    }

    /// Returns the error.
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

    /// Returns whether the task, or a part of it, may have run. `false`: no worker ever began it.
    pub fn may_have_run(&self) -> bool {
        // Nothing is known about a pool in another process.
        self.0.report.attempts > 0 || self.0.error == TaskError::OtherProcess
    }

    /// Returns what a WASI command had written when it failed: at a limit or its deadline, by a trap, an abort or its
    /// exit code. It is `None` for a task that is no command, for one that was never begun, and for one whose
    /// worker's process was killed ([`TaskError::Timeout`] and [`TaskError::Aborted`] say so) or died: what
    /// it wrote is then lost.
    pub fn output(&self) -> Option<&PartialOutput> {
        self.0.output.as_ref()
    }

    /// Returns what it cost until then. The report is empty for [`TaskError::OtherProcess`], since nothing is known of
    /// the task here.
    pub fn report(&self) -> &TaskReport {
        &self.0.report
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        write!(f, "task {}", parts.task)?;
        if let Some(label) = &parts.label {
            write!(f, " ({})", Name(label))?;
        }
        write!(f, ", `{}` of {}", Name(&parts.name), Name(&parts.module))?;
        if let Some(pid) = parts.report.worker_pid {
            write!(f, ", in worker {pid}")?;
        }
        write!(f, ": {}", parts.error)?;
        if let Some(refusals) = parts.report.refused()
            && !matches!(parts.error, TaskError::Memory { .. } | TaskError::Table { .. })
        {
            write!(f, "\n    {refusals}")?;
        }
        match (&parts.error, parts.report.attempts) {
            (TaskError::Broken(_), 0) => f.write_str("; this task never started"),
            (TaskError::Broken(_) | TaskError::WorkerDied(_), 1) => f.write_str("; it may have run"),
            (_, attempts) if attempts > 1 => write!(f, "; this was attempt {attempts}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TaskFailure {
    /// `Display` shows the words of [`error`](Self::error) already, so the source is what lies behind that.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.source()
    }
}
