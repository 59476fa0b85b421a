//! The JSON objects of `--json` and of `map`: what happened to a task, and what it cost.

use std::io;

use bytes::Bytes;
use serde_json::{Value, json};

use super::exit::Failure;
use json::{LARGE_BYTES, LargeValue};
use proto::limits::GUEST_TEXT_BYTES_MAX;
use wasmpool::TaskError;
use wasmpool::error::{Frame, ModuleError};
use wasmpool::limits::ExceededLimit;
use wasmpool::task::{CommandOutput, PartialOutput, Refusal, TaskReport};

/// An object on one line. Parts that are JSON already are taken over as they are.
#[derive(Debug)]
pub(super) struct Object {
    /// Pieces of text, each with a large output behind it, stand before `text`.
    before: Vec<(String, Large)>,
    text: String,
}

/// An output that becomes JSON as it is written.
#[derive(Debug)]
enum Large {
    Bytes(Bytes),
    Value(LargeValue),
}

impl Large {
    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        match self {
            Large::Bytes(bytes) => json::write_bytes_to(out, bytes),
            Large::Value(value) => value.write(out),
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Large::Bytes(bytes) => bytes.len(),
            Large::Value(value) => value.held_bytes(),
        }
    }
}

/// A finished object. Its large outputs are written a piece at a time.
#[derive(Debug)]
pub(super) struct Line(Object);

impl Line {
    /// Writes it, without an end of the line.
    pub(super) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let Object { before, text } = &self.0;
        for (text, large) in before {
            out.write_all(text.as_bytes())?;
            large.write(out)?;
        }
        out.write_all(text.as_bytes())
    }

    /// Returns how many bytes it takes in this process until it is written.
    pub(super) fn held_bytes(&self) -> usize {
        let Object { before, text } = &self.0;
        before.iter().map(|(text, large)| text.len() + large.held_bytes()).sum::<usize>() + text.len()
    }
}

impl Object {
    pub(super) fn new() -> Self {
        Object { before: Vec::new(), text: "{".into() }
    }

    pub(super) fn field(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.key(key);
        json::push_value(&mut self.text, &value.into());
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
        self.text.push_str(json);
        self
    }

    pub(super) fn bytes(mut self, key: &str, bytes: &Bytes) -> Self {
        if bytes.len() > LARGE_BYTES {
            return self.large(key, Large::Bytes(bytes.clone()));
        }
        self.key(key);
        json::push_bytes(&mut self.text, bytes);
        self
    }

    pub(super) fn value(self, key: &str, value: &LargeValue) -> Self {
        self.large(key, Large::Value(value.clone()))
    }

    fn large(mut self, key: &str, large: Large) -> Self {
        self.key(key);
        self.before.push((std::mem::take(&mut self.text), large));
        self
    }

    pub(super) fn command_output(self, output: &CommandOutput) -> Self {
        self.field("exit_code", output.exit_code.cast_unsigned())
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

    /// Ends an object without outputs of tasks.
    pub(super) fn finish(self) -> String {
        let mut text = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = self.into_line().write(&mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn into_line(mut self) -> Line {
        self.text.push('}');
        Line(self)
    }

    fn key(&mut self, key: &str) {
        if !self.before.is_empty() || self.text.len() > 1 {
            self.text.push(',');
        }
        json::push_string(&mut self.text, key);
        self.text.push(':');
    }
}

/// Returns the whole line of a failure: `{"ok": false, "error": {"kind": …, "message": …, …}}`.
pub(super) fn failure(failure: &Failure) -> String {
    Object::new().field("ok", false).raw("error", &error(failure)).finish()
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

fn exceeded(other: &ExceededLimit) -> Value {
    json!({"compile_limit": other.kind.to_string(), "limit": other.limit, "seen": other.seen})
}

fn of_module(object: Object, error: &ModuleError) -> Object {
    match error {
        ModuleError::CompileLimit { kind, limit, seen, function, offset, others, .. } => object
            .field("compile_limit", kind.to_string())
            .field("limit", *limit)
            .field("seen", *seen)
            .field_if_some("function", *function)
            .field_if_some("offset", *offset)
            .field_if_some(
                "others",
                (!others.is_empty()).then(|| others.iter().map(exceeded).collect::<Value>()),
            ),
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
        TaskError::Trap { code, backtrace, stderr, .. } => object
            .field("trap", code.to_string())
            .field("backtrace", frames(backtrace))
            .field_if_some("stderr", Some(stderr.as_str()).filter(|stderr| !stderr.is_empty())),
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
        TaskError::Guest { data, chain, .. } => {
            let object = if chain.is_empty() { object } else { object.field("chain", chain.clone()) };
            let decoded =
                data.as_ref().map(|data| json::decode(data.schema(), data.bytes(), GUEST_TEXT_BYTES_MAX));
            match decoded {
                Some(Ok(data)) => object.raw("data", &data),
                // The message says it in words.
                Some(Err(_)) | None => object,
            }
        }
        TaskError::Broken(broken) => object
            .field("worker_pid", broken.pid())
            .field_if_some("signal", broken.signal())
            .field_if_some("worker_exit_code", broken.exit_code()),
        TaskError::WorkerDied(death) => object.field("worker_pid", death.pid),
        TaskError::NoWorker(shortage) => object.field_if_some("limit", shortage.limit),
        TaskError::Exit { output } => object.field("exit_code", output.exit_code.cast_unsigned()),
        // The message of the others says all there is.
        _ => object,
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
                "file": frame.location.as_ref().map(|location| &location.file),
                "line": frame.location.as_ref().map(|location| location.line),
                "column": frame.location.as_ref().and_then(|location| location.column),
                "inlined": frame.is_inlined,
                "left_out": frame.left_out,
                "left_out_behind": frame.left_out_behind,
            })
        })
        .collect()
}

/// Returns what a task cost, with times in microseconds; `null` is what is not known.
pub(super) fn report(report: &TaskReport) -> String {
    Object::new()
        .field("queued_us", micros(report.queued))
        .field("run_us", micros(report.run))
        .field("total_us", micros(report.total))
        .field("cpu_us", report.cpu.map(micros))
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

/// Lists the memory that the task asked for and did not get; mostly that is none.
fn refusals(report: &TaskReport) -> Value {
    let one = |refusal: Option<&Refusal>| {
        let refusal = refusal?;
        Some(json!({
            "kind": refusal.kind.name(),
            "requested": refusal.requested,
            "limit": refusal.limit,
            "after_us": micros(refusal.after),
        }))
    };
    report.refusals.as_ref().map_or(Value::Null, |refusals| {
        json!({ "count": refusals.count(), "first": one(refusals.first()), "last": one(refusals.last()) })
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
            .bytes("bytes", &Bytes::from_static(b"\xff\x00"))
            .finish();
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({"a\"b": "\u{9b}31m\u{202e}\u{1b}ä", "raw": [1], "bytes": {"base64": "/wA="}});
        assert_eq!(value, expected);
    }

    #[test]
    fn a_large_output_is_held_as_it_came_and_written_as_json() {
        let control = Bytes::from(vec![1; LARGE_BYTES + 1]);
        let line = Object::new().bytes("a", &control).field("b", 2).bytes("c", &control).into_line();
        assert!(line.held_bytes() < 2 * control.len() + 64, "{}", line.held_bytes());
        let mut written = Vec::new();
        line.write(&mut written).expect("writes");
        let value: Value = serde_json::from_slice(&written).expect("JSON");
        let text = "\u{1}".repeat(control.len());
        assert_eq!(value, json!({"a": text, "b": 2, "c": text}));
    }
}
