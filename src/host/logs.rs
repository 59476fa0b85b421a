//! Guests' records come out of the host's `tracing` subscriber, attributed and escaped.

use crate::foreign::guarded;
use crate::future::Labels;
use crate::limits::LOG_RECORD_BYTES_MAX;
use crate::task::TaskId;
use crate::text::{Escaped, truncated};
use crate::wire::message::{LogRecord, LogSource};

/// Emits one record, target `wasmpool::guest`, with the task's id, label, module and worker.
pub(super) fn emit(labels: Option<&Labels>, pid: u32, task: TaskId, record: &LogRecord) {
    let module = labels.map(|labels| labels.module.to_string()).unwrap_or_default();
    let label = labels.and_then(|labels| labels.label.clone()).unwrap_or_default();
    let message = truncated(&record.message, LOG_RECORD_BYTES_MAX);
    let (message, fields, origin) = (Escaped(&message), Escaped(&record.fields), Escaped(&record.target));
    let source = match record.source {
        LogSource::Guest => "log",
        LogSource::Stdout => "stdout",
        LogSource::Stderr => "stderr",
    };
    // The level of a tracing event is part of its static metadata, hence one call for each.
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(
                target: "wasmpool::guest",
                tracing::Level::$level,
                %task, label, module, worker_pid = pid, source, %origin, %fields, "{message}"
            )
        };
    }
    guarded(|| match record.level {
        0 | 1 => event!(ERROR),
        2 => event!(WARN),
        3 => event!(INFO),
        4 => event!(DEBUG),
        _ => event!(TRACE),
    });
}
