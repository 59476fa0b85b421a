//! The options of one task, as its caller gives them.

use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::policy::Retry;
use crate::shared_input::SharedInput;
use proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use proto::limits::task::TaskLimits;
use proto::task::LogOverflow;

/// The limits of one task, and its name in logs and errors. [`Pool::task`](crate::Pool::task) sets the same for
/// a task on its way, and [`PoolBuilder::task_defaults`](crate::PoolBuilder::task_defaults) for all.
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
    pub(crate) shared: Option<Arc<[SharedInput]>>,
}

/// Hands the methods of [`TaskOptions`] to a macro, which makes methods of the same names: `Submission` has them all, and
/// `PoolBuilder`, for tasks that do not say otherwise, those of the first group.
macro_rules! task_options {
    ($methods:ident) => {
        $methods! {
            {
                timeout(timeout: Duration);
                cpu_time(cpu_time: Duration);
                memory_bytes_max(bytes: usize);
                output_bytes_max(bytes: usize);
                log_bytes_max(bytes: usize);
                isolation(isolation: Isolation);
            }
            {
                fuel(fuel: u64);
                clock_resolution(resolution: Duration);
                deterministic(seed: u64);
                log_overflow(policy: LogOverflow);
                label(label: impl Into<String>);
                priority(priority: i32);
                retry(retry: Retry);
                domain(name: impl Into<String>);
                instance_tasks_max(tasks: u32);
                shared(shared: &SharedInput);
            }
        }
    };
}
pub(crate) use task_options;

/// The things that a task shares with those that ran before it on its worker.
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

/// Takes over the default where nothing is said.
fn fill<T: Clone>(said: &mut Option<T>, default: &Option<T>) {
    if said.is_none() && default.is_some() {
        said.clone_from(default);
    }
}

