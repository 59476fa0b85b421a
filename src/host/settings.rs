//! A pool's settings, as the effects and the decisions want them.

use std::time::Duration;

use super::cgroup::CgroupChoice;
use super::dirs::HostDir;
use crate::options::TaskOptions;
use crate::policy::{DropPolicy, OnWorkerDeath};
use crate::scheduler::{Config, OnDeath, Recycling};
use files::HostFiles;
use proto::limits;
use proto::limits::compile::CompileLimits;
use proto::message::EventLevels;
use proto::policy::{SandboxLayer, SandboxRequest};

/// Holds what the pool was built with.
#[derive(Debug, Clone)]
pub(crate) struct PoolSettings {
    pub(crate) workers: WorkerSettings,
    pub(crate) tasks: TaskSettings,
    pub(crate) held: HeldSettings,
    pub(crate) compiler: CompilerSettings,
    pub(crate) logs: LogSettings,
    pub(crate) sandbox: SandboxSettings,
    pub(crate) on_drop: DropPolicy,
}

/// Says how many workers there are, how long each lives, and what it is given to do its work with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) grace: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) on_death: OnWorkerDeath,
    pub(crate) recycle: Recycling,
    pub(crate) prefetch_max: usize,
    /// So many tasks can be computed at a time.
    pub(crate) cpus: usize,
    pub(crate) modules_max: usize,
    pub(crate) pagemap_scan: bool,
    pub(crate) wasm_stack_bytes_max: usize,
    /// The fingerprint of the machine code that children make and run.
    pub(crate) machine_code: u64,
}

/// Says what the pool accepts of tasks, and the options of those that name none.
#[derive(Debug, Clone)]
pub(crate) struct TaskSettings {
    pub(crate) queued_max: usize,
    pub(crate) input_bytes_max: usize,
    pub(crate) map_bytes_max: Option<u64>,
    pub(crate) slow_after: Option<Duration>,
    pub(crate) defaults: TaskOptions,
}

/// Bounds what callers may have loaded and shared at a time.
#[derive(Debug, Clone)]
pub(crate) struct HeldSettings {
    pub(crate) modules_max: usize,
    pub(crate) shares_max: usize,
    pub(crate) share_bytes_max: u64,
}

/// Bounds what compiling may cost.
#[derive(Debug, Clone)]
pub(crate) struct CompilerSettings {
    pub(crate) limits: CompileLimits,
    /// The threads of one compiler.
    pub(crate) threads: usize,
    /// This many compilers may run at a time.
    pub(crate) processes_max: usize,
}

/// Says which records of the workers' are forwarded.
#[derive(Debug, Clone)]
pub(crate) struct LogSettings {
    pub(crate) bytes_per_second: u64,
    pub(crate) worker_events: EventLevels,
}

/// Says how children are locked down, and what tasks reach all the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct SandboxSettings {
    pub(crate) request: SandboxRequest,
    pub(crate) cgroup: CgroupChoice,
    pub(crate) dirs: Vec<HostDir>,
    /// The host's own files, which are never read or written in the tasks' directories.
    pub(crate) files: HostFiles,
    /// Says of each layer what the doctor found.
    pub(crate) verified: Vec<(SandboxLayer, bool)>,
}

/// The level of warnings, as [`EventLevels`] has it.
pub(crate) const WARN: u8 = 2;

impl PoolSettings {
    /// Returns what a pool has whose builder was told nothing, on a machine with so many CPUs.
    pub(crate) fn usual(cpus: usize) -> PoolSettings {
        PoolSettings {
            workers: WorkerSettings {
                min: 0,
                max: 0,
                grace: limits::GRACE,
                start_timeout: limits::START_TIMEOUT,
                idle_timeout: None,
                on_death: OnWorkerDeath::Break,
                recycle: Recycling::default(),
                prefetch_max: limits::PREFETCH_MAX,
                cpus,
                modules_max: limits::MODULES_PER_WORKER_MAX,
                pagemap_scan: false,
                wasm_stack_bytes_max: limits::WASM_STACK_BYTES_MAX,
                machine_code: 0,
            },
            tasks: TaskSettings {
                queued_max: limits::QUEUE_TASKS_MAX,
                input_bytes_max: limits::INPUT_BYTES_MAX,
                map_bytes_max: None,
                slow_after: None,
                defaults: TaskOptions::new(),
            },
            held: HeldSettings {
                modules_max: limits::MODULES_MAX,
                shares_max: limits::SHARES_MAX,
                share_bytes_max: limits::SHARE_BYTES_MAX,
            },
            compiler: CompilerSettings {
                limits: CompileLimits::new(),
                threads: cpus.min(4),
                processes_max: limits::COMPILERS_MAX,
            },
            logs: LogSettings {
                bytes_per_second: limits::LOG_BYTES_PER_SECOND_MAX,
                worker_events: EventLevels { own: WARN, engine: 0 },
            },
            sandbox: SandboxSettings::default(),
            on_drop: DropPolicy::default(),
        }
    }

    /// Returns what the decisions are made by.
    pub(super) fn for_scheduler(&self) -> Config {
        let workers = &self.workers;
        Config {
            workers_min: workers.min,
            workers_max: workers.max,
            queue_tasks_max: self.tasks.queued_max,
            grace: workers.grace,
            start_timeout: workers.start_timeout,
            idle_timeout: workers.idle_timeout,
            slow_after: self.tasks.slow_after,
            on_death: match workers.on_death {
                OnWorkerDeath::Break => OnDeath::Break,
                OnWorkerDeath::Replace(how) => OnDeath::Replace {
                    crashes_max: how.crashes_max,
                    backoff: how.backoff,
                    backoff_max: how.backoff_max,
                },
            },
            recycle: workers.recycle,
            prefetch_max: workers.prefetch_max,
            cpus: workers.cpus,
        }
    }
}
