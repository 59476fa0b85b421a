//! Guests' records, and workers' own, come out of the host's `tracing` subscriber, attributed and escaped; at
//! a bounded rate, and the last of them stay at hand for the worker's death.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::future::{Cell, Labels};
use crate::panic_guard::catch_panic;
use proto::limits::{LAST_LOG_BYTES_MAX, LAST_LOGS_MAX, LOG_RECORD_BYTES_MAX};
use proto::message::{LogRecord, LogSource};
use proto::task::TaskId;
use proto::text::{Escaped, Name, Words, truncated};

/// The least time between two reports of what was dropped.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// This many dropped records in a row are a flood. Reading one takes a processor that others need, so its
/// reader looks away for a moment, and the task that floods waits for room.
const FLOOD_RECORDS: u32 = 2048;
pub(super) const FLOOD_PAUSE: Duration = Duration::from_millis(8);

/// Each record counts for this much besides its text, since many empty ones take as long to emit.
const RECORD_BYTES: u64 = 32;

/// Holds what one worker and its tasks log.
pub(super) struct LogForwarder {
    pid: u32,
    bytes_per_second: u64,
    /// Bytes that may be emitted now; at most what a second brings.
    allowance: u64,
    refilled: Instant,
    dropped: Dropped,
    /// The records that were dropped since the reader last looked away.
    dropped_in_a_row: u32,
    reported: Option<Instant>,
    /// The last of all records, the dropped among them.
    last: VecDeque<String>,
}

/// The records and bytes over the rate since the last report.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl LogForwarder {
    pub(super) fn new(pid: u32, bytes_per_second: u64) -> Self {
        LogForwarder {
            pid,
            bytes_per_second,
            allowance: bytes_per_second,
            refilled: Instant::now(),
            dropped: Dropped::default(),
            dropped_in_a_row: 0,
            reported: None,
            last: VecDeque::new(),
        }
    }

    /// Emits the record, unless there were too many; `false` if it was dropped.
    pub(super) fn take(
        &mut self,
        cell: impl FnOnce() -> Option<Arc<Cell>>,
        task: Option<TaskId>,
        record: &LogRecord,
    ) -> bool {
        if record.source != LogSource::Stack {
            self.keep(task, record);
        }
        let bytes = bytes(record);
        let is_allowed = self.allows(bytes + RECORD_BYTES, Instant::now());
        if is_allowed {
            emit(cell().as_ref().map(|cell| cell.labels()), self.pid, task, record);
        } else {
            self.dropped.records += 1;
            self.dropped.bytes += bytes;
            self.dropped_in_a_row += 1;
        }
        is_allowed
    }

    /// The reader begins to read again.
    pub(super) fn resume(&mut self) {
        self.dropped_in_a_row = 0;
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.dropped_in_a_row >= FLOOD_RECORDS
    }

    /// Says what was dropped, once a second; and returns what it has said.
    pub(super) fn report(&mut self) -> Option<Dropped> {
        let is_due = || self.reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL);
        if self.dropped.records > 0 && is_due() { Some(self.report_now()) } else { None }
    }

    /// The last records. It reports what was dropped and is not reported yet.
    pub(super) fn close(mut self) -> (Vec<String>, Option<Dropped>) {
        let dropped = (self.dropped.records > 0).then(|| self.report_now());
        (self.last.into(), dropped)
    }

    fn report_now(&mut self) -> Dropped {
        let dropped = std::mem::take(&mut self.dropped);
        let Dropped { records, bytes } = dropped;
        self.reported = Some(Instant::now());
        let worker_pid = self.pid;
        let rate = self.bytes_per_second;
        catch_panic(|| {
            tracing::warn!(
                worker_pid,
                dropped_records = records,
                dropped_bytes = bytes,
                "log records were dropped: a worker's tasks log more than {rate} bytes a second"
            );
        });
        dropped
    }

    fn allows(&mut self, bytes: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_nanos();
        let refill = passed.saturating_mul(self.bytes_per_second.into()) / 1_000_000_000;
        if refill > 0 {
            self.refilled = now;
            let refill = u64::try_from(refill).unwrap_or(u64::MAX);
            self.allowance = self.allowance.saturating_add(refill).min(self.bytes_per_second);
        }
        let is_allowed = bytes <= self.allowance;
        if is_allowed {
            self.allowance -= bytes;
        }
        is_allowed
    }

    fn keep(&mut self, task: Option<TaskId>, record: &LogRecord) {
        if self.last.len() == LAST_LOGS_MAX {
            self.last.pop_front();
        }
        let message = truncated(&record.message, LAST_LOG_BYTES_MAX);
        let task = task.map(|task| format!("task {task}, ")).unwrap_or_default();
        self.last.push_back(format!("{task}{}: {}", source(record), Words(message)));
    }
}

