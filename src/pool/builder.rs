//! Building a pool.

mod checks;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::load::Loads;
use super::{Handle, Pool};
use crate::error::BuildError;
use crate::fork::OfProcess;
use crate::future::Queues;
use crate::host::cache::Cache;
use crate::host::cgroup::CgroupChoice;
use crate::host::compile::CompileSlots;
use crate::host::core::Core;
use crate::host::settings::PoolSettings;
use crate::host::spawn::Program;
use crate::host::{become_io_thread, dirs, doctor, requests, supervise};
use crate::options::{Isolation, TaskOptions, task_options};
use crate::policy::{DropPolicy, OnWorkerDeath};
use crate::scheduler::Event;
use crate::shared_input::Shares;
use crate::sync::unbounded;
use files::{HostFiles, OpenError};
use proto::limits;
use proto::limits::compile::CompileLimits;
use proto::policy::{SandboxLayer, SandboxPolicy};
use proto::preopen::{DirAccess, GuestDir, most};
use proto::refused::calling;
use proto::role::Role;
use proto::shortage::Shortage;
use sandbox::{pagemap, syscalls};

static NEXT_POOL: AtomicU64 = AtomicU64::new(1);

/// Settings of a [`Pool`]. Every default is in [`limits`](crate::limits).
#[derive(Debug, Clone)]
#[must_use = "a builder builds nothing until build() is called"]
pub struct PoolBuilder {
    workers: usize,
    worker_program: Option<PathBuf>,
    cache: CacheChoice,
    cache_bytes_max: u64,
    verify_sandbox: bool,
    dirs: Vec<dirs::Wanted>,
    settings: PoolSettings,
}

#[derive(Debug, Clone)]
enum CacheChoice {
    Default,
    Dir(PathBuf),
    Off,
}

impl Default for PoolBuilder {
    fn default() -> Self {
        PoolBuilder::new()
    }
}

