//! The vocabulary of a task: its id, its options, its report. No behaviour.

use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::policy::Retry;
use crate::shared::Shared;
use crate::stdin::StdinSource;

mod numbered;
mod refusals;
mod typical;

pub(crate) use numbered::NumberMap;
pub use refusals::{Refusal, RefusalKind, Refusals};
pub(crate) use typical::Typical;

/// The number of a task, unique within its pool and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// The id as a number, as it appears in logs.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one task may use, and what it is called in logs and errors.
///
/// ```
/// use std::time::Duration;
/// let options = wasmpool::TaskOptions::new()
///     .timeout(Duration::from_secs(5))
///     .memory_bytes_max(64 << 20)
///     .label("invoice 4711");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) memory_bytes_max: Option<usize>,
    pub(crate) output_bytes_max: Option<usize>,
    pub(crate) fuel: Option<u64>,
    pub(crate) clock_resolution: Option<Duration>,
    pub(crate) seed: Option<u64>,
    pub(crate) log_bytes_max: Option<usize>,
    pub(crate) log_overflow: Option<LogOverflow>,
    pub(crate) label: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) retry: Option<Retry>,
    pub(crate) domain: Option<Arc<str>>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) instance_tasks_max: Option<u32>,
    pub(crate) shared: Option<Arc<[Shared]>>,
}

/// What a task shares with those that ran before it on its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// The process and the compiled code: each task has a fresh instance, and sees no byte of
    /// another. For code that you do not trust.
    #[default]
    Instance,
    /// The instance itself, with its memory, globals and tables as the task before left them: for
    /// trusted tasks whose state may stay, or that are so short that a fresh instance is most of
    /// what they cost. Tasks of one module share an instance for each worker, and of one
    /// [domain](TaskOptions::domain), if they have one; which worker runs which is the pool's choice.
    /// After a task that did not succeed, in whatever way, the instance is dropped, and after
    /// [`instance_tasks_max`](TaskOptions::instance_tasks_max) tasks. An initializer runs
    /// once for each instance. A [deterministic](TaskOptions::deterministic) task has an
    /// instance of its own all the same, and so has a WASI command.
    Reuse,
}

/// What becomes of a task that logs more than [`TaskOptions::log_bytes_max`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LogOverflow {
    /// It goes on; what is over the limit is dropped, and counted in its
    /// [report](TaskReport::log_bytes_dropped).
    #[default]
    Drop,
    /// It fails with [`TaskError::LogsTooLarge`](crate::TaskError::LogsTooLarge).
    Fail,
}

impl TaskOptions {
    /// The pool's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the task may run, counted from its dispatch to a worker; start functions
    /// and host calls included. Waiting in the queue does not count. Default: one hour;
    /// [`Duration::MAX`] is for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// CPU time that the task may use: this verdict does not depend on what else runs on the machine.
    /// Sleeping, and waiting for a CPU, do not count; [`timeout`](Self::timeout) bounds those, and holds as
    /// well. A task that goes over it is interrupted as at a timeout, and ends with
    /// [`TaskError::CpuTime`](crate::TaskError::CpuTime), even if it ended by itself before it was
    /// interrupted. Retries [after timeouts](Retry::after_timeouts) are for both limits; each attempt has the
    /// whole limit. Default: none.
    ///
    /// The pool measures it by the worker process's own clock, from the task's first step in the worker (its
    /// instance and start functions) to its answer. Bringing a module into a worker that did not have it does
    /// not count. The limit is the same under every [`Isolation`] and [`Interrupt`](crate::Interrupt); with
    /// [`Interrupt::Kill`](crate::Interrupt::Kill) the worker ends with the task. It does not affect the
    /// result of a [deterministic](Self::deterministic) task. The pool finds out within 5 ms of CPU time, if
    /// its own thread gets a CPU in that time.
    ///
    /// A worker is handed such a task when it has nothing else, and no task is offered behind it. This makes
    /// short tasks slower, and in a map each travels alone.
    pub fn cpu_time(mut self, cpu_time: Duration) -> Self {
        self.cpu_time = Some(cpu_time);
        self
    }

