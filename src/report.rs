//! The report of a task, and the output of a command.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::serial;
use proto::task::Refusals;

/// The cost of a task. Each number was measured, or it is `None`: a worker that died or was killed has not said what
/// its task had cost. Times that a task never reached are zero.
///
/// It is serialised with durations as whole microseconds, in fields whose names end in `_us`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct TaskReport {
    /// The time from `submit` until a worker is handed the task.
    #[serde(rename = "queued_us", serialize_with = "serial::micros")]
    pub queued: Duration,
    /// The time from the worker's first step for this task (instantiation) to its last, by the worker's word. If its
    /// worker died or was killed, it is the time from when it was handed to a worker to that end, as the pool measured
    /// it; for a task that travelled with others, from when they were all handed over.
    #[serde(rename = "run_us", serialize_with = "serial::micros")]
    pub run: Duration,
    /// The time from `submit` to the future's completion.
    #[serde(rename = "total_us", serialize_with = "serial::micros")]
    pub total: Duration,
    /// CPU time of the worker's main thread during `run`. It is not measured for a task that ran for less
    /// than 50 µs, but taken to be all of `run`. With [`TaskOptions::cpu_time`](crate::TaskOptions::cpu_time) it is what the pool has
    /// measured for the whole process, even if the task did not come to its end.
    ///
    /// If the task's worker died or was killed, it is the time that the process has computed since the scheduler, by its
    /// clock. It is `None` where that clock was not read: if the task travelled with others, or the pool's tasks mostly
    /// take less than 50 µs ([`CPU_MEASURED_FROM`](proto::limits::CPU_MEASURED_FROM)); and for a task that never began.
    #[serde(rename = "cpu_us", serialize_with = "serial::micros_if_any")]
    pub cpu: Option<Duration>,
    /// Most bytes that the task's memories and tables held together. `None` if there is no word of it: the task never
    /// began, or its worker died or was killed.
    pub peak_memory_bytes: Option<u64>,
    /// Fuel used, where the module is metered.
    pub fuel_used: Option<u64>,
    /// How often the task began: 0 if it never did, more than 1 if it was [retried](crate::task::Retry).
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
    pub fn refused(&self) -> Option<&Refusals> {
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

/// The output that a WASI command had written when it failed, each stream up to
/// [`output_bytes_max`](crate::TaskOptions::output_bytes_max).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PartialOutput {
    /// The bytes that it wrote to stdout.
    pub stdout: Bytes,
    /// The bytes that it wrote to stderr.
    pub stderr: Bytes,
}

/// The output that a WASI command that exited with code 0 left behind. Another exit code is
/// [`TaskError::Exit`](crate::TaskError::Exit), which carries the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The exit code: the bits that the program gave to `proc_exit`. WASI's codes have no sign, so that one over 31 bits is
    /// negative here, and shown as what it is in messages and JSON.
    pub exit_code: i32,
    /// Everything the command wrote to stdout.
    pub stdout: Bytes,
    /// Everything the command wrote to stderr.
    pub stderr: Bytes,
}
