//! The words for what can be seen of a pool from outside: its numbers, and what happens in it. There is
//! no behaviour.
//!
//! Everything here can be serialised: names in snake case, durations as whole microseconds in fields whose names
//! end in `_us`, a task by its number.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::Death;
use crate::report::TaskReport;
use crate::serial;
use proto::policy::SandboxReport;
use proto::shortage::Shortage;
use proto::task::TaskId;

/// A pool's numbers at one moment: [`Pool::stats`](crate::Pool::stats).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Workers that are kept without work.
    pub workers_min: usize,
    /// Most workers.
    pub workers_max: usize,
    /// Tasks that have not begun.
    pub pending: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks accepted since the pool began.
    pub submitted: u64,
    /// Tasks that ended, by how they did.
    pub ended: TaskCounts,
    /// Attempts that were followed by another.
    pub retries: u64,
    /// Worker processes started since the pool began.
    pub workers_started: u64,
    /// Worker processes that died unexpectedly.
    pub workers_died: u64,
    /// Worker processes that were recycled.
    pub workers_recycled: u64,
    /// Modules that are held: see [`Module`](crate::Module).
    pub modules: usize,
    /// Log records that went over [`PoolBuilder::log_rate_max`](crate::PoolBuilder::log_rate_max).
    pub log_records_dropped: u64,
    /// The worker processes that live now, by pid.
    pub workers: Vec<WorkerStats>,
}

/// Tasks that ended, by how they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct TaskCounts {
    /// They ended with an output; whether the caller's type can decode it shows when it is read.
    pub succeeded: u64,
    /// They ended with a failure of the task's own, or at one of its limits.
    pub failed: u64,
    /// They ended at their deadline.
    pub timed_out: u64,
    /// They were cancelled before they began.
    pub cancelled: u64,
    /// They were stopped by [`abort`](crate::TaskFuture::abort).
    pub aborted: u64,
    /// They were lost with their worker or the pool, or never begun because there was no worker.
    pub lost: u64,
}

impl TaskCounts {
    /// Counts the ends of so many tasks.
    pub(crate) fn add(&mut self, how: TaskOutcome, tasks: u64) {
        let counter = match how {
            TaskOutcome::Succeeded => &mut self.succeeded,
            TaskOutcome::Failed => &mut self.failed,
            TaskOutcome::TimedOut => &mut self.timed_out,
            TaskOutcome::Cancelled => &mut self.cancelled,
            TaskOutcome::Aborted => &mut self.aborted,
            TaskOutcome::Lost => &mut self.lost,
        };
        *counter += tasks;
    }
}

/// One worker process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its process id.
    pub pid: u32,
    /// Its present state.
    pub state: WorkerState,
    /// The [domain](crate::TaskOptions::domain) that it belongs to; none before its first task, and
    /// of workers whose tasks have none.
    #[serde(serialize_with = "serial::arc_if_any")]
    pub domain: Option<Arc<str>>,
    /// The task that it runs, and for how long.
    #[serde(rename = "task_us", serialize_with = "serial::task_micros")]
    pub task: Option<(TaskId, Duration)>,
    /// Tasks that it has answered; what it ran of a map's batch at a time counts as one.
    pub answered: u64,
    /// [Shared inputs](crate::Pool::share) that it has been sent, and that are still there.
    pub shared: usize,
    /// Modules that it was sent and that are still held.
    pub modules: usize,
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerState {
    /// It has not said its first word.
    #[default]
    Starting,
    /// It waits for a task.
    Idle,
    /// It runs one.
    Busy,
    /// It was asked to leave, or killed.
    Leaving,
}

impl WorkerState {
    /// Returns its name as the command's tables and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Leaving => "leaving",
        }
    }
}

/// Something that happened in a pool: see [`Pool::events`](crate::Pool::events).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolEvent {
    /// The time at which it happened, counted from the pool's beginning.
    #[serde(rename = "at_us", serialize_with = "serial::micros")]
    pub at: Duration,
    /// The kind of what happened, with its details.
    pub kind: EventKind,
}

impl PoolEvent {
    /// An event, for tests of who reads them.
    #[doc(hidden)]
    pub fn new(at: Duration, kind: EventKind) -> PoolEvent {
        PoolEvent { at, kind }
    }
}

