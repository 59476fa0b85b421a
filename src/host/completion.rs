//! Reads how a run ended, by the worker's word, and puts it into the caller's words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{ErrorData, TaskError};
use crate::module::TaskOutput;
use crate::report::{CommandOutput, PartialOutput, TaskReport};
use proto::guest::own_error::{OwnError, too_long};
use proto::limits::task::TaskLimits;
use proto::limits::{BACKTRACE_FRAMES_MAX, ERROR_CAUSES_MAX, GUEST_TEXT_BYTES_MAX, TABLE_ELEMENTS_MAX};
use proto::message::{Callee, Completion, Cost, Panicked, RunEnd, Trapped};
use proto::payload::Payload;
use proto::schema::{TypeSchema, words};
use proto::text::quoted;
use proto::trap::Frame;

/// A completion as the host has received it.
pub(crate) struct Received {
    pub(crate) completion: Completion,
    pub(crate) payload: Payload,
    /// The size of the frame that it came in.
    pub(crate) frame_bytes: u64,
}

impl Received {
    /// Returns what a command wrote, however it ended.
    pub(super) fn written(&self, callee: &Callee) -> Option<PartialOutput> {
        let Callee::Command { .. } = callee else { return None };
        let mut stdout = self.payload.to_bytes();
        let at = usize::try_from(self.completion.stdout_bytes).unwrap_or(usize::MAX);
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

/// Puts a completion into the caller's words. The payload was bounded when it was read. `error` is the type of the task's own
/// errors, where these are data.
pub(super) fn read(
    received: Received,
    callee: &Callee,
    limits: &TaskLimits,
    error: impl FnOnce() -> Option<Arc<TypeSchema>>,
) -> Result<TaskOutput, TaskError> {
    let written = received.written(callee).unwrap_or_default();
    let Received { completion: Completion { end, .. }, payload, .. } = received;
    // The text has room as JSON, with its escapes, in what a map is charged for the task.
    let text = |payload: Payload| quoted(&payload, GUEST_TEXT_BYTES_MAX);
    // The worker keeps this bound; one that lies is not believed to have kept it.
    let kept = |mut backtrace: Vec<Frame>| {
        backtrace.truncate(BACKTRACE_FRAMES_MAX);
        backtrace.shrink_to_fit();
        backtrace
    };
    Err(match end {
        RunEnd::Ok => return Ok(TaskOutput::Output(payload)),
        RunEnd::Exited { code } => {
            let PartialOutput { stdout, stderr } = match callee {
                Callee::Command { .. } => written,
                Callee::Task(_) => PartialOutput { stdout: Bytes::new(), stderr: payload.to_bytes() },
            };
            let output = CommandOutput { exit_code: code, stdout, stderr };
            // A task that exits has failed, since it has returned nothing.
            if code == 0 && matches!(callee, Callee::Command { .. }) {
                return Ok(TaskOutput::Command(output));
            }
            TaskError::Exit { output }
        }
        RunEnd::Guest => TaskError::Guest { message: text(payload), chain: Vec::new(), data: None },
        RunEnd::GuestParts => in_parts(error(), &payload),
        RunEnd::GuestData => match error() {
            Some(schema) => own_error(schema, &payload),
            None => TaskError::Abi { message: "its errors are not data".into() },
        },
        RunEnd::InputDecode => TaskError::InputDecode { message: text(payload) },
        RunEnd::InputTooLarge { bytes } => TaskError::InputTooLarge { bytes },
        RunEnd::Trap(trapped) => {
            let Trapped { code, message, backtrace } = *trapped;
            // Of a command all of it is kept besides.
            let stderr = match callee {
                Callee::Command { .. } => String::new(),
                Callee::Task(_) => text(payload),
            };
            TaskError::Trap { code, message, backtrace: kept(backtrace), stderr }
        }
        RunEnd::Panic(panicked) => {
            let Panicked { message, location, backtrace } = *panicked;
            TaskError::Panic { message, location, backtrace: kept(backtrace) }
        }
        // The scheduler never resolves an interrupt as an answer; a worker that claims one lies.
        RunEnd::Interrupted => TaskError::Abi { message: "interrupted without being asked to".into() },
        RunEnd::Memory { requested, backtrace } => {
            let limit = limits.memory_bytes_max;
            TaskError::Memory { limit, requested, backtrace: kept(backtrace) }
        }
        RunEnd::Fuel { backtrace } => {
            TaskError::Fuel { limit: limits.fuel.unwrap_or_default(), backtrace: kept(backtrace) }
        }
        RunEnd::Table { requested, backtrace } => {
            TaskError::Table { limit: TABLE_ELEMENTS_MAX as u64, requested, backtrace: kept(backtrace) }
        }
        RunEnd::OutputTooLarge { bytes } => {
            TaskError::OutputTooLarge { limit: limits.output_bytes_max, bytes }
        }
        RunEnd::LogsTooLarge { bytes } => TaskError::LogsTooLarge { limit: limits.log_bytes_max, bytes },
        RunEnd::BadPointer { pointer, len, memory_bytes } => {
            TaskError::BadPointer { pointer, len, memory_bytes }
        }
        RunEnd::Abi { message } => TaskError::Abi { message },
        RunEnd::Instantiate { message } => TaskError::Instantiate { message },
    })
}

/// Reads an error in parts. A worker sends it as its guest wrote it, so that it may be anything.
fn in_parts(schema: Option<Arc<TypeSchema>>, payload: &Payload) -> TaskError {
    let OwnError { message, chain, data } = match OwnError::read(payload) {
        Ok(error) => error,
        Err(message) => return TaskError::Abi { message },
    };
    let data = match (data, schema) {
        (&[], _) => None,
        (data, Some(schema)) if words(&schema, data, 0).is_some() => {
            Some(ErrorData::new(schema, data.to_vec()))
        }
        _ => return TaskError::Abi { message: "its error is not of the type that it should be".into() },
    };
    // The parts together are no longer than one text may be.
    let text = |text: &str| quoted(text.as_bytes(), GUEST_TEXT_BYTES_MAX);
    let chain = chain.into_iter().take(ERROR_CAUSES_MAX).map(text).collect();
    TaskError::Guest { message: text(message), chain, data }
}

/// Reads an error that is data. It comes from a worker, so that it may be anything.
fn own_error(schema: Arc<TypeSchema>, payload: &Payload) -> TaskError {
    let bytes = payload.to_vec();
    if bytes.len() > GUEST_TEXT_BYTES_MAX {
        return TaskError::Abi { message: too_long(bytes.len()) };
    }
    match words(&schema, &bytes, GUEST_TEXT_BYTES_MAX) {
        Some(message) => {
            TaskError::Guest { message, chain: Vec::new(), data: Some(ErrorData::new(schema, bytes)) }
        }
        None => TaskError::Abi { message: "its error is not of the type that it should be".into() },
    }
}
