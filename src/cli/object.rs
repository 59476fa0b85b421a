//! The JSON objects of `--json` and of `map`: what happened to a task, and what it cost.

use serde_json::{Value, json};

use super::exit::Failure;
use super::json;
use crate::{CommandOutput, Frame, ModuleError, PartialOutput, Refusal, RefusalKind, TaskError, TaskReport};

/// An object on one line. Parts that are JSON already are taken over as they are.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Object("{".into())
    }

    pub(super) fn field(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.key(key);
        json::push_value(&mut self.0, &value.into());
        self
    }

    pub(super) fn field_if_some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.field(key, value),
            None => self,
        }
    }

    pub(super) fn raw(mut self, key: &str, json: &str) -> Self {
        self.key(key);
        self.0.push_str(json);
        self
    }

    pub(super) fn bytes(mut self, key: &str, bytes: &[u8]) -> Self {
        self.key(key);
        json::push_bytes(&mut self.0, bytes);
        self
    }

    pub(super) fn command_output(self, output: &CommandOutput) -> Self {
        self.field("exit_code", output.exit_code)
            .bytes("stdout", &output.stdout)
            .bytes("stderr", &output.stderr)
    }

    /// Adds what a command had written before it failed.
    pub(super) fn partial_output(self, failure: &Failure) -> Self {
        let Failure::Task(failure) = failure else { return self };
        match failure.output() {
            Some(PartialOutput { stdout, stderr, .. }) => {
                self.bytes("stdout", stdout).bytes("stderr", stderr)
            }
            None => self,
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        json::push_string(&mut self.0, key);
        self.0.push(':');
    }
}

/// `{"kind": …, "message": …}` and what else is known of this kind of failure.
pub(super) fn error(failure: &Failure) -> String {
    let object = Object::new().field("kind", failure.kind());
    match failure {
        Failure::Task(failure) => {
            let error = failure.error();
            details(object.field("message", without_backtrace(error).to_string()), error)
        }
        Failure::Module(error) => of_module(object.field("message", error.to_string()), error),
        Failure::Load { file, error } => {
            let object = object.field("message", error.to_string());
            of_module(object.field("file", file.to_string_lossy().into_owned()), error)
        }
        other => object.field("message", other.to_string()),
    }
    .finish()
}

fn of_module(object: Object, error: &ModuleError) -> Object {
    match error {
        ModuleError::CompileLimit { kind, limit, seen, function, offset, .. } => object
            .field("compile_limit", kind.to_string())
            .field("limit", *limit)
            .field("seen", *seen)
            .field_if_some("function", *function)
            .field_if_some("offset", *offset),
        ModuleError::CompileLimitUnavailable { kind, asked, most, .. } => {
            object.field("compile_limit", kind.to_string()).field("asked", *asked).field("most", *most)
        }
        ModuleError::UnknownTask { known, .. } => object.field("tasks", known.clone()),
        ModuleError::UnknownImports { imports } => object.field("imports", imports.clone()),
        _ => object,
    }
}

