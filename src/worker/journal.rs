//! A task's log records, on their way to the host within the task's log limit.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{LOG_BYTES_PER_TASK_MAX, LOG_RECORD_BYTES_MAX};
use crate::task::TaskId;
use crate::text::truncated;
use crate::wire::frame::write_frame;
use crate::wire::message::{FromWorker, LogRecord, LogSource};

/// Where one task's records go. Cheap to clone: stdout, stderr and the log import share it.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    task: TaskId,
    to_host: Option<Arc<Mutex<dyn Write + Send>>>,
    bytes: usize,
    dropped: u64,
}

impl Journal {
    pub(super) fn new(task: TaskId, to_host: Arc<Mutex<dyn Write + Send>>) -> Journal {
        Journal(Arc::new(Mutex::new(Inner { task, to_host: Some(to_host), bytes: 0, dropped: 0 })))
    }

    /// Drops everything: for a store that never runs.
    pub(super) fn nowhere() -> Journal {
        Journal(Arc::new(Mutex::new(Inner { task: TaskId(0), to_host: None, bytes: 0, dropped: 0 })))
    }

    /// Sends one record. Over the task's limit it is counted instead.
    pub(super) fn record(&self, source: LogSource, level: u8, target: &str, message: &str, fields: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = target.len() + message.len() + fields.len();
        if inner.bytes.saturating_add(bytes.min(LOG_RECORD_BYTES_MAX)) > LOG_BYTES_PER_TASK_MAX {
            inner.dropped += bytes as u64;
            return;
        }
        inner.bytes += bytes.min(LOG_RECORD_BYTES_MAX) + 1;
        let record = LogRecord {
            source,
            level,
            target: truncated(target, LOG_RECORD_BYTES_MAX / 4),
            message: truncated(message, LOG_RECORD_BYTES_MAX / 2),
            fields: truncated(fields, LOG_RECORD_BYTES_MAX / 4),
        };
        if let Some(to_host) = &inner.to_host {
            let frame = FromWorker::Log { task: inner.task, record };
            // A broken ring ends the worker at the task's own answer.
            let _ = write_frame(&mut *to_host.lock().unwrap_or_else(PoisonError::into_inner), &frame, &[]);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }
}