fn bytes(record: &LogRecord) -> u64 {
    (record.target.len() + record.message.len() + record.fields.len()) as u64
}

fn source(record: &LogRecord) -> &'static str {
    match record.source {
        LogSource::Guest => "log",
        LogSource::Stdout => "stdout",
        LogSource::Stderr => "stderr",
        LogSource::Stack => "stack",
        LogSource::Worker => "worker",
    }
}

/// Emits one record, with the worker, and of a task its id, label and module. The target is `wasmpool::guest`, of
/// a stack `wasmpool::stack`, of the worker's own words `wasmpool::worker`.
fn emit(labels: Option<&Labels>, pid: u32, task: Option<TaskId>, record: &LogRecord) {
    let module = labels.map(|labels| labels.module.to_string()).unwrap_or_default();
    let label = labels.and_then(|labels| labels.label.clone()).unwrap_or_default();
    let message = truncated(&record.message, LOG_RECORD_BYTES_MAX);
    let fields = Name(&record.fields);
    let origin = Name(&record.target);
    let message = match record.source {
        // A stack is parsed line by line later, so its lines must stay as they are.
        LogSource::Stack => Escaped(&message).to_string(),
        _ => Words(&message).to_string(),
    };
    let source = source(record);
    // The level of a tracing event is part of its static metadata, hence one call for each.
    macro_rules! event {
        ($level:ident) => {
            match record.source {
                LogSource::Worker => event!("wasmpool::worker", $level),
                _ => event!("wasmpool::guest", $level),
            }
        };
        ($target:literal, $level:ident) => {
            tracing::event!(
                target: $target,
                tracing::Level::$level,
                task = task.map(tracing::field::display), label, module, worker_pid = pid, source, %origin, %fields, "{message}"
            )
        };
    }
    catch_panic(|| match record.level {
        _ if record.source == LogSource::Stack => event!("wasmpool::stack", WARN),
        0 | 1 => event!(ERROR),
        2 => event!(WARN),
        3 => event!(INFO),
        4 => event!(DEBUG),
        _ => event!(TRACE),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str) -> LogRecord {
        LogRecord {
            source: LogSource::Stderr,
            level: 3,
            target: String::new(),
            message: message.into(),
            fields: String::new(),
        }
    }

    #[test]
    fn a_second_brings_what_a_second_may_log_and_no_more_is_saved_up() {
        let mut logs = LogForwarder::new(1, 100);
        let began = logs.refilled;
        let at = Duration::from_millis;
        assert!(logs.allows(60, began) && logs.allows(40, began) && !logs.allows(1, began));
        assert!(!logs.allows(51, began + at(500)) && logs.allows(50, began + at(500)));
        assert!(!logs.allows(101, began + at(60_000)) && logs.allows(100, began + at(60_000)));
    }

    #[test]
    fn what_is_dropped_is_counted_and_the_last_records_are_kept_all_the_same() {
        // The rate is enough for one record: its text, and what a record counts beside it.
        let mut logs = LogForwarder::new(1, 10 + RECORD_BYTES);
        let taken: Vec<_> = (0..40)
            .map(|n| logs.take(|| None, Some(TaskId(7)), &record(&format!("line {n}\u{1b}"))))
            .collect();
        assert_eq!((taken[0], taken[39]), (true, false));
        let (last, dropped) = logs.close();
        let dropped = dropped.expect("there was no report");
        // The lines have 7 bytes each up to line 9, and then 8; the first is taken, and one more in the course of
        // time.
        assert!(dropped.records >= 38 && dropped.bytes >= 9 * 7 + 29 * 8);
        assert_eq!(last.len(), LAST_LOGS_MAX);
        assert_eq!(last[LAST_LOGS_MAX - 1], "task 7, stderr: line 39\\u{1b}");
    }
}