    /// Bytes of all linear memories and tables of the task together (a table's entry
    /// counts as 8 bytes). Default 512 MiB.
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.memory_bytes_max = Some(bytes);
        self
    }

    /// Bytes of output; of a WASI command, stdout and stderr each. Default 64 MiB, at most 1 GiB.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = Some(bytes);
        self
    }

    /// Units of [fuel](https://docs.rs/wasmtime/48/wasmtime/struct.Store.html#method.set_fuel),
    /// about one for each wasm instruction. The module must be loaded
    /// [metered](crate::ModuleOptions::metered).
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.fuel = Some(fuel);
        self
    }

    /// How fine the clocks are that WASI gives the task: what they say is a multiple of this. 0 is
    /// as fine as the system's, which makes it easier for a task to find out what others on the
    /// machine are doing. Default 1 ms ([`CLOCK_RESOLUTION`](limits::CLOCK_RESOLUTION)), at most a
    /// day ([`CLOCK_RESOLUTION_MAX`](limits::CLOCK_RESOLUTION_MAX)). Sleeps are not finer than 1 ms in any case.
    /// No clock ever says 0: the monotonic one begins with the task, at one step.
    pub fn clock_resolution(mut self, resolution: Duration) -> Self {
        self.clock_resolution = Some(resolution);
        self
    }

    /// Makes the task's result a function of the module, the input and this seed: the same
    /// output, or the same error, and the same [fuel](TaskReport::fuel_used), in every worker. The
    /// module must be loaded [deterministic](crate::ModuleOptions::deterministic).
    ///
    /// - WASI's randomness is a stream that the seed determines. It is no secret: do not make
    ///   keys from it.
    /// - WASI's clocks begin one step after 2020-01-01 00:00 UTC
    ///   ([`VIRTUAL_TIME_EPOCH`](limits::VIRTUAL_TIME_EPOCH)), the monotonic one one step after 0. They move by
    ///   1 µs ([`VIRTUAL_TIME_STEP`](limits::VIRTUAL_TIME_STEP)) with each reading, and not between
    ///   readings.
    /// - A sleep (`poll_oneoff`) sets them forward and does not wait. A task that sleeps for ever
    ///   loops instead: [`fuel`](Self::fuel) or a timeout ends it.
    /// - NaNs have one bit pattern, by the module's options.
    ///
    /// Not part of it: a [`timeout`](Self::timeout) or an abort comes when it comes; a limit on
    /// memory, output or logs is an input like any other; the worker may be refused memory by the
    /// system; and machine code for another CPU may overflow its stack at another depth.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// use wasmpool::{CommandInput, ModuleOptions, Pool, TaskOptions};
    /// # wasmpool::init();
    /// let pool = Pool::new()?;
    /// let options = ModuleOptions::new().deterministic(true);
    /// let judge = pool.load_file_with("judge.wasm", options)?.command()?;
    /// let input = CommandInput::new().stdin("1 2 3");
    /// let once = pool.submit_with(&judge, &input, TaskOptions::new().deterministic(42))?;
    /// let again = pool.submit_with(&judge, &input, TaskOptions::new().deterministic(42))?;
    /// assert_eq!(once.result()?, again.result()?);
    /// # Ok(()) }
    /// ```
    pub fn deterministic(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Bytes of log records, and of lines that a task (not a command) writes to stdout and
    /// stderr. Default 256 KiB.
    pub fn log_bytes_max(mut self, bytes: usize) -> Self {
        self.log_bytes_max = Some(bytes);
        self
    }

    /// What becomes of a task that logs more. Default: the rest is dropped and counted.
    pub fn log_overflow(mut self, policy: LogOverflow) -> Self {
        self.log_overflow = Some(policy);
        self
    }

    /// A name of the caller's choice that appears in errors, logs and reports.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Which pending task goes first: the one with the higher number, and of equals the one that
    /// was submitted first. Default 0. A steady stream of high ones keeps low ones waiting.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// When the task is run again. Default: never.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// The trust domain that the task belongs to, by a name of the caller's choice: a tenant, or
    /// whoever wrote the module. A worker belongs to the domain of the first task that it is handed,
    /// for as long as it lives, and is handed tasks of that domain only: so machine code of one domain
    /// is never loaded into a process that has run, or will run, that of another. Tasks without a
    /// domain are one of their own. Default: none.
    ///
    /// Each domain at work needs a worker at least. Where there are more of them than workers, the
    /// queue's order says which is next, across domains, and a worker of another one leaves for it
    /// ([`LeaveReason::Domain`](crate::LeaveReason::Domain)): an idle one at once, a busy one when its
    /// task ends. That costs the start of a process, some milliseconds of a CPU, each time. So that
    /// domains that take turns do not pay it for every task, a worker may go on with tasks of its own
    /// domain before older ones of another, of the same priority, but overtakes none of them for
    /// longer than 25 ms ([`OVERTAKEN_MAX`](crate::limits::OVERTAKEN_MAX)).
    ///
    /// What is shared all the same: the host process, the cache of compiled modules, and, of a module
    /// that several domains use, the pages of its machine code, which are mapped for reading only; so are
    /// those of a [shared input](Self::shared) that is given to tasks of several domains.
    ///
    /// ```
    /// let options = wasmpool::TaskOptions::new().domain("tenant 17");
    /// ```
    pub fn domain(mut self, name: impl Into<String>) -> Self {
        self.domain = Some(name.into().into());
        self
    }

    /// What the task shares with those before it on its worker. Default: [`Isolation::Instance`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// Tasks that one instance serves, at most, under [`Isolation::Reuse`]; 0 counts as 1. Default
    /// 10,000.
    pub fn instance_tasks_max(mut self, tasks: u32) -> Self {
        self.instance_tasks_max = Some(tasks);
        self
    }

    /// Gives the task a [shared input](crate::Pool::share); with several calls several, numbered in
    /// their order, from 0. At most 16
    /// ([`SHARES_PER_TASK_MAX`](crate::limits::SHARES_PER_TASK_MAX)). A worker is sent each with the first
    /// task that has it, and no worker of another [domain](Self::domain) is.
    pub fn shared(mut self, shared: &Shared) -> Self {
        let before = self.shared.as_deref().unwrap_or_default();
        self.shared = Some(before.iter().chain([shared]).cloned().collect());
        self
    }

    /// `self` where it says something, `defaults` elsewhere.
    pub(crate) fn or(self, defaults: &TaskOptions) -> TaskOptions {
        TaskOptions {
            timeout: self.timeout.or(defaults.timeout),
            cpu_time: self.cpu_time.or(defaults.cpu_time),
            memory_bytes_max: self.memory_bytes_max.or(defaults.memory_bytes_max),
            output_bytes_max: self.output_bytes_max.or(defaults.output_bytes_max),
            fuel: self.fuel.or(defaults.fuel),
            clock_resolution: self.clock_resolution.or(defaults.clock_resolution),
            seed: self.seed.or(defaults.seed),
            log_bytes_max: self.log_bytes_max.or(defaults.log_bytes_max),
            log_overflow: self.log_overflow.or(defaults.log_overflow),
            label: self.label.or_else(|| defaults.label.clone()),
            priority: self.priority.or(defaults.priority),
            retry: self.retry.or(defaults.retry),
            domain: self.domain.or_else(|| defaults.domain.clone()),
            isolation: self.isolation.or(defaults.isolation),
            instance_tasks_max: self.instance_tasks_max.or(defaults.instance_tasks_max),
            // A pool's defaults were made before it could share anything.
            shared: self.shared,
        }
    }

    pub(crate) fn limits(&self) -> TaskLimits {
        TaskLimits {
            memory_bytes_max: self.memory_bytes_max.unwrap_or(limits::MEMORY_BYTES_MAX) as u64,
            // A command answers with two outputs, and a frame has a limit of its own.
            output_bytes_max: (self.output_bytes_max.unwrap_or(limits::OUTPUT_BYTES_MAX) as u64)
                .min(limits::FRAME_PAYLOAD_BYTES_MAX / 2),
            fuel: self.fuel,
            clock_resolution: self.clock_resolution.unwrap_or(limits::CLOCK_RESOLUTION),
            seed: self.seed,
            log_bytes_max: self.log_bytes_max.unwrap_or(limits::LOG_BYTES_PER_TASK_MAX) as u64,
            log_overflow: self.log_overflow.unwrap_or_default(),
            instance_tasks_max: match (self.isolation.unwrap_or_default(), self.seed) {
                (Isolation::Reuse, None) => {
                    self.instance_tasks_max.unwrap_or(limits::INSTANCE_TASKS_MAX).max(1)
                }
                _ => 1,
            },
        }
    }
}