/// Limits, places and codes: what a program would otherwise have to take out of the message.
fn details(object: Object, error: &TaskError) -> Object {
    match error {
        TaskError::Trap { code, backtrace, .. } => {
            object.field("trap", code.to_string()).field("backtrace", frames(backtrace))
        }
        TaskError::Panic { location, backtrace, .. } => {
            object.field("location", location.as_str()).field("backtrace", frames(backtrace))
        }
        TaskError::Timeout { limit, killed } | TaskError::CpuTime { limit, killed } => {
            object.field("limit_us", micros(*limit)).field("worker_killed", *killed)
        }
        TaskError::Memory { limit, requested, backtrace } => object
            .field("limit_bytes", *limit)
            .field("requested_bytes", *requested)
            .field("backtrace", frames(backtrace)),
        TaskError::Table { limit, requested, backtrace } => object
            .field("limit_entries", *limit)
            .field("requested_entries", *requested)
            .field("backtrace", frames(backtrace)),
        TaskError::Fuel { limit, backtrace } => {
            object.field("limit", *limit).field("backtrace", frames(backtrace))
        }
        TaskError::OutputTooLarge { limit, bytes } | TaskError::LogsTooLarge { limit, bytes } => {
            object.field("limit_bytes", *limit).field("bytes", *bytes)
        }
        TaskError::InputTooLarge { bytes } => object.field("bytes", *bytes),
        TaskError::Broken(broken) => object
            .field("worker_pid", broken.pid())
            .field_if_some("signal", broken.signal())
            .field_if_some("worker_exit_code", broken.exit_code()),
        TaskError::WorkerDied(death) => object.field("worker_pid", death.pid),
        TaskError::NoWorker(shortage) => object.field_if_some("limit", shortage.limit),
        TaskError::Exit { output } => object.field("exit_code", output.exit_code),
        TaskError::Guest { .. }
        | TaskError::InputDecode { .. }
        | TaskError::OutputDecode { .. }
        | TaskError::BadPointer { .. }
        | TaskError::Abi { .. }
        | TaskError::Instantiate { .. }
        | TaskError::Aborted { .. }
        | TaskError::Cancelled
        | TaskError::OtherProcess => object,
    }
}

/// The error's message alone: in JSON its backtrace has a place of its own.
fn without_backtrace(error: &TaskError) -> TaskError {
    let mut error = error.clone();
    if let TaskError::Trap { backtrace, .. }
    | TaskError::Panic { backtrace, .. }
    | TaskError::Memory { backtrace, .. }
    | TaskError::Table { backtrace, .. }
    | TaskError::Fuel { backtrace, .. } = &mut error
    {
        backtrace.clear();
    }
    error
}

fn frames(backtrace: &[Frame]) -> Value {
    backtrace
        .iter()
        .map(|frame| {
            json!({
                "function": frame.function,
                "function_index": frame.function_index,
                "module_offset": frame.module_offset,
            })
        })
        .collect()
}

/// Returns what a task cost, with times in microseconds.
pub(super) fn report(report: &TaskReport) -> String {
    Object::new()
        .field("queued_us", micros(report.queued))
        .field("run_us", micros(report.run))
        .field("total_us", micros(report.total))
        .field("cpu_us", micros(report.cpu))
        .field("peak_memory_bytes", report.peak_memory_bytes)
        .field("fuel_used", report.fuel_used)
        .field("attempts", report.attempts)
        .field("worker_pid", report.worker_pid)
        .field("log_bytes_dropped", report.log_bytes_dropped)
        .field("input_bytes", report.input_bytes)
        .field("output_bytes", report.output_bytes)
        .field("refusals", refusals(report))
        .finish()
}

/// Lists the memory that the task asked for and did not get; `null` means that it got all.
fn refusals(report: &TaskReport) -> Value {
    let one = |refusal: &Refusal| {
        let kind = match refusal.kind {
            RefusalKind::Memory => "memory",
            RefusalKind::Table => "table",
            RefusalKind::System => "system",
        };
        json!({
            "kind": kind,
            "requested": refusal.requested,
            "limit": refusal.limit,
            "after_us": micros(refusal.after),
        })
    };
    report.refusals.as_ref().map_or(Value::Null, |refusals| {
        json!({ "count": refusals.count, "first": one(&refusals.first), "last": one(&refusals.last) })
    })
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_and_hold_no_terminal_commands() {
        let text = Object::new()
            .field("a\"b", "\u{9b}31m\u{202e}\u{1b}ä")
            .raw("raw", "[1]")
            .bytes("bytes", b"\xff\x00")
            .finish();
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({"a\"b": "\u{9b}31m\u{202e}\u{1b}ä", "raw": [1], "bytes": {"base64": "/wA="}});
        assert_eq!(value, expected);
    }
}
