//! A pool's settings, as the effects and the decisions want them.

use std::time::Duration;

use super::cgroup::CgroupChoice;
use super::dirs::HostDir;
use crate::options::TaskOptions;
use crate::policy::{DropPolicy, OnWorkerDeath};
use crate::scheduler::{self, Config, OnDeath};
use files::HostFiles;
use proto::limits::compile::CompileLimits;
use proto::message::EventLevels;
use proto::policy::{SandboxLayer, SandboxRequest};

/// Holds what the pool was built with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) workers_min: usize,
    pub(crate) workers_max: usize,
    pub(crate) queue_tasks_max: usize,
    pub(crate) input_bytes_max: usize,
    pub(crate) map_bytes_max: Option<u64>,
    pub(crate) share_bytes_max: u64,
    pub(crate) shares_max: usize,
    pub(crate) modules_max: usize,
    pub(crate) on_drop: DropPolicy,
    pub(crate) grace: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) slow_after: Option<Duration>,
    pub(crate) log_bytes_per_second: u64,
    pub(crate) worker_events: EventLevels,
    pub(crate) compile_limits: CompileLimits,
    pub(crate) compile_threads: usize,
    pub(crate) compilers_max: usize,
    pub(crate) on_worker_death: OnWorkerDeath,
    pub(crate) recycle: scheduler::Recycling,
    pub(crate) prefetch_max: usize,
    pub(crate) modules_per_worker_max: usize,
    pub(crate) pagemap_scan: bool,
    /// The fingerprint of the machine code that children make and run.
    pub(crate) machine_code: u64,
    pub(crate) wasm_stack_bytes_max: usize,
    pub(crate) dirs: Vec<HostDir>,
    /// The host's own files, which are never read or written in the tasks' directories.
    pub(crate) files: HostFiles,
    pub(crate) defaults: TaskOptions,
    pub(crate) sandbox: SandboxRequest,
    pub(crate) cgroup: CgroupChoice,
    /// Says what the doctor found of the layers.
    pub(crate) verified: Vec<(SandboxLayer, bool)>,
}

impl Settings {
    /// Returns what the decisions are made by.
    pub(super) fn for_scheduler(&self) -> Config {
        Config {
            workers_min: self.workers_min,
            workers_max: self.workers_max,
            queue_tasks_max: self.queue_tasks_max,
            grace: self.grace,
            start_timeout: self.start_timeout,
            idle_timeout: self.idle_timeout,
            slow_after: self.slow_after,
            on_death: match self.on_worker_death {
                OnWorkerDeath::Break => OnDeath::Break,
                OnWorkerDeath::Replace(how) => OnDeath::Replace {
                    crashes_max: how.crashes_max,
                    backoff: how.backoff,
                    backoff_max: how.backoff_max,
                },
            },
            recycle: self.recycle,
            prefetch_max: self.prefetch_max,
        }
    }
}