/// The limits that the worker itself keeps, and what it surrounds the task with; the deadline stays
/// with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskLimits {
    pub(crate) memory_bytes_max: u64,
    pub(crate) output_bytes_max: u64,
    pub(crate) fuel: Option<u64>,
    pub(crate) clock_resolution: Duration,
    /// The seed of a deterministic task.
    pub(crate) seed: Option<u64>,
    pub(crate) log_bytes_max: u64,
    pub(crate) log_overflow: LogOverflow,
    /// Tasks that one instance may serve; 1 is an instance for each.
    pub(crate) instance_tasks_max: u32,
}

/// What a task cost. Each number was measured, or it is `None`: a worker that died or was killed has not said what its
/// task had cost. Times that a task never reached are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskReport {
    /// From `submit` to the dispatch to a worker.
    pub queued: Duration,
    /// From the worker's first step for this task (instantiation) to its last, by the worker's word. If its worker died
    /// or was killed, it is the time from its dispatch to that end, as the pool measured it; for a task that travelled
    /// with others, from the dispatch of them all.
    pub run: Duration,
    /// From `submit` to the future's completion.
    pub total: Duration,
    /// CPU time of the worker's main thread during `run`. It is not measured for a task that ran for less
    /// than 50 µs, but taken to be all of `run`. With [`TaskOptions::cpu_time`] it is what the pool has
    /// measured for the whole process, even if the task did not come to its end.
    ///
    /// If the task's worker died or was killed, it is the time that the process has computed since the dispatch, by its
    /// clock. It is `None` where that clock was not read: if the task travelled with others, or the pool's tasks mostly
    /// take less than 50 µs ([`CPU_MEASURED_FROM`](limits::CPU_MEASURED_FROM)); and for a task that never began.
    pub cpu: Option<Duration>,
    /// Most bytes that the task's memories and tables held together. `None` if there is no word of it: the task never
    /// began, or its worker died or was killed.
    pub peak_memory_bytes: Option<u64>,
    /// Fuel used, where the module is metered.
    pub fuel_used: Option<u64>,
    /// How often the task began: 0 if it never did, more than 1 if it was [retried](Retry).
    pub attempts: u32,
    /// The worker that ran it last.
    pub worker_pid: Option<u32>,
    /// Bytes of log records that went over the task's log limit and were dropped. `None` as for
    /// [`peak_memory_bytes`](Self::peak_memory_bytes).
    pub log_bytes_dropped: Option<u64>,
    /// Bytes of its encoded input. `None` for a task that travelled with others.
    pub input_bytes: Option<u64>,
    /// Bytes that came back: its encoded output or the text of its error; for a command, what it wrote. `None` if nothing
    /// came back, since the task never began, or its worker died or was killed.
    pub output_bytes: Option<u64>,
    /// The task's requests for memory, or room in a table, that were refused while it ran. The task is told
    /// and goes on: it may do without, exit, or trap, and only it knows whether that was why. `None` as for
    /// [`peak_memory_bytes`](Self::peak_memory_bytes).
    pub refusals: Option<Refusals>,
}

