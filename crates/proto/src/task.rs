//! Both sides of the process boundary know this of a task: its id, the limits that its worker keeps, and the requests
//! for memory that it was refused. It holds vocabulary, and no behaviour.

mod refusals;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use refusals::{Refusal, RefusalKind, Refusals};

/// The number of a task, unique within its pool and never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, postcard_schema::Schema,
)]
pub struct TaskId(pub u64);

impl TaskId {
    /// The id as a number, as it appears in logs.
    #[inline]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Says what becomes of a task that logs more than `TaskOptions::log_bytes_max`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, postcard_schema::Schema,
)]
pub enum LogOverflow {
    /// It goes on; what is over the limit is dropped, and counted in its
    /// report.
    #[default]
    Drop,
    /// It fails with `TaskError::LogsTooLarge`.
    Fail,
}

/// The limits that the worker itself keeps, and what it surrounds the task with; the deadline stays
/// with the host.
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
