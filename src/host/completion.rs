//! Reads a worker's answer to a task, and puts it into the caller's words.

use std::time::Duration;

use crate::error::TaskError;
use crate::module::Answer;
use crate::report::{CommandOutput, PartialOutput, TaskReport};
use proto::limits::{BACKTRACE_FRAMES_MAX, GUEST_TEXT_BYTES_MAX, TABLE_ELEMENTS_MAX};
use proto::message::{Cost, Entry, Verdict};
use proto::octets::Octets;
use proto::task::TaskLimits;
use proto::text::quoted;
use proto::trap::Frame;

/// A worker's answer: how a task ended, and what it cost.
pub(crate) struct Answered {
    pub(crate) verdict: Verdict,
    pub(crate) payload: Octets,
    pub(crate) cost: Cost,
    /// For a command, its stdout is this much of the payload; its stderr is the rest.
    pub(crate) stdout_bytes: u64,
    /// The size of the frame that the answer came in.
    pub(crate) frame_bytes: u64,
}

impl Answered {
    /// Returns what a command wrote, however it ended.
    pub(super) fn written(&self, entry: &Entry) -> Option<PartialOutput> {
        let Entry::Command { .. } = entry else { return None };
        let mut stdout = self.payload.to_bytes();
        let at = usize::try_from(self.stdout_bytes).unwrap_or(usize::MAX);
        let stderr = stdout.split_off(stdout.len().min(at));
        Some(PartialOutput { stdout, stderr })
    }
}

pub(super) fn add_cost(report: &mut TaskReport, cost: &Cost) {
    report.run = Duration::from_nanos(cost.run_ns);
    report.cpu = Some(Duration::from_nanos(cost.cpu_ns));
    report.peak_memory_bytes = Some(cost.peak_memory_bytes);
    report.fuel_used = cost.fuel_used;
    report.log_bytes_dropped = Some(cost.log_bytes_dropped);
    report.refusals = Some(cost.refusals.clone());
}

/// The worker's verdict, in the caller's words. The payload was bounded when it was read.
pub(super) fn read_verdict(
    answered: Answered,
    entry: &Entry,
    limits: &TaskLimits,
) -> Result<Answer, TaskError> {
    let written = answered.written(entry).unwrap_or_default();
    let Answered { verdict, payload, .. } = answered;
    // The text has room as JSON, with its escapes, in what a map is charged for the task.
    let text = |payload: Octets| quoted(&payload, GUEST_TEXT_BYTES_MAX);
    // The worker keeps this bound; one that lies is not believed to have kept it.
    let kept = |mut backtrace: Vec<Frame>| {
        backtrace.truncate(BACKTRACE_FRAMES_MAX);
        backtrace.shrink_to_fit();
        backtrace
    };
    Err(match verdict {
        Verdict::Ok => return Ok(Answer::Output(payload)),
        Verdict::Exited { code } => {
            let PartialOutput { stdout, stderr } = written;
            let output = CommandOutput { exit_code: code, stdout, stderr };
            // For a task, to exit is to fail: it has returned nothing.
            if code == 0 && matches!(entry, Entry::Command { .. }) {
                return Ok(Answer::Command(output));
            }
            TaskError::Exit { output }
        }
        Verdict::Guest => TaskError::Guest { message: text(payload) },
        Verdict::InputDecode => TaskError::InputDecode { message: text(payload) },
        Verdict::InputTooLarge { bytes } => TaskError::InputTooLarge { bytes },
        Verdict::Trap { code, message, backtrace } => {
            TaskError::Trap { code, message, backtrace: kept(backtrace) }
        }
        Verdict::Panic { message, location, backtrace } => {
            TaskError::Panic { message, location, backtrace: kept(backtrace) }
        }
        // Dispatch never resolves an interrupt as an answer; a worker that claims one lies.
        Verdict::Interrupted => TaskError::Abi { message: "interrupted without being asked to".into() },
        Verdict::Memory { requested, backtrace } => {
            let limit = limits.memory_bytes_max;
            TaskError::Memory { limit, requested, backtrace: kept(backtrace) }
        }
        Verdict::Fuel { backtrace } => {
            TaskError::Fuel { limit: limits.fuel.unwrap_or_default(), backtrace: kept(backtrace) }
        }
        Verdict::Table { requested, backtrace } => {
            TaskError::Table { limit: TABLE_ELEMENTS_MAX as u64, requested, backtrace: kept(backtrace) }
        }
        Verdict::OutputTooLarge { bytes } => {
            TaskError::OutputTooLarge { limit: limits.output_bytes_max, bytes }
        }
        Verdict::LogsTooLarge { bytes } => TaskError::LogsTooLarge { limit: limits.log_bytes_max, bytes },
        Verdict::BadPointer { pointer, len, memory_bytes } => {
            TaskError::BadPointer { pointer, len, memory_bytes }
        }
        Verdict::Abi { message } => TaskError::Abi { message },
        Verdict::Instantiate { message } => TaskError::Instantiate { message },
    })
}
