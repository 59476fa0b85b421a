//! A task's log records, on their way to the host within the task's log limit.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::LOG_RECORD_BYTES_MAX;
use crate::task::{LogOverflow, TaskId};
use crate::text::truncated;
use crate::wire::frame::write_frame;
use crate::wire::message::{FromWorker, LogRecord, LogSource};

/// Where one task's records go. Cheap to clone: stdout, stderr and the log import share it.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    task: TaskId,
    to_host: Option<Arc<Mutex<dyn Write + Send>>>,
    bytes_max: u64,
    overflow: LogOverflow,
    bytes: u64,
    dropped: u64,
}

/// The task has logged more than it may, and has to end for it.
#[derive(Debug, thiserror::Error)]
#[error("the logs are over their limit")]
pub(super) struct OverLimit;

impl Journal {
    pub(super) fn new(
        task: TaskId,
        bytes_max: u64,
        overflow: LogOverflow,
        to_host: Arc<Mutex<dyn Write + Send>>,
    ) -> Journal {
        let to_host = Some(to_host);
        Journal(Arc::new(Mutex::new(Inner { task, to_host, bytes_max, overflow, bytes: 0, dropped: 0 })))
    }

    /// Drops everything: for a store that never runs.
    pub(super) fn nowhere() -> Journal {
        let (overflow, to_host) = (LogOverflow::Drop, None);
        let inner = Inner { task: TaskId(0), to_host, bytes_max: 0, overflow, bytes: 0, dropped: 0 };
        Journal(Arc::new(Mutex::new(inner)))
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
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (target.len() + message.len() + fields.len()) as u64;
        let sent_bytes = bytes.min(LOG_RECORD_BYTES_MAX as u64) + 1;
        if inner.bytes.saturating_add(sent_bytes) > inner.bytes_max {
            inner.dropped += bytes;
            return match inner.overflow {
                LogOverflow::Drop => Ok(()),
                LogOverflow::Fail => Err(OverLimit),
            };
        }
        inner.bytes += sent_bytes;
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
        Ok(())
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }

    /// All bytes that the task logged, if they are the task's end.
    pub(super) fn fatal_bytes(&self) -> Option<u64> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fatal = inner.overflow == LogOverflow::Fail && inner.dropped > 0;
        is_fatal.then(|| inner.bytes + inner.dropped)
    }
}
