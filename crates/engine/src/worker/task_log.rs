//! A task's log records, on their way to the host within the task's log limit.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
pub(super) struct TaskLog(Arc<Shared>);

/// Most tasks log nothing. So a task's begin and end take no lock: all of this is written by the one thread that runs
/// tasks. The watcher only tells of stacks, and what it finds is that task's or none: see [`TaskLog::record_stack`].
struct Shared {
    /// The task at hand may log.
    is_open: AtomicBool,
    /// Threads that are telling of a stack.
    telling: AtomicUsize,
    task: AtomicU64,
    /// The number of tasks that have begun.
    begun: AtomicU64,
    bytes_max: AtomicU64,
    /// A task whose logs are over the limit fails.
    fails: AtomicBool,
    /// Bytes over the task's limit.
    dropped: AtomicU64,
    records: Mutex<Records>,
}

struct Records {
    to_host: Option<Arc<Mutex<dyn Write + Send>>>,
    /// The task of this number logged last, and so much.
    of: u64,
    bytes: u64,
    scratch: Vec<u8>,
}

impl Records {
    /// The task of this number logs: the bytes of another one are not its own.
    fn begin(&mut self, of: u64) {
        if self.of != of {
            (self.of, self.bytes) = (of, 0);
        }
    }
}

/// The level of a task's stack, among its records.
const WARN: u8 = 2;

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
        TaskLog(Arc::new(Shared {
            is_open: AtomicBool::new(false),
            telling: AtomicUsize::new(0),
            task: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            bytes_max: AtomicU64::new(0),
            fails: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            records: Mutex::new(Records { to_host, of: 0, bytes: 0, scratch: Vec::new() }),
        }))
    }

    /// Counts the records that follow as this task's, and holds them to its limit.
    pub(super) fn begin(&self, task: TaskId, limits: &TaskLimits) {
        let shared = &*self.0;
        shared.task.store(task.0, Ordering::Relaxed);
        shared.begun.store(shared.begun.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        shared.bytes_max.store(limits.log_bytes_max, Ordering::Relaxed);
        shared.fails.store(limits.log_overflow == LogOverflow::Fail, Ordering::Relaxed);
        shared.dropped.store(0, Ordering::Relaxed);
        shared.is_open.store(true, Ordering::Release);
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
        let shared = &*self.0;
        let mut records = shared.records.hold();
        records.begin(shared.begun.load(Ordering::Relaxed));
        let bytes = (target.len() + message.len() + fields.len()) as u64;
        let sent_bytes = bytes.min(LOG_RECORD_BYTES_MAX as u64) + 1;
        if records.bytes.saturating_add(sent_bytes) > shared.bytes_max.load(Ordering::Relaxed) {
            shared.dropped.store(shared.dropped.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
            return if shared.fails.load(Ordering::Relaxed) { Err(OverLimit) } else { Ok(()) };
        }
        records.bytes += sent_bytes;
        let record = LogRecord {
            source,
            level,
            target: truncated(target, LOG_RECORD_BYTES_MAX / 4),
            message: truncated(message, LOG_RECORD_BYTES_MAX / 2),
            fields: truncated(fields, LOG_RECORD_BYTES_MAX / 4),
        };
        let Records { to_host, scratch, .. } = &mut *records;
        if let Some(to_host) = to_host {
            let frame = FromWorker::Log { task: TaskId(shared.task.load(Ordering::Relaxed)), record };
            let mut to_host = to_host.hold();
            // A broken ring ends the worker at the task's own answer.
            let _ = write_frame(&mut *to_host, scratch, &frame, &[]);
        }
        Ok(())
    }

    /// Sends a stack of this task, unless the task has ended by now: the host hears of no task that it has the answer of.
    /// A task over its log limit loses the stack, since it has said enough.
    pub(super) fn record_stack(&self, task: TaskId, stack: &str) {
        let shared = &*self.0;
        // `end` waits for those that are counted, so a task that is at hand after that stays so.
        shared.telling.fetch_add(1, Ordering::SeqCst);
        if shared.is_open.load(Ordering::SeqCst) && shared.task.load(Ordering::SeqCst) == task.0 {
            let _ = self.record(LogSource::Stack, WARN, "", stack, "");
        }
        shared.telling.fetch_sub(1, Ordering::SeqCst);
    }

    /// Ends the task's records, and returns what they came to.
    pub(super) fn end(&self) -> Logged {
        let shared = &*self.0;
        shared.is_open.store(false, Ordering::SeqCst);
        while shared.telling.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped == 0 {
            return Logged { dropped, fatal_bytes: None };
        }
        let is_fatal = shared.fails.load(Ordering::Relaxed);
        let fatal_bytes = is_fatal.then(|| shared.records.hold().bytes + dropped);
        Logged { dropped, fatal_bytes }
    }
}

/// A task's records at its end.
pub(super) struct Logged {
    /// Bytes over the limit.
    pub(super) dropped: u64,
    /// All bytes that the task logged, if it ended because of them.
    pub(super) fatal_bytes: Option<u64>,
}