/// The things that can happen in a pool.
/// It is serialised as an object whose field `event` is its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A module was loaded for the first time.
    ModuleLoaded {
        /// Its name and the start of its digest.
        #[serde(serialize_with = "serial::arc")]
        module: Arc<str>,
        /// Whether its machine code came from the cache.
        from_cache: bool,
    },
    /// A worker process was started.
    WorkerStarted {
        /// Its process.
        pid: u32,
    },
    /// It waits for tasks.
    WorkerReady {
        /// Its process.
        pid: u32,
        /// The report of how it has locked itself down.
        #[serde(serialize_with = "serial::arc")]
        sandbox: Arc<SandboxReport>,
    },
    /// More workers are wanted than can be had, because something is short: the pool goes on with those it
    /// has, and tries again. This is reported once for each shortage, and at most once in
    /// [`SHORTAGE_TOLD_EVERY`](proto::limits::SHORTAGE_TOLD_EVERY).
    WorkersShort {
        /// The number of workers that there are.
        workers: usize,
        /// The thing that is short.
        shortage: Shortage,
    },
    /// It is handed its first task, and from here on only tasks of the same
    /// [domain](crate::TaskOptions::domain). Not told of workers whose tasks have none.
    WorkerBound {
        /// Its process.
        pid: u32,
        /// The domain.
        #[serde(serialize_with = "serial::arc")]
        domain: Arc<str>,
    },
    /// It was asked to leave.
    WorkerLeaving {
        /// Its process.
        pid: u32,
        /// The reason.
        reason: LeaveReason,
    },
    /// It is gone.
    WorkerEnded {
        /// The way in which it ended; the cause of an expected end says how the process went, not why.
        death: Death,
        /// Whether the pool itself ended it.
        expected: bool,
    },
    /// A task was accepted.
    TaskQueued {
        /// The task.
        task: TaskId,
        /// Its name.
        #[serde(serialize_with = "serial::arc")]
        name: Arc<str>,
        /// Its module.
        #[serde(serialize_with = "serial::arc")]
        module: Arc<str>,
        /// The caller's label.
        label: Option<String>,
    },
    /// A worker has begun a task.
    TaskStarted {
        /// The task.
        task: TaskId,
        /// The worker.
        pid: u32,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// A task runs for longer than [`PoolBuilder::slow_after`](crate::PoolBuilder::slow_after).
    TaskSlow {
        /// The task.
        task: TaskId,
        /// The worker.
        pid: u32,
    },
    /// An attempt failed, and another will follow.
    TaskRetried {
        /// The task.
        task: TaskId,
        /// The outcome of the attempt.
        outcome: TaskOutcome,
    },
    /// A task is done.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// Its outcome.
        outcome: TaskOutcome,
        /// Its cost.
        report: TaskReport,
    },
    /// Log records went over [`PoolBuilder::log_rate_max`](crate::PoolBuilder::log_rate_max). Told at most
    /// once a second of each worker, and at its end: what was dropped since.
    LogsDropped {
        /// The worker that sent them.
        pid: u32,
        /// The number of these records.
        records: u64,
        /// The bytes of these records together.
        bytes: u64,
    },
    /// A worker's death has broken the pool.
    Broken {
        /// The death that broke it.
        death: Death,
    },
    /// Every process is gone; nothing follows.
    Stopped,
}

/// The reason why the pool asks a worker to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaveReason {
    /// It was idle for the pool's idle timeout.
    Idle,
    /// The pool was made smaller.
    Resized,
    /// It has run enough tasks, is old or large enough, or holds
    /// [`MODULES_PER_WORKER_MAX`](proto::limits::MODULES_PER_WORKER_MAX) modules.
    Recycled,
    /// A task of another [domain](crate::TaskOptions::domain) needs its place.
    Domain,
    /// The pool ends.
    PoolEnds,
}

/// The outcome of a task, or of one attempt of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskOutcome {
    /// It ended with an output.
    Succeeded,
    /// It ended with a failure of the task's own, or at one of its limits.
    Failed,
    /// It ended at its deadline.
    TimedOut,
    /// It was cancelled before it began.
    Cancelled,
    /// It was stopped by [`abort`](crate::TaskFuture::abort).
    Aborted,
    /// It was lost with its worker or the pool, or never began because there was no worker.
    Lost,
}
