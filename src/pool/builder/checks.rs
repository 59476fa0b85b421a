//! Refuses settings that cannot work.

use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::PoolBuilder;
use crate::error::BuildError;
use crate::host::settings::WARN;
use proto::limits;

impl PoolBuilder {
    /// Checks every number against its bounds.
    pub(super) fn check_settings(&self) -> Result<(), BuildError> {
        let settings = &self.settings;
        let outputs =
            settings.tasks.defaults.output_bytes_max.unwrap_or(limits::task::OUTPUT_BYTES_MAX) as u64;
        let half = limits::FRAME_PAYLOAD_BYTES_MAX / 2;
        let tasks_max = settings.workers.recycle.tasks_max.unwrap_or(1);
        let stack = settings.workers.wasm_stack_bytes_max as u64;
        let stack_max = limits::WASM_STACK_BYTES_AT_MOST as u64;
        let checks = [
            ("workers_min", settings.workers.min as u64, 0, self.workers as u64),
            ("prefetch_max", settings.workers.prefetch_max as u64, 0, limits::PREFETCH_MAX as u64),
            ("recycle_after_tasks", tasks_max, 1, u64::MAX),
            ("compile_threads", settings.compiler.threads as u64, 1, limits::COMPILE_THREADS_MAX as u64),
            ("compilers_max", settings.compiler.processes_max as u64, 1, limits::COMPILERS_AT_MOST as u64),
            ("queue_tasks_max", settings.tasks.queued_max as u64, 1, u64::MAX),
            ("input_bytes_max", settings.tasks.input_bytes_max as u64, 0, limits::FRAME_PAYLOAD_BYTES_MAX),
            ("log_rate_max", settings.logs.bytes_per_second, 1, u64::MAX),
            ("shares_max", settings.held.shares_max as u64, 0, limits::SHARES_AT_MOST as u64),
            ("modules_max", settings.held.modules_max as u64, 1, u64::MAX),
            ("output_bytes_max", outputs, 0, half),
            ("wasm_stack_bytes_max", stack, limits::WASM_STACK_BYTES_MIN as u64, stack_max),
            (
                "worker_memory_bytes_max",
                settings.sandbox.request.memory_bytes_max,
                limits::WORKER_MEMORY_BYTES_MIN,
                u64::MAX,
            ),
        ];
        // Neither id makes the worker somebody else: 0 is root, and at −1 the kernel leaves an id as it is.
        let (uid, gid) = settings.sandbox.request.identity;
        let identity = [uid, gid].map(|id| ("worker_identity", id.into(), 1, u64::from(u32::MAX) - 1));
        for (setting, value, min, max) in checks.into_iter().chain(identity) {
            if value < min || value > max {
                return Err(BuildError::Setting { setting, value, must: format!("{min} to {max}") });
            }
        }
        let hard = stack_hard_limit();
        let room = hard.saturating_sub(limits::HOST_STACK_BYTES as u64);
        if stack > room {
            let wanted = (stack + limits::HOST_STACK_BYTES as u64).div_ceil(1024);
            let lower = match room >= limits::WASM_STACK_BYTES_MIN as u64 {
                true => format!("at most {room}"),
                false => "less than any that can be set".into(),
            };
            let must = format!(
                "{lower}, since the hard limit of the stack is {hard} (RLIMIT_STACK) and 1 MiB of it is the \
                 worker's own; nobody but root raises a hard limit: to keep the setting, start this program where \
                 `ulimit -Hs` is {wanted} or more"
            );
            return Err(BuildError::Setting { setting: "wasm_stack_bytes_max", value: stack, must });
        }
        Ok(())
    }
}

/// Returns the hard limit of the stack, which workers inherit.
fn stack_hard_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Stack).maximum.unwrap_or(u64::MAX)
}

/// Returns how many modules a worker may have met before it is replaced, and how many tasks may wait in it,
/// if it may open this many descriptors: each waiting task may bring a module, which takes three until it is
/// mapped.
pub(super) fn within_descriptors(descriptors: u64) -> (usize, usize) {
    let descriptors = descriptors.min(limits::WORKER_DESCRIPTORS_MAX) as usize;
    let room = descriptors.saturating_sub(limits::WORKER_DESCRIPTORS_OWN);
    let offers = room * limits::PREFETCH_MAX
        / (limits::WORKER_DESCRIPTORS_MAX as usize - limits::WORKER_DESCRIPTORS_OWN);
    // One that may have a single module would be replaced after each task, since it has that one then.
    (room.saturating_sub(3 * offers).clamp(2, limits::MODULES_PER_WORKER_MAX), offers)
}

/// Returns a level as `EventLevels` has it.
pub(super) fn level_number(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => WARN,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}
