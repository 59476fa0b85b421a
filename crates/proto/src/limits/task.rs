//! The limits of one task: each is a field of [`TaskLimits`] if its worker keeps it, and has its default here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FRAME_PAYLOAD_BYTES_MAX, LOG_RECORD_BYTES_MAX, WASI_CALL_BYTES_MAX};
use crate::task::LogOverflow;

/// The limits that the worker itself keeps, and what it surrounds the task with; the deadline stays
/// with the host. The value goes from the options of a task to its store as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct TaskLimits {
    pub memory_bytes_max: u64,
    pub output_bytes_max: u64,
    pub fuel: Option<u64>,
    pub clock_resolution: Duration,
    /// The seed of a deterministic task.
    pub seed: Option<u64>,
    pub log_bytes_max: u64,
    pub log_overflow: LogOverflow,
    /// Tasks that one instance may serve; 1 is an instance for each.
    pub instance_tasks_max: u32,
}

/// The limits of a task whose caller sets none.
impl Default for TaskLimits {
    fn default() -> Self {
        TaskLimits {
            memory_bytes_max: MEMORY_BYTES_MAX as u64,
            output_bytes_max: OUTPUT_BYTES_MAX as u64,
            fuel: None,
            clock_resolution: CLOCK_RESOLUTION,
            seed: None,
            log_bytes_max: LOG_BYTES_PER_TASK_MAX as u64,
            log_overflow: LogOverflow::Drop,
            instance_tasks_max: 1,
        }
    }
}

/// Default for `TaskOptions::timeout`: nothing of a stranger's runs for ever.
pub const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Default for `TaskOptions::memory_bytes_max`: all linear memories and tables of a task together.
pub const MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Default for `TaskOptions::output_bytes_max`.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Default for `TaskOptions::log_bytes_max`: log records, and lines of stdout and stderr.
pub const LOG_BYTES_PER_TASK_MAX: usize = 256 * 1024;

/// Default for `TaskOptions::instance_tasks_max`, under `Isolation::Reuse`.
pub const INSTANCE_TASKS_MAX: u32 = 10_000;

/// Default for `TaskOptions::clock_resolution`: as coarse as
/// browsers that had to make timing attacks harder. Firefox cuts its clocks to
/// [1 ms](https://developer.mozilla.org/en-US/docs/Web/API/Performance_API/High_precision_timing),
/// as Safari does. It makes such attacks slower, and excludes none.
pub const CLOCK_RESOLUTION: Duration = Duration::from_millis(1);

/// A coarser resolution counts as this one: the clock of the day still tells the day.
pub const CLOCK_RESOLUTION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const _: () = {
    assert!(OUTPUT_BYTES_MAX as u64 <= FRAME_PAYLOAD_BYTES_MAX);
    assert!(WASI_CALL_BYTES_MAX >= OUTPUT_BYTES_MAX);
    assert!(LOG_RECORD_BYTES_MAX <= LOG_BYTES_PER_TASK_MAX);
};