impl TaskOptions {
    /// The pool's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the task may run, counted from when a worker is handed it; start functions
    /// and host calls included. Waiting in the queue does not count. Default: 1 h;
    /// [`Duration::MAX`] is for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// CPU time that the task may use: whether it goes over this does not depend on what else runs on the machine.
    /// Sleeping, and waiting for a CPU, do not count; [`timeout`](Self::timeout) bounds those, and holds as
    /// well. A task that goes over it is interrupted as at a timeout, and ends with
    /// [`TaskError::CpuTime`](crate::TaskError::CpuTime), even if it ended by itself before it was
    /// interrupted. Retries [after timeouts](Retry::after_timeouts) are for both limits; each attempt has the
    /// whole limit. Default: none.
    ///
    /// The pool measures it by the worker process's own clock, from the task's first step in the worker (its
    /// instance and start functions) to its answer. Bringing a module into a worker that did not have it does
    /// not count. The limit is the same under every [`Isolation`] and [`Interrupt`](crate::module::Interrupt); with
    /// [`Interrupt::Kill`](crate::module::Interrupt::Kill) the worker ends with the task. It does not affect the
    /// result of a [deterministic](Self::deterministic) task. The pool finds out within 5 ms of CPU time, if
    /// its own thread gets a CPU in that time.
    ///
    /// A worker is handed such a task when it has nothing else, and no task is sent ahead behind it. This makes
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
    /// [metered](crate::module::ModuleOptions::metered).
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.fuel = Some(fuel);
        self
    }

    /// Sets how fine the clocks are that WASI gives the task: what they say is a multiple of this. 0 is
    /// as fine as the system's, which makes it easier for a task to find out what others on the
    /// machine are doing. Default 1 ms ([`CLOCK_RESOLUTION`](limits::CLOCK_RESOLUTION)), at most a
    /// day ([`CLOCK_RESOLUTION_MAX`](limits::CLOCK_RESOLUTION_MAX)). Sleeps are not finer than 1 ms in any case.
    /// No clock ever says 0: the monotonic one begins with the task, at one step.
    pub fn clock_resolution(mut self, resolution: Duration) -> Self {
        self.clock_resolution = Some(resolution);
        self
    }

    /// Makes the task's result a function of the module, the input and this seed: the same
    /// output, or the same error, and the same [fuel](crate::task::TaskReport::fuel_used), in every worker. The
    /// module must be loaded [deterministic](crate::module::ModuleOptions::deterministic).
    ///
    /// - WASI's randomness is a stream that the seed determines. It is no secret: do not make
    ///   keys from it.
    /// - WASI's clocks begin one step after 2020-01-01 00:00 UTC
    ///   ([`VIRTUAL_TIME_EPOCH`](proto::limits::VIRTUAL_TIME_EPOCH)), the monotonic one one step after 0. They move by
    ///   1 µs ([`VIRTUAL_TIME_STEP`](proto::limits::VIRTUAL_TIME_STEP)) with each reading, and not between
    ///   readings.
    /// - A sleep (`poll_oneoff`) sets them forward and does not wait. A task that sleeps for ever
    ///   loops instead: [`fuel`](Self::fuel) or a timeout ends it.
    /// - NaNs have one bit pattern, by the module's options.
    ///
    /// The promise does not cover the following: a [`timeout`](Self::timeout) or an abort comes when it comes; a limit
    /// on memory, output or logs is an input like any other; the worker may be refused memory by the
    /// system; and machine code for another CPU may overflow its stack at another depth.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// use wasmpool::module::ModuleOptions;
    /// use wasmpool::task::CommandInput;
    /// use wasmpool::Pool;
    /// # wasmpool::init();
    /// let pool = Pool::new()?;
    /// let options = ModuleOptions::new().deterministic(true);
    /// let judge = pool.load_file_with("judge.wasm", options)?.command()?;
    /// let input = CommandInput::new().stdin("1 2 3");
    /// let judge = pool.task(&judge).deterministic(42);
    /// let once = judge.submit(&input)?;
    /// let again = judge.submit(&input)?;
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

    /// Sets what becomes of a task that logs more. Default: the rest is dropped and counted.
    pub fn log_overflow(mut self, policy: LogOverflow) -> Self {
        self.log_overflow = Some(policy);
        self
    }

    /// A name of the caller's choice that appears in errors, logs and reports.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets which pending task goes first: the one with the higher number, and of equals the one that
    /// was submitted first. Default 0. A steady stream of high ones keeps low ones waiting.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets when the task is run again. Default: never.
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
    /// ([`LeaveReason::Domain`](crate::event::LeaveReason::Domain)): an idle one at once, a busy one when its
    /// task ends. That costs the start of a process, some milliseconds of a CPU, each time. So that
    /// domains that take turns do not pay it for every task, a worker may go on with tasks of its own
    /// domain before older ones of another, of the same priority, but overtakes none of them for
    /// longer than 25 ms ([`OVERTAKEN_MAX`](proto::limits::OVERTAKEN_MAX)).
    ///
    /// These are shared all the same: the host process, the cache of compiled modules, and, of a module
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

    /// Sets what the task shares with those before it on its worker. Default: [`Isolation::Instance`].
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
    /// ([`SHARES_PER_TASK_MAX`](limits::SHARES_PER_TASK_MAX)). A worker is sent each with the first
    /// task that has it, and no worker of another [domain](Self::domain) is.
    pub fn shared(mut self, shared: &SharedInput) -> Self {
        let before = self.shared.as_deref().unwrap_or_default();
        self.shared = Some(before.iter().chain([shared]).cloned().collect());
        self
    }

    /// `self` where it says something, `defaults` elsewhere.
    pub(crate) fn or(mut self, defaults: &TaskOptions) -> TaskOptions {
        self.fill_in(defaults);
        self
    }

    /// Takes over what `defaults` say where `self` says nothing, in place: the options of each task go through here.
    pub(crate) fn fill_in(&mut self, defaults: &TaskOptions) {
        fill(&mut self.timeout, &defaults.timeout);
        fill(&mut self.cpu_time, &defaults.cpu_time);
        fill(&mut self.memory_bytes_max, &defaults.memory_bytes_max);
        fill(&mut self.output_bytes_max, &defaults.output_bytes_max);
        fill(&mut self.fuel, &defaults.fuel);
        fill(&mut self.clock_resolution, &defaults.clock_resolution);
        fill(&mut self.seed, &defaults.seed);
        fill(&mut self.log_bytes_max, &defaults.log_bytes_max);
        fill(&mut self.log_overflow, &defaults.log_overflow);
        fill(&mut self.label, &defaults.label);
        fill(&mut self.priority, &defaults.priority);
        fill(&mut self.retry, &defaults.retry);
        fill(&mut self.domain, &defaults.domain);
        fill(&mut self.isolation, &defaults.isolation);
        fill(&mut self.instance_tasks_max, &defaults.instance_tasks_max);
        // A pool's defaults were made before it could share anything.
    }

    /// Returns what the worker is told: what is set, and the defaults of the rest.
    pub(crate) fn limits(&self) -> TaskLimits {
        let default = TaskLimits::default();
        let bytes = |set: Option<usize>, default: u64| set.map_or(default, |bytes| bytes as u64);
        TaskLimits {
            memory_bytes_max: bytes(self.memory_bytes_max, default.memory_bytes_max),
            // A command answers with two outputs, and a frame has a limit of its own.
            output_bytes_max: bytes(self.output_bytes_max, default.output_bytes_max)
                .min(FRAME_PAYLOAD_BYTES_MAX / 2),
            fuel: self.fuel,
            clock_resolution: self.clock_resolution.unwrap_or(default.clock_resolution),
            seed: self.seed,
            log_bytes_max: bytes(self.log_bytes_max, default.log_bytes_max),
            log_overflow: self.log_overflow.unwrap_or(default.log_overflow),
            instance_tasks_max: match (self.isolation.unwrap_or_default(), self.seed) {
                (Isolation::Reuse, None) => {
                    self.instance_tasks_max.unwrap_or(limits::INSTANCE_TASKS_MAX).max(1)
                }
                _ => default.instance_tasks_max,
            },
        }
    }
}
