//! Both sides of the process boundary know this of a task: its id, what becomes of one that logs too much, the
//! requests for memory that it was refused, and whether a message is about it; its limits are in `limits/task.rs`. It
//! holds vocabulary, and no behaviour.

mod refusals;

use std::fmt;

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

/// The thing that a worker's message on the ring is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The worker itself.
    Worker,
    /// The run at hand, which is named by its task; a batch is named by its first one.
    Run(TaskId),
    /// The task at hand; of a batch, the one whose turn it is.
    Task(TaskId),
}

/// Says what becomes of a task that logs more than `TaskOptions::log_bytes_max`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, postcard_schema::Schema,
)]
#[non_exhaustive]
pub enum LogOverflow {
    /// It goes on; what is over the limit is dropped, and counted in its
    /// report.
    #[default]
    Drop,
    /// It fails with `TaskError::LogsTooLarge`.
    Fail,
}