impl TaskReport {
    /// Returns the memory that the task is known to have been refused, if there was any.
    pub(crate) fn refused(&self) -> Option<&Refusals> {
        self.refusals.as_ref().filter(|refusals| !refusals.is_empty())
    }

    /// Returns it with no more time in the queue than was left beside the run: a worker begins what it has in store before
    /// the host learns of it.
    pub(crate) fn with_bounded_wait(mut self) -> TaskReport {
        self.queued = self.queued.min(self.total.saturating_sub(self.run));
        self
    }

    /// Returns the report of a task that no worker has begun, for all the time that it waited.
    pub(crate) fn never_begun(waited: Duration) -> TaskReport {
        TaskReport { queued: waited, total: waited, ..TaskReport::default() }
    }

    /// The part of `total` that was neither queueing nor running: transfer and wake-ups.
    pub fn transfer(&self) -> Duration {
        self.total.saturating_sub(self.queued + self.run)
    }
}

/// What a WASI command is given: argv, environment, stdin.
///
/// ```
/// let input = wasmpool::CommandInput::new()
///     .args(["-c", "print(6*7)"])
///     .env("LANG", "C")
///     .stdin("text");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandInput {
    pub(crate) program: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
}

/// The stdin of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stdin {
    Bytes(bytes::Bytes),
    Source(StdinSource),
}

