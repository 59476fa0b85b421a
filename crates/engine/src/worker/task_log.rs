//! A task's log records, on their way to the host within the task's log limit.

use std::io::Write;
use std::sync::{Arc, Mutex};

use proto::frame::write_frame;
use proto::limits::LOG_RECORD_BYTES_MAX;
use proto::limits::task::TaskLimits;
use proto::message::{FromWorker, LogRecord, LogSource};
use proto::sync::Lock;
use proto::task::{LogOverflow, TaskId};
use proto::text::truncated;

/// Takes the records of the task at hand. It is cheap to clone: stdout, stderr and the log import share it,
/// and so do all tasks of a worker, one after the other.
#[derive(Clone)]
pub(super) struct TaskLog(Arc<Mutex<Inner>>);

struct Inner {
    task: TaskId,
    to_host: Option<Arc<Mutex<dyn Write + Send>>>,
    bytes_max: u64,
    overflow: LogOverflow,
    bytes: u64,
    dropped: u64,
    scratch: Vec<u8>,
}

/// The task has logged more than it may, and has to end for it.
#[derive(Debug, thiserror::Error)]
#[error("the logs are over their limit")]
pub(super) struct OverLimit;

impl TaskLog {
    /// Drops everything until a task begins.
    pub(super) fn new(to_host: Arc<Mutex<dyn Write + Send>>) -> TaskLog {
        TaskLog::to(Some(to_host))
    }

    /// Drops everything: for a store that never runs.
    pub(super) fn nowhere() -> TaskLog {
        TaskLog::to(None)
    }

    fn to(to_host: Option<Arc<Mutex<dyn Write + Send>>>) -> TaskLog {
        TaskLog(Arc::new(Mutex::new(Inner {
            task: TaskId(0),
            to_host,
            bytes_max: 0,
            overflow: LogOverflow::Drop,
            bytes: 0,
            dropped: 0,
            scratch: Vec::new(),
        })))
    }

    /// Counts the records that follow as this task's, and holds them to its limit.
    pub(super) fn begin(&self, task: TaskId, limits: &TaskLimits) {
        let mut inner = self.0.hold();
        inner.task = task;
        inner.bytes_max = limits.log_bytes_max;
        inner.overflow = limits.log_overflow;
        inner.bytes = 0;
        inner.dropped = 0;
    }

    /// Sends one record. Over the task's limit it is counted instead.
    ///
    /// # Errors
    /// [`OverLimit`], where that is the task's end.
    pub(super) fn record(
        &self,
        source: LogSource,
        level: u8,
        target: &str,
        message: &str,
        fields: &str,
    ) -> Result<(), OverLimit> {
        let mut inner = self.0.hold();
        let bytes = (target.len() + message.len() + fields.len()) as u64;
        let sent_bytes = bytes.min(LOG_RECORD_BYTES_MAX as u64) + 1;
        if inner.bytes.saturating_add(sent_bytes) > inner.bytes_max {
            inner.dropped += bytes;
            return if inner.overflow == LogOverflow::Fail { Err(OverLimit) } else { Ok(()) };
        }
        inner.bytes += sent_bytes;
        let record = LogRecord {
            source,
            level,
            target: truncated(target, LOG_RECORD_BYTES_MAX / 4),
            message: truncated(message, LOG_RECORD_BYTES_MAX / 2),
            fields: truncated(fields, LOG_RECORD_BYTES_MAX / 4),
        };
        let Inner { task, to_host, scratch, .. } = &mut *inner;
        if let Some(to_host) = to_host {
            let frame = FromWorker::Log { task: *task, record };
            let mut to_host = to_host.hold();
            // A broken ring ends the worker at the task's own answer.
            let _ = write_frame(&mut *to_host, scratch, &frame, &[]);
        }
        Ok(())
    }

    /// Returns what the task's records came to.
    pub(super) fn end(&self) -> Logged {
        let inner = self.0.hold();
        let is_fatal = inner.overflow == LogOverflow::Fail && inner.dropped > 0;
        let fatal_bytes = is_fatal.then(|| inner.bytes + inner.dropped);
        Logged { dropped: inner.dropped, fatal_bytes }
    }
}

/// A task's records at its end.
pub(super) struct Logged {
    /// Bytes over the limit.
    pub(super) dropped: u64,
    /// All bytes that the task logged, if it ended because of them.
    pub(super) fatal_bytes: Option<u64>,
}