impl PoolBuilder {
    pub(super) fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        PoolBuilder {
            workers: cpus,
            worker_program: None,
            cache: CacheChoice::Default,
            cache_bytes_max: limits::CACHE_BYTES_MAX,
            verify_sandbox: false,
            dirs: Vec::new(),
            settings: PoolSettings::usual(cpus),
        }
    }

    /// Most worker processes, 1 to 1024. Default: the CPUs that this process may use,
    /// by affinity and cgroup.
    #[doc(alias = "max_workers")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Workers that are started at once and kept without work. Default: 0, they start when a
    /// task comes and no idle one can take it.
    pub fn workers_min(mut self, workers: usize) -> Self {
        self.settings.workers.min = workers;
        self
    }

    /// A worker that has had nothing to do for so long leaves, down to
    /// [`workers_min`](Self::workers_min). Default: they stay.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.workers.idle_timeout = Some(timeout);
        self
    }

    /// Sets what the unexpected death of a worker does. Default: [`OnWorkerDeath::Break`], as in Python.
    pub fn on_worker_death(mut self, policy: OnWorkerDeath) -> Self {
        self.settings.workers.on_death = policy;
        self
    }

    /// Sets what happens to the tasks when the last handle of the pool is dropped. Default:
    /// [`DropPolicy::Finish`], as in Python.
    pub fn on_drop(mut self, policy: DropPolicy) -> Self {
        self.settings.on_drop = policy;
        self
    }

    /// A worker that has answered so many tasks is replaced (`max_tasks_per_child`). Default: never.
    #[doc(alias = "max_tasks_per_child")]
    pub fn recycle_after_tasks(mut self, tasks: u64) -> Self {
        self.settings.workers.recycle.tasks_max = Some(tasks);
        self
    }

    /// A worker whose resident memory is above this after a task is replaced. Default: never.
    pub fn recycle_above_memory(mut self, bytes: u64) -> Self {
        self.settings.workers.recycle.memory_bytes_max = Some(bytes);
        self
    }

    /// A worker that is older than this after a task is replaced. Default: never.
    pub fn recycle_after(mut self, age: Duration) -> Self {
        self.settings.workers.recycle.age_max = Some(age);
        self
    }

    /// A task that runs for longer is reported, once: as a warning in the log and as an
    /// [`EventKind::TaskSlow`](crate::event::EventKind::TaskSlow). Its stack follows as a log record of its own, of the
    /// target `wasmpool::stack`, and it goes on: unless it waits in a host call or has used up its log limit. Default:
    /// never.
    pub fn slow_after(mut self, after: Duration) -> Self {
        self.settings.tasks.slow_after = Some(after);
        self
    }

    /// Most tasks that a worker is handed beyond the one that it runs, 0 to 127. How many it
    /// is handed depends on how long tasks take; they can still be cancelled, and go to another
    /// worker if theirs takes long or dies. A task that is handed over early may be overtaken by
    /// those submitted within the next millisecond; with 0 tasks begin in order, and each of them
    /// costs a wake-up. Default: 127.
    pub fn prefetch_max(mut self, tasks: usize) -> Self {
        self.settings.workers.prefetch_max = tasks;
        self
    }

    /// The options of tasks that do not say otherwise.
    pub fn task_defaults(mut self, defaults: TaskOptions) -> Self {
        self.settings.tasks.defaults = defaults;
        self
    }

    /// Bytes of log records a second that the tasks of one worker get through to the `tracing` subscriber, in
    /// which they run on the thread that reads the worker's answers; a second's worth may come at once. A record
    /// counts as its text and 32 bytes. What is more is dropped, counted ([`PoolStats::log_records_dropped`](crate::event::PoolStats::log_records_dropped)) and
    /// told by a warning, at most one a second. 1 to `u64::MAX`, which is no limit. Default: 4 MiB.
    pub fn log_rate_max(mut self, bytes_per_second: u64) -> Self {
        self.settings.logs.bytes_per_second = bytes_per_second;
        self
    }

    /// Sets which `tracing` events of the workers' own code reach this process's subscriber: with the target
    /// `wasmpool::worker`, the worker's pid as `worker_pid`, and of a task its id, label and module. They share
    /// [`log_rate_max`](Self::log_rate_max) with what the tasks log. What is finer than this is neither made nor sent.
    /// Default: `WARN`.
    pub fn worker_log_level(mut self, level: impl Into<LevelFilter>) -> Self {
        self.settings.logs.worker_events.own = checks::level_number(level.into());
        self
    }

    /// The same for what the engine in a worker says, wasmtime and what it is made of, through `tracing` and `log`.
    /// At `DEBUG` and finer that may be much for each task, and takes its time. Default: `OFF`.
    pub fn engine_log_level(mut self, level: impl Into<LevelFilter>) -> Self {
        self.settings.logs.worker_events.engine = checks::level_number(level.into());
        self
    }

    /// Stack that the wasm of a task may use: how deep it may recurse before that is a trap. 64 KiB to
    /// 4 MiB; `build` refuses what the system's hard limit of the stack (`RLIMIT_STACK`) has no room
    /// for, with 1 MiB for the worker itself. Default: 1 MiB.
    pub fn wasm_stack_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.workers.wasm_stack_bytes_max = bytes;
        self
    }

    /// Most tasks that wait or run; `submit` waits for room, `try_submit` refuses. Default: 65,536.
    pub fn queue_tasks_max(mut self, tasks: usize) -> Self {
        self.settings.tasks.queued_max = tasks;
        self
    }

    /// Most bytes of one input. Default: 256 MiB.
    pub fn input_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.tasks.input_bytes_max = bytes;
        self
    }

    /// Most bytes that one [`map`](crate::Pool::map) holds in this process: inputs that are under way, the largest results
    /// that may come of them, and results that wait to be taken. An input is submitted only when its largest result
    /// ([`output_bytes_max`](crate::TaskOptions::output_bytes_max)) has room; one that never has is refused as
    /// [`SubmitError::NoRoomInMap`](crate::error::SubmitError::NoRoomInMap). Default: 1 GiB, or twice what all workers may
    /// return at once, if that is more; [`MAP_BYTES_MAX`](proto::limits::MAP_BYTES_MAX) says what is counted.
    pub fn map_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.tasks.map_bytes_max = Some(bytes);
        self
    }

    /// Most bytes of one [shared input](crate::Pool::share). Default: 1 GiB.
    pub fn share_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.held.share_bytes_max = bytes;
        self
    }

    /// Most [shared inputs](crate::Pool::share) at a time, up to 4096. Default: 128.
    pub fn shares_max(mut self, shares: usize) -> Self {
        self.settings.held.shares_max = shares;
        self
    }

    /// Most [modules](crate::Module) that are held at a time, at least 1; loading one more fails with
    /// [`ModuleError::TooMany`](crate::error::ModuleError::TooMany). Each takes two descriptors of this process,
    /// whose own limit may be lower: [`ModuleError::NoDescriptors`](crate::error::ModuleError::NoDescriptors). A
    /// module that nobody holds does not count. Default: 4096.
    pub fn modules_max(mut self, modules: usize) -> Self {
        self.settings.held.modules_max = modules;
        self
    }

    /// Has workers find the pages that a task has written by a scan of the page map
    /// (`PAGEMAP_SCAN`, Linux 6.7), in place of giving back whole memories: fresh instances may
    /// then cost less, of modules that import WASI or have much data. (Others' memories are reset in another
    /// way, which is as fast and needs no trust.) **For tasks that trust each other only.** The scan passes over pages that
    /// are written but not present, and what such a page holds is seen by the next task.
    ///
    /// - Pages that are swapped out. So `build` refuses unless swap cannot happen: no swap device
    ///   is in use, or `memory.swap.max` is 0 for this process's cgroup or one above it. It looks
    ///   once: nobody may turn swap on while the pool lives.
    /// - Pages that the kernel is moving at that instant (compaction, NUMA balancing). Nothing
    ///   excludes that. Measured under compaction without pause, on Linux 6.18 without swap: 10
    ///   of 105 scans of 1 GiB missed 1 to 373 written pages.
    ///
    /// Default: off; nothing of the above then applies.
    pub fn pagemap_scan(mut self, scan: bool) -> Self {
        self.settings.workers.pagemap_scan = scan;
        self
    }

    /// Sets how long an interrupted task has until its worker is killed. Default: 500 ms.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.workers.grace = grace;
        self
    }

    /// Sets how long a worker has from its start to its first word. Default: 10 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.workers.start_timeout = timeout;
        self
    }

    /// Sets what compiling a module may cost, and how it may be built, unless its
    /// [`ModuleOptions::compile_limits`](crate::module::ModuleOptions::compile_limits) say otherwise. The defaults are for
    /// modules of strangers.
    pub fn compile_limits(mut self, limits: CompileLimits) -> Self {
        self.settings.compiler.limits = limits;
        self
    }

    /// Sets how long the compilation of a module may take: [`CompileLimits::timeout`] of
    /// [`compile_limits`](Self::compile_limits), which belongs before this. Default: two hours; what a module
    /// meets before that is [`CompileLimits::cpu_time`], 300 s.
    pub fn compile_timeout(mut self, timeout: Duration) -> Self {
        self.settings.compiler.limits = self.settings.compiler.limits.timeout(timeout);
        self
    }

    /// Threads of one compiler process, 1 to 32. Default: one for each CPU, at most four. They run as other
    /// processes do. Only a compiler that has used far more CPU time than the size of its module explains
    /// steps back behind this process's tasks while they compute, to a 32nd part of the CPUs.
    pub fn compile_threads(mut self, threads: usize) -> Self {
        self.settings.compiler.threads = threads;
        self
    }

    /// Compiler processes at a time, 1 to 64, each with its own memory limit; other loads wait for
    /// a compile slot, in order. That wait has no deadline and counts in no timeout: each of those before it
    /// is done within its own. Default: 2.
    pub fn compilers_max(mut self, compilers: usize) -> Self {
        self.settings.compiler.processes_max = compilers;
        self
    }

    /// Sets how much of the operating system's sandbox around workers and compilers is demanded.
    /// Default: [`SandboxPolicy::BestEffort`], which does not do without seccomp.
    pub fn sandbox(mut self, policy: SandboxPolicy) -> Self {
        self.settings.sandbox.request.policy = policy;
        self
    }

    /// Leaves one layer of the sandbox out, knowingly: it is then not asked for, under any policy.
    /// [`Session`](SandboxLayer::Session) and [`Descriptors`](SandboxLayer::Descriptors) stay.
    pub fn sandbox_without(mut self, layer: SandboxLayer) -> Self {
        self.settings.sandbox.request.without.push(layer);
        self
    }

    /// Has throw-away workers attack their sandbox before the pool is built, as [`Doctor`](crate::sandbox::Doctor)
    /// does, once for each setting in the life of this process (some tenths of a second), and fills
    /// in [`LayerReport::verified`](crate::sandbox::LayerReport::verified). Default: no.
    pub fn verify_sandbox(mut self, verify: bool) -> Self {
        self.verify_sandbox = verify;
        self
    }

    /// Sets whom workers and compilers become where the host is root: a user and a group that own
    /// nothing, each 1 to 4,294,967,294. Default: 65534, `nobody`.
    pub fn worker_identity(mut self, uid: u32, gid: u32) -> Self {
        self.settings.sandbox.request.identity = (uid, gid);
        self
    }

    /// Gives every task of the pool that imports WASI a directory, as `guest_path`; to be called again
    /// for more, at most 16. **A weaker sandbox, knowingly**: by default a worker reaches no file at all
    /// and has no system call for it. With directories it has these (SECURITY.md has the list), and who
    /// takes it over can do to what is in them, and to nothing else, what a task can.
    ///
    /// - The directory is opened by [`build`](Self::build), and stays the same one even if its path
    ///   comes to mean another. What else is mounted below it belongs to it.
    /// - What is beyond it stays beyond, by `..`, an absolute path or a symbolic link: WASI, the kernel's
    ///   Landlock and a mount of its own each see to it.
    /// - Whether a file can be read is decided by its mode and by the user whom workers become where the
    ///   host is root ([`worker_identity`](Self::worker_identity), 65534 by default) and may change its user;
    ///   `build` refuses a directory that they may not use. Their files are that user's, with mode 0600.
    /// - Tasks see each other's files, in all [domains](crate::TaskOptions::domain); and no limit says how
    ///   much they may write, but for 2 GiB of one file. A pool for each tenant is the way to keep them
    ///   apart, and a file system of its own the way to keep the disk from filling up.
    /// - A call that the kernel makes wait is not interrupted: to open a FIFO, or to list a million files,
    ///   may cost the worker when the task's deadline has come.
    /// - [Deterministic](crate::TaskOptions::deterministic) tasks that import WASI are refused.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// use wasmpool::sandbox::DirAccess;
    /// use wasmpool::Pool;
    /// let pool = Pool::builder()
    ///     .dir("/srv/maps", "/maps", DirAccess::ReadOnly)
    ///     .dir("/srv/results", "/results", DirAccess::ReadWrite)
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn dir(
        mut self,
        host_path: impl AsRef<Path>,
        guest_path: impl Into<String>,
        access: DirAccess,
    ) -> Self {
        let guest = GuestDir { guest_path: guest_path.into(), access };
        self.dirs.push(dirs::Wanted { host_path: host_path.as_ref().into(), guest });
        self
    }

    /// Most writable memory of one whole worker process (`RLIMIT_DATA`, counted from what the process has when it
    /// starts): the task's memories, its input and output, the engine's own. A worker that holds more in other ways is
    /// killed ([`DeathCause::MemoryExceeded`](crate::error::DeathCause::MemoryExceeded)). A task whose own limit is above this cannot use it up.
    /// Some 650 MiB of it are the engines' room for tables, used or not. At least 864 MiB
    /// ([`WORKER_MEMORY_BYTES_MIN`](proto::limits::WORKER_MEMORY_BYTES_MIN)); default: 4 GiB.
    pub fn worker_memory_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.sandbox.request.memory_bytes_max = bytes;
        self
    }

    /// A directory of a cgroup hierarchy of version 2, in which the pool may make a group for each
    /// worker: limited to [`worker_memory_bytes_max`](Self::worker_memory_bytes_max) without swap, and
    /// to 64 processes. Its `cgroup.subtree_control` must hold `memory` and `pids`. Default: the group
    /// above this process's own, if systemd has marked it as delegated (a unit with `Delegate=yes`
    /// whose processes are in a group below the unit's).
    pub fn cgroup(mut self, dir: impl AsRef<Path>) -> Self {
        self.settings.sandbox.cgroup = CgroupChoice::Dir(dir.as_ref().into());
        self
    }

    /// No cgroups, even where they are delegated.
    pub fn without_cgroup(mut self) -> Self {
        self.settings.sandbox.cgroup = CgroupChoice::Off;
        self
    }

    /// The directory for compiled modules. Default: `$XDG_CACHE_HOME/wasmpool`, else `$HOME/.cache/wasmpool`.
    /// It must belong to this user alone, and must not lie in a directory that tasks may write to. There is
    /// no cache if the home is missing, the default lies in another user's folder, or (with a warning) tasks may
    /// write to the default.
    pub fn cache_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.cache = CacheChoice::Dir(dir.as_ref().into());
        self
    }

    /// Keeps no compiled modules on disk.
    pub fn without_cache(mut self) -> Self {
        self.cache = CacheChoice::Off;
        self
    }

    /// Most bytes of disk that compiled modules may take; those used least recently are removed for new ones.
    /// A module that is larger is not kept. Default: 2 GiB.
    pub fn cache_bytes_max(mut self, bytes: u64) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    /// The executable to run as workers and compilers, in place of this one. It must be of the same build and have the
    /// engine in it, and its `main` must call [`wasmpool::init`](crate::init). `wasmpool-worker` is such a program and
    /// does nothing else; the `wasmpool` command is one, too. A program that was built without the feature `engine`
    /// needs this.
    #[doc(alias = "mp_context")]
    pub fn worker_program(mut self, path: impl AsRef<Path>) -> Self {
        self.worker_program = Some(path.as_ref().into());
        self
    }

    /// Builds the pool. Starts its threads, and [`workers_min`](Self::workers_min) processes: the
    /// others start on demand.
    ///
    /// # Errors
    /// [`BuildError::InitMissing`] if [`init`](crate::init) was not called and no worker
    /// program is named; [`BuildError::NestedInit`] inside of a worker;
    /// [`BuildError::Directory`] for one that cannot be given; settings that
    /// cannot be; what the system refuses.
    pub fn build(self) -> Result<Pool, BuildError> {
        self.check()?;
        let sandbox = &self.settings.sandbox.request;
        let dirs = dirs::open_all(&self.dirs, sandbox)?;
        let program = Program::choose(self.worker_program.as_deref())?;
        let system = |what| move |source| BuildError::System { what, source: Shortage::explained(source) };
        let files = dirs::host_files(&dirs).map_err(system("look at the directories of tasks"))?;
        let cache = self.open_cache(&files)?;
        let (supervisor, requests) = requests::channel().map_err(system("create an eventfd"))?;
        let (callbacks, queue) = unbounded::<Box<dyn FnOnce() + Send>>();
        let mut settings = self.settings;
        settings.workers.max = self.workers;
        settings.workers.machine_code = program.machine_code();
        settings.sandbox.dirs = dirs;
        settings.sandbox.files = files;
        settings.tasks.defaults.timeout.get_or_insert(limits::task::TIMEOUT);
        // Workers inherit the hard limit, which may be lower than what they are given otherwise.
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let (modules_max, prefetch_max) = checks::within_descriptors(descriptors.unwrap_or(u64::MAX));
        settings.workers.modules_max = settings.workers.modules_max.min(modules_max);
        settings.workers.prefetch_max = settings.workers.prefetch_max.min(prefetch_max);
        if self.verify_sandbox {
            settings.sandbox.verified = {
                let dirs = most(settings.sandbox.dirs.iter().map(|dir| dir.guest.access));
                doctor::verified(&settings.sandbox.request, self.worker_program.clone(), dirs)?
            };
        }
        let prestart = settings.workers.min;
        let compilers_max = settings.compiler.processes_max;
        let id = NEXT_POOL.fetch_add(1, Ordering::Relaxed);
        let (wakers, woken) = unbounded::<Box<dyn FnOnce() + Send>>();
        let queues = Arc::new(Queues { callbacks, wakers });
        let core = Arc::new(Core::new(id, settings, supervisor, queues));
        start("wasmpool-wakers", move || {
            become_io_thread();
            woken.iter().for_each(|wake| wake());
        })?;
        let callback_thread =
            start("wasmpool-callbacks", move || queue.iter().for_each(|callback| callback()))?;
        let supervisor = start("wasmpool-supervisor", {
            let core = core.clone();
            move || supervise::run(&core, &requests, &program)
        })?;
        if prestart > 0 {
            core.handle(Event::Prestart { workers: prestart });
        }
        Ok(Pool(Arc::new(OfProcess::new(Handle {
            core,
            cache,
            loads: Loads::new(),
            shares: Shares::default(),
            compile_slots: CompileSlots::new(compilers_max),
            supervisor: Mutex::new(Some(supervisor)),
            callback_thread: callback_thread.thread().id(),
        }))))
    }

    /// Refuses a process that cannot have a pool, and settings that cannot work.
    fn check(&self) -> Result<(), BuildError> {
        if Role::of_this_process().is_some() {
            return Err(BuildError::NestedInit);
        }
        if self.workers == 0 || self.workers > limits::WORKERS_MAX {
            return Err(BuildError::Workers { workers: self.workers, max: limits::WORKERS_MAX });
        }
        self.check_settings()?;
        if self.settings.sandbox.request.requests(SandboxLayer::Seccomp) && !syscalls::is_available() {
            return Err(BuildError::NoSeccomp);
        }
        if self.settings.workers.pagemap_scan
            && let Some(reason) = pagemap::objection()
        {
            return Err(BuildError::PagemapScan { reason });
        }
        Ok(())
    }

    fn open_cache(&self, files: &HostFiles) -> Result<Option<Cache>, BuildError> {
        let cache = match &self.cache {
            CacheChoice::Off => None,
            CacheChoice::Default => Cache::open_default(files, self.cache_bytes_max),
            CacheChoice::Dir(dir) => {
                Cache::open(dir, files, self.cache_bytes_max).map_err(|error: OpenError| {
                    BuildError::CacheDir { path: dir.clone(), source: error.into() }
                })?
            }
        };
        Ok(cache.inspect(Cache::tend))
    }
}

macro_rules! methods {
    ({$($name:ident($argument:ident: $type:ty);)*} $others:tt) => {
        /// Options of tasks that do not set their own. [`task_defaults`](Self::task_defaults) takes all options.
        impl PoolBuilder {
            $(
                #[doc = concat!(
                    "[`TaskOptions::", stringify!($name), "`] of tasks that do not say otherwise, with the same default."
                )]
                pub fn $name(mut self, $argument: $type) -> Self {
                    self.settings.tasks.defaults = self.settings.tasks.defaults.$name($argument);
                    self
                }
            )*
        }
    };
}

task_options!(methods);

/// Starts one of the pool's own threads.
fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BuildError> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map_err(|error| {
        let source = Shortage::explained(calling("start a thread")(error));
        BuildError::System { what: "start a thread of the pool's", source }
    })
}