impl Default for Stdin {
    fn default() -> Self {
        Stdin::Bytes(bytes::Bytes::new())
    }
}

impl CommandInput {
    /// No arguments, no environment, empty stdin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many bytes its texts take in memory, and the stdin that is sent with it.
    #[cfg(feature = "cli")]
    pub(crate) fn bytes(&self) -> usize {
        let env = self.env.iter().flat_map(|(name, value)| [name, value]);
        let texts: usize = self.args.iter().chain(env).map(String::len).sum();
        match &self.stdin {
            Stdin::Bytes(bytes) => texts + bytes.len(),
            Stdin::Source(_) => texts,
        }
    }

    /// `argv[0]`; the module's name unless set.
    pub fn program(mut self, name: impl Into<String>) -> Self {
        self.program = Some(name.into());
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable. The last value of a name counts.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        let value = value.into();
        match self.env.iter_mut().find(|(other, _)| *other == name) {
            Some((_, before)) => *before = value,
            None => self.env.push((name, value)),
        }
        self
    }

    /// The whole of stdin, sent with the command.
    pub fn stdin(mut self, stdin: impl Into<bytes::Bytes>) -> Self {
        self.stdin = Stdin::Bytes(stdin.into());
        self
    }

    /// A stdin of any length that is read as the command asks for it: each of its reads is one
    /// [`read`](std::io::Read::read) of as many bytes as it asked for (at most 64 KiB,
    /// [`ASK_BYTES_MAX`](limits::ASK_BYTES_MAX)), and what it never asks for is never read. A command that
    /// reads nothing waits for nothing. An error of the reader is the command's own (`EIO`, or the system's).
    ///
    /// A thread of its own uses the reader from the command's first question on, and drops it when the
    /// command has ended. The reader may block for as long as it likes: the command's deadline ends the
    /// command, and the thread ends with its last read. A command that polls this stdin is told that it is
    /// ready, since a reader cannot be asked; a [descriptor](Self::stdin_from) can.
    ///
    /// Only one task reads it: a clone of this input has the same reader. Submitting it again is refused
    /// ([`SubmitError::StdinTaken`](crate::SubmitError::StdinTaken)) unless the first task never read
    /// anything, and so is a [retry](TaskOptions::retry)
    /// ([`SubmitError::StdinReadOnce`](crate::SubmitError::StdinReadOnce)). For a
    /// [deterministic](TaskOptions::deterministic) command each read is filled to what was asked for.
    ///
    /// ```
    /// let lines = std::io::Cursor::new("b\na\n");
    /// let input = wasmpool::CommandInput::new().arg("sort").stdin_reader(lines);
    /// ```
    pub fn stdin_reader(mut self, reader: impl Read + Send + 'static) -> Self {
        self.stdin = Stdin::Source(StdinSource::of_reader(reader));
        self
    }

    /// Does the same as [`stdin_reader`](Self::stdin_reader) with a file, pipe, socket or terminal. Nothing
    /// is buffered, so that what the command does not ask for is there for the next one who reads; and a
    /// command that polls it learns whether there is any.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsFd;
    /// let input = wasmpool::CommandInput::new().stdin_from(std::io::stdin().as_fd().try_clone_to_owned()?);
    /// # Ok(()) }
    /// ```
    pub fn stdin_from(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.stdin = Stdin::Source(StdinSource::of_descriptor(descriptor.into()));
        self
    }
}

/// What a WASI command had written when it failed, each up to
/// [`output_bytes_max`](TaskOptions::output_bytes_max).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PartialOutput {
    /// What it wrote to stdout.
    pub stdout: bytes::Bytes,
    /// What it wrote to stderr.
    pub stderr: bytes::Bytes,
}

/// What a WASI command that exited with code 0 left behind. Another exit code is
/// [`TaskError::Exit`](crate::TaskError::Exit), which carries the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The exit code: the bits that the program gave to `proc_exit`. WASI's codes have no sign, so that one over 31 bits is
    /// negative here, and shown as what it is in messages and JSON.
    pub exit_code: i32,
    /// Everything the command wrote to stdout.
    pub stdout: bytes::Bytes,
    /// Everything the command wrote to stderr.
    pub stderr: bytes::Bytes,
}
